"""Streams of examples: what meets a method that cannot learn from it is refused by name."""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks import cameras as study
from configs import cmu_mv
from data_prep import synthetic, writer
from pose3d_jax import geometry, methods, rigs, streams
from pose3d_jax.config import ConfigError, complete
from pose3d_jax.data import poses
from pose3d_jax.methods.base import Info
from tests import scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A split with labels, one without."""
    folder = tmp_path_factory.mktemp("streams") / "set"
    splits = {
        split: [scenes.record(split, split=split, frames=4, labelled=split == "labelled")]
        for split in ("labelled", "unlabelled")
    }
    writer.write(folder, "scene", splits, description="")
    return {split: poses.load([folder], split) for split in splits}


def test_repnet_is_not_given_a_prior_without_poses(data):
    method = methods.create({"name": "repnet"}, Info(scenes.H36M, scenes.H36M))
    stream = {"window": 1, "stride": None, "batch_size": 2}
    config = {
        "method": {"name": "repnet"},
        "data": {"fps": 0.0},
        "streams": {"main": stream, "prior": stream},
    }
    main, labelled = data["unlabelled"], data["labelled"]
    found, _ = streams.examples(config, method, {"main": main, "prior": labelled}, 1)
    assert found["prior"].poses.size == 4
    with pytest.raises(ConfigError, match=r"streams.prior has no pose .* a split with labels"):
        streams.examples(config, method, {"main": main, "prior": main}, 1)
    with pytest.raises(ConfigError, match=r"method repnet learns from .* a stream 'prior'"):
        streams.examples(config, method, {"main": main}, 1)


def test_a_stream_may_have_data_of_its_own(tmp_path):
    for name in ("here", "there"):
        record = scenes.record(name, dataset=name, split="train", frames=4)
        writer.write(tmp_path / name, name, {"train": [record]}, description="")
    config = cmu_mv.get_config("tiny")
    config.data.path = str(tmp_path / "here")
    config.streams.annotated = {"path": str(tmp_path / "there"), "batch_size": 2}
    found = streams.read_all(complete(config))
    coco = scenes.record("coco", dataset="coco", split="train", frames=4)
    identity = dataclasses.replace(
        coco.identity, joint_skeleton="coco17", keypoint_skeleton="coco17"
    )
    coco = coco._replace(identity=identity)
    writer.write(tmp_path / "coco", "coco", {"train": [coco]}, description="")
    sets = {name: data.identities[0].dataset for name, data in found.items()}
    assert sets == {"main": "here", "annotated": "there"}
    config.streams.annotated.path = str(tmp_path / "coco")
    with pytest.raises(ConfigError, match=r"streams\.annotated has the keypoint_skeleton coco17"):
        streams.read_all(complete(config))


def test_features_of_images_are_for_methods_that_look_at_them(tmp_path):
    record = scenes.pictured(scenes.record("a", frames=4, views=2))
    writer.write(tmp_path / "set", "scene", {"train": [record]}, description="")
    data = poses.load([tmp_path / "set"], "train")
    config = {
        "method": {"name": "supervised"},
        "data": {"fps": 0.0},
        "streams": {"main": {"window": 1, "stride": None, "batch_size": 2}},
    }
    method = methods.create({"name": "supervised"}, Info(scenes.H36M, scenes.H36M))
    found, _ = streams.examples(config, method, {"main": data}, 1)
    assert found["main"].poses.observations.images is None


def test_cameras_that_are_off_are_solved_for_before_joints_are_triangulated(tmp_path, monkeypatch):
    made = synthetic.records(scale=0.4)["test"][0]
    wrong = study.moved_by(made.clip.observations, study.disturbance("walk", 0, 3))
    clip = dataclasses.replace(made.clip, observations=wrong)
    writer.write(
        tmp_path / "set", "synthetic", {"test": [made._replace(clip=clip)]}, description=""
    )
    loaded = poses.load([tmp_path / "set"], "test")
    stream = {"clips": [0.0, 1.0], "joints": "dlt", "doubt": {}}
    align = jax.jit(geometry.similarity_align)

    def error(cameras):
        labels = streams.posed({**stream, "cameras": cameras}, loaded).poses.labels
        inner = slice(4, -4)  # where a view's clock is off, it has not seen the clip's ends
        valid = np.asarray(labels.joints_valid)[inner].ravel()
        own = np.asarray(labels.joints)[inner].reshape(-1, 3)
        truth = np.asarray(made.clip.labels.joints)[inner].reshape(-1, 3)
        away = np.asarray(align(own, truth, valid)) - truth
        return np.average(np.linalg.norm(away, axis=-1), weights=valid)

    assert error("solved") < min(0.01, error("given") / 2)
    doubts = []
    monkeypatch.setattr(
        streams.bundle, "correct_split", lambda data, doubt: (data, doubts.append(doubt))
    )
    streams.posed({**stream, "cameras": "solved", "doubt": {"radial": 0.1}}, loaded)
    assert doubts == [rigs.Doubt(radial=0.1)]
    with pytest.raises(ConfigError, match=r"joints is 'labels', which know the cameras as given"):
        streams.posed({**stream, "cameras": "solved", "joints": "labels"}, loaded)
