"""What becomes of people's poses before they are written: made quiet, set on the floor."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Float

from pose3d_jax import ground, smoothing
from pose3d_jax.data.own import PredictError
from pose3d_jax.ground import Floor
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.trained import Poses

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Standing:
    """People on their floor."""

    floor: Floor
    feet: tuple[str, ...]  # joints that touch it
    contacts: tuple[Bool[Array, "frames feet"], ...]  # of each person

    def summary(self) -> dict[str, Any]:
        """For `summary.json`: degrees, metres."""
        told = not self.floor.doubt
        return {
            "tilt_degrees": float(np.degrees(self.floor.tilt)),
            "tilt_deviation_degrees": float(np.degrees(self.floor.deviation)) if told else None,
            "height": self.floor.height,
            "stances": self.floor.stances,
            "inliers": self.floor.inliers,
            "assumed_heights": {name: ground.HEIGHTS[ground.part(name)] for name in self.feet},
            **({} if told else {"doubt": self.floor.doubt}),
        }

    def touching(self, person: int) -> Mapping[str, list[list[int]]]:
        """By foot, the first frame of each contact and the first after it."""
        return {
            name: [[part.start, part.stop] for part in smoothing.stretches(own)]
            for name, own in zip(self.feet, self.contacts[person].T, strict=True)
        }


def check(smooth: str | None, floor: bool, space: str) -> None:
    """Raises `PredictError` for joints that are not to be in the world."""
    if (smooth or floor) and space != "world":
        asked = " and ".join(n for n, on in (("--smooth", smooth), ("--floor", floor)) if on)
        raise PredictError(f"{asked} work in the world; leave out --space {space}, or {asked}")
    if smooth:
        smoothing.check(smooth)


def quiet(poses: Poses, kind: str, fps: float) -> Poses:
    """One person's joints through a filter, at its defaults; frames without them are gaps.

    What the covariance was of is no more, so that there is none.
    """
    world = np.where(_seen(poses), _world(poses), np.nan)
    found = smoothing.smooth(world, fps, kind)
    # Where nobody is seen, what was said stays: it is not written.
    found = np.where(np.isnan(found), _world(poses), found)
    cameras = poses.cameras
    turned = np.einsum("vab,tjb->tvja", np.asarray(cameras.rotation), found)
    in_views = turned + np.asarray(cameras.translation)[:, None]
    in_views = in_views.astype(np.float32)
    return dataclasses.replace(poses, world=found, in_views=in_views, covariance=None)


def on_floor(said: Sequence[Poses], skeleton: Skeleton, fps: float) -> tuple[list[Poses], Standing]:
    """Everybody, and the cameras, in the world whose floor is z = 0; and when feet touch it.

    Raises `GroundError` where the floor cannot be told; where its tilt cannot, that is a warning.
    """
    people = [np.where(_seen(poses), _world(poses), np.nan) for poses in said]
    floor = ground.floor_of(people, skeleton, fps)
    if floor.doubt:
        logging.warning("%s; the world is moved up or down, and not turned", floor.doubt)
    turn = floor.rotation

    def moved(poses: Poses) -> Poses:
        covariance = poses.covariance
        if covariance is not None:
            covariance = (turn @ covariance @ turn.T).astype(covariance.dtype)
        return dataclasses.replace(
            poses,
            world=ground.align(floor, _world(poses)),
            covariance=covariance,
            cameras=ground.align_cameras(floor, poses.cameras),
        )

    contacts = [ground.contacts(ground.align(floor, joints), skeleton, fps) for joints in people]
    names = tuple(skeleton.joints[foot] for foot in ground.feet(skeleton))
    return [moved(poses) for poses in said], Standing(floor, names, tuple(contacts))


def covariances(
    poses: Poses, space: str, views: Sequence[str]
) -> dict[str, Float[Array, "frames joints 3 3"]]:
    """How sure the joints to be written are, by what is put behind the person's name, m^2.

    z up, as the joints are. Nothing where that is not known: about the root it would take what the
    errors of two joints have in common.
    """
    world = poses.covariance
    if world is None or space == "root":
        return {}
    if space == "world":
        return {"": world}
    # Right, away from the camera, and up.
    turns = np.asarray(poses.cameras.rotation)[:, [0, 2, 1]] * np.array([[1.0], [1.0], [-1.0]])
    return {f"_{n}": turn @ world @ turn.T for n, turn in zip(views, turns, strict=True)}


def _seen(poses: Poses) -> Bool[Array, "frames 1 1"]:
    return (poses.keypoints[..., 2].max(axis=(1, 2)) > 0)[:, None, None]


def _world(poses: Poses) -> Float[Array, "frames joints 3"]:
    if poses.world is None:
        raise PredictError(
            f"--smooth and --floor work in the world, but what the network predicts is "
            f"{poses.space}; leave them out"
        )
    return poses.world
