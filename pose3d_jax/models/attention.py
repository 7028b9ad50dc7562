"""Attention over the frames of a window, and over its joints: trunks of `SequenceLifter`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models.layers import HE, NEAR_ZERO, BatchNorm, Dense, Dropout, by_row

_CONTEXT = (0, 0)
_LECUN = nn.initializers.lecun_normal()  # flax's own choice


class Attention(nn.Module):
    """Multi-head self-attention over the last axis but one, with the platform's fastest kernel.

    In float32 that is XLA's own; a GPU in bfloat16 has one (cuDNN's) whose memory does not grow
    with the square of the length.
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows length width"], seen: Float[Array, "rows length"] | None = None
    ) -> Float[Array, "rows length width"]:
        """Everything attends to what is seen; to everything, where nothing is."""
        rows, length, width = x.shape
        # One product for queries, keys and values.
        both = by_row(Dense(3 * width, dtype=self.dtype), x)
        query, key, value = jnp.moveaxis(
            both.reshape(rows, length, 3, self.heads, width // self.heads), 2, 0
        )
        mask = None
        if seen is not None:
            there = (seen > 0) | ~(seen > 0).any(axis=-1, keepdims=True)
            mask = jnp.broadcast_to(there[:, None, None], (rows, 1, length, length))
        quick = jax.default_backend() == "gpu" and self.dtype == jnp.bfloat16
        with jax.default_matmul_precision("highest"):
            found = jax.nn.dot_product_attention(
                query, key, value, mask=mask, implementation="cudnn" if quick else "xla"
            )
        return by_row(Dense(width, dtype=self.dtype), found.reshape(rows, length, width))


class Transformer(nn.Module):
    """The sequence model of "3D Pose Estimation Using 2D Supervision" (CMU 16-824 report).

    A dense embedding of each frame, with batch norm, ReLU and dropout, a transformer encoder
    (Vaswani et al., "Attention Is All You Need", NeurIPS 2017, normalised after each part), and a
    dense decoder.

    Attributes:
      joints: number of joints out.
      width, dropout: of the network.
      blocks: layers of the encoder.
      heads: of its attention.
      positions: whether frames are told apart by their place (the sines of section 3.5, ibid.); the
        original switched that off, so that it sees a set of frames.
      dtype: what the network computes in.
    """

    joints: int
    width: int = 512
    blocks: int = 2
    heads: int = 4
    dropout: float = 0.5
    positions: bool = False
    dtype: Any = jnp.float32

    context = _CONTEXT

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "rows time keypoints 3"],
        where: Float[Array, "rows time axes"],
        seen: Float[Array, "rows time"],
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "rows time joints 3"]:
        """See `SequenceLifter.trunk`."""
        rows, time = features.shape[:2]

        def dense(x: Array, width: int, init: nn.initializers.Initializer = _LECUN) -> Array:
            return by_row(Dense(width, dtype=self.dtype, kernel_init=init), x)

        def drop(x: Array) -> Array:
            return Dropout(self.dropout)(x, deterministic=not dropout)

        x = jnp.concatenate([features.reshape(rows, time, -1), where], axis=-1)
        x = dense(x, self.width, HE)
        x = drop(nn.relu(BatchNorm()(x, seen, update_statistics)))
        if self.positions:
            x = x + sines(time, self.width)[None].astype(x.dtype)
        for _ in range(self.blocks):
            attended = Attention(self.heads, dtype=self.dtype)(x, seen)
            x = nn.LayerNorm(dtype=self.dtype)(x + drop(attended))
            hidden = drop(nn.relu(dense(x, 4 * self.width, HE)))
            x = nn.LayerNorm(dtype=self.dtype)(x + drop(dense(hidden, self.width)))
        x = nn.relu(dense(x, self.width, HE))
        return dense(x, 3 * self.joints, NEAR_ZERO).reshape(rows, time, self.joints, 3)


class JointAttention(nn.Module):
    """Attention over the joints of a frame and over the frames of a joint, a token for each.

    Zheng et al., "3D Human Pose Estimation with Spatial and Temporal Transformers" (ICCV 2021);
    alternating as in Zhang et al., "MixSTE: Seq2seq Mixed Spatio-Temporal Encoder for 3D Human Pose
    Estimation in Video" (CVPR 2022), or both at once, from the same input, and added. Normalised
    before each part.

    Attributes:
      joints: number of joints out.
      width, dropout: of the network; `width` of a token.
      blocks: how often it looks at joints and at frames.
      heads: of its attention.
      parallel: at both at once.
      dtype: what the network computes in.
    """

    joints: int
    width: int = 64
    blocks: int = 3
    heads: int = 4
    dropout: float = 0.0
    parallel: bool = False
    dtype: Any = jnp.float32

    context = _CONTEXT

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "rows time keypoints 3"],
        where: Float[Array, "rows time axes"],
        seen: Float[Array, "rows time"],
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "rows time joints 3"]:
        """See `SequenceLifter.trunk`; it has no batch statistics."""
        rows, time, keypoints = features.shape[:3]
        width = self.width

        def dense(x: Array, width: int, init: nn.initializers.Initializer = _LECUN) -> Array:
            return by_row(Dense(width, dtype=self.dtype, kernel_init=init), x)

        def drop(x: Array) -> Array:
            return Dropout(self.dropout)(x, deterministic=not dropout)

        def norm(x: Array) -> Array:
            return nn.LayerNorm(dtype=self.dtype)(x)

        def over_joints(x: Array) -> Array:
            found = Attention(self.heads, dtype=self.dtype)(x.reshape(rows * time, -1, width))
            return found.reshape(x.shape)

        def over_frames(x: Array) -> Array:
            swapped = jnp.swapaxes(x, 1, 2).reshape(rows * keypoints, time, width)
            known = jnp.repeat(seen, keypoints, axis=0)
            found = Attention(self.heads, dtype=self.dtype)(swapped, known)
            return jnp.swapaxes(found.reshape(rows, keypoints, time, width), 1, 2)

        def widened(x: Array) -> Array:
            return dense(nn.gelu(dense(norm(x), 2 * width)), width)

        told = jnp.broadcast_to(where[:, :, None], (*features.shape[:3], where.shape[-1]))
        x = dense(jnp.concatenate([features, told], axis=-1), width)
        which = self.param("joint", nn.initializers.normal(0.02), (keypoints, width))
        x = x + (which[None, None] + sines(time, width)[None, :, None]).astype(x.dtype)
        for _ in range(self.blocks):
            if self.parallel:
                y = norm(x)
                x = x + drop(over_joints(y) + over_frames(y))
                x = x + drop(widened(x))
                continue
            x = x + drop(over_joints(norm(x)))
            x = x + drop(widened(x))
            x = x + drop(over_frames(norm(x)))
            x = x + drop(widened(x))
        x = norm(x)
        if keypoints != self.joints:
            x = jnp.swapaxes(dense(jnp.swapaxes(x, 2, 3), self.joints), 2, 3)
        return dense(x, 3, NEAR_ZERO)


def sines(time: int, width: int) -> Float[Array, "time width"]:
    """The place of each frame in its window, as sines and cosines of many wavelengths."""
    half = -(-width // 2)
    rate = 10_000.0 ** (-jnp.arange(half) / half)
    angle = jnp.arange(time)[:, None] * rate[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, :width]
