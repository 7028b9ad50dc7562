"""Filters beside closed forms, the published equations, and a direct solution of the same model."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from pose3d_jax import smoothing
from pose3d_jax.errors import UserError
from pose3d_jax.smoothing import SmoothingError, smooth

FPS = 50.0


def motion(seed, frames=60, joints=3):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.02, (frames, joints, 3)).cumsum(axis=0) + rng.normal(size=(joints, 3))


# ------------------------------------------------------------------------------------- butterworth


def gain(frequency, cutoff, order):
    """Amplitude that both passes leave: the bilinear transform of Butterworth's, squared."""
    each = np.tan(np.pi * cutoff / FPS) / (np.sqrt(2) - 1) ** (1 / order)
    return 1 / (1 + (np.tan(np.pi * frequency / FPS) / each) ** order)


@pytest.mark.parametrize("order", [2, 4, 6])
@pytest.mark.parametrize("frequency", [1.0, 6.0, 9.0])
def test_sines_are_lowered_as_the_closed_form_says_and_not_delayed(order, frequency):
    time = np.arange(1000) / FPS
    sine = np.sin(2 * np.pi * frequency * time)[:, None, None] * np.ones((1, 1, 3))
    found = smooth(sine, FPS, "butterworth", cutoff=6.0, order=order)
    inner = slice(200, 800)
    assert_allclose(found[inner], gain(frequency, 6.0, order) * sine[inner], atol=1e-6)
    assert gain(6.0, 6.0, order) == pytest.approx(1 / np.sqrt(2))


def test_short_stretches_stay_as_they_are_and_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(smoothing.logging, "warning", lambda text, *more: told.append(text % more))
    points = motion(0)
    points[20, 0] = points[26, 0] = points[:, 1] = np.nan  # five frames between
    found = smooth(points, FPS, "butterworth")
    assert_array_equal(found[21:26, 0], points[21:26, 0])
    assert not np.isclose(found[:20, 0], points[:20, 0]).all()
    assert told == [
        "1 stretches of a joint's frames are shorter than 10 frames and stay as they are: "
        "butterworth needs more"
    ]


# ---------------------------------------------------------------------------------------- one-euro


def published(values, cutoff, beta):
    """Casiez et al. (CHI 2012), equations 1 to 8, number by number."""

    def share(hertz):
        return 1 / (1 + FPS / (2 * np.pi * hertz))

    found, slope = [values[0]], 0.0
    for value in values[1:]:
        slope = share(1.0) * (value - found[-1]) * FPS + (1 - share(1.0)) * slope
        own = share(cutoff + beta * abs(slope))
        found.append(own * value + (1 - own) * found[-1])
    return np.array(found)


@pytest.mark.parametrize(("cutoff", "beta"), [(1.0, 0.0), (2.0, 3.0)])
def test_one_euro_is_what_was_published(cutoff, beta):
    points = motion(1)
    found = smooth(points, FPS, "one-euro", cutoff=cutoff, beta=beta)
    expected = np.apply_along_axis(published, 0, points, cutoff, beta)
    assert_allclose(found, expected, atol=1e-12)


def test_behind_a_ramp_one_euro_is_late_by_what_a_first_order_filter_is():
    speed, cutoff = 2.0, 1.5
    ramp = speed * np.arange(400)[:, None, None] / FPS * np.ones((1, 1, 3))
    lag = (ramp - smooth(ramp, FPS, "one-euro", cutoff=cutoff, beta=0.0))[-1]
    assert_allclose(lag, speed / (2 * np.pi * cutoff), rtol=1e-6)
    # With the slope's own error, eight equations in one: the lag where nothing changes any more.
    lag = (ramp - smooth(ramp, FPS, "one-euro", cutoff=cutoff, beta=0.7))[-1, 0, 0]
    slope = lag * FPS + speed - speed  # the way from what was found before to what is measured
    slope = (lag + speed / FPS) * FPS
    assert lag == pytest.approx(speed / (2 * np.pi * (cutoff + 0.7 * slope)), rel=1e-4)


# ------------------------------------------------------------------------------------------ kalman


def direct(points, noises, motion_scale, order):
    """The most probable states by one system of normal equations; of one joint."""
    frames, size = len(points), 3 * (order + 1)
    shift = np.kron(np.eye(order + 1, k=1), np.eye(3))
    push = np.zeros((size, size))
    push[-3:, -3:] = motion_scale**2 * np.eye(3)
    # Van Loan's integral of the noise over a frame.
    both = expm(np.block([[-shift, push], [np.zeros_like(push), shift.T]]) / FPS)
    move = both[size:, size:].T
    change = np.linalg.inv(move @ both[:size, size:])
    matrix = np.zeros((frames, size, frames, size))
    right = np.zeros((frames, size))
    first = points[np.flatnonzero(~np.isnan(points[:, 0]))[0]]
    prior = np.diag(np.repeat([1e-2, 1e-4, 1e-6][: order + 1], 3))
    matrix[0, :, 0] += prior
    right[0, :3] += prior[:3, :3] @ first
    for t, (point, noise) in enumerate(zip(points, noises, strict=True)):
        if not np.isnan(point).any():
            matrix[t, :3, t, :3] += np.linalg.inv(noise)
            right[t, :3] += np.linalg.solve(noise, point)
        if t:
            matrix[t, :, t] += change
            matrix[t - 1, :, t - 1] += move.T @ change @ move
            matrix[t, :, t - 1] -= change @ move
            matrix[t - 1, :, t] -= move.T @ change
    flat = np.linalg.solve(matrix.reshape(frames * size, -1), right.ravel())
    return flat.reshape(frames, size)[:, :3]


def covariances(seed, frames, joints):
    root = 0.02 * np.random.default_rng(seed).normal(size=(frames, joints, 3, 3))
    return root @ root.swapaxes(-1, -2) + 1e-5 * np.eye(3)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_kalman_is_the_solution_of_the_normal_equations(order, known):
    points = motion(2, frames=25)
    points[:3, 0] = points[10:14, 0] = points[-2:, 1] = np.nan
    noises = covariances(3, 25, 3) if known else np.broadcast_to(1e-4 * np.eye(3), (25, 3, 3, 3))
    more = {"covariance": noises} if known else {"noise": 0.01}
    found = smooth(points, FPS, "kalman", motion=4.0, order=order, **more)
    for joint in range(3):
        there = ~np.isnan(points[:, joint, 0])
        expected = direct(points[:, joint], noises[:, joint], 4.0, order)
        assert_allclose(found[there, joint], expected[there], atol=1e-7)


def test_what_is_uncertain_counts_less():
    points = np.zeros((30, 1, 3))
    points[15] = 0.1
    noises = np.broadcast_to(1e-4 * np.eye(3), (30, 1, 3, 3)).copy()
    noises[15] = np.diag([1.0, 1e-4, 1e-4])
    found = smooth(points, FPS, "kalman", covariance=noises)
    assert abs(found[15, 0, 0]) < 1e-3 < 0.01 < found[15, 0, 1]


# ----------------------------------------------------------------------------------------- of each

TURNED = st.tuples(st.integers(0, 2**31), st.integers(0, 2**31))


@settings(max_examples=10, deadline=None)
@given(TURNED)
@pytest.mark.parametrize("kind", ["butterworth", "kalman"])
def test_filters_know_no_axes(kind, seeds):
    points = motion(seeds[0], frames=40)
    points[5:9, 0] = np.nan
    turn = Rotation.random(rng=np.random.default_rng(seeds[1])).as_matrix()
    away = np.array([3.0, -1.0, 2.0])
    found = smooth(points @ turn.T + away, FPS, kind)
    assert_allclose(found, smooth(points, FPS, kind) @ turn.T + away, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_one_euro_knows_the_axes_but_no_origin_and_no_order_or_sign_of_axes(seed):
    points = motion(seed, frames=40)
    axes = np.random.default_rng(seed).permutation(3)
    found = smooth(-points[..., axes] + 2.0, FPS, "one-euro")
    assert_allclose(found, -smooth(points, FPS, "one-euro")[..., axes] + 2.0, atol=1e-9)


def test_covariances_turn_with_the_joints():
    points, noises = motion(4, frames=20), covariances(5, 20, 3)
    turn = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix()
    found = smooth(points @ turn.T, FPS, "kalman", covariance=turn @ noises @ turn.T)
    expected = smooth(points, FPS, "kalman", covariance=noises) @ turn.T
    assert_allclose(found, expected, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 0.6))
@pytest.mark.parametrize("kind", smoothing.KINDS)
def test_gaps_stay_gaps_and_what_stands_still_stays(kind, seed, share):
    rng = np.random.default_rng(seed)
    still = np.broadcast_to(rng.normal(size=(1, 4, 3)), (50, 4, 3)).copy()
    still[rng.random((50, 4)) < share] = np.nan
    still[:, 3] = np.nan
    still[7, 0, 1] = np.nan  # a part of a joint is none
    found = smooth(still, FPS, kind)
    gaps = np.isnan(still).any(axis=-1)
    assert_array_equal(np.isnan(found).any(axis=-1), gaps)
    assert_allclose(found[~gaps], still[~gaps], atol=1e-7)


@pytest.mark.parametrize("kind", ["butterworth", "one-euro"])
def test_stretches_are_filtered_apart(kind):
    points = motion(6, frames=60)
    points[30] = np.nan
    found = smooth(points, FPS, kind)
    for part in (slice(0, 30), slice(31, 60)):
        assert_allclose(found[part], smooth(points[part], FPS, kind), atol=1e-12)


@pytest.mark.parametrize("kind", smoothing.KINDS)
@pytest.mark.parametrize("frames", [0, 1, 2])
def test_few_frames_are_no_error(kind, frames):
    found = smooth(motion(7)[:frames].astype(np.float32), FPS, kind)
    assert found.shape == (frames, 3, 3)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("median", {}, "no filter is named 'median'; there are butterworth, one-euro, kalman"),
        ("butterworth", {"beta": 1.0}, "butterworth has no beta; it has cutoff, order"),
        ("butterworth", {"cutoff": 25.0}, "give less than 25"),
        ("butterworth", {"cutoff": -1.0}, "cutoff is -1.0; give a number above 0"),
        ("butterworth", {"order": 3}, "give 2, 4, 6"),
        ("one-euro", {"beta": np.nan}, "beta is nan"),
        ("kalman", {"order": 3}, "the order is 3; give 1 or 2"),
        ("kalman", {"covariance": np.ones((60, 2, 3, 3))}, r"give \[60, 3, 3, 3\]"),
        ("kalman", {"covariance": np.zeros((60, 3, 3, 3))}, "a covariance that is none"),
        ("one-euro", {"covariance": np.ones((60, 3, 3, 3))}, "kalman does"),
    ],
)
def test_what_cannot_be_done_is_told(kind, more, message):
    with pytest.raises(SmoothingError, match=message):
        smooth(motion(8), FPS, kind, **more)


def test_joints_and_rates_that_are_none_are_told():
    with pytest.raises(SmoothingError, match="joints hold infinity"):
        smooth(motion(8) + np.inf, FPS, "kalman")
    with pytest.raises(SmoothingError, match="fps is 0"):
        smooth(motion(8), 0.0, "kalman")


@pytest.mark.parametrize("kind", ["one-euro", "kalman"])
def test_a_library_that_is_not_there_is_told(kind, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match="or the package's extra `smooth`"):
        smooth(motion(9), FPS, kind)
