"""A record as the flat example of a shard, and back: the one place that knows the field names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pose3d_jax.cameras import Camera
from pose3d_jax.schema import (
    BodyLabels,
    Clip,
    Identity,
    Images,
    Labels,
    Observations,
    Pictures,
    Record,
)

# Trailing axes of a camera's fields, as in `cameras.Camera`.
_CAMERA_AXES = {
    "rotation": (3, 3),
    "translation": (3,),
    "focal": (2,),
    "center": (2,),
    "distortion": (5,),
    "tangential": (),
    "size": (2,),
}

_BODY = tuple(field.name for field in dataclasses.fields(BodyLabels))
_IMAGES = tuple(field.name for field in dataclasses.fields(Images))


def features(
    views: int,
    keypoints: int,
    joints: int,
    body: tuple[int, int] | None = None,
    images: int | None = None,
    pictures: bool = False,
) -> tfds.features.FeaturesDict:
    """What one example holds: the clip's arrays over any number of frames, and its identity.

    `views`, `keypoints`, `joints`, of labels of a `body` its parts and components, and how many
    features of `images` there are, are fixed for a dataset, so that its clips can be stacked.
    `pictures`: whether there are such.
    """
    arrays = {
        "keypoints": (views, keypoints, 2),
        "confidence": (views, keypoints),
        **{f"camera_{name}": (views, *axes) for name, axes in _CAMERA_AXES.items()},
        "joints": (joints, 3),
        "joints_valid": (joints,),
    }
    if body is not None:
        parts, components = body
        arrays |= {"body_rotations": (parts, 3), "body_shape": (components,), "body_valid": ()}
    if images is not None:
        arrays |= {"images_features": (views, images), "images_square": (views, 3)}
    if pictures:
        arrays["pictures_square"] = (views, 3)
    # `dict[str, Any]`: the library's feature classes have no common public type.
    spec: dict[str, Any] = {
        name: tfds.features.Tensor(shape=(None, *axes), dtype=np.float32)
        for name, axes in arrays.items()
    }
    for field in dataclasses.fields(Identity):
        spec[field.name] = tfds.features.Text()
    if pictures:  # of each frame's views in turn
        spec["pictures_pixels"] = tfds.features.Sequence(tfds.features.Text())
    spec["camera_names"] = tfds.features.Sequence(tfds.features.Text())
    spec["start"] = tfds.features.Scalar(np.int64)
    spec["fps"] = tfds.features.Scalar(np.float32)
    return tfds.features.FeaturesDict(spec)


def encode(record: Record) -> dict[str, Any]:
    """The record as a flat example: float32 arrays `[T, ...]`, text and numbers.

    `Clip.recording` is left out: it is a row in a table that the reader builds.
    """
    observations, labels = record.clip.observations, record.clip.labels
    arrays = {
        "keypoints": observations.keypoints,
        "confidence": observations.confidence,
        **{f"camera_{name}": getattr(observations.cameras, name) for name in _CAMERA_AXES},
        "joints": labels.joints,
        "joints_valid": labels.joints_valid,
    }
    if labels.body is not None:
        arrays |= {f"body_{name}": getattr(labels.body, name) for name in _BODY}
    if observations.images is not None:
        arrays |= {f"images_{name}": getattr(observations.images, name) for name in _IMAGES}
    rest: dict[str, Any] = dataclasses.asdict(record.identity)
    rest["camera_names"] = list(record.identity.camera_names)
    if observations.pictures is not None:
        arrays["pictures_square"] = observations.pictures.square
        rest["pictures_pixels"] = list(observations.pictures.pixels.reshape(-1))
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()} | rest


def decode(example: Mapping[str, Any]) -> Record:
    """The record of an example as `as_data_source` yields it; `Clip.recording` is -1.

    Raises `KeyError` naming the field that the example lacks.
    """
    cameras = Camera(**{name: example[f"camera_{name}"] for name in _CAMERA_AXES})
    images = None
    if "images_features" in example:
        images = Images(**{name: example[f"images_{name}"] for name in _IMAGES})
    pictures = None
    if "pictures_square" in example:
        square = example["pictures_square"]
        pixels = np.empty(square.shape[0] * square.shape[1], object)
        pixels[:] = list(example["pictures_pixels"])
        pictures = Pictures(square, pixels.reshape(square.shape[:2]))
    observations = Observations(
        example["keypoints"], example["confidence"], cameras, images, pictures
    )
    body = None
    if "body_rotations" in example:
        body = BodyLabels(**{name: example[f"body_{name}"] for name in _BODY})
    labels = Labels(example["joints"], example["joints_valid"], body)
    text = {field.name for field in dataclasses.fields(Identity)} - {"camera_names", "start", "fps"}
    identity = Identity(
        camera_names=tuple(_text(name) for name in example["camera_names"]),
        start=int(example["start"]),
        # Stored in single precision; four decimals bring 29.97 back as it was.
        fps=round(float(example["fps"]), 4),
        **{name: _text(example[name]) for name in text},
    )
    return Record(Clip(observations, labels, np.int32(-1)), identity)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
