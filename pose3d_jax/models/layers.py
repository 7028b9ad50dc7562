"""Layers that the models share.

They compute in the type of their input, but for batch statistics, which are always float32.
"""

import functools
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST

# The mapped axis over which a training step runs (see step.py); batch statistics reduce over it.
BATCH_AXIS = "batch"

HE = nn.initializers.he_normal()  # of layers before a ReLU
# Of the last layer: training starts from a body folded into its root at `root_depth`.
NEAR_ZERO = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")


Dense = functools.partial(nn.Dense, precision=HIGHEST)


def by_row(layer: nn.Dense, x: Float[Array, "*rows features"]) -> Float[Array, "*rows width"]:
    """A dense layer on one axis of rows: over several, its gradient's products copy first."""
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], layer.features)


def conv(
    width: int,
    size: int,
    stride: int,
    name: str,
    dtype: Any,
    *,
    bias: bool = False,
    start: nn.initializers.Initializer = HE,
) -> nn.Conv:
    """A convolution of images, padded alike on both sides, whatever their size."""
    # Of one pixel and its channels: on a processor the gradient of a convolution takes 5 times as
    # long as that of a product.
    how = _of_pixels if (size, stride) == (1, 1) else jax.lax.conv_general_dilated
    return nn.Conv(
        width,
        (size, size),
        (stride, stride),
        [((size - 1) // 2, size // 2)] * 2,
        use_bias=bias,
        dtype=dtype,
        precision=HIGHEST,
        kernel_init=start,
        name=name,
        conv_general_dilated=how,
    )


def rectified(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """ReLU of finite numbers, as what a convolution looks at; its gradient at 0 is a half.

    For a maximum of two arrays XLA keeps the result; that of an array and a number it computes anew
    inside of the transposition that the kernel's gradient begins with, from all that it is made of,
    which takes a fifth of HRNet's step on processors.
    """
    return jnp.maximum(x, 0.0 * x)


def _of_pixels(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "1 1 channels out"],
    *_: Any,
    precision: Any,
    **__: Any,
) -> Float[Array, "batch height width out"]:
    """A convolution by a kernel of one pixel, as flax calls it."""
    rows = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=precision)
    return rows.reshape(*x.shape[:-1], -1)


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
            mean, var = _masked_moments(x.astype(jnp.float32), mask)
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_var.value = keep * running_var.value + (1 - keep) * var
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        offset = bias - mean * gain
        rank = (1,) * (x.ndim - 1)
        return (x * gain.reshape(*rank, -1) + offset.reshape(*rank, -1)).astype(x.dtype)


class Dropout(nn.Module):
    """Dropout that draws as few random bits as the rate allows, from the rng stream `dropout`.

    Half of the units are chosen by a bit each; flax's own layer draws 32, which takes half as long
    as the matrix product beside it. The rate is rounded to a multiple of 2**-16.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], *, deterministic: bool) -> Float[Array, "*shape"]:
        """Zeroes a share `rate` of the units and scales the others up; else the identity."""
        if deterministic or self.rate == 0:
            return x
        bits = next((n for n in (1, 2, 4, 8) if (self.rate * 2**n).is_integer()), 16)
        kept = 2**bits - round(self.rate * 2**bits)  # of the numbers of so many bits
        words = jax.random.bits(self.make_rng("dropout"), (1, -(-x.size * bits // 32)))
        # The parts of a word end up far from each other, so that they are taken out row by row.
        parts = words >> jnp.arange(0, 32, bits, dtype=jnp.uint32)[:, None]
        numbers = (parts & jnp.uint32(2**bits - 1)).reshape(-1)[: x.size].reshape(x.shape)
        return jnp.where(numbers < kept, x * (2**bits / kept), 0)


@runtime_checkable
class Residual(Protocol):
    """What `residual` takes of a module."""

    width: int
    blocks: int
    dropout: float
    dtype: Any


def residual(
    x: Float[Array, "rows features"],
    mask: Float[Array, "rows"],
    sizes: Residual,
    *,
    dropout: bool,
    update_statistics: bool,
) -> Float[Array, "rows width"]:
    """The network of Martinez et al. (ICCV 2017) up to its last layer, inside of a module.

    An input layer and residual blocks of two, each dense, with batch norm, ReLU and dropout. Rows
    of `mask` 0 have no part in the batch's statistics.
    """

    def layer(x: Array) -> Array:
        x = Dense(sizes.width, dtype=sizes.dtype, kernel_init=HE)(x)
        x = nn.relu(BatchNorm()(x, mask, update_statistics))
        return Dropout(sizes.dropout)(x, deterministic=not dropout)

    x = layer(x)
    for _ in range(sizes.blocks):
        x = x + layer(layer(x))
    return x


def _masked_moments(
    x: Float[Array, "*rows features"], mask: Float[Array, "*rows"]
) -> tuple[Float[Array, "features"], Float[Array, "features"]]:
    """Mean and variance of the rows whose mask is 1, over all devices of `BATCH_AXIS`."""
    x, mask = x.reshape(-1, x.shape[-1]), mask.reshape(-1)
    count = jnp.maximum(jax.lax.psum(jnp.sum(mask), BATCH_AXIS), 1.0)

    def mean(rows: Float[Array, "rows features"]) -> Float[Array, "features"]:
        # A product with the mask reads the rows once and writes nothing but the sums.
        return jax.lax.psum(jnp.matmul(mask, rows, precision=HIGHEST), BATCH_AXIS) / count

    centre = mean(x)
    return centre, mean((x - centre[None]) ** 2)
