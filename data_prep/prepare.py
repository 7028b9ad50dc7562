"""What the commands of all loaders share: `python -m data_prep.NAME --source DIR --output DIR`."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds

from data_prep import rigs, writer
from data_prep.proof import Proof
from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.schema import BodyLabels, Clip, Identity, Labels, Observations, Record


class Dataset(NamedTuple):
    """A data set about to be written; the records are made when they are asked for."""

    name: str
    splits: Mapping[str, Iterable[Record]]
    description: str
    citation: str
    terms: str


def again(
    info: tfds.core.DatasetInfo, splits: Mapping[str, Iterable[Record]], what: str
) -> Dataset:
    """A prepared set with something done to its records, which `what` adds to its description."""
    return Dataset(
        info.name,
        splits,
        f"{info.description} {what}",
        info.citation,
        info.redistribution_info.license,
    )


def record(
    identity: Identity,
    cameras: Camera,
    joints: np.ndarray,
    *,
    joints_valid: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    body: BodyLabels | None = None,
) -> Record:
    """A record of what a loader has read.

    Args:
      identity: see `schema.Identity`.
      cameras: with axes [V], the same for every frame, or [T, V].
      joints: [T, J, 3] world, metres, z up; zeros where not labelled.
      joints_valid: [T, J]; by default all are labelled.
      keypoints: [T, V, J, 2] raw pixels; by default the joints as the cameras see them (then the
        joint sets must be the same, and joints without a label are missing).
      confidence: [T, V, J]; by default 1.
      body: labels of a body, where the set has such.
    """
    frames = len(joints)
    valid = np.ones(joints.shape[:2]) if joints_valid is None else np.asarray(joints_valid, float)
    if np.ndim(cameras.tangential) == 1:
        cameras = jax.tree.map(lambda x: np.broadcast_to(x, (frames, *np.shape(x))), cameras)
    if keypoints is None:
        observations = rigs.film(joints, cameras)
        seen = observations.confidence * valid[:, None]
        points = np.where(seen[..., None] > 0, observations.keypoints, 0)
    else:
        seen = np.ones(keypoints.shape[:3]) if confidence is None else np.asarray(confidence, float)
        points = np.where(seen[..., None] > 0, keypoints, 0)
    labels = Labels(
        np.where(valid[..., None] > 0, joints, 0).astype(np.float32),
        valid.astype(np.float32),
        body,
    )
    observations = Observations(points.astype(np.float32), seen.astype(np.float32), cameras)
    return Record(Clip(observations, labels, np.int32(-1)), identity)


def main(
    parser: argparse.ArgumentParser,
    read: Callable[[argparse.Namespace, Proof], Dataset],
    arguments: Sequence[str] | None = None,
) -> None:
    """The command line of a loader; adds --source, --output and --overwrite to its own flags.

    `read` is given the parsed flags and the proof, to which it reports what it skips, now or while
    the records are made. A `UserError` ends the command with its message and status 1, and leaves
    nothing in --output.
    """
    parser.add_argument("--source", type=Path, required=True, help="folder of the original files")
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set in --output")
    args = parser.parse_args(arguments)
    proof = Proof()
    try:
        if not args.source.is_dir():
            raise UserError(f"{args.source}: is no folder; give the one that holds the files")
        dataset = read(args, proof)
        writer.write(
            args.output,
            dataset.name,
            dataset.splits,
            description=dataset.description,
            citation=dataset.citation,
            terms=dataset.terms,
            overwrite=args.overwrite,
            proof=proof,
        )
    except (UserError, FileExistsError) as error:
        parser.exit(1, f"error: {error}\n")
    print(proof.text(dataset.name, args.output))
