"""A whole clip's world joints at once: triangulation with smooth motion and constant bones.

The most probable joints of all frames by `posterior`: given the keypoints, and up to two priors on
motion and bones. How much the keypoints err, how far from one frame to the next, and how quickly
the joints move is estimated from the clip itself.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax import bordered, posterior, residuals
from pose3d_jax.posterior import Model, Unknowns, earlier
from pose3d_jax.schema import Observations
from pose3d_jax.solvers import levenberg_marquardt

# How quickly a joint moves is told by three frames so far apart, as long as the clip has enough of
# such threes; and what then goes from the median of their second differences to the scale of those
# over one frame, which are larger than in proportion. Chosen on the validation split of CMU-MV.
_STRIDES = {5: 6.0, 2: 3.0, 1: 1.5}
_ENOUGH = 8
_UNKNOWN_STEP = 0.1  # metres
LEAST_STEP = 2e-4  # metres
_ROUNDING_PX = 0.01

# The noise is first taken to be so many times what it is: the priors speak first, and show which
# keypoints are outliers (graduated non-convexity; Blake & Zisserman, "Visual Reconstruction",
# 1987).
_FIRST_SCALE = 8.0
STEPS = 10


def fit(
    model: Model, steps: int = STEPS
) -> tuple[Float[Array, "time joints 3"], Float[Array, "time joints 3 3"]]:
    """The most probable joints, metres, and their covariance, m^2 (Laplace's approximation).

    Without bones every joint is solved for on its own; how quickly joints move is estimated again
    on the way. The number of frames must be even. With fewer `steps` the noise is still taken to be
    larger than it is at the end, with more nothing changes from the last on.
    """
    if not model.bones and model.start.shape[1] > 1:
        return _joint_by_joint(model, steps)
    first = Unknowns(model.start, posterior.median_lengths(model))
    scales = jnp.geomspace(_FIRST_SCALE, 1.0, STEPS - 4)

    def local(unknowns: Unknowns, i: Array) -> tuple[Any, Any]:
        scale = scales[jnp.minimum(i, len(scales) - 1)]
        at = dataclasses.replace(model, sigma=model.sigma * scale, tail=model.tail * scale**2)
        if at.step is not None:
            # Once the outliers have shown: before, they would pass for quick motion.
            now = motion_scale(unknowns.joints, model.inside)
            at = dataclasses.replace(at, step=jnp.where(i < STEPS // 2 + 2, model.step, now))
        weight = posterior.inliers(at, unknowns.joints)
        normal = posterior.normal_equations(at, unknowns, weight)

        def propose(damping: Array) -> Unknowns:
            joints, lengths = bordered.step(normal, damping)
            return Unknowns(unknowns.joints + joints, unknowns.lengths + lengths)

        return lambda candidate: posterior.cost(at, candidate, weight), propose

    found = levenberg_marquardt(local, first, steps)
    if model.step is not None:
        model = dataclasses.replace(model, step=motion_scale(found.joints, model.inside))
    weight = posterior.inliers(model, found.joints)
    return found.joints, bordered.covariance(posterior.normal_equations(model, found, weight))


def _joint_by_joint(model: Model, steps: int) -> tuple[Array, Array]:
    def one(keypoints: Array, confidence: Array, start: Array, step: Array) -> tuple[Array, Array]:
        observations = Observations(keypoints[:, :, None], confidence[:, :, None], cameras)
        return jax.tree.map(
            lambda x: x[:, 0],
            fit(
                dataclasses.replace(
                    model, observations=observations, start=start[:, None], step=step[None]
                ),
                steps,
            ),
        )

    cameras = model.observations.cameras
    over = jax.vmap(one, in_axes=(2, 2, 1, 0), out_axes=1)
    return over(
        model.observations.keypoints, model.observations.confidence, model.start, model.step
    )


def motion_scale(
    joints: Float[Array, "time joints 3"], inside: Float[Array, "time"]
) -> Float[Array, "joints"]:
    """How quickly joints move: the scale of an axis' second differences, metres, in a clip.

    From the median of the squared second differences of frames some way apart, which the keypoints'
    errors touch less than those of neighbours. No joint is taken to be much slower than the others.
    """
    scale = jnp.full(joints.shape[1], _UNKNOWN_STEP)
    for stride in sorted(_STRIDES):
        second = joints[: -2 * stride] - 2 * joints[stride:-stride] + joints[2 * stride :]
        usable = (inside[: -2 * stride] * inside[2 * stride :])[:, None]
        squared = jnp.where(usable > 0, jnp.sum(second**2, axis=-1), jnp.nan)
        # The median of a chi-square distribution with 3 degrees of freedom is 2.366.
        # At rest the root has no derivative; what is so small does not count in the end.
        median = jnp.nan_to_num(jnp.nanmedian(squared, axis=0)) / 2.366
        median = jnp.sqrt(jnp.maximum(median, 1e-12))
        found = _STRIDES[stride] * median / stride**2
        scale = jnp.where(jnp.sum(usable) >= _ENOUGH, found, scale)
    return jnp.maximum(scale, jnp.maximum(jnp.median(scale) / 2, LEAST_STEP))


def correlation_in_time(
    observations: Observations, joints: Float[Array, "time joints 3"], sigma: Float[Array, ""]
) -> Float[Array, ""]:
    """Correlation of the keypoints' errors with those one frame before, from the residuals.

    At least 0, at most 0.95; 0 where the residuals are no more than rounding.
    """
    residual, _ = residuals.reprojections(observations, joints)
    squared = jnp.sum(residual**2, axis=-1)
    weight = residuals.robust(squared, sigma)[1] * (observations.confidence > 0)
    pair = weight * earlier(weight)
    product = jnp.sum(pair * jnp.sum(residual * earlier(residual), axis=-1))
    power = jnp.sum(pair * (squared + earlier(squared)) / 2)
    noise = jnp.sum(pair) * _ROUNDING_PX**2
    return jnp.clip(product / jnp.maximum(power + noise, 1e-12), 0.0, 0.95)
