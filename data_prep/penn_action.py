"""Penn Action: sports videos with 13 joints labelled by hand, in 2D only.

    python -m data_prep.penn_action --source DIR --output DIR

DIR holds `labels/0001.mat` ... `labels/2326.mat` (MATLAB, one file for each video), itself or in a
folder `Penn_Action`; whatever else it holds is ignored. Splits are the published ones (`train` in
each file). A joint marked invisible is missing.

What the files do not say is assumed: 30 fps, and an upright camera without distortion whose focal
length is the longer side of the image and whose centre is the image's. There is no 3D.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from data_prep import prepare
from data_prep.proof import Proof
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.schema import Identity, Record
from pose3d_jax.sources import SourceError, array, load_mat

NAME = "penn_action"
FPS = 30.0
CITATION = (
    "Zhang, Zhu, Derpanis: From Actemes to Action: A Strongly-supervised Representation for "
    "Detailed Action Understanding. ICCV 2013."
)
TERMS = "For research; see the README of the data set."
_JOINTS = 13
_FIRST_PIXEL = 1  # MATLAB's count
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # world z up to camera y down


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`; a video's labels are read when its record is asked for.

    Raises `SourceError` where there are no labels, or a file is not what it should be.
    """
    files: dict[str, list[Path]] = {"train": [], "test": []}
    for path in _labels(args.source):
        files[_split(path)].append(path)
    return prepare.Dataset(
        NAME,
        {split: _records(paths, split) for split, paths in files.items() if paths},
        "Penn Action: 2D joints of people in sports videos; the camera is an assumed one.",
        CITATION,
        TERMS,
    )


def _labels(source: Path) -> list[Path]:
    for folder in (source / "labels", source / "Penn_Action" / "labels", source):
        found = sorted(p for p in folder.glob("*.mat") if re.fullmatch(r"\d{4}", p.stem))
        if found:
            return found
    raise SourceError(
        f"{source}: has no labels/0001.mat, labels/0002.mat, ...; give the folder that Penn_Action "
        f"was extracted to"
    )


def _split(path: Path) -> str:
    """The split that the file itself names."""
    flag = _number(load_mat(path, "train"), "train", path)
    if flag not in (1, 0, -1):
        raise SourceError(f"{path}, key train: is {flag:g}, not 1 or -1; fetch the file again")
    return "train" if flag == 1 else "test"


def _records(paths: Sequence[Path], split: str) -> Iterator[Record]:
    for path in paths:
        yield _record(path, split)


class Annotation(NamedTuple):
    """What a file says of its video."""

    keypoints: Float[np.ndarray, "frames 13 2"]  # pixels
    seen: Bool[np.ndarray, "frames 13"]
    size: tuple[float, float]  # width, height, pixels
    action: str


def annotation(path: Path) -> Annotation:
    """A video's annotation. Raises `SourceError` for a file that is not what it should be."""
    table = load_mat(path, "x", "y", "visibility", "dimensions", "nframes", "action")
    x, y, visible = (
        array(table[key], (None, _JOINTS), f"{path}, key {key}") for key in ("x", "y", "visibility")
    )
    frames = _number(table, "nframes", path)
    for key, found in (("x", x), ("y", y), ("visibility", visible)):
        if len(found) != frames or not frames:
            raise SourceError(
                f"{path}, key {key}: has {len(found)} frames, but nframes is {frames:g}; fetch the "
                f"file again"
            )
    height, width = array(table["dimensions"], (1, 3), f"{path}, key dimensions")[0, :2]
    if min(height, width) <= 0:
        raise SourceError(
            f"{path}, key dimensions: is {height:g} x {width:g} pixels; fetch the file again"
        )
    points = np.stack([x, y], axis=-1) - _FIRST_PIXEL
    return Annotation(points, visible > 0, (width, height), _text(table, "action", path))


def _record(path: Path, split: str) -> Record:
    found = annotation(path)
    identity = Identity(
        dataset=NAME,
        subject="unknown",
        action=found.action,
        clip=path.stem,
        recording=path.stem,
        camera_names=("assumed",),
        start=0,
        group=found.action,
        split=split,
        fps=FPS,
        keypoint_skeleton="penn13",
        joint_skeleton="penn13",
        keypoint_source="annotation",
    )
    return prepare.record(
        identity,
        assumed(*found.size),
        np.zeros((*found.seen.shape, 3)),
        joints_valid=np.zeros(found.seen.shape),
        keypoints=found.keypoints[:, None],
        confidence=found.seen[:, None],
    )


def assumed(width: float, height: float) -> Camera:
    """The assumed camera of images of such a size, pixels; leading axis [1]."""
    return Camera(
        rotation=UPRIGHT[None].astype(np.float32),
        translation=np.zeros((1, 3), np.float32),
        focal=np.full((1, 2), max(width, height), np.float32),
        center=np.array([[(width - 1) / 2, (height - 1) / 2]], np.float32),
        distortion=np.zeros((1, 5), np.float32),
        tangential=np.full(1, TANGENTIAL["opencv"], np.float32),
        size=np.array([[width, height]], np.float32),
    )


def _number(table: Mapping[str, Any], key: str, path: Path) -> float:
    return float(array(table[key], (1, 1), f"{path}, key {key}")[0, 0])


def _text(table: Mapping[str, Any], key: str, path: Path) -> str:
    found = np.ravel(table[key])
    if found.shape != (1,) or not isinstance(found[0], str) or not found[0].strip():
        raise SourceError(f"{path}, key {key}: is no text; fetch the file again")
    return str(found[0]).strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    prepare.main(argparse.ArgumentParser(prog=f"python -m data_prep.{NAME}"), read, arguments)


if __name__ == "__main__":
    main()
