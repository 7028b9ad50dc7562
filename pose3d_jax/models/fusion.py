"""A lifter that is told, of each view, what the other views see."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.cameras import Camera, batched, perspective, to_camera
from pose3d_jax.geometry import HIGHEST, safe_norm
from pose3d_jax.models import rays
from pose3d_jax.models.layers import HE, Dense
from pose3d_jax.triangulate import dlt

_OUTLIER = 0.02  # on the normalised plane: 8 cm at 4 m


class FusedLifter(nn.Module):
    """A centred lifter whose every view knows what the others see, as far as it may.

    It knows what it and they triangulate (DLT, weighed by confidence), and a mean over them of what
    each of them sees and by how much it disagrees with that: their number and order do not matter
    (compare Zaheer et al., "Deep Sets", NeurIPS 2017). With none it lifts the view by itself.

    Attributes:
      lifter: a centred `Lifter` or `SequenceLifter`.
      width: of what a view is told.
      dtype: what the network computes in.
    """

    lifter: nn.Module
    width: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        points: Float[Array, "batch time views keypoints 2"],
        confidence: Float[Array, "batch time views keypoints"],
        cameras: Camera,
        visible: Float[Array, "batch views views"],
        *,
        dropout: bool,
        update_statistics: bool,
    ) -> Float[Array, "batch lifted views joints 3"]:
        """Normalised points and confidences to camera-frame joints, metres.

        `visible` is 1 where a view (the first of the two axes) is told of another one.
        """
        sight = rays.look(points, confidence, self.lifter.keypoint_root, centred=True)
        others = visible * (1.0 - jnp.eye(visible.shape[-1]))[None]
        pose, away = _triangulated(
            sight, points, confidence, cameras, others, self.lifter.keypoint_root
        )
        features = jnp.concatenate([_seen_from(sight, confidence, cameras), away], axis=-1)
        x = features.reshape(-1, features.shape[-1])
        for _ in range(2):
            x = nn.relu(Dense(self.width, dtype=self.dtype, kernel_init=HE)(x))
        told = x.astype(jnp.float32).reshape(*features.shape[:-1], self.width)
        weight = others[:, None] * sight.seen[:, :, None, :]
        count = weight.sum(axis=-1, keepdims=True)
        total = jnp.einsum("btvu,btvuf->btvf", weight, told, precision=HIGHEST)
        # Bounded, for more views than there were in training.
        number = count / (1.0 + count)
        extra = jnp.concatenate([total / jnp.maximum(count, 1.0), number, pose], axis=-1)
        return self.lifter(
            points, confidence, extra, dropout=dropout, update_statistics=update_statistics
        )


def _triangulated(
    sight: rays.Sight,
    points: Float[Array, "batch time views keypoints 2"],
    confidence: Float[Array, "batch time views keypoints"],
    cameras: Camera,
    others: Float[Array, "batch views views"],
    root: int | None,
) -> tuple[Float[Array, "batch time views own"], Float[Array, "batch time views views keypoints"]]:
    """What each view and the others that it knows of triangulate, and how far each is from that.

    The first is in the view's turned frame: points about the root, metres, which of them are valid
    (those that two views see; none without the root), and the root's depth. The second is the
    distance on the other view's normalised plane, about 1 where it is an outlier's.
    """
    views = points.shape[2]
    weight = (others + jnp.eye(views)[None])[:, None, :, :, None] * confidence[:, :, None]
    solve = jax.vmap(dlt, in_axes=(None, 1, 1))  # over keypoints
    solve = jax.vmap(solve, in_axes=(None, None, 0))  # over who is told
    world, valid = jax.vmap(jax.vmap(solve))(cameras, points, weight)

    def seen_by_all(joints: Array) -> Array:  # [B, T, K, 3] -> [B, T, U, K, 2]
        project = batched(lambda camera, point: perspective(to_camera(camera, point)))
        return project(cameras, jnp.repeat(joints[:, :, None], views, axis=2))

    projected = jax.vmap(seen_by_all, in_axes=2, out_axes=2)(world)
    away = jnp.tanh(safe_norm(projected - points[:, :, None]) / _OUTLIER)
    away = away * valid[:, :, :, None] * (confidence > 0)[:, :, None]
    if root is None:
        return jnp.zeros((*valid.shape[:3], 4 * valid.shape[-1] + 1)), away
    own = batched(to_camera)(cameras, world)
    own = jnp.einsum("btvij,btvkj->btvki", sight.turn, own, precision=HIGHEST)
    valid = valid * valid[..., root, None]
    relative = (own - own[..., root, None, :]) * valid[..., None]
    depth = valid[..., root, None] * own[..., root, 2:]
    flat = 2.0 * relative.reshape(*valid.shape[:3], -1)
    return jnp.concatenate([flat, valid, depth / 4.0], axis=-1), away


def _seen_from(
    sight: rays.Sight, confidence: Float[Array, "batch time views keypoints"], cameras: Camera
) -> Float[Array, "batch time views views features"]:
    """What each view sees (the second of the two axes), in the turned frame of each other.

    Points about the root as vectors in their view's image plane, confidences, the ray of the root,
    its camera's place, and how large the person is there.
    """
    # World to turned camera: [B, T, V, 3, 3].
    turned = jnp.einsum("...ij,...jk->...ik", sight.turn, cameras.rotation, precision=HIGHEST)
    centre = -jnp.einsum(
        "...ji,...j->...i", cameras.rotation, cameras.translation, precision=HIGHEST
    )
    between = jnp.einsum("btvij,btukj->btvuik", turned, turned, precision=HIGHEST)
    in_plane = jnp.einsum(
        "btvuik,btunk->btvuni", between[..., :2], sight.relative, precision=HIGHEST
    )
    offset = centre[:, :, None] - centre[:, :, :, None]  # [B, T, V, U, 3]
    place = jnp.einsum("btvij,btvuj->btvui", turned, offset, precision=HIGHEST)
    shape = *in_plane.shape[:4], -1

    def of_others(x: Array) -> Array:  # [B, T, U, n] -> [B, T, V, U, n]
        return jnp.broadcast_to(x[:, :, None], (*shape[:4], x.shape[-1]))

    parts = [in_plane.reshape(shape), of_others(confidence), between[..., 2]]
    return jnp.concatenate([*parts, place / 4.0, of_others(sight.where)], axis=-1)
