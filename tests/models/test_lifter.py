"""The lifter's parametrisation, and the shared batch norm and dropout."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose3d_jax.models.layers import BATCH_AXIS, BatchNorm, Dropout
from pose3d_jax.models.lifter import Lifter

LIFTER = Lifter(joints=17, root=0, keypoint_root=0, width=32)
RNG = np.random.default_rng(0)
POINTS = jnp.asarray(RNG.uniform(-0.3, 0.3, (6, 17, 2)), jnp.float32)
SEEN = jnp.ones((6, 17))


def lift(points=POINTS, seen=SEEN, scale=1.0, lifter=LIFTER):
    variables = lifter.init(jax.random.key(0), points, seen, dropout=False, update_statistics=False)
    params = dict(variables["params"])
    output = max(params, key=lambda name: int(name.split("_")[1]) if "Dense" in name else -1)
    params[output] = jax.tree.map(lambda x: x * scale, params[output])
    variables = {**variables, "params": params}
    return lifter.apply(variables, points, seen, dropout=False, update_statistics=False)


def test_training_starts_with_a_folded_body_at_the_root_depth():
    joints = lift()
    np.testing.assert_allclose(joints[:, 0, 2], 4.0, atol=0.1)
    assert jnp.abs(joints - joints[:, :1]).max() < 0.15


def test_root_lies_on_the_ray_of_its_point_however_wild_the_network():
    joints = lift(scale=1e4)
    np.testing.assert_allclose(
        joints[:, 0, :2], joints[:, 0, 2:] * POINTS[:, 0], rtol=1e-5, atol=1e-6
    )
    assert joints[:, 0, 2].min() >= 0
    assert jnp.abs(joints - joints[:, :1]).max() <= 1.5 + 1e-4


CENTRED = Lifter(joints=17, root=0, keypoint_root=0, width=32, centred=True)


def test_a_centred_lifter_keeps_the_root_on_its_ray():
    joints = lift(scale=1e3, lifter=CENTRED)
    np.testing.assert_allclose(
        joints[:, 0, :2], joints[:, 0, 2:] * POINTS[:, 0], rtol=1e-4, atol=1e-5
    )
    assert jnp.linalg.norm(joints - joints[:, :1], axis=-1).max() <= 1.5 * 3**0.5 + 1e-4


def test_where_in_the_image_a_person_is_does_not_matter_to_a_centred_lifter():
    """The same view from a camera that looks past the person: the same joints, turned."""
    looking_at = POINTS.at[:, 0].set(0.0)
    past = np.zeros((6, 3, 3))
    for i, (x, y) in enumerate(RNG.uniform(-0.4, 0.4, (6, 2))):
        ray = np.array([x, y, 1]) / np.linalg.norm([x, y, 1])
        axis = np.cross([0, 0, 1], ray)
        angle = np.arcsin(np.linalg.norm(axis))
        past[i] = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    rays = np.concatenate([looking_at, np.ones((6, 17, 1))], axis=-1)
    turned = np.einsum("nij,nkj->nki", past, rays)
    points = jnp.asarray(turned[..., :2] / turned[..., 2:], jnp.float32)
    expected = np.einsum("nij,nkj->nki", past, lift(looking_at, scale=30.0, lifter=CENTRED))
    found = lift(points, scale=30.0, lifter=CENTRED)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_centred_lifter_starts_farther_off_where_a_person_is_smaller():
    near, far = (lift(factor * POINTS.at[:, 0].set(0.0), lifter=CENTRED) for factor in (1, 0.5))
    np.testing.assert_allclose(far[:, 0, 2] / near[:, 0, 2], 2.0, rtol=0.05)
    spread = np.sqrt(np.mean(np.sum(POINTS.at[:, 0].set(0.0) ** 2, -1), -1))
    np.testing.assert_allclose(near[:, 0, 2], 4.0 * 0.13 / spread, rtol=0.05)


@pytest.mark.parametrize("seen", [0.0, 1.0])
def test_a_centred_lifter_is_finite_for_points_that_coincide_or_are_not_seen(seen):
    assert jnp.isfinite(lift(0 * POINTS, seen * SEEN, lifter=CENTRED)).all()


def test_missing_root_point_is_replaced_by_the_mean_of_the_others():
    seen = SEEN.at[:, 0].set(0.0)
    joints = lift(seen=seen)
    ray = joints[:, 0, :2] / joints[:, 0, 2:]
    np.testing.assert_allclose(ray, POINTS[:, 1:].mean(1), atol=0.05)
    hidden = POINTS.at[:, 0].set(7.0)
    np.testing.assert_array_equal(joints, lift(points=hidden, seen=seen))


def test_view_that_sees_nothing_is_finite():
    assert jnp.isfinite(lift(seen=jnp.zeros_like(SEEN))).all()


def norm(x, mask, axis_size=1):
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x, mask, False)
    split = lambda a: a.reshape(axis_size, -1, *a.shape[1:])  # noqa: E731
    out, new = jax.vmap(
        lambda x, m: layer.apply(variables, x, m, True, mutable=["batch_stats"]),
        axis_name=BATCH_AXIS,
    )(split(x), split(mask))
    return out.reshape(x.shape), new["batch_stats"]


def test_batch_norm_is_flax_s_where_nothing_is_masked():
    x = jnp.asarray(RNG.normal(2, 3, (24, 5)), jnp.float32)
    out, stats = norm(x, jnp.ones(24))
    layer = nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    expected, new = layer.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(out, expected, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(stats[name][0], new["batch_stats"][name], rtol=1e-5)


def test_batch_norm_ignores_masked_rows_and_the_number_of_devices():
    x = jnp.asarray(RNG.normal(2, 3, (24, 5)), jnp.float32)
    mask = (jnp.arange(24) < 9).astype(jnp.float32)  # none at all for some devices
    kept = x[:9]
    expected = (x - kept.mean(0)[None]) / jnp.sqrt(kept.var(0) + 1e-5)[None]
    for devices in (1, 4):
        out, stats = norm(x.at[9:].multiply(1e3), mask, devices)
        np.testing.assert_allclose(out[:9], expected[:9], atol=1e-5)
        np.testing.assert_allclose(stats["mean"][0], 0.1 * kept.mean(0), rtol=1e-5)


def dropped(rate, shape=(64, 3, 500), key=0, dtype=jnp.float32):
    rngs = {"dropout": jax.random.key(key)}
    return Dropout(rate).apply({}, jnp.ones(shape, dtype), deterministic=False, rngs=rngs)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    out = np.asarray(dropped(rate))
    share = (out == 0).mean()
    assert share == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / out.size))
    # What is kept is scaled by what the rate was rounded to.
    assert np.unique(out[out > 0]) == pytest.approx([1 / (1 - rate)], rel=1e-2)
    assert Dropout(rate).apply({}, jnp.ones(3), deterministic=True).tolist() == [1, 1, 1]


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1])
def test_dropped_units_are_independent_of_one_another_and_of_other_keys(rate):
    shape = (64, 512)  # as many units as words, parts of words and rows can line up with
    mask = np.asarray(dropped(rate, shape) > 0).astype(float).reshape(-1)
    deviation = mask - mask.mean()
    limit = 6 * deviation.var() / np.sqrt(mask.size)
    for distance in (1, 2, 31, 32, 64, 512, 1024, 2048, 4096, 8192):
        assert abs((deviation * np.roll(deviation, distance)).mean()) < limit
    other = np.asarray(dropped(rate, shape, key=1) > 0).astype(float).reshape(-1)
    assert abs((deviation * (other - other.mean())).mean()) < limit
    np.testing.assert_array_equal(dropped(rate), dropped(rate))


def test_layers_keep_the_type_of_their_input():
    assert dropped(0.5, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    x = jnp.asarray(RNG.normal(2, 3, (24, 5)), jnp.bfloat16)
    out, stats = norm(x, jnp.ones(24))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(stats["mean"][0], 0.1 * x.astype(jnp.float32).mean(0), rtol=1e-5)
