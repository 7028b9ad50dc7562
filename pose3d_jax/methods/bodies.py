"""A body that was said, what there is to compare it with, and the comparison.

What methods of bodies share; in the axes of the camera turned to the person (`models/crop.py`).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax import cameras as cam
from pose3d_jax import losses
from pose3d_jax.body import Body
from pose3d_jax.cameras import Leaf
from pose3d_jax.geometry import HIGHEST, axis_angle_to_matrix, safe_norm, scale_and_shift
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Batch, MethodError
from pose3d_jax.methods.lifting import normalised_points, shown
from pose3d_jax.methods.monocular import to_rows, to_views
from pose3d_jax.models.crop import Crop
from pose3d_jax.schema import BodyLabels, Clip, Observations

# Streams to learn from: with 3D, annotated in 2D, and what a detector made of anything.
TIERS = ("main", "annotated", "pseudo")
_LEAST_SCALE = 0.05  # of a camera: a person is at most so far away


@struct.dataclass
class Said:
    """What is said of frames, in the axes of the cameras turned to the person; metres."""

    camera: Leaf  # [*frames, 3] scale and shift of the root-relative joints on the crop
    rotations: Leaf  # [*frames, parts, 3, 3]
    shape: Leaf  # [*frames, components]
    joints: Leaf  # [*frames, joints, 3] about the root


class Target(NamedTuple):
    """What there is to compare with, in the same axes; of the frames of a batch with context."""

    points: Float[Array, "rows time joints 2"]  # on the crop
    visible: Float[Array, "rows time joints"]
    joints: Float[Array, "rows time joints 3"]  # about the root
    joints_valid: Float[Array, "rows time joints"]
    rotations: Float[Array, "rows time parts 3 3"]
    shape: Float[Array, "rows time components"]
    body_valid: Float[Array, "rows time"]

    @property
    def there(self) -> Float[Array, "rows time"]:
        """1 where anything is seen: neither padding nor a blank frame."""
        return (self.visible.max(axis=-1) > 0).astype(jnp.float32)

    def at(self, first: int, frames: int) -> "Target":
        """So many frames from the first on."""
        return Target(*(x[:, first : first + frames] for x in self))


def target_of(clip: Clip, area: Crop, root: int) -> Target:
    """The labels and points of all frames, context among them, as the crop has them.

    `root`: index of the root joint, about which joints are.
    """
    observations, labels, body = clip.observations, clip.labels, clip.labels.body
    assert body is not None  # see `with_body`
    views = observations.confidence.shape[2]

    def in_views(x: Float[Array, "batch time *rest"]) -> Float[Array, "batch time V *rest"]:
        return jnp.repeat(x[:, :, None], views, axis=2)

    cameras = observations.cameras
    joints = cam.batched(cam.to_camera)(cameras, in_views(labels.joints))
    joints = jnp.einsum("...ij,...nj->...ni", area.turn, joints, precision=HIGHEST)
    valid = in_views(labels.joints_valid)
    turns = in_views(axis_angle_to_matrix(body.rotations))
    to_crop = jnp.einsum("...ij,...jk->...ik", area.turn, cameras.rotation, precision=HIGHEST)
    first = jnp.einsum("...ij,...jk->...ik", to_crop, turns[..., 0, :, :], precision=HIGHEST)
    target = Target(
        points=area.place(normalised_points(observations)),
        visible=observations.confidence,
        joints=joints - joints[..., root : root + 1, :],
        joints_valid=valid * valid[..., root : root + 1],
        rotations=turns.at[..., 0, :, :].set(first),
        shape=in_views(body.shape),
        body_valid=in_views(body.valid),
    )
    return Target(*(to_rows(x) for x in target))


def compared(said: Said, target: Target) -> dict[str, Term]:
    """`keypoints` on the crop, and what `_in_3d` says."""
    projected = said.camera[..., None, :1] * said.joints[..., :2] + said.camera[..., None, 1:]
    away = jnp.sum(jnp.abs(projected - target.points), axis=-1)
    return {
        "keypoints": losses.weighted_term(away, target.visible),
        **_in_3d(said, target),
    }


def _in_3d(said: Said, target: Target) -> dict[str, Term]:
    """`joints` about the root, and `parameters`: squares."""
    off = jnp.sum((said.joints - target.joints) ** 2, axis=-1)
    turned = jnp.mean((said.rotations - target.rotations) ** 2, axis=(-1, -2, -3))
    shaped = jnp.mean((said.shape - target.shape) ** 2, axis=-1)
    return {
        "joints": losses.weighted_term(off, target.joints_valid),
        "parameters": losses.weighted_term(turned + shaped, target.body_valid),
    }


def compared_around(
    said: Said, target: Target, first: int, frames: int, steps: tuple[int, int]
) -> dict[str, Term]:
    """Terms of poses `[2, rows, time, ...]`, each against its own frames.

    These are `frames` from `first` on, moved by each of `steps`; cameras are the best there are.
    """
    nothing = (jnp.zeros(()), jnp.zeros(()))
    found: dict[str, Term] = {}
    for number, away in enumerate(steps):
        one = pick(said, number)
        then = target.at(first + away, frames)
        flat = one.joints[..., :2]
        fit = jax.vmap(jax.vmap(scale_and_shift))
        scale, shift = jax.lax.stop_gradient(fit(flat, then.points, then.visible))
        projected = scale[..., None, None] * flat + shift[..., None, :]
        off = jnp.sum(jnp.abs(projected - then.points), axis=-1)
        terms = {
            "keypoints": losses.weighted_term(off, then.visible),
            **_in_3d(one, then),
        }
        for name, (total, count) in terms.items():
            key = f"{name}_around"
            before = found.get(key, nothing)
            found[key] = (before[0] + total, before[1] + count)
    return found


def jolted(said: Said, target: Target) -> Term:
    """Distance of the joints' accelerations, about the root, metres per squared frame."""
    off = said.joints - target.joints
    valid = target.joints_valid
    bend = off[:, 2:] - 2 * off[:, 1:-1] + off[:, :-2]
    return losses.weighted_term(safe_norm(bend), valid[:, 2:] * valid[:, 1:-1] * valid[:, :-2])


Judge = Callable[[Array, Array], Array]  # rotations and shapes to a number a critic


def fooled(judge: Judge, said: Said, there: Float[Array, "rows time"]) -> Term:
    """How far critics are from taking what is said for a body of the labels: see `critic_terms`."""
    judged = judge(said.rotations, said.shape)
    return losses.weighted_term((judged - 1.0) ** 2, _for_each(judged, there))


def critic_terms(judge: Judge, said: Said, target: Target) -> dict[str, Term]:
    """Least squares (Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017):
    1 for bodies of the labels, 0 for those that are said."""
    said = jax.lax.stop_gradient(said)
    fake = judge(said.rotations, said.shape)
    real = judge(target.rotations, target.shape)
    return {
        "fake": losses.weighted_term(fake**2, _for_each(fake, target.there)),
        "real": losses.weighted_term((real - 1.0) ** 2, _for_each(real, target.body_valid)),
    }


def _for_each(
    judged: Float[Array, "*frames critics"], weight: Float[Array, "rows time"]
) -> Float[Array, "*frames critics"]:
    return jnp.broadcast_to(weight[..., None], judged.shape)


def placed(said: Said, area: Crop) -> Float[Array, "batch time views joints 3"]:
    """Camera-frame joints, metres, of what is said of the frames that a crop is of."""
    views = area.turn.shape[2]
    camera, joints = to_views(said.camera, views), to_views(said.joints, views)
    scale = jnp.maximum(camera[..., :1], _LEAST_SCALE)
    depth = 1.0 / (scale * area.spread)
    root = jnp.concatenate([camera[..., 1:] * area.spread * depth, depth], axis=-1)
    joints = joints + root[..., None, :]
    return jnp.einsum("...ji,...nj->...ni", area.turn, joints, precision=HIGHEST)


def distance(said: Said, target: Target) -> Term:
    """Mean distance of joints about the root, metres."""
    away = losses.distance(said.joints, target.joints)
    return losses.weighted_term(away, target.joints_valid)


def present_tiers(batch: Batch) -> list[str]:
    """The tiers that a batch has."""
    return [name for name in TIERS if name in batch]


def tiers(batch: Batch, body: Body, path: str) -> tuple[Observations, Clip]:
    """What networks are shown of all tiers, and what it is compared with, clip after clip.

    Each view is a clip of its own: tiers may have other numbers of them. Raises `MethodError` where
    the stream `main` has no bodies, or others than `body`, which is of the file `path`.
    """
    labels = batch["main"].labels.body
    if labels is None:
        raise MethodError(
            "method dynamics learns from bodies, and the data of the stream main has none; "
            "prepare such as data_prep.body_cmu does"
        )
    parts, components = labels.rotations.shape[2], labels.shape.shape[2]
    if (parts, components) != (body.size, body.components):
        raise MethodError(
            f"method dynamics: the data's bodies have {parts} parts and {components} shapes, "
            f"{path} {body.size} and {body.components}; prepare the data with it"
        )
    clips = {name: with_body(batch[name], labels) for name in present_tiers(batch)}
    seen = {**clips, "main": dataclasses.replace(clips["main"], observations=shown(batch))}
    joined = lambda *parts: jnp.concatenate(parts)  # noqa: E731
    shown_, clip = (
        jax.tree.map(joined, *[single_views(clip) for clip in of.values()]) for of in (seen, clips)
    )
    return shown_.observations, clip


def with_body(clip: Clip, like: BodyLabels) -> Clip:
    """The clip with labels of a body, blank ones where it has none."""
    if clip.labels.body is not None:
        return clip
    time = clip.labels.joints.shape[:2]
    blank = jax.tree.map(lambda x: jnp.zeros((*time, *x.shape[2:])), like)
    return dataclasses.replace(clip, labels=dataclasses.replace(clip.labels, body=blank))


def single_views(clip: Clip) -> Clip:
    """A clip `[B, T, V, ...]` for each view: `[B V, T, 1, ...]`."""
    views = clip.observations.confidence.shape[2]
    alone = lambda x: to_rows(x)[:, :, None]  # noqa: E731
    again = lambda x: jnp.repeat(x, views, axis=0)  # noqa: E731
    return Clip(
        jax.tree.map(alone, clip.observations),
        jax.tree.map(again, clip.labels),
        again(clip.recording),
    )


def unlike(
    shape: Float[Array, "rows time components"], there: Float[Array, "rows time"]
) -> Float[Array, "rows time"]:
    """Squared distance of each frame's shape from the mean of its clip's, per component."""
    share = there / jnp.maximum(jnp.sum(there, axis=1, keepdims=True), 1.0)
    mean = jnp.sum(share[..., None] * shape, axis=1, keepdims=True)
    return jnp.mean((shape - mean) ** 2, axis=-1)


def pick(said: Said, number: int) -> Said:
    """One of several, along the first axis."""
    return jax.tree.map(lambda x: x[number], said)
