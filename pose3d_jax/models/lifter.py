"""The residual lifter: one view's 2D pose to its 3D pose in the camera frame."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST, safe_divide
from pose3d_jax.models.layers import BatchNorm, Dropout

# Root mean square distance from the root, on the normalised plane, of a person at 4 m.
_SPREAD = 0.13


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
      centred: look at the root, and measure in sizes of the pose: the camera is turned so that the
        root lies on its axis, points are divided by their spread about it, depth is multiplied by
        it. What the network sees then depends neither on where in the image a person is nor on how
        far away, but for perspective (compare Yu et al., "PCLs: Geometry-aware Neural
        Reconstruction of 3D Pose with Perspective Crop Layers", CVPR 2021).
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
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "*views joints 3"]:
        """Normalised points and confidences to camera-frame joints, metres.

        Views without any visible point leave the batch statistics alone.
        """
        seen = (confidence > 0).astype(points.dtype)
        anchor, anchor_seen = self._anchor(points, seen)
        if self.centred:
            turn = _towards(anchor)
            points = _turned(turn, points)
            relative = points * seen[..., None]
            spread = _spread(relative, seen)
            relative = relative / spread[..., None]
            place = jnp.log(spread / _SPREAD)
        else:
            # About unit scale: a person of 1.7 m at 4 m spans 0.4 on the normalised plane.
            relative = 4.0 * (points - anchor[..., None, :]) * seen[..., None]
            place = anchor
        x = jnp.concatenate([relative.reshape(*points.shape[:-2], -1), place, confidence], axis=-1)

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
        raw = raw.reshape(*points.shape[:-2], self.joints, 3)
        if not self.centred:
            return self._place(raw, anchor, anchor_seen, jnp.ones_like(anchor_seen))
        joints = self._place(raw, jnp.zeros_like(anchor), anchor_seen, _SPREAD / spread)
        return jnp.einsum("...ji,...nj->...ni", turn, joints, precision=HIGHEST)

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
        far: Float[Array, "*views 1"],
    ) -> Float[Array, "*views joints 3"]:
        """Network output to joints: the root on its ray, the others relative to it.

        `far` is the factor on its depth.
        """
        offsets = self.reach * jnp.tanh(raw)
        depth_bias = jnp.log(jnp.expm1(self.root_depth))  # softplus(depth_bias) = root_depth
        depth = far * jax.nn.softplus(raw[..., self.root, 2:] + depth_bias)
        root = depth * jnp.concatenate([anchor, jnp.ones_like(depth)], axis=-1)
        # Where the root's own point is missing, it may leave the ray of its stand-in sideways.
        sideways = offsets[..., self.root, :2] * (1.0 - anchor_seen)
        root = root.at[..., :2].add(sideways)
        return (root[..., None, :] + offsets).at[..., self.root, :].set(root)


def _towards(anchor: Float[Array, "*views 2"]) -> Float[Array, "*views 3 3"]:
    """The shortest rotation that brings the ray of a normalised point onto the optical axis."""
    x, y = anchor[..., 0], anchor[..., 1]
    # The ray is u = (x, y, 1) / n; the rotation takes u to z about z x u (Rodrigues).
    n = jnp.sqrt(1 + x * x + y * y)
    a, b, c = x / n, y / n, 1 / n
    k = 1 / (1 + c)
    rows = [[1 - k * a * a, -k * a * b, -a], [-k * a * b, 1 - k * b * b, -b], [a, b, c]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _turned(
    turn: Float[Array, "*views 3 3"], points: Float[Array, "*views keypoints 2"]
) -> Float[Array, "*views keypoints 2"]:
    """Normalised points as the turned camera sees them; behind it, as far out as can be."""
    rays = jnp.concatenate([points, jnp.ones_like(points[..., :1])], axis=-1)
    turned = jnp.einsum("...ij,...nj->...ni", turn, rays, precision=HIGHEST)
    return turned[..., :2] / jnp.maximum(turned[..., 2:], 0.1)


def _spread(
    relative: Float[Array, "*views keypoints 2"], seen: Float[Array, "*views keypoints"]
) -> Float[Array, "*views 1"]:
    """Root mean square distance from the root of what is seen; a hundredth at least."""
    squares = jnp.sum(jnp.sum(relative**2, axis=-1) * seen, axis=-1, keepdims=True)
    count = jnp.maximum(jnp.sum(seen, axis=-1, keepdims=True), 1.0)
    return jnp.sqrt(jnp.maximum(squares / count, 1e-4))
