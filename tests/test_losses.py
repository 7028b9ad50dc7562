"""Terms against loops over SciPy rotations, and their known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose3d_jax import losses as plain
from tests import scenes
from tests.compiled import module

losses = module(plain)
CAMERA = scenes.ring(3)


def camera_frame(world):
    rotation = Rotation.from_matrix(np.asarray(CAMERA.rotation))
    return np.stack(
        [r.apply(world) + np.asarray(t) for r, t in zip(rotation, CAMERA.translation, strict=True)]
    )


WORLD = scenes.people(1)[0, 0]
TRUTH = jnp.asarray(camera_frame(WORLD), jnp.float32)
POINTS = TRUTH[..., :2] / TRUTH[..., 2:]


def test_carry_puts_every_pose_into_every_view():
    worlds = scenes.people(3, seed=1)[:, 0]
    joints = np.stack([camera_frame(world)[v] for v, world in enumerate(worlds)])
    carried = losses.carry(CAMERA, jnp.asarray(joints, jnp.float32))
    for source in range(3):
        np.testing.assert_allclose(carried[source], camera_frame(worlds[source]), atol=1e-5)


def test_truth_has_no_error():
    assert losses.reprojection(CAMERA, TRUTH, POINTS).max() < 1e-6
    assert losses.consistency(CAMERA, TRUTH).max() < 1e-5


def test_reprojection_of_a_shifted_view_has_the_closed_form():
    shift = np.array([0.1, -0.05, 0.3], np.float32)
    joints = TRUTH.at[1].add(shift[None])
    error = losses.reprojection(CAMERA, joints, POINTS)
    world = (np.asarray(joints[1]) - np.asarray(CAMERA.translation[1])) @ np.asarray(
        CAMERA.rotation[1]
    )
    carried = camera_frame(world)
    expected = np.linalg.norm(carried[..., :2] / carried[..., 2:] - np.asarray(POINTS), axis=-1)
    np.testing.assert_allclose(error[1], expected, atol=1e-6)
    assert error[0].max() < 1e-6
    assert error[2].max() < 1e-6


def test_consistency_is_the_distance_in_the_world():
    shift = np.array([0.1, -0.05, 0.3], np.float32)
    error = losses.consistency(CAMERA, TRUTH.at[1].add(shift[None]))
    expected = np.linalg.norm(shift)
    np.testing.assert_allclose(error[0, 1], expected, atol=1e-5)
    np.testing.assert_allclose(error[1, 2], expected, atol=1e-5)
    assert error[0, 2].max() < 1e-5


def test_asymmetry_is_the_difference_in_length_of_left_and_right_bones():
    h36m = scenes.H36M
    joints = jnp.asarray(scenes.people(3)[:, 0])
    left = [h36m.joints.index(f"left_{part}") for part in ("knee", "ankle")]
    right = [h36m.joints.index(f"right_{part}") for part in ("knee", "ankle")]
    shin = lambda knee, ankle: np.linalg.norm(joints[:, ankle] - joints[:, knee], axis=-1)  # noqa: E731
    found = losses.asymmetry(joints, h36m)
    assert found.shape == (3, 6)
    children = [h36m.joints[h36m.bones[i][1]] for i, _ in h36m.bone_pairs]
    at = next(i for i, child in enumerate(children) if child.endswith("ankle"))
    np.testing.assert_allclose(found[:, at], np.abs(shin(*left) - shin(*right)), rtol=1e-4)
    mirrored = joints[:, np.array(h36m.mirrored)] * jnp.array([[[-1.0, 1.0, 1.0]]])
    np.testing.assert_allclose(losses.asymmetry(mirrored, h36m), found, rtol=1e-4)
    middle = (joints + mirrored) / 2  # its own mirror image
    np.testing.assert_allclose(losses.asymmetry(middle, h36m), 0, atol=1e-6)
    gradient = jax.grad(lambda x: losses.asymmetry(x, h36m).sum())(jnp.zeros((17, 3)))
    assert np.isfinite(gradient).all()


def test_weighted_term_is_sum_and_count_over_the_visible():
    total, count = losses.weighted_term(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([0.5, 1.0, 0.0]))
    assert (total, count) == (2.5, 1.5)


@jax.jit
@jax.grad
def slope_of_both(joints):
    reprojection = losses.reprojection(CAMERA, joints, POINTS)
    return reprojection.sum() + losses.consistency(CAMERA, joints).sum()


@pytest.mark.parametrize("place", [0.0, -3.0, 1e-6, 1e18])
def test_gradients_are_finite_wherever_the_joints_are(place):
    assert jnp.isfinite(slope_of_both(jnp.full(TRUTH.shape, place))).all()


def test_gradient_at_the_truth_itself_is_finite():
    gradient = jax.grad(lambda j: losses.consistency(CAMERA, j).sum())(TRUTH)
    assert jnp.isfinite(gradient).all()


def test_pseudo_huber_is_a_square_and_then_a_distance():
    distance = jnp.array([0.0, 1e-4, 3.0])
    found = losses.pseudo_huber(distance, 0.01)
    np.testing.assert_allclose(found, [0.0, 0.5e-6, 2.99001667], rtol=1e-3)
    slope = jax.vmap(jax.grad(lambda d: losses.pseudo_huber(d, 0.01)))(distance)
    np.testing.assert_allclose(slope, [0.0, 0.01, 1.0], rtol=1e-3)


def test_rounding_alone_does_not_steer():
    """A root on its own pixel's ray is off by rounding, whose direction means nothing."""
    points = POINTS + 1e-8 * jnp.sign(jnp.sin(jnp.arange(POINTS.size) ** 2)).reshape(POINTS.shape)
    own = lambda joints: jnp.trace(losses.reprojection(CAMERA, joints, points).sum(-1))  # noqa: E731
    assert jnp.abs(jax.grad(own)(TRUTH)).max() < 0.01
    assert jnp.abs(jax.grad(own)(TRUTH + 1e-3)).max() > 0.1


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-6, 0.5e-5, 1e-5, 1.1e-5, 1e-3, 10.0, 1e15])
def test_distance_is_the_norm_but_below_its_resolution(length):
    a = jnp.array([2.0, -1.0, 2.0]) / 3 * length
    value, gradient = jax.value_and_grad(losses.distance)(a, jnp.zeros(3))
    u = min(length / losses.RESOLUTION, 1.0)
    np.testing.assert_allclose(value, length * u * (2 - u), rtol=1e-5)
    slope = u * (4 - 3 * u) if u < 1 else 1.0
    np.testing.assert_allclose(jnp.linalg.norm(gradient), slope, rtol=1e-4)
