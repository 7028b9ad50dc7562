"""The helpers of benchmarks/triangulate.py: the peers see what our rows see."""

import json
import sys

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import triangulate as bench
from pose3d_jax import triangulate as tri
from pose3d_jax.errors import UserError


@pytest.fixture(scope="module")
def scene():
    return bench.synthetic(2, 24)


@pytest.mark.parametrize("at_once", [False, True])
def test_opencv_agrees_with_dlt_on_two_clean_views(scene, at_once):
    two = jax.tree.map(lambda x: np.asarray(x)[:, :2], scene.clean[0])
    joints, valid = jax.jit(tri.triangulate)(two)
    found = bench.two_views(scene.clean[0], at_once=at_once)
    assert np.all(valid == 1)
    assert_allclose(found, joints, atol=2e-4)
    assert np.linalg.norm(found - scene.joints[0], axis=-1).max() < 2e-4


@pytest.mark.parametrize("at_once", [False, True])
def test_opencv_finds_what_both_views_see(scene, at_once):
    clip = scene.observed[1]
    both = np.all(clip.confidence[:, :2] > 0, axis=1)
    found = bench.two_views(clip, at_once=at_once)
    assert 0 < both.mean() < 1
    assert_array_equal(np.isfinite(found).all(axis=-1), both)


def test_errors_are_of_joints_that_two_views_see(scene):
    found = scene.joints + np.array([0.003, 0.0, 0.004])
    found[~scene.seen] = 9.0
    assert bench.error_mm(scene, found) == pytest.approx(5.0, abs=1e-3)
    # The first frame is filled in from the second.
    found[scene.seen] = scene.joints[scene.seen]
    found[:, 0] = np.nan
    expected = np.linalg.norm(scene.joints[:, 1] - scene.joints[:, 0], axis=-1)
    found[:, 1] = scene.joints[:, 1]
    total = 1000 * expected[scene.seen[:, 0]].sum() / scene.seen.sum()
    assert bench.error_mm(scene, found) == pytest.approx(total, abs=1e-3)


def test_other_cameras_are_found_out(scene):
    with pytest.raises(AssertionError, match=r"peer: .* mm without noise"):
        bench.prove("peer", scene, scene.joints + 0.002)
    with pytest.raises(AssertionError, match="peer"):
        bench.prove("peer", scene, np.full(scene.joints.shape, np.nan))


def test_the_least_time_of_all_turns():
    calls = []

    def program(name, times):
        left = iter(times)
        return lambda: (calls.append(name), (next(left), np.zeros(1)))[1]

    programs = {"a": program("a", [1, 9, 5, 7]), "slow": program("slow", [3])}
    best = bench.least(programs, 3, ["slow"])
    assert {name: seconds for name, (seconds, _) in best.items()} == {"a": 5, "slow": 3}
    assert calls == ["a", "a", "slow", "a", "a"]


def test_the_line_of_json_has_every_figure(scene):
    names = [*bench.ROWS, *bench.OPENCV]
    found = dict.fromkeys(names, (0.5, scene.joints))
    peaks = {"2 clips of 64 frames": {"first": 700, "last": 701}}
    result = json.loads(json.dumps(bench.figures(scene, found, {"dlt": 0.01}, peaks)))
    for key in ("frames_per_s", "error_mm", "found_share"):
        assert list(result[key]) == names
    assert result["frames"] == 48
    assert result["frames_per_s"]["dlt"] == 96
    assert result["clean_error_mm"] == {"dlt": 0.01}
    assert result["smooth_bones_peak_mb"] == peaks
    table = bench.text(result, bench.ROWS | bench.OPENCV)
    assert all(name in table for name in [*names, *peaks])


def test_every_row_is_explained():
    assert tuple(bench.ROWS) == bench.references.ROWS


def test_a_python_without_aniposelib_is_named(scene, tmp_path):
    peer = bench.Anipose(sys.executable, scene, tmp_path)
    with pytest.raises(UserError, match="needs aniposelib"):
        peer.run("triangulate")
