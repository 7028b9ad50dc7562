"""What is probably wrong with a data set: units, axes, distortion, joint or camera order, offset.

2D and 3D of the same joints are compared on a sample of frames. Where they disagree, the usual
mistakes are tried one by one, and the one that explains the disagreement is named.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from pose3d_jax import cameras as cam
from pose3d_jax import skeleton
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.schema import Identity, Labels, Observations, Record
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.triangulate import triangulate

OFFSETS = 10  # frames that 2D and 3D may be apart
_THIGH = (0.25, 0.65)  # metres, of children and giants too
_VARIATION = 0.10
_OTHER_BODY = 50.0  # mm; what a file of another gender leaves is less
_EXACT_PX = 0.01  # what agrees as well as this needs no explanation
_CLEARLY = 0.6  # an explanation leaves at most this share of the residual
_FAR = 0.03  # of the image's side: no detector errs so much on average
_NOWHERE = 1e6  # pixels: where joints of a wrong unit or behind a camera may land


class Sample(NamedTuple):
    """Some frames of a clip: joints that have a keypoint of their name, and their surroundings."""

    points: np.ndarray  # [N, V, J, 2] pixels
    seen: np.ndarray  # [N, V, J]
    joints: np.ndarray  # [2 OFFSETS + 1, N, J, 3] world, metres, of the frames around
    valid: np.ndarray  # [2 OFFSETS + 1, N, J]
    cameras: Camera  # [N, V]
    mirrored: tuple[int, ...]  # each joint's counterpart
    names: tuple[str, ...]


def bone_lengths(labels: Labels, joint_set: Skeleton) -> np.ndarray:
    """`[T, bones]`, metres; NaN where an end is not labelled."""
    parents, children = np.array(joint_set.bones).T
    joints, valid = np.asarray(labels.joints, float), np.asarray(labels.joints_valid) > 0
    lengths = np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)
    return np.where(valid[:, parents] & valid[:, children], lengths, np.nan)


def extents(labels: Labels) -> np.ndarray:
    """`[frames, 4]` of frames that are labelled whole: lowest, highest, height, width, metres."""
    whole = (np.asarray(labels.joints_valid) > 0).all(axis=1)
    joints = np.asarray(labels.joints, float)[whole]
    low, high = joints.min(1), joints.max(1)
    width = (high - low)[:, :2].max(-1)
    return np.stack([low[:, 2], high[:, 2], high[:, 2] - low[:, 2], width], axis=1)


def sample(record: Record, count: int) -> Sample:
    """Up to `count` frames of a record, spread over it; the last one is repeated to fill."""
    clip, identity = record
    two, three = (
        skeleton.get(name) for name in (identity.keypoint_skeleton, identity.joint_skeleton)
    )
    names = tuple(name for name in three.joints if name in two.joints)
    twos = [two.joints.index(name) for name in names]
    threes = [three.joints.index(name) for name in names]
    frames = len(clip.labels.joints)
    chosen = np.round(np.linspace(0, frames - 1, count)).astype(int)
    around = np.arange(-OFFSETS, OFFSETS + 1)[:, None] + chosen[None]
    inside = (around >= 0) & (around < frames)
    around = np.clip(around, 0, frames - 1)
    observations, labels = clip.observations, clip.labels
    counterpart = {
        name: three.joints[i] for name, i in zip(three.joints, three.mirrored, strict=True)
    }
    return Sample(
        points=np.asarray(observations.keypoints)[chosen][:, :, twos],
        seen=np.asarray(observations.confidence)[chosen][:, :, twos],
        joints=np.asarray(labels.joints)[around][:, :, threes],
        valid=np.asarray(labels.joints_valid)[around][:, :, threes] * inside[..., None],
        cameras=jax.tree.map(lambda x: np.asarray(x)[chosen], observations.cameras),
        mirrored=tuple(names.index(counterpart[name]) for name in names),
        names=names,
    )


def residuals(samples: Sequence[Sample]) -> dict[str, Any]:
    """Reprojection residual in pixels and triangulation error in mm; nothing without 2D and 3D."""
    if not samples or not samples[0].names:
        return {}
    residual = np.concatenate([_residual(s) for s in samples])  # [N, V, J], NaN where unknown
    found: dict[str, Any] = {}
    if np.isfinite(residual).any():
        found["reprojection_px"] = {
            "median": float(np.nanmedian(residual)),
            "p99": float(np.nanpercentile(residual, 99)),
            "by_camera": [
                float(np.nanmedian(view)) if np.isfinite(view).any() else None
                for view in np.moveaxis(residual, 1, 0)
            ],
        }
    if residual.shape[1] > 1:
        error = np.concatenate([_triangulation_error(s) for s in samples])
        if np.isfinite(error).any():
            found["triangulation_mm"] = {
                "median": 1000 * float(np.nanmedian(error)),
                "p99": 1000 * float(np.nanpercentile(error, 99)),
            }
    return found


def about_bones(
    bones: np.ndarray, joint_set: Skeleton, variation: dict[str, Any] | None
) -> Iterator[str]:
    """Doubts from bone lengths `[clips, bones]`: units and joint order."""
    if variation is None:
        return
    ends = [(joint_set.joints[p], joint_set.joints[c]) for p, c in joint_set.bones]
    knees = ("left_knee", "right_knee", "left_knee_upper", "right_knee_upper")
    thighs = [i for i, (_, child) in enumerate(ends) if child in knees]
    if thighs and np.isfinite(bones[:, thighs]).any():
        length = float(np.nanmedian(bones[:, thighs]))
        for factor, unit in ((1, ""), (1000, "millimetres"), (100, "centimetres"), (0.001, "km")):
            if _THIGH[0] <= length / factor <= _THIGH[1]:
                if unit:
                    yield (
                        f"thighs are {length:.3g} m long: the joints are probably in {unit}, or "
                        f"were converted twice"
                    )
                break
        else:
            yield (
                f"thighs are {length:.3g} m long, which no person's are: units or joint order are "
                f"probably wrong"
            )
    if variation["median"] > _VARIATION:
        yield (
            f"bone lengths vary by {variation['median']:.0%} within a clip: the joints are "
            f"probably in another order, or missing ones hold zeros"
        )


def about_height(height: dict[str, float] | None) -> Iterator[str]:
    """Doubts from how high people are: which axis points up."""
    if height is None:
        return
    if height["median_extent_m"] < 0.8 * height["median_width_m"]:
        yield (
            f"people are {height['median_extent_m']:.2f} m high and {height['median_width_m']:.2f} "
            f"m wide (medians): z is probably not the axis that points up"
        )


def about_bodies(apart: dict[str, float] | None) -> Iterator[str]:
    """Doubts from how far, in mm, posed bodies' joints are from those that came with them."""
    if apart is not None and apart["median"] > _OTHER_BODY:
        yield (
            f"joints of the posed bodies are {apart['median']:.0f} mm from those of the files "
            f"(median): the body is probably not the one that the shapes are of"
        )


def about_projection(
    samples: Sequence[Sample], found: dict[str, Any], identity: Identity
) -> Iterator[str]:
    """Doubts from the reprojection residual: the usual mistake that explains it, if any does."""
    if "reprojection_px" not in found or identity.keypoint_source == "projected":
        return
    before = np.concatenate([_residual(s) for s in samples])
    if (typical := _typical(before)) <= _EXACT_PX:
        return

    def left(change: Callable[[Sample], Sample]) -> float:
        """The share of the residual that a change leaves, of what it lets be compared."""
        after = np.concatenate([_residual(change(s)) for s in samples])
        both = np.isfinite(before) & np.isfinite(after)
        if not both.any():
            return float("inf")
        then, now = (_typical(np.where(both, x, np.nan)) for x in (after, before))
        return then / max(now, _EXACT_PX)

    tried = {what: left(change) for what, change in _mistakes(samples)}
    if not tried or min(tried.values()) > _CLEARLY:
        # Last, since an order can always be found that fits a little better.
        tried |= {what: left(change) for what, change in _other_orders(samples)}
    what, best = min(tried.items(), key=lambda item: item[1], default=("", float("inf")))
    worst = max(x for x in found["reprojection_px"]["by_camera"] if x is not None)
    far = _FAR * float(np.max(samples[0].cameras.size))
    if best <= _CLEARLY and best * typical <= far:
        yield (
            f"3D reprojects {typical:.2f} px from the 2D (mean over cameras and joints), but only "
            f"{best * typical:.2f} px if {what}: that is probably what is wrong"
        )
    elif worst > far:
        yield (
            f"3D reprojects {worst:.0f} px from the 2D (median of the worst camera), and no usual "
            f"mistake explains it: cameras, units, or the joint order are probably wrong"
        )


def _mistakes(samples: Sequence[Sample]) -> Iterator[tuple[str, Callable[[Sample], Sample]]]:
    """What may have gone wrong, and how a sample looks once that is undone."""
    current = float(np.ravel(samples[0].cameras.tangential)[0])
    other, factor = next((n, f) for n, f in TANGENTIAL.items() if f != current)

    def cameras(s: Sample, **fields: Any) -> Sample:
        return s._replace(cameras=dataclasses.replace(s.cameras, **fields))

    yield (
        f"the distortion model is {other!r} (factor {factor:g} of the tangential terms)",
        lambda s: cameras(s, tangential=np.full_like(s.cameras.tangential, factor)),
    )
    yield (
        "the 2D points are undistorted already",
        lambda s: cameras(s, distortion=np.zeros_like(s.cameras.distortion)),
    )
    order = _best_cameras(samples)
    if order != sorted(order):
        yield (
            f"the cameras of the 2D come in the order {', '.join(map(str, order))}",
            functools.partial(_with_cameras, order=order),
        )
    mirrored = list(samples[0].mirrored)
    yield (
        "left and right joints are exchanged",
        lambda s: s._replace(points=s.points[:, :, mirrored], seen=s.seen[:, :, mirrored]),
    )
    for offset in (k for k in range(-OFFSETS, OFFSETS + 1) if k):
        yield (
            f"the 2D is {abs(offset)} frames {'late' if offset < 0 else 'early'}",
            functools.partial(_shifted, offset=offset),
        )


def _other_orders(samples: Sequence[Sample]) -> Iterator[tuple[str, Callable[[Sample], Sample]]]:
    found = _best_order(samples)
    if found != sorted(found):
        names = samples[0].names
        moved = [f"{names[j]} at {names[i]}" for j, i in enumerate(found) if i != j]
        yield (
            f"the 2D joints come in another order ({', '.join(moved[:4])}, ...)",
            lambda s: s._replace(points=s.points[:, :, found], seen=s.seen[:, :, found]),
        )


def _with_cameras(s: Sample, order: list[int]) -> Sample:
    return s._replace(cameras=jax.tree.map(lambda x: x[:, order], s.cameras))


def _shifted(s: Sample, offset: int) -> Sample:
    """The 3D of `offset` frames later."""
    return s._replace(
        joints=np.roll(s.joints, -offset, axis=0), valid=np.roll(s.valid, -offset, axis=0)
    )


def _best_cameras(samples: Sequence[Sample]) -> list[int]:
    """For each view the camera through which the joints lie nearest to it, each taken once."""
    views = samples[0].points.shape[1]
    total = np.zeros((views, views))
    for turn in range(views):
        cameras = np.roll(np.arange(views), -turn)
        apart = np.concatenate([_residual(_with_cameras(s, cameras.tolist())) for s in samples])
        total[np.arange(views), cameras] = [
            np.nanmedian(view) if np.isfinite(view).any() else 0
            for view in np.moveaxis(apart, 1, 0)
        ]
    return [int(i) for i in linear_sum_assignment(total)[1]]


def _best_order(samples: Sequence[Sample]) -> list[int]:
    """For each joint the keypoint that lies nearest to it on average, each taken once."""
    total = np.zeros((len(samples[0].names),) * 2)
    for s in samples:
        apart = _distance(_project(s)[:, :, :, None], s.points[:, :, None])
        both = (s.valid[OFFSETS][:, None, :, None] * s.seen[:, :, None]) > 0
        total += np.where(both, apart, 0).sum((0, 1)) / np.maximum(both.sum((0, 1)), 1)
    return [int(i) for i in linear_sum_assignment(total)[1]]


def _typical(residual: np.ndarray) -> float:
    """Mean over cameras and joints of the median over frames of `[N, V, J]`.

    A detector's outliers do not move it, but two joints or cameras that are exchanged do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # joints that no camera ever sees
        return float(np.nanmean(np.nanmedian(residual, axis=0)))


def _distance(projected: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance in pixels, finite."""
    apart = np.linalg.norm(projected.astype(float) - points, axis=-1)
    return np.minimum(np.nan_to_num(apart, nan=_NOWHERE), _NOWHERE)


def _project(s: Sample) -> np.ndarray:
    """Pixels `[N, V, J, 2]` of the sample's joints."""
    return np.asarray(_project_jitted(s.cameras, s.joints[OFFSETS]))


@jax.jit
def _project_jitted(cameras: Camera, joints: jax.Array) -> jax.Array:
    views = cameras.tangential.shape[1]
    return cam.batched(cam.project)(cameras, jnp.repeat(joints[:, None], views, axis=1))


def _residual(s: Sample) -> np.ndarray:
    """Distance in pixels of the projected joints from the keypoints `[N, V, J]`; NaN if unknown."""
    apart = _distance(_project(s), s.points)
    return np.where(s.valid[OFFSETS][:, None] * s.seen > 0, apart, np.nan)


def _triangulation_error(s: Sample) -> np.ndarray:
    """Distance of triangulated from labelled joints `[N, J]`, metres; NaN if unknown."""
    points, found = _triangulate(Observations(s.points, s.seen, s.cameras))
    apart = np.linalg.norm(np.asarray(points) - s.joints[OFFSETS], axis=-1)
    return np.where(s.valid[OFFSETS] * np.asarray(found) > 0, apart, np.nan)


_triangulate = jax.jit(triangulate)
