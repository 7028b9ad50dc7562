"""The containers in which Human3.6M and HumanEva are held: npz pairs, and CDF or HDF5 files.

An npz member that is a dict loads whole; CDF and HDF5 files hold one sequence each and are read
when it is asked for.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cdflib
import h5py
import numpy as np

from data_prep.proof import Proof
from pose3d_jax import skeleton, sources
from pose3d_jax.sources import SourceError

# The 32 recorded joints include doubles and ends of fingers and toes; these are h36m17, in order.
KEPT = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
_BEYOND = 0.5  # what a heatmap's maximum, taken as a confidence, may be off 0 ... 1
_SPELLINGS = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
_LAYOUTS = {
    "coco": "coco17",
    "h36m": "h36m17",
    "humaneva15": "humaneva15",
    "humaneva20": "humaneva20",
    "mpii": "mpii16",
}

Key = tuple[str, str, str]  # subject, action, trial ("" where files have no number)
Reader = Callable[[], np.ndarray]
Poses = dict[Key, Reader]  # of [T, 17, 3], world, metres


class Detections(NamedTuple):
    """2D points in the files' own joint set; a camera that is not there is a missing view."""

    source: str
    skeleton: str
    views: Mapping[Key, Mapping[str, Reader]]  # by camera; [T, J, 3]: pixels and confidence


def find(source: Path, *suffixes: str) -> list[Path]:
    """The files of those suffixes in a folder and below, through links, the least deep first."""
    found: list[Path] = []
    seen = set()
    for folder, below, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # links can form a circle
            below.clear()
            continue
        seen.add(real)
        found += [Path(folder, n) for n in names if n.endswith(suffixes) and n[0] != "."]
    return sorted(found, key=lambda path: (len(path.parts), path))


def first(files: Sequence[Path], proof: Proof) -> Path:
    """The first of several copies; the others are reported."""
    for path in files[1:]:
        proof.skip(str(path), f"{files[0]} is read in its place")
    return files[0]


def npz_detections(files: Iterable[Path], dataset: str, proof: Proof) -> dict[str, Path]:
    """Files `data_2d_DATASET_NAME.npz` by NAME."""
    pattern = re.compile(rf"data_2d_{dataset}_(.+)\.npz")
    found: dict[str, list[Path]] = {}
    for path in files:
        if match := pattern.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
    return {name: first(paths, proof) for name, paths in found.items()}


def sequences(members: Mapping[str, Any], key: str, path: Path) -> Iterator[tuple[str, str, Any]]:
    """Subject, action and value of a member subject -> action -> value. Raises `SourceError`."""
    table = _mapping(sources.member(members, key, str(path)), f"{path}, {key}")
    for subject, actions in table.items():
        for action, value in _mapping(actions, f"{path}, {key}, {subject}").items():
            yield _text(subject), _text(action), value


def _text(key: Any) -> str:
    """A key as text; what Python 2 wrote and Python 3 passed on can have bytes."""
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _mapping(value: Any, where: str) -> Mapping:
    if not isinstance(value, Mapping):
        raise SourceError(
            f"{where}: is a {type(value).__name__}, not a dict; fetch or convert it again"
        )
    return value


def layout(members: Mapping[str, Any], path: Path) -> tuple[str, int]:
    """The skeleton that the metadata of 2D points name, or that their sides show, and its size.

    Raises `SourceError` naming a layout that is not known, or that has another number of joints.
    """
    where = f"{path}, metadata"
    metadata = _mapping(sources.member(members, "metadata", str(path)), where)
    metadata = {_text(key): value for key, value in metadata.items()}
    number = sources.member(metadata, "num_joints", where)
    if "layout_name" in metadata:
        told = f"layout_name {metadata['layout_name']!r}"
        called = _text(metadata["layout_name"])
        names = [name for key, name in _LAYOUTS.items() if key == called]
    else:
        symmetry = sources.member(metadata, "keypoints_symmetry", where)
        told = f"keypoints_symmetry {symmetry}"
        names = [name for name in _LAYOUTS.values() if _sides(name) == _plain(symmetry)]
    names = [name for name in names if skeleton.get(name).size == number]
    if not names:
        raise SourceError(
            f"{where}: {told} with num_joints {number!r} is no joint set known here; there are "
            f"{', '.join(f'{k} ({skeleton.get(v).size})' for k, v in _LAYOUTS.items())}. Convert "
            f"the points to one of them"
        )
    return names[0], skeleton.get(names[0]).size


def _sides(name: str) -> list[list[int]]:
    joints = skeleton.get(name)
    return [[i for i in range(joints.size) if joints.side(i) == s] for s in ("left", "right")]


def _plain(symmetry: Any) -> list[list[int]] | None:
    try:
        return [sorted(int(i) for i in side) for side in symmetry]
    except (TypeError, ValueError):
        return None


def views(value: Any, names: Sequence[str], joints: int, where: str) -> dict[str, Reader]:
    """The cameras of a sequence in an npz file, an array or None for each. Raises `SourceError`."""
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != len(names):
        count = len(value) if hasattr(value, "__len__") else "no list of"
        raise SourceError(
            f"{where}: has {count} views, expected {len(names)} ({', '.join(names)}); convert it "
            f"again with all cameras, None for one that is missing"
        )
    cameras = zip(names, value, strict=True)
    return {n: partial(keypoints, v, joints, f"{where}, {n}") for n, v in cameras if v is not None}


def keypoints(value: Any, joints: int, where: str) -> np.ndarray:
    """`[T, joints, 3]`: pixels and confidence, 1 where the file has none. Raises `SourceError`."""
    columns = 3 if getattr(value, "shape", ())[2:] == (3,) else 2
    points = _not_empty(sources.array(value, (None, joints, columns), where), where)
    if columns == 2:
        return np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=-1)
    low, high = points[..., 2].min(), points[..., 2].max()
    if low < -_BEYOND or high > 1 + _BEYOND:
        raise SourceError(
            f"{where}: the third column, the confidence, is {low} to {high}; scale it to 0 ... 1, "
            f"or leave it out"
        )
    points[..., 2] = points[..., 2].clip(0, 1)
    return points


def seen(
    views: Mapping[str, Reader], names: Sequence[str], frames: int, clip: str, proof: Proof
) -> tuple[np.ndarray, np.ndarray] | None:
    """Keypoints `[T, V, J, 2]` and confidence `[T, V, J]` of a clip of that many frames.

    None, and a report, where no camera has any or one has too few. Frames beyond the last are cut
    off: some videos go on after the motion capture has ended.
    """
    found = {name: views[name]() for name in names if name in views}
    if not found:
        proof.skip(clip, "no 2D points (--detections projected takes them from 3D)")
        return None
    for name, points in found.items():
        if len(points) < frames:
            proof.skip(clip, f"{len(points)} frames in 2D ({name}), but {frames} in 3D")
            return None
    for name in names:
        if name not in found:
            proof.skip(f"{clip}, {name}", "no 2D points; the view is missing")
    stacked = np.zeros((frames, len(names), *next(iter(found.values())).shape[1:]))
    for name, points in found.items():
        stacked[:, names.index(name)] = points[:frames]
    return stacked[..., :2], stacked[..., 2]


def positions(value: Any, joints: int, where: str) -> np.ndarray:
    """`[T, joints, 3]` of an array in metres. Raises `SourceError`."""
    return _not_empty(sources.array(value, (None, joints, 3), where), where)


def npz_pose(value: Any, joints: int, where: str) -> np.ndarray:
    """`[T, 17, 3]` of an array of 32 or 17 joints in metres. Raises `SourceError`."""
    return _kept(positions(value, joints, where))


def cdf_pose(path: Path) -> np.ndarray:
    """`[T, 17, 3]` metres of a D3_Positions file in millimetres. Raises `SourceError`."""
    return _kept(_rows(_first(_read_cdf(path)), 3, f"{path}, Pose")) / 1000


def cdf_keypoints(path: Path) -> np.ndarray:
    """`[T, 17, 3]`: pixels of a D2_Positions file, and confidence 1. Raises `SourceError`."""
    return keypoints(_kept(_rows(_first(_read_cdf(path)), 2, f"{path}, Pose")), 17, str(path))


def h5_pose(path: Path) -> np.ndarray:
    """`[T, 17, 3]` metres of an HDF5 file, 96 x T (or T x 96) millimetres. Raises `SourceError`."""
    value = _read_h5(path, "3D_positions")
    shape = np.shape(value)
    turned = len(shape) == 2 and (
        shape[0] == 96 or (96 not in shape and shape[0] == 51)  # 96 first: as published
    )
    return _kept(_rows(value.T if turned else value, 3, f"{path}, 3D_positions")) / 1000


def h5_keypoints(path: Path) -> np.ndarray:
    """`[T, 16, 3]`: pixels and confidence of an HDF5 file in MPII order. Raises `SourceError`."""
    return keypoints(_read_h5(path, "poses"), 16, f"{path}, poses")


def _first(value: Any) -> Any:
    """The record of a CDF variable, `[T, width]`; cdflib puts it as `[1, T, width]`."""
    return value[0] if np.ndim(value) == 3 and len(value) == 1 else value


def _rows(value: Any, channels: int, where: str) -> np.ndarray:
    """`[T, 32 or 17, channels]` of rows of all joints' coordinates."""
    narrow = np.shape(value)[1:] == (17 * channels,)
    rows = sources.array(value, (None, (17 if narrow else 32) * channels), where)
    return _not_empty(rows.reshape(len(rows), -1, channels), where)


def _kept(points: np.ndarray) -> np.ndarray:
    return points[:, KEPT] if points.shape[1] == 32 else points


def _not_empty(points: np.ndarray, where: str) -> np.ndarray:
    if len(points) == 0:
        raise SourceError(f"{where}: has no frames; fetch or convert it again")
    return points


def _read_cdf(path: Path) -> Any:
    """The variable `Pose`. Raises `SourceError`."""
    try:
        cdf = cdflib.CDF(path)
        info = cdf.cdf_info()
        if "Pose" in (there := [*info.zVariables, *info.rVariables]):
            return cdf.varget("Pose")
    # A damaged file fails in any way.
    except Exception as error:
        raise SourceError(_unreadable(path, "CDF", error)) from error
    raise SourceError(f"{path}: has no variable 'Pose'; it has {there}. Extract it again")


def _read_h5(path: Path, key: str) -> Any:
    try:
        with h5py.File(path, "r") as file:
            return sources.member(file, key, str(path))[()]
    except SourceError:
        raise
    # As above; also a group where an array should be.
    except Exception as error:
        raise SourceError(f"{_unreadable(path, 'HDF5', error)} (key {key})") from error


def _unreadable(path: Path, kind: str, error: Exception) -> str:
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    return f"{path}: is not a readable {kind} file ({said}); fetch or extract it again"


def subject(path: Path) -> str | None:
    """The folder such as `S11` that is nearest above a file."""
    above = path.absolute().parent.parts
    return next((part for part in reversed(above) if re.fullmatch(r"S\d+", part)), None)


def sequence(name: str) -> tuple[str, str] | None:
    """Action and trial of `Walking 1`, `Walking_1`, `TakingPhoto`; None if it is neither."""
    match = re.fullmatch(r"([A-Za-z]+)(?:[ _](\d+))?", name)
    return (_SPELLINGS.get(match[1], match[1]), match[2] or "") if match else None
