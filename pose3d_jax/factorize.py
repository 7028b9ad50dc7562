"""Classical low-rank structure from motion: the 2D points of a split factorised into shapes and
cameras, with nothing learnt, and put on their rays.
"""

import numpy as np
from jaxtyping import Bool, Float

from pose3d_jax import cameras as cam
from pose3d_jax.nonrigid import nonrigid
from pose3d_jax.rigid import mean_seen
from pose3d_jax.schema import Observations

Array = np.ndarray

# On the plane z = 1, of a person at 4 m: that of models/rays.py, which lies above this file.
SPREAD = 0.13


def sign_of_depth(
    joints: Float[Array, "frames joints 3"],
    points: Float[Array, "frames joints 2"],
    visible: Bool[Array, "frames joints"],
    spread: Float[Array, "frames"],
) -> float:
    """1, or -1 where the joints fit better with depths of the other sign: perspective says which.

    What is nearer is larger, by a share of `spread` times its depth. A sequence of orthographic
    cameras alone has no sign.

    Args:
      joints: about a point on each camera's axis, in units of the points.
      points: of a pinhole camera, divided by `spread`.
      visible: which there are.
      spread: the unit of the points, on the plane z = 1: that of the joints is as many depths.
    """

    def error(sign: float) -> float:
        away = np.maximum(1 + sign * spread[:, None, None] * joints[..., 2:], 0.2)
        return float((visible[..., None] * (joints[..., :2] / away - points) ** 2).sum())

    return 1.0 if error(1.0) <= error(-1.0) else -1.0


def reconstruct(
    observations: Observations, *, shapes: int = 12, iterations: int = 60, root_depth: float = 4.0
) -> Float[Array, "frames views joints 3"]:
    """`nonrigid` of all frames and views `[frames, views, ...]` at once, as joints up to scale.

    In the axes of each view's camera, about metres for a person of usual size (`root_depth` away
    where the points spread as such a person's do). Each view by itself is turned to its points'
    mean and measured in their spread; which frame or view it is, is not used. Seen joints lie on
    their rays. The sign is what `sign_of_depth` says. Depths are scaled to be as large as what lies
    sideways in the images: people face every direction as often as any other, and low rank alone
    cannot tell great depths and small turns from small depths and great ones. (A camera on its side
    would break that.) A view with fewer than four points gets the mean of the others.

    Raises `FactorError` as `nonrigid` does.
    """
    confidence = np.asarray(observations.confidence)
    shape = confidence.shape
    rays = np.asarray(cam.batched(cam.normalise)(observations.cameras, observations.keypoints))
    rays = rays.reshape(-1, shape[-1], 2).astype(np.float64)
    visible = confidence.reshape(-1, shape[-1]) > 0
    enough = visible.sum(axis=1) >= 4
    chosen, seen = rays[enough], visible[enough]

    turn = _towards(mean_seen(chosen, seen.astype(np.float64))[:, 0])
    turned = np.einsum("fij,fnj->fni", turn, np.insert(chosen, 2, 1.0, axis=-1))
    points = turned[..., :2] / np.maximum(turned[..., 2:], 0.1)
    spread = np.sqrt((seen[..., None] * points**2).sum(axis=(1, 2)) / seen.sum(axis=1))
    points = points / spread[:, None, None]
    joints = nonrigid(points, seen, shapes=shapes, iterations=iterations).joints
    about = joints - joints.mean(axis=1, keepdims=True)
    depth = about[..., 2] * np.sqrt((about[..., 0] ** 2).mean() / (about[..., 2] ** 2).mean())
    joints[..., 2] = depth
    depth = sign_of_depth(joints, points, seen, spread) * depth
    away = np.maximum(1 + spread[:, None] * depth, 0.1)[..., None]
    # Low rank is fitted to perspective's points, and its modes take in much of perspective: what it
    # has of a joint that is not seen is taken for its point.
    plane = np.where(seen[..., None], points, joints[..., :2]) * spread[:, None, None]
    size = root_depth * SPREAD / spread[:, None, None]
    placed = size * away * np.insert(plane, 2, 1.0, axis=-1)
    back = np.einsum("fji,fnj->fni", turn, placed)
    whole = np.broadcast_to(back.mean(axis=0), (len(rays), *back.shape[1:])).copy()
    whole[enough] = back
    return whole.reshape(*shape, 3).astype(np.float32)


def _towards(point: Float[Array, "frames 2"]) -> Float[Array, "frames 3 3"]:
    """Rotations that bring the rays of points onto the optical axis, with x as level as it was."""
    ray = np.insert(point, 2, 1.0, axis=-1)
    z = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=1)
