"""The bounds against float64 by finite differences, dense algebra, and what is reached."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import limits, posterior, trajectory
from pose3d_jax.schema import Observations
from pose3d_jax.triangulate import ROOM
from tests import scenes

FRAMES, VIEWS, JOINTS = 64, 3, 16
BONES = tuple((0, child) for child in range(1, JOINTS))
SIGMA, STEP = 2.0, 0.002
per_frame = jax.jit(limits.per_frame)
with_priors = jax.jit(limits.with_priors, static_argnums=4)


@functools.cache
def rig():
    """Cameras `[VIEWS]` of OpenCV's model, as NumPy arrays."""
    cameras = jax.tree.map(np.asarray, scenes.ring(VIEWS))
    return cameras.replace(tangential=np.full(VIEWS, 2, np.float32))


def project(world):
    """OpenCV's pixels `[frames, views, joints, 2]` of joints `[frames, joints, 3]`, float64."""
    views = []
    for v in range(VIEWS):
        c = jax.tree.map(lambda x, v=v: np.asarray(x[v], np.float64), rig())
        lens = np.array([[c.focal[0], 0, c.center[0]], [0, c.focal[1], c.center[1]], [0, 0, 1]])
        turn = cv2.Rodrigues(c.rotation)[0]
        flat = world.reshape(-1, 1, 3).astype(np.float64)
        pixels = cv2.projectPoints(flat, turn, c.translation, lens, c.distortion)[0]
        views.append(pixels.reshape(*world.shape[:-1], 2))
    return np.stack(views, axis=1)


def motion(seed=0):
    """Joints `[FRAMES, JOINTS, 3]` whose second differences are white."""
    white = STEP * np.random.default_rng(seed).standard_normal((FRAMES, JOINTS, 3))
    joints = np.cumsum(np.cumsum(white, axis=0), axis=0)
    time = np.linspace(0, 1, FRAMES)[:, None, None]
    joints -= joints[:1] + time * (joints[-1:] - joints[:1])  # about where it starts
    place = np.random.default_rng(99).uniform(-0.7, 0.7, (JOINTS, 3))
    return joints + place + [0, 0, 1]


def film(joints, noise=0.0, seed=0):
    pixels = project(joints)
    pixels = pixels + noise * np.random.default_rng(seed).standard_normal(pixels.shape)
    return Observations(
        keypoints=jnp.asarray(pixels, jnp.float32),
        confidence=jnp.ones(pixels.shape[:-1]),
        cameras=jax.tree.map(lambda x: jnp.asarray(np.stack([x] * FRAMES)), rig()),
    )


@functools.cache
def information():
    """J^T J `[frames, views, joints, 3, 3]` of `motion()`, 1/m^2 at 1 pixel."""
    joints, h = motion(), 1e-5
    jacobian = np.stack(
        [(project(joints + d) - project(joints - d)) / (2 * h) for d in h * np.eye(3)], axis=-1
    )
    return np.einsum("tvjpa,tvjpb->tvjab", jacobian, jacobian)


def relative(found, expected):
    """Eigenvalues of `found` in units of `expected`: at most 1 where it is no larger."""
    scale = np.linalg.inv(np.linalg.cholesky(np.asarray(expected, np.float64)))
    found = np.asarray(found, np.float64)
    return np.linalg.eigvalsh(scale @ found @ scale.swapaxes(-1, -2))


def test_per_frame_is_that_of_finite_differences():
    found = per_frame(film(motion()), jnp.asarray(motion(), jnp.float32), jnp.float32(SIGMA))
    expected = np.linalg.inv(information().sum(axis=1) / SIGMA**2)
    assert found.shape == (FRAMES, JOINTS, 3, 3)
    assert_allclose(relative(found, expected), 1.0, atol=0.01)


def test_per_frame_grows_with_the_noise_squared():
    observations, joints = film(motion()), jnp.asarray(motion(), jnp.float32)
    one, three = (per_frame(observations, joints, jnp.float32(s)) for s in (1.0, 3.0))
    assert_allclose(three, 9 * one, rtol=1e-3, atol=1e-9)


def test_a_view_less_is_no_better():
    observations, joints = film(motion()), jnp.asarray(motion(), jnp.float32)
    seen = np.ones(observations.confidence.shape, np.float32)
    seen[:, 1, ::2] = 0
    fewer = observations.replace(confidence=jnp.asarray(0.3 * seen))  # whatever the confidence
    all_, less = (per_frame(o, joints, jnp.float32(SIGMA)) for o in (observations, fewer))
    ratio = relative(less, all_)
    assert ratio[:, ::2].min() > 0.99
    assert np.all(ratio[:, ::2, 2] > 1.05)
    assert_allclose(less[:, 1::2], all_[:, 1::2], rtol=1e-6)


def test_per_frame_of_nothing_is_the_room():
    observations, joints = film(motion()), jnp.asarray(motion(), jnp.float32)
    nothing = observations.replace(confidence=0 * observations.confidence)
    found = per_frame(nothing, joints, jnp.float32(SIGMA))
    assert_allclose(found, np.broadcast_to(ROOM**2 * np.eye(3), found.shape), rtol=1e-5)


def test_with_priors_is_the_dense_bound():
    joints = motion()
    found = with_priors(
        film(joints), jnp.ones(FRAMES), jnp.asarray(joints, jnp.float32), jnp.float32(SIGMA), ()
    )
    second = np.diff(joints, n=2, axis=0)
    differences = np.diff(np.eye(FRAMES), n=2, axis=0)
    for j in range(0, JOINTS, 5):
        step = np.sqrt(np.mean(second[:, j] ** 2))
        matrix = np.kron(differences.T @ differences / step**2, np.eye(3))
        for t in range(FRAMES):
            at = slice(3 * t, 3 * t + 3)
            matrix[at, at] += information()[t, :, j].sum(axis=0) / SIGMA**2
        inverse = np.linalg.inv(matrix).reshape(FRAMES, 3, FRAMES, 3)
        expected = inverse[np.arange(FRAMES), :, np.arange(FRAMES)]
        assert_allclose(relative(found[:, j], expected), 1.0, atol=0.02)


@pytest.mark.parametrize("bones", [(), BONES])
def test_priors_never_hurt(bones):
    observations, joints = film(motion()), jnp.asarray(motion(), jnp.float32)
    alone = per_frame(observations, joints, jnp.float32(SIGMA))
    inside = (jnp.arange(FRAMES) < FRAMES - 3).astype(jnp.float32)
    sees = observations.confidence * inside[:, None, None]
    found = with_priors(
        observations.replace(confidence=sees), inside, joints, jnp.float32(SIGMA), bones
    )
    ratio = relative(found, alone)[: FRAMES - 3]
    assert ratio.min() > 0
    assert ratio.max() < 1.01
    assert ratio.mean() < 0.5
    if bones:
        plain = with_priors(
            observations.replace(confidence=sees), inside, joints, jnp.float32(SIGMA), ()
        )
        assert relative(found, plain)[: FRAMES - 3].max() < 1.01


@pytest.mark.slow
def test_the_fit_comes_near_the_bound():
    """On motion from the prior, without bones, but with the tails and outliers it allows for."""
    fit, squared, least, inside = jax.jit(trajectory.fit), [], [], jnp.ones(FRAMES)
    for seed in range(4):
        joints = motion(seed)
        observations = film(joints, SIGMA, seed + 50)
        truth, sigma = jnp.asarray(joints, jnp.float32), jnp.float32(SIGMA)
        off = 0.01 * np.random.default_rng(seed + 70).standard_normal(joints.shape)
        model = posterior.Model(
            observations=observations,
            inside=inside,
            start=jnp.asarray(joints + off, jnp.float32),
            sigma=sigma,
            correlation=jnp.float32(0.0),
            step=trajectory.motion_scale(truth, inside),
        )
        squared.append(np.sum((np.asarray(fit(model)[0], np.float64) - joints) ** 2, axis=-1))
        bound = with_priors(observations, inside, truth, sigma, ())
        least.append(np.trace(np.asarray(bound, np.float64), axis1=-2, axis2=-1))
    ratio = np.mean(squared) / np.mean(least)
    assert 0.9 < ratio < 1.6
