"""Cameras and joints at once: derivatives against autodiff, and cameras that are found again."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import interp1d

from benchmarks import cameras as study
from data_prep import synthetic
from pose3d_jax import bundle, geometry, posterior, rigs
from pose3d_jax.bundle import Bundle
from pose3d_jax.references import RowError
from pose3d_jax.schema import Observations
from pose3d_jax.skeleton import Skeleton, get
from tests import scenes
from tests.test_posterior import BONES, FRAMES, JOINTS, VIEWS, dense, scene, stacked
from tests.test_trajectory import BONES as LIMBS
from tests.test_trajectory import figure

SKELETON = Skeleton("four", ("a", "b", "c", "d"), (-1, 0, 1, 1), 0)
solve = jax.jit(functools.partial(bundle.solve, bones=LIMBS, root=0, clocks=True))
align = jax.jit(geometry.similarity_align)


def doubtful(seed=0):
    """A model without correlation, unknowns with corrections, weights; deviations."""
    model, unknowns, weight = scene(seed, gaps=False, correlation=np.array(0.0), bones=BONES)
    rng = np.random.default_rng(seed)
    deviations = jnp.asarray(
        rigs.deviations(rigs.Doubt(radial=0.01), np.ones(VIEWS, bool)), jnp.float64
    )
    # Between frames, where the points' line has a derivative.
    corrections = jnp.asarray(0.3 * rng.uniform(0.2, 1, deviations.shape))
    return model, Bundle(unknowns, corrections), weight, deviations


@pytest.mark.parametrize("clocks", [False, True])
def test_gradient_is_half_the_costs(clocks):
    with jax.enable_x64(True):
        given = doubtful(int(clocks))
        cost = functools.partial(bundle.cost, clocks=clocks)
        expected = jax.jit(jax.grad(cost, argnums=1))(*given)
        normal = jax.jit(functools.partial(bundle.normal_equations, clocks=clocks))(*given)
        size = np.abs(expected.clip.joints).max()
        found = normal.gradient.reshape(FRAMES, JOINTS, 3)
        assert_allclose(2 * found, expected.clip.joints, rtol=1e-7, atol=1e-10 * size)
        lengths, corrections = np.split(normal.corner_gradient, [len(BONES)])
        assert_allclose(2 * lengths, expected.clip.lengths, rtol=1e-7)
        found = corrections.reshape(VIEWS, rigs.SIZE)
        size = np.abs(expected.corrections).max()
        assert_allclose(2 * found, expected.corrections, rtol=1e-6, atol=1e-9 * size)


@pytest.mark.parametrize("clocks", [False, True])
def test_matrix_is_that_of_the_stacked_residuals(clocks):
    with jax.enable_x64(True):
        model, unknowns, weight, deviations = doubtful()
        model = model.replace(tail=jnp.asarray(1e10))

        def residuals(flat):
            own = unravel(flat)
            now = bundle.at(model, own.corrections, deviations, clocks=clocks)
            size = bundle._grown(model, own.corrections, deviations) / rigs.GROWTH
            parts = stacked(now, own.clip, weight), own.corrections.ravel(), size[None]
            return jnp.concatenate(parts)

        flat, unravel = ravel_pytree(unknowns)
        jacobian = np.asarray(jax.jit(jax.jacfwd(residuals))(flat))
        equations = jax.jit(functools.partial(bundle.normal_equations, clocks=clocks))
        normal = equations(model, unknowns, weight, deviations)
        matrix, pull = dense(normal)
        expected = jacobian.T @ jacobian
        for i in range(FRAMES * JOINTS * 3, FRAMES * JOINTS * 3 + len(BONES)):
            expected[i, i] += 1  # a length is within a metre
        assert_allclose(matrix, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())
        right = jacobian.T @ np.asarray(residuals(flat))
        assert_allclose(pull, right, rtol=1e-6, atol=1e-9 * np.abs(right).max())


def walk(frames=128, noise=1.0, seed=0, radius=0.0):
    angle = 2 * np.pi * np.arange(frames) / frames
    path = radius * np.stack([np.cos(angle), np.sin(angle), np.zeros(frames)], axis=-1)
    joints = figure(frames, seed) + path[:, None]
    seen = jax.tree.map(np.asarray, scenes.film(jnp.asarray(joints, jnp.float32), scenes.ring(4)))
    cameras = jax.tree.map(lambda x: np.broadcast_to(x, (frames, *x.shape)), scenes.ring(4))
    rng = np.random.default_rng(seed)
    keypoints = seen.keypoints + noise * rng.standard_normal(seen.keypoints.shape)
    return Observations(keypoints.astype(np.float32), seen.confidence, cameras), joints


def error(found, joints, inner=slice(4, -4)):
    own, truth = (jnp.asarray(x[inner].reshape(-1, 3), jnp.float32) for x in (found, joints))
    aligned = align(own, truth, jnp.ones(len(own)))
    return float(np.linalg.norm(np.asarray(aligned - truth), axis=-1).mean())


def test_cameras_and_clocks_that_are_off_are_found_again():
    seen, joints = walk()
    moved = study.disturbance("walk", 0, 4)
    wrong = study.moved_by(seen, moved)
    inside = np.ones(128, np.float32)
    deviations = rigs.deviations(rigs.Doubt(), np.ones(4, bool))
    corrections, found = solve(wrong, inside, deviations=deviations)
    none = np.full_like(deviations, 1e-6)
    held, true = solve(seen, inside, deviations=none)
    assert np.abs(held).max() < 1e-4
    assert error(found, joints) < 1.5 * error(true, joints)
    assert error(solve(wrong, inside, deviations=none)[1], joints) > 5 * error(true, joints)
    assert_allclose(corrections[:, rigs.TIME], -moved[:, rigs.TIME], atol=0.3)
    back = study.moved_by(wrong, np.asarray(corrections))
    angle, baseline = study.apart(back.cameras, seen.cameras)
    before, _ = study.apart(wrong.cameras, seen.cameras)
    assert angle < 1.0 < 3.0 < before
    assert baseline < 2.0
    # The world keeps its size: cameras are as far from one another as they were said to be.
    assert_allclose(distance(back.cameras), distance(wrong.cameras), rtol=5e-3)


def test_distortion_is_found_of_somebody_who_comes_to_the_pictures_edges():
    seen, joints = walk(radius=1.3)
    moved = study.disturbance("walk", 0, 4)
    moved[:, rigs.RADIAL] = [0.1, -0.1, 0.05, -0.05]
    wrong, inside = study.moved_by(seen, moved), np.ones(128, np.float32)
    believed, doubted = (
        solve(wrong, inside, deviations=rigs.deviations(rigs.Doubt(radial=x), np.ones(4, bool)))
        for x in (0.0, 0.1)
    )
    assert_array_equal(believed[0][:, rigs.RADIAL], 0.0)
    assert_allclose(doubted[0][:, rigs.RADIAL], -moved[:, rigs.RADIAL], atol=0.02)
    assert error(doubted[1], joints) < 0.5 * error(believed[1], joints)


def distance(cameras):
    """Mean distance between the cameras of a clip, which stay where they are."""
    centre = -np.einsum("vab,va->vb", cameras.rotation[0], cameras.translation[0])
    return np.linalg.norm(centre[:, None] - centre[None], axis=-1).mean()


def test_a_perfect_calibration_stays_put():
    seen, joints = walk(noise=0.0)
    deviations = rigs.deviations(rigs.Doubt(), np.ones(4, bool))
    corrections, found = solve(seen, np.ones(128, np.float32), deviations=deviations)
    assert np.linalg.norm(found - joints, axis=-1).mean() < 1e-3
    assert np.abs(corrections[:, rigs.POSITION]).max() < 2e-3
    assert np.abs(corrections[:, rigs.ROTATION]).max() < 1e-3
    assert np.abs(corrections[:, rigs.TIME]).max() < 0.02


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_clocks_do_not_move_to_where_keypoints_are_quiet(correlation):
    """Points between two frames are means of two and err less: half a frame off looks better."""
    seen, _ = walk(noise=0.0)
    rng = np.random.default_rng(0)
    noise = 4.0 * rng.normal(size=seen.keypoints.shape)
    for frame in range(1, len(noise)):
        fresh = np.sqrt(1 - correlation**2) * noise[frame]
        noise[frame] = correlation * noise[frame - 1] + fresh
    seen = dataclasses.replace(seen, keypoints=(seen.keypoints + noise).astype(np.float32))
    clocks = rigs.deviations(rigs.Doubt(0.0, 0.0, 0.0, 0.0, 2.0), np.ones(4, bool))
    corrections, _ = solve(seen, np.ones(128, np.float32), deviations=clocks)
    assert np.abs(corrections[:, rigs.TIME]).max() < 0.2


@pytest.mark.slow
def test_noise_does_not_pull_cameras_away():
    """Bones and motion, constant in metres, would have the focal length 4 % longer here."""
    record = synthetic.records(scale=0.85)["test"][0]
    seen = record.clip.observations
    noise = np.random.default_rng(0).normal(0, 2.0, seen.keypoints.shape)
    seen = dataclasses.replace(seen, keypoints=(seen.keypoints + noise).astype(np.float32))
    doubt = rigs.Doubt(frames=0.0)
    found = bundle.corrections_of([seen], get(record.identity.keypoint_skeleton), doubt)
    assert np.abs(found[:, rigs.FOCAL]).max() < 0.02
    assert np.abs(found[:, rigs.POSITION]).max() < 0.03


def cut(observations, first, stop, blind=()):
    confidence = observations.confidence[first:stop].copy()
    confidence[:, list(blind)] = 0
    own = jax.tree.map(lambda x: x[first:stop], observations)
    return dataclasses.replace(own, confidence=confidence)


@pytest.mark.slow
def test_several_clips_of_a_recording_tell_together():
    """Each view is blind in one of them."""
    seen, _ = walk()
    moved = study.disturbance("walk", 0, 4)
    wrong = study.moved_by(seen, moved)
    clips = [cut(wrong, 0, 64, blind=[3]), cut(wrong, 64, 128, blind=[1])]
    found = bundle.corrections_of(clips, SKELETON, rigs.Doubt())
    assert_allclose(found[:, rigs.TIME], -moved[:, rigs.TIME], atol=0.5)


def test_a_view_that_sees_nothing_stays_where_it_is_and_gaps_are_no_gain():
    seen, joints = walk()
    moved = study.disturbance("walk", 1, 4)
    wrong = study.moved_by(seen, moved)
    rng = np.random.default_rng(0)
    gaps = np.repeat(rng.uniform(size=(16, 4, 4)) < 0.2, 8, axis=0)
    confidence = np.where(gaps, 0.0, wrong.confidence).astype(np.float32)
    confidence[:, 0] = 0.0
    wrong = dataclasses.replace(wrong, confidence=confidence)
    sees = np.arange(4) > 0
    deviations = rigs.deviations(rigs.Doubt(), sees)
    assert_array_equal(deviations[0], 0.0)
    assert_array_equal(deviations[:, rigs.TIME], [0, 0, 2, 2])
    corrections, found = solve(wrong, np.ones(128, np.float32), deviations=deviations)
    assert_array_equal(corrections[0], 0.0)
    # The clock is now that of the second view: joints are where they were at its frames.
    clocks = moved[2:, rigs.TIME] - moved[1, rigs.TIME]
    assert_allclose(corrections[2:, rigs.TIME], -clocks, atol=0.1)
    then = at_clock(joints, moved[1, rigs.TIME])
    none = solve(wrong, np.ones(128, np.float32), deviations=np.full_like(deviations, 1e-6))[1]
    assert error(found, then) < error(none, then) / 3


@pytest.mark.parametrize("clocks", [False, True])
def test_points_that_are_lost_are_no_gain(clocks):
    """A clock beyond the clip's end shows a view nothing: that costs what its points would."""
    with jax.enable_x64(True):
        model, unknowns, weight, deviations = doubtful()
        away = unknowns.corrections.at[1, rigs.TIME].set(2.0 * FRAMES)
        moved = Bundle(unknowns.clip, away)
        now = bundle.at(model, away, deviations, clocks=clocks)
        seen = now.observations.confidence
        assert not np.asarray(seen)[:, 1].any()
        clip = posterior.cost(now, unknowns.clip, weight)
        known = jnp.sum(away**2) + (bundle._grown(model, away, deviations) / rigs.GROWTH) ** 2
        charged = bundle.cost(model, moved, weight, deviations, clocks=clocks) - clip - known
        lost = np.where(np.asarray(seen) > 0, 0.0, np.asarray(weight))
        assert lost[:, 1].sum() > 1
        assert_allclose(charged, 2 * lost.sum(), rtol=1e-6)


def at_clock(joints, frames):
    """Joints as they are so many frames later."""
    time = np.arange(len(joints))
    return interp1d(time, joints, axis=0, fill_value="extrapolate")(time + frames)


def test_what_cannot_be_solved_for_is_refused():
    seen, _ = walk()
    alone = jax.tree.map(lambda x: x[:, :1], seen)
    with pytest.raises(RowError, match="geometry needs two"):
        bundle.corrections_of([alone], SKELETON, rigs.Doubt())
    turned = np.array(seen.cameras.rotation)
    turned[1:] = turned[1:, :, ::-1]
    moving = dataclasses.replace(seen, cameras=dataclasses.replace(seen.cameras, rotation=turned))
    with pytest.raises(RowError, match=r"cameras that move .* set config.adaptation.cameras"):
        bundle.corrections_of([moving], SKELETON, rigs.Doubt())


def test_errors_that_stay_count_once_a_block():
    """White noise tells anew in every frame, what is constant never, what drifts in between."""
    frames = 3 * bundle._BLOCK
    joints = jnp.asarray(np.repeat(scenes.people(1, 1), frames, axis=1)[0])
    exact = scenes.film(joints, scenes.ring(3))
    rng = np.random.default_rng(0)
    white = rng.normal(0, 2, exact.keypoints.shape)
    drift = np.array(white)
    for frame in range(1, frames):
        drift[frame] = 0.9 * drift[frame - 1] + np.sqrt(1 - 0.9**2) * white[frame]
    weight = jnp.ones(exact.confidence.shape)

    def found(noise):
        shown = dataclasses.replace(exact, keypoints=exact.keypoints + jnp.asarray(noise, "f4"))
        return float(bundle.alike(shown, joints, weight))

    assert found(white) == pytest.approx(1, abs=0.3)
    assert found(np.broadcast_to(white[:1], white.shape)) == pytest.approx(bundle._BLOCK, rel=1e-3)
    # An autoregression's integrated correlation, (1 + rho) / (1 - rho), but for the blocks' ends.
    assert found(drift) == pytest.approx(19, rel=0.25)
