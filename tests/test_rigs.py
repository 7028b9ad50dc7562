"""Corrections of cameras: against SciPy's rotations and OpenCV's projection, and inverses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import BSpline, interp1d
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cam
from pose3d_jax import rigs
from pose3d_jax.schema import Observations
from tests import scenes

FRAMES, VIEWS, JOINTS = 12, 3, 4
corrected = jax.jit(rigs.corrected)
at_time = jax.jit(rigs.at_time)
quiet = jax.jit(rigs.quiet_at_time)
apply = jax.jit(rigs.apply)
project = jax.jit(cam.project)
one_camera = lambda: jax.tree.map(lambda x: jnp.asarray(x)[0], scenes.ring(VIEWS))  # noqa: E731


def observations(seed=0):
    rng = np.random.default_rng(seed)
    cameras = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (FRAMES, *np.shape(x))), scenes.ring(VIEWS)
    )
    keypoints = jnp.asarray(rng.uniform(300, 700, (FRAMES, VIEWS, JOINTS, 2)), jnp.float32)
    return Observations(keypoints, jnp.ones((FRAMES, VIEWS, JOINTS)), cameras)


def test_zero_is_the_identity():
    seen = observations()
    found = apply(seen, jnp.zeros((VIEWS, rigs.SIZE)))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(seen), strict=True):
        assert_allclose(a, b, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_a_turned_camera_sees_what_a_turned_world_shows(seed):
    """A pure rotation moves the camera about its own centre, a pure shift along its own axes."""
    rng = np.random.default_rng(seed)
    camera = one_camera()
    turn, shift = 0.3 * rng.standard_normal((2, 3))
    own = np.zeros(rigs.SIZE, np.float32)
    own[rigs.ROTATION] = turn
    found = corrected(camera, jnp.asarray(own))
    expected = Rotation.from_rotvec(turn).as_matrix() @ np.asarray(camera.rotation)
    assert_allclose(found.rotation, expected, atol=2e-6)
    centre = lambda c: -np.asarray(c.rotation).T @ np.asarray(c.translation)  # noqa: E731
    assert_allclose(centre(found), centre(camera), atol=2e-5)

    own = np.zeros(rigs.SIZE, np.float32)
    own[rigs.POSITION] = shift
    found = corrected(camera, jnp.asarray(own))
    assert_allclose(found.translation, np.asarray(camera.translation) + shift, atol=1e-5)
    assert_allclose(found.rotation, camera.rotation, atol=1e-6)


def test_a_longer_lens_magnifies_about_the_centre():
    camera = jax.tree.map(lambda x: x, one_camera())
    own = jnp.zeros(rigs.SIZE).at[rigs.FOCAL].set(jnp.log(1.1)).at[rigs.RADIAL].set(0.05)
    found = corrected(camera, own)
    assert_allclose(found.focal, 1.1 * camera.focal, rtol=1e-6)
    assert_allclose(found.distortion[0], camera.distortion[0] + 0.05, rtol=1e-5)
    assert_array_equal(found.distortion[1:], camera.distortion[1:])


@pytest.mark.parametrize("frames", [-2.0, -1.75, -0.25, 0.0, 0.5, 1.0, 2.25])
def test_points_at_another_time_lie_on_numpys_line(frames):
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 1000, (FRAMES, JOINTS, 2)).astype(np.float32)
    found, sure = at_time(jnp.asarray(points), jnp.ones((FRAMES, JOINTS)), jnp.float32(frames))
    wanted = np.arange(FRAMES) + frames
    inside = (wanted >= -rigs.EDGE) & (wanted <= FRAMES - 1 + rigs.EDGE)
    assert_array_equal(np.asarray(sure), np.broadcast_to(inside[:, None], (FRAMES, JOINTS)))
    for joint in range(JOINTS):
        for axis in range(2):
            line = interp1d(np.arange(FRAMES), points[:, joint, axis], fill_value="extrapolate")
            assert_allclose(found[inside, joint, axis], line(wanted[inside]), rtol=1e-4)


def test_between_a_point_and_a_gap_there_is_nothing():
    points = jnp.ones((FRAMES, JOINTS, 2))
    confidence = jnp.ones((FRAMES, JOINTS)).at[5, 1].set(0.0)
    _, sure = at_time(points, confidence, jnp.float32(0.5))
    assert_array_equal(np.flatnonzero(np.asarray(sure)[:, 1] == 0), [4, 5, FRAMES - 1])
    _, sure = at_time(points, confidence, jnp.float32(1.0))  # on a frame only that frame counts
    assert_array_equal(np.flatnonzero(np.asarray(sure)[:, 1] == 0), [4, FRAMES - 1])


def test_the_derivative_by_time_is_the_points_velocity():
    rng = np.random.default_rng(2)
    points = jnp.asarray(rng.uniform(0, 100, (FRAMES, JOINTS, 2)), jnp.float32)
    ones = jnp.ones((FRAMES, JOINTS))
    for frames in (0.0, 0.3):
        slope = jax.jacfwd(lambda t: at_time(points, ones, t)[0])(jnp.float32(frames))
        assert_allclose(slope[:-1], points[1:] - points[:-1], rtol=1e-4, atol=1e-3)


def test_the_first_view_s_clock_is_the_recording_s():
    found = rigs.deviations(rigs.Doubt(), np.ones(VIEWS, bool))
    assert_array_equal(found[:, rigs.TIME], [0, 2, 2])
    assert_allclose(found[:, rigs.ROTATION], np.radians(3.0), rtol=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.floats(0.3, 3.0))
def test_how_much_a_world_has_grown_is_told_wherever_it_is(seed, factor):
    """And by the cameras that see: where another one goes is nothing."""
    given = jax.tree.map(lambda x: jnp.asarray(x)[None], scenes.ring(VIEWS))
    shift = np.random.default_rng(seed).uniform(-1, 1, 3).astype(np.float32)
    larger = dataclasses.replace(
        given, translation=factor * given.translation + given.rotation @ jnp.asarray(shift)
    )
    found = rigs.grown(larger, given, jnp.ones(VIEWS))
    assert_allclose(found, np.log(factor), atol=1e-5)
    blind = dataclasses.replace(larger, translation=larger.translation.at[:, 0].add(7.0))
    sees = jnp.ones(VIEWS).at[0].set(0.0)
    assert_allclose(rigs.grown(blind, given, sees), np.log(factor), atol=1e-5)


def test_a_clock_beside_a_missing_point_moves_nothing():
    """Between a point and none the slope is none, not that to where missing points are kept."""
    points = jnp.asarray(np.random.default_rng(0).uniform(300, 700, (4, 1, 2)), jnp.float32)
    seen = jnp.ones((4, 1)).at[2].set(0.0)
    points = points * seen[..., None]
    slope = jax.jacfwd(lambda clock: at_time(points, seen, clock)[0])(jnp.zeros(()))
    assert_allclose(slope[0], points[1] - points[0], rtol=1e-6)
    assert_array_equal(slope[1], 0)  # the next one is missing
    found, sure = at_time(points, seen, jnp.ones(()))
    assert_allclose(found[2], points[3])
    assert sure[2, 0] == 1


@settings(deadline=None, max_examples=20)
@example(8.126618854940215e-13, 0)
@example(-1e-9, 0)
@given(st.floats(-2.5, 2.5), st.integers(0, 1000))
def test_quiet_points_are_scipys_uniform_b_spline_and_as_quiet_everywhere(clock, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 100, (FRAMES, JOINTS, 2)).astype(np.float32)
    seen = np.ones((FRAMES, JOINTS), np.float32)
    found, sure = quiet(points, seen, np.float32(clock))
    wanted = np.arange(FRAMES, dtype=np.float32) + np.float32(clock)
    wanted = wanted.astype(float)  # as single precision has rounded it
    # Coefficient i of the spline is centred on frame i.
    spline = BSpline(np.arange(-2, FRAMES + 2), points, 3, extrapolate=False)
    inside = (wanted >= 1) & (wanted < FRAMES - 2)
    assert_array_equal(np.asarray(sure)[inside], 1.0)
    assert_allclose(np.asarray(found)[inside], spline(wanted[inside]), rtol=1e-4, atol=1e-3)
    first, last = np.floor(wanted) - 1, np.floor(wanted) + np.where(wanted % 1 == 0, 1, 2)
    assert_array_equal(np.asarray(sure)[(first < 0) | (last >= FRAMES)], 0.0)
    weights = BSpline.basis_element(np.arange(5.0))(clock % 1 + np.arange(4))
    assert_allclose((weights**2).sum(), rigs.QUIET, atol=0.03)


def test_quiet_points_need_all_that_they_are_made_of():
    points = np.ones((FRAMES, JOINTS, 2), np.float32)
    seen = np.ones((FRAMES, JOINTS), np.float32)
    seen[6, 0] = 0
    _, sure = quiet(points, seen, np.float32(0.5))
    assert_array_equal(np.flatnonzero(np.asarray(sure)[1:9, 0] == 0) + 1, [4, 5, 6, 7])
    _, sure = quiet(points, seen, np.float32(0.0))
    assert_array_equal(np.flatnonzero(np.asarray(sure)[1:9, 0] == 0) + 1, [5, 6, 7])
