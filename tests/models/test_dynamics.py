"""HMMR's networks: what they see, how they start, and the published size."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax.models import dynamics

RNG = np.random.default_rng(0)
WIDTH = 128  # four features in each group
SMALL = dynamics.Dynamics(joints=4, components=2, width=WIDTH, hidden=16)
SIZE = 3 + 12 + 2


def noise(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    def all_of_it(model):
        strips = model.strips(jnp.zeros((1, 3, WIDTH)), jnp.ones((1, 3)))
        strips = strips + model.hallucinate(strips)
        return model.around(strips, model.body(strips, deterministic=True), deterministic=True)

    return jax.jit(lambda key: SMALL.init(key, method=all_of_it))(jax.random.key(0))


def stirred(tree):
    """Weights with nothing near zero."""
    return jax.tree.map(lambda x: x + 0.1 * noise(*x.shape), tree)


def test_a_strip_sees_thirteen_frames(variables):
    stirred_ = stirred(variables)
    run = jax.jit(lambda x, mask: SMALL.apply(stirred_, x, mask, method="strips"))
    clip, mask = noise(1, 21, WIDTH), jnp.ones((1, 21))
    first = run(clip, mask)
    changed = np.abs(run(clip.at[0, 10].add(noise(WIDTH)), mask) - first).max(axis=(0, 2)) > 1e-6
    assert np.flatnonzero(changed).tolist() == list(range(4, 17))


def test_at_first_a_strip_is_its_frame_s_features(variables):
    clip = noise(2, 9, WIDTH)
    strips = jax.jit(lambda x: SMALL.apply(variables, x, jnp.ones((2, 9)), method="strips"))(clip)
    assert_allclose(strips, clip, atol=0.1)


def test_with_a_spread_a_strip_is_first_the_mean_of_its_neighbours(variables):
    """Of those that are there, by a Gaussian's weights."""
    encoder = dynamics.TemporalEncoder(WIDTH, spread=3.0)
    clip, mask = noise(2, 20, WIDTH), jnp.ones((2, 20)).at[1, 9:12].set(0.0)
    params = jax.jit(encoder.init)(jax.random.key(0), clip, mask)
    strips = jax.jit(encoder.apply)(params, clip, mask)
    for row, frame in ((0, 10), (1, 10), (1, 2), (1, 19)):
        near = np.arange(max(frame - 6, 0), min(frame + 7, 20))
        weight = np.exp(-0.5 * ((near - frame) / 3) ** 2) * np.asarray(mask)[row, near]
        expected = np.average(np.asarray(clip)[row, near], axis=0, weights=weight)
        assert_allclose(strips[row, frame], expected, atol=0.1)
    nothing = jax.jit(encoder.apply)(params, clip, 0 * mask)
    assert np.isfinite(nothing).all()


def test_missing_frames_are_as_those_beyond_the_clip(variables):
    stirred_ = stirred(variables)
    run = jax.jit(lambda x, mask: SMALL.apply(stirred_, x, mask, method="strips"))
    clip = noise(1, 12, WIDTH)
    mask = jnp.ones((1, 12)).at[0, 8:].set(0.0)
    assert_allclose(run(clip, mask)[:, :8], run(clip[:, :8], mask[:, :8]), atol=1e-5)


def test_a_block_is_flax_s_group_norm_and_convolution():
    encoder = dynamics.TemporalEncoder(32, blocks=1, groups=8)
    x = noise(2, 7, 32)
    params = stirred(jax.jit(encoder.init)(jax.random.key(0), x, jnp.ones((2, 7))))["params"]
    found = jax.jit(encoder.apply)({"params": params}, x, jnp.ones((2, 7)))
    expected = x
    for i in range(2):
        norm = nn.GroupNorm(8)  # of each frame by itself, as rows
        rows = norm.apply({"params": params[f"GroupNorm_{i}"]}, expected.reshape(14, 32))
        own = params[f"Dense_{i}"]
        conv = nn.Conv(32, (3,), precision="highest")
        kernel = {"kernel": own["kernel"].reshape(3, 32, 32), "bias": own["bias"]}
        expected = conv.apply({"params": kernel}, nn.relu(rows).reshape(2, 7, 32))
    assert_allclose(found, x + expected, rtol=1e-4, atol=1e-4)


def test_the_first_bodies_are_the_start_and_other_times_are_now(variables):
    strips = noise(2, 5, WIDTH)
    theta = SMALL.apply(variables, strips, deterministic=True, method="body")
    assert theta.shape == (2, 5, SIZE)
    expected = np.zeros((2, 5, SIZE))
    expected[..., 0] = 1
    assert_allclose(theta, expected, atol=0.2)
    other = theta + noise(*theta.shape)
    poses = SMALL.apply(variables, strips, other, deterministic=True, method="around")
    assert poses.shape == (2, 5, 2, 12)
    for number in range(2):
        assert_allclose(poses[:, :, number], other[..., 3:15], atol=0.2)


def test_error_feedback_is_the_same_layers_three_times():
    regressor = dynamics.Regressor(outputs=5, hidden=8)
    features, start = noise(4, 6), noise(4, 5)
    params = stirred(regressor.init(jax.random.key(0), features, start, deterministic=True))
    found = regressor.apply(params, features, start, deterministic=True)
    own, said = jax.tree.map(np.asarray, params["params"]), np.asarray(start, np.float64)
    # Of features and what was said, the first layer has a kernel each.
    kernel = np.concatenate([own["first"]["kernel"], own["first_said"]["kernel"]])
    layer = lambda name, x: x @ own[name]["kernel"] + own[name]["bias"]  # noqa: E731
    for _ in range(3):
        x = np.concatenate([features, said], axis=-1) @ kernel + own["first"]["bias"]
        said = said + layer("last", np.maximum(layer("second", np.maximum(x, 0)), 0))
    assert_allclose(found, said, rtol=1e-4, atol=1e-4)


def test_each_time_has_weights_of_its_own_and_the_hallucinator_sees_one_frame(variables):
    names = set(variables["params"])
    assert names == {"encoder", "hallucinator", "start", "now", "deltas_0", "deltas_1"}
    features = noise(1, 3, WIDTH)
    stirred_ = stirred(variables)
    run = lambda x: SMALL.apply(stirred_, x, method="hallucinate")  # noqa: E731
    changed = np.abs(run(features.at[0, 1].add(1.0)) - run(features)).max(axis=(0, 2)) > 1e-6
    assert changed.tolist() == [False, True, False]


def test_the_published_size():
    """Some 75 million weights over time, and 85 numbers a body."""
    model = dynamics.Dynamics()
    assert model.size == 85

    encoder = dynamics.TemporalEncoder()
    found = jax.eval_shape(
        encoder.init, jax.random.key(0), jnp.zeros((1, 20, 2048)), jnp.ones((1, 20))
    )
    kernels = [x.size for x in jax.tree.leaves(found) if x.ndim == 2]
    assert sum(kernels) == 6 * 3 * 2048**2
    assert len(kernels) == 6
