"""Lifting from 2D poses of single views alone: lift, turn, project, lift again, turn back."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import losses
from pose3d_jax.losses import Term
from pose3d_jax.methods.adversarial import (
    Turning,
    backward_knees,
    fooled,
    logistic,
    mirrored_views,
    pictured,
    seen_as,
)
from pose3d_jax.methods.base import Aux, Batch, Group, MethodError, Mode, Variables
from pose3d_jax.methods.lifting import need_frames
from pose3d_jax.methods.monocular import sized, turned
from pose3d_jax.models import rays
from pose3d_jax.models.critic import Regressor

_CRITICS = {  # group -> the suffix of its terms
    "critic": "",
    "motion_critic": "_motion",
    "domain_critic": "_domain",
}


def _critic(name: str) -> Group:
    terms = ("fake", "real", "penalty")
    return Group(name, (name,), tuple(f"{term}{_CRITICS[name]}" for term in terms))


@dataclasses.dataclass(frozen=True)
class Chen(Turning):
    """Chen et al., "Unsupervised 3D Pose Estimation with Geometric Self-Supervision" (CVPR 2019,
    arXiv 1904.04812).

    What was lifted is turned by any azimuth and a limited elevation, projected, lifted again, and
    turned back. Terms of the lifter: `fool` (a critic's opinion of the projection), `cycle` (the
    two lifted poses apart in 3D, in sizes of their own), `back` (the second, turned back and
    projected, from the first's points, in sizes of the pose), `fool_motion` (a critic's opinion of
    the way of the projected points from the first to the last frame of a window, both turned
    alike), and `knees`, which is not theirs but Kudo's: see `kudo`. Every critic has terms of its
    own: see `logistic`.

    With a stream `domain`, 2D poses of another kind, an adapter makes them look like those of
    `main`: `fool_domain` (a critic's opinion of them) and `near` (how far it moves a point, in
    sizes of the pose). The lifter then learns from both. Groups whose terms have no weight rest.
    """

    groups: tuple[Group, ...] = (
        *map(_critic, _CRITICS),
        Group("adapter", ("adapter",), ("fool_domain", "near")),
        Group("lifter", ("lifter", "vertical"), ("fool", "fool_motion", "cycle", "back", "knees")),
    )

    @property
    def adapter(self) -> Regressor:
        """Says where the points of another domain's poses would be in this."""
        outputs = 2 * self.info.keypoint_skeleton.size
        return Regressor(outputs, self.critic_width, self.blocks, self.dtype)

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        own_key, motion_key, domain_key, adapter_key = jax.random.split(key, 4)
        params = super().init(own_key, batch)["params"]
        flat = pictured(self.see(batch["main"].observations))
        params["motion_critic"] = self.critic.init(motion_key, flat)["params"]
        params["domain_critic"] = self.critic.init(domain_key, flat)["params"]
        params["adapter"] = self.adapter.init(adapter_key, flat)["params"]
        return {"params": params}

    def adapt(self, variables: Variables, sight: rays.Sight) -> rays.Sight:
        """What another domain's sight would be in the domain of `main`."""
        moves = self.adapter.apply({"params": variables["params"]["adapter"]}, pictured(sight))
        assert isinstance(moves, jax.Array)
        moves = moves.reshape(sight.relative.shape)
        moves = moves - moves[..., self.root : self.root + 1, :]
        # As large as it was: a person does not come nearer by being adapted.
        points = (sight.relative + moves) * (rays.SPREAD / sight.far)[..., None]
        return self.look(points, sight.visible)

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
        if not group.terms:
            return {}, Aux({}, {})
        moving = [term for term in group.terms if term.endswith("_motion")]
        need_frames(group, dict.fromkeys(moving, 2), batch, (0, 0))
        main_key, domain_key = jax.random.split(key)
        skeleton = self.info.keypoint_skeleton
        sight, whole = self.mirrored(batch, main_key)
        if moving:
            sight, whole = _ends(sight), _ends(whole)
        if group.name in ("adapter", "domain_critic") and "domain" not in batch:
            raise MethodError(
                f"the term {group.terms[0]} needs a stream `domain`; give config.streams one, or "
                f"leave it out of the weights"
            )
        others = []
        if "domain" in batch:
            views = mirrored_views(batch["domain"].observations, skeleton, domain_key)
            others = [self.look(*views)]

        if group.name == "adapter":
            adapted = self.adapt(variables, others[0])
            critic = self.judge(variables, "domain_critic")
            moved = losses.distance(adapted.relative, others[0].relative)
            return {
                "fool_domain": fooled(critic, *seen_as(adapted)),
                "near": losses.weighted_term(moved, others[0].visible),
            }, Aux({}, {})
        if group.name == "domain_critic":
            fake = seen_as(self.adapt(variables, others[0]))
            critic = self.judge(variables, "domain_critic")
            return logistic(critic, *fake, *seen_as(whole), "_domain"), Aux({}, {})

        joints, rotation, other = self._turned(variables, sight, whole, main_key)
        if group.name == "critic":
            critic = self.judge(variables)
            return logistic(critic, *seen_as(other), *seen_as(whole)), Aux({}, {})
        if group.name == "motion_critic":
            critic = self.judge(variables, "motion_critic")
            return logistic(critic, *way(other), *way(whole), "_motion"), Aux({}, {})

        found = self.relifted(variables, whole, joints, rotation, other)
        if "knees" in group.terms:
            bent = backward_knees(joints, self.info.joint_skeleton)
            found["knees"] = losses.weighted_term(bent, sight.seen)
        if moving:
            found["fool_motion"] = fooled(self.judge(variables, "motion_critic"), *way(other))
        for unlike in others:
            adapted = jax.lax.stop_gradient(self.adapt(variables, unlike))
            lifted = self._turned(variables, adapted, adapted, domain_key)
            more = self.relifted(variables, adapted, *lifted)
            found |= {name: _sum(found[name], more[name]) for name in more}
        return found, Aux({}, self.diagnostics(variables, joints, sight))

    def _turned(
        self, variables: Variables, sight: rays.Sight, whole: rays.Sight, key: Key[Array, ""]
    ) -> tuple[Float[Array, "*views joints 3"], Float[Array, "*views 3 3"], rays.Sight]:
        """What is lifted of a sight, how it is turned (all frames of a view alike), and what of it
        is then seen: what there is to see of the `whole`."""
        joints = self.lift(variables, sight)
        batch, time, views, _, _ = joints.shape
        rotation = self.turns(variables, (batch, 1, views), jax.random.fold_in(key, 1))
        rotation = jnp.repeat(rotation, time, axis=1)
        return joints, rotation, self.again(turned(joints, rotation, self.root), whole.visible)

    def relifted(
        self,
        variables: Variables,
        whole: rays.Sight,
        joints: Float[Array, "*views joints 3"],
        rotation: Float[Array, "*views 3 3"],
        other: rays.Sight,
    ) -> dict[str, Term]:
        """`fool`, `cycle` and `back` of what `_turned` gives."""
        visible = whole.visible
        lifted = self.lift(variables, other)
        there, _ = sized(turned(joints, rotation, self.root), self.root, visible)
        again, _ = sized(lifted, self.root, visible)
        home = self.again(turned(lifted, jnp.swapaxes(rotation, -1, -2), self.root), visible)
        apart = visible.at[..., self.root].set(0.0)
        return {
            "fool": fooled(self.judge(variables), *seen_as(other)),
            "cycle": losses.weighted_term(losses.distance(again, there), apart),
            "back": losses.weighted_term(losses.distance(home.relative, whole.relative), apart),
        }


def _ends(sight: rays.Sight) -> rays.Sight:
    """The first and the last frame."""
    return jax.tree.map(lambda x: x[:, :: x.shape[1] - 1], sight)


def way(
    sight: rays.Sight,
) -> tuple[Float[Array, "batch views features"], Float[Array, "batch views"]]:
    """The way of the points from the first frame to the last, in sizes of the first, and where."""
    size = sight.far[:, :1] / sight.far  # so that both are in one size
    points = sight.relative * size[..., None]
    both = sight.visible[:, 0] * sight.visible[:, -1]
    way = (points[:, -1] - points[:, 0]) * both[..., None]
    flat = way.reshape(*both.shape[:-1], -1)
    return jnp.concatenate([flat, both], axis=-1), sight.seen[:, 0] * sight.seen[:, -1]


def _sum(a: Term, b: Term) -> Term:
    return a[0] + b[0], a[1] + b[1]
