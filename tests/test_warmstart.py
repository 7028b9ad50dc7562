"""What goes on from a finished run: training from its weights, evaluation with its clips fitted."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import cmu_fused, cmu_mv_seq, cmu_supervised
from pose3d_jax import adapt, checkpoint, evaluate, fitting, train, warmstart
from pose3d_jax.checkpoint import CheckpointError
from pose3d_jax.config import ConfigError


@pytest.fixture(scope="module")
def data(synthetic_set):
    return synthetic_set


def experiment(module, data, argument="tiny"):
    config = module.get_config(argument)
    config.data.path = str(data)
    config.evaluation.test = ("test",)
    config.evaluation.references = ()
    config.phases = config.phases[:1]  # each is compiled by itself
    for phase in config.phases:
        phase.pop("augmentation", None)  # quicker to compile, and not what is tested
    return config


@pytest.fixture(scope="module")
def lifter(demo_run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("warmstart") / "run"
    shutil.copytree(demo_run("multiview"), workdir)
    return workdir, json.loads((workdir / "metrics.json").read_text())


def further(data, workdir, init=(), **method):
    """Another experiment, from that run's weights, which it does not move."""
    config = experiment(cmu_supervised, data)
    config.init = {"workdir": str(workdir), **dict(init)}
    with config.unlocked():
        config.method.update({"centred": False, "dropout": 0.0, **method})
        for phase in config.phases:
            phase.update({"learning_rate": 0.0, "statistics": "running"})
    return config


def test_training_goes_on_from_another_run_s_weights(data, lifter, tmp_path):
    train.run(further(data, lifter[0]), tmp_path / "run")
    source = flatten_dict(evaluate.restore(lifter[0]).variables)
    found = flatten_dict(evaluate.restore(tmp_path / "run").variables)
    assert found.keys() == source.keys()
    assert all(np.array_equal(found[path], source[path]) for path in source)


def test_an_empty_path_is_all_of_it(lifter, data):
    workdir, _ = lifter
    restored = evaluate.restore(workdir)
    settings = {"workdir": str(workdir), "part": "", "into": "", "fresh": "", "weights": ""}
    split = restored.splits["test"]
    found = warmstart.learnt(settings, restored.method, restored.info, split)
    source = flatten_dict(restored.variables)
    assert flatten_dict(found).keys() == source.keys()
    moved = warmstart.learnt({**settings, "into": "a/b"}, restored.method, restored.info, split)
    assert {path[:3] for path in flatten_dict(moved)} == {(p[0], "a", "b") for p in source}


def test_what_is_to_begin_anew_is_not_taken(lifter):
    workdir, _ = lifter
    restored = evaluate.restore(workdir)
    source = flatten_dict(restored.variables)
    _, *names, _ = min(path for path in source if path[0] == "params")
    fresh = "/".join(names)
    settings = {"workdir": str(workdir), "part": "", "into": "", "fresh": fresh, "weights": ""}
    split = restored.splits["test"]
    found = warmstart.learnt(settings, restored.method, restored.info, split)
    left = {path for path in source if "/".join(path[1:]).startswith(fresh + "/")}
    assert flatten_dict(found).keys() == source.keys() - left
    assert flatten_dict(found)


def test_another_body_is_refused_and_a_copy_of_it_is_not(tmp_path):
    for name, content in (("a", b"body"), ("b", b"body"), ("c", b"another")):
        (tmp_path / name).write_bytes(content)
    a, b, c, none = (str(tmp_path / name) for name in ("a", "b", "c", "none"))
    warmstart._check_bodies(tmp_path, a, b)
    warmstart._check_bodies(tmp_path, none, none)
    with pytest.raises(ConfigError, match="another body: its weights would mean another pose"):
        warmstart._check_bodies(tmp_path, a, c)
    with pytest.raises(ConfigError, match="both are needed"):
        warmstart._check_bodies(tmp_path, none, a)


@pytest.mark.parametrize(
    ("init", "method", "message"),
    [
        ({"part": "critic"}, {}, r"no variables at or below 'critic'; the top ones are lifter"),
        ({"into": "lifter/trunk"}, {}, "absent in this network, .* in the checkpoint; give both"),
        ({"workdir": "nowhere"}, {}, "no checkpoint in nowhere"),
        ({}, {"width": 16}, r"\(\d*, ?16\) in this network|\(16,\) in this network"),
        ({}, {"root_depth": 5.0}, "was trained with 4.0: its weights would mean another pose"),
    ],
)
def test_weights_that_do_not_fit_are_refused(data, lifter, tmp_path, init, method, message):
    with pytest.raises((ConfigError, CheckpointError), match=message):
        train.run(further(data, lifter[0], init, **method), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_older_version_s_checkpoint_has_the_defaults_of_newer_settings(lifter, monkeypatch):
    workdir, _ = lifter
    read = checkpoint.read_metadata

    def older(directory):
        metadata = read(directory)
        for phase in metadata["config"]["phases"]:
            del phase["disturbance"]
        del metadata["config"]["init"], metadata["config"]["evaluation"]["fit"]
        return metadata

    now = evaluate.restore(workdir).metadata
    monkeypatch.setattr(checkpoint, "read_metadata", older)
    assert evaluate.restore(workdir).metadata == now


def test_a_lifter_s_clips_are_fitted_at_evaluation(data, lifter, monkeypatch):
    """With the config for clips, and without any training: beside what it says frame by frame."""
    monkeypatch.setattr(fitting, "_STEP", 32)  # clips are of 8 frames
    workdir, metrics = lifter
    given = experiment(cmu_mv_seq, data)
    given.evaluation.flip = False
    fitted = evaluate.run(workdir, given)
    rows = fitted["splits"]["test"]["rows"]
    assert set(rows) == {"multiview", "multiview_fitted", "triangulation", "mean_pose"}
    assert fitted["method"] == "multiview_fitted"
    assert fitted["evaluation"]["fit"]["on"]
    before = metrics["splits"]["test"]["rows"]["multiview"]["p1"]["frames"]
    assert rows["multiview"]["p1"]["frames"] == pytest.approx(before, rel=1e-5)
    assert rows["multiview_fitted"]["p1"]["frames"] < before
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(rows["multiview_fitted"]["p1"]))
    with pytest.raises(ConfigError, match=r"fit: what was adapted is not fitted"):
        adapt.run(workdir, given)


@pytest.mark.slow
def test_a_network_of_all_views_is_evaluated_with_those_that_there_are(data, tmp_path):
    config = experiment(cmu_fused, data)
    metrics = train.run(config, tmp_path / "run")
    assert set(metrics["splits"]["test"]["rows"]) == {"fused", "triangulation", "mean_pose"}
    config.data.views = (0, 2)
    fewer = evaluate.run(tmp_path / "run", config)
    assert list(fewer["data"]["views"]) == [0, 2]
    assert fewer["splits"]["test"]["rows"].keys() == metrics["splits"]["test"]["rows"].keys()
