"""Shards: what is written is what is read, and nothing half."""

import dataclasses
import os

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import writer
from pose3d_jax import skeleton
from pose3d_jax.cameras import Camera
from pose3d_jax.data import records
from pose3d_jax.schema import Clip, Identity, Labels, Observations, Record, SchemaError
from tests import scenes


def make_record(clip="a", split="train", frames=5, views=2, joint_skeleton="h36m17", **changes):
    rng = np.random.default_rng(frames)

    def some(*shape):
        return rng.uniform(0.1, 1.0, shape).astype(np.float32)

    lead, joints = (frames, views), skeleton.get(joint_skeleton).size
    camera = Camera(
        rotation=np.broadcast_to(np.eye(3, dtype=np.float32), (*lead, 3, 3)),
        translation=some(*lead, 3),
        focal=some(*lead, 2),
        center=some(*lead, 2),
        distortion=some(*lead, 5),
        tangential=some(*lead),
        size=some(*lead, 2),
    )
    identity = Identity(
        dataset="tiny",
        subject="S1",
        action="walk",
        clip=clip,
        recording="rig_S1",
        camera_names=tuple(f"camera {i}" for i in range(views)),
        start=7,
        group="walk",
        split=split,
        fps=29.97,
        keypoint_skeleton="coco17",
        joint_skeleton=joint_skeleton,
        keypoint_source="détecteur",
    )
    observations = Observations(some(*lead, 17, 2), some(*lead, 17), camera)
    labels = Labels(some(frames, joints, 3), np.ones((frames, joints), np.float32))
    record = Record(Clip(observations, labels, np.int32(3)), identity)
    return record._replace(identity=dataclasses.replace(identity, **changes))


def write(directory, *found, **options):
    by_split = {}
    for record in found:
        by_split.setdefault(record.identity.split, []).append(record)
    writer.write(directory, "tiny", by_split, description="A test.", **options)


def read(directory, split="train"):
    source = tfds.builder_from_directory(str(directory)).as_data_source(split)
    return [records.decode(example) for example in source]


def assert_same_arrays(first, second):
    same = first.clip.replace(recording=np.int32(-1))
    jax.tree.map(np.testing.assert_array_equal, same, second.clip)


def test_what_is_read_is_what_was_written(tmp_path):
    train = [make_record(clip=str(i), frames=i + 1) for i in range(12)]
    test = make_record(split="test", frames=1)
    write(tmp_path / "new" / "set", *train, test, citation="Someone", terms="free")
    found = read(tmp_path / "new" / "set")
    assert [record.identity for record in found] == [record.identity for record in train]
    found += read(tmp_path / "new" / "set", "test")
    for before, after in zip([*train, test], found, strict=True):
        assert_same_arrays(before, after)
        assert after.clip.observations.keypoints.dtype == np.float32
    info = tfds.builder_from_directory(str(tmp_path / "new" / "set")).info
    assert (info.name, info.citation) == ("tiny", "Someone")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_features_of_images_are_in_all_clips_or_in_none(tmp_path):
    record = scenes.pictured(make_record())
    write(tmp_path / "set", record, scenes.pictured(make_record(clip="b", frames=2)))
    found = read(tmp_path / "set")
    assert_same_arrays(record, found[0])
    assert found[0].clip.observations.images.features.shape == (5, 2, 7)
    bare = make_record(clip="bare")
    for one, other in ((record, bare), (bare, record), (record, scenes.pictured(bare, 8))):
        with pytest.raises(SchemaError, match=r"images \(features\) and .*; write two datasets"):
            write(tmp_path / "mixed", one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_without_labels_keeps_its_masks(tmp_path):
    record = make_record(joint_skeleton="humaneva15")
    labels = jax.tree.map(np.zeros_like, record.clip.labels)
    record = record._replace(clip=record.clip.replace(labels=labels))
    write(tmp_path / "set", record)
    (found,) = read(tmp_path / "set")
    assert found.clip.labels.joints.shape == (5, 15, 3)
    assert not found.clip.labels.joints_valid.any()


def test_a_broken_record_leaves_nothing_behind(tmp_path):
    record = make_record(clip="bad")
    record.clip.observations.keypoints[2, 0, 1, 0] = np.nan
    with pytest.raises(
        SchemaError, match=r"clip tiny/bad: keypoints is nan at index \(2, 0, 1, 0\)"
    ):
        write(tmp_path / "new" / "set", make_record(), record)
    assert not list(tmp_path.iterdir())


def test_existing_data_is_replaced_only_on_demand_and_only_by_a_whole_set(tmp_path):
    directory = tmp_path / "set"
    write(directory, make_record(clip="old"))
    with pytest.raises(FileExistsError, match="is not empty; choose another, or pass --overwrite"):
        write(directory, make_record(clip="new"))
    broken = make_record(clip="broken")
    broken.clip.labels.joints[0] = np.inf
    with pytest.raises(SchemaError, match="joints is inf"):
        write(directory, make_record(clip="new"), broken, overwrite=True)
    assert [record.identity.clip for record in read(directory)] == ["old"]
    write(directory, make_record(clip="new"), overwrite=True)
    assert [record.identity.clip for record in read(directory)] == ["new"]
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_existing_data_comes_back_where_the_swap_fails(tmp_path, monkeypatch, error):
    directory = tmp_path / "set"
    write(directory, make_record(clip="old"))
    rename = os.rename

    def fail_once(source, target):
        rename(source, target)
        if os.path.basename(target) == "replaced":
            monkeypatch.setattr(os, "rename", rename)
            raise error

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(error):
        write(directory, make_record(clip="new"), overwrite=True)
    assert [record.identity.clip for record in read(directory)] == ["old"]
    assert list(tmp_path.iterdir()) == [directory]


def test_a_directory_of_other_things_is_never_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds no dataset, so it is not overwritten"):
        write(tmp_path, make_record(), overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_an_empty_directory_may_be_the_target(tmp_path):
    write(tmp_path, make_record())
    assert len(read(tmp_path)) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (make_record(joint_skeleton="humaneva15"), "first clip has h36m17; write two datasets"),
        (make_record(views=3), "3 views, but the dataset's first clip has 2"),
        (make_record(dataset="other"), "is written as 'tiny'"),
        (make_record(keypoint_skeleton="humaneva15"), "17 keypoints, but humaneva15 has 15"),
    ],
)
def test_records_that_do_not_fit_are_refused(tmp_path, record, message):
    with pytest.raises(SchemaError, match=message):
        write(tmp_path / "set", make_record(), record)
    assert not list(tmp_path.iterdir())


def test_splits_must_hold_something(tmp_path):
    with pytest.raises(SchemaError, match="split 'test' has no records"):
        writer.write(tmp_path / "x", "tiny", {"train": [make_record()], "test": []}, description="")
    with pytest.raises(SchemaError, match="no splits"):
        writer.write(tmp_path / "x", "tiny", {}, description="")
