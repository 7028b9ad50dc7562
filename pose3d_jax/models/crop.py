"""What a network is shown that looks for a body: a window that follows a person through a clip."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from pose3d_jax.cameras import Leaf
from pose3d_jax.geometry import HIGHEST
from pose3d_jax.models import rays

_OUT = 5.0  # spreads from the middle, beyond which points are held


@struct.dataclass
class Crop:
    """A window that follows a person: a camera turned to the middle, sizes of the points' spread.

    Leading axes `[B, T, V]`.
    """

    turn: Leaf  # [..., 3, 3]
    spread: Leaf  # [..., 1] on the plane z = 1 of the turned camera
    size: Leaf  # [..., 1] its logarithm, 0 for a person 4 m away

    def place(
        self, points: Float[Array, "*views keypoints 2"]
    ) -> Float[Array, "*views keypoints 2"]:
        """Normalised points on the crop: about its middle, in its sizes, `_OUT` at most."""
        return jnp.clip(rays.turned(self.turn, points) / self.spread[..., None], -_OUT, _OUT)


def follow(
    points: Float[Array, "batch time views keypoints 2"],
    confidence: Float[Array, "batch time views keypoints"],
    smooth: float,
    jitter: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> Crop:
    """The crop that follows normalised points.

    Args:
      points: on the plane z = 1.
      confidence: 0 where a point is missing; else its weight.
      smooth: standard deviation, frames, of the Gaussian that the middle and the spread are
        smoothed with over the frames that show anything; 0: each frame by itself.
      jitter: how far middle (in spreads) and log spread are moved at most, all frames of a clip's
        view together; by `key`.
    """
    total = jnp.sum(confidence, axis=-1, keepdims=True)
    share = (confidence / jnp.maximum(total, 1e-6))[..., None]
    middle = jnp.sum(share * points, axis=-2)
    # Turned to the middle: off the axis people are seen larger on the plane.
    turned = rays.turned(rays.towards(middle), points)
    squares = jnp.sum(share * jnp.sum(turned**2, axis=-1, keepdims=True), axis=-2)
    log_spread = 0.5 * jnp.log(jnp.maximum(squares, 1e-4))
    there = (total > 0).astype(points.dtype)

    frames = jnp.arange(points.shape[1], dtype=points.dtype)
    near = jnp.eye(len(frames))
    if smooth:
        near = jnp.exp(-0.5 * ((frames[:, None] - frames[None]) / smooth) ** 2) + 1e-9
    known = jnp.concatenate([middle, log_spread, jnp.ones_like(log_spread)], axis=-1) * there
    # Frames far from any that shows something have the mean of all.
    known = jnp.einsum("ts,bsva->btva", near, known, precision=HIGHEST)
    count = known[..., 3:]
    blank = jnp.array([0.0, 0.0, jnp.log(rays.SPREAD)])
    found = jnp.where(count > 0, known[..., :3] / jnp.where(count > 0, count, 1.0), blank)
    middle, log_spread = found[..., :2], found[..., 2:]
    if key is not None and jitter:
        batch, _, views, _ = middle.shape
        moved = jitter * jax.random.uniform(key, (batch, 1, views, 3), minval=-1.0)
        middle = middle + moved[..., :2] * jnp.exp(log_spread)
        log_spread = log_spread + moved[..., 2:]
    middle, log_spread = jax.lax.stop_gradient((middle, log_spread))
    return _crop(middle, log_spread)


def around(
    middle: Float[Array, "*views 2"],
    corners: Float[Array, "*views 4 2"],
    there: Float[Array, "*views"],
) -> Crop:
    """The crop that a square of an image is; its spread is half the square's side.

    Args:
      middle: of the square, on the plane z = 1.
      corners: on the same plane, in any order.
      there: 0 where there is no image.
    """
    middle = jnp.where(there[..., None] > 0, middle, 0.0)
    out = rays.turned(rays.towards(middle), corners)
    # A corner is the root of two half sides away.
    squares = jnp.mean(jnp.sum(out**2, axis=-1), axis=-1) / 2
    squares = jnp.where((there > 0) & (squares > 0), squares, rays.SPREAD**2)
    return _crop(middle, 0.5 * jnp.log(squares)[..., None])


def _crop(middle: Float[Array, "*views 2"], log_spread: Float[Array, "*views 1"]) -> Crop:
    return Crop(rays.towards(middle), jnp.exp(log_spread), log_spread - jnp.log(rays.SPREAD))
