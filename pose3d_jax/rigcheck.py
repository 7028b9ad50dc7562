"""Whether a rig is the one that keypoints were seen with, by their residuals; what fits better."""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pose3d_jax import triangulate as tri
from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.formats.calibration import Rig, centres
from pose3d_jax.residuals import reprojections
from pose3d_jax.schema import Observations

Array = np.ndarray

# Of an image's diagonal: the noise of keypoints; residuals from which it is asked whether other
# cameras would fit better; and those that no rig has that fits. On synthetic people, right cameras
# leave 0.1 % to 0.5 %, two that are exchanged 0.7 % and more, for points find other places then.
_NOISE, SUSPECT, LIMIT = 0.003, 0.005, 0.03
_BETTER = 0.5  # of the residual: what something else leaves if it is what was meant
HEIGHTS = (0.5, 2.5)  # metres, of people

_FRAMES = 100  # that are looked at, of any number
_LEAST = 20  # keypoints that a view must share with others to be judged
_ALL_ORDERS = 4  # cameras up to which all their orders are tried, and not pairs exchanged alone
_APART = 5.0  # metres between cameras for which triangulation is at its best

# How much too long lengths are: what they were taken for, and what they are.
_UNITS = {
    1e3: ("metres", "mm"), 1e2: ("metres", "cm"), 1e1: ("centimetres", "mm"),
    1e-1: ("millimetres", "cm"), 1e-2: ("centimetres", "m"), 1e-3: ("millimetres", "m"),
}  # fmt: skip


class CalibrationError(UserError):
    """Cameras that are not those of the keypoints; says how far they are off, and what fits."""


@dataclasses.dataclass(frozen=True)
class Report:
    """How well keypoints fit a rig."""

    names: tuple[str, ...]
    residuals: Float[Array, "views"]  # pixels; NaN of a view that shares too little with others
    height: float  # of the person, metres: between the joints farthest apart; NaN if unknown


def check(
    rig: Rig,
    points: Float[Array, "time views joints 2"],
    confidence: Float[Array, "time views joints"],
) -> Report:
    """Whether one person's keypoints, pixels, can be what the cameras have seen; what a view saw.

    A view's residual is the median distance of its keypoints from the reprojections of the points
    that the views agree on (`triangulate.robust`), or, where no two agree, from that of the nearest
    point to all rays. The height is the median over frames.

    Raises `CalibrationError` for another number of cameras than of views, for views that never see
    a joint together, where a view's residual is above `LIMIT` of its image's diagonal, or above
    `SUSPECT` and less than half as large with another order of the cameras (of up to four any, of
    more two exchanged), with rotations that are camera-to-world, translations that are the cameras'
    places, or both; it says which. Also for a person of no person's height, naming the unit.

    A rig that is symmetrical (a regular ring) fits in several orders equally well, the world turned
    with it: there nothing can be told, and the order that is named may be such.
    """
    views = len(rig.names)
    if points.shape[1] != views:
        raise CalibrationError(
            f"there are {views} cameras ({', '.join(rig.names)}) for {points.shape[1]} views; give "
            f"a camera for each view"
        )
    if views == 1:
        return Report(rig.names, np.full(1, np.nan), float("nan"))
    shared = np.flatnonzero(((confidence > 0).sum(axis=1) > 1).any(axis=-1))
    chosen = shared[np.linspace(0, len(shared) - 1, min(_FRAMES, len(shared))).astype(int)]
    points, confidence = points[chosen], confidence[chosen]
    report = _measured(rig, points, confidence)
    if np.isnan(report.residuals).all():
        raise CalibrationError(
            "no two views see enough of the same joints at the same time to tell whether the "
            "cameras fit; are the videos synchronous, and of the same person?"
        )
    shares = report.residuals / _diagonals(rig)
    if np.nanmax(shares) > SUSPECT:
        better = _what_fits_better(rig, points, confidence, shares)
        if better or np.nanmax(shares) > LIMIT:
            raise CalibrationError(
                _complaint(rig, report, shares) + (better or _cause(rig, shares))
            )
    if report.height < HEIGHTS[0] or report.height > HEIGHTS[1]:
        raise CalibrationError(_of_height(report.height))
    return report


def _diagonals(rig: Rig) -> Float[Array, "views"]:
    return np.linalg.norm(rig.cameras.size, axis=-1)


def _measured(
    rig: Rig,
    points: Float[Array, "time views joints 2"],
    confidence: Float[Array, "time views joints"],
) -> Report:
    cameras, scale = _normalised(rig.cameras)
    points = np.where(confidence[..., None] > 0, points, 0.0)
    noise = _NOISE * _diagonals(rig).mean()
    given = (x.astype(np.float32) for x in (points, confidence, noise))
    joints, agreed, valid, residual = map(np.asarray, _fitted(cameras, *given))
    counted = (confidence > 0) & (valid[:, None] > 0)
    residuals = [
        np.median(residual[:, view][counted[:, view]])
        if counted[:, view].sum() >= _LEAST
        else np.nan
        for view in range(len(rig.names))
    ]
    return Report(rig.names, np.array(residuals), _height(joints / scale, agreed > 0))


@jax.jit
def _fitted(
    cameras: Camera,
    points: Float[jax.Array, "time views joints 2"],
    confidence: Float[jax.Array, "time views joints"],
    noise: Float[jax.Array, ""],
) -> tuple[
    Float[jax.Array, "time joints 3"],
    Float[jax.Array, "time joints"],
    Float[jax.Array, "time joints"],
    Float[jax.Array, "time views joints"],
]:
    """Joints, whether two views agree on them, whether two views see them, distances in pixels."""
    over_time = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(points), *x.shape)), cameras)
    seen = Observations(points, confidence, over_time)
    joints, agreed = tri.robust(seen, noise)
    plain, valid = tri.triangulate(seen)
    joints = jnp.where((agreed > 0)[..., None], joints, plain)
    distance = jnp.linalg.norm(reprojections(seen, joints)[0], axis=-1)
    return joints, agreed, jnp.maximum(agreed, valid), distance


def _normalised(cameras: Camera) -> tuple[Camera, float]:
    """The world about the cameras' middle, its lengths times a factor, and the factor.

    Lengths in a wrong unit, or a far origin, are no reason for residuals.
    """
    at = centres(cameras)
    apart = np.linalg.norm(at[:, None] - at, axis=-1).max()
    scale = _APART / apart if apart > 0 else 1.0
    moved = -np.einsum("vab,vb->va", cameras.rotation, scale * (at - at.mean(axis=0)))
    return dataclasses.replace(cameras, translation=moved.astype(np.float32)), scale


def _height(joints: Float[Array, "time joints 3"], found: Bool[Array, "time joints"]) -> float:
    """Between the joints farthest apart: the median of the frames that have half of the joints."""
    apart = np.linalg.norm(joints[:, :, None] - joints[:, None], axis=-1)
    apart = np.where(found[:, :, None] & found[:, None], apart, 0.0).max(axis=(1, 2))
    enough = found.mean(axis=1) >= 0.5
    return float(np.median(apart[enough])) if enough.any() else float("nan")


def _other_readings(rig: Rig) -> Iterator[tuple[str, Rig]]:
    """What a rig may have been meant to be, and the words for it."""
    names = rig.names
    orders = (
        list(itertools.permutations(range(len(names))))[1:]
        if len(names) <= _ALL_ORDERS
        else [
            _exchanged(len(names), *pair) for pair in itertools.combinations(range(len(names)), 2)
        ]
    )
    for order in orders:
        called = [names[view] for view in order]
        yield (
            f"the cameras in the order {', '.join(called)}: give --views {' '.join(called)}",
            dataclasses.replace(
                rig, cameras=jax.tree.map(lambda x, o=order: x[list(o)], rig.cameras)
            ),
        )
    back = rig.cameras.rotation.swapaxes(-1, -2)
    turned = "the rotations transposed: they are camera-to-world; give world-to-camera ones"
    placed = "the translations as the cameras' places C; give -R C, R being world-to-camera"
    for words, rotation, is_place in (
        (turned, back, False),
        (placed, rig.cameras.rotation, True),
        (f"{turned}, and {placed}", back, True),
    ):
        translation = rig.cameras.translation
        if is_place:
            translation = -np.einsum("vab,vb->va", rotation, translation)
        cameras = dataclasses.replace(rig.cameras, rotation=rotation, translation=translation)
        yield words, dataclasses.replace(rig, cameras=cameras)


def _exchanged(count: int, first: int, second: int) -> tuple[int, ...]:
    order = list(range(count))
    order[first], order[second] = second, first
    return tuple(order)


def _what_fits_better(
    rig: Rig,
    points: Float[Array, "time views joints 2"],
    confidence: Float[Array, "time views joints"],
    shares: Float[Array, "views"],
) -> str:
    """The reading of the rig that fits best, in words; nothing where none fits much better."""
    judged = np.isfinite(shares)
    best, found = min(LIMIT, _BETTER * float(np.nanmax(shares))), ""
    for words, other in _other_readings(rig):
        others = (_measured(other, points, confidence).residuals / _diagonals(other))[judged]
        # What leaves a view without points explains nothing.
        if np.isfinite(others).all() and others.max() < best:
            best = float(others.max())
            found = f"They fit ({100 * best:.2g} % at most) with {words}"
    return found


def _complaint(rig: Rig, report: Report, shares: Float[Array, "views"]) -> str:
    figures = ", ".join(
        f"{name} {residual:.3g} px ({100 * share:.2g} %)" if np.isfinite(share) else f"{name} -"
        for name, residual, share in zip(rig.names, report.residuals, shares, strict=True)
    )
    return (
        f"the views do not fit the cameras: {figures}, the median distance of keypoints from where "
        f"the views together see them (in brackets: of the image's diagonal). "
    )


def _cause(rig: Rig, shares: Float[Array, "views"]) -> str:
    """What else may be wrong."""
    bad = shares > LIMIT
    if bad.sum() == 1 and np.isfinite(shares).sum() > 2:
        name = rig.names[int(np.argmax(bad))]
        return f"The others fit: was {name} moved, is its video cut, or another person in it?"
    return (
        "No other order of the cameras fits; are the videos synchronous, of the size that the "
        "cameras were calibrated for, and of the same person?"
    )


def _of_height(height: float) -> str:
    said = (
        f"the views fit the cameras, but the person would be {height:.3g} m tall, not "
        f"{HEIGHTS[0]} to {HEIGHTS[1]} m"
    )
    for factor, (taken, unit) in _UNITS.items():
        if HEIGHTS[0] <= height / factor <= HEIGHTS[1]:
            return (
                f"{said}: the calibration's lengths are taken for {taken} and seem to be {unit} "
                f"({height / factor:.3g} m); give --unit {unit}"
            )
    return f"{said}: was the calibration's board or wand of the size that it was said to be?"
