"""Keypoints as detectors leave them: people of each frame, whatever wrote them.

`keypoint_files.py` has the layouts of JSON, `keypoint_tables.py` those of CSV and NPZ, and
`keypoint_people.py` what is checked of every person. Coordinates are taken as they are, pixels of
the image, but for MediaPipe's.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pose3d_jax import skeleton as skeletons
from pose3d_jax import sources
from pose3d_jax.formats import keypoint_files, keypoint_tables
from pose3d_jax.formats.keypoint_people import BY_NUMBER, NOBODY, Picture, Seen
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.sources import SourceError

Array = np.ndarray
People = Float[Array, "_ joints 3"]  # x, y in pixels, confidence; 0 where not found

_FILES = (".json", ".csv", ".npz")
_LONGEST = 10_000_000  # frames; numbers farther apart count something else


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a detector saw in the frames of one view, without gaps; nobody is in it unseen."""

    people: tuple[Array, ...]  # of each frame, `People`
    skeleton: Skeleton
    first: int  # the number of the first frame
    # Who is who, `[people]` of each frame, where the detector says it of everybody.
    ids: tuple[Array, ...] | None = None
    picture: Picture | None = None  # where it is known
    fps: float | None = None  # frames per second, where it is known


def read(
    path: str | Path, *, skeleton: str = "", size: tuple[int, int] | None = None
) -> dict[str, Detections]:
    """What detectors saw in each view, by its name, the file's or folder's (without `_json`).

    Layouts are told by what is in them:

    - a folder of JSON files, one for each frame: OpenPose's and Pose2Sim's, or MMPose's of images;
    - a JSON file: COCO's results, AlphaPose's, MMPose's of a video, MediaPipe's landmarks;
    - CSV and NPZ, which may hold several views: see `keypoint_tables`;
    - a folder of such files or of such folders (Pose2Sim's `pose/`), one for each view.

    Frames have the numbers that the files give them, of file names or in the file, from the first
    to the last number there is; those between that are not there are frames without people.

    Args:
      path: a file or a folder.
      skeleton: the joint set, where the file does not say it and its number of joints is another's
        (of 17 joints `coco17` is taken) or none of `keypoint_people.BY_NUMBER`.
      size: width and height of the images, pixels, which MediaPipe's landmarks alone need.

    Raises `SourceError` for what is missing, damaged, of no such layout, of several joint sets in
    one view, and for people who are not as `keypoint_people.person` wants them; `SkeletonError` for
    a joint set that is not in the registry.
    """
    if skeleton:
        skeletons.get(skeleton)
    path = Path(path)
    views = _folder(path, skeleton, size) if path.is_dir() else _file(path, skeleton, size)
    if not views:
        raise SourceError(f"{path}: has no rows; run the detector again")
    sets = {
        name: _joint_set(seen, skeleton, f"{path}, view {name}") for name, seen in views.items()
    }
    known = {found for found in sets.values() if found}
    found = {}
    for name, seen in views.items():
        where = f"{path}, view {name}"
        joints = sets[name] or (next(iter(known)) if len(known) == 1 else "")
        if not joints:
            raise SourceError(
                f"{where}: nobody is in any frame; name the joint set, or leave it out"
            )
        found[name] = _detections(seen, skeletons.get(joints), where)
    return found


def openpose(folder: str | Path) -> Detections:
    """A folder of OpenPose's `*_keypoints.json`, a file for each frame, as `read` reads it.

    Where nobody is in any frame, the joint set is body25. Raises `SourceError` as `read` does, and
    for a folder without such files.
    """
    tables = _tables(Path(folder))
    if not tables:
        raise SourceError(f"{folder}: holds no *_keypoints.json; give the folder OpenPose wrote")
    seen = keypoint_files.openpose(tables)
    return _detections(
        seen, skeletons.get(_joint_set(seen, "", str(folder)) or "body25"), str(folder)
    )


def _tables(folder: Path) -> dict[str, Any]:
    return {str(path): sources.load_json(path) for path in sorted(folder.glob("*.json"))}


def _folder(path: Path, wanted: str, size: tuple[int, int] | None) -> dict[str, Seen]:
    """The one view whose frames are in it, or a view for each file or folder."""
    tables = _tables(path)
    if any(isinstance(table, Mapping) and "people" in table for table in tables.values()):
        return {_name(path): keypoint_files.openpose(tables, wanted)}
    if any(keypoint_files.is_image(table) for table in tables.values()):
        return {_name(path): keypoint_files.mmpose_images(tables, wanted)}
    inside = sorted(
        (p for p in path.iterdir() if p.is_file() and p.suffix in _FILES), key=sources.natural
    )
    parts = [_file(p, wanted, size) for p in inside]
    if not inside:
        inside = sorted({p.parent for p in path.glob("*/*.json")}, key=sources.natural)
        parts = [_folder(p, wanted, size) for p in inside]
    if not inside:
        raise SourceError(
            f"{path}: holds no keypoints; give a JSON, CSV or NPZ file, a folder of JSON files, "
            f"one for each frame, or a folder of these, one for each view; videos are given one by "
            f"one"
        )
    views: dict[str, Seen] = {}
    for place, part in zip(inside, parts, strict=True):
        twice = sorted(views.keys() & part.keys())
        if twice:
            raise SourceError(f"{place}: has the view {twice[0]}, as another in {path}; rename one")
        views |= part
    return views


def _file(path: Path, wanted: str, size: tuple[int, int] | None) -> dict[str, Seen]:
    with sources.opened(path) as stream:
        begins = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:2]
    if begins == b"PK":
        return keypoint_tables.npz_file(path, wanted)
    if begins[:1] not in (b"[", b"{"):
        return keypoint_tables.csv_file(path, wanted)
    return {path.stem: _json(sources.load_json(path), str(path), wanted, size)}


def _json(table: Any, where: str, wanted: str, size: tuple[int, int] | None) -> Seen:
    """What one file says of all frames."""
    listed = isinstance(table, list)
    first = next((held for held in (table if listed else table.values()) if held), None)
    keys = first.keys() if isinstance(first, Mapping) else ()
    if keypoint_files.is_image(table) or (not listed and "people" in table):
        raise SourceError(
            f"{where}: is of one frame; give the folder that holds those of all frames"
        )
    if "instance_info" in table or (listed and "frame_id" in keys):
        return keypoint_files.mmpose(table, where, wanted)
    if listed and "image_id" in keys:
        return keypoint_files.coco(table, where, wanted)
    if keypoint_files.is_landmarks(table):
        return keypoint_files.mediapipe(table, where, wanted, size)
    if isinstance(first, list) and first and isinstance(first[0], Mapping):
        keys = first[0].keys()
    if not listed and {"people", "bodies", "keypoints"} & set(keys):
        return keypoint_files.alphapose(table, where, wanted)
    raise SourceError(
        f"{where}: is no layout of keypoints that is known (OpenPose, COCO's results, AlphaPose, "
        f"MMPose, MediaPipe), or nobody is in it; write one of these, or CSV or NPZ"
    )


def _name(folder: Path) -> str:
    """A folder's view; Pose2Sim calls that of camera `a` `a_json`."""
    return folder.resolve().name.removesuffix("_json")


def _joint_set(seen: Seen, wanted: str, where: str) -> str:
    """What the file says, else what is wanted, else the set of all people; nothing without any."""
    sizes = {len(p.points): frame for frame, people in seen.frames.items() for p in people}
    if len(sizes) > 1:
        named = ", ".join(f"{size} joints in frame {frame}" for size, frame in sizes.items())
        raise SourceError(f"{where}: has {named}; give files of one joint set")
    return seen.skeleton or wanted or BY_NUMBER.get(next(iter(sizes), 0), "")


def _detections(seen: Seen, joints: Skeleton, where: str) -> Detections:
    if not seen.frames:
        raise SourceError(f"{where}: has no frames; run the detector again")
    first, last = min(seen.frames), max(seen.frames)
    if first < 0:
        raise SourceError(f"{where}: has a frame {first}; number frames from 0 on")
    if last - first >= _LONGEST:
        raise SourceError(
            f"{where}: has frames {first} to {last}, which cannot be their numbers; number them"
        )
    nobody, none = np.zeros((0, joints.size, 3)), np.zeros(0, int)
    people = [nobody] * (last - first + 1)
    ids = [none] * (last - first + 1)
    for frame, held in seen.frames.items():
        there = [p for p in held if p.points[:, 2].any()]
        if there:
            people[frame - first] = np.stack([p.points for p in there])
            ids[frame - first] = _ids([p.identity for p in there], f"{where}, frame {frame}")
    known = any(map(len, ids)) and all((of != NOBODY).all() for of in ids)
    return Detections(
        tuple(people), joints, first, tuple(ids) if known else None, seen.picture, seen.fps
    )


def _ids(found: list[int], where: str) -> Array:
    named = [identity for identity in found if identity != NOBODY]
    if len(set(named)) < len(named):
        raise SourceError(f"{where}: two people are number {max(named, key=named.count)}; name one")
    return np.array(found)
