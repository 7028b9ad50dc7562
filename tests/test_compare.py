import json

import numpy as np
import pytest
from scipy import stats

from pose3d_jax import compare, runs

DASHES = ["–"] * 5


def _clips(errors, counts, groups=None, **changes):
    """One split of `clips.json`, from row -> metric -> mean error of each clip, metres."""
    names = [f"set/{i:02d}" for i in range(len(counts))]
    rows = {
        row: {
            metric: {"sum": (np.asarray(values) * counts).tolist(), "count": list(counts)}
            for metric, values in metrics.items()
        }
        for row, metrics in errors.items()
    }
    groups = groups or ["all"] * len(counts)
    return {"fingerprint": "ab", "clips": names, "groups": groups, "rows": rows, **changes}


def _workdir(path, splits, method="multiview", joints=None):
    path.mkdir()
    metrics = {"unit": "m", "method": method, "steps": 1200, "splits": {}}
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "clips.json").write_text(json.dumps({"unit": "m", "splits": splits}))
    if joints:
        np.savez(path / "examples.npz", joint_skeleton=np.array(joints))
    return path


def _result(tmp_path, errors_a, errors_b, counts, groups=None):
    """The comparison of two runs' P1, clip by clip, on one split."""
    workdirs = [
        _workdir(tmp_path / name, {"test": _clips({"multiview": {"p1": errors}}, counts, groups)})
        for name, errors in (("a", errors_a), ("b", errors_b))
    ]
    return compare.run(*workdirs)


def _p1(result):
    return result["splits"]["test"]["rows"][0]["metrics"]["p1"]


def _random_clips(seed, clips, groups):
    """Two runs' mean error of each clip, metres, counts, and groups; some clips are harder."""
    random = np.random.default_rng(seed)
    hard = random.gamma(4, 0.015, clips)
    a, b = (hard + random.normal(0.01, 0.004, clips) for _ in range(2))
    counts = random.integers(20, 400, clips).astype(float).tolist()
    return a, b, counts, [f"g{i}" for i in random.integers(groups, size=clips)]


def _text(result):
    return [" ".join(line.split()) for line in compare.table(result).splitlines()]


# -- numbers


def _naive(clips, errors, counts, groups):
    """Both means over a list of clips that may hold one several times."""
    by_group = {}
    for clip in clips:
        by_group.setdefault(groups[clip], []).append(clip)

    def over_frames(some):
        return sum(errors[c] * counts[c] for c in some) / sum(counts[c] for c in some)

    return over_frames(clips), np.mean([over_frames(some) for some in by_group.values()])


def test_means_are_those_of_every_frame(tmp_path):
    a, b, counts, groups = _random_clips(0, 7, 3)
    found = _p1(_result(tmp_path, a, b, counts, groups))
    for side, errors in (("a", a), ("b", b)):
        frames = np.repeat(errors, np.array(counts, int))
        group = np.repeat(groups, np.array(counts, int))
        assert found["frames"][side] == pytest.approx(frames.mean())
        means = [frames[group == name].mean() for name in set(groups)]
        assert found["groups"][side] == pytest.approx(np.mean(means))


def test_the_interval_is_that_of_a_loop_over_the_same_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RESAMPLES", 700)  # more than a part, not a multiple of it
    a, b, counts, groups = _random_clips(1, 8, 4)
    counts[3] = 0.0  # a clip without labels is not drawn
    found = _p1(_result(tmp_path, a, b, counts, groups))
    scored = [clip for clip in range(8) if clip != 3]
    in_groups = sorted(scored, key=lambda clip: groups[clip])
    drawn = np.concatenate(list(compare._draws(7)))
    assert drawn.shape == (700, 7)
    differences = []
    for resample in drawn:
        clips = np.repeat(in_groups, resample).tolist()
        one, other = (_naive(clips, errors, counts, groups) for errors in (a, b))
        differences.append(np.subtract(other, one))
    expected = np.percentile(differences, [2.5, 97.5], axis=0)
    for i, mean in enumerate(("frames", "groups")):
        assert found[mean]["interval"] == pytest.approx(expected[:, i])
        assert found[mean]["b_lower"] == pytest.approx(np.mean(np.array(differences)[:, i] < 0))


def test_the_interval_is_that_of_scipy(tmp_path):
    a, b, counts, _ = _random_clips(2, 25, 1)
    found = _p1(_result(tmp_path, a, b, counts))["frames"]
    sums = a * counts, b * counts

    def difference(one, other, count, axis):
        return (other.sum(axis) - one.sum(axis)) / count.sum(axis)

    expected = stats.bootstrap(
        (*sums, np.array(counts)),
        difference,
        n_resamples=10_000,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = expected.high - expected.low
    assert found["interval"] == pytest.approx([expected.low, expected.high], abs=0.04 * width)


def test_draws_are_with_replacement_and_always_the_same():
    drawn, again = (np.concatenate(list(compare._draws(20))) for _ in range(2))
    assert drawn.shape == (10_000, 20)
    np.testing.assert_array_equal(drawn, again)
    assert (drawn.sum(axis=1) == 20).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(drawn.var(axis=0), 1 - 1 / 20, atol=0.06)  # binomial


@pytest.mark.parametrize("mean", ["frames", "groups"])
def test_the_interval_covers_a_known_difference(monkeypatch, mean):
    monkeypatch.setattr(compare, "RESAMPLES", 500)
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        counts = random.integers(50, 200, 40).astype(float)
        hard = random.gamma(4, 0.02, 40)
        a, b = (hard + random.normal(m, 0.005, 40) for m in (0.01, 0.013))
        groups = ["even", "odd"] * 20
        sums = [(x * counts).tolist() for x in (a, b)]
        low, high = compare._compare(*sums, counts.tolist(), groups)[mean]["interval"]
        covered += low <= 0.003 <= high
        assert high - low < 0.008  # clips that are hard for both do not widen it
    assert 0.90 <= covered / 200 <= 0.99


def test_a_run_does_not_differ_from_itself(tmp_path):
    a, _, counts, groups = _random_clips(4, 9, 3)
    for values in _p1(_result(tmp_path, a, a, counts, groups)).values():
        assert values["difference"] == 0
        assert values["interval"] == [0, 0]
        assert values["b_lower"] == 0.5


def test_one_clip_has_no_interval_and_few_a_rough_one(tmp_path):
    one = _result(tmp_path, [0.05, 0.1], [0.04, 0.1], [10.0, 0.0])
    values = _p1(one)["frames"]
    assert (values["interval"], values["b_lower"]) == (None, None)
    assert "P1, frames 50.0 40.0 -10.0 – –" in _text(one)
    assert any("no interval" in line for line in _text(one))
    (tmp_path / "few").mkdir()
    few = _result(tmp_path / "few", [0.05] * 4, [0.04] * 4, [10.0] * 4)
    assert "The interval is rough: there are only 4 clips." in _text(few)


def test_without_labels_there_are_dashes(tmp_path):
    result = _result(tmp_path, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    assert set(_p1(result)["frames"].values()) == {None}
    lines = _text(result)
    assert [line.split(" ")[2:] for line in lines if line.startswith("P1,")] == [DASHES] * 2
    assert "test · 0 of 2 clips scored · multiview" in lines
    assert "No clip has labels." in lines


def test_an_error_that_is_not_finite_has_no_interval(tmp_path):
    result = _result(tmp_path, [0.05, 0.06], [np.nan, 0.04], [10.0, 10.0])
    assert "P1, frames 55.0 – – – –" in _text(result)


# -- rows and the table


def test_the_table_has_the_rows_that_both_runs_have(tmp_path):
    counts, groups = [100.0] * 6, ["walk"] * 4 + ["run"] * 2
    faster = [0.04, 0.04, 0.04, 0.04, 0.02, 0.02]
    triangulation = {"p1": [0.01] * 6, "absolute": [0.01] * 6}
    a = {
        "multiview": {"p1": [0.05] * 6, "p2": [0.04] * 6, "absolute": [0.1] * 6},
        "multiview_flipped": {"p1": [0.049] * 6},
        "only_a": {"p1": [0.049] * 6},
        "triangulation": triangulation,
    }
    b = {
        "supervised": {"p2": [0.0404] * 6, "p1": faster},
        "multiview_flipped": {"p1": [0.0491] * 6},
        "triangulation": triangulation,
    }
    first = _workdir(tmp_path / "a", {"x": _clips({}, []), "test": _clips(a, counts, groups)})
    second = _workdir(tmp_path / "b", {"test": _clips(b, counts, groups)}, method="supervised")
    result = compare.run(str(first), str(second))
    assert [(row["a"], row["b"]) for row in result["splits"]["test"]["rows"]] == [
        ("multiview", "supervised"),
        ("multiview_flipped", "multiview_flipped"),
    ]
    assert json.loads(json.dumps(result)) == result
    text = _text(result)
    assert text[:2] == [
        f"A: {first} · multiview · 1,200 steps",
        f"B: {second} · supervised · 1,200 steps",
    ]
    start = text.index("test · 6 of 6 clips scored · A: multiview, B: supervised")
    # Of 6 drawn clips 0 to 4 run, says the binomial distribution; without any, walking is left.
    assert text[start + 1 : start + 6] == [
        "A B B - A 95 % B lower",
        "P1, frames 50.0 33.3 -16.7 [-23.3, -10.0] 100%",
        "P1, groups 50.0 30.0 -20.0 [-20.0, -10.0] 100%",
        "P2, frames 40.0 40.4 +0.4 [+0.4, +0.4] 0%",
        "P2, groups 40.0 40.4 +0.4 [+0.4, +0.4] 0%",
    ]
    assert "test · 6 of 6 clips scored · multiview_flipped" in text
    assert text[-1] == "Left out, being in A alone: x"
    assert "rough" not in " ".join(text)


# -- what cannot be compared


def _both(tmp_path, changed, **more):
    """Work directories with the same split, but for what is changed in the second one."""
    split = _clips({"multiview": {"p1": [0.05] * 3}}, [5.0, 6.0, 7.0])
    one = _workdir(tmp_path / "one", {"test": split})
    return one, _workdir(tmp_path / "two", {"test": {**split, **changed}}, **more)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprint": "cd"}, "fingerprints ab and cd"),
        ({"clips": ["set/00", "set/01"]}, r"other clips \(3 and 2\)"),
        ({"clips": ["set/00", "set/01", "set/03"]}, r"other clips \(set/02 and set/03"),
        ({"groups": ["all", "all", "one"]}, r"other groups \(all and one"),
        (
            {"rows": {"multiview": {"p1": {"sum": [1.0] * 3, "count": [5.0, 6.5, 8.0]}}}},
            "p1, were scored on other frames: 6 frames and views of set/01 in the first, 6.5 in",
        ),
    ],
)
def test_what_was_scored_on_other_frames_is_refused(tmp_path, changed, message):
    one, two = _both(tmp_path, changed)
    with pytest.raises(compare.CompareError, match=message) as caught:
        compare.run(one, two)
    for part in (str(one), str(two), "split test", "--mode=evaluate"):
        assert part in str(caught.value)


def test_other_joints_are_refused(tmp_path):
    split = {"test": _clips({"multiview": {"p1": [0.05]}}, [5.0])}
    workdirs = [_workdir(tmp_path / name, split, joints=name) for name in ("h36m17", "smpl24")]
    with pytest.raises(compare.CompareError, match=r"other joints, h36m17 and smpl24.*skeleton"):
        compare.run(*workdirs)


def test_runs_without_a_split_in_common_are_refused(tmp_path):
    split = _clips({"multiview": {"p1": [0.05]}}, [5.0])
    workdirs = [_workdir(tmp_path / name, {name: split}) for name in ("one", "two")]
    with pytest.raises(compare.CompareError, match=r"one in the first, two in the second; eval"):
        compare.run(*workdirs)


def test_tables_of_another_evaluation_are_refused(tmp_path):
    one, two = _both(tmp_path, {}, method="supervised")
    with pytest.raises(compare.CompareError, match=f"{two} has no row supervised for test"):
        compare.run(one, two)


@pytest.mark.parametrize("name", ["metrics.json", "clips.json"])
def test_a_run_that_was_not_evaluated_is_refused(tmp_path, name):
    one, two = _both(tmp_path, {})
    (two / name).unlink()
    with pytest.raises(runs.RunError, match=f"{two} has no {name}.*--mode=evaluate"):
        compare.run(one, two)
