"""Projection and distortion against OpenCV, their inverses, and gradients at the extremes."""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera, batched
from tests import scenes

LENSES = {
    "none": [0.0, 0, 0, 0, 0],
    "mild": [-0.207, 0.248, -0.0014, -0.00098, -0.003],  # Human3.6M
    "strong": [-0.322, 0.095, 0.0002, -0.007, 0],  # HumanEva
    "pincushion": [0.15, 0.05, 0.002, 0.003, 0.01],
}
project = jax.jit(batched(cam.project))
to_pixels = jax.jit(batched(cam.to_pixels))
normalise = jax.jit(batched(cam.normalise))


def make_camera(lens="mild", tangential=2.0, seed=0):
    """A camera 5 m from the origin, which it faces; numbers are float32 or, inside x64, float64."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(3) * [1, 1, 0.2]
    position = jnp.asarray(5 * direction / np.linalg.norm(direction) + [0, 0, 1])
    rotation, translation = cam.look_at(position, jnp.zeros(3), jnp.array([0.0, 0.0, 1.0]))
    return Camera(
        rotation=rotation,
        translation=translation,
        focal=jnp.array([1145.0, 1143.8]),
        center=jnp.array([512.5, 515.5]),
        distortion=jnp.array(LENSES[lens]),
        tangential=jnp.asarray(tangential),
        size=jnp.array([1000.0, 1002.0]),
    )


def matrix(camera):
    intrinsics = np.eye(3)
    intrinsics[0, 0], intrinsics[1, 1] = camera.focal
    intrinsics[:2, 2] = camera.center
    return intrinsics


def pixel_grid(camera, count=9):
    width, height = np.asarray(camera.size)
    x, y = np.meshgrid(np.linspace(0, width - 1, count), np.linspace(0, height - 1, count))
    return np.stack([x.ravel(), y.ravel()], axis=-1)


# ------------------------------------------------------------------------------------- OpenCV


@pytest.mark.parametrize("lens", LENSES)
def test_project_matches_opencv(lens):
    camera = make_camera(lens)
    world = np.random.default_rng(1).uniform(-1, 1, (100, 3))
    rotation = np.asarray(camera.rotation, np.float64)
    translation = np.asarray(camera.translation, np.float64)
    lens = np.asarray(camera.distortion, np.float64)
    vector = cv2.Rodrigues(rotation)[0]
    expected = cv2.projectPoints(world, vector, translation, matrix(camera), lens)[0][:, 0]
    assert_allclose(project(camera, jnp.asarray(world, jnp.float32)), expected, atol=2e-3)


def test_factor_one_is_the_formula_without_the_twos():
    camera = make_camera("pincushion", tangential=1.0)
    x, y = points = np.random.default_rng(2).uniform(-0.4, 0.4, (2, 100))
    k1, k2, p1, p2, k3 = LENSES["pincushion"]
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    expected = np.stack(
        [
            x * radial + p1 * x * y + p2 * (r2 + x * x),
            y * radial + p1 * (r2 + y * y) + p2 * x * y,
        ]
    )
    expected = expected.T * np.asarray(camera.focal) + np.asarray(camera.center)
    pixels = to_pixels(camera, jnp.asarray(points.T, jnp.float32))
    assert_allclose(pixels, expected, atol=2e-3)
    twos = to_pixels(make_camera("pincushion", tangential=2.0), jnp.asarray(points.T, jnp.float32))
    assert np.abs(twos - pixels).max() > 0.1


@pytest.mark.parametrize("lens", LENSES)
def test_normalise_matches_opencv(lens):
    camera = make_camera(lens)
    pixels = pixel_grid(camera)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 500, 1e-12)
    expected = cv2.undistortPoints(
        pixels, matrix(camera), np.asarray(camera.distortion, np.float64), criteria=criteria
    )
    assert_allclose(normalise(camera, jnp.asarray(pixels, jnp.float32)), expected[:, 0], atol=1e-6)


# ------------------------------------------------------------------------------------- inverses


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(list(LENSES)),
    st.sampled_from(list(cam.TANGENTIAL.values())),
    st.floats(0, 999, width=32),
    st.floats(0, 1001, width=32),
)
def test_normalise_is_the_inverse_of_to_pixels(lens, tangential, x, y):
    camera = make_camera(lens, tangential)
    pixel = jnp.array([[x, y]])
    assert_allclose(to_pixels(camera, normalise(camera, pixel)), pixel, atol=2e-3)


def test_undistort_is_exact_in_float64():
    with jax.enable_x64(True):
        camera = make_camera("strong")
        pixels = jnp.asarray(pixel_grid(camera))
        assert_allclose(to_pixels(camera, normalise(camera, pixels)), pixels, atol=1e-9)


def test_world_to_camera_and_back():
    camera = make_camera()
    points = jnp.asarray(np.random.default_rng(3).uniform(-2, 2, (50, 3)), jnp.float32)
    moved = jax.jit(batched(cam.to_camera))(camera, points)
    expected = points @ camera.rotation.T + camera.translation[None]
    assert_allclose(moved, expected, atol=2e-6)
    assert_allclose(jax.jit(batched(cam.to_world))(camera, moved), points, atol=2e-6)


# ------------------------------------------------------------------------------------- look-at


def test_look_at_known_answer():
    up = jnp.array([0.0, 0.0, 1.0])
    rotation, translation = cam.look_at(jnp.array([0.0, -5.0, 0.0]), jnp.zeros(3), up)
    assert_allclose(rotation, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-7)
    assert_allclose(translation, [0, 0, 5], atol=1e-7)


def test_look_at_is_a_rotation_with_the_target_ahead_and_up_upwards():
    position, target = jnp.array([3.0, -4.0, 1.5]), jnp.array([0.2, 0.3, 1.0])
    rotation, translation = cam.look_at(position, target, jnp.array([0.0, 0.0, 1.0]))
    assert_allclose(Rotation.from_matrix(rotation).as_matrix(), rotation, atol=1e-6)
    ahead = rotation @ target + translation
    assert_allclose(ahead, [0, 0, np.linalg.norm(target - position)], atol=2e-6)
    above = rotation @ (target + jnp.array([0.0, 0.0, 1.0])) + translation
    assert above[1] < 0
    assert_allclose(above[0], 0, atol=2e-6)


# ------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("lens", ["mild", "strong"])
def test_gradients_are_finite_differences(lens):
    with jax.enable_x64(True):
        camera = make_camera(lens)
        # Jitted: the check passes NumPy arrays.
        inverse, forward = jax.jit(cam.normalise), jax.jit(cam.project)
        for pixel in jnp.array([[512.0, 515.0], [30.0, 60.0], [950.0, 400.0]]):
            check_grads(inverse, (camera, pixel), order=1, atol=1e-6, rtol=1e-6, eps=1e-5)
        point = jnp.array([0.3, -0.4, 0.5])
        check_grads(forward, (camera, point), order=1, atol=1e-4, rtol=1e-6, eps=1e-5)


@partial(jax.jit, static_argnums=0)
def value_and_gradient(function, camera, point):
    value, pull = jax.vjp(function, camera, point)
    return value, pull(jnp.ones(2))


def finite_with_gradient(function, camera, point):
    leaves = jax.tree.leaves(value_and_gradient(function, camera, point))
    return all(np.isfinite(x).all() for x in leaves)


@pytest.mark.parametrize("depth", [-1e4, -5.0, -1e-20, 0.0, 1e-20, 0.499, 1e4])
@pytest.mark.parametrize("side", [0.0, 1e-20, 1.0, 1e4])
def test_projection_is_finite_wherever_the_point_is(depth, side):
    camera = make_camera("mild").replace(rotation=jnp.eye(3), translation=jnp.zeros(3))
    assert finite_with_gradient(cam.project, camera, jnp.array([side, -side, depth]))


def test_a_point_behind_the_camera_still_moves_sideways():
    gradient = jax.jacobian(cam.perspective)(jnp.array([0.1, 0.2, -3.0]))
    assert_allclose(gradient, np.array([[1, 0, 0], [0, 1, 0]]) / cam.MIN_DEPTH)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("pixel", [-1e5, -1e3, 0.0, 2e3, 1e5])
def test_normalise_is_finite_far_outside_the_image(lens, pixel):
    assert finite_with_gradient(cam.normalise, make_camera(lens), jnp.array([pixel, -pixel]))


def test_the_zero_camera_of_a_padded_view_is_finite():
    zero = jax.tree.map(jnp.zeros_like, make_camera())
    assert finite_with_gradient(cam.normalise, zero, jnp.zeros(2))
    assert finite_with_gradient(cam.project, zero, jnp.ones(3))


# ------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    ("function", "axes"),
    [
        (cam.to_camera, 3),
        (cam.to_world, 3),
        (cam.distort, 2),
        (cam.undistort, 2),
        (cam.to_pixels, 2),
        (cam.normalise, 2),
        (cam.project, 3),
        (lambda _, point: cam.perspective(point), 3),
    ],
)
def test_batched_is_a_loop_over_cameras_and_points(function, axes):
    cameras = [make_camera("mild", seed=seed) for seed in range(6)]
    both = jax.tree.map(lambda *x: jnp.stack(x).reshape(2, 3, *x[0].shape), *cameras)
    points = np.random.default_rng(4).uniform(-0.4, 0.4, (2, 3, 4, axes))
    points = jnp.asarray(points, jnp.float32)
    result = jax.jit(batched(function))(both, points)
    one = jax.jit(function)
    for t, v, j in np.ndindex(2, 3, 4):
        assert_allclose(
            result[t, v, j], one(cameras[3 * t + v], points[t, v, j]), rtol=1e-5, atol=1e-5
        )


def test_cameras_of_other_leading_axes_than_the_points_are_refused():
    """As many, but in another order: they would be paired wrongly."""
    clip = scenes.batch(size=2, views=3)
    swapped = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), clip.observations.cameras)
    with pytest.raises(ValueError, match="do not match points"):
        cam.batched(cam.project)(swapped, jnp.zeros((2, 1, 3, 17, 3)))
