"""Errors of poses and motions, and coverage: by hand, against NumPy and SciPy, and under what they
must not notice.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from pose3d_jax import metrics as plain
from tests.compiled import module

metrics = module(plain)
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
    off = np.delete(np.linalg.norm(p - t, axis=-1), ROOT)
    within = lambda millimetres: np.count_nonzero(1000 * off <= millimetres) / len(off)  # noqa: E731
    return {
        "p1": mean_norm(p - t),
        "p2": mean_norm(np.sum(turned * ct) / np.sum(cp * cp) * turned - ct),
        "n_mpjpe": mean_norm(np.sum(p * t) / np.sum(p * p) * p - t),
        "stress": np.abs(pdist(p) @ pdist(t) / (pdist(p) @ pdist(p)) * pdist(p) - pdist(t)).mean(),
        "absolute": mean_norm(prediction - truth),
        "mpjpe_report": mean_norm(report),
        "pck": within(150),
        "auc": sum(within(5 * i) for i in range(31)) / 31,
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
    # On a line, distances (1, 1, 2) for (1, 2, 3): 9 / 6 of them are off by (1/2, 1/2, 0).
    line, longer = f32([[0, 0, 0], [1, 0, 0], [2, 0, 0]]), f32([[0, 0, 1], [0, 0, 0], [0, 0, -2]])
    assert_allclose(metrics.stress(line, longer, valid[:3]), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_matches_numpy_and_scipy(seed):
    prediction, truth = poses(seed, noise=0.05 * (1 + seed))
    result, expected = errors(prediction, truth), reference(prediction, truth)
    assert result.keys() == metrics.METRICS.keys() == expected.keys()
    for name, value in result.items():
        assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)


def test_identical_poses_have_no_error():
    truth = poses(0)[1]
    found = errors(truth, truth)
    assert [found.pop(share) for share in ("pck", "auc")] == [1, 1]
    assert all(value < 1e-6 for value in found.values())


def test_a_prediction_that_is_nan_has_no_error_of_zero():
    """NaN anywhere is NaN in what is averaged over it, and all NaN is NaN in every metric."""
    prediction, truth = poses(0)
    found = errors(np.nan * prediction, truth)
    assert [found.pop(share) for share in ("pck", "auc")] == [0, 0]  # none is within reach
    assert all(np.isnan(value) for value in found.values())
    prediction[3, 1] = np.nan
    result = errors(prediction, truth)
    assert all(np.isnan(result[name]) for name in ("p1", "absolute", "mpjpe_report"))


def test_pck_2d_counts_what_is_near_in_sizes_of_the_person():
    truth = f32([[100, 100], [100, 300], [200, 200], [9, 9]])  # a box of 100 x 200
    points = truth + f32([[10, 0], [0, 10.1], [6, 8], [0, 0]])
    visible = f32([1, 1, 1, 0])
    assert_allclose(metrics.pck_2d(points, truth, visible), 2 / 3)
    assert_allclose(metrics.pck_2d(points, truth, visible, alpha=0.06), 1.0)
    assert metrics.pck_2d(points, truth, 0 * visible) == 0


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
@given(vectors(3), st.floats(0.2, 5), vectors(5))
def test_stress_ignores_a_similarity_and_a_reflection(vector, scale, shift):
    prediction, truth = poses(1)
    mirrored = prediction * [1.0, 1.0, -1.0]
    moved = scale * Rotation.from_rotvec(vector).apply(mirrored) + shift
    assert_allclose(errors(moved, truth)["stress"], errors(prediction, truth)["stress"], atol=1e-5)
    of_truth = scale * Rotation.from_rotvec(vector).apply(truth * [1.0, 1.0, -1.0]) + shift
    assert errors(of_truth, truth)["stress"] < 1e-5


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
        ("absolute", ["p1", "p2", "n_mpjpe", "stress", "absolute", "mpjpe_report", "pck", "auc"]),
        ("root_relative", ["p1", "p2", "n_mpjpe", "stress", "pck", "auc"]),
        ("up_to_scale", ["p2", "n_mpjpe", "stress"]),
    ],
)
def test_metrics_that_need_more_than_the_space_are_left_out(space, names):
    prediction, truth = map(f32, poses(6))
    # `jit` would sort them.
    assert list(plain.errors(prediction, truth, jnp.ones(JOINTS), ROOT, space)) == names


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


# ------------------------------------------------------------------------------------- motion

FPS, FRAMES = 50.0, 40
MOTION = {1: metrics.velocity_error, 2: metrics.acceleration_error}
motion_error = {order: jax.jit(function) for order, function in MOTION.items()}
jitter = jax.jit(metrics.jitter)


def clips(seed, noise=0.02, frames=FRAMES):
    """A prediction and a truth `[frames, JOINTS, 3]`, and a mask with holes."""
    rng = np.random.default_rng(seed)
    truth = np.cumsum(0.01 * rng.standard_normal((frames, JOINTS, 3)), axis=0) + np.array([0, 0, 4])
    prediction = truth + noise * rng.standard_normal(truth.shape)
    return prediction, truth, (rng.random(truth.shape[:2]) < 0.8).astype(float)


def derivative_reference(path, valid, order, fps):
    """(sum, count), joint by joint and frame by frame, by the binomial formula in float64."""
    stencil = {1: [-1, 1], 2: [1, -2, 1], 3: [-1, 3, -3, 1]}[order]
    norms = [
        np.linalg.norm(np.dot(stencil, path[t : t + order + 1, j])) * fps**order
        for t in range(len(path) - order)
        for j in range(path.shape[1])
        if valid[t : t + order + 1, j].all()
    ]
    return sum(norms), len(norms)


def along(distance):
    """A clip of one joint `distance [time]` metres along the direction (1, 2, 2) / 3."""
    return f32(np.asarray(distance)[:, None, None] * np.array([1, 2, 2]) / 3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", [1, 2])
def test_motion_error_matches_numpy(order, seed):
    prediction, truth, valid = clips(seed)
    found = motion_error[order](f32(prediction), f32(truth), f32(valid), FPS)
    assert_allclose(found, derivative_reference(prediction - truth, valid, order, FPS), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_jitter_matches_numpy(seed):
    prediction, _, valid = clips(seed)
    found = jitter(f32(prediction), f32(valid), FPS)
    assert_allclose(found, derivative_reference(prediction, valid, 3, FPS), rtol=1e-4)


def test_constant_velocity():
    still, moving = along(np.zeros(FRAMES)), along(1.5 * np.arange(FRAMES) / FPS)
    valid = jnp.ones((FRAMES, 1))
    assert_allclose(metrics.velocity_error(moving, still, valid, FPS), [1.5 * 39, 39], rtol=1e-5)
    total, count = metrics.acceleration_error(moving, still, valid, FPS)
    assert count == 38
    assert total / count < 5e-3  # rounding
    assert metrics.velocity_error(moving, moving, valid, FPS) == (0.0, 39.0)


def test_parabola_and_cubic():
    time = np.arange(FRAMES) / FPS
    still, valid = along(np.zeros(FRAMES)), jnp.ones((FRAMES, 1))
    falling, jerked = along(0.5 * 9.81 * time**2), along(20 * time**3 / 6)
    # A parabola's mean velocity between two frames is that half-way.
    expected = np.sum(9.81 * (time[:-1] + 0.5 / FPS))
    assert_allclose(metrics.velocity_error(falling, still, valid, FPS), [expected, 39], rtol=1e-5)
    total, count = metrics.acceleration_error(falling, still, valid, FPS)
    assert_allclose(total / count, 9.81, rtol=1e-3)
    # The rounding of float32 at 0.6 m, to the third difference.
    for path, third in ((falling, 0.0), (jerked, 20.0)):
        total, count = metrics.jitter(path, valid, FPS)
        assert count == 37
        assert_allclose(total / count, third, atol=0.05)


@pytest.mark.parametrize(("order", "fps"), [(1, 50.0), (2, 50.0), (3, 50.0), (3, 25.0)])
def test_sine(order, fps):
    """The n-th difference of a sine of frequency w is one of amplitude (2 fps sin(w / 2 fps))^n."""
    omega, frames = 8.0, 200
    time = np.arange(frames) / fps
    path, valid = along(0.3 * np.sin(omega * time)), jnp.ones((frames, 1))
    middle = time[: frames - order] + 0.5 * order / fps
    derivative = 0.3 * np.sin(omega * middle + order * np.pi / 2)
    expected = np.abs((2 * fps * np.sin(omega / (2 * fps))) ** order * derivative)
    still = jnp.zeros_like(path)
    found = jitter(path, valid, fps) if order == 3 else MOTION[order](path, still, valid, fps)
    assert_allclose(found, [expected.sum(), frames - order], rtol=2e-3)
    # And near the derivative itself.
    assert_allclose(found[0] / found[1], np.abs(omega**order * derivative).mean(), rtol=0.02)


@settings(deadline=None, max_examples=40)
@given(vectors(5), st.integers(0, 1000), st.sampled_from([1, 2]))
def test_motion_error_ignores_a_constant_offset(shift, seed, order):
    prediction, truth, valid = clips(seed)
    found = motion_error[order](f32(prediction + shift), f32(truth), f32(valid), FPS)
    expected = motion_error[order](f32(prediction), f32(truth), f32(valid), FPS)
    assert_allclose(found, expected, rtol=1e-3)


@settings(deadline=None, max_examples=40)
@given(vectors(3), st.integers(0, 1000), st.floats(1, 200))
def test_jitter_ignores_a_rotation_and_grows_with_the_cube_of_the_rate(vector, seed, fps):
    prediction, _, valid = clips(seed)
    turned = np.einsum("ij,tkj->tki", Rotation.from_rotvec(vector).as_matrix(), prediction)
    total, count = jitter(f32(prediction), f32(valid), 1.0)
    assert_allclose(jitter(f32(turned), f32(valid), fps), [total * fps**3, count], rtol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_invalid_joints_of_a_clip_do_not_count_whatever_they_hold(value):
    prediction, truth, valid = clips(7)
    holes = np.where(valid[..., None] > 0, prediction, value)
    for order, function in motion_error.items():
        expected = function(f32(prediction), f32(truth), f32(valid), FPS)
        assert function(f32(holes), f32(truth), f32(valid), FPS) == expected
        gradient = jax.grad(lambda p, f=function: f(p, f32(truth), f32(valid), FPS)[0])(f32(holes))
        assert np.isfinite(gradient).all(), order
    assert jitter(f32(holes), f32(valid), FPS) == jitter(f32(prediction), f32(valid), FPS)


@pytest.mark.parametrize("frames", range(6))
def test_clips_too_short_count_nothing(frames):
    prediction, truth, _ = map(f32, clips(8, frames=frames))
    for valid in (jnp.ones((frames, JOINTS)), jnp.zeros((frames, JOINTS))):
        for order in (1, 2, 3):
            if order == 3:
                total, count = jitter(prediction, valid, FPS)
            else:
                total, count = motion_error[order](prediction, truth, valid, FPS)
            assert count == (max(frames - order, 0) * JOINTS if valid.any() else 0)
            assert np.isfinite(total)
            assert (total > 0) == (count > 0)


def test_motion_gradients_are_finite():
    prediction, truth, valid = map(f32, clips(9))
    still = jnp.zeros_like(truth)
    slopes = [
        jax.jit(jax.grad(lambda p, m, f=function: f(p, truth, m, FPS)[0]))
        for function in MOTION.values()
    ]
    slopes.append(jax.jit(jax.grad(lambda p, m: jitter(p, m, FPS)[0])))
    for mask in (valid, jnp.zeros_like(valid)):
        for start in (prediction, truth, still, 1e15 * prediction, 1e-30 * prediction):
            for slope in slopes:
                assert np.isfinite(slope(start, mask)).all()


def test_motion_under_vmap_is_a_loop():
    sets = [clips(seed) for seed in range(3)]
    prediction, truth, valid = (f32(np.stack(x)) for x in zip(*sets, strict=True))
    fps = f32([25, 50, 60])
    for order, function in MOTION.items():
        found = jax.jit(jax.vmap(function))(prediction, truth, valid, fps)
        for i in range(3):
            expected = motion_error[order](prediction[i], truth[i], valid[i], float(fps[i]))
            assert_allclose([x[i] for x in found], expected, rtol=1e-5)
    found = jax.jit(jax.vmap(metrics.jitter))(prediction, valid, fps)
    assert_allclose([x[1] for x in found], jitter(prediction[1], valid[1], 50.0), rtol=1e-5)


# ------------------------------------------------------------------------------------- coverage

SAMPLES = 20_000
inside = jax.jit(metrics.inside_ellipsoid, static_argnames="level")
coverage = jax.jit(metrics.coverage, static_argnames="levels")
calibration_error = jax.jit(metrics.calibration_error, static_argnames="levels")


def gaussian(seed, size=SAMPLES, flat=0.1, metres=0.05):
    """Errors `[size, 3]` and the covariances `[size, 3, 3]` that they are drawn from; standard
    deviations are `metres`, half of it, and `flat` of it, in random directions."""
    rng = np.random.default_rng(seed)
    axes = Rotation.random(size, rng=rng).as_matrix() * (metres * np.array([1, 0.5, flat]))
    errors = np.einsum("nij,nj->ni", axes, rng.standard_normal((size, 3)))
    return errors, axes @ axes.swapaxes(-1, -2)


def standard_errors(levels, count, number=4.0):
    """`number` standard errors of the shares observed in `count` independent draws."""
    return number * np.sqrt(np.multiply(levels, np.subtract(1, levels)) / count)


@pytest.mark.parametrize("level", [0.01, 0.5, 0.8, 0.95, 0.999])
def test_inside_ellipsoid_matches_scipy(level):
    error, covariance = gaussian(0, size=500)
    distance = np.einsum("ni,ni->n", error, np.linalg.solve(covariance, error[..., None])[..., 0])
    limit = chi2.ppf(level, df=3)
    clear = np.abs(distance / limit - 1) > 1e-3
    assert clear.mean() > 0.98
    found = inside(f32(error), f32(covariance), level)
    assert_allclose(found[clear], (distance < limit)[clear])


def test_inside_ellipsoid_of_a_sphere():
    """Within 2.7955 standard deviations of 0.1 m are 95 %; any leading axes, none among them."""
    sphere = 0.01 * jnp.eye(3)
    for error, expected in [([0.2795, 0, 0], True), ([0, 0.2796, 0], False), ([0, 0, 0], True)]:
        assert inside(f32(error), sphere, 0.95) == expected
    errors = f32(np.full((2, 4, 3), 0.2795 / np.sqrt(3)))
    many = jnp.broadcast_to(sphere, (2, 4, 3, 3))
    assert inside(errors, many, 0.95).shape == (2, 4)
    assert inside(errors, many, 0.95).all()
    assert not inside(1.001 * errors, many, 0.95).any()


# At 1000 : 1 the smallest eigenvalue is a millionth of the largest.
@pytest.mark.parametrize("flat", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize("metres", [1e-6, 0.05, 1e4])
def test_gaussian_errors_have_nominal_coverage(flat, metres):
    error, covariance = gaussian(1, flat=flat, metres=metres)
    valid = jnp.ones(SAMPLES)
    levels = (0.05, 0.5, 0.8, 0.95, 0.99)
    sums, count = coverage(f32(error), f32(covariance), valid, levels)
    assert count == SAMPLES
    assert np.all(np.abs(sums / count - np.array(levels)) < standard_errors(levels, SAMPLES))
    assert_allclose(coverage(f32(error), f32(covariance), valid)[0], sums[1:4])
    assert calibration_error(f32(error), f32(covariance), valid) < 4 * 0.5 / np.sqrt(SAMPLES)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_coverage_under_a_wrong_covariance(factor):
    """Standard deviations that are `factor` of the true ones: coverage in closed form."""
    error, covariance = gaussian(2)
    expected = chi2.cdf(factor**2 * chi2.ppf(metrics.LEVELS, df=3), df=3)
    given = f32(error), f32(factor**2 * covariance), jnp.ones(SAMPLES)
    sums, count = coverage(*given, levels=metrics.LEVELS)
    assert np.all(np.abs(sums / count - expected) < standard_errors(expected, SAMPLES))
    assert np.all((sums / count < np.array(metrics.LEVELS)) == (factor < 1))
    off = np.abs(expected - np.array(metrics.LEVELS)).mean()
    assert_allclose(calibration_error(*given), off, atol=4 * 0.5 / np.sqrt(SAMPLES))


def test_calibration_error_by_hand():
    """Half of the errors are 0 and half far away: every ellipsoid holds half of them."""
    error = f32([[0, 0, 0], [9, 0, 0]] * 10)
    covariance = jnp.broadcast_to(jnp.eye(3), (20, 3, 3))
    given = error, covariance, jnp.ones(20)
    assert_allclose(calibration_error(*given, levels=(0.5, 0.8, 0.95)), 0.75 / 3, rtol=1e-6)
    assert_allclose(calibration_error(*given), np.mean(np.abs(0.5 - np.arange(1, 20) / 20)))
    levels = np.linspace(0.05, 0.95, 19)
    assert_allclose(metrics.LEVELS, levels)


@settings(deadline=None, max_examples=40)
@given(vectors(3), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_coverage_ignores_a_common_rotation_and_scale(vector, scale, seed):
    error, covariance = gaussian(seed, size=400)
    turn = Rotation.from_rotvec(vector).as_matrix()
    moved = scale * error @ turn.T, scale**2 * turn @ covariance @ turn.T
    valid = jnp.ones(400)
    found = coverage(*map(f32, moved), valid, metrics.LEVELS)[0]
    expected = coverage(f32(error), f32(covariance), valid, metrics.LEVELS)[0]
    assert_allclose(found, expected, atol=1)  # rounding may move one over the border


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_coverage_grows_with_the_level_and_the_covariance(seed, factor):
    error, covariance = gaussian(seed, size=400)
    sums = coverage(f32(error), f32(factor * covariance), jnp.ones(400), metrics.LEVELS)[0]
    more = coverage(f32(error), f32(1.1 * factor * covariance), jnp.ones(400), metrics.LEVELS)[0]
    assert np.all(np.diff(sums) >= 0)
    assert np.all(more >= sums)


def test_invalid_errors_are_not_covered():
    error, covariance = gaussian(3, size=60)
    valid = np.arange(60) % 3 != 1
    expected = coverage(f32(error[valid]), f32(covariance[valid]), jnp.ones(40))
    broken = np.where(valid[:, None], error, np.nan), np.where(valid[:, None, None], covariance, 0)
    shape = lambda x: f32(x).reshape(4, 15, *x.shape[1:])  # noqa: E731
    found = coverage(*map(shape, broken), shape(valid))
    assert_allclose(found[0], expected[0])
    assert found[1] == expected[1] == 40
    assert_allclose(
        calibration_error(*map(shape, broken), shape(valid)),
        calibration_error(f32(error[valid]), f32(covariance[valid]), jnp.ones(40)),
        rtol=1e-6,
    )


def test_nothing_valid_is_zero():
    error, covariance = map(f32, gaussian(4, size=10))
    sums, count = coverage(error, covariance, jnp.zeros(10))
    assert not sums.any()
    assert count == 0
    assert calibration_error(error, covariance, jnp.zeros(10)) == 0
    none = jnp.zeros((0, 3)), jnp.zeros((0, 3, 3)), jnp.zeros(0)
    assert metrics.coverage(*none)[1] == metrics.calibration_error(*none) == 0


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_singular_covariance_is_a_thin_ellipsoid(rank):
    """Along its directions as any; across them, what float32 can tell from 0 is outside."""
    directions = Rotation.from_rotvec([0.3, -1.0, 0.7]).as_matrix()
    covariance = f32(directions[:, :rank] @ directions[:, :rank].T)
    for i, direction in enumerate(directions.T):
        assert inside(f32(2.5 * direction), covariance, 0.95) == (i < rank)
        assert not inside(f32(3.0 * direction), covariance, 0.95)
    assert inside(jnp.zeros(3), covariance, 0.01)


@pytest.mark.parametrize("level", [-0.1, 0.0, 1.0, 95.0, float("nan")])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match=r"level is .*between 0 and 1"):
        metrics.inside_ellipsoid(jnp.zeros(3), jnp.eye(3), level)
    with pytest.raises(ValueError, match=r"level is .*between 0 and 1"):
        metrics.coverage(jnp.zeros((1, 3)), jnp.eye(3)[None], jnp.ones(1), (0.5, level))


def test_clip_metrics_are_not_among_those_of_a_pose():
    names = ["p1", "p2", "n_mpjpe", "stress", "absolute", "mpjpe_report", "pck", "auc"]
    assert list(metrics.METRICS) == names
