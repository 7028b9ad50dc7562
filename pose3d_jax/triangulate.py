"""World points from the same joint seen by several calibrated cameras, frame by frame.

From the plainest to the strongest: `triangulate` (DLT), `weighted`, `robust`, `refine`. What they
cannot see is filled in by `infill`. `trajectory.py` goes on from here, for whole clips.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose3d_jax import residuals
from pose3d_jax.cameras import Camera, batched, normalise
from pose3d_jax.residuals import reprojections
from pose3d_jax.schema import Observations
from pose3d_jax.solvers import inverse3, levenberg_marquardt, solve3

# Least determinant of the (trace-normalised) normal equations: about that of two rays at an angle
# of 0.06 degrees. Below it float32 does not know where along the rays the point lies.
_MIN_DETERMINANT = 1e-6

# Standard deviation, metres, of a joint of which nothing is known but that it is in the room; and
# the least noise, pixels, that is believed of any keypoints.
ROOM = 10.0
LEAST_SIGMA = 0.05

_NOTHING = 1e-12


def dlt(
    camera: Camera, points: Float[Array, "views 2"], weight: Float[Array, "views"]
) -> tuple[Float[Array, "3"], Float[Array, ""]]:
    """The world point, metres, seen at undistorted normalised `points` by cameras `[views]`.

    Inhomogeneous linear least squares, Hartley & Sturm, "Triangulation" (CVIU 1997), Linear-LS:
    each view asks that (r1 - x r3) . (X - c) = 0 and (r2 - y r3) . (X - c) = 0, with r the rows of
    its rotation and c its centre. `weight` multiplies a view's squared residuals; 0 ignores it.

    Also returns whether the point is valid, as 1.0 or 0.0: at least two views see it and their rays
    are not parallel. An invalid point is 0, with gradient 0.
    """
    seen = weight > 0
    points = jnp.where(seen[:, None], points, 0.0)
    count = jnp.maximum(jnp.sum(seen), 1)
    # -R^T t, and the world moved to the mean of the centres: float32 keeps seven digits, and they
    # are better spent on the metres around the cameras than on the distance to a far origin.
    centres = -jnp.sum(camera.rotation * camera.translation[:, :, None], axis=1)
    centres = jnp.where(seen[:, None], centres, 0.0)
    origin = jnp.sum(centres, axis=0) / count
    rows = camera.rotation[:, :2] - points[:, :, None] * camera.rotation[:, 2:]
    rows = jnp.where(seen[:, None, None], rows, 0.0)
    target = jnp.sum(rows * (centres - origin[None, :])[:, None, :], axis=-1)

    weighted = weight[:, None, None] * rows
    normal = jnp.sum(weighted[..., :, None] * rows[..., None, :], axis=(0, 1))
    scale = jnp.trace(normal) / 3
    scale = jnp.where(scale > 0, scale, 1.0)
    normal, weighted = normal / scale, weighted / scale
    # Rows of the adjugate of a symmetric matrix are cross products of its rows. Sums of products
    # throughout: they fuse under vmap and have no reduced precision.
    adjugate = jnp.cross(jnp.roll(normal, -1, axis=0), jnp.roll(normal, -2, axis=0))
    determinant = jnp.sum(normal[0] * adjugate[0])
    valid = (jnp.sum(seen) >= 2) & (determinant > _MIN_DETERMINANT)
    inverse = adjugate / jnp.where(valid, determinant, 1.0)

    # The normal equations square the condition number; solving again for the residual makes good
    # what that loses where rays are close to parallel (0.6 degrees apart, 5 m away: from a mean
    # error of 0.6 mm to 0.02 mm).
    point = jnp.zeros_like(origin)
    for _ in range(2):
        residual = target - jnp.sum(rows * point[None, None, :], axis=-1)
        right = jnp.sum(weighted * residual[:, :, None], axis=(0, 1))
        point = point + jnp.sum(inverse * right[None, :], axis=-1)
    return jnp.where(valid, origin + point, 0.0), valid.astype(point.dtype)


def triangulate(
    observations: Observations,
) -> tuple[Float[Array, "*time joints 3"], Float[Array, "*time joints"]]:
    """World joints, metres, by `dlt` from observations with leading axes `[*time, views]`.

    A view sees a joint where its confidence is above 0; all that see it weigh the same. Also
    returns which joints are valid (1.0 or 0.0); the others are 0.
    """
    return _dlt_of_all(observations, (observations.confidence > 0).astype(jnp.float32))


def _dlt_of_all(
    observations: Observations, weight: Float[Array, "*time views joints"]
) -> tuple[Float[Array, "*time joints 3"], Float[Array, "*time joints"]]:
    points = batched(normalise)(observations.cameras, observations.keypoints)
    solve = jax.vmap(dlt, in_axes=(None, 1, 1))
    for _ in range(points.ndim - 3):
        solve = jax.vmap(solve)
    return solve(observations.cameras, points, weight)


def weighted(
    observations: Observations,
) -> tuple[Float[Array, "*time joints 3"], Float[Array, "*time joints"]]:
    """`triangulate` with each view's squared residuals weighed by its confidence."""
    return _dlt_of_all(observations, observations.confidence)


def robust(
    observations: Observations, sigma: Float[Array, ""]
) -> tuple[Float[Array, "*time joints 3"], Float[Array, "*time joints"]]:
    """`dlt` of the views that agree, at noise `sigma` pixels; valid where at least two do.

    RANSAC (Fischler & Bolles, CACM 1981) over all pairs of views: the pair, or all views at once,
    whose point has the least `residuals.robust` cost, weighed by confidence, in all views; then two
    re-weighted solutions.
    """
    views = observations.confidence.shape[-2]
    confidence = observations.confidence
    first, second = np.triu_indices(views, 1)
    masks = np.concatenate([np.ones((1, views)), np.eye(views)[first] + np.eye(views)[second]])

    def better(best: tuple[Array, Array], mask: Float[Array, "views"]) -> tuple[Any, None]:
        points, valid = _dlt_of_all(
            observations, confidence * jnp.broadcast_to(mask[:, None], confidence.shape)
        )
        return _less(best, (_cost(observations, points, sigma, valid), points)), None

    shape = (*confidence.shape[:-2], confidence.shape[-1])
    start = (jnp.full(shape, jnp.inf), jnp.zeros((*shape, 3)))
    best, _ = jax.lax.scan(better, start, jnp.asarray(masks, confidence.dtype))
    for _ in range(2):
        weight = _weights(observations, best[1], sigma)
        points, valid = _dlt_of_all(observations, weight)
        best = _less(best, (_cost(observations, points, sigma, valid), points))
    agree = jnp.sum(_weights(observations, best[1], sigma) > confidence / 2, axis=-2) >= 2
    found = jnp.isfinite(best[0]) & agree
    return jnp.where(found[..., None], best[1], 0.0), found.astype(confidence.dtype)


def refine(
    observations: Observations,
    start: Float[Array, "*time joints 3"],
    sigma: Float[Array, ""],
    steps: int = 8,
) -> tuple[Float[Array, "*time joints 3"], Float[Array, "*time joints 3 3"]]:
    """The points of least robust reprojection error nearby, metres, and their covariance, m^2.

    Levenberg-Marquardt on `residuals.robust` of the distorted pixels, weighed by confidence; the
    covariance is the inverse of J^T W J / sigma^2 with the robust weights.
    """

    def one(cameras: Camera, pixels: Array, confidence: Array, start: Array) -> tuple[Array, Array]:
        seen = Observations(pixels[:, None], confidence[:, None], cameras)

        def look(point: Array) -> tuple[Array, Array, Array]:
            residual, jacobian = (x[:, 0] for x in reprojections(seen, point[None]))
            inlier = residuals.robust(jnp.sum(residual**2, axis=-1), sigma)[1]
            return residual, jacobian, confidence * inlier / sigma**2

        def information(jacobian: Array, weight: Array) -> Array:
            weighted = weight[:, None, None] * jacobian
            return jnp.sum(weighted[..., :, None] * jacobian[..., None, :], axis=(0, 1))

        def model(point: Array, _: Array) -> tuple[Any, Any]:
            residual, jacobian, weight = look(point)
            normal = information(jacobian, weight)
            gradient = jnp.sum((weight[:, None] * residual)[..., None] * jacobian, axis=(0, 1))

            def cost(point: Array) -> Array:
                return jnp.sum(weight[:, None] * look(point)[0] ** 2)

            def propose(damping: Array) -> Array:
                damped = normal + (damping * jnp.trace(normal) / 3 + _NOTHING) * jnp.eye(3)
                return point - solve3(damped, gradient)

            return cost, propose

        point = levenberg_marquardt(model, start, steps)
        return point, inverse3(information(*look(point)[1:]) + jnp.eye(3) / ROOM**2)

    over = jax.vmap(one, in_axes=(None, 1, 1, 0))  # joints
    for _ in range(start.ndim - 2):
        over = jax.vmap(over)
    return over(observations.cameras, observations.keypoints, observations.confidence, start)


def unknown(like: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """The covariance, m^2, of a joint of which nothing is known but that it is in the room."""
    return jnp.broadcast_to(
        (ROOM**2 * jnp.eye(3)).reshape(*[1] * (like.ndim - 2), 3, 3), like.shape
    )


def noise_scale(
    observations: Observations,
    points: Float[Array, "time joints 3"],
    valid: Float[Array, "time joints"],
) -> Float[Array, ""]:
    """Standard deviation of the keypoints, pixels, from the residuals of a clip's points.

    The median over the points that see two views or more of the squared residuals, divided by the
    median of the chi-square distribution of its degrees of freedom: outliers in fewer than half of
    the points do no harm. Not less than `LEAST_SIGMA`.
    """
    squared = observations.confidence * jnp.sum(
        reprojections(observations, points)[0] ** 2, axis=-1
    )
    freedom = 2.0 * jnp.sum(observations.confidence > 0, axis=-2) - 3.0
    usable = (valid > 0) & (freedom > 0)
    # Wilson & Hilferty's approximation of the median.
    ratio = (
        jnp.sum(squared, axis=-2)
        / jnp.maximum(freedom, 1.0)
        / (1 - 2 / (9 * jnp.maximum(freedom, 1.0))) ** 3
    )
    median = jnp.nanmedian(jnp.where(usable, ratio, jnp.nan))
    return jnp.sqrt(jnp.maximum(jnp.nan_to_num(median), LEAST_SIGMA**2))


def inlier_scale(
    observations: Observations,
    points: Float[Array, "time joints 3"],
    sigma: Float[Array, ""],
    valid: Float[Array, "time joints"],
) -> Float[Array, ""]:
    """The standard deviation, pixels, of the keypoints that are no outliers at noise `sigma`.

    One step of expectation maximisation: the weighted squared residuals over the degrees of freedom
    that the points leave. Not less than `LEAST_SIGMA`.
    """
    squared = jnp.sum(reprojections(observations, points)[0] ** 2, axis=-1)
    inlier = residuals.robust(squared, sigma)[1] * (observations.confidence > 0)
    inlier = inlier * valid[..., None, :]
    freedom = jnp.maximum(2.0 * jnp.sum(inlier, axis=-2) - 3.0, 0.0)
    counted = (freedom > 0)[..., None, :]
    total = jnp.sum(jnp.where(counted, observations.confidence * inlier * squared, 0.0))
    return jnp.sqrt(jnp.maximum(total / jnp.maximum(jnp.sum(freedom), 1.0), LEAST_SIGMA**2))


def infill(
    points: Float[Array, "time joints 3"], valid: Float[Array, "time joints"], root: int
) -> Float[Array, "time joints 3"]:
    """Joints that are not valid, from those that are: the rule for every per-frame row.

    Linear in time between the neighbours in the world, the nearest at the ends; a joint that is
    never valid is where the root is, and so where the root never is either, the mean of the others.
    """
    frames = jnp.arange(points.shape[0])[:, None]
    before = jax.lax.cummax(jnp.where(valid > 0, frames, -1), axis=0)
    after = jax.lax.cummin(jnp.where(valid > 0, frames, points.shape[0]), axis=0, reverse=True)
    first = jnp.where(before >= 0, before, after)
    last = jnp.where(after < points.shape[0], after, before)
    inside = lambda index: jnp.clip(index, 0, points.shape[0] - 1)[..., None]  # noqa: E731
    start = jnp.take_along_axis(points, inside(first), axis=0)
    stop = jnp.take_along_axis(points, inside(last), axis=0)
    share = (frames - first) / jnp.maximum(last - first, 1)
    filled = start + jnp.clip(share, 0, 1)[..., None] * (stop - start)

    ever = jnp.any(valid > 0, axis=0)[None, :, None]
    mean = jnp.sum(jnp.where(ever, filled, 0.0), axis=1) / jnp.maximum(jnp.sum(ever), 1)
    stand_in = jnp.where(ever[:, root], filled[:, root], mean)
    return jnp.where(ever, filled, stand_in[:, None])


def _cost(
    observations: Observations, points: Array, sigma: Array, valid: Array
) -> Float[Array, "*time joints"]:
    squared = jnp.sum(reprojections(observations, points)[0] ** 2, axis=-1)
    cost = jnp.sum(observations.confidence * residuals.robust(squared, sigma)[0], axis=-2)
    return jnp.where(valid > 0, cost, jnp.inf)


def _weights(observations: Observations, points: Array, sigma: Array) -> Array:
    squared = jnp.sum(reprojections(observations, points)[0] ** 2, axis=-1)
    return observations.confidence * residuals.robust(squared, sigma)[1]


def _less(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Per joint the (cost, point) of less cost."""
    return jnp.minimum(a[0], b[0]), jnp.where((a[0] <= b[0])[..., None], a[1], b[1])
