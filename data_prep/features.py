"""Features of frames, computed once: a prepared data set and its images to a set that has both.

    python -m data_prep.features --source DATA --frames FRAMES --weights RESNET.npz --output DIR
        [--batch 32]

DATA is what another module prepared. FRAMES holds its images (`.jpg` or `.png`), in a folder for
each clip, which has one for each frame of the clip and no others; or in one for each recording, of
which a clip's frames are those that have the numbers from its `start` on. An image's number is the
last one in its name, and is what they are in order of; recordings are numbered as the clips'
`start` counts, those of OpenPose's files from 0 (`ffmpeg -start_number 0`). Of clips with several
views these folders hold one for each camera, by its name. Images have the size and the pixels that
the clip's keypoints are in.

RESNET.npz has the weights of a ResNet-50 v2, as `models/resnet.py` reads them. For the published
features take those of HMR: 2048 for each frame.

As published (Kanazawa et al., "Learning 3D Human Dynamics from Video", CVPR 2019): the network sees
a crop of 224 pixels in which a person is about 150 tall, which follows the clip's own keypoints,
smoothed over time; bilinear, and where it leaves the image, the image's edge. Every frame between
the ends of a clip has one, also where nobody was found; a view in which nobody ever is has zeros.
"""

import argparse
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import affine_transform
from tqdm import tqdm

from data_prep import prepare
from data_prep.proof import Proof
from data_prep.pseudo_truth import CROP, PERSON
from pose3d_jax import tracking
from pose3d_jax.data import poses
from pose3d_jax.data.images import DAMAGED
from pose3d_jax.errors import UserError
from pose3d_jax.models import resnet
from pose3d_jax.schema import Identity, Images, Record
from pose3d_jax.sources import SourceError

ENDINGS = (".jpg", ".jpeg", ".png")
_DEPTH_8 = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's modes


def squares(
    keypoints: Float[np.ndarray, "frames joints 2"], confidence: Float[np.ndarray, "frames joints"]
) -> Float[np.ndarray, "frames 3"]:
    """Middle (x, y) and side, pixels, of the square that follows a person; 0 if nobody is seen."""
    if not ((confidence > 0).sum(axis=1) > 1).any():
        return np.zeros((len(keypoints), 3), np.float32)
    track = tracking.Track(0, np.concatenate([keypoints, confidence[..., None]], axis=-1))
    middle, height = tracking.boxes(track)
    _, scale = tracking.crop(track.keypoints, middle, height, size=CROP, person=PERSON)
    return np.concatenate([middle, CROP / scale[:, None]], axis=-1).astype(np.float32)


def cut(
    image: UInt8[np.ndarray, "height width 3"], square: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "224 224 3"]:
    """A square of an image as the network sees it: RGB in [-1, 1]."""
    x, y, side = square.astype(float)
    step = side / CROP
    first = np.array([y, x]) - step * (CROP - 1) / 2
    found = affine_transform(
        image,
        np.diag([step, step, 1.0]),
        offset=(*first, 0.0),
        output_shape=(CROP, CROP, 3),
        output=np.float32,
        order=1,
        mode="nearest",
    )
    return found / 127.5 - 1.0


def read_image(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """An image's RGB. Raises `SourceError` for one that is damaged or not of (width, height)."""
    try:
        with Image.open(path) as image:
            if image.mode not in _DEPTH_8:
                raise SourceError(
                    f"{path}: is an image of the kind {image.mode}; save it with 8 bits a colour"
                )
            found = np.asarray(image.convert("RGB"))
    except DAMAGED as error:
        raise SourceError(
            f"{path}: cannot be read as an image ({error}); fetch or extract it again"
        ) from error
    if found.shape[1::-1] != size:
        raise SourceError(
            f"{path}: has {found.shape[1]} x {found.shape[0]} pixels, but the keypoints are in "
            f"images of {size[0]} x {size[1]}; give the frames that they were found in "
            f"(data_prep.pseudo_truth keeps their pixels with --whole, and is told their --size)"
        )
    return found


def frames_of(root: Path, identity: Identity, frames: int) -> list[list[Path]]:
    """The images of a clip's frames, view by view; see the module's docstring.

    Raises `SourceError` where a folder is missing, or frames in it.
    """
    clip, recording = root / identity.clip, root / identity.recording
    of_clip = clip.is_dir()
    folder = clip if of_clip else recording
    if not folder.is_dir():
        raise SourceError(
            f"{root}: has no folder {identity.clip} with the frames of that clip, nor "
            f"{identity.recording} with those of its recording; give one of them"
        )
    names = identity.camera_names
    found = []
    for place in [folder] if len(names) == 1 else [folder / name for name in names]:
        images = _numbered(place)
        numbers: Iterable[int] = range(identity.start, identity.start + frames)
        if of_clip:
            numbers = sorted(images)
            if len(images) != frames:
                raise SourceError(
                    f"{place}: holds {len(images)} images, but clip {identity.clip} has {frames} "
                    f"frames; give one for each, or a folder {identity.recording} of all frames of "
                    f"the recording"
                )
        missing = [number for number in numbers if number not in images]
        if missing:
            raise SourceError(
                f"{place}: has no image number {missing[0]}; clip {identity.clip} has {frames} "
                f"frames from number {identity.start} on, and {len(missing)} of them are missing"
            )
        found.append([images[number] for number in numbers])
    return found


def _numbered(folder: Path) -> dict[int, Path]:
    """Images by the last number in their names."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: is no folder; give the frames of each view in one")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        # Names with a dot before them are what file systems leave beside others.
        if path.suffix.lower() not in ENDINGS or path.name.startswith("."):
            continue
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise SourceError(f"{path}: has no number in its name; number the frames")
        if int(numbers[-1]) in found:
            raise SourceError(
                f"{path}: has the number of {found[int(numbers[-1])].name}; give each frame once"
            )
        found[int(numbers[-1])] = path
    return found


class Extractor:
    """The network with its weights: images of frames to their features."""

    def __init__(self, weights: Path, batch: int) -> None:
        """Raises `SourceError` for weights that cannot be read or do not fit."""
        self._params = jax.device_put(resnet.load(weights))
        self._batch = batch
        self._apply = jax.jit(resnet.ResNet50().apply)

    def __call__(
        self,
        paths: Sequence[Path],
        square: Float[np.ndarray, "frames 3"],
        size: Float[np.ndarray, "frames 2"],
    ) -> Float[np.ndarray, "frames features"]:
        """Features of the squares of images of such sizes (width, height; pixels)."""

        def crop(frame: int) -> Float[np.ndarray, "224 224 3"]:
            width, height = (round(float(x)) for x in size[frame])
            return cut(read_image(paths[frame], (width, height)), square[frame])

        found = np.zeros((len(paths), resnet.FEATURES), np.float32)
        with ThreadPoolExecutor() as pool:
            for first in range(0, len(paths), self._batch):
                some = range(first, min(first + self._batch, len(paths)))
                # Batches of one length are compiled once.
                images = np.zeros((self._batch, CROP, CROP, 3), np.float32)
                images[: len(some)] = list(pool.map(crop, some))
                made: Any = self._apply({"params": self._params}, images)
                found[some.start : some.stop] = np.asarray(made)[: len(some)]
        return found


def pictured(record: Record, views: Sequence[Sequence[Path]], extractor: Extractor) -> Record:
    """The record with features of its images, given view by view."""
    clip, identity = record
    seen = clip.observations
    lead = seen.confidence.shape[:2]
    square = np.zeros((*lead, 3), np.float32)
    features = np.zeros((*lead, resnet.FEATURES), np.float32)
    for view, paths in enumerate(views):
        square[:, view] = squares(seen.keypoints[:, view], seen.confidence[:, view])
        if square[:, view].any():
            features[:, view] = extractor(paths, square[:, view], seen.cameras.size[:, view])
    observations = dataclasses.replace(seen, images=Images(features, square))
    return Record(dataclasses.replace(clip, observations=observations), identity)


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`, whose features are made when its records are asked for.

    Raises `DataError` for what is no prepared set, `SourceError` where frames or weights are
    missing, before anything is computed.
    """
    if args.batch < 1:
        raise UserError(f"--batch is {args.batch}; give 1 frame or more at once")
    if not args.frames.is_dir():
        raise SourceError(f"{args.frames}: is no folder; give the one that holds the frames")
    info = poses.open_set(args.source).info
    work: dict[str, list[tuple[Record, list[list[Path]]]]] = {}
    for split in info.splits:
        found = poses.read_split(args.source, split)
        work[split] = [
            (record, frames_of(args.frames, record.identity, len(record.clip.labels.joints)))
            for record in found
        ]
    for entry in (info.metadata or {}).get("skipped", ()):
        proof.skip(entry["what"], entry["why"])
    extractor = Extractor(args.weights, args.batch)
    with args.weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()

    def records(split: str) -> Iterator[Record]:
        for record, views in tqdm(work[split], desc=split, unit="clip"):
            yield pictured(record, views, extractor)

    return prepare.again(
        info,
        {split: records(split) for split in work},
        f"Features of images: ResNet-50 v2, {args.weights.name} (SHA-256 {digest}).",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.features")
    parser.add_argument("--frames", type=Path, required=True, help="folder of the images")
    parser.add_argument("--weights", type=Path, required=True, help="of ResNet-50 v2, npz")
    parser.add_argument("--batch", type=int, default=32, help="frames that are seen at once")
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
