"""Classical structure from motion: exact points of low rank give exact shapes, but for the sign."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cam
from pose3d_jax import factorize
from pose3d_jax.factorize import reconstruct
from pose3d_jax.models import rays
from pose3d_jax.nonrigid import _begin, _step, nonrigid
from pose3d_jax.rigid import FactorError, rigid
from tests import scenes


def scene(frames=60, joints=12, modes=0, seed=0, scaled=True):
    """Camera-frame joints, and their points: each frame has a camera, a scale and a place."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(1 + modes, joints, 3))
    weights = np.insert(0.3 * rng.normal(size=(frames, modes)), 0, 1.0, axis=1)
    rotation = Rotation.random(frames, random_state=seed).as_matrix()
    scale = rng.uniform(0.7, 1.4, frames) if scaled else np.ones(frames)
    shape = np.einsum("fk,knj->fnj", weights, basis)
    joints = scale[:, None, None] * np.einsum("fij,fnj->fni", rotation, shape)
    joints[..., :2] += rng.normal(size=(frames, 1, 2))
    return joints, joints[..., :2]


def stress(found, truth):
    """Of each frame at its own scale, in mean distances."""
    total = []
    for p, t in zip(map(pdist, found), map(pdist, truth), strict=True):
        total.append(np.abs(p @ t / (p @ p) * p - t).mean() / t.mean())
    return np.mean(total)


def off_depth(found, truth):
    """The largest error of depths about their mean, of the better of both signs."""
    f, t = (x[..., 2] - x[..., 2].mean(axis=1, keepdims=True) for x in (found, truth))
    return min(abs(f - t).max(), abs(f + t).max())


@pytest.mark.parametrize("scaled", [False, True])
def test_one_shape_is_found_in_closed_form(scaled):
    joints, points = scene(frames=5, scaled=scaled)
    found = rigid(points)
    np.testing.assert_allclose(found.joints[..., :2], points, atol=1e-9)
    # One sign for all frames, and no scale that is wrong.
    assert off_depth(found.joints, joints) < 1e-9
    np.testing.assert_allclose(
        found.rotation @ found.rotation.swapaxes(1, 2), np.eye(3)[None].repeat(5, 0), atol=1e-9
    )


@pytest.mark.parametrize("modes", [1, 2])
def test_shapes_of_low_rank_are_found(modes):
    joints, points = scene(frames=80, modes=modes, seed=modes)
    assert stress(rigid(points).joints, joints) > 0.05  # one shape is not enough
    found = nonrigid(points, shapes=modes, iterations=80)
    assert stress(found.joints, joints) < 1e-3
    assert off_depth(found.joints, joints) < 2e-2
    again = nonrigid(points[::-1], shapes=modes, iterations=80)  # frames have no order
    np.testing.assert_allclose(abs(again.joints[::-1, :, 2]), abs(found.joints[..., 2]), atol=1e-3)


def test_points_that_are_missing_are_found_too():
    joints, points = scene(frames=80, seed=4)
    visible = np.random.default_rng(0).uniform(size=points.shape[:2]) > 0.2
    holes = np.where(visible[..., None], points, np.nan)
    found = nonrigid(holes, visible, shapes=0, iterations=60)
    assert stress(found.joints, joints) < 1e-3
    np.testing.assert_allclose(found.joints[..., :2], points, atol=2e-2)


def test_a_step_never_lowers_the_likelihood_of_noisy_points():
    """EM's own property, by the marginal density of the points in SciPy."""
    from scipy.stats import multivariate_normal

    _, points = scene(frames=20, joints=8, modes=2, seed=2)
    points = points + 0.05 * np.random.default_rng(1).normal(size=points.shape)
    seen = np.ones(points.shape[:2])

    def likelihood(state):
        total = 0.0
        for f in range(len(points)):
            two = state.scale[f] * state.rotation[f, :2]
            modes = np.einsum("ij,knj->nik", two, state.basis)
            mean = (modes[..., 0] + state.translation[f]).ravel()
            flat = modes[..., 1:].reshape(len(mean), -1)
            covariance = flat @ flat.T + state.noise * np.eye(len(mean))
            total += multivariate_normal(mean, covariance).logpdf(points[f].ravel())
        return total

    state = _begin(points, seen, 2)
    values = [likelihood(state)]
    for _ in range(15):
        state = _step(state, points, seen)
        values.append(likelihood(state))
    assert values[-1] > values[0] + 10
    assert min(np.diff(values)) > -1e-6 * abs(values[0])


def test_what_cannot_be_factorised_is_refused():
    _, points = scene(frames=4)
    with pytest.raises(FactorError, match="2 frames of 12 joints"):
        rigid(points[:2])
    with pytest.raises(FactorError, match="rank 2"):
        rigid(np.repeat(points[:1], 5, axis=0))
    with pytest.raises(FactorError, match="not finite"):
        rigid(np.where(np.arange(12)[:, None] == 3, np.nan, points))
    visible = np.ones(points.shape[:2], bool)
    visible[1, 2:] = False
    with pytest.raises(FactorError, match="frame 1 has fewer than three"):
        nonrigid(points, visible)
    visible = np.ones(points.shape[:2], bool)
    visible[:, 5] = False
    with pytest.raises(FactorError, match="no frame sees joint 5"):
        nonrigid(points, visible)


def test_a_split_has_its_joints_on_their_rays_and_the_sign_of_perspective():
    """One shape that turns about the vertical before a near camera, one view of it."""
    rng = np.random.default_rng(0)
    shape = rng.uniform(-0.5, 0.5, (17, 3)) * [0.7, 0.7, 1.7]
    turned = Rotation.from_rotvec(np.linspace(0, 6, 80)[:, None] * [[0, 0, 1]]).as_matrix()
    world = np.einsum("fij,nj->fni", turned, shape) + np.array([0, 0, 1.0])
    observations = scenes.film(world.astype(np.float32), scenes.ring(2, radius=3.0))
    found = reconstruct(observations, shapes=1, iterations=30)
    assert found.shape == (80, 2, 17, 3)
    plane = found[..., :2] / found[..., 2:]
    expected = jax.jit(cam.batched(cam.normalise))(observations.cameras, observations.keypoints)
    np.testing.assert_allclose(plane, expected, atol=1e-5)
    truth = jax.jit(cam.batched(cam.to_camera))(
        observations.cameras, jnp.repeat(jnp.asarray(world, jnp.float32)[:, None], 2, axis=1)
    )
    truth, joints = (np.asarray(x, np.float64).reshape(-1, 17, 3) for x in (truth, found))
    assert stress(joints, truth) < 0.1  # weak perspective, of a person 3 m away
    # Depths have the right sign: those of the other have not.
    depth, wanted = (x[..., 2] - x[..., 2].mean(1, keepdims=True) for x in (joints, truth))
    assert np.corrcoef(depth.ravel(), wanted.ravel())[0, 1] > 0.9


def test_joints_that_are_not_seen_are_near_their_points():
    """Modes take in perspective: divided by their depths, too, these joints are off by 0.012."""
    rng = np.random.default_rng(0)
    shape = rng.uniform(-0.5, 0.5, (17, 3)) * [0.7, 0.7, 1.7]
    turned = Rotation.from_rotvec(np.linspace(0, 6, 80)[:, None] * [[0, 0, 1]]).as_matrix()
    world = np.einsum("fij,nj->fni", turned, shape) + np.array([0, 0, 1.0])
    observations = scenes.film(world.astype(np.float32), scenes.ring(2, radius=3.0))
    sight = (observations.cameras, observations.keypoints)
    truth = np.asarray(jax.jit(cam.batched(cam.normalise))(*sight))
    hidden = rng.uniform(size=truth.shape[:-1]) < 0.2
    seen = jnp.where(jnp.asarray(hidden), 0.0, observations.confidence)
    found = reconstruct(dataclasses.replace(observations, confidence=seen), shapes=4, iterations=30)
    off = np.linalg.norm(found[..., :2] / found[..., 2:] - truth, axis=-1)[hidden]
    assert np.sqrt((off**2).mean()) < 0.006  # of points that spread by 0.2
    assert factorize.SPREAD == rays.SPREAD
