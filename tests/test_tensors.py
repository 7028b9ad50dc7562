"""Tensors out of PyTorch's files: what PyTorch wrote, and what does not come from it."""

import io
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pose3d_jax import tensors
from pose3d_jax.sources import SourceError
from tests import oracles

WRITTEN = Path(oracles.__file__).with_name("torch_save.pth")
BASE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_what_torch_saved_is_read():
    found = tensors.load(WRITTEN)
    assert list(found)[:2] == ["weight", "bias"]
    assert found["weight"].shape == (3, 2)
    assert_array_equal(found["plain"], BASE)
    assert_array_equal(found["seen_from_the_side"], BASE.transpose(2, 0, 1)[1:])
    assert_array_equal(found["half"], BASE.astype(np.float16))
    assert_array_equal(found["bfloat"], BASE)
    assert_array_equal(found["parameter"], BASE[0])
    assert found["count"] == 7
    assert found["none"].shape == (0, 3)


def rewritten(path, change):
    """The file with another pickle in it."""
    with zipfile.ZipFile(WRITTEN) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            value = old.read(name)
            new.writestr(name, change(value) if name.endswith("data.pkl") else value)
    return path


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_is_refused_and_not_run(tmp_path, capsys):
    path = rewritten(tmp_path / "evil.pth", lambda _: pickle.dumps({"a": Evil()}))
    with pytest.raises(SourceError, match=r"evil.pth: holds builtins.print"):
        tensors.load(path)
    assert "code ran" not in capsys.readouterr().out


class Storage:
    """Stands for the storage of a key."""

    def __init__(self, key):
        self.key = key


def forged(path, storage, size, stride, *, compressed=False):
    """A file with a tensor of such a storage, or of an array that stands for one."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class Kind:
        pass

    def rebuild(*_):
        pass

    class Tensor:
        def __reduce__(self):
            return (rebuild, (storage, 0, size, stride, False, None))

    class Pickler(pickle.Pickler):
        def persistent_id(self, x):
            return ("storage", Kind, x.key, "cpu", 24) if isinstance(x, Storage) else None

    Kind.__module__, Kind.__qualname__, Kind.__name__ = "torch", "FloatStorage", "FloatStorage"
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2, torch._utils = Kind, rebuild, utils
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(stream, 2).dump({"a": Tensor()})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", stream.getvalue())
        kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        archive.writestr("x/data/0", np.arange(24, dtype=np.float32).tobytes(), kind)
    return path


def test_a_forged_tensor_within_its_storage_is_read(tmp_path):
    found = tensors.load(forged(tmp_path / "a.pth", Storage("0"), (2, 3), (3, 1)))
    assert_array_equal(found["a"], np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("storage", "size", "stride"),
    [
        (Storage("0"), (25,), (1,)),
        (Storage("0"), (2, 13), (0, 1)),
        (Storage("0"), (2**40,), (0,)),
        (Storage("0"), (-1,), (1,)),
        (Storage("0"), (3,), (-1,)),
        (Storage("0"), (3,), (1, 1)),
        (Storage("0"), (5,), (np.int64(2**62),)),  # whose multiples wrap
        (Storage("0"), (2.0,), (1,)),
        (Storage("7"), (2,), (1,)),  # is not there
        (np.zeros((1000, 0)), (50,), (1,)),  # no numbers, of which the first axis has many
        (np.zeros((1000, 0), object), (50,), (1,)),
        (np.zeros(100, np.uint8), (5,), (1,)),
    ],
)
def test_a_tensor_that_is_not_in_its_storage_is_refused(storage, size, stride, tmp_path):
    with pytest.raises(SourceError, match=r"a.pth: is not a readable file"):
        tensors.load(forged(tmp_path / "a.pth", storage, size, stride))


def test_a_storage_that_is_compressed_is_refused(tmp_path):
    """A small file could hold any number of zeros."""
    path = forged(tmp_path / "a.pth", Storage("0"), (2,), (1,), compressed=True)
    with pytest.raises(SourceError, match="is compressed"):
        tensors.load(path)


def test_damage_is_refused_with_the_file(tmp_path):
    whole = WRITTEN.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        path = tmp_path / f"{length}.pth"
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=rf"{length}.pth: is not a readable file"):
            tensors.load(path)
    with pytest.raises(SourceError, match="cannot be read"):
        tensors.load(tmp_path / "none.pth")


def test_files_without_tensors_are_refused(tmp_path):
    path = rewritten(tmp_path / "plain.pth", lambda _: pickle.dumps({"epoch": 3}, 2))
    with pytest.raises(SourceError, match="holds no tensors by name"):
        tensors.load(path)
