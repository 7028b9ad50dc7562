"""How well the joints of a clip can be known at all: Cramer-Rao bounds of rig, pose and noise.

For Gaussian noise that is independent from view to view. No estimator without bias has a smaller
covariance; one that knows more than a frame's keypoints may rightly go below `per_frame`, and one
that knows more than smoothness and bones below `with_priors`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax import bordered, posterior, residuals
from pose3d_jax.schema import Observations
from pose3d_jax.solvers import inverse3
from pose3d_jax.trajectory import LEAST_STEP
from pose3d_jax.triangulate import ROOM

_GAUSSIAN = 1e9  # degrees of freedom


def per_frame(
    observations: Observations, joints: Float[Array, "*time joints 3"], sigma: Float[Array, ""]
) -> Float[Array, "*time joints 3 3"]:
    """The least covariance, m^2, of each joint from its own frame's keypoints: (J^T J)^-1 sigma^2.

    `joints` are the true ones, world, metres; `sigma` is the standard deviation of x and of y,
    pixels. Keypoints that are seen count alike, whatever their confidence, and none is an outlier.
    What no view tells is known within `triangulate.ROOM`.
    """
    _, jacobian = residuals.reprojections(observations, joints)
    products = jacobian[..., :, None] * jacobian[..., None, :]  # [*time, views, joints, 2, 3, 3]
    information = jnp.sum(products, axis=(-5, -3)) / sigma**2
    flat = information.reshape(-1, 3, 3)
    inverses = jax.vmap(lambda x: inverse3(x + jnp.eye(3) / ROOM**2))(flat)
    return inverses.reshape(information.shape)


def with_priors(
    observations: Observations,
    inside: Float[Array, "time"],
    joints: Float[Array, "time joints 3"],
    sigma: Float[Array, ""],
    bones: posterior.Bones,
    correlation: Float[Array, ""] | float = 0.0,
) -> Float[Array, "time joints 3 3"]:
    """`per_frame` for the joints of a whole clip at once, with the priors of `posterior`.

    The Bayesian bound (van Trees, 1968) where second differences are Gaussian, as large as those of
    the true `joints`, and bone lengths constant within `posterior.BONE`, at the true joints alone.
    `correlation` is that of a keypoint's error with the one a frame before, as long as it is seen.
    The number of frames must be even; those where `inside` is 0 pad the clip.
    """
    seen = (observations.confidence > 0).astype(joints.dtype)
    second = joints[:-2] - 2 * joints[1:-1] + joints[2:]
    middle = (inside[:-2] * inside[1:-1] * inside[2:])[:, None, None]
    step = jnp.sqrt(jnp.sum(middle * second**2, axis=(0, 2)) / (3 * jnp.sum(middle)))
    model = posterior.Model(
        observations=dataclasses.replace(observations, confidence=seen),
        inside=inside,
        start=joints,
        sigma=sigma,
        correlation=jnp.asarray(correlation),
        step=jnp.maximum(step, LEAST_STEP),
        bones=bones,
        tail=_GAUSSIAN,
    )
    unknowns = posterior.Unknowns(joints, posterior.median_lengths(model))
    return bordered.covariance(posterior.normal_equations(model, unknowns, seen))
