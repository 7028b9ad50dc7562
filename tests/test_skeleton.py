"""Joint sets: trees, mirrors, and the way from one set to another."""

import numpy as np
import pytest

from pose3d_jax import skeleton
from pose3d_jax.skeleton import SKELETONS, Skeleton, SkeletonError

every_skeleton = pytest.mark.parametrize("skeleton_", SKELETONS.values(), ids=SKELETONS)


@every_skeleton
def test_tree_is_valid(skeleton_):
    assert len(set(skeleton_.joints)) == skeleton_.size == len(skeleton_.parents)
    assert skeleton_.parents[skeleton_.root] == -1
    assert skeleton_.parents.count(-1) == 1
    assert len(skeleton_.bones) == skeleton_.size - 1
    for joint in range(skeleton_.size):
        steps = 0
        while joint != skeleton_.root:
            joint = skeleton_.parents[joint]
            steps += 1
            assert steps < skeleton_.size, "a circle"


@every_skeleton
def test_every_joint_hangs_on_the_root(skeleton_):
    for joint in range(skeleton_.size):
        path = [joint]
        while skeleton_.parents[path[-1]] >= 0:
            path.append(skeleton_.parents[path[-1]])
            assert len(path) <= skeleton_.size
        assert path[-1] == skeleton_.root


@every_skeleton
def test_pairs_of_bones_are_counterparts(skeleton_):
    found = {frozenset(pair) for pair in skeleton_.bone_pairs}
    names = [{skeleton_.joints[end] for end in bone} for bone in skeleton_.bones]
    other = {"left": "right", "right": "left"}
    swap = lambda name: "_".join(other.get(word, word) for word in name.split("_"))  # noqa: E731
    expected = {
        frozenset((i, j))
        for i, bone in enumerate(names)
        for j, counterpart in enumerate(names)
        if i != j and {swap(name) for name in bone} == counterpart
    }
    assert found == expected


@every_skeleton
def test_mirrored_is_an_involution_that_swaps_sides(skeleton_):
    mirrored = skeleton_.mirrored
    assert [mirrored[i] for i in mirrored] == list(range(skeleton_.size))
    swap = {"left": "right", "right": "left", "middle": "middle"}
    for joint, partner in enumerate(mirrored):
        assert skeleton_.side(partner) == swap[skeleton_.side(joint)]
        assert (joint == partner) == (skeleton_.side(joint) == "middle")
        parents = skeleton_.parents[joint], skeleton_.parents[partner]
        if joint != skeleton_.root and skeleton_.side(parents[0]) != "middle":
            assert mirrored[parents[0]] == parents[1]


def test_known_order():
    h36m = skeleton.get("h36m17")
    assert h36m.joints[h36m.root] == "pelvis"
    assert h36m.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    assert h36m.mirrored == (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)
    assert skeleton.get("coco17").joints[:5] == (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    )  # fmt: skip


def test_reorder_permutes_by_name():
    source = Skeleton("a", ("x", "y", "z"), (-1, 0, 1), 0)
    target = Skeleton("b", ("z", "x"), (1, -1), 1)
    points = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    assert np.array_equal(skeleton.reorder(points, source, target), points[:, [2, 0]])
    assert np.array_equal(skeleton.reorder(points, source, source), points)


def test_reorder_names_the_missing_joints():
    points = np.zeros((17, 3))
    with pytest.raises(SkeletonError, match=r"coco17 has no pelvis, .*neck.*h36m17 needs"):
        skeleton.reorder(points, skeleton.get("coco17"), skeleton.get("h36m17"))


def test_reorder_refuses_points_of_another_size():
    h36m = skeleton.get("h36m17")
    with pytest.raises(SkeletonError, match=r"15 joints.*h36m17.*17"):
        skeleton.reorder(np.zeros((4, 15, 3)), h36m, h36m)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(SkeletonError, match=r"'h36m'.*h36m17, humaneva15, .*coco17"):
        skeleton.get("h36m")
