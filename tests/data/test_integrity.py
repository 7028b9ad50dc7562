"""What is not as it was written is refused and named; a killed preparation leaves nothing half."""

import hashlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep import writer
from pose3d_jax.data import integrity, poses
from pose3d_jax.data.poses import DataError
from tests import scenes

ROOT = Path(__file__).parents[2]
SHARD = "scene-train.array_record-00000"
REMEDY = "prepare it again: python -m data_prep.NAME --output {} --overwrite"


def write(directory, *clips, **options):
    records = [scenes.record(clip, frames=4, seed=seed) for seed, clip in enumerate(clips)]
    splits = {"train": records, "test": [scenes.record("t", split="test", frames=4)]}
    writer.write(directory, "scene", splits, description="a test", **options)


def clips(directory):
    return [record.identity.clip for record in poses.read_split(directory, "train")]


@pytest.fixture
def directory(tmp_path):
    write(tmp_path / "set", "a", "b", "c")
    return tmp_path / "set"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_table(directory, change):
    path = directory / "checksums.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def assert_refused(directory, name, fault):
    """In one message that names the file, the fault and the remedy."""
    with pytest.raises(DataError) as caught:
        poses.read_split(directory, "train")
    message = str(caught.value)
    assert message.startswith(f"{directory / name} ")
    assert re.search(fault, message)
    assert message.endswith(REMEDY.format(directory))


def test_checksums_are_those_of_every_file(directory):
    table = json.loads((directory / "checksums.json").read_text())
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    del files["checksums.json"]
    assert len(files) == 5  # two shards, three descriptions
    expected = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    assert table == expected
    assert clips(directory) == ["a", "b", "c"]


@pytest.mark.parametrize("name", [SHARD, "dataset_info.json", "features.json"])
def test_a_flipped_bit_is_found(directory, name):
    assert clips(directory) == ["a", "b", "c"]  # the hashes remembered now must not hide it
    flip_a_bit(directory / name)
    assert_refused(directory, name, r"is damaged: its SHA-256 is not that in checksums.json")


@pytest.mark.parametrize("name", [SHARD, "dataset_info.json", "features.json"])
def test_a_truncated_file_is_found(directory, name):
    path = directory / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    assert_refused(directory, name, f"has {size // 2} bytes, but checksums.json says {size}")


@pytest.mark.parametrize("name", [SHARD, "features.json"])
def test_a_missing_file_is_named(directory, name):
    (directory / name).unlink()
    assert_refused(directory, name, r"cannot be read \(No such file or directory\)")


def test_damage_to_another_split_does_not_matter(directory):
    flip_a_bit(directory / SHARD.replace("train", "test"))
    assert clips(directory) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "is missing, so the data cannot be trusted"),
        (b"", r"cannot be read \(Expecting value"),
        (b'{"features.json": {"bytes": 8038,', r"cannot be read \("),
        (b"\xff\xfe", r"cannot be read \("),
        (b"[]", "holds no table of files"),
    ],
)
def test_broken_checksums_are_refused(directory, content, fault):
    path = directory / "checksums.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert_refused(directory, "checksums.json", fault)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda table: table[SHARD].update(sha256="0" * 64), "its SHA-256 is not that in"),
        (lambda table: table[SHARD].update(bytes=1), "but checksums.json says 1;"),
        (lambda table: table[SHARD].pop("sha256"), "its SHA-256 is not that in"),
        (lambda table: table.update({SHARD: 3}), "is not listed in checksums.json"),
        (lambda table: table.pop(SHARD), "is not listed in checksums.json"),
    ],
)
def test_wrong_checksums_are_refused(directory, change, fault):
    edit_table(directory, change)
    assert_refused(directory, SHARD, fault)


@pytest.mark.parametrize("said", [2, 4])
def test_the_records_of_a_shard_are_counted(directory, said):
    """Even where the description and its checksum agree with one another."""
    path = directory / "dataset_info.json"
    text = path.read_text()
    assert text.count('"3"') == 1
    path.write_text(text.replace('"3"', f'"{said}"'))
    integrity.write_checksums(directory)
    assert_refused(directory, SHARD, f"holds 3 records, but dataset_info.json says {said}")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"name": 3}', "no json"])
def test_descriptions_that_make_no_sense_are_refused(directory, name, content):
    (directory / name).write_text(content)
    integrity.write_checksums(directory)
    with pytest.raises(DataError, match=re.escape(str(directory))):
        poses.read_split(directory, "train")


def test_a_file_is_hashed_once_while_it_stays_as_it_is(directory, monkeypatch):
    hashed = []
    real = integrity._sha256
    monkeypatch.setattr(integrity, "_sha256", lambda path: hashed.append(path.name) or real(path))
    for split in ("train", "test", "train"):
        poses.read_split(directory, split)
    shards = [SHARD, SHARD.replace("train", "test")]
    assert hashed == ["dataset_info.json", "features.json", *shards]


# A preparation that ends itself by SIGKILL, which no handler and no `finally` outlives.
KILLED = """
import os, signal, sys
from data_prep import writer
from pose3d_jax.data import integrity
from tests import scenes

directory, where = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def records():
    for i in range(200):
        if where == "among the records" and i == 100:
            die()
        yield scenes.record(f"new {i}", frames=4)

if where == "before the checksums":
    integrity.write_checksums = die
if where == "between the renames":
    rename = os.rename
    def and_die(source, target):
        rename(source, target)
        if os.path.basename(target) == "replaced":
            die()
    os.rename = and_die
writer.write(directory, "scene", {"train": records()}, description="a test", overwrite=True)
"""


def kill_a_preparation(directory, where):
    command = [sys.executable, "-c", KILLED, str(directory), where]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (scratch,) = directory.parent.glob(f".{directory.name}-*")
    return scratch


@pytest.mark.parametrize("where", ["among the records", "before the checksums"])
def test_a_killed_preparation_leaves_no_data_set(tmp_path, where):
    directory = tmp_path / "set"
    scratch = kill_a_preparation(directory, where)
    assert not directory.exists()
    with pytest.raises(DataError, match="no directory"):
        poses.read_split(directory, "train")
    # Nor can anything that it left be read by its hidden name.
    left = [scratch, *(path for path in scratch.rglob("*") if path.is_dir())]
    assert len(left) > 1
    for folder in left:
        with pytest.raises(DataError):
            poses.read_split(folder, "train")
    write(directory, "a", "b")
    assert clips(directory) == ["a", "b"]


def test_a_killed_preparation_leaves_the_old_data_set(directory):
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    kill_a_preparation(directory, "among the records")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert clips(directory) == ["a", "b", "c"]
    write(directory, "d", overwrite=True)
    assert clips(directory) == ["d"]


def test_a_kill_between_the_renames_leaves_nothing_half(directory):
    scratch = kill_a_preparation(directory, "between the renames")
    assert not directory.exists()
    assert clips(scratch / "replaced") == ["a", "b", "c"]
    new = scratch / "new"
    assert len(clips(new)) == 200
    write(directory, "d")
    assert clips(directory) == ["d"]
