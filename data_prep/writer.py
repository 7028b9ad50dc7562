"""The one writer of shards: validated records of any dataset to TFDS/array_record files.

`tfds.builder_from_directory(directory).as_data_source(split)` reads them; no TensorFlow is needed.
"""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.data import integrity, records

_VERSION = "1.0.0"
_SHARD = 64  # records in a file


def write(
    directory: str | Path,
    name: str,
    records_by_split: Mapping[str, Iterable[schema.Record]],
    *,
    description: str,
    citation: str = "",
    terms: str = "",
    overwrite: bool = False,
    proof: Proof | None = None,
) -> Proof:
    """Writes a dataset into `directory`, whole or not at all, and returns what it found in it.

    Args:
      directory: where `tfds.builder_from_directory` will find it; its parents are made.
      name: of the dataset; every record's `identity.dataset` must say the same.
      records_by_split: the records of each split; iterated once, in order.
      description: what the dataset is, for its metadata.
      citation: of its source.
      terms: of use, as the source states them.
      overwrite: replace what is there; the old files go only after the new ones are complete.
      proof: what has been skipped so far; its summary becomes the data set's metadata.

    Raises:
      schema.SchemaError: a record breaks the schema, a split is empty, a record's views or joint
        sets differ from the first one's, or a name cannot be part of a file's name.
      FileExistsError: the directory is not empty and `overwrite` is off, or holds other things
        than a dataset.
    """
    directory = Path(directory).absolute()
    _check_names(name, *records_by_split)
    check_target(directory, overwrite)
    proof = proof or Proof()
    first, splits = _peek(records_by_split)
    schema.validate(first)  # the shape of all is taken from it
    views = len(first.identity.camera_names)
    keypoints = skeleton.get(first.identity.keypoint_skeleton).size
    joints = skeleton.get(first.identity.joint_skeleton).size
    optional = _optional(first)
    with _scratch_beside(directory) as scratch:
        new = scratch / "new"
        new.mkdir()
        info = tfds.core.DatasetInfo(
            builder=tfds.core.DatasetIdentity(
                name, tfds.core.Version(_VERSION), str(new), __name__
            ),
            description=description,
            citation=citation,
            license=terms,
            features=records.features(views, keypoints, joints, **optional),
            metadata=tfds.core.MetadataDict(),
        )
        # Straight to its file, record by record: the library's builders hold a split in memory.
        shards = tfds.core.SequentialWriter(info, _SHARD, file_format="array_record")
        shards.initialize_splits(list(splits))
        for split, found in splits.items():
            for record in found:
                schema.validate(record)
                _check_consistent(name, split, first.identity, record)
                if _optional(record) != optional:
                    raise schema.SchemaError(
                        f"clip {name}/{record.identity.clip}: body (parts, components), images "
                        f"(features) and pictures are {_optional(record)}, those of the dataset's "
                        f"first clip {optional}; write two datasets"
                    )
                proof.add(record)
                shards.add_examples({split: [records.encode(record)]})
        info.metadata.update(proof.summary())
        shards.close_all()
        # Last of all: where a preparation is killed before this, what it leaves is refused.
        integrity.write_checksums(new)
        _replace(directory, new, scratch / "replaced")
    return proof


def _optional(record: schema.Record) -> dict[str, Any]:
    """What not every dataset has, and how large it is: see `records.features`."""
    body, images = record.clip.labels.body, record.clip.observations.images
    return {
        "body": None if body is None else (body.rotations.shape[1], body.shape.shape[1]),
        "images": None if images is None else images.features.shape[2],
        "pictures": record.clip.observations.pictures is not None,
    }


def _check_names(*names: str) -> None:
    """Raises `SchemaError` unless data set and splits have names that files can have."""
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise schema.SchemaError(
                f"a data set or split is named {name!r}; files are named after it, so use letters, "
                f"digits and underscores, a letter first"
            )


def check_target(directory: Path, overwrite: bool) -> None:
    """Raises `FileExistsError` where `write` would: what takes long asks beforehand."""
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file; give a directory")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{directory} is not empty; choose another, or pass --overwrite")
    if not (directory / "dataset_info.json").exists():
        raise FileExistsError(
            f"{directory} holds no dataset, so it is not overwritten; remove it or choose another"
        )


@contextlib.contextmanager
def _scratch_beside(directory: Path) -> Iterator[Path]:
    """A temporary folder on the same disk; after an error no folder made here is left.

    A kill leaves it there, hidden. It may be removed; no later preparation minds it, each having a
    folder of its own.
    """
    made = [parent for parent in directory.parents if not parent.exists()]
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch)
        for parent in made:
            parent.rmdir()
        raise
    shutil.rmtree(scratch)


def _peek(
    records_by_split: Mapping[str, Iterable[schema.Record]],
) -> tuple[schema.Record, dict[str, Iterable[schema.Record]]]:
    """The very first record, and the splits with nothing taken from them."""
    first: schema.Record | None = None
    splits: dict[str, Iterable[schema.Record]] = {}
    for split, iterable in records_by_split.items():
        iterator = iter(iterable)
        head = list(itertools.islice(iterator, 1))
        if not head:
            raise schema.SchemaError(f"split {split!r} has no records")
        first = first or head[0]
        splits[split] = itertools.chain(head, iterator)
    if first is None:
        raise schema.SchemaError("there are no splits to write")
    return first, splits


def _check_consistent(
    dataset: str, split: str, first: schema.Identity, record: schema.Record
) -> None:
    """Raises `SchemaError` where a record contradicts its names or the dataset's first record."""
    identity = record.identity
    name = f"clip {identity.dataset}/{identity.clip}"
    if (identity.dataset, identity.split) != (dataset, split):
        raise schema.SchemaError(
            f"{name}, split {identity.split!r}, is written as {dataset!r}, split {split!r}"
        )
    for field in ("keypoint_skeleton", "joint_skeleton"):
        if getattr(identity, field) != getattr(first, field):
            raise schema.SchemaError(
                f"{name}: {field} is {getattr(identity, field)}, but the dataset's first clip has "
                f"{getattr(first, field)}; write two datasets"
            )
    if len(identity.camera_names) != len(first.camera_names):
        raise schema.SchemaError(
            f"{name}: {len(identity.camera_names)} views, but the dataset's first clip has "
            f"{len(first.camera_names)}; pad with missing views, or write two datasets"
        )


def _replace(directory: Path, new: Path, old: Path) -> None:
    """Moves `new` to `directory`; what was there goes to `old`, and comes back if that fails.

    Two renames cannot be one (a rename replaces no folder that holds something). A kill between
    them leaves nothing at `directory`, and both sets whole in the scratch folder: nothing half, but
    the user has to prepare again, or to move one of them back by hand.
    """
    try:
        if directory.exists():
            os.rename(directory, old)
        os.rename(new, directory)
    except BaseException:  # Ctrl-C as well, since `old` goes with the scratch folder
        if old.exists() and not directory.exists():
            os.rename(old, directory)
        raise
