"""CMU Panoptic: groups and single people in a dome of cameras.

    python -m data_prep.panoptic --source DIR --output DIR
    python -m data_prep.panoptic --source DIR --output DIR --cameras 0 5 10 --test 171204_pose5

DIR holds one folder SEQ for each sequence, such as `160422_haggling1`, with
`calibration_SEQ.json` and `hdPose3d_stage1_coco19/body3DScene_XXXXXXXX.json` (the extracted tar);
whatever else it holds is ignored. Each person's frames without a gap are one clip of 29.97 fps with
19 joints; joints whose confidence is not positive are missing. The 2D are the 3D joints as the
cameras see them. One sequence at a time is in memory.

By default the HD cameras 3, 6, 12, 13 and 23 are used, and the sequences 160422_haggling1,
160906_band4, 160906_ian5 and 160906_pizza1 are the test split, all others the training split: the
usual protocol (Tu, Wang, Zeng: VoxelPose, ECCV 2020), which trains on 160224_haggling1,
160226_haggling1, 160422_ultimatum1, 160906_band1 to 3, 160906_ian1 to 3 and 161202_haggling1. There
is none that all agree on for single people; name the test sequences with `--test`.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import prepare
from data_prep.proof import Proof
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.schema import Identity, Record
from pose3d_jax.sources import SourceError, array, load_json, member

NAME = "panoptic"
FPS = 29.97
CAMERAS = (3, 6, 12, 13, 23)
TEST = ("160422_haggling1", "160906_band4", "160906_ian5", "160906_pizza1")
CITATION = (
    "Joo, Simon, Li, Liu, Tan, Gui, Banerjee, Godisart, Nabbe, Matthews, Kanade, Nobuhara, Sheikh: "
    "Panoptic Studio: A Massively Multiview System for Social Interaction Capture. TPAMI 2017."
)
TERMS = "For non-commercial research only."
_POSES = "hdPose3d_stage1_coco19"
_JOINTS = 19
_CM = 0.01
_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # from the files' y down
_RIGID = 1e-3  # how far a rotation may be from orthonormal


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`.

    Raises `SourceError` where there are no sequences, `--test` names one that is not there, or a
    file is not what it should be.
    """
    if len(set(args.cameras)) != len(args.cameras):
        raise SourceError(f"--cameras {args.cameras}: names a camera twice; name each once")
    sequences = _sequences(args.source, proof)
    absent = sorted(set(args.test or ()) - {folder.name for folder in sequences})
    if absent:
        raise SourceError(
            f"--test {' '.join(absent)}: is not in {args.source}; it has "
            f"{', '.join(folder.name for folder in sequences)}"
        )
    test = TEST if args.test is None else args.test
    chosen = {
        "train": [folder for folder in sequences if folder.name not in test],
        "test": [folder for folder in sequences if folder.name in test],
    }
    return prepare.Dataset(
        NAME,
        {s: _records(folders, s, args.cameras, proof) for s, folders in chosen.items() if folders},
        "CMU Panoptic: 19 joints of each person, filmed by HD cameras "
        f"{', '.join(map(str, args.cameras))}; 2D from 3D.",
        CITATION,
        TERMS,
    )


def _sequences(source: Path, proof: Proof) -> list[Path]:
    """The folders that hold a calibration and poses."""
    found = []
    for folder in sorted(p for p in source.iterdir() if p.is_dir()):
        calibration = folder / f"calibration_{folder.name}.json"
        if any(_pose_files(folder)):
            if not calibration.is_file():
                raise SourceError(f"{calibration}: is missing; fetch it for the poses beside it")
            found.append(folder)
        elif (folder / f"{_POSES}.tar").is_file():
            raise SourceError(
                f"{folder / _POSES}.tar: is not extracted; run tar -xf {_POSES}.tar in its folder"
            )
        elif calibration.is_file():
            proof.skip(folder.name, f"it has no {_POSES}/body3DScene_*.json")
    if not found:
        raise SourceError(
            f"{source}: has no folder SEQ with calibration_SEQ.json and {_POSES}/"
            f"body3DScene_*.json; give the folder that holds the sequences"
        )
    return found


def _pose_files(folder: Path) -> Iterator[tuple[int, Path]]:
    """The sequence's files by frame number."""
    for path in (folder / _POSES).glob("body3DScene_*.json"):
        if match := re.fullmatch(r"body3DScene_(\d+)", path.stem):
            yield int(match[1]), path


def _records(
    folders: Sequence[Path], split: str, numbers: Sequence[int], proof: Proof
) -> Iterator[Record]:
    for folder in folders:
        cameras, names = _cameras(folder / f"calibration_{folder.name}.json", numbers)
        empty = True
        for person, start, bodies in _runs(folder):
            empty = False
            yield _record(folder.name, person, start, bodies, cameras, names, split)
        if empty:
            proof.skip(folder.name, "nobody is in it")


def _runs(folder: Path) -> Iterator[tuple[int, int, np.ndarray]]:
    """Person, first frame and joints `[T, 19, 4]` of every stretch of frames without a gap."""
    running: dict[int, tuple[int, list[np.ndarray]]] = {}
    last = -1
    for frame, path in sorted(_pose_files(folder)):
        bodies = _bodies(path)
        ended = [person for person in running if frame != last + 1 or person not in bodies]
        for person in ended:
            start, joints = running.pop(person)
            yield person, start, np.stack(joints)
        for person, body in bodies.items():
            running.setdefault(person, (frame, []))[1].append(body)
        last = frame
    for person, (start, joints) in running.items():
        yield person, start, np.stack(joints)


def _bodies(path: Path) -> dict[int, np.ndarray]:
    """Joints `[19, 4]` (centimetres, y down, and confidence) of everyone in a frame."""
    found: dict[int, np.ndarray] = {}
    bodies = member(load_json(path), "bodies", str(path))
    if not isinstance(bodies, list):
        raise SourceError(f"{path}, key bodies: is no list; fetch or extract the file again")
    for body in bodies:
        person = member(body, "id", f"{path}, key bodies")
        where = f"{path}, key joints19, person {person}"
        if not isinstance(person, int) or person in found:
            raise SourceError(
                f"{path}, key id: {person!r} is no number of its own; fetch or extract it again"
            )
        joints = array(member(body, "joints19", f"{path}, key bodies"), (4 * _JOINTS,), where)
        found[person] = joints.reshape(_JOINTS, 4)
    return found


def _cameras(path: Path, numbers: Sequence[int]) -> tuple[Camera, tuple[str, ...]]:
    """The HD cameras of these numbers in the world with z up, leading axis [V], and their names."""
    listed = member(load_json(path), "cameras", str(path))
    if not isinstance(listed, list):
        raise SourceError(f"{path}, key cameras: is no list; fetch the file again")
    by_name = {member(entry, "name", f"{path}, key cameras"): entry for entry in listed}
    hd = sorted(name for name, entry in by_name.items() if entry.get("type") == "hd")
    names = tuple(f"00_{number:02d}" for number in numbers)
    for name in names:
        if name not in hd:
            raise SourceError(
                f"{path}, key cameras: has no {name} of type hd, only {', '.join(hd) or 'none'}. "
                f"Choose others with --cameras, or fetch the file again"
            )
    fields = [_camera(by_name[name], f"{path}, camera {name}") for name in names]
    stacked = {
        key: np.stack([each[key] for each in fields]).astype(np.float32) for key in fields[0]
    }
    tangential = np.full(len(names), TANGENTIAL["opencv"], np.float32)
    return Camera(**stacked, tangential=tangential), names


def _camera(entry: dict[str, Any], where: str) -> dict[str, np.ndarray]:
    def field(key: str, shape: tuple[int, ...]) -> np.ndarray:
        return array(member(entry, key, where), shape, f"{where}, key {key}")

    rotation, intrinsics, size = field("R", (3, 3)), field("K", (3, 3)), field("resolution", (2,))
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if off > _RIGID or np.linalg.det(rotation) < 0:
        raise SourceError(f"{where}, key R: is no rotation; fetch the file again")
    if min(intrinsics[0, 0], intrinsics[1, 1], *size) <= 0:
        raise SourceError(
            f"{where}, keys K and resolution: focal lengths {intrinsics[0, 0]:g} and "
            f"{intrinsics[1, 1]:g}, size {size[0]:g} x {size[1]:g} must be positive pixels; fetch "
            f"the file again"
        )
    return {
        "rotation": rotation @ _Z_UP.T,
        "translation": field("t", (3, 1))[:, 0] * _CM,
        "focal": np.diag(intrinsics)[:2],
        "center": intrinsics[:2, 2],
        "distortion": field("distCoef", (5,)),
        "size": size,
    }


def _record(
    sequence: str,
    person: int,
    start: int,
    bodies: np.ndarray,
    cameras: Camera,
    names: tuple[str, ...],
    split: str,
) -> Record:
    action = re.sub(r"^\d+_|\d+$", "", sequence) or sequence
    identity = Identity(
        dataset=NAME,
        subject=f"{sequence}_{person}",
        action=action,
        clip=f"{sequence}_{person}_{start}",
        recording=sequence,
        camera_names=names,
        start=start,
        group=action,
        split=split,
        fps=FPS,
        keypoint_skeleton="coco19",
        joint_skeleton="coco19",
        keypoint_source="projected",
    )
    joints = bodies[..., :3] @ _Z_UP.T * _CM
    return prepare.record(identity, cameras, joints, joints_valid=bodies[..., 3] > 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog=f"python -m data_prep.{NAME}")
    parser.add_argument(
        "--cameras", nargs="+", type=int, default=CAMERAS, help="numbers of HD cameras, 0 to 30"
    )
    parser.add_argument(
        "--test", nargs="*", metavar="SEQ", help="the test split; default: the usual protocol's"
    )
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
