"""A detector's keypoints and a calibration to 3D poses, in the files that other tools read.

    python -m pose3d_jax.predict --checkpoint runs/demo/multiview --keypoints DETECTIONS [...]
        --cameras CALIBRATION --output out [--adapt poses] [--formats trc c3d bvh]

DETECTIONS are what OpenPose, MMPose, AlphaPose, MediaPipe, Pose2Sim or COCO's tools leave, a CSV or
an NPZ: one of each view, or one with all of them (`formats/keypoints.py`). CALIBRATION is a file of
Pose2Sim, anipose, Qualisys, EasyMocap, OpenCV, or an NPZ (`formats/calibration.py`); without one,
of a single view, a camera without distortion is assumed, whose focal length is the image's longer
side (`--focal` is better). Views and cameras belong together by name; where no name agrees, by
their order, which is said.

People are followed over time and across views, and each of them leaves `person_0.npz` and so on:
metres, z up (`--space world`), in the axes of each camera (`camera`, a file for each view), or
about the pelvis (`root`). With `--adapt poses` joints are moved to where all views, constant bones
and quiet motion want them. `--adapt clocks poses` first brings videos that begin up to a few frames
apart onto the clock of the first, `--adapt cameras poses` corrects where cameras are and their
focal lengths, too, and leaves them as `cameras.toml`. `out/viewer.html` shows it all.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float

from pose3d_jax import compiled, references, rigcheck, skeleton, tracking, trained, workdir
from pose3d_jax.cameras import Camera
from pose3d_jax.data import own
from pose3d_jax.data.own import PredictError
from pose3d_jax.errors import UserError
from pose3d_jax.formats import calibration, export, keypoints
from pose3d_jax.formats.calibration import Rig
from pose3d_jax.formats.keypoints import Detections
from pose3d_jax.tracking import Person, Track
from pose3d_jax.trained import STAGES, Poses, Trained
from pose3d_jax.viewer import interactive

Array = np.ndarray
SPACES = ("world", "camera", "root")


def people_of(views: Sequence[Detections], cameras: Camera) -> list[Person]:
    """Who is in the detections of each view, their frames counted alike; cameras `[views]`.

    Where no view shows two at once, nothing is asked of the cameras, which may be wrong. Raises
    `PredictError` where it is, and nobody is seen by two views.
    """
    found = [_tracks(view) for view in views]
    only = tracking.alone(found)
    if only is not None:
        return [only]
    people = tracking.across(found, cameras)
    if len(views) > 1 and not any(len(_seeing(person)) > 1 for person in people):
        raise PredictError(
            "no two views see the same people: their rays pass one another too far apart; are the "
            "cameras those of the views, in their order (--views), and the videos synchronous?"
        )
    return people


def _seeing(person: Person) -> Array:
    """The views that ever see a person."""
    return np.flatnonzero(person.keypoints[..., 2].any(axis=(0, 2)))


def _tracks(view: Detections) -> list[Track]:
    """By the detector's own numbers of people, where it gives such."""
    if view.ids is None:
        found = tracking.tracks(view.people, least=min(5, len(view.people)))
        return [dataclasses.replace(track, start=track.start + view.first) for track in found]
    seen: dict[int, dict[int, Array]] = {}
    for frame, (people, ids) in enumerate(zip(view.people, view.ids, strict=True)):
        for person, number in zip(people, ids, strict=True):
            seen.setdefault(int(number), {})[frame] = person
    found = []
    for frames in seen.values():
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
    if len(views) != len(rig.names):
        raise PredictError(
            f"the keypoints' views are {', '.join(views)}, the cameras {', '.join(rig.names)}; say "
            f"by --views which camera is which view's, in the views' order"
        )
    pairs = ", ".join(f"{view} by {name}" for view, name in zip(views, rig.names, strict=True))
    logging.warning("views and cameras have other names, and go together in their order: %s", pairs)
    return rig


def in_network_order(
    person: Person, known: skeleton.Skeleton, network: Trained, like: str
) -> Array:
    """A person's keypoints in the order that the network wants, `[frames, views, joints, 3]`.

    `like`: convert to this joint set, as asked. Raises `SkeletonError` naming what is missing.
    """
    points = person.keypoints
    if like:
        points, known = skeleton.convert(points, known, skeleton.get(like)), skeleton.get(like)
    return skeleton.reorder(points, known, network.keypoint_skeleton)


def in_space(
    poses: Poses, space: str, network: Trained, views: Sequence[str]
) -> dict[str, Float[Array, "frames joints 3"]]:
    """The joints to be written, by what is put behind the person's name."""
    root = network.joint_skeleton.root
    if space == "camera":
        return {f"_{name}": poses.in_views[:, view] for view, name in enumerate(views)}
    world = poses.world
    if world is None:
        if space == "world":
            raise PredictError(
                f"where people are is not known: what the network predicts is {poses.space}, or "
                f"the camera is not; use --space camera"
            )
        world = poses.in_views[:, 0]
    return {"": world if space == "world" else world - world[:, root, None]}


def run(given: argparse.Namespace) -> dict[str, Any]:
    """What the command does; what it has left is written down in `summary.json`."""
    if given.output.exists() and not given.output.is_dir():
        raise PredictError(f"--output {given.output} is no folder; name one, or a new one")
    if not 0 < given.fps < math.inf:
        raise PredictError(f"--fps {given.fps}: give frames per second, above 0")
    for name in given.formats:
        if name not in export.FORMATS:
            raise PredictError(
                f"no format is named {name!r}; there are {', '.join(export.FORMATS)}"
            )
    network = trained.load(given.checkpoint)
    views: dict[str, Detections] = {}
    for path in given.keypoints:
        read = keypoints.read(path, skeleton=given.skeleton, size=given.size)
        for name, detections in read.items():
            if name in views:
                raise PredictError(f"{path}: a view {name} was read before; name files apart")
            views[name] = detections
    sets = sorted({view.skeleton.name for view in views.values()})
    if len(sets) > 1:
        raise PredictError(f"the views' joint sets are {', '.join(sets)}; give one for all")
    known = next(iter(views.values())).skeleton
    rig = _rig(given, views)
    people = people_of(list(views.values()), rig.cameras)
    people = sorted(people, key=lambda person: -np.count_nonzero(person.keypoints[..., 2]))
    people = people[: given.people] if given.people else people
    if not people:
        raise PredictError("nobody is seen for five frames; look at the detections")
    ready = [in_network_order(person, known, network, given.convert) for person in people]
    if len(views) > 1:
        rigcheck.check(rig, ready[0][..., :2], ready[0][..., 2])
    said = [network.predict(x, rig.cameras, fps=given.fps, stages=given.adapt) for x in ready]
    found = list(zip(people, ready, said, strict=True))
    # What cannot be written is told before anything is.
    joints = [in_space(poses, given.space, network, rig.names) for poses in said]
    placed = all(poses.world is not None for poses in said)
    page = interactive.render(scene_of(given, network, rig, found)) if placed else None
    given.output.mkdir(parents=True, exist_ok=True)
    return _written(given, network, rig, found, joints, page)


def _rig(given: argparse.Namespace, views: dict[str, Detections]) -> Rig:
    if given.cameras is not None:
        return paired(
            views, calibration.read(given.cameras, unit=given.unit, size=given.size), given.views
        )
    if len(views) > 1:
        raise PredictError(
            f"there are {len(views)} views ({', '.join(views)}) and no --cameras; give their "
            f"calibration, or keypoints of one view"
        )
    if given.size is None:
        raise PredictError("without --cameras give --size WIDTH HEIGHT of the image, pixels")
    if given.focal is None:
        logging.warning(
            "no focal length is given: %d pixels, the image's longer side, are assumed, so how far "
            "people are is a guess; give --focal or --cameras",
            max(given.size),
        )
    return Rig(tuple(views), own.ideal(tuple(given.size), given.focal))


def _written(
    given: argparse.Namespace,
    network: Trained,
    rig: Rig,
    found: Sequence[tuple[Person, Array, Poses]],
    joints: Sequence[dict[str, Array]],
    page: str | None,
) -> dict[str, Any]:
    """Writes every person's files, the cameras where they were corrected, the page; the summary
    at the end, when all else is there."""
    summary: dict[str, Any] = {"unit": "m", "space": given.space, "fps": given.fps, "people": []}
    for number, (person, _, poses) in enumerate(found):
        files = []
        for behind, own_joints in joints[number].items():
            name = f"person_{number}{behind}"
            motion = export.Motion(own_joints, network.joint_skeleton, given.fps, name=name)
            for suffix in given.formats:
                export.write(given.output / f"{name}.{suffix}", motion)
                files.append(f"{name}.{suffix}")
        own_summary: dict[str, Any] = {
            "first_frame": person.start, "frames": len(person.keypoints), "files": files,
        }  # fmt: skip
        if "clocks" in given.adapt or "cameras" in given.adapt:
            own_summary["clocks_frames"] = dict(zip(rig.names, poses.clocks.tolist(), strict=True))
        if "cameras" in given.adapt:
            corrected = Rig(rig.names, poses.cameras)
            name = "cameras.toml" if number == 0 else f"cameras_{number}.toml"
            calibration.write(given.output / name, corrected)
            own_summary["cameras"] = name
        summary["people"].append(own_summary)
    if page is not None:
        workdir.write_text(given.output / "viewer.html", page)
        summary["viewer"] = "viewer.html"
    workdir.write_text(given.output / "summary.json", json.dumps(summary, indent=1))
    return summary


def scene_of(
    given: argparse.Namespace,
    network: Trained,
    rig: Rig,
    found: Sequence[tuple[Person, Array, Poses]],
) -> interactive.Scene:
    """Everybody, from the first frame of the first to the last of the last."""
    first = min(person.start for person, *_ in found)
    last = max(person.start + len(x) for person, x, _ in found)
    empty = np.full((last - first, len(found), network.joint_skeleton.size, 3), np.nan)
    methods = {"adapted" if given.adapt else "lifted": empty}
    if len(rig.names) > 1 and network.keypoint_skeleton == network.joint_skeleton:
        methods["triangulated"] = empty.copy()  # what every method is held to
    points = np.zeros((last - first, len(rig.names), len(found), network.keypoint_skeleton.size, 3))
    for number, (person, seen, poses) in enumerate(found):
        at = slice(person.start - first, person.start - first + len(seen))
        empty[at, number] = poses.world
        points[at, :, number] = seen
        if "triangulated" in methods:
            methods["triangulated"][at, number] = _triangulated(seen, rig.cameras, network)
    return interactive.Scene(
        fps=given.fps,
        skeleton=network.joint_skeleton,
        methods=methods,
        cameras=found[0][2].cameras,
        views=rig.names,
        keypoints=points,
        keypoint_skeleton=network.keypoint_skeleton,
        title=str(given.output.resolve().name),
    )


def _triangulated(
    seen: Float[Array, "frames views joints 3"], cameras: Camera, network: Trained
) -> Float[Array, "frames joints 3"]:
    """Frame by frame, robust; NaN where no two views agree."""
    clip = own.clip_of(seen, None, cameras, network.keypoint_skeleton)
    row = references.reconstruct(clip, network.keypoint_skeleton, ("robust",))["robust"]
    return np.where(row.found[..., None] > 0, row.joints, np.nan)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m pose3d_jax.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="a run's work directory")
    parser.add_argument("--keypoints", required=True, nargs="+", type=Path)
    parser.add_argument("--cameras", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--views", nargs="+", default=(), help="cameras of the keypoints' views")
    parser.add_argument("--unit", default="", choices=("", "m", "cm", "mm"), help="of the cameras")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--adapt", nargs="+", default=(), choices=STAGES)
    parser.add_argument("--space", default="world", choices=SPACES)
    parser.add_argument("--formats", nargs="+", default=("npz",), help=", ".join(export.FORMATS))
    parser.add_argument("--people", type=int, default=0, help="those seen most; default: all")
    parser.add_argument("--skeleton", default="", help="of the keypoints, where files do not say")
    parser.add_argument("--convert", default="", help="make this joint set of the keypoints")
    parser.add_argument("--size", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--focal", type=float, help="pixels, without --cameras")
    given = parser.parse_args(arguments)
    compiled.keep()
    try:
        summary = run(given)
    except UserError as error:
        sys.exit(f"error: {error}")
    for person in summary["people"]:
        print(
            f"{person['frames']} frames from {person['first_frame']}: {', '.join(person['files'])}"
        )
    if "viewer" in summary:
        print(f"{given.output}/viewer.html")


if __name__ == "__main__":
    main()
