"""The benchmarks of adaptation: figures against closed forms, and their short forms whole."""

import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks import adapt, cameras, noise_study, one_view, wrong_cameras
from configs.demo import get_config
from data_prep import synthetic
from pose3d_jax import noise, rigs, train
from pose3d_jax.adapt import body_under
from tests import scenes


def test_a_disturbance_is_as_large_as_is_said_and_the_same_again():
    moved = cameras.disturbance("walk", 0, 4)
    assert_allclose(np.linalg.norm(moved[:, rigs.POSITION], axis=1), 0.1, rtol=1e-5)
    assert_allclose(np.linalg.norm(moved[:, rigs.ROTATION], axis=1), np.radians(5), rtol=1e-5)
    assert_allclose(np.abs(moved[:, rigs.FOCAL]), 0.02, rtol=1e-5)
    assert moved[0, rigs.TIME] == 0 < np.abs(moved[1:, rigs.TIME]).max() <= 3
    assert_allclose(cameras.disturbance("walk", 0, 4), moved)
    assert np.abs(cameras.disturbance("walk", 1, 4) - moved).max() > 0.01


def test_angles_and_baselines_are_between_views():
    own = jax.tree.map(lambda x: np.asarray(x)[None], scenes.ring(3))
    assert cameras.apart(own, own) == pytest.approx((0.0, 0.0), abs=0.05)
    turned = np.zeros((3, rigs.SIZE), np.float32)
    turned[0, 5] = np.radians(6)  # of three pairs two see it
    seen = scenes.batch(1, views=3).observations
    clip = jax.tree.map(lambda x: np.asarray(x)[0], seen)
    moved = cameras.moved_by(clip, turned).cameras
    assert cameras.apart(moved, clip.cameras)[0] == pytest.approx(4.0, abs=0.05)


def test_a_ratio_is_of_sums_over_clips():
    def clip(length, frames):
        error = np.zeros((frames, 2, 3))
        error[..., 0] = length
        return {"error": error, "valid": np.ones((frames, 2), bool)}

    lifters = [[clip(1.0, 2), clip(2.0, 6)], [clip(3.0, 2), clip(4.0, 6)]]
    found = noise_study.ratio(lifters, [clip(4.0, 2), clip(4.0, 6)])
    assert found["ratio"] == pytest.approx((2 * 2 + 3 * 6) / (4 * 8))
    low, high = found["interval"]
    assert 2 / 4 <= low <= found["ratio"] <= high <= 3 / 4


@pytest.mark.slow
def test_clips_a_second_are_measured(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["adapt", "--quick", "--clips", "1"])
    adapt.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last["by"]) == {"1", "4"}
    assert all(row["clips_per_s"] > 0 and row["mib"] > 0 for row in last["by"].values())


@pytest.mark.slow
def test_the_noise_study_has_rows_of_lifters(tmp_path):
    synthetic.main(["--out", str(tmp_path / "data"), "--scale", "0.05"])
    config = get_config("multiview-tiny")
    config.data.path = str(tmp_path / "data")
    train.run(config, tmp_path / "run")
    run = noise_study.lifter(tmp_path / "run", tmp_path / "data")
    own = (run, body_under(run, noise.preset("typical")))
    records = noise_study.poses.read_split(tmp_path / "data", "test")
    found = noise_study.study(records, noise.preset("typical"), 0, [own, own], ["test"])
    row = found[noise_study.ADAPTED]
    assert row["b_by_lifter"][0] == pytest.approx(row["b_by_lifter"][1])
    assert row["over_smooth"]["ratio"] == pytest.approx(row["b"] / found["smooth"]["b"], rel=1e-3)
    assert row["b"] < found["robust"]["b"]
    assert 0 < row["coverage_80%"] < 1


def test_corrections_that_undo_what_is_wrong_leave_nothing():
    """Whatever the corrections are of: angles, baselines and clocks of each recording."""
    records = [wrong_cameras.recorded(scenes.record(f"c{n}", views=4, seed=n)) for n in range(2)]
    moved = {f"scene/ring_s{n}": cameras.disturbance(f"ring_s{n}", 3, 4) for n in range(2)}
    found = wrong_cameras.off_by({name: -own for name, own in moved.items()}, records, 3)
    assert found["angle_wrong"] > 3
    assert found["clock_wrong"] > 0.3
    for name in ("angle", "baseline", "clock", "size"):
        assert found[name] == pytest.approx(0, abs=0.06)
    assert wrong_cameras.off_by(moved, records, 3)["angle"] > found["angle_wrong"]


@pytest.mark.slow
def test_lifters_are_trained_with_cameras_that_are_wrong(tmp_path, monkeypatch, capsys):
    synthetic.main(["--out", str(tmp_path / "data"), "--scale", "0.05"])
    paths = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["wrong_cameras", "--quick", "--splits", "test", *paths])
    wrong_cameras.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["wrong_cameras"]
    plain, learned = found["true_plain"], found["learned"]
    assert learned["test_more"] == [
        pytest.approx(100 * (learned["test"][0] / plain["test"][0] - 1))
    ]
    # Two steps change nothing much.
    assert learned["angle"][0] == pytest.approx(learned["angle_wrong"][0], rel=0.05)
    assert learned["angle_wrong"][0] > 3
    assert 0 < learned["clock_wrong"][0] <= 3


@pytest.mark.slow
def test_one_view_is_fitted_in_pieces(monkeypatch, capsys):
    """Fewer frames tell less of a body; whole clips are what an evaluation fits."""
    argv = ["one_view", "--quick", "--frames", "20", "--predict"]
    monkeypatch.setattr("sys.argv", argv)
    one_view.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = last["by_split"]["test"]
    (alone,) = row["alone"]
    assert row["change"] == pytest.approx(
        {
            "alone": 0.0,
            "fitted": row["fitted"][0] / alone - 1,
            "predict": row["predict"][0] / alone - 1,
        }
    )
    assert row["change"]["fitted"] < 0
    assert row["change"]["predict"] < 0
