"""3D human pose from 2D observations, with or without 3D labels, in JAX."""

__version__ = "0.1.0"
