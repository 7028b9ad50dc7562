"""Published camera rigs, and the filming of 3D joints with them.

`rigs.json` states its own conventions: orientations are camera-to-world quaternions (w, x, y, z),
translations are camera centres in millimetres, world z up.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cameras_lib
from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Observations

_RIGS = Path(__file__).with_name("rigs.json")

# Frames are projected in blocks of this many, so that clips of any length share one compilation.
_BLOCK = 512


class RigError(UserError):
    """A rig, subject or camera that is not in the file; the message names those that are."""


@lru_cache
def _load() -> dict[str, dict]:
    return json.loads(_RIGS.read_text())["rigs"]


def subjects(name: str) -> tuple[str, ...]:
    """The subjects for whom the rig was calibrated. Raises `RigError` if there is no such rig."""
    return tuple(_pick(_load(), name, "rig")["subjects"])


def load_rig(
    name: str, subject: str, cameras: Sequence[str] | None = None
) -> tuple[Camera, tuple[str, ...]]:
    """The cameras of a rig as they stood for one subject, and their names.

    Args:
      name: `human36m` or `humaneva`.
      subject: such as `S1`; rigs were calibrated anew for each.
      cameras: names of those to keep, in this order; all by default.

    Returns:
      A `Camera` of float32 arrays with leading axis [V] (metres, pixels), and V names.

    Raises:
      RigError: the rig, the subject or a camera does not exist.
    """
    rig = _pick(_load(), name, "rig")
    poses = _pick(rig["subjects"], subject, f"subject of rig {name}")
    names = [camera["id"] for camera in rig["cameras"]]
    wanted = names if cameras is None else list(cameras)
    both = dict(zip(names, zip(rig["cameras"], poses, strict=True), strict=True))
    chosen = [_pick(both, camera, f"camera of rig {name}") for camera in wanted]
    if not chosen or len(set(wanted)) != len(wanted):
        raise RigError(f"cameras {wanted}: name each camera of rig {name} at most once, and one")
    intrinsics, extrinsics = zip(*chosen, strict=True)
    quaternions = np.array([pose["orientation"] for pose in extrinsics])
    rotation = Rotation.from_quat(quaternions, scalar_first=True).inv()
    centers = np.array([pose["translation_mm"] for pose in extrinsics]) / 1000
    factor = cameras_lib.TANGENTIAL[rig["tangential_model"]]

    def pixels(field: str) -> np.ndarray:
        return np.array([camera[field] for camera in intrinsics], np.float32)

    camera = Camera(
        rotation=rotation.as_matrix().astype(np.float32),
        translation=-rotation.apply(centers).astype(np.float32),
        focal=pixels("focal_px"),
        center=pixels("center_px"),
        distortion=pixels("distortion"),
        tangential=np.full(len(wanted), factor, np.float32),
        size=pixels("size_px"),
    )
    return camera, tuple(wanted)


def film(joints: np.ndarray, cameras: Camera) -> Observations:
    """What cameras `[V]` or `[T, V]` see of world joints `[T, J, 3]`: exact pixels `[T, V, J, 2]`.

    Confidence is 1, also outside the image; a joint nearer to the image plane than
    `cameras.MIN_DEPTH`, or behind it, is missing. Cameras that stand still are repeated for every
    frame.
    """
    frames = len(joints)
    if np.ndim(cameras.tangential) == 1:
        cameras = jax.tree.map(lambda x: np.broadcast_to(x, (frames, *np.shape(x))), cameras)

    def blocks(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x, [(0, -frames % _BLOCK)] + [(0, 0)] * (np.ndim(x) - 1), mode="edge")
        return padded.reshape(-1, _BLOCK, *np.shape(x)[1:])

    cut = jax.tree.map(blocks, (cameras, joints.astype(np.float32)))
    filmed = [
        _film_block(*jax.tree.map(lambda x, i=i: x[i], cut)) for i in range(-(-frames // _BLOCK))
    ]
    pixels, seen = (np.concatenate(parts)[:frames] for parts in zip(*filmed, strict=True))
    return Observations(pixels, seen, cameras)


@jax.jit
def _film_block(cameras: Camera, joints: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pixels `[T, V, J, 2]` and confidence `[T, V, J]` of joints `[T, J, 3]`, cameras `[T, V]`."""

    def film_point(camera: Camera, point: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = cameras_lib.to_camera(camera, point)[2] >= cameras_lib.MIN_DEPTH
        return jnp.where(seen, cameras_lib.project(camera, point), 0.0), seen.astype(jnp.float32)

    over_joints = jax.vmap(film_point, in_axes=(None, 0))
    over_views = jax.vmap(over_joints, in_axes=(0, None))
    return jax.vmap(over_views)(cameras, joints)


def _pick(table: dict, key: str, kind: str):
    if key not in table:
        raise RigError(f"no {kind} is called {key!r}; there are {', '.join(table)}")
    return table[key]
