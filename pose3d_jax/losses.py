"""Pure terms: every one is (sum over what is visible, how much was visible).

Nothing here divides by a count: gradient accumulation and several devices add up both parts first.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera
from pose3d_jax.geometry import safe_norm

Term: TypeAlias = tuple[Float[Array, ""], Float[Array, ""]]


def weighted_term(error: Float[Array, "*shape"], weight: Float[Array, "*shape"]) -> Term:
    """Sum of `error * weight` and of `weight`; an error of weight 0 counts for nothing, even NaN's
    gradient."""
    return jnp.sum(jnp.where(weight > 0, error, 0.0) * weight), jnp.sum(weight)


def distance(
    a: Float[Array, "*batch axes"], b: Float[Array, "*batch axes"]
) -> Float[Array, "*batch"]:
    """Euclidean distance of points, with gradient 0 where they coincide."""
    return safe_norm(a - b)


def carry(
    camera: Camera, joints: Float[Array, "views joints 3"]
) -> Float[Array, "views views joints 3"]:
    """Each view's camera-frame joints, metres, in every view's camera frame: `[from, to, J, 3]`."""
    world = cam.batched(cam.to_world)(camera, joints)
    into_all_views = jax.vmap(cam.batched(cam.to_camera), in_axes=(0, None))  # over `to`

    def spread(pose: Float[Array, "joints 3"]) -> Float[Array, "views joints 3"]:
        return into_all_views(camera, pose)

    return jax.vmap(spread)(world)


def reprojection(
    camera: Camera, joints: Float[Array, "views joints 3"], points: Float[Array, "views joints 2"]
) -> Float[Array, "views views joints"]:
    """Distance of view `from`'s joints, seen by view `to`, from `to`'s points: `[from, to, J]`.

    On the normalised plane (undistorted, at depth 1): 0.01 is about 4 cm at 4 m. The diagonal is
    self-reconstruction, the rest cross-view reconstruction, the first term of "3D Pose Estimation
    Using 2D Supervision". Depths are held at `cameras.MIN_DEPTH` or more.
    """
    project = jax.vmap(jax.vmap(jax.vmap(cam.perspective)))
    projected = project(carry(camera, joints))
    return distance(projected, jnp.broadcast_to(points[None], projected.shape))


def consistency(
    camera: Camera, joints: Float[Array, "views joints 3"]
) -> Float[Array, "views views joints"]:
    """Distance in the world, metres, between the joints of each two views: `[view, view, J]`.

    The second term of "3D Pose Estimation Using 2D Supervision".
    """
    world = cam.batched(cam.to_world)(camera, joints)
    pairs = (world.shape[0], *world.shape)
    return distance(jnp.broadcast_to(world[:, None], pairs), jnp.broadcast_to(world[None], pairs))
