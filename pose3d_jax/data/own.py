"""A user's arrays: one person's keypoints and cameras as a clip, and that as a split of its own."""

from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from pose3d_jax.cameras import Camera
from pose3d_jax.data.poses import PoseData, PoseSet
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Identity, Labels, Observations
from pose3d_jax.skeleton import Skeleton


class PredictError(UserError):
    """Keypoints or cameras that cannot be lifted; says what is wrong with them and what to do."""


def ideal(size: tuple[int, int], focal: float | None = None) -> Camera:
    """One camera `[1]` without a calibration: at the origin, level, its lens without distortion.

    `size`: width and height of its image, pixels; without a `focal` length (pixels) its longer side
    is taken, which is a guess, so that distances from the camera are, too.
    """
    return Camera(
        rotation=np.array([[[1, 0, 0], [0, 0, -1], [0, 1, 0]]], np.float32),
        translation=np.zeros((1, 3), np.float32),
        focal=np.full((1, 2), focal or max(size), np.float32),
        center=(np.array([size], np.float32) - 1) / 2,
        distortion=np.zeros((1, 5), np.float32),
        tangential=np.ones(1, np.float32),
        size=np.array([size], np.float32),
    )


def shared(confidence: Float[np.ndarray, "frames views joints"]) -> int:
    """How many joints, frame by frame, two views or more see."""
    return int(((confidence > 0).sum(axis=1) > 1).sum())


def clip_of(keypoints: Any, confidence: Any, cameras: Camera, skeleton: Skeleton) -> Observations:
    """A clip of one person, checked. Raises `PredictError`."""
    points = np.asarray(keypoints, np.float32)
    if points.ndim != 4 or points.shape[-1] not in (2, 3) or 0 in points.shape:
        raise PredictError(
            f"keypoints have shape {points.shape}, expected [frames, views, joints, 2 or 3]; add "
            f"an axis of length 1 where there is one frame or view"
        )
    if points.shape[-1] == 3 and confidence is not None:
        raise PredictError("keypoints have a third number each, and confidence is given, too")
    if points.shape[2] != skeleton.size:
        raise PredictError(
            f"there are {points.shape[2]} keypoints, but the network knows {skeleton.name} with "
            f"{skeleton.size}: {', '.join(skeleton.joints)}; bring them into that order "
            f"(skeleton.reorder, skeleton.convert)"
        )
    if points.shape[-1] == 3:
        points, confidence = points[..., :2], points[..., 2]
    shape = points.shape[:-1]
    found = np.ones(shape, np.float32) if confidence is None else np.asarray(confidence, np.float32)
    if found.shape != shape:
        raise PredictError(f"confidence has shape {found.shape}, expected {shape}")
    there = np.isfinite(points).all(axis=-1) & np.isfinite(found) & (found > 0)
    unknown = int((~there & (np.nan_to_num(found, nan=1.0) > 0)).sum())
    if unknown:
        logging.warning("%d keypoints are not finite and taken as not found", unknown)
    found = np.where(there, found, 0.0)
    if found.max() > 1:
        raise PredictError(f"a confidence is {found.max():g}; bring them into 0 to 1")
    if not there.any():
        raise PredictError("no keypoint was found in any frame; there is nothing to lift")
    views, given = shape[1], np.shape(cameras.focal)
    if given != (views, 2):
        raise PredictError(
            f"cameras have leading axes {given[:-1]}, but the keypoints {views} views; give one "
            f"camera for each view, in their order"
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(cameras)):
        raise PredictError("a camera holds NaN or infinity; calibrate it anew")
    return Observations(
        keypoints=np.where(there[..., None], points, 0.0),
        confidence=found.astype(np.float32),
        cameras=jax.tree.map(
            lambda x: np.repeat(np.asarray(x, np.float32)[None], len(points), axis=0), cameras
        ),
    )


def data_of(
    observations: Observations, keypoints: Skeleton, joints: Skeleton, fps: float
) -> PoseData:
    """A clip as a split of its own, without labels."""
    frames, views = observations.confidence.shape[:2]
    none = np.zeros((frames, joints.size, 3), np.float32)
    poses = PoseSet(
        observations=observations,
        labels=Labels(none, none[..., 0]),
        start=np.arange(frames, dtype=np.int32),
        begin=np.zeros(frames, np.int32),
        stop=np.full(frames, frames, np.int32),
        recording=np.full(frames, -1, np.int32),
        window=1,
    )
    identity = Identity(
        dataset="own", subject="own", action="own", clip="own", recording="own",
        camera_names=tuple(f"view_{view}" for view in range(views)), start=0, group="own",
        split="own", fps=fps, keypoint_skeleton=keypoints.name,
        joint_skeleton=joints.name, keypoint_source="own",
    )  # fmt: skip
    return PoseData(
        poses=jax.device_put(poses),
        identities=(identity,) * frames,
        keypoint_skeleton=keypoints,
        joint_skeleton=joints,
        keypoint_source="own",
        recordings=(),
        fingerprint="",
    )
