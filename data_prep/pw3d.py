"""3DPW: people outdoors, filmed by one moving camera, their bodies tracked with inertial sensors.

    python -m data_prep.pw3d --source DIR --output DIR
    python -m data_prep.pw3d --source DIR --output DIR --keypoints projected

DIR holds `sequenceFiles/{train,validation,test}/*.pkl`, itself or in a folder `3DPW`; whatever else
it holds is ignored. Each person of a sequence is one clip of 30 fps with 24 SMPL joints in 3D. The
2D are the detections that come with the set (18 joints, OpenPose's order), or with `--keypoints
projected` the 3D joints as the camera sees them. Frames whose camera was not aligned with the image
(`campose_valid`) have no 3D labels. Body parameters are not read.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep import prepare
from data_prep.proof import Proof
from pose3d_jax.cameras import TANGENTIAL, Camera
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


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`, one sequence in memory at a time.

    Raises `SourceError` where there are no sequences, or a file is not what it should be.
    """
    folder = _folder(args.source)
    splits = {}
    for split in SPLITS:
        paths = sorted(p for p in (folder / split).glob("*.pkl") if not p.name.startswith("."))
        if paths:
            splits[split] = _records(paths, split, args.keypoints, proof)
        else:
            proof.skip(split, f"{folder / split} has no .pkl files")
    if not splits:
        raise SourceError(
            f"{folder}: has no train/*.pkl, validation/*.pkl or test/*.pkl; extract "
            f"sequenceFiles.zip there"
        )
    return prepare.Dataset(
        NAME,
        splits,
        f"3DPW: SMPL joints in 3D, {args.keypoints} keypoints, one moving camera.",
        CITATION,
        TERMS,
    )


def _folder(source: Path) -> Path:
    for folder in (source / "sequenceFiles", source / "3DPW" / "sequenceFiles"):
        if folder.is_dir():
            return folder
    raise SourceError(f"{source}: has no sequenceFiles/; give the folder that holds it")


def _records(paths: Sequence[Path], split: str, keypoints: str, proof: Proof) -> Iterator[Record]:
    for path in paths:
        sequence = _load(path)
        for person in range(len(sequence.joints)):
            if not sequence.aligned[person].any():
                proof.skip(f"{path.stem}, person {person}", "its camera is aligned in no frame")
                continue
            yield _record(sequence, person, split, keypoints)


def _load(path: Path) -> _Sequence:
    table = load_pickle(path)

    def people(key: str, shape: tuple[int | None, ...]) -> list[np.ndarray]:
        found = member(table, key, str(path))
        if not isinstance(found, list | tuple | np.ndarray) or len(found) == 0:
            raise SourceError(
                f"{path}, key {key}: is no list with one array for each person; fetch it again"
            )
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
    )
    for key, found in (("poses2d", sequence.poses2d), ("campose_valid", sequence.aligned)):
        if len(found) != len(joints):
            raise SourceError(
                f"{path}, key {key}: has {len(found)} people, but jointPositions has "
                f"{len(joints)}; fetch the file again"
            )
    _check_cameras(sequence)
    return sequence


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


def _record(sequence: _Sequence, person: int, split: str, keypoints: str) -> Record:
    joints = sequence.joints[person] @ _Z_UP.T
    detected = keypoints == "detected"
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
        keypoint_skeleton="coco18" if detected else "smpl24",
        joint_skeleton="smpl24",
        keypoint_source=keypoints,
    )
    valid = np.broadcast_to(sequence.aligned[person][:, None], joints.shape[:2])
    observed: dict[str, Any] = {}
    if detected:
        points = sequence.poses2d[person]
        observed["keypoints"] = points[:, None, :2].swapaxes(2, 3)
        # A detector's confidence can pass 1 by a little.
        observed["confidence"] = np.clip(points[:, None, 2], 0, 1)
    return prepare.record(identity, _cameras(sequence), joints, joints_valid=valid, **observed)


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
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
