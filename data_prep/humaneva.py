"""HumanEva-I: three subjects, three colour cameras at 60 fps, as npz files of valid chunks.

    python -m data_prep.humaneva --source DIR --output DIR

DIR holds, in itself or at any depth, `data_3d_humaneva15.npz` (or the 20-joint variant,
`data_3d_humaneva20.npz`) and, if at hand, `data_2d_humaneva15_gt.npz` or other files
`data_2d_humaneva15_NAME.npz` of 2D points, among which `--detections NAME` chooses. Without any,
the 2D points are the 3D joints as the cameras see them. Train and test are the parts Train and
Validate of S1, S2, S3.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import pose_files, prepare, rigs
from data_prep.pose_files import Reader
from data_prep.proof import Proof
from pose3d_jax import skeleton, sources
from pose3d_jax.schema import Identity, Record
from pose3d_jax.sources import SourceError

NAME = "humaneva"
FPS = 60.0
SPLITS = {"train": "Train", "test": "Validate"}  # the test part proper has no public labels
PROTOCOL = ("Walking", "Jog", "Box")
ACTIONS = (*PROTOCOL, "ThrowCatch", "Gestures")
TERMS = "For research; see the licence of the original (humaneva.is.tue.mpg.de)."
CITATION = (
    "L. Sigal, A. O. Balan, M. J. Black: HumanEva: Synchronized Video and Motion Capture Dataset "
    "and Baseline Algorithm for Evaluation of Articulated Human Motion. IJCV 87, 2010."
)


class _Sequence(NamedTuple):
    part: str  # Train, Validate
    subject: str
    name: str  # such as `Walking 1 chunk0`
    value: Any
    where: str

    @property
    def action(self) -> str:
        found = re.match("[A-Za-z]+", self.name)
        return found[0] if found else self.name

    @property
    def clip(self) -> str:
        return f"{self.part}_{self.subject}_{self.name}".replace(" ", "_")


class _Points(NamedTuple):
    """2D points of one file: by part/subject and name of a sequence, an array of each camera."""

    source: str
    skeleton: str
    joints: int
    path: Path
    table: Mapping[tuple[str, str], Any]


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`; a sequence is checked when its record is asked for.

    Raises `SourceError`, now or then, for what is missing or damaged. What is left out is reported
    to the proof.
    """
    files = pose_files.find(args.source, ".npz")
    joint_set, path = _positions(files, args, proof)
    points = _points(files, joint_set, args, proof)
    source = points.source if points else "projected"
    print(f"reading {path}, 2D points: {points.path if points else source}", flush=True)
    there = list(_sequences(path, proof))
    wanted = [sequence for sequence in there if _is_wanted(sequence.action, args.actions)]
    left_out = sorted({sequence.action for sequence in there} - {s.action for s in wanted})
    if left_out:
        proof.skip(f"action {', '.join(left_out)}", "not asked for; --actions all takes every one")
    splits = {
        split: _records(split, chosen, joint_set, points, proof)
        for split, part in SPLITS.items()
        if (chosen := [sequence for sequence in wanted if sequence.part == part])
    }
    if not splits:
        raise SourceError(
            f"{path}, positions_3d: has no sequence of {', '.join(args.actions)}, of Train/S1 to "
            f"Validate/S3; it has {', '.join(left_out) or 'none'}. Choose with --actions"
        )
    actions = ", ".join(dict.fromkeys(sequence.action for sequence in wanted))
    return prepare.Dataset(
        NAME, splits, f"HumanEva-I, {actions}; {joint_set}; 2D points: {source}", CITATION, TERMS
    )


def _positions(files: Sequence[Path], args: argparse.Namespace, proof: Proof) -> tuple[str, Path]:
    """The joint set and the file of the 3D positions."""
    wanted = [f"humaneva{n}" for n in ((args.joints,) if args.joints else (15, 20))]
    for joint_set in wanted:
        copies = [path for path in files if path.name == f"data_3d_{joint_set}.npz"]
        if copies:
            return joint_set, pose_files.first(copies, proof)
    raise SourceError(
        f"{args.source}: has no {' or '.join(f'data_3d_{name}.npz' for name in wanted)}, in it or "
        f"below; give the folder that holds it"
    )


def _points(
    files: Sequence[Path], joint_set: str, args: argparse.Namespace, proof: Proof
) -> _Points | None:
    """The 2D points asked for; by default `gt` or the only ones; None: projected from 3D."""
    found = pose_files.npz_detections(files, joint_set, proof)
    names = ", ".join(found)
    wanted = args.detections
    if wanted is None and len(found) > 1 and "gt" not in found:
        raise SourceError(f"{args.source}: has 2D points {names}; choose with --detections")
    if wanted is None:
        wanted = "gt" if "gt" in found else next(iter(found), "projected")
    if wanted == "projected":
        return None
    if wanted not in found:
        raise SourceError(
            f"{args.source}: has no data_2d_{joint_set}_{wanted}.npz; --detections can be "
            f"{names or 'left out'} or projected"
        )
    path = found[wanted]
    members = sources.load_npz(path, "positions_2d", "metadata")
    layout, joints = pose_files.layout(members, path)
    table = {
        (subject, name): value
        for subject, name, value in pose_files.sequences(members, "positions_2d", path)
    }
    return _Points(wanted, layout, joints, path, table)


def _sequences(path: Path, proof: Proof) -> Iterator[_Sequence]:
    """The sequences of the labelled parts and the rig's subjects; others are reported."""
    known = [f"{part}/{subject}" for part in SPLITS.values() for subject in rigs.subjects(NAME)]
    missing = dict.fromkeys(known)
    members = sources.load_npz(path, "positions_3d")
    for whose, name, value in pose_files.sequences(members, "positions_3d", path):
        where = f"{path}, positions_3d, {whose}, {name}"
        if whose not in known:
            proof.skip(where, f"is of none of {', '.join(known)}")
            continue
        missing.pop(whose, None)
        part, _, subject = whose.partition("/")
        yield _Sequence(part, subject, name, value, where)
    for whose in missing:
        proof.skip(whose, "none of its sequences is there")


def _is_wanted(action: str, actions: Sequence[str]) -> bool:
    return "all" in actions or action in actions


def _records(
    split: str,
    chosen: Sequence[_Sequence],
    joint_set: str,
    points: _Points | None,
    proof: Proof,
) -> Iterator[Record]:
    size = skeleton.get(joint_set).size
    for sequence in chosen:
        cameras, names = rigs.load_rig(NAME, sequence.subject)
        joints = pose_files.positions(sequence.value, size, sequence.where)
        keypoints = confidence = None
        if points:
            views = _views(sequence, points, names)
            seen = pose_files.seen(views, names, len(joints), sequence.clip, proof)
            if seen is None:
                continue
            keypoints, confidence = seen
        identity = Identity(
            dataset=NAME,
            subject=sequence.subject,
            action=sequence.action,
            clip=sequence.clip,
            recording=f"{NAME}_{sequence.subject}",
            camera_names=names,
            start=0,
            group=sequence.action,
            split=split,
            fps=FPS,
            keypoint_skeleton=points.skeleton if points else joint_set,
            joint_skeleton=joint_set,
            keypoint_source=points.source if points else "projected",
        )
        yield prepare.record(identity, cameras, joints, keypoints=keypoints, confidence=confidence)


def _views(sequence: _Sequence, points: _Points, names: Sequence[str]) -> dict[str, Reader]:
    whose = f"{sequence.part}/{sequence.subject}"
    if (whose, sequence.name) not in points.table:
        return {}
    where = f"{points.path}, positions_2d, {whose}, {sequence.name}"
    value = points.table[whose, sequence.name]
    return pose_files.views(value, names, points.joints, where)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.humaneva", description=CITATION)
    parser.add_argument("--joints", type=int, choices=(15, 20), help="default: 15, if it is there")
    parser.add_argument("--detections", metavar="NAME", help="2D points, or `projected`")
    parser.add_argument("--actions", nargs="+", choices=(*ACTIONS, "all"), default=list(PROTOCOL))
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
