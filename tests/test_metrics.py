"""Pose errors: by hand, against NumPy and SciPy, and under what they must not notice."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pose3d_jax import metrics

JOINTS, ROOT = 17, 0
every_error = jax.jit(partial(metrics.errors, root=ROOT, space="absolute"))


def f32(array):
    return jnp.asarray(np.asarray(array, np.float32))


def vectors(limit):
    return arrays(np.float32, 3, elements=st.floats(-limit, limit, width=32))


def poses(seed, noise=0.1):
    rng = np.random.default_rng(seed)
    truth = 0.5 * rng.standard_normal((JOINTS, 3)) + [0, 0, 4]
    return truth + noise * rng.standard_normal((JOINTS, 3)), truth


def errors(prediction, truth, valid=None):
    valid = np.ones(JOINTS) if valid is None else valid
    return every_error(f32(prediction), f32(truth), f32(valid))


def reference(prediction, truth):
    """Every metric over joints that are all valid, in float64."""
    mean_norm = lambda x: np.linalg.norm(x, axis=-1).mean()  # noqa: E731
    p, t = prediction - prediction[ROOT], truth - truth[ROOT]
    cp, ct = prediction - prediction.mean(0), truth - truth.mean(0)
    turned = Rotation.align_vectors(ct, cp)[0].apply(cp)
    report = p - t
    report[ROOT] = (prediction - truth)[ROOT]
    return {
        "p1": mean_norm(p - t),
        "p2": mean_norm(np.sum(turned * ct) / np.sum(cp * cp) * turned - ct),
        "n_mpjpe": mean_norm(np.sum(p * t) / np.sum(p * p) * p - t),
        "absolute": mean_norm(prediction - truth),
        "mpjpe_report": mean_norm(report),
    }


# ------------------------------------------------------------------------------------- values


def test_known_answers():
    truth = f32([[0, 0, 4], [1, 0, 4], [0, 1, 4], [0, 0, 5]])
    valid = jnp.ones(4)
    shifted = truth + jnp.array([[0.0, 3.0, 4.0]])
    bent = truth.at[3, 0].add(0.4)
    doubled = truth[:1] + 2 * (truth - truth[:1])
    assert_allclose(metrics.mpjpe_absolute(shifted, truth, valid), 5.0)
    assert_allclose(metrics.mpjpe(shifted, truth, valid, 0), 0.0)
    # The root is 5 m off and the other three are right relative to it.
    assert_allclose(metrics.mpjpe_report(shifted, truth, valid, 0), 5.0 / 4)
    assert_allclose(metrics.mpjpe(bent, truth, valid, 0), 0.4 / 4, rtol=1e-5)
    # Relative to joint 3, the three others are off.
    assert_allclose(metrics.mpjpe(bent, truth, valid, 3), 3 * 0.4 / 4, rtol=1e-5)
    assert_allclose(metrics.mpjpe(doubled, truth, valid, 0), 3 / 4)
    assert_allclose(metrics.n_mpjpe(doubled, truth, valid, 0), 0.0, atol=1e-6)
    assert_allclose(metrics.p_mpjpe(doubled, truth, valid), 0.0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_matches_numpy_and_scipy(seed):
    prediction, truth = poses(seed, noise=0.05 * (1 + seed))
    result, expected = errors(prediction, truth), reference(prediction, truth)
    assert result.keys() == metrics.METRICS.keys() == expected.keys()
    for name, value in result.items():
        assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)


def test_identical_poses_have_no_error():
    truth = poses(0)[1]
    assert all(value < 1e-6 for value in errors(truth, truth).values())


# ------------------------------------------------------------------------------------- invariance


@settings(deadline=None, max_examples=40)
@given(vectors(3), st.floats(0.2, 5), vectors(5))
def test_p2_ignores_a_similarity(vector, scale, shift):
    prediction, truth = poses(1)
    moved = scale * Rotation.from_rotvec(vector).apply(prediction) + shift
    assert_allclose(errors(moved, truth)["p2"], errors(prediction, truth)["p2"], atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.2, 5), vectors(5))
def test_n_mpjpe_ignores_scale_and_translation(scale, shift):
    prediction, truth = poses(2)
    moved = errors(scale * prediction + shift, truth)
    assert_allclose(moved["n_mpjpe"], errors(prediction, truth)["n_mpjpe"], atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(vectors(5))
def test_p1_ignores_a_translation(shift):
    prediction, truth = poses(3)
    assert_allclose(
        errors(prediction + shift, truth)["p1"], errors(prediction, truth)["p1"], atol=1e-5
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_order(seed, noise):
    """Least squares bounds the mean by the root mean square, not one mean by another."""
    prediction, truth = poses(seed, noise)
    result = {name: float(value) for name, value in errors(prediction, truth).items()}
    relative = (prediction - prediction[ROOT]) - (truth - truth[ROOT])
    root_mean_square = np.sqrt(np.sum(relative**2, axis=-1).mean()) + 1e-5
    assert result["p2"] <= root_mean_square
    assert result["n_mpjpe"] <= root_mean_square
    assert result["p1"] <= root_mean_square
    root_error = np.linalg.norm((prediction - truth)[ROOT])
    assert_allclose(result["mpjpe_report"], result["p1"] + root_error / JOINTS, atol=1e-5)
    assert result["p1"] <= result["absolute"] + root_error + 1e-5


# ------------------------------------------------------------------------------------- masks


def test_invalid_joints_do_not_count():
    prediction, truth = poses(4)
    valid = np.arange(JOINTS) % 3 != 1
    expected = reference(prediction[valid], truth[valid])
    result = errors(
        np.where(valid[:, None], prediction, 1e3), np.where(valid[:, None], truth, 0), valid
    )
    for name, value in result.items():
        assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)


def test_no_valid_joint_is_zero():
    prediction, truth = poses(5)
    assert all(value == 0 for value in errors(prediction, truth, np.zeros(JOINTS)).values())
    zeros = np.zeros((JOINTS, 3))
    assert all(value == 0 for value in errors(zeros, zeros, np.zeros(JOINTS)).values())


def test_scored_needs_the_root_and_one_more():
    assert not metrics.scored(f32([0, 1, 1]), 0)
    assert not metrics.scored(f32([1, 0, 0]), 0)
    assert not metrics.scored(f32([0, 0, 0]), 0)
    assert metrics.scored(f32([1, 0, 1]), 0)
    assert metrics.scored(f32([1, 0, 1]), 2)
    assert not metrics.scored(f32([1, 0, 1]), 1)


# ------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize(
    ("space", "names"),
    [
        ("absolute", ["p1", "p2", "n_mpjpe", "absolute", "mpjpe_report"]),
        ("root_relative", ["p1", "p2", "n_mpjpe"]),
        ("up_to_scale", ["p2", "n_mpjpe"]),
    ],
)
def test_metrics_that_need_more_than_the_space_are_left_out(space, names):
    prediction, truth = map(f32, poses(6))
    assert list(metrics.errors(prediction, truth, jnp.ones(JOINTS), ROOT, space)) == names


def test_unknown_space_names_the_known_ones():
    prediction, truth = map(f32, poses(6))
    with pytest.raises(ValueError, match=r"'metric'.*absolute, root_relative, up_to_scale"):
        metrics.errors(prediction, truth, jnp.ones(JOINTS), ROOT, "metric")


def test_vmap_is_a_loop():
    pairs = [poses(seed) for seed in range(4)]
    prediction, truth = (f32(np.stack(x)) for x in zip(*pairs, strict=True))
    result = jax.vmap(every_error)(prediction, truth, jnp.ones((4, JOINTS)))
    for i, pair in enumerate(pairs):
        for name, value in errors(*pair).items():
            assert_allclose(result[name][i], value, rtol=1e-4)
