"""The smoothing benchmark: its figures by hand, and the command itself."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from benchmarks import smoothing as bench
from data_prep import cmu, synthetic
from pose3d_jax.references import Estimate
from tests.test_ground import walker


@pytest.fixture(scope="module")
def clip():
    """Someone who walks, seen everywhere by all rows but in two frames."""
    joints, planted = walker()
    record = synthetic.records(scale=0.05)["test"][0]
    labels = dataclasses.replace(
        record.clip.labels,
        joints=joints.astype(np.float32),
        joints_valid=np.ones(joints.shape[:2], np.float32),
    )
    record = record._replace(clip=dataclasses.replace(record.clip, labels=labels))
    found = np.ones(joints.shape[:2], np.float32)
    found[50:52] = 0
    covariance = np.broadcast_to(1e-4 * np.eye(3, dtype=np.float32), (*joints.shape, 3))
    estimate = Estimate(joints.astype(np.float32), found, covariance)
    return record, dict.fromkeys(bench.ROWS, estimate), planted


def test_errors_are_of_what_was_found_in_mm_and_metres_per_squared_second(clip):
    record, rows, _ = clip
    truth = record.clip.labels.joints
    time = np.arange(len(truth))[:, None, None] / 30

    def off(by):
        return bench.errors([(record, rows)], lambda *_: truth + by)

    assert off(np.array([0.003, 0.0, 0.004])) == pytest.approx(
        {"error": 5.0, "acceleration": 0.0}, abs=1e-3
    )
    falling = off(time**2 * np.array([0.0, 0.0, -9.81 / 2]))
    assert falling["acceleration"] == pytest.approx(9.81, rel=1e-3)
    unseen = np.zeros(truth.shape)
    unseen[50:52] = 9.0
    assert off(unseen)["error"] == 0.0


def test_the_floor_s_error_is_none_where_joints_are_the_truth(clip):
    record, rows, _ = clip
    table = bench.floors([(record, rows)])
    assert table["captured"] == table["captured"] | {"clips": 1, "told": 1}
    assert table["captured"]["tilt"] < 1e-2
    assert "height" not in table["captured"]  # CMU's z alone is a floor's
    named = record._replace(identity=dataclasses.replace(record.identity, clip="amc_02_1"))
    # The walker's ankles are 3 cm lower than ankles are taken to be: so much higher is z = 0.
    assert bench.floors([(named, rows)])["captured"]["height"] == pytest.approx(30, abs=0.1)
    climbing = record._replace(identity=dataclasses.replace(record.identity, clip="amc_01_1"))
    assert bench.floors([(climbing, rows)]) == {}


def test_contacts_are_held_against_the_tips_of_the_toes(clip, tmp_path):
    record, rows, planted = clip
    segment = next(s for s in cmu.benchmark()["segments"] if s["name"] == "bvh131_131_01_00")
    names = cmu.rig_joints("bvh131")
    frames = len(planted)
    positions = np.zeros((segment["stop"] + frames, len(names), 3), np.float32)
    for foot, name in enumerate(("RightToe", "LeftToe")):
        own = positions[segment["start"] : segment["start"] + frames, names.index(name)]
        own[:, 1] = np.where(planted[:, foot], 0.02, 0.3)
    cut = {**segment, "stop": segment["start"] + frames}
    said = bench.toes(positions, cut)
    # The speed is of three frames: beside those in which a toe is lifted it is not slow.
    inner = planted & np.roll(planted, 1, 0) & np.roll(planted, -1, 0)
    assert_array_equal(said[1:-1], inner[1:-1])
    np.savez(tmp_path / "positions.npz", **{segment["clip"]: positions[: segment["stop"]]})
    named = dataclasses.replace(record.identity, clip=segment["name"])
    short = segment["stop"] - segment["start"]
    labels = record.clip.labels
    labels = dataclasses.replace(labels, joints=labels.joints[:short] + np.float32([0, 0, 0.03]))
    record = record._replace(identity=named, clip=dataclasses.replace(record.clip, labels=labels))
    rows = {
        name: Estimate(row.joints[:short], row.found[:short], row.covariance[:short])
        for name, row in rows.items()
    }
    found = bench.touches([(record, rows)], tmp_path / "positions.npz")
    assert found["captured"]["agreement"] > 0.85
    assert found["robust"]["precision"] > 0.9


@pytest.mark.slow
def test_the_command_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["smoothing", "--quick"])
    bench.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = figures["3 views"]["filters"]
    assert rows["smooth_bones"]["error"] < rows["robust"]["error"]
    assert rows["butterworth, 6 Hz"]["acceleration"] < rows["robust"]["acceleration"]
