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

from data_prep import prepare
from data_prep.penn_action import assumed
from data_prep.proof import Proof
from pose3d_jax import skeleton
from pose3d_jax.data import crops
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
# Names that converters of MPII give its joints.
_OTHER_NAMES = {
    "mpii16": (
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow"),
        *("right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    )
}


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
    there: dict[str, list[Path]] = {}
    for image in sorted(args.images.rglob("*")):
        if image.is_file():
            there.setdefault(image.name, []).append(image)
    by_split: dict[str, list[Path]] = {}
    for path in files:
        by_split.setdefault(_split(path), []).append(path)

    def records(split: str) -> Iterator[Record]:
        for path in by_split[split]:
            yield from people(path, split, args.images, there, wanted, proof)

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
    path: Path,
    split: str,
    folder: Path,
    there: Mapping[str, Sequence[Path]],
    wanted: Skeleton,
    proof: Proof,
) -> Iterator[Record]:
    """The people of a file, image by image; `there` has the images of `folder` by their names."""
    table = load_json(path)
    images = {str(member(x, "id", f"{path}, images")): x for x in _list(table, "images", path)}
    annotations = sorted(
        _list(table, "annotations", path), key=lambda x: (str(x.get("image_id")), str(x.get("id")))
    )
    own = _joints(table, path)
    open_image: tuple[Any, Image.Image | None] = (None, None)
    for entry in tqdm(annotations, desc=path.stem, unit="person"):
        where = f"{path.name}, annotation {entry.get('id')}"
        image_id = str(member(entry, "image_id", where))
        try:
            points, confidence, box = _person(entry, own, where)
            if image_id not in images:
                raise SourceError(f"there is no image {image_id}")
            name = str(member(images[image_id], "file_name", where))
            if open_image[0] != image_id:
                open_image = (image_id, None)
                open_image = (image_id, _image(images[image_id], name, folder, there))
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


def _list(table: Any, key: str, path: Path) -> list[Any]:
    """A list of tables in a file."""
    found = member(table, key, str(path))
    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
        raise SourceError(f"{path}, {key}: is no list of entries; give a file of COCO's layout")
    return found


def _image(
    entry: Mapping[str, Any], name: str, folder: Path, there: Mapping[str, Sequence[Path]]
) -> Image.Image:
    """An image by its name, of the size that the file says; `SourceError` says why not."""
    own = Path(name).name
    paths = [p for p in there.get(own, ()) if p == folder / name] or there.get(own, ())
    if not paths:
        raise SourceError(f"image {name} is not there")
    if len(paths) > 1:
        raise SourceError(f"there are {len(paths)} images {own}, none of them at {name}")
    image = crops.open_rgb(paths[0])
    said = (entry.get("width", image.width), entry.get("height", image.height))
    if image.size != said:
        raise SourceError(
            f"image {name} has {image.width} x {image.height} pixels, its joints are in "
            f"{said[0]} x {said[1]}"
        )
    return image


def _joints(table: Any, path: Path) -> Skeleton:
    """The joint set of a file's keypoints: by the category's names, else by their number."""
    categories = [x for x in table.get("categories") or () if isinstance(x, dict)]
    several = {tuple(x["keypoints"]) for x in categories if x.get("keypoints")}
    if len(several) > 1:
        raise SourceError(f"{path}: has categories of several joint sets; give one of them")
    names = next(iter(several), ())
    for known in skeleton.SKELETONS.values():
        if names == known.joints or names == _OTHER_NAMES.get(known.name):
            return known
    if names:
        raise SourceError(
            f"{path}: its joints are {', '.join(map(str, names))}, which is no joint set that is "
            f"known; put them in the order and the names of one of "
            f"{', '.join(skeleton.SKELETONS)}"
        )
    counts = {len(x.get("keypoints") or ()) // 3 for x in _list(table, "annotations", path)}
    count = max(counts, default=0)
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
    return np.stack([x, y], axis=-1), confidence, crops.of_box(left, top, width, height)


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
