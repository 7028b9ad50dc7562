"""The floor and contacts: worlds turned on purpose, feet set down on purpose."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from data_prep import rigs
from pose3d_jax import cameras as cam
from pose3d_jax import ground, skeleton
from pose3d_jax.ground import GroundError, floor_of

FPS = 30.0
H36M = skeleton.get("h36m17")
ANKLES = [H36M.joints.index(f"{side}_ankle") for side in ("right", "left")]


def walker(seed=0, steps=24):
    """Someone who walks about: each ankle is planted for 14 frames, 0.06 m above z = 0, and then
    lifted to elsewhere in 6; when they are planted."""
    rng = np.random.default_rng(seed)
    holds = rng.uniform(-1.5, 1.5, (steps, 2, 3)) * [1, 1, 0] + [0, 0, 0.06]
    frames = np.arange(20 * (steps - 1))
    joints = np.zeros((len(frames), 17, 3))
    planted = np.zeros((len(frames), 2), bool)
    for foot, late in enumerate((0, 10)):
        step, within = np.divmod(np.maximum(frames - late, 0), 20)
        share = np.clip((within - 13) / 7, 0, 1)[:, None]
        joints[:, ANKLES[foot]] = (1 - share) * holds[step, foot] + share * holds[step + 1, foot]
        joints[:, ANKLES[foot], 2] += 0.8 * (share * (1 - share))[:, 0]
        planted[:, foot] = within < 14
    joints[:, H36M.root] = joints[:, ANKLES].mean(axis=1) + np.array([0.0, 0.0, 0.85])
    return joints, planted


def turned(joints, seed):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(rng=rng).as_matrix()
    away = rng.normal(size=3)
    return joints @ turn.T + away, turn, away


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 3))
def test_it_undoes_any_way_in_which_the_world_is_turned_but_yaw(seed, who):
    joints, _ = walker(who)
    world, turn, _ = turned(joints, seed)
    floor = floor_of([world], H36M, FPS)
    assert not floor.doubt
    found = ground.align(floor, world)
    # Ankles stand HEIGHTS above the floor, so everything is that much higher.
    assert_allclose(found[..., 2], joints[..., 2] + 0.03, atol=1e-6)
    both = floor.rotation @ turn
    assert_allclose(both[2], [0, 0, 1], atol=1e-6)
    assert_allclose(both @ both.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(both) > 0
    assert floor.tilt == pytest.approx(np.arccos(turn[2, 2]), abs=1e-6)
    # No turn about the new z that is not needed: the axis lies in the floor.
    assert Rotation.from_matrix(floor.rotation).as_rotvec()[2] == pytest.approx(0, abs=1e-6)


def test_a_world_that_stands_well_is_left_where_it_is():
    joints = walker()[0] + [5.0, -3.0, 0.03]
    floor = floor_of([joints], H36M, FPS)
    assert_allclose(ground.align(floor, joints), joints, atol=1e-6)
    assert floor.height == pytest.approx(0.0, abs=1e-6)
    assert floor.tilt == pytest.approx(0.0, abs=1e-6)
    assert floor.inliers == floor.stances


def test_several_people_tell_one_floor_and_what_is_unseen_nothing():
    people = [walker(0)[0], walker(1)[0] + [3.0, 1.0, 0.0]]
    people[0][40:60] = np.nan
    people[1][:, ANKLES[0]] = np.nan
    world = [turned(joints, 1)[0] for joints in people]
    floor = floor_of(world, H36M, FPS)
    heights = [ground.align(floor, joints)[:, ANKLES, 2] for joints in world]
    assert np.nanmin(heights[0]) == pytest.approx(0.09, abs=1e-4)
    alone = floor_of(world[:1], H36M, FPS)
    assert floor.stances > alone.stances


def test_feet_that_rest_elsewhere_do_not_count():
    joints = walker(0)[0]
    # A while on something half a metre high.
    up = walker(1, 8)[0] + [0.0, 0.0, 0.5]
    world, turn, _ = turned(np.concatenate([joints, up]), 2)
    floor = floor_of([world], H36M, FPS)
    assert floor.inliers < floor.stances
    assert_allclose((floor.rotation @ turn)[2], [0, 0, 1], atol=1e-6)
    assert ground.align(floor, world)[: len(joints), ANKLES, 2].min() == pytest.approx(0.09)


def placed(shrink):
    """Footholds drawn together to one spot or one line."""
    return walker()[0] * [*shrink, 1.0]


@pytest.mark.parametrize("joints", [placed((0.02, 0.02)), placed((0.02, 1.0))])
def test_one_spot_and_one_line_tell_the_height_alone(joints):
    tilted = joints @ Rotation.from_rotvec([0.02, 0.0, 0.0]).as_matrix().T
    floor = floor_of([tilted], H36M, FPS)
    assert "the floor's tilt is not told" in floor.doubt
    assert floor.tilt == 0.0
    assert np.isinf(floor.deviation)
    assert_array_equal(floor.rotation, np.eye(3))
    on_side = joints @ Rotation.from_rotvec([np.pi / 2, 0.0, 0.0]).as_matrix().T
    with pytest.raises(GroundError, match=r"z, .* is not up: people stand along \(-?0"):
        floor_of([on_side], H36M, FPS)


def test_ground_that_is_not_flat_is_told():
    rng = np.random.default_rng(0)
    parts = [walker(n, 4)[0] + [0.0, 0.0, rng.uniform(-0.5, 0.5)] for n in range(9)]
    floor = floor_of([np.concatenate(parts)], H36M, FPS)
    assert "on one plane" in floor.doubt


def test_where_nothing_stands_still_or_has_feet_there_is_no_floor():
    joints, _ = walker()
    running = joints + np.arange(len(joints))[:, None, None] * [0.2, 0.0, 0.0]
    with pytest.raises(GroundError, match=r"no foot stands still for 0\.1 s"):
        floor_of([running], H36M, FPS)
    with pytest.raises(GroundError, match="no foot stands still"):
        floor_of([joints * np.nan], H36M, FPS)
    legless = dataclasses.replace(H36M, name="h", joints=tuple(f"j{i}" for i in range(17)))
    with pytest.raises(GroundError, match="h has no feet"):
        floor_of([joints], legless, FPS)


def test_feet_are_ankles_toes_and_heels_each_at_its_height():
    assert [H36M.joints[foot] for foot in ground.feet(H36M)] == ["right_ankle", "left_ankle"]
    body = skeleton.get("body25")
    names = [body.joints[foot] for foot in ground.feet(body)]
    assert len(names) == 8
    assert {"left_ankle", "right_heel", "left_big_toe", "right_small_toe"} < set(names)
    # Shoes under the walker's ankles: all their parts tell the same floor.
    ours, _ = walker()
    joints = np.zeros((len(ours), body.size, 3))
    joints[:, body.root] = ours[:, H36M.root]
    for foot, name in zip(ground.feet(body), names, strict=True):
        ankle = ours[:, H36M.joints.index(f"{name.split('_')[0]}_ankle")]
        away = 0.0 if name.endswith("ankle") else 0.09
        joints[:, foot] = ankle - [0.0, away, away]
    world, turn, _ = turned(joints, 3)
    floor = floor_of([world], body, FPS)
    assert_allclose((floor.rotation @ turn)[2], [0, 0, 1], atol=1e-5)
    found = ground.align(floor, world)
    assert found[:, body.joints.index("left_heel"), 2].min() == pytest.approx(0.0, abs=1e-5)
    assert_array_equal(
        ground.contacts(found, body, FPS)[:, names.index("left_ankle")],
        ground.contacts(found, body, FPS)[:, names.index("left_heel")],
    )


def test_cameras_see_the_aligned_points_where_they_saw_the_others():
    cameras, _ = rigs.load_rig("humaneva", "S1", None)
    floor = floor_of([turned(walker()[0], 4)[0]], H36M, FPS)
    points = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    project = jax.jit(jax.vmap(jax.vmap(cam.project, (None, 0)), (0, None)))
    found = project(ground.align_cameras(floor, cameras), ground.align(floor, points))
    assert_allclose(found, project(cameras, points), atol=0.05)


def foot(height, speed, frames=40):
    """Someone whose feet are so high, and move along x so quickly in the second half."""
    joints = np.zeros((frames, 17, 3))
    joints[:, ANKLES, 2] = 0.09 + height
    joints[frames // 2 :, ANKLES, 0] = (np.arange(frames - frames // 2) * speed / FPS)[:, None]
    return joints


def test_contacts_begin_low_and_slow_and_end_later():
    said = lambda joints: ground.contacts(joints, H36M, FPS)[:, 0]  # noqa: E731
    assert said(foot(0.0, 0.0)).all()
    assert not said(foot(0.05, 0.0)).any()  # low enough to stay, not to begin
    assert said(foot(0.0, 0.4)).all()  # slow enough to stay
    # Speeds are of five frames: what will move in two is not slow any more.
    assert_array_equal(np.flatnonzero(~said(foot(0.0, 2.0))), np.arange(19, 40))
    rising = foot(0.0, 0.0)
    rising[20:, ANKLES, 2] += np.minimum(np.arange(20) * 0.01, 0.055)[:, None]
    assert said(rising).all()
    rising[20:, ANKLES, 2] += 0.1
    assert not said(rising)[20:].any()
    gap = foot(0.0, 0.0)
    gap[10:12] = np.nan
    assert not said(gap)[10:12].any()
    assert said(gap)[[0, 5, 20]].all()
    assert not said(foot(0.0, 0.0, 1)).any()


def test_planted_feet_touch_the_floor():
    joints, planted = walker()
    joints = ground.align(floor_of([joints], H36M, FPS), joints)
    said = ground.contacts(joints, H36M, FPS)
    # But for the frames beside those in which a foot moves.
    assert not (said & ~planted).any()
    inner = planted.copy()
    for shift in (1, 2):
        inner[shift:] &= planted[:-shift]
        inner[:-shift] &= planted[shift:]
    assert said[inner].all()
