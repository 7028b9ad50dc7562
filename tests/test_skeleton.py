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


def test_detectors_orders():
    """As Halpe's and MediaPipe's documents number them."""
    halpe = skeleton.get("halpe26").joints
    assert halpe[:17] == skeleton.get("coco17").joints
    assert halpe[17:] == (
        "head", "neck", "mid_hips", "left_big_toe", "right_big_toe", "left_small_toe",
        "right_small_toe", "left_heel", "right_heel",
    )  # fmt: skip
    numbers = {
        0: "nose", 1: "left_eye_inner", 3: "left_eye_outer", 4: "right_eye_inner", 8: "right_ear",
        9: "left_mouth", 10: "right_mouth", 11: "left_shoulder", 16: "right_wrist",
        17: "left_pinky", 19: "left_index", 22: "right_thumb", 23: "left_hip", 28: "right_ankle",
        29: "left_heel", 32: "right_foot_index",
    }  # fmt: skip
    blaze = skeleton.get("blazepose33").joints
    assert {i: blaze[i] for i in numbers} == numbers
    assert len(blaze) == 33


def test_reorder_permutes_by_name():
    source = Skeleton("a", ("x", "y", "z"), (-1, 0, 1), 0)
    target = Skeleton("b", ("z", "x"), (1, -1), 1)
    points = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    assert np.array_equal(skeleton.reorder(points, source, target), points[:, [2, 0]])
    assert np.array_equal(skeleton.reorder(points, source, source), points)


def test_reorder_names_the_missing_joints():
    points = np.zeros((17, 3))
    with pytest.raises(SkeletonError, match=r"coco17 has no pelvis, .*neck.*h36m17 needs") as error:
        skeleton.reorder(points, skeleton.get("coco17"), skeleton.get("h36m17"))
    assert "`skeleton.convert` makes them" in str(error.value)
    with pytest.raises(SkeletonError, match="convert the data when") as error:
        skeleton.reorder(points[:16], skeleton.get("mpii16"), skeleton.get("h36m17"))
    assert "skeleton.convert" not in str(error.value)


def test_reorder_refuses_points_of_another_size():
    h36m = skeleton.get("h36m17")
    with pytest.raises(SkeletonError, match=r"15 joints.*h36m17.*17"):
        skeleton.reorder(np.zeros((4, 15, 3)), h36m, h36m)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(SkeletonError, match=r"'h36m'.*h36m17, humaneva15, .*coco17"):
        skeleton.get("h36m")


def upright(name):
    """Somebody who stands, as a detector's set has them: x right, y down, confidence."""
    place = {
        "nose": (0, 15), "ear": (8, 12), "shoulder": (18, 36), "elbow": (20, 64), "wrist": (21, 90),
        "hip": (10, 90), "knee": (10, 132), "ankle": (10, 174), "head": (0, 0), "neck": (0, 33),
        "mid_hips": (0, 91), "mid_shoulders": (0, 36),
    }  # fmt: skip
    rows = []
    for joint in skeleton.get(name).joints:
        side, _, part = joint.partition("_")
        turn = {"left": 1, "right": -1}.get(side, 0)
        x, y = place.get(part if turn else joint, (50, 50))
        rows.append((100 + turn * x, 100 + y, 0.9 - 0.01 * len(rows)))
    return np.array(rows)


SIDED = [n for n in skeleton.get("h36m17").joints if n.startswith(("left", "right"))]


@pytest.mark.parametrize("name", ["coco17", "coco18", "body25", "halpe26", "blazepose33"])
def test_what_detectors_find_becomes_h36m17(name):
    source, target = skeleton.get(name), skeleton.get("h36m17")
    points = upright(name)
    found = skeleton.convert(np.stack([points, 0 * points]), source, target)
    assert found.shape == (2, 17, 3)
    assert not found[1].any()
    made = dict(zip(target.joints, found[0], strict=True))
    given = dict(zip(source.joints, points, strict=True))
    for joint in SIDED:
        assert np.array_equal(made[joint], given[joint])
    where = {"pelvis": 190, "thorax": 136, "spine": 163, "neck": 118, "head": 104}
    if name == "halpe26":
        where["head"] = 100  # its own
    for joint, y in where.items():
        np.testing.assert_allclose(made[joint][:2], [100, y], atol=1e-9)
    assert made["pelvis"][2] == min(given[f"{side}_hip"][2] for side in ("left", "right"))
    parts = [f"{side}_{part}" for side in ("left", "right") for part in ("ear", "shoulder")]
    assert made["neck"][2] == min(given[part][2] for part in parts)


def test_what_is_made_of_a_missing_joint_is_missing():
    source, target = skeleton.get("coco17"), skeleton.get("h36m17")
    points = upright("coco17")
    points[source.joints.index("left_ear")] = [np.nan, np.nan, 0]
    found = skeleton.convert(points, source, target)
    gone = [name for name, point in zip(target.joints, found, strict=True) if not point.any()]
    assert gone == ["neck", "head"]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["coco18", "body25", "halpe26", "blazepose33"])
def test_coco17_is_a_part_of_other_sets(name):
    source, target = skeleton.get(name), skeleton.get("coco17")
    points = np.random.default_rng(0).uniform(size=(4, source.size, 4))  # in 3D
    found = skeleton.convert(points, source, target)
    np.testing.assert_allclose(found, skeleton.reorder(points, source, target), rtol=1e-15)


def test_conversions_are_those_that_there_are():
    h36m, coco = skeleton.get("h36m17"), skeleton.get("coco17")
    with pytest.raises(SkeletonError, match=r"makes coco17 of h36m17; there are coco17 to h36m17,"):
        skeleton.convert(np.zeros((17, 3)), h36m, coco)
    with pytest.raises(SkeletonError, match="18 joints, but their skeleton coco17 has 17"):
        skeleton.convert(np.zeros((18, 3)), coco, h36m)
