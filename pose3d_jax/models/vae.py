"""Conditional variational auto-encoders: networks over joints; an encoder and a decoder of them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST
from pose3d_jax.models.layers import HE, NEAR_ZERO, BatchNorm, Dense, by_row
from pose3d_jax.skeleton import Skeleton

KINDS = ("dense", "convolution", "graph")

_LOG_SCALE = nn.initializers.constant(np.log(0.03))  # of metres


class Trunk(nn.Module):
    """Features of joints, frame by frame or over a clip, to features of each frame.

    Three kinds of residual network, each layer with batch norm and ReLU: `dense` over all joints of
    a frame at once (Martinez et al., ICCV 2017); `convolution` over neighbouring joints, in the
    skeleton's order, and, `over_time`, neighbouring frames; `graph` over a joint and those that it
    has a bone to (Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional
    Networks", ICLR 2017, with weights of its own for the joint itself). The latter two end in a
    dense layer over the joints.

    Attributes:
      kind: of `KINDS`.
      skeleton: of the joints.
      width: features out; the joints of the latter two kinds have an eighth of it each.
      blocks: residual blocks of two layers.
      over_time: convolutions see the frame before and the one after, too.
      dtype: what the network computes in.
    """

    kind: str
    skeleton: Skeleton
    width: int
    blocks: int
    over_time: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        joints: Float[Array, "rows time joints features"],
        more: Float[Array, "rows time others"],
        mask: Float[Array, "rows time"],
        update_statistics: bool,
    ) -> Float[Array, "rows time width"]:
        """`more` are features of whole frames; frames of `mask` 0 leave the statistics alone."""

        def dense(x: Array, width: int) -> Array:
            return by_row(Dense(width, dtype=self.dtype, kernel_init=HE), x)

        def normed(x: Array) -> Array:
            seen = jnp.broadcast_to(mask.reshape(*mask.shape, *[1] * (x.ndim - 3)), x.shape[:-1])
            return nn.relu(BatchNorm()(x, seen, update_statistics))

        flat = lambda x: x.reshape(*x.shape[:2], -1)  # noqa: E731
        if self.kind == "dense":
            x = jnp.concatenate([flat(joints), more], axis=-1)
            layer = lambda x: normed(dense(x, self.width))  # noqa: E731
        else:
            each = jnp.broadcast_to(more[:, :, None], (*joints.shape[:3], more.shape[-1]))
            x = jnp.concatenate([joints, each], axis=-1)
            channels = max(8, self.width // 8)
            if self.kind == "graph":
                near = jnp.asarray(_neighbours(self.skeleton), self.dtype)

                def layer(x: Array) -> Array:
                    of_others = jnp.einsum("ij,btjc->btic", near, x, precision=HIGHEST)
                    return normed(dense(jnp.concatenate([x, of_others], axis=-1), channels))

            else:

                def layer(x: Array) -> Array:
                    return normed(dense(_neighbourhood(x, self.over_time), channels))

        x = layer(x)
        for _ in range(self.blocks):
            x = x + layer(layer(x))
        if self.kind == "dense":
            return x
        return normed(dense(flat(x), self.width))


class ConditionalVAE(nn.Module):
    """q(z | pose, points) and p(pose | z, points), the latter as what a pose's network says.

    Sohn et al., "Learning Structured Output Representation using Deep Conditional Generative
    Models" (NeurIPS 2015), with the prior N(0, I) of Sharma et al., "Monocular 3D Human Pose
    Estimation by Generation and Ordinal Ranking" (ICCV 2019).

    Attributes:
      encoder, decoder: the trunks.
      joints: number of joints out.
      latent: dimensions of z.
    """

    encoder: Trunk
    decoder: Trunk
    joints: int
    latent: int

    def setup(self) -> None:  # noqa: D102
        self.moments = Dense(2 * self.latent, dtype=self.decoder.dtype, kernel_init=NEAR_ZERO)
        self.raw = Dense(3 * self.joints, dtype=self.decoder.dtype, kernel_init=NEAR_ZERO)
        # How far joints are from where the decoder has them: see `variational`.
        self.log_scale = self.param("log_scale", _LOG_SCALE, (self.joints,))

    def encode(
        self,
        points: Float[Array, "rows time joints 3"],
        pose: Float[Array, "rows time joints features"],
        where: Float[Array, "rows time others"],
        mask: Float[Array, "rows time"],
        update_statistics: bool,
    ) -> tuple[Float[Array, "rows time latent"], Float[Array, "rows time latent"]]:
        """Mean and log variance of q, from what is seen and what is to be explained by it."""
        known = jnp.concatenate([points, pose], axis=-1)
        moments = by_row(self.moments, self.encoder(known, where, mask, update_statistics))
        mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(log_variance, -12.0, 6.0)

    def decode(
        self,
        points: Float[Array, "rows time joints 3"],
        latent: Float[Array, "rows time latent"],
        where: Float[Array, "rows time others"],
        mask: Float[Array, "rows time"],
        update_statistics: bool,
    ) -> Float[Array, "rows time joints 3"]:
        """What is said of each joint: see `rays.place_on_rays`."""
        more = jnp.concatenate([where, latent], axis=-1)
        raw = by_row(self.raw, self.decoder(points, more, mask, update_statistics))
        return raw.astype(jnp.float32).reshape(*raw.shape[:-1], self.joints, 3)


def _neighbours(skeleton: Skeleton) -> np.ndarray:
    """The mean over the joints that a joint has a bone to, as a matrix."""
    near = np.zeros((skeleton.size, skeleton.size))
    for a, b in skeleton.bones:
        near[a, b] = near[b, a] = 1.0
    return near / near.sum(axis=1, keepdims=True)


def _neighbourhood(x: Float[Array, "rows time joints features"], over_time: bool) -> Array:
    """Each joint's features beside those of the next ones in the order, `over_time` of 3 frames.

    A dense layer of that is a convolution of kernel 3 x 3 or 1 x 3, zero beyond the ends; as a
    convolution, XLA's CPU compiler makes it several times slower.
    """
    frames = int(over_time)
    padded = jnp.pad(x, ((0, 0), (frames, frames), (1, 1), (0, 0)))
    return jnp.concatenate(
        [
            padded[:, t : t + x.shape[1], j : j + x.shape[2]]
            for t in range(1 + 2 * frames)
            for j in range(3)
        ],
        axis=-1,
    )
