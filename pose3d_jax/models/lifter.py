"""The residual lifter: one view's 2D pose to its 3D pose in the camera frame."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST, safe_divide
from pose3d_jax.models.layers import BatchNorm, Dropout


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
      keypoint_root: its index among the keypoints in, or None where they have no such point; then,
        and where it is missing, the mean of the visible points stands for it.
      width, blocks, dropout: of the network.
      root_depth: metres, the depth that a zero output means.
      reach: metres, the largest distance of a joint from the root along each axis.
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
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        points: Float[Array, "*views keypoints 2"],
        confidence: Float[Array, "*views keypoints"],
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "*views joints 3"]:
        """Normalised points and confidences to camera-frame joints, metres.

        Views without any visible point leave the batch statistics alone.
        """
        seen = (confidence > 0).astype(points.dtype)
        anchor, anchor_seen = self._anchor(points, seen)
        # About unit scale: a person of 1.7 m at 4 m spans 0.4 on the normalised plane.
        relative = 4.0 * (points - anchor[..., None, :]) * seen[..., None]
        x = jnp.concatenate([relative.reshape(*points.shape[:-2], -1), anchor, confidence], axis=-1)

        # One axis of rows: over several, the products of the gradient are transposed by copying.
        x, mask = x.reshape(-1, x.shape[-1]), seen.max(axis=-1).reshape(-1)

        def dense(features: int, init: nn.initializers.Initializer) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, precision=HIGHEST, kernel_init=init)

        def layer(x: Array) -> Array:
            x = dense(self.width, nn.initializers.he_normal())(x)
            x = nn.relu(BatchNorm()(x, mask, update_statistics))
            return Dropout(self.dropout)(x, deterministic=not dropout)

        x = layer(x)
        for _ in range(self.blocks):
            x = x + layer(layer(x))
        # Near zero: training starts from a body folded into its root at `root_depth`.
        small = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")
        raw = dense(3 * self.joints, small)(x).astype(points.dtype)
        return self._place(raw.reshape(*points.shape[:-2], self.joints, 3), anchor, anchor_seen)

    def _anchor(
        self, points: Float[Array, "*views keypoints 2"], seen: Float[Array, "*views keypoints"]
    ) -> tuple[Float[Array, "*views 2"], Float[Array, "*views 1"]]:
        """The root's point, else the mean of the visible ones, and whether it is the root's."""
        total = jnp.sum(points * seen[..., None], axis=-2)
        count = jnp.broadcast_to(jnp.sum(seen, axis=-1, keepdims=True), total.shape)
        mean = safe_divide(total, count)
        if self.keypoint_root is None:
            return mean, jnp.zeros_like(mean[..., :1])
        root_seen = seen[..., self.keypoint_root, None]
        return jnp.where(root_seen > 0, points[..., self.keypoint_root, :], mean), root_seen

    def _place(
        self,
        raw: Float[Array, "*views joints 3"],
        anchor: Float[Array, "*views 2"],
        anchor_seen: Float[Array, "*views 1"],
    ) -> Float[Array, "*views joints 3"]:
        """Network output to joints: the root on its ray, the others relative to it."""
        offsets = self.reach * jnp.tanh(raw)
        depth_bias = jnp.log(jnp.expm1(self.root_depth))  # softplus(depth_bias) = root_depth
        depth = jax.nn.softplus(raw[..., self.root, 2:] + depth_bias)
        root = depth * jnp.concatenate([anchor, jnp.ones_like(depth)], axis=-1)
        # Where the root's own point is missing, it may leave the ray of its stand-in sideways.
        sideways = offsets[..., self.root, :2] * (1.0 - anchor_seen)
        root = root.at[..., :2].add(sideways)
        return (root[..., None, :] + offsets).at[..., self.root, :].set(root)
