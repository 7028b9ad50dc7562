"""Real motion as rigid bones: how far a BVH file's joints are from those that were captured."""

import os
from pathlib import Path

import numpy as np
import pybvh
import pytest

from pose3d_jax import skeleton
from pose3d_jax.formats import export

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data")) / "cmu"
H36M = skeleton.get("h36m17")

pytestmark = pytest.mark.skipif(
    not (FOLDER / "cmu_mv_v1.npz").exists(),
    reason=f"no real data in {FOLDER}; set POSE3D_REAL_DATA",
)


@pytest.fixture(scope="module")
def clips():
    """Every fifth of all segments, its first 100 frames: all subjects, dances and martial arts."""
    with np.load(FOLDER / "cmu_mv_v1.npz") as archive:
        return [archive[name][:100].astype(float) for name in archive.files[::5]]


def millimetres(path, joints):
    export.write(path, export.Motion(joints, H36M, 30.0))
    read = pybvh.read_bvh_file(str(path), world_up="+y")
    order = [read.joint_names.index(name) for name in H36M.joints]
    x, y, z = np.moveaxis(joints, -1, 0)
    away = 10 * read.joint_positions()[:, order] - 1000 * np.stack([x, z, -y], axis=-1)
    return np.linalg.norm(away, axis=-1).mean()


def test_captured_joints_lie_within_millimetres(tmp_path, clips):
    errors = [millimetres(tmp_path / "a.bvh", joints) for joints in clips]
    assert np.mean(errors) < 2.5
    assert np.max(errors) < 10.0  # climbing: shoulders and hips move within the trunk


def test_joints_with_noise_lie_within_that_noise(tmp_path, clips):
    """Noise of 5 mm along each axis, 8 mm in all: bones of one length take a part of it away."""
    rng = np.random.default_rng(0)
    noisy = [joints + 0.005 * rng.normal(size=joints.shape) for joints in clips]
    errors = [millimetres(tmp_path / "a.bvh", joints) for joints in noisy]
    assert np.mean(errors) < 7.0
