"""The methods on one device and on four: the same loss and gradients, other dropout masks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pose3d_jax import methods
from pose3d_jax.epoch import compile_epoch, replicate, unreplicate
from pose3d_jax.methods.base import Aux, Info, Mode
from pose3d_jax.methods.supervised import Supervised
from tests import scenes
from tests.toys import ClipStream, constant, fresh, phase

INFO = Info(scenes.H36M, scenes.H36M)
METHODS = {
    "supervised": {"pose": 1.0, "root": 0.1},
    "multiview": {"self": 1.0, "cross": 1.0, "consistency": 0.1},
}


def uneven(size=32):
    """Clips of which the later ones show and label ever less: nothing, in the last eighth."""
    clip = scenes.batch(size)
    rng = np.random.default_rng(0)
    share = np.clip(np.linspace(1.1, -0.15, size), 0, 1)

    def shown(shape):
        return jnp.asarray(rng.uniform(size=shape) < share.reshape(-1, *[1] * (len(shape) - 1)))

    seen = shown(clip.observations.confidence.shape).astype(jnp.float32)
    valid = shown(clip.labels.joints_valid.shape).astype(jnp.float32)
    observations = dataclasses.replace(clip.observations, confidence=seen)
    return dataclasses.replace(
        clip,
        observations=observations,
        labels=dataclasses.replace(
            clip.labels, joints_valid=valid, joints=clip.labels.joints * valid[..., None]
        ),
    )


def one_step(method, weights, clip, devices, mode, variables=None):
    """The state after a step that moves nothing and keeps its gradient, and the metrics."""
    phase_ = phase(
        weights, mode=mode, optimizer=optax.trace(decay=0.0), learning_rate=constant(0.0)
    )
    streams = {"main": ClipStream(clip)}
    sizes = {"main": clip.recording.shape[0]}
    state = fresh(method, phase_, streams_batch(streams), jax.random.key(0))
    run = compile_epoch(method, phase_, sizes, devices, 1)
    return run(replicate(state, devices), streams)


def streams_batch(streams):
    return {name: stream.take(jnp.arange(1)) for name, stream in streams.items()}


@pytest.mark.parametrize("statistics", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradients_agree_to_a_hundred_thousandth(name, statistics):
    method = methods.create({"name": name, "width": 64}, INFO)
    found = {}
    for devices in (1, 4):
        state, metrics = one_step(
            method, METHODS[name], uneven(), devices, Mode(update_statistics=statistics)
        )
        gradient = unreplicate(state.optimizer["lifter"]).trace
        loss = unreplicate(metrics["lifter/loss"])[0]
        found[devices] = jax.device_get((loss, gradient))
    (loss, gradient), (other_loss, other) = found[1], found[4]
    np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
    whole = float(optax.tree.norm(gradient))
    assert whole > 0
    for path, leaf in gradient.items():
        # A bias before a batch norm has a gradient of rounding alone.
        scale = max(float(np.linalg.norm(leaf)), 1e-4 * whole)
        assert np.linalg.norm(other[path] - leaf) <= 1e-5 * scale, path


def test_the_devices_counts_were_uneven():
    counts = np.asarray(uneven().observations.confidence).reshape(4, -1).sum(axis=1)
    assert counts.max() > 3 * counts.min()


@pytest.mark.slow
@dataclasses.dataclass(frozen=True)
class Probed(Supervised):
    """Leaves what its own device predicted in a collection of its own."""

    def init(self, key, batch) -> dict[str, Any]:
        return {**super().init(key, batch), "probe": {"lifter": {"seen": jnp.zeros(())}}}

    def terms(self, variables, batch, key, step, *, group, mode):
        flax_variables = {name: variables[name] for name in ("params", "batch_stats")}
        terms, aux = super().terms(flax_variables, batch, key, step, group=group, mode=mode)
        joints, _ = self.lift(flax_variables, batch["main"].observations, key, mode)
        probe = {"probe": {"lifter": {"seen": jnp.mean(joints[..., 2])}}}
        return terms, Aux({**aux.collections, **probe}, aux.diagnostics)


@pytest.mark.parametrize(("dropout", "different"), [(True, 4), (False, 1)])
def test_dropout_masks_differ_by_device_and_nothing_else_does(dropout, different):
    """Every device gets the same clip over and over."""
    clip = jax.tree.map(lambda x: jnp.repeat(x[:1], 8, axis=0), scenes.batch(1))
    state, _ = one_step(
        Probed(info=INFO, width=64), METHODS["supervised"], clip, 4, Mode(dropout=dropout)
    )
    seen = np.asarray(state.variables["probe"]["lifter"]["seen"])
    assert len(set(seen.tolist())) == different
