import json

import numpy as np
import pytest

from pose3d_jax import log, runs

METRICS = {"unit": "m", "method": "multiview", "splits": {"test": {"rows": {}}}}
CLIPS = {"unit": "m", "splits": {"test": {"fingerprint": "ab", "clips": ["s/a"], "rows": {}}}}


def test_a_run_is_read_with_or_without_its_extras(tmp_path):
    workdir = tmp_path / "mv"
    with log.ScalarLog(workdir) as scalars:
        scalars.write(10, {"epoch": 1.0})
        scalars.write(20, {"epoch": 2.0})
    (workdir / "metrics.json").write_text(json.dumps(METRICS))
    np.savez(workdir / "examples.npz", truth=np.zeros((2, 17, 3)))
    run = runs.read_run(workdir)
    assert run.name == "mv"
    assert run.metrics == METRICS
    assert [row["step"] for row in run.scalars] == [10, 20]
    assert run.examples is not None
    assert run.examples["truth"].shape == (2, 17, 3)
    (workdir / "scalars.jsonl").unlink()
    (workdir / "examples.npz").unlink()
    bare = runs.read_run(str(workdir))
    assert (bare.scalars, bare.examples) == ([], None)


def test_clips_are_read(tmp_path):
    (tmp_path / "clips.json").write_text(json.dumps(CLIPS))
    assert runs.read_clips(str(tmp_path)) == CLIPS["splits"]


@pytest.mark.parametrize(
    ("read", "name"), [(runs.read_run, "metrics.json"), (runs.read_clips, "clips.json")]
)
def test_a_run_that_was_not_evaluated_says_what_to_do(tmp_path, read, name):
    with pytest.raises(runs.RunError, match=f"{tmp_path} has no {name}.*--mode=evaluate"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("read", "name"), [(runs.read_run, "metrics.json"), (runs.read_clips, "clips.json")]
)
@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b'{"unit": "m"}', b'{"splits": {}}'])
def test_what_cannot_be_read_is_an_error(tmp_path, read, name, text):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(runs.RunError, match=f"{name} .* with --mode=evaluate"):
        read(tmp_path)


def test_lengths_must_be_metres(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({**METRICS, "unit": "mm"}))
    with pytest.raises(runs.RunError, match="the unit 'm'"):
        runs.read_run(tmp_path)


def test_runs_of_one_name_are_told_apart():
    several = [runs.Run(name, METRICS) for name in ("mv", "mv", "triangulation", "mv")]
    names = [run.name for run in runs.distinct(several, taken=["triangulation"])]
    assert names == ["mv", "mv (2)", "triangulation (2)", "mv (3)"]


def test_a_run_without_any_p1_is_up_to_scale():
    def with_p1(p1):
        rows = {"multiview": {"p1": {"frames": p1, "groups": None}}}
        return runs.Run("mv", {**METRICS, "splits": {"test": {"rows": rows}}})

    assert with_p1(None).up_to_scale
    assert not with_p1(0.04).up_to_scale
