"""Photographs with 2D joints, in COCO's JSON: COCO itself, MPII, or anybody's.

    python -m data_prep.coco --source DIR --images FOLDER --output DIR [--joints h36m17]

DIR holds JSON files in COCO's layout (`images`, `annotations`, `categories`), such as
`person_keypoints_train2017.json`; one with `val` or `test` in its name is the split `validation`
or `test`, others are `train`. FOLDER holds the images by their `file_name`, itself or in folders
of any depth. Joints are COCO's 17 or MPII's 16, by the names of the category or by their number,
and come as `--joints` has them: those of the same name; the pelvis, where there is none, between
the hips.

Each person is a clip of one frame with a picture of the square around the box: a quarter larger,
256 x 256. A joint that is labelled but hidden (v = 1) has confidence 0.5. The camera is assumed to
be upright, its focal length the longer side of the image. There is no 3D.

People without joints that are seen, crowds, boxes outside of their image, and images that are
missing or damaged are counted and listed; the others go on.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from tqdm import tqdm

from data_prep import crops, prepare
from data_prep.penn_action import assumed
from data_prep.proof import Proof
from pose3d_jax import skeleton
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Clip, Identity, Pictures, Record
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.sources import SourceError, array, load_json, member

NAME = "coco"
CITATION = (
    "Lin, Maire, Belongie, Hays, Perona, Ramanan, Dollar, Zitnick: Microsoft COCO: Common Objects "
    "in Context. ECCV 2014. Andriluka, Pishchulin, Gehler, Schiele: 2D Human Pose Estimation: New "
    "Benchmark and State of the Art Analysis. CVPR 2014."
)
TERMS = "Of the images as their owners state them; see the data set's own page."
HIDDEN = 0.5  # confidence of a joint that is labelled and not seen
_SETS = {17: "coco17", 16: "mpii16"}
_FPS = 1.0  # photographs have none


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The people of the files in `args.source`; pictures are cut when records are asked for.

    Raises `SourceError` where there are no files, or one is not of the layout.
    """
    files = sorted(args.source.glob("*.json"))
    if not files:
        raise SourceError(f"{args.source}: has no JSON files; give the folder of annotations")
    if not args.images.is_dir():
        raise SourceError(f"{args.images}: is no folder; give the one that holds the images")
    if args.joints not in skeleton.SKELETONS:
        raise UserError(f"--joints is {args.joints}; there are {', '.join(skeleton.SKELETONS)}")
    wanted = skeleton.get(args.joints)
    there = {path.name: path for path in sorted(args.images.rglob("*")) if path.is_file()}
    by_split: dict[str, list[Path]] = {}
    for path in files:
        by_split.setdefault(_split(path), []).append(path)

    def records(split: str) -> Iterator[Record]:
        for path in by_split[split]:
            yield from people(path, split, there, wanted, proof)

    return prepare.Dataset(
        NAME,
        {split: records(split) for split in by_split},
        "Photographs with 2D joints of people; cameras are assumed ones.",
        CITATION,
        TERMS,
    )


def _split(path: Path) -> str:
    name = path.stem.lower()
    return "validation" if "val" in name else "test" if "test" in name else "train"


def people(
    path: Path, split: str, there: Mapping[str, Path], wanted: Skeleton, proof: Proof
) -> Iterator[Record]:
    """The people of a file, image by image."""
    table = load_json(path)
    images = {member(x, "id", f"{path}, images"): x for x in member(table, "images", str(path))}
    annotations = sorted(
        member(table, "annotations", str(path)), key=lambda x: (x.get("image_id"), x.get("id"))
    )
    own = _joints(table, path)
    open_image: tuple[Any, Image.Image | None] = (None, None)
    for entry in tqdm(annotations, desc=path.stem, unit="person"):
        where = f"{path.name}, annotation {entry.get('id')}"
        image_id = member(entry, "image_id", where)
        try:
            points, confidence, box = _person(entry, own, where)
            if image_id not in images:
                raise SourceError(f"there is no image {image_id}")
            name = Path(str(member(images[image_id], "file_name", where))).name
            if name not in there:
                raise SourceError(f"image {name} is not there")
            if open_image[0] != image_id:
                open_image = (image_id, None)
                open_image = (image_id, crops.open_rgb(there[name]))
            image = open_image[1]
            if image is None:
                raise SourceError(f"image {name} cannot be read")
            encoded = np.empty((1, 1), object)
            encoded[0, 0] = crops.cut(image, box)
        except SourceError as error:
            proof.skip(where, str(error))
            continue
        points, confidence = _as(wanted, own, points, confidence)
        identity = Identity(
            dataset=NAME,
            subject="unknown",
            action="photograph",
            clip=f"{path.stem}_{entry.get('id')}",
            recording=name,
            camera_names=("assumed",),
            start=0,
            group=path.stem,
            split=split,
            fps=_FPS,
            keypoint_skeleton=wanted.name,
            joint_skeleton=wanted.name,
            keypoint_source="annotation",
        )
        made = prepare.record(
            identity,
            assumed(*image.size),
            np.zeros((1, wanted.size, 3)),
            joints_valid=np.zeros((1, wanted.size)),
            keypoints=points[None, None],
            confidence=confidence[None, None],
        )
        pictures = Pictures(box[None, None].astype(np.float32), encoded)
        observations = dataclasses.replace(made.clip.observations, pictures=pictures)
        yield Record(Clip(observations, made.clip.labels, made.clip.recording), identity)


def _joints(table: Any, path: Path) -> Skeleton:
    """The joint set of a file's keypoints: by the category's names, else by their number."""
    categories = table.get("categories") or [{}]
    names = tuple(categories[0].get("keypoints") or ())
    for known in _SETS.values():
        if names == skeleton.get(known).joints:
            return skeleton.get(known)
    annotations = table.get("annotations") or [{}]
    count = len(names) or len(annotations[0].get("keypoints", ())) // 3
    if count not in _SETS:
        raise SourceError(f"{path}: has {count} joints; COCO's files have 17, MPII's 16")
    return skeleton.get(_SETS[count])


def _person(
    entry: Mapping[str, Any], own: Skeleton, where: str
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "3"]]:
    """Points, confidences and the square of an annotation; `SourceError` says why there is none."""
    if entry.get("iscrowd"):
        raise SourceError("is a crowd")
    numbers = array(member(entry, "keypoints", where), (3 * own.size,), f"{where}, keypoints")
    x, y, seen = numbers.reshape(-1, 3).T
    confidence = np.where(seen >= 2, 1.0, np.where(seen == 1, HIDDEN, 0.0))
    if not confidence.any():
        raise SourceError("nothing is seen")
    left, top, width, height = array(member(entry, "bbox", where), (4,), f"{where}, bbox")
    if min(width, height) < 1:
        raise SourceError(f"its box is {width:g} x {height:g} pixels")
    middle = np.array([left + width / 2, top + height / 2]) - 0.5
    box = np.array([*middle, crops.MARGIN * max(width, height)])
    return np.stack([x, y], axis=-1), confidence, box


def _as(
    wanted: Skeleton, own: Skeleton, points: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The joints of the same names; the pelvis between the hips."""
    found, sure = np.zeros((wanted.size, 2)), np.zeros(wanted.size)
    for number, name in enumerate(wanted.joints):
        parts: tuple[str, ...] = (name,)
        if name == "pelvis" and name not in own.joints:
            parts = ("left_hip", "right_hip")
        if all(part in own.joints for part in parts):
            index = [own.joints.index(part) for part in parts]
            sure[number] = confidence[index].min()
            found[number] = points[index].mean(axis=0) * (sure[number] > 0)
    return found, sure


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog=f"python -m data_prep.{NAME}")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--joints", default="h36m17", help="the joint set to write")
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
