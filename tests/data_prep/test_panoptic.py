"""The CMU Panoptic loader, on small files written from the published layout by `tests.layouts`."""

import argparse
import re
import shutil
from itertools import chain

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import panoptic
from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.sources import SourceError
from tests.layouts import panoptic as layout

POSES = "hdPose3d_stage1_coco19"


def read(folder, proof=None, cameras=range(4), test=None):
    args = argparse.Namespace(source=folder, cameras=list(cameras), test=test)
    records = list(chain.from_iterable(panoptic.read(args, proof or Proof()).splits.values()))
    for record in records:
        schema.validate(record)
    by_clip = {record.identity.clip: record for record in records}
    assert len(by_clip) == len(records)
    return by_clip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panoptic")
    return folder, layout.write(folder)


@pytest.fixture
def own(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "own")
    return tmp_path / "own"


def runs(clip):
    """Where (first, stop) a person is there without a gap, as the truth has it."""
    there = np.concatenate([[False], (clip.more["confidence"] > 0).any(1), [False]])
    return np.flatnonzero(np.diff(there.astype(int))).reshape(-1, 2).tolist()


def test_all_that_is_in_the_files_is_found(whole):
    records = read(whole[0])
    wanted = 0
    for (sequence, person), clip in whole[1].clips.items():
        action = sequence.removeprefix("160906_").rstrip("1")
        for first, stop in runs(clip):
            wanted += 1
            start = 168 + first
            found, identity = records[f"{sequence}_{person}_{start}"]
            valid = clip.more["confidence"][first:stop] > 0
            observations, labels = found.observations, found.labels
            np.testing.assert_array_equal(labels.joints_valid, valid)
            joints = np.where(valid[..., None], clip.joints[first:stop], 0)
            np.testing.assert_allclose(labels.joints, joints, atol=1e-5)
            seen = np.tile(valid[:, None], (1, 4, 1))
            np.testing.assert_array_equal(observations.confidence, seen)
            points = np.where(seen[..., None], clip.keypoints["projected"][first:stop], 0)
            np.testing.assert_allclose(observations.keypoints, points, atol=2e-3)
            assert identity == schema.Identity(
                dataset="panoptic",
                subject=f"{sequence}_{person}",
                action=action,
                clip=f"{sequence}_{person}_{start}",
                recording=sequence,
                camera_names=("00_00", "00_01", "00_02", "00_03"),
                start=start,
                group=action,
                split="test" if action == "pizza" else "train",
                fps=29.97,
                keypoint_skeleton="coco19",
                joint_skeleton="coco19",
                keypoint_source="projected",
            )
    assert len(records) == wanted
    # The layout's first person is lost in one frame, the second in two.
    assert [len(runs(clip)) for clip in whole[1].clips.values()] == [2, 2, 2, 2]


def test_some_joints_are_missing(whole):
    valid = np.concatenate([r.clip.labels.joints_valid for r in read(whole[0]).values()])
    assert 0.8 < valid.mean() < 1


def test_joints_stand_in_the_published_order():
    ours = {"mid_shoulders": "neck"}
    assert tuple(ours.get(j, j) for j in skeleton.get("coco19").joints) == layout.COCO19


def test_the_cameras(whole):
    clip = whole[1].clips["160906_band1", 0]
    cameras = read(whole[0], cameras=[2, 1])["160906_band1_0_168"].clip.observations.cameras
    for view, rig in enumerate((clip.more["rig"][2], clip.more["rig"][1])):
        np.testing.assert_allclose(cameras.rotation[0, view], rig.R, atol=1e-6)
        np.testing.assert_allclose(cameras.translation[0, view], rig.t, atol=1e-6)
        np.testing.assert_allclose(cameras.focal[0, view], rig.focal)
        np.testing.assert_allclose(cameras.center[0, view], rig.center)
        np.testing.assert_allclose(cameras.distortion[0, view], rig.distortion, rtol=1e-6)
        np.testing.assert_array_equal(cameras.size[0, view], rig.size)
        assert cameras.tangential[0, view] == 2


def test_the_test_sequences_can_be_named(whole):
    def splits(**flags):
        records = read(whole[0], **flags).values()
        return {r.identity.recording: r.identity.split for r in records}

    assert splits() == {"160906_band1": "train", "160906_pizza1": "test"}
    assert splits(test=["160906_band1"]) == {"160906_band1": "test", "160906_pizza1": "train"}
    assert set(splits(test=[]).values()) == {"train"}
    with pytest.raises(SourceError, match=r"--test 171204_pose5: is not in .*160906_band1"):
        splits(test=["171204_pose5", "160906_band1"])


def test_a_missing_file_is_a_gap(own, whole):
    (own / "160906_band1" / POSES / "body3DScene_00000170.json").unlink()
    records = read(own)
    assert len(records["160906_band1_0_168"].clip.labels.joints) == 2
    assert "160906_band1_0_171" in records
    assert len(records) == len(read(whole[0])) + 1


def test_a_sequence_without_people_is_left_out_and_reported(own):
    for path in (own / "160906_band1" / POSES).glob("*.json"):
        path.write_text('{"bodies": []}')
    proof = Proof()
    assert {r.identity.recording for r in read(own, proof).values()} == {"160906_pizza1"}
    assert ("160906_band1", "nobody is in it") in proof.skipped


def test_a_sequence_without_poses_is_left_out_and_reported(own):
    shutil.rmtree(own / "160906_band1" / POSES)
    (own / "160906_band1" / f"{POSES}.tar").unlink()
    proof = Proof()
    assert {r.identity.recording for r in read(own, proof).values()} == {"160906_pizza1"}
    assert [what for what, _ in proof.skipped] == ["160906_band1"]


def test_poses_that_were_not_extracted(own):
    shutil.rmtree(own / "160906_band1" / POSES)
    with pytest.raises(SourceError, match=r"coco19.tar: is not extracted; run tar -xf"):
        read(own)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(SourceError, match=r"has no folder SEQ with calibration_SEQ.json.*give"):
        read(tmp_path)


def test_the_older_joint_set_is_not_read(tmp_path):
    layout.write(tmp_path, sequences=("160906_band1",), joints=15, stray=False)
    with pytest.raises(SourceError, match=POSES):
        read(tmp_path)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([0, 0], "names a camera twice; name each once"),
        (
            [0, 30],
            r"band1.json.*no 00_30 of type hd, only 00_00, 00_01, 00_02, 00_03\..*--cameras",
        ),
    ],
)
def test_cameras_that_are_not_there(whole, cameras, message):
    with pytest.raises(SourceError, match=message):
        read(whole[0], cameras=cameras)


@pytest.mark.parametrize("damage", layout.DAMAGES.values(), ids=layout.DAMAGES)
def test_damage_is_an_error_that_names_file_key_and_remedy(own, damage):
    damage.apply(own)
    with pytest.raises(SourceError) as caught:
        read(own)
    message = str(caught.value)
    assert not [name for name in damage.names if name not in message], message
    assert str(own) in message
    assert re.search(r"(?i)fetch|extract|layout|choose", message), message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            layout._camera(lambda camera: camera["K"][0].__setitem__(0, -1.0)),
            r"camera 00_00, keys K and resolution.*positive",
        ),
        (
            layout._edit(layout._CALIBRATION, lambda x: x.update(cameras="none")),
            "key cameras: is no list",
        ),
        (layout._edit(layout._SCENE, lambda x: x.update(bodies="none")), "key bodies: is no list"),
    ],
)
def test_values_that_cannot_be(own, damage, message):
    damage.apply(own)
    with pytest.raises(SourceError, match=f"{damage.names[0]}, {message}"):
        read(own)


def test_the_command_needs_no_other_flag(tmp_path, capsys):
    source, output = tmp_path / "source", tmp_path / "output"
    layout.write(source, views=31)
    panoptic.main(["--source", str(source), "--output", str(output)])
    builder = tfds.builder_from_directory(output)
    counts = {split: len(builder.as_data_source(split)) for split in builder.info.splits}
    assert counts == {"train": 4, "test": 4}
    assert builder.info.metadata["cameras"] == ["00_03", "00_06", "00_12", "00_13", "00_23"]
    assert "warning" not in capsys.readouterr().out


def test_the_command_s_flags(whole, tmp_path):
    output = tmp_path / "output"
    flags = ["--cameras", "2", "0", "--test", "160906_band1"]
    panoptic.main(["--source", str(whole[0]), "--output", str(output), *flags])
    builder = tfds.builder_from_directory(output)
    assert builder.info.metadata["cameras"] == ["00_02", "00_00"]
    records = read(whole[0]).values()
    band = sum(record.identity.recording == "160906_band1" for record in records)
    assert len(builder.as_data_source("test")) == band == 4
