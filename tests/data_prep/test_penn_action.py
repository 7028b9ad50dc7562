"""The Penn Action loader, on small files written from the published layout by `tests.layouts`."""

import argparse
import re
import shutil
from itertools import chain

import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy.io import loadmat, savemat

from data_prep import penn_action
from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.sources import SourceError
from tests.layouts import penn_action as layout


def read(folder):
    dataset = penn_action.read(argparse.Namespace(source=folder), Proof())
    records = list(chain.from_iterable(dataset.splits.values()))
    for record in records:
        schema.validate(record)
    by_clip = {record.identity.clip: record for record in records}
    assert len(by_clip) == len(records)
    return by_clip


def put(folder, **values):
    """Sets keys of the first file."""
    path = folder / "labels/0001.mat"
    table = {key: x for key, x in loadmat(path).items() if not key.startswith("__")}
    savemat(path, {**table, **values})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("penn")
    return folder, layout.write(folder)


@pytest.fixture
def own(whole, tmp_path):
    shutil.copytree(whole[0] / "labels", tmp_path / "own/labels")
    return tmp_path / "own"


def test_all_that_is_in_the_files_is_found(whole):
    records = read(whole[0])
    assert set(records) == set(whole[1].clips)
    for name, clip in whole[1].clips.items():
        found, identity = records[name]
        visible = clip.more["visibility"]
        observations = found.observations
        np.testing.assert_array_equal(observations.confidence, visible)
        # The first pixel's centre is the origin, but MATLAB calls it 1.
        points = np.where(visible[..., None], clip.keypoints["labels"] - 1, 0)
        np.testing.assert_allclose(observations.keypoints, points, rtol=1e-7, atol=1e-7)
        assert found.labels.joints.shape == (len(points), 13, 3)
        assert not found.labels.joints_valid.any()
        assert identity == schema.Identity(
            dataset="penn_action",
            subject="unknown",
            action=clip.action,
            clip=name,
            recording=name,
            camera_names=("assumed",),
            start=0,
            group=clip.action,
            split=clip.split,
            fps=30.0,
            keypoint_skeleton="penn13",
            joint_skeleton="penn13",
            keypoint_source="annotation",
        )


def test_joints_stand_in_the_published_order():
    assert skeleton.get("penn13").joints == layout.PENN13


def test_the_assumed_camera(whole):
    for name, record in read(whole[0]).items():
        width, height = whole[1].clips[name].more["size"]
        cameras = record.clip.observations.cameras
        np.testing.assert_array_equal(cameras.size[0, 0], [width, height])
        np.testing.assert_array_equal(cameras.focal[0, 0], [width, width])
        np.testing.assert_array_equal(cameras.center[0, 0], [(width - 1) / 2, (height - 1) / 2])
        assert not cameras.distortion.any()
        down, forward = cameras.rotation[0, 0, 1], cameras.rotation[0, 0, 2]
        assert (down.tolist(), forward.tolist()) == ([0, 0, -1], [0, 1, 0])


def test_splits_are_the_files_own(own):
    put(own, train=np.int16(-1))
    records = read(own)
    assert {record.identity.split for record in records.values()} == {"train", "test"}
    assert records["0001"].identity.split == "test"


@pytest.mark.parametrize("flag", [0, -1])
def test_both_ways_to_mark_the_test_set(own, flag):
    put(own, train=flag)
    assert read(own)["0001"].identity.split == "test"


@pytest.mark.parametrize("where", ["", "Penn_Action/labels"])
def test_other_places_of_the_labels(own, tmp_path, where):
    target = tmp_path / "other" / where
    target.parent.mkdir(exist_ok=True, parents=True)
    shutil.move(own / "labels", target)
    assert len(read(tmp_path / "other")) == 4


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(SourceError, match=r"has no labels/0001.mat.*give the folder"):
        read(tmp_path)


@pytest.mark.parametrize("damage", layout.DAMAGES.values(), ids=layout.DAMAGES)
def test_damage_is_an_error_that_names_file_key_and_remedy(own, damage):
    damage.apply(own)
    with pytest.raises(SourceError) as caught:
        read(own)
    message = str(caught.value)
    assert not [name for name in damage.names if name not in message], message
    assert str(own) in message
    assert re.search(r"(?i)fetch|layout", message), message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": 2}, "key train: is 2, not 1 or -1"),
        ({"dimensions": [[0, 480, 15]]}, "key dimensions: is 0 x 480"),
        ({"dimensions": [[270, 480]]}, "key dimensions: has shape"),
        ({"action": " "}, "key action: is no text"),
        ({"action": 7}, "key action: is no text"),
    ],
)
def test_values_that_cannot_be(own, values, message):
    put(own, **values)
    with pytest.raises(SourceError, match=f"0001.mat, {message}"):
        read(own)


def test_the_command_needs_no_other_flag(whole, tmp_path, capsys):
    output = tmp_path / "output"
    penn_action.main(["--source", str(whole[0]), "--output", str(output)])
    builder = tfds.builder_from_directory(output)
    counts = {split: len(builder.as_data_source(split)) for split in builder.info.splits}
    assert counts == {"train": 2, "test": 2}
    assert "warning" not in capsys.readouterr().out
