"""The judge of the showcase on a walker whose cameras, clocks and bones are known."""

import jax
import numpy as np
import pytest

from benchmarks import demo_video
from data_prep.articulated import Body
from data_prep.body_motion import walk
from pose3d_jax import skeleton
from tests import scenes

H36M = skeleton.get("h36m17")
TIMES = np.arange(80) / 30


def seen(joints, views=4):
    cameras = scenes.ring(views)
    points = np.array(scenes.film(joints.astype(np.float32), cameras).keypoints)
    points = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)
    return points, jax.tree.map(np.asarray, cameras)


def walker(times):
    return walk(np.random.default_rng(0), Body(height=1.7), times)


def test_a_late_camera_is_judged_by_its_own_clock():
    whole = walker(TIMES)
    joints = whole[:-2]
    _, cameras = seen(joints)
    late = seen(whole[2:])[0][:, 1]
    one = jax.tree.map(lambda x: x[1], cameras)
    away, clock = demo_video.seen_by(one, joints.astype(np.float32), late)
    assert clock == 2.0
    assert np.median(away) < 0.05
    late[..., 0] += 7.0
    away, clock = demo_video.seen_by(one, joints.astype(np.float32), late)
    assert np.median(away) == pytest.approx(7.0, abs=0.6)  # a part of it looks like another clock


def test_exact_keypoints_are_judged_to_be_so():
    joints = walker(TIMES)
    points, cameras = seen(joints)
    lift = demo_video.triangulated(H36M)
    found = demo_video.judge(points, cameras, cameras, H36M, lift)
    assert found["error_px"] < 0.05
    assert max(map(abs, found["clocks"])) == 0
    assert found["bones"] < 1e-3
    noisy = points + np.random.default_rng(0).normal(0, 3, points.shape) * [1, 1, 0]
    worse = demo_video.judge(noisy, cameras, cameras, H36M, lift)
    assert 3 < worse["error_px"] < 10
    assert worse["bones"] > 10 * found["bones"]


def test_bones_vary_by_their_standard_deviation_over_their_mean():
    joints = np.repeat(walker(TIMES)[:1], 50, axis=0)
    assert demo_video.variation(joints, H36M) == pytest.approx(0, abs=1e-9)
    scale = 1 + 0.05 * np.where(np.arange(50) % 2, 1, -1)
    assert demo_video.variation(joints * scale[:, None, None], H36M) == pytest.approx(0.05)
