"""The whole loop on tiny data: prepare, train, save, restore, evaluate, report, refuse."""

import dataclasses
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.demo import get_config
from data_prep import writer
from pose3d_jax import checkpoint, evaluate, scoring, train
from pose3d_jax.checkpoint import CheckpointError
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses
from pose3d_jax.data.poses import DataError
from pose3d_jax.errors import NonFiniteError
from pose3d_jax.hosts import HostsError
from pose3d_jax.methods.base import Group, Info, MethodError
from pose3d_jax.methods.supervised import Supervised
from pose3d_jax.schema import Prediction, Record
from pose3d_jax.skeleton import SkeletonError
from pose3d_jax.workdir import WorkdirError
from tests import scenes
from tests.toys import fresh, phase

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data(synthetic_set):
    return synthetic_set


def config(directory, method="supervised", **changes):
    made = get_config(f"{method}-tiny")
    made.data.path = str(directory)
    with made.unlocked():
        made.update(changes)
    return made


# Several frames of the other method are trained below.
@pytest.fixture(
    scope="session", params=["supervised", pytest.param("multiview", marks=pytest.mark.slow)]
)
def run(request, demo_run):
    workdir = demo_run(request.param)
    return workdir, json.loads((workdir / "metrics.json").read_text())


def test_run_leaves_everything(run):
    workdir, metrics = run
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
    collapse = metrics["splits"]["test"]["collapse"]
    assert collapse["relief"] > 0
    assert collapse["verdict"] in ("none", "flat", "torn")


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
    actions = np.array([identity.action for identity in loaded.identities])
    means = [errors["row"]["p1"][actions == a][mask[actions == a]].mean() for a in set(actions)]
    assert p1["actions"] == pytest.approx(np.mean(means))
    assert summary["rows"]["row"]["p2"] == {"frames": None, "groups": None, "actions": None}


@pytest.mark.parametrize("run", ["supervised"], indirect=True)
def test_finished_run_goes_on_from_its_checkpoint_to_the_same_end(run, data, tmp_path):
    """Half a run, taken up again, equals the whole."""
    workdir, metrics = run
    stopped = tmp_path / "stopped"
    shutil.copytree(workdir, stopped)
    steps = sorted(int(p.name) for p in (stopped / "checkpoints").iterdir() if p.name.isdigit())
    assert steps[-1] == 6
    if len(steps) > 1:
        shutil.rmtree(stopped / "checkpoints" / "6")
    assert train.run(config(data), stopped)["splits"] == metrics["splits"]


def test_work_directory_of_another_experiment_is_refused(run, data):
    other = config(data, run[1]["method"], seed=1)
    with pytest.raises(WorkdirError, match=r"holds another experiment.*config.seed 0 -> 1"):
        train.run(other, run[0])


def test_checkpoint_refuses_other_2d_points_unless_they_are_named(run, data, tmp_path):
    """The same people, as a detector would have seen them."""
    detected = tmp_path / "detected"
    found = {
        split: [
            Record(r.clip, dataclasses.replace(r.identity, keypoint_source="vitpose"))
            for r in poses.read_split(data, split)
        ]
        for split in ("train", "validation", "test")
    }
    writer.write(detected, found["train"][0].identity.dataset, found, description="detected")
    other = config(detected, run[1]["method"])
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    with pytest.raises(CheckpointError, match="keypoint_source 'projected', not 'vitpose'; to use"):
        evaluate.run(workdir, other)
    other.data.keypoint_source = "openpose"
    with pytest.raises(DataError, match="the 2D points are from 'vitpose', not 'openpose'"):
        evaluate.run(workdir, other)
    other.data.keypoint_source = "vitpose"
    assert evaluate.run(workdir, other)["splits"] == run[1]["splits"]


def test_other_data_may_be_for_tests_alone(run, data, tmp_path):
    """What is evaluated on them is what it was; the mean pose is of a training split."""
    alone = tmp_path / "alone"
    found = {"test": poses.read_split(data, "test")}
    writer.write(alone, found["test"][0].identity.dataset, found, description="test alone")
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    other = config(alone, run[1]["method"])
    again = evaluate.run(workdir, other)
    # Tables are of one data set where the fingerprints are the same.
    assert again["fingerprint"] != run[1]["fingerprint"]
    with_mean, rows = (m["splits"]["test"]["rows"] for m in (run[1], again))
    assert with_mean.keys() - rows.keys() == {"mean_pose"}
    for row, found in rows.items():  # another program rounds otherwise
        was, now = (np.array(jax.tree.leaves(x)) for x in (with_mean[row], found))
        np.testing.assert_allclose(now, was, rtol=1e-5, atol=1e-6)
    other.evaluation.fit = {"on": True}
    with pytest.raises(DataError, match=r"alone has no split 'train'; it has test"):
        evaluate.run(workdir, other)


def test_checkpoint_refuses_other_joints_by_name(run, data, tmp_path):
    smaller = config(data, run[1]["method"])
    smaller.data.joint_skeleton = smaller.data.keypoint_skeleton = "humaneva15"
    with pytest.raises((CheckpointError, SkeletonError), match="humaneva15"):
        evaluate.run(run[0], smaller)


@pytest.mark.slow
def test_joints_that_are_not_the_keypoints_are_scored_where_both_have_them(data, tmp_path):
    """Triangulation gives what was seen; the row of the method is scored on the same joints."""
    settings = config(data)
    settings.data.joint_skeleton = "humaneva15"
    rows = train.run(settings, tmp_path)["splits"]["test"]["rows"]
    assert rows["triangulation"]["absolute"]["frames"] < 1e-3
    assert rows["supervised"]["absolute"]["frames"] > 0.01


@pytest.mark.parametrize(
    ("method", "window", "settings"),
    [
        ("multiview", 3, {"network": "convolution", "blocks": 1}),
        pytest.param(
            "supervised", 1, {"network": "convolution", "causal": True}, marks=pytest.mark.slow
        ),
        pytest.param("supervised", 8, {"network": "transformer"}, marks=pytest.mark.slow),
        pytest.param("multiview", 8, {"network": "attention"}, marks=pytest.mark.slow),
    ],
)
def test_several_frames_at_once(data, tmp_path, method, window, settings):
    """Windows, terms over time and what networks are shown, from shards to the evaluation."""
    made = config(data, method)
    made.streams.main.update(window=window, stride=window, batch_size=4)
    with made.unlocked():
        made.method.update({"width": 16, **settings})
    for each in made.phases:
        each["disturbance"] = {"sigma_px": 2.0, "missing": 0.2, "frames": 0.1}
        if window > 1:
            each["weights"] = {**each["weights"], "motion": 1.0}
    made.phases = made.phases[:1]  # each is compiled by itself
    made.evaluation.flip = True
    metrics = train.run(made, tmp_path / "run")
    row = metrics["splits"]["test"]["rows"][method]
    assert np.isfinite(row["p1"]["frames"])
    assert row["acceleration"]["frames"] > 0
    frames = poses.load([data], "test").poses.size
    assert metrics["splits"]["test"]["frames"] == frames
    assert evaluate.run(tmp_path / "run")["splits"] == metrics["splits"]


def test_windows_need_one_frame_rate(data, tmp_path):
    mixed = tmp_path / "mixed"
    found = {
        split: [
            Record(r.clip, dataclasses.replace(r.identity, fps=30.0 + 20 * (i % 2)))
            for i, r in enumerate(poses.read_split(data, split))
        ]
        for split in ("train", "validation", "test")
    }
    writer.write(mixed, found["train"][0].identity.dataset, found, description="two rates")
    made = config(mixed)
    made.streams.main.window = 4
    with pytest.raises(ConfigError, match=r"clips of 30, 50 frames per second.*config.data.fps"):
        train.run(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_work_directory(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="is a file"):
        train.run(config(data), tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize("run", ["supervised"], indirect=True)
def test_profile_is_a_trace_and_changes_nothing(run, data, tmp_path):
    profiled = train.run(config(data), tmp_path, profile=True)
    assert profiled["splits"] == run[1]["splits"]
    (trace,) = (tmp_path / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("fusion" in event.get("name", "") for event in events)


@pytest.mark.slow  # a step over several devices: test_devices.py
def test_several_devices_train_too(data, tmp_path):
    metrics = train.run(config(data, devices=4), tmp_path / "four")
    assert np.isfinite(metrics["splits"]["test"]["rows"]["supervised"]["p1"]["frames"])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": {"path": "nowhere"}}, DataError, "no directory nowhere"),
        ({"devices": 64}, HostsError, "there are 4"),
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


def test_a_group_of_no_parameters_is_refused():
    """A mistyped path would train nothing, without a word."""
    wrong = (Group("lifter", ("liftr",), ("pose", "root")),)
    method = Supervised(info=Info(scenes.H36M, scenes.H36M), width=8, groups=wrong)
    phase_ = phase({"pose": 1.0})
    batch = {"main": scenes.batch()}
    state = fresh(method, phase_, batch, jax.random.key(0))
    with pytest.raises(MethodError, match="no parameter is at or below 'liftr'"):
        train._check_phases(method, [], state)


def test_non_finite_loss_stops_the_run_and_names_the_batch(data, tmp_path):
    broken = config(data)
    broken.phases[0]["learning_rate"] = 1e38
    with pytest.raises(NonFiniteError, match=r"lifter/\w+ is not finite at step [1-3] .*S1"):
        train.run(broken, tmp_path / "run")


def test_nothing_to_evaluate_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="train first"):
        evaluate.run(tmp_path)
    assert list(tmp_path.iterdir()) == []


# Forked for each line of its input, which is a home and arguments: all share what they import.
# Compiled programs are the suite's, or kept at home.
DOORS = """
import json, os, runpy, sys
from pose3d_jax import adapt, compare, evaluate, train
for line in sys.stdin:
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    home, shared, *sys.argv[1:] = json.loads(line)
    os.chdir(home)
    os.environ["HOME"] = home
    if not shared:
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
    for stream, name in (1, "output"), (2, "errors"):
        os.dup2(os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
    runpy.run_module("pose3d_jax.main", run_name="__main__", alter_sys=True)
    sys.exit()
"""


@pytest.fixture(scope="module")
def doors():
    """The command line in a process of its own: its exit status, and what it says and complains."""
    with subprocess.Popen(
        [sys.executable, "-c", DOORS],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip

        def run(home, *arguments, shared=True):
            print(json.dumps([str(home), shared, *arguments]), file=process.stdin, flush=True)
            status = int(process.stdout.readline())
            return status, *((home / name).read_text() for name in ("output", "errors"))

        yield run


def test_the_door_trains_evaluates_adapts_and_compares(doors, data, tmp_path):
    """What the README says, in its order; compiled programs are kept for the next time."""
    config = (f"--config={ROOT}/configs/demo.py:supervised-tiny", f"--config.data.path={data}")
    workdir = tmp_path / "runs" / "demo_supervised"  # by the config's name
    for mode in ("train", "evaluate", "adapt"):
        named = () if mode == "train" else (f"--workdir={workdir}",)
        arguments = (f"--mode={mode}", *named, *config)
        status, said, errors = doors(tmp_path, *arguments, shared=mode != "evaluate")
        assert status == 0, errors
        assert "triangulation" in said
        assert "runs/demo_supervised/report.html" in said
    assert "demo_supervised: " not in said
    assert "adapted_shared" in said
    adapted = str(workdir / "adapted_shared")
    status, said, errors = doors(tmp_path, "--mode=compare", str(workdir), adapted)
    assert status == 0, errors
    assert "absolute" in said
    (machine,) = (tmp_path / ".cache" / "pose3d_jax").iterdir()
    assert any(machine.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [f"--config={ROOT}/configs/demo.py", "--config.sed=1"],
            'Did you mean "seed" instead of "sed"',
        ),
        (
            [f"--config={ROOT}/configs/demo.py", "--config.data.path=nowhere"],
            "no directory nowhere",
        ),
        ([f"--config={ROOT}/configs/demo.py:nonsense"], "demo.py takes multiview or supervised"),
        ([f"--config={ROOT}/configs/none.py"], "names no file"),
        (["--mode=evaluate"], "no checkpoint"),
        ([], "--mode=train needs --config"),
        (["--mode=compare", "nowhere"], "--mode=compare takes two work directories, not nowhere"),
        (["--mode=compare", "nowhere", "none"], "nowhere has no metrics.json"),
        (["--hosts=here"], "COORDINATOR:PORT,PROCESSES,INDEX"),
    ],
)
def test_the_door_says_what_is_wrong_and_writes_nothing(doors, tmp_path, arguments, message):
    workdir = tmp_path / "run"
    status, said, errors = doors(tmp_path, f"--workdir={workdir}", *arguments)
    assert status != 0
    assert message in said + errors
    assert "Traceback" not in said + errors
    assert not workdir.exists()


@pytest.mark.slow
def test_scoring_holds_one_batched_svd():
    """Several at once could deadlock XLA's CPU runtime; the rows share one."""
    clip = scenes.batch()
    mean, fps = clip.labels.joints[0, 0], jnp.zeros(len(clip.recording) - 2)
    info = Info(scenes.H36M, scenes.H36M)
    predicted = Prediction(jnp.zeros((*clip.observations.keypoints.shape[:-1], 3)))
    text = str(jax.make_jaxpr(lambda c: scoring.eval_step(info, c, predicted, mean, {}, fps))(clip))
    assert text.count(" svd[") == 1
