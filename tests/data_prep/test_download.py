"""Fetching one file: whole or not at all, and every broken answer named."""

import socket
from pathlib import Path

import pytest

from data_prep.download import SourceError, fetch
from tests.data_prep.serving import cut_short, hang, instead, status, without_length

STARTS = (b"#", b":")
MOTION = b"#!comment\n:FULLY-SPECIFIED\n" + b"1\nroot 0 0 0 0 0 0\n" * 500


@pytest.fixture
def address(server):
    server.files["01/01_01.amc"] = MOTION
    return f"{server.url}/01/01_01.amc"


def test_a_file_comes_whole_and_is_not_fetched_again(server, address, tmp_path):
    path = tmp_path / "new" / "01_01.amc"
    fetch(address, path, STARTS)
    assert path.read_bytes() == MOTION
    before = path.stat()
    fetch(address, path, STARTS)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(path.parent.iterdir()) == [path]


def test_half_a_file_that_is_there_is_fetched_again(server, address, tmp_path):
    path = tmp_path / "01_01.amc"
    path.write_bytes(MOTION[:100])
    fetch(address, path, STARTS)
    assert path.read_bytes() == MOTION


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (cut_short, f"only {len(MOTION) // 2} of {len(MOTION)} bytes came, 3 times"),
        (status(503), "the server answers 503 Service Unavailable, 3 times"),
        (lambda handler, _: handler.wfile.write(b"x" * 99 + b"\n"), "no answer (xxx"),
        (lambda *_: None, "no answer (Remote end closed connection"),
        (hang, "no answer (timed out), 3 times"),
    ],
)
def test_a_fault_that_may_pass_is_tried_again_but_not_for_ever(
    server, address, tmp_path, fault, message
):
    path = tmp_path / "01_01.amc"
    server.faults["01/01_01.amc"] = [fault] * 2
    fetch(address, path, STARTS, timeout=0.5)
    assert path.read_bytes() == MOTION
    assert len(server.asked) == 3
    path.unlink()
    server.faults["01/01_01.amc"] = [fault] * 9
    with pytest.raises(SourceError) as caught:
        fetch(address, path, STARTS, timeout=0.5)
    assert len(server.asked) == 6
    assert server.pauses == [2, 4, 2, 4]
    assert str(caught.value).startswith(f"{address}: {message}")
    assert "check the address and the network, and run it again" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(404), "the server answers 404 Not Found; check the address"),
        (status(403), "the server answers 403 Forbidden; check the address"),
        (instead(b"\n<!DOCTYPE html><HTML>Please log in"), "the answer is an HTML page, not the"),
        (instead(b"\x1f\x8bzipped"), r"something that begins with b'\x1f\x8bzipped', not the file"),
        (instead(b""), "something that begins with b'', not the file"),
        (without_length, "does not say how long the file is"),
    ],
)
def test_a_wrong_answer_is_refused_at_once(server, address, tmp_path, fault, message):
    path = tmp_path / "01_01.amc"
    path.write_bytes(b"# what was there")
    server.faults["01/01_01.amc"] = [fault]
    with pytest.raises(SourceError) as caught:
        fetch(address, path, STARTS)
    assert str(caught.value).startswith(f"{address}: ")
    assert message in str(caught.value)
    assert len(server.asked) == 1
    assert path.read_bytes() == b"# what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_no_network_and_no_address(tmp_path, server):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/01.asf"
        with pytest.raises(SourceError, match=r"no answer \(.*refused\), 3 times; check the"):
            fetch(url, tmp_path / "x", STARTS)
    for url in ("file:///etc/passwd", "mocap.cs.cmu.edu/subjects"):
        with pytest.raises(SourceError, match="begins with http:// or https://"):
            fetch(url, tmp_path / "x", STARTS)
    with pytest.raises(SourceError, match="no answer"):
        fetch("http://[half/01.asf", tmp_path / "x", STARTS)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(address, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match=r"file/01_01.amc: cannot be written \(.*free space or"):
        fetch(address, tmp_path / "file" / "01_01.amc", STARTS)


def test_a_write_that_fails_half_way_leaves_nothing(address, tmp_path, monkeypatch):
    def fill_the_disk(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(SourceError, match=r"01_01.amc: cannot be written \(No space left"):
        fetch(address, tmp_path / "01_01.amc", STARTS)
    assert not list(tmp_path.iterdir())
