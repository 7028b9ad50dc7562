"""The clip: what one record of a shard holds, on disk, on the host and on the device.

Words and shapes: B batch, T frames, V views, J joints; metres, raw pixels, world z up. A missing
keypoint has confidence 0, a missing label `joints_valid` 0, a missing view is all zeros. Padding is
the same as missing, so that clips of different sets form one batch.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from flax import struct

from pose3d_jax.cameras import Camera, Leaf
from pose3d_jax.errors import UserError


@struct.dataclass
class Observations:
    """What a method may see when it predicts."""

    keypoints: Leaf  # [*time, views, keypoints, 2] raw, distorted pixels
    confidence: Leaf  # [*time, views, keypoints] in [0, 1]; 0 = missing
    cameras: Camera  # leading axes [*time, views]


@struct.dataclass
class Labels:
    """What only a loss or a metric may see."""

    joints: Leaf  # [*time, joints, 3] world, metres; zeros where invalid
    joints_valid: Leaf  # [*time, joints] 1 = labelled, 0 = not


@struct.dataclass
class Clip:
    """Observations and labels of a clip `[T, ...]` or of a batch of clips `[B, T, ...]`."""

    observations: Observations
    labels: Labels
    recording: Leaf  # [*clip] row in the table of recordings


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who, what and where a clip is from. `recording` names one camera set-up and session."""

    dataset: str
    subject: str
    action: str
    clip: str
    recording: str
    camera_names: tuple[str, ...]
    start: int  # first frame, counted at `fps` in the recording
    group: str  # the unit that group means average over
    split: str
    fps: float
    keypoint_skeleton: str
    joint_skeleton: str
    keypoint_source: str  # what made the 2D points: "projected", a detector's name, ...


class Record(NamedTuple):
    """One record of a shard: arrays `[T, ...]` and their identity."""

    clip: Clip
    identity: Identity


@struct.dataclass
class Prediction:
    """Joints in each view's camera frame, metres.

    `space` says what the numbers mean: `absolute`, `root_relative` or `up_to_scale`.
    """

    joints: Leaf  # [batch, time, views, joints, 3]
    samples: Leaf = None  # [samples, batch, time, views, joints, 3], where a method draws them
    space: str = struct.field(pytree_node=False, default="absolute")


# Trailing axes of each field of a camera.
_CAMERA_SHAPES: dict[str, tuple[int, ...]] = {
    "rotation": (3, 3),
    "translation": (3,),
    "focal": (2,),
    "center": (2,),
    "distortion": (5,),
    "tangential": (),
    "size": (2,),
}


class SchemaError(UserError):
    """A clip that breaks the schema; the message names the clip, the field and the fault."""


def validate(record: Record) -> None:
    """Raises `SchemaError` unless the shapes agree and everything is finite and in range."""
    clip, identity = record
    name = f"clip {identity.dataset}/{identity.clip}"
    observations, labels = clip.observations, clip.labels
    if observations.keypoints.ndim != 4 or observations.keypoints.shape[-1] != 2:
        shape = observations.keypoints.shape
        raise SchemaError(f"{name}: keypoints have shape {shape}, expected [T, V, J, 2]")
    frames, views, keypoints, _ = observations.keypoints.shape
    if 0 in (frames, views, keypoints):
        raise SchemaError(
            f"{name}: it is empty: keypoints have {frames} frames, {views} views and {keypoints} "
            f"joints"
        )
    if observations.cameras.focal.shape[:2] != (frames, views):
        cameras = observations.cameras.focal.shape[:2]
        raise SchemaError(
            f"{name}: cameras have leading axes {cameras}, but the keypoints have {views} views "
            f"over {frames} frames; give one camera per view and frame"
        )
    if len(identity.camera_names) != views:
        raise SchemaError(
            f"{name}: {len(identity.camera_names)} camera names for {views} views of keypoints"
        )
    if labels.joints.ndim != 3:
        raise SchemaError(f"{name}: joints has shape {labels.joints.shape}, expected [T, J, 3]")
    shapes = {
        "confidence": (observations.confidence, (frames, views, keypoints)),
        "joints": (labels.joints, (frames, labels.joints.shape[1], 3)),
        "joints_valid": (labels.joints_valid, labels.joints.shape[:2]),
        **{
            f"cameras.{field}": (array, (frames, views, *_CAMERA_SHAPES[field]))
            for field, array in vars(observations.cameras).items()
        },
    }
    for field, (array, expected) in shapes.items():
        if array.shape != expected:
            raise SchemaError(f"{name}: {field} has shape {array.shape}, expected {expected}")
        _check_finite(name, field, array)
    _check_finite(name, "keypoints", observations.keypoints)
    if observations.confidence.min() < 0 or observations.confidence.max() > 1:
        raise SchemaError(f"{name}: confidence leaves [0, 1]")
    if not np.isin(labels.joints_valid, (0, 1)).all():
        raise SchemaError(f"{name}: joints_valid has values other than 0 and 1")
    if observations.cameras.focal.min() <= 0:
        raise SchemaError(f"{name}: cameras.focal has a focal length that is not positive")


def _check_finite(name: str, field: str, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise SchemaError(
            f"{name}: {field} is {array[where]} at index {where}; mark missing values with "
            f"confidence 0 (or joints_valid 0) and a value of 0"
        )
