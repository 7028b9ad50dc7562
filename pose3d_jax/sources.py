"""Reading what users hold: plain arrays out of npz files and pickles; errors name the file.

Object arrays and pickles come from anywhere, and a pickle may run anything. What is read here are
NumPy arrays and plain Python values; a file that asks for another class is refused by its name.
"""

import _codecs
import json
import pickle
import re
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.io import loadmat

from pose3d_jax.errors import UserError


class SourceError(UserError):
    """Original files that are missing or not what they should be."""


_REMEDY = "fetch or convert it again"
_RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]
# Stands for the class where pickles name it. Were it called, an array of objects on a buffer of
# bytes would take these for addresses.
_NDARRAY = object()


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """An empty array, whose state follows."""
    if kind is not _NDARRAY or shape != (0,):
        raise pickle.UnpicklingError("an array that does not begin as NumPy's do")
    return _RECONSTRUCT(np.ndarray, shape, code)


def _dtype(code: Any, *flags: Any) -> np.dtype:
    """The type of an array's elements, whose state may follow."""
    if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[?biufcSUVOmM]\d*", code):
        raise pickle.UnpicklingError(f"an array of {str(code)[:20]}")
    return np.dtype(code, *flags)


def _changes_little(kind: np.dtype, state: Any) -> bool:
    """Whether a state leaves a type what it is, but for the order of bytes."""
    _, _, base, names, fields, size, alignment, flags = state[:8]
    same = (base, names, fields, flags) == (None, None, None, kind.flags)
    return same and size in (-1, kind.itemsize) and alignment in (-1, kind.alignment)


# Where NumPy keeps what its pickles name; the module has moved between versions.
_NUMPY = {
    "_reconstruct": _reconstruct,
    "_frombuffer": np.zeros(0).__reduce_ex__(5)[0],
    "scalar": np.float64(0).__reduce__()[0],
    "ndarray": _NDARRAY,
    "dtype": _dtype,
}
_NUMPY_MODULES = (
    "numpy",
    "numpy.core.multiarray",
    "numpy.core.numeric",
    "numpy._core.multiarray",
    "numpy._core.numeric",
)


class Inert:
    """An object of a class that a caller names, as its pickle has it: its state; nothing runs."""

    def __new__(cls, *arguments: Any) -> "Inert":
        """Takes no arguments: pickles of such objects give a state."""
        if arguments:
            raise pickle.UnpicklingError(f"a {cls.__name__} that does not begin empty")
        return super().__new__(cls)

    def __init__(self) -> None:
        self.state: Any = None


def _reconstructor(kind: Any, base: Any, state: Any) -> Inert:
    """What `copyreg` makes of a class before its state follows."""
    if not (isinstance(kind, type) and issubclass(kind, Inert)) or base is not _OBJECT or state:
        raise pickle.UnpicklingError("an object that does not begin empty")
    made = kind()
    assert isinstance(made, Inert)
    return made


_OBJECT = object()  # stands for the class where pickles name it
_PLAIN = {
    kind.__name__: kind
    for kind in (
        dict, list, tuple, set, frozenset, complex, bytes, bytearray, int, float, bool, str
    )
}  # fmt: skip
_DICTS = {kind.__name__: kind for kind in (OrderedDict, defaultdict)}


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How bytes stand in pickles that Python 2 can read; `codecs.encode` itself can do more."""
    if encoding not in ("latin1", "latin-1", "utf8", "utf-8", "ascii"):
        raise pickle.UnpicklingError(f"text encoded as {encoding}")
    return _codecs.encode(text, encoding)


# The one in C cannot look at the states of arrays before they are set.
class PlainUnpickler(pickle._Unpickler):
    """Admits NumPy arrays, numbers and plain Python values only."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: Any, *, encoding: str, inert: tuple[str, ...] = ()) -> None:
        super().__init__(stream, encoding=encoding)
        self._inert = inert

    def _load_build(self) -> None:
        *_, made, state = self.stack  # type: ignore[attr-defined]
        if isinstance(made, Inert):
            made.state = self.stack.pop()  # type: ignore[attr-defined]
            return
        if type(made) is OrderedDict:  # whose attributes nobody asks for
            self.stack.pop()  # type: ignore[attr-defined]
            return
        if not isinstance(made, np.ndarray) and not (
            isinstance(made, np.dtype) and _changes_little(made, state)
        ):
            raise pickle.UnpicklingError(f"a state for {type(made).__name__} {made!s:.20}")
        self.load_build()  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = _load_build  # type: ignore[assignment]

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class; raises `Refused`."""
        if module in _NUMPY_MODULES and name in _NUMPY:
            return _NUMPY[name]
        if module in ("builtins", "__builtin__"):
            if name in _PLAIN:
                return _PLAIN[name]
            if module == "__builtin__" and name in ("unicode", "long"):  # Python 2's
                return {"unicode": str, "long": int}[name]
        if module == "collections" and name in _DICTS:
            return _DICTS[name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if self._inert:
            if module in ("copyreg", "copy_reg") and name == "_reconstructor":
                return _reconstructor
            if module in ("builtins", "__builtin__") and name == "object":
                return _OBJECT
            if module.partition(".")[0] in self._inert:
                return type(name, (Inert,), {"__module__": module})
        raise Refused(f"{module}.{name}")


class Refused(Exception):
    """A class that is neither NumPy's nor plain Python's."""


def load_pickle(path: str | Path, encoding: str = "latin1", inert: tuple[str, ...] = ()) -> Any:
    """What a pickle holds: arrays, numbers, text, and dicts, lists and tuples of them.

    `encoding` reads the byte strings of Python 2 (`latin1` keeps its arrays whole). Objects of the
    libraries named in `inert` come as `Inert`, with their state and without their code. Raises
    `SourceError` for a file that is missing or damaged, or that holds any other class.
    """
    with opened(path) as stream:
        return _unpickle(stream, str(path), encoding, inert)


def load_npz(path: str | Path, *keys: str) -> dict[str, Any]:
    """The members of an npz file by key; an object array of no axes comes as the object itself.

    With `keys`, other members are not read, whatever they hold, and come as None. Object arrays are
    held to what `load_pickle` admits. Raises `SourceError` as it does.
    """
    members: dict[str, Any] = {}
    with opened(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
            for name in archive.namelist():
                key = name.removesuffix(".npy")
                if keys and key not in keys:
                    members[key] = None
                    continue
                with archive.open(name) as member_stream:
                    members[key] = _read_member(member_stream, f"{path}, key {key}")
        except SourceError:
            raise
        # What damage makes of the zip, its compression, and the headers in it.
        except Exception as error:
            raise SourceError(
                f"{path}: is not a readable npz file ({short(error)}); {_REMEDY}"
            ) from error
    return members


def load_mat(path: str | Path, *keys: str) -> dict[str, Any]:
    """These keys of a MATLAB file (version 7 or older); `SourceError` if they cannot be read."""
    try:
        table = loadmat(path, variable_names=keys)
    # What damage makes of its header, its compression, and the types in it.
    except Exception as error:
        raise SourceError(
            f"{path}: is not a readable MATLAB file ({short(error)}); {_REMEDY}"
        ) from error
    return {key: member(table, key, str(path)) for key in keys}


def load_json(path: str | Path) -> Any:
    """What a JSON file holds; `SourceError` if it is missing or damaged."""
    with opened(path) as stream:
        try:
            return json.load(stream)
        except (ValueError, RecursionError) as error:  # also text that is not UTF-8
            raise SourceError(
                f"{path}: is not readable JSON ({short(error)}); fetch or extract it again"
            ) from error


def _read_member(stream: Any, where: str) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject:
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    found = _unpickle(stream, where, "latin1")
    if isinstance(found, np.ndarray) and found.shape == () and shape == ():
        return found.item()
    return found


def _unpickle(stream: Any, where: str, encoding: str, inert: tuple[str, ...] = ()) -> Any:
    try:
        return PlainUnpickler(stream, encoding=encoding, inert=inert).load()
    except Refused as refused:
        raise SourceError(
            f"{where}: holds {refused}, which is no array or plain value and is not loaded, since "
            f"a pickle can run code; save arrays, numbers, text, dicts and lists only"
        ) from refused
    # A damaged pickle fails in any way: opcodes build what they say from bytes that are anything.
    except Exception as error:
        raise SourceError(f"{where}: is not a readable pickle ({short(error)}); {_REMEDY}") from (
            error
        )


def short(error: BaseException) -> str:
    """What an error says, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:100]}" if text else type(error).__name__


def opened(path: str | Path) -> Any:
    """A file's bytes, to be read; `SourceError` if they cannot be."""
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def member(table: Any, key: Any, where: str) -> Any:
    """`table[key]`, or `SourceError` naming the file (`where`), the key, and the keys there are."""
    if not isinstance(table, Mapping):
        raise SourceError(f"{where}: is {_kind(table)}, not a dict with {key!r}; {_REMEDY}")
    if key not in table:
        there = ", ".join(map(str, list(table)[:12])) or "none"
        raise SourceError(f"{where}: has no {key!r}; it has {there}. {_REMEDY.capitalize()}")
    return table[key]


def array(value: Any, shape: tuple[int | None, ...], where: str, *, finite: bool = True):
    """The value as a float64 array of that shape; None stands for any length.

    Raises `SourceError` naming `where` (file and key), what is there and what should be, for what
    is no array of numbers, has another shape, or (unless `finite` is off) a NaN or an infinity.
    """
    expected = f"[{', '.join('any' if n is None else str(n) for n in shape)}]"
    try:
        found = np.asarray(value)
        numeric = found.dtype.kind in "biuf"
    except ValueError:  # lists of several lengths
        numeric = False
    if not numeric:
        raise SourceError(
            f"{where}: is {_kind(value)}, not an array of numbers {expected}; {_REMEDY}"
        )
    if found.ndim != len(shape) or any(
        n not in (None, m) for n, m in zip(shape, found.shape, strict=True)
    ):
        raise SourceError(
            f"{where}: has shape {list(found.shape)}, expected {expected}; it may be of "
            f"another layout or joint set; {_REMEDY}"
        )
    found = found.astype(np.float64)
    if finite and not np.isfinite(found).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(found))[0]]
        raise SourceError(f"{where}: is {found[tuple(at)]} at index {at}; {_REMEDY}")
    return found


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {list(value.shape)}"
    return f"a {type(value).__name__}"


def natural(path: Path) -> list[tuple[int, str]]:
    """What to sort files by: numbers in the name by their value, so that cam2 is before cam10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(x), "") if i % 2 else (-1, x.lower()) for i, x in enumerate(parts)]
