"""Walkers: a small family of bodies, seen from all around by level cameras, far away.

What adversarial lifters assume holds of them exactly: every direction is as likely, vertical is the
image's, and knees bend forwards.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera
from pose3d_jax.schema import Clip, Labels, Observations
from pose3d_jax.skeleton import Skeleton

SIDES = ("right", "left")
WALKER = Skeleton(
    "walker8",
    ("pelvis", *(f"{side}_{part}" for side in SIDES for part in ("hip", "knee", "ankle")), "head"),
    (-1, 0, 1, 2, 0, 4, 5, 0),
    0,
)


def walkers(size: int, seed: int = 0) -> np.ndarray:
    """Joints `[size, 8, 3]`, metres, z up, about the pelvis; heading any way."""
    rng = np.random.default_rng(seed)
    joints = np.zeros((size, 8, 3))
    for side, first in ((1.0, 1), (-1.0, 4)):  # facing y, the right side is at x > 0
        # Neither is ever negative, so that foreshortening tells them.
        swing = rng.uniform(0.0, 0.8, size)
        bend = swing + rng.uniform(0.1, 0.8, size)
        joints[:, first] = [0.13 * side, 0.0, -0.05]
        knee = np.stack([np.zeros(size), np.sin(swing), -np.cos(swing)], -1)
        shin = np.stack([np.zeros(size), np.sin(swing - bend), -np.cos(swing - bend)], -1)
        joints[:, first + 1] = joints[:, first] + 0.4 * knee
        joints[:, first + 2] = joints[:, first + 1] + 0.4 * shin
    lean = rng.uniform(0.0, 0.4, size)
    joints[:, 7] = 0.6 * np.stack([np.zeros(size), np.sin(lean), np.cos(lean)], -1)
    heading = rng.uniform(-np.pi, np.pi, size)
    c, s, zero, one = np.cos(heading), np.sin(heading), np.zeros(size), np.ones(size)
    turn = np.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(size, 3, 3)
    return np.einsum("nij,nkj->nki", turn, joints).astype(np.float32)


_look_at, _project = jax.jit(cam.look_at), jax.jit(cam.batched(cam.project))


def filmed(joints: np.ndarray, distance: float = 8.0) -> Clip:
    """A clip `[size, 1, 1, ...]` of each pose, labelled."""
    rotation, translation = _look_at(
        jnp.array([0.0, -distance, 0.0]), jnp.zeros(3), jnp.array([0.0, 0.0, 1.0])
    )
    one = Camera(
        rotation=rotation,
        translation=translation,
        focal=jnp.ones(2),
        center=jnp.zeros(2),
        distortion=jnp.zeros(5),
        tangential=jnp.array(2.0),
        size=jnp.ones(2),
    )
    leading = (len(joints), 1, 1)
    cameras = jax.tree.map(lambda x: jnp.asarray(np.broadcast_to(x, (*leading, *x.shape))), one)
    world = jnp.asarray(joints)[:, None]
    points = _project(cameras, world[:, :, None])
    confidence = jnp.ones(points.shape[:-1])
    labels = Labels(world, jnp.ones(world.shape[:-1]))
    return Clip(Observations(points, confidence, cameras), labels, jnp.zeros(len(joints), int))
