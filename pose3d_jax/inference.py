"""Whole clips from a method that sees windows: overlap, mirror images, other frame rates."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pose3d_jax.cameras import Camera
from pose3d_jax.config import ConfigError
from pose3d_jax.data import images, windows
from pose3d_jax.data.poses import PoseData, PoseSet
from pose3d_jax.methods.base import (
    Info,
    Method,
    Variables,
    context_of,
    needs_images_of,
    picture_cells_of,
)
from pose3d_jax.methods.lifting import normalised_points
from pose3d_jax.pictures import mirror_image
from pose3d_jax.schema import Observations, Prediction, with_pixels

# Frames at once where a method sees each frame's context and nothing else.
PIECE = 256


class Settings(NamedTuple):
    """How whole clips are lifted; see `settings_of`."""

    window: int = 1  # frames that the method was trained to predict together
    overlap: float = 0.5  # the share of a window that the next one predicts, too
    flip: bool = False  # the mean with what the mirror image gives
    fps: float = 0.0  # frame rate that the method knows; 0 = any
    batch_size: int = 512  # frames at once


def settings_of(window: int, evaluation: Mapping[str, Any], fps: float = 0.0) -> Settings:
    """As `config.evaluation` says, for a method trained on such windows at that frame rate."""
    return Settings(
        window, evaluation["overlap"], evaluation["flip"], fps, evaluation["batch_size"]
    )


def check_flip(method: Method, *, flip: bool) -> None:
    """Raises `ConfigError` for mirror images where a method looks at what has none."""
    if flip and needs_images_of(method):
        raise ConfigError(
            "config.evaluation.flip: the method looks at features of images, of which there are "
            "none of mirror images; switch it off"
        )


def predict_split(
    method: Method,
    info: Info,
    variables: Variables,
    data: PoseData,
    settings: Settings,
    chosen: Sequence[int] | None = None,
) -> Prediction:
    """What the method predicts for every frame of a split: joints `[frames, V, J, 3]`, NumPy's.

    A frame that several windows see gets their weighted mean, the more the nearer it is to a
    window's middle. Clips of another frame rate are lifted at the method's and brought back to
    their own, on the line between the two nearest frames; after the last of them nothing moves.
    `chosen` are the numbers of the clips to lift, by default all; the frames of others are 0.
    """
    lift = functools.partial(
        _at_own_rate, method, info, variables, settings, chosen, pictures=data.pictures
    )
    if not settings.fps or all(i.fps == settings.fps for i in windows.identities(data)):
        return lift(data.poses)
    known = windows.at_rate(data, settings.fps)
    lifted = lift(known.poses)
    parts = []
    for frames, there, identity in zip(
        windows.clips(data.poses), windows.clips(known.poses), windows.identities(data), strict=True
    ):
        before, share = windows.between(len(there), settings.fps, identity.fps, len(frames))
        after, share = before + (share > 0), share[:, None, None, None]
        clip = lifted.joints[there.start : there.stop]
        parts.append((1 - share) * clip[before] + share * clip[after])
    return dataclasses.replace(lifted, joints=np.concatenate(parts).astype(np.float32))


def _at_own_rate(
    method: Method,
    info: Info,
    variables: Variables,
    settings: Settings,
    chosen: Sequence[int] | None,
    poses: PoseSet,
    *,
    pictures: np.ndarray | None,
) -> Prediction:
    found = windows.clips(poses)
    cells = picture_cells_of(method)
    context = context_of(method)
    length, overlap = settings.window, settings.overlap
    if any(context):
        length, overlap = PIECE, 0.0
    bounds = np.array(
        [
            (frames.start + first, frames.start, frames.stop)
            for frames in (found if chosen is None else [found[clip] for clip in chosen])
            for first in _firsts(len(frames), length, overlap)
        ],
        np.int32,
    )
    # The highest in the middle, and nowhere 0.
    weight = 1.0 + np.minimum(np.arange(length), np.arange(length)[::-1])
    size = max(1, settings.batch_size // length)
    for first in range(0, len(bounds), size):
        batch = bounds[np.minimum(first + np.arange(size), len(bounds) - 1)]
        start, begin, stop = jnp.asarray(batch.T)
        cut = dataclasses.replace(
            poses, start=start, begin=begin, stop=stop, recording=jnp.zeros_like(start),
            window=length, context=context,
        )  # fmt: skip
        shown = None
        if cells and pictures is not None:
            shown = images.pixels(pictures, batch[:, :1] + np.arange(length), cells)
        lifted = _lift(method, info, settings.flip, variables, cut, shown)
        if first == 0:
            shape = len(poses.observations.confidence), *lifted.joints.shape[2:]
            total, weights = np.zeros(shape, np.float32), np.zeros((shape[0], 1, 1, 1), np.float32)
        frame = batch[:, :1] + np.arange(length)
        own = (frame < batch[:, 2:]) & (first + np.arange(size) < len(bounds))[:, None]
        each = np.broadcast_to(weight, own.shape)[own].astype(np.float32)[:, None, None, None]
        np.add.at(total, frame[own], each * np.asarray(lifted.joints)[own])
        np.add.at(weights, frame[own], each)
    return dataclasses.replace(lifted, joints=total / np.maximum(weights, 1.0))


def _firsts(frames: int, window: int, overlap: float) -> list[int]:
    """The first frames of a clip's windows; the last window ends with the clip."""
    if frames <= window:
        return [0]
    step = max(1, round(window * (1 - overlap)))
    return [*range(0, frames - window, step), frames - window]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _lift(
    method: Method,
    info: Info,
    flip: bool,
    variables: Variables,
    poses: PoseSet,
    pixels: Array | None = None,
) -> Prediction:
    """All windows of the set at once."""
    observations = poses.take(jnp.arange(poses.size)).observations
    if pixels is not None:
        observations = with_pixels(observations, pixels)
    else:  # places of pictures that nobody looks at
        observations = dataclasses.replace(observations, pictures=None)
    return predict_windows(method, info, flip, variables, observations)


def predict_windows(
    method: Method, info: Info, flip: bool, variables: Variables, observations: Observations
) -> Prediction:
    """Joints alone of windows with their context `[B, T, V, ...]`, as evaluations have them.

    With `flip` the mean with what the mirror image gives. Pure, to be jitted by who calls it.
    """
    prediction = method.predict(variables, observations)
    if not flip:
        return Prediction(prediction.joints, space=prediction.space)
    mirrored = method.predict(variables, _mirrored(observations, info)).joints
    order = np.array(info.joint_skeleton.mirrored)
    back = mirrored[..., order, :].at[..., 0].multiply(-1.0)
    return Prediction((prediction.joints + back) / 2, space=prediction.space)


def _mirrored(observations: Observations, info: Info) -> Observations:
    """What the views would see in a mirror: x reversed, left and right exchanged.

    In pixels of ideal cameras, since a lens's distortion would not fit its mirror image; pictures,
    of which each is looked at by itself, in a mirror and with a lens of their own.
    """
    if observations.pictures is not None:
        return mirror_image(info.keypoint_skeleton, observations)
    order = np.array(info.keypoint_skeleton.mirrored)
    points = normalised_points(observations)[..., order, :].at[..., 0].multiply(-1.0)
    cameras = observations.cameras
    zeros = jax.tree.map(jnp.zeros_like, cameras)
    # The cameras' x axes are reversed, and the world's.
    rotation = cameras.rotation.at[..., 0, 1:].multiply(-1.0).at[..., 1:, 0].multiply(-1.0)
    ideal: Camera = dataclasses.replace(
        zeros,
        rotation=rotation,
        translation=cameras.translation.at[..., 0].multiply(-1.0),
        focal=jnp.ones_like(cameras.focal),
        tangential=cameras.tangential,
        size=cameras.size,
    )
    return Observations(points, observations.confidence[..., order], ideal)
