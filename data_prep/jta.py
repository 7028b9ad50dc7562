"""JTA (Joint Track Auto): crowds in a video game, filmed by one camera a sequence.

    python -m data_prep.jta --source DIR --output DIR
    python -m data_prep.jta --source DIR --output DIR --keep_occluded

DIR holds `annotations/{train,val,test}/seq_N.json`, itself or in a folder `JTA-Dataset`; whatever
else it holds is ignored. Each file is a list of rows of 10 numbers: frame, person, joint, pixels
(x, y), metres (x, y, z, camera frame), occluded, self-occluded. One file at a time is in memory:
1 GB in all. Each person's frames without a gap are one clip of 30 fps: a gap begins a new clip.

Joints that are occluded, by others or by their owner, have 3D labels and no keypoint, unless
`--keep_occluded` keeps their (exact) keypoints too. Nothing says how the camera hangs: the world is
the camera's frame with z up, as if it were upright. (The published test set is `val` and `test`
together.)
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep import prepare
from data_prep.proof import Proof
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.schema import Identity, Record
from pose3d_jax.sources import SourceError, array, load_json

NAME = "jta"
FPS = 30.0
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # ours -> the folder's name
CITATION = (
    "Fabbri, Lanzi, Calderara, Palazzi, Vezzani, Cucchiara: Learning to Detect and Track Visible "
    "and Occluded Body Joints in a Virtual World. ECCV 2018."
)
TERMS = "CC BY-NC 4.0, for research and education; users undertake to own a copy of the game."
_JOINTS = 22
_FOCAL, _CENTER, _SIZE = (1158.0, 1158.0), (960.0, 540.0), (1920.0, 1080.0)
_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # from the camera's y down, z forward


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`, one sequence in memory at a time.

    Raises `SourceError` where there are no annotations, or a file is not what it should be.
    """
    folder = _folder(args.source)
    splits = {}
    for split, name in SPLITS.items():
        numbered = {
            int(match[1]): path
            for path in (folder / name).glob("*.json")
            if (match := re.fullmatch(r"seq_(\d+)\.json", path.name))
        }
        if numbered:
            paths = [numbered[number] for number in sorted(numbered)]
            splits[split] = _records(paths, split, args.keep_occluded)
        else:
            proof.skip(split, f"{folder / name} has no seq_N.json")
    if not splits:
        raise SourceError(
            f"{folder}: has no train/seq_0.json, ...; extract the annotations of JTA there"
        )
    return prepare.Dataset(
        NAME,
        splits,
        "JTA: pedestrians of a video game; every person's frames without a gap are one clip.",
        CITATION,
        TERMS,
    )


def _folder(source: Path) -> Path:
    for folder in (source / "annotations", source / "JTA-Dataset" / "annotations"):
        if folder.is_dir():
            return folder
    raise SourceError(f"{source}: has no annotations/; give the folder that holds it")


def _records(paths: Sequence[Path], split: str, keep_occluded: bool) -> Iterator[Record]:
    for path in paths:
        for run in _runs(_people(path)):
            yield _record(path, run, split, keep_occluded)


def _people(path: Path) -> np.ndarray:
    """The file's rows `[N, 22, 10]` by person and frame, joints in order."""
    rows = array(load_json(path), (None, 10), f"{path}, its rows")
    frame, person, joint = rows[:, :3].T
    for key, column, fine in (
        ("frame number (column 0)", frame, frame >= 1),
        ("person (column 1)", person, np.isfinite(person)),
        ("joint type (column 2)", joint, (joint >= 0) & (joint < _JOINTS)),
        ("occluded (column 8)", rows[:, 8], np.isin(rows[:, 8], (0, 1))),
        ("self-occluded (column 9)", rows[:, 9], np.isin(rows[:, 9], (0, 1))),
    ):
        whole = fine & (column == np.round(column))
        if not whole.all():
            row = int(np.argmin(whole))
            raise SourceError(
                f"{path}, {key}: is {column[row]:g} in row {row}, which it cannot be; fetch the "
                f"file again"
            )
    rows = rows[np.lexsort((joint, frame, person))]
    _check_complete(rows, path)
    return rows.reshape(-1, _JOINTS, 10)


def _check_complete(rows: np.ndarray, path: Path) -> None:
    """Raises `SourceError` unless sorted rows have every joint of everyone in a frame, once."""
    again = (np.diff(rows[:, :3], axis=0) == 0).all(axis=1)
    if again.any():
        frame, person, joint = rows[int(np.argmax(again)), :3]
        raise SourceError(
            f"{path}: has joint {joint:g} of person {person:g} twice in frame {frame:g}; fetch the "
            f"file again"
        )
    next_one = (np.diff(rows[:, :2], axis=0) != 0).any(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], next_one, [True]]))
    short = np.diff(starts) != _JOINTS
    if short.any():
        at = int(np.argmax(short))
        frame, person = rows[starts[at], :2]
        there = starts[at + 1] - starts[at]
        raise SourceError(
            f"{path}: has {there} of {_JOINTS} joints of person {person:g} in frame {frame:g}; "
            f"fetch the file again"
        )


def _runs(people: np.ndarray) -> Iterator[np.ndarray]:
    """The rows `[T, 22, 10]` of each person's frames without a gap."""
    frame, person = people[:, 0, 0], people[:, 0, 1]
    yield from np.split(people, np.flatnonzero((np.diff(person) != 0) | (np.diff(frame) != 1)) + 1)


def _record(path: Path, rows: np.ndarray, split: str, keep_occluded: bool) -> Record:
    start, person = int(rows[0, 0, 0]), int(rows[0, 0, 1])
    visible = (rows[..., 8:] == 0).all(axis=-1)
    identity = Identity(
        dataset=NAME,
        subject=f"{split}_{path.stem}_{person}",
        action="pedestrian",
        clip=f"{split}_{path.stem}_{person}_{start}",
        recording=f"{split}_{path.stem}",
        camera_names=("game",),
        start=start - 1,  # the files count from 1
        group="pedestrian",
        split=split,
        fps=FPS,
        keypoint_skeleton="jta22",
        joint_skeleton="jta22",
        keypoint_source="annotation",
    )
    return prepare.record(
        identity,
        _camera(),
        rows[..., 5:8] @ _Z_UP.T,
        keypoints=rows[:, None, :, 3:5],
        confidence=(visible | keep_occluded)[:, None],
    )


def _camera() -> Camera:
    """The camera of all sequences, leading axis [1]."""
    return Camera(
        rotation=_Z_UP.T[None].astype(np.float32),
        translation=np.zeros((1, 3), np.float32),
        focal=np.array([_FOCAL], np.float32),
        center=np.array([_CENTER], np.float32),
        distortion=np.zeros((1, 5), np.float32),
        tangential=np.full(1, TANGENTIAL["opencv"], np.float32),
        size=np.array([_SIZE], np.float32),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog=f"python -m data_prep.{NAME}")
    parser.add_argument(
        "--keep_occluded", action="store_true", help="keypoints of occluded joints, too"
    )
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
