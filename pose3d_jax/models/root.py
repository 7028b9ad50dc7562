"""How large a person is, from the pose that is seen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models.layers import NEAR_ZERO, Dense, by_row
from pose3d_jax.models.vae import Trunk
from pose3d_jax.skeleton import Skeleton


class SizeNetwork(nn.Module):
    """A factor on the usual size, 1 for a zero output: a dense `Trunk` and an output layer.

    Attributes:
      skeleton: of the joints.
      width, blocks, dtype: of the trunk.
    """

    skeleton: Skeleton
    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        points: Float[Array, "rows time joints features"],
        where: Float[Array, "rows time others"],
        mask: Float[Array, "rows time"],
        *,
        update_statistics: bool,
    ) -> Float[Array, "rows time"]:
        """What is seen of joints and of whole frames to the size of each frame."""
        trunk = Trunk("dense", self.skeleton, self.width, self.blocks, dtype=self.dtype)
        x = trunk(points, where, mask, update_statistics)
        raw = by_row(Dense(1, dtype=self.dtype, kernel_init=NEAR_ZERO), x)
        return jax.nn.softplus(raw[..., 0].astype(jnp.float32) + jnp.log(jnp.expm1(1.0)))
