"""Other cameras, bodies, postures, directions: training clips seen as they might have been.

What is changed is the 3D of a clip, or a camera; the 2D points follow by projection, each with the
error that it had. 3D is the stream's `labels.joints`: labels, or (`streams.*.joints`) what was
triangulated from its own 2D, so that nothing here needs a label.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.geometry import HIGHEST, axis_angle_to_matrix, matrix_to_axis_angle
from pose3d_jax.schema import BodyLabels, Clip
from pose3d_jax.skeleton import Skeleton


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far each clip may be changed; every number is the bound of a uniform draw, 0 is off.

    One draw per clip: all its frames and views change together, but for what says "each view".
    """

    turn: float = 0.0  # degrees about the vertical through the person; 180 = any direction
    flip: bool = False  # left for right, every second clip
    orbit: float = 0.0  # degrees, each view: the camera around the person, sideways
    elevation: float = 0.0  # degrees, each view: the camera around the person, up and down
    distance: float = 0.0  # each view: natural logarithm of the factor on its distance
    tilt: float = 0.0  # degrees, each view: the camera about its own axes
    stature: float = 0.0  # natural logarithm of the factor on all bones
    bones: float = 0.0  # of the factor on each bone, the same left and right
    bend: float = 0.0  # degrees about each world axis, each joint: it turns all that hangs on it
    missing: float = 0.0  # share of keypoints that go missing

    @property
    def moves(self) -> bool:
        """Whether anything is projected anew."""
        return any(getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "missing")

    @property
    def rebuilds(self) -> bool:
        """Whether bodies are put together anew, bone by bone."""
        return bool(self.stature or self.bones or self.bend)


def _turned(body: BodyLabels, turn: Float[Array, "3 3"]) -> BodyLabels:
    """Bodies of a clip that faces another way."""
    root = axis_angle_to_matrix(body.rotations[:, 0])
    root = jnp.einsum("ij,tjk->tik", turn, root, precision=HIGHEST)
    rotations = body.rotations.at[:, 0].set(matrix_to_axis_angle(root))
    return dataclasses.replace(body, rotations=rotations)


def augment(settings: Augmentation, skeleton: Skeleton, clip: Clip, key: Key[Array, ""]) -> Clip:
    """The clips `[B, T, ...]`, each changed by its own draw; keypoints and joints share `skeleton`.

    Keypoints of joints without 3D go missing where anything is projected anew.
    """
    move, drop = jax.random.split(key)
    if settings.moves:
        keys = jax.random.split(move, clip.recording.shape[0])
        change = jax.vmap(lambda clip, key: _move(settings, skeleton, clip, key))
        clip = change(clip, keys)
    if settings.missing:
        observations = clip.observations
        kept = jax.random.bernoulli(drop, 1 - settings.missing, observations.confidence.shape)
        observations = dataclasses.replace(
            observations,
            confidence=jnp.where(kept, observations.confidence, 0.0),
            keypoints=jnp.where(kept[..., None], observations.keypoints, 0.0),
        )
        clip = dataclasses.replace(clip, observations=observations)
    return clip


def _move(settings: Augmentation, skeleton: Skeleton, clip: Clip, key: Key[Array, ""]) -> Clip:
    """One clip `[T, ...]` with its body, direction and cameras changed."""
    turn_key, flip_key, body_key, camera_key = jax.random.split(key, 4)
    observations, labels = clip.observations, clip.labels
    if labels.body is not None and (settings.rebuilds or settings.flip):
        raise UserError(
            "the clips have bodies, which flip, stature, bones and bend would leave behind; leave "
            "them out of the phase's augmentation"
        )
    views = observations.confidence.shape[1]
    valid = labels.joints_valid
    if settings.rebuilds:
        # A joint stands where its bones from the root put it: all of them must be known.
        unknown = jnp.matmul(1 - valid, _chains(skeleton).T, precision=HIGHEST)
        valid = jnp.where(unknown > 0, 0.0, valid)
    seen = jnp.where(valid[:, None] > 0, observations.confidence, 0.0)
    # The error of each point, which its new place inherits.
    error = observations.keypoints - _projected(observations.cameras, labels.joints)

    joints = labels.joints
    if settings.rebuilds:
        joints = _rebuilt(settings, skeleton, joints, valid, body_key)
    centre = _centre(joints[:, skeleton.root], valid[:, skeleton.root])
    angle = _uniform(turn_key, settings.turn) * (jnp.pi / 180)
    turn = axis_angle_to_matrix(jnp.zeros(3).at[2].set(angle))
    relative = joints - centre[None, None]
    if settings.flip:
        flipped = jax.random.bernoulli(flip_key)
        order = np.array(skeleton.mirrored)
        mirrored = relative[:, order] * jnp.array([-1.0, 1.0, 1.0])[None, None]
        relative = jnp.where(flipped, mirrored, relative)
        valid = jnp.where(flipped, valid[:, order], valid)
        seen = jnp.where(flipped, seen[:, :, order], seen)
        error = jnp.where(flipped, error[:, :, order], error)
    joints = jnp.einsum("ij,tnj->tni", turn, relative, precision=HIGHEST) + centre[None, None]

    orbit = jax.vmap(lambda camera, key: _orbited(settings, camera, centre, key), in_axes=(1, 0))
    cameras = orbit(observations.cameras, jax.random.split(camera_key, views))
    cameras = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), cameras)

    seen = jnp.where(_depth(cameras, joints) >= cam.MIN_DEPTH, seen, 0.0)
    keypoints = jnp.where(seen[..., None] > 0, _projected(cameras, joints) + error, 0.0)
    return dataclasses.replace(
        clip,
        observations=dataclasses.replace(
            observations, keypoints=keypoints, confidence=seen, cameras=cameras
        ),
        labels=dataclasses.replace(
            labels,
            joints=jnp.where(valid[..., None] > 0, joints, 0.0),
            joints_valid=valid,
            body=None if labels.body is None else _turned(labels.body, turn),
        ),
    )


def _rebuilt(
    settings: Augmentation,
    skeleton: Skeleton,
    joints: Float[Array, "time joints 3"],
    valid: Float[Array, "time joints"],
    key: Key[Array, ""],
) -> Float[Array, "time joints 3"]:
    """Another body in another posture, the lowest joint as high: bones resized and turned.

    What Gong et al., "PoseAug: A Differentiable Pose Augmentation Framework for 3D Human Pose
    Estimation" (CVPR 2021) learn to do, drawn at random.
    """
    stature_key, bones_key, bend_key = jax.random.split(key, 3)
    parents, children = np.array(skeleton.bones).T
    # A bone and its counterpart share a factor: that of the one that comes first.
    pair = np.minimum(np.arange(skeleton.size), skeleton.mirrored)[children]
    drawn = _uniform(bones_key, settings.bones, (skeleton.size,))[pair]
    factor = jnp.exp(drawn + _uniform(stature_key, settings.stature))
    bones = (joints[:, children] - joints[:, parents]) * factor[None, :, None]
    if settings.bend:
        radians = settings.bend * (jnp.pi / 180)
        turns = _composed(skeleton, _uniform(bend_key, radians, (skeleton.size, 3)))[parents]
        bones = jnp.einsum("bij,tbj->tbi", turns, bones, precision=HIGHEST)
    chains = _chains(skeleton)[:, children]
    rebuilt = joints[:, skeleton.root, None] + jnp.einsum(
        "jb,tbi->tji", chains, bones, precision=HIGHEST
    )
    lowest = [jnp.min(jnp.where(valid > 0, z, jnp.inf)) for z in (joints[..., 2], rebuilt[..., 2])]
    lift = jnp.where(valid.any(), lowest[0] - lowest[1], 0.0)
    return rebuilt + jnp.zeros(3).at[2].set(lift)[None, None]


def _composed(skeleton: Skeleton, own: Float[Array, "joints 3"]) -> Float[Array, "joints 3 3"]:
    """How the bones that leave each joint are turned: by its own axis-angle, and all before it."""
    turns = list(jax.vmap(axis_angle_to_matrix)(own))
    from_root_outwards = np.argsort(_chains(skeleton).sum(axis=1))
    for child in from_root_outwards[1:]:
        turns[child] = jnp.matmul(turns[skeleton.parents[child]], turns[child], precision=HIGHEST)
    return jnp.stack(turns)


def _chains(skeleton: Skeleton) -> np.ndarray:
    """`[joint, joint]`: 1 where the second lies on the way from the root to the first, ends too."""
    chains = np.zeros((skeleton.size, skeleton.size), np.float32)
    for joint in range(skeleton.size):
        ancestor = joint
        while ancestor >= 0:
            chains[joint, ancestor] = 1
            ancestor = skeleton.parents[ancestor]
    return chains


def _orbited(
    settings: Augmentation, camera: Camera, centre: Float[Array, "3"], key: Key[Array, ""]
) -> Camera:
    """The camera `[T]` moved around `centre`, nearer or farther, and tilted about its own axes."""
    orbit_key, elevation_key, distance_key, tilt_key = jax.random.split(key, 4)
    radians = jnp.pi / 180
    position = -jnp.einsum("tji,tj->ti", camera.rotation, camera.translation, precision=HIGHEST)
    forward = jnp.mean(camera.rotation[:, 2], axis=0)
    # Level, and across the direction in which the camera looks.
    across = jnp.stack([forward[1], -forward[0], jnp.zeros(())])
    across = across / jnp.maximum(jnp.linalg.norm(across), 1e-6)
    vertical = jnp.zeros(3).at[2].set(_uniform(orbit_key, settings.orbit) * radians)
    around = jnp.matmul(
        axis_angle_to_matrix(vertical),
        axis_angle_to_matrix(across * _uniform(elevation_key, settings.elevation) * radians),
        precision=HIGHEST,
    )
    tilt = axis_angle_to_matrix(_uniform(tilt_key, settings.tilt, (3,)) * radians)
    factor = jnp.exp(_uniform(distance_key, settings.distance))
    rotation = jnp.einsum("ij,tjk,lk->til", tilt, camera.rotation, around, precision=HIGHEST)
    moved = jnp.einsum("ij,tj->ti", around, position - centre[None], precision=HIGHEST)
    moved = centre[None] + factor * moved
    translation = -jnp.einsum("tij,tj->ti", rotation, moved, precision=HIGHEST)
    return dataclasses.replace(camera, rotation=rotation, translation=translation)


def _projected(
    cameras: Camera, joints: Float[Array, "time joints 3"]
) -> Float[Array, "time views joints 2"]:
    views = cameras.tangential.shape[1]
    return cam.batched(cam.project)(cameras, jnp.repeat(joints[:, None], views, axis=1))


def _depth(
    cameras: Camera, joints: Float[Array, "time joints 3"]
) -> Float[Array, "time views joints"]:
    views = cameras.tangential.shape[1]
    return cam.batched(cam.to_camera)(cameras, jnp.repeat(joints[:, None], views, axis=1))[..., 2]


def _centre(root: Float[Array, "time 3"], valid: Float[Array, "time"]) -> Float[Array, "3"]:
    """Mean place of the root over the frames that have one."""
    return jnp.sum(root * valid[:, None], axis=0) / jnp.maximum(jnp.sum(valid), 1.0)


def _uniform(key: Key[Array, ""], bound: float, shape: tuple[int, ...] = ()) -> Array:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
