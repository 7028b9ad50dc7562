"""What files of keypoints say, checked: people by frame, in a joint set of the registry.

Scores are the peaks of what networks give out, which is not bounded: OpenPose, AlphaPose and MMPose
write some a little above 1, and RTMPose (MMPose's and Pose2Sim's) at times below 0. Such count as 1
and as not found. At 2 and beyond they are something else and refused: COCO's label of a joint that
is visible, or the scale of AlphaPose's older models for COCO, whose manual says 0 to 6.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from pose3d_jax import skeleton
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.sources import SourceError

Array = np.ndarray

BY_NUMBER = {skeleton.get(name).size: name for name in ("coco17", "coco18", "body25", "halpe26")}
_WHOLE = {133: "COCO-WholeBody", 136: "Halpe's whole body"}
SCORES = (-1.0, 2.0)  # of networks, in between
NOBODY = -1  # the identity of who has none


@dataclasses.dataclass(frozen=True)
class Person:
    """One person in one frame; `identity` says who it is, where the file does."""

    points: Float[Array, "joints 3"]  # x, y in pixels, confidence in [0, 1]; 0 where not found
    identity: int = NOBODY


class Picture(NamedTuple):
    """What of a view's frames is picture, and no black bar; and the frames' size. Pixels."""

    left: float
    top: float
    width: float
    height: float
    frame_width: float
    frame_height: float


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a file says of one view: the people by frame, and the joint set if it names one."""

    frames: dict[int, list[Person]]
    skeleton: str = ""
    picture: Picture | None = None
    fps: float | None = None


def joint_set(count: int, wanted: str, where: str) -> Skeleton:
    """The set that is wanted, or else of that number; `SourceError` where there is none."""
    if wanted:
        if skeleton.get(wanted).size != count:
            raise SourceError(
                f"{where}: has {count} joints, but {wanted} has {skeleton.get(wanted).size}; name "
                f"the joint set that it is in"
            )
        return skeleton.get(wanted)
    if count not in BY_NUMBER:
        what = f" ({_WHOLE[count]})" if count in _WHOLE else ""
        known = ", ".join(f"{size} ({name})" for size, name in BY_NUMBER.items())
        raise SourceError(
            f"{where}: has {count} joints{what}; those known by their number are {known}. Have the "
            f"detector write one of these, or name the joint set if it is another of the registry"
        )
    return skeleton.get(BY_NUMBER[count])


def person(
    values: Float[Array, "joints 3"],
    where: str,
    wanted: str = "",
    *,
    identity: int = NOBODY,
    scores: tuple[float, float] | None = SCORES,
) -> Person:
    """Checked x, y, confidence. A joint of confidence 0, or of NaN in all three, was not found.

    Confidences may be between `scores`, both excluded, or with None in [0, 1]. Raises `SourceError`
    naming the joint.
    """
    joints = joint_set(len(values), wanted, where).joints
    score = values[:, 2]
    missing = (score == 0) | np.isnan(values).all(axis=1)
    for joint in np.flatnonzero(~missing & ~np.isfinite(values).all(axis=1)):
        x, y, c = values[joint]
        raise SourceError(
            f"{where}, {joints[joint]}: is at {x:g}, {y:g} with confidence {c:g}; a joint that was "
            f"not found has confidence 0"
        )
    inside = (scores[0] < score) & (score < scores[1]) if scores else (score >= 0) & (score <= 1)
    for joint in np.flatnonzero(~missing & ~inside):
        raise SourceError(
            f"{where}, {joints[joint]}: has confidence {score[joint]:g}, outside 0 to 1; is it x, "
            f"y, confidence? Bring labels (0, 1, 2) and scores of another scale to 0 to 1 first"
        )
    points = np.where((missing | (score <= 0))[:, None], 0.0, values)
    return Person(np.minimum(points, [np.inf, np.inf, 1.0]), identity)


def frame_number(name: Any, where: str) -> int:
    """The number of an image: itself, or what its file's name ends with."""
    if isinstance(name, int) and not isinstance(name, bool) and name >= 0:
        return name
    if isinstance(name, str):
        number = re.search(r"(\d+)(?:_keypoints)?$", Path(name).stem)
        if number:
            return int(number[1])
    raise SourceError(
        f"{where}: is {name!r}, which has no frame's number at its end, as 000012_keypoints.json "
        f"or 12.jpg; number the frames"
    )


def by_names(names: Iterable[str], where: str) -> Skeleton:
    """The joint set of these names, in any order; `SourceError` where there is none."""
    names = list(names)
    for known in skeleton.SKELETONS.values():
        if sorted(known.joints) == sorted(names):
            return known
    raise SourceError(
        f"{where}: its joints are {', '.join(map(str, names))}, which is none of the joint sets "
        f"{', '.join(skeleton.SKELETONS)}; name the one that it is in"
    )


def list_of(value: Any, where: str) -> list[Any]:
    """The value, or `SourceError` where it is no list."""
    if not isinstance(value, list):
        raise SourceError(f"{where}: is a {type(value).__name__}, not a list; write it again")
    return value
