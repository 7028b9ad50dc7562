"""Layouts of JSON: OpenPose's (and Pose2Sim's), COCO's, AlphaPose's, MMPose's, MediaPipe's.

Every reader takes what a file holds and gives its people by frame. A file that says nothing of its
joints has the set of that number (`keypoint_people.BY_NUMBER`), or the one that the caller names.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pose3d_jax import skeleton, sources
from pose3d_jax.formats.keypoint_people import (
    NOBODY,
    Person,
    Seen,
    by_names,
    frame_number,
    list_of,
    person,
)
from pose3d_jax.sources import SourceError

Array = np.ndarray

_MMPOSE_NAMES = {"hip": "mid_hips"}
_FAR = 10.0  # sizes of the image


def openpose(tables: Mapping[str, Any], wanted: str = "") -> Seen:
    """OpenPose's files of frames, by their names: `people`, each `pose_keypoints_2d` of x, y, c."""
    frames: dict[int, list[Person]] = {}
    for name, (frame, table) in _numbered(tables).items():
        frames[frame] = [
            _flat(p, ("pose_keypoints_2d", "pose_keypoints"), f"{name}, person {i}", wanted)
            for i, p in enumerate(list_of(sources.member(table, "people", name), f"{name}, people"))
        ]
    return Seen(frames)


def coco(table: Any, where: str, wanted: str = "") -> Seen:
    """COCO's results and AlphaPose's: a list of people with `image_id` and flat `keypoints`.

    The image's id is the frame's number, or its file's name ends with it. AlphaPose's `idx` says
    who is who where people were followed; a list there is of boxes, and says nothing.
    """
    frames: dict[int, list[Person]] = {}
    names: dict[int, Any] = {}
    for i, entry in enumerate(list_of(table, where)):
        place = f"{where}, entry {i}"
        image = sources.member(entry, "image_id", place)
        frame = frame_number(image, f"{place}, image_id")
        if names.setdefault(frame, image) != image:
            raise SourceError(f"{place}: {image} is frame {frame}, as {names[frame]} is; split it")
        found = _flat(entry, ("keypoints",), f"{place}, frame {frame}", wanted)
        frames.setdefault(frame, []).append(found)
    return Seen(frames)


def alphapose(table: Mapping[str, Any], where: str, wanted: str = "") -> Seen:
    """AlphaPose's dict by image: of OpenPose's layout (`people`), CMU's (`bodies`), or lists."""
    frames: dict[int, list[Person]] = {}
    for image, held in table.items():
        place = f"{where}, {image}"
        frame = frame_number(image, place)
        if frame in frames:
            raise SourceError(f"{place}: is frame {frame}, as another image is; split it")
        if isinstance(held, Mapping):
            held = sources.member(held, "bodies" if "bodies" in held else "people", place)
        frames[frame] = [
            _flat(p, ("keypoints", "pose_keypoints_2d", "joints"), f"{place}, person {i}", wanted)
            for i, p in enumerate(list_of(held, place))
        ]
    return Seen(frames)


def mmpose(table: Any, where: str, wanted: str = "") -> Seen:
    """MMPose's predictions of a video: `frame_id` and `instances` of each frame.

    The list itself, or under `instance_info` beside `meta_info`, whose names say the joint set.
    """
    entries, wanted = _mmpose_entries(table, where, wanted)
    frames: dict[int, list[Person]] = {}
    for i, entry in enumerate(entries):
        place = f"{where}, entry {i}"
        frame = frame_number(sources.member(entry, "frame_id", place), f"{place}, frame_id")
        if frame in frames:
            raise SourceError(f"{place}: is frame {frame}, as another entry is; keep one")
        instances = sources.member(entry, "instances", place)
        frames[frame] = _instances(instances, f"{where}, frame {frame}", wanted)
    return Seen(frames, wanted)


def mmpose_images(tables: Mapping[str, Any], wanted: str = "") -> Seen:
    """MMPose's files of single images, by their names: the instances of each."""
    frames: dict[int, list[Person]] = {}
    sets = set()
    for name, (frame, table) in _numbered(tables).items():
        instances, named = _mmpose_entries(table, name, wanted)
        frames[frame] = _instances(instances, name, named)
        sets.add(named)
    if len(sets - {""}) > 1:
        raise SourceError(f"{next(iter(tables))}: other files have another joint set; give one")
    return Seen(frames, max(sets, default=""))


def mediapipe(table: Any, where: str, wanted: str, size: tuple[int, int] | None) -> Seen:
    """MediaPipe's landmarks, a list of frames: each 33, or lists of 33, or `pose_landmarks` of one.

    A landmark is a dict of x, y, visibility, or a list of x, y, z, visibility; x and y are shares
    of the image's `size` from its top-left corner, which is half a pixel from that pixel's centre.
    """
    if size is None:
        raise SourceError(
            f"{where}: holds MediaPipe's landmarks, which are shares of the image; give the size "
            f"of the image in pixels, (width, height)"
        )
    if isinstance(table, Mapping) or (table and _is_landmark(table[0])):
        table = [table]
    frames = {}
    for frame, held in enumerate(list_of(table, where)):
        place = f"{where}, frame {frame}"
        if isinstance(held, Mapping):
            held = sources.member(held, "pose_landmarks", place)
        if isinstance(held, Mapping):  # of the older interface, by protobuf's way to JSON
            held = [sources.member(held, "landmark", place)]
        people = list_of(held or [], place)
        people = [people] if people and _is_landmark(people[0]) else people
        frames[frame] = [
            person(
                _landmarks(p, size, f"{place}, person {i}"),
                f"{place}, person {i}",
                wanted or "blazepose33",
            )
            for i, p in enumerate(people)
        ]
    return Seen(frames, wanted or "blazepose33")


def is_image(table: Any) -> bool:
    """Whether a file holds what MMPose saw in one image."""
    if isinstance(table, Mapping):
        table = table.get("instance_info")
    first = table[0] if isinstance(table, list) and table else None
    return isinstance(first, Mapping) and "keypoint_scores" in first


def is_landmarks(table: Any) -> bool:
    """Whether a file holds MediaPipe's landmarks: the first frame in which somebody is says it."""
    held = [table] if isinstance(table, Mapping) else table
    while isinstance(held, Sequence) and not isinstance(held, str):
        held = next((x for x in held if x), None)
        if isinstance(held, Mapping) and "pose_landmarks" in held:
            return True
        if _is_landmark(held):
            return True
    return False


def _is_landmark(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "x" in value and "y" in value
    return (
        isinstance(value, list) and bool(value) and all(isinstance(x, (int, float)) for x in value)
    )


def _landmarks(value: Any, size: tuple[int, int], where: str) -> Float[Array, "joints 3"]:
    """x and y in pixels, and visibility."""
    rows = []
    for i, mark in enumerate(list_of(value, where)):
        place = f"{where}, landmark {i}"
        if isinstance(mark, Mapping):
            rows.append([sources.member(mark, key, place) for key in ("x", "y", "visibility")])
        else:
            x, y, _, seen = sources.array(mark, (4,), f"{place}, x y z visibility", finite=False)
            rows.append([x, y, seen])
    found = sources.array(rows, (None, 3), where, finite=False)
    if (abs(found[:, :2]) > _FAR).any():
        raise SourceError(
            f"{where}: has landmarks at {np.nanmax(abs(found[:, :2])):g} times the image's size; "
            f"they are in pixels, it seems: give those that MediaPipe wrote, shares of the image"
        )
    return np.column_stack([found[:, :2] * size - 0.5, found[:, 2]])


def _numbered(tables: Mapping[str, Any]) -> dict[str, tuple[int, Any]]:
    """Frame numbers of files, in their order; each frame once."""
    found: dict[int, str] = {}
    for name in tables:
        frame = frame_number(Path(name).name, name)
        if frame in found:
            raise SourceError(f"{name}: is frame {frame}, as {found[frame]} is; keep one")
        found[frame] = name
    return {name: (frame, tables[name]) for frame, name in sorted(found.items())}


def _flat(entry: Any, keys: Iterable[str], where: str, wanted: str) -> Person:
    """A person whose x, y, confidence are one list, under the first of the keys that is there."""
    keys = list(keys)
    key = next((k for k in keys if isinstance(entry, Mapping) and k in entry), keys[0])
    values = sources.member(entry, key, where)
    numbers = sources.array(values, (None,), f"{where}, {key}", finite=False)
    if len(numbers) % 3:
        raise SourceError(
            f"{where}: has {len(numbers)} numbers, which are not x, y, confidence of some joints"
        )
    return person(numbers.reshape(-1, 3), where, wanted, identity=_identity(entry, where))


def _identity(entry: Mapping[str, Any], where: str) -> int:
    """OpenPose's `person_id` (a list of one) or AlphaPose's `idx`; -1 where there is none."""
    said = entry.get("idx", NOBODY)
    if "person_id" in entry:
        said = entry["person_id"]
        said = said[0] if isinstance(said, list) and len(said) == 1 else said
    if isinstance(said, list):
        return NOBODY
    if not isinstance(said, (int, float)) or said != said // 1:
        raise SourceError(f"{where}: is person {said!r}, which is no whole number; number people")
    return max(int(said), NOBODY)


def _mmpose_entries(table: Any, where: str, wanted: str) -> tuple[list[Any], str]:
    """The list in it, and the joint set that the file's names say unless one is wanted."""
    if not isinstance(table, Mapping):
        return list_of(table, where), wanted
    meta = table.get("meta_info")
    names = meta.get("keypoint_id2name") if isinstance(meta, Mapping) else None
    if isinstance(names, Mapping) and not wanted:
        order = [str(names.get(str(i))) for i in range(len(names))]
        order = [_MMPOSE_NAMES.get(name, name) for name in order]
        wanted = by_names(order, f"{where}, meta_info").name
        if tuple(order) != skeleton.get(wanted).joints:
            raise SourceError(f"{where}: has the joints of {wanted} in another order; convert it")
    return list_of(sources.member(table, "instance_info", where), where), wanted


def _instances(value: Any, where: str, wanted: str) -> list[Person]:
    people = []
    for i, entry in enumerate(list_of(value, where)):
        place = f"{where}, person {i}"
        points = sources.member(entry, "keypoints", place)
        points = sources.array(points, (None, 2), f"{place}, keypoints", finite=False)
        score = sources.member(entry, "keypoint_scores", place)
        score = sources.array(score, (len(points),), f"{place}, keypoint_scores", finite=False)
        people.append(person(np.column_stack([points, score]), place, wanted))
    return people
