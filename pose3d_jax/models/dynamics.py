"""From features of frames to bodies, now and a little before and after: the networks of HMMR.

Kanazawa et al., "Learning 3D Human Dynamics from Video" (CVPR 2019), sections 3 and 8.1. A body is
a vector theta: camera (scale and shift), pose (numbers for each joint's rotation), shape.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models.layers import HE, Dense, Dropout, by_row

CAMERA = 3  # numbers of theta: scale, x, y
_SMALL = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")  # first bodies are the start


class TemporalEncoder(nn.Module):
    """Features of frames to "movie strips": residual blocks of two convolutions over time.

    Three blocks of kernel 3 see 13 frames. Groups are normalised frame by frame, so that it is no
    more than these, and frames that are missing, or beyond the clip, are zeros to every layer. At
    first a strip is its frame's features, or with `spread` their mean over the frames that it sees:
    a block, whose layers have normalisations and ReLUs, learns no mean.

    Attributes:
      width: features, in and out.
      blocks: residual blocks.
      groups: of the normalisation.
      spread: standard deviation, frames, of the mean's weights at the start; each feature learns
        its own. 0: no mean, as published.
      dtype: what the network computes in.
    """

    width: int = 2048
    blocks: int = 3
    groups: int = 32
    spread: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "rows time width"], mask: Float[Array, "rows time"]
    ) -> Float[Array, "rows time width"]:
        """Frames of `mask` 0 are missing."""
        there = mask[..., None].astype(self.dtype)

        def layer(
            x: Float[Array, "rows time width"], start: nn.initializers.Initializer
        ) -> Float[Array, "rows time width"]:
            normed = nn.GroupNorm(self.groups, reduction_axes=(-1,), dtype=self.dtype)(x)
            x = jnp.pad(nn.relu(normed) * there, ((0, 0), (1, 1), (0, 0)))
            # A convolution of kernel 3, as one product.
            near = jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=-1)
            return by_row(Dense(self.width, dtype=self.dtype, kernel_init=start), near)

        own = x = features.astype(self.dtype)
        for _ in range(self.blocks):
            x = x + layer(layer(x, HE), _SMALL)
        return x - own + self._mean(own, there) if self.spread else x

    def _mean(
        self, x: Float[Array, "rows time width"], there: Float[Array, "rows time 1"]
    ) -> Float[Array, "rows time width"]:
        """Over the frames near each that are there, by weights that are learnt; else 0."""
        reach = 2 * self.blocks
        away = jnp.arange(-reach, reach + 1) / self.spread
        start = jnp.broadcast_to(-0.5 * away[:, None] ** 2, (len(away), self.width))
        weights = jnp.exp(self.param("near", lambda _: start)).astype(self.dtype)
        time = x.shape[1]
        around = ((0, 0), (reach, reach), (0, 0))
        total, count = jnp.zeros_like(x), jnp.zeros_like(x)
        shown, known = jnp.pad(x * there, around), jnp.pad(there, around)
        for k in range(len(away)):
            weight = jnp.broadcast_to(weights[k], x.shape)
            total += weight * shown[:, k : k + time]
            count += weight * known[:, k : k + time]
        return total / jnp.maximum(count, 1e-6)


class KeypointEncoder(nn.Module):
    """Features of a frame from its 2D keypoints: what stands for an image network's.

    So a model runs on any detector's output. Residual, as the lifters are, without statistics of a
    batch.
    """

    width: int = 2048
    blocks: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, seen: Float[Array, "*batch numbers"]) -> Float[Array, "*batch width"]:
        """Every frame by itself."""
        dense = functools.partial(Dense, self.width, dtype=self.dtype, kernel_init=HE)
        x = nn.relu(dense()(seen.astype(self.dtype)))
        for _ in range(self.blocks):
            x = x + nn.relu(dense()(nn.LayerNorm(dtype=self.dtype)(x)))
        return x


class Hallucinator(nn.Module):
    """A movie strip from one frame's features: two dense layers, added to them."""

    width: int = 2048
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Every frame by itself."""
        x = nn.relu(Dense(self.width, dtype=self.dtype, kernel_init=HE)(features))
        return features + Dense(self.width, dtype=self.dtype, kernel_init=_SMALL)(x)


class Regressor(nn.Module):
    """Iterative error feedback: what is said is looked at again, and corrected.

    Carreira et al., "Human Pose Estimation with Iterative Error Feedback" (CVPR 2016); two dense
    layers with dropout between, the same in every iteration.

    Attributes:
      outputs: numbers that are said.
      hidden: width of the layers.
      iterations: corrections.
      dropout: its rate.
      dtype: what the network computes in; corrections are added in float32.
    """

    outputs: int
    hidden: int = 1024
    iterations: int = 3
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "*batch width"],
        start: Float[Array, "*batch outputs"],
        *,
        deterministic: bool,
    ) -> Float[Array, "*batch outputs"]:
        """The numbers, `start` being the first estimate of them."""
        dense = functools.partial(Dense, dtype=self.dtype, kernel_init=HE)
        second = dense(self.hidden, name="second")
        last = dense(self.outputs, kernel_init=_SMALL, name="last")
        again = dense(self.hidden, use_bias=False, name="first_said")
        drop = Dropout(self.dropout)
        # The first layer's share that is the same in every iteration; each begins as a whole layer.
        of_features = by_row(dense(self.hidden, name="first"), features.astype(self.dtype))
        said = start
        for _ in range(self.iterations):
            x = nn.relu(of_features + by_row(again, said.astype(self.dtype)))
            x = nn.relu(by_row(second, drop(x, deterministic=deterministic)))
            said = said + by_row(last, x).astype(said.dtype)
        return said


class Dynamics(nn.Module):
    """Encoder, hallucinator, and the regressors of the body and of what it was and will be.

    Attributes:
      joints: of the body.
      rest: numbers of a joint's rotation that changes nothing; each joint has as many in theta.
      components: of its shape.
      steps: frames from now to each pose that is predicted beside the present one.
      width: features of a frame.
      hidden: width of the regressors.
      iterations: of the regressors.
      dropout: of the regressors.
      dtype: what the networks compute in.
    """

    joints: int = 24
    rest: tuple[float, ...] = (0.0, 0.0, 0.0)
    components: int = 10
    steps: tuple[int, ...] = (-5, 5)
    width: int = 2048
    hidden: int = 1024
    iterations: int = 3
    dropout: float = 0.5
    spread: float = 0.0
    dtype: Any = jnp.float32

    def setup(self) -> None:  # noqa: D102
        common = {
            "hidden": self.hidden,
            "iterations": self.iterations,
            "dropout": self.dropout,
            "dtype": self.dtype,
        }
        # Of a small width fewer groups: one of a single feature would be 0.
        groups = min(32, self.width // 4)
        self.projection = Dense(self.width, dtype=self.dtype)
        self.encoder = TemporalEncoder(
            self.width, groups=groups, spread=self.spread, dtype=self.dtype
        )
        self.hallucinator = Hallucinator(self.width, dtype=self.dtype)
        self.start = self.param("start", self._start)
        self.now = Regressor(self.size, **common)
        self.deltas = [Regressor(self.pose_size, **common) for _ in self.steps]

    @property
    def size(self) -> int:
        """Numbers in theta."""
        return CAMERA + self.pose_size + self.components

    @property
    def pose_size(self) -> int:
        """Numbers of the pose in it."""
        return len(self.rest) * self.joints

    def _start(self, key: Any) -> Array:
        """A camera of scale 1, and the mean body at rest."""
        del key
        pose = jnp.tile(jnp.array(self.rest), self.joints)
        return jnp.concatenate([jnp.array([1.0, 0, 0]), pose, jnp.zeros(self.components)])

    def project(self, features: Float[Array, "*batch given"]) -> Float[Array, "*batch width"]:
        """Features of a frame in the model's width: as they are, or by one dense layer."""
        return features if features.shape[-1] == self.width else self.projection(features)

    def strips(
        self, features: Float[Array, "rows time width"], mask: Float[Array, "rows time"]
    ) -> Float[Array, "rows time width"]:
        """Movie strips of a clip; frames of `mask` 0 are missing."""
        return self.encoder(features, mask)

    def hallucinate(self, features: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Movie strips of single frames."""
        return self.hallucinator(features)

    def body(
        self, strips: Float[Array, "*batch width"], *, deterministic: bool
    ) -> Float[Array, "*batch theta"]:
        """The body that a strip shows; of single-view models, a frame's features."""
        start = jnp.broadcast_to(self.start, (*strips.shape[:-1], self.size))
        return self.now(strips, start, deterministic=deterministic)

    def around(
        self,
        strips: Float[Array, "*batch width"],
        theta: Float[Array, "*batch theta"],
        *,
        deterministic: bool,
    ) -> Float[Array, "*batch steps pose"]:
        """Poses so many `steps` from now, beginning from the pose of `theta`."""
        pose = theta[..., CAMERA : CAMERA + self.pose_size]
        return jnp.stack(
            [delta(strips, pose, deterministic=deterministic) for delta in self.deltas], axis=-2
        )
