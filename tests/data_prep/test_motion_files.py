"""BVH against pybvh, ASF/AMC against positions worked out by hand, and files that are broken."""

import numpy as np
import pybvh
import pytest

from data_prep.motion_files import MotionFileError, read_amc, read_bvh

BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0.5 0.0 -0.25
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Chest
  {
    OFFSET 0.0 5.0 0.1
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT Arm
    {
      OFFSET 3.0 1.0 0.0
      CHANNELS 3 Xrotation Yrotation Zrotation
      End Site
      {
        OFFSET 1.0 0.0 0.0
      }
    }
  }
  JOINT Leg
  {
    OFFSET 1.0 -4.0 0.0
    CHANNELS 3 Yrotation Xrotation Zrotation
    End Site
    {
      OFFSET 0.0 -4.0 0.0
    }
  }
}
MOTION
Frames: 6
Frame Time: 0.00833333
"""

# A root; an arm along x whose axis is turned by 90 degrees about z, so that its own x is the
# world's y; and a hand along x, which may turn about z.
ASF = """# made by hand
:version 1.10
:units
  mass 1.0
  length 0.45
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name arm
     direction 1 0 0
     length 2
     axis 0 0 90 XYZ
    dof rx
    limits (-160.0 20.0)
  end
  begin
     id 2
     name hand
     direction 1 0 0
     length 1
     axis 0 0 0 XYZ
    dof rz
    limits (-160.0 20.0)
  end
  begin
     id 3
     name stiff
     direction 0 1 0
     length 4
     axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root arm stiff
    arm hand
  end
"""
FRAMES = [
    "root 0 0 0 0 0 0\narm 0\nhand 0",
    "root 1 2 3 0 0 0\narm 90\nhand 0",
    "root 0 0 0 0 0 90\narm 0\nhand 90",
    "root 0 0 0 90 0 90\narm 0\nhand 0",
]
SCALE = 0.0254 / 0.45


def amc(frames):
    numbered = "\n".join(f"{i}\n{frame}" for i, frame in enumerate(frames, start=1))
    return f"#!comment\n:FULLY-SPECIFIED\n:DEGREES\n{numbered}\n"


def write_files(folder, frames, asf=ASF):
    (folder / "s.asf").write_text(asf)
    (folder / "s.amc").write_text(frames)
    return folder / "s.asf", folder / "s.amc"


@pytest.fixture
def bvh(tmp_path):
    values = np.random.default_rng(0).uniform(-170, 170, (6, 15))
    path = tmp_path / "walk.bvh"
    path.write_text(BVH + "\n".join(" ".join(f"{x:.6f}" for x in row) for row in values))
    return path


def test_bvh_agrees_with_pybvh(bvh):
    reference = pybvh.read_bvh_file(str(bvh))
    expected = reference.joint_positions()
    names = reference.joint_names
    motion = read_bvh(bvh, scale=0.5)
    assert motion.joints == ("Hips", "Chest", "Arm", "Leg")
    order = [names.index(joint) for joint in motion.joints]
    np.testing.assert_allclose(motion.positions, 0.5 * expected[:, order], atol=1e-5)
    every_fourth = read_bvh(bvh, scale=0.5, step=4)
    np.testing.assert_array_equal(every_fourth.positions, motion.positions[::4])


def test_amc_positions_worked_out_by_hand(tmp_path):
    motion = read_amc(*write_files(tmp_path, amc(FRAMES)))
    assert motion.joints == ("root", "arm", "stiff", "hand")
    expected = [
        # At rest: the names mark the ends of the bones.
        [[0, 0, 0], [2, 0, 0], [0, 4, 0], [3, 0, 0]],
        # The arm turns by 90 degrees about its own x, the world's y: x becomes -z. Its child too.
        [[1, 2, 3], [1, 2, 1], [1, 6, 3], [1, 2, 0]],
        # The root turns about z, the hand by as much again.
        [[0, 0, 0], [0, 2, 0], [-4, 0, 0], [-1, 2, 0]],
        # First about x, then about z, both axes being the world's: y becomes z and stays there.
        [[0, 0, 0], [0, 2, 0], [0, 0, 4], [0, 3, 0]],
    ]
    np.testing.assert_allclose(motion.positions, np.array(expected) * SCALE, atol=1e-12)


def test_amc_in_steps_and_in_radians(tmp_path):
    whole = read_amc(*write_files(tmp_path, amc(FRAMES)))
    half = read_amc(*write_files(tmp_path, amc(FRAMES)), step=2)
    np.testing.assert_array_equal(half.positions, whole.positions[::2])
    radians = ASF.replace("angle deg", "angle rad").replace("0 0 90 XYZ", f"0 0 {np.pi / 2} XYZ")
    frames = amc(FRAMES).replace("90", str(np.pi / 2))
    same = read_amc(*write_files(tmp_path, frames, radians))
    np.testing.assert_allclose(same.positions, whole.positions, atol=1e-9)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (amc(["root 0 0 0 0 0 0\nleg 1\nhand 0"]), r"s.amc:6: bone 'leg' is not in s.asf"),
        (amc(["root 0 0 0 0 0 0\narm 1\nhand x"]), r"s.amc:7: bone hand: could not convert"),
        (amc(["root 0 0 0 0 0 0\narm 1\nhand nan"]), r"s.amc:7: bone hand: a value is not finite"),
        (amc(["root 0 0 0 0 0 0\narm 1 2\nhand 0"]), "arm has 2 values, but s.asf gives it 1"),
        (amc([FRAMES[0], "root 0 0 0 0 0 0\narm 0"]), "frame 2 lacks hand"),
        (amc(FRAMES).replace("\n3\n", "\n7\n"), "frame 7 where 3 is due"),
        ("root 0 0 0 0 0 0\n", "values before the first frame number"),
        ("", "has no frames"),
    ],
)
def test_a_broken_amc_is_named_with_its_fault(tmp_path, frames, message):
    with pytest.raises(MotionFileError, match=message):
        read_amc(*write_files(tmp_path, frames))


def test_missing_and_broken_files(tmp_path, bvh):
    asf, amc_file = write_files(tmp_path, amc(FRAMES))
    with pytest.raises(MotionFileError, match=r"none.asf: cannot be read \(No such file"):
        read_amc(tmp_path / "none.asf", amc_file)
    asf.write_text(ASF.replace("arm hand", "arm foot"))
    with pytest.raises(MotionFileError, match="is not a whole ASF skeleton"):
        read_amc(asf, amc_file)
    with pytest.raises(MotionFileError, match="is not a BVH file"):
        read_bvh(asf, scale=1.0)
    whole = bvh.read_text()
    bvh.write_text(whole[:-30])
    with pytest.raises(MotionFileError, match="but 6 frames of 15 channels are announced"):
        read_bvh(bvh, scale=1.0)
    bvh.write_text(whole.replace("}\nMOTION", "MOTION"))
    with pytest.raises(MotionFileError, match="HIERARCHY is not whole"):
        read_bvh(bvh, scale=1.0)
    bvh.write_text(whole.replace("OFFSET 3.0", "OFFSET three"))
    with pytest.raises(MotionFileError, match="HIERARCHY is broken"):
        read_bvh(bvh, scale=1.0)
