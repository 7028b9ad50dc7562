"""Published rigs against OpenCV, and against the formulas their file states."""

import json
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep import rigs

FILE = json.loads(Path(rigs.__file__).with_name("rigs.json").read_text())["rigs"]


def people(frames=50):
    rng = np.random.default_rng(0)
    return rng.uniform([-1, -1, 0.0], [1, 1, 1.9], (frames, 17, 3))


def entries(rig, subject):
    return zip(FILE[rig]["cameras"], FILE[rig]["subjects"][subject], strict=True)


def plain_projection(points, lens, pose, factor):
    """Pixels `[N, 2]` in float64, from the file's own entries."""
    turn = Rotation.from_quat(np.roll(pose["orientation"], -1)).as_matrix()
    local = (points - np.array(pose["translation_mm"]) / 1000) @ turn
    x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    k1, k2, p1, p2, k3 = lens["distortion"]
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = x * radial + factor * p1 * x * y + p2 * (r2 + factor * x**2)
    v = y * radial + p1 * (r2 + factor * y**2) + factor * p2 * x * y
    return np.stack([u, v], axis=-1) * lens["focal_px"] + lens["center_px"]


@pytest.mark.parametrize("subject", FILE["humaneva"]["subjects"])
def test_the_opencv_model_agrees_with_opencv(subject):
    cameras, _ = rigs.load_rig("humaneva", subject)
    joints = people()
    keypoints = rigs.film(joints, cameras).keypoints
    for view, (lens, pose) in enumerate(entries("humaneva", subject)):
        turn = Rotation.from_quat(np.roll(pose["orientation"], -1)).inv()
        shift = -turn.apply(np.array(pose["translation_mm"]) / 1000)
        (fx, fy), (cx, cy) = lens["focal_px"], lens["center_px"]
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        distortion = np.array(lens["distortion"])
        expected, _ = cv2.projectPoints(
            joints.reshape(-1, 3), turn.as_rotvec(), shift, matrix, distortion
        )
        error = np.abs(keypoints[:, view].reshape(-1, 2) - expected[:, 0])
        assert error.max() < 2e-3  # pixels, in float32


@pytest.mark.parametrize(("rig", "factor"), [("human36m", 1.0), ("humaneva", 2.0)])
def test_each_rig_uses_its_own_tangential_factor(rig, factor):
    joints = people()
    for subject in FILE[rig]["subjects"]:
        cameras, names = rigs.load_rig(rig, subject)
        keypoints = rigs.film(joints, cameras).keypoints
        np.testing.assert_array_equal(cameras.tangential, factor)
        assert names == tuple(camera["id"] for camera in FILE[rig]["cameras"])
        for view, (lens, pose) in enumerate(entries(rig, subject)):
            expected = plain_projection(joints.reshape(-1, 3), lens, pose, factor)
            assert np.abs(keypoints[:, view].reshape(-1, 2) - expected).max() < 2e-3


def test_camera_centers_and_axes():
    cameras, _ = rigs.load_rig("human36m", "S9")
    assert {array.dtype for array in vars(cameras).values()} == {np.dtype(np.float32)}
    centers = -np.einsum("vji,vj->vi", cameras.rotation, cameras.translation)
    expected = [pose["translation_mm"] for pose in FILE["human36m"]["subjects"]["S9"]]
    np.testing.assert_allclose(centers * 1000, expected, atol=0.01)
    np.testing.assert_allclose(np.linalg.det(cameras.rotation), 1, atol=1e-6)
    # The cameras stand upright: "down" of the image has no part that points up.
    assert (cameras.rotation[:, 1, 2] < -0.9).all()


def test_some_cameras_in_the_order_asked_for():
    all_cameras, _ = rigs.load_rig("humaneva", "S2")
    some, names = rigs.load_rig("humaneva", "S2", ["C3", "C1"])
    assert names == ("C3", "C1")
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[[2, 0]], y), all_cameras, some)


def test_filming_marks_what_is_behind_a_camera_and_repeats_the_cameras():
    cameras, _ = rigs.load_rig("humaneva", "S1")
    joints = people(513).astype(np.float32)  # more than one block
    center = -cameras.rotation[0].T @ cameras.translation[0]
    joints[1, 2] = center - cameras.rotation[0, 2]  # 1 m behind the first camera
    joints[1, 3] = center + 0.4 * cameras.rotation[0, 2]
    joints[1, 4] = center + 0.6 * cameras.rotation[0, 2]
    seen = rigs.film(joints, cameras)
    assert seen.keypoints.shape == (513, 3, 17, 2)
    assert seen.cameras.rotation.shape == (513, 3, 3, 3)
    np.testing.assert_array_equal(seen.confidence[1, 0, 2:5], [0, 0, 1])
    np.testing.assert_array_equal(seen.keypoints[1, 0, 2:4], 0)
    assert seen.confidence.sum() == seen.confidence.size - 2
    alone = rigs.film(joints[512:], cameras)
    np.testing.assert_array_equal(alone.keypoints[0], seen.keypoints[512])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("humaneva2", "S1"), "no rig is called 'humaneva2'; there are human36m, humaneva"),
        (("humaneva", "S9"), "no subject of rig humaneva is called 'S9'; there are S1, S2, S3"),
        (("humaneva", "S1", ["C4"]), "no camera of rig humaneva is called 'C4'; there are C1"),
        (("humaneva", "S1", ["C1", "C1"]), "at most once"),
        (("humaneva", "S1", []), "at most once"),
    ],
)
def test_unknown_names_are_answered_with_those_there_are(arguments, message):
    with pytest.raises(rigs.RigError, match=message):
        rigs.load_rig(*arguments)
