"""What is read of files from anywhere: arrays and plain values, and nothing that runs code."""

import contextlib
import io
import json
import pickle
import pickletools
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from pose3d_jax import sources
from pose3d_jax.sources import SourceError
from tests.layouts import people

ARRAYS = {
    "float32": np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 4, 3),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "text": np.array(["Walking 1", "Jog"]),
    "bytes": np.array([b"S1", b"S11"]),
    "dates": np.array(["2018-11-28"], "datetime64[D]"),
    "no frames": np.zeros((0, 15, 3)),
    "no axes": np.array(2.5),
}
VALUES = {
    **ARRAYS,
    "objects": np.array([np.zeros((2, 2)), None, "a", {"b": 1}], object),
    "scalars": [np.float64(0.5), np.float32(2), np.int64(-3), np.bool_(True), np.str_("C1")],
    "plain": {"a": [1, 2.5, True, None], "b": (b"", b"raw", "\u00e9"), "c": {1, 2}, "d": 1j},
    "more": [frozenset({1}), bytearray(b"x"), OrderedDict(a=1), 10**30],
    "defaults": defaultdict(dict, {"S1": {"Walking 1": np.ones(2)}}),
}


def assert_same(found, expected):
    if isinstance(expected, np.ndarray):
        # NumPy turns the bytes of big-endian arrays as it reads a pickle.
        assert found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        assert found.shape == expected.shape
        for mine, theirs in zip(found.ravel(), expected.ravel(), strict=True):
            assert_same(mine, theirs)
    elif isinstance(expected, dict):
        assert type(found) is type(expected)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert_same(mine, theirs)
    else:
        assert type(found) is type(expected)
        assert found == expected


def saved(path, raw):
    path.write_bytes(raw)
    return path


def refused(path, raw):
    with pytest.raises(SourceError) as caught:
        sources.load_pickle(saved(path, raw))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_numpy_and_python_write_is_read(tmp_path, value, protocol):
    path = saved(tmp_path / "x.pkl", pickle.dumps(value, protocol=protocol))
    assert_same(sources.load_pickle(path), value)


@pytest.mark.parametrize("name", ["float32", "fortran", "strided", "text", "no frames", "objects"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_what_numpy_1_wrote_is_read(tmp_path, name, protocol):
    raw = pickle.dumps({"a": VALUES[name], "b": np.float64(0.5)}, protocol=protocol)
    old = raw.replace(b"cnumpy._core.", b"cnumpy.core.")
    for module in ("multiarray", "numeric"):  # as counted text, as of protocol 4
        new_name, old_name = f"numpy._core.{module}".encode(), f"numpy.core.{module}".encode()
        old = old.replace(
            b"\x8c" + bytes([len(new_name)]) + new_name, b"\x8c" + bytes([len(old_name)]) + old_name
        )
    if protocol > 3:  # the frame's length no longer holds; without frames it need not
        old = old.replace(raw[2:11], b"", 1)
    assert b"_core" not in old
    path = saved(tmp_path / "x.pkl", old)
    assert_same(sources.load_pickle(path), {"a": VALUES[name], "b": np.float64(0.5)})


def test_what_python_2_wrote_is_read(tmp_path):
    value = {"S1": [np.arange(300.0).reshape(100, 3), np.float32(0.5)], "name": "Walking 1"}
    path = saved(tmp_path / "x.pkl", people.old_pickle(value, protocol=2))
    assert_same(sources.load_pickle(path), value)


@pytest.mark.parametrize("modern", [True, False])
def test_members_of_an_npz_file(tmp_path, modern):
    nested = {"S1": {"Walking 1": [np.zeros((4, 15, 2), np.float32), None]}}
    members = {
        "nested": nested,
        "plain": np.arange(3),
        "objects": VALUES["objects"],
        "n": np.int64(2),
    }
    people.npz(tmp_path / "x.npz", modern=modern, **members)
    found = sources.load_npz(tmp_path / "x.npz")
    assert_same(found, {**members, "n": np.array(2)})
    some = sources.load_npz(tmp_path / "x.npz", "plain")
    assert_same(some, {"nested": None, "plain": np.arange(3), "objects": None, "n": None})


def test_members_that_are_not_asked_for_may_hold_anything(tmp_path):
    people.npz(tmp_path / "x.npz", poses={"S1": 1}, args={"lr": 1})
    people.foreign_npz(tmp_path / "x.npz", "args", "os.system")
    assert sources.load_npz(tmp_path / "x.npz", "poses")["poses"] == {"S1": 1}
    with pytest.raises(SourceError, match=r"x.npz, key args: holds os.system, which is no array"):
        sources.load_npz(tmp_path / "x.npz")


def test_structured_arrays_are_read_where_no_pickle_holds_them(tmp_path):
    table = np.array([(1, 2.5)], [("frame", "i4"), ("x", "f8")])
    np.savez(tmp_path / "x.npz", table=table)
    found = sources.load_npz(tmp_path / "x.npz")["table"]
    np.testing.assert_array_equal(found, table)
    assert "a state for" in refused(tmp_path / "x.pkl", pickle.dumps(table))


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "posix.system", "builtins.eval", "builtins.getattr", "builtins.__import__",
        "__builtin__.eval", "numpy.fromfile", "numpy.load", "numpy.core.multiarray.fromfile",
        "numpy.f2py.crackfortran.myeval", "numpy.testing._private.utils.runstring",
        "functools.partial", "operator.attrgetter", "codecs.encode", "_codecs.decode",
        "collections.namedtuple", "copyreg._reconstructor", "argparse.Namespace",
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(tmp_path, name):
    module, _, last = name.rpartition(".")
    raw = f"c{module}\n{last}\n(S'1'\ntR.".encode()
    said = refused(tmp_path / "x.pkl", raw)
    assert f"holds {name}, which is no array or plain value" in said
    # As protocol 4 names it, where a name may have dots.
    stack = pickle.PROTO + b"\x04"
    for part in (module, last):
        stack += pickle.SHORT_BINUNICODE + bytes([len(part)]) + part.encode()
    assert f"holds {name}," in refused(tmp_path / "x.pkl", stack + pickle.STACK_GLOBAL + b".")


def test_a_name_with_dots_leads_nowhere(tmp_path):
    raw = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    assert "holds numpy.ndarray.tofile," in refused(tmp_path / "x.pkl", raw)


@pytest.mark.parametrize("encoding", ["rot13", "zip", "unicode_escape", "idna"])
def test_text_is_encoded_in_no_other_way(tmp_path, encoding):
    raw = f"c_codecs\nencode\n(Va\nV{encoding}\ntR.".encode()
    assert f"text encoded as {encoding}" in refused(tmp_path / "x.pkl", raw)


class _Array:
    """Pickles as an array of a type whose state is made up."""

    def __init__(self, code, state, shape=(2,)):
        self.code, self.state, self.shape = code, state, shape

    def __reduce__(self):
        made = (np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"))
        raw = b"\x01\x02\x03\x04\x05\x06\x07\x08" * 2
        return *made, (1, self.shape, _Type(self.code, self.state), False, raw)


class _Type:
    def __init__(self, code, state):
        self.code, self.state = code, state

    def __reduce__(self):
        return np.dtype, (self.code, False, True), self.state


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("O8", (3, "|", None, None, None, -1, -1, 0)),
        ("f8", (3, "<", None, None, None, -1, -1, 63)),
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("f8"), 0)}, 8, 1, 63)),
        ("S8", (3, "|", None, None, None, 800, 1, 0)),
    ],
)
def test_bytes_do_not_become_addresses(tmp_path, code, state):
    said = refused(tmp_path / "x.pkl", pickle.dumps(_Array(code, state), protocol=2))
    assert "UnpicklingError: a state for" in said


def test_the_class_of_arrays_is_not_called(tmp_path):
    class Called:
        def __reduce__(self):
            return np.ndarray, ((1,), "O", b"12345678")

    assert "TypeError" in refused(tmp_path / "x.pkl", pickle.dumps(Called(), protocol=2))


def test_nothing_that_is_admitted_is_changed(tmp_path):
    raw = b"c_codecs\nencode\n(N}V__defaults__\n(Vrot13\ntstb."
    assert "a state for function" in refused(tmp_path / "x.pkl", raw)
    assert sources._encode("a") == b"a"


def test_damaged_pickles_are_errors_that_say_so(tmp_path):
    whole = pickle.dumps({"S1": np.arange(40.0), "b": [np.float32(1)]}, protocol=3)
    for _, _, position in list(pickletools.genops(whole))[1:]:
        said = refused(tmp_path / "x.pkl", whole[:position])
        assert "is not a readable pickle" in said
        assert "fetch or convert it again" in said
    rng = np.random.default_rng(0)
    for _ in range(200):
        raw = bytearray(whole)
        raw[rng.integers(len(raw))] = rng.integers(256)
        with contextlib.suppress(SourceError):  # and no other error
            sources.load_pickle(saved(tmp_path / "x.pkl", bytes(raw)))


@pytest.mark.parametrize("read", [sources.load_npz, sources.load_pickle, sources.load_json])
def test_files_that_are_missing_or_no_such_files(tmp_path, read):
    with pytest.raises(SourceError, match=r"absent: cannot be read \(No such file"):
        read(tmp_path / "absent")
    with pytest.raises(SourceError, match=r"cannot be read \(Is a directory"):
        read(tmp_path)
    for raw in (b"", b"<!DOCTYPE html>", b"\xff\xd8\xff"):
        with pytest.raises(SourceError, match=r"x: is not a? ?readable"):
            read(saved(tmp_path / "x", raw))


def test_npz_files_that_end_early(tmp_path):
    path = tmp_path / "x.npz"
    people.npz(path, positions_3d={"S1": {"a": np.random.default_rng(0).normal(size=(50, 45))}})
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        saved(path, whole[: int(share * len(whole))])
        with pytest.raises(SourceError, match=r"x.npz: is not a readable npz file"):
            sources.load_npz(path)
    with zipfile.ZipFile(path, "w") as archive:  # whole as a zip, but not in it
        stream = io.BytesIO()
        people.raw_npz_entry(stream, (), pickle.dumps(np.array({}, object), protocol=3)[:-20])
        archive.writestr("positions_3d.npy", stream.getvalue())
    with pytest.raises(SourceError, match=r"x.npz, key positions_3d: is not a readable pickle"):
        sources.load_npz(path)


def test_members_and_arrays_are_errors_that_name_what_is_there():
    with pytest.raises(SourceError, match=r"f: has no 'b'; it has a. Fetch"):
        sources.member({"a": 1}, "b", "f")
    with pytest.raises(SourceError, match=r"f: is a list, not a dict with 'b'"):
        sources.member([1], "b", "f")
    assert sources.array([[1, 2]], (None, 2), "f").dtype == np.float64
    with pytest.raises(SourceError, match=r"shape \[1, 2\], expected \[any, 3\]"):
        sources.array([[1, 2]], (None, 3), "f")
    with pytest.raises(SourceError, match=r"f: is nan at index \[1\]"):
        sources.array([0, np.nan], (2,), "f")
    with pytest.raises(SourceError, match=r"f: is a list, not an array of numbers"):
        sources.array([[1], [1, 2]], (None, None), "f")
    with pytest.raises(SourceError, match=r"an array of object of shape \[2\]"):
        sources.array(np.array([1, "a"], object), (2,), "f")


def test_json(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"a": [1, 2]}))
    assert sources.load_json(path) == {"a": [1, 2]}
