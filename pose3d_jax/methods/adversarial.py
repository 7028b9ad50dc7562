"""Lifting from 2D poses of single views alone: what was lifted, turned and seen anew must look like
the data. What adversarial methods share, and the first of them, Kudo et al. 2018."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import losses
from pose3d_jax.collapse import relief
from pose3d_jax.geometry import HIGHEST, axis_angle_to_matrix, safe_divide, safe_norm
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, MethodError, Mode, Variables
from pose3d_jax.methods.lifting import normalised_points, setting, shown
from pose3d_jax.methods.monocular import Monocular, seen_from_here, turned
from pose3d_jax.models import rays
from pose3d_jax.models.critic import Critic, Regressor
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Observations, Prediction
from pose3d_jax.skeleton import Skeleton

_BEND = 0.1  # of the leg's length: how far a knee leaves the line from hip to ankle, about


@dataclasses.dataclass(frozen=True)
class Turning(Monocular):
    """A lifter of depths, and a critic of 2D poses for what it lifted, when seen from elsewhere.

    Only the depths of seen joints are said, and the places of the others; what is lifted of
    disturbed points is held against the undisturbed ones. The root is as far away as a person of a
    usual size would be. Vertical is the y axis of the camera turned to the root, tilted by one
    learned angle for all views, since cameras mostly look down a little: no rig is known, and no
    view's own tilt. Half of the images are mirrored in training.
    """

    critic_width: int = setting(256, least=4, below=100_000)
    elevation: float = setting(0.0, least=0, below=90)  # degrees, of views from elsewhere, at most

    @property
    def lifter(self) -> Regressor:
        """Says three numbers of each joint: see `rays.place_on_rays`."""
        return Regressor(3 * self.info.joint_skeleton.size, self.width, self.blocks, self.dtype)

    @property
    def critic(self) -> Critic:
        """Of 2D poses in sizes of their own."""
        return Critic(self.critic_width, self.blocks, self.dtype)

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        sight = self.see(batch["main"].observations)
        lifter_key, critic_key = jax.random.split(key)
        lifter = self.lifter.init(lifter_key, told(sight))["params"]
        critic = self.critic.init(critic_key, pictured(sight))["params"]
        vertical = {"tilt": jnp.zeros(())}  # radians
        return {"params": {"lifter": lifter, "vertical": vertical, "critic": critic}}

    def lift(self, variables: Variables, sight: rays.Sight) -> Float[Array, "*views joints 3"]:
        """Joints in the frame of the camera turned to the root, metres."""
        raw: Any = self.lifter.apply({"params": variables["params"]["lifter"]}, told(sight))
        raw = raw.reshape(*raw.shape[:-1], -1, 3)
        return self.place(raw, dataclasses.replace(sight, turn=None), depth_known=True)

    def turns(
        self, variables: Variables, shape: tuple[int, ...], key: Key[Array, ""]
    ) -> Float[Array, "*shape 3 3"]:
        """Rotations by any angle about the vertical, then by `elevation` at most about x."""
        tilt = variables["params"]["vertical"]["tilt"]
        azimuth_key, elevation_key = jax.random.split(key)
        azimuth = jax.random.uniform(azimuth_key, (*shape, 1), minval=-np.pi, maxval=np.pi)
        most = np.radians(self.elevation)
        up = jax.random.uniform(elevation_key, (*shape, 1), minval=-most, maxval=most)
        vertical = jnp.stack([jnp.zeros(()), jnp.cos(tilt), jnp.sin(tilt)])
        across = jnp.array([1.0, 0.0, 0.0])
        return jnp.matmul(
            axis_angle_to_matrix(up * jnp.broadcast_to(across, (*shape, 3))),
            axis_angle_to_matrix(azimuth * jnp.broadcast_to(vertical, (*shape, 3))),
            precision=HIGHEST,
        )

    def mirrored(self, batch: Batch, key: Key[Array, ""]) -> tuple[rays.Sight, rays.Sight]:
        """Half of the views mirrored: what the lifter is shown, and what there is to see.

        The latter is the undisturbed stream's, of views of which the lifter is shown anything.
        """
        skeleton = self.info.keypoint_skeleton
        sight = self.look(*mirrored_views(shown(batch), skeleton, key))
        if "shown" not in batch:
            return sight, sight
        points, confidence = mirrored_views(batch["main"].observations, skeleton, key)
        return sight, self.look(points, confidence * sight.seen[..., None])

    def again(
        self, joints: Float[Array, "*views joints 3"], visible: Float[Array, "*views joints"]
    ) -> rays.Sight:
        """What is seen of joints, as far as `visible` says: that of what there was to see.

        Joints that were hidden from the lifter are seen, so that it learns where they are.
        """
        return self.look(seen_from_here(joints), visible)

    def judge(
        self, variables: Variables, name: str = "critic"
    ) -> Callable[[Float[Array, "*rows features"]], Float[Array, "*rows"]]:
        """The critic of that name."""

        def critic(x: Float[Array, "*rows features"]) -> Float[Array, "*rows"]:
            found: Any = self.critic.apply({"params": variables["params"][name]}, x)
            return found

        return critic

    def diagnostics(
        self, variables: Variables, joints: Float[Array, "*views joints 3"], sight: rays.Sight
    ) -> dict[str, Term]:
        """`relief` (see collapse.py) and `tilt` (radians) of what was lifted."""
        tilt = variables["params"]["vertical"]["tilt"]
        return {
            "relief": relief(joints, sight.seen, self.root, BATCH_AXIS),
            "tilt": (tilt, jnp.ones(())),
        }

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        sight = self.see(observations)
        joints = self.lift(variables, sight)
        joints = jnp.einsum("...ji,...nj->...ni", sight.turn, joints, precision=HIGHEST)
        return Prediction(joints=joints, space="up_to_scale")


@dataclasses.dataclass(frozen=True)
class Kudo(Turning):
    """Kudo et al., "Unsupervised Adversarial Learning of 3D Human Pose from 2D Joint Locations"
    (arXiv 1803.08244).

    Terms of the critic: see `logistic`.
    Terms of the lifter: `fool` (the critic's opinion of what was turned), and `knees` in place of
    their heuristic. A critic of 2D poses cannot tell a body from its mirror image in depth: turned
    by all angles, the two are seen alike. Kudo et al. decide by the face: on the ground plane the
    vector from neck to nose must be on the front of that between the shoulders, the penalty being
    max(0, -sin) of the angle between them. These joint sets have no nose; knees, which bend
    forwards, decide here: see `backward_knees`.
    """

    groups: tuple[Group, ...] = (
        Group("critic", ("critic",), ("fake", "real", "penalty")),
        Group("lifter", ("lifter", "vertical"), ("fool", "knees")),
    )

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
        """See `Method.terms`."""
        mirror_key, turn_key = jax.random.split(key)
        sight, whole = self.mirrored(batch, mirror_key)
        joints = self.lift(variables, sight)
        rotation = self.turns(variables, joints.shape[:-2], turn_key)
        other = self.again(turned(joints, rotation, self.root), whole.visible)
        critic = self.judge(variables)
        if group.name == "critic":
            return logistic(critic, *seen_as(other), *seen_as(whole)), Aux({}, {})
        found = {"fool": fooled(critic, *seen_as(other))}
        if "knees" in group.terms:
            bent = backward_knees(joints, self.info.joint_skeleton)
            found["knees"] = losses.weighted_term(bent, sight.seen)
        return found, Aux({}, self.diagnostics(variables, joints, sight))


def told(sight: rays.Sight) -> Float[Array, "*views features"]:
    """What a lifter is told of a sight."""
    flat = sight.relative.reshape(*sight.relative.shape[:-2], -1)
    return jnp.concatenate([flat, sight.where, sight.visible], axis=-1)


def pictured(sight: rays.Sight) -> Float[Array, "*views features"]:
    """What a critic is shown of a sight: as `told`, but not how large the person is."""
    flat = sight.relative.reshape(*sight.relative.shape[:-2], -1)
    return jnp.concatenate([flat, sight.visible], axis=-1)


def seen_as(sight: rays.Sight) -> tuple[Float[Array, "*views features"], Float[Array, "*views"]]:
    """What a critic is shown, and of which views."""
    return pictured(sight), sight.seen


def logistic(
    critic: Callable[[Array], Array],
    fake: Float[Array, "..."],
    fake_weight: Float[Array, "..."],
    real: Float[Array, "..."],
    real_weight: Float[Array, "..."],
    suffix: str = "",
) -> dict[str, Term]:
    """A critic's terms: `fake` and `real` (log losses) and `penalty` (its squared slope at data).

    Goodfellow et al., "Generative Adversarial Nets" (NIPS 2014), with the penalty R1 of Mescheder
    et al., "Which Training Methods for GANs do actually Converge?" (ICML 2018), equation 9, which
    keeps a critic from steering what is like the data already. Rows are the axes of the weights.
    """
    fake = jax.lax.stop_gradient(fake)
    return {
        f"fake{suffix}": losses.weighted_term(jax.nn.softplus(critic(fake)), fake_weight),
        f"real{suffix}": losses.weighted_term(jax.nn.softplus(-critic(real)), real_weight),
        f"penalty{suffix}": losses.weighted_term(slope(critic, real) ** 2, real_weight),
    }


def fooled(
    critic: Callable[[Array], Array], fake: Float[Array, "..."], weight: Float[Array, "..."]
) -> Term:
    """The term of who is judged by a `logistic` critic: its log loss on fakes taken for data."""
    return losses.weighted_term(jax.nn.softplus(-critic(fake)), weight)


def wasserstein(
    critic: Callable[[Array], Array],
    fake: Float[Array, "..."],
    fake_weight: Float[Array, "..."],
    real: Float[Array, "..."],
    real_weight: Float[Array, "..."],
    key: Key[Array, ""],
) -> dict[str, Term]:
    """A critic's terms: `fake` and `real` (its opinions, the latter negative) and `penalty`.

    Wasserstein's distance with gradient penalty: Gulrajani et al., "Improved Training of
    Wasserstein GANs" (NeurIPS 2017), equation 3, the penalty between each fake and a real row.
    Rows are the axes of the weights; there may be fewer real ones, which are then used again.
    """
    fake = jax.lax.stop_gradient(fake).reshape(-1, *fake.shape[fake_weight.ndim :])
    real = real.reshape(-1, *real.shape[real_weight.ndim :])
    fake_weight, real_weight = fake_weight.reshape(-1), real_weight.reshape(-1)
    partner = np.arange(len(fake)) % len(real)
    share = jax.random.uniform(key, (len(fake),) + (1,) * (fake.ndim - 1))
    between = share * real[partner] + (1 - share) * fake
    return {
        "fake": losses.weighted_term(critic(fake), fake_weight),
        "real": losses.weighted_term(-critic(real), real_weight),
        "penalty": losses.weighted_term(
            (slope(critic, between) - 1.0) ** 2, fake_weight * real_weight[partner]
        ),
    }


def slope(critic: Callable[[Array], Array], x: Float[Array, "..."]) -> Float[Array, "*rows"]:
    """Length of the gradient of a critic of single rows at each row."""
    found, pull = jax.vjp(critic, x)
    (gradient,) = pull(jnp.ones_like(found))
    return safe_norm(gradient.reshape(*found.shape, -1))


def backward_knees(
    joints: Float[Array, "*views joints 3"], skeleton: Skeleton
) -> Float[Array, "*views"]:
    """By how much a pose's knees bend backwards: 0 where they bend forwards, about 1 where not.

    The sign is that of the volume spanned by the hips (right to left), the leg (upwards) and the
    knee's way off it, which no rotation changes and a mirror image inverts. On CMU-MV it is a
    person's in 99.9 % of the poses.

    Raises `MethodError` for a joint set without hips, knees and ankles.
    """
    index = {name: i for i, name in enumerate(skeleton.joints)}
    needed = [f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle")]
    missing = [name for name in needed if name not in index]
    if missing:
        raise MethodError(
            f"the term knees needs {', '.join(missing)}, which {skeleton.name} has not; leave it "
            f"out of the weights"
        )
    left, right = ([joints[..., index[n], :] for n in needed[i : i + 3]] for i in (0, 3))
    across, volume = left[0] - right[0], jnp.zeros(joints.shape[:-2])
    for hip, knee, ankle in (left, right):
        leg, bend = hip - ankle, knee - (hip + ankle) / 2
        spanned = jnp.sum(jnp.cross(across, leg) * bend, axis=-1)
        size = safe_norm(across) * safe_norm(leg) ** 2 * _BEND
        volume += safe_divide(spanned, jax.lax.stop_gradient(size)) / 2
    return jnp.maximum(-volume, 0.0)


def mirrored_views(
    observations: Observations, skeleton: Skeleton, key: Key[Array, ""]
) -> tuple[
    Float[Array, "batch time views keypoints 2"], Float[Array, "batch time views keypoints"]
]:
    """Normalised points and confidences, half of the views mirrored, through all their frames."""
    points, confidence = normalised_points(observations), observations.confidence
    batch, _, views, _ = confidence.shape
    coin = jax.random.bernoulli(key, 0.5, (batch, 1, views, 1))
    swap = np.array(skeleton.mirrored)
    mirrored = points[..., swap, :].at[..., 0].multiply(-1.0)
    points = jnp.where(coin[..., None], mirrored, points)
    return points, jnp.where(coin, confidence[..., swap], confidence)
