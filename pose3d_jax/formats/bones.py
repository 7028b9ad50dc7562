"""Bones of constant length that lie nearest to joints over time."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

_REFINEMENTS = 3  # Gauss-Newton steps; further ones gained under 0.02 mm on motion capture
_DAMPING = 1e-3  # keeps what no joint tells: bones that were not found, and their lengths
_NOWHERE = 1e-6  # metres: a bone that is shorter in a frame points nowhere
_AT_ONCE = 1024  # frames refined together, which bounds the memory


@dataclasses.dataclass(frozen=True)
class Bones:
    """From each joint's parent to the joint; the root's have no length."""

    root: Float[np.ndarray, "frames 3"]  # its place
    lengths: Float[np.ndarray, "joints"]
    ways: Float[np.ndarray, "frames joints 3"]  # unit vectors; 0 at the root


def fit(
    places: Float[np.ndarray, "frames joints 3"],
    found: Bool[np.ndarray, "frames joints"],
    parents: tuple[int, ...],
    rest: Float[np.ndarray, "joints 3"],
) -> Bones:
    """Lengths are medians; then damped Gauss-Newton steps on the joints' squared distances.

    Args:
      places: metres, parents first; of joints that were not found they are a start.
      found: which distances count.
      parents: by number, the root's -1.
      rest: unit vectors of bones that have no length in a frame.
    """
    arrows = places - places[:, np.maximum(parents, 0)]
    lengths = _lengths(arrows, found, parents)
    there = np.linalg.norm(arrows, axis=-1, keepdims=True) > _NOWHERE
    moved = lengths[:, None] * unit(np.where(there, arrows, rest))
    root = places[:, 0]
    for _ in range(_REFINEMENTS if len(parents) > 1 else 0):
        root, moved = _refined(root, moved, parents, places, found)
    # A bone without any length still turns: as where it was seen, or as in the rest pose.
    ways = unit(np.where(lengths[:, None] > 0, moved, np.where(there, arrows, rest)))
    return Bones(root, lengths, ways)


def unit(vectors: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Vectors of length 1; 0 where they are 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _lengths(
    arrows: Float[np.ndarray, "frames joints 3"],
    found: Bool[np.ndarray, "frames joints"],
    parents: tuple[int, ...],
) -> Float[np.ndarray, "joints"]:
    """Medians over the frames in which both ends were found, if there are any."""
    both = found & found[:, np.maximum(parents, 0)]
    both |= ~both.any(axis=0)
    lengths = np.linalg.norm(arrows, axis=-1)
    return np.array([np.median(lengths[seen, joint]) for joint, seen in enumerate(both.T)])


def _refined(
    root: Float[np.ndarray, "frames 3"],
    bones: Float[np.ndarray, "frames joints 3"],
    parents: tuple[int, ...],
    places: Float[np.ndarray, "frames joints 3"],
    found: Bool[np.ndarray, "frames joints"],
) -> tuple[Float[np.ndarray, "frames 3"], Float[np.ndarray, "frames joints 3"]]:
    """One damped Gauss-Newton step on the distances of the joints that were found."""
    moves = np.eye(len(parents), dtype=bool)  # [joint, the bones that move it, its own last]
    for joint, parent in enumerate(parents[1:], start=1):
        moves[joint] |= moves[parent]
    now = root[:, None] + moves.astype(float) @ bones
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(root), _AT_ONCE)]
    steps = [_step(bones[part], (places - now)[part], found[part], moves) for part in parts]
    step = np.concatenate(steps)
    lengths = np.linalg.norm(bones, axis=-1, keepdims=True)
    return root + step[:, 0], lengths * unit(bones + step)


def _step(
    bones: Float[np.ndarray, "frames joints 3"],
    away: Float[np.ndarray, "frames joints 3"],
    found: Bool[np.ndarray, "frames joints"],
    moves: Bool[np.ndarray, "joints joints"],
) -> Float[np.ndarray, "frames joints 3"]:
    """The root's move, then those of the bones' ends, each across its bone."""
    ways = unit(bones)
    across = np.eye(3) - ways[..., :, None] * ways[..., None, :]
    across[np.linalg.norm(bones, axis=-1) == 0] = 0.0
    across[:, 0] = np.eye(3)
    flat = moves.astype(float)
    both = np.einsum("fj,jb,jc->fbc", found.astype(float), flat, flat, optimize=True)
    normal = np.einsum("fbc,fbik,fckl->fbicl", both, across, across, optimize=True)
    size = 3 * bones.shape[1]
    normal = normal.reshape(len(bones), size, size) + _DAMPING * np.eye(size)
    pulls = across @ (flat.T @ (away * found[..., None]))[..., None]
    return np.linalg.solve(normal, pulls.reshape(-1, size, 1)).reshape(bones.shape)
