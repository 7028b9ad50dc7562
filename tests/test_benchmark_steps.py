"""What the benchmark of steps says of hidden keypoints, and its short forms whole."""

import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks import steps
from tests import scenes


def test_hidden_keypoints_count_by_how_far_they_are_and_no_outlier_as_more_than_one():
    seen = jax.tree.map(lambda x: np.asarray(x)[0], scenes.batch(1, views=2, frames=3).observations)
    joints = np.asarray(scenes.batch(1, views=2, frames=3).labels.joints)[0]
    hidden = np.zeros(seen.confidence.shape, bool)
    hidden[0, 0, 4] = hidden[1, 1, 7] = True
    assert steps.missed(seen, joints, hidden) == pytest.approx(0.0, abs=0.01)
    keypoints = seen.keypoints.copy()
    keypoints[0, 0, 4] += [3.0, 4.0]
    keypoints[1, 1, 7] += [300.0, 400.0]
    keypoints[2, 1, 7] += 50.0  # not hidden
    moved = seen.replace(keypoints=keypoints)
    assert steps.missed(moved, joints, hidden) == pytest.approx((5 + 100) / 2, rel=1e-3)


def test_a_clip_is_stopped_where_its_hidden_keypoints_are_best():
    curve = {
        "all": np.array([[9.0, 3.0, 1.0], [8.0, 2.0, 4.0]]),
        "shown": np.array([[9.0, 4.0, 2.0], [8.0, 5.0, 5.0]]),
        "hidden_px": np.array([[7.0, 1.0, 2.0], [3.0, 2.0, 1.0]]),
    }
    found = steps.table_of([curve], (1, 2, 3))
    assert found["chosen"] == (3 + 4) / 2
    assert found["least"] == (1 + 2) / 2
    assert_allclose(found["all"], [8.5, 2.5, 2.5])


@pytest.mark.slow
@pytest.mark.parametrize("stage", steps.STEPS)
def test_its_short_forms_run(stage, tmp_path, monkeypatch, capsys):
    argv = ["steps", stage, "--quick", "--splits", "validation", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    steps.main()
    tables = json.loads(capsys.readouterr().out.splitlines()[-1])["tables"]
    named = ["weights"] if stage == "weights" else tables
    for name in named:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for table in tables.values():
        assert len(table["all"]) == len(table["steps"]) == 2
        assert all(np.isfinite(table["all"]))
        assert "least" not in table or table["least"] <= min(table["all"]) + 1e-6
