"""From predictions to errors and tables: the method beside triangulation and the mean pose.

Every row is scored on the same frames, views and joints. Errors are in metres.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pose3d_jax import cameras as cam
from pose3d_jax import metrics, references
from pose3d_jax.data.poses import PoseData
from pose3d_jax.geometry import safe_divide, safe_norm
from pose3d_jax.methods.base import Info, view_seen
from pose3d_jax.schema import Clip, Observations, Prediction
from pose3d_jax.triangulate import triangulate

# Row -> metric -> error of each window, frame and view.
Errors = Mapping[str, Mapping[str, np.ndarray]]


def score(
    info: Info,
    data: PoseData,
    predicted: Prediction,
    batch_size: int,
    mean: Float[Array, "joints 3"] | None = None,
    *,
    rows: Sequence[str] | None = (),
) -> tuple[Errors, np.ndarray]:
    """Errors of every frame and view, and which of them count: `[frames, 1, V]`.

    Rows are `method` and the references: `triangulation` (where there are two views; then every row
    is scored on the joints that it finds), further `rows` of `references` as `triangulation_ROW`,
    and (given `mean`) `mean_pose`; with `rows` None there are no references. `acceleration` is NaN
    where three successive frames do not count.

    Args:
      info: the joint sets.
      data: a split in windows of one frame.
      predicted: what the method predicts for it, `[frames, V, J, 3]`: see `inference`.
      batch_size: frames at once.
      mean: a mean pose, root-relative, metres.
      rows: of `references`.
    """
    worlds = reconstructed(info, data, rows) if rows else {}
    stop = np.asarray(data.poses.stop)
    fps = np.array([identity.fps for identity in data.identities], np.float32)
    parts = []
    for indices, count in batches(data.poses.size, batch_size):
        # With the two frames before them, which their accelerations need.
        reached = np.maximum(np.concatenate([indices[0] - np.array([2, 1]), indices]), 0)
        follows = (stop[reached[:-2]] == stop[indices]) & (reached[:-2] == indices - 2)
        result = eval_step(
            info,
            data.poses.take(jnp.asarray(reached)),
            jax.tree.map(lambda x, i=reached: jnp.asarray(x[i][:, None]), predicted),
            mean,
            None
            if rows is None
            else {row: found[reached][:, None] for row, found in worlds.items()},
            jnp.asarray(np.where(follows, fps[indices], 0.0)),
        )
        parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], result))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@functools.partial(jax.jit, static_argnums=0)
def eval_step(
    info: Info,
    clip: Clip,
    predicted: Prediction,
    mean: Float[Array, "joints 3"] | None,
    worlds: Mapping[str, Float[Array, "batch time joints 3"]] | None,
    fps: Float[Array, "scored"],
) -> tuple[dict[str, dict[str, Array]], Array]:
    """`score` for one batch of successive frames `[B, 1, ...]`: errors and mask `[B - 2, 1, V]`.

    The first two frames are not scored. `worlds` are the points of further references; None: no
    references at all. `fps` is 0 where a frame does not follow upon the two before it.
    """
    observations, labels = clip.observations, clip.labels
    views = observations.confidence.shape[2]
    truth = in_views(observations, labels.joints)
    valid = per_view(labels.joints_valid, views)
    root = info.joint_skeleton.root
    rows = {"method": (predicted.joints, predicted.space)}
    if worlds is not None and views > 1:
        points, found = triangulated(observations, info)
        valid = valid * per_view(found, views)
        rows["triangulation"] = (in_views(observations, points), "absolute")
        rows |= {
            f"triangulation_{row}": (in_views(observations, world), "absolute")
            for row, world in worlds.items()
        }
    if worlds is not None and mean is not None:
        constant = jnp.broadcast_to(mean[None, None, None], truth.shape)
        rows["mean_pose"] = (constant, "root_relative")
    scored = _over_views(functools.partial(metrics.scored, root=root))(valid)
    scored = scored & (view_seen(observations.confidence) > 0)
    errors = _errors(rows, truth, valid, root)
    for row, (joints, space) in rows.items():
        if space == "absolute":
            errors[row]["pck_2d"] = _share_in_view(joints, observations, valid, info)
    errors = jax.tree.map(lambda x: x[2:], errors)
    for row, (joints, space) in rows.items():
        if space != "up_to_scale":
            off = joints - truth
            off = off - off[..., root : root + 1, :]
            errors[row]["acceleration"] = _accelerations(off, valid * scored[..., None], fps)
    return errors, scored[2:]


def per_view(x: Float[Array, "batch time *rest"], views: int) -> Float[Array, "batch time V *rest"]:
    """The same for every view."""
    return jnp.repeat(x[:, :, None], views, axis=2)


def in_views(
    observations: Observations, world: Float[Array, "batch time joints 3"]
) -> Float[Array, "batch time views joints 3"]:
    """World points in every view's camera frame."""
    views = observations.confidence.shape[2]
    return cam.batched(cam.to_camera)(observations.cameras, per_view(world, views))


def _accelerations(
    off: Float[Array, "batch time views joints 3"],
    valid: Float[Array, "batch time views joints"],
    fps: Float[Array, "scored"],
) -> Float[Array, "scored time views"]:
    """Error of the acceleration at each frame but the first two, m/s^2, mean over joints, or NaN.

    `off` is how far the prediction is from the truth. See `metrics.acceleration_error`.
    """
    second = off[2:] - 2 * off[1:-1] + off[:-2]
    known = valid[2:] * valid[1:-1] * valid[:-2] * (fps > 0)[:, None, None, None]
    rate = (fps**2)[:, None, None]
    count = jnp.sum(known, axis=-1)
    error = safe_divide(jnp.sum(known * safe_norm(second), axis=-1), count) * rate
    return jnp.where(count > 0, error, jnp.nan)


def triangulated(
    observations: Observations, info: Info
) -> tuple[Float[Array, "batch time joints 3"], Float[Array, "batch time joints"]]:
    """World points of the joints, metres, and which were found: none without a keypoint's name."""
    points, found = triangulate(observations)
    index, known = _keypoints_of_joints(info)
    there = jnp.broadcast_to(jnp.asarray(known), (*found.shape[:-1], len(known)))
    return points[..., index, :] * there[..., None], found[..., index] * there


def reconstructed(
    info: Info, data: PoseData, rows: Sequence[str]
) -> dict[str, Float[np.ndarray, "frames joints 3"]]:
    """World points of all frames, metres, by rows of `references`, clip by clip.

    Joints without a keypoint of their name are 0. Nothing for a single view.
    """
    if data.poses.observations.confidence.shape[1] < 2:
        return {}
    index, known = _keypoints_of_joints(info)
    return {
        row: (estimate.joints[:, index] * known[:, None]).astype(np.float32)
        for row, estimate in references.reconstruct_split(data, rows).items()
    }


def _keypoints_of_joints(info: Info) -> tuple[np.ndarray, np.ndarray]:
    """For each joint the keypoint of its name, and 1 where there is one, else 0."""
    keypoints, joints = info.keypoint_skeleton.joints, info.joint_skeleton.joints
    index = np.array([keypoints.index(name) if name in keypoints else 0 for name in joints])
    return index, np.array([float(name in keypoints) for name in joints], np.float32)


def mean_pose(data: PoseData) -> Float[Array, "joints 3"] | None:
    """Mean root-relative pose, metres, over all labelled frames and views; None without labels."""
    root = data.joint_skeleton.root
    labels = data.poses.labels
    joints, seen = map(np.asarray, _seen(data.poses.observations, labels.joints))
    labelled = np.asarray(labels.joints_valid)[:, None]
    weight = seen[..., None] * labelled * labelled[..., [root]]
    if not weight.any():
        return None
    relative = joints - joints[..., [root], :]
    total = np.maximum(weight.sum((0, 1)), 1)
    return jnp.asarray((relative * weight[..., None]).sum((0, 1)) / total[:, None], jnp.float32)


@jax.jit
def _seen(
    observations: Observations, world: Float[Array, "frames joints 3"]
) -> tuple[Float[Array, "frames views joints 3"], Float[Array, "frames views"]]:
    """World points in every view's camera frame, and the views that see anything."""
    views = observations.confidence.shape[1]
    joints = cam.batched(cam.to_camera)(
        observations.cameras, jnp.repeat(world[:, None], views, axis=1)
    )
    return joints, view_seen(observations.confidence)


def summarise(errors: Errors, mask: np.ndarray, data: PoseData) -> dict[str, Any]:
    """The tables of one split: means over frames, over groups' means, and by action and so on."""

    def mean(row: str, metric: str, chosen: np.ndarray) -> float | None:
        values = errors[row].get(metric)
        if values is None:
            return None
        values = values[chosen & mask]
        if metric == "acceleration":
            values = values[~np.isnan(values)]  # of frames that do not follow upon two others
        return float(values.mean(dtype=np.float64)) if values.size else None

    def windows(field: str, value: str) -> np.ndarray:
        found = np.array([getattr(identity, field) == value for identity in data.identities])
        return np.broadcast_to(found[:, None, None], mask.shape)

    def values_of(field: str) -> list[str]:
        return sorted({getattr(identity, field) for identity in data.identities})

    everything = np.ones_like(mask)
    parts = {
        field: [windows(field, value) for value in values_of(field)]
        for field in ("group", "action")
    }
    names = [*metrics.METRICS, "pck_2d", "acceleration"]

    def mean_of_means(row: str, metric: str, field: str) -> float | None:
        means = [mean(row, metric, chosen) for chosen in parts[field]]
        present = [value for value in means if value is not None]
        return float(np.mean(present)) if present else None

    def table(chosen: np.ndarray) -> dict[str, dict[str, float | None]]:
        return {row: {metric: mean(row, metric, chosen) for metric in names} for row in errors}

    return {
        "frames": _frames(mask),
        "clips": len({(identity.dataset, identity.clip) for identity in data.identities}),
        "rows": {
            row: {
                metric: {
                    "frames": mean(row, metric, everything),
                    "groups": mean_of_means(row, metric, "group"),
                    "actions": mean_of_means(row, metric, "action"),
                }
                for metric in names
            }
            for row in errors
        },
        "breakdown": {
            field: {
                value: {
                    "frames": _frames(mask & windows(field, value)),
                    "rows": table(windows(field, value)),
                }
                for value in values_of(field)
            }
            for field in ("action", "subject", "group")
        },
    }


def by_clip(errors: Errors, mask: np.ndarray, data: PoseData) -> dict[str, Any]:
    """Sums of errors and counts of what was scored, clip by clip; what `compare` resamples."""
    names = [f"{identity.dataset}/{identity.clip}" for identity in data.identities]
    clips, of_window = np.unique(names, return_inverse=True)
    groups = dict(zip(names, (identity.group for identity in data.identities), strict=True))

    def sums(values: np.ndarray) -> list[float]:
        per_window = values.sum(axis=(1, 2), dtype=np.float64)
        return np.bincount(of_window, per_window, len(clips)).tolist()

    def both(metric: str, values: np.ndarray) -> dict[str, list[float]]:
        counts = mask & ~np.isnan(values) if metric == "acceleration" else mask
        return {"sum": sums(np.where(counts, values, 0.0)), "count": sums(counts)}

    return {
        "fingerprint": data.fingerprint,
        "clips": clips.tolist(),
        "groups": [groups[clip] for clip in clips],
        "rows": {
            row: {metric: both(metric, values) for metric, values in found.items()}
            for row, found in errors.items()
        },
    }


def coverage(
    error: Float[np.ndarray, "errors 3"],
    covariance: Float[np.ndarray, "errors 3 3"],
    levels: tuple[float, ...] = (0.5, 0.8, 0.95),
) -> dict[str, float]:
    """Shares of errors inside the ellipsoids of these levels, by name; nothing of no error.

    See `metrics.inside_ellipsoid`.
    """
    if not len(error):
        return {}
    inside, count = metrics.coverage(
        jnp.asarray(error), jnp.asarray(covariance), jnp.ones(len(error)), levels
    )
    return {f"coverage_{x:.0%}": float(n / count) for x, n in zip(levels, inside, strict=True)}


def batches(size: int, batch_size: int) -> Iterator[tuple[Int[np.ndarray, "batch"], int]]:
    """`range(size)` in batches of one length, and how many of each are real; the last is padded."""
    batch_size = min(batch_size, size)
    for first in range(0, size, batch_size):
        yield np.minimum(first + np.arange(batch_size), size - 1), min(batch_size, size - first)


def _errors(
    rows: Mapping[str, tuple[Array, str]], truth: Array, valid: Array, root: int
) -> dict[str, dict[str, Float[Array, "batch time views"]]]:
    """Each row's metrics, as far as its space goes, from (joints `[B, T, V, J, 3]`, space).

    All rows are scored in one call: XLA's CPU runtime can deadlock where a program holds several
    batched SVDs (Procrustes) that run at once, each waiting for a thread of the same small pool.
    """
    score = functools.partial(metrics.errors, root=root, space="absolute")
    joints = jnp.stack([joints for joints, _ in rows.values()])
    errors = jax.vmap(_over_views(score), in_axes=(0, None, None))(joints, truth, valid)
    return {
        row: {name: errors[name][i] for name in metrics.available(space)}
        for i, (row, (_, space)) in enumerate(rows.items())
    }


def _share_in_view(
    joints: Float[Array, "batch time views joints 3"],
    observations: Observations,
    valid: Float[Array, "batch time views joints"],
    info: Info,
) -> Float[Array, "batch time views"]:
    """2D-PCK of camera-frame joints against the view's own keypoints."""

    def pixels(camera: cam.Camera, point: Array) -> Array:
        return cam.to_pixels(camera, cam.perspective(point))

    index, known = _keypoints_of_joints(info)
    visible = (observations.confidence[..., index] > 0) * valid * known[None, None, None]
    projected = cam.batched(pixels)(observations.cameras, joints)
    return _over_views(metrics.pck_2d)(projected, observations.keypoints[..., index, :], visible)


def _over_views(function: Any) -> Any:
    return jax.vmap(jax.vmap(jax.vmap(function)))


def _frames(mask: np.ndarray) -> int:
    """Frames of which any view counts."""
    return int(mask.any(axis=-1).sum())
