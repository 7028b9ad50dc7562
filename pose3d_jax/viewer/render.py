"""Pictures of meshes, by rays (trimesh with Embree): no display, no GPU."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from pose3d_jax import errors, workdir
from pose3d_jax.body import normals
from pose3d_jax.errors import UserError
from pose3d_jax.viewer import movie

COLOUR = (0.62, 0.71, 0.82)
_LIGHT = np.array([-0.4, -0.6, -0.7])  # towards it, in the camera's axes: above, left, behind it
_AMBIENT = 0.35


def mesh(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    focal: Float[np.ndarray, "2"],
    center: Float[np.ndarray, "2"],
    size: tuple[int, int],
    *,
    colour: tuple[float, float, float] = COLOUR,
) -> UInt8[np.ndarray, "height width 4"]:
    """A mesh as a camera without distortion sees it; alpha 0 where it is not.

    Args:
      vertices: in the camera's axes (x right, y down, z forward), metres.
      faces: vertices by number.
      focal, center: of the camera, pixels; pixel (0, 0) is the middle of the top left one.
      size: width and height, pixels.
      colour: of the surface, 0 to 1.

    Raises `UserError` without trimesh and Embree, which the extra `mesh` installs.
    """
    scene = trimesh().Trimesh(np.asarray(vertices), np.asarray(faces), process=False)
    width, height = size
    y, x = np.mgrid[:height, :width]
    across = np.stack([(x - center[0]) / focal[0], (y - center[1]) / focal[1]], axis=-1)
    rays = np.concatenate([across, np.ones((height, width, 1))], axis=-1).reshape(-1, 3)
    number, found, places = scene.ray.intersects_id(
        np.zeros_like(rays), rays, multiple_hits=False, return_locations=True
    )
    corners = np.asarray(faces)[number]
    share = _barycentric(np.asarray(vertices)[corners], places)
    normal = np.einsum(
        "rc,rci->ri", share, normals(np.asarray(vertices), np.asarray(faces))[corners]
    )
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    # Either side of a surface is lit.
    normal *= np.where(np.sum(normal * rays[found], axis=-1, keepdims=True) > 0, -1.0, 1.0)
    lit = np.clip(normal @ (_LIGHT / np.linalg.norm(_LIGHT)), 0.0, 1.0)
    shade = (_AMBIENT + (1 - _AMBIENT) * lit)[:, None] * np.array(colour)
    picture = np.zeros((height * width, 4), np.uint8)
    picture[found, :3] = np.round(255 * shade)
    picture[found, 3] = 255
    return picture.reshape(height, width, 4)


def trimesh() -> Any:
    """The library, with Embree. Raises `UserError` without either."""
    what = "a picture of meshes"
    errors.library("embreex", "mesh", what)
    return errors.library("trimesh", "mesh", what)


def _barycentric(
    corners: Float[np.ndarray, "points 3 3"], points: Float[np.ndarray, "points 3"]
) -> Float[np.ndarray, "points 3"]:
    """The shares of the corners of triangles in points on them, by areas."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    across = np.cross(b - a, c - a)
    total = np.maximum(np.sum(across**2, axis=-1), 1e-20)
    of_b = np.sum(np.cross(points - a, c - a) * across, axis=-1) / total
    of_c = np.sum(np.cross(b - a, points - a) * across, axis=-1) / total
    return np.stack([1 - of_b - of_c, of_b, of_c], axis=-1)


# ----------------------------------------------------------------------------------- moving picture

_HEIGHT = 256  # pixels
_RATE = 15.0  # frames per second, at most
_TALL = 2.4  # metres that the picture from the side shows
_FAR = 6.0  # metres from there


def preview(
    path: str | Path,
    vertices: Float[np.ndarray, "time vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    keypoints: Float[np.ndarray, "time keypoints 3"],
    focal: Float[np.ndarray, "time 2"],
    center: Float[np.ndarray, "time 2"],
    fps: float,
) -> None:
    """A GIF: the mesh as the camera sees it, under the points that were given; and from the left.

    Args:
      path: the file; whole or not at all.
      vertices: in the camera's axes, metres.
      faces: vertices by number.
      keypoints: x and y in pixels, and a confidence that is 0 for what is missing.
      focal, center: of the camera, pixels; its distortion is left out.
      fps: of the frames; of them are shown no more than 15 a second.
    """
    step = max(1, math.ceil(fps / _RATE))
    shown = np.arange(0, len(vertices), step)
    corner, scale = _window(keypoints)
    pictures = []
    for frame in shown:
        points = vertices[frame]
        own = (focal[frame] * scale, (center[frame] - corner) * scale)
        left = _on_paper(mesh(points, faces, *own, (_HEIGHT, _HEIGHT)))
        seen = keypoints[frame][keypoints[frame, :, 2] > 0, :2]
        _dots(left, (seen - corner) * scale)
        about = points - points.mean(axis=0)
        from_left = np.stack([-about[:, 2], about[:, 1], about[:, 0] + _FAR], axis=-1)
        lens = np.full(2, _HEIGHT * _FAR / _TALL)
        middle = np.full(2, (_HEIGHT - 1) / 2)
        right = _on_paper(mesh(from_left, faces, lens, middle, (_HEIGHT, _HEIGHT)))
        pictures.append(np.concatenate([left, right], axis=1))
    workdir.write(path, lambda name: movie.gif(name, pictures, fps / step))


def _window(keypoints: Float[np.ndarray, "time keypoints 3"]) -> tuple[np.ndarray, float]:
    """Corner and scale of the square that shows nearly all points, and a fifth of it around."""
    seen = keypoints[keypoints[..., 2] > 0][:, :2]
    if not len(seen):
        raise UserError("no frame of the clip shows a keypoint; there is nothing to look at")
    low, high = np.percentile(seen, (1, 99), axis=0)
    side = max(1.4 * float((high - low).max()), 1.0)
    return (low + high) / 2 - side / 2, _HEIGHT / side


def _on_paper(picture: UInt8[np.ndarray, "height width 4"]) -> UInt8[np.ndarray, "height width 3"]:
    return np.where(picture[..., 3:] > 0, picture[..., :3], 255).astype(np.uint8)


def _dots(picture: UInt8[np.ndarray, "height width 3"], points: np.ndarray) -> None:
    """Points drawn in place, two pixels wide to each side."""
    for x, y in np.round(points).astype(int):
        picture[max(y - 2, 0) : max(y + 3, 0), max(x - 2, 0) : max(x + 3, 0)] = (200, 60, 40)
