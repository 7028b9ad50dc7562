"""Lifting with 3D poses that no image is paired with: RepNet (Wandt and Rosenhahn 2019)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import losses
from pose3d_jax.collapse import relief
from pose3d_jax.geometry import HIGHEST, axis_angle_to_matrix, safe_divide, safe_norm
from pose3d_jax.losses import Term
from pose3d_jax.methods.adversarial import (
    mirrored_views,
    told,
    wasserstein,
)
from pose3d_jax.methods.base import Aux, Batch, Group, MethodError, Mode, Variables
from pose3d_jax.methods.lifting import setting, shown
from pose3d_jax.methods.monocular import Monocular, sized, stand_in
from pose3d_jax.models import rays
from pose3d_jax.models.critic import BoneCritic, Regressor
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Clip, Observations, Prediction

_FRONT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]], np.float32)  # a camera that faces the person


@dataclasses.dataclass(frozen=True)
class RepNet(Monocular):
    """Wandt and Rosenhahn, "RepNet: Weakly Supervised Training of an Adversarial Reprojection
    Network for 3D Human Pose Estimation" (CVPR 2019, arXiv 1902.09868).

    One network says a pose in a frame of its own, of size 1, another the weak-perspective camera
    `[2, 3]` that sees it, from the same points: those of the camera turned to the root, in sizes of
    the pose. Joints need not lie on the rays of their points. Terms of the two networks: `fool`
    (the critic's opinion of the pose), `reproject` (distance of the projected joints from the
    points, in sizes of the pose) and `camera` (see `skew`). Terms of the critic, which sees joints
    and kinematic chain space: see `adversarial.wasserstein`.

    What the critic takes for data are world poses of the labels of the stream `prior`, which draws
    for itself and may hold the very poses of `main`, unpaired: about the root, of size 1, upright
    as they are, and turned about the vertical so that the hips lie along x. So a pose's own frame
    has no heading; directions are the camera's alone. Labels of `main` are not seen. Half of the
    images and of the poses are mirrored.
    """

    critic_width: int = setting(256, least=4, below=100_000)
    groups: tuple[Group, ...] = (
        Group("critic", ("critic",), ("fake", "real", "penalty")),
        Group("lifter", ("lifter", "camera"), ("fool", "reproject", "camera")),
    )

    def __post_init__(self) -> None:
        """As of all that know one view; and there must be hips, which tell where a pose heads."""
        super().__post_init__()
        joints = self.info.joint_skeleton
        for hip in ("left_hip", "right_hip"):
            if hip not in joints.joints:
                raise MethodError(f"method repnet needs the joint {hip}, which {joints.name} lacks")

    @property
    def needs_labels(self) -> tuple[str, ...]:
        """See `base.needs_labels_of`."""
        return ("prior",)

    @property
    def _nets(self) -> tuple[Regressor, Regressor, BoneCritic]:
        joints = self.info.joint_skeleton
        return (
            Regressor(3 * joints.size, self.width, self.blocks, self.dtype),
            Regressor(6, self.width, self.blocks, self.dtype),
            BoneCritic(joints, self.critic_width, self.blocks, self.dtype),
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        features = told(self.see(batch["main"].observations))
        lifter, camera, critic = self._nets
        keys = jax.random.split(key, 3)
        pose = jnp.zeros((self.info.joint_skeleton.size, 3))
        return {
            "params": {
                "lifter": lifter.init(keys[0], features)["params"],
                "camera": camera.init(keys[1], features)["params"],
                "critic": critic.init(keys[2], pose)["params"],
            }
        }

    def lift(
        self, variables: Variables, sight: rays.Sight
    ) -> tuple[Float[Array, "*views joints 3"], Float[Array, "*views 2 3"]]:
        """Poses in their own frame, of size 1, and the weak-perspective cameras that see them."""
        lifter, camera, _ = self._nets
        features = told(sight)
        pose: Any = lifter.apply({"params": variables["params"]["lifter"]}, features)
        matrix: Any = camera.apply({"params": variables["params"]["camera"]}, features)
        pose, _ = sized(pose.reshape(*pose.shape[:-1], -1, 3), self.root)
        matrix = matrix.reshape(*matrix.shape[:-1], 2, 3)
        return pose, matrix + jnp.broadcast_to(_FRONT, matrix.shape)

    def prior(
        self, clip: Clip, key: Key[Array, ""]
    ) -> tuple[Float[Array, "rows joints 3"], Float[Array, "rows"]]:
        """World poses of a stream, of size 1, their hips along x; half of them mirrored."""
        skeleton = self.info.joint_skeleton
        joints = clip.labels.joints.reshape(-1, skeleton.size, 3)
        weight = clip.labels.joints_valid.reshape(-1, skeleton.size).min(axis=-1)
        coin = jax.random.bernoulli(key, 0.5, weight.shape)[:, None, None]
        flipped = joints[:, np.array(skeleton.mirrored)].at[..., 0].multiply(-1.0)
        pose, _ = sized(jnp.where(coin, flipped, joints), self.root)
        left, right = (skeleton.joints.index(f"{side}_hip") for side in ("left", "right"))
        across = pose[:, left] - pose[:, right]
        heading = jnp.arctan2(across[:, 1], across[:, 0])
        up = jnp.array([0.0, 0.0, 1.0])
        turn = axis_angle_to_matrix(-heading[:, None] * up[None])
        return jnp.einsum("rij,rnj->rni", turn, pose, precision=HIGHEST), weight

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
        mirror_key, prior_key, mix_key = jax.random.split(key, 3)
        sight = self.look(*mirrored_views(shown(batch), self.info.keypoint_skeleton, mirror_key))
        pose, matrix = self.lift(variables, sight)

        def critic(x: Float[Array, "*rows joints 3"]) -> Float[Array, "*rows"]:
            found: Any = self._nets[2].apply({"params": variables["params"]["critic"]}, x)
            return found

        if group.name == "critic":
            if "prior" not in batch:
                raise MethodError(
                    "method repnet needs a stream `prior` of 3D poses in config.streams"
                )
            real = self.prior(batch["prior"], prior_key)
            return wasserstein(critic, pose, sight.seen, *real, mix_key), Aux({}, {})
        visible = sight.visible.at[..., self.root].set(0.0)
        found = {
            "fool": losses.weighted_term(-critic(pose), sight.seen),
            "reproject": losses.weighted_term(
                losses.distance(projected(matrix, pose, sight), sight.relative), visible
            ),
            "camera": losses.weighted_term(skew(matrix), sight.seen),
        }
        joints = self.place_pose(pose, matrix, sight)
        return found, Aux({}, {"relief": relief(joints, sight.seen, self.root, BATCH_AXIS)})

    def place_pose(
        self,
        pose: Float[Array, "*views joints 3"],
        matrix: Float[Array, "*views 2 3"],
        sight: rays.Sight,
    ) -> Float[Array, "*views joints 3"]:
        """Poses in the frame of the camera turned to the root, metres.

        Where the root is not seen, what is stands for it: it is the mean of that, sideways, which
        the sight's point is.
        """
        rotation, scale = split_camera(matrix)
        metres = sight.far[..., None] * self.root_depth  # of the root's depth
        spread = rays.SPREAD * self.root_depth  # metres, of what is seen
        relative = jnp.einsum("...ij,...nj->...ni", rotation, pose, precision=HIGHEST)
        root = metres * jnp.concatenate([sight.point, jnp.ones_like(sight.far)], -1)[..., None, :]
        aside = stand_in(relative[..., :2], sight.visible, sight.point_seen)
        relative = relative.at[..., :2].add(-aside)
        return root + scale[..., None, None] * spread * relative

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        sight = self.see(observations)
        joints = self.place_pose(*self.lift(variables, sight), sight)
        joints = jnp.einsum("...ji,...nj->...ni", sight.turn, joints, precision=HIGHEST)
        return Prediction(joints=joints, space="up_to_scale")


def projected(
    matrix: Float[Array, "*views 2 3"], pose: Float[Array, "*views joints 3"], sight: rays.Sight
) -> Float[Array, "*views joints 2"]:
    """Where weak-perspective cameras see poses about their root, as `Sight.relative` has it.

    Where the root is not seen, the mean of what is stands for it.
    """
    seen = jnp.einsum("...ij,...nj->...ni", matrix, pose, precision=HIGHEST)
    return seen - stand_in(seen, sight.visible, sight.point_seen)


def skew(matrix: Float[Array, "*views 2 3"]) -> Float[Array, "*views"]:
    """By how much a camera is not the upper part of a scaled rotation: |2 K K^T / trace - 1|.

    The camera loss of Wandt and Rosenhahn (CVPR 2019), section 3.2, with the Frobenius norm.
    """
    square = jnp.einsum("...ij,...kj->...ik", matrix, matrix, precision=HIGHEST)
    trace = square[..., 0, 0] + square[..., 1, 1]
    even = safe_divide(2 * square, jnp.broadcast_to(trace[..., None, None], square.shape))
    return safe_norm((even - jnp.broadcast_to(jnp.eye(2), even.shape)).reshape(*trace.shape, 4))


def split_camera(
    matrix: Float[Array, "*views 2 3"],
) -> tuple[Float[Array, "*views 3 3"], Float[Array, "*views"]]:
    """A rotation and the scale of a weak-perspective camera that need not be one exactly.

    The rotation's first two rows are as near to the camera's directions as can be: each as far from
    its own as the other.
    """
    length = safe_norm(matrix)
    unit = safe_divide(matrix, jnp.broadcast_to(length[..., None], matrix.shape))
    both = jnp.stack([unit[..., 0, :] + unit[..., 1, :], unit[..., 0, :] - unit[..., 1, :]], -2)
    both = safe_divide(both, jnp.broadcast_to(safe_norm(both)[..., None], both.shape)) / 2**0.5
    x, y = both[..., 0, :] + both[..., 1, :], both[..., 0, :] - both[..., 1, :]
    return jnp.stack([x, y, jnp.cross(x, y)], axis=-2), length.mean(axis=-1)
