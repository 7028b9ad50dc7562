"""Records of several data sets made alike, so that they can be joined: see `poses.load`."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from absl import logging

from pose3d_jax import skeleton
from pose3d_jax.data.integrity import DataError
from pose3d_jax.schema import Clip, Identity, Observations, Record
from pose3d_jax.skeleton import Skeleton


def pick_actions(found: list[Record], actions: Sequence[str], split: str) -> list[Record]:
    """The records of these actions; all where none is named.

    Archives miss some: an action that the split lacks is warned of, unless none is left.
    """
    if not actions:
        return found
    there = {record.identity.action for record in found}
    missing = ", ".join(sorted(set(actions) - there))
    if missing:
        message = f"split {split!r} has no clip of {missing}; it has {', '.join(sorted(there))}"
        if not there & set(actions):
            raise DataError(f"{message}; correct data.actions")
        logging.warning("%s", message)
    return [record for record in found if record.identity.action in actions]


def pick_views(record: Record, views: Sequence[int]) -> Record:
    """The record as the cameras of these indices see it; all where none is named."""
    if not views:
        return record
    clip, identity = record
    names = identity.camera_names
    if max(views) >= len(names) or len(set(views)) < len(views):
        raise DataError(
            f"data.views is {list(views)}, but clip {identity.dataset}/{identity.clip} has cameras "
            f"0 to {len(names) - 1}; name each at most once"
        )
    chosen = list(views)
    observations = jax.tree.map(lambda x: x[:, chosen], clip.observations)
    return Record(
        dataclasses.replace(clip, observations=observations),
        dataclasses.replace(identity, camera_names=tuple(names[view] for view in chosen)),
    )


def recording_of(identity: Identity) -> str:
    """What a body of a video is of: one name across data sets."""
    return f"{identity.dataset}/{identity.recording}"


def common(identities: Iterable[Identity], field: str, wanted: str | None) -> str:
    """The wanted joint set, else the one that all clips share."""
    if wanted is not None:
        return wanted
    by_set = {getattr(identity, field): identity.dataset for identity in identities}
    if len(by_set) > 1:
        which = ", ".join(f"{name} in {dataset}" for name, dataset in by_set.items())
        raise DataError(f"the data sets differ in {field}: {which}; set data.{field}")
    return next(iter(by_set))


def check_alike(found: Iterable[Record]) -> None:
    """Raises `DataError` where only some sets have bodies or features of images, or unlike ones."""
    kinds: dict[str, str] = {}
    for clip, identity in found:
        body, images = clip.labels.body, clip.observations.images
        kind = "no bodies"
        if body is not None:
            kind = f"bodies of {body.rotations.shape[1]} parts, {body.shape.shape[1]} components"
        count = "no" if images is None else images.features.shape[2]
        shown = "" if clip.observations.pictures is None else ", pictures"
        kinds.setdefault(f"{kind}, {count} features of images{shown}", identity.dataset)
    if len(kinds) > 1:
        which = ", ".join(f"{name} has {kind}" for kind, name in kinds.items())
        raise DataError(f"{which}; such sets cannot be joined, correct data.path")


def reordered(record: Record, keypoints: Skeleton, joints: Skeleton) -> Clip:
    """The record's clip with its points in the given joint sets' order."""
    clip, identity = record
    observations, labels = clip.observations, clip.labels

    def pick(points: np.ndarray, source: str, target: Skeleton) -> np.ndarray:
        return skeleton.reorder(points, skeleton.get(source), target)

    observations = dataclasses.replace(
        observations,
        keypoints=pick(observations.keypoints, identity.keypoint_skeleton, keypoints),
        confidence=pick(observations.confidence[..., None], identity.keypoint_skeleton, keypoints)[
            ..., 0
        ],
    )
    labels = dataclasses.replace(
        labels,
        joints=pick(labels.joints, identity.joint_skeleton, joints),
        joints_valid=pick(labels.joints_valid[..., None], identity.joint_skeleton, joints)[..., 0],
    )
    return dataclasses.replace(clip, observations=observations, labels=labels)


def padded(clip: Clip, views: int) -> Clip:
    """Adds views that see nothing; their cameras repeat the first, so that they stay valid ones."""
    observations = clip.observations
    missing = views - observations.confidence.shape[1]
    if missing == 0:
        return clip

    def zeros(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))

    def repeat(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, np.repeat(x[:, :1], missing, axis=1)], axis=1)

    return dataclasses.replace(
        clip,
        observations=Observations(
            keypoints=zeros(observations.keypoints),
            confidence=zeros(observations.confidence),
            cameras=jax.tree.map(repeat, observations.cameras),
            images=jax.tree.map(zeros, observations.images),
            pictures=jax.tree.map(zeros, observations.pictures),
        ),
    )
