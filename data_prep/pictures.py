"""Pictures for a prepared data set: a square of each frame, cut from images that a user has.

    python -m data_prep.pictures --source DATA --frames FRAMES --output DIR [--every 5]

DATA is what another module prepared (Human3.6M, MPI-INF-3DHP, ...), FRAMES the images of its clips,
laid out as `data_prep.features` says: numbered, in a folder for each clip or recording, in one for
each camera there. Squares are a quarter larger than the keypoints that are seen; pictures are JPEGs
of 256 x 256. Of each clip every so many frames are kept, as clips of one frame.

An image that is damaged, of another size than the keypoints are in, or that shows nothing of the
square, and a frame in which nothing is seen are no pictures: they are counted and listed, and the
others go on. A folder or a number that is missing is an error.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from data_prep import prepare
from data_prep.features import frames_of
from data_prep.proof import Proof
from pose3d_jax.data import crops, poses
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Clip, Pictures, Record
from pose3d_jax.sources import SourceError


def frame(record: Record, number: int) -> Record:
    """One frame of a record, as a clip of its own; features of images are left out."""
    clip, identity = record
    alone = jax.tree.map(lambda x: x[number : number + 1], (clip.observations, clip.labels))
    name = dataclasses.replace(
        identity, clip=f"{identity.clip}_{number:05d}", start=identity.start + number
    )
    observations = dataclasses.replace(alone[0], images=None)
    return Record(Clip(observations, alone[1], clip.recording), name)


def pictured(record: Record, paths: Sequence[Path], proof: Proof) -> Record | None:
    """A record of one frame with its pictures, view by view; None if there is none of it."""
    observations = record.clip.observations
    views = observations.confidence.shape[1]
    square, encoded = np.zeros((1, views, 3), np.float32), np.full((1, views), b"", object)
    for view, path in enumerate(paths):
        name = f"{record.identity.clip}, {record.identity.camera_names[view]}"
        wanted = crops.around(
            observations.keypoints[0, view].astype(float), observations.confidence[0, view]
        )
        if not wanted.any():
            proof.skip(name, "nothing is seen")
            continue
        try:
            image = crops.open_rgb(path)
            size = tuple(round(float(x)) for x in observations.cameras.size[0, view])
            if image.size != size:
                raise SourceError(
                    f"{path}: has {image.width} x {image.height} pixels, the keypoints are in "
                    f"{size[0]} x {size[1]}"
                )
            encoded[0, view] = crops.cut(image, wanted)
        except SourceError as error:
            proof.skip(name, str(error))
            continue
        square[0, view] = wanted
    if not square.any():
        return None
    clip = dataclasses.replace(
        record.clip,
        observations=dataclasses.replace(observations, pictures=Pictures(square, encoded)),
    )
    return Record(clip, record.identity)


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`, whose pictures are cut when its records are asked for.

    Raises `DataError` for what is no prepared set, `SourceError` where folders of frames are
    missing.
    """
    if args.every < 1:
        raise UserError(f"--every is {args.every}; give 1 frame or more")
    if not args.frames.is_dir():
        raise SourceError(f"{args.frames}: is no folder; give the one that holds the frames")
    info = poses.open_set(args.source).info

    def records(split: str) -> Iterator[Record]:
        for record in tqdm(poses.read_split(args.source, split), desc=split, unit="clip"):
            frames = len(record.clip.labels.joints)
            views = frames_of(args.frames, record.identity, frames)
            for number in range(0, frames, args.every):
                made = pictured(frame(record, number), [paths[number] for paths in views], proof)
                if made is not None:
                    yield made

    return prepare.again(
        info,
        {split: records(split) for split in info.splits},
        f"Pictures of every frame number {args.every}.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.pictures")
    parser.add_argument("--frames", type=Path, required=True, help="folder of the images")
    parser.add_argument("--every", type=int, default=1, help="frames from one that is kept on")
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
