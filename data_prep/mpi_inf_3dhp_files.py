"""What the files of MPI-INF-3DHP say: annotations, and cameras, those of the test set as published.

The files' world has y up and is in millimetres; what is returned has z up and is in metres.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np

from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.sources import SourceError, array, load_mat, member

_MM = 0.001
_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
_RIGID = 1e-3  # how far a rotation may be from orthonormal
# h36m17's joints among the 28 of the training set and the 17 of the test set.
_TRAIN_JOINTS = [4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
_TEST_JOINTS = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
_KEYS = {"annot2": (2, 1.0), "annot3": (3, _MM), "univ_annot3": (3, _MM)}  # axes, unit
_ACTIVITIES = 7
# From the test set's `camera_calibration`: pixels, and millimetres on the sensor and in the world.
# The annotations know nothing of the outdoor camera's distortion.
_INDOORS: dict[str, Any] = {
    "size": (2048, 2048), "sensor": (10, 10), "focal": 7.325058937, "aspect": 1.000442863,
    "offset": (-0.032288432, 0.092929602), "origin": (3427.28, 1387.86, 309.42),
    "up": (-0.208215, 0.976233, 0.06014), "right": (0.000575281, 0.0616098, -0.9981),
}  # fmt: skip
_OUTDOORS: dict[str, Any] = {
    "size": (1920, 1080), "sensor": (10, 5.625), "focal": 8.770747185, "aspect": 0.993236423,
    "offset": (-0.104908645, 0.104899704), "origin": (-2104.3074, 1038.6707, -4596.6367),
    "up": (0.025272345, 0.995038509, 0.09622737),
    "right": (-0.939647257, -0.009210289, 0.342020929),
}  # fmt: skip
_TESTS = {
    **dict.fromkeys(("TS1", "TS2", "TS3", "TS4"), _INDOORS),
    "TS5": _OUTDOORS,
    "TS6": _OUTDOORS,
}


def train_arrays(path: Path, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """annot2, annot3 and univ_annot3 `[V, T, 17, 2 or 3]` of these cameras, pixels and metres.

    Raises `SourceError` naming the key and the camera that are missing or wrong.
    """
    table = load_mat(path, "cameras", *_KEYS)
    named = [np.ravel(cell) for cell in np.ravel(table["cameras"])]  # numbers, or cells of them
    listed = [int(i) for cell in named for i in array(cell, (1,), f"{path}, key cameras")]
    frames = None
    for key, (axes, unit) in _KEYS.items():
        cells, found = np.ravel(table[key]), []
        if len(cells) != len(listed):
            raise SourceError(
                f"{path}, key {key}: has {len(cells)} cells for {len(listed)} cameras; fetch the "
                f"file again"
            )
        for number in numbers:
            if number not in listed:
                raise SourceError(
                    f"{path}, key cameras: has {listed}, not {number}; choose others with --cameras"
                )
            where = f"{path}, key {key}, camera {number}"
            cell = array(cells[listed.index(number)], (frames, 28 * axes), where)
            frames = len(cell)
            if not frames:
                raise SourceError(f"{where}: has no frames; fetch the file again")
            found.append(cell.reshape(frames, 28, axes)[:, _TRAIN_JOINTS] * unit)
        yield np.stack(found)


def test_arrays(path: Path) -> tuple[np.ndarray, ...]:
    """Of a test sequence: annot2, annot3 and univ_annot3, valid, and the activity from 0.

    `[T, 17, 2 or 3]`, pixels and metres, which may be NaN where not valid, and `[T]`. Where a frame
    that is not valid has no activity it is the one before it. Raises `SourceError` naming the key
    that is missing or wrong.
    """
    keys = ("valid_frame", "activity_annotation")
    try:
        with h5py.File(path, "r") as file:
            table = {key: member(file, key, str(path))[()] for key in (*keys, *_KEYS)}
    # What damage makes of the tables in it.
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path}: is not a readable MATLAB 7.3 file ({str(error)[:100]}); fetch it again"
        ) from error
    valid, activity = (array(table[key], (None, 1), f"{path}, key {key}")[:, 0] for key in keys)
    valid, frames = valid > 0, len(valid)
    if not frames:
        raise SourceError(f"{path}, key valid_frame: has no frames; fetch the file again")
    annotated = []
    for key, (axes, unit) in _KEYS.items():
        found = array(table[key], (frames, 1, 17, axes), f"{path}, key {key}", finite=False)
        array(found[valid], (None, 1, 17, axes), f"{path}, key {key}, valid frames")
        annotated.append(found[:, 0, _TEST_JOINTS] * unit)
    known = np.isin(activity, np.arange(1, _ACTIVITIES + 1))
    if len(activity) != frames or not known[valid].all():
        raise SourceError(
            f"{path}, key activity_annotation: is not a number from 1 to {_ACTIVITIES} for each of "
            f"{frames} frames; fetch the file again"
        )
    last = np.maximum.accumulate(np.where(known, np.arange(frames), np.argmax(known)))
    return (*annotated, valid, activity[last].astype(int) - 1)


def calibrated(path: Path, numbers: Sequence[int]) -> Camera:
    """The cameras of these numbers in a `camera.calibration`, leading axis [V], in float64.

    Raises `SourceError` naming the camera and the key that are missing or wrong.
    """
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); fetch it again") from error
    blocks: dict[str, dict[str, list[str]]] = {}
    block: dict[str, list[str]] = {}
    for key, *values in filter(None, lines):
        if key == "name":
            block = blocks[" ".join(values)] = {}
        else:
            block[key] = values
    return stack(_camera(member(blocks, str(n), str(path)), f"{path}, camera {n}") for n in numbers)


def _camera(block: dict[str, list[str]], where: str) -> Camera:
    def field(key: str, count: int) -> np.ndarray:
        try:
            values = [float(x) for x in member(block, key, where)]
        except ValueError as error:
            raise SourceError(f"{where}, key {key}: {error}; fetch the file again") from error
        return array(values, (count,), f"{where}, key {key}")

    intrinsics, extrinsics = (field(k, 16).reshape(4, 4) for k in ("intrinsic", "extrinsic"))
    size, focal, rotation = field("size", 2), np.diag(intrinsics)[:2], extrinsics[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _RIGID or np.linalg.det(rotation) < 0:
        raise SourceError(f"{where}, key extrinsic: is no rotation; fetch the file again")
    if min(*focal, *size) <= 0:
        raise SourceError(
            f"{where}, keys intrinsic and size: focal lengths {focal} and size {size} must be "
            f"positive pixels; fetch the file again"
        )
    return _pinhole(rotation, extrinsics[:3, 3], focal, intrinsics[:2, 2], size)


def of_test(sequence: str) -> Camera:
    """The camera of TS1 to TS6, in float64."""
    known = _TESTS[sequence]
    up, size = np.array(known["up"]), np.array(known["size"])
    rotation = np.stack([known["right"], -up, np.cross(up, known["right"])])
    scale = size / known["sensor"]
    focal = known["focal"] * scale * np.array([1, known["aspect"]])
    center = size / 2 + known["offset"] * scale
    return _pinhole(rotation, -rotation @ known["origin"], focal, center, size)


def _pinhole(rotation: Any, translation: Any, focal: Any, center: Any, size: Any) -> Camera:
    """A camera whose pose is in the files' world."""
    fields = rotation @ _Z_UP.T, translation * _MM, focal, center, np.zeros(5)
    return Camera(*(np.asarray(x, float) for x in (*fields, TANGENTIAL["opencv"], size)))


def stack(cameras: Iterable[Camera]) -> Camera:
    """One `Camera` with leading axis [V]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *cameras)
