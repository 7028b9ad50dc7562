"""Encoders and decoders of several modalities on one latent, with a part that is each one's own."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models.layers import HE, NEAR_ZERO, BatchNorm, Dense


class Residual(nn.Module):
    """Dense residual blocks of two layers with batch norm and ReLU, and a dense layer at the end.

    As in Martinez et al. (ICCV 2017). Rows of `mask` 0 leave the batch statistics alone.
    """

    width: int
    blocks: int
    out: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows features"], mask: Float[Array, "rows"], update_statistics: bool
    ) -> Float[Array, "rows out"]:
        """What the last layer says of each row."""

        def layer(x: Array) -> Array:
            x = Dense(self.width, dtype=self.dtype, kernel_init=HE)(x)
            return nn.relu(BatchNorm()(x, mask, update_statistics))

        x = layer(x)
        for _ in range(self.blocks):
            x = x + layer(layer(x))
        x = Dense(self.out, dtype=self.dtype, kernel_init=NEAR_ZERO)(x)
        return x.astype(jnp.float32)


class MultimodalVAE(nn.Module):
    """q(z | x_m), q(w_m | x_m) and what says p(x_m | z, w_m), for every modality m.

    Attributes:
      sizes: numbers that a decoder says, by modality.
      scales: initial distances by modality, of how far what there is is from what its decoder says,
        and how many such distances there are.
      shared: dimensions of z.
      private: dimensions of each w.
      width, blocks: of every network.
      dtype: what the networks compute in.
    """

    sizes: Mapping[str, int]
    scales: Mapping[str, tuple[float, int]]
    shared: int
    private: int
    width: int
    blocks: int
    dtype: Any = jnp.float32

    def setup(self) -> None:  # noqa: D102
        latent = 2 * (self.shared + self.private)
        net = {"width": self.width, "blocks": self.blocks, "dtype": self.dtype}
        self.encoders = {name: Residual(out=latent, **net) for name in self.sizes}
        self.decoders = {name: Residual(out=size, **net) for name, size in self.sizes.items()}
        self.log_scales = {
            name: self.param(
                f"log_scale_{name}",
                nn.initializers.constant(jnp.log(scale)),
                (count,),
            )
            for name, (scale, count) in self.scales.items()
        }

    def encode(
        self,
        name: str,
        features: Float[Array, "rows features"],
        mask: Float[Array, "rows"],
        update_statistics: bool,
    ) -> tuple[Float[Array, "rows latent"], Float[Array, "rows latent"]]:
        """Mean and log variance of z and w, one behind the other."""
        moments = self.encoders[name](features, mask, update_statistics)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, -12.0, 6.0)

    def decode(
        self,
        name: str,
        shared: Float[Array, "rows shared"],
        private: Float[Array, "rows private"],
        mask: Float[Array, "rows"],
        update_statistics: bool,
    ) -> Float[Array, "rows size"]:
        """What is said of a modality."""
        latent = jnp.concatenate([shared, private], axis=-1)
        return self.decoders[name](latent, mask, update_statistics)
