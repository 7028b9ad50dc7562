"""Errors of one predicted pose, in the units of its input (metres); `vmap` does the rest.

Shares of joints (`SHARES`) are numbers from 0 to 1, and better where they are higher.

`prediction` and `truth` are `[joints, 3]` in one camera's frame, `valid [joints]` is 1 where the
truth is labelled and 0 where not. Each error is a mean over the valid joints, 0 without any.
The root-relative ones mean something only where the root is valid: see `scored`.

Below them, outside `METRICS`: errors of a clip's motion, and how far predicted covariances can be
believed.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.special import gammaincinv

from pose3d_jax.geometry import safe_divide, safe_norm, similarity_align
from pose3d_jax.solvers import factor3


def mpjpe_absolute(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
) -> Float[Array, ""]:
    """Mean per-joint position error, metres, with nothing aligned."""
    return _mean(safe_norm(prediction - truth), valid)


def mpjpe(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
) -> Float[Array, ""]:
    """Protocol 1: both poses relative to their root, metres; the root counts, with error 0."""
    return mpjpe_absolute(_relative(prediction, root), _relative(truth, root), valid)


def p_mpjpe(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
) -> Float[Array, ""]:
    """Protocol 2: after the similarity that best aligns the valid joints (Procrustes), metres."""
    return mpjpe_absolute(similarity_align(prediction, truth, valid), truth, valid)


def n_mpjpe(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
) -> Float[Array, ""]:
    """Root-relative, the prediction scaled to fit the truth by least squares, metres.

    Rhodin et al., "Learning Monocular 3D Human Pose Estimation from Multi-view Images" (CVPR
    2018), section 5: scale = <prediction, truth> / <prediction, prediction>.
    """
    prediction, truth = _relative(prediction, root), _relative(truth, root)
    weight = valid[:, None]
    scale = safe_divide(
        jnp.sum(weight * prediction * truth), jnp.sum(weight * prediction * prediction)
    )
    return mpjpe_absolute(scale * prediction, truth, valid)


def stress(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
) -> Float[Array, ""]:
    """By how much the distances between each two valid joints differ, metres.

    The mean absolute difference, as in Novotny et al., "C3DPO" (ICCV 2019), section 5, after the
    prediction is scaled so that its distances fit the true ones by least squares (there, sizes are
    given). It sees neither a rotation nor a reflection, and so no depth of the wrong sign. 0 with
    fewer than two valid joints.
    """
    first, second = np.triu_indices(len(prediction), 1)
    found, wanted = (safe_norm(pose[first] - pose[second]) for pose in (prediction, truth))
    weight = valid[first] * valid[second]
    found, wanted = (jnp.where(weight > 0, distances, 0.0) for distances in (found, wanted))
    scale = safe_divide(jnp.sum(weight * found * wanted), jnp.sum(weight * found * found))
    return _mean(jnp.abs(scale * found - wanted), weight)


def mpjpe_report(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
) -> Float[Array, ""]:
    """The error of "3D Pose Estimation Using 2D Supervision" (CMU 16-824 report), metres.

    A mean over the joints in which the root has its absolute error and every other joint its
    root-relative one: not Protocol 1.
    """
    difference = prediction - truth
    relative = _relative(difference, root).at[root].set(difference[root])
    return _mean(safe_norm(relative), valid)


def pck(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
    threshold: float = 0.15,
) -> Float[Array, ""]:
    """Share of the joints other than the root whose root-relative error is at most `threshold` m.

    3D-PCK@150 mm of Mehta et al., "Monocular 3D Human Pose Estimation In The Wild Using Improved
    CNN Supervision" (3DV 2017).
    """
    error = safe_norm(_relative(prediction, root) - _relative(truth, root))
    return _mean((error <= threshold).astype(error.dtype), valid.at[root].set(0.0))


def auc(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
) -> Float[Array, ""]:
    """Area under the curve of `pck`: its mean over the thresholds 0, 5, ..., 150 mm (ibid.)."""
    error = safe_norm(_relative(prediction, root) - _relative(truth, root))
    within = error[:, None] <= 0.005 * jnp.arange(31)[None]
    return _mean(jnp.mean(within, axis=1, dtype=error.dtype), valid.at[root].set(0.0))


def pck_2d(
    points: Float[Array, "joints 2"],
    truth: Float[Array, "joints 2"],
    visible: Float[Array, "joints"],
    alpha: float = 0.05,
) -> Float[Array, ""]:
    """Share of the visible joints within `alpha` times the longer side of the box around them.

    PCK of Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts" (PAMI
    2013), as "Learning 3D Human Dynamics from Video" (CVPR 2019) uses it. 0 with nothing visible.
    """
    there = visible[:, None] > 0
    high = jnp.max(jnp.where(there, truth, -jnp.inf), axis=0)
    low = jnp.min(jnp.where(there, truth, jnp.inf), axis=0)
    side = jnp.where(there.any(), jnp.max(high - low), 0.0)
    return _mean((safe_norm(points - truth) <= alpha * side).astype(points.dtype), visible)


# What a prediction's numbers mean, from the most they can be to the least.
SPACES = ("absolute", "root_relative", "up_to_scale")

# Name -> (function of prediction, truth, valid and root; the space it needs).
METRICS: Mapping[str, tuple[Callable[..., Array], str]] = {
    "p1": (mpjpe, "root_relative"),
    "p2": (lambda prediction, truth, valid, _: p_mpjpe(prediction, truth, valid), "up_to_scale"),
    "n_mpjpe": (n_mpjpe, "up_to_scale"),
    "stress": (lambda prediction, truth, valid, _: stress(prediction, truth, valid), "up_to_scale"),
    "absolute": (
        lambda prediction, truth, valid, _: mpjpe_absolute(prediction, truth, valid),
        "absolute",
    ),
    "mpjpe_report": (mpjpe_report, "absolute"),
    "pck": (pck, "root_relative"),
    "auc": (auc, "root_relative"),
}
# Those that count joints; `pck_2d` compares with keypoints and is not in `METRICS`.
SHARES = ("pck", "auc", "pck_2d")


def errors(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
    space: str,
) -> dict[str, Float[Array, ""]]:
    """Every metric, metres, that a prediction in `space` can be asked for.

    In the order of `METRICS`, until a transformation such as `jit` sorts the names. Raises
    `ValueError` for a space that is not in `SPACES`.
    """
    return {name: METRICS[name][0](prediction, truth, valid, root) for name in available(space)}


def available(space: str) -> tuple[str, ...]:
    """Names of the metrics that a prediction in `space` can be asked for, in `METRICS`' order.

    Raises `ValueError` for a space that is not in `SPACES`.
    """
    if space not in SPACES:
        raise ValueError(f"no space is named {space!r}; there are {', '.join(SPACES)}")
    return tuple(
        name for name, (_, needs) in METRICS.items() if SPACES.index(space) <= SPACES.index(needs)
    )


def scored(valid: Float[Array, "joints"], root: int) -> Bool[Array, ""]:
    """Whether an example can be scored at all: its root and at least one other joint are valid."""
    return (valid[root] > 0) & (jnp.sum(valid > 0) >= 2)


def velocity_error(
    prediction: Float[Array, "time joints 3"],
    truth: Float[Array, "time joints 3"],
    valid: Float[Array, "time joints"],
    fps: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Errors of a clip's joint velocities, metres per second: their (sum, count).

    The norm of the difference of the two finite differences, over the joints that are valid in
    both frames; (0, 0) without any. MPJVE of Pavllo et al., "3D human pose estimation in video with
    temporal convolutions and semi-supervised training" (CVPR 2019), section 6.1, who print it in
    millimetres per frame: `1000 / fps` times this.
    """
    return _derivative(prediction - truth, valid, fps, order=1)


def acceleration_error(
    prediction: Float[Array, "time joints 3"],
    truth: Float[Array, "time joints 3"],
    valid: Float[Array, "time joints"],
    fps: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Errors of a clip's joint accelerations, metres per second squared: their (sum, count).

    As `velocity_error`, with second differences and joints that are valid in three successive
    frames. Kanazawa et al., "Learning 3D Human Dynamics from Video" (CVPR 2019).
    """
    return _derivative(prediction - truth, valid, fps, order=2)


def jitter(
    prediction: Float[Array, "time joints 3"],
    valid: Float[Array, "time joints"],
    fps: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Jerks of a clip's joints, metres per second cubed: the (sum, count) of their norms.

    Third differences, of joints that are valid in four successive frames; needs no truth, and what
    moves has some. Yi et al., "TransPose: Real-time 3D Human Translation and Pose Estimation with
    Six Inertial Sensors" (SIGGRAPH 2021). At 50 fps the rounding of float32 alone, a few
    metres from the origin, gives about 0.1.
    """
    return _derivative(prediction, valid, fps, order=3)


# Levels at which the coverage of ellipsoids is compared with what they promise.
LEVELS = tuple(k / 20 for k in range(1, 20))


def inside_ellipsoid(
    error: Float[Array, "*batch 3"], covariance: Float[Array, "*batch 3 3"], level: float
) -> Bool[Array, "*batch"]:
    """Whether an error, metres, lies in the ellipsoid that a Gaussian fills with share `level`.

    That is, whether its squared Mahalanobis distance is at most the quantile of the chi-square
    distribution with 3 degrees of freedom. The covariance, metres squared, may be so flat that
    float32 cannot tell it from a singular one: its pivots are held at a ten-millionth of its mean
    variance. Raises `ValueError` for a level outside (0, 1).
    """
    return mahalanobis(error, covariance)[0] <= quantile(level)


def coverage(
    error: Float[Array, "*batch 3"],
    covariance: Float[Array, "*batch 3 3"],
    valid: Float[Array, "*batch"],
    levels: tuple[float, ...] = (0.5, 0.8, 0.95),
) -> tuple[Float[Array, "levels"], Float[Array, ""]]:
    """How many valid errors lie in the ellipsoid of each level, and how many there are.

    (sums, count): `sums / count` are the observed shares, to be held against `levels`. See
    `inside_ellipsoid`.
    """
    limits = jnp.array([quantile(level) for level in levels]).reshape(-1, 1)
    valid = valid.reshape(1, -1)
    inside = mahalanobis(error, covariance)[0].reshape(1, -1) <= limits
    return jnp.sum(jnp.where(inside, valid, 0.0), axis=1), jnp.sum(valid)


def calibration_error(
    error: Float[Array, "*batch 3"],
    covariance: Float[Array, "*batch 3 3"],
    valid: Float[Array, "*batch"],
    levels: tuple[float, ...] = LEVELS,
) -> Float[Array, ""]:
    """Expected calibration error, in [0, 1): the mean over `levels` of |observed share - level|.

    Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression" (ICML
    2018), with ellipsoids for intervals, absolute for squared differences and equal
    weights. Of the whole sample at once: that of its parts does not add up (of several batches, add
    up `coverage`). 0 with nothing valid.
    """
    sums, count = coverage(error, covariance, valid, levels)
    off = jnp.abs(safe_divide(sums, jnp.broadcast_to(count, sums.shape)) - jnp.array(levels))
    return jnp.where(count > 0, jnp.mean(off), 0.0)


def _relative(pose: Float[Array, "joints 3"], root: int) -> Float[Array, "joints 3"]:
    return pose - pose[root][None, :]


def _mean(values: Float[Array, "joints"], valid: Float[Array, "joints"]) -> Float[Array, ""]:
    return safe_divide(jnp.sum(valid * values), jnp.sum(valid))


def _derivative(
    path: Float[Array, "time joints 3"],
    valid: Float[Array, "time joints"],
    fps: float | Float[Array, ""],
    order: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, count) of the norms of a path's finite differences, per second^order."""
    steps = max(len(path) - order, 0)
    known = jnp.ones_like(valid[:steps])
    for i in range(order + 1):
        known = known * valid[i : i + steps]
    difference = jnp.where(known[..., None] > 0, jnp.diff(path, n=order, axis=0), 0.0)
    return jnp.sum(known * safe_norm(difference)) * fps**order, jnp.sum(known)


def mahalanobis(
    error: Float[Array, "*batch 3"], covariance: Float[Array, "*batch 3 3"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """`error^T covariance^-1 error`, a sum of squares, and the log of the determinant."""

    def one(error: Float[Array, "3"], covariance: Float[Array, "3 3"]) -> tuple[Array, Array]:
        rows, pivots = factor3(covariance)
        across = jnp.sum(rows * error[None, :], axis=-1)
        return jnp.sum(across**2 / pivots), jnp.sum(jnp.log(pivots))

    each = jax.vmap(one)(error.reshape(-1, 3), covariance.reshape(-1, 3, 3))
    square, volume = (x.reshape(error.shape[:-1]) for x in each)
    return square, volume


def quantile(level: float) -> float:
    """Of the chi-square distribution with 3 degrees of freedom, on the host."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a share between 0 and 1, such as 0.95")
    return 2 * float(gammaincinv(1.5, level))
