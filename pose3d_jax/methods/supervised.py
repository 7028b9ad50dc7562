"""Lifting with 3D labels: the mean per-joint position error itself is minimised."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import cameras as cam
from pose3d_jax import losses
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, Mode, Variables, view_seen
from pose3d_jax.methods.lifting import SingleViewLifting, need_frames, shown
from pose3d_jax.schema import Clip


@dataclasses.dataclass(frozen=True)
class Supervised(SingleViewLifting):
    """MPJPE on labels, as in Martinez et al. (ICCV 2017), for pose and root apart.

    Terms: `pose` (root-relative joints without the root) and `root` (its absolute position),
    metres, in each view that sees anything. Of several frames: `motion`, the error of the
    root-relative joints' way from one frame to the next, metres (Pavllo et al., CVPR 2019, measure
    it, Zhang et al., "MixSTE", CVPR 2022, minimise it).
    """

    groups: tuple[Group, ...] = (Group("lifter", ("lifter",), ("pose", "root", "motion")),)

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
        need_frames(group, {"motion": 2}, batch, self.context)
        joints, collections = self.lift(variables, shown(batch), key, mode)
        terms = labelled(joints, self.lifted(batch["main"]), self.info.joint_skeleton.root)
        return {name: terms[name] for name in group.terms}, Aux(collections, {})


def labelled(
    joints: Float[Array, "batch time views joints 3"], clip: Clip, root: int
) -> dict[str, Term]:
    """`pose`, `root` and `motion` of what was lifted of a clip."""
    observations, labels = clip.observations, clip.labels
    world = jnp.broadcast_to(labels.joints[:, :, None], joints.shape)
    truth = cam.batched(cam.to_camera)(observations.cameras, world)
    valid = labels.joints_valid[:, :, None] * view_seen(observations.confidence)[..., None]

    apart = slice(root, root + 1)
    root_valid = valid[..., apart]
    own, wanted = joints - joints[..., apart, :], truth - truth[..., apart, :]
    relative = losses.distance(own, wanted)
    steps = [x[:, 1:] - x[:, :-1] for x in (own, wanted)]
    pose_valid = (valid * root_valid).at[..., root].set(0.0)
    root_error = losses.distance(joints[..., root, :], truth[..., root, :])
    return {
        "pose": losses.weighted_term(relative, pose_valid),
        "root": losses.weighted_term(root_error, root_valid[..., 0]),
        "motion": losses.weighted_term(
            losses.distance(*steps), pose_valid[:, 1:] * pose_valid[:, :-1]
        ),
    }
