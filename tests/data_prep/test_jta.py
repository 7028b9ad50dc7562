"""The JTA loader, on small files written from the published layout by `tests.layouts`."""

import argparse
import json
import re
import shutil
from itertools import chain

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import jta
from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.sources import SourceError
from tests.layouts import jta as layout

FIRST = "annotations/train/seq_0.json"
# The layout's person and the frames (from 0) in which they are there without a gap.
RUNS = {0: [(0, 12)], 1: [(2, 12)], 2: [(0, 5), (7, 12)]}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read(folder, proof=None, keep_occluded=False):
    args = argparse.Namespace(source=folder, keep_occluded=keep_occluded)
    records = list(chain.from_iterable(jta.read(args, proof or Proof()).splits.values()))
    for record in records:
        schema.validate(record)
    by_clip = {record.identity.clip: record for record in records}
    assert len(by_clip) == len(records)
    return by_clip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jta")
    return folder, layout.write(folder)


@pytest.fixture
def own(whole, tmp_path):
    shutil.copytree(whole[0] / "annotations", tmp_path / "own/annotations")
    return tmp_path / "own"


def check(record, clip, start, stop, *, keep_occluded=False):
    found, at = record.clip, slice(start, stop)
    np.testing.assert_allclose(found.labels.joints, clip.joints[at], atol=1e-5)
    assert found.labels.joints_valid.min() == 1
    visible = ~(clip.more["occluded"] | clip.more["self_occluded"])[at, None] | keep_occluded
    np.testing.assert_array_equal(found.observations.confidence, visible)
    points = np.where(visible[..., None], clip.keypoints["annotated"][at], 0)
    np.testing.assert_allclose(found.observations.keypoints, points, rtol=1e-7)


@pytest.mark.parametrize("shuffled", [False, True])
def test_all_that_is_in_the_files_is_found(tmp_path, shuffled):
    truth = layout.write(tmp_path, shuffled=shuffled)
    records = read(tmp_path)
    assert len(records) == sum(len(RUNS[person]) for _, _, person in truth.clips) == 16
    for (part, number, person), clip in truth.clips.items():
        for start, stop in RUNS[person]:
            name = f"{SPLITS[part]}_seq_{number}"
            record = records[f"{name}_{person}_{start + 1}"]
            check(record, clip, start, stop)
            assert record.identity == schema.Identity(
                dataset="jta",
                subject=f"{name}_{person}",
                action="pedestrian",
                clip=f"{name}_{person}_{start + 1}",
                recording=name,
                camera_names=("game",),
                start=start,
                group="pedestrian",
                split=SPLITS[part],
                fps=30.0,
                keypoint_skeleton="jta22",
                joint_skeleton="jta22",
                keypoint_source="annotation",
            )


def test_joints_stand_in_the_published_order():
    theirs = {"head": "head_top", "neck_base": "neck"}
    assert tuple(theirs.get(j, j) for j in skeleton.get("jta22").joints) == layout.JTA22


def test_the_camera_sees_the_joints_where_the_keypoints_are(whole):
    for record in read(whole[0], keep_occluded=True).values():
        cameras = record.clip.observations.cameras
        turned = np.einsum("tij,tkj->tki", cameras.rotation[:, 0], record.clip.labels.joints)
        assert not cameras.translation.any()
        pixels = turned[..., :2] / turned[..., 2:] * [1158, 1158] + [960, 540]
        np.testing.assert_array_equal(cameras.focal[0, 0], [1158, 1158])
        np.testing.assert_array_equal(cameras.center[0, 0], [960, 540])
        np.testing.assert_array_equal(cameras.size[0, 0], [1920, 1080])
        # The file has four decimals of a metre.
        np.testing.assert_allclose(record.clip.observations.keypoints[:, 0], pixels, atol=0.03)


def test_keypoints_of_occluded_joints_can_be_kept(whole):
    records = read(whole[0], keep_occluded=True)
    for (part, number, person), clip in whole[1].clips.items():
        start, stop = RUNS[person][-1]
        record = records[f"{SPLITS[part]}_seq_{number}_{person}_{start + 1}"]
        check(record, clip, start, stop, keep_occluded=True)


def test_sequences_come_in_the_order_of_their_numbers(tmp_path):
    layout.write(tmp_path, sequences=[("test", 10), ("test", 9)], count=1)
    assert [r.identity.recording for r in read(tmp_path).values()] == ["test_seq_9", "test_seq_10"]


def test_a_split_that_is_not_there_is_reported(own):
    shutil.rmtree(own / "annotations/val")
    proof = Proof()
    assert {r.identity.split for r in read(own, proof).values()} == {"train", "test"}
    assert [what for what, _ in proof.skipped] == ["validation"]


def test_in_the_folder_of_the_repository(own, tmp_path):
    shutil.move(own / "annotations", tmp_path / "outer/JTA-Dataset/annotations")
    assert len(read(tmp_path / "outer")) == 16


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(SourceError, match=r"has no annotations/; give the folder"):
        read(tmp_path)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(SourceError, match=r"annotations: has no train/seq_0.json.*extract"):
        read(tmp_path)


@pytest.mark.parametrize("damage", layout.DAMAGES.values(), ids=layout.DAMAGES)
def test_damage_is_an_error_that_names_file_and_remedy(own, damage):
    damage.apply(own)
    with pytest.raises(SourceError) as caught:
        read(own)
    message = str(caught.value)
    assert not [name for name in damage.names if name not in message], message
    assert str(own) in message
    assert re.search(r"(?i)fetch|layout", message), message


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 0, r"frame number \(column 0\): is 0 in row 30"),
        (0, 1.5, r"frame number \(column 0\): is 1.5 in row 30"),
        (1, 0.5, r"person \(column 1\): is 0.5 in row 30"),
        (2, 22, r"joint type \(column 2\): is 22 in row 30"),
        (8, 2, r"occluded \(column 8\): is 2 in row 30"),
        (9, -1, r"self-occluded \(column 9\): is -1 in row 30"),
        (2, 9, "has joint 9 of person 2 twice in frame 1"),
        (6, float("inf"), r"its rows: is inf at index \[30, 6\]"),
    ],
)
def test_values_that_cannot_be(own, column, value, message):
    rows = json.loads((own / FIRST).read_text())
    rows[30][column] = value
    (own / FIRST).write_text(json.dumps(rows))
    with pytest.raises(SourceError, match=f"seq_0.json.*{message}"):
        read(own)


def test_a_missing_joint_is_named(own):
    rows = json.loads((own / FIRST).read_text())
    (own / FIRST).write_text(json.dumps(rows[:-1]))
    with pytest.raises(SourceError, match=r"seq_0.json: has 21 of 22 joints of person 2 in frame"):
        read(own)


def test_the_command_needs_no_other_flag(whole, tmp_path, capsys):
    output = tmp_path / "output"
    jta.main(["--source", str(whole[0]), "--output", str(output)])
    builder = tfds.builder_from_directory(output)
    counts = {split: len(builder.as_data_source(split)) for split in builder.info.splits}
    assert counts == {"train": 8, "validation": 4, "test": 4}
    assert "warning" not in capsys.readouterr().out


def test_the_command_s_flag(whole, tmp_path):
    output = tmp_path / "output"
    jta.main(["--source", str(whole[0]), "--output", str(output), "--keep_occluded"])
    for split, source in tfds.builder_from_directory(output).as_data_source().items():
        confidence = np.concatenate([np.ravel(example["confidence"]) for example in source])
        assert confidence.all(), split
