"""Where training is jitted and pmapped: state, update, train_step, train_epoch, eval_step.

Everything runs under the axis `BATCH_AXIS`, on one device as on several: arguments that differ by
device carry a leading device axis. Every device holds the whole data set and takes its own part of
the same global batch, so that the number of devices changes the speed and nothing else (except for
the dropout masks).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import Array, Bool, Float, Int, Key

from pose3d_jax.cameras import Leaf
from pose3d_jax.geometry import safe_divide
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Group, Method, Mode, Variables, covers
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Clip

# What the state's key is folded with first, so that no two uses share a key.
_INIT, _DRAW, _UPDATE, _AUGMENT = range(4)

Schedule: TypeAlias = Callable[[Int[Array, ""]], Float[Array, ""]]
Augment: TypeAlias = Callable[[Clip, Key[Array, ""]], Clip]


@runtime_checkable
class Stream(Protocol):
    """Examples that live on the device: a pytree that can be indexed."""

    @property
    def size(self) -> int:
        """Number of examples."""

    def take(self, indices: Int[Array, "batch"]) -> Clip:
        """The examples as one batch."""


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
    augment: Augment | None = None  # what becomes of the main stream's batches
    average_decay: float = 0.0  # of the exponential moving average of the variables; 0 = none


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
    variables = method.init(jax.random.fold_in(key, _INIT), batch)
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
        group.name: phase.optimizer.init(_split(variables["params"], group.paths)[0])
        for group in method.groups
    }


def updates_per_step(method: Method) -> int:
    """Batches that a step draws from every stream."""
    return sum(group.updates for group in method.groups)


def term_names(method: Method) -> list[str]:
    """What `TrainState.failure[1]` counts: each group's terms, then its gradient."""
    return [f"{g.name}/{term}" for g in method.groups for term in (*g.terms, "gradient")]


def update(
    method: Method,
    phase: Phase,
    group: Group,
    state: TrainState,
    batch: Mapping[str, Clip],
    draw: Int[Array, ""],
) -> tuple[TrainState, dict[str, Term]]:
    """One update of one group: the gradient of sum / count over all devices, one optimiser step.

    `draw` is the number of the batch, counted over all updates of the run; keys derive from it.
    Where a term or the gradient is not finite, and from then on, nothing changes but
    `state.failure`.
    """
    active = dataclasses.replace(group, terms=tuple(t for t in group.terms if t in phase.weights))
    params = state.variables["params"]
    trained, fixed = _split(params, group.paths, phase.mode.frozen)

    def own_key(use: int) -> Key[Array, ""]:
        return jax.random.fold_in(
            jax.random.fold_in(jax.random.fold_in(state.key, use), draw), _device()
        )

    key = own_key(_UPDATE)
    if phase.augment is not None:
        batch = {**batch, "main": phase.augment(batch["main"], own_key(_AUGMENT))}
    phase_step = state.step - phase.first_step

    def local_loss(trained: dict) -> tuple[Float[Array, ""], tuple]:
        variables = {**state.variables, "params": unflatten_dict({**fixed, **trained})}
        found, aux = method.terms(variables, batch, key, state.step, group=active, mode=phase.mode)
        terms = {name: found[name] for name in active.terms}  # a method may give more of them
        loss = jnp.zeros(())
        for name, (total, count) in terms.items():
            # The count is global before the division: means of per-device means would be wrong.
            count = jax.lax.stop_gradient(jax.lax.psum(count, BATCH_AXIS))
            loss += phase.weights[name](phase_step) * safe_divide(total, count)
        return loss, (terms, aux)

    (loss, (terms, aux)), gradient = jax.value_and_grad(local_loss, has_aux=True)(trained)
    loss, gradient, terms, diagnostics = jax.lax.psum(
        (loss, gradient, terms, aux.diagnostics), BATCH_AXIS
    )

    # A sum that is finite has finite parts, and takes one pass over them.
    total = sum(map(jnp.sum, gradient.values()), jnp.zeros(()))
    checks = [*(terms[name][0] for name in active.terms), total]
    names = [*active.terms, "gradient"]
    codes = [term_names(method).index(f"{group.name}/{name}") for name in names]
    bad = ~jnp.isfinite(jnp.stack(checks))
    apply = ~bad.any() & (state.failure[0] < 0)  # after a failure the state stays as it is

    def applied(state: TrainState) -> TrainState:
        # Frozen parameters keep their place in the optimiser's state but are not moved by it.
        owned, _ = _split(params, group.paths)
        whole = {path: gradient.get(path, jnp.zeros_like(owned[path])) for path in owned}
        steps, optimizer = phase.optimizer.update(whole, state.optimizer[group.name], owned)
        rate = phase.learning_rate(phase_step)
        moved = {path: owned[path] + rate * steps[path] for path in trained}
        variables = {
            **_own_collections(state.variables, aux.collections, group, phase.mode),
            "params": unflatten_dict({**fixed, **moved}),
        }
        average = state.average
        if average is not None:  # a decay of 0 keeps it equal to the variables
            # Short at first, or the fresh weights would be remembered.
            decay = jnp.minimum(phase.average_decay, (1 + draw) / (10 + draw))
            average = optax.incremental_update(variables, average, 1 - decay)
        optimizers = {**state.optimizer, group.name: optimizer}
        return dataclasses.replace(
            state, variables=variables, optimizer=optimizers, average=average
        )

    # A branch works in place; `where` would keep the old state beside the new one, and read both.
    new_state = jax.lax.cond(apply, applied, lambda state: state, state)
    new_state = dataclasses.replace(new_state, failure=_first_failure(state, bad, draw, codes))
    one = jnp.ones(())
    metrics = {f"{group.name}/{name}": term for name, term in {**terms, **diagnostics}.items()}
    return new_state, {**metrics, f"{group.name}/loss": (loss, one)}


def train_step(
    method: Method,
    phase: Phase,
    state: TrainState,
    batches: Mapping[str, Mapping[str, Clip]],
) -> tuple[TrainState, dict[str, Term]]:
    """Every group once, in order, each with its extra updates.

    `batches` maps a group to its streams, with a leading axis of one batch per update.
    """
    metrics: dict[str, Term] = {}
    draw = state.step * updates_per_step(method)
    for group in method.groups:

        def one(state: TrainState, xs: tuple, group: Group = group):
            draw, batch = xs
            return update(method, phase, group, state, batch, draw)

        xs = (draw + jnp.arange(group.updates), batches[group.name])
        state, per_update = jax.lax.scan(one, state, xs)
        metrics |= _add_up(per_update)
        draw += group.updates
    return dataclasses.replace(state, step=state.step + 1), metrics


def train_epoch(
    method: Method,
    phase: Phase,
    batch_sizes: Mapping[str, int],
    steps: int,
    devices: int,
    state: TrainState,
    streams: Mapping[str, Stream],
) -> tuple[TrainState, dict[str, Term]]:
    """`steps` steps as one scan. Batches are a function of the state's key and step alone."""
    per_step = updates_per_step(method)
    indices = {
        name: draw_indices(
            state.key, streams, batch_sizes, name, state.step * per_step, steps * per_step
        ).reshape(steps, per_step, batch_sizes[name])
        for name in streams
    }
    # Each device takes its part of the same global batch.
    device = _device()
    indices = {
        name: jax.lax.dynamic_slice_in_dim(
            drawn, device * (batch_sizes[name] // devices), batch_sizes[name] // devices, axis=2
        )
        for name, drawn in indices.items()
    }

    def one_step(state: TrainState, drawn: dict[str, Array]) -> tuple[TrainState, dict[str, Term]]:
        batches, first = {}, 0
        for group in method.groups:
            part = slice(first, first + group.updates)
            batches[group.name] = {
                name: jax.vmap(streams[name].take)(drawn[name][part]) for name in streams
            }
            first += group.updates
        return train_step(method, phase, state, batches)

    state, per_step_metrics = jax.lax.scan(one_step, state, indices)
    return state, _add_up(per_step_metrics)


def compile_epoch(
    method: Method, phase: Phase, batch_sizes: Mapping[str, int], devices: int, steps: int
) -> Callable[[TrainState, Mapping[str, Stream]], tuple[TrainState, dict[str, Term]]]:
    """`train_epoch` for states with a leading device axis, donated; streams have none."""

    def run(state: TrainState, streams: Mapping[str, Stream]):
        return train_epoch(method, phase, batch_sizes, steps, devices, state, streams)

    return parallel(run, devices)


def parallel(function: Callable, devices: int) -> Callable:
    """`function(state, rest)` under `BATCH_AXIS`: jitted on one device, pmapped on several.

    `devices` counts over all hosts. The state has a leading device axis and is donated.
    """
    own = jax.local_devices()[:devices]
    if devices == 1:
        # Binds the name and maps nothing: mapped products and branches are slower, even over one.
        alone = jax.vmap(function, in_axes=None, out_axes=None, axis_name=BATCH_AXIS, axis_size=1)
        compiled = jax.jit(
            lambda state, rest: replicate(alone(unreplicate(state), rest), 1), donate_argnums=0
        )
        place: Sharding = SingleDeviceSharding(own[0])
    else:
        several_hosts = jax.process_count() > 1  # then all devices of all of them
        compiled = jax.pmap(
            function,
            axis_name=BATCH_AXIS,
            in_axes=(0, None),
            devices=None if several_hosts else own,
            donate_argnums=0,
        )
        place = NamedSharding(Mesh(np.array(own), (BATCH_AXIS,)), PartitionSpec(BATCH_AXIS))
    # Bound to where its results lie; a state that is not would be compiled for a second time.
    return lambda state, rest: compiled(jax.device_put(state, place), rest)


def replicate(tree: Any, devices: int) -> Any:
    """A copy of every leaf for each of this host's `devices`, which count over all hosts."""
    copies = devices // jax.process_count()
    return jax.tree.map(lambda x: jnp.stack([x] * copies), tree)


def unreplicate(tree: Any) -> Any:
    """The first device's copy."""
    return jax.tree.map(lambda x: x[0], tree)


def draw_indices(
    key: Key[Array, ""],
    streams: Mapping[str, Stream],
    batch_sizes: Mapping[str, int],
    name: str,
    first: Int[Array, ""],
    count: int,
) -> Int[Array, "count batch"]:
    """Batches number `first` to `first + count` that a run with this key draws from a stream.

    They come from an endless series of passes, each a fresh permutation, a function of the key and
    the number of the pass; what does not fill a batch is left out of that pass.
    """
    size, batch = streams[name].size, batch_sizes[name]
    key = jax.random.fold_in(jax.random.fold_in(key, _DRAW), sorted(streams).index(name))
    per_pass = size // batch
    passes = -(-count // per_pass) + 1
    first_pass = first // per_pass

    def one_pass(number: Int[Array, ""]) -> Int[Array, "batches batch"]:
        order = jax.random.permutation(jax.random.fold_in(key, number), size)
        return order[: per_pass * batch].reshape(per_pass, batch)

    batches = jax.lax.map(one_pass, first_pass + jnp.arange(passes)).reshape(-1, batch)
    return jax.lax.dynamic_slice_in_dim(batches, first % per_pass, count)


def _device() -> Int[Array, ""] | int:
    """Number of the device; a constant where it is the only one, so that nothing varies by it."""
    return 0 if jax.lax.axis_size(BATCH_AXIS) == 1 else jax.lax.axis_index(BATCH_AXIS)


def _split(tree: dict, paths: tuple[str, ...], without: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """The leaves below `paths` but not below `without`, and the others; both flat."""
    inside: dict[tuple, Array] = {}
    outside: dict[tuple, Array] = {}
    for path, leaf in flatten_dict(tree).items():
        name = "/".join(path)
        owned = any(covers(p, name) for p in paths) and not any(covers(p, name) for p in without)
        (inside if owned else outside)[path] = leaf
    return inside, outside


def _own_collections(old: Variables, new: Variables, group: Group, mode: Mode) -> Variables:
    """`old` with the group's own, unfrozen part of the mutable collections taken from `new`."""
    merged = dict(old)
    for name, collection in new.items():
        own, _ = _split(collection, group.paths, mode.frozen)
        merged[name] = unflatten_dict({**flatten_dict(old[name]), **own})
    return merged


def _first_failure(
    state: TrainState, bad: Bool[Array, "checks"], draw: Int[Array, ""], codes: list[int]
) -> Int[Array, "2"]:
    """The state's failure, or, where it has none, this draw and the first bad check, if any."""
    now = jnp.stack([draw, jnp.asarray(codes, jnp.int32)[jnp.argmax(bad)]])
    return jnp.where((state.failure[0] < 0) & bad.any(), now, state.failure)


def _add_up(metrics: dict[str, Any]) -> dict[str, Term]:
    """Sums and counts over the leading axis."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)
