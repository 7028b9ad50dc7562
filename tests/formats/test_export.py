"""Motions in every format, read back by other libraries or as the formats' own rules say."""

import csv
import dataclasses
import json
import struct
import sys

import ezc3d
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pybvh
import pygltflib
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import skeleton
from pose3d_jax.errors import UserError
from pose3d_jax.formats import export
from pose3d_jax.formats.export import ExportError, Motion
from pose3d_jax.skeleton import Skeleton, SkeletonError
from tests.formats.test_animation import places
from tests.formats.test_kinematics import y_up
from tests.formats.test_mesh import array
from tests.walkers import WALKER, walkers

FPS = 23.976
SMALL = Skeleton("klein", ("hüfte", "knie", "fuß"), (-1, 0, 1), 0)


def some(frames=6, sk=WALKER, seed=0):
    """A motion with gaps, and a joint that is missing throughout; NaN where it is."""
    rng = np.random.default_rng(seed)
    joints = rng.normal(size=(frames, sk.size, 3))
    found = rng.uniform(size=(frames, sk.size)) < 0.8
    found[0, 0], found[:, -1] = True, False
    joints[~found] = np.nan
    return Motion(joints, sk, FPS, found.astype(np.float32), "Ünal Ørsted")


def walking(**other):
    joints = walkers(20) + np.array([0.0, 0.0, 1.0])
    return Motion(**{"joints": joints, "skeleton": WALKER, "fps": FPS, **other})


def written(folder, kind, motion, **options):
    path = folder / "new folder" / f"motion.{kind}"
    export.write(path, motion, **options)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing else is left there
    return path


def test_npz(tmp_path):
    motion = some()
    with np.load(written(tmp_path, "npz", motion), allow_pickle=False) as read:
        assert_allclose(read["joints"], motion.joints)
        assert_allclose(read["found"], motion.found > 0)
        assert tuple(read["names"]) == WALKER.joints
        assert tuple(read["parents"]) == WALKER.parents
        about = [str(read[key]) for key in ("name", "skeleton", "unit", "up")]
        assert about == ["Ünal Ørsted", "walker8", "m", "z"]
        assert read["fps"] == FPS
        assert "contact" not in read


def test_npz_with_contacts(tmp_path):
    contact = np.random.default_rng(1).random((20, 2)) < 0.5
    feet = ("right_ankle", "left_ankle")
    with np.load(written(tmp_path, "npz", walking(contact=contact, feet=feet))) as read:
        assert read["contact"].dtype == bool
        assert (read["contact"] == contact).all()
        assert tuple(read["feet"]) == feet


def test_json(tmp_path):
    motion = some()
    read = json.loads(written(tmp_path, "json", motion).read_text("utf-8"))
    joints = [[[np.nan] * 3 if place is None else place for place in f] for f in read["joints"]]
    assert_allclose(joints, motion.joints, atol=1e-6)
    assert read["names"] == list(WALKER.joints)
    assert read["parents"] == list(WALKER.parents)
    about = [read[key] for key in ("name", "skeleton", "unit", "up", "fps")]
    assert about == ["Ünal Ørsted", "walker8", "m", "z", FPS]


def test_csv(tmp_path):
    motion = some()
    with written(tmp_path, "csv", motion).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["frame"]) for row in rows] == list(range(6))
    assert_allclose([float(row["time"]) for row in rows], np.arange(6) / FPS, atol=1e-6)
    cells = [[[row[f"{j}_{a}"] for a in "xyz"] for j in WALKER.joints] for row in rows]
    joints = [[[float(x or "nan") for x in joint] for joint in frame] for frame in cells]
    assert_allclose(joints, motion.joints, atol=1e-6)
    assert len(rows[0]) == 2 + 3 * 8


def unsure(motion, seed=3):
    """The motion with a covariance for every joint."""
    factor = np.random.default_rng(seed).normal(size=(*motion.joints.shape, 3))
    covariance = 1e-4 * factor @ np.swapaxes(factor, -1, -2)
    return dataclasses.replace(motion, covariance=covariance)


def test_how_sure_joints_are_is_written(tmp_path):
    """As it is, and as standard deviations; what stood there before stays where it was."""
    motion = unsure(some())
    there = motion.found > 0
    deviation = np.sqrt(np.einsum("tjaa->tja", motion.covariance))
    deviation[~there] = np.nan
    with np.load(written(tmp_path / "npz", "npz", motion)) as read:
        assert_allclose(read["covariance"][there], motion.covariance[there])
        assert np.isnan(read["covariance"][~there]).all()
    read = json.loads(written(tmp_path / "json", "json", motion).read_text("utf-8"))
    found = [[[np.nan] * 3 if sd is None else sd for sd in frame] for frame in read["deviation"]]
    assert_allclose(found, deviation, atol=1e-6)
    with written(tmp_path / "csv", "csv", motion).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    with written(tmp_path / "plain_csv", "csv", some()).open(
        encoding="utf-8", newline=""
    ) as stream:
        plain = list(csv.reader(stream))
    assert [row[: len(plain[0])] for row in rows] == plain
    assert rows[0][-3:] == [f"{WALKER.joints[-1]}_{axis}_sd" for axis in "xyz"]
    numbers = [[float(x or "nan") for x in row[len(plain[0]) :]] for row in rows[1:]]
    assert_allclose(np.reshape(numbers, deviation.shape), deviation, atol=1e-6)
    with np.load(written(tmp_path / "plain_npz", "npz", some())) as read:
        assert "covariance" not in read
    assert "deviation" not in json.loads(
        written(tmp_path / "plain_json", "json", some()).read_text()
    )


def test_how_sure_joints_are_turns_with_the_axes(tmp_path):
    """Draws of a covariance, moved as joints are, have the covariance that is written."""
    motion = unsure(walking())
    with np.load(written(tmp_path, "npz", motion, y_up=True)) as read:
        found = read["covariance"][4, 2]
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(np.zeros(3), motion.covariance[4, 2], 200_000)
    assert_allclose(found, np.cov(y_up(draws).T), rtol=0.02, atol=1e-6)


def read_trc(path):
    """As OpenSim reads it (its guide, "Marker (.trc) Files"): a tab ends a field, empty ones count.

    Six lines of header, the last empty; then frames of as many fields as there are columns.
    """

    def fields(line):
        cut = line.split("\t")
        return cut if cut[-1] else cut[:-1]  # what is behind the last tab, unless nothing

    lines = path.read_bytes().decode("utf-8").split("\n")
    kind, keys, values, labels, axes, empty, *rows = lines
    assert kind.split("\t")[:3] == ["PathFileType", "4", "(X/Y/Z)"]
    about = dict(zip(fields(keys), fields(values), strict=True))
    names = [label for label in fields(labels) if label]
    assert names[:2] == ["Frame#", "Time"]
    assert [axis for axis in fields(axes) if axis] == [
        f"{axis}{n}" for n in range(1, len(names) - 1) for axis in "XYZ"
    ]
    assert empty == ""
    assert rows.pop() == ""
    table = [fields(row) for row in rows]
    assert {len(row) for row in table} == {2 + 3 * (len(names) - 2)}
    numbers = np.array([[float(x or "nan") for x in row] for row in table])
    return about, names[2:], numbers


def test_trc(tmp_path):
    motion = some()
    about, names, numbers = read_trc(written(tmp_path, "trc", motion))
    assert list(about) == [
        "DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units", "OrigDataRate",
        "OrigDataStartFrame", "OrigNumFrames",
    ]  # fmt: skip
    assert list(about.values()) == ["23.976", "23.976", "6", "8", "m", "23.976", "1", "6"]
    assert names == list(WALKER.joints)
    assert_allclose(numbers[:, 0], np.arange(1, 7))
    assert_allclose(numbers[:, 1], np.arange(6) / FPS, atol=1e-6)
    assert_allclose(numbers[:, 2:].reshape(6, 8, 3), y_up(motion.joints), atol=1e-6)


def test_c3d(tmp_path):
    motion = some()
    read = ezc3d.c3d(str(written(tmp_path, "c3d", motion)))
    point = read["parameters"]["POINT"]
    assert point["RATE"]["value"] == pytest.approx([FPS])
    assert point["UNITS"]["value"] == ["mm"]
    assert point["LABELS"]["value"] == list(WALKER.joints)
    joints = read["data"]["points"][:3].transpose(2, 1, 0)
    assert_allclose(joints, 1000 * motion.joints, rtol=1e-6)
    residuals = read["data"]["meta_points"]["residuals"][0].T
    assert_allclose(residuals, np.where(motion.found > 0, 0.0, -1.0))


def test_bvh(tmp_path):
    motion = walking()
    read = pybvh.read_bvh_file(str(written(tmp_path, "bvh", motion)), world_up="+y")
    order = [read.joint_names.index(name) for name in WALKER.joints]
    away = read.joint_positions()[:, order] - 100 * y_up(motion.joints)
    assert np.linalg.norm(away, axis=-1).mean() < 1.0  # the walkers' heads move from their hips
    standing = written(tmp_path, "bvh", motion, y_up=False)
    other = pybvh.read_bvh_file(str(standing), world_up="+z").joint_positions()
    assert_allclose(y_up(other), read.joint_positions(), atol=2e-4)


def test_glb(tmp_path):
    motion = walking(name="Ünal")
    gltf = pygltflib.GLTF2().load(str(written(tmp_path, "glb", motion)))
    for frame in (0, 19):
        found = places(gltf, frame)
        by_name = {gltf.nodes[n].name: matrix[:3, 3] for n, matrix in found.items()}
        away = np.stack([by_name[n] for n in WALKER.joints]) - y_up(motion.joints[frame])
        assert np.linalg.norm(away, axis=-1).mean() < 0.02


def test_who_comes_in_later_is_there_from_then_on(tmp_path, caplog):
    """In every format that can say it, as its readers have it."""
    motion, frames = walking(first=200), np.arange(200, 220)
    with np.load(written(tmp_path, "npz", motion)) as read:
        assert read["first_frame"] == 200
    assert json.loads(written(tmp_path / "json", "json", motion).read_text())["first_frame"] == 200
    with written(tmp_path / "csv", "csv", motion).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["frame"]) for row in rows] == frames.tolist()
    assert_allclose([float(row["time"]) for row in rows], frames / FPS, atol=1e-6)
    about, _, numbers = read_trc(written(tmp_path / "trc", "trc", motion))
    assert (about["OrigDataStartFrame"], about["NumFrames"]) == ("201", "20")
    assert_allclose(numbers[:, 0], frames + 1)
    assert_allclose(numbers[:, 1], frames / FPS, atol=1e-6)
    path = written(tmp_path / "c3d", "c3d", motion)
    points = ezc3d.c3d(str(path))["header"]["points"]  # which counts from 0
    assert (points["first_frame"], points["last_frame"]) == (200, 219)
    assert struct.unpack("<HH", path.read_bytes()[6:10]) == (201, 220)  # words 4 and 5, from 1
    gltf = pygltflib.GLTF2().load(str(written(tmp_path / "glb", "glb", motion)))
    (clock,) = {sampler.input for sampler in gltf.animations[0].samplers}
    assert_allclose(array(gltf, clock), frames / FPS, rtol=1e-6)
    assert not caplog.records


def test_frames_beyond_what_c3d_counts_are_told(tmp_path, caplog):
    joints = walkers(20)
    for first, held in ((65_515, 65_515), (65_516, 0)):
        path = written(tmp_path / str(first), "c3d", walking(joints=joints, first=first))
        read = ezc3d.c3d(str(path))
        assert read["header"]["points"]["first_frame"] == held
        assert_allclose(read["data"]["points"][:3].transpose(2, 1, 0), 1000 * joints, rtol=1e-5)
    (told,) = caplog.records
    assert "frames 65517 to 65536; there they are numbered from 1" in told.getMessage()


@pytest.mark.parametrize("kind", ["npz", "json", "csv", "c3d"])
def test_axes_may_be_others(tmp_path, kind):
    motion = some(sk=SMALL)
    expected = Motion(y_up(motion.joints), SMALL, FPS, motion.found, motion.name)
    turned = written(tmp_path / "a", kind, motion, y_up=True)
    plain = written(tmp_path / "b", kind, expected)
    if kind == "npz":
        with np.load(turned) as one, np.load(plain) as other:
            assert_allclose(one["joints"], other["joints"], atol=1e-12)
            assert (str(one["up"]), str(other["up"])) == ("y", "z")
    elif kind == "c3d":
        one, other = (ezc3d.c3d(str(path))["data"]["points"] for path in (turned, plain))
        assert_allclose(one, other)
    else:
        one, other = (path.read_text("utf-8") for path in (turned, plain))
        assert one.replace('"up": "y"', '"up": "z"').replace("-0.0,", "0.0,") == other


@pytest.mark.parametrize("kind", export.FORMATS)
@hypothesis.settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    fps=st.floats(0.5, 2000), frames=st.integers(1, 5), seed=st.integers(0, 99),
    sk=st.sampled_from([SMALL, WALKER, skeleton.get("body25"), Skeleton("o", ("тело",), (-1,), 0)]),
)  # fmt: skip
def test_whatever_is_missing_a_file_has_every_frame(tmp_path, kind, fps, frames, seed, sk):
    rng = np.random.default_rng(seed)
    found = rng.uniform(size=(frames, sk.size)) < rng.uniform(0.05, 1)
    found[rng.integers(frames), rng.integers(sk.size)] = True
    joints = np.where(found[..., None], rng.normal(size=(frames, sk.size, 3)), np.inf)
    path = tmp_path / f"motion.{kind}"
    export.write(path, Motion(joints, sk, fps, found, "名"))
    if kind == "bvh":
        read = pybvh.read_bvh_file(str(path), world_up="+y")
        assert read.frame_time == pytest.approx(1 / fps, rel=2e-4)  # which it rounds
        assert np.isfinite(read.joint_positions()).all()
        assert read.frame_count == frames
    elif kind == "glb":
        gltf = pygltflib.GLTF2().load(str(path))
        assert all(np.isfinite(list(places(gltf, frame).values())).all() for frame in range(frames))
    elif kind == "c3d":
        points = ezc3d.c3d(str(path))["data"]["points"][:3].transpose(2, 1, 0)
        assert_allclose(np.isfinite(points).all(-1), found)
    elif kind == "trc":
        _, names, numbers = read_trc(path)
        assert names == list(sk.joints)
        assert_allclose(np.isfinite(numbers[:, 2:]).reshape(frames, -1, 3).all(-1), found)
    elif kind == "csv":
        assert len(path.read_text("utf-8").splitlines()) == 1 + frames
    elif kind == "json":
        places_ = json.loads(path.read_text("utf-8"))["joints"]
        assert_allclose([[place is not None for place in f] for f in places_], found)
    else:
        with np.load(path) as read:
            assert_allclose(np.isfinite(read["joints"]).all(-1), found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": np.zeros((0, 8, 3))}, "0 frames with no joint in them"),
        ({"found": np.zeros((20, 8))}, "20 frames with no joint in them"),
        ({"joints": np.zeros((20, 5, 3))}, r"shape \[20, 5, 3\], but walker8 needs \[frames, 8, 3"),
        ({"found": np.ones((3, 8))}, r"found has shape \[3, 8\], but the joints \[20, 8, 3\]"),
        ({"joints": np.full((20, 8, 3), np.nan)}, r"pelvis is \[nan nan nan\] in frame 0; say by"),
        (
            {"contact": np.ones((3, 1), bool), "feet": ("a",)},
            r"contact has shape \[3, 1\]; give \[20, 1",
        ),
        (
            {"covariance": np.ones((20, 8, 3))},
            r"covariance has shape \[20, 8, 3\]; give \[20, 8, 3,",
        ),
        ({"covariance": np.full((20, 8, 3, 3), np.nan)}, "that was found holds NaN or infinity"),
        ({"fps": 0.0}, "0.0 frames per second; give a number above 0"),
        ({"fps": float("nan")}, "nan frames per second"),
        ({"first": -1}, "the first frame is -1; give a number from 0 on"),
        ({"skeleton": Skeleton("x", ("a b", *"cdefghi"), WALKER.parents, 0)}, "named 'a b'"),
        ({"skeleton": Skeleton("x", tuple("aabcdefg"), WALKER.parents, 0)}, "several joints of"),
    ],
)
@pytest.mark.parametrize("kind", export.FORMATS)
def test_motions_that_are_broken_are_refused(tmp_path, kind, change, message):
    kept = walking()
    fields = {"joints": kept.joints, "skeleton": WALKER, "fps": FPS, **change}
    motion = object.__new__(Motion)  # as it comes where nothing checks its shapes
    for key, value in {"found": None, "name": "person", **fields}.items():
        object.__setattr__(motion, key, value)
    with pytest.raises(ExportError, match=message) as caught:
        export.write(tmp_path / f"a.{kind}", motion)
    assert f"a.{kind}: " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_suffixes_are_refused_with_those_there_are(tmp_path):
    for name in ("a.fbx", "a"):
        with pytest.raises(ExportError, match="there are npz, csv, json, trc, c3d, bvh, glb"):
            export.write(tmp_path / name, walking())
    export.write(tmp_path / "A.CSV", walking())
    with pytest.raises(ExportError, match="glTF is y up always"):
        export.write(tmp_path / "a.glb", walking(), y_up=False)


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    alone = Skeleton("alone", ("a",), (-1,), 0)
    long = Motion(np.zeros((65_536, 1, 3)), alone, FPS)
    with pytest.raises(ExportError, match=r"a\.c3d: C3D counts 65535 frames, but there are 65536"):
        export.write(tmp_path / "a.c3d", long)
    two = Motion(np.zeros((2, 2, 3)), Skeleton("two", ("a", "b"), (-1, -1), 0), FPS)
    for kind in ("bvh", "glb"):
        with pytest.raises(SkeletonError, match="two has the roots a, b"):
            export.write(tmp_path / f"a.{kind}", two)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "library"), [("c3d", "ezc3d"), ("glb", "pygltflib")])
def test_a_missing_library_is_named_with_command_and_extra(tmp_path, monkeypatch, kind, library):
    path = written(tmp_path, kind, walking())
    before = path.read_bytes()
    monkeypatch.setitem(sys.modules, library, None)
    asked = rf"needs {library}; install it \(pip install {library}\), or .* extra `files`$"
    with pytest.raises(UserError, match=asked):
        export.write(path, walking())
    assert path.read_bytes() == before  # what was there is there
