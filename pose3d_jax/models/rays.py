"""What a network is shown of a view, and where its output lies: the root on its pixel's ray.

The parametrisation keeps training without labels away from the mirror solution behind the camera
and the body on its root: the root lies on the ray of its 2D point at depth `softplus`, the other
joints within `reach` of it. Points are on the normalised plane; every function takes any leading
axes.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax.cameras import Leaf
from pose3d_jax.geometry import HIGHEST, safe_divide

# Root mean square distance from the root, on the normalised plane, of a person at 4 m.
SPREAD = 0.13
_NEAREST = 0.3  # metres, of a joint on its ray


@struct.dataclass
class Sight:
    """Views as a network is shown them, and what it takes to place what it says of them."""

    relative: Leaf  # [*views, keypoints, 2] about the root, of about unit size; 0 where missing
    where: Leaf  # [*views, 1 or 2] what `relative` does not tell: how large, or where
    seen: Leaf  # [*views] 1 where anything is visible
    point: Leaf  # [*views, 2] the root's point, in the turned camera
    point_seen: Leaf  # [*views, 1] whether it is the root's own
    far: Leaf  # [*views, 1] the factor on the root's depth
    points: Leaf  # [*views, keypoints, 2] in the turned camera, on its plane z = 1; 0 where missing
    visible: Leaf  # [*views, keypoints] 1 where a point is there
    turn: Leaf  # [*views, 3, 3] the camera's rotation, or None


def look(
    points: Float[Array, "*views keypoints 2"],
    confidence: Float[Array, "*views keypoints"],
    root: int | None,
    stand_in: Float[Array, "*views 2"] | None = None,
    *,
    centred: bool,
) -> Sight:
    """Normalised points about their root.

    Args:
      points: undistorted, on the plane z = 1.
      confidence: 0 where a point is missing.
      root: its index among the keypoints, or None where they have no such point; then, and where it
        is missing, the mean of the visible points stands for it.
      stand_in: where a view that sees nothing is taken to look; by default along its axis.
      centred: turn the camera so that the root lies on its axis, divide points by their spread
        about it, multiply its depth by it. What is seen then depends neither on where in the image
        a person is nor on how far away, but for perspective (compare Yu et al., "PCLs:
        Geometry-aware Neural Reconstruction of 3D Pose with Perspective Crop Layers", CVPR 2021).
    """
    seen = (confidence > 0).astype(points.dtype)
    any_seen = seen.max(axis=-1)
    point, point_seen = _root_point(points, seen, root)
    if stand_in is not None:
        point = jnp.where(any_seen[..., None] > 0, point, stand_in)
    if not centred:
        # About unit scale: a person of 1.7 m at 4 m spans 0.4 on the normalised plane.
        relative = 4.0 * (points - point[..., None, :]) * seen[..., None]
        far = jnp.ones_like(point_seen)
        there = points * seen[..., None]
        return Sight(relative, point, any_seen, point, point_seen, far, there, seen, None)
    turn = towards(point)
    there = turned(turn, points) * seen[..., None]
    spread = jnp.where(any_seen[..., None] > 0, _spread(there, seen), SPREAD)
    size = jnp.log(spread / SPREAD)
    relative = there / spread[..., None]
    centre, far = jnp.zeros_like(point), SPREAD / spread
    return Sight(relative, size, any_seen, centre, point_seen, far, there, seen, turn)


def nearest_seen(
    points: Float[Array, "*views time keypoints 2"],
    confidence: Float[Array, "*views time keypoints"],
    root: int | None,
) -> Float[Array, "*views time 2"]:
    """The root's point, as `look` finds it, of the nearest frame in which anything is seen.

    The origin where nothing ever is.
    """
    seen = (confidence > 0).astype(points.dtype)
    point, _ = _root_point(points, seen, root)
    frame = jnp.arange(seen.shape[-2])
    away = jnp.abs(frame[:, None] - frame[None])
    blank = seen.max(axis=-1)[..., None, :] == 0
    away = jnp.broadcast_to(away, (*blank.shape[:-2], *away.shape))
    nearest = jnp.argmin(jnp.where(blank, 2 * len(frame), away), axis=-1)
    return jnp.take_along_axis(point, nearest[..., None], axis=-2)


def place(
    raw: Float[Array, "*views joints 3"],
    sight: Sight,
    *,
    root: int,
    root_depth: float,
    reach: float,
) -> Float[Array, "*views joints 3"]:
    """Network output to camera-frame joints, metres: the root on its point's ray.

    Args:
      raw: what the network gave; zeros are a body folded into its root.
      sight: of the same views.
      root: its index among the joints.
      root_depth: metres, the depth that a zero output means where `sight.far` is 1.
      reach: metres, the largest distance of a joint from the root along each axis.
    """
    offsets = reach * jnp.tanh(raw)
    depth_bias = jnp.log(jnp.expm1(root_depth))  # softplus(depth_bias) = root_depth
    depth = sight.far * jax.nn.softplus(raw[..., root, 2:] + depth_bias)
    on_ray = depth * jnp.concatenate([sight.point, jnp.ones_like(depth)], axis=-1)
    # Where the root's own point is missing, it may leave the ray of its stand-in sideways.
    sideways = offsets[..., root, :2] * (1.0 - sight.point_seen)
    on_ray = on_ray.at[..., :2].add(sideways)
    joints = (on_ray[..., None, :] + offsets).at[..., root, :].set(on_ray)
    if sight.turn is None:
        return joints
    return jnp.einsum("...ji,...nj->...ni", sight.turn, joints, precision=HIGHEST)


def place_on_rays(
    raw: Float[Array, "*views joints 3"],
    sight: Sight,
    *,
    root: int,
    root_depth: float,
    reach: float,
    depth_known: bool = False,
) -> Float[Array, "*views joints 3"]:
    """As `place`, with every joint that is seen on the ray of its own point.

    The joints are the keypoints. Of a joint that is seen only the depth is taken from `raw`; its
    projection is its point, exactly, as long as it is in front of the camera. With `depth_known`
    the root is at `root_depth` times `sight.far`: where nothing tells how large a person is, the
    spread of the points says how far away.
    """
    bias = jnp.log(jnp.expm1(root_depth))
    known, said = jnp.full_like(sight.far, root_depth), jax.nn.softplus(raw[..., root, 2:] + bias)
    depth = jnp.maximum(sight.far * (known if depth_known else said), _NEAREST)
    return on_rays(reach * jnp.tanh(raw), depth, sight, root=root)


def on_rays(
    offsets: Float[Array, "*views joints 3"],
    depth: Float[Array, "*views 1"],
    sight: Sight,
    *,
    root: int,
) -> Float[Array, "*views joints 3"]:
    """Camera-frame joints, metres, of a root at `depth` and joints at `offsets` from it.

    Offsets are along the axes of the turned camera, where a sight has one. Of a joint that is seen
    only the depth is taken from them; see `place_on_rays`.
    """
    at_root = depth * jnp.concatenate([sight.point, jnp.ones_like(depth)], axis=-1)
    # Where the root's own point is missing, it may leave the ray of its stand-in sideways.
    at_root = at_root.at[..., :2].add(offsets[..., root, :2] * (1.0 - sight.point_seen))
    at_root, offsets = at_root[..., None, :], offsets.at[..., root, :].set(0.0)
    away = jnp.maximum(depth + offsets[..., 2], _NEAREST)[..., None]
    seen = away * jnp.concatenate([sight.points, jnp.ones_like(away)], axis=-1)
    joints = jnp.where(sight.visible[..., None] > 0, seen, at_root + offsets)
    if sight.turn is None:
        return joints
    return jnp.einsum("...ji,...nj->...ni", sight.turn, joints, precision=HIGHEST)


def _root_point(
    points: Float[Array, "*views keypoints 2"],
    seen: Float[Array, "*views keypoints"],
    root: int | None,
) -> tuple[Float[Array, "*views 2"], Float[Array, "*views 1"]]:
    """The root's point, else the mean of the visible ones, and whether it is the root's.

    `root` is its index among the keypoints; None: they have no such point.
    """
    total = jnp.sum(points * seen[..., None], axis=-2)
    count = jnp.broadcast_to(jnp.sum(seen, axis=-1, keepdims=True), total.shape)
    mean = safe_divide(total, count)
    if root is None:
        return mean, jnp.zeros_like(mean[..., :1])
    root_seen = seen[..., root, None]
    return jnp.where(root_seen > 0, points[..., root, :], mean), root_seen


def towards(point: Float[Array, "*views 2"]) -> Float[Array, "*views 3 3"]:
    """The shortest rotation that brings the ray of a point onto the optical axis."""
    x, y = point[..., 0], point[..., 1]
    # The ray is u = (x, y, 1) / n; the rotation takes u to z about z x u (Rodrigues).
    n = jnp.sqrt(1 + x * x + y * y)
    a, b, c = x / n, y / n, 1 / n
    k = 1 / (1 + c)
    rows = [[1 - k * a * a, -k * a * b, -a], [-k * a * b, 1 - k * b * b, -b], [a, b, c]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def turned(
    turn: Float[Array, "*views 3 3"], points: Float[Array, "*views keypoints 2"]
) -> Float[Array, "*views keypoints 2"]:
    """Points as the turned camera sees them; behind it, as far out as can be."""
    rays = jnp.concatenate([points, jnp.ones_like(points[..., :1])], axis=-1)
    seen = jnp.einsum("...ij,...nj->...ni", turn, rays, precision=HIGHEST)
    return seen[..., :2] / jnp.maximum(seen[..., 2:], 0.1)


def _spread(
    relative: Float[Array, "*views keypoints 2"], seen: Float[Array, "*views keypoints"]
) -> Float[Array, "*views 1"]:
    """Root mean square distance from the root of what is seen; a hundredth at least."""
    squares = jnp.sum(jnp.sum(relative**2, axis=-1) * seen, axis=-1, keepdims=True)
    count = jnp.maximum(jnp.sum(seen, axis=-1, keepdims=True), 1.0)
    return jnp.sqrt(jnp.maximum(squares / count, 1e-4))
