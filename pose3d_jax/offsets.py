"""Poses adapted to what all views of a clip see: an offset of every frame's joints, second order.

Of several views a lifter says several poses. Put together they are what is believed of a pose
beforehand, weighted by how far the lifter errs; the keypoints of all views, distances that do not
change and quiet motion say the rest. What is most probable is found by `trajectory.fit`, beginning
with triangulation where it knows, and with the lifter where it does not. No labels are needed:
`fitting.measure` reads the distances and the lifter's errors from its training poses, which may be
triangulated.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose3d_jax import cameras as cam
from pose3d_jax import pieces, posterior, references, trajectory
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.fitting import Body, FitError
from pose3d_jax.references import Estimate
from pose3d_jax.schema import Observations, Prediction
from pose3d_jax.skeleton import Skeleton

# Laplace's approximation knows one solution, and takes the priors for true; so it says too little
# where little is known. A joint's covariance is raised by 1 + (its deviation / this)^2, metres:
# chosen on CMU-MV's validation split, one number for all noise and any number of views.
_SURE = 0.013
_MOST = 100.0


class Settings(NamedTuple):
    """See `config.adaptation`."""

    doubt: float = 6.0  # standard deviation of the lifter's errors, in its mean errors in training
    alike: float = 1 / 3  # seconds over which they are much the same
    chunk: int = 0  # pieces of clips at once; 0: as many as are of use
    steps: int = trajectory.STEPS


def adapt_split(
    data: PoseData, predicted: Prediction, body: Body, settings: Settings
) -> tuple[Prediction, Estimate]:
    """A split's predictions, joints `[frames, V, J, 3]`, adapted clip by clip; and in the world.

    Raises `FitError` as `check` does, and `references.RowError` for fewer than two views.
    """
    check(data.keypoint_skeleton, data.joint_skeleton, predicted.space)
    observations = jax.tree.map(np.asarray, data.poses.observations)
    lifted = np.asarray(predicted.joints)
    cuts = [slice(clip.start, clip.stop) for clip in windows.clips(data.poses)]
    found = adapt_clips(
        [jax.tree.map(lambda x, at=at: x[at], observations) for at in cuts],
        [lifted[at] for at in cuts],
        [identity.fps for identity in windows.identities(data)],
        body,
        data.joint_skeleton,
        settings,
    )
    parts = list(found)
    world: Estimate = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    cameras = data.poses.observations.cameras
    joints = jnp.broadcast_to(world.joints[:, None], lifted.shape)
    return dataclasses.replace(predicted, joints=np.asarray(_to_camera(cameras, joints))), world


def check(keypoints: Skeleton, joints: Skeleton, space: str) -> None:
    """Raises `FitError` where joints cannot be compared with keypoints.

    Because they are not of one joint set, or are not where people are in space.
    """
    if keypoints != joints:
        raise FitError(
            f"joints are compared with keypoints, but they are of {joints.name} and the keypoints "
            f"of {keypoints.name}; set data.joint_skeleton to {keypoints.name}"
        )
    if space != "absolute":
        raise FitError(
            f"joints are compared with keypoints where they are in space, but those that the "
            f"method predicts are {space}; take a method that predicts absolute ones"
        )


_to_camera = jax.jit(cam.batched(cam.to_camera))


def adapt_clips(
    clips: Sequence[Observations],
    lifted: Sequence[Float[np.ndarray, "_ views joints 3"]],
    fps: Sequence[float],
    body: Body,
    skeleton: Skeleton,
    settings: Settings,
) -> Iterator[Estimate]:
    """World joints of each of several clips with the same views; see `adapt_split`.

    `lifted` are what the lifter says of each clip, in camera frames. All pieces of clips run in one
    compiled program, `settings.chunk` of them at a time.
    """
    references.check(clips, skeleton, ())

    def told(i: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each frame, too, how much what is said of it weighs: errors last for some frames."""
        frames = max(1.0, settings.alike * fps[i])
        weight = np.full(len(lifted[i]), 1 / (settings.doubt**2 * frames), np.float32)
        return np.asarray(lifted[i], np.float32), weight

    solver = functools.partial(_solve, body=body, skeleton=skeleton, steps=settings.steps)
    more = [told(i) for i in range(len(clips))]
    return (
        found["adapted"]
        for found in pieces.solve(
            clips, more, solver, references.PIECE, references.OVERLAP, settings.chunk
        )
    )


@functools.partial(jax.jit, static_argnames=("skeleton", "steps"))
def _solve(
    observations: Observations,
    more: Any,
    inside: Float[Array, "pieces time"],
    *,
    body: Body,
    skeleton: Skeleton,
    steps: int,
) -> dict[str, Estimate]:
    def one(observations: Observations, more: Any, inside: Array) -> Estimate:
        lifted, weight = more
        return adapted(
            observations, lifted, weight, inside, body=body, skeleton=skeleton, steps=steps
        )

    return {"adapted": jax.vmap(one)(observations, more, inside)}


def adapted(
    observations: Observations,
    lifted: Float[Array, "time views joints 3"],
    weight: Float[Array, "time"],
    inside: Float[Array, "time"],
    *,
    body: Body,
    skeleton: Skeleton,
    steps: int = trajectory.STEPS,
) -> Estimate:
    """One piece's world joints; frames where `inside` is 0 pad it.

    `weight`: of what is said of each frame, on the precisions that `body.error` gives.
    """
    refined, model = references.clip_model(observations, inside, skeleton)
    belief = believed(observations, lifted, inside * weight, body, skeleton.root)
    # Where geometry knows nothing it begins with what is believed, about the root that it knows or
    # has bridged; but where one view is left for long a bridge leads nowhere.
    root = slice(skeleton.root, skeleton.root + 1)
    several = (observations.confidence > 0).any(axis=-1).sum(axis=-1) >= 2
    shift = refined.joints[:, root] - belief.joints[:, root]
    shift = jnp.where(several[:, None, None], shift, 0.0)
    nothing = (refined.found == 0) & (belief.precision > 0)
    start = jnp.where(nothing[..., None], belief.joints + shift, refined.joints)
    model = dataclasses.replace(
        model, start=start, bones=body.pairs, bone=body.spread, belief=belief
    )
    joints, covariance = trajectory.fit(model, steps)
    variance = jnp.trace(covariance, axis1=-2, axis2=-1) / 3
    raised = 1 + jnp.minimum(variance / _SURE**2, _MOST)
    return Estimate(joints, refined.found, raised[..., None, None] * covariance)


def believed(
    observations: Observations,
    lifted: Float[Array, "time views joints 3"],
    weight: Float[Array, "time"],
    body: Body,
    root: int,
) -> posterior.Belief:
    """What the lifter says of all views together: the means of their roots, and about them.

    A view that sees nothing of a frame says nothing of it. What is said of the root's place counts
    where one view is left; beside what several see of it, it weighs nothing.
    """
    world = cam.batched(cam.to_world)(observations.cameras, lifted)
    about = world - world[:, :, root, None]
    said = about.at[:, :, root].set(world[:, :, root])
    seeing = (observations.confidence > 0).any(axis=-1)
    views = weight[:, None] * seeing
    total = jnp.sum(views, axis=1)
    mean = jnp.sum(views[..., None, None] * said, axis=1)
    mean = mean / jnp.maximum(total, 1e-9)[:, None, None]
    joints = (mean + mean[:, root, None]).at[:, root].set(mean[:, root])
    return posterior.Belief(joints, total[:, None] / body.error[None] ** 2, root)
