"""A calibration that Qualisys wrote, against what Pose2Sim publishes of the same cameras."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pose3d_jax.formats.calibration import read

ROOT = Path(__file__).parents[2]
# Of Pose2Sim's package (BSD-3): Pose2Sim/Demo_SinglePerson/calibration/Calib.qca.txt.
FILE = Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data")) / "pose2sim/Calib.qca.txt"

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason=f"no {FILE}; set POSE3D_REAL_DATA, and copy it there from Pose2Sim"
)

# Its Calib_qualisys.toml, as in its issue 98; its distortion is 64 times too small.
ROTATIONS = [
    [1.68827548, 1.04832205, -0.41955852],
    [1.34975875, 1.5963809, -1.1983285],
    [0.81096549, -2.19721293, 1.37602778],
]
TRANSLATIONS = [
    [0.32110489, 0.95633206, 2.89071305],
    [-0.11152829, 0.77661848, 3.06755197],
    [-0.79348039, 0.32283594, 4.35351471],
]
MATRICES = [
    [1681.244873, 1681.075439, 532.973694, 948.13739],
    [1673.72961, 1673.79724, 534.494568, 963.225891],
    [1681.598389, 1681.509888, 513.208374, 955.005127],
]


def test_cameras_are_those_that_pose2sim_made_of_them():
    rig = read(FILE)
    assert rig.names == ("cam01", "cam02", "cam03", "cam04")
    assert_allclose(rig.cameras.size, [[1088, 1920]] * 4)
    rotations = Rotation.from_matrix(rig.cameras.rotation[:3].astype(float)).as_rotvec()
    assert_allclose(rotations, ROTATIONS, atol=2e-6)
    assert_allclose(rig.cameras.translation[:3], TRANSLATIONS, atol=2e-6)
    lenses = np.concatenate([rig.cameras.focal, rig.cameras.center], axis=1)
    assert_allclose(lenses[:3], MATRICES, atol=1e-3)
    # What OpenCV finds on the first camera's own pictures of a chessboard: k1 -0.046, k2 0.11.
    assert_allclose(rig.cameras.distortion[0, :2], [-0.046, 0.14], atol=1e-3)
