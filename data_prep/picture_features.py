"""Features of a set's own pictures, by a network that has learnt from pictures.

    python -m data_prep.picture_features --source DATA --run RUN --output DIR [--batch 64]

DATA is a prepared set with pictures, as `data_prep.rendered_cmu`, `data_prep.pictures` or
`data_prep.coco` make them; RUN the work directory of a run of the method `image`. Of each picture
the set then has what HRNet makes of it as a whole: its coarsest features, the mean over the picture
(128 of the smallest HRNet, 256 of W32). They are for methods that look at features of images; the
pictures stay where they are. Pictures that the run has learnt from, with their 3D, have better
features than others: who learns from both should know that. `data_prep.features` makes features of
a ResNet, from frames on disk.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from data_prep import prepare
from data_prep.proof import Proof
from pose3d_jax import checkpoint, photo
from pose3d_jax.data import images, poses
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Images, Record
from pose3d_jax.sources import SourceError


class Extractor:
    """The network of a run: encoded pictures to their features."""

    def __init__(self, run: Path, batch: int) -> None:
        """Raises `CheckpointError` and `UserError` for what is no run that looks at pictures."""
        self._method, self._variables = photo.run_of(run)
        self._batch = batch
        self._apply = jax.jit(self._method.features)

    def __call__(self, encoded: np.ndarray) -> Float[np.ndarray, "pictures features"]:
        """Features of a list of pictures; zeros where there is none."""
        parts: list[Any] = []
        for first in range(0, len(encoded), self._batch):
            # Batches of one length are compiled once.
            some = np.minimum(np.arange(first, first + self._batch), len(encoded) - 1)
            shown = images.pixels(encoded[:, None], some, self._method.cells)[:, 0]
            parts.append(np.asarray(self._apply(self._variables, shown)))
        found = np.concatenate(parts)[: len(encoded)]
        there = np.array([bool(picture) for picture in encoded])
        return np.where(there[:, None], found, np.float32(0))


def pictured(found: Sequence[Record], extractor: Extractor) -> Iterator[Record]:
    """Records with features of their pictures, which are all looked at first."""
    encoded = np.concatenate([_pictures(record).pixels.reshape(-1) for record in found])
    features = extractor(encoded)
    done = 0
    for record in found:
        own = _pictures(record)
        count = own.pixels.size
        of_it = features[done : done + count].reshape(*own.pixels.shape, -1)
        done += count
        seen = dataclasses.replace(
            record.clip.observations, images=Images(of_it, np.asarray(own.square, np.float32))
        )
        yield Record(dataclasses.replace(record.clip, observations=seen), record.identity)


def _pictures(record: Record) -> Any:
    pictures = record.clip.observations.pictures
    if pictures is None:
        raise SourceError(
            f"clip {record.identity.clip} has no pictures; give a set that has, such as "
            f"data_prep.rendered_cmu, data_prep.pictures and data_prep.coco make"
        )
    return pictures


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`, whose features are made when its records are asked for.

    Raises `DataError` for what is no prepared set, `SourceError` for one without pictures, and what
    `Extractor` raises, before anything is computed.
    """
    if args.batch < 1:
        raise UserError(f"--batch is {args.batch}; give 1 picture or more at once")
    info = poses.open_set(args.source).info
    work = {split: list(poses.read_split(args.source, split)) for split in info.splits}
    for found in work.values():
        for record in found:
            _pictures(record)
    for entry in (info.metadata or {}).get("skipped", ()):
        proof.skip(entry["what"], entry["why"])
    extractor = Extractor(args.run, args.batch)
    made = checkpoint.read_metadata(args.run)

    def records(split: str) -> Iterator[Record]:
        found = work[split]
        some = max(1, 10 * args.batch)
        for first in tqdm(range(0, len(found), some), desc=split, unit=f"{some} clips"):
            yield from pictured(found[first : first + some], extractor)

    return prepare.again(
        info,
        {split: records(split) for split in work},
        f"Features of its pictures: HRNet, after {made['step']} steps of "
        f"{made['config']['name']} (seed {made['config']['seed']}, data {made['fingerprint']}).",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.picture_features")
    parser.add_argument("--run", type=Path, required=True, help="work directory of a run of image")
    parser.add_argument("--batch", type=int, default=64, help="pictures that are seen at once")
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
