"""The floor of captured motion, and contacts beside the tips of toes that h36m17 has not."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.smoothing import toes
from data_prep import cmu
from pose3d_jax import ground, skeleton

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data")) / "cmu"
POSITIONS = FOLDER / "cmu_positions_30fps.npz"
H36M = skeleton.get("h36m17")

pytestmark = pytest.mark.skipif(
    not POSITIONS.exists(), reason=f"no {POSITIONS}; set POSE3D_REAL_DATA"
)


@pytest.fixture(scope="module")
def clips():
    """Joints by name, of segments that are not looked at where anything was tuned."""
    cut = cmu.segments(cmu.load_positions(POSITIONS))
    return {spec["name"]: (spec, joints) for spec, joints in cut if "test" in spec["split"]}


@pytest.mark.parametrize("name", ["bvh131_131_01_00", "bvh131_131_03_00", "daz_salsa_05_00"])
def test_the_floor_of_a_turned_world_is_found(clips, name):
    turn = Rotation.from_euler("xyz", [130, 20, 50], degrees=True).as_matrix()
    _, joints = clips[name]
    floor = ground.floor_of([joints @ turn.T + [1.0, 2.0, 3.0]], H36M, 30.0)
    assert not floor.doubt
    assert np.degrees(np.arccos((floor.rotation @ turn)[2, 2])) < 1.5
    if name.startswith("bvh131"):  # whose z is the floor's; the other's is some centimetres off
        assert abs(ground.floor_of([joints], H36M, 30.0).height) < 0.03


def test_uneven_ground_is_no_floor_and_standing_tells_no_tilt(clips):
    for name in ("amc_03_03_00", "amc_03_04_00", "amc_02_05_00"):
        assert "is not told" in ground.floor_of([clips[name][1]], H36M, 30.0).doubt


def test_contacts_agree_with_the_toes(clips):
    agree, size = 0, 0
    with np.load(POSITIONS) as archive:
        for name, (spec, joints) in clips.items():
            if name.startswith("bvh131"):
                own = toes(archive[spec["clip"]], spec)
                agree += (own == ground.contacts(joints, H36M, 30.0)).sum()
                size += own.size
    assert agree / size > 0.75
