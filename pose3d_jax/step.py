"""One step of training: each group of parameters in turn, by the gradient of its terms.

Everything runs under the axis `BATCH_AXIS`, on one device as on several.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int, Key

from pose3d_jax.geometry import safe_divide
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Group, Method, Mode, Variables, covers
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Clip
from pose3d_jax.state import (
    AUGMENT,
    AUGMENTED,
    DISTURB,
    PICTURE,
    UPDATE,
    Phase,
    TrainState,
    split,
    term_names,
    updates_per_step,
)


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
    trained, fixed = split(params, group.paths, phase.mode.frozen)

    def own_key(use: int) -> Key[Array, ""]:
        return jax.random.fold_in(
            jax.random.fold_in(jax.random.fold_in(state.key, use), draw), own_device()
        )

    key = own_key(UPDATE)
    if phase.augment is not None:
        for number, name in enumerate(n for n in AUGMENTED if n in batch):
            augment_key = own_key(AUGMENT)
            augment_key = jax.random.fold_in(augment_key, number) if number else augment_key
            batch = {**batch, name: phase.augment(batch[name], augment_key)}
    if phase.picture is not None:
        for number, name in enumerate(sorted(batch)):
            picture_key = jax.random.fold_in(own_key(PICTURE), number)
            batch = {**batch, name: phase.picture(batch[name], picture_key)}
    if phase.disturb is not None:
        batch = {**batch, "shown": phase.disturb(batch["main"], own_key(DISTURB))}
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
        owned, _ = split(params, group.paths)
        whole = {path: gradient.get(path, jnp.zeros_like(owned[path])) for path in owned}
        steps, optimizer = phase.optimizer.update(whole, state.optimizer[group.name], owned)
        rate = phase.learning_rate(phase_step)
        moved = {
            path: owned[path] + rate * own_rate(phase.rates, group, path) * steps[path]
            for path in trained
        }
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
    norms = gradient_norms(gradient, phase.gradient_norms)
    logged = {**terms, **diagnostics, **{name: (norm, one) for name, norm in norms.items()}}
    metrics = {f"{group.name}/{name}": term for name, term in logged.items()}
    return new_state, {**metrics, f"{group.name}/loss": (loss, one)}


def own_rate(rates: Mapping[str, float], group: Group, path: tuple[str, ...]) -> float:
    """The factor on a parameter's learning rate: its group's, times those of what it is part of."""
    name = "/".join(path)
    own = (factor for of, factor in rates.items() if of == group.name or covers(of, name))
    return math.prod(own, start=1.0)


def gradient_norms(
    gradient: Mapping[tuple[str, ...], Float[Array, "..."]], depth: int
) -> dict[str, Float[Array, ""]]:
    """Norms of a gradient's parts, by the first `depth` names of their paths; none for 0."""
    parts: dict[str, list[Array]] = {}
    for path, leaf in gradient.items():
        parts.setdefault("gradient/" + "/".join(path[:depth]), []).append(leaf)
    return {name: optax.tree.norm(leaves) for name, leaves in parts.items()} if depth else {}


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
        state, per_update = repeat(one, state, xs)
        metrics |= add_up(per_update)
        draw += group.updates
    return dataclasses.replace(state, step=state.step + 1), metrics


def repeat(one: Callable[[Any, Any], tuple[Any, Any]], state: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan`, but of a single turn no loop.

    In loops a processor computes convolutions on one thread, by naive code: 30 times as long.
    """
    if len(jax.tree.leaves(xs)[0]) > 1:
        return jax.lax.scan(one, state, xs)
    state, found = one(state, jax.tree.map(lambda x: x[0], xs))
    return state, jax.tree.map(lambda x: x[None], found)


def own_device() -> Int[Array, ""] | int:
    """Number of the device; a constant where it is the only one, so that nothing varies by it."""
    return 0 if jax.lax.axis_size(BATCH_AXIS) == 1 else jax.lax.axis_index(BATCH_AXIS)


def _own_collections(old: Variables, new: Variables, group: Group, mode: Mode) -> Variables:
    """`old` with the group's own, unfrozen part of the mutable collections taken from `new`."""
    merged = dict(old)
    for name, collection in new.items():
        own, _ = split(collection, group.paths, mode.frozen)
        merged[name] = unflatten_dict({**flatten_dict(old[name]), **own})
    return merged


def _first_failure(
    state: TrainState, bad: Bool[Array, "checks"], draw: Int[Array, ""], codes: list[int]
) -> Int[Array, "2"]:
    """The state's failure, or, where it has none, this draw and the first bad check, if any."""
    now = jnp.stack([draw, jnp.asarray(codes, jnp.int32)[jnp.argmax(bad)]])
    return jnp.where((state.failure[0] < 0) & bad.any(), now, state.failure)


def add_up(metrics: dict[str, Any]) -> dict[str, Term]:
    """Sums and counts over the leading axis."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)
