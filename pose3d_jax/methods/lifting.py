"""What the methods that lift views have in common: the network and `predict`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pose3d_jax import cameras as cam
from pose3d_jax.methods.base import EVALUATION, Batch, Group, Info, MethodError, Mode, Variables
from pose3d_jax.models.attention import JointAttention, Transformer
from pose3d_jax.models.lifter import Lifter
from pose3d_jax.models.sequence import Convolution, SequenceLifter, State
from pose3d_jax.schema import Observations, Prediction

T = TypeVar("T")


def setting(default: Any, **bounds: int) -> Any:
    """A setting with bounds (`least`, `above`, `below`, `most`) that `methods.create` checks."""
    return dataclasses.field(default=default, metadata=bounds)


# Networks by name, and the settings that they have beside those that all have.
NETWORKS: Mapping[str, tuple[str, ...]] = {
    "lifter": (),  # frame by frame
    "convolution": ("causal",),
    "transformer": ("heads", "positions"),
    "attention": ("heads", "parallel"),
}


@dataclasses.dataclass(frozen=True)
class SingleViewLifting:
    """A network applied to every view by itself, unless a method tells it of others.

    Methods add `groups` and `terms`.
    """

    info: Info
    network: str = "lifter"  # of NETWORKS
    width: int = setting(1024, least=1, below=100_000)
    blocks: int = setting(2, least=0, below=1000)
    dropout: float = setting(0.5, least=0, below=1)
    root_depth: float = setting(4.0, above=0)  # metres
    reach: float = setting(1.5, above=0)  # metres
    centred: bool = setting(False)  # see rays.look
    causal: bool = setting(False)  # see Convolution
    heads: int = setting(4, least=1, below=1000)
    positions: bool = setting(False)  # see Transformer
    parallel: bool = setting(False)  # see JointAttention

    def __post_init__(self) -> None:
        """Raises `MethodError` for a network that there is not, and for what it has no use for."""
        if self.network not in NETWORKS:
            raise MethodError(
                f"no network is named {self.network!r}; there are {', '.join(NETWORKS)}"
            )
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        for name in sorted({name for settings in NETWORKS.values() for name in settings}):
            if name not in NETWORKS[self.network] and getattr(self, name) != fields[name]:
                raise MethodError(
                    f"network {self.network} has no setting {name}; leave it at {fields[name]}"
                )
        if "heads" in NETWORKS[self.network] and self.width % self.heads:
            raise MethodError(f"width {self.width} cannot be shared by {self.heads} heads")

    @property
    def model(self) -> Lifter | SequenceLifter:
        """The network that is trained."""
        return self.view_model

    @property
    def view_model(self) -> Lifter | SequenceLifter:
        """The network that lifts a view, made from the settings and the skeletons."""
        keypoints, joints = self.info.keypoint_skeleton, self.info.joint_skeleton
        root_name = joints.joints[joints.root]
        placed: dict[str, Any] = {
            "root": joints.root,
            "keypoint_root": (
                keypoints.joints.index(root_name) if root_name in keypoints.joints else None
            ),
            "root_depth": self.root_depth,
            "reach": self.reach,
            "centred": self.centred,
            "name": "lifter",
        }
        network: dict[str, Any] = {
            "joints": joints.size,
            "width": self.width,
            "blocks": self.blocks,
            "dropout": self.dropout,
            "dtype": jnp.dtype(self.info.precision),
        }
        if self.network == "lifter":
            return Lifter(**network, **placed)
        own = {name: getattr(self, name) for name in NETWORKS[self.network]}
        trunks = {
            "convolution": Convolution,
            "transformer": Transformer,
            "attention": JointAttention,
        }
        return SequenceLifter(trunks[self.network](**network, **own), **placed)

    @property
    def context(self) -> tuple[int, int]:
        """See `base.context_of`."""
        model = self.view_model
        return model.trunk.context if isinstance(model, SequenceLifter) else (0, 0)

    def inputs(
        self, observations: Observations, key: Key[Array, ""] | None = None
    ) -> tuple[Any, ...]:
        """What the network is called with: points on the plane z = 1 and confidences.

        `[B, T, V, keypoints, ...]`; with a key, what it is shown in training.
        """
        del key
        return normalised_points(observations), observations.confidence

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        variables = self.model.init(
            key,
            *self.inputs(batch["main"].observations),
            dropout=False,
            update_statistics=False,
        )
        return {collection: {"lifter": tree} for collection, tree in variables.items()}

    def lift(
        self,
        variables: Variables,
        observations: Observations,
        key: Key[Array, ""] | None,
        mode: Mode,
    ) -> tuple[Float[Array, "batch lifted views joints 3"], Variables]:
        """Camera-frame joints, metres, and the mutable collections after the call.

        Of the frames without their context: see `lifted`. Without a key nothing can be drawn.
        """
        shown_key, dropout_key = (None, None) if key is None else jax.random.split(key)
        joints, collections = self.model.apply(
            self._own(variables),
            *self.inputs(observations, shown_key if mode.training else None),
            dropout=mode.dropout,
            update_statistics=mode.statistics("lifter"),
            rngs=None if dropout_key is None else {"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        return joints, {collection: {"lifter": tree} for collection, tree in collections.items()}

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        joints, _ = self.lift(variables, observations, None, EVALUATION)
        return Prediction(joints=joints, space="absolute")

    def start_stream(self, variables: Variables, views: int) -> State:
        """What a stream of so many views carries before its first frame: a pytree of arrays.

        Raises `MethodError` for a network that needs frames to come.
        """
        if self.network == "lifter":
            return ()
        if not ("causal" in NETWORKS[self.network] and self.causal):
            raise MethodError(
                f"network {self.network} needs frames to come; for a stream, train a convolution "
                f"with causal=True"
            )
        keypoints = self.info.keypoint_skeleton.size
        return self.model.apply(self._own(variables), views, keypoints, method="start")

    def next_pose(
        self, variables: Variables, state: State, observations: Observations
    ) -> tuple[State, Float[Array, "views joints 3"]]:
        """One frame of a stream, `[V, ...]`: the state after it, and camera-frame joints, metres.

        What `predict` gives for the frame in its clip; pure, to be jitted by who calls it.
        """
        frame = jax.tree.map(lambda x: x[None, None], observations)
        points = normalised_points(frame)[0, 0]
        if self.network == "lifter":
            return state, self.predict(variables, frame).joints[0, 0]
        seen = observations.confidence
        found: Any = self.model.apply(self._own(variables), state, points, seen, method="step")
        state, joints = found
        return state, joints

    def _own(self, variables: Variables) -> Variables:
        return {collection: tree["lifter"] for collection, tree in variables.items()}

    def lifted(self, clip: T) -> T:
        """The frames of a clip or its observations `[B, T, ...]` that `lift` gives joints of."""
        before, after = self.context
        return jax.tree.map(lambda x: x[:, before : x.shape[1] - after] if x.ndim > 1 else x, clip)


def shown(batch: Batch) -> Observations:
    """What the network is shown of the main stream: its observations, disturbed where there are
    such."""
    return batch.get("shown", batch["main"]).observations


def need_frames(
    group: Group, frames: Mapping[str, int], batch: Batch, context: tuple[int, int]
) -> None:
    """Raises `MethodError` where a term of the group needs more frames than an example has."""
    there = batch["main"].observations.confidence.shape[1] - sum(context)
    for term in group.terms:
        if there < frames.get(term, 1):
            raise MethodError(
                f"the term {term} needs {frames[term]} frames of an example at least, not {there}; "
                f"set config.streams.main.window, or leave it out of the weights"
            )


def need_one_joint_set(info: Info, name: str) -> None:
    """Raises `MethodError` where the joints of the method `name` are not the keypoints."""
    keypoints, joints = info.keypoint_skeleton, info.joint_skeleton
    if keypoints != joints:
        raise MethodError(
            f"method {name} compares reprojected joints with keypoints, but the joints "
            f"are {joints.name} and the keypoints {keypoints.name}; set data.joint_skeleton to "
            f"{keypoints.name} or convert the keypoints when the data is prepared"
        )


def normalised_points(
    observations: Observations,
) -> Float[Array, "batch time views keypoints 2"]:
    """Undistorted points on the plane z = 1 of each view's camera frame."""
    return cam.batched(cam.normalise)(observations.cameras, observations.keypoints)
