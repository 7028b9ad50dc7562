"""What a config reads: splits from disk, and the streams of examples that training draws from."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from pose3d_jax import bundle, references
from pose3d_jax.config import ConfigError
from pose3d_jax.data import images, poses, windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.epoch import pass_order, stream_key
from pose3d_jax.methods.base import (
    Method,
    context_of,
    needs_images_of,
    needs_labels_of,
    picture_cells_of,
    recorded_of,
)
from pose3d_jax.noise import Noise
from pose3d_jax.rigs import Doubt, moves


def read(
    config: Mapping[str, Any],
    split: str,
    *,
    path: str | Sequence[str] = "",
    recordings: tuple[str, ...] | None = None,
    noise: Noise | None = None,
    images: bool = True,
) -> PoseData:
    """A split as `config.data` says, in windows of one frame; see `poses.load`.

    `path`: other data sets than those of `config.data`.
    """
    data = config["data"]
    own = [path] if isinstance(path, str) and path else path
    return poses.load(
        own or data["path"],
        split,
        keypoint_skeleton=data["keypoint_skeleton"] or None,
        joint_skeleton=data["joint_skeleton"] or None,
        keypoint_source=data["keypoint_source"] or None,
        recordings=recordings,
        noise=noise,
        views=data["views"],
        actions=data["actions"],
        images=images,
    )


def read_all(config: Mapping[str, Any]) -> dict[str, PoseData]:
    """Every stream's split, with what stands for its 3D, in windows of one frame.

    Raises `ConfigError` where a stream's joint sets are not those of the stream `main`.
    """
    found: dict[str, PoseData] = {}
    for name, stream in config["streams"].items():
        found[name] = posed(stream, read(config, stream["split"], path=stream["path"]))
    for name, data in found.items():
        for kind in ("keypoint_skeleton", "joint_skeleton"):
            own, wanted = (getattr(d, kind).name for d in (data, found["main"]))
            if own != wanted:
                raise ConfigError(
                    f"config.streams.{name} has the {kind} {own}, but config.streams.main has "
                    f"{wanted}; set config.data.{kind}, or prepare the one as the other"
                )
    return found


def posed(stream: Mapping[str, Any], data: PoseData) -> PoseData:
    """The split's clips that the stream has, with what stands for their cameras and their 3D."""
    data = windows.some(data, *stream["clips"])
    if not data.poses.size:
        raise ConfigError(
            f"no clip of any group lies between the shares {stream['clips']} of clips"
        )
    row = stream["joints"]
    if stream["cameras"] == "solved":
        if row == "labels":
            raise ConfigError(
                "config.streams.*.cameras is 'solved' where config.streams.*.joints is 'labels', "
                "which know the cameras as given; let joints be a row of references"
            )
        data, _ = bundle.correct_split(data, Doubt(**stream["doubt"]))
    return data if row == "labels" else references.relabelled(data, row)


def examples(
    config: Mapping[str, Any], method: Method, splits: Mapping[str, PoseData], devices: int
) -> tuple[dict[str, PoseData], float]:
    """The streams in windows with the method's context, and their frame rate.

    The rate is 0 for a method that sees one frame at a time, to which it is nothing. Features of
    images are left out for a method that does not look at them. Raises `ConfigError` for clips of
    several rates where one is needed, for batches that there are not windows enough for or that the
    devices cannot share, and for streams without the labels that the method learns from.
    """
    pictured, cells = needs_images_of(method), picture_cells_of(method)
    for name in needs_labels_of(method):
        _check_labelled(config["method"]["name"], name, splits)
    if recorded_of(method):
        _check_learned(config["streams"]["main"], splits["main"])
    several = any(context_of(method)) or config["streams"]["main"]["window"] > 1
    fps = float(config["data"]["fps"] or splits["main"].identities[0].fps) if several else 0.0
    found = {}
    for name, data in splits.items():
        stream = config["streams"][name]
        if cells:
            check_pictured(f"config.streams.{name}", data)
            if stream["window"] > 1:
                raise ConfigError(
                    f"config.streams.{name}.window is {stream['window']}; pictures are looked at "
                    f"one by one, set it to 1"
                )
        if not pictured:
            data = dataclasses.replace(data, poses=poses.without_images(data.poses))
        if not cells:
            data = dataclasses.replace(data, poses=poses.without_pictures(data.poses))
        if several:
            rates = sorted({identity.fps for identity in data.identities})
            if rates != [fps] and not config["data"]["fps"]:
                raise ConfigError(
                    f"config.streams.{name} has clips of {', '.join(f'{r:g}' for r in rates)} "
                    f"frames per second, but windows need one rate; set config.data.fps to the one "
                    f"at which to read them"
                )
            data = windows.at_rate(data, fps)
        found[name] = windows.cut(data, stream["window"], stream["stride"], context_of(method))
        size = stream["batch_size"]
        if not 1 <= size <= found[name].poses.size:
            raise ConfigError(
                f"config.streams.{name}.batch_size is {size}; it must be 1 to "
                f"{found[name].poses.size}, the number of windows"
            )
        if size % devices:
            raise ConfigError(
                f"config.streams.{name}.batch_size is {size}, which {devices} devices cannot share"
            )
    return found, fps


def feeds_of(
    method: Method,
    key: Key[Array, ""],
    streams: Mapping[str, PoseData],
    batch_sizes: Mapping[str, int],
    first: int,
    stop: int,
    ahead: int,
) -> dict[str, images.Feed]:
    """The pictures of the streams' batches `first` to `stop`, where the method looks at such.

    Those that `epoch.train_epoch` draws, of a state with this key; `ahead`: batches decoded before
    they are asked for.
    """
    cells = picture_cells_of(method)
    if not cells:
        return {}
    found = {}
    for name, data in streams.items():
        assert data.pictures is not None  # see `examples`
        assert len(data.pictures) == len(data.poses.labels.joints)
        found[name] = images.Feed(
            data.pictures,
            np.asarray(data.poses.start),
            functools.partial(_order, stream_key(key, streams, name), data.poses.size),
            batch=batch_sizes[name],
            first=first,
            stop=stop,
            cells=cells,
            ahead=ahead,
        )
    return found


_drawn = jax.jit(pass_order, static_argnums=2)


def _order(key: Key[Array, ""], size: int, number: int) -> Int[np.ndarray, "examples"]:
    return np.asarray(_drawn(key, jnp.int32(number), size))


def check_pictured(where: str, data: PoseData) -> None:
    """Raises `ConfigError`, naming `where`, for data without pictures."""
    if data.pictures is None:
        raise ConfigError(
            f"{where}: the method looks at pictures, and the data has none; prepare such as "
            f"data_prep.rendered_cmu does"
        )


def _check_learned(stream: Mapping[str, Any], data: PoseData) -> None:
    """Raises `ConfigError` where a method cannot learn what the recordings' cameras are off by."""
    if stream["cameras"] != "given":
        raise ConfigError(
            f"config.streams.main.cameras is {stream['cameras']!r} and config.method.cameras "
            f"'learned'; leave one of them at 'given'"
        )
    if stream["joints"] == "labels":
        raise ConfigError(
            "config.streams.main.joints is 'labels', which know the cameras as given, and "
            "config.method.cameras 'learned'; let joints be a row of references"
        )
    cameras = jax.tree.map(np.asarray, data.poses.observations.cameras)
    for clip, identity in zip(windows.clips(data.poses), windows.identities(data), strict=True):
        if moves(jax.tree.map(lambda x, at=clip: x[at.start : at.stop], cameras)):
            raise ConfigError(
                f"config.method.cameras is 'learned', which is for cameras that stand still, and "
                f"those of {identity.dataset}/{identity.clip} move; leave it at 'given'"
            )


def _check_labelled(method: str, name: str, splits: Mapping[str, PoseData]) -> None:
    if name not in splits:
        raise ConfigError(
            f"method {method} learns from 3D poses of a stream {name!r}; give config.streams one"
        )
    poses = splits[name].poses
    if not bool((poses.labels.joints_valid[poses.start].min(axis=-1) > 0).any()):
        raise ConfigError(
            f"config.streams.{name} has no pose of which all joints are labelled, and method "
            f"{method} learns from such; give it a split with labels, or in "
            f"config.streams.{name}.joints a row of references that finds every joint"
        )
