"""The residual lifter: one view's 2D pose to its 3D pose in the camera frame."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models import rays
from pose3d_jax.models.layers import NEAR_ZERO, Dense, residual


class Lifter(nn.Module):
    """Fully connected residual lifter with a root on its pixel's ray.

    The network is that of Martinez et al., "A simple yet effective baseline for 3d human pose
    estimation" (ICCV 2017): an input layer, residual blocks of two dense layers, each with batch
    norm, ReLU and dropout, and an output layer. The parametrisation of its output keeps training
    without labels away from the mirror solution behind the camera and the body on its root: the
    root lies on the ray of its 2D point at depth `softplus`, other joints within `reach` of it.

    Attributes:
      joints: number of joints out.
      root: index of the root among the joints out.
      keypoint_root: its index among the keypoints in, or None where they have no such point.
      width, blocks, dropout: of the network.
      root_depth: metres, the depth that a zero output means.
      reach: metres, the largest distance of a joint from the root along each axis.
      centred: see `rays.look`.
      dtype: what the network computes in; parameters and what surrounds it stay float32.
    """

    joints: int
    root: int
    keypoint_root: int | None
    width: int = 1024
    blocks: int = 2
    dropout: float = 0.5
    root_depth: float = 4.0
    reach: float = 1.5
    centred: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        points: Float[Array, "*views keypoints 2"],
        confidence: Float[Array, "*views keypoints"],
        extra: Float[Array, "*views features"] | None = None,
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "*views joints 3"]:
        """Normalised points and confidences to camera-frame joints, metres.

        Views without any visible point leave the batch statistics alone. `extra` is what else the
        network is told.
        """
        sight = rays.look(points, confidence, self.keypoint_root, centred=self.centred)
        flat = sight.relative.reshape(*points.shape[:-2], -1)
        told = [] if extra is None else [extra.astype(flat.dtype)]
        x = jnp.concatenate([flat, sight.where, confidence, *told], axis=-1)

        # One axis of rows throughout: see `layers.by_row`.
        x, mask = x.reshape(-1, x.shape[-1]), sight.seen.reshape(-1)

        x = residual(x, mask, self, dropout=dropout, update_statistics=update_statistics)
        raw = Dense(3 * self.joints, dtype=self.dtype, kernel_init=NEAR_ZERO)(x)
        raw = raw.astype(points.dtype).reshape(*points.shape[:-2], self.joints, 3)
        return rays.place(raw, sight, root=self.root, root_depth=self.root_depth, reach=self.reach)
