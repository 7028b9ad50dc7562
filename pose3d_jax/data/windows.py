"""Clips within a loaded split: their frames, other windows of them, other frame rates."""

import dataclasses
import hashlib
import math

import jax
import numpy as np
from jaxtyping import Float, Int

from pose3d_jax.cameras import Camera
from pose3d_jax.data.poses import PoseData, PoseSet
from pose3d_jax.schema import Identity, Labels, Observations


def clips(poses: PoseSet) -> list[range]:
    """The frames of each clip, in order: indices into the set's frames."""
    first = _first_windows(poses)
    bounds = zip(np.asarray(poses.begin)[first], np.asarray(poses.stop)[first], strict=True)
    return [range(int(begin), int(stop)) for begin, stop in bounds]


def identities(data: PoseData) -> list[Identity]:
    """Of each clip, in the order of `clips`."""
    return [data.identities[window] for window in _first_windows(data.poses)]


def _first_windows(poses: PoseSet) -> Int[np.ndarray, "clips"]:
    """The number of each clip's first window, in the order of their frames."""
    return np.unique(np.asarray(poses.stop), return_index=True)[1]


def cut(
    data: PoseData, window: int, stride: int | None = None, context: tuple[int, int] = (0, 0)
) -> PoseData:
    """The same frames in other windows: of `window` frames, beginning `stride` apart.

    By default every frame stands in one of them. `context` are the frames before and after that are
    given with each. What reaches beyond its clip is padded: see `PoseSet`.
    """
    stride = stride or window
    first = _first_windows(data.poses)
    found = clips(data.poses)
    starts = [np.arange(frames.start, frames.stop, stride) for frames in found]
    of_clip = np.repeat(np.arange(len(found)), [len(s) for s in starts])
    poses = dataclasses.replace(
        data.poses,
        start=np.concatenate(starts).astype(np.int32),
        begin=np.array([frames.start for frames in found], np.int32)[of_clip],
        stop=np.array([frames.stop for frames in found], np.int32)[of_clip],
        recording=np.asarray(data.poses.recording)[first][of_clip],
        window=window,
        context=context,
    )
    of_clips = identities(data)
    return dataclasses.replace(
        data, poses=jax.device_put(poses), identities=tuple(of_clips[clip] for clip in of_clip)
    )


def some(data: PoseData, low: float, high: float) -> PoseData:
    """Of the clips of each group those between two shares of their number.

    In an order that their names alone decide, so that 0 to 0.1 and 0.1 to 1 have no clip in common
    and all of them together. From 0 on there is one of each group at least.
    """
    if (low, high) == (0.0, 1.0):
        return data
    groups: dict[str, list[str]] = {}
    for identity in identities(data):
        groups.setdefault(identity.group, []).append(identity.clip)
    chosen = set()
    for names in groups.values():
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        first, last = (math.ceil(share * len(names) - 1e-9) for share in (low, high))
        chosen.update(names[first:last])
    kept = np.flatnonzero([identity.clip in chosen for identity in data.identities])
    poses = data.poses
    start, begin, stop = (np.asarray(x)[kept] for x in (poses.start, poses.begin, poses.stop))
    inside = np.zeros(len(poses.labels.joints), bool)
    for first, last in zip(begin, stop, strict=True):
        inside[first:last] = True
    frames = np.flatnonzero(inside)

    def place(old: np.ndarray) -> np.ndarray:
        return np.searchsorted(frames, old).astype(np.int32)

    poses = dataclasses.replace(
        poses,
        observations=jax.tree.map(lambda x: np.asarray(x)[frames], poses.observations),
        labels=jax.tree.map(lambda x: np.asarray(x)[frames], poses.labels),
        start=place(start),
        begin=place(begin),
        stop=place(stop - 1) + 1,
        recording=np.asarray(poses.recording)[kept],
    )
    return dataclasses.replace(
        data,
        poses=jax.device_put(poses),
        identities=tuple(data.identities[window] for window in kept),
        pictures=None if data.pictures is None else data.pictures[frames],
    )


def at_rate(data: PoseData, fps: float) -> PoseData:
    """The split at another frame rate, in windows of one frame.

    Points and joints lie on the line between those of the two nearest frames, or, where one of
    these has none, at the nearer one's; cameras, bodies and features of images are the nearer
    frame's. Clips that have the rate stay as they are.
    """
    found, of_clips = clips(data.poses), identities(data)
    if all(identity.fps == fps for identity in of_clips):
        return cut(data, 1)
    before, share, length = [], [], []
    for frames, identity in zip(found, of_clips, strict=True):
        lower, rest = between(len(frames), identity.fps, fps)
        before.append(frames.start + lower)
        share.append(rest)
        length.append(len(lower))
    ends = np.cumsum(length)
    observations, labels = _between(data.poses, np.concatenate(before), np.concatenate(share))
    of_clip = np.repeat(np.arange(len(found)), length)
    first = _first_windows(data.poses)
    poses = PoseSet(
        observations=observations,
        labels=labels,
        start=np.arange(ends[-1], dtype=np.int32),
        begin=(ends - length)[of_clip].astype(np.int32),
        stop=ends[of_clip].astype(np.int32),
        recording=np.asarray(data.poses.recording)[first][of_clip],
        window=1,
    )
    renamed = [dataclasses.replace(identity, fps=fps) for identity in of_clips]
    before_, share_ = np.concatenate(before), np.concatenate(share)
    nearer = np.where(share_ < 0.5, before_, before_ + (share_ > 0))
    return dataclasses.replace(
        data,
        poses=jax.device_put(poses),
        identities=tuple(renamed[clip] for clip in of_clip),
        pictures=None if data.pictures is None else data.pictures[nearer],
    )


def between(
    frames: int, own: float, fps: float, count: int | None = None
) -> tuple[Int[np.ndarray, "there"], Float[np.ndarray, "there"]]:
    """Where the frames at `fps` of a clip of so many at its `own` rate lie in it.

    The frame before each, and how far it is from that to the next: in [0, 1), 0 at the clip's end,
    where those lie that a larger `count` than fits asks for.
    """
    if count is None:
        count = int(np.floor((frames - 1) * fps / own + 1e-6)) + 1
    place = np.minimum(np.arange(count) * (own / fps), frames - 1)
    before = np.floor(place + 1e-6).astype(np.int64)
    share = np.maximum(place - before, 0.0)
    return before, share


def _between(
    poses: PoseSet, before: Int[np.ndarray, "there"], share: Float[np.ndarray, "there"]
) -> tuple[Observations, Labels]:
    """The set's arrays at these places: see `between`."""
    observations, labels = jax.tree.map(np.asarray, (poses.observations, poses.labels))
    after = before + (share > 0)
    nearer = np.where(share < 0.5, before, after)

    def mixed(
        values: Float[np.ndarray, "frames *rest axes"], known: Float[np.ndarray, "frames *rest"]
    ) -> np.ndarray:
        a, b, there = values[before], values[after], known > 0
        both = (there[before] & there[after])[..., None]
        weight = share.reshape(-1, *[1] * (a.ndim - 1))
        line = (1 - weight) * a + weight * b
        return np.where(both, line, values[nearer]).astype(np.float32)

    confidence = observations.confidence
    cameras: Camera = jax.tree.map(lambda x: x[nearer], observations.cameras)
    return (
        Observations(
            keypoints=mixed(observations.keypoints, confidence),
            confidence=mixed(confidence[..., None], confidence)[..., 0],
            cameras=cameras,
            images=jax.tree.map(lambda x: x[nearer], observations.images),
            pictures=jax.tree.map(lambda x: x[nearer], observations.pictures),
        ),
        Labels(
            joints=mixed(labels.joints, labels.joints_valid),
            joints_valid=labels.joints_valid[nearer],
            body=jax.tree.map(lambda x: x[nearer], labels.body),
        ),
    )
