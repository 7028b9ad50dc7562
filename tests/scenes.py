"""Small exact scenes: people in front of a ring of cameras, as batches and as records."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from pose3d_jax import cameras as cam
from pose3d_jax import skeleton
from pose3d_jax.cameras import Camera
from pose3d_jax.schema import Clip, Identity, Images, Labels, Observations, Pictures, Record

H36M = skeleton.get("h36m17")


def f32(array: Any) -> jax.Array:
    """Made by numpy, which compiles nothing for a new shape."""
    return jnp.asarray(np.asarray(array, np.float32))


@jax.jit
def _look_at(places: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    up = jnp.array([0.0, 0.0, 1.0])
    return jax.vmap(lambda place: cam.look_at(place, target, up))(places)


def ring(views: int, *, radius: float = 4.5, height: float = 1.5) -> Camera:
    """Cameras `[views]` on a circle that look at its centre, 1 m above the floor."""
    angles = 2 * np.pi * (np.arange(views) + 0.3) / max(views, 3)
    places = [radius * np.cos(angles), radius * np.sin(angles), np.full(views, height)]
    rotation, translation = _look_at(f32(np.stack(places, axis=-1)), f32([0.0, 0.0, 1.0]))
    lens = {
        "focal": [1145.0, 1143.0],
        "center": [512.0, 515.0],
        "distortion": [-0.207, 0.247, -0.0014, -0.00097, -0.003],
        "size": [1000.0, 1002.0],
    }
    return Camera(
        rotation=rotation,
        translation=translation,
        tangential=f32(np.ones(views)),
        **{name: f32(np.broadcast_to(np.array(v), (views, len(v)))) for name, v in lens.items()},
    )


def people(size: int, frames: int = 1, seed: int = 0) -> np.ndarray:
    """Joints `[size, frames, 17, 3]`, world, metres: random, and about as large as a person."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(-1, 1, (size, frames, 1, 3)) * [1.0, 1.0, 0.1] + [0, 0, 1.0]
    return (place + rng.uniform(-0.5, 0.5, (size, frames, 17, 3))).astype(np.float32)


@jax.jit
def film(joints: np.ndarray, camera: Camera) -> Observations:
    """Exact observations `[*batch, V, ...]` of joints `[*batch, J, 3]` by cameras `[V]`."""
    batch = joints.shape[:-2]
    views = camera.focal.shape[0]
    cameras = jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch, *x.shape)), camera)
    world = jnp.repeat(jnp.asarray(joints)[..., None, :, :], views, axis=-3)
    keypoints = cam.batched(cam.project)(cameras, world)
    return Observations(keypoints, jnp.ones(keypoints.shape[:-1]), cameras)


def batch(size: int = 8, views: int = 4, frames: int = 1, seed: int = 0) -> Clip:
    """A labelled batch `[size, frames, views, ...]`."""
    joints = people(size, frames, seed)
    labels = Labels(f32(joints), f32(np.ones(joints.shape[:-1])))
    return Clip(film(joints, ring(views)), labels, jnp.asarray(np.zeros(size, np.int32)))


def record(
    clip: str, *, dataset: str = "scene", split: str = "train", frames: int = 6, views: int = 3,
    seed: int = 0, labelled: bool = True, moving: bool = False, group: str = "g",
) -> Record:  # fmt: skip
    """A record of one person; unlabelled ones have no joints, moving cameras drift upwards."""
    joints = people(1, frames, seed)[0]
    observations = film(joints, ring(views))
    if moving:
        per_frame = [film(joints[t], ring(views, height=1.2 + 0.3 * t)) for t in range(frames)]
        observations = jax.tree.map(lambda *x: np.stack(x), *per_frame)
    valid = np.full(joints.shape[:-1], float(labelled), np.float32)
    labels = Labels(joints * valid[..., None], valid)
    host = jax.tree.map(lambda x: np.asarray(x, np.float32), Clip(observations, labels, 0))
    identity = Identity(
        dataset=dataset,
        subject=f"s{seed}",
        action="stand" if seed % 2 else "wave",
        clip=clip,
        recording="ring",
        camera_names=tuple(f"c{v}" for v in range(views)),
        start=0,
        group=group,
        split=split,
        fps=30.0,
        keypoint_skeleton="h36m17",
        joint_skeleton="h36m17",
        keypoint_source="projected",
    )
    return Record(Clip(host.observations, host.labels, np.int32(-1)), identity)


def pictured(made: Record, features: int = 7) -> Record:
    """The record with random features of images, of squares of 200 pixels about the points."""
    clip, identity = made
    observations = clip.observations
    lead = observations.confidence.shape[:2]
    rng = np.random.default_rng(features)
    middle = np.asarray(observations.keypoints).mean(axis=2)
    square = np.concatenate([middle, np.full((*lead, 1), 200.0)], axis=-1)
    images = Images(rng.uniform(0, 1, (*lead, features)).astype(np.float32), f32(square))
    host = jax.tree.map(np.asarray, images)
    return Record(clip.replace(observations=observations.replace(images=host)), identity)


def photographed(made: Record, cells: int = 64) -> Record:
    """The record with pictures of squares about the points: black, every joint a dot of its hue."""
    clip, identity = made
    points = np.asarray(clip.observations.keypoints, float)
    low, high = points.min(axis=2), points.max(axis=2)
    side = 1.2 * (high - low).max(axis=-1, keepdims=True)
    square = np.concatenate([(low + high) / 2, side], axis=-1)
    row, column = np.mgrid[:cells, :cells]
    encoded = np.empty(points.shape[:2], object)
    for at in np.ndindex(encoded.shape):
        image = np.zeros((cells, cells, 3), np.uint8)
        places = (points[at] - square[at][:2]) / square[at][2] * cells + (cells - 1) / 2
        for number, (x, y) in enumerate(places):
            hue = np.array([80 + 10 * number, 255 - 10 * number, 40 + 60 * (number % 4)])
            image[np.hypot(column - x, row - y) < 1.5] = hue
        encoded[at] = png(image)
    pictures = Pictures(square.astype(np.float32), encoded)
    return Record(clip.replace(observations=clip.observations.replace(pictures=pictures)), identity)


def png(image: np.ndarray) -> bytes:
    """An image's file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
