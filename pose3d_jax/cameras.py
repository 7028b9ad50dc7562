"""One camera and one point: project, distort, undistort, look-at. `vmap` does the rest.

Camera axes: x right, y down, z forward. Pixels: (x, y), the origin at the centre of the top-left
pixel. *Normalised* points are undistorted image points on the plane z = 1 of the camera frame.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST, rotate, safe_divide, safe_norm

# A field of a pytree holds an array, or what a transformation puts in its place (a shape, an axis,
# a sharding); functions check the arrays' shapes where they use them.
Leaf: TypeAlias = Any

# Factor of the tangential distortion's cross terms: OpenCV's model, and Human3.6M's own code.
TANGENTIAL = {"opencv": 2.0, "h36m": 1.0}

# A point nearer than this is projected as if it were this far (metres): the gradient towards the
# front stays finite for points at or behind the camera.
MIN_DEPTH = 0.5

# Of Newton's method: the most, and how far the last of them moves where it has converged.
_NEWTON_STEPS = 8
_CONVERGED = 1e-5


@struct.dataclass
class Camera:
    """Calibrated cameras with any leading axes; a pytree of arrays.

    `rotation` is world-to-camera and `translation` in metres: `x_camera = R x_world + t`.
    `distortion` is (k1, k2, p1, p2, k3), `tangential` its factor (see `TANGENTIAL`).
    """

    rotation: Leaf  # [*batch, 3, 3]
    translation: Leaf  # [*batch, 3]
    focal: Leaf  # [*batch, 2] pixels
    center: Leaf  # [*batch, 2] pixels
    distortion: Leaf  # [*batch, 5]
    tangential: Leaf  # [*batch]
    size: Leaf  # [*batch, 2] pixels (width, height)


def batched(function: Callable) -> Callable:
    """Lifts `function(camera, point)` to cameras `[*batch]` and points `[*batch, joints, C]`."""

    def apply(camera: Camera, points: Float[Array, "*batch joints axes"]) -> Array:
        # One axis of cameras: every further map would trace the whole function anew.
        batch = points.shape[:-2]

        def rows(x: Leaf) -> Leaf:
            if x.shape[: len(batch)] != batch:
                raise ValueError(f"cameras {x.shape} do not match points {points.shape}")
            return x.reshape(math.prod(batch), *x.shape[len(batch) :])

        mapped = jax.vmap(jax.vmap(function, in_axes=(None, 0)))
        found = mapped(jax.tree.map(rows, camera), rows(points))
        return found.reshape(*batch, *found.shape[1:])

    return apply


def to_camera(camera: Camera, point: Float[Array, "3"]) -> Float[Array, "3"]:
    """World point to camera frame, metres."""
    return rotate(camera.rotation, point) + camera.translation


def to_world(camera: Camera, point: Float[Array, "3"]) -> Float[Array, "3"]:
    """Camera-frame point to world, metres."""
    return rotate(camera.rotation.T, point - camera.translation)


def perspective(point: Float[Array, "3"], min_depth: float = MIN_DEPTH) -> Float[Array, "2"]:
    """Camera-frame point to the normalised image plane, its depth held at `min_depth` or more."""
    return point[:2] / jnp.maximum(point[2], min_depth)


def distort(camera: Camera, point: Float[Array, "2"]) -> Float[Array, "2"]:
    """Brown-Conrady distortion of a normalised point (three radial, two tangential terms)."""
    k1, k2, p1, p2, k3 = camera.distortion
    x, y = point
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    factor = camera.tangential
    dx = factor * p1 * x * y + p2 * (r2 + factor * x * x)
    dy = p1 * (r2 + factor * y * y) + factor * p2 * x * y
    return jnp.stack([x * radial + dx, y * radial + dy])


@jax.jit  # its loop, traced anew for every axis of every use, was most of a step's tracing
def undistort(camera: Camera, point: Float[Array, "2"]) -> Float[Array, "2"]:
    """Inverse of `distort`, by Newton's method; exact derivatives in the point and the camera.

    Where the polynomial has no inverse (far outside the image of a strong lens) the result is
    finite but meaningless.
    """

    def newton_step(camera: Camera, point: Array, estimate: Array) -> Float[Array, "2"]:
        (a, b), (c, d) = jax.jacfwd(lambda x: distort(camera, x))(estimate)
        residual = distort(camera, estimate) - point
        determinant = a * d - b * c
        determinant = jnp.where(jnp.abs(determinant) < 1e-3, 1e-3, determinant)
        delta = jnp.stack([d * residual[0] - b * residual[1], a * residual[1] - c * residual[0]])
        delta = delta / determinant
        # A step of at most 0.5 keeps the iteration near the image; it is inactive at convergence.
        return estimate - delta / jnp.maximum(1.0, 2.0 * safe_norm(delta))

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        _, moved, steps = state
        return (moved > _CONVERGED) & (steps < _NEWTON_STEPS)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        estimate, _, steps = state
        moved = newton_step(fixed[0], fixed[1], estimate)
        return moved, jnp.max(jnp.abs(moved - estimate)), steps + 1

    # A loop without a fixed end has no reverse derivative: none goes in.
    fixed = jax.lax.stop_gradient((camera, point))
    start = (fixed[1], jnp.array(jnp.inf, point.dtype), jnp.array(0))
    solution = jax.lax.while_loop(goes_on, step, start)[0]
    # At the solution one more step changes nothing but has, by the implicit function theorem, the
    # derivative of the inverse.
    return newton_step(camera, point, solution)


def to_pixels(camera: Camera, point: Float[Array, "2"]) -> Float[Array, "2"]:
    """Normalised (undistorted) point to distorted pixels."""
    return camera.focal * distort(camera, point) + camera.center


def normalise(camera: Camera, pixel: Float[Array, "2"]) -> Float[Array, "2"]:
    """Distorted pixels to the normalised (undistorted) point; the inverse of `to_pixels`.

    The all-zero camera of a padded view gives 0 instead of NaN.
    """
    return undistort(camera, safe_divide(pixel - camera.center, camera.focal))


def project(camera: Camera, point: Float[Array, "3"]) -> Float[Array, "2"]:
    """World point, metres, to distorted pixels. Depth is held at `MIN_DEPTH` or more."""
    return to_pixels(camera, perspective(to_camera(camera, point)))


def look_at(
    position: Float[Array, "3"], target: Float[Array, "3"], up: Float[Array, "3"]
) -> tuple[Float[Array, "3 3"], Float[Array, "3"]]:
    """World-to-camera rotation and translation of a camera at `position` that faces `target`.

    `up` appears upwards in the image. Position and target must differ, and the line between them
    must not run along `up`.
    """
    forward = (target - position) / safe_norm(target - position)
    right = jnp.cross(forward, up)
    right = right / safe_norm(right)
    down = jnp.cross(forward, right)
    rotation = jnp.stack([right, down, forward])
    return rotation, -jnp.matmul(rotation, position, precision=HIGHEST)
