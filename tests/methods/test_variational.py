"""The conditional VAE: its density, what a prediction sees, and a case with two answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose
from scipy import integrate

from configs import cmu_vae
from pose3d_jax import cameras as cam
from pose3d_jax import methods, train
from pose3d_jax.methods import variational
from pose3d_jax.methods.base import Info, MethodError, Mode
from pose3d_jax.methods.monocular import truth_of
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Clip, Labels
from pose3d_jax.skeleton import Skeleton
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)
TERMS = ("pose", "kl", "root", "energy", "reprojection")


def make(info=INFO, **settings):
    given = {"name": "variational", "width": 32, "blocks": 1, "latent": 3, "samples": 4, **settings}
    return methods.create(given, info)


def terms(method, variables, clip, key=0, names=TERMS, mode=Mode(training=True)):  # noqa: B008
    group = dataclasses.replace(method.groups[0], terms=names)

    def call(variables, clip, key):
        return method.terms(variables, {"main": clip}, key, jnp.int32(0), group=group, mode=mode)

    over_devices = jax.vmap(call, in_axes=(None, 0, None), axis_name=BATCH_AXIS)
    out, aux = over_devices(variables, jax.tree.map(lambda x: x[None], clip), jax.random.key(key))
    return jax.tree.map(lambda x: x[0], (out, aux))


def test_the_density_is_one_and_has_the_covariance_that_is_stated():
    """exp(-d / s) / (8 pi s^3), over all of space."""
    s = 0.03
    radial = lambda d, k: 4 * np.pi * d ** (2 + k) * np.exp(-d / s) / (8 * np.pi * s**3)  # noqa: E731
    whole, _ = integrate.quad(radial, 0, 3, args=(0,), points=[0.1])
    assert_allclose(whole, 1.0, rtol=1e-6)
    squares, _ = integrate.quad(radial, 0, 3, args=(2,), points=[0.1])
    found = variational.own_covariance(jnp.array([0.5, s]), root=0)
    assert_allclose(found[1], squares / 3 * np.eye(3), rtol=1e-5)
    assert not found[0].any()


def test_the_spread_of_hypotheses_is_numpy_s_covariance():
    samples = np.random.default_rng(0).normal(size=(20, 2, 5, 3)).astype(np.float32)
    found = variational.spread(jnp.asarray(samples), root=1)
    relative = samples - samples[:, :, [1]]
    assert_allclose(found[1, 3], np.cov(relative[:, 1, 3].T), rtol=1e-4)
    assert not found[:, 1].any()


def test_reconstruction_is_minus_the_log_of_that_density():
    clip = scenes.batch(size=2, views=2)
    method = make()
    truth, valid = truth_of(clip, method.root)
    rng = np.random.default_rng(0)
    joints = truth + jnp.asarray(rng.normal(size=truth.shape), jnp.float32) * 0.05
    scale = rng.uniform(0.02, 0.1, 17).astype(np.float32)
    count = jnp.ones(truth.shape[:3]).at[0, 0, 0].set(0.0)
    total, poses = method._likelihood(joints, truth, valid, jnp.log(scale), count)
    off = np.asarray(joints - truth)
    away = np.linalg.norm(off - off[..., :1, :], axis=-1)
    each = away / scale + 3 * np.log(scale) + np.log(8 * np.pi)
    expected = (each[..., 1:] * np.asarray(count)[..., None]).sum()
    assert_allclose(total, expected, rtol=1e-4)
    assert poses == 3


def test_the_energy_score_of_the_truth_is_0_and_drawing_alike_is_no_gain():
    clip = scenes.batch(size=2, views=2)
    method = make()
    truth, valid = truth_of(clip, method.root)
    count, log_scale = jnp.ones(truth.shape[:3]), jnp.zeros(17)
    score = lambda a, b: method._energy(a, b, truth, valid, log_scale, count)[0]  # noqa: E731
    assert score(truth, truth) == 0
    right, left = (truth.at[..., 5, 0].add(0.1 * sign) for sign in (1, -1))
    # Two guesses on either side cost half of what the same wrong one twice does.
    assert_allclose(score(right, right), 4 * 0.1, rtol=1e-3)
    assert_allclose(score(right, left), 0.0, atol=1e-3)


@pytest.mark.parametrize("kind", ["dense", "convolution", "graph"])
def test_a_prediction_sees_its_view_alone_and_lies_on_its_rays(kind):
    frames = 4 if kind == "convolution" else 1
    clip = scenes.batch(size=2, views=2, frames=frames)
    method = make(kind=kind)
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
    observations = clip.observations
    predict = jax.jit(method.predict)
    found = predict(variables, observations, jax.random.key(1))
    assert found.samples.shape == (4, 2, frames, 2, 17, 3)
    assert found.covariance.shape == (2, frames, 2, 17, 3, 3)
    changed = dataclasses.replace(
        observations, keypoints=observations.keypoints.at[:, :, 1].multiply(1.3)
    )
    other = predict(variables, changed, jax.random.key(1))
    assert_allclose(found.samples[:, :, :, 0], other.samples[:, :, :, 0], atol=1e-6)
    assert not np.allclose(found.samples[:, :, :, 1], other.samples[:, :, :, 1])
    # All hypotheses see what is seen.
    pixels = cam.batched(lambda camera, x: cam.to_pixels(camera, cam.perspective(x)))
    for sample in found.samples:
        off = pixels(observations.cameras, sample) - observations.keypoints
        assert np.abs(off).max() < 0.1


def test_terms_see_what_they_say_and_gradients_are_finite():
    clip = scenes.batch(size=3, views=3)
    blank = clip.observations.confidence.at[0, 0, 0].set(0.0).at[1, 0, 1, 4].set(0.0)
    observations = dataclasses.replace(clip.observations, confidence=blank)
    clip = dataclasses.replace(clip, observations=observations)
    method = make(free_bits=0.1)
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})

    @jax.jit
    def loss(params, clip):
        found, _ = terms(method, {**variables, "params": params}, clip)
        return sum(total / count for total, count in found.values()), found

    (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"], clip)
    assert set(found) == set(TERMS)
    assert {name: float(count) for name, (_, count) in found.items()} == {
        "pose": 8, "kl": 8, "root": 8, "energy": 8, "reprojection": 8,
    }  # fmt: skip
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.abs(leaf).max() > 0 for leaf in leaves)


def test_a_kind_that_there_is_not_is_refused():
    with pytest.raises(MethodError, match="no kind is named 'mlp'; there are dense"):
        make(kind="mlp")


STICK = Skeleton("stick", ("pelvis", "tip"), (-1, 0), 0)


def sticks(key, size):
    """A stick of 0.5 m about the point 4 m before a camera: towards it or away, at random."""
    place_key, sign_key = jax.random.split(key)
    angle, lean = jax.random.uniform(place_key, (2, size), minval=0.5, maxval=1.2)
    depth = jnp.where(jax.random.bernoulli(sign_key, shape=(size,)), 1, -1) * jnp.sin(lean)
    across = jnp.cos(lean)
    tip = 0.5 * jnp.stack([across * jnp.cos(angle), across * jnp.sin(angle), depth], axis=-1)
    joints = jnp.stack([jnp.zeros_like(tip), tip], axis=1)[:, None].at[..., 2].add(4.0)
    blank = jax.tree.map(jnp.zeros_like, scenes.ring(1))
    ideal = dataclasses.replace(
        blank, rotation=jnp.eye(3)[None], focal=jnp.ones((1, 2)), size=jnp.ones((1, 2))
    )
    return Clip(scenes.film(joints, ideal), Labels(joints, jnp.ones((size, 1, 2))), jnp.zeros(size))


@pytest.mark.slow
def test_of_two_answers_both_are_among_the_hypotheses():
    """Which way a stick points along the line of sight its projection does not tell."""
    method = make(Info(STICK, STICK), latent=2, samples=40)
    sample = jax.jit(lambda key: sticks(key, 128))
    first = sample(jax.random.key(0))
    variables = jax.jit(method.init)(jax.random.key(0), {"main": first})
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(variables, state, key):
        clip = sticks(jax.random.key(key), 128)

        def loss(params):
            mode = Mode(training=True, update_statistics=True)
            found, aux = terms(
                method, {**variables, "params": params}, clip, mode=mode,
                names=("pose", "kl", "energy"), key=key,
            )  # fmt: skip
            return sum(total / count for total, count in found.values()), aux.collections

        gradient, collections = jax.grad(loss, has_aux=True)(variables["params"])
        change, state = optimizer.update(gradient, state)
        params = optax.apply_updates(variables["params"], change)
        return {**collections, "params": params}, state

    state = optimizer.init(variables["params"])
    for number in range(600):
        variables, state = step(variables, state, number)
    clip = sample(jax.random.key(1000))
    found = jax.jit(method.predict)(variables, clip.observations, jax.random.key(1))
    relative = lambda x: np.asarray(x[..., 1, :] - x[..., 0, :])  # noqa: E731
    truth = np.asarray(clip.labels.joints[:, :, None])
    off = np.linalg.norm(relative(found.samples) - relative(truth), axis=-1)
    mean_off = np.linalg.norm(relative(found.joints) - relative(truth), axis=-1)
    assert mean_off.mean() > 0.25  # the mean lies between the two
    assert off.min(axis=0).mean() < 0.1 * mean_off.mean()
    away = (relative(found.samples)[..., 2] > 0).mean()
    assert 0.35 < away < 0.65


@pytest.mark.parametrize(
    "argument",
    [
        "tiny",
        pytest.param("tiny,supervision=reprojection,kind=graph", marks=pytest.mark.slow),
        pytest.param("tiny,kind=convolution,window=5", marks=pytest.mark.slow),
    ],
)
def test_the_config_trains_and_predicts(synthetic_set, tmp_path, argument):
    config = cmu_vae.get_config(argument)
    config.data.path = str(synthetic_set)
    config.evaluation.test = ("test",)
    config.phases = config.phases[:1]  # each is compiled by itself
    metrics = train.run(config, tmp_path / "run")
    row = metrics["splits"]["test"]["rows"]["variational"]
    assert 0 < row["p1"]["frames"] < 1.0
