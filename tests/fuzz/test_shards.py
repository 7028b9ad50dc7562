"""Whatever happens to the files of a prepared data set: it is refused by name, or is as it was."""

import os

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import writer
from pose3d_jax.data import poses
from pose3d_jax.data.poses import DataError
from tests import scenes
from tests.fuzz.conftest import examples
from tests.fuzz.damage import DAMAGE, copied, damage, files


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepared") / "set"
    found = {
        split: [scenes.record(f"{split}{i}", split=split, frames=3, seed=i) for i in range(2)]
        for split in ("train", "test")
    }
    writer.write(directory, "scene", found, description="A test.")
    return directory


@pytest.fixture(scope="module")
def whole(prepared):
    return poses.load([prepared], "train")


def assert_refused_or_whole(directory, whole):
    """The message names the data set and says what to do."""
    try:
        found = poses.load([directory], "train")
    except DataError as error:
        message = str(error)
        assert str(directory) in message
        assert "prepare" in message
        return
    assert found.fingerprint == whole.fingerprint
    assert found.identities == whole.identities
    jax.tree.map(np.testing.assert_array_equal, found.poses, whole.poses)


@examples(60)
@given(st.lists(DAMAGE, min_size=1, max_size=2))
def test_a_damaged_data_set_is_refused_or_whole(prepared, whole, tmp_path_factory, happened):
    directory = copied(prepared, tmp_path_factory.getbasetemp() / "damaged" / "set")
    for one in happened:
        damage(files(directory), *one)
    assert_refused_or_whole(directory, whole)


@examples(20)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_bit_that_flips_after_the_first_reading_is_found_too(
    prepared, whole, tmp_path_factory, where, bit
):
    """What was hashed once is not hashed again while size and time are the same."""
    directory = copied(prepared, tmp_path_factory.getbasetemp() / "read" / "set")
    assert_refused_or_whole(directory, whole)
    (shard,) = directory.glob("*-train.*")
    time = shard.stat().st_mtime_ns
    damage([shard], "flip", 0.0, where, bit)
    os.utime(shard, ns=(time, time))
    assert_refused_or_whole(directory, whole)


@pytest.mark.parametrize("name", ["x" * 300, "\0", "\ud800", "a\nb"])
def test_a_folder_that_cannot_be_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="prepare"):
        poses.load([tmp_path / name], "train")
