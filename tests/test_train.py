"""The whole loop on tiny data: prepare, train, save, restore, evaluate, report, refuse."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.demo import get_config
from data_prep import synthetic
from pose3d_jax import checkpoint, evaluate, scoring, train
from pose3d_jax.checkpoint import CheckpointError
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses
from pose3d_jax.data.poses import DataError
from pose3d_jax.errors import NonFiniteError
from pose3d_jax.workdir import WorkdirError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic") / "data"
    synthetic.main(["--out", str(directory), "--scale", "0.02"])
    return directory


def config(directory, method="supervised", **changes):
    made = get_config(f"{method}-tiny")
    made.data.paths = (str(directory),)
    with made.unlocked():
        made.update(changes)
    return made


@pytest.fixture(scope="session", params=["supervised", "multiview"])
def run(request, data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param)
    return workdir, train.run(config(data, request.param), workdir)


def test_run_leaves_everything(run):
    workdir, metrics = run
    assert json.loads((workdir / "metrics.json").read_text()) == metrics
    lines = [json.loads(line) for line in (workdir / "scalars.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == metrics["steps"] == 6
    assert {line["phase"] for line in lines} == {0, 1}
    assert all(np.isfinite(line["train/lifter/loss"]) for line in lines)
    assert "<html" in (workdir / "report.html").read_text()
    rows = metrics["splits"]["test"]["rows"]
    assert set(rows) == {metrics["method"], "triangulation", "mean_pose"}
    assert rows["triangulation"]["p1"]["frames"] < 1e-3
    assert rows["mean_pose"]["absolute"]["frames"] is None
    assert metrics["splits"]["test"]["frames"] > 0


def test_evaluation_needs_the_directory_alone(run, tmp_path):
    workdir, metrics = run
    moved = tmp_path / "moved"
    shutil.copytree(workdir / "checkpoints", moved / "checkpoints")
    assert evaluate.run(moved) == metrics


def test_checkpoint_carries_what_it_takes(run, data):
    metadata = checkpoint.read_metadata(run[0])
    assert metadata["keypoint_skeleton"]["joints"][0] == "pelvis"
    assert metadata["joint_skeleton"]["name"] == "h36m17"
    assert metadata["keypoint_source"] == "projected"
    assert metadata["normalisation"] == "undistorted"
    assert metadata["version"]
    assert metadata["config"]["method"]["name"] == run[1]["method"]
    assert metadata["fingerprint"] == poses.load([data], "train").fingerprint


def test_means_over_frames_and_groups_are_what_they_say(data):
    """Against plain numpy on the same errors."""
    loaded = poses.load([data], "test")
    rng = np.random.default_rng(0)
    shape = (loaded.poses.size, 1, 3)
    errors = {"row": {"p1": rng.uniform(size=shape)}}
    mask = rng.uniform(size=shape) < 0.7
    summary = scoring.summarise(errors, mask, loaded)
    p1 = summary["rows"]["row"]["p1"]
    assert p1["frames"] == pytest.approx(errors["row"]["p1"][mask].mean())
    groups = np.array([identity.group for identity in loaded.identities])
    means = [errors["row"]["p1"][groups == g][mask[groups == g]].mean() for g in set(groups)]
    assert p1["groups"] == pytest.approx(np.mean(means))
    assert summary["rows"]["row"]["p2"] == {"frames": None, "groups": None}


def test_finished_run_goes_on_from_its_checkpoint_to_the_same_end(data, tmp_path):
    """Half a run, taken up again, equals the whole."""
    whole = config(data)
    train.run(whole, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", stopped)
    steps = sorted(int(p.name) for p in (stopped / "checkpoints").iterdir() if p.name.isdigit())
    assert steps[-1] == 6
    if len(steps) > 1:
        shutil.rmtree(stopped / "checkpoints" / "6")
    assert (
        train.run(whole, stopped)["splits"]
        == json.loads((tmp_path / "whole" / "metrics.json").read_text())["splits"]
    )


def test_work_directory_of_another_experiment_is_refused(run, data):
    other = config(data, run[1]["method"], seed=1)
    with pytest.raises(WorkdirError, match=r"holds another experiment.*config.seed 0 -> 1"):
        train.run(other, run[0])


def test_several_devices_train_too(data, tmp_path):
    metrics = train.run(config(data, devices=4), tmp_path / "four")
    assert np.isfinite(metrics["splits"]["test"]["rows"]["supervised"]["p1"]["frames"])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": {"paths": ("nowhere",)}}, DataError, "no directory nowhere"),
        ({"data": {"paths": ()}}, DataError, "data.paths is empty"),
        ({"devices": 64}, ConfigError, "there are 4"),
        ({"devices": 3}, ConfigError, "which 3 devices cannot share"),
        ({"streams": {"main": {"batch_size": 10**6}}}, ConfigError, "the number of windows"),
        ({"evaluation": {"test": ("exam",)}}, DataError, "no split 'exam'"),
        ({"evaluation": {"test": ()}}, ConfigError, "test names no split"),
        ({"evaluation": {"batch_size": 0}}, ConfigError, "batch_size is 0; it must be at least 1"),
        ({"sede": 1}, ConfigError, "'sede' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    data, tmp_path, changes, error, message
):
    workdir = tmp_path / "run"
    with pytest.raises(error, match=message):
        train.run(config(data, **changes), workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("frozen", ("liftr",), "no parameter is at or below 'liftr'"),
        ("frozen", "lifter", "must be a list of paths"),
        ("optimizer", {"name": "sgd"}, r"changes the optimiser but keeps its state"),
    ],
)
def test_phases_that_do_not_fit_are_refused(data, tmp_path, key, value, message):
    broken = config(data)
    broken.phases[1][key] = value
    with pytest.raises(ConfigError, match=message):
        train.run(broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_non_finite_loss_stops_the_run_and_names_the_batch(data, tmp_path):
    broken = config(data)
    broken.phases[0]["learning_rate"] = 1e38
    with pytest.raises(NonFiniteError, match=r"lifter/\w+ is not finite at step [1-3] .*S1"):
        train.run(broken, tmp_path / "run")


def test_nothing_to_evaluate_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="train first"):
        evaluate.run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def door(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pose3d_jax.main", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/demo.py", "--config.sed=1"], 'Did you mean "seed" instead of "sed"'),
        (["--config=configs/demo.py", "--config.data.paths=('nowhere',)"], "no directory nowhere"),
        (["--config=configs/demo.py:nonsense"], "demo.py takes multiview or supervised"),
        (["--config=configs/none.py"], "names no file"),
        (["--mode=evaluate"], "no checkpoint"),
        ([], "--mode=train needs --config"),
    ],
)
def test_the_door_says_what_is_wrong_and_writes_nothing(tmp_path, arguments, message):
    workdir = tmp_path / "run"
    result = door(f"--workdir={workdir}", *arguments)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not workdir.exists()


def test_scoring_holds_one_batched_svd():
    """Several at once could deadlock XLA's CPU runtime; the rows share one."""
    from pose3d_jax import methods
    from pose3d_jax.methods.base import Info
    from tests import scenes

    clip = scenes.batch()
    method = methods.create({"name": "supervised", "width": 8}, Info(scenes.H36M, scenes.H36M))
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
    mean = clip.labels.joints[0, 0]
    text = str(
        jax.make_jaxpr(
            lambda c: scoring.eval_step(method, variables, c, jax.random.key(0), None, mean, True)
        )(clip)
    )
    assert text.count(" svd[") == 1
