"""A run that is cut anywhere ends as one that is not: bit for bit."""

import json
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import CheckpointManager, args

from pose3d_jax import train

ROOT = Path(__file__).parents[1]
STEPS = 120

# Two phases, dropout, batch statistics, a weight average, a schedule; a save every 12 steps.
CONFIG = f"""
from configs import demo

def get_config():
    config = demo.get_config("multiview-tiny")
    config.data.path = "DATA"
    config.method.blocks = 1
    config.steps_per_call = 5
    for phase in config.phases:
        phase["length_steps"] = {STEPS // 2}
        phase["average_decay"] = 0.9
        phase["learning_rate"] = {{"kind": "cosine", "start": 1e-3, "stop": 1e-4}}
    return config
"""


@pytest.fixture(scope="module")
def config(synthetic_set, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.py"
    path.write_text(CONFIG.replace("DATA", str(synthetic_set)))
    return path


@pytest.fixture(scope="module")
def start(config):
    """Starts the run in a work directory, as a process of its own."""

    def started(workdir):
        command = [sys.executable, "-m", "pose3d_jax.main", f"--config={config}"]
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


def finish(config, workdir):
    """Runs to the end, in this process: the quicker way, of the same programs."""
    train.run(runpy.run_path(str(config))["get_config"](), workdir)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    finish(config, workdir)
    return workdir


def left(workdir):
    """All that a run leaves, without its times."""
    with CheckpointManager(workdir / "checkpoints") as manager:
        step = manager.latest_step()
        state = manager.restore(step, args=args.Composite(state=args.StandardRestore()))["state"]
    rows = [json.loads(line) for line in (workdir / "scalars.jsonl").read_text().splitlines()]
    metrics = json.loads((workdir / "metrics.json").read_text())
    clips = json.loads((workdir / "clips.json").read_text())
    metrics.pop("seal")  # it is of the time, too
    for timed in (*rows, metrics):
        timed.pop("wall_s")
    return step, state, rows, metrics, clips


def assert_same_end(workdir, whole):
    (step, state, *rest), (other_step, other_state, *other_rest) = left(workdir), left(whole)
    assert step == other_step == STEPS
    leaves, treedef = jax.tree.flatten(state)
    others, other_treedef = jax.tree.flatten(other_state)
    assert treedef == other_treedef
    for leaf, other in zip(leaves, others, strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
    assert rest == other_rest


def saving(workdir):
    """Whether a checkpoint is being written: Orbax writes under another name first."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any("tmp" in path.name for path in folder.iterdir())


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def kill(start, workdir, delay=None):
    """Runs until `delay` seconds after the first step, or until a save has begun; the moment."""
    process = start(workdir)
    scalars = workdir / "scalars.jsonl"
    before = scalars.stat().st_size if scalars.exists() else 0
    if delay is None:
        wait_for(lambda: saving(workdir), process)
    else:
        # Opening the log may drop rows, so that the file first shrinks.
        changed = lambda: scalars.exists() and scalars.stat().st_size != before  # noqa: E731
        wait_for(changed, process)
        time.sleep(delay)
    during_save = saving(workdir)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return during_save, process.returncode


@pytest.mark.slow
def test_killed_run_ends_as_the_whole_one(start, whole, tmp_path):
    """While a checkpoint is being written, the worst moment."""
    assert kill(start, tmp_path) == (True, -signal.SIGKILL)
    assert start(tmp_path).communicate() is not None
    assert_same_end(tmp_path, whole)


@pytest.mark.slow
def test_run_killed_ten_times_ends_as_the_whole_one(start, whole, tmp_path):
    """At random moments, half of them while a checkpoint is being written."""
    moments = random.Random(0)
    delays = [None if i % 2 else moments.uniform(0, 0.5) for i in range(10)]
    killed = [kill(start, tmp_path, delay) for delay in delays]
    assert [returncode for _, returncode in killed] == [-signal.SIGKILL] * 10
    assert sum(during_save for during_save, _ in killed) >= 3
    process = start(tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert_same_end(tmp_path, whole)


def test_run_asked_to_end_saves_and_goes_on(config, start, whole, tmp_path):
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "scalars.jsonl").exists(), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143
    assert "stopped: SIGTERM at step" in errors
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert 0 < max(steps) < STEPS
    finish(config, tmp_path)
    assert_same_end(tmp_path, whole)
