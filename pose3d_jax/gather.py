"""Whom a user's detections show: people over time and across views, and the cameras of these."""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from pose3d_jax import sides, skeleton, tracking
from pose3d_jax.cameras import Camera
from pose3d_jax.data import own
from pose3d_jax.data.own import PredictError
from pose3d_jax.formats import calibration
from pose3d_jax.formats.calibration import Rig
from pose3d_jax.formats.keypoints import Detections
from pose3d_jax.tracking import Person, Track

Array = np.ndarray
_LEAST = 5  # frames that somebody must be seen in
_CUT = 10  # frames by which videos of one recording may be cut differently


def people_of(views: Sequence[Detections], cameras: Camera, *, fps: float = 30.0) -> list[Person]:
    """Who is in the detections of each view, their frames counted alike; cameras `[views]`.

    Where no view shows two at once, nothing is asked of the cameras, which may be wrong: that is
    one person, or several, one after another, as detectors' numbers tell (`tracking.alone`). Raises
    `PredictError` where one does, and nobody is seen by two views.
    """
    found = [_tracks(view) for view in views]
    numbered = [view.ids is not None for view in views]
    people = tracking.alone(found, numbered=numbered, fps=fps)
    if people:
        if not all(numbered):
            _tell_absence(people, fps)
        return people
    longest = max((track.frames for own_tracks in found for track in own_tracks), default=0)
    people = tracking.across(found, cameras, least=min(_LEAST, longest))
    if len(views) > 1 and not any(len(_seeing(person)) > 1 for person in people):
        raise PredictError(
            "no two views see the same people: their rays pass one another too far apart; are the "
            "cameras those of the views, in their order (--views), and the videos synchronous?"
        )
    return people


def tell_lengths(views: Mapping[str, Detections]) -> None:
    """Where views begin or end more than a few frames apart, what becomes of the others' frames."""
    frames = {name: (view.first, view.first + len(view.people) - 1) for name, view in views.items()}
    if any(max(ends) - min(ends) > _CUT for ends in zip(*frames.values(), strict=True)):
        logging.warning(
            "the views' frames are not the same (%s); all are kept, and a view counts as seeing "
            "nobody where it has none",
            ", ".join(f"{name} {first} to {last}" for name, (first, last) in frames.items()),
        )


def _tell_absence(people: Sequence[Person], fps: float) -> None:
    """Where nobody was seen for so long that another may have come, and no number says so."""
    for person in people:
        seen = np.flatnonzero(person.keypoints[..., 2].any(axis=(1, 2)))
        for before, after in itertools.pairwise(seen):
            if after - before > tracking.LOST * fps:
                logging.warning(
                    "nobody is seen in frames %d to %d; who is there then is taken to be who was "
                    "there before, as no detector numbers people",
                    person.start + before + 1,
                    person.start + after - 1,
                )


def _seeing(person: Person) -> Array:
    """The views that ever see a person."""
    return np.flatnonzero(person.keypoints[..., 2].any(axis=(0, 2)))


def _tracks(view: Detections) -> list[Track]:
    """By the detector's own numbers of people, where it gives such."""
    if view.ids is None:
        found = tracking.tracks(view.people, least=min(_LEAST, len(view.people)))
        return [dataclasses.replace(track, start=track.start + view.first) for track in found]
    seen: dict[int, dict[int, Array]] = {}
    for frame, (people, ids) in enumerate(zip(view.people, view.ids, strict=True)):
        for person, number in zip(people, ids, strict=True):
            seen.setdefault(int(number), {})[frame] = person
    found = []
    for frames in seen.values():
        if len(frames) < min(_LEAST, len(view.people)):
            continue
        first = min(frames)
        points = np.zeros((max(frames) - first + 1, *next(iter(frames.values())).shape))
        for frame, person in frames.items():
            points[frame - first] = person
        found.append(Track(first + view.first, points))
    return found


def paired(views: dict[str, Detections], rig: Rig, order: Sequence[str]) -> Rig:
    """The rig's cameras of the views, in their order; `order` names them, else they have its names.

    Raises `PredictError` where it is not clear which camera is whose.
    """
    if order:
        if len(order) != len(views):
            raise PredictError(
                f"--views names {len(order)} cameras for {len(views)} views of keypoints "
                f"({', '.join(views)}); name one for each, in their order"
            )
        return calibration.subset(rig, order)
    if set(views) <= set(rig.names):
        return calibration.subset(rig, list(views))
    if len(views) != len(rig.names) or set(views) & set(rig.names):
        raise PredictError(
            f"the keypoints' views are {', '.join(views)}, the cameras {', '.join(rig.names)}; say "
            f"by --views which camera is which view's, in the views' order"
        )
    pairs = ", ".join(f"{view} by {name}" for view, name in zip(views, rig.names, strict=True))
    logging.warning("views and cameras have other names, and go together in their order: %s", pairs)
    return rig


def sided(person: Person, rig: Rig, known: skeleton.Skeleton) -> Person:
    """The person with left and right as most views have them; where they had not, is told."""
    wrong = sides.exchanged(person.keypoints, rig.cameras, known)
    for view, frames in zip(rig.names, wrong.T, strict=True):
        if frames.any():
            at = person.start + np.flatnonzero(frames)
            logging.warning(
                "view %s: left and right were exchanged in %d frames between %d and %d; exchanged "
                "back, as the other views say",
                view,
                len(at),
                at[0],
                at[-1],
            )
    return dataclasses.replace(person, keypoints=sides.mended(person.keypoints, wrong, known))


def in_order(
    person: Person, known: skeleton.Skeleton, wanted: skeleton.Skeleton, like: str
) -> Array:
    """A person's keypoints in the order that is wanted, `[frames, views, joints, 3]`.

    `like`: convert to this joint set, as asked. Raises `SkeletonError` naming what is missing.
    """
    points = person.keypoints
    if like:
        points, known = skeleton.convert(points, known, skeleton.get(like)), skeleton.get(like)
    return skeleton.reorder(points, known, wanted)


def rig_of(given: argparse.Namespace, views: dict[str, Detections]) -> Rig:
    """The cameras of the views, as the command's arguments say. Raises `PredictError`."""
    pictures = [view.picture for view in views.values()]
    if given.cameras is not None:
        rig = calibration.read(given.cameras, unit=given.unit, size=given.size)
        rig, told = calibration.fitted(paired(views, rig, given.views), pictures)
        for change in told:
            logging.warning("camera %s", change)
        return rig
    if len(views) > 1:
        raise PredictError(
            f"there are {len(views)} views ({', '.join(views)}) and no --cameras; give their "
            f"calibration, or keypoints of one view"
        )
    (picture,) = pictures
    size = given.size
    if size is None and picture is not None:
        size = (round(picture.frame_width), round(picture.frame_height))
    if size is None:
        raise PredictError("without --cameras give --size WIDTH HEIGHT of the image, pixels")
    if given.focal is None:
        logging.warning(
            "no focal length is given: %d pixels, the image's longer side, are assumed, so how far "
            "people are is a guess; give --focal or --cameras",
            max(size),
        )
    return Rig(tuple(views), own.ideal(tuple(size), given.focal))


def fps_of(given: float | None, views: dict[str, Detections]) -> float:
    """Frames per second: as given, else as the views say, else 30. Raises `PredictError` for views
    that say different ones."""
    said = {name: view.fps for name, view in views.items() if view.fps}
    if said and max(said.values()) > 1.005 * min(said.values()):
        rates = ", ".join(f"{name} {fps:g}" for name, fps in said.items())
        raise PredictError(
            f"the views have different frame rates ({rates}); bring them to one, e.g. by "
            f"`ffmpeg -i in.mp4 -r {min(said.values()):g} out.mp4`, and detect again"
        )
    return given or next(iter(said.values()), 30.0)
