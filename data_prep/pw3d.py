"""3DPW: people outdoors, filmed by one moving camera, their bodies tracked with inertial sensors.

    python -m data_prep.pw3d --source DIR --output DIR
    python -m data_prep.pw3d --source DIR --output DIR --keypoints projected
    python -m data_prep.pw3d --source DIR --output DIR --splits test --body MALE.pkl FEMALE.pkl

DIR holds `sequenceFiles/{train,validation,test}/*.pkl`, itself or in a folder `3DPW`; whatever else
it holds is ignored. Each person of a sequence is one clip of 30 fps with 24 SMPL joints in 3D. The
2D are the detections that come with the set (18 joints, OpenPose's order), or with `--keypoints
projected` the 3D joints as the camera sees them. Frames whose camera was not aligned with the image
(`campose_valid`) have no 3D labels.

With `--body`, a file of SMPL, clips have bodies (`Labels.body`) and 25 joints (`body25`) in 2D and
3D, as those of Body-CMU: 3D ones of the mesh, 2D ones as far as the set has them (no feet). The
set's shapes are meant for SMPL's files of each gender: give those of men and women, in this order.
One file is taken for everybody, and people are then a little off their size; the proof says how far
the body's joints are from the set's. `--common`: only shoulders, elbows, wrists, hips, knees,
ankles, neck and the middle of the hips are labelled (and with `--keypoints projected` seen).
Published numbers are of 14 joints: these, with the top of the head in place of the middle of the
hips.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep import prepare, pw3d_body
from data_prep.proof import Proof
from data_prep.pw3d_body import Motion
from pose3d_jax import skeleton
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.errors import UserError
from pose3d_jax.figure import Figure
from pose3d_jax.schema import Identity, Record
from pose3d_jax.sources import SourceError, array, load_pickle, member

NAME = "pw3d"
FPS = 30.0
SPLITS = ("train", "validation", "test")
CITATION = (
    "von Marcard, Henschel, Black, Rosenhahn, Pons-Moll: Recovering Accurate 3D Human Pose in The "
    "Wild Using IMUs and a Moving Camera. ECCV 2018."
)
TERMS = "For non-commercial research; see the data set's licence."
_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # from the files' y up
_RIGID = 1e-3  # how far a rotation may be from orthonormal
_LONG, _SHORT = 1920.0, 1080.0


class _Sequence(NamedTuple):
    """What one file holds, in its own world."""

    path: Path
    joints: list[np.ndarray]  # of each person, [T, 24, 3] metres
    poses2d: list[np.ndarray]  # [T, 3, 18] pixels and confidence
    aligned: list[np.ndarray]  # [T]
    poses: np.ndarray  # [T, 4, 4] world to camera
    intrinsics: np.ndarray  # [3, 3]
    motions: list[Motion]  # of each person, where bodies are asked for


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`, one sequence in memory at a time.

    Raises `SourceError` where there are no sequences, or a file is not what it should be, and
    `UserError` for flags that do not fit and bodies that are none.
    """
    if args.common and not args.body:
        raise UserError("--common is of the joints that --body gives; give it, too")
    figures = pw3d_body.load(args.body) if args.body else {}
    folder = _folder(args.source)
    splits = {}
    for split in args.splits:
        paths = sorted(p for p in (folder / split).glob("*.pkl") if not p.name.startswith("."))
        if paths:
            splits[split] = _records(paths, split, args, figures, proof)
        else:
            proof.skip(split, f"{folder / split} has no .pkl files")
    if not splits:
        wanted = " or ".join(f"{split}/*.pkl" for split in args.splits)
        raise SourceError(f"{folder}: has no {wanted}; extract sequenceFiles.zip there")
    what = "SMPL joints in 3D"
    if args.body:
        names = " (men), ".join(path.name for path in args.body)
        what = f"bodies and their joints, of {names}{' (women)' * (len(args.body) > 1)}"
    return prepare.Dataset(
        NAME,
        splits,
        f"3DPW: {what}, {args.keypoints} keypoints, one moving camera.",
        CITATION,
        TERMS,
    )


def _folder(source: Path) -> Path:
    for folder in (source / "sequenceFiles", source / "3DPW" / "sequenceFiles"):
        if folder.is_dir():
            return folder
    raise SourceError(f"{source}: has no sequenceFiles/; give the folder that holds it")


def _records(
    paths: Sequence[Path],
    split: str,
    args: argparse.Namespace,
    figures: dict[str, Figure],
    proof: Proof,
) -> Iterator[Record]:
    for path in paths:
        sequence = _load(path, bodies=bool(figures))
        for person in range(len(sequence.joints)):
            if not sequence.aligned[person].any():
                proof.skip(f"{path.stem}, person {person}", "its camera is aligned in no frame")
                continue
            yield _record(sequence, person, split, args, figures, proof)


def _load(path: Path, *, bodies: bool) -> _Sequence:
    table = load_pickle(path)

    def people(key: str, shape: tuple[int | None, ...]) -> list[np.ndarray]:
        found = _listed(table, key, path)
        return [array(x, shape, f"{path}, key {key}, person {i}") for i, x in enumerate(found)]

    poses = array(member(table, "cam_poses", str(path)), (None, 4, 4), f"{path}, key cam_poses")
    frames = len(poses)
    if not frames:
        raise SourceError(f"{path}, key cam_poses: has no frames; fetch the file again")
    joints = people("jointPositions", (frames, 72))
    sequence = _Sequence(
        path,
        [x.reshape(frames, 24, 3) for x in joints],
        people("poses2d", (frames, 3, 18)),
        [x > 0 for x in people("campose_valid", (frames,))],
        poses,
        array(member(table, "cam_intrinsics", str(path)), (3, 3), f"{path}, key cam_intrinsics"),
        [],
    )
    given: dict[str, list[Any]] = {"poses2d": sequence.poses2d, "campose_valid": sequence.aligned}
    if bodies:
        given["poses"] = [x.reshape(frames, 24, 3) for x in people("poses", (frames, 72))]
        given["betas"] = people("betas", (None,))
        given["genders"] = _listed(table, "genders", path)
    for key, found in given.items():
        if len(found) != len(joints):
            raise SourceError(
                f"{path}, key {key}: has {len(found)} people, but jointPositions has "
                f"{len(joints)}; fetch the file again"
            )
    _check_cameras(sequence)
    if not bodies:
        return sequence
    for gender in given["genders"]:
        if not isinstance(gender, str) or gender not in ("m", "f"):
            raise SourceError(
                f"{path}, key genders: has {gender!r:.40}, not m or f; fetch it again"
            )
    people_ = zip(given["poses"], given["betas"], given["genders"], strict=True)
    return sequence._replace(motions=[Motion(*each) for each in people_])


def _listed(table: Any, key: str, path: Path) -> Any:
    """What a key has for each person."""
    found = member(table, key, str(path))
    if not isinstance(found, list | tuple | np.ndarray) or len(found) == 0:
        raise SourceError(
            f"{path}, key {key}: is no list with one array for each person; fetch it again"
        )
    return found


def _check_cameras(sequence: _Sequence) -> None:
    """Raises `SourceError` unless the poses are rigid and the intrinsics those of a camera."""
    rotation = sequence.poses[:, :3, :3]
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    rigid = (off < _RIGID) & (np.linalg.det(rotation) > 0)
    if not rigid.all():
        raise SourceError(
            f"{sequence.path}, key cam_poses: is no rotation and translation in frame "
            f"{int(np.argmin(rigid))}; fetch the file again"
        )
    intrinsics = sequence.intrinsics
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise SourceError(
            f"{sequence.path}, key cam_intrinsics: has the focal lengths {intrinsics[0, 0]:g} and "
            f"{intrinsics[1, 1]:g}, which must be positive pixels; fetch the file again"
        )


def _record(
    sequence: _Sequence,
    person: int,
    split: str,
    args: argparse.Namespace,
    figures: dict[str, Figure],
    proof: Proof,
) -> Record:
    joints, aligned = sequence.joints[person] @ _Z_UP.T, sequence.aligned[person]
    points = sequence.poses2d[person].swapaxes(1, 2)
    joint_set, keypoint_set = "smpl24", "coco18"
    body, labelled = None, np.ones(24)
    if figures:
        joint_set = keypoint_set = pw3d_body.SKELETON
        points = pw3d_body.as_body25(points)
        motion, where = sequence.motions[person], f"{sequence.path}, person {person}"
        smpl, figure = joints, figures[motion.gender]
        joints, body = pw3d_body.labelled(figure, motion, smpl[:, 0], aligned, _Z_UP, where)
        proof.compare(pw3d_body.apart(joints, smpl)[aligned])
        names = skeleton.get(joint_set).joints
        labelled = np.array([not args.common or name in pw3d_body.COMMON for name in names])
    detected = args.keypoints == "detected"
    name = sequence.path.stem
    action = re.sub(r"_\d+$", "", name)
    identity = Identity(
        dataset=NAME,
        subject=f"{name}_{person}",
        action=action,
        clip=f"{name}_{person}",
        recording=name,
        camera_names=("moving",),
        start=0,
        group=action,
        split=split,
        fps=FPS,
        keypoint_skeleton=keypoint_set if detected else joint_set,
        joint_skeleton=joint_set,
        keypoint_source=args.keypoints,
    )
    observed: dict[str, Any] = {}
    if detected:
        observed["keypoints"] = points[:, None, :, :2]
        # A detector's confidence can pass 1 by a little.
        observed["confidence"] = np.clip(points[:, None, :, 2], 0, 1)
    return prepare.record(
        identity,
        _cameras(sequence),
        joints,
        joints_valid=aligned[:, None] * labelled,
        body=body,
        **observed,
    )


def _cameras(sequence: _Sequence) -> Camera:
    """The moving camera, leading axes [T, 1], in the world with z up."""
    frames = len(sequence.poses)
    intrinsics = sequence.intrinsics
    center = intrinsics[:2, 2]
    # The files do not say how large the images are, but their centre tells which way they stand.
    size = (_SHORT, _LONG) if center[0] < center[1] else (_LONG, _SHORT)

    def every_frame(values: Any) -> np.ndarray:
        values = np.asarray(values, np.float32)
        return np.broadcast_to(values, (frames, 1, *values.shape))

    return Camera(
        rotation=(sequence.poses[:, None, :3, :3] @ _Z_UP.T).astype(np.float32),
        translation=sequence.poses[:, None, :3, 3].astype(np.float32),
        focal=every_frame(np.diag(intrinsics)[:2]),
        center=every_frame(center),
        distortion=every_frame(np.zeros(5)),
        tangential=every_frame(TANGENTIAL["opencv"]),
        size=every_frame(size),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog=f"python -m data_prep.{NAME}")
    parser.add_argument(
        "--keypoints",
        choices=("detected", "projected"),
        default="detected",
        help="the detections that come with the set, or the 3D joints as the camera sees them",
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument(
        "--body", nargs="+", type=Path, default=(), metavar="FILE", help="SMPL's file, or m and f"
    )
    parser.add_argument("--common", action="store_true", help="label only common joints")
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
