"""Motion carried over to a body: where its bones point, how its hinges bend, what stays at rest."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from data_prep import cmu, retarget
from pose3d_jax import skeleton
from tests.bodies import REST

SMPL = skeleton.get("smpl24")
PARENTS = SMPL.parents


def posed(vectors, rest=REST):
    """Joints by the tree, with SciPy; their global rotations."""
    turned, joints = [], np.zeros((24, 3))
    for joint, parent in enumerate(PARENTS):
        own = Rotation.from_rotvec(vectors[joint])
        turned.append(own if parent < 0 else turned[parent] * own)
        if parent >= 0:
            joints[joint] = joints[parent] + turned[parent].apply(rest[joint] - rest[parent])
    return joints, turned


def along(joints):
    """Directions as `directions` gives them, of joints of the body's own set."""
    at = {name: joints[:, i] for i, name in enumerate(SMPL.joints)}
    bones = {joint: (joint, child) for joint, child in retarget._CHILD.items()}
    bones |= {
        "pelvis": ("pelvis", "spine1"),
        "hips": ("right_hip", "left_hip"),
        "spine3": ("spine3", "neck_base"),
        "shoulders": ("right_shoulder", "left_shoulder"),
    }
    found = {joint: at[b] - at[a] for joint, (a, b) in bones.items()}
    return {j: x / np.linalg.norm(x, axis=-1, keepdims=True) for j, x in found.items()}


def test_a_body_at_rest_is_not_turned():
    found = retarget.rotations(along(REST[None]), REST)[0]
    for number, joint in enumerate(SMPL.joints):
        if any(part in joint for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")):
            # A limb that is all but straight has an axis that is the hinge's by a little.
            assert np.linalg.norm(found[number]) < 0.6
        else:
            assert_allclose(found[number], 0, atol=1e-7, err_msg=joint)


def test_bones_point_where_they_pointed():
    rng = np.random.default_rng(0)
    joints = np.stack([posed(0.5 * rng.normal(size=(24, 3)))[0] for _ in range(20)])
    wanted = along(joints)
    found = retarget.rotations(wanted, REST * 1.2)  # a larger body
    again = along(np.stack([posed(vectors, REST * 1.2)[0] for vectors in found]))
    for joint in (*retarget._CHILD, "hips", "spine3"):
        assert_allclose(again[joint], wanted[joint], atol=1e-6, err_msg=joint)
    # Of the second direction of a frame what is across the first.
    for second, first in (("pelvis", "hips"), ("shoulders", "spine3")):
        across = [
            x[second] - x[first] * np.sum(x[first] * x[second], axis=-1, keepdims=True)
            for x in (again, wanted)
        ]
        unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in across]
        assert_allclose(unit[0], unit[1], atol=1e-6)


@pytest.mark.parametrize(
    ("limb", "hinge"), [("left_hip", "left_knee"), ("right_hip", "right_knee")]
)
def test_knees_bend_about_the_axis_across_them(limb, hinge):
    """A thigh turned about itself and a bent knee: both come back, the knee about x alone."""
    vectors = np.zeros((24, 3))
    bone = REST[SMPL.joints.index(hinge)] - REST[SMPL.joints.index(limb)]
    vectors[SMPL.joints.index(limb)] = 0.7 * bone / np.linalg.norm(bone)
    vectors[SMPL.joints.index(hinge)] = [1.5, 0, 0]
    joints, _ = posed(vectors)
    found = retarget.rotations(along(joints[None]), REST)[0]
    # As near as the bend's own share of what is known lets it: see _STRAIGHT.
    assert_allclose(found[SMPL.joints.index(limb)], vectors[SMPL.joints.index(limb)], atol=0.15)
    bend = found[SMPL.joints.index(hinge)]
    assert abs(bend[0]) > 8 * max(abs(bend[1]), abs(bend[2]))


@pytest.mark.parametrize("rig", ["amc", "bvh131", "daz"])
def test_every_bone_is_of_joints_that_the_rig_has(rig):
    names = cmu.rig_joints(rig)
    there = {name for bone in retarget.BONES[rig].values() for name in bone}
    assert there <= set(names)
    # The same places are those that the reduction to h36m17 takes limbs from.
    table = json.loads((Path(cmu.__file__).parent / "cmu_rigs.json").read_text())["h36m17"]
    point = dict(zip(table["joints"], table["from"][rig], strict=True))
    for side in ("left", "right"):
        for joint, child in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow")):
            bone = retarget.BONES[rig][f"{side}_{joint}"]
            assert bone == (point[f"{side}_{joint}"], point[f"{side}_{child}"])
