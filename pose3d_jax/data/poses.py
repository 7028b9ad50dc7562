"""Shards to arrays on the device: the whole pose set at once, cut into windows where it is used."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from flax import struct
from jaxtyping import Array, Int

from pose3d_jax import schema, skeleton
from pose3d_jax.cameras import Leaf
from pose3d_jax.data import integrity, joining, records
from pose3d_jax.data.integrity import DataError
from pose3d_jax.noise import PRESETS, Noise, corrupt_record
from pose3d_jax.schema import Clip, Identity, Labels, Observations, Record
from pose3d_jax.skeleton import Skeleton

_ADVICE = "prepare the data first (python -m data_prep.NAME --output DIR) or correct data.path"


@struct.dataclass
class PoseSet:
    """All frames of a split, end to end, and the windows that cut them into examples.

    Frames before `begin` and from `stop` on belong to other clips: where a window, or its context,
    reaches beyond its clip, it is padded with what counts as missing.
    """

    observations: Observations  # leading axis [frames]
    labels: Labels  # leading axis [frames]
    start: Leaf  # [windows] the window's first frame, without its context
    begin: Leaf  # [windows] the first frame of the window's clip
    stop: Leaf  # [windows] one past the last frame of the window's clip
    recording: Leaf  # [windows]
    window: int = struct.field(pytree_node=False)
    # Frames before and after a window that are given with it.
    context: tuple[int, int] = struct.field(pytree_node=False, default=(0, 0))

    @property
    def size(self) -> int:
        """Number of windows."""
        return self.start.shape[0]

    @jax.jit
    def take(self, indices: Int[Array, "batch"]) -> Clip:
        """Windows with their context as a batch `[B, T, ...]`."""
        before, after = self.context
        frame = self.start[indices][:, None] + jnp.arange(-before, self.window + after)[None]
        begin, stop = self.begin[indices][:, None], self.stop[indices][:, None]
        inside = (frame >= begin) & (frame < stop)
        frame = jnp.clip(frame, begin, stop - 1)
        observations, labels = jax.tree.map(lambda x: x[frame], (self.observations, self.labels))
        observed = inside[..., None, None]
        observations = dataclasses.replace(
            observations,
            confidence=jnp.where(observed, observations.confidence, 0.0),
            keypoints=jnp.where(observed[..., None], observations.keypoints, 0.0),
            images=jax.tree.map(lambda x: jnp.where(observed, x, 0.0), observations.images),
            pictures=jax.tree.map(lambda x: jnp.where(observed, x, 0.0), observations.pictures),
        )
        labels = dataclasses.replace(
            labels,
            joints_valid=jnp.where(inside[..., None], labels.joints_valid, 0.0),
            joints=jnp.where(observed, labels.joints, 0.0),
        )
        if labels.body is not None:
            valid = jnp.where(inside, labels.body.valid, 0.0)
            labels = dataclasses.replace(labels, body=dataclasses.replace(labels.body, valid=valid))
        return Clip(observations, labels, self.recording[indices])


def without_images(poses: PoseSet) -> PoseSet:
    """The set without features of images, for who does not look at them."""
    return dataclasses.replace(
        poses, observations=dataclasses.replace(poses.observations, images=None)
    )


def without_pictures(poses: PoseSet) -> PoseSet:
    """The set without the places of pictures, for who does not look at them."""
    return dataclasses.replace(
        poses, observations=dataclasses.replace(poses.observations, pictures=None)
    )


@dataclasses.dataclass(frozen=True)
class PoseData:
    """A loaded split: arrays for the device, and what they are."""

    poses: PoseSet
    identities: tuple[Identity, ...]  # one per window
    keypoint_skeleton: Skeleton
    joint_skeleton: Skeleton
    keypoint_source: str
    recordings: tuple[str, ...]  # the table that `PoseSet.recording` points into
    fingerprint: str  # of the clips' arrays and identities
    # Of each frame and view, encoded, where the set has such: see `schema.Pictures`.
    pictures: np.ndarray | None = None


def read_split(directory: str | Path, split: str) -> list[Record]:
    """The split's records, each validated, in their order on disk; its files are verified first.

    Raises `DataError` for a directory without a data set, for a split that it lacks or that is
    empty, for files that are not as they were written, and for a broken record.
    """
    directory = Path(directory)
    builder = open_set(directory)
    if split not in builder.info.splits:
        there = ", ".join(builder.info.splits)
        raise DataError(f"{directory} has no split {split!r}; it has {there}")
    info = builder.info.splits[split]
    integrity.verify(directory, info.filenames)
    integrity.verify_counts(directory, dict(zip(info.filenames, info.shard_lengths, strict=True)))
    try:
        found = [records.decode(example) for example in builder.as_data_source(split)]
        for record in found:
            schema.validate(record)
    except Exception as error:
        raise DataError(
            f"{directory}, split {split!r}, cannot be read: {error}; {_ADVICE}"
        ) from error
    if not found:
        raise DataError(f"{directory}, split {split!r}, is empty; {_ADVICE}")
    return found


def seeing(data: PoseData) -> tuple[tuple[bool, ...], ...]:
    """By recording of the table, which of its views see anything; of windows of one frame."""
    confidence = np.asarray(data.poses.observations.confidence)
    sees: np.ndarray = np.any(confidence > 0, axis=-1)  # [frames, views]
    found = np.zeros((len(data.recordings), sees.shape[1]), bool)
    np.logical_or.at(found, np.asarray(data.poses.recording), sees[np.asarray(data.poses.start)])
    return tuple(map(tuple, found.tolist()))


def splits(directory: str | Path) -> tuple[str, ...]:
    """Names of the splits that a data set has; `DataError` for a directory without one."""
    return tuple(open_set(Path(directory)).info.splits)


def open_set(directory: Path) -> tfds.core.DatasetBuilder:
    """The data set with its splits and features, both verified. Raises `DataError`."""
    try:
        there = directory.is_dir()
        prepared = (directory / "dataset_info.json").is_file()
    except OSError as error:  # a name that is too long, a folder that is another user's
        raise DataError(f"{directory} cannot be opened ({error.strerror}); {_ADVICE}") from error
    if not there:
        raise DataError(f"no directory {directory}; {_ADVICE}")
    if not prepared:
        raise DataError(f"{directory} holds no prepared data set; {_ADVICE}")
    integrity.verify(directory, ("dataset_info.json", "features.json"))
    try:
        return tfds.builder_from_directory(str(directory))
    except Exception as error:  # the library raises whatever the files' parsers do
        raise DataError(
            f"{directory}: dataset_info.json and features.json cannot be used ({error}); {_ADVICE}"
        ) from error


def load(
    directories: Sequence[str | Path],
    split: str,
    *,
    keypoint_skeleton: str | None = None,
    joint_skeleton: str | None = None,
    keypoint_source: str | None = None,
    recordings: tuple[str, ...] | None = None,
    noise: Noise | None = None,
    views: Sequence[int] = (),
    actions: Sequence[str] = (),
    images: bool = True,
) -> PoseData:
    """The split of every data set, joined: views padded to the most there are, joints put in order.

    In windows of one frame; `windows.cut` makes others.

    Args:
      directories: data sets as `data_prep` writes them.
      split: name of the split, which each must have.
      keypoint_skeleton, joint_skeleton: the joint sets to deliver; by default those of the data,
        which must then all be the same.
      keypoint_source: what the 2D points must be from; by default it may be anything.
      recordings: an existing table of recordings; one that it lacks gets row -1. By default the
        table is made from the data.
      noise: what the keypoints suffer before anything else is done to them (with seed 0); by
        default nothing.
      views: indices of the cameras to use, in this order; by default all.
      actions: those to use; by default all.
      images: whether features of images are of use; else they stay on disk.

    Raises `DataError` where the sets do not fit together, `SkeletonError` where they lack joints.
    """
    found = [record for directory in directories for record in read_split(directory, split)]
    if not found:
        raise DataError("data.path is empty; name at least one prepared data set")
    found = [
        joining.pick_views(record, views) for record in joining.pick_actions(found, actions, split)
    ]
    if noise not in (None, PRESETS["clean"]):
        found = [corrupt_record(record, noise) for record in found]
    identities = [record.identity for record in found]
    keypoints = joining.common(identities, "keypoint_skeleton", keypoint_skeleton)
    joints = joining.common(identities, "joint_skeleton", joint_skeleton)
    fingerprint = _fingerprint(found)
    joining.check_alike(found)
    pictures = _encoded(found)
    found = [_without_pixels(record) for record in found]
    most = max(len(identity.camera_names) for identity in identities)
    clips = [
        joining.padded(
            joining.reordered(record, skeleton.get(keypoints), skeleton.get(joints)), most
        )
        for record in found
    ]

    if recordings is None:
        recordings = tuple(sorted({joining.recording_of(identity) for identity in identities}))
    rows = {name: row for row, name in enumerate(recordings)}
    frames = np.array([clip.observations.keypoints.shape[0] for clip in clips])
    ends = np.cumsum(frames)
    clip_of_frame = np.repeat(np.arange(len(clips)), frames)
    row_of_clip = np.array([rows.get(joining.recording_of(i), -1) for i in identities], np.int32)
    observations, labels = jax.tree.map(
        lambda *parts: np.concatenate(parts), *[(clip.observations, clip.labels) for clip in clips]
    )
    poses = PoseSet(
        observations=observations,
        labels=labels,
        start=np.arange(ends[-1], dtype=np.int32),
        begin=(ends - frames)[clip_of_frame].astype(np.int32),
        stop=ends[clip_of_frame].astype(np.int32),
        recording=row_of_clip[clip_of_frame],
        window=1,
    )
    source = "+".join(sorted({identity.keypoint_source for identity in identities}))
    if keypoint_source not in (None, source):
        raise DataError(
            f"{', '.join(map(str, directories))}, split {split!r}: the 2D points are from "
            f"{source!r}, not {keypoint_source!r}; correct data.keypoint_source or data.path"
        )
    return PoseData(
        poses=jax.device_put(poses if images else without_images(poses)),
        identities=tuple(identities[clip] for clip in clip_of_frame),
        keypoint_skeleton=skeleton.get(keypoints),
        joint_skeleton=skeleton.get(joints),
        keypoint_source=source,
        recordings=recordings,
        fingerprint=fingerprint,
        pictures=pictures,
    )


def _encoded(found: Sequence[Record]) -> np.ndarray | None:
    """The pictures of all clips, end to end, views padded with none; None where there are none."""
    parts = [record.clip.observations.pictures for record in found]
    if parts[0] is None:
        return None
    most = max(len(record.identity.camera_names) for record in found)
    return np.concatenate(
        [
            np.pad(p.pixels, ((0, 0), (0, most - p.pixels.shape[1])), constant_values=b"")
            for p in parts
            if p is not None
        ]
    )


def _without_pixels(record: Record) -> Record:
    pictures = record.clip.observations.pictures
    if pictures is None:
        return record
    observations = dataclasses.replace(
        record.clip.observations, pictures=dataclasses.replace(pictures, pixels=None)
    )
    return record._replace(clip=dataclasses.replace(record.clip, observations=observations))


def _fingerprint(found: Iterable[Record]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over all arrays and identities."""
    digest = hashlib.sha256()
    for record in found:
        digest.update(repr(dataclasses.astuple(record.identity)).encode())
        for leaf in jax.tree.leaves(record.clip):
            if leaf.dtype == object:  # pictures
                leaf = np.frombuffer(b"".join(leaf.reshape(-1)), np.uint8)
            digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
