"""What the interactive page shows, what of it is refused, and less of what is too much."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, Int

from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.skeleton import Skeleton

MAX_BYTES = 128 * 2**20  # of numbers in a page: browsers take long over more


@dataclasses.dataclass(frozen=True)
class Mesh:
    """People's surfaces: NaN where a person is not there."""

    vertices: Float[np.ndarray, "frames people vertices 3"]  # metres, world
    faces: Int[np.ndarray, "faces 3"]  # vertices by number


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a page shows. Lengths are metres, world z up; pixel (0, 0) is a pixel's middle."""

    fps: float
    skeleton: Skeleton
    methods: Mapping[str, Float[np.ndarray, "..."]]  # [frames, people, joints, 3]; NaN: not there
    cameras: Camera | None = None  # [views]
    views: tuple[str, ...] = ()  # their names
    keypoints: Float[np.ndarray, "..."] | None = None  # [frames, views, people, keypoints, 3]:
    # x, y, confidence; 0 or NaN where not found
    keypoint_skeleton: Skeleton | None = None  # None: that of the joints
    meshes: Mapping[str, Mesh] = dataclasses.field(default_factory=dict)  # of methods, by name
    floor: float = 0.0  # its height
    title: str = "3D poses"


def check(scene: Scene) -> None:
    """Raises `UserError` for a scene that cannot be shown.

    Its shapes do not belong together, it has no frames, people or any joint, or its cameras are
    none.
    """
    if not scene.methods:
        raise UserError("the scene has no method; give at least one, by name")
    if not (np.isfinite(scene.fps) and scene.fps > 0):
        raise UserError(f"the scene has {scene.fps} frames per second; give a number above 0")
    if not np.isfinite(scene.floor):
        raise UserError(f"the scene's floor is at {scene.floor} m; give its height, 0 by default")
    first, joints = next(iter(scene.methods.items()))
    shape = joints.shape
    size = scene.skeleton.size
    if len(shape) != 4 or shape[2:] != (size, 3):
        raise UserError(
            f"{first}: the joints have shape {_text(shape)}; {scene.skeleton.name} needs "
            f"[frames, people, {size}, 3]"
        )
    if 0 in shape:
        raise UserError(f"{first}: the joints have shape {_text(shape)}; give a frame and a person")
    for name, other in scene.methods.items():
        _same(name, "joints", other.shape, shape, f"as those of {first}")
    if not any(np.isfinite(joints).all(axis=-1).any() for joints in scene.methods.values()):
        raise UserError("no joint of any frame is finite; there is nothing to look at")
    _check_views(scene, shape)
    _check_meshes(scene, shape)


def check_size(scene: Scene) -> None:
    """Raises `UserError` for a scene, which may be shown, of more than a page's `MAX_BYTES`."""
    most = _most_frames(scene)
    frames = _frames(scene)
    if frames > most:
        less = f"one of {math.ceil(frames / most)} frames" if most else "fewer people"
        raise UserError(
            f"the page may hold {MAX_BYTES / 2**20:.0f} MiB of numbers, which is {most} of "
            f"{frames} frames; give {less}, a part of them, fewer methods, or no meshes"
        )


def thinned(scene: Scene) -> Scene:
    """Every n-th frame of a scene of which a page cannot hold all, as its title says then.

    Time goes on as it did: there are as many frames a second fewer.
    """
    frames, most = _frames(scene), _most_frames(scene)
    if frames <= most:
        return scene
    every = math.ceil(frames / max(most, 1))
    return dataclasses.replace(
        scene,
        fps=scene.fps / every,
        methods={name: joints[::every] for name, joints in scene.methods.items()},
        keypoints=None if scene.keypoints is None else scene.keypoints[::every],
        meshes={n: Mesh(m.vertices[::every], m.faces) for n, m in scene.meshes.items()},
        title=f"{scene.title} (one of {every} frames)",
    )


def _frames(scene: Scene) -> int:
    return len(next(iter(scene.methods.values())))


def _most_frames(scene: Scene) -> int:
    """How many of its frames a page holds."""
    joints = next(iter(scene.methods.values()))
    each = 4 * len(scene.methods) * (3 + 2 * len(scene.views)) * math.prod(joints.shape[1:3])
    each += 0 if scene.keypoints is None else 4 * math.prod(scene.keypoints.shape[1:])
    each += sum(2 * math.prod(mesh.vertices.shape[1:]) for mesh in scene.meshes.values())
    faces = sum(4 * mesh.faces.size for mesh in scene.meshes.values())
    return max(MAX_BYTES - faces, 0) // each


def _check_views(scene: Scene, shape: tuple[int, ...]) -> None:
    if scene.cameras is None:
        if scene.views or scene.keypoints is not None:
            raise UserError("the scene has views but no cameras; give cameras, or neither")
        return
    cameras = jax.tree.map(np.asarray, scene.cameras)
    if cameras.focal.shape != (len(scene.views), 2) or not scene.views:
        raise UserError(
            f"the scene names {len(scene.views)} views and has cameras of shape "
            f"{_text(cameras.focal.shape[:-1])}; give one camera for each view, none of a frame"
        )
    for name, camera in zip(scene.views, zip(*jax.tree.leaves(cameras), strict=True), strict=True):
        if not all(np.isfinite(leaf).all() for leaf in camera):
            raise UserError(f"{name}: the camera has numbers that are not finite; leave it out")
    for name, size, focal in zip(scene.views, cameras.size, cameras.focal, strict=True):
        if not ((size > 0).all() and (focal > 0).all()):
            raise UserError(
                f"{name}: the camera has an image of {size.tolist()} pixels and a focal length of "
                f"{focal.tolist()}; both must be above 0"
            )
    if scene.keypoints is not None:
        own = scene.keypoint_skeleton or scene.skeleton
        wanted = (shape[0], len(scene.views), shape[1], own.size, 3)
        why = f"[frames, views, people, keypoints of {own.name}, 3]"
        _same("keypoints", "points", scene.keypoints.shape, wanted, why)


def _check_meshes(scene: Scene, shape: tuple[int, ...]) -> None:
    for name, mesh in scene.meshes.items():
        if name not in scene.methods:
            raise UserError(
                f"{name}: has a mesh but no joints; name one of {', '.join(scene.methods)}"
            )
        _same(name, "mesh", mesh.vertices.shape[:2], shape[:2], "as the joints")
        size = mesh.vertices.shape[2]
        if not ((mesh.faces >= 0) & (mesh.faces < size)).all():
            raise UserError(f"{name}: faces name vertices beyond the {size} that the mesh has")


def _same(name: str, what: str, shape: tuple[int, ...], wanted: tuple[int, ...], why: str) -> None:
    if tuple(shape) != tuple(wanted):
        raise UserError(
            f"{name}: the {what} have shape {_text(shape)}; give {_text(wanted)}, {why}"
        )


def _text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
