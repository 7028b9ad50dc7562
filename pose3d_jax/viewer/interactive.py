"""The interactive page: people in 3D over time, and each view's keypoints and reprojections.

One HTML file that works without a network: three.js, the page's own scripts and the data are in it.
`space.js` draws the 3D, `panels.js` the views, `interactive.js` the rest; `three.min.js` is
three.js, bundled as `three_entry.mjs` says.
"""

import base64
import html
import json
import string
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from pose3d_jax import cameras as cam
from pose3d_jax import workdir
from pose3d_jax.cameras import Camera
from pose3d_jax.viewer import figures
from pose3d_jax.viewer.scene import Mesh, Scene, check, check_size, thinned

_MISSING = -32768  # of a mesh's coordinates
_STEPS = 32767
_FRUSTUM = 0.35  # metres from a camera to the image that stands for what it sees


def write(path: str | Path, scene: Scene) -> None:
    """Writes a scene as one HTML file, whole or not at all.

    Raises `UserError` for a scene that cannot be shown, as `scene.check` does, or is too large for
    a page (`scene.thinned` is not), before anything is written.
    """
    workdir.write_text(path, render(scene))


def leave(path: str | Path, scene: Scene) -> str:
    """Writes what a page holds of a scene; says how many of its frames that are.

    A warning tells of frames that are left out. Raises `UserError` as `write` does.
    """
    path, shown = Path(path), thinned(scene)
    of, frames = (len(next(iter(each.methods.values()))) for each in (shown, scene))
    if of < frames:
        logging.warning(
            "%s shows one of %d frames, %d of %d: a page cannot hold them all; the other files do",
            path.name,
            round(scene.fps / shown.fps),
            of,
            frames,
        )
    write(path, shown)
    return f"{of} of {frames} frames"


def render(scene: Scene) -> str:
    """The page itself; see `write`."""
    check(scene)
    check_size(scene)
    files = resources.files(__package__)
    names = ("interactive.html", "three.min.js", "space.js", "panels.js", "interactive.js")
    page, three, *own = (files.joinpath(name).read_text(encoding="utf-8") for name in names)
    # Inside a script no text may look like a tag, whatever it stands in.
    data = json.dumps(_data(scene), allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")
    return string.Template(page).substitute(
        title=html.escape(scene.title), three=three, scene=data, script="\n".join(own)
    )


def reprojection(
    cameras: Camera, joints: Float[np.ndarray, "frames people joints 3"]
) -> Float[np.ndarray, "frames views people joints 2"]:
    """Where cameras `[views]` see joints, distorted pixels; NaN where they cannot.

    They cannot behind them, nearer than `cameras.MIN_DEPTH`, and so far outside the image that the
    lens's polynomial turns back.
    """
    frames, people, size, _ = joints.shape
    flat = np.asarray(joints, np.float32).reshape(1, -1, 3)
    points = np.broadcast_to(flat, (len(cameras.focal), *flat.shape[1:]))
    pixels = np.array(_project(cameras, points))
    local = np.asarray(_to_camera(cameras, points))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        squared = np.sum((local[..., :2] / local[..., 2:]) ** 2, axis=-1)
        turns = np.array([_turning(lens) for lens in np.asarray(cameras.distortion)])
        unseen = ~(local[..., 2] >= cam.MIN_DEPTH) | ~(squared < turns[:, None])
    pixels[unseen] = np.nan
    return pixels.reshape(-1, frames, people, size, 2).swapaxes(0, 1)


_project = jax.jit(cam.batched(cam.project))
_to_camera = jax.jit(cam.batched(cam.to_camera))


def _turning(distortion: Float[np.ndarray, "5"]) -> float:
    """The squared radius from which on the radial polynomial no longer grows."""
    k1, k2, _, _, k3 = (float(k) for k in distortion)
    roots = np.roots(np.array([7 * k3, 5 * k2, 3 * k1, 1.0]))
    real = roots[np.isreal(roots)].real
    return float(min(real[real > 0], default=np.inf))


# ------------------------------------------------------------------------------------- what is said


def _data(scene: Scene) -> dict[str, Any]:
    """What the page's scripts read."""
    first = next(iter(scene.methods.values()))
    frames, people = first.shape[:2]
    colours = figures.palette(scene.methods)
    persons = figures.palette(f"person {number + 1}" for number in range(people))
    places = np.concatenate([joints.reshape(-1, 3) for joints in scene.methods.values()])
    places = places[np.isfinite(places).all(axis=-1)]
    middle = np.median(places, axis=0)
    # A few joints that are far off leave the others in the picture.
    reach = max(float(np.percentile(np.linalg.norm(places - middle, axis=-1), 98)), 0.5)
    seen = _seen(scene)
    found = [] if scene.keypoints is None else [points_found(scene.keypoints)]
    stands = [] if scene.cameras is None else _frusta(scene.cameras)
    far = max([reach + 1, *(float(np.hypot(*(p[0] - middle)[:2])) + 0.5 for p in stands)])
    return {
        "fps": float(scene.fps),
        "frames": frames,
        "people": [{"name": name, "colour": colour} for name, colour in persons.items()],
        "bones": scene.skeleton.bones,
        "sides": [scene.skeleton.side(joint) for joint in range(scene.skeleton.size)],
        "methods": [
            {
                "name": name,
                "colour": colour,
                "joints": _packed(scene.methods[name]),
                "points": _packed(seen[name]) if name in seen else None,
                "mesh": _mesh(scene.meshes[name]) if name in scene.meshes else None,
            }
            for name, colour in colours.items()
        ],
        "views": [
            {
                "name": name,
                "size": np.asarray(size).tolist(),
                "near": window_of([points[:, view] for points in (*seen.values(), *found)], size),
                "frustum": frustum.tolist(),
            }
            for view, (name, size, frustum) in enumerate(
                zip(scene.views, _sizes(scene), stands, strict=True)
            )
        ],
        "keypoints": _keypoints(scene),
        "middle": middle.tolist(),
        "reach": reach,
        "ground": min(far, 50.0),
        "floor": float(scene.floor),
    }


def _seen(scene: Scene) -> dict[str, Float[np.ndarray, "..."]]:
    """Each method's reprojection; none without cameras."""
    if scene.cameras is None:
        return {}
    return {name: reprojection(scene.cameras, joints) for name, joints in scene.methods.items()}


def points_found(keypoints: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
    """Points, NaN where not found."""
    return np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan)


def _keypoints(scene: Scene) -> dict[str, Any] | None:
    """Keypoints, their bones, and which of them are which joints."""
    if scene.keypoints is None:
        return None
    own = scene.keypoint_skeleton or scene.skeleton
    joints = scene.skeleton.joints
    return {
        "points": _packed(scene.keypoints),
        "size": own.size,
        "bones": own.bones,
        "pairs": [[i, joints.index(name)] for i, name in enumerate(own.joints) if name in joints],
    }


def window_of(points: list[np.ndarray], size: np.ndarray) -> list[float]:
    """The part of an image, of its shape, where people are: left, top, width; all if nowhere."""
    whole = np.asarray(size, float)
    flat = np.concatenate([some.reshape(-1, 2) for some in points])
    inside = flat[((flat > -0.5) & (flat < whole - 0.5)).all(axis=-1)]
    if not len(inside):
        return [-0.5, -0.5, float(whole[0])]
    low, high = np.percentile(inside, (0.5, 99.5), axis=0)
    share = min(max(1.25 * float(((high - low) / whole).max()), 0.1), 1.0)
    corner = np.clip((low + high - share * whole) / 2, -0.5, (1 - share) * whole - 0.5)
    return [*corner.tolist(), share * float(whole[0])]


def _mesh(mesh: Mesh) -> dict[str, Any]:
    """Vertices in steps of a 65534th of the room they take: 0.15 mm in 10 m."""
    there = np.isfinite(mesh.vertices).all(axis=(-2, -1), keepdims=True)
    places = np.where(there, mesh.vertices, np.nan)
    low, high = (
        (np.nanmin(places, axis=(0, 1, 2)), np.nanmax(places, axis=(0, 1, 2)))
        if there.any()
        else (np.zeros(3), np.zeros(3))
    )
    middle, step = (low + high) / 2, np.maximum(high - low, 1e-6) / (2 * _STEPS)
    steps = np.round((np.where(there, mesh.vertices, middle) - middle) / step)
    return {
        "vertices": _packed(np.where(there, steps, _MISSING), "i2"),
        "faces": _packed(mesh.faces, "i4"),
        "size": mesh.vertices.shape[2],
        "middle": middle.tolist(),
        "step": step.tolist(),
        "missing": _MISSING,
    }


def _frusta(cameras: Camera) -> list[Float[np.ndarray, "5 3"]]:
    """Each camera's centre and its image's corners, clockwise from the upper left, undistorted."""
    found = []
    for view in range(len(cameras.focal)):
        rotation, translation, focal, center, size = (
            np.asarray(getattr(cameras, name)[view], float)
            for name in ("rotation", "translation", "focal", "center", "size")
        )
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size - 0.5
        rays = np.concatenate([(corners - center) / focal, np.ones((4, 1))], axis=-1)
        local = np.concatenate([np.zeros((1, 3)), _FRUSTUM * rays])
        found.append((local - translation) @ rotation)
    return found


def _sizes(scene: Scene) -> np.ndarray:
    return np.zeros((0, 2)) if scene.cameras is None else np.asarray(scene.cameras.size)


def _packed(array: np.ndarray, kind: str = "f4") -> dict[str, str]:
    """An array's numbers, little-endian, as base64."""
    numbers = np.ascontiguousarray(array, f"<{kind}").tobytes()
    return {"kind": kind, "base64": base64.b64encode(numbers).decode("ascii")}
