"""Residuals against OpenCV's projection and its derivatives; robust costs against the mixture."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pose3d_jax.residuals import OUTLIER_PX, OUTLIERS, reprojections, robust
from pose3d_jax.schema import Observations
from tests import scenes

VIEWS, JOINTS = 3, 17
cost_and_weight = jax.jit(robust)
residuals = jax.jit(reprojections)


# ------------------------------------------------------------------------------------- reprojection


def opencv(camera, world, pixels):
    """Residuals `[views, joints, 2]` and their Jacobians in the joints, all in float64."""
    values, jacobians = [], []
    for v in range(VIEWS):
        c = jax.tree.map(lambda x, v=v: np.asarray(x[v], np.float64), camera)
        matrix = np.array([[c.focal[0], 0, c.center[0]], [0, c.focal[1], c.center[1]], [0, 0, 1]])
        rotation = cv2.Rodrigues(c.rotation)[0]
        found, jacobian = cv2.projectPoints(world, rotation, c.translation, matrix, c.distortion)
        values.append(found[:, 0] - pixels[v])
        # Columns 3-5 are the derivative in the translation, and so in the camera-frame point.
        jacobians.append(jacobian[:, 3:6].reshape(JOINTS, 2, 3) @ cv2.Rodrigues(rotation)[0])
    return np.stack(values), np.stack(jacobians)


def scene():
    """Cameras with OpenCV's factor, joints `[2, joints, 3]`, pixels that miss them."""
    camera = scenes.ring(VIEWS).replace(tangential=jnp.full(VIEWS, 2.0))
    world = scenes.people(2)[:, 0]
    pixels = np.random.default_rng(0).uniform(0, 1000, (2, VIEWS, JOINTS, 2)).astype(np.float32)
    return camera, world, pixels


def observed(camera, pixels, confidence):
    return Observations(
        keypoints=jnp.asarray(pixels),
        confidence=jnp.asarray(confidence),
        cameras=jax.tree.map(lambda x: jnp.repeat(x[None], 2, 0), camera),
    )


def test_reprojection_matches_opencv():
    camera, world, pixels = scene()
    expected = [opencv(camera, world[t], pixels[t]) for t in range(2)]
    observations = observed(camera, pixels, np.ones(pixels.shape[:-1], np.float32))
    value, jacobian = residuals(observations, jnp.asarray(world))
    assert_allclose(value, np.stack([e[0] for e in expected]), atol=2e-3)
    assert_allclose(jacobian, np.stack([e[1] for e in expected]), atol=2e-2)
    with jax.enable_x64(True):
        # OpenCV takes the rotation for exact; float32's is one to seven digits.
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), observations)
        value, jacobian = reprojections(wide, jnp.asarray(world.astype(np.float64)))
    assert_allclose(value, np.stack([e[0] for e in expected]), atol=1e-3)
    assert_allclose(jacobian, np.stack([e[1] for e in expected]), atol=1e-3)


def test_reprojection_jacobian_is_finite_difference():
    camera, world, pixels = scene()
    with jax.enable_x64(True):
        observations = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x, np.float64)),
            observed(camera, pixels, np.ones(pixels.shape[:-1], np.float32)),
        )
        joints, step = world.astype(np.float64), 1e-6
        jacobian = reprojections(observations, jnp.asarray(joints))[1]
        for k, shift in enumerate(step * np.eye(3)):
            up = reprojections(observations, jnp.asarray(joints + shift))[0]
            down = reprojections(observations, jnp.asarray(joints - shift))[0]
            assert_allclose(jacobian[..., k], (up - down) / (2 * step), atol=1e-5)


@pytest.mark.parametrize("held", [0.0, 1e6, np.nan])
def test_what_is_not_seen_has_no_residual_and_no_gradient(held):
    camera, world, pixels = scene()
    seen = np.random.default_rng(1).uniform(size=pixels.shape[:-1]) > 0.4
    pixels = np.where(seen[..., None], pixels, np.float32(held))
    observations = observed(camera, pixels, 0.3 * seen.astype(np.float32))
    value, jacobian = residuals(observations, jnp.asarray(world))
    full = residuals(observed(camera, pixels, np.ones_like(seen, np.float32)), jnp.asarray(world))
    assert np.all(np.asarray(value)[~seen] == 0)
    assert np.all(np.asarray(jacobian)[~seen] == 0)
    assert_allclose(np.asarray(value)[seen], np.asarray(full[0])[seen])
    assert_allclose(np.asarray(jacobian)[seen], np.asarray(full[1])[seen])


# ------------------------------------------------------------------------------------- robustness

distances = st.floats(0, 1e6).map(lambda x: x**2)
sigmas = st.floats(0.05, 50)


def mixture(squared, sigma):
    """-2 log of the density, relative to that at 0, and the share of the inliers in it."""
    gauss = (1 - OUTLIERS) / (2 * np.pi * sigma**2) * np.exp(-squared / (2 * sigma**2))
    top = (1 - OUTLIERS) / (2 * np.pi * sigma**2)
    flat = OUTLIERS / (np.pi * OUTLIER_PX**2)
    return -2 * np.log((gauss + flat) / (top + flat)), gauss / (gauss + flat)


@settings(deadline=None, max_examples=100)
@given(distances, sigmas)
def test_robust_is_the_mixture(squared, sigma):
    squared, sigma = np.float32(squared), np.float32(sigma)
    cost, weight = cost_and_weight(jnp.asarray(squared), jnp.asarray(sigma))
    expected = mixture(np.float64(squared), np.float64(sigma))
    # The cost is a difference of logarithms of up to 20; the weight, their exponential.
    assert_allclose(cost, expected[0], atol=1e-5, rtol=1e-5)
    assert_allclose(weight, expected[1], atol=1e-5)
    assert 0 <= weight <= 1


@pytest.mark.parametrize("sigma", [0.05, 1.0, 4.5, 50.0])
def test_robust_along_the_residual(sigma):
    """Cost from 0 up, weight down, and the weight the derivative of the cost."""
    squared = jnp.asarray(np.r_[0, np.logspace(-12, 12, 400)], jnp.float32)
    sigma = jnp.float32(sigma)
    cost, weight = cost_and_weight(squared, sigma)
    assert_allclose(cost[0], 0.0, atol=1e-6)
    assert np.isfinite(cost).all()
    assert np.isfinite(weight).all()
    assert np.all(np.diff(cost) >= -1e-5)
    assert np.all(np.diff(weight) <= 1e-6)
    assert weight[0] > 0.5
    assert weight[-1] == 0
    slope = jax.vmap(jax.grad(lambda s: robust(s, sigma)[0]))(squared)
    assert_allclose(slope * sigma**2, weight, atol=1e-5)
    # As the naive formula has it in float64, by finite differences.
    at = np.linspace(0, 40, 50) * np.float64(sigma) ** 2
    step = 1e-5 * np.float64(sigma) ** 2
    difference = mixture(at + step, np.float64(sigma))[0] - mixture(at - step, np.float64(sigma))[0]
    weight = cost_and_weight(jnp.asarray(at, jnp.float32), sigma)[1]
    assert_allclose(weight, difference / (2e-5), atol=1e-4)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 50.0])
def test_robust_gradients_are_finite(sigma):
    squared = jnp.asarray(np.r_[0, np.logspace(-30, 12, 60)], jnp.float32)
    for which in range(2):
        by_squared, by_sigma = jax.vmap(
            jax.grad(lambda s, d, which=which: robust(s, d)[which], argnums=(0, 1)), (0, None)
        )(squared, jnp.float32(sigma))
        assert np.isfinite(by_squared).all()
        assert np.isfinite(by_sigma).all()
