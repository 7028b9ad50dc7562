"""The protocol that every training method follows: what is predicted, what is minimised."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key

from pose3d_jax.errors import UserError
from pose3d_jax.losses import Term
from pose3d_jax.rigs import Doubt
from pose3d_jax.schema import Clip, Observations, Prediction
from pose3d_jax.skeleton import Skeleton

# {"params": {module: ...}, "batch_stats": {module: ...}, ...}: flax variables by module name.
Variables: TypeAlias = dict[str, Any]
Batch: TypeAlias = Mapping[str, Clip]  # stream name -> clips [B, T, ...]; `main` is always there


class MethodError(UserError):
    """A method's configuration does not fit it or the data; the message says which and how."""


@dataclasses.dataclass(frozen=True)
class Info:
    """What a method needs to know of the data before it sees any."""

    keypoint_skeleton: Skeleton
    joint_skeleton: Skeleton
    recordings: tuple[str, ...] = ()  # the table that `Clip.recording` points into
    # Of these, which views see anything; for a method that learns of them: see `recorded_of`.
    seeing: tuple[tuple[bool, ...], ...] = ()
    doubt: Doubt = Doubt()  # how far their cameras may be off
    normalisation: str = "undistorted"  # of the 2D points that networks get
    precision: str = "float32"  # what networks compute in: "float32" or "bfloat16"


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that are updated together, by one optimiser on one loss.

    `paths` are the prefixes (`module` or `module/part`) of the group's parameters and mutable
    collections, `terms` what its loss is made of, `updates` how often it is updated in a step.
    """

    name: str
    paths: tuple[str, ...]
    terms: tuple[str, ...]
    updates: int = 1


@dataclasses.dataclass(frozen=True)
class Mode:
    """How the networks run in a phase. Dropout and batch statistics switch independently."""

    dropout: bool = False
    update_statistics: bool = False
    frozen: tuple[str, ...] = ()  # paths without updates; they use running statistics
    training: bool = False  # neither an evaluation nor an adaptation to what is to be predicted

    def statistics(self, module: str) -> bool:
        """Whether `module` normalises by, and updates from, the batch's statistics."""
        return self.update_statistics and not any(covers(path, module) for path in self.frozen)


EVALUATION = Mode()


class Aux(NamedTuple):
    """What `terms` returns beside the terms."""

    collections: Variables  # mutable collections after the call, without `params`
    diagnostics: dict[str, Term]  # logged, not minimised


@runtime_checkable
class Method(Protocol):
    """A frozen dataclass of three pure functions; it knows no optimiser, device or loop."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """In the order in which they are updated; most methods have one."""

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """Fresh variables; only the shapes of `batch` matter."""

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
        """The terms named by `group.terms` (others need not be computed); counts see only masks."""

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """3D poses from observations `[B, T, V, ...]` alone, in evaluation mode."""


def context_of(method: Method) -> tuple[int, int]:
    """Frames before and after those that a method predicts, which it is given beside them.

    Those of its attribute `context`; without one it predicts all the frames that it is given.
    """
    return getattr(method, "context", (0, 0))


def needs_labels_of(method: Method) -> tuple[str, ...]:
    """Streams whose whole poses a method learns from: those of its attribute `needs_labels`."""
    return getattr(method, "needs_labels", ())


def needs_images_of(method: Method) -> bool:
    """Whether a method looks at features of images: its attribute `needs_images`."""
    return getattr(method, "needs_images", False)


def recorded_of(method: Method) -> tuple[str, ...]:
    """Paths of what a method learns of the training recordings themselves, of no other use.

    Those of its attribute `recorded`; with any it must not be shown clips filmed anew.
    """
    return getattr(method, "recorded", ())


def picture_cells_of(method: Method) -> int:
    """Pixels, to a side, of the pictures that a method looks at; 0 for one that does not.

    Its attribute `picture_cells`. It predicts each frame by itself.
    """
    return getattr(method, "picture_cells", 0)


def covers(prefix: str, path: str) -> bool:
    """Whether `path` is `prefix` or lies below it; paths are names joined by `/`, "" is the top."""
    return not prefix or path == prefix or path.startswith(prefix + "/")


@jax.jit
def view_seen(confidence: Float[Array, "*batch views keypoints"]) -> Float[Array, "*batch views"]:
    """1 where a view has any visible keypoint."""
    return (confidence > 0).any(axis=-1).astype(confidence.dtype)
