"""Rotations, Procrustes alignment and norms whose gradients are finite everywhere.

Nothing here calls a matrix product without the highest precision: the reduced precision that
accelerators use by default costs millimetres.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

HIGHEST = jax.lax.Precision.HIGHEST


def safe_norm(vector: Float[Array, "*batch axes"]) -> Float[Array, "*batch"]:
    """Euclidean norm over the last axis, with gradient 0 at the zero vector.

    The vector is scaled by its largest entry first, so that neither its square nor the gradient
    over- or underflows. NaN stays NaN.
    """
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(vector), axis=-1, keepdims=True))
    nonzero = scale != 0  # and so for NaN
    unit = jnp.where(nonzero, vector / jnp.where(nonzero, scale, 1.0), 1.0)
    norm = scale[..., 0] * jnp.sqrt(jnp.sum(unit**2, axis=-1))
    return jnp.where(nonzero[..., 0], norm, 0.0)


def safe_divide(
    numerator: Float[Array, "*batch"], denominator: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """`numerator / denominator`, and 0 with gradient 0 where the denominator is 0."""
    nonzero = denominator != 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1.0), 0.0)


def rotate(rotation: Float[Array, "3 3"], vector: Float[Array, "3"]) -> Float[Array, "3"]:
    """`rotation @ vector`, as a sum of products: it fuses, and has no reduced precision."""
    # Written out, since XLA's CPU compiler is slow at reductions over three numbers.
    x, y, z = vector
    return rotation[:, 0] * x + rotation[:, 1] * y + rotation[:, 2] * z


def quaternion_to_matrix(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrix of a quaternion (w, x, y, z), which need not have unit length.

    The zero quaternion gives the identity, with gradient 0.
    """
    # The length does not matter, so it is taken out first: its square could over- or underflow.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(quaternion), axis=-1, keepdims=True))
    w, x, y, z = jnp.moveaxis(quaternion / jnp.where(scale > 0, scale, 1.0), -1, 0)
    s = 2.0 * safe_divide(jnp.ones_like(w), w * w + x * x + y * y + z * z)
    rows = [
        [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
        [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
        [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def axis_angle_to_matrix(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Rotation by `|vector|` radians about `vector` (Rodrigues), smooth at the zero vector."""
    squared = jnp.sum(vector**2, axis=-1)
    small = squared < 1e-6
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    # The unit quaternion (cos a/2, sin(a/2) v/a), by Taylor series near 0.
    w = jnp.where(small, 1.0 - squared / 8.0, jnp.cos(angle / 2))
    factor = jnp.where(small, 0.5 - squared / 48.0, jnp.sin(angle / 2) / angle)
    return quaternion_to_matrix(jnp.concatenate([w[..., None], factor[..., None] * vector], -1))


def axes_to_matrix(axes: Float[Array, "*batch 6"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrix of two vectors: its first two rows are what Gram and Schmidt make of them.

    A continuous parametrisation of rotations, of which no three numbers are one: Zhou et al., "On
    the Continuity of Rotation Representations in Neural Networks" (CVPR 2019), equation 15. Not a
    rotation where the vectors are parallel, or one is 0.
    """

    def unit(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
        length = safe_norm(vector)[..., None]
        return safe_divide(vector, jnp.broadcast_to(length, vector.shape))

    first = unit(axes[..., :3])
    second = axes[..., 3:]
    second = unit(second - jnp.sum(first * second, axis=-1, keepdims=True) * first)
    return jnp.stack([first, second, jnp.cross(first, second)], axis=-2)


def matrix_to_axes(rotation: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 6"]:
    """The first two rows of a rotation: the inverse of `axes_to_matrix`."""
    return rotation[..., :2, :].reshape(*rotation.shape[:-2], 6)


def matrix_to_quaternion(rotation: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 4"]:
    """The unit quaternion (w, x, y, z) of a rotation, w >= 0.

    Of the four ways to write it, that which divides by the largest entry (Shepperd, "Quaternion
    from Rotation Matrix", 1978): exact at every angle, gradients too. Half a turn has two signs;
    one of them is given.
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # Four times the products of each entry with all: rows of 4 q q^T.
    w = [1 + xx + yy + zz, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0],
         m[..., 1, 0] - m[..., 0, 1]]  # fmt: skip
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    rows = [
        w,
        [w[1], 1 + xx - yy - zz, xy, xz],
        [w[2], xy, 1 - xx + yy - zz, yz],
        [w[3], xz, yz, 1 - xx - yy + zz],
    ]
    products = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    largest = jnp.argmax(jnp.diagonal(products, axis1=-2, axis2=-1), axis=-1)
    row = jnp.take_along_axis(products, largest[..., None, None], axis=-2)[..., 0, :]
    unit = row / safe_norm(row)[..., None]
    return jnp.where(unit[..., :1] < 0, -unit, unit)


def quaternion_to_axis_angle(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3"]:
    """The vector of up to half a turn: its direction the axis, its length the angle in radians.

    The quaternion (w, x, y, z) need not have unit length. Smooth at the identity.
    """
    quaternion = jnp.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, axis = quaternion[..., 0], quaternion[..., 1:]
    squared = jnp.sum(axis**2, axis=-1)
    small = squared < 1e-6 * w**2
    sine = jnp.sqrt(jnp.where(small, 1.0, squared))
    angle = 2 * jnp.arctan2(sine, jnp.where(small, 1.0, w))
    # 2 atan(s / w) / s by Taylor series near 0.
    ahead = jnp.where(small, w, 1.0)
    near = 2 / ahead - 2 * squared / (3 * ahead**3)
    return jnp.where(small, near, angle / sine)[..., None] * axis


def matrix_to_axis_angle(rotation: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3"]:
    """The axis times the angle, in radians, of a rotation: up to half a turn.

    Its gradient is the true one everywhere but at half a turn itself, where the vector jumps to its
    opposite.
    """
    return quaternion_to_axis_angle(matrix_to_quaternion(rotation))


def scale_and_shift(
    source: Float[Array, "points 2"],
    target: Float[Array, "points 2"],
    weight: Float[Array, "points"],
) -> tuple[Float[Array, ""], Float[Array, "2"]]:
    """The scale s and the shift t for which `s source + t` is closest to `target`.

    Weighted least squares, in closed form: the best weak-perspective camera of a turned pose
    (Kanazawa et al., "Learning 3D Human Dynamics from Video", CVPR 2019, section 3.1). The scale is
    0 where the points of `source` coincide or none has weight, and then the shift the mean of
    `target`.
    """
    share = (weight / jnp.maximum(jnp.sum(weight), 1e-12))[:, None]
    middle, wanted = (jnp.sum(share * x, axis=0) for x in (source, target))
    from_middle = source - middle[None]
    across = jnp.sum(share * from_middle * (target - wanted[None]))
    scale = safe_divide(across, jnp.sum(share * from_middle**2))
    return scale, wanted - scale * middle


def similarity_align(
    source: Float[Array, "points 3"],
    target: Float[Array, "points 3"],
    weight: Float[Array, "points"],
) -> Float[Array, "points 3"]:
    """`source` moved by the similarity (scale, rotation, translation) closest to `target`.

    The weighted least-squares solution of Umeyama, "Least-squares estimation of transformation
    parameters between two point patterns" (PAMI 1991), equations 38-42; reflections are excluded.
    Points of weight 0 do not steer the alignment but are moved with the rest.
    """
    total = jnp.maximum(jnp.sum(weight), 1e-12)
    weight = (weight / total)[:, None]
    source_mean = jnp.sum(weight * source, axis=0, keepdims=True)
    target_mean = jnp.sum(weight * target, axis=0, keepdims=True)
    source_centred = source - source_mean
    target_centred = target - target_mean
    covariance = jnp.matmul((weight * target_centred).T, source_centred, precision=HIGHEST)
    u, singular, vt = jnp.linalg.svd(covariance)
    sign = jnp.sign(jnp.linalg.det(u) * jnp.linalg.det(vt))
    flip = jnp.ones((1, 3)).at[0, 2].set(sign)
    rotation = jnp.matmul(u * flip, vt, precision=HIGHEST)
    variance = jnp.sum(weight * source_centred**2)
    scale = safe_divide(jnp.sum(singular * flip[0]), variance)
    return scale * jnp.matmul(source_centred, rotation.T, precision=HIGHEST) + target_mean
