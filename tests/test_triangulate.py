"""Triangulation against OpenCV, against exact scenes, and at the known noise level."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.test_util import check_grads
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera, batched
from pose3d_jax.schema import Observations
from pose3d_jax.triangulate import dlt, triangulate

# Two long sides of a room, as in Human3.6M; metres.
POSITIONS = [[2.0, 4.9, 1.6], [2.0, -5.1, 1.6], [-1.7, 5.2, 1.5], [-1.7, -3.9, 1.55]]
FRAMES, JOINTS = 100, 17
solve = jax.jit(triangulate)


def rig(views=4, tangential=1.0):
    poses = [
        cam.look_at(jnp.array(p), jnp.array([0.1, 0.2, 0.9]), jnp.array([0.0, 0.0, 1.0]))
        for p in POSITIONS[:views]
    ]
    lens = [-0.207, 0.248, -0.0014, -0.00098, -0.003]
    return Camera(
        rotation=jnp.stack([rotation for rotation, _ in poses]),
        translation=jnp.stack([translation for _, translation in poses]),
        focal=jnp.tile(jnp.array([[1145.0, 1143.8]]), (views, 1)),
        center=jnp.tile(jnp.array([[512.5, 515.5]]), (views, 1)),
        distortion=jnp.tile(jnp.array([lens]), (views, 1)),
        tangential=jnp.full(views, tangential),
        size=jnp.full((views, 2), 1000.0),
    )


def people(frames=FRAMES, seed=0):
    """Joints `[frames, JOINTS, 3]` of a room's width, metres."""
    rng = np.random.default_rng(seed)
    return rng.uniform([-1.5, -1.5, 0], [1.5, 1.5, 1.8], (frames, JOINTS, 3)).astype(np.float32)


def film(camera, world, noise=0.0):
    """Observations `[frames, views, ...]`, projected in float64: the error is the solver's."""
    frames, views = len(world), len(camera.focal)
    c = jax.tree.map(lambda x: np.asarray(x, np.float64)[:, None, None], camera)
    moved = np.sum(c.rotation * world[None, ..., None, :], axis=-1) + c.translation
    x, y = np.moveaxis(moved[..., :2] / moved[..., 2:], -1, 0)
    k1, k2, p1, p2, k3 = np.moveaxis(c.distortion, -1, 0)
    r2, factor = x * x + y * y, c.tangential
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    dx = factor * p1 * x * y + p2 * (r2 + factor * x * x)
    dy = p1 * (r2 + factor * y * y) + factor * p2 * x * y
    pixels = c.focal * np.stack([x * radial + dx, y * radial + dy], axis=-1) + c.center
    pixels = pixels + noise * np.random.default_rng(9).standard_normal(pixels.shape)
    return Observations(
        keypoints=jnp.asarray(pixels.swapaxes(0, 1), jnp.float32),
        confidence=jnp.ones((frames, views, JOINTS)),
        cameras=jax.tree.map(lambda x: jnp.repeat(x[None], frames, 0), camera),
    )


def distance(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b, axis=-1)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_exact_views_give_the_exact_point(views):
    world = people()
    points, valid = solve(film(rig(views), world))
    assert distance(points, world).max() < 1e-5
    assert np.all(valid == 1)


def test_matches_opencv_for_two_views():
    camera, world = rig(2, tangential=2.0), people()
    observations = film(camera, world)
    matrices = [
        np.hstack([camera.rotation[v], camera.translation[v][:, None]]).astype(np.float64)
        for v in range(2)
    ]
    points = batched(cam.normalise)(observations.cameras, observations.keypoints)
    flat = [np.asarray(points[:, v], np.float64).reshape(-1, 2).T for v in range(2)]
    homogeneous = cv2.triangulatePoints(*matrices, *flat)
    expected = (homogeneous[:3] / homogeneous[3]).T.reshape(world.shape)
    assert_allclose(solve(observations)[0], expected, atol=2e-5)


def test_nearly_parallel_rays_are_still_accurate():
    """Two cameras 5 cm apart, 5 m away: the pixels' own rounding is worth about 0.02 mm."""
    camera, world = rig(2), people()
    pair = jax.tree.map(lambda x: jnp.repeat(x[:1], 2, 0), camera)
    aside = pair.translation.at[1, 0].add(0.05)
    points, valid = solve(film(pair.replace(translation=aside), world))
    assert distance(points, world).mean() < 5e-5
    assert np.all(valid == 1)


def test_noisy_views_give_the_least_squares_solution():
    camera = rig(4)
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.3, 0.3, (4, 2))  # no common point: all residuals are large
    weight = np.array([1.0, 0.5, 0.0, 2.0])
    rotation = np.asarray(camera.rotation, np.float64)
    translation = np.asarray(camera.translation, np.float64)
    rows = rotation[:, :2] - points[:, :, None] * rotation[:, 2:]
    right = points * translation[:, 2:] - translation[:, :2]
    root = np.sqrt(weight)[:, None]
    expected = np.linalg.lstsq(
        (root[..., None] * rows).reshape(8, 3), (root * right).reshape(8), rcond=None
    )[0]
    point, valid = dlt(camera, jnp.asarray(points, jnp.float32), jnp.asarray(weight, jnp.float32))
    assert_allclose(point, expected, atol=1e-5)
    assert valid == 1


def test_noise_level():
    """At 1 px and 4 views the literature's rig leaves about 5.6 mm."""
    world = people()
    error = distance(solve(film(rig(4), world, noise=1.0))[0], world).mean()
    assert 4e-3 < error < 8e-3
    # Linear in the noise, and worse with fewer views.
    assert_allclose(distance(solve(film(rig(4), world, 2.0))[0], world).mean(), 2 * error, rtol=0.1)
    assert distance(solve(film(rig(3), world, 1.0))[0], world).mean() > error


def test_missing_joints_use_the_views_that_are_left():
    world = people()
    observations = film(rig(4), world)
    seen = np.random.default_rng(2).uniform(size=(FRAMES, 4, JOINTS)) > 0.5
    observations = observations.replace(
        confidence=jnp.asarray(seen * 0.3, jnp.float32),
        keypoints=jnp.where(seen[..., None], observations.keypoints, 0.0),
    )
    points, valid = solve(observations)
    expected = seen.sum(axis=1) >= 2
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(valid, expected)
    assert distance(points, world)[expected].max() < 1e-4
    assert np.all(np.asarray(points)[~expected] == 0)


def test_a_padded_view_is_a_missing_view():
    world = people()
    observations = film(rig(3), world)
    padded = jax.tree.map(
        lambda x: jnp.concatenate([x, jnp.zeros_like(x[:, :1])], axis=1), observations
    )
    assert_allclose(solve(padded)[0], solve(observations)[0], atol=2e-6)
    gradient = jax.jit(jax.grad(lambda o: jnp.sum(triangulate(o)[0])))(padded)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@jax.jit
def dlt_with_gradient(camera, points, weight):
    point, pull, valid = jax.vjp(dlt, camera, points, weight, has_aux=True)
    return point, valid, pull(jnp.ones(3))


@pytest.mark.parametrize("views", [0, 1])
def test_too_few_views_are_invalid_with_gradient_zero(views):
    weight = (jnp.arange(4) < views).astype(jnp.float32)
    point, valid, gradient = dlt_with_gradient(rig(4), jnp.full((4, 2), 0.1), weight)
    assert np.all(point == 0)
    assert valid == 0
    assert all(np.all(x == 0) for x in jax.tree.leaves(gradient))


def test_parallel_rays_are_invalid_with_gradient_zero():
    same = jax.tree.map(lambda x: jnp.repeat(x, 4, 0), rig(1))
    point, valid, gradient = dlt_with_gradient(same, jnp.full((4, 2), 0.1), jnp.ones(4))
    assert np.all(point == 0)
    assert valid == 0
    assert all(np.all(x == 0) for x in jax.tree.leaves(gradient))


def test_gradient_is_finite_difference():
    with jax.enable_x64(True):
        camera = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), rig(3))
        points = jnp.asarray(np.random.default_rng(3).uniform(-0.2, 0.2, (3, 2)))
        point = jax.jit(lambda *args: dlt(*args)[0])
        check_grads(point, (camera, points, jnp.ones(3)), order=1, modes=["rev"], eps=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    arrays(np.float32, 3, elements=st.floats(-3, 3, width=32)),
    arrays(np.float32, 3, elements=st.floats(-20, 20, width=32)),
)
def test_moving_the_world_and_the_cameras_moves_the_points(vector, shift):
    camera, world = rig(4), people()
    observations = film(camera, world)
    motion = Rotation.from_rotvec(vector).as_matrix()
    rotation = np.asarray(camera.rotation, np.float64) @ motion.T
    translation = np.asarray(camera.translation, np.float64) - rotation @ shift
    moved = camera.replace(
        rotation=jnp.asarray(rotation, jnp.float32),
        translation=jnp.asarray(translation, jnp.float32),
    )
    points, _ = solve(
        observations.replace(cameras=jax.tree.map(lambda x: jnp.repeat(x[None], FRAMES, 0), moved))
    )
    assert distance(points, world @ motion.T + shift).max() < 1e-4


@pytest.mark.parametrize("time", [(), (1, FRAMES // 2, 2)])
def test_any_leading_axes(time):
    observations = film(rig(3), people())
    expected, _ = solve(observations)
    size = int(np.prod(time))
    shaped = jax.tree.map(lambda x: x[:size].reshape(*time, *x.shape[1:]), observations)
    points, valid = solve(shaped)
    assert points.shape == (*time, JOINTS, 3)
    assert valid.shape == (*time, JOINTS)
    assert_allclose(points.reshape(size, JOINTS, 3), expected[:size], atol=1e-6)
