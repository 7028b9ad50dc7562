"""Lifting without 3D labels: calibrated views supervise one another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import cameras as cam
from pose3d_jax import losses, rigs
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, MethodError, Mode, Variables, view_seen
from pose3d_jax.methods.lifting import (
    SingleViewLifting,
    need_frames,
    need_one_joint_set,
    normalised_points,
    setting,
    shown,
)
from pose3d_jax.schema import Clip, Observations
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.triangulate import triangulate

_TERMS = ("self", "cross", "consistency", "pose", "symmetry", "motion", "bones", "smooth")
_OF_CAMERAS = ("rays", "calibration", "size")


@dataclasses.dataclass(frozen=True)
class MultiView(SingleViewLifting):
    """Each view's prediction is carried into every view.

    The method of "3D Pose Estimation Using 2D Supervision" (CMU 16-824 report), for any number of
    views.

    Terms: `self` and `cross` (distance of the reprojection from the view's own and from the other
    views' points, on the normalised plane, weighed by the target's confidence) and `consistency`
    (distance between the views' predictions in the world, metres, weighed by both confidences).
    One more is ours: `pose` is the reprojection error in all views of the pose alone, moved to
    where the views together see its root (DLT). In the others a root whose depth is centimetres off
    drowns what is wrong with the pose, since the gradient of a distance has the same length
    whatever the distance. `symmetry` is by how much left and right bones differ, metres, in each
    view that sees anything.

    Of several frames: `motion` is the error of `pose`'s reprojection from one frame to the next,
    `bones` by how much bones change their lengths, metres, `smooth` by how much joints, relative to
    the root, leave uniform motion, metres.

    With `cameras="learned"` each training recording's calibration is in doubt (`rigs.Doubt`), and
    its correction is learned beside the network, from these terms and three more: `rays`, the
    distance of what the views together see (DLT), reprojected, from the points of each,
    `calibration`, the mean square of the corrections in units of their standard deviations, and
    `size`, the square of how much farther the cameras are apart in units of `rigs.GROWTH`: the
    world keeps its size. The clock is that of the first view that sees anything; others are learned
    of examples of several frames, at whose ends a view with another clock sees nothing. What is
    predicted is of the cameras as given.
    """

    cameras: str = setting("given")  # or "learned"

    def __post_init__(self) -> None:
        """The 2D and 3D joint sets must be the same: reprojections are compared with keypoints.

        Raises `MethodError` otherwise, and for `cameras` that are neither.
        """
        super().__post_init__()
        need_one_joint_set(self.info, self._name)
        if self.cameras not in ("given", "learned"):
            raise MethodError(f"cameras are 'given' or 'learned', not {self.cameras!r}")

    @property
    def groups(self) -> tuple[Group, ...]:
        """See `Method.groups`."""
        if self.cameras == "given":
            return (Group("lifter", ("lifter",), _TERMS),)
        return (Group("lifter", ("lifter", "cameras"), (*_TERMS, *_OF_CAMERAS)),)

    @property
    def recorded(self) -> tuple[str, ...]:
        """See `base.recorded_of`."""
        return () if self.cameras == "given" else ("cameras",)

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`; and the corrections of the recordings' cameras, zeros."""
        variables = super().init(key, batch)
        if self.cameras == "given":
            return variables
        if not self.info.seeing:
            raise MethodError("cameras are learned of recordings, and there are none")
        table = jnp.zeros(self._deviations.shape)
        params = {**variables["params"], "cameras": {"corrections": table}}
        return {**variables, "params": params}

    def corrections(self, variables: Variables) -> Float[Array, "recordings views entries"]:
        """What was learned of the cameras of `info.recordings`; see `rigs`.

        Of clocks in frames at the rate of training.
        """
        return variables["params"]["cameras"]["corrections"] * self._deviations

    @property
    def _deviations(self) -> Float[np.ndarray, "recordings views entries"]:
        """Of the corrections; see `rigs.deviations`."""
        known = self.info
        return np.stack([rigs.deviations(known.doubt, np.array(x)) for x in known.seeing])

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()

    def terms(
        self,
        variables: Variables,
        batch: Batch,
        key: Key[Array, ""],
        step: Int[Array, ""],
        *,
        group: Group,
        mode: Mode,
    ) -> tuple[dict[str, Term], Aux]:
        """See `Method.terms`. Raises `MethodError` for fewer than two views."""
        if batch["main"].observations.confidence.shape[-2] < 2:
            raise MethodError(f"method {self._name} needs at least 2 views; the data has 1")
        need_frames(group, {"motion": 2, "bones": 2, "smooth": 3}, batch, self.context)
        learned: dict[str, Term] = {}
        if self.cameras == "learned":
            batch, learned = self._corrected(variables, batch)
        observations = batch["main"].observations
        joints, collections = self.lift(variables, shown(batch), key, mode)
        observations = self.lifted(observations)
        points = normalised_points(observations)
        over_frames = lambda function: jax.vmap(jax.vmap(function))  # noqa: E731

        terms = dict(learned)
        if {"self", "cross"} & set(group.terms):
            error = over_frames(losses.reprojection)(observations.cameras, joints, points)
            same, other, _ = pair_weights(observations)
            terms["self"] = losses.weighted_term(error, same)
            terms["cross"] = losses.weighted_term(error, other)
        if {"pose", "motion"} & set(group.terms):
            placed, found = at_seen_root(observations, joints, self.info.joint_skeleton.root)
            seen = over_frames(losses.projected)(observations.cameras, placed)
            wanted = jnp.broadcast_to(points[:, :, None], seen.shape)
            same, other, _ = pair_weights(observations)
            weight = (same + other) * found
            terms["pose"] = losses.weighted_term(losses.distance(seen, wanted), weight)
            steps = [x[:, 1:] - x[:, :-1] for x in (seen, wanted)]
            both = weight[:, 1:] * weight[:, :-1]
            terms["motion"] = losses.weighted_term(losses.distance(*steps), both)
        if "consistency" in group.terms:
            error = over_frames(losses.consistency)(observations.cameras, joints)
            terms["consistency"] = losses.weighted_term(error, pair_weights(observations)[2])
        if "symmetry" in group.terms:
            error = losses.asymmetry(joints, self.info.joint_skeleton)
            seen = jnp.broadcast_to(view_seen(observations.confidence)[..., None], error.shape)
            terms["symmetry"] = losses.weighted_term(error, seen)
        if {"bones", "smooth"} & set(group.terms):
            terms |= over_time(observations, joints, self.info.joint_skeleton)
        return {name: terms[name] for name in group.terms}, Aux(collections, {})

    def _corrected(
        self, variables: Variables, batch: Batch
    ) -> tuple[dict[str, Clip], dict[str, Term]]:
        """The main stream as its cameras, with what was learned of them, have seen it."""
        clip = batch["main"]
        own = self.corrections(variables)[clip.recording]
        if clip.observations.confidence.shape[1] == 1:
            own = own.at[..., rigs.TIME].set(0.0)
        changed = dict(batch)
        for name in {"main", "shown"} & {*batch}:
            seen = jax.vmap(rigs.apply)(batch[name].observations, own)
            changed[name] = dataclasses.replace(batch[name], observations=seen)
        observations = changed["main"].observations
        sees = jnp.asarray(self.info.seeing, jnp.float32)[clip.recording]
        grown = jax.vmap(rigs.grown)(observations.cameras, clip.observations.cameras, sees)
        squared = variables["params"]["cameras"]["corrections"][clip.recording] ** 2
        return changed, {
            "rays": rays(observations),
            "calibration": losses.weighted_term(squared, jnp.ones_like(squared)),
            "size": losses.weighted_term((grown / rigs.GROWTH) ** 2, jnp.ones_like(grown)),
        }


def rays(observations: Observations) -> Term:
    """How far what the views together see, triangulated, is from the points of each.

    Distances on the normalised plane, of joints that two views or more see.
    """
    points = normalised_points(observations)
    world, found = triangulate(observations)
    views = points.shape[2]
    in_views = cam.batched(cam.to_camera)(
        observations.cameras, jnp.repeat(world[:, :, None], views, axis=2)
    )
    seen = jnp.vectorize(cam.perspective, signature="(n)->(m)")(in_views)
    weight = observations.confidence * found[:, :, None]
    return losses.weighted_term(losses.distance(seen, points), weight)


def over_time(
    observations: Observations,
    joints: Float[Array, "batch time views joints 3"],
    skeleton: Skeleton,
) -> dict[str, Term]:
    """`bones` and `smooth`: what is known of motion without any label."""
    seen = view_seen(observations.confidence)
    world = cam.batched(cam.to_world)(observations.cameras, joints)
    relative = world - world[..., skeleton.root, None, :]
    changes = jax.vmap(lambda x, weight: losses.bone_changes(x, weight, skeleton))(relative, seen)
    turns = jax.vmap(losses.turns)(relative)
    three = seen[:, 2:] * seen[:, 1:-1] * seen[:, :-2]
    return {
        "bones": losses.weighted_term(changes, jnp.broadcast_to(seen[..., None], changes.shape)),
        "smooth": losses.weighted_term(turns, jnp.broadcast_to(three[..., None], turns.shape)),
    }


def at_seen_root(
    observations: Observations, joints: Float[Array, "batch time views joints 3"], root: int
) -> tuple[Float[Array, "batch time views joints 3"], Float[Array, "batch time 1 1 1"]]:
    """Each view's pose with its root where all views see it, and whether two or more do."""
    of_root = dataclasses.replace(
        observations,
        keypoints=observations.keypoints[..., root : root + 1, :],
        confidence=observations.confidence[..., root : root + 1],
    )
    point, found = triangulate(of_root)  # [B, T, 1, 3], [B, T, 1]
    views = joints.shape[2]
    in_views = cam.batched(cam.to_camera)(
        observations.cameras, jnp.repeat(point[:, :, None], views, axis=2)
    )
    relative = joints - joints[..., root : root + 1, :]
    return relative + in_views, found[..., None, None]


def pair_weights(
    observations: Observations,
) -> tuple[Float[Array, "batch time views views joints"], ...]:
    """Weights `[B, T, from, to, J]` of the self, cross and consistency errors.

    A view that sees nothing predicts nothing; a view that merely misses a joint is taught it by the
    others.
    """
    confidence = observations.confidence
    views = confidence.shape[-2]
    predicts = view_seen(confidence)[..., :, None, None]
    targets = predicts * confidence[..., None, :, :]
    diagonal = jnp.eye(views)[None, None, :, :, None]
    upper = jnp.triu(jnp.ones((views, views)), 1)[None, None, :, :, None]
    return (
        targets * diagonal,
        targets * (1 - diagonal),
        upper
        * (
            predicts
            * view_seen(confidence)[..., None, :, None]
            * (confidence[..., :, None, :] + confidence[..., None, :, :])
            / 2
        ),
    )
