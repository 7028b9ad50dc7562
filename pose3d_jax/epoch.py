"""Where training is jitted and pmapped: batches drawn, many steps as one compiled call.

Arguments that differ by device carry a leading device axis. Every device holds the whole data set
and takes its own part of the same global batch, so that the number of devices changes the speed and
nothing else (except for the draws of dropout, augmentation and what is hidden).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import Array, Int, Key

from pose3d_jax.cameras import Leaf
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Method
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Clip, with_pixels
from pose3d_jax.state import DRAW, Phase, TrainState, updates_per_step
from pose3d_jax.step import add_up, own_device, repeat, train_step


@runtime_checkable
class Stream(Protocol):
    """Examples that live on the device: a pytree that can be indexed."""

    @property
    def size(self) -> int:
        """Number of examples."""

    def take(self, indices: Int[Array, "batch"]) -> Clip:
        """The examples as one batch."""


def train_epoch(
    method: Method,
    phase: Phase,
    batch_sizes: Mapping[str, int],
    steps: int,
    devices: int,
    state: TrainState,
    streams: Mapping[str, Stream],
    pixels: Mapping[str, Leaf] | None = None,
) -> tuple[TrainState, dict[str, Term]]:
    """`steps` steps as one scan. Batches are a function of the state's key and step alone.

    `pixels`: of streams with pictures those of all these steps' batches, in turn.
    """
    per_step = updates_per_step(method)
    indices = {
        name: draw_indices(
            state.key, streams, batch_sizes, name, state.step * per_step, steps * per_step
        ).reshape(steps, per_step, batch_sizes[name])
        for name in streams
    }
    # Each device takes its part of the same global batch.
    device = own_device()

    def part_of(drawn: Array, name: str) -> Array:
        share = batch_sizes[name] // devices
        return jax.lax.dynamic_slice_in_dim(drawn, device * share, share, axis=2)

    indices = {name: part_of(drawn, name) for name, drawn in indices.items()}
    shown = {
        name: part_of(x.reshape(steps, per_step, *x.shape[1:]), name)
        for name, x in (pixels or {}).items()
    }

    def one_step(
        state: TrainState, drawn: tuple[dict[str, Array], dict[str, Array]]
    ) -> tuple[TrainState, dict[str, Term]]:
        indices, shown = drawn
        batches, first = {}, 0
        for group in method.groups:
            part = slice(first, first + group.updates)
            own = {name: jax.vmap(streams[name].take)(indices[name][part]) for name in streams}
            batches[group.name] = own | {
                name: dataclasses.replace(
                    own[name], observations=with_pixels(own[name].observations, x[part])
                )
                for name, x in shown.items()
            }
            first += group.updates
        return train_step(method, phase, state, batches)

    state, per_step_metrics = repeat(one_step, state, (indices, shown))
    return state, add_up(per_step_metrics)


def compile_epoch(
    method: Method, phase: Phase, batch_sizes: Mapping[str, int], devices: int, steps: int
) -> Callable[..., tuple[TrainState, dict[str, Term]]]:
    """`train_epoch`, as a function of a state, streams and pixels.

    The state has a leading device axis, and is donated; the others have none.
    """

    def run(state: TrainState, rest: tuple[Mapping[str, Stream], Mapping[str, Leaf]]):
        return train_epoch(method, phase, batch_sizes, steps, devices, state, *rest)

    compiled = parallel(run, devices)

    def call(
        state: TrainState, streams: Mapping[str, Stream], pixels: Mapping[str, Leaf] | None = None
    ) -> Any:
        return compiled(state, (streams, pixels or {}))

    return call


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

    def there(leaf: Any) -> bool:
        if isinstance(leaf, jax.core.Tracer):
            return True
        return getattr(leaf, "committed", False) and leaf.sharding == place

    def call(state: TrainState, rest: Any) -> Any:
        # Bound to where its results lie; a state that is not would be compiled for a second time.
        # To put what is there already takes 20 times as long as to look.
        if not all(map(there, jax.tree.leaves(state))):
            state = jax.device_put(state, place)
        return compiled(state, rest)

    return call


def replicate(tree: Any, devices: int) -> Any:
    """A copy of every leaf for each of this host's `devices`, which count over all hosts."""
    copies = devices // jax.process_count()
    return jax.tree.map(lambda x: jnp.stack([x] * copies), tree)


def unreplicate(tree: Any) -> Any:
    """The first device's copy."""
    return jax.tree.map(lambda x: x[0], tree)


def to_host(tree: Any) -> Any:
    """This host's first device's copy, as NumPy's; without a program for every leaf."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], tree)


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
    key = stream_key(key, streams, name)
    per_pass = size // batch
    passes = -(-count // per_pass) + 1
    first_pass = first // per_pass

    def one_pass(number: Int[Array, ""]) -> Int[Array, "batches batch"]:
        return pass_order(key, number, size)[: per_pass * batch].reshape(per_pass, batch)

    batches = jax.lax.map(one_pass, first_pass + jnp.arange(passes)).reshape(-1, batch)
    return jax.lax.dynamic_slice_in_dim(batches, first % per_pass, count)


def stream_key(key: Key[Array, ""], streams: Mapping[str, Any], name: str) -> Key[Array, ""]:
    """What a stream's passes are drawn with, of the state's key."""
    return jax.random.fold_in(jax.random.fold_in(key, DRAW), sorted(streams).index(name))


def pass_order(
    key: Key[Array, ""], number: Int[Array, ""] | int, size: int
) -> Int[Array, "examples"]:
    """The order of a stream's examples in a pass, of the stream's key."""
    return jax.random.permutation(jax.random.fold_in(key, number), size)
