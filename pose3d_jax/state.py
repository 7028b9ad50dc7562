"""What a run is made of: its phases, and the state that a step takes and gives back."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Int, Key

from pose3d_jax.cameras import Leaf
from pose3d_jax.methods.base import Method, Mode, Variables, covers
from pose3d_jax.schema import Clip

# What the state's key is folded with first, so that no two uses share a key.
INIT, DRAW, UPDATE, AUGMENT, DISTURB, PICTURE = range(6)

# The streams whose clips a phase's augmentation changes.
AUGMENTED = ("main", "labelled")

Schedule: TypeAlias = Callable[[Int[Array, ""]], Float[Array, ""]]
Augment: TypeAlias = Callable[[Clip, Key[Array, ""]], Clip]


@dataclasses.dataclass(frozen=True)
class Phase:
    """What holds from `first_step` for `steps` steps; one compiled program.

    `weights` and `learning_rate` are functions of the step within the phase; a term without weight
    is not computed.
    """

    first_step: int
    steps: int
    mode: Mode
    weights: Mapping[str, Schedule]
    optimizer: optax.GradientTransformation  # built with a learning rate of 1
    learning_rate: Schedule
    reset_optimizer: bool = False
    augment: Augment | None = None  # what becomes of the batches of the streams AUGMENTED
    picture: Augment | None = None  # what becomes of all streams' pictures
    disturb: Augment | None = None  # what networks are shown of them, as the stream `shown`
    average_decay: float = 0.0  # of the exponential moving average of the variables; 0 = none
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)  # part -> factor on it
    gradient_norms: int = 0  # names of a parameter's path that tell of which part it is; 0 = none


@struct.dataclass
class TrainState:
    """All that a run needs to go on. `average` is None unless a phase keeps a weight average."""

    step: Leaf  # [] int32
    key: Leaf  # [] random key; never advanced, only folded with the step
    variables: Leaf  # Variables
    optimizer: Leaf  # group name -> optimiser state
    average: Leaf  # Variables or None
    failure: Leaf  # [2] int32: draw and term of the first non-finite value, -1 while there is none

    @property
    def evaluated(self) -> Variables:
        """The variables to evaluate: the average, where there is one."""
        return self.variables if self.average is None else self.average


def init_state(
    method: Method, phase: Phase, batch: Mapping[str, Clip], key: Key[Array, ""], average: bool
) -> TrainState:
    """A fresh state, without the device axis."""
    variables = method.init(jax.random.fold_in(key, INIT), batch)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        variables=variables,
        optimizer=init_optimizer(method, phase, variables),
        average=jax.tree.map(jnp.copy, variables) if average else None,
        failure=jnp.full(2, -1, jnp.int32),
    )


def init_optimizer(method: Method, phase: Phase, variables: Variables) -> dict[str, Any]:
    """Each group's fresh optimiser state."""
    return {
        group.name: phase.optimizer.init(split(variables["params"], group.paths)[0])
        for group in method.groups
    }


def updates_per_step(method: Method) -> int:
    """Batches that a step draws from every stream."""
    return sum(group.updates for group in method.groups)


def term_names(method: Method) -> list[str]:
    """What `TrainState.failure[1]` counts: each group's terms, then its gradient."""
    return [f"{g.name}/{term}" for g in method.groups for term in (*g.terms, "gradient")]


def split(tree: dict, paths: tuple[str, ...], without: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """The leaves below `paths` but not below `without`, and the others; both flat."""
    inside: dict[tuple, Array] = {}
    outside: dict[tuple, Array] = {}
    for path, leaf in flatten_dict(tree).items():
        name = "/".join(path)
        owned = any(covers(p, name) for p in paths) and not any(covers(p, name) for p in without)
        (inside if owned else outside)[path] = leaf
    return inside, outside
