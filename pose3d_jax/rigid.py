"""Structure from motion in closed form: one shape, turned, before orthographic cameras with scales.

Joints come out in the axes of each frame's camera, x and y in the points' units, their depths up to
one sign for the whole sequence. NumPy, in float64: no network, no gradient.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from pose3d_jax.errors import UserError

Array = np.ndarray


class FactorError(UserError):
    """Points that cannot be factorised; the message says why."""


@dataclasses.dataclass(frozen=True)
class Factors:
    """A sequence as `points = scale * (rotation @ shape)[:2] + translation`."""

    shape: Float[Array, "frames joints 3"]  # in axes that all frames share
    rotation: Float[Array, "frames 3 3"]
    scale: Float[Array, "frames"]
    translation: Float[Array, "frames 2"]

    @property
    def joints(self) -> Float[Array, "frames joints 3"]:
        """In the axes of each frame's camera; the mean depth of each frame is 0."""
        turned = np.einsum("fij,fnj->fni", self.rotation, self.shape)
        joints = self.scale[:, None, None] * turned
        joints[..., :2] += self.translation[:, None]
        joints[..., 2] -= joints[..., 2].mean(axis=1, keepdims=True)
        return joints


def rigid(points: Float[Array, "frames joints 2"]) -> Factors:
    """One shape, turned: the closed form of Tomasi and Kanade.

    "Shape and Motion from Image Streams under Orthography" (IJCV 1992): rank 3 of the centred
    measurements, and the linear metric upgrade, here for cameras with scales (rows of a frame are
    at right angles and equally long: Weinshall and Tomasi, PAMI 1995). Exact for exact points of
    one shape, seen from three directions or more. The mean scale is 1.

    Raises `FactorError` for fewer than three frames or four joints, points that are not finite, and
    points of rank below 3 (a flat shape, or one direction).
    """
    points = checked(points)
    centre = points.mean(axis=1)
    rows = (points - centre[:, None]).swapaxes(1, 2).reshape(-1, points.shape[1])
    u, singular, vt = np.linalg.svd(rows, full_matrices=False)
    if singular[2] < 1e-9 * singular[0]:
        raise FactorError(
            "the points have rank 2: the shape is flat, or seen from one direction alone"
        )
    root = np.sqrt(singular[:3])
    motion, shape = u[:, :3] * root, (root[:, None] * vt[:3]).T
    upgrade = _metric(motion.reshape(-1, 2, 3))
    axes = (motion @ upgrade).reshape(-1, 2, 3)
    rotation, scale = _nearest_cameras(axes)
    mean = scale.mean()
    shape = shape @ np.linalg.inv(upgrade).T * mean
    whole = np.broadcast_to(shape, (len(points), *shape.shape)).copy()
    return Factors(whole, rotation, scale / mean, centre)


def _metric(motion: Float[Array, "frames 2 3"]) -> Float[Array, "3 3"]:
    """The matrix A for which the rows of `motion @ A` are at right angles and equally long."""
    first, second = motion[:, 0], motion[:, 1]
    index = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

    def products(a: Array, b: Array) -> Array:
        columns = [a[:, i] * b[:, j] + (a[:, j] * b[:, i] if i != j else 0) for i, j in index]
        return np.stack(columns, axis=1)

    equations = np.concatenate(
        [products(first, first) - products(second, second), products(first, second)]
    )
    # The squares' mean is 1 where they are equal; that leaves the zero matrix out.
    size = (products(first, first) + products(second, second)).mean(axis=0)
    null = np.linalg.svd(equations, full_matrices=False)[2][-1]
    upper = null / (size @ null) * 2
    symmetric = np.zeros((3, 3))
    for (i, j), value in zip(index, upper, strict=True):
        symmetric[i, j] = symmetric[j, i] = value
    values, vectors = np.linalg.eigh(symmetric)
    # Of noisy points it may be indefinite; the nearest that is not has the others at 0.
    return vectors * np.sqrt(np.maximum(values, 1e-6 * values.max()))


def _nearest_cameras(
    axes: Float[Array, "frames 2 3"],
) -> tuple[Float[Array, "frames 3 3"], Float[Array, "frames"]]:
    """The rotations whose first two rows, times a scale, are nearest to pairs of axes."""
    u, singular, vt = np.linalg.svd(axes, full_matrices=False)
    two = u @ vt
    third = np.cross(two[:, 0], two[:, 1])
    return np.concatenate([two, third[:, None]], axis=1), singular.mean(axis=1)


def mean_seen(
    points: Float[Array, "frames joints 2"], seen: Float[Array, "frames joints"]
) -> Float[Array, "frames 1 2"]:
    """Of the points that are seen, frame by frame."""
    total = (seen[..., None] * np.where(seen[..., None] > 0, points, 0.0)).sum(axis=1)
    return (total / seen.sum(axis=1)[:, None])[:, None]


def checked(points: Array, visible: Array | None = None) -> Array:
    """Points in float64; raises `FactorError` for too few, and for seen ones not finite."""
    points = np.asarray(points, np.float64)
    frames, joints = points.shape[:2]
    if frames < 3 or joints < 4:
        raise FactorError(
            f"there are {frames} frames of {joints} joints; it takes 3 frames of 4 joints at least"
        )
    known = points if visible is None else points[np.asarray(visible) > 0]
    if not np.isfinite(known).all():
        raise FactorError("points are not finite; say in `visible` which of them are there")
    return points
