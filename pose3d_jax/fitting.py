"""A lifter's clip made consistent: with its 2D points, with one body, with smooth motion.

Each view by itself. A lifter that sees a frame, or a second, knows a limb's direction to the camera
to some degrees only; but a limb that keeps its length over a clip, and whose two ends are seen,
leaves no more than the sign open. What is most probable, given the keypoints, what the lifter says,
distances that do not change and motion that is mostly quiet, is found by `trajectory.fit`. No
labels are needed: which distances do not change, and by how much the lifter errs, is read from its
training poses, which may be triangulated.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax import cameras as cam
from pose3d_jax import pieces, posterior, trajectory
from pose3d_jax.cameras import Camera, Leaf
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.posterior import Bones
from pose3d_jax.schema import Observations, Prediction
from pose3d_jax.skeleton import Skeleton

# Frames that are solved for together, and that neighbours share: long enough to see every limb
# from several sides.
PIECE, OVERLAP = 512, 64
_STEP = 128  # shorter clips are padded to a multiple: few programs

# Distances that vary less than this within a clip (standard deviation, metres) are held constant;
# none is taken to be more constant than bones of real people are.
_RIGID = 0.005
_LEAST_ERROR = 0.005  # metres

# How far detectors' keypoints are off where the person is (standard deviation, metres), and no
# nearer than so many pixels: the 2 px of the noise `typical`, of people five metres from
# Human3.6M's cameras. Detectors scale people to one size, so that errors grow with them; that one
# view cannot tell them from motion is why they are not estimated.
_DETECTED = 0.009
_LEAST_PX = 0.5


_to_world = jax.jit(cam.batched(cam.to_world))


@jax.jit
def _projected(
    cameras: Camera, joints: Float[Array, "frames views joints 3"]
) -> Float[Array, "frames views joints 2"]:
    """Camera-frame joints in the view's own distorted pixels."""
    world = cam.batched(cam.to_world)(cameras, joints)
    return cam.batched(cam.project)(cameras, world)


class FitError(UserError):
    """A prediction or data that cannot be fitted."""


class Settings(NamedTuple):
    """See `config.evaluation.fit`."""

    sigma_px: float = 0.3  # of the keypoints' errors
    exact: bool = False  # keypoints are without error: joints end on their rays
    correlation: float = 0.0  # of a keypoint's error with that a thirtieth of a second before
    doubt: float = 1.0  # standard deviation of its errors, in mean errors in training
    alike: float = 1 / 3  # seconds over which they are much the same
    rounds: int = 1  # before each but the first, the points of what was fitted are lifted anew


@struct.dataclass
class Body:
    """What training poses say of bodies, and of a lifter."""

    spread: Leaf  # [pairs] standard deviation of a distance within clips, metres
    error: Leaf  # [joints] mean absolute, about the root, per axis, metres; the root's own
    pairs: Bones = struct.field(pytree_node=False, default=())


def measure(data: PoseData, predicted: Prediction) -> Body:
    """The body of a split's poses, and what a lifter made of them: joints `[frames, V, J, 3]`.

    Raises `FitError` as `check` does.
    """
    check(data)
    labels = jax.tree.map(np.asarray, data.poses.labels)
    root = data.joint_skeleton.root
    valid: Any = np.greater(labels.joints_valid, 0)
    posed = valid & valid[:, root, None]
    # In a moment nothing changes.
    long = [
        clip
        for clip, identity in zip(windows.clips(data.poses), windows.identities(data), strict=True)
        if len(clip) >= identity.fps
    ]
    pairs, spread = _rigid(labels.joints, valid, long, data.joint_skeleton)
    world = np.asarray(_to_world(data.poses.observations.cameras, jnp.asarray(predicted.joints)))
    off = world - labels.joints[:, None]
    off = np.where(np.arange(off.shape[2])[:, None] == root, off, off - off[:, :, [root]])
    seen: Any = np.any(np.asarray(data.poses.observations.confidence), axis=2)
    counted = seen[:, :, None] & posed[:, None]
    # Root mean squares would be those of the few poses that it did not understand at all.
    total = np.sum(np.abs(off).mean(axis=-1), axis=(0, 1), where=counted)
    count = counted.sum(axis=(0, 1))
    error = np.where(count > 0, total / np.maximum(count, 1), 1.0)
    return Body(spread, np.maximum(error, _LEAST_ERROR).astype(np.float32), pairs)


def _rigid(
    joints: Float[np.ndarray, "frames joints 3"],
    valid: Any,
    clips: Sequence[range],
    skeleton: Skeleton,
) -> tuple[Bones, Float[np.ndarray, "pairs"]]:
    """The bones and other pairs of joints whose distance stays; and how much each varies."""
    first, second = np.triu_indices(skeleton.size, 1)
    variances, weights = [], []
    for clip in [range(0), *clips]:
        at = slice(clip.start, clip.stop)
        both = valid[at][:, first] & valid[at][:, second]
        apart = np.linalg.norm(joints[at][:, first] - joints[at][:, second], axis=-1)
        weight = both.sum(axis=0)
        mean = np.sum(apart * both, axis=0) / np.maximum(weight, 1)
        variances.append(np.sum(both * (apart - mean) ** 2, axis=0))
        weights.append(weight)
    total = np.sum(weights, axis=0)
    spread = np.sqrt(np.sum(variances, axis=0) / np.maximum(total, 1))
    spread = np.where(total > 0, spread, np.inf)
    bones = {tuple(sorted(bone)) for bone in skeleton.bones}
    bone = [pair in bones for pair in zip(first.tolist(), second.tolist(), strict=True)]
    held = (spread < _RIGID) | bone
    pairs = tuple(zip(first[held].tolist(), second[held].tolist(), strict=True))
    varies = np.clip(spread[held], posterior.BONE, 10 * posterior.BONE)
    return pairs, varies.astype(np.float32)


def fit_in_rounds(
    data: PoseData,
    predicted: Prediction,
    body: Body,
    settings: Settings,
    lift: Callable[[PoseData], Prediction],
    *,
    piece: int = PIECE,
    overlap: int = OVERLAP,
) -> Prediction:
    """`fit_split`, and again from what `lift` makes of the fitted joints' points.

    Where points are noisy or missing, those of the fitted joints are better ones.
    """
    fit = functools.partial(fit_split, data, body=body, settings=settings)
    fitted = fit(predicted, piece=piece, overlap=overlap)
    for _ in range(settings.rounds - 1):
        observations = data.poses.observations
        points = _projected(observations.cameras, jnp.asarray(fitted.joints))
        # Where a view sees nothing at all there is nothing to go by.
        seen = jnp.any(observations.confidence > 0, axis=-1, keepdims=True)
        again = dataclasses.replace(
            observations,
            keypoints=jnp.where(seen[..., None], points, 0.0),
            confidence=jnp.broadcast_to(seen, observations.confidence.shape).astype(jnp.float32),
        )
        clean = dataclasses.replace(data, poses=dataclasses.replace(data.poses, observations=again))
        fitted = fit(lift(clean), piece=piece, overlap=overlap)
    return fitted


def fit_split(
    data: PoseData,
    predicted: Prediction,
    body: Body,
    settings: Settings,
    *,
    piece: int = PIECE,
    overlap: int = OVERLAP,
) -> Prediction:
    """Every clip and view of a split fitted; predictions, in and out, are `[frames, V, J, 3]`.

    Clips are cut into pieces of so many frames at most, which overlap and are put together.
    Raises `FitError` for predictions that are not where the joints are in space.
    """
    if predicted.space != "absolute":
        raise FitError(f"a fit needs absolute joints; these are {predicted.space}")
    observations = jax.tree.map(np.asarray, data.poses.observations)
    root = data.joint_skeleton.root
    found = np.array(predicted.joints, np.float32)
    solve = functools.partial(_solve, body=body, exact=settings.exact, root=root)
    for clip, identity in zip(windows.clips(data.poses), windows.identities(data), strict=True):
        by_frame = settings._replace(
            correlation=settings.correlation ** (30 / identity.fps),
            alike=max(1.0, settings.alike * identity.fps),
        )
        at = slice(clip.start, clip.stop)
        own, lifted = jax.tree.map(lambda x, at=at: x[at], (observations, found))
        length = piece + piece % 2 if len(clip) > piece else -(-len(clip) // _STEP) * _STEP
        parts = []
        for first in pieces.firsts(len(clip), piece, overlap):
            within = jax.tree.map(lambda x, at=first: x[at : at + piece], own)
            seen, inside = pieces.cut(within, 0, length)
            frame = np.minimum(first + np.arange(length), len(clip) - 1)
            joints = solve(seen, lifted[frame], inside, settings=by_frame)
            parts.append({"joints": np.asarray(joints)})
        found[at] = pieces.join(parts, len(clip), piece, overlap)["joints"]
    return dataclasses.replace(predicted, joints=found)


def check(data: PoseData) -> None:
    """Raises `FitError` where joints are not the keypoints, and where none has its 3D."""
    if data.keypoint_skeleton != data.joint_skeleton:
        raise FitError(
            f"a fit compares joints with keypoints, but the joints are {data.joint_skeleton.name} "
            f"and the keypoints {data.keypoint_skeleton.name}; switch evaluation.fit off, or set "
            f"data.joint_skeleton to {data.keypoint_skeleton.name}"
        )
    valid = np.asarray(data.poses.labels.joints_valid) > 0
    if np.any(valid & valid[:, data.joint_skeleton.root, None], axis=0).sum() < 2:
        raise FitError(
            "the training split has no 3D poses to learn a body from; let streams.main.joints be "
            "a row of triangulation, or neither fit (evaluation.fit) nor adapt poses"
        )


def detectors_noise(
    observations: Observations, joints: Float[np.ndarray, "frames views joints 3"], root: int
) -> float:
    """How much a detector's keypoints of a clip may err: a standard deviation, pixels.

    `joints` are what a lifter says, in camera frames: where it sees the root tells how many pixels
    a metre has. The median over the frames and views that see anything.
    """
    seen = np.max(np.asarray(observations.confidence), axis=-1) > 0
    focal = np.mean(np.asarray(observations.cameras.focal), axis=-1)
    scale = focal / np.maximum(np.asarray(joints)[:, :, root, 2], 0.1)
    return max(_DETECTED * float(np.median(scale[seen])), _LEAST_PX)


@functools.partial(jax.jit, static_argnames=("exact", "root"))
def _solve(
    observations: Observations,
    lifted: Float[Array, "time views joints 3"],
    inside: Float[Array, "time"],
    *,
    body: Body,
    settings: Settings,
    exact: bool,
    root: int,
) -> Float[Array, "time views joints 3"]:
    """Camera-frame joints of one piece, each view by itself."""

    def one(view: Observations, lifted: Array) -> Array:
        joints = cam.batched(cam.to_world)(view.cameras, lifted)
        # What sees nothing says nothing.
        told = inside * (view.confidence > 0).any(axis=(1, 2))
        precision = 1 / ((settings.doubt * body.error) ** 2 * settings.alike)
        model = posterior.Model(
            observations=view,
            inside=inside,
            start=joints[:, 0],
            sigma=jnp.asarray(settings.sigma_px, jnp.float32),
            correlation=jnp.asarray(settings.correlation, jnp.float32),
            step=trajectory.motion_scale(joints[:, 0], inside),
            bones=body.pairs,
            bone=body.spread,
            belief=posterior.Belief(joints[:, 0], told[:, None] * precision[None], root),
        )
        solved = trajectory.fit(model)[0]
        found = cam.batched(cam.to_camera)(view.cameras, solved[:, None])
        found = jnp.where(told.any(), found, lifted)  # there is nothing to fit to
        return _on_rays(view, found)[:, 0] if exact else found[:, 0]

    apart = jax.tree.map(lambda x: x[:, :, None], observations)
    return jax.vmap(one, in_axes=(1, 1), out_axes=1)(apart, lifted[:, :, None])


def _on_rays(
    observations: Observations, joints: Float[Array, "time views joints 3"]
) -> Float[Array, "time views joints 3"]:
    """Joints at their depth on the rays of their keypoints, where those are seen."""
    points = cam.batched(cam.normalise)(observations.cameras, observations.keypoints)
    depth = joints[..., 2:]
    placed = depth * jnp.concatenate([points, jnp.ones_like(depth)], axis=-1)
    return jnp.where(observations.confidence[..., None] > 0, placed, joints)


def settings_of(fit: Mapping[str, Any]) -> Settings:
    """As `config.evaluation.fit` says."""
    return Settings(**{name: fit[name] for name in Settings._fields})
