"""How good bodies, their motion, their past and their future are: what `dynamics.py` prints.

Frames of a view that shows fewer than `FEWEST` keypoints are left out, as published, and so is what
has no label. Lengths are printed, so they are millimetres here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.spatial import cKDTree

from pose3d_jax import body as bodies
from pose3d_jax import cameras as cam
from pose3d_jax import metrics, smoothing
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.meshes import Bodies

FEWEST = 6  # keypoints of a view that counts
STRIDE = 10  # of the frames whose meshes are compared
MM = 1000.0


def enough(data: PoseData) -> Bool[np.ndarray, "frames views"]:
    """Which views of frames count."""
    return (np.asarray(data.poses.observations.confidence) > 0).sum(axis=-1) >= FEWEST


# -------------------------------------------------------------------------------- past and future


def beside(data: PoseData, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames that have others `step` before and after in their clip; those; these."""
    now = np.concatenate(
        [np.arange(clip.start + step, clip.stop - step) for clip in windows.clips(data.poses)]
    )
    return now, now - step, now + step


_aligned = jax.jit(jax.vmap(metrics.p_mpjpe))


def pa_mpjpe(
    predicted: Float[np.ndarray, "frames joints 3"],
    truth: Float[np.ndarray, "frames joints 3"],
    valid: Float[np.ndarray, "frames joints"],
) -> float:
    """Mean over the frames with any valid joint, mm."""
    there = np.any(valid > 0, axis=-1)
    return MM * float(np.mean(_aligned(predicted[there], truth[there], valid[there])))


def one_frame(
    bodies_: Bodies, data: PoseData, learnt: PoseData, step: int
) -> dict[str, dict[str, float]]:
    """By what says it, PA-MPJPE of the poses `step` frames before, now and after.

    `bodies_` are said of each frame by itself; `learnt` is the training split.
    """
    said, labels = bodies_.joints, data.poses.labels
    truth, valid = (np.asarray(x) for x in (labels.joints, labels.joints_valid))
    now, before, after = beside(data, step)
    found: dict[str, dict[str, float]] = {"hallucinator": {}, "constant": {}, "nearest": {}}
    nearest = nearest_of(data, learnt, now, step)
    frame, view = np.nonzero(enough(data)[now])
    for number, (name, then) in enumerate((("now", now), ("past", before), ("future", after))):
        wanted = truth[then[frame]], valid[then[frame]]
        of_now = said[0][now[frame], view]
        found["hallucinator"][name] = pa_mpjpe(said[number][now[frame], view], *wanted)
        found["constant"][name] = pa_mpjpe(of_now, *wanted)
        found["nearest"][name] = pa_mpjpe(nearest[name][frame], *wanted)
    return found


def nearest_of(
    data: PoseData, learnt: PoseData, now: np.ndarray, step: int
) -> dict[str, Float[np.ndarray, "frames joints 3"]]:
    """For frames of a split the nearest true pose in training, and what was around it there."""
    there, before, after = beside(learnt, step)
    skeleton = data.joint_skeleton
    known = np.asarray(learnt.poses.labels.joints)
    tree = cKDTree(_facing(known[there], skeleton).reshape(len(there), -1))
    wanted = _facing(np.asarray(data.poses.labels.joints)[now], skeleton)
    _, index = tree.query(wanted.reshape(len(now), -1))
    return {
        name: known[at[index]] for name, at in (("now", there), ("past", before), ("future", after))
    }


def _facing(joints: np.ndarray, skeleton: Any) -> np.ndarray:
    """World poses about their root, hips along x."""
    left, right = (skeleton.joints.index(f"{side}_hip") for side in ("left", "right"))
    about = joints - joints[:, skeleton.root : skeleton.root + 1]
    across = about[:, left] - about[:, right]
    angle = -np.arctan2(across[:, 1], across[:, 0])
    cos, sin, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 1 + 0 * angle
    turn = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)
    return np.einsum("fij,fnj->fni", turn, about)


# ---------------------------------------------------------------------------------------- the mesh


def mesh_errors(whole: bodies.Body, said: Bodies, data: PoseData) -> dict[str, float]:
    """Mean distance of vertices, mm, posed (about the root) and not, of every so many frames."""
    labels = data.poses.labels.body
    assert labels is not None
    known = enough(data) & (np.asarray(labels.valid) > 0)[:, None]
    frame, view = np.nonzero(known[::STRIDE])
    frame = frame * STRIDE
    turn = jax.jit(axis_angle_to_matrix)(jnp.asarray(labels.rotations))
    # The truth's root as the crop has it: a posed mesh is compared in the camera's axes.
    rotation = data.poses.observations.cameras.rotation
    to_crop = np.einsum("tvij,tvjk->tvik", said.turn, rotation)

    @jax.jit
    def distance(
        a: tuple[Array, Array], b: tuple[Array, Array]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        def both(turns: Array, shape: Array) -> tuple[Array, Array]:
            nowhere, still = jnp.zeros(3), jnp.broadcast_to(jnp.eye(3), turns.shape)
            posed, joints = bodies.pose(whole, turns, shape, nowhere)
            rest, own = bodies.pose(whole, still, shape, nowhere)
            return posed - joints[:1], rest - own[:1]

        found = [
            jnp.mean(jnp.linalg.norm(x - y, axis=-1))
            for x, y in zip(both(*a), both(*b), strict=True)
        ]
        return found[0], found[1]

    total = np.zeros(2)
    for t, v in zip(frame, view, strict=True):
        true_turns = turn[t].at[0].set(to_crop[t, v] @ turn[t, 0])
        predicted = (jnp.asarray(said.rotations[t, v]), jnp.asarray(said.shape[t, v]))
        total += [float(x) for x in distance(predicted, (true_turns, labels.shape[t]))]
    posed, unposed = MM * total / max(len(frame), 1)
    return {"posed": posed, "unposed": unposed}


# ----------------------------------------------------------------------------------------- filters


def smoothed(
    joints: Float[np.ndarray, "frames views joints 3"], data: PoseData, **settings: float
) -> Float[np.ndarray, "frames views joints 3"]:
    """Each clip of camera-frame poses about their root, filtered; the root is left out."""
    root = data.joint_skeleton.root
    about = joints - joints[..., root : root + 1, :]
    return np.concatenate(
        [
            smoothing.one_euro(
                about[clip.start : clip.stop], data.identities[clip.start].fps, **settings
            )
            for clip in windows.clips(data.poses)
        ]
    )


def now_of(joints: Float[np.ndarray, "frames views joints 3"], data: PoseData) -> dict[str, float]:
    """MPJPE, PA-MPJPE (mm) and acceleration error (m/s^2) of camera-frame poses."""
    labels, observations = data.poses.labels, data.poses.observations
    root, views = data.joint_skeleton.root, joints.shape[1]
    world = jnp.repeat(jnp.asarray(labels.joints)[:, None], views, axis=1)
    truth = np.asarray(jax.jit(cam.batched(cam.to_camera))(observations.cameras, world))
    truth, about = (x - x[..., root : root + 1, :] for x in (truth, np.asarray(joints)))
    valid = np.repeat(np.asarray(labels.joints_valid)[:, None], views, axis=1)
    known = valid * valid[..., root : root + 1] * enough(data)[..., None]
    off, counts = about - truth, known.any(axis=-1)
    return {
        "p1": MM * float(np.linalg.norm(off, axis=-1)[known > 0].mean()),
        "p2": pa_mpjpe(about[counts], truth[counts], known[counts]),
        "acceleration": _bends(off, known > 0, data, per_second=True),
    }


def in_2d(
    joints: Float[np.ndarray, "frames views joints 3"], data: PoseData, exact: PoseData
) -> dict[str, float]:
    """2D PCK@0.05, and the acceleration error in pixels per squared frame, of camera-frame poses.

    Against the points of the true joints, and, of a set without 3D, against the keypoints of
    `exact`: the split without the noise that `data` has. Raises `UserError` where nothing counts.
    """

    def pixels(camera: cam.Camera, point: Array) -> Array:
        return cam.to_pixels(camera, cam.perspective(point))

    observations, labels = data.poses.observations, data.poses.labels
    views = joints.shape[1]
    shown = jax.jit(cam.batched(pixels))
    points = np.asarray(shown(observations.cameras, jnp.asarray(joints)))
    known = np.repeat(np.asarray(labels.joints_valid)[:, None], views, axis=1)
    if known.any():
        world = jnp.repeat(jnp.asarray(labels.joints)[:, None], views, axis=1)
        truth = jax.jit(cam.batched(cam.to_camera))(observations.cameras, world)
        wanted = np.asarray(shown(observations.cameras, truth))
    else:
        names = data.keypoint_skeleton.joints
        index = [names.index(name) for name in data.joint_skeleton.joints]
        given = exact.poses.observations
        wanted = np.asarray(given.keypoints)[:, :, index]
        known = (np.asarray(given.confidence) > 0)[:, :, index].astype(np.float32)
    known = known * enough(data)[..., None]
    flat = lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:])  # noqa: E731
    share = jax.jit(jax.vmap(metrics.pck_2d))(flat(points), flat(wanted), flat(known))
    counts = known.reshape(len(share), -1).any(axis=1)
    if not counts.any():
        raise UserError(f"no frame of {data.identities[0].split} shows {FEWEST} keypoints")
    return {
        "pck_2d": float(np.asarray(share)[counts].mean()),
        "acceleration_px": _bends(points - wanted, known > 0, data),
    }


def _bends(
    off: Float[np.ndarray, "frames views joints axes"],
    known: Bool[np.ndarray, "frames views joints"],
    data: PoseData,
    *,
    per_second: bool = False,
) -> float:
    """Mean length of the second differences within clips, of what is known in all three frames.

    Per squared frame, or per squared second of each clip's rate.
    """
    total, count = 0.0, 0
    for clip in windows.clips(data.poses):
        own, there = off[clip.start : clip.stop], known[clip.start : clip.stop]
        all_three = there[2:] & there[1:-1] & there[:-2]
        rate = data.identities[clip.start].fps ** 2 if per_second else 1.0
        total += rate * np.linalg.norm(np.diff(own, n=2, axis=0), axis=-1)[all_three].sum()
        count += all_three.sum()
    return float(total / max(count, 1))
