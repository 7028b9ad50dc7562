"""Two processes with two devices each train as one with four does."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import CheckpointManager, args

from pose3d_jax import hosts
from pose3d_jax.hosts import HostsError

ROOT = Path(__file__).parents[1]

CONFIG = """
from configs import demo

def get_config():
    config = demo.get_config("supervised-tiny")
    config.data.path = "DATA"
    config.devices = 0
    config.steps_per_call = 3
    for phase in config.phases:
        phase["dropout"] = False
        phase["length_steps"] = LENGTH
        phase["optimizer"] = {"name": "sgd"}
    return config
"""


@pytest.fixture(scope="module")
def start(synthetic_set, tmp_path_factory):
    """Starts processes that train together in a work directory."""
    config = tmp_path_factory.mktemp("config") / "config.py"

    def started(workdir, processes, devices, length=6):
        config.write_text(CONFIG.replace("DATA", str(synthetic_set)).replace("LENGTH", str(length)))
        flags = f"--xla_force_host_platform_device_count={devices}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "pose3d_jax.main", f"--config={config}"]
        return [
            subprocess.Popen(
                [
                    *command,
                    f"--workdir={workdir}",
                    *([f"--hosts=127.0.0.1:{port},{processes},{i}"] if processes > 1 else []),
                ],
                cwd=ROOT,
                env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(processes)
        ]

    return started


def ended(processes):
    outputs = [process.communicate(timeout=300) for process in processes]
    return [process.returncode for process in processes], outputs


def parameters(workdir):
    with CheckpointManager(workdir / "checkpoints") as manager:
        step = manager.latest_step()
        state = manager.restore(step, args=args.Composite(state=args.StandardRestore()))["state"]
    return step, state["variables"]


@pytest.mark.slow
def test_two_processes_train_as_one_does(start, tmp_path):
    codes, outputs = ended(start(tmp_path / "two", 2, 2))
    assert codes == [0, 0], outputs
    codes, outputs_one = ended(start(tmp_path / "one", 1, 4))
    assert codes == [0], outputs_one
    (step, two), (other_step, one) = parameters(tmp_path / "two"), parameters(tmp_path / "one")
    assert step == other_step == 12
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, two, one)
    # The first process alone speaks and writes; each line stands there once.
    assert "triangulation" in outputs[0][0]
    assert "triangulation" not in outputs[1][0]
    lines = [json.loads(line) for line in (tmp_path / "two/scalars.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert (tmp_path / "two" / "report.html").exists()


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_of_them(start, tmp_path):
    processes = start(tmp_path, 2, 2, length=3000)
    while not (tmp_path / "scalars.jsonl").exists():
        assert all(process.poll() is None for process in processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs = ended(processes)
    assert codes == [143, 143], outputs
    assert "stopped: another host at step" in outputs[0][1]
    assert "stopped: SIGTERM at step" in outputs[1][1]
    assert parameters(tmp_path)[0] > 0


@pytest.mark.parametrize("where", ["127.0.0.1:1", "127.0.0.1:1,two,0", "127.0.0.1:1,2,2"])
def test_hosts_that_cannot_be_told_apart_are_refused(where):
    with pytest.raises(HostsError, match="COORDINATOR:PORT,PROCESSES,INDEX"):
        hosts.start(where)
