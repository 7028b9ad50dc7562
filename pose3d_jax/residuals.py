"""What second-order solvers minimise: residuals with their Jacobians, and robust weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera
from pose3d_jax.schema import Observations

# What a keypoint is that belongs to nothing: one in so many, anywhere within so many pixels.
OUTLIERS = 0.05
OUTLIER_PX = 100.0


def reprojection(
    camera: Camera, point: Float[Array, "3"], pixel: Float[Array, "2"]
) -> Float[Array, "2"]:
    """Distorted pixels from `pixel` to where the camera sees the world point."""
    return cam.project(camera, point) - pixel


def reprojections(
    observations: Observations, joints: Float[Array, "*time joints 3"]
) -> tuple[Float[Array, "*time views joints 2"], Float[Array, "*time views joints 2 3"]]:
    """Every view's `reprojection` of world joints, pixels, and its Jacobian, pixels per metre.

    Observations have leading axes `[*time, views]`. What a view does not see has residual 0.
    """

    def both(
        camera: Camera, point: Float[Array, "3"], pixel: Float[Array, "2"]
    ) -> tuple[Float[Array, "2"], Float[Array, "2 3"]]:
        def residual(point: Float[Array, "3"]) -> tuple[Array, Array]:
            value = reprojection(camera, point, pixel)
            return value, value

        jacobian, value = jax.jacfwd(residual, has_aux=True)(point)
        return value, jacobian

    over = jax.vmap(both, in_axes=(None, 0, 0))  # joints
    over = jax.vmap(over, in_axes=(0, None, 0))  # views
    for _ in range(joints.ndim - 2):
        over = jax.vmap(over)
    residual, jacobian = over(observations.cameras, joints, observations.keypoints)
    seen = (observations.confidence > 0)[..., None]
    return jnp.where(seen, residual, 0.0), jnp.where(seen[..., None], jacobian, 0.0)


def robust(
    squared: Float[Array, "*shape"], sigma: Float[Array, ""]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Cost and weight of a 2D residual of squared length `squared`, pixels, at noise `sigma`.

    The keypoint is either the joint, with Gaussian noise, or an outlier, anywhere in a disc of
    `OUTLIER_PX`: the cost is -2 log of that mixture's density, 0 at residual 0, and the weight
    (d cost / d (squared / sigma^2)) the probability that the keypoint is no outlier, as in
    expectation maximisation and iteratively re-weighted least squares.
    """
    odds = OUTLIERS / (1 - OUTLIERS) * 2 * sigma**2 / OUTLIER_PX**2
    # In logarithms: exp(-squared / 2 sigma^2) is 0 in float32 beyond 13 sigma.
    gauss = -squared / (2 * sigma**2)
    total = jnp.logaddexp(gauss, jnp.log(odds))
    # Smaller weights are of no account, and denormal numbers make a solver crawl.
    weight = jnp.where(gauss - total > -20, jnp.exp(gauss - total), 0.0)
    return 2 * (jnp.log1p(odds) - total), weight
