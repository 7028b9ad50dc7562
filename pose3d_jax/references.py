"""What plain geometry gives on the same observations: the rows that every method is held to.

From the plainest to the strongest, all of world joints and all on whole clips: per frame `dlt`,
`weighted`, `robust` and `refined`, per clip `smooth`, `bones` and `smooth_bones`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax import pieces, posterior
from pose3d_jax import trajectory as tj
from pose3d_jax import triangulate as tri
from pose3d_jax.cameras import Leaf
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Labels, Observations
from pose3d_jax.skeleton import Skeleton

PER_FRAME = ("dlt", "weighted", "robust", "refined")
PER_CLIP = ("smooth", "bones", "smooth_bones")
ROWS = (*PER_FRAME, *PER_CLIP)

# Clips are solved for in pieces of so many frames, each of which shares so many with the next:
# memory depends on neither the number nor the length of clips. Motion remembers no more than a
# fraction of a second.
PIECE, OVERLAP = 256, 32


@struct.dataclass
class Estimate:
    """One row's joints of a clip."""

    joints: Leaf  # [T, joints, 3] world, metres, everywhere: `triangulate.infill`
    found: Leaf  # [T, joints] 1 where the row found the joint itself
    covariance: Leaf  # [T, joints, 3, 3] m^2; None of the linear rows


class RowError(UserError):
    """A row that does not exist, or observations that it cannot work with."""


def reconstruct(
    observations: Observations, skeleton: Skeleton, rows: Sequence[str] = ROWS
) -> dict[str, Estimate]:
    """World joints of a clip's observations `[T, views, ...]` by each of the `rows`.

    `skeleton` is the keypoints'. Arrays come back as NumPy's. Raises `RowError` for a row that is
    not in `ROWS`, a clip without frames, fewer than two views, another number of keypoints than the
    skeleton has, and numbers that are not finite.
    """
    return next(iter(reconstruct_all([observations], skeleton, rows)))


def reconstruct_all(
    clips: Sequence[Observations], skeleton: Skeleton, rows: Sequence[str] = ROWS
) -> Iterator[dict[str, Estimate]]:
    """`reconstruct` for each of several clips with the same views, in one compiled program."""
    check(clips, skeleton, rows)
    solver = functools.partial(_solve, skeleton=skeleton, rows=tuple(rows))
    for found in pieces.solve(clips, [()] * len(clips), solver, PIECE, OVERLAP):
        yield {row: found[row] for row in rows}  # jit sorts them


def reconstruct_split(data: PoseData, rows: Sequence[str]) -> dict[str, Estimate]:
    """`reconstruct` for all frames of a loaded split, clip by clip; of its keypoints' joint set."""
    observations = jax.tree.map(np.asarray, data.poses.observations)
    clips = [slice(frames.start, frames.stop) for frames in windows.clips(data.poses)]
    found = reconstruct_all(
        [jax.tree.map(lambda x, clip=clip: x[clip], observations) for clip in clips],
        data.keypoint_skeleton,
        rows,
    )
    frames = len(observations.confidence)
    whole: dict[str, Estimate] = {}
    for clip, estimates in zip(clips, found, strict=True):
        if not whole:
            whole = jax.tree.map(lambda x: np.zeros((frames, *x.shape[1:]), x.dtype), estimates)
        jax.tree.map(lambda all_frames, x, clip=clip: _put(all_frames, clip, x), whole, estimates)
    return whole


def _put(into: np.ndarray, where: slice, values: np.ndarray) -> None:
    into[where] = values


def relabelled(data: PoseData, row: str) -> PoseData:
    """The split with what a row reconstructs of its own keypoints for labels.

    Joints that the row did not find itself are not labelled. Raises `RowError` as `reconstruct`
    does, and where keypoints and joints are not of one joint set.
    """
    if data.keypoint_skeleton != data.joint_skeleton:
        raise RowError(
            f"joints of {data.joint_skeleton.name} cannot be reconstructed from keypoints of "
            f"{data.keypoint_skeleton.name}; give data with one joint set"
        )
    estimate = reconstruct_split(data, (row,))[row]
    joints = np.where(estimate.found[..., None] > 0, estimate.joints, 0).astype(np.float32)
    labels = Labels(joints, estimate.found.astype(np.float32))
    poses = dataclasses.replace(data.poses, labels=jax.device_put(labels))
    return dataclasses.replace(data, poses=poses)


@functools.partial(jax.jit, static_argnames=("skeleton", "rows"))
def _solve(
    observations: Observations,
    more: tuple[()],
    inside: Float[Array, "pieces time"],
    *,
    skeleton: Skeleton,
    rows: tuple[str, ...],
) -> dict[str, Estimate]:
    solve = functools.partial(estimates, skeleton=skeleton, rows=rows)
    return jax.vmap(solve)(observations, inside)


def estimates(
    observations: Observations,
    inside: Float[Array, "time"],
    skeleton: Skeleton,
    rows: tuple[str, ...],
) -> dict[str, Estimate]:
    """Every row of one piece, whose frames are padded, with nothing seen, where `inside` is 0."""
    root = skeleton.root
    found: dict[str, Estimate] = {}

    def filled(points: Array, valid: Array) -> Estimate:
        return Estimate(tri.infill(points, valid, root), valid, None)

    points, valid = tri.triangulate(observations)
    found["dlt"] = filled(points, valid)
    if "weighted" in rows:
        found["weighted"] = filled(*tri.weighted(observations))
    if "robust" in rows:
        found["robust"] = filled(
            *tri.robust(observations, tri.noise_scale(observations, points, valid))
        )
    if set(rows) & {"refined", *PER_CLIP}:
        found["refined"], model = clip_model(observations, inside, skeleton)
        valid = found["refined"].found
    if "smooth" in rows:
        found["smooth"] = Estimate(*_with(tj.fit(dataclasses.replace(model, bones=())), valid))
    if "bones" in rows:
        found["bones"] = Estimate(*_with(tj.fit(dataclasses.replace(model, step=None)), valid))
    if "smooth_bones" in rows:
        found["smooth_bones"] = Estimate(*_with(tj.fit(model), valid))
    return {row: found[row] for row in rows}


def clip_model(
    observations: Observations, inside: Float[Array, "time"], skeleton: Skeleton
) -> tuple[Estimate, posterior.Model]:
    """The row `refined` of a piece, and the model of the row `smooth_bones`, which begins there.

    How much the keypoints err, how alike in time, and how quick joints are is told by the piece.
    """
    points, valid = tri.triangulate(observations)
    sigma = tri.noise_scale(observations, points, valid)
    points, valid = tri.robust(observations, sigma)
    sigma = tri.inlier_scale(observations, points, sigma, valid)
    points, _ = tri.refine(observations, tri.infill(points, valid, skeleton.root), sigma)
    sigma = tri.inlier_scale(observations, points, sigma, valid)
    points, covariance = tri.refine(observations, points, sigma, steps=2)
    covariance = jnp.where(valid[..., None, None] > 0, covariance, tri.unknown(covariance))
    start = tri.infill(points, valid, skeleton.root)
    correlation = tj.correlation_in_time(observations, points, sigma)
    motion = tj.motion_scale(start, inside)
    model = posterior.Model(observations, inside, start, sigma, correlation, motion, skeleton.bones)
    return Estimate(start, valid, covariance), model


def _with(solved: tuple[Array, Array], valid: Array) -> tuple[Array, Array, Array]:
    """Of a joint that no frame of the piece tells nothing is known: priors alone know no place."""
    joints, covariance = solved
    ever = jnp.any(valid > 0, axis=0)[None, :, None, None]
    return joints, valid, jnp.where(ever, covariance, tri.unknown(covariance))


def check(clips: Sequence[Observations], skeleton: Skeleton, rows: Sequence[str]) -> None:
    """Raises `RowError` as `reconstruct` does."""
    for row in rows:
        if row not in ROWS:
            raise RowError(f"no row is named {row!r}; there are {', '.join(ROWS)}")
    for i, clip in enumerate(clips):
        frames, views, joints = clip.confidence.shape
        if not frames:
            raise RowError(f"clip {i} has no frames")
        if views < 2:
            raise RowError(f"clip {i} has {views} view; geometry needs two")
        if views != clips[0].confidence.shape[1]:
            raise RowError(
                f"clip {i} has {views} views, but clip 0 {clips[0].confidence.shape[1]}; pad with "
                f"views that see nothing, or give them apart"
            )
        if joints != skeleton.size:
            raise RowError(f"clip {i} has {joints} keypoints, but {skeleton.name} {skeleton.size}")
        for leaf in jax.tree.leaves(clip):
            if not np.isfinite(leaf).all():
                raise RowError(
                    f"clip {i} holds NaN or infinity; give what is missing confidence 0 and zeros"
                )
