"""What the methods that lift each view on its own have in common: the network and `predict`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pose3d_jax import cameras as cam
from pose3d_jax.methods.base import EVALUATION, Batch, Info, Mode, Variables
from pose3d_jax.models.lifter import Lifter
from pose3d_jax.schema import Observations, Prediction


def setting(default: Any, **bounds: int) -> Any:
    """A setting with the bounds (`least`, `above`, `below`) that `methods.create` holds it to."""
    return dataclasses.field(default=default, metadata=bounds)


@dataclasses.dataclass(frozen=True)
class SingleViewLifting:
    """A `Lifter` applied to every frame and view by itself; methods add `groups` and `terms`."""

    info: Info
    width: int = setting(1024, least=1, below=100_000)
    blocks: int = setting(2, least=0, below=1000)
    dropout: float = setting(0.5, least=0, below=1)
    root_depth: float = setting(4.0, above=0)  # metres
    reach: float = setting(1.5, above=0)  # metres
    centred: bool = setting(False)  # see Lifter

    @property
    def model(self) -> Lifter:
        """The network, made from the settings and the skeletons."""
        keypoints, joints = self.info.keypoint_skeleton, self.info.joint_skeleton
        root_name = joints.joints[joints.root]
        return Lifter(
            joints=joints.size,
            root=joints.root,
            keypoint_root=(
                keypoints.joints.index(root_name) if root_name in keypoints.joints else None
            ),
            width=self.width,
            blocks=self.blocks,
            dropout=self.dropout,
            root_depth=self.root_depth,
            reach=self.reach,
            centred=self.centred,
            dtype=jnp.dtype(self.info.precision),
            name="lifter",
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        observations = batch["main"].observations
        variables = self.model.init(
            key,
            normalised_points(observations),
            observations.confidence,
            dropout=False,
            update_statistics=False,
        )
        return {collection: {"lifter": tree} for collection, tree in variables.items()}

    def lift(
        self, variables: Variables, observations: Observations, key: Key[Array, ""], mode: Mode
    ) -> tuple[Float[Array, "batch time views joints 3"], Variables]:
        """Camera-frame joints, metres, and the mutable collections after the call."""
        joints, collections = self.model.apply(
            {collection: tree["lifter"] for collection, tree in variables.items()},
            normalised_points(observations),
            observations.confidence,
            dropout=mode.dropout,
            update_statistics=mode.statistics("lifter"),
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return joints, {collection: {"lifter": tree} for collection, tree in collections.items()}

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        joints, _ = self.lift(variables, observations, jax.random.key(0), EVALUATION)
        return Prediction(joints=joints, space="absolute")


def normalised_points(
    observations: Observations,
) -> Float[Array, "batch time views keypoints 2"]:
    """Undistorted points on the plane z = 1 of each view's camera frame."""
    return cam.batched(cam.normalise)(observations.cameras, observations.keypoints)
