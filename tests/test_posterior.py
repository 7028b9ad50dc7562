"""The posterior against automatic differentiation, dense algebra in float64 and a dense AR(1)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from pose3d_jax import bordered, posterior, triangulate
from pose3d_jax import cameras as cam
from pose3d_jax.posterior import Belief, Model, Unknowns
from pose3d_jax.schema import Observations
from tests import scenes

FRAMES, VIEWS, JOINTS = 8, 3, 4
BONES = ((0, 1), (1, 2), (1, 3))
cost = jax.jit(posterior.cost)
gradient = jax.jit(jax.grad(posterior.cost, argnums=1))
normal_equations = jax.jit(posterior.normal_equations)
covariance = jax.jit(bordered.covariance)
step = jax.jit(bordered.step)
inliers = jax.jit(posterior.inliers)
project = jax.jit(cam.batched(cam.project))


@functools.cache
def rig():
    return jax.tree.map(np.asarray, scenes.ring(VIEWS))


def scene(seed=0, bones=BONES, gaps=True, smooth=True, belief=False, kind=np.float64, **model):
    """A model of a clip whose last frame is padding, unknowns near the truth, and weights."""
    rng = np.random.default_rng(seed)
    joints = np.array([0, 0, 1]) + rng.uniform(-0.6, 0.6, (1, JOINTS, 3))
    joints = joints + np.cumsum(0.01 * rng.standard_normal((FRAMES, JOINTS, 3)), axis=0)
    seen = rng.uniform(size=(FRAMES, VIEWS, JOINTS)) > 0.2 * gaps
    inside = np.arange(FRAMES) < FRAMES - gaps
    confidence = np.where(seen, rng.uniform(0.2, 1, seen.shape) if gaps else 1.0, 0)
    cameras = jax.tree.map(lambda x: np.broadcast_to(x, (FRAMES, *x.shape)).astype(kind), rig())
    observations = Observations(
        rng.uniform(300, 700, (*seen.shape, 2)), confidence * inside[:, None, None], cameras
    )
    told = Belief(
        joints + 0.05 * rng.standard_normal(joints.shape),
        rng.choice([0.0, 50.0, 400.0], joints.shape[:2]),
        root=1,
    )
    model = Model(
        **{
            "observations": observations,
            "inside": inside,
            "start": joints + 0.02 * rng.standard_normal(joints.shape),
            "sigma": np.array(2.0),
            "correlation": np.array(0.7),
            "step": rng.uniform(0.003, 0.02, JOINTS) if smooth else None,
            "bones": bones,
            "tail": np.array(4.0),
            "bone": rng.uniform(0.002, 0.01, len(bones)),
            "belief": told if belief else None,
            **model,
        }
    )
    unknowns = Unknowns(joints, rng.uniform(0.2, 0.8, len(bones)))
    weight = rng.choice([0, 0.5, 1], seen.shape) * (confidence > 0)
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, kind)), (model, unknowns, weight))


def dense(normal):
    """The matrix of the joints, frame by frame, and then the lengths; and the gradient."""
    n = jax.tree.map(lambda x: np.asarray(x, np.float64), normal)
    frames, size = n.gradient.shape
    bones = len(n.corner)
    matrix = np.zeros((frames * size + bones,) * 2)
    at = [slice(t * size, (t + 1) * size) for t in range(frames)]
    for t in range(frames):
        matrix[at[t], at[t]] = n.own[t]
        if t >= 1:
            matrix[at[t], at[t - 1]] = n.before[t]
            matrix[at[t - 1], at[t]] = n.before[t].T
        if t >= 2:
            matrix[at[t], at[t - 2]] = matrix[at[t - 2], at[t]] = np.diag(n.skip[t])
        matrix[at[t], frames * size :] = n.border[t]
        matrix[frames * size :, at[t]] = n.border[t].T
    matrix[frames * size :, frames * size :] = n.corner
    return matrix, np.concatenate([n.gradient.ravel(), n.corner_gradient])


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 1000), st.booleans())
def test_gradient_is_half_the_costs(seed, belief):
    with jax.enable_x64(True):
        model, unknowns, weight = scene(seed, belief=belief)
        expected = gradient(model, unknowns, weight)
        normal = normal_equations(model, unknowns, weight)
        found = normal.gradient.reshape(FRAMES, JOINTS, 3)
        size = np.abs(expected.joints).max()
        assert_allclose(2 * found, expected.joints, rtol=1e-8, atol=1e-10 * size)
        assert_allclose(2 * normal.corner_gradient, expected.lengths, rtol=1e-8)


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 1000))
def test_matrix_is_symmetric_and_positive(seed):
    with jax.enable_x64(True):
        matrix, _ = dense(normal_equations(*scene(seed)))
        assert_allclose(matrix, matrix.T, rtol=1e-12, atol=1e-12 * np.abs(matrix).max())
        spread = np.linalg.eigvalsh(matrix)
        assert spread[0] > -1e-9 * spread[-1]


def stacked(model, unknowns, weight):
    """All residuals, in units of their standard deviations; half their squares is half a cost."""
    o = model.observations
    points = jnp.stack([unknowns.joints] * VIEWS, axis=1)
    confidence = o.confidence[..., None]
    pixels = project(o.cameras, points) - o.keypoints
    pixels = jnp.sqrt(confidence) * jnp.where(confidence > 0, pixels, 0.0) / model.sigma
    rho, weight = model.correlation, weight[..., None]
    both = weight[1:] * weight[:-1]
    pairs = jnp.sqrt(both / (1 - rho**2)) * (pixels[1:] - rho * pixels[:-1])
    rest = jnp.sqrt(weight.at[1:].add(-both)) * pixels
    x = unknowns.joints
    middle = (model.inside[2:] * model.inside[:-2])[:, None, None]
    motion = middle * (x[2:] - 2 * x[1:-1] + x[:-2]) / model.step[None, :, None]
    room = (x - model.start) / triangulate.ROOM
    found = [pairs, rest, motion, room]
    for b, (parent, child) in enumerate(model.bones):
        length = jnp.sqrt(jnp.sum((x[:, parent] - x[:, child]) ** 2, axis=-1))
        found.append(model.inside * (length - unknowns.lengths[b]) / model.bone[b])
    if model.belief is not None:
        for j in range(JOINTS):
            root = model.belief.root
            apart = x[:, j] - model.belief.joints[:, j]
            if j != root:
                apart = apart - (x[:, root] - model.belief.joints[:, root])
            found.append(jnp.sqrt(model.belief.precision[:, j, None]) * apart)
    return jnp.concatenate([part.ravel() for part in found])


@jax.jit
def gauss_newton(model, unknowns, weight):
    flat, unravel = ravel_pytree(unknowns)
    residual = stacked(model, unknowns, weight)
    jacobian = jax.jacfwd(lambda x: stacked(model, unravel(x), weight))(flat)
    return residual, jacobian


@pytest.mark.parametrize(("bones", "belief"), [((), False), (BONES, False), (BONES, True)])
def test_matrix_is_that_of_the_stacked_residuals(bones, belief):
    with jax.enable_x64(True):
        model, unknowns, weight = scene(bones=bones, belief=belief, tail=np.array(1e10))
        residual, jacobian = map(np.asarray, gauss_newton(model, unknowns, weight))
        matrix, pull = dense(normal_equations(model, unknowns, weight))
        expected = jacobian.T @ jacobian
        for i in range(FRAMES * JOINTS * 3, len(matrix)):
            expected[i, i] += 1  # a length is within a metre
        assert_allclose(matrix, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
        right = jacobian.T @ residual
        assert_allclose(pull, right, rtol=1e-7, atol=1e-9 * np.abs(right).max())
        assert_allclose(cost(model, unknowns, weight), np.sum(residual**2), rtol=1e-7)


@pytest.mark.parametrize("bones", [(), BONES])
def test_an_undamped_step_is_the_dense_solution(bones):
    with jax.enable_x64(True):
        normal = normal_equations(*scene(bones=bones))
        matrix, pull = dense(normal)
        joints, lengths = step(normal, jnp.zeros(()))
        expected = np.linalg.solve(matrix, -pull)
        found = np.concatenate([np.ravel(joints), lengths])
        assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize(("bones", "smooth"), [(BONES, True), (BONES, False), ((), True)])
def test_covariance_is_the_dense_inverse(bones, smooth):
    """In float32, and but for the ridge, in units of a joint's own standard deviations."""
    with jax.enable_x64(True):
        model, unknowns, weight = scene(3, bones, smooth=smooth)
        if not smooth:  # nothing may be unknown: then there is but the ridge
            seen = model.observations.replace(confidence=jnp.ones_like(weight))
            inside = jnp.ones(FRAMES)
            model = model.replace(observations=seen, inside=inside)
            weight = jnp.ones_like(weight)
        normal = normal_equations(model, unknowns, weight)
        inverse = np.linalg.inv(dense(normal)[0])
    found = np.asarray(
        covariance(jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float32)), normal))
    )
    assert found.shape == (FRAMES, JOINTS, 3, 3)
    for t in range(FRAMES - 1):
        for j in range(JOINTS):
            at = slice(3 * (t * JOINTS + j), 3 * (t * JOINTS + j) + 3)
            scale = np.linalg.inv(np.linalg.cholesky(inverse[at, at]))
            assert_allclose(scale @ found[t, j] @ scale.T, np.eye(3), atol=0.02)


def test_what_nothing_tells_of_is_in_the_room():
    with jax.enable_x64(True):
        model, unknowns, weight = scene(bones=(), smooth=False)
        normal = normal_equations(model, unknowns, 0 * weight)
        found = covariance(normal)
        expected = triangulate.ROOM**2 * np.eye(3) / (1 + 1e-5)
        assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-9)


def test_correlation_is_that_of_a_dense_gaussian():
    with jax.enable_x64(True):
        model, unknowns, weight = scene(gaps=False, smooth=False, bones=())
        found = cost(model, unknowns, jnp.ones_like(weight))
        o = model.observations
        points = jnp.stack([unknowns.joints] * VIEWS, axis=1)
        pixels = project(o.cameras, points) - o.keypoints
        series = np.asarray(pixels).reshape(FRAMES, -1)
        apart = np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
        spread = 2.0**2 * 0.7**apart
        expected = np.sum(series * np.linalg.solve(spread, series))
        expected += np.sum((unknowns.joints - model.start) ** 2) / triangulate.ROOM**2
        assert_allclose(found, expected, rtol=1e-9)


def test_inliers_are_what_the_mixture_says():
    with jax.enable_x64(True):
        model, unknowns, _ = scene()
        o = model.observations
        points = jnp.stack([unknowns.joints] * VIEWS, axis=1)
        exact = project(o.cameras, points)
        off = np.random.default_rng(1).uniform(-8, 8, exact.shape)
        o = o.replace(keypoints=exact + off)
        found = inliers(model.replace(observations=o), unknowns.joints)
        density = 0.95 * np.exp(-np.sum(off**2, axis=-1) / (2 * 2.0**2)) / (2 * np.pi * 2.0**2)
        expected = density / (density + 0.05 / (np.pi * 100.0**2))
        assert_allclose(found, np.where(o.confidence > 0, expected, 0), rtol=1e-6)


def test_median_lengths_are_of_the_frames_inside():
    model, _, _ = scene()
    start = np.asarray(model.start)
    expected = [np.median(np.linalg.norm(start[:-1, c] - start[:-1, p], axis=-1)) for p, c in BONES]
    aside = model.replace(start=jnp.asarray(start).at[-1].set(99.0))
    assert_allclose(jax.jit(posterior.median_lengths)(aside), expected, rtol=1e-5)
    assert posterior.median_lengths(model.replace(bones=())).shape == (0,)
