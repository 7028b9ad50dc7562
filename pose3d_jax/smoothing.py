"""Joints made quiet after the fact: Butterworth and One-Euro filters, a Kalman smoother.

Each joint by itself, NaN where it was not measured; what was not measured stays so. References on
whole clips (`references`) know the keypoints and weigh them; a filter sees joints alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Float
from scipy import signal
from scipy.special import factorial

from pose3d_jax import errors
from pose3d_jax.errors import UserError

Array = np.ndarray
# What each filter can be told, and the default: of One-Euro and Kalman, what was best on the
# validation split of CMU-MV, triangulated from noisy keypoints of four views
# (`benchmarks/smoothing.py`).
SETTINGS: Mapping[str, Mapping[str, float]] = {
    # Hz, where the amplitude is 1 / sqrt(2) after both passes; and the order of both together.
    "butterworth": {"cutoff": 6.0, "order": 4},
    # Hz at rest; more Hz for each m/s.
    "one-euro": {"cutoff": 8.0, "beta": 10.0},
    # Errors of measured joints, m; m/s^2 by which joints change their velocity within a second.
    "kalman": {"noise": 0.01, "motion": 1.0, "order": 1},
}
KINDS = tuple(SETTINGS)
# Before the first frame, beside the first place: m, m/s, m/s^2 (standard deviations).
_ANYTHING = np.array([10.0, 100.0, 1000.0])


class SmoothingError(UserError):
    """A filter or a setting that does not exist, or joints that cannot be filtered."""


def smooth(
    joints: Float[Array, "frames joints 3"],
    fps: float,
    kind: str,
    *,
    covariance: Float[Array, "..."] | None = None,
    **settings: float | int,
) -> Float[Array, "frames joints 3"]:
    """Joints, metres, made quiet by the filter `kind`; NaN where they are NaN, and nowhere else.

    Args:
      joints: a joint with a NaN was not measured in that frame.
      fps: frames per second.
      kind: `butterworth`, low-pass, forwards and backwards, so that nothing is late: every stretch
        of a joint's frames by itself; those of fewer than ten frames are left as they are, which is
        told. `one-euro`: every stretch by itself, in time, so that what moves is late; the cut-off
        rises with the speed along each axis, so that it depends on the world's axes. `kalman`:
        integrated white noise (Rauch-Tung-Striebel), all stretches of a joint together.
      covariance: `[frames, joints, 3, 3]`, m^2, of the measured joints, where it is known; `kalman`
        alone takes it, in place of its setting `noise`.
      **settings: see `SETTINGS`. `order` of `kalman`: 1 for noise in the acceleration, 2 for noise
        in its change (`motion` is m/s^3 then).

    Raises `SmoothingError` for what does not exist or fit, `UserError` without the library that a
    filter needs.
    """
    if kind not in SETTINGS:
        raise SmoothingError(f"no filter is named {kind!r}; there are {', '.join(KINDS)}")
    wrong = sorted(settings.keys() - SETTINGS[kind].keys())
    if wrong:
        raise SmoothingError(
            f"{kind} has no {' and no '.join(wrong)}; it has {', '.join(SETTINGS[kind])}"
        )
    given = {name: float(value) for name, value in {**SETTINGS[kind], **settings}.items()}
    for name, value in {"fps": fps, **given}.items():
        if not (np.isfinite(value) and (value > 0 or (name == "beta" and value == 0))):
            raise SmoothingError(f"{kind}: {name} is {value}; give a number above 0")
    if given.get("order", 0) % 1:
        raise SmoothingError(f"{kind}: the order is {given['order']:g}; give a whole number")
    if np.isinf(joints).any():
        raise SmoothingError("joints hold infinity; give NaN where a joint was not measured")
    if covariance is not None and kind != "kalman":
        raise SmoothingError(f"{kind} does not know what to do with covariances; kalman does")
    values = np.asarray(joints, np.float64)
    values = np.where(np.isnan(values).any(axis=-1, keepdims=True), np.nan, values)
    if kind == "kalman":
        found = kalman(values, fps, covariance=covariance, **given)
    elif kind == "butterworth":
        found = butterworth(values, fps, **given)
    else:
        found = _by_stretches(values, lambda part: one_euro(part, fps, **given))
    return np.where(np.isnan(values), np.nan, found).astype(joints.dtype)


def stretches(there: Bool[Array, "frames"]) -> list[slice]:
    """The runs of frames in which it is true."""
    edges = np.flatnonzero(np.diff(there.astype(np.int8), prepend=0, append=0))
    return [slice(first, stop) for first, stop in edges.reshape(-1, 2).tolist()]


def _by_stretches(
    values: Float[Array, "frames joints 3"], each: Callable[[Array], Array]
) -> Float[Array, "frames joints 3"]:
    found = np.full_like(values, np.nan)
    for joint in range(values.shape[1]):
        for part in stretches(~np.isnan(values[:, joint, 0])):
            found[part, joint] = each(values[part, joint])
    return found


def butterworth(
    values: Float[Array, "frames joints 3"], fps: float, cutoff: float, order: float
) -> Float[Array, "frames joints 3"]:
    """Low-pass without delay, stretch by stretch: half of the `order` forwards, half backwards.

    Two passes lower the frequency at which 1 / sqrt(2) of the amplitude is left, so that each pass
    is given a higher one: Winter, "Biomechanics and Motor Control of Human Movement" (4th ed.,
    2009), section 3.4.4.2, here of the digital filter. Raises `SmoothingError` for a cut-off from
    half the frame rate on and for an odd order.
    """
    if cutoff >= fps / 2:
        raise SmoothingError(
            f"a cut-off of {cutoff:g} Hz at {fps:g} frames per second; give less than {fps / 2:g} "
            f"(from Python), or take another filter"
        )
    if order % 2:
        raise SmoothingError(f"the order is {order:g}, half for each direction; give 2, 4, 6, ...")
    half = int(order) // 2
    each = np.tan(np.pi * cutoff / fps) / (np.sqrt(2) - 1) ** (1 / (2 * half))
    sections = signal.butter(half, 2 / np.pi * np.arctan(each), output="sos")
    least = 3 * (half + 1) + 1  # beyond its ends a stretch is continued by its own reflection
    short = 0

    def filtered(part: Array) -> Array:
        nonlocal short
        if len(part) < least:
            short += 1
            return part
        return signal.sosfiltfilt(sections, part, axis=0, padlen=least - 1)

    found = _by_stretches(values, filtered)
    if short:
        logging.warning(
            "%d stretches of a joint's frames are shorter than %d frames and stay as they are: "
            "butterworth needs more",
            short,
            least,
        )
    return found


def one_euro(
    values: Float[Array, "time *rest"], fps: float, cutoff: float, beta: float
) -> Float[Array, "time *rest"]:
    """Every number over time by itself, without gaps; slopes are cut at 1 Hz.

    Casiez, Roussel and Vogel, "1 Euro Filter" (CHI 2012), by its authors' own library. Raises
    `UserError` without that.
    """
    library = _library("OneEuroFilter")
    columns = np.asarray(values, np.float64).reshape(len(values), -1)
    found = np.empty_like(columns)
    for number, column in enumerate(columns.T):
        one = library.OneEuroFilter(fps, mincutoff=cutoff, beta=beta)
        found[:, number] = [one(value) for value in column.tolist()]
    return found.reshape(values.shape)


def kalman(
    values: Float[Array, "frames joints 3"],
    fps: float,
    noise: float,
    motion: float,
    order: float,
    covariance: Float[Array, "..."] | None = None,
) -> Float[Array, "frames joints 3"]:
    """The most probable joints, gaps filled, where white noise is integrated `order` + 1 times.

    A Kalman filter and Rauch, Tung and Striebel's smoother; of the discrete motion see Bar-Shalom,
    Li and Kirubarajan, "Estimation with Applications to Tracking and Navigation" (2001), equations
    6.2.2-4 and 6.2.3-4. Before the first frame next to nothing is known of a joint. Joints that are
    never measured stay NaN.

    Raises `SmoothingError` for another order and for covariances that do not fit, `UserError`
    without the library.
    """
    steps = _library("simdkalman.primitives")
    if order not in (1, 2):
        raise SmoothingError(f"kalman: the order is {order:g}; give 1 or 2")
    measured = ~np.isnan(values[..., 0])
    ever = measured.any(axis=0)
    points = values[:, ever]
    if not points.size:
        return values
    noises = _noises(values, measured, noise, covariance)[:, ever]
    move, change = _motion(1 / fps, motion, int(order))
    see = np.eye(3, len(move))[None]
    first = points[measured[:, ever].argmax(axis=0), np.arange(points.shape[1])]
    mean = np.zeros((len(first), len(move), 1))
    mean[:, :3, 0] = first
    width = np.repeat(_ANYTHING[: int(order) + 1], 3)
    spread = np.broadcast_to(np.diag(width**2), (len(first), *change.shape))
    filtered = []
    for frame, (place, doubt) in enumerate(zip(points, noises, strict=True)):
        if frame:
            mean, spread = steps.predict(mean, spread, move[None], change[None])
        mean, spread = steps.update_with_nan_check(mean, spread, see, doubt, place[..., None])
        filtered.append((mean, spread))
    found = values.copy()
    found[-1, ever] = mean[:, :3, 0]
    for frame in range(len(points) - 2, -1, -1):
        mean, spread = steps.smooth(*filtered[frame], move[None], change[None], mean, spread)
        found[frame, ever] = mean[:, :3, 0]
    return found


def _noises(
    values: Array, measured: Array, noise: float, covariance: Array | None
) -> Float[Array, "frames joints 3 3"]:
    """How far measured joints err."""
    same = np.broadcast_to(noise**2 * np.eye(3), (*values.shape, 3))
    if covariance is None:
        return same
    if covariance.shape != same.shape:
        raise SmoothingError(
            f"the covariance has shape {list(covariance.shape)}; give {list(same.shape)}, of every "
            f"frame and joint"
        )
    given = covariance[measured].astype(np.float64)
    if not np.isfinite(given).all() or (np.linalg.eigvalsh(given) <= 0).any():
        raise SmoothingError(
            "a measured joint has a covariance that is none (not finite, or not positive); give "
            "NaN for the joint, or its covariance"
        )
    whole = same.copy()
    whole[measured] = given
    return whole


def _motion(
    seconds: float, motion: float, order: int
) -> tuple[Float[Array, "states states"], Float[Array, "states states"]]:
    """How places and their derivatives become those of the next frame, and how uncertainly."""
    index = np.arange(order + 1)
    power = index[None] - index[:, None]
    move = np.where(power >= 0, seconds ** np.maximum(power, 0) / factorial(abs(power)), 0.0)
    left = order - index
    power = left[:, None] + left[None] + 1
    scale = power * factorial(left)[:, None] * factorial(left)[None]
    change = motion**2 * seconds**power / scale
    return np.kron(move, np.eye(3)), np.kron(change, np.eye(3))


def check(kind: str) -> None:
    """Raises `UserError` where a filter's library is not installed."""
    for name in {"one-euro": ["OneEuroFilter"], "kalman": ["simdkalman.primitives"]}.get(kind, []):
        _library(name)


def _library(name: str) -> Any:
    return errors.library(name, "smooth", "this filter")
