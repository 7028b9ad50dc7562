"""A work directory is one experiment's, and has one writer."""

import os
import subprocess
import sys

import pytest

from pose3d_jax import workdir
from pose3d_jax.errors import UserError
from pose3d_jax.workdir import WorkdirError

EXPERIMENT = {
    "config": {"seed": 0, "phases": [{"length_steps": 3}], "data": {"path": ["a"]}},
    "fingerprint": {"main": "00ff"},
    "code": "0.1.0+abc",
}


@pytest.fixture
def claimed(tmp_path):
    with workdir.claim(tmp_path, EXPERIMENT):
        pass
    return tmp_path


def changed(**changes):
    return {**EXPERIMENT, **changes}


def test_the_same_experiment_may_go_on(claimed):
    workdir.check(claimed, EXPERIMENT)
    with workdir.claim(claimed, EXPERIMENT):
        pass


def test_what_an_older_version_did_not_know_is_no_difference(claimed):
    now = changed(config={**EXPERIMENT["config"], "extra": 1})
    workdir.check(claimed, now, complete=lambda config: {"extra": 1, **config})
    with pytest.raises(WorkdirError, match="extra 2 -> 1"):
        workdir.check(claimed, now, complete=lambda config: {"extra": 2, **config})


def test_a_fresh_directory_is_anyones(tmp_path):
    workdir.check(tmp_path, EXPERIMENT)
    workdir.check(tmp_path / "none", EXPERIMENT)


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (
            changed(config={**EXPERIMENT["config"], "seed": 1}),
            r"config.seed 0 -> 1; give another --workdir",
        ),
        (
            changed(config={**EXPERIMENT["config"], "phases": [{"length_steps": 4}]}),
            r"config.phases\[0\].length_steps 3 -> 4",
        ),
        (
            changed(config={**EXPERIMENT["config"], "extra": 1}),
            r"config.extra 'nothing' -> 1",
        ),
        (changed(fingerprint={"main": "0000"}), r"fingerprint.main '00ff' -> '0000'"),
        (
            changed(code="0.2.0+abc"),
            r"code '0.1.0\+abc' -> '0.2.0\+abc'; go on with that version, ",
        ),
    ],
)
def test_another_experiment_is_refused_by_what_differs(claimed, experiment, message):
    with pytest.raises(WorkdirError, match=message):
        workdir.check(claimed, experiment)


def test_other_code_goes_on_where_that_is_wanted_and_nothing_else_differs(claimed):
    workdir.check(claimed, changed(code="0.2.0+abc"), other_code=True)
    with pytest.raises(WorkdirError, match="fingerprint"):
        workdir.check(claimed, changed(code="0.2.0+abc", fingerprint={}), other_code=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}', "\0\0"])
def test_unreadable_memory_is_refused(claimed, text):
    (claimed / "experiment.json").write_text(text)
    with pytest.raises(WorkdirError, match=r"experiment\.json cannot be read"):
        workdir.check(claimed, EXPERIMENT)


def test_a_users_error_before_anything_is_saved_leaves_the_directory_anyones(tmp_path):
    with pytest.raises(UserError), workdir.claim(tmp_path, EXPERIMENT, lambda: False):
        raise UserError("a term that needs another stream")
    workdir.check(tmp_path, changed(code="0.1.0+other"))
    with pytest.raises(UserError), workdir.claim(tmp_path, EXPERIMENT, lambda: True):
        raise UserError("too late")
    with pytest.raises(WorkdirError, match="another experiment"):
        workdir.check(tmp_path, changed(code="0.1.0+other"))


def test_a_second_writer_is_refused_and_the_lock_ends_with_its_process(tmp_path):
    hold = (
        f"from pose3d_jax import workdir; import time\n"
        f"with workdir.claim({str(tmp_path)!r}, {EXPERIMENT!r}):\n"
        f"    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(WorkdirError, match="another process is writing"),
            workdir.claim(tmp_path, EXPERIMENT),
        ):
            pass
        holder.kill()
        holder.wait()
    with workdir.claim(tmp_path, EXPERIMENT):
        pass


def test_the_code_version_changes_with_the_code(monkeypatch, tmp_path):
    import pose3d_jax

    assert workdir.code_version() == workdir.code_version()
    assert workdir.code_version().startswith(pose3d_jax.__version__ + "+")
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(pose3d_jax, "__file__", str(tmp_path / "__init__.py"))
    before = workdir.code_version()
    (tmp_path / "__init__.py").write_text("x = 1")
    assert workdir.code_version() != before


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    workdir.write_text(path, "old")

    def fails(name):
        with open(name, "w") as file:
            file.write("ne")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        workdir.write(path, fails)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
