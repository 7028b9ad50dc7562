"""Clips cut into pieces that overlap, and put together again.

What is solved for piece by piece needs memory for neither the number nor the length of clips.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pose3d_jax.schema import Observations

T = TypeVar("T", bound=Mapping)

# Pieces at once on an accelerator; a processor gains nothing by it.
_CHUNK = 32


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


def solve(
    clips: Sequence[Observations],
    more: Sequence[Any],
    solver: Callable[..., T],
    piece: int,
    overlap: int,
    chunk: int = 0,
) -> Iterator[T]:
    """What `solver(observations, more, inside)` makes of each of several clips, NumPy's arrays.

    The solver is given a batch `[pieces, T, ...]`, `chunk` of them at a time (by default as many as
    are of use), all in one program: what pads a piece repeats its last frame, and is not `inside`.
    `more` has, for each clip, a tree of further arrays by frame.
    """
    lengths = [len(clip.confidence) for clip in clips]
    cuts = [(i, first) for i, n in enumerate(lengths) for first in firsts(n, piece, overlap)]
    longest = max(lengths, default=1)
    length = piece if longest > piece else -(-longest // 32) * 32
    size = min(chunk or (1 if jax.default_backend() == "cpu" else _CHUNK), max(len(cuts), 1))
    found: list[T] = []
    for first in range(0, len(cuts), size):
        own = cuts[first : first + size]
        padded = own + own[-1:] * (size - len(own))
        batch = [
            (*cut(clips[i], start, length), _cut_more(more[i], start, length))
            for i, start in padded
        ]
        observations, inside, rest = jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *batch)
        solved = jax.tree.map(np.asarray, solver(observations, rest, inside))
        for i, (clip, _) in enumerate(own):
            found.append(jax.tree.map(lambda x, i=i: x[i], solved))
            if first + i + 1 == len(cuts) or cuts[first + i + 1][0] != clip:
                yield join(found, lengths[clip], piece, overlap)
                found = []


def _cut_more(tree: Any, first: int, length: int) -> Any:
    """`length` frames of any arrays by frame, the last of them repeated."""

    def own(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        return x[np.minimum(first + np.arange(length), len(x) - 1)]

    return jax.tree.map(own, tree)
