"""A detector's keypoints and a calibration to 3D poses, in the files that other tools read.

    python -m pose3d_jax.predict --checkpoint runs/demo/multiview --keypoints DETECTIONS [...]
        --cameras CALIBRATION --output out [--adapt poses] [--formats trc c3d bvh]

DETECTIONS are what OpenPose, MMPose, AlphaPose, MediaPipe, Pose2Sim or COCO's tools leave, a CSV or
an NPZ: one of each view, or one with all of them (`formats/keypoints.py`); or the views' videos,
in which people are found by `pose3d_jax.detect`. CALIBRATION is a file of
Pose2Sim, anipose, Qualisys, EasyMocap, OpenCV, or an NPZ (`formats/calibration.py`); without one,
of a single view, a camera without distortion is assumed, whose focal length is the image's longer
side (`--focal` is better). Views and cameras belong together by name; where no name agrees, by
their order, which is said.

People are followed over time and across views, left and right that a view has exchanged are
exchanged back where two others or more say so, and each of them leaves `person_0.npz` and so on:
metres, z up (`--space world`), as each camera sees it (`camera`: x to the right, y away from it, z
up; a file for each view), or about the pelvis (`root`). Frames in which nobody is seen are empty.
With `--adapt poses` joints are moved to where all views, constant bones and quiet motion want them;
one view is enough for that.
`--adapt clocks poses` first brings videos that begin up to a few frames
apart onto the clock of the first, `--adapt clocks cameras poses` corrects where cameras are
and their focal lengths, too, as far as they may be off (`--doubt`), and leaves them as
`cameras.toml`. `--smooth butterworth` (or `one-euro`,
`kalman`) makes joints quieter over time, `--floor` turns the world, cameras too, so that the floor
is z = 0, and tells when feet touch it. `out/viewer.html` shows it all, `--movie gif` (or mp4) makes
a moving picture of it.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float

from pose3d_jax import (
    compiled,
    detect,
    gather,
    postprocess,
    references,
    rigcheck,
    smoothing,
    trained,
    workdir,
)
from pose3d_jax.data import own
from pose3d_jax.data.own import PredictError
from pose3d_jax.errors import UserError
from pose3d_jax.formats import calibration, export, keypoints, video
from pose3d_jax.formats.calibration import Rig
from pose3d_jax.formats.keypoints import Detections
from pose3d_jax.rigs import Doubt
from pose3d_jax.tracking import Person
from pose3d_jax.trained import STAGES, Poses, Trained
from pose3d_jax.viewer import interactive, movie
from pose3d_jax.viewer.scene import Scene

Array = np.ndarray
SUMMARY = "summary.json"
SPACES = ("world", "camera", "root")


def in_space(
    poses: Poses, space: str, network: Trained, views: Sequence[str]
) -> dict[str, tuple[Float[Array, "frames joints 3"], Float[Array, "frames joints"]]]:
    """The joints to be written, z up, by what is put behind the person's name; and whether found.

    In frames in which the person is not seen nothing is.
    """
    root, joints = network.joint_skeleton.root, network.joint_skeleton.size
    seen = poses.keypoints[..., 2].max(axis=-1) > 0  # [frames, views]

    def found(frames: Array) -> Array:
        return np.repeat(frames[:, None], joints, axis=1).astype(np.float32)

    if space == "camera":
        # Right, away from the camera, and up.
        turned = poses.in_views[..., [0, 2, 1]] * np.array([1, 1, -1], np.float32)
        return {f"_{name}": (turned[:, v], found(seen[:, v])) for v, name in enumerate(views)}
    world = poses.world
    if world is None:
        raise PredictError(
            f"where people are, and how they are turned in the world, is not known: what the "
            f"network predicts is {poses.space}; use --space camera"
        )
    about = world if space == "world" else world - world[:, root, None]
    return {"": (about, found(seen.any(axis=1)))}


def run(given: argparse.Namespace) -> dict[str, Any]:
    """What the command does; what it has left is written down in `summary.json`."""
    if given.output.exists() and not given.output.is_dir():
        raise PredictError(f"--output {given.output} is no folder; name one, or a new one")
    for name in ("fps", "focal"):
        value = getattr(given, name)
        if value is not None and not 0 < value < math.inf:
            raise PredictError(f"--{name} {value}: give a number above 0")
    if given.people < 0 or (given.size is not None and min(given.size) <= 0):
        raise PredictError("--people and --size take numbers above 0")
    if (given.doubt or given.doubt_radial) and "cameras" not in given.adapt:
        raise PredictError(
            "--doubt and --doubt-radial are about the stage cameras (--adapt), which is not given"
        )
    if not all(0 <= value < math.inf for value in (*(given.doubt or ()), given.doubt_radial)):
        raise PredictError("--doubt takes numbers from 0 on")
    if given.cameras is None and (given.views or given.unit):
        raise PredictError("--views and --unit are about --cameras, which is not given")
    if given.cameras is not None and given.focal is not None:
        raise PredictError("--focal is for one view without --cameras; leave one of them out")
    postprocess.check(given.smooth, given.floor, given.space)
    for name in given.formats:
        if name not in export.FORMATS:
            raise PredictError(
                f"no format is named {name!r}; there are {', '.join(export.FORMATS)}"
            )
    movie.library(given.movie)
    videos = _videos(given)
    network = trained.load(given.checkpoint)
    views: dict[str, Detections] = {}
    detected = detect.views(videos, given.weights) if videos else {}
    for path in given.keypoints:
        if path in videos:
            read = {path.stem: detected[path.stem]}
        else:
            read = keypoints.read(path, skeleton=given.skeleton, size=given.size)
        for name, detections in read.items():
            if name in views:
                raise PredictError(f"{path}: a view {name} was read before; name files apart")
            views[name] = detections
    sets = sorted({view.skeleton.name for view in views.values()})
    if len(sets) > 1:
        raise PredictError(f"the views' joint sets are {', '.join(sets)}; give one for all")
    known = next(iter(views.values())).skeleton
    rig = gather.rig_of(given, views)
    given.fps = gather.fps_of(given.fps, views)
    gather.tell_lengths(views)
    people = gather.people_of(list(views.values()), rig.cameras, fps=given.fps)
    people = sorted(people, key=lambda person: -np.count_nonzero(person.keypoints[..., 2]))
    people = people[: given.people] if given.people else people
    if not people:
        raise PredictError("nobody is seen for five frames; look at the detections")
    for suffix in given.formats:
        export.check_frames(f"person.{suffix}", max(len(each.keypoints) for each in people))
    ready = [
        gather.in_order(person, known, network.keypoint_skeleton, given.convert)
        for person in (gather.sided(person, rig, known) for person in people)
    ]
    best = max(ready, key=lambda person: own.shared(person[..., 2]))
    if len(views) > 1:
        rigcheck.check(rig, best[..., :2], best[..., 2])
    # There is one rig: who is seen best tells of it, for all.
    clip = own.clip_of(best, None, rig.cameras, network.keypoint_skeleton)
    doubt = Doubt(*given.doubt) if given.doubt else trained.CAREFUL
    doubt = doubt._replace(radial=given.doubt_radial)
    corrections = network.corrections(clip, given.adapt, doubt) if len(views) > 1 else None
    lift = functools.partial(
        network.predict, cameras=rig.cameras, fps=given.fps, corrections=corrections
    )
    said = [lift(person, stages=given.adapt) for person in ready]
    standing = None
    if given.smooth:
        said = [postprocess.quiet(poses, given.smooth, given.fps) for poses in said]
    if given.floor:
        said, standing = postprocess.on_floor(said, network.joint_skeleton, given.fps)
    found = list(zip(people, said, strict=True))
    # What cannot be written is told before anything is.
    joints = [in_space(poses, given.space, network, rig.names) for poses in said]
    placed = all(poses.world is not None for poses in said)
    if given.movie and not placed:
        raise PredictError("where people are is not known; leave --movie out")
    scene = scene_of(given, network, rig, found) if placed else None
    given.output.resolve().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=given.output.resolve().parent) as aside:
        summary = _written(given, Path(aside), network, rig, found, joints, standing)
        if scene is not None:
            summary["viewer"] = "viewer.html"
            summary["viewer_shows"] = interactive.leave(Path(aside) / summary["viewer"], scene)
        if given.movie and scene is not None:
            summary |= _filmed(Path(aside) / f"movie.{given.movie}", scene)
        workdir.write_text(Path(aside) / SUMMARY, json.dumps(summary, indent=1))
        given.output.mkdir(exist_ok=True)
        for path in sorted(Path(aside).iterdir(), key=lambda path: path.name == SUMMARY):
            os.replace(path, given.output / path.name)
    return summary


def _filmed(path: Path, scene: Scene) -> dict[str, str]:
    """The moving picture, and what it shows; where there is none, why: all else is not lost."""
    try:
        return {"movie_shows": movie.write(path, scene), "movie": path.name}
    except UserError as error:
        logging.warning("there is no %s: %s", path.name, error)
        return {"movie_failed": str(error)}


def _videos(given: argparse.Namespace) -> list[Path]:
    """Those of the keypoints that are videos; what is wrong with them, or with what belongs to
    them, is told before they are looked at, which takes minutes."""
    found = [path for path in given.keypoints if path.suffix.lower() in video.SUFFIXES]
    twice = sorted({p.stem for p in found if [q.stem for q in found].count(p.stem) > 1})
    if twice:
        raise PredictError(f"two videos are called {twice[0]}; views need names of their own")
    if found and given.skeleton:
        raise PredictError("--skeleton is of keypoints in files; those of videos are blazepose33")
    if len(found) > 1 and given.cameras is None:
        raise PredictError(
            f"there are {len(found)} videos and no --cameras; give their calibration"
        )
    for path in found:
        video.fps_of(path)
    if found and given.cameras is not None:
        calibration.read(given.cameras, unit=given.unit, size=given.size)
    return found


def _written(
    given: argparse.Namespace,
    folder: Path,
    network: Trained,
    rig: Rig,
    found: Sequence[tuple[Person, Poses]],
    joints: Sequence[dict[str, tuple[Array, Array]]],
    standing: postprocess.Standing | None,
) -> dict[str, Any]:
    """Writes every person's files, and the cameras where they were corrected; a summary."""
    summary: dict[str, Any] = {"unit": "m", "space": given.space, "fps": given.fps, "people": []}
    for number, (person, said) in enumerate(found):
        files, sure = [], postprocess.covariances(said, given.space, rig.names)
        for behind, (places, measured) in joints[number].items():
            name = f"person_{number}{behind}"
            motion = export.Motion(
                places, network.joint_skeleton, given.fps, measured, name, first=person.start
            )
            motion = dataclasses.replace(motion, covariance=sure.get(behind))
            if standing:
                contact, feet = standing.contacts[number], standing.feet
                motion = dataclasses.replace(motion, contact=contact, feet=feet)
            for suffix in given.formats:
                export.write(folder / f"{name}.{suffix}", motion)
                files.append(f"{name}.{suffix}")
        summary["people"].append(
            {"first_frame": person.start, "frames": len(person.keypoints), "files": files}
        )
        if standing:
            summary["people"][-1]["contact"] = standing.touching(number)
    poses = found[0][1]
    if standing:
        summary["floor"] = standing.summary()
    if "clocks" in given.adapt or "cameras" in given.adapt:
        summary["clocks_frames"] = dict(zip(rig.names, poses.clocks.tolist(), strict=True))
    if "cameras" in given.adapt or standing:
        calibration.write(folder / "cameras.toml", Rig(rig.names, poses.cameras))
        summary["cameras"] = "cameras.toml"
    return summary


def scene_of(
    given: argparse.Namespace,
    network: Trained,
    rig: Rig,
    found: Sequence[tuple[Person, Poses]],
) -> Scene:
    """Everybody, from the first frame of the first to the last of the last, where they are seen.

    Keypoints, and triangulation of them, are those of the cameras and clocks that were lifted with.
    """
    first = min(person.start for person, _ in found)
    last = max(person.start + len(person.keypoints) for person, _ in found)
    lifted = np.full((last - first, len(found), network.joint_skeleton.size, 3), np.nan)
    methods = {"adapted" if given.adapt else "lifted": lifted}
    if len(rig.names) > 1 and network.keypoint_skeleton == network.joint_skeleton:
        methods["triangulated"] = lifted.copy()  # what every method is held to
    points = np.zeros((last - first, len(rig.names), len(found), network.keypoint_skeleton.size, 3))
    for number, (person, poses) in enumerate(found):
        at = slice(person.start - first, person.start - first + len(person.keypoints))
        seen = poses.keypoints[..., 2].max(axis=(1, 2)) > 0
        assert poses.world is not None  # there is a page only where it is
        lifted[at, number] = np.where(seen[:, None, None], poses.world, np.nan)
        points[at, :, number] = poses.keypoints
        if "triangulated" in methods:
            methods["triangulated"][at, number] = _triangulated(poses, network)
    return Scene(
        fps=given.fps,
        skeleton=network.joint_skeleton,
        methods=methods,
        cameras=found[0][1].cameras,
        views=rig.names,
        keypoints=points,
        keypoint_skeleton=network.keypoint_skeleton,
        title=str(given.output.resolve().name),
    )


def _triangulated(poses: Poses, network: Trained) -> Float[Array, "frames joints 3"]:
    """Frame by frame, robust; NaN where no two views agree."""
    clip = own.clip_of(poses.keypoints, None, poses.cameras, network.keypoint_skeleton)
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
    parser.add_argument("--fps", type=float, help="default: as videos say, else 30")
    parser.add_argument("--adapt", nargs="+", default=(), choices=STAGES)
    parser.add_argument(
        "--doubt", nargs=3, type=float, metavar=("DEGREES", "METRES", "FOCAL"),
        help="how far cameras may be from their calibration, for the stage cameras: standard "
        "deviations, of the focal length as a share; default: {} {} {}".format(*trained.CAREFUL),
    )  # fmt: skip
    parser.add_argument(
        "--doubt-radial", type=float, default=0.0, metavar="RADIAL",
        help="and of the first coefficient of their distortion; default: 0, which believes it",
    )  # fmt: skip
    parser.add_argument("--smooth", choices=smoothing.KINDS, help="make joints quieter over time")
    parser.add_argument("--floor", action="store_true", help="the floor becomes z = 0")
    parser.add_argument("--space", default="world", choices=SPACES)
    parser.add_argument("--formats", nargs="+", default=("npz",), help=", ".join(export.FORMATS))
    parser.add_argument("--movie", default="", choices=("", *movie.FORMATS), help="GIF or MP4")
    parser.add_argument("--people", type=int, default=0, help="those seen most; default: all")
    parser.add_argument("--skeleton", default="", help="of the keypoints, where files do not say")
    parser.add_argument("--convert", default="", help="make this joint set of the keypoints")
    parser.add_argument("--size", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--weights", type=Path, help="of the networks that look at videos")
    parser.add_argument("--focal", type=float, help="pixels, without --cameras")
    given = parser.parse_args(arguments)
    given.size = given.size and tuple(given.size)
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
        print(f"{given.output}/viewer.html: {summary['viewer_shows']}")
    if "movie" in summary:
        print(f"{given.output}/{summary['movie']}: {summary['movie_shows']}")


if __name__ == "__main__":
    main()
