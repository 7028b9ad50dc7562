"""What the benchmark of a lost view takes away, and its short form whole."""

import json

import jax
import numpy as np
import pytest

from benchmarks import view_loss
from pose3d_jax.data import windows


def test_one_of_two_views_sees_nothing_in_the_middle_third(synthetic_set):
    before = view_loss.noisy(synthetic_set, "test")
    after = view_loss.lose(before)
    was, now = (np.asarray(data.poses.observations.confidence) > 0 for data in (before, after))
    for clip in windows.clips(before.poses):
        own = slice(clip.start, clip.stop)
        seeing = was[own].any(axis=(0, 2))
        assert seeing.sum() == 2
        third = slice(clip.start + len(clip) // 3, clip.start + 2 * len(clip) // 3)
        assert now[third].any(axis=(0, 2)).sum() == 1
        changed = (was != now).any(axis=(1, 2))
        assert not changed[clip.start : third.start].any()
        assert not changed[third.stop : clip.stop].any()
    keypoints = np.asarray(after.poses.observations.keypoints)
    assert not keypoints[~now].any()
    jax.tree.map(np.testing.assert_array_equal, after.poses.labels, before.poses.labels)


@pytest.mark.slow
def test_its_short_form_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["view_loss", "--quick", "--out", str(tmp_path)])
    view_loss.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last["by"]) == {"smooth", "smooth_bones", "adapted"}
    assert all(row["one_view"][0] > 0 for row in last["by"].values())
    assert (tmp_path / "view_loss.png").read_bytes().startswith(b"\x89PNG")
