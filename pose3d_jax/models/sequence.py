"""Lifting windows of frames: each view's 2D motion to its 3D motion in the camera frame."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.models import rays
from pose3d_jax.models.layers import HE, NEAR_ZERO, BatchNorm, Dense, Dropout, by_row

State = Any  # what a stream carries: a pytree of arrays [rows, ...]


class SequenceLifter(nn.Module):
    """A temporal network that is shown each frame, and whose root is placed, as `Lifter`'s.

    Attributes:
      trunk: `(features [rows, T, K, 3], where [rows, T, axes], seen [rows, T], dropout=...,
        update_statistics=...)` to `[rows, T', joints, 3]`; `rows` are the views of all clips.
        Features are x, y and confidence; see `rays.Sight`. Its `context` is how many frames fewer
        come out, at the beginning and at the end.
      root: index of the root among the joints out.
      keypoint_root: its index among the keypoints in, or None where they have no such point.
      root_depth, reach: see `rays.place`.
      centred: see `rays.look`.
    """

    trunk: nn.Module
    root: int
    keypoint_root: int | None
    root_depth: float = 4.0
    reach: float = 1.5
    centred: bool = True

    def __call__(
        self,
        points: Float[Array, "batch time views keypoints 2"],
        confidence: Float[Array, "batch time views keypoints"],
        extra: Float[Array, "batch time views features"] | None = None,
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "batch lifted views joints 3"]:
        """Normalised points and confidences to camera-frame joints, metres.

        Frames without any visible point get a pose, too, but leave the batch statistics alone. The
        frames of the trunk's `context` get none. `extra` is what else the network is told.
        """
        batch, time, views = points.shape[:3]
        before, after = self.trunk.context

        def rows(x: Array) -> Array:  # [B, T, V, ...] -> [B V, T, ...]
            return jnp.moveaxis(x, 2, 1).reshape(batch * views, time, *x.shape[3:])

        def trunk(features: Array, where: Array, seen: Array) -> Array:
            if extra is not None:
                where = jnp.concatenate([where, rows(extra).astype(where.dtype)], axis=-1)
            return self.trunk(
                features, where, seen, dropout=dropout, update_statistics=update_statistics
            )

        joints = self._lift(rows(points), rows(confidence), slice(before, time - after), trunk)
        return jnp.moveaxis(joints.reshape(batch, views, *joints.shape[1:]), 1, 2)

    def start(self, rows: int, keypoints: int) -> State:
        """What a stream of so many rows (views) carries before its first frame."""
        return self.trunk.start(rows, keypoints, 1 if self.centred else 2)

    def step(
        self,
        state: State,
        points: Float[Array, "rows keypoints 2"],
        confidence: Float[Array, "rows keypoints"],
    ) -> tuple[State, Float[Array, "rows joints 3"]]:
        """One frame of a stream: what `__call__` gives for it without the later ones."""
        after = []

        def trunk(*inputs: Array) -> Array:
            carried, raw = self.trunk.step(state, *inputs)
            after.append(carried)
            return raw

        joints = self._lift(points[:, None], confidence[:, None], slice(None), trunk)
        return after[0], joints[:, 0]

    def _lift(
        self,
        points: Float[Array, "rows time keypoints 2"],
        confidence: Float[Array, "rows time keypoints"],
        lifted: slice,
        trunk: Callable[..., Array],
    ) -> Float[Array, "rows lifted joints 3"]:
        stand_in = None
        if self.trunk.context == (0, 0):  # otherwise it would depend on what else is lifted
            stand_in = rays.nearest_seen(points, confidence, self.keypoint_root)
        sight = rays.look(points, confidence, self.keypoint_root, stand_in, centred=self.centred)
        features = jnp.concatenate([sight.relative, confidence[..., None]], axis=-1)
        raw = trunk(features, sight.where, sight.seen)
        return rays.place(
            raw.astype(points.dtype),
            jax.tree.map(lambda x: x[:, lifted], sight),
            root=self.root,
            root_depth=self.root_depth,
            reach=self.reach,
        )


class Convolution(nn.Module):
    """Residual temporal convolutions of growing dilation.

    That of Pavllo et al., "3D human pose estimation in video with temporal convolutions and
    semi-supervised training" (CVPR 2019), section 3: taps of three frames, first adjacent, then 3,
    9, ... frames apart, each with batch norm, ReLU and dropout. A window that holds a single frame
    with its context is lifted by strides instead, which leaves out what that frame does not need
    (ibid., appendix A.5).

    Attributes:
      joints: number of joints out.
      width, dropout: of the network.
      blocks: residual blocks; it sees 3**(blocks + 1) frames.
      causal: all of them but the last lie in the past.
      dtype: what the network computes in.
    """

    joints: int
    width: int = 512
    blocks: int = 3
    dropout: float = 0.0
    causal: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """The layers by name, since several ways lead through them."""
        layers = range(1 + 2 * self.blocks)
        self.dense = [Dense(self.width, dtype=self.dtype, kernel_init=HE) for _ in layers]
        self.norm = [BatchNorm() for _ in layers]
        self.drop = [Dropout(self.dropout) for _ in layers]
        self.decoder = Dense(3 * self.joints, dtype=self.dtype, kernel_init=NEAR_ZERO)

    @property
    def context(self) -> tuple[int, int]:
        """Frames before and after those that come out."""
        seen = 3 ** (self.blocks + 1) - 1
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
        own = 2 if self.causal else 1  # which tap is the frame's own

        def by_stride(x: Array, layer: int) -> tuple[Array, ...]:
            return x[:, 0::3], x[:, 1::3], x[:, 2::3]

        def by_dilation(x: Array, layer: int) -> tuple[Array, ...]:
            step = 3**layer
            left = x.shape[1] - 2 * step
            return x[:, :left], x[:, step : step + left], x[:, 2 * step :]

        single = features.shape[1] == sum(self.context) + 1
        taps = by_stride if single else by_dilation
        return self._through(features, where, seen, taps, own, dropout, update_statistics)

    def start(self, rows: int, keypoints: int, axes: int) -> State:
        """What went before a first frame: nothing was seen. `axes` are those of `where`."""
        widths = [3 * keypoints + axes] + [self.width] * self.blocks
        state = tuple(
            jnp.zeros((rows, 2 * 3**i, width), self.dtype) for i, width in enumerate(widths)
        )
        blank = jnp.zeros((rows, 1, keypoints, 3)), jnp.zeros((rows, 1, axes)), jnp.zeros((rows, 1))
        for _ in range(sum(self.context)):
            state, _ = self.step(state, *blank)
        return state

    def step(
        self,
        state: State,
        features: Float[Array, "rows 1 keypoints 3"],
        where: Float[Array, "rows 1 axes"],
        seen: Float[Array, "rows 1"],
    ) -> tuple[State, Float[Array, "rows 1 joints 3"]]:
        """The next frame, and the state after it: the last inputs of every tapped layer."""
        kept = []

        def taps(x: Array, layer: int) -> tuple[Array, ...]:
            past = jnp.concatenate([state[layer], x.astype(self.dtype)], axis=1)
            kept.append(past[:, 1:])
            return past[:, :1], past[:, 3**layer : 3**layer + 1], past[:, -1:]

        joints = self._through(features, where, seen, taps, 2, False, False)
        return tuple(kept), joints

    def _through(
        self,
        features: Float[Array, "rows time keypoints 3"],
        where: Float[Array, "rows time axes"],
        seen: Float[Array, "rows time"],
        taps: Callable[[Array, int], tuple[Array, ...]],
        own: int,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "rows lifted joints 3"]:
        """`taps(x, layer)` are the three frames that each frame of a layer is made from."""

        def layer(i: int, x: Array, mask: Array) -> Array:
            x = nn.relu(self.norm[i](by_row(self.dense[i], x), mask, update_statistics))
            return self.drop[i](x, deterministic=not dropout)

        x = jnp.concatenate([features.reshape(*features.shape[:2], -1), where], axis=-1)
        for block in range(self.blocks + 1):
            tapped = taps(x, block)
            if tapped[own].shape[1] < seen.shape[1]:
                seen = taps(seen, block)[own]
            y = layer(max(0, 2 * block - 1), jnp.concatenate(tapped, axis=-1), seen)
            x = tapped[own] + layer(2 * block, y, seen) if block else y
        return by_row(self.decoder, x).reshape(*x.shape[:2], self.joints, 3)
