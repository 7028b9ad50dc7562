"""PyTorch's files: the tensors in them by name, without PyTorch and without running the files."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pose3d_jax import sources
from pose3d_jax.sources import PlainUnpickler, SourceError

# Of `torch.save`'s storages, by their classes' names.
_TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_STATES = ("state_dict", "model", "model_state_dict")  # where training scripts keep the tensors


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file that `torch.save` wrote (version 1.6 or later), or of an npz.

    They are the whole of the file or its `state_dict` or `model`; what is no tensor is left out.
    Raises `SourceError` for a file that cannot be read, holds classes that are neither plain
    Python's nor tensors, or has no tensors by name.
    """
    if Path(path).suffix == ".npz":
        found = sources.load_npz(path)
    else:
        found = _load_zip(path)
        for key in _STATES:
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
    if isinstance(found, Mapping):
        table = {str(name): x for name, x in found.items() if isinstance(x, np.ndarray)}
        if table:
            return table
    raise SourceError(
        f"{path}: holds no tensors by name; save a network's state_dict, and nothing around it"
    )


def _load_zip(path: str | Path) -> Any:
    with sources.opened(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            root = names[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise SourceError(f"{path}: was written on a machine of another order of bytes")
            with archive.open(names[0]) as pickled:
                return _TensorUnpickler(pickled, archive, root).load()
        except SourceError:
            raise
        except sources.Refused as refused:
            raise SourceError(
                f"{path}: holds {refused}, which is no tensor or plain value and is not loaded, "
                f"since a pickle can run code; save the state_dict alone"
            ) from refused
        # What damage makes of the zip and of the pickle in it.
        except Exception as error:
            raise SourceError(
                f"{path}: is not a readable file of torch.save ({sources.short(error)}); fetch it "
                f"again, or save it with a PyTorch of 1.6 or later"
            ) from error


class _TensorUnpickler(PlainUnpickler):
    """Admits tensors beside what the plain one does; they come as arrays."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream, encoding="utf-8")
        self._archive, self._root = archive, root
        self._read: dict[Any, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> "_Storage":
        """The numbers of a storage, each read once."""
        _, kind, key, _, count = pid
        if kind not in _TYPES.values() or type(count) is not int:
            raise ValueError("a storage that is none")
        if key not in self._read:
            info = self._archive.getinfo(f"{self._root}data/{key}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("a storage that is compressed, as PyTorch writes none")
            raw = self._archive.read(info)
            self._read[key] = _Storage(np.frombuffer(raw, kind, len(raw) // kind.itemsize))
        return self._read[key]


class _Storage:
    """Numbers that tensors are made of; not an array, which a pickle could make up."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray:
    """What `torch._utils._rebuild_tensor_v2` makes, of numbers that are all in the storage."""
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise ValueError("a tensor that is not of a storage")
    # NumPy's integers would wrap in the sums below.
    if any(type(x) is not int or x < 0 for x in (offset, *size, *stride)):
        raise ValueError("a tensor whose size is no number")
    numbers = storage.numbers
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and last >= len(numbers):
        raise ValueError("a tensor that leaves its storage")
    if count > len(numbers):
        raise ValueError("a tensor larger than its storage")
    if not count:
        return np.zeros(size, numbers.dtype)
    steps = [s * numbers.itemsize for s in stride]
    view = np.lib.stride_tricks.as_strided(numbers[offset:], size, steps, writeable=False)
    wide = np.float32 if numbers.dtype == ml_dtypes.bfloat16 else None
    return np.array(view, wide)


def _parameter(tensor: Any, *rest: Any) -> Any:
    """What `torch._utils._rebuild_parameter` makes: the tensor in it."""
    return tensor
