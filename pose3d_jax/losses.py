"""Pure terms: every one is (sum over what is visible, how much was visible).

Nothing here divides by a count: gradient accumulation and several devices add up both parts first.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera
from pose3d_jax.geometry import safe_divide, safe_norm
from pose3d_jax.skeleton import Skeleton

# Distances below this are rounding as much as error: 0.01 mm, or 0.01 pixels at a focal length of
# 1,000 pixels.
RESOLUTION = 1e-5

Term: TypeAlias = tuple[Float[Array, ""], Float[Array, ""]]


def weighted_term(error: Float[Array, "*shape"], weight: Float[Array, "*shape"]) -> Term:
    """Sum of `error * weight` and of `weight`; an error of weight 0 counts for nothing, even NaN's
    gradient."""
    return jnp.sum(jnp.where(weight > 0, error, 0.0) * weight), jnp.sum(weight)


def distance(
    a: Float[Array, "*batch axes"], b: Float[Array, "*batch axes"]
) -> Float[Array, "*batch"]:
    """Euclidean distance of points; below `RESOLUTION` its gradient fades to 0.

    The gradient of a bare norm has length 1 however small the distance, so rounding alone would
    steer where points coincide by construction, as a root that is predicted on its own pixel's ray
    does. With u = d / RESOLUTION < 1 it is d u (2 - u), which meets d at 1 with slope 1.
    """
    length = safe_norm(a - b)
    u = jnp.minimum(length / RESOLUTION, 1.0)
    return length * u * (2 - u)


def pseudo_huber(distance: Float[Array, "*shape"], scale: float) -> Float[Array, "*shape"]:
    """`scale (sqrt(1 + (distance / scale)^2) - 1)`: of distances below `scale` half their square
    over `scale`, of those far above it themselves.

    Novotny et al., "C3DPO" (ICCV 2019), section 3.3.
    """
    squared = (distance / scale) ** 2
    return scale * squared / (1 + jnp.sqrt(1 + squared))


def carry(
    camera: Camera, joints: Float[Array, "views joints 3"]
) -> Float[Array, "views views joints 3"]:
    """Each view's camera-frame joints, metres, in every view's camera frame: `[from, to, J, 3]`.

    A view's own joints stay what they are, free of the rounding of a way through the world.
    """
    world = cam.batched(cam.to_world)(camera, joints)
    into_all_views = jax.vmap(cam.batched(cam.to_camera), in_axes=(0, None))  # over `to`

    def spread(pose: Float[Array, "joints 3"]) -> Float[Array, "views joints 3"]:
        return into_all_views(camera, pose)

    own = jnp.eye(joints.shape[0], dtype=bool)[:, :, None, None]
    return jnp.where(own, joints[:, None], jax.vmap(spread)(world))


def projected(
    camera: Camera, joints: Float[Array, "views joints 3"]
) -> Float[Array, "views views joints 2"]:
    """View `from`'s joints as view `to` sees them, on the normalised plane: `[from, to, J, 2]`.

    Undistorted, at depth 1: 0.01 is about 4 cm at 4 m. Depths are held at `cameras.MIN_DEPTH` or
    more.
    """
    return jax.vmap(jax.vmap(jax.vmap(cam.perspective)))(carry(camera, joints))


def reprojection(
    camera: Camera, joints: Float[Array, "views joints 3"], points: Float[Array, "views joints 2"]
) -> Float[Array, "views views joints"]:
    """Distance of view `from`'s joints, seen by view `to`, from `to`'s points: `[from, to, J]`.

    On the normalised plane. The diagonal is self-reconstruction, the rest cross-view
    reconstruction, the first term of "3D Pose Estimation Using 2D Supervision".
    """
    seen = projected(camera, joints)
    return distance(seen, jnp.broadcast_to(points[None], seen.shape))


def asymmetry(
    joints: Float[Array, "*batch joints 3"], skeleton: Skeleton
) -> Float[Array, "*batch pairs"]:
    """By how much each left bone differs in length from its right counterpart, metres.

    The bone symmetry loss of "Distilling 3D Human Pose from a Single Image" (ETH report), pair by
    pair, in the order of `Skeleton.bone_pairs`.
    """
    parents, children = np.array(skeleton.bones).T
    lengths = safe_norm(joints[..., children, :] - joints[..., parents, :])
    left, right = np.array(skeleton.bone_pairs).T
    return jnp.abs(lengths[..., left] - lengths[..., right])


def bone_changes(
    joints: Float[Array, "time *batch joints 3"],
    weight: Float[Array, "time *batch"],
    skeleton: Skeleton,
) -> Float[Array, "time *batch bones"]:
    """By how much each bone differs in length from its weighted mean over the frames, metres.

    A person's bones do not change: Wandt et al., "3D Reconstruction of Human Motion from Monocular
    Image Sequences" (PAMI 2016), who ask for little variance of their lengths.
    """
    parents, children = np.array(skeleton.bones).T
    lengths = safe_norm(joints[..., children, :] - joints[..., parents, :])
    weight = jnp.broadcast_to(weight[..., None], lengths.shape)
    mean = safe_divide(jnp.sum(weight * lengths, axis=0), jnp.sum(weight, axis=0))
    return jnp.abs(lengths - mean[None])


def turns(joints: Float[Array, "time *batch joints 3"]) -> Float[Array, "turns *batch joints"]:
    """By how much each joint leaves uniform motion, metres: the norm of its second differences.

    Of all frames but the first and the last.
    """
    return safe_norm(joints[2:] - 2 * joints[1:-1] + joints[:-2])


def consistency(
    camera: Camera, joints: Float[Array, "views joints 3"]
) -> Float[Array, "views views joints"]:
    """Distance in the world, metres, between the joints of each two views: `[view, view, J]`.

    The second term of "3D Pose Estimation Using 2D Supervision".
    """
    world = cam.batched(cam.to_world)(camera, joints)
    pairs = (world.shape[0], *world.shape)
    return distance(jnp.broadcast_to(world[:, None], pairs), jnp.broadcast_to(world[None], pairs))
