"""Clips cut into pieces that overlap, and put together again.

What is solved for piece by piece needs memory for neither the number nor the length of clips.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float

from pose3d_jax.schema import Observations

T = TypeVar("T", bound=Mapping)


def firsts(frames: int, piece: int, overlap: int) -> list[int]:
    """The first frames of a clip's pieces, which share `overlap`; the last ends with the clip."""
    if frames <= piece:
        return [0]
    return [*range(0, frames - piece, piece - overlap), frames - piece]


def cut(
    observations: Observations, first: int, length: int
) -> tuple[Observations, Float[np.ndarray, "length"]]:
    """`length` frames, padded by repeating the last with nothing seen, and which are no padding."""
    frame = first + np.arange(length)
    inside = (frame < len(observations.confidence)).astype(np.float32)
    frame = np.minimum(frame, len(observations.confidence) - 1)
    found: Observations = jax.tree.map(lambda x: np.asarray(x)[frame], observations)
    return dataclasses.replace(found, confidence=found.confidence * inside[:, None, None]), inside


def join(found: Sequence[T], frames: int, piece: int, overlap: int) -> T:
    """The pieces of a clip end to end, each up to the middle of what it shares with the next."""
    starts = firsts(frames, piece, overlap)
    lasts = [min(first + piece, frames) for first in starts]
    seams = [0, *((a + b) // 2 for a, b in zip(lasts, starts[1:])), frames]  # noqa: B905

    def ends(*xs: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [x[a - first : b - first] for x, first, a, b in zip(xs, starts, seams, seams[1:])]  # noqa: B905
        )

    joined: T = jax.tree.map(ends, *found)
    return joined
