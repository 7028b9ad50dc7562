"""A person's poses before they are written, without a network: what is moved, and what is not."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from data_prep import rigs
from pose3d_jax import ground, postprocess, skeleton, smoothing
from pose3d_jax.data.own import PredictError
from pose3d_jax.trained import Poses
from tests.test_ground import turned, walker

H36M = skeleton.get("h36m17")


def said(world, seen=None):
    """Poses in three views, of frames in which the person is seen."""
    cameras, _ = rigs.load_rig("humaneva", "S1", None)
    views, frames = len(cameras.focal), len(world)
    keypoints = np.zeros((frames, views, 17, 3), np.float32)
    keypoints[..., 2] = 1.0 if seen is None else seen[:, None, None]
    in_views = np.zeros((frames, views, 17, 3), np.float32)
    covariance = np.broadcast_to(np.diag([1.0, 2.0, 3.0]).astype(np.float32), (frames, 17, 3, 3))
    return Poses(
        in_views,
        world.astype(np.float32),
        keypoints,
        covariance,
        cameras,
        np.zeros(views),
        "absolute",
    )


def test_what_is_filtered_is_what_is_seen_and_views_say_it_too():
    rng = np.random.default_rng(0)
    seen = np.ones(80)
    seen[30:40] = 0
    world = walker()[0][:80] + 0.02 * rng.normal(size=(80, 17, 3))
    world[30:40] += 7.0  # what a network says of nobody
    poses = said(world, seen)
    found = postprocess.quiet(poses, "butterworth", 30.0)
    gaps = np.where(seen[:, None, None] > 0, poses.world, np.nan)
    expected = smoothing.smooth(gaps, 30.0, "butterworth")
    assert_allclose(found.world[seen > 0], expected[seen > 0])
    cameras = poses.cameras
    for view in range(3):
        own = found.world @ np.asarray(cameras.rotation[view]).T + np.asarray(
            cameras.translation[view]
        )
        assert_allclose(found.in_views[:, view], own, atol=1e-4)


def test_everything_that_is_in_the_world_moves_with_it():
    joints, planted = walker()
    world, turn, _ = turned(joints, 5)
    seen = np.ones(len(world))
    seen[100:120] = 0
    poses, other = said(world, seen), said(world)
    (found, _), standing = postprocess.on_floor([poses, other], H36M, 30.0)
    assert_allclose(found.world[..., 2], joints[..., 2] + 0.03, atol=1e-4)
    floor = standing.floor
    assert_allclose(
        found.covariance[3, 4], floor.rotation @ np.diag([1, 2, 3]) @ floor.rotation.T, atol=1e-5
    )
    back = np.asarray(found.cameras.rotation) @ floor.rotation
    assert_allclose(back, poses.cameras.rotation, atol=1e-6)
    assert not standing.contacts[0][100:120].any()
    assert standing.contacts[1][100:120].any()
    assert not (standing.contacts[1] & ~planted).any()
    summary = standing.summary()
    assert summary["tilt_degrees"] == pytest.approx(np.degrees(np.arccos(turn[2, 2])), abs=1e-3)
    assert summary["assumed_heights"] == {"right_ankle": 0.09, "left_ankle": 0.09}
    assert "doubt" not in summary
    runs = standing.touching(1)["left_ankle"]
    assert all(standing.contacts[1][first:stop, 1].all() for first, stop in runs)
    assert sum(stop - first for first, stop in runs) == standing.contacts[1][:, 1].sum()


def test_how_sure_joints_are_goes_with_the_axes_that_they_are_written_in():
    """Draws of a covariance, carried into each camera as joints are, have the one that is said."""
    poses = said(walker()[0][:2])
    factor = np.random.default_rng(1).normal(size=(2, 17, 3, 3))
    covariance = factor @ np.swapaxes(factor, -1, -2)
    poses = Poses(**{**vars(poses), "covariance": covariance})
    assert postprocess.covariances(poses, "world", "abc") == {"": covariance}
    assert postprocess.covariances(poses, "root", "abc") == {}
    found = postprocess.covariances(poses, "camera", "abc")
    assert list(found) == ["_a", "_b", "_c"]
    draws = np.random.default_rng(2).multivariate_normal(np.zeros(3), covariance[1, 5], 200_000)
    for own, turn in zip(found.values(), np.asarray(poses.cameras.rotation), strict=True):
        right, down, away = turn @ draws.T
        assert_allclose(own[1, 5], np.cov([right, away, -down]), rtol=0.03, atol=0.03)
    quiet = Poses(**{**vars(poses), "covariance": None})
    assert postprocess.covariances(quiet, "world", "abc") == {}


def test_a_tilt_that_is_not_told_is_a_warning_and_in_the_summary(monkeypatch):
    told = []
    monkeypatch.setattr(
        postprocess.logging, "warning", lambda text, *more: told.append(text % more)
    )
    joints = walker()[0] * [0.02, 0.02, 1.0]
    (found,), standing = postprocess.on_floor([said(joints)], H36M, 30.0)
    assert_allclose(found.world[..., :2], joints[..., :2], atol=1e-6)
    assert_allclose(found.world[..., 2], joints[..., 2] + 0.03, atol=1e-5)
    summary = standing.summary()
    assert summary["tilt_deviation_degrees"] is None
    assert "is not told" in summary["doubt"]
    assert told == [f"{standing.floor.doubt}; the world is moved up or down, and not turned"]


def test_where_no_world_is_known_nothing_can_be_done():
    poses = said(walker()[0])
    poses = Poses(**{**vars(poses), "world": None, "space": "root_relative"})
    with pytest.raises(PredictError, match="what the network predicts is root_relative"):
        postprocess.quiet(poses, "kalman", 30.0)
    with pytest.raises(ground.GroundError, match="no foot stands still"):
        postprocess.on_floor([said(np.full((9, 17, 3), np.nan))], H36M, 30.0)
