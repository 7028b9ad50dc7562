"""The 3DPW loader, on small files written from the published layout by `tests.layouts`."""

import argparse
import re
import shutil
from itertools import chain

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import pw3d
from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.sources import SourceError
from tests.layouts import pw3d as layout


def read(folder, proof=None, keypoints="detected"):
    flags = {"splits": pw3d.SPLITS, "body": (), "common": False}
    args = argparse.Namespace(source=folder, keypoints=keypoints, **flags)
    records = list(chain.from_iterable(pw3d.read(args, proof or Proof()).splits.values()))
    for record in records:
        schema.validate(record)
    by_clip = {record.identity.clip: record for record in records}
    assert len(by_clip) == len(records)
    return by_clip


def in_camera(record, joints):
    """World points `[T, J, 3]` as the moving camera has them."""
    cameras = record.clip.observations.cameras
    turned = np.einsum("tij,tkj->tki", cameras.rotation[:, 0], joints)
    return turned + cameras.translation[:, :1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pw3d")
    return folder, layout.write(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return folder, layout.write(folder, sequences=("courtyard_arguing_00",))


@pytest.fixture
def own(one, tmp_path):
    shutil.copytree(one[0], tmp_path / "own")
    return tmp_path / "own"


def test_all_that_is_in_the_files_is_found(whole):
    records = read(whole[0])
    assert len(records) == len(whole[1].clips)
    for (sequence, person), clip in whole[1].clips.items():
        found, identity = record = records[f"{sequence}_{person}"]
        valid = clip.more["valid"]
        assert not valid.all()
        labels, observations = found.labels, found.observations
        np.testing.assert_array_equal(labels.joints_valid, np.tile(valid[:, None], (1, 24)))
        np.testing.assert_allclose(labels.joints[valid], clip.joints[valid], atol=1e-5)
        seen = clip.more["in_camera"][:, 0]
        np.testing.assert_allclose(in_camera(record, clip.joints), seen, atol=1e-5)
        points = clip.keypoints["poses2d"]
        np.testing.assert_allclose(observations.keypoints, points, rtol=1e-7)
        np.testing.assert_allclose(observations.confidence, clip.more["confidence"], rtol=1e-7)
        action = sequence.rpartition("_")[0]
        assert identity == schema.Identity(
            dataset="pw3d",
            subject=f"{sequence}_{person}",
            action=action,
            clip=f"{sequence}_{person}",
            recording=sequence,
            camera_names=("moving",),
            start=0,
            group=action,
            split=clip.split,
            fps=30.0,
            keypoint_skeleton="coco18",
            joint_skeleton="smpl24",
            keypoint_source="detected",
        )


def test_joints_stand_in_the_published_order():
    ours = {"neck_base": "neck", "head_base": "head", "mid_shoulders": "neck"}
    for name, theirs in (("smpl24", layout.SMPL24), ("coco18", layout.OPENPOSE18)):
        assert tuple(ours.get(j, j) for j in skeleton.get(name).joints) == theirs


def test_the_camera(whole):
    for record in read(whole[0]).values():
        cameras = record.clip.observations.cameras
        assert cameras.focal.shape == (len(record.clip.labels.joints), 1, 2)
        np.testing.assert_array_equal(cameras.focal, np.full_like(cameras.focal, [1961, 1962.5]))
        np.testing.assert_array_equal(cameras.center, np.full_like(cameras.center, [540, 960]))
        np.testing.assert_array_equal(cameras.size, np.full_like(cameras.size, [1080, 1920]))
        assert not cameras.distortion.any()
        assert len(np.unique(cameras.translation[:, 0, 0])) > 10


def test_images_that_lie(own):
    layout._whole(
        "cam_intrinsics", lambda x: np.array([[1961.0, 0, 960], [0, 1961, 540], [0, 0, 1]])
    ).apply(own)
    for record in read(own).values():
        assert record.clip.observations.cameras.size[0, 0].tolist() == [1920, 1080]


def test_projected_keypoints(whole):
    records = read(whole[0], keypoints="projected")
    for (sequence, person), clip in whole[1].clips.items():
        record = records[f"{sequence}_{person}"]
        observations, valid = record.clip.observations, clip.more["valid"]
        seen = clip.more["in_camera"][valid, 0]
        pixels = seen[..., :2] / seen[..., 2:] * [1961, 1962.5] + [540, 960]
        np.testing.assert_allclose(observations.keypoints[valid, 0], pixels, atol=2e-3)
        assert not observations.confidence[~valid].any()
        assert observations.confidence[valid].all()
        assert record.identity.keypoint_skeleton == record.identity.joint_skeleton == "smpl24"
        assert record.identity.keypoint_source == "projected"


def test_confidence_beyond_1_is_held(own):
    def change(x):
        x[0, 2, 0] = 1.02
        return x

    layout._first("poses2d", change).apply(own)
    assert read(own)["courtyard_arguing_00_0"].clip.observations.confidence[0, 0, 0] == 1


def test_a_person_whose_camera_never_fits_is_left_out_and_reported(own):
    layout._first("campose_valid", np.zeros_like).apply(own)
    proof = Proof()
    assert set(read(own, proof)) == {"courtyard_arguing_00_1"}
    assert "courtyard_arguing_00, person 0" in [what for what, _ in proof.skipped]


def test_splits_that_are_not_there_are_reported(one):
    proof = Proof()
    assert {r.identity.split for r in read(one[0], proof).values()} == {"train"}
    assert [what for what, _ in proof.skipped] == ["validation", "test"]


def test_in_a_folder_3dpw(own, one, tmp_path):
    shutil.move(own, tmp_path / "outer/3DPW")
    assert set(read(tmp_path / "outer")) == set(read(one[0]))


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(SourceError, match=r"has no sequenceFiles/; give the folder"):
        read(tmp_path)
    (tmp_path / "sequenceFiles").mkdir()
    with pytest.raises(SourceError, match=r"sequenceFiles: has no train/.*; extract"):
        read(tmp_path)


@pytest.mark.parametrize("damage", layout.DAMAGES.values(), ids=layout.DAMAGES)
def test_damage_is_an_error_that_names_file_key_and_remedy(own, damage):
    damage.apply(own)
    with pytest.raises(SourceError) as caught:
        read(own)
    message = str(caught.value)
    assert not [name for name in damage.names if name not in message], message
    assert str(own) in message
    assert re.search(r"(?i)fetch|save|layout", message), message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (layout._whole("cam_poses", lambda x: 2 * x), "key cam_poses: is no rotation"),
        (layout._whole("cam_poses", lambda x: x[:0]), "key cam_poses: has no frames"),
        (layout._whole("cam_intrinsics", lambda x: -x), "key cam_intrinsics: has the focal"),
        (layout._whole("jointPositions", lambda x: []), "key jointPositions: is no list"),
        (layout._whole("campose_valid", lambda x: x[:1]), "key campose_valid: has 1 people"),
        (layout._first("campose_valid", lambda x: x[1:]), "key campose_valid, person 0: has shape"),
    ],
)
def test_values_that_cannot_be(own, damage, message):
    damage.apply(own)
    with pytest.raises(SourceError, match=f"courtyard_arguing_00.pkl, {message}"):
        read(own)


def test_the_command_needs_no_other_flag(whole, tmp_path, capsys):
    output = tmp_path / "output"
    pw3d.main(["--source", str(whole[0]), "--output", str(output)])
    builder = tfds.builder_from_directory(output)
    counts = {split: len(builder.as_data_source(split)) for split in builder.info.splits}
    assert counts == {"train": 3, "validation": 2, "test": 3}
    assert "warning" not in capsys.readouterr().out


def test_the_command_s_flag(one, tmp_path):
    output = tmp_path / "output"
    flags = ["--keypoints", "projected"]
    pw3d.main(["--source", str(one[0]), "--output", str(output), *flags])
    metadata = tfds.builder_from_directory(output).info.metadata
    assert metadata["keypoint_source"] == "projected"
