import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from pose3d_jax import log


def _events(directory):
    """Everything in TensorBoard's files, in their order; the framing is TensorFlow's TFRecord."""
    found = []
    for path in sorted((directory / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack_from("<Q", content)  # then 4 bytes of checksum
            found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[12 + length + 4 :]
    return found


def _shown(directory):
    """Tag -> [(step, value)] as TensorBoard shows it: a START forgets its own and later steps."""
    shown = {}
    for event in _events(directory):
        if event.session_log.status == event_pb2.SessionLog.START:
            shown = {k: [(s, v) for s, v in p if s < event.step] for k, p in shown.items()}
        for value in event.summary.value:
            shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return shown


def _run(directory, steps, first_step=0, loss=1.0):
    with log.ScalarLog(directory, first_step) as scalars:
        for step in steps:
            scalars.write(step, {"epoch": step / 10, "train/loss": loss / step})


def test_scalars_come_back(tmp_path):
    with log.ScalarLog(tmp_path / "new" / "run") as scalars:
        first = {"epoch": 1.0, "phase": 0, "train/loss": np.float32(0.5), "bad": float("nan")}
        scalars.write(3, first)
        found = log.read_scalars(scalars.path)  # on disk at once
        assert found == [{"step": 3, "epoch": 1.0, "phase": 0, "train/loss": 0.5, "bad": None}]
        assert isinstance(found[0]["phase"], int)
        scalars.write(6, {"epoch": np.array(2.0)})
    assert log.read_scalars(scalars.path)[1] == {"step": 6, "epoch": 2.0}


def test_tensorboard_has_the_same_without_what_is_not_finite(tmp_path):
    with log.ScalarLog(tmp_path) as scalars:
        scalars.write(3, {"phase": 0, "train/all/two_d": np.float32(0.5), "bad": float("nan")})
        scalars.write(6, {"phase": 1, "train/all/two_d": 0.25, "bad": -np.inf})
    shown = _shown(tmp_path)
    assert shown == {"phase": [(3, 0), (6, 1)], "train/all/two_d": [(3, 0.5), (6, 0.25)]}
    assert _events(tmp_path)[0].file_version == "brain.Event:2"


def test_a_run_that_was_cut_and_taken_up_again_has_the_rows_of_one_that_was_not(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _run(whole, (10, 20, 30, 40, 50))
    _run(cut, (10, 20, 30, 40), loss=7.0)  # killed after its checkpoint at step 0
    _run(cut, (10, 20, 30))
    _run(cut, (30, 40), first_step=20)
    with (cut / "scalars.jsonl").open("a") as file:
        file.write('{"step": 50, "trai')
    _run(cut, (40, 50), first_step=30)
    assert (cut / "scalars.jsonl").read_bytes() == (whole / "scalars.jsonl").read_bytes()
    assert _shown(cut) == _shown(whole)
    assert [step for step, _ in _shown(cut)["train/loss"]] == [10, 20, 30, 40, 50]


def test_opening_leaves_no_other_files_behind(tmp_path):
    for _ in range(2):
        _run(tmp_path, (1, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scalars.jsonl", "tensorboard"]


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    _run(tmp_path, (1,))
    path = tmp_path / "scalars.jsonl"
    with path.open("a") as file:
        file.write('{"step": 2, "a')
    assert [row["step"] for row in log.read_scalars(path)] == [1]


@pytest.mark.parametrize("line", ['{"st', "5", "{}", '{"step": null}'])
def test_a_broken_line_in_the_middle_is_named_and_nothing_changed(tmp_path, line):
    path = tmp_path / "scalars.jsonl"
    text = f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'
    path.write_text(text)
    with pytest.raises(log.LogError, match=r"scalars.jsonl, line 2 is not .*; remove it"):
        log.read_scalars(path)
    with pytest.raises(log.LogError, match="line 2"):
        log.ScalarLog(tmp_path)
    assert path.read_text() == text


def test_a_failure_in_the_loop_leaves_the_rows_before_it(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _run(tmp_path, (1, 2, 0))
    assert [step for step, _ in _shown(tmp_path)["train/loss"]] == [1, 2]
    assert len((tmp_path / "scalars.jsonl").read_text().splitlines()) == 2


def test_a_closed_log_says_so(tmp_path):
    scalars = log.ScalarLog(tmp_path)
    scalars.close()
    scalars.close()
    with pytest.raises(ValueError, match="closed"):
        scalars.write(1, {"a": 1.0})
    assert not scalars.path.exists()
