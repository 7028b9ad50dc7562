"""Whole clips of an articulated figure, by hand, against the truth and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from pose3d_jax import trajectory
from pose3d_jax.posterior import Model
from pose3d_jax.triangulate import LEAST_SIGMA
from tests import scenes

FRAMES, VIEWS, JOINTS = 64, 3, 4
BONES = ((0, 1), (1, 2), (1, 3))
LENGTHS = (0.5, 0.4, 0.3)
# Compiled as a user's is, with the kernels that tests/conftest.py switches off: without them
# programs of differing lengths round differently, and a step more or less is taken.
fit = jax.jit(trajectory.fit, compiler_options={"xla_cpu_use_fusion_emitters": True})
motion_scale = jax.jit(trajectory.motion_scale)
correlation_in_time = jax.jit(trajectory.correlation_in_time)
film = jax.jit(scenes.film)


@functools.cache
def rig():
    return jax.tree.map(np.asarray, scenes.ring(VIEWS))


def figure(frames=FRAMES, seed=0):
    """Joints `[frames, JOINTS, 3]` of a figure that walks and swings its limbs, at 30 fps."""
    rng, time = np.random.default_rng(seed), np.arange(frames)[:, None] / 30

    def swing(size, hertz):
        return np.sum(
            size * np.sin(2 * np.pi * rng.uniform(0.3, hertz, 2) * time + rng.uniform(0, 6, 2)),
            axis=1,
        )

    joints = np.zeros((frames, JOINTS, 3))
    joints[:, 0] = np.stack([swing(0.3, 0.5), swing(0.3, 0.5), 1 + swing(0.05, 0.8)], axis=-1)
    for (parent, child), length in zip(BONES, LENGTHS, strict=True):
        up, round_ = rng.uniform(-1, 1) + swing(0.3, 1.2), rng.uniform(0, 6) + swing(0.4, 1.2)
        aim = [np.cos(up) * np.cos(round_), np.cos(up) * np.sin(round_), np.sin(up)]
        joints[:, child] = joints[:, parent] + length * np.stack(aim, axis=-1)
    return joints


def scene(kind="smooth_bones", frames=FRAMES, seed=0, away=0.01):
    """A model of exact observations of a figure that starts `away` metres off, and the truth."""
    joints = figure(frames, seed)
    noise = np.random.default_rng(seed + 1).standard_normal(joints.shape)
    start = jnp.asarray(joints + away * noise, jnp.float32)
    inside = jnp.ones(frames)
    return Model(
        observations=film(joints.astype(np.float32), rig()),
        inside=inside,
        start=start,
        sigma=jnp.float32(LEAST_SIGMA),
        correlation=jnp.float32(0.0),
        step=None if kind == "bones" else motion_scale(start, inside),
        bones=() if kind == "smooth" else BONES,
    ), joints


def distance(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b, axis=-1)


@pytest.mark.parametrize(
    ("kind", "most"), [("smooth", 3e-4), ("bones", 3e-3), ("smooth_bones", 3e-3)]
)
def test_exact_views_give_the_true_motion(kind, most):
    model, joints = scene(kind, away=0.001)
    found, covariance = fit(model)
    assert distance(found, joints).max() < most
    spread = np.linalg.eigvalsh(np.asarray(covariance, np.float64))
    assert np.all(spread[..., 0] > 0)
    assert np.sqrt(spread[..., 2].max()) < 1e-3


def test_padding_changes_nothing():
    """Nor does what the padding is filled with; and without padding it is the same."""
    model, joints = scene(frames=FRAMES)
    short = 40
    cut = lambda x: x[:short] if np.shape(x)[:1] == (FRAMES,) else x  # noqa: E731
    seen = (np.arange(FRAMES) < short).astype(np.float32)
    noise = np.random.default_rng(3).standard_normal(model.observations.keypoints.shape)
    noisy = model.observations.replace(
        keypoints=model.observations.keypoints + jnp.asarray(2 * noise, jnp.float32)
    )
    model = model.replace(observations=noisy, sigma=jnp.float32(2), correlation=jnp.float32(0.5))
    observations = model.observations.replace(
        confidence=model.observations.confidence * seen[:, None, None]
    )
    padded = model.replace(observations=observations, inside=jnp.asarray(seen))
    found, covariance = (np.asarray(x)[:short] for x in fit(padded))
    assert 1e-3 < distance(found, joints[:short]).max() < 0.1
    other = padded.replace(
        start=padded.start.at[short:].set(7.0),
        observations=observations.replace(
            keypoints=observations.keypoints.at[short:].set(-99.0),
            cameras=jax.tree.map(
                lambda x: jnp.asarray(x).at[short:].set(x[:1]), observations.cameras
            ),
        ),
    )
    alone = jax.tree.map(cut, model)
    for same in (other, alone):
        joints_too, covariance_too = (np.asarray(x)[:short] for x in fit(same))
        assert_allclose(joints_too, found, atol=2e-5)
        assert_allclose(covariance_too, covariance, rtol=1e-2, atol=1e-8)


def test_moving_the_world_and_the_cameras_moves_the_motion():
    model, _ = scene()
    noise = np.random.default_rng(4).standard_normal(model.observations.keypoints.shape)
    observations = model.observations.replace(
        keypoints=model.observations.keypoints + jnp.asarray(noise, jnp.float32)
    )
    model = model.replace(observations=observations, sigma=jnp.float32(1.0))
    found, covariance = (np.asarray(x, np.float64) for x in fit(model))
    turn, shift = Rotation.from_rotvec([0.5, -1.0, 2.0]).as_matrix(), np.array([3.0, -2.0, 1.0])
    rotation = np.asarray(observations.cameras.rotation, np.float64) @ turn.T
    translation = np.asarray(observations.cameras.translation) - rotation @ shift
    cameras = observations.cameras.replace(
        rotation=jnp.asarray(rotation, jnp.float32),
        translation=jnp.asarray(translation, jnp.float32),
    )
    start = np.asarray(model.start) @ turn.T + shift
    moved, turned = fit(
        model.replace(
            observations=observations.replace(cameras=cameras),
            start=jnp.asarray(start, jnp.float32),
        )
    )
    assert distance(moved, found @ turn.T + shift).max() < 3e-4
    assert_allclose(turned, turn @ covariance @ turn.T, rtol=0.05, atol=1e-6)


def test_without_bones_every_joint_is_alone():
    model, _ = scene("smooth")
    noise = np.random.default_rng(5).standard_normal(model.observations.keypoints.shape)
    keypoints = model.observations.keypoints + jnp.asarray(2 * noise, jnp.float32)
    model = model.replace(
        observations=model.observations.replace(keypoints=keypoints), sigma=jnp.float32(2.0)
    )
    found, covariance = fit(model)
    order = np.array([2, 0, 3, 1])
    permuted = model.replace(
        observations=model.observations.replace(keypoints=keypoints[:, :, order]),
        start=model.start[:, order],
        step=model.step[order],
    )
    joints, spread = fit(permuted)
    assert_allclose(joints, found[:, order], atol=1e-5)
    assert_allclose(spread, covariance[:, order], rtol=1e-3, atol=1e-9)
    # What another joint's keypoints are is of no account.
    aside = model.replace(
        observations=model.observations.replace(keypoints=keypoints.at[:, :, 1].add(50.0))
    )
    rest = np.array([0, 2, 3])
    assert_allclose(fit(aside)[0][:, rest], found[:, rest], atol=1e-6)


# ------------------------------------------------------------------------------------- estimates


def test_motion_scale_of_white_second_differences():
    """In closed form: five frames apart they are sums of the white ones, with weights 1 to 5 to 1.

    What is made of their median is 2.2 times the scale of a motion that is as quick all the time.
    """
    white = 0.004 * np.random.default_rng(6).standard_normal((50, 40, 2, 3))
    clips = np.cumsum(np.cumsum(white, axis=1), axis=1)
    weights = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1])
    expected = 6.0 / 25 * np.sqrt(np.sum(weights**2)) * 0.004
    assert 2.1 < expected / 0.004 < 2.3
    found = [motion_scale(jnp.asarray(clip, jnp.float32), jnp.ones(40)) for clip in clips]
    assert_allclose(np.mean(found), expected, rtol=0.1)


def test_motion_scale_of_a_sine():
    """In closed form: a sine's second differences are the sine; the median of its square a half."""
    omega, size = 2 * np.pi / 40, 0.3
    angle = omega * np.arange(400)
    joints = np.zeros((400, 2, 3))
    joints[:, 0, 1], joints[:, 1, 2] = size * np.sin(angle), size / 10 * np.sin(angle)
    found = motion_scale(jnp.asarray(joints, jnp.float32), jnp.ones(400))
    second = size * (2 - 2 * np.cos(5 * omega)) / 25
    expected = 6.0 * second * np.sqrt(0.5 / chi2.median(3))
    # No joint is taken to be much slower than half of the others.
    assert_allclose(found, [expected, (expected + expected / 10) / 4], rtol=0.02)


@pytest.mark.parametrize("inside", [0, 1, 2, 3, 9])
def test_motion_scale_of_short_clips_is_nothing_known(inside):
    joints = jnp.asarray(figure(32), jnp.float32)
    found = motion_scale(joints, (jnp.arange(32) < inside).astype(jnp.float32))
    assert_allclose(found, 0.1)


def test_motion_scale_of_few_frames_is_of_neighbours():
    joints = figure(32)
    second = np.sum((joints[:10] - 2 * joints[1:11] + joints[2:12])[:8] ** 2, axis=-1)
    expected = 1.5 * np.sqrt(np.median(second, axis=0) / 2.366)
    expected = np.maximum(expected, np.median(expected) / 2)
    found = motion_scale(jnp.asarray(joints, jnp.float32), (jnp.arange(32) < 10.0).astype(float))
    assert_allclose(found, expected, rtol=0.01)


def test_motion_scale_at_rest_is_the_least():
    found = motion_scale(jnp.ones((32, JOINTS, 3)), jnp.ones(32))
    assert_allclose(found, trajectory.LEAST_STEP)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_correlation_is_found_among_outliers(rho):
    rng, joints = np.random.default_rng(7), figure().astype(np.float32)
    exact = film(joints, rig())
    error = rng.standard_normal(exact.keypoints.shape)
    for t in range(1, FRAMES):
        error[t] = rho * error[t - 1] + np.sqrt(1 - rho**2) * error[t]
    off = 2 * error + 100 * (rng.uniform(size=error.shape[:-1]) < 0.05)[..., None]
    seen = rng.uniform(size=error.shape[:-1]) > 0.1
    observations = exact.replace(
        keypoints=exact.keypoints + jnp.asarray(off, jnp.float32),
        confidence=jnp.asarray(seen, jnp.float32),
    )
    found = correlation_in_time(observations, jnp.asarray(joints), jnp.float32(2.0))
    assert_allclose(found, rho, atol=0.1)


def test_correlation_of_rounding_and_of_nothing_is_none():
    joints = figure().astype(np.float32)
    exact, sigma = film(joints, rig()), jnp.float32(LEAST_SIGMA)
    assert 0 <= correlation_in_time(exact, jnp.asarray(joints), sigma) < 0.01
    nothing = exact.replace(confidence=0 * exact.confidence)
    assert correlation_in_time(nothing, jnp.asarray(joints), sigma) == 0
