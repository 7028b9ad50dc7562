"""Triangulation against OpenCV, SciPy, exact scenes and the Cramer-Rao bound."""

import functools

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
from scipy.optimize import least_squares, minimize
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from pose3d_jax import cameras as cam
from pose3d_jax import triangulate as tri
from pose3d_jax.cameras import Camera, batched
from pose3d_jax.metrics import inside_ellipsoid
from pose3d_jax.residuals import OUTLIER_PX, OUTLIERS
from pose3d_jax.schema import Observations
from pose3d_jax.triangulate import dlt, triangulate
from tests.compiled import compiled

# Two long sides of a room, as in Human3.6M; metres.
POSITIONS = [[2.0, 4.9, 1.6], [2.0, -5.1, 1.6], [-1.7, 5.2, 1.5], [-1.7, -3.9, 1.55]]
FRAMES, JOINTS = 100, 17
solve = jax.jit(triangulate)
vote = jax.jit(tri.robust)
refine = jax.jit(tri.refine, static_argnums=3)
noise_scale = jax.jit(tri.noise_scale)
inlier_scale = jax.jit(tri.inlier_scale)
infill = jax.jit(tri.infill, static_argnums=2)


@functools.cache
@compiled
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


def project(camera, world):
    """Pixels `[views, frames, joints, 2]` of joints `[frames, joints, 3]`, in float64."""
    c = jax.tree.map(lambda x: np.asarray(x, np.float64)[:, None, None], camera)
    moved = np.sum(c.rotation * world[None, ..., None, :], axis=-1) + c.translation
    x, y = np.moveaxis(moved[..., :2] / moved[..., 2:], -1, 0)
    k1, k2, p1, p2, k3 = np.moveaxis(c.distortion, -1, 0)
    r2, factor = x * x + y * y, c.tangential
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    dx = factor * p1 * x * y + p2 * (r2 + factor * x * x)
    dy = p1 * (r2 + factor * y * y) + factor * p2 * x * y
    return c.focal * np.stack([x * radial + dx, y * radial + dy], axis=-1) + c.center


def film(camera, world, noise=0.0, seed=9):
    """Observations `[frames, views, ...]`, projected in float64: the error is the solver's."""
    frames, views = len(world), len(camera.focal)
    one = jax.tree.map(np.asarray, camera)
    pixels = project(camera, world)
    pixels = pixels + noise * np.random.default_rng(seed).standard_normal(pixels.shape)
    return Observations(
        keypoints=jnp.asarray(pixels.swapaxes(0, 1), jnp.float32),
        confidence=jnp.asarray(np.ones((frames, views, JOINTS), np.float32)),
        cameras=jax.tree.map(lambda x: jnp.asarray(np.repeat(x[None], frames, 0)), one),
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
    points = jax.jit(batched(cam.normalise))(observations.cameras, observations.keypoints)
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


def move(camera, motion, shift):
    """Cameras that see the world turned and then shifted as they saw it before."""
    rotation = np.asarray(camera.rotation, np.float64) @ motion.T
    translation = np.asarray(camera.translation, np.float64) - rotation @ shift
    return camera.replace(
        rotation=jnp.asarray(rotation, jnp.float32),
        translation=jnp.asarray(translation, jnp.float32),
    )


@settings(deadline=None, max_examples=30)
@given(
    arrays(np.float32, 3, elements=st.floats(-3, 3, width=32)),
    arrays(np.float32, 3, elements=st.floats(-20, 20, width=32)),
)
def test_moving_the_world_and_the_cameras_moves_the_points(vector, shift):
    camera, world = rig(4), people()
    observations = film(camera, world)
    motion = Rotation.from_rotvec(vector).as_matrix()
    moved = move(camera, motion, shift)
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


# ------------------------------------------------------------------------------------- confidence


def test_weighted_is_dlt_with_the_confidences_for_weights():
    observations = film(rig(4), people(), noise=2.0)
    confidence = np.random.default_rng(4).uniform(size=(FRAMES, 4, JOINTS)).round(1)
    observations = observations.replace(confidence=jnp.asarray(confidence, jnp.float32))
    points, valid = jax.jit(tri.weighted)(observations)
    rays = jax.jit(batched(cam.normalise))(observations.cameras, observations.keypoints)
    for t, j in [(0, 0), (1, 5), (99, 16)]:
        weight = observations.confidence[t, :, j]
        expected, found = dlt(rig(4), rays[t, :, j], weight)
        assert_allclose(points[t, j], expected, atol=1e-5)
        assert valid[t, j] == found
    # And the confidences do matter.
    assert distance(points, np.asarray(solve(observations)[0], np.float64)).max() > 1e-3


# ------------------------------------------------------------------------------------- robustness


def misplace(observations, share, pixels=100.0, seed=5):
    """One view's keypoint of a share of the joints is off by so many pixels; and which are."""
    rng = np.random.default_rng(seed)
    frames, views, joints = observations.confidence.shape
    view = rng.integers(views, size=(frames, 1, joints))
    hit = rng.uniform(size=view.shape) < share
    off = (np.arange(views)[:, None] == view) & hit
    angle = rng.uniform(0, 2 * np.pi, off.shape)
    shift = pixels * np.stack([np.cos(angle), np.sin(angle)], axis=-1) * off[..., None]
    return observations.replace(
        keypoints=observations.keypoints + jnp.asarray(shift, jnp.float32)
    ), off


def test_robust_leaves_out_the_view_that_is_off():
    world = people()
    observations, off = misplace(film(rig(4), world, noise=1.0), share=1.0)
    points, valid = vote(observations, jnp.float32(1.0))
    assert np.all(valid == 1)
    best, _ = solve(observations.replace(confidence=jnp.asarray(~off, jnp.float32)))
    assert_allclose(distance(points, world).mean(), distance(best, world).mean(), rtol=0.02)
    assert distance(solve(observations)[0], world).mean() > 10 * distance(points, world).mean()
    # From there or from the plain solution of the three, the refined points are the same.
    fine, _ = refine(observations, points, jnp.float32(1.0))
    same, _ = refine(observations, best, jnp.float32(1.0))
    assert np.median(distance(fine, np.asarray(same, np.float64))) < 1e-5
    assert distance(fine, world).mean() < 1.01 * distance(points, world).mean()


def test_robust_does_not_find_what_two_views_disagree_about():
    world = people()
    observations = film(rig(4), world, noise=1.0)
    two = observations.confidence.at[:, 2:].set(0.0)
    aside = observations.keypoints.at[:, 1, ::2, 1].add(100.0)  # across the epipolar lines
    points, valid = vote(observations.replace(keypoints=aside, confidence=two), jnp.float32(1.0))
    odd = np.arange(JOINTS) % 2
    assert np.array_equal(valid, np.broadcast_to(odd, valid.shape))
    assert np.all(np.asarray(points)[:, odd == 0] == 0)
    assert distance(points, world)[:, odd == 1].mean() < 0.02


@pytest.mark.parametrize("solver", ["triangulate", "weighted", "robust", "refine"])
def test_every_solver_is_exact_without_noise(solver):
    """In float32: a mean error of less than 0.01 mm."""
    world, sigma = people(), jnp.float32(tri.LEAST_SIGMA)
    observations = film(rig(4), world)
    if solver in ("robust", "refine"):
        points, valid = vote(observations, sigma)
    else:
        points, valid = jax.jit(getattr(tri, solver))(observations)
    if solver == "refine":
        points, _ = refine(observations, points, sigma)
    assert np.all(valid == 1)
    assert distance(points, world).mean() < 1e-5


# ------------------------------------------------------------------------------------- refinement


def bound(camera, world, sigma):
    """The Cramer-Rao bound `[frames, joints, 3, 3]`: the inverse of sum J^T J / sigma^2."""
    step = 1e-5
    jacobian = np.stack(
        [
            (project(camera, world + shift) - project(camera, world - shift)) / (2 * step)
            for shift in step * np.eye(3)
        ],
        axis=-1,
    )
    return np.linalg.inv(np.einsum("vtjpa,vtjpb->tjab", jacobian, jacobian) / sigma**2)


def estimate(observations):
    """The noise of a clip, pixels, by the functions that know nothing of it beforehand."""
    points, valid = solve(observations)
    scale = noise_scale(observations, points, valid)
    points, valid = vote(observations, scale)
    for _ in range(2):
        scale = inlier_scale(observations, points, scale, valid)
        points, _ = refine(observations, points, scale)
    return inlier_scale(observations, points, scale, valid)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.5])
@pytest.mark.parametrize("known", [True, False])
def test_refine_reaches_the_cramer_rao_bound(sigma, known):
    """And its covariances cover what they promise."""
    camera, squared, least, covered = rig(4), [], [], []
    for seed in range(2):
        world = people(seed=seed).astype(np.float64)
        observations = film(camera, world, sigma, seed)
        points, _ = solve(observations)
        scale = jnp.float32(sigma)
        if not known:
            scale = estimate(observations)
            assert_allclose(scale, sigma, rtol=0.02)
        points, covariance = refine(observations, points, scale)
        error = np.asarray(points, np.float64) - world
        squared.append(np.sum(error**2, axis=-1))
        expected = bound(camera, world, sigma)
        least.append(np.trace(expected, axis1=-2, axis2=-1))
        covered.append(inside_ellipsoid(jnp.asarray(error, jnp.float32), covariance, 0.8))
        spread = np.trace(np.asarray(covariance), axis1=-2, axis2=-1)
        assert_allclose(spread.mean(), least[-1].mean(), rtol=0.05)
    assert_allclose(np.mean(squared), np.mean(least), rtol=0.05)
    assert 0.78 < np.mean(covered) < 0.82


def test_refine_matches_scipy():
    camera, world = rig(4), people()
    observations = film(camera, world, noise=1.0)
    points, covariance = refine(observations, solve(observations)[0], jnp.float32(1.0))
    for t, j in [(0, 0), (7, 3), (50, 9), (99, 16)]:
        pixels = np.asarray(observations.keypoints[t, :, j], np.float64)
        residual = lambda x, p=pixels: (project(camera, x[None, None])[:, 0, 0] - p).ravel()  # noqa: E731
        found = least_squares(residual, world[t, j], xtol=1e-12, ftol=1e-12)
        assert_allclose(points[t, j], found.x, atol=1e-4)
        expected = np.linalg.inv(found.jac.T @ found.jac)
        assert_allclose(covariance[t, j], expected, rtol=0.05, atol=1e-7)


def test_refine_minimises_the_robust_cost():
    """With an outlier and confidences, against the naive cost and a general minimiser."""
    camera, world, sigma = rig(4), people(), 1.0
    observations, _ = misplace(film(camera, world, noise=sigma), share=1.0, pixels=5.0)
    confidence = np.random.default_rng(6).uniform(0.2, 1, observations.confidence.shape)
    observations = observations.replace(confidence=jnp.asarray(confidence, jnp.float32))
    points, _ = refine(observations, jnp.asarray(world), jnp.float32(sigma), 40)

    def cost(at, pixels, weight):
        squared = np.sum((project(camera, at[None, None])[:, 0, 0] - pixels) ** 2, axis=-1)
        odds = OUTLIERS / (1 - OUTLIERS) * 2 * sigma**2 / OUTLIER_PX**2
        return -2 * np.sum(weight * np.log(np.exp(-squared / (2 * sigma**2)) + odds))

    for t, j in [(0, 0), (7, 3), (50, 9), (99, 16)]:
        pixels = np.asarray(observations.keypoints[t, :, j], np.float64)
        about = lambda mm, t=t, j=j, p=pixels: cost(world[t, j] + mm / 1000, p, confidence[t, :, j])  # noqa: E731
        found = minimize(about, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
        assert_allclose(points[t, j], world[t, j] + found.x / 1000, atol=1e-4)


# ------------------------------------------------------------------------------------- noise


def test_noise_scale_of_exact_views_is_the_least():
    world = people()
    observations = film(rig(4), world)
    valid = jnp.ones((FRAMES, JOINTS))
    found = noise_scale(observations, jnp.asarray(world), valid)
    assert_allclose(found, tri.LEAST_SIGMA, rtol=1e-6)
    none = noise_scale(observations, jnp.asarray(world), 0 * valid)
    assert none == np.float32(tri.LEAST_SIGMA)
    least = inlier_scale(observations, jnp.asarray(world), jnp.float32(1.0), 0 * valid)
    assert least == np.float32(tri.LEAST_SIGMA)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.5])
def test_noise_is_found_among_outliers(sigma):
    observations, _ = misplace(film(rig(4), people(), noise=sigma), share=0.2)
    scale = noise_scale(observations, *solve(observations))
    # A fifth of the points lie above the median, which is that much higher among the others; and
    # DLT's points are not those of the least squared pixels.
    expected = np.sqrt(chi2.ppf(0.5 / 0.8, 5) / chi2.ppf(0.5, 5))
    assert_allclose(scale, sigma * expected, rtol=0.05)
    assert_allclose(estimate(observations), sigma, rtol=0.02)


@pytest.mark.parametrize("views", [2, 3])
def test_noise_is_found_whatever_the_number_of_views(views):
    observations = film(rig(4), people(), noise=2.0)
    seen = np.argsort(np.random.default_rng(7).uniform(size=(FRAMES, 4, JOINTS)), axis=1) < views
    observations = observations.replace(confidence=jnp.asarray(seen, jnp.float32))
    assert_allclose(noise_scale(observations, *solve(observations)), 2.0, rtol=0.1 * (4 - views))
    assert_allclose(estimate(observations), 2.0, rtol=0.05)


def test_inlier_scale_of_the_truth_is_the_residuals():
    """With no outliers and no point to be estimated but for the degrees of freedom."""
    world = people()
    observations = film(rig(4), world, noise=2.0)
    residual = np.asarray(observations.keypoints, np.float64).swapaxes(0, 1) - project(
        rig(4), world
    )
    expected = np.sqrt(np.sum(residual**2) / (FRAMES * JOINTS * 5))
    scale = inlier_scale(
        observations, jnp.asarray(world), jnp.float32(2.0), jnp.ones((FRAMES, JOINTS))
    )
    assert_allclose(scale, expected, rtol=0.01)


# ------------------------------------------------------------------------------------- infilling

ROOT = 1


def infill_reference(points, valid):
    filled = np.zeros(points.shape)
    frames, ever = np.arange(len(points)), valid.any(axis=0)
    for j in np.flatnonzero(ever):
        for axis in range(3):
            known = valid[:, j]
            filled[:, j, axis] = np.interp(frames, frames[known], points[known, j, axis])
    if ever[ROOT]:
        filled[:, ~ever] = filled[:, ROOT, None]
    elif ever.any():
        filled[:, ~ever] = filled[:, ever].mean(axis=1, keepdims=True)
    return filled


@settings(deadline=None, max_examples=100)
@given(arrays(bool, (7, 4)), st.lists(st.integers(0, 3), max_size=4), st.integers(0, 1000))
def test_infill_matches_a_loop(valid, never, seed):
    valid[:, never] = False
    points = np.random.default_rng(seed).standard_normal((7, 4, 3)).astype(np.float32)
    points = np.where(valid[..., None], points, 0)
    filled = infill(jnp.asarray(points), jnp.asarray(valid, jnp.float32), ROOT)
    assert_allclose(filled, infill_reference(points, valid), atol=1e-5)


def test_infill_by_hand():
    points = jnp.asarray(np.arange(7.0)[:, None, None] * np.ones((1, 4, 3)), jnp.float32)
    none = jnp.zeros((7, 4))
    assert np.all(infill(points, none, ROOT) == 0)
    once = infill(points, none.at[3, 0].set(1.0), ROOT)
    assert np.all(np.asarray(once) == 3.0)  # at all times, and for all joints
    ends = infill(points, none.at[jnp.array([2, 5]), ROOT].set(1.0), ROOT)
    assert_allclose(ends, np.broadcast_to(np.clip(np.arange(7), 2, 5)[:, None, None], (7, 4, 3)))


# ------------------------------------------------------------------------------------- degeneracy


FEW = 10  # frames


def degenerate(case, noise):
    """Observations `[FEW, 4, ...]` that can hardly tell where the joints are, and the joints."""
    camera, world = rig(4), people(FEW)
    sees = np.ones((FEW, 4, JOINTS), np.float32)
    if case == "one view":
        sees[:] = [[[0], [0], [1], [0]]]
    elif case == "nothing":
        sees[:] = 0
    elif case == "coincident":
        camera = jax.tree.map(lambda x: jnp.repeat(x[:1], 4, 0), camera)
    elif case == "in line":  # two cameras that face each other, every joint between them
        turn = np.diag([-1.0, 1.0, -1.0])
        rotation, translation = np.array(camera.rotation), np.array(camera.translation)
        centre, ahead = -rotation[0].T @ translation[0], rotation[0, 2]
        rotation[1] = turn @ rotation[0]
        translation[1] = -rotation[1] @ (centre + 8 * ahead)
        camera = camera.replace(
            rotation=jnp.asarray(rotation), translation=jnp.asarray(translation)
        )
        world[:] = centre + np.linspace(2, 6, JOINTS)[:, None] * ahead
        sees[:, 2:] = 0
    elif case == "behind":  # two of the cameras
        world += np.float32([0, 9, 0])
    observations = film(camera, world, noise)
    if case == "padded":
        sees[:, 3] = 0
        lens = jax.tree.map(lambda x: x.at[:, 3].set(0.0), observations.cameras)
        observations = observations.replace(cameras=lens)
    keypoints = jnp.where(sees[..., None] > 0, observations.keypoints, 0.0)
    return observations.replace(keypoints=keypoints, confidence=jnp.asarray(sees)), world


@jax.jit
def pull(observations, near, sigma):
    """What is found, refined from there or else from `near`, and from `near`; and gradients of
    the sums of all of it."""

    def total(observations):
        points, valid = triangulate(observations)
        start = jnp.stack([jnp.where(valid[..., None] > 0, points, near), near])
        found = points, *jax.vmap(lambda x: tri.refine(observations, x, sigma))(start)
        return sum(jnp.sum(x) for x in found), found

    return jax.grad(total, has_aux=True)(observations)


@pytest.mark.parametrize(("noise", "sigma"), [(0.0, tri.LEAST_SIGMA), (0.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize(
    "case", ["one view", "nothing", "coincident", "in line", "behind", "padded"]
)
def test_degenerate_geometry_is_finite_with_finite_gradients(case, noise, sigma):
    observations, world = degenerate(case, noise)
    near = world + 0.05 * np.random.default_rng(8).standard_normal(world.shape)
    gradient, found = pull(observations, jnp.asarray(near, jnp.float32), jnp.float32(sigma))
    assert all(np.isfinite(x).all() for x in found)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert np.isfinite(vote(observations, jnp.float32(sigma))[0]).all()
    spread = np.linalg.eigvalsh(np.asarray(found[2], np.float64))
    assert np.all(spread[..., 0] > -1e-6 * spread[..., 2])  # positive, but for rounding
    # The standard deviation along the line that a joint can be on, and that of the room.
    if case in ("one view", "nothing", "coincident", "in line"):
        assert np.sqrt(spread[..., 2].min()) > 0.3
    assert np.sqrt(spread[..., 2].max()) < 3 * tri.ROOM


# ------------------------------------------------------------------------------------- motion


@functools.cache
def at_rest():
    observations, _ = misplace(film(rig(4), people(), noise=1.0), share=0.3)
    points, valid = vote(observations, jnp.float32(1.0))
    return observations, *map(
        np.asarray, (points, valid, *refine(observations, points, jnp.float32(1.0)))
    )


@settings(deadline=None, max_examples=10)
@given(
    arrays(np.float32, 3, elements=st.floats(-3, 3, width=32)),
    arrays(np.float32, 3, elements=st.floats(-20, 20, width=32)),
)
def test_moving_the_world_moves_what_is_robust_and_refined(vector, shift):
    (observations, points, valid, fine, covariance), sigma = at_rest(), jnp.float32(1.0)
    motion = Rotation.from_rotvec(vector).as_matrix()
    there = jax.tree.map(lambda x: jnp.repeat(x[None], FRAMES, 0), move(rig(4), motion, shift))
    moved_points, moved_valid = vote(observations.replace(cameras=there), sigma)
    moved_fine, turned = refine(observations.replace(cameras=there), moved_points, sigma)
    assert np.array_equal(valid, moved_valid)
    # Of two pairs of views that agree as well, rounding may choose: in one joint or two of 1700.
    apart = distance(moved_points, points @ motion.T + shift)
    assert np.mean(apart > 1e-4) < 2e-3
    assert apart.max() < 1e-2
    assert distance(moved_fine, fine @ motion.T + shift).max() < 3e-4
    assert_allclose(turned, motion @ covariance @ motion.T, atol=1e-6)
