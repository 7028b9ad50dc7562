"""The clip: what one record of a shard holds, on disk, on the host and on the device.

Words and shapes: B batch, T frames, V views, J joints, P parts of a body, F features of an image;
metres, raw pixels, world z up. A missing keypoint has confidence 0, a missing label `joints_valid`
0, a missing view is all zeros. Padding is the same as missing, so that clips of different sets form
one batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import struct

from pose3d_jax import skeleton
from pose3d_jax.cameras import Camera, Leaf
from pose3d_jax.errors import UserError


@struct.dataclass
class Images:
    """What a network made of frames, of a square around the person (`data_prep/features.py`)."""

    features: Leaf  # [*time, views, features]
    square: Leaf  # [*time, views, 3] its middle x, y and its side, raw pixels; side 0 = no image


@struct.dataclass
class Pictures:
    """What cameras saw of a square around the person.

    Encoded (JPEG or PNG) in shards and on the host, `[*time, views]` of bytes, empty where there is
    none; numbers for networks. A set of poses on the device leaves them out: they are read as they
    are needed (`data/images.py`).
    """

    square: Leaf  # [*time, views, 3] its middle x, y and its side, raw pixels; side 0 = no picture
    pixels: Leaf = None  # [*time, views, height, width, 3] RGB, 0 to 255


@struct.dataclass
class Observations:
    """What a method may see when it predicts."""

    keypoints: Leaf  # [*time, views, keypoints, 2] raw, distorted pixels
    confidence: Leaf  # [*time, views, keypoints] in [0, 1]; 0 = missing
    cameras: Camera  # leading axes [*time, views]
    images: Images | None = None  # where a set has such
    pictures: Pictures | None = None  # where a set has such


def with_pixels(observations: Observations, pixels: Leaf) -> Observations:
    """Observations with what their pictures show, of which they know the squares."""
    assert observations.pictures is not None
    pictures = dataclasses.replace(observations.pictures, pixels=pixels)
    return dataclasses.replace(observations, pictures=pictures)


@struct.dataclass
class BodyLabels:
    """How a body of SMPL's layout (`body.py`) stands, and which it is."""

    rotations: Leaf  # [*time, parts, 3] vectors; of the root in the world, else in the parent
    shape: Leaf  # [*time, components]
    valid: Leaf  # [*time] 1 = labelled, 0 = not


@struct.dataclass
class Labels:
    """What only a loss or a metric may see."""

    joints: Leaf  # [*time, joints, 3] world, metres; zeros where invalid
    joints_valid: Leaf  # [*time, joints] 1 = labelled, 0 = not
    body: BodyLabels | None = None  # where a set has such


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
    # [batch, time, views, joints, 3, 3] metres^2, of each joint about the root, where known
    covariance: Leaf = None
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

_BODY = dataclasses.fields(BodyLabels)
_IMAGES = dataclasses.fields(Images)
_ROTATION_TOLERANCE = 1e-3
_FPS = (1e-4, 1e6)  # four decimals are kept


class SchemaError(UserError):
    """A clip that breaks the schema; the message names the clip, the field and the fault."""


def validate(record: Record) -> None:
    """Raises `SchemaError` unless the shapes agree and everything is finite and in range.

    Numbers are judged as shards hold them, in single precision.
    """
    clip, identity = record
    name = f"clip {identity.dataset}/{identity.clip}"
    _check_identity(name, identity)
    observations, labels = clip.observations, clip.labels
    given = {
        "keypoints": observations.keypoints,
        "confidence": observations.confidence,
        "joints": labels.joints,
        "joints_valid": labels.joints_valid,
        **{f"cameras.{field}": getattr(observations.cameras, field) for field in _CAMERA_SHAPES},
    }
    if labels.body is not None:
        body = labels.body
        given |= {f"body.{field.name}": getattr(body, field.name) for field in _BODY}
    if observations.images is not None:
        images = observations.images
        given |= {f"images.{field.name}": getattr(images, field.name) for field in _IMAGES}
    if observations.pictures is not None:
        given["pictures.square"] = observations.pictures.square
    arrays = {field: _single_precision(name, field, array) for field, array in given.items()}
    _check_shapes(name, identity, arrays)
    if labels.body is not None:
        _check_body(name, arrays)
    if observations.images is not None:
        _check_images(name, arrays)
    if observations.pictures is not None:
        _check_pictures(name, observations.pictures, arrays)
    for field, array in arrays.items():
        _check_finite(name, field, array)
    confidence = arrays["confidence"]
    if confidence.min() < 0 or confidence.max() > 1:
        raise SchemaError(
            f"{name}: confidence leaves [0, 1] ({confidence.min()} to {confidence.max()}); scale it"
        )
    if not np.isin(arrays["joints_valid"], (0, 1)).all():
        raise SchemaError(
            f"{name}: joints_valid has values other than 0 and 1; 1 marks a labelled joint"
        )
    _check_cameras(name, identity, arrays)


def _check_identity(name: str, identity: Identity) -> None:
    """Raises `SchemaError` where a field has the wrong type, is empty, or is out of range."""
    for field in dataclasses.fields(Identity):
        value = getattr(identity, field.name)
        if field.type is str and not _is_text(value):
            raise SchemaError(f"{name}: {field.name} is {value!r}; give text that is not empty")
    names = identity.camera_names
    if not isinstance(names, tuple | list) or not all(map(_is_text, names)):
        raise SchemaError(f"{name}: camera_names is {names!r}; give a tuple of names")
    twice = sorted({camera for camera in names if names.count(camera) > 1})
    if twice:
        raise SchemaError(f"{name}: camera_names has {', '.join(twice)} twice; tell cameras apart")
    # A flag is an int to Python.
    start, fps = identity.start, identity.fps
    whole = isinstance(start, int | np.integer) and not isinstance(start, bool)
    if not whole or not 0 <= start < 2**63:
        raise SchemaError(f"{name}: start is {start!r}; give the number of the first frame, from 0")
    real = isinstance(fps, int | float | np.number) and not isinstance(fps, bool)
    if not real or not _FPS[0] <= fps <= _FPS[1]:
        raise SchemaError(f"{name}: fps is {fps!r}; give frames per second, {_FPS[0]} to {_FPS[1]}")


def _is_text(value: object) -> bool:
    """Whether it is text with something in it that UTF-8 can hold."""
    return (
        isinstance(value, str) and value != "" and value.encode(errors="ignore").decode() == value
    )


def _single_precision(name: str, field: str, array: Leaf) -> np.ndarray:
    """The array as a shard holds it; what is too large becomes infinite."""
    dtype = getattr(array, "dtype", type(array).__name__)
    if getattr(dtype, "kind", "") not in "biuf" or not isinstance(array, np.ndarray | jax.Array):
        raise SchemaError(f"{name}: {field} holds {dtype}; give an array of numbers")
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(np.float32, copy=False)


def _check_shapes(name: str, identity: Identity, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises `SchemaError` where a shape contradicts another, the camera names or a joint set."""
    points = arrays["keypoints"]
    if points.ndim != 4 or points.shape[-1] != 2:
        raise SchemaError(
            f"{name}: keypoints have shape {points.shape}, expected [T, V, J, 2]; add an axis of "
            f"length 1 where there is one frame or view"
        )
    frames, views, keypoints, _ = points.shape
    if 0 in (frames, views, keypoints):
        raise SchemaError(
            f"{name}: it is empty: keypoints have {frames} frames, {views} views and {keypoints} "
            f"joints; leave it out"
        )
    cameras = arrays["cameras.focal"].shape[:2]
    if cameras != (frames, views):
        raise SchemaError(
            f"{name}: cameras have leading axes {cameras}, but the keypoints have {views} views "
            f"over {frames} frames; give one camera per view and frame"
        )
    if len(identity.camera_names) != views:
        raise SchemaError(
            f"{name}: {len(identity.camera_names)} camera names for {views} views of keypoints; "
            f"name every view's camera"
        )
    joints = _joints(name, "joint_skeleton", identity)
    if arrays["joints"].ndim == 3 and arrays["joints"].shape[1] != joints:
        raise SchemaError(
            f"{name}: {arrays['joints'].shape[1]} joints, but {identity.joint_skeleton} has "
            f"{joints}; name the joint_skeleton that they are in"
        )
    if keypoints != _joints(name, "keypoint_skeleton", identity):
        raise SchemaError(
            f"{name}: {keypoints} keypoints, but {identity.keypoint_skeleton} has "
            f"{_joints(name, 'keypoint_skeleton', identity)}; name the keypoint_skeleton that they "
            f"are in"
        )
    shapes = {
        "confidence": (frames, views, keypoints),
        "joints": (frames, joints, 3),
        "joints_valid": (frames, joints),
        **{f"cameras.{field}": (frames, views, *axes) for field, axes in _CAMERA_SHAPES.items()},
    }
    for field, expected in shapes.items():
        if arrays[field].shape != expected:
            raise SchemaError(
                f"{name}: {field} has shape {arrays[field].shape}, expected {expected}: the frames "
                f"and views of the keypoints, the joints of the skeletons"
            )


def _check_body(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises `SchemaError` where a body's labels are not of the clip's frames, or valid by half."""
    frames = len(arrays["joints"])
    rotations, shape, valid = (arrays[f"body.{field.name}"] for field in _BODY)
    expected = ((frames, *rotations.shape[1:2], 3), (frames, *shape.shape[1:2]), (frames,))
    found = (rotations.shape, shape.shape, valid.shape)
    if found != expected or 0 in rotations.shape[1:]:
        raise SchemaError(
            f"{name}: body has rotations {found[0]}, shape {found[1]}, valid {found[2]}; expected "
            f"[T, parts, 3], [T, components] and [T] for {frames} frames"
        )
    if not np.isin(valid, (0, 1)).all():
        raise SchemaError(f"{name}: body.valid has values other than 0 and 1; 1 marks a label")


def _check_images(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises `SchemaError` where features are not of the clip's frames, or a side is negative."""
    frames, views = arrays["keypoints"].shape[:2]
    features, square = (arrays[f"images.{field.name}"] for field in _IMAGES)
    expected = ((frames, views, *features.shape[2:3]), (frames, views, 3))
    if (features.shape, square.shape) != expected or 0 in features.shape or features.ndim != 3:
        raise SchemaError(
            f"{name}: images has features {features.shape}, square {square.shape}; expected "
            f"[T, V, features] and [T, V, 3] for {frames} frames and {views} views"
        )
    if square[..., 2].min() < 0:
        raise SchemaError(
            f"{name}: images.square has a side of {square[..., 2].min()}; give pixels, or 0 where "
            f"there is no image"
        )


def _check_pictures(name: str, pictures: Pictures, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises `SchemaError` where pictures are no bytes of each frame and view, or lack a square."""
    expected = arrays["keypoints"].shape[:2]
    pixels, square = np.asarray(pictures.pixels), arrays["pictures.square"]
    if pixels.shape != expected or not all(isinstance(x, bytes) for x in pixels.reshape(-1)):
        raise SchemaError(
            f"{name}: pictures.pixels has shape {pixels.shape} of {pixels.dtype}; give the bytes "
            f"of an image file for each of {expected} frames and views, none where there is none"
        )
    if square.shape != (*expected, 3):
        raise SchemaError(
            f"{name}: pictures.square has shape {square.shape}, expected {(*expected, 3)}"
        )
    there = np.array([len(x) > 0 for x in pixels.reshape(-1)]).reshape(expected)
    if ((square[..., 2] > 0) != there).any():
        raise SchemaError(
            f"{name}: pictures.square has a side of 0 where there is a picture, or another where "
            f"there is none; give the side in pixels, 0 without a picture"
        )


def _joints(name: str, field: str, identity: Identity) -> int:
    """Joints of the set that a field of the identity names."""
    try:
        return skeleton.get(getattr(identity, field)).size
    except skeleton.SkeletonError as error:
        raise SchemaError(f"{name}: {field}: {error}") from error


def _check_cameras(name: str, identity: Identity, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises `SchemaError` naming the first camera that no camera can be."""
    rotation = arrays["cameras.rotation"]
    with np.errstate(all="ignore"):  # of what is very large; it is no rotation
        off = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3, dtype=np.float32))
        turns = (off.max((-1, -2)) <= _ROTATION_TOLERANCE) & (np.linalg.det(rotation) > 0)
    faults = {
        "rotation": (~turns, "no rotation; give an orthonormal matrix of determinant 1"),
        "focal": ((arrays["cameras.focal"] <= 0).any(-1), "not positive; give pixels"),
        "size": ((arrays["cameras.size"] <= 0).any(-1), "not positive; give pixels"),
    }
    for field, (wrong, fault) in faults.items():
        if wrong.any():
            frame, view = (int(i) for i in np.argwhere(wrong)[0])
            value = arrays[f"cameras.{field}"][frame, view].tolist()
            raise SchemaError(
                f"{name}: cameras.{field} of {identity.camera_names[view]} is {value} in frame "
                f"{frame}, {fault}"
            )


def _check_finite(name: str, field: str, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise SchemaError(
            f"{name}: {field} is {array[where]} at index {where}; mark missing values with "
            f"confidence 0 (or joints_valid 0) and a value of 0"
        )
