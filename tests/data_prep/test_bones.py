"""The check of bone lengths, which catches wrong joints and wrong units."""

import numpy as np
import pytest

from data_prep.articulated import SKELETON, Body, forward_kinematics
from data_prep.bones import BoneLengthError, check_bone_lengths


def standing(height=1.75):
    return forward_kinematics(Body(height), {"pelvis": np.zeros((3, 3))})


@pytest.mark.parametrize("height", [1.5, 1.75, 2.0])
def test_people_of_all_sizes_pass(height):
    check_bone_lengths(standing(height), SKELETON, "clip")


def test_a_wrong_joint_is_named():
    joints = standing()
    hip, knee = (SKELETON.joints.index(f"right_{part}") for part in ("hip", "knee"))
    joints[2, hip] = joints[2, knee]
    with pytest.raises(BoneLengthError, match=r"walk 1: .* pelvis to right_hip is 0.4\d+ m .* 2"):
        check_bone_lengths(joints, SKELETON, "walk 1")


def test_millimetres_and_nothing_at_all_are_refused():
    with pytest.raises(BoneLengthError, match="are units and joint order right"):
        check_bone_lengths(standing() * 1000, SKELETON, "clip")
    with pytest.raises(BoneLengthError, match="is nan m long"):
        check_bone_lengths(standing() * np.nan, SKELETON, "clip")
