"""Poses adapted to all views: beside triangulation, against what they are shown, and refusals."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import cameras as cam
from pose3d_jax import noise, offsets, references
from pose3d_jax.fitting import Body
from pose3d_jax.references import RowError
from pose3d_jax.schema import Observations
from pose3d_jax.skeleton import Skeleton
from tests import scenes
from tests.test_trajectory import BONES, FRAMES, JOINTS, VIEWS, figure

SKELETON = Skeleton("four", ("a", "b", "c", "d"), (-1, 0, 1, 1), 0)
BODY = Body(np.full(len(BONES), 0.003, np.float32), np.full(JOINTS, 0.05, np.float32), BONES)
to_camera = jax.jit(cam.batched(cam.to_camera))
SETTINGS = offsets.Settings()


@functools.cache
def scene(seed=0):
    """Exact observations of a walking figure, its joints, and those in each camera's frame."""
    joints = figure(FRAMES, seed).astype(np.float32)
    seen = jax.tree.map(np.asarray, scenes.film(joints, scenes.ring(VIEWS)))
    own = scenes.ring(VIEWS)
    cameras = jax.tree.map(lambda x: np.broadcast_to(x, (FRAMES, *x.shape)), own)
    observations = Observations(seen.keypoints, np.asarray(seen.confidence), cameras)
    shown = np.broadcast_to(joints[:, None], (FRAMES, VIEWS, JOINTS, 3))
    return observations, joints, np.asarray(to_camera(cameras, shown))


def adapt(observations, lifted, settings=SETTINGS, body=BODY):
    return next(
        iter(offsets.adapt_clips([observations], [lifted], [30.0], body, SKELETON, settings))
    )


def spoilt(lifted, size=0.05, seed=1):
    """What a lifter might say: wrong by an error of each joint that stays."""
    rng = np.random.default_rng(seed)
    return (lifted + size * rng.standard_normal((1, *lifted.shape[1:]))).astype(np.float32)


def error(found, joints):
    return np.linalg.norm(found - joints, axis=-1)


def test_on_exact_points_it_is_triangulation():
    """Issue's bound: half a millimetre; in as many second-order steps as `trajectory` takes."""
    observations, joints, lifted = scene()
    found = adapt(observations, spoilt(lifted))
    assert error(found.joints, joints).mean() < 5e-4
    rows = references.reconstruct(observations, SKELETON, ("refined", "smooth_bones"))
    assert error(found.joints, rows["refined"].joints).mean() < 5e-4


def test_a_good_lifter_helps_where_one_view_is_left():
    observations, joints, lifted = scene()
    noisy = noise.corrupt(
        observations, noise.Noise(sigma_px=2.0), clip="walk", fps=30.0, mirrored=(0, 1, 2, 3)
    )
    hidden = np.array(noisy.confidence)
    hidden[:, 2] = 0
    hidden[20:50, 1] = 0  # one view alone
    noisy = dataclasses.replace(noisy, confidence=hidden.astype(np.float32))
    rows = references.reconstruct(noisy, SKELETON, ("refined", "smooth_bones"))
    without = rows["smooth_bones"].joints
    found = adapt(noisy, lifted)
    inner = slice(22, 48)
    assert error(found.joints, joints)[inner].mean() < error(without, joints)[inner].mean()
    worse = adapt(noisy, spoilt(lifted, 0.5))
    assert error(worse.joints, joints)[inner].mean() > error(found.joints, joints)[inner].mean()


def test_the_lifter_that_errs_more_weighs_less():
    observations, _, lifted = scene()
    placed = scene()[1]
    weight = np.ones(FRAMES, np.float32)
    told = jax.jit(functools.partial(offsets.believed, body=BODY, root=0))(
        observations, lifted, weight
    )
    assert_allclose(told.joints, placed, atol=1e-4)
    assert_allclose(told.precision, 3 / 0.05**2, rtol=1e-5)
    worse = dataclasses.replace(BODY, error=np.array([0.05, 0.05, 0.1, 0.05], np.float32))
    less = jax.jit(functools.partial(offsets.believed, body=worse, root=0))(
        observations, lifted, weight
    )
    share = np.asarray(less.precision)[:, 1:] / np.asarray(told.precision)[:, 1:]
    assert_allclose(share, np.broadcast_to([1, 0.25, 1], share.shape), rtol=1e-5)
    blind = dataclasses.replace(
        observations, confidence=observations.confidence * np.array([1, 0, 1])[None, :, None]
    )
    wrong = lifted.copy()
    wrong[:, 1] += 7.0 * np.arange(JOINTS)[None, :, None]
    told = jax.jit(functools.partial(offsets.believed, body=BODY, root=0))(blind, wrong, weight)
    assert_allclose(told.joints, placed, atol=1e-4)
    assert_allclose(told.precision[:, 1:], 2 / 0.05**2, rtol=1e-5)


@pytest.mark.slow
def test_clips_do_not_depend_on_one_another():
    """Nor on how many are solved for at once."""
    cases = [scene(seed) for seed in (0, 1, 2)]
    clips = [seen for seen, _, _ in cases]
    lifted = [spoilt(own) for _, _, own in cases]
    each = offsets.Settings(chunk=1), offsets.Settings(chunk=2)
    one, two = (
        list(offsets.adapt_clips(clips, lifted, [30.0] * 3, BODY, SKELETON, settings))
        for settings in each
    )
    for a, b, (_, joints, _) in zip(one, two, cases, strict=True):
        assert_allclose(a.joints, b.joints, atol=2e-4)
        assert error(a.joints, joints).mean() < 5e-4


def test_what_cannot_be_adapted_is_refused():
    observations, _, lifted = scene()
    alone = jax.tree.map(lambda x: x[:, :1], observations)
    with pytest.raises(RowError, match="geometry needs two"):
        adapt(alone, lifted[:, :1])
