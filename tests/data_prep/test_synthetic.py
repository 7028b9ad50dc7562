"""The procedural people: the same every time, of one size each, within limits, on the floor."""

import itertools

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import synthetic
from data_prep.articulated import LIMITS, SKELETON
from pose3d_jax import schema
from pose3d_jax.data.records import decode

SIDES = ("left", "right")
TOLERANCE = 0.2  # degrees; positions are rounded to float32


@pytest.fixture(scope="module")
def data():
    return synthetic.records(seed=1, scale=0.3)


def every(data):
    return list(itertools.chain(*data.values()))


def joint(joints, name):
    return joints[:, SKELETON.joints.index(name)].astype(float)


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def frame(up, left):
    """Rotations `[T, 3, 3]` from body axes (x forward, y left, z up) to the world's."""
    left = unit(left)
    forward = unit(np.cross(left, up))
    return np.stack([forward, left, np.cross(forward, left)], axis=-1)


def limb(joints, side, names):
    """Directions `[T, 3]` of a limb's upper and lower part."""
    first, second, third = (joint(joints, f"{side}_{name}") for name in names)
    return unit(second - first), unit(third - second)


def bending(upper, lower):
    return np.degrees(np.arccos(np.clip((upper * lower).sum(-1), -1, 1)))


def trunk_frames(joints):
    pelvis = frame(
        joint(joints, "spine") - joint(joints, "pelvis"),
        joint(joints, "left_hip") - joint(joints, "right_hip"),
    )
    thorax = frame(
        joint(joints, "neck") - joint(joints, "thorax"),
        joint(joints, "left_shoulder") - joint(joints, "right_shoulder"),
    )
    return pelvis, thorax


def within(angles, limits):
    return (angles >= limits[0] - TOLERANCE).all() and (angles <= limits[1] + TOLERANCE).all()


def test_a_seed_determines_everything(data):
    again = synthetic.records(seed=1, scale=0.3)
    other = synthetic.records(seed=2, scale=0.3)
    for first, second, third in zip(every(data), every(again), every(other), strict=True):
        assert first.identity == second.identity
        jax.tree.map(np.testing.assert_array_equal, first.clip, second.clip)
        assert np.abs(first.clip.labels.joints - third.clip.labels.joints).max() > 0.01


def test_default_size_and_that_no_two_clips_are_alike(data):
    frames = {
        split: sum(len(record.clip.labels.joints) for record in found)
        for split, found in synthetic.records().items()
    }
    assert frames == {"train": 7200, "validation": 1080, "test": 1520}
    firsts = {record.clip.labels.joints[0].tobytes() for record in every(data)}
    assert len(firsts) == len(every(data))


def test_records_follow_the_schema(data):
    for record in every(data):
        schema.validate(record)
    names = [record.identity.clip for record in every(data)]
    assert len(set(names)) == len(names)
    assert {record.identity.action for record in data["test"]} == {"walk", "jog", "box", "free"}


def test_the_people_of_the_test_are_new_and_of_other_sizes(data):
    people = {split: {record.identity.subject for record in data[split]} for split in data}
    assert people["train"] == people["validation"] == {"S1", "S2", "S3"}
    assert people["test"] == {"S4", "S5"}
    legs = set()
    for record in every(data):
        joints = record.clip.labels.joints
        thigh = joint(joints, "left_knee") - joint(joints, "left_hip")
        legs.add(round(float(np.linalg.norm(thigh[0])), 3))
    assert len(legs) == 5


def test_bones_keep_their_lengths(data):
    for record in every(data):
        joints = record.clip.labels.joints.astype(float)
        for parent, child in SKELETON.bones:
            lengths = np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1)
            assert np.ptp(lengths) < 1e-5


def test_elbows_and_knees_bend_one_way_within_limits(data):
    for record in every(data):
        joints = record.clip.labels.joints
        pelvis, thorax = trunk_frames(joints)
        for side in SIDES:
            for names, trunk, sign in (
                (("hip", "knee", "ankle"), pelvis, 1),
                (("shoulder", "elbow", "wrist"), thorax, -1),
            ):
                upper, lower = limb(joints, side, names)
                angle = bending(upper, lower)
                assert within(angle, LIMITS[names[1]][0])
                # The hinge, where it is bent enough to have an axis, points to the same side.
                hinge = (np.cross(upper, lower) * trunk[..., 1]).sum(-1) * sign
                assert (hinge[angle > 5] > 0).all()


def test_hips_and_shoulders_stay_within_limits(data):
    for record in every(data):
        joints = record.clip.labels.joints
        for side in SIDES:
            outward = 1 if side == "left" else -1
            for names, trunk in zip(
                (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")),
                trunk_frames(joints),
                strict=True,
            ):
                x, y, z = np.einsum("tij,ti->jt", trunk, limb(joints, side, names)[0])
                # The limb's direction is Ry(-flexion) Rx(+-side) (0, 0, -1).
                assert within(np.degrees(np.arctan2(x, -z)), LIMITS[names[0]][0])
                assert within(np.degrees(np.arcsin(outward * y)), LIMITS[names[0]][1])


def test_feet_are_near_the_floor_and_people_near_the_centre(data):
    for record in every(data):
        joints = record.clip.labels.joints
        ankles = np.stack([joint(joints, f"{side}_ankle") for side in SIDES], axis=1)
        lowest = ankles[..., 2].min(axis=1)
        assert lowest.min() > 0.05
        assert lowest.max() < (0.15 if record.identity.action == "jog" else 0.09)
        assert np.abs(joint(joints, "pelvis")[:, :2]).max() < 1.2
        assert joints[..., 2].min() > 0


def test_two_views_agree_that_the_feet_are_near_the_floor(data):
    """Rays through the ankles' pixels of two cameras meet there (plain DLT, small distortion)."""
    record = data["train"][0]
    observations, joints = record.clip.observations, record.clip.labels.joints
    ankle = SKELETON.joints.index("left_ankle")
    cameras = observations.cameras
    for t in range(0, len(joints), 10):
        rows = []
        for v in range(2):
            u = (observations.keypoints[t, v, ankle] - cameras.center[t, v]) / cameras.focal[t, v]
            matrix = np.concatenate(
                [cameras.rotation[t, v], cameras.translation[t, v][:, None]], axis=1
            )
            rows += [u[0] * matrix[2] - matrix[0], u[1] * matrix[2] - matrix[1]]
        x = np.linalg.svd(np.array(rows))[2][-1]
        assert np.linalg.norm(x[:3] / x[3] - joints[t, ankle]) < 0.08


def test_walkers_plant_their_feet(data):
    """While a foot carries the body, it hardly moves; the body does."""
    for record in data["train"]:
        if record.identity.action != "walk":
            continue
        joints = record.clip.labels.joints
        ankles = np.stack([joint(joints, f"{side}_ankle") for side in SIDES], axis=1)
        speed = np.linalg.norm(np.diff(ankles[..., :2], axis=0), axis=-1) * synthetic.FPS
        body = np.linalg.norm(np.diff(joint(joints, "pelvis")[:, :2], axis=0), axis=-1).mean()
        assert np.median(speed.min(axis=1)) < 0.35
        assert body * synthetic.FPS > 0.6


def test_people_are_in_front_of_all_cameras_and_in_the_image(data):
    for record in every(data):
        observations = record.clip.observations
        assert observations.confidence.min() == 1
        pixels, size = observations.keypoints, observations.cameras.size[:, :, None]
        inside = ((pixels >= 0) & (pixels <= size - 1)).all(-1)
        assert inside.mean() > 0.95


def test_other_rigs_and_fewer_cameras():
    found = synthetic.records(scale=0.02, rig="human36m", cameras=["60457274", "54138969"])
    identity = found["test"][-1].identity
    assert (identity.recording, identity.camera_names) == ("human36m_S8", ("60457274", "54138969"))
    assert found["test"][-1].clip.observations.keypoints.shape == (8, 2, 17, 2)
    with pytest.raises(ValueError, match="must be positive"):
        synthetic.records(scale=0)


def test_command_line(tmp_path, capsys):
    synthetic.main(["--out", str(tmp_path / "set"), "--scale", "0.02"])
    assert capsys.readouterr().out.splitlines()[2].split() == ["train", "24", "192"]
    source = tfds.builder_from_directory(str(tmp_path / "set")).as_data_source("test")
    assert decode(source[0]).identity.subject == "S4"
    with pytest.raises(SystemExit):
        synthetic.main(["--out", str(tmp_path / "set"), "--scale", "0.02"])
    assert "is not empty" in capsys.readouterr().err
