"""3D joints back to 2D points: the decoder of a 2D-3D-2D pose autoencoder.

"Distilling 3D Human Pose from a Single Image" (ETH report), section 3.3; its encoder is `Lifter`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models.layers import NEAR_ZERO, Dense, residual


class Decoder(nn.Module):
    """The residual network of Martinez et al. (ICCV 2017), from 3D to 2D.

    Attributes:
      points: number of points out.
      width, blocks, dropout: of the network.
      dtype: what the network computes in; parameters stay float32.
    """

    points: int
    width: int = 1024
    blocks: int = 2
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        joints: Float[Array, "rows joints 3"],
        there: Float[Array, "rows"],
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "rows points 2"]:
        """Points of joints; rows of `there` 0 have no part in the batch's statistics."""
        rows = len(joints)

        x = residual(
            joints.reshape(rows, -1),
            there,
            self,
            dropout=dropout,
            update_statistics=update_statistics,
        )
        raw = Dense(2 * self.points, dtype=self.dtype, kernel_init=NEAR_ZERO)(x)
        return raw.astype(joints.dtype).reshape(rows, self.points, 2)
