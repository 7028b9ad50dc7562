"""Layers that the models share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The mapped axis over which a training step runs (see step.py); batch statistics reduce over it.
BATCH_AXIS = "batch"


class BatchNorm(nn.Module):
    """Batch normalisation over all but the last axis, over the devices, of unmasked rows only.

    flax's own layer averages per-device means, which is wrong as soon as the masks of the devices
    differ. Running statistics (`batch_stats`: mean, biased variance) follow with `momentum`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "*rows features"], mask: Float[Array, "*rows"], update: bool
    ) -> Float[Array, "*rows features"]:
        """Normalises by the batch's statistics if `update` (and stores them), else the running."""
        shape = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean, var = running_mean.value, running_var.value
        if update and not self.is_initializing():
            mean, var = _masked_moments(x, mask)
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_var.value = keep * running_var.value + (1 - keep) * var
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        offset = bias - mean * gain
        rank = (1,) * (x.ndim - 1)
        return x * gain.reshape(*rank, -1) + offset.reshape(*rank, -1)


def _masked_moments(
    x: Float[Array, "*rows features"], mask: Float[Array, "*rows"]
) -> tuple[Float[Array, "features"], Float[Array, "features"]]:
    """Mean and variance of the rows whose mask is 1, over all devices of `BATCH_AXIS`."""
    rows = tuple(range(x.ndim - 1))
    weight = mask[..., None]
    count = jnp.maximum(jax.lax.psum(jnp.sum(mask), BATCH_AXIS), 1.0)
    mean = jax.lax.psum(jnp.sum(weight * x, axis=rows), BATCH_AXIS) / count
    centred = x - mean.reshape(*(1,) * len(rows), -1)
    var = jax.lax.psum(jnp.sum(weight * centred**2, axis=rows), BATCH_AXIS) / count
    return mean, var
