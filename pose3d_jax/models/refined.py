"""A lifter's poses made better by the frames around them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models.layers import HE, BatchNorm, Dense, by_row
from pose3d_jax.models.lifter import residual
from pose3d_jax.models.sequence import Convolution, State


class Frame(nn.Module):
    """The network of `Lifter` without what surrounds it; its parameters have the same names."""

    joints: int
    width: int
    blocks: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "rows time keypoints 3"],
        where: Float[Array, "rows time axes"],
        seen: Float[Array, "rows time"],
        dropout: bool,
    ) -> tuple[Float[Array, "rows time width"], Float[Array, "rows time joints 3"]]:
        """Its hidden layer and its output, by running statistics."""
        flat = features[..., :2].reshape(*seen.shape, -1)
        x = jnp.concatenate([flat, where, features[..., 2]], axis=-1)
        return residual(self, x, seen, dropout, False)


class Refined(nn.Module):
    """What a single-frame lifter says of each frame, plus what temporal convolutions add to it.

    They are shown its input, hidden layer and output, and begin near zero, so that training starts
    from the lifter, whose weights `config.init` takes over. Its batch norm keeps to the running
    statistics that it comes with.

    Attributes:
      joints: number of joints out.
      width, blocks: of the lifter.
      dropout: of both.
      channels: width of the convolutions.
      levels: they see 3**levels frames.
      causal: all of them but the last lie in the past.
      dtype: what the network computes in.
    """

    joints: int
    width: int = 1024
    blocks: int = 2
    dropout: float = 0.0
    channels: int = 512
    levels: int = 3
    causal: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """The lifter and the convolutions by name."""
        self.frame = Frame(self.joints, self.width, self.blocks, self.dropout, self.dtype)
        self.embed = Dense(self.channels, dtype=self.dtype, kernel_init=HE)
        self.norm = BatchNorm()
        self.time = Convolution(
            self.joints, self.channels, self.levels - 1, self.dropout, self.causal, self.dtype
        )

    @property
    def context(self) -> tuple[int, int]:
        """Frames before and after those that come out."""
        seen = 3**self.levels - 1
        return (seen, 0) if self.causal else (seen // 2, seen // 2)

    def __call__(
        self,
        features: Float[Array, "rows time keypoints 3"],
        where: Float[Array, "rows time axes"],
        seen: Float[Array, "rows time"],
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "rows lifted joints 3"]:
        """See `SequenceLifter.trunk`."""
        before, after = self.context
        x, raw = self._frames(features, where, seen, dropout, update_statistics)
        more = self.time.over(x, seen, dropout, update_statistics)
        return raw[:, before : raw.shape[1] - after] + more

    def start(self, rows: int, keypoints: int, axes: int) -> State:
        """What went before a first frame: nothing was seen. `axes` are those of `where`."""
        blank = jnp.zeros((rows, 1, keypoints, 3)), jnp.zeros((rows, 1, axes)), jnp.zeros((rows, 1))
        return self.time.before(self._frames(*blank, False, False)[0])

    def step(
        self,
        state: State,
        features: Float[Array, "rows 1 keypoints 3"],
        where: Float[Array, "rows 1 axes"],
        seen: Float[Array, "rows 1"],
    ) -> tuple[State, Float[Array, "rows 1 joints 3"]]:
        """The next frame, and the state after it."""
        x, raw = self._frames(features, where, seen, False, False)
        state, more = self.time.next(state, x, seen)
        return state, raw + more

    def _frames(
        self,
        features: Float[Array, "rows time keypoints 3"],
        where: Float[Array, "rows time axes"],
        seen: Float[Array, "rows time"],
        dropout: bool,
        update_statistics: bool,
    ) -> tuple[Float[Array, "rows time channels"], Float[Array, "rows time joints 3"]]:
        """What the convolutions are shown of each frame, and what the lifter says of it."""
        hidden, raw = self.frame(features, where, seen, dropout)
        flat = [part.reshape(*seen.shape, -1) for part in (features, where, hidden, raw)]
        x = by_row(self.embed, jnp.concatenate(flat, axis=-1))
        return nn.relu(self.norm(x, seen, update_statistics)), raw
