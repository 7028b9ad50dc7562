"""Left and right exchanged in a view: found by the others, of a walker in a ring of cameras."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from data_prep.articulated import Body
from data_prep.body_motion import walk
from pose3d_jax import sides, skeleton
from tests import scenes

H36M = skeleton.get("h36m17")
FRAMES = 60


def seen(views, seed=0, noise=3.0):
    """A walker's keypoints `[frames, views, 17, 3]` and the cameras."""
    rng = np.random.default_rng(seed)
    joints = walk(rng, Body(height=1.7), np.arange(FRAMES) / 30)
    cameras = scenes.ring(views)
    points = np.array(scenes.film(joints.astype(np.float32), cameras).keypoints)
    points += rng.normal(0, noise, points.shape)
    points = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)
    return points, jax.tree.map(np.asarray, cameras)


def exchanged(points, frames, view):
    wrong = np.zeros(points.shape[:2], bool)
    wrong[frames, view] = True
    return sides.mended(points, wrong, H36M), wrong


@pytest.mark.parametrize("views", [3, 4, 5])
def test_exchanged_sides_are_found_and_mended(views):
    points, cameras = seen(views)
    given, wrong = exchanged(points, slice(20, 50), 1)
    assert not np.array_equal(given, points)
    found = sides.exchanged(given, cameras, H36M)
    # Where a step brings the legs together a frame more or less cannot be told.
    assert np.count_nonzero(found != wrong) <= 4
    back = sides.mended(given, found, H36M)
    same = (back == points).all(axis=(1, 2, 3))
    assert same.mean() > 0.9


def test_nothing_is_exchanged_that_is_right():
    points, cameras = seen(4, noise=8.0)
    assert not sides.exchanged(points, cameras, H36M).any()


def test_the_view_that_is_wrong_all_along_is_told_by_most():
    points, cameras = seen(4)
    given, wrong = exchanged(points, slice(None), 2)
    assert_array_equal(sides.exchanged(given, cameras, H36M), wrong)


def test_two_of_five_views_may_be_wrong_at_a_time():
    points, cameras = seen(5)
    given, first = exchanged(points, slice(10, 40), 0)
    given, second = exchanged(given, slice(25, 55), 3)
    found = sides.exchanged(given, cameras, H36M)
    assert np.count_nonzero(found != (first | second)) <= 6


def test_two_views_cannot_tell_and_are_left():
    points, cameras = seen(2)
    given, _ = exchanged(points, slice(20, 50), 1)
    assert not sides.exchanged(given, cameras, H36M).any()


def test_missing_joints_and_lost_views_do_not_matter():
    points, cameras = seen(4)
    given, wrong = exchanged(points, slice(20, 50), 1)
    rng = np.random.default_rng(1)
    given[rng.random(given.shape[:3]) < 0.3] = 0.0
    given[30:40, 3] = 0.0
    found = sides.exchanged(given, cameras, H36M)
    assert np.count_nonzero(found != wrong) <= 6
    assert not sides.exchanged(np.zeros_like(given), cameras, H36M).any()


@pytest.mark.parametrize("views", [3, 4])
def test_a_side_that_is_hidden_all_along_tells_nothing(views):
    """Detectors give it no confidence; no joint is then in common with an exchanged view."""
    points, cameras = seen(views, noise=6.0)
    points[:, :, [name.startswith("right_") for name in H36M.joints]] = 0.0
    assert not sides.exchanged(points, cameras, H36M).any()


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(4)), st.integers(0, 3), st.integers(0, 1000))
def test_the_order_of_views_does_not_matter(order, view, seed):
    points, cameras = seen(4, seed=seed)
    given, _ = exchanged(points, slice(15, 45), view)
    found = sides.exchanged(given, cameras, H36M)
    other = jax.tree.map(lambda x: x[np.array(order)], cameras)
    assert_array_equal(sides.exchanged(given[:, order], other, H36M), found[:, order])


def test_mending_twice_changes_nothing():
    points, _ = seen(3)
    wrong = np.random.default_rng(0).random(points.shape[:2]) < 0.5
    assert_array_equal(sides.mended(sides.mended(points, wrong, H36M), wrong, H36M), points)
