"""The posterior of a whole clip's world joints: what `trajectory` minimises, and how certain it is.

-2 log of a density: keypoints err as an autoregression of order 1, or are outliers; every joint's
second differences in time are small, but for quick moments; bones keep their lengths; and, where a
lifter has been asked, the pose is about what it says.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax import residuals
from pose3d_jax.bordered import Normal
from pose3d_jax.cameras import Leaf
from pose3d_jax.geometry import HIGHEST, safe_norm
from pose3d_jax.schema import Observations
from pose3d_jax.triangulate import ROOM

Bones = tuple[tuple[int, int], ...]  # any two joints whose distance stays

# Standard deviation, metres, of a bone's length in a clip: the recorded bones of real people vary
# by 1 to 3 mm.
BONE = 0.003

# Degrees of freedom of second differences' t distribution: motion is quiet, and sometimes not.
_TAIL = 4.0


@struct.dataclass
class Belief:
    """What is believed of a clip's poses beforehand: normal, alike along all axes."""

    joints: Leaf  # [T, joints, 3] metres
    # [T, joints] 1 / m^2: of the root where it is, of the others about the root.
    precision: Leaf
    root: int = struct.field(pytree_node=False, default=0)


@struct.dataclass
class Model:
    """What a clip of T frames is taken to be."""

    observations: Observations  # [T, views, ...]
    inside: Leaf  # [T] 1 in the clip, 0 in what pads it
    start: Leaf  # [T, joints, 3] where joints are that nothing tells of, within `triangulate.ROOM`
    sigma: Leaf  # [] pixels
    correlation: Leaf  # [] of a keypoint's error with the one a frame before
    step: Leaf  # [joints] scale of second differences, metres; None: nothing about motion
    bones: Bones = struct.field(pytree_node=False, default=())  # none: nothing about bones
    tail: Leaf = _TAIL  # of second differences: degrees of freedom
    bone: Leaf = BONE  # [] or [bones] standard deviation of a length in the clip, metres
    belief: Leaf = None  # Belief; None: nothing. Needs bones.


@struct.dataclass
class Unknowns:
    """What is solved for, metres."""

    joints: Leaf  # [T, joints, 3]
    lengths: Leaf  # [bones]


def median_lengths(model: Model) -> Float[Array, "bones"]:
    """The bones' median lengths, metres, where the joints start."""
    if not model.bones:
        return jnp.zeros(0)
    lengths = safe_norm(_vectors(model.bones, model.start))
    return jnp.nanmedian(jnp.where(model.inside[:, None] > 0, lengths, jnp.nan), axis=0)


def inliers(
    model: Model, joints: Float[Array, "time joints 3"]
) -> Float[Array, "time views joints"]:
    """The probability of each keypoint to be no outlier; 0 where it is missing."""
    squared = jnp.sum(residuals.reprojections(model.observations, joints)[0] ** 2, axis=-1)
    weight = residuals.robust(squared, model.sigma)[1]
    return jnp.where(model.observations.confidence > 0, weight, 0.0)


def cost(
    model: Model, unknowns: Unknowns, weight: Float[Array, "time views joints"]
) -> Float[Array, ""]:
    """-2 log of the density, but for a constant, with the keypoints' weights as they are."""
    residual, _ = residuals.reprojections(model.observations, unknowns.joints)
    root, paired, alone = _precisions(model, weight)
    scaled = root[..., None] * residual
    innovation = scaled - model.correlation * earlier(scaled)
    total = jnp.sum(paired[..., None] * innovation**2) + jnp.sum(alone[..., None] * scaled**2)
    if model.step is not None:
        second, middle = _second_differences(model, unknowns.joints)
        total += jnp.sum(middle * _tail(model, jnp.sum(second**2, axis=-1))[0])
    if model.bones:
        excess = safe_norm(_vectors(model.bones, unknowns.joints)) - unknowns.lengths[None]
        bone = jnp.broadcast_to(model.bone, excess.shape)
        total += jnp.sum(model.inside[:, None] * (excess / bone) ** 2)
    if model.belief is not None:
        away = _from_belief(model.belief, unknowns.joints)
        total += jnp.sum(model.belief.precision * jnp.sum(away**2, axis=-1))
    return total + jnp.sum((unknowns.joints - model.start) ** 2) / ROOM**2


def normal_equations(
    model: Model, unknowns: Unknowns, weight: Float[Array, "time views joints"]
) -> Normal:
    """Gauss-Newton's approximation of half the `cost` at `unknowns`."""
    frames, joints, _ = unknowns.joints.shape
    away = (unknowns.joints - model.start) / ROOM**2
    own, before, gradient = _of_keypoints(model, unknowns.joints, weight)
    own, gradient = own + _diagonal(jnp.full((frames, joints), ROOM**-2.0)), gradient + away
    skip = jnp.zeros((frames, joints))
    if model.step is not None:
        c0, c1, skip, pull = _of_motion(model, unknowns.joints)
        own = own + _diagonal(c0)
        before = before + _diagonal(c1)
        gradient = gradient + pull
    index = np.arange(joints)

    def spread(blocks: Array) -> Array:  # [T, J, 3, 3] -> [T, J, 3, J, 3]
        empty = jnp.zeros((frames, joints, 3, joints, 3))
        return empty.at[:, index, :, index].set(blocks.swapaxes(0, 1))

    normal = Normal(
        own=spread(own),
        before=spread(before),
        skip=jnp.repeat(skip, 3, axis=-1),
        gradient=gradient,
        border=jnp.zeros((frames, joints, 3, len(model.bones))),
        corner=jnp.zeros((len(model.bones),) * 2),
        corner_gradient=jnp.zeros(len(model.bones)),
    )
    normal = _add_bones(model, unknowns, normal) if model.bones else normal
    normal = _add_belief(model.belief, unknowns, normal) if model.belief is not None else normal
    size = 3 * joints
    return dataclasses.replace(
        normal,
        own=normal.own.reshape(frames, size, size),
        before=normal.before.reshape(frames, size, size),
        gradient=normal.gradient.reshape(frames, size),
        border=normal.border.reshape(frames, size, -1),
    )


def _precisions(model: Model, weight: Array) -> tuple[Array, Array, Array]:
    """Square roots of the confidences, and precisions, 1/pixel^2: of a keypoint's innovation over
    the frame before, as far as both are inliers, and of the keypoint itself where that is not so.
    """
    seen = model.observations.confidence > 0
    root = jnp.where(seen, jnp.sqrt(jnp.where(seen, model.observations.confidence, 1.0)), 0.0)
    both = weight * earlier(weight)
    innovation = (1 - model.correlation**2) * model.sigma**2
    return root, both / innovation, (weight - both) / model.sigma**2


def _of_keypoints(model: Model, joints: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Blocks (t, t) and (t, t - 1), `[T, J, 3, 3]`, and the gradient `[T, J, 3]`."""
    residual, jacobian = residuals.reprojections(model.observations, joints)
    root, paired, alone = _precisions(model, weight)
    rho = model.correlation
    scaled, jacobian = root[..., None] * residual, root[..., None, None] * jacobian
    innovation = paired[..., None] * (scaled - rho * earlier(scaled))
    force = innovation - rho * _later(innovation) + alone[..., None] * scaled
    total = paired + alone + rho**2 * _later(paired)

    def products(precision: Array, other: Array) -> Array:  # sum over views, x and y
        weighted = precision[..., None, None] * jacobian
        return jnp.sum(weighted[..., :, None] * other[..., None, :], axis=(1, 3))

    own = products(total, jacobian)
    before = products(-rho * paired, earlier(jacobian))
    return own, before, jnp.sum(jacobian * force[..., None], axis=(1, 3))


def _of_motion(model: Model, joints: Array) -> tuple[Array, Array, Array, Array]:
    """Factors of the identity in the blocks (t, t), (t, t - 1), (t, t - 2), and the gradient."""
    second, middle = _second_differences(model, joints)
    weight = middle * _tail(model, jnp.sum(second**2, axis=-1))[1] / model.step[None] ** 2
    force = weight[..., None] * second * model.step[None, :, None]
    gradient = _later(force) - 2 * force + earlier(force)
    own = _later(weight) + 4 * weight + earlier(weight)
    return own, -2 * (weight + earlier(weight)), earlier(weight), gradient


def _add_bones(model: Model, unknowns: Unknowns, normal: Normal) -> Normal:
    """Adds the constant bones to normal equations with axes `[T, J, 3, J, 3]`."""
    parent, child = np.array(model.bones).T
    vector = _vectors(model.bones, unknowns.joints)
    length = safe_norm(vector)
    unit = vector / jnp.maximum(length, 1e-6)[..., None]
    precision = model.inside[:, None] / jnp.broadcast_to(model.bone, length.shape) ** 2
    excess = precision * (length - unknowns.lengths[None])
    pull = precision[..., None] * unit
    outer = (pull[..., :, None] * unit[..., None, :]).swapaxes(0, 1)
    own = normal.own.at[:, child, :, child].add(outer).at[:, parent, :, parent].add(outer)
    own = own.at[:, child, :, parent].add(-outer).at[:, parent, :, child].add(-outer)
    force = excess[..., None] * unit
    bone = np.arange(len(model.bones))
    pull = pull.swapaxes(0, 1)
    return dataclasses.replace(
        normal,
        own=own,
        gradient=normal.gradient.at[:, child].add(force).at[:, parent].add(-force),
        border=normal.border.at[:, child, :, bone].add(-pull).at[:, parent, :, bone].add(pull),
        # A bone may be in no frame at all: a length within a metre.
        corner=normal.corner.at[bone, bone].add(jnp.sum(precision, axis=0) + 1.0),
        corner_gradient=normal.corner_gradient.at[bone].add(-jnp.sum(excess, axis=0)),
    )


def _add_belief(belief: Belief, unknowns: Unknowns, normal: Normal) -> Normal:
    """Adds what is believed of the poses to normal equations with axes `[T, J, 3, J, 3]`."""
    joints = belief.precision.shape[-1]
    # Root-relative joints are `about` times the joints; the root stays as it is.
    about = np.eye(joints)
    about[:, belief.root] -= 1.0
    about[belief.root, belief.root] = 1.0
    weighted = about.T[None] * belief.precision[:, None, :]  # [T, J, J]
    own = jnp.matmul(weighted, about[None], precision=HIGHEST)
    force = jnp.matmul(weighted, _from_belief(belief, unknowns.joints), precision=HIGHEST)
    more = own[:, :, None, :, None] * jnp.eye(3)[None, None, :, None, :]
    return dataclasses.replace(normal, own=normal.own + more, gradient=normal.gradient + force)


def _from_belief(belief: Belief, joints: Array) -> Array:
    """How far the joints are from where they are believed to be, about the root: `[T, J, 3]`."""
    root = np.arange(joints.shape[1]) == belief.root

    def about(x: Array) -> Array:
        return jnp.where(root[None, :, None], x, x - x[:, belief.root, None])

    return about(joints) - about(belief.joints)


def _second_differences(model: Model, joints: Array) -> tuple[Array, Array]:
    """In units of `step`, `[T, J, 3]`, and in which frames, `[T, 1]`: those between two others."""
    middle = earlier(model.inside) * model.inside * _later(model.inside)
    second = earlier(joints) - 2 * joints + _later(joints)
    return middle[:, None, None] * second / model.step[None, :, None], middle[:, None]


def _tail(model: Model, squared: Array) -> tuple[Array, Array]:
    """-2 log density of a 3D t distribution, but for a constant, and its derivative."""
    nu = model.tail
    return (nu + 3) * jnp.log1p(squared / nu), (nu + 3) / (nu + squared)


def _diagonal(values: Array) -> Array:
    """Multiples of the 3 x 3 identity, `[..., 3, 3]`."""
    return jnp.multiply.outer(values, jnp.eye(3))


def _vectors(bones: Bones, joints: Array) -> Array:
    parent, child = np.array(bones).T
    return joints[:, child] - joints[:, parent]


def earlier(x: Array) -> Array:
    """Frame t gets what frame t - 1 has; the first gets zeros."""
    return jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])


def _later(x: Array) -> Array:
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])
