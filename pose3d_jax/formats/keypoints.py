"""Keypoints as detectors leave them: OpenPose's JSON, a file for each frame."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pose3d_jax import skeleton, sources
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.sources import SourceError

Array = np.ndarray
People = Float[Array, "_ joints 3"]  # x, y in pixels, confidence; 0 where not found

# Joint sets by the numbers that a person's list has.
_SETS = {3 * skeleton.get(name).size: name for name in ("body25", "coco18")}


def openpose(folder: str | Path) -> tuple[list[People], Skeleton]:
    """All frames of a folder of `*_keypoints.json`, in the order of the numbers in their names.

    A frame number that has no file is a frame without people. Raises `SourceError` for a folder
    without such files, two files of one frame, and files that are damaged, of another layout, of
    several joint sets, or hold numbers that are not finite or confidences outside [0, 1].
    """
    files: dict[int, Path] = {}
    for path in sorted(Path(folder).glob("*.json")):
        number = re.search(r"(\d+)(?:_keypoints)?\.json$", path.name)
        if number is None:
            raise SourceError(
                f"{path}: has no frame's number in its name, as 000012_keypoints.json"
            )
        frame = int(number[1])
        if frame in files:
            raise SourceError(f"{path}: is frame {frame}, as {files[frame].name} is; keep one")
        files[frame] = path
    if not files:
        raise SourceError(f"{folder}: holds no *_keypoints.json; give the folder OpenPose wrote")
    read = {frame: frame_of(sources.load_json(path), str(path)) for frame, path in files.items()}
    sizes = {people.shape[1]: frame for frame, people in read.items() if len(people)}
    if len(sizes) > 1:
        named = ", ".join(f"{size} joints in frame {frame}" for size, frame in sizes.items())
        raise SourceError(f"{folder}: has {named}; give files of one joint set")
    joints = next(iter(sizes), 25)
    empty = np.zeros((0, joints, 3))
    frames = range(min(files), max(files) + 1)
    people = [read[f] if f in read and len(read[f]) else empty for f in frames]
    return people, skeleton.get(_SETS[3 * joints])


def frame_of(table: Any, where: str) -> People:
    """The people of one file's contents; `where` is what errors call it. See `openpose`."""
    people = sources.member(table, "people", where)
    if not isinstance(people, list):
        raise SourceError(f"{where}: `people` is a {type(people).__name__}, not a list")
    found: list[Array] = []
    for number, person in enumerate(people):
        place = f"{where}, person {number}"
        if not isinstance(person, Mapping):
            raise SourceError(f"{place}: is a {type(person).__name__}, not a dict")
        key = "pose_keypoints_2d" if "pose_keypoints_2d" in person else "pose_keypoints"
        values = sources.array(sources.member(person, key, place), (None,), f"{place}, {key}")
        if len(values) not in _SETS or (found and values.size != found[0].size):
            known = ", ".join(f"{size} ({name})" for size, name in _SETS.items())
            raise SourceError(
                f"{place}: has {len(values)} numbers; a joint set has {known}, the same for all"
            )
        points = values.reshape(-1, 3)
        if not ((points[:, 2] >= 0) & (points[:, 2] <= 1)).all():
            raise SourceError(f"{place}: has confidences outside 0 to 1; is it x, y, confidence?")
        found.append(np.where(points[:, 2:] > 0, points, 0.0))
    return np.stack(found) if found else np.zeros((0, 25, 3))
