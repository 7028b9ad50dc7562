"""Which joints a person's own body hides from a camera: a body of cylinders with round ends."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pose3d_jax.geometry import safe_divide, safe_norm
from pose3d_jax.skeleton import Skeleton

# Metres, by a word in the name of a bone's outer joint; others are as thick as an arm.
_RADII = {
    "spine": 0.13,
    "thorax": 0.13,
    "neck": 0.07,
    "head": 0.1,
    "nose": 0.1,
    "hip": 0.1,
    "knee": 0.07,
    "ankle": 0.05,
    "shoulder": 0.07,
}
_ARM = 0.04


def radii(skeleton: Skeleton) -> Float[np.ndarray, "bones"]:
    """How thick each bone of `Skeleton.bones` is, metres."""
    names = [skeleton.joints[child] for _, child in skeleton.bones]
    thick = [next((r for word, r in _RADII.items() if word in name), _ARM) for name in names]
    return np.array(thick, np.float32)


def self_occluded(
    joints: Float[Array, "joints 3"], skeleton: Skeleton, thick: Float[Array, "bones"]
) -> Bool[Array, "joints"]:
    """Whether a joint is hidden behind the person's own body: camera-frame joints, metres.

    The "cylinder man" of Cheng et al., "Occlusion-Aware Networks for 3D Human Pose Estimation in
    Video" (ICCV 2019), section 3.3: a joint is hidden where the line from the camera to it passes
    through the flesh about a bone that it is not an end of, `thick` metres from the bone at most,
    and comes out of it before the joint (what is beside or in the flesh can be seen).
    """
    starts, ends = np.array(skeleton.bones).T

    def clear_of(
        joint: Float[Array, "3"], a: Float[Array, "3"], b: Float[Array, "3"], r: Float[Array, ""]
    ) -> Array:
        before = joint * jnp.maximum(1.0 - 2 * r / jnp.maximum(safe_norm(joint), 1e-6), 0.0)
        return segment_distance(jnp.zeros(3), before, a, b)

    over_bones = jax.vmap(clear_of, in_axes=(None, 0, 0, 0))
    over_joints = jax.vmap(over_bones, in_axes=(0, None, None, None))
    away = over_joints(joints, joints[starts], joints[ends], thick)
    own = np.zeros((skeleton.size, len(starts)), bool)
    for bone, (a, b) in enumerate(skeleton.bones):
        own[[a, b], bone] = True
    return jnp.any((away < thick[None]) & ~own, axis=-1)


def segment_distance(
    p: Float[Array, "3"], q: Float[Array, "3"], a: Float[Array, "3"], b: Float[Array, "3"]
) -> Float[Array, ""]:
    """Distance between the segments p to q and a to b.

    Ericson, "Real-Time Collision Detection" (2005), section 5.1.9.
    """
    u, v, w = q - p, b - a, p - a
    uu, vv, uv, uw, vw = (jnp.sum(x * y) for x, y in ((u, u), (v, v), (u, v), (u, w), (v, w)))
    # Where the lines are nearest, then held to the segments, one after the other.
    s = jnp.clip(safe_divide(uv * vw - vv * uw, uu * vv - uv * uv), 0.0, 1.0)
    t = jnp.clip(safe_divide(uv * s + vw, vv), 0.0, 1.0)
    s = jnp.clip(safe_divide(uv * t - uw, uu), 0.0, 1.0)
    return safe_norm(w + s * u - t * v)
