"""Real motion as rigid bones: how far a BVH file's joints are from those that were captured."""

import itertools
import os
from pathlib import Path

import numpy as np
import pybvh
import pytest
from scipy.spatial.transform import Rotation

from pose3d_jax import skeleton
from pose3d_jax.formats import export
from pose3d_jax.formats.kinematics import articulate

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data")) / "cmu"
H36M = skeleton.get("h36m17")

pytestmark = pytest.mark.skipif(
    not (FOLDER / "cmu_mv_v1.npz").exists(),
    reason=f"no real data in {FOLDER}; set POSE3D_REAL_DATA",
)


def whole():
    """All segments, by name."""
    with np.load(FOLDER / "cmu_mv_v1.npz") as archive:
        return {name: archive[name].astype(float) for name in archive.files}


@pytest.fixture(scope="module")
def clips():
    """Every fifth of all segments, its first 100 frames: all subjects, dances and martial arts."""
    return [joints[:100] for joints in list(whole().values())[::5]]


def millimetres(path, joints):
    export.write(path, export.Motion(joints, H36M, 30.0))
    read = pybvh.read_bvh_file(str(path), world_up="+y")
    order = [read.joint_names.index(name) for name in H36M.joints]
    away = 10 * read.joint_positions()[:, order] - 1000 * y_up(joints)
    return np.linalg.norm(away, axis=-1).mean()


def y_up(joints):
    x, y, z = np.moveaxis(joints, -1, 0)
    return np.stack([x, z, -y], axis=-1)


def jittered(joints, rng):
    """Every bone longer or shorter by 2 % (a standard deviation), frame by frame."""
    longer = joints.copy()
    for joint, parent in enumerate(H36M.parents):  # parents come first
        if parent >= 0:
            bone = joints[:, joint] - joints[:, parent]
            scale = 1 + 0.02 * rng.normal(size=(len(joints), 1))
            longer[:, joint] = longer[:, parent] + scale * bone
    return longer


def test_captured_joints_lie_within_millimetres(tmp_path, clips):
    errors = [millimetres(tmp_path / "a.bvh", joints) for joints in clips]
    assert np.max(errors) < 1.0


def test_joints_of_bones_that_vary_lie_within_millimetres(tmp_path, clips):
    rng = np.random.default_rng(0)
    errors = [millimetres(tmp_path / "a.bvh", jittered(joints, rng)) for joints in clips]
    assert np.max(errors) < 5.0


@pytest.mark.slow
def test_every_segment_lies_within_five_millimetres(tmp_path):
    rng = np.random.default_rng(0)
    for name, joints in whole().items():
        assert millimetres(tmp_path / "a.bvh", joints) < 5.0, name
        assert millimetres(tmp_path / "a.bvh", jittered(joints, rng)) < 5.0, name


def test_limbs_do_not_spin(clips):
    """How bones turn about themselves from frame to frame, beside their turn to where they point.

    Seen from the joint above: what is left when the least turn of the bone is taken away.
    """
    for joints in clips:
        moved = articulate(y_up(joints), H36M)
        for part in ("hip", "knee", "shoulder", "elbow"):
            for joint in (moved.names.index(f"{side}_{part}") for side in ("left", "right")):
                local = Rotation.from_matrix(moved.local[:, joint])
                (child,) = (c for c, parent in enumerate(moved.parents) if parent == joint)
                bone = local.apply(moved.offsets[child] / np.linalg.norm(moved.offsets[child]))
                steps = (local[1:] * local[:-1].inv()).as_quat()
                # A least turn by 2 s, then one by 2 t about the bone: w = cos s cos t, and the
                # vector's part along the middle of both directions is sin t.
                about = np.sum(steps[:, :3] * (bone[1:] + bone[:-1]), axis=-1)
                across = np.linalg.norm(bone[1:] + bone[:-1], axis=-1)
                angles = 2 * np.abs(np.arctan2(about / across, 2 * steps[:, 3] / across))
                angles = np.degrees(np.minimum(angles, 2 * np.pi - angles))
                assert angles.max() < 12.0


def test_thighs_and_upper_arms_turn_as_their_hinges_bend(clips):
    """In the rest pose knees bend about x, elbows so that hands come forward."""
    away = []
    for joints in clips:
        moved = articulate(y_up(joints), H36M)
        places = dict(zip(moved.names, moved.positions.swapaxes(0, 1), strict=True))
        for side, sign in (("left", -1), ("right", 1)):
            for one, hinge, other, axis in (
                ("hip", "knee", "ankle", [1, 0, 0]),
                ("shoulder", "elbow", "wrist", [0, sign, 0]),
            ):
                ends = [places[f"{side}_{part}"] for part in (one, hinge, other)]
                bones = [b - a for a, b in itertools.pairwise(ends)]
                normal = np.cross(*(b / np.linalg.norm(b, axis=-1, keepdims=True) for b in bones))
                bent = np.linalg.norm(normal, axis=-1)
                carried = moved.rotations[:, moved.names.index(f"{side}_{one}")] @ axis
                cosine = np.sum(carried * normal, axis=-1) / bent
                away.append(np.degrees(np.arccos(np.clip(cosine, -1, 1)))[bent > 0.5])
    assert np.median(np.concatenate(away)) < 5.0
    assert np.percentile(np.concatenate(away), 95) < 25.0


def test_joints_with_noise_lie_within_that_noise(tmp_path, clips):
    """Noise of 5 mm along each axis, 8 mm in all: bones of one length take a part of it away."""
    rng = np.random.default_rng(0)
    noisy = [joints + 0.005 * rng.normal(size=joints.shape) for joints in clips]
    errors = [millimetres(tmp_path / "a.bvh", joints) for joints in noisy]
    assert np.mean(errors) < 7.0
