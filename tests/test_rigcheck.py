"""Rigs that fit keypoints, and the mistakes that people make with them; OpenCV projects."""

import dataclasses
import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import cameras as cam
from pose3d_jax import rigcheck
from pose3d_jax.formats.calibration import Rig, centres, subset
from pose3d_jax.rigcheck import CalibrationError, check
from tests import scenes

FRAMES = 24
NOISE = 3.0  # pixels
# Of no symmetry: such a rig fits in several orders, the world turned, and nothing tells which.
PLACES = [[4.5, 0.5, 1.6], [0.3, 4.0, 2.2], [-3.6, 1.5, 1.2], [-1.0, -4.6, 1.7], [2.7, -3.9, 2.0]]


def look(places):
    """Cameras at these places that look at the middle of the room."""
    lens, up = scenes.ring(len(places)), jnp.array([0.0, 0.0, 1.0])
    poses = [cam.look_at(jnp.array(p), jnp.array([0.0, 0.0, 1.0]), up) for p in places]
    rotation, translation = (np.stack(x) for x in zip(*poses, strict=True))
    cameras = lens.replace(rotation=rotation, translation=translation)
    return Rig(tuple("ABCDE"[: len(places)]), jax.tree.map(np.asarray, cameras))


RIG = look(PLACES[:4])


def walker(frames=FRAMES):
    """Someone of 1.7 m who crosses the room: joints at random in a box of that height."""
    rng = np.random.default_rng(5)
    body = rng.uniform([-0.25, -0.25, 0.1], [0.25, 0.25, 1.7], (17, 3))
    body[:2] = [[0, 0, 0.0], [0, 0, 1.7]]
    way = np.linspace([-1.2, -0.7, 0], [1.3, 0.8, 0], frames)
    swing = 0.1 * np.sin(np.arange(frames)[:, None, None] / 3 + rng.uniform(0, 6, (17, 3)))
    swing[:, :2] = 0
    return body + swing + way[:, None]


def filmed(rig, joints, noise=NOISE):
    """Pixels `[frames, views, joints, 2]`, by OpenCV, with noise."""
    c = rig.cameras
    views = [
        cv2.projectPoints(
            joints.reshape(-1, 3),
            cv2.Rodrigues(np.float64(c.rotation[v]))[0],
            np.float64(c.translation[v]),
            np.vstack([np.column_stack([np.diag(c.focal[v]), c.center[v]]), [0, 0, 1]]),
            np.float64(c.distortion[v]),
        )[0].reshape(*joints.shape[:2], 2)
        for v in range(len(rig.names))
    ]  # fmt: skip
    points = np.stack(views, axis=1)
    return points + noise * np.random.default_rng(1).standard_normal(points.shape)


POINTS = filmed(RIG, walker())
SURE = np.ones(POINTS.shape[:3])


def changed(rig, **fields):
    fields = {name: np.asarray(value, np.float32) for name, value in fields.items()}
    return dataclasses.replace(rig, cameras=dataclasses.replace(rig.cameras, **fields))


def test_a_rig_that_fits_leaves_the_noise():
    report = check(RIG, POINTS, SURE)
    assert report.names == RIG.names
    # The median of a Rayleigh distribution; three of eight numbers go into the point.
    assert_allclose(report.residuals, NOISE * np.sqrt(2 * np.log(2) * 5 / 8), rtol=0.1)
    assert_allclose(report.height, 1.7, atol=0.05)


def test_outliers_gaps_and_a_blind_view_are_no_reason():
    rng = np.random.default_rng(2)
    points, sure = POINTS.copy(), SURE.copy()
    out = rng.uniform(size=sure.shape) < 0.1
    points[out] += rng.uniform(-100, 100, (out.sum(), 2))
    sure[rng.uniform(size=sure.shape) < 0.3] = 0
    sure[:, 3] = 0
    points[sure == 0] = np.nan
    report = check(RIG, points, sure)
    assert (report.residuals[:3] < 2 * NOISE).all()
    assert np.isnan(report.residuals[3])
    assert_allclose(report.height, 1.7, atol=0.2)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[1::5])
def test_another_order_is_found(order):
    given = subset(RIG, [RIG.names[view] for view in order])
    with pytest.raises(CalibrationError, match=r"in the order A, B, C, D: give --views A B C D$"):
        check(given, POINTS, SURE)


def test_of_many_cameras_two_that_are_exchanged_are_found():
    rig = look(PLACES)
    points = filmed(rig, walker())
    assert (check(rig, points, np.ones(points.shape[:3])).residuals < 2 * NOISE).all()
    with pytest.raises(CalibrationError, match=r"A .* px .*order A, B, C, D, E: give --views A B"):
        check(subset(rig, "AECDB"), points, np.ones(points.shape[:3]))


def test_poses_the_wrong_way_round_are_found():
    rotation, places = RIG.cameras.rotation, centres(RIG.cameras)
    back = rotation.swapaxes(-1, -2)
    for rig, message in (
        (changed(RIG, rotation=back), "with the rotations transposed: .* world-to-camera ones$"),
        (changed(RIG, translation=places), r"with the translations as the cameras' places C; "),
        (changed(RIG, rotation=back, translation=places), "transposed: .*, and the translations"),
    ):
        with pytest.raises(CalibrationError, match=message):
            check(rig, POINTS, SURE)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1000, r"1\.7e\+03 m tall.* taken for metres and seem to be mm \(1\.7 m\); give --unit mm"),
        (100, "taken for metres and seem to be cm"),
        (10, "taken for centimetres and seem to be mm"),
        (0.1, "taken for millimetres and seem to be cm"),
        (0.001, "taken for millimetres and seem to be m "),
        (2, "was the calibration's board or wand of the size"),
    ],
)
def test_lengths_in_another_unit_are_told_by_the_person_s_height(factor, message):
    with pytest.raises(CalibrationError, match=message):
        check(changed(RIG, translation=factor * RIG.cameras.translation), POINTS, SURE)


def test_a_camera_that_was_moved_is_named():
    turn = cv2.Rodrigues(np.array([0, np.radians(8), 0]))[0]
    cameras = RIG.cameras
    rotation, translation = cameras.rotation.copy(), cameras.translation.copy()
    rotation[2], translation[2] = turn @ rotation[2], turn @ translation[2]
    with pytest.raises(CalibrationError, match="The others fit: was C moved") as caught:
        check(changed(RIG, rotation=rotation, translation=translation), POINTS, SURE)
    # Focal length times the tangent of the angle, and more: about 8 % of the diagonal of 1415.
    assert "C 1" in str(caught.value)


def test_keypoints_of_another_scene_fit_no_order():
    other = np.random.default_rng(9).uniform(0, 1000, POINTS.shape)
    with pytest.raises(CalibrationError, match="No other order of the cameras fits"):
        check(RIG, other, SURE)


def test_too_little_to_tell_is_said():
    alone = SURE.copy()
    alone[::2, 1:] = 0
    alone[1::2, :3] = 0
    with pytest.raises(CalibrationError, match="no two views see enough of the same joints"):
        check(RIG, POINTS, alone)
    with pytest.raises(CalibrationError, match=r"4 cameras \(A, B, C, D\) for 3 views"):
        check(RIG, POINTS[:, :3], SURE[:, :3])


def test_one_view_has_nothing_to_be_compared_with():
    report = check(subset(RIG, ["B"]), POINTS[:, 1:2], SURE[:, 1:2])
    assert np.isnan([*report.residuals, report.height]).all()


def test_a_far_origin_does_not_matter():
    """Ten kilometres off, as surveys have it: float32 translations keep a millimetre of it."""
    moved = RIG.cameras.translation - RIG.cameras.rotation @ np.array([9000.0, 4000.0, 100.0])
    report = check(changed(RIG, translation=moved), POINTS, SURE)
    assert (report.residuals < 2 * NOISE).all()


def test_long_clips_are_sampled(monkeypatch):
    monkeypatch.setattr(rigcheck, "_FRAMES", FRAMES)
    report = check(RIG, np.concatenate([POINTS] * 5), np.concatenate([SURE] * 5))
    assert (report.residuals < 2 * NOISE).all()
