"""Where a person is, from one view: the depth of the root from how large the person is seen."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import losses
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, Mode, Variables
from pose3d_jax.methods.lifting import shown
from pose3d_jax.methods.monocular import Monocular, features, to_views, truth_of
from pose3d_jax.models import rays
from pose3d_jax.models.root import SizeNetwork
from pose3d_jax.schema import Observations, Prediction


@dataclasses.dataclass(frozen=True)
class Root(Monocular):
    """Depth = focal length x size / extent in the image, with a size that a network says.

    Chang et al., "AbsPoseLifter" (2019), and the RootNet of Moon et al., "Camera Distance-aware
    Top-down Approach for 3D Multi-person Pose Estimation from a Single RGB Image" (ICCV 2019),
    eq. 1 and 2, whose extent is the area of a box and whose correction is read off the image. Here
    the extent is the points' root mean square distance from the root's (`rays.look`), which a
    person of 0.52 m (that of limbs about the root) at 4 m has at 0.13, and the correction is read
    off the pose. Untrained it is the fixed size.

    Term: `root`, the error of the root's place, metres, in each view that sees anything. `predict`
    has all joints at the root: it is there for the methods that know a pose, but not how far away,
    see `placed`.
    """

    groups: tuple[Group, ...] = (Group("root", ("root",), ("root",)),)

    @property
    def model(self) -> SizeNetwork:
        """What says the size, in usual sizes."""
        return SizeNetwork(
            self.info.joint_skeleton, self.width, self.blocks, dtype=jnp.dtype(self.info.precision)
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        seen = features(self.see(batch["main"].observations))
        variables = self.model.init(key, *seen, update_statistics=False)
        return {collection: {"root": tree} for collection, tree in variables.items()}

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
        sight = self.see(shown(batch))
        found, collections = self._find(variables, sight, mode.statistics("root"))
        truth, valid = truth_of(batch["main"], self.root)
        error = losses.distance(found, truth[..., self.root, :])
        weight = valid[..., self.root] * sight.seen
        return {"root": losses.weighted_term(error, weight)}, Aux(collections, {})

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        found, _ = self._find(variables, self.see(observations), update=False)
        joints = jnp.repeat(found[..., None, :], self.info.joint_skeleton.size, axis=-2)
        return Prediction(joints=joints, space="absolute")

    def _find(
        self, variables: Variables, sight: rays.Sight, update: bool
    ) -> tuple[Float[Array, "batch time views 3"], Variables]:
        """The root in each view's camera frame, metres, on the ray of its point."""
        own: dict[str, Any] = {name: tree["root"] for name, tree in variables.items()}
        views = sight.seen.shape[2]
        size, collections = self.model.apply(
            own, *features(sight), update_statistics=update, mutable=["batch_stats"]
        )
        size = to_views(size, views)
        raw = jnp.zeros((*size.shape, self.info.joint_skeleton.size, 3))
        usual = self.place(raw, sight, depth_known=True)[..., self.root, :]
        return size[..., None] * usual, {n: {"root": tree} for n, tree in collections.items()}


def placed(
    joints: Float[Array, "*views joints 3"], root: Float[Array, "*views 3"], index: int, space: str
) -> Float[Array, "*views joints 3"]:
    """Poses, camera-frame joints, with their root where another method has it, metres.

    What is `up_to_scale` is made as much larger as its root is moved away, so that its joints stay
    on their rays; what has a size keeps it. `index` is the root's.
    """
    own = joints[..., index, :]
    if space == "up_to_scale":
        depth = jnp.maximum(own[..., 2:], 1e-6)
        return joints * (root[..., 2:] / depth)[..., None, :]
    return joints - own[..., None, :] + root[..., None, :]
