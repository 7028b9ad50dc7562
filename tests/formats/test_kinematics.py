"""Bones from joints: motions of rigid bones come back, others come as near as can be."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from data_prep import body_motion
from data_prep.articulated import Body
from pose3d_jax import skeleton
from pose3d_jax.formats.kinematics import articulate
from pose3d_jax.skeleton import Skeleton, SkeletonError
from tests.walkers import WALKER, walkers

H36M = skeleton.get("h36m17")


def turned(rest, parents, turns, place):
    """Forward kinematics of one frame: rotations of the world `[J, 3, 3]`, children by their names.

    Written for any order of joints: each one's place is asked of its parent.
    """

    def at(joint):
        parent = parents[joint]
        if parent < 0:
            return place
        return at(parent) + turns[parent] @ (rest[joint] - rest[parent])

    return np.stack([at(joint) for joint in range(len(parents))])


def rigid(sk, frames, seed=0, most=1.0):
    """A motion of rigid bones of any lengths: joints `[T, J, 3]`."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform(-0.5, 0.5, (sk.size, 3))
    whole = Rotation.random(rng=rng).as_matrix()
    motion = []
    for frame in range(frames):
        vectors = rng.uniform(-most, most, (sk.size, 3)) / np.sqrt(3)
        turns = whole @ Rotation.from_rotvec(vectors).as_matrix()
        motion.append(turned(rest, sk.parents, turns, np.array([0.1 * frame, 1.0, 0.0])))
    return np.stack(motion)


def y_up(joints):
    return np.stack([joints[..., 0], joints[..., 2], -joints[..., 1]], axis=-1)


def walk(seconds=2.0):
    """Joints of h36m17 `[T, 17, 3]` at 30 fps, y up."""
    t = np.arange(0, seconds, 1 / 30)
    return y_up(body_motion.walk(np.random.default_rng(0), Body(1.75), t))


def in_order(moved, sk):
    return moved.positions[:, [moved.names.index(name) for name in sk.joints]]


def error(moved, joints, sk):
    return np.linalg.norm(in_order(moved, sk) - joints, axis=-1)


def assert_constant(moved):
    arrows = moved.positions - moved.positions[:, np.maximum(moved.parents, 0)]
    lengths = np.linalg.norm(arrows, axis=-1)
    assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-9)
    assert_allclose(np.linalg.det(moved.rotations), 1.0)


@pytest.mark.parametrize("name", skeleton.SKELETONS)
def test_rigid_bones_of_every_skeleton_come_back(name):
    """Several children are rigid to one another here, whatever their shape: nothing is lost."""
    sk = skeleton.get(name)
    joints = rigid(sk, 12)
    moved = articulate(joints, sk)
    assert error(moved, joints, sk).max() < 1e-4
    assert_constant(moved)
    assert len(set(moved.names)) == len(moved.names)
    assert set(sk.joints) <= set(moved.names)
    for number, (joint, parent) in enumerate(zip(moved.names, moved.parents, strict=True)):
        if joint in sk.joints and number:
            above = sk.joints[sk.parents[sk.joints.index(joint)]]
            between = moved.names[parent]
            if sk.parents.count(sk.joints.index(above)) > 1:
                # Of no length; here, where children are rigid to one another, the bone stays.
                assert between == f"{above}_to_{joint}"
                assert_allclose(moved.offsets[parent], 0.0)
                away = moved.local[:, parent] @ moved.offsets[number]
                assert_allclose(away, np.tile(moved.offsets[number], (12, 1)), atol=1e-4)
                between = moved.names[moved.parents[parent]]
            assert between == above


def test_a_joint_with_several_children_turns_as_they_do():
    """Rotations from frame to frame are known, though the rest pose is not."""
    sk = Skeleton("star", ("pelvis", "a", "b", "c"), (-1, 0, 0, 0), 0)
    rng = np.random.default_rng(1)
    rest, turns = rng.normal(size=(4, 3)), Rotation.random(9, rng=rng)
    joints = np.stack([turn.apply(rest) for turn in turns])
    found = Rotation.from_matrix(articulate(joints, sk).rotations[:, 0])
    expected = turns * turns[0].inv()
    assert (found * found[0].inv() * expected.inv()).magnitude().max() < 1e-5


def test_a_walk_comes_back():
    """Another body model's: its own forward kinematics, in other axes."""
    joints = walk()
    moved = articulate(joints, H36M)
    assert error(moved, joints, H36M).max() < 1e-4
    # From frame to frame no joint jumps, thighs and arms about themselves neither.
    steps = moved.local[1:] @ moved.local[:-1].swapaxes(-1, -2)
    angles = Rotation.from_matrix(steps.reshape(-1, 3, 3)).magnitude()
    assert angles.max() < np.radians(25)


def test_the_rest_pose_holds_the_arms_out():
    """Left is at x > 0, the person looks along z, y is up: what animators call a T pose."""
    moved = articulate(walk(), H36M)
    offsets = dict(zip(moved.names, moved.offsets, strict=True))
    away = {name: v / max(np.linalg.norm(v), 1e-9) for name, v in offsets.items()}
    for side, sign in (("left", 1), ("right", -1)):
        for part in ("elbow", "wrist"):
            assert_allclose(away[f"{side}_{part}"], [sign, 0, 0], atol=1e-9)
        for part in ("knee", "ankle"):
            assert_allclose(away[f"{side}_{part}"], [0, -1, 0], atol=1e-9)
        assert sign * away[f"{side}_hip"][0] > 0.9
        assert sign * away[f"{side}_shoulder"][0] > 0.9
    assert away["spine"][1] > 0.99
    assert away["head"][1] > 0.99


@pytest.mark.parametrize("name", skeleton.SKELETONS)
def test_every_skeleton_rests_upright_and_the_same_on_both_sides(name):
    sk = skeleton.get(name)
    moved = articulate(rigid(sk, 1), sk)
    rest = dataclasses.replace(moved, rotations=np.tile(np.eye(3), (1, len(moved.names), 1, 1)))
    directions = in_order(rest, sk)[0] - in_order(rest, sk)[0, list(sk.parents)]
    for joint, other in enumerate(sk.mirrored):
        several = sk.parents.count(sk.parents[joint]) > 1  # then their shape is the clip's
        if joint != other and not several:
            one, two = (directions[j] / np.linalg.norm(directions[j]) for j in (joint, other))
            assert_allclose(one, two * [-1, 1, 1], atol=1e-9)


def test_bones_that_vary_are_fitted_as_well_as_an_optimiser_can():
    """Frame by frame, against SciPy's least squares over the same bones."""
    rng = np.random.default_rng(2)
    joints = walk(0.5)
    joints = joints + 0.01 * rng.normal(size=joints.shape)
    moved = articulate(joints, H36M)
    assert_constant(moved)
    at = [H36M.joints.index(name.rpartition("_to_")[0] or name) for name in moved.names]

    def residuals(unknowns, frame):
        own = Rotation.from_rotvec(unknowns[3:].reshape(-1, 3)).as_matrix()
        rest = np.zeros((len(at), 3))
        for joint, parent in enumerate(moved.parents[1:], start=1):
            rest[joint] = rest[parent] + moved.offsets[joint]
        away = turned(rest, moved.parents, own, unknowns[:3]) - joints[frame, at]
        return away[["_to_" not in name for name in moved.names]].ravel()

    for frame in (0, 7):
        vectors = Rotation.from_matrix(moved.rotations[frame]).as_rotvec()
        start = np.concatenate([moved.root[frame], vectors.ravel()])
        best = least_squares(residuals, start, args=(frame,))
        ours = 0.5 * np.sum(residuals(start, frame) ** 2)
        assert ours <= 1.01 * best.cost
    assert error(moved, joints, H36M).mean() < 0.75 * 0.016  # the noise has 16 mm


def test_children_that_are_not_rigid_turn_by_themselves():
    """The walkers' heads lean from the hips by up to 0.4 radians, 0.6 m long."""
    joints = y_up(walkers(50).astype(float))
    moved = articulate(joints, WALKER)
    assert_constant(moved)
    assert error(moved, joints, WALKER).max() < 1e-5


def test_a_joint_that_is_named_as_one_between_would_be_keeps_its_name():
    sk = Skeleton("odd", ("a", "b", "c", "a_to_b"), (-1, 0, 0, 2), 0)
    moved = articulate(rigid(sk, 3), sk)
    assert moved.names == ("a", "a_to_b_", "b", "a_to_c", "c", "a_to_b")


def test_joints_that_are_missing_lie_between_their_neighbours():
    joints = walk()
    gaps = joints.copy()
    wrist, pelvis = H36M.joints.index("left_wrist"), 0
    gaps[20:26, wrist] = np.nan
    gaps[40:43, pelvis] = np.nan
    gaps[50:53] = np.nan
    gaps[-3:, H36M.joints.index("right_knee")] = np.nan
    moved = articulate(gaps, H36M)
    away = error(moved, joints, H36M)
    assert np.isfinite(moved.positions).all()
    assert_constant(moved)
    assert away[20:26, wrist].max() < 0.05
    assert away[40:43, pelvis].max() < 0.01  # its children tell
    assert away[50:53].max() < 0.1
    assert away[:, [j for j in range(17) if j != wrist]][:40].max() < 0.005


def test_a_joint_that_is_never_there_is_left_out():
    joints = walk(0.5)
    joints[:, H36M.joints.index("head")] = np.nan
    joints[:, H36M.joints.index("spine")] = np.nan
    moved = articulate(joints, H36M)
    assert {name for name in moved.names if "_to_" not in name} == {*H36M.joints} - {
        "head",
        "spine",
    }
    assert moved.names[moved.parents[moved.names.index("thorax")]] == "pelvis_to_thorax"


def test_a_root_that_is_never_there_is_amid_its_children():
    joints = walk(0.5)
    hidden = joints.copy()
    hidden[:, 0] = np.nan
    moved = articulate(hidden, H36M)
    assert moved.names[0] == "pelvis"
    assert_allclose(in_order(moved, H36M)[:, 1:], joints[:, 1:], atol=0.01)
    children = joints[:, [j for j, p in enumerate(H36M.parents) if p == 0]]
    assert_allclose(moved.root, children.mean(axis=1), atol=0.01)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(seed=st.integers(0, 10**6), frames=st.integers(1, 4))
def test_a_motion_seen_from_elsewhere_is_the_same_motion(seed, frames):
    rng = np.random.default_rng(seed)
    joints = walk(1.0)[:frames] + 0.01 * rng.normal(size=(frames, 17, 3))
    turn, shift = Rotation.from_euler("y", rng.uniform(0, 360), degrees=True), rng.normal(size=3)
    one = articulate(joints, H36M)
    other = articulate(turn.apply(joints.reshape(-1, 3)).reshape(joints.shape) + shift, H36M)
    assert_allclose(other.offsets, one.offsets, atol=1e-6)
    moved = turn.apply(one.positions.reshape(-1, 3)).reshape(one.positions.shape) + shift
    assert_allclose(other.positions, moved, atol=1e-6)


def test_other_axes_keep_the_motion():
    moved = articulate(walk(0.5), H36M)
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True)
    there = turn.apply(moved.positions.reshape(-1, 3)).reshape(moved.positions.shape)
    assert_allclose(moved.turned(turn).positions, there, atol=1e-12)


def test_long_motions_are_fitted_in_parts():
    short = walk(1.0)
    long = np.tile(short, (40, 1, 1))
    assert_allclose(articulate(long, H36M).positions[-30:], articulate(short, H36M).positions)


def test_several_trees_are_refused():
    two = Skeleton("two", ("a", "b"), (-1, -1), 0)
    with pytest.raises(SkeletonError, match="two has the roots a, b; bones need"):
        articulate(np.zeros((1, 2, 3)), two)
