"""From the original files to the protocol's number: one command, one config."""

import json
import math

import pytest

from configs import h36m_mv, h36m_supervised, humaneva_mv
from data_prep import h36m, humaneva
from pose3d_jax import train
from tests.layouts import h36m as h36m_files
from tests.layouts import humaneva as humaneva_files

CASES = {
    "humaneva": (humaneva, humaneva_files.write, humaneva_mv, "tiny"),
    "h36m": (
        h36m,
        lambda folder: h36m_files.write(folder, "npz"),
        h36m_mv,
        "tiny,subset=report",
    ),
    "h36m, from CDF files": (
        h36m,
        lambda folder: h36m_files.write(folder, "cdf"),
        h36m_supervised,
        "tiny,variant=report",
    ),
}


@pytest.mark.parametrize(
    "case",
    [name if name == "humaneva" else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_from_original_files_to_the_protocol_s_number(case, tmp_path):
    loader, write, experiment, argument = CASES[case]
    write(tmp_path / "source")
    loader.main(["--source", str(tmp_path / "source"), "--output", str(tmp_path / "data")])
    config = experiment.get_config(argument)
    config.data.path = str(tmp_path / "data")
    config.phases = config.phases[:1]  # each is compiled by itself
    train.run(config, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    rows = metrics["splits"]["test"]["rows"]
    report = rows[config.method.name]["mpjpe_report"]
    assert report.keys() == {"frames", "groups", "actions"}
    assert all(math.isfinite(value) and value > 0 for value in report.values())
    assert report["groups"] == report["actions"]  # a group is an action
    assert rows["triangulation"]["absolute"]["frames"] < 1e-3
    table = metrics["splits"]["test"]["breakdown"]["action"]
    p1 = [part["rows"][config.method.name]["p1"] for part in table.values()]
    assert rows[config.method.name]["p1"]["actions"] == pytest.approx(sum(p1) / len(p1))
