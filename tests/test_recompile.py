"""A compiled step stays compiled, whatever its state has been through."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pose3d_jax import inference, methods, scoring
from pose3d_jax.data.poses import PoseSet
from pose3d_jax.epoch import compile_epoch, replicate, unreplicate
from pose3d_jax.methods.base import Info, Mode
from pose3d_jax.schema import Prediction
from pose3d_jax.state import init_state
from tests import scenes
from tests.guards import no_compilation
from tests.toys import ClipStream, constant, phase

INFO = Info(scenes.H36M, scenes.H36M)


def make(name="multiview"):
    return methods.create({"name": name, "width": 16}, INFO)


def test_guard_catches_a_compilation_and_names_it():
    doubled = jax.jit(lambda x: 2 * x)
    three, four = jnp.zeros(3), jnp.zeros(4)
    with pytest.raises(AssertionError, match=r"compiled: .*lambda"), no_compilation():
        doubled(three)
    with no_compilation():
        doubled(three)
    with pytest.raises(AssertionError, match=r"compiled: .*lambda"), no_compilation():
        doubled(four)


def test_guard_stops_listening_and_hides_no_error(monkeypatch):
    listening = []

    def watch(name, record):
        original = getattr(jax.monitoring, name)
        monkeypatch.setattr(jax.monitoring, name, lambda f: (record(f), original(f)))

    watch("register_event_duration_secs_listener", listening.append)
    watch("unregister_event_duration_listener", listening.remove)
    with no_compilation():
        assert len(listening) == 1
    assert not listening
    with pytest.raises(IndexError, match="no such leaf"), no_compilation():
        jax.jit(lambda x: _refuse())(np.zeros(5))
    assert not listening


def _refuse():
    raise IndexError("no such leaf")


def on_host(tree):
    """As numpy arrays, but for random keys, which have no such form."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), tree)


# What a state goes through between two calls: nothing; a phase's start; a checkpoint, which is
# restored as numpy or as arrays bound to a device.
PASSAGES = {
    "returned": lambda state, devices: state,
    "replicated anew": lambda state, devices: replicate(unreplicate(state), devices),
    "from the host": lambda state, devices: replicate(on_host(unreplicate(state)), devices),
    "with a new optimiser": lambda state, devices: dataclasses.replace(
        state,
        optimizer=replicate(jax.tree.map(jnp.zeros_like, unreplicate(state.optimizer)), devices),
    ),
    "bound to a device": lambda state, devices: replicate(
        jax.device_put(unreplicate(state), jax.devices()[0]), devices
    ),
}


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_step_is_compiled_once(devices):
    method = make()
    phase_ = phase(
        {"self": 1.0, "cross": 1.0, "consistency": 0.1},
        mode=Mode(dropout=True, update_statistics=True),
        optimizer=optax.adam(1.0),
        learning_rate=constant(1e-3),
    )
    streams = {"main": ClipStream(scenes.batch(size=16, views=2))}
    batch = {"main": streams["main"].take(jnp.arange(1))}
    fresh = jax.jit(lambda key: init_state(method, phase_, batch, key, False))
    run = compile_epoch(method, phase_, {"main": 8}, devices, 2)
    state, _ = run(replicate(fresh(jax.random.key(0)), devices), streams)
    for name, passage in PASSAGES.items():
        state = passage(state, devices)
        jax.block_until_ready(state)
        # Where a bound leaf is cut up for the devices, that is a small program of its own.
        cutting = ("jit(_multi_slice)",) if name == "bound to a device" else ()
        with no_compilation(cutting):
            state, _ = run(state, streams)
    assert int(state.step[0]) == 2 * (1 + len(PASSAGES))


def test_evaluation_is_compiled_once():
    frames = scenes.batch(size=6, views=3)
    variables = jax.jit(make().init)(jax.random.key(0), {"main": frames})
    mean, fps = jnp.zeros((17, 3)), jnp.full(4, 30.0)
    poses = PoseSet(
        *jax.tree.map(lambda x: x[:, 0], (frames.observations, frames.labels)),
        *(jnp.full(4, value, jnp.int32) for value in (0, 0, 6, 0)),
        window=1,
    )
    for seed, restored in enumerate([variables, variables, on_host(variables)]):
        clip = scenes.batch(size=6, views=3, seed=seed)
        # The method is made anew, as for another evaluation: it is equal, and that must do.
        method = make()
        with contextlib.nullcontext() if seed == 0 else no_compilation():
            inference._lift(method, method.info, False, restored, poses)
            predicted = Prediction(clip.observations.keypoints @ np.zeros((2, 3), np.float32))
            scoring.eval_step(method.info, clip, predicted, mean, {}, fps)
