"""Keypoints as tables: CSV, a row for a person or for a joint, and NPZ. Confidences are in [0, 1].

CSV has the columns `frame`, where there are several `view` and `person` (a whole number that says
who it is), and either JOINT_x, JOINT_y, JOINT_confidence of each joint, or `joint`, `x`, `y`,
`confidence`. Joints are named as in one of the registry's sets, in any order. An empty cell is NaN.

NPZ has `keypoints [T, V, J, 2]`, `confidence [T, V, J]`, or `[T, V, P, J, ...]` for several people
in any order; `skeleton`, a name of the registry, `views`, their names, and, where wanted, `ids
[T, V, P]`, who is who (-1 unknown), `first`, the number of the first frame, `fps`, and `picture [V,
6]`, what of each view's frames is picture (`keypoint_people.Picture`).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pose3d_jax import skeleton, sources
from pose3d_jax.formats.keypoint_people import NOBODY, Person, Picture, Seen, by_names, person
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.sources import SourceError

Array = np.ndarray
_NUMBERS = ("x", "y", "confidence")
_WHO = ("frame", "view", "person")
_Key = tuple[str, int, int]  # view, frame, identity
_Row = tuple[str, dict[str, str]]  # what errors call it; its cells


def csv_file(path: str | Path, wanted: str = "") -> dict[str, Seen]:
    """The views of a CSV file; one without the column `view` is named as the file."""
    columns, rows = _rows(path)
    if "frame" not in columns:
        raise SourceError(f"{path}: has no column `frame`; it has {', '.join(columns)}")
    if {"joint", *_NUMBERS} <= set(columns):
        joints, people = _long(columns, rows, wanted, str(path))
    else:
        joints, people = _wide(columns, rows, wanted, str(path))
    views: dict[str, Seen] = {}
    for (view, frame, identity), (where, values) in people.items():
        found = person(values, where, joints.name, identity=identity, scores=None)
        seen = views.setdefault(view, Seen({}, joints.name))
        seen.frames.setdefault(frame, []).append(found)
    return views


def _rows(path: str | Path) -> tuple[list[str], list[_Row]]:
    with sources.opened(path) as stream:
        try:
            lines = list(csv.reader(io.StringIO(stream.read().decode("utf-8-sig"), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(
                f"{path}: is not readable CSV ({sources.short(error)}); write it again, as UTF-8"
            ) from error
    columns = [cell.strip() for cell in lines[0]] if lines else []
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise SourceError(f"{path}: has the columns {', '.join(twice)} twice; keep one of each")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}, line {number}"
        if line and len(line) != len(columns):
            raise SourceError(
                f"{where}: has {len(line)} cells for {len(columns)} columns; write it again"
            )
        if line:
            cells = [cell.strip() for cell in line]
            rows.append((where, dict(zip(columns, cells, strict=True))))
    return columns, rows


def _wide(
    columns: Sequence[str], rows: Sequence[_Row], wanted: str, where: str
) -> tuple[Skeleton, dict[_Key, tuple[str, Array]]]:
    """A row for each person and frame."""
    parts = [name.rpartition("_") for name in columns if name not in _WHO]
    other = ["_".join((joint, end)).strip("_") for joint, _, end in parts if end not in _NUMBERS]
    if other or not parts:
        raise SourceError(
            f"{where}: has the columns {', '.join(other or columns)}, which are not frame, view, "
            f"person, JOINT_x, JOINT_y, JOINT_confidence, nor frame, joint, x, y, confidence"
        )
    names = list(dict.fromkeys(joint for joint, _, _ in parts))
    lacking = [f"{j}_{end}" for j in names for end in _NUMBERS if f"{j}_{end}" not in columns]
    if lacking:
        raise SourceError(f"{where}: has no columns {', '.join(lacking)}; write them, too")
    joints = _set(names, wanted, where)
    found: dict[_Key, tuple[str, Array]] = {}
    for place, row in rows:
        key = _key(row, place, where)
        if key in found:
            raise SourceError(
                f"{place}: is a second row of {_named(key)}; keep one, or add `person`"
            )
        values = np.zeros((joints.size, 3))
        for name in names:
            cells = {end: row[f"{name}_{end}"] for end in _NUMBERS}
            values[joints.joints.index(name)] = _values(cells, f"{place}, {name}")
        found[key] = (f"{place}, {_named(key)}", values)
    return joints, found


def _long(
    columns: Sequence[str], rows: Sequence[_Row], wanted: str, where: str
) -> tuple[Skeleton, dict[_Key, tuple[str, Array]]]:
    """A row for each joint; joints without a row were not found."""
    other = sorted(set(columns) - {"joint", *_NUMBERS, *_WHO})
    if other:
        raise SourceError(f"{where}: has the columns {', '.join(other)}, too; take them out")
    joints = _set(list(dict.fromkeys(row["joint"] for _, row in rows)), wanted, where)
    found: dict[_Key, tuple[str, Array]] = {}
    filled: set[tuple[_Key, str]] = set()
    for place, row in rows:
        key, name = _key(row, place, where), row["joint"]
        if (key, name) in filled:
            raise SourceError(
                f"{place}: is a second row of {name} of {_named(key)}; keep one, or add `person`"
            )
        filled.add((key, name))
        _, values = found.setdefault(key, (f"{where}, {_named(key)}", np.zeros((joints.size, 3))))
        values[joints.joints.index(name)] = _values(row, f"{place}, {name}")
    return joints, found


def _set(names: Sequence[str], wanted: str, where: str) -> Skeleton:
    """The joint set of these names; of one that is wanted, some may be lacking."""
    if not wanted:
        return by_names(names, where)
    joints = skeleton.get(wanted)
    other = [name for name in names if name not in joints.joints]
    if other:
        raise SourceError(f"{where}: has {', '.join(other)}, which {wanted} has not; rename them")
    return joints


def _values(cells: Mapping[str, str], where: str) -> list[float]:
    """x, y, confidence of a joint."""
    try:
        return [float(cells[name] or "nan") for name in _NUMBERS]
    except ValueError as error:
        raise SourceError(f"{where}: holds what is no number ({error}); correct it") from error


def _key(row: Mapping[str, str], where: str, path: str) -> _Key:
    def whole(name: str) -> int:
        try:
            value = float(row[name])
        except ValueError:
            value = -1.0
        if not value.is_integer() or value < 0:
            raise SourceError(f"{where}: has {name} {row[name]!r}, not 0, 1, 2, ...; correct it")
        return int(value)

    view = row.get("view", Path(path).stem)
    if not view:
        raise SourceError(f"{where}: has no view's name; fill the column, or leave it out")
    return view, whole("frame"), whole("person") if "person" in row else NOBODY


def _named(key: _Key) -> str:
    view, frame, identity = key
    return f"view {view}, frame {frame}" + ("" if identity == NOBODY else f", person {identity}")


def npz_file(path: str | Path, wanted: str = "") -> dict[str, Seen]:
    """The views of an NPZ file. Raises `SourceError` for other members, shapes and values."""
    needed = ("keypoints", "confidence", "skeleton", "views")
    table = sources.load_npz(path, *needed, "ids", "first", "fps", "picture")
    members = {key: sources.member(table, key, str(path)) for key in needed}
    points = np.asarray(members["keypoints"])
    if points.ndim not in (4, 5) or points.shape[-1] != 2:
        raise SourceError(
            f"{path}: its keypoints have shape {list(points.shape)}, not [frames, views, joints, "
            f"2] or [frames, views, people, joints, 2]; save them so"
        )
    joints = skeleton.get(str(members["skeleton"]))
    if wanted not in ("", joints.name):
        raise SourceError(f"{path}: its joints are {joints.name}, not {wanted}; name that one")
    shape = (*points.shape[:-2], joints.size)
    points = sources.array(points, (*shape, 2), f"{path}, keypoints", finite=False)
    score = sources.array(members["confidence"], shape, f"{path}, confidence", finite=False)
    names = [str(name) for name in np.atleast_1d(members["views"])]
    if len(set(names)) != shape[1]:
        raise SourceError(
            f"{path}: has keypoints of {shape[1]} views, but the names {', '.join(names)}; give "
            f"each its own"
        )
    if points.ndim == 4:
        points, score = points[:, :, None], score[:, :, None]
    ids = np.full(score.shape[:-1], NOBODY)
    if table.get("ids") is not None:
        ids = sources.array(table["ids"], ids.shape, f"{path}, ids").astype(int)
    first = 0
    if table.get("first") is not None:
        first = int(sources.array(table["first"], (), f"{path}, first"))
    pictures: list[Picture | None] = [None] * len(names)
    fps = None
    if table.get("picture") is not None:
        inside = sources.array(table["picture"], (len(names), 6), f"{path}, picture")
        if (inside[:, 2:] <= 0).any():
            raise SourceError(f"{path}: its `picture` has sizes that are not above 0; leave it out")
        pictures = [Picture(*(float(x) for x in of)) for of in inside]
    if table.get("fps") is not None:
        fps = float(sources.array(table["fps"], (), f"{path}, fps")) or None
        if fps is not None and fps < 0:
            raise SourceError(
                f"{path}: its `fps` is {fps:g}; give frames per second, or leave it out"
            )
    values = np.concatenate([points, score[..., None]], axis=-1)

    def people(frame: int, view: int) -> list[Person]:
        where = f"{path}, view {names[view]}, frame {first + frame}"
        return [
            person(
                v, f"{where}, person {i}", joints.name, identity=max(int(who), NOBODY), scores=None
            )
            for i, (v, who) in enumerate(zip(values[frame, view], ids[frame, view], strict=True))
        ]

    return {
        name: Seen(
            {first + t: people(t, view) for t in range(len(values))},
            joints.name,
            pictures[view],
            fps,
        )
        for view, name in enumerate(names)
    }
