"""3D human pose from 2D observations, with or without 3D labels, in JAX."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pose3d_jax.trained import Trained

__version__ = "0.1.0"


def load(checkpoint: str | Path) -> "Trained":
    """A trained network by its work directory, ready for keypoints: see `trained.Trained`."""
    from pose3d_jax import trained  # who reads the version alone should not wait for JAX

    return trained.load(checkpoint)
