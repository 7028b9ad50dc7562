"""Rotations and alignment against SciPy; norms at the extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from pose3d_jax import geometry as plain
from tests.compiled import module

geometry = module(plain)
JOINTS = 17
align = jax.jit(geometry.similarity_align)
axis_angle = jax.jit(geometry.axis_angle_to_matrix)
back = jax.jit(geometry.matrix_to_axis_angle)


def f32(array):
    return jnp.asarray(np.asarray(array, np.float32))


def vectors(limit, *shape):
    return arrays(np.float32, shape, elements=st.floats(-limit, limit, width=32))


def align_reference(source, target, weight):
    """Rotation by SciPy's Kabsch, then the scale and the shift in closed form."""
    weight = weight / weight.sum()
    source_mean, target_mean = weight @ source, weight @ target
    s, t = source - source_mean, target - target_mean
    moved = Rotation.align_vectors(t, s, weight)[0].apply(s)
    scale = np.sum(weight[:, None] * moved * t) / np.sum(weight[:, None] * s * s)
    return scale * moved + target_mean


# ------------------------------------------------------------------------------------- rotations


def test_quaternion_matches_scipy():
    q = np.random.default_rng(0).standard_normal((50, 4))
    expected = Rotation.from_quat(q, scalar_first=True).as_matrix()
    assert_allclose(geometry.quaternion_to_matrix(f32(q)), expected, atol=2e-6)


def test_two_axes_make_a_rotation_and_those_of_a_rotation_itself():
    axes = np.random.default_rng(0).standard_normal((50, 6))
    found = np.asarray(geometry.axes_to_matrix(f32(axes)))
    # QR makes the same columns but for signs; R's diagonal is to be positive.
    q, r = np.linalg.qr(axes.reshape(50, 2, 3).swapaxes(1, 2))
    rows = (q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]).swapaxes(1, 2)
    assert_allclose(found[:, :2], rows, atol=1e-5)
    assert_allclose(np.linalg.det(found), 1.0, atol=1e-5)
    rotation = Rotation.random(50, random_state=1).as_matrix()
    again = geometry.axes_to_matrix(f32(rotation[:, :2].reshape(50, 6)))
    assert_allclose(again, rotation, atol=1e-5)
    gradient = jax.jacobian(geometry.axes_to_matrix)(jnp.zeros(6))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_quaternion_of_extreme_length(scale):
    q = np.array([0.3, 0.2, -0.5, 0.4])
    expected = Rotation.from_quat(q, scalar_first=True).as_matrix()
    assert_allclose(geometry.quaternion_to_matrix(f32(q * scale)), expected, atol=2e-6)
    gradient = jax.jacobian(geometry.quaternion_to_matrix)(f32(q * scale))
    assert_allclose(
        gradient * scale, jax.jacobian(geometry.quaternion_to_matrix)(f32(q)), rtol=1e-3
    )


def test_zero_quaternion_is_identity_with_gradient_zero():
    zero = jnp.zeros(4)
    assert_allclose(geometry.quaternion_to_matrix(zero), np.eye(3))
    assert_allclose(jax.jacobian(geometry.quaternion_to_matrix)(zero), 0.0)


@pytest.mark.parametrize(
    "angle", [0, 1e-20, 1e-6, 5e-4, 9.9e-4, 1.01e-3, 0.1, 1, np.pi - 1e-4, np.pi, 4, 2 * np.pi]
)
def test_axis_angle_matches_scipy(angle):
    axis = np.random.default_rng(1).standard_normal((20, 3))
    vector = angle * axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    expected = Rotation.from_rotvec(vector).as_matrix()
    assert_allclose(axis_angle(f32(vector)), expected, atol=2e-6)


def test_axis_angle_gradient_at_zero_is_the_generators():
    gradient = jax.jacobian(geometry.axis_angle_to_matrix)(jnp.zeros(3))
    generators = np.stack([np.cross(np.eye(3)[k], np.eye(3)).T for k in range(3)], axis=-1)
    assert_allclose(gradient, generators, atol=1e-7)


@pytest.mark.parametrize("angle", [9.9e-4, 1.01e-3, 0.5, np.pi, 6.0])
def test_axis_angle_gradient_is_finite_difference(angle):
    with jax.enable_x64(True):
        vector = jnp.asarray(angle * np.array([2.0, -1.0, 2.0]) / 3)
        gradient = jax.jacobian(geometry.axis_angle_to_matrix)(vector)
        step = 1e-6
        for k in range(3):
            shift = jnp.asarray(step * np.eye(3)[k])
            difference = geometry.axis_angle_to_matrix(
                vector + shift
            ) - geometry.axis_angle_to_matrix(vector - shift)
            assert_allclose(gradient[..., k], difference / (2 * step), atol=1e-8)


@settings(deadline=None, max_examples=50)
@given(vectors(6, 3), vectors(5, 3))
def test_rotation_is_proper_and_undone_by_its_negative(vector, point):
    matrix = axis_angle(f32(vector))
    assert_allclose(matrix @ matrix.T, np.eye(3), atol=2e-6)
    assert_allclose(np.linalg.det(matrix), 1.0, atol=2e-6)
    back = geometry.rotate(axis_angle(f32(-vector)), geometry.rotate(matrix, f32(point)))
    assert_allclose(back, point, atol=1e-5)


# ------------------------------------------------------------------------------------- alignment


TURNS = [0.0, 1e-4, 1e-3, 2e-3, 0.5, 2.0, 3.0, np.pi - 1e-2]


@pytest.mark.parametrize("angle", [*TURNS, np.pi])
def test_rotations_have_the_quaternions_and_vectors_of_scipy(angle):
    """About every axis and between them; half a turn has two vectors."""
    axes = np.concatenate([np.eye(3), -np.eye(3), np.random.default_rng(0).normal(size=(40, 3))])
    expected = Rotation.from_rotvec(angle * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    matrix = f32(expected.as_matrix())
    for wanted, found in (
        (
            expected.as_quat(scalar_first=True, canonical=True),
            geometry.matrix_to_quaternion(matrix),
        ),
        (expected.as_rotvec(), back(matrix)),
    ):
        found = np.asarray(found)
        if angle == np.pi:
            found = np.where((found * wanted).sum(axis=1, keepdims=True) < 0, -found, found)
        assert_allclose(found, wanted, atol=2e-6)


def test_quaternions_of_any_length_and_sign_are_one_vector():
    q = np.random.default_rng(0).standard_normal((50, 4))
    expected = Rotation.from_quat(q, scalar_first=True).as_rotvec()
    assert_allclose(geometry.quaternion_to_axis_angle(f32(q)), expected, atol=3e-6)


def test_two_rows_are_a_rotation_and_back():
    matrix = f32(Rotation.random(20, random_state=0).as_matrix())
    assert_allclose(geometry.axes_to_matrix(geometry.matrix_to_axes(matrix)), matrix, atol=1e-6)


@pytest.mark.parametrize("angle", TURNS)
def test_there_and_back_has_the_gradient_of_the_identity(angle):
    """At no turn at all, and close to half a turn."""
    axis = np.array([0.6, -0.64, 0.48])
    slopes = jax.jit(
        jax.jacobian(lambda v: geometry.matrix_to_axis_angle(geometry.axis_angle_to_matrix(v)))
    )
    assert_allclose(slopes(f32(angle * axis)), np.eye(3), atol=2e-3)
    assert_allclose(slopes(f32([angle, 0, 0])), np.eye(3), atol=2e-3)


def test_gradients_at_half_a_turn_are_finite():
    slopes = jax.jit(jax.jacobian(geometry.matrix_to_axis_angle))
    for half in (np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])):
        assert np.isfinite(slopes(f32(half))).all()


def test_scale_and_shift_are_numpy_s_least_squares():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 9, 2))
    weight = rng.uniform(size=9) * (rng.uniform(size=9) > 0.3)
    # Unknowns s, x, y; a row for each coordinate.
    rows = np.concatenate([source.reshape(-1, 1), np.tile(np.eye(2), (9, 1))], axis=1)
    heavy = np.sqrt(np.repeat(weight, 2))
    expected = np.linalg.lstsq(heavy[:, None] * rows, heavy * target.ravel())[0]
    scale, shift = jax.jit(geometry.scale_and_shift)(f32(source), f32(target), f32(weight))
    assert_allclose([scale, *shift], expected, rtol=1e-4, atol=1e-5)
    for points, weights in ((np.ones((9, 2)), weight), (source, np.zeros(9))):
        one = jax.jit(jax.value_and_grad(lambda *x: jnp.sum(geometry.scale_and_shift(*x)[1])))
        value, slope = one(f32(points), f32(target), f32(weights))
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_align_matches_kabsch():
    rng = np.random.default_rng(2)
    for _ in range(10):
        source, target = rng.standard_normal((2, JOINTS, 3))
        weight = rng.uniform(0, 1, JOINTS) * (rng.uniform(size=JOINTS) > 0.3)
        expected = align_reference(source, target, weight)
        assert_allclose(align(f32(source), f32(target), f32(weight)), expected, atol=2e-5)


def test_align_has_the_disparity_of_scipy_procrustes():
    rng = np.random.default_rng(3)
    target = rng.standard_normal((JOINTS, 3))
    rotation = Rotation.from_rotvec([0.3, -2, 1]).as_matrix()
    source = 0.2 * target @ rotation + 0.02 * rng.standard_normal((JOINTS, 3)) + [1, 2, 3]
    aligned = np.asarray(align(f32(source), f32(target), jnp.ones(JOINTS)), np.float64)
    disparity = np.sum((aligned - target) ** 2) / np.sum((target - target.mean(0)) ** 2)
    assert_allclose(disparity, procrustes(target, source)[2], rtol=1e-3)


def test_align_excludes_reflections():
    rng = np.random.default_rng(4)
    target = rng.standard_normal((JOINTS, 3))
    source = target * [-1, 1, 1]
    aligned = align(f32(source), f32(target), jnp.ones(JOINTS))
    assert np.abs(aligned - target).max() > 0.1
    expected = align_reference(source, target, np.ones(JOINTS))
    assert_allclose(aligned, expected, atol=2e-5)


def test_align_of_planar_points_is_exact():
    rng = np.random.default_rng(5)
    target = rng.standard_normal((JOINTS, 3)) * [1, 1, 0]
    source = 3 * Rotation.from_rotvec([1, 1, 0]).apply(target) - 2
    assert_allclose(align(f32(source), f32(target), jnp.ones(JOINTS)), target, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(vectors(3, 3), st.floats(0.1, 10), vectors(5, 3))
def test_align_ignores_a_similarity_of_the_source(vector, scale, shift):
    rng = np.random.default_rng(6)
    source, target = rng.standard_normal((2, JOINTS, 3))
    moved = scale * Rotation.from_rotvec(vector).apply(source) + shift
    weight = f32(np.arange(JOINTS) % 4 > 0)
    expected = align(f32(source), f32(target), weight)
    assert_allclose(align(f32(moved), f32(target), weight), expected, atol=1e-4)


def test_align_without_weight_or_extent_is_finite():
    target = f32(np.random.default_rng(7).standard_normal((JOINTS, 3)))
    assert np.isfinite(align(target, target, jnp.zeros(JOINTS))).all()
    point = align(jnp.ones((JOINTS, 3)), target, jnp.ones(JOINTS))
    expected = np.broadcast_to(target.mean(0), (JOINTS, 3))
    assert_allclose(point, expected, atol=1e-6)


# ------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-10, 1.0, 1e10, 1e20, 1e37])
def test_safe_norm_and_its_gradient(scale):
    unit = np.array([1.0, -2.0, 2.0]) / 3
    vector = f32(scale * unit)
    assert_allclose(geometry.safe_norm(vector), scale, rtol=1e-6)
    assert_allclose(jax.grad(geometry.safe_norm)(vector), unit if scale else np.zeros(3), atol=1e-6)


@pytest.mark.parametrize("other", [0.0, 1.0, np.inf])
def test_safe_norm_of_nan_is_nan(other):
    assert np.isnan(geometry.safe_norm(f32([other, np.nan, other])))
    beside = geometry.safe_norm(f32([[other, np.nan, 0], [3, 0, 4], [0, 0, 0]]))
    assert_allclose(beside[1:], [5, 0])


def test_safe_norm_takes_any_leading_axes():
    array = np.random.default_rng(8).standard_normal((2, 3, 4))
    assert_allclose(geometry.safe_norm(f32(array)), np.linalg.norm(array, axis=-1), rtol=1e-6)


def test_safe_divide():
    value, gradient = jax.value_and_grad(geometry.safe_divide, argnums=(0, 1))(
        jnp.ones(()), jnp.zeros(())
    )
    assert value == 0
    assert gradient == (0, 0)
    assert_allclose(geometry.safe_divide(f32([1, 0, 3]), f32([2, 0, -4])), [0.5, 0, -0.75])
