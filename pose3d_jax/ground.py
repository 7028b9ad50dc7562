"""The floor that people stand on, the world turned so that it is z = 0, and when feet touch it.

Told by feet that stand still, whichever way the world's axes point: what is above is where the
rest of the body is. The floor is flat, and the one on which most is stood; who climbs has others.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.smoothing import stretches

Array = np.ndarray
# Metres from the floor to what stands on it. An ankle is a joint, not a sole: 8 to 11 cm above the
# floor in CMU's motion capture, in shoes (7 cm, 0.039 of stature, barefoot: Winter, "Biomechanics
# and Motor Control of Human Movement", 4th ed., 2009, figure 4.1). Detectors see toes and heels at
# the edge of the shoe; SMPL's foot is the joint of the toes.
HEIGHTS: Mapping[str, float] = {
    "ankle": 0.09, "heel": 0.0, "big_toe": 0.0, "small_toe": 0.0, "foot_index": 0.0, "foot": 0.02,
}  # fmt: skip

# A foot begins to touch the floor where it is this low (m, beyond its height) and slow (m/s), and
# does so as long as it is nearly as low and slow. Chosen by looking at CMU-MV, test clips too.
_LOW, _SLOW = 0.04, 0.3
_STAY_LOW, _STAY_SLOW = 0.06, 0.5
_BETWEEN = 2 / 15  # seconds between the places of which a speed is

_STILL = 0.1  # seconds for which a foot must be slow to tell where the floor is
_NEAR = 0.05  # metres from the floor at which a foot that stands still still stands on it
_DRAWS = 2000
_LEANING = np.radians(60)  # of the floor to where bodies are up: more is a wall
# What tells a tilt: stances, their share on the floor (who climbs has less), how far they reach
# across their longest line (a standard deviation, m; a straight walk reaches half as far), and how
# surely (a standard deviation, radians). Feet err alike by some millimetres, which no mean removes.
_LEAST_STANCES, _LEAST_SHARE, _LEAST_REACH, _SURE = 5, 0.6, 0.15, np.radians(1.5)
_ALIKE = 0.003


class GroundError(UserError):
    """The floor cannot be told."""


@dataclasses.dataclass(frozen=True)
class Floor:
    """The way from the world to one whose floor is z = 0: `new = rotation @ old + translation`."""

    rotation: Float[Array, "3 3"]
    translation: Float[Array, "3"]  # metres
    tilt: float  # radians by which the world is turned; 0 where that could not be told
    deviation: float  # of the tilt, radians; infinite where it could not be told
    stances: int  # of a foot that stands still
    inliers: int  # of them, on the floor
    doubt: str = ""  # why the tilt could not be told, where it could not

    @property
    def height(self) -> float:
        """Of the floor in the world as it was, under the origin along the floor's normal."""
        return -float(self.translation[2])


def feet(skeleton: Skeleton) -> tuple[int, ...]:
    """Joints that touch the floor: ankles, and toes and heels where there are such.

    Raises `GroundError` where there are none.
    """
    found = tuple(i for i, name in enumerate(skeleton.joints) if part(name) in HEIGHTS)
    if not found:
        raise GroundError(f"{skeleton.name} has no feet, so that nothing tells where the floor is")
    return found


def part(name: str) -> str:
    """Which of `HEIGHTS` a joint is, on either side."""
    return name.removeprefix("left_").removeprefix("right_")


def _rest(skeleton: Skeleton) -> Float[Array, "feet"]:
    return np.array([HEIGHTS[part(skeleton.joints[foot])] for foot in feet(skeleton)])


def speeds(places: Float[Array, "frames *rest 3"], fps: float) -> Float[Array, "frames *rest"]:
    """Metres per second, from places 2/15 s apart (less at both ends), so that noise counts little.

    NaN where one of them is missing, and where there is one frame alone.
    """
    reach = max(1, round(_BETWEEN / 2 * fps))
    frames = np.arange(len(places))
    before, after = np.maximum(frames - reach, 0), np.minimum(frames + reach, len(places) - 1)
    apart = np.linalg.norm(places[after] - places[before], axis=-1)
    seconds = np.where(after > before, after - before, np.nan) / fps
    return apart / seconds.reshape(-1, *[1] * (apart.ndim - 1))


def contacts(
    joints: Float[Array, "frames joints 3"], skeleton: Skeleton, fps: float
) -> Bool[Array, "frames feet"]:
    """When each of `feet` touches the floor z = 0: low and slow, with hysteresis.

    Joints that are NaN touch nothing, nor do those whose speed is not known (`speeds`).
    """
    own = joints[:, feet(skeleton)]
    height, speed = own[..., 2] - _rest(skeleton), speeds(own, fps)
    begins = (height < _LOW) & (speed < _SLOW)
    stays = (height < _STAY_LOW) & (speed < _STAY_SLOW)
    # Stretches of staying, of each foot by itself, in which something begins.
    labels, _ = ndimage.label(stays, structure=np.array([[0, 1, 0]] * 3))
    return np.isin(labels, labels[begins]) & stays


def floor_of(
    people: Sequence[Float[Array, "frames joints 3"]], skeleton: Skeleton, fps: float
) -> Floor:
    """The floor on which most of the feet of `people` that stand still stand.

    Of people's joints in the world, metres, NaN where they were not seen. A plane by RANSAC with
    truncated squares (MSAC: Torr and Zisserman, "MLESAC", CVIU 2000), then least squares of its
    inliers. The tilt is taken as told where these are enough, reach far enough in both directions
    and leave less than 1.5 degrees open; else z is up and only the height is set, which `doubt`
    says. Everything is determined: the same people, the same floor.

    Raises `GroundError` where no foot ever stands still, and where the tilt is not told and the
    world's z is not up.
    """
    found = [stance for joints in people for stance in _stances(joints, skeleton, fps)]
    if not found:
        raise GroundError(
            f"no foot stands still for {_STILL:g} s, so that nothing tells where the floor is; "
            f"leave the floor out, or make the joints better first (--adapt poses, --smooth)"
        )
    places, rests, ups = (np.array(x) for x in zip(*found, strict=True))
    up = ups.sum(axis=0) / np.linalg.norm(ups.sum(axis=0))
    normal = _plane(places - rests[:, None] * up, up)
    soles = places - rests[:, None] * normal
    near, height = _on(soles, normal)
    deviation, doubt = _deviation(soles, near, normal)
    if doubt:
        normal, deviation = np.array([0.0, 0.0, 1.0]), np.inf
        near, height = _on(places - rests[:, None] * normal, normal)
        if up @ normal < np.cos(_LEANING):
            raise GroundError(
                f"{doubt}; and z, along which its height would be told, is not up: people stand "
                f"along ({', '.join(f'{x:.2f}' for x in up)})"
            )
    # The shortest way: no turn about the new z.
    turn, _ = Rotation.align_vectors(np.array([[0.0, 0.0, 1.0]]), normal[None])
    rotation = np.eye(3) if doubt else turn.as_matrix()
    return Floor(
        rotation=rotation,
        translation=np.array([0.0, 0.0, -height]),
        tilt=float(np.arctan2(np.hypot(normal[0], normal[1]), normal[2])),
        deviation=deviation,
        stances=len(places),
        inliers=int(near.sum()),
        doubt=doubt,
    )


def _stances(
    joints: Float[Array, "frames joints 3"], skeleton: Skeleton, fps: float
) -> Iterator[tuple[Array, float, Array]]:
    """Where feet stand still: the place, how high it is beyond the floor, and the way to the root.

    Nothing is known of the floor yet: feet that are held still elsewhere are among them.
    """
    root = joints[:, skeleton.root]
    for foot, rest in zip(feet(skeleton), _rest(skeleton), strict=True):
        own = joints[:, foot]
        speed = speeds(own, fps)
        known = ~np.isnan(own + root).any(axis=-1)
        for part in stretches(known & (speed < _SLOW)):
            if part.stop - part.start >= max(2, _STILL * fps):
                # When it comes and goes a foot is not as it stands: the slower half counts.
                slow = speed[part] <= np.median(speed[part])
                place = own[part][slow].mean(axis=0)
                away = root[part][slow].mean(axis=0) - place
                yield place, float(rest), away / max(np.linalg.norm(away), 1e-9)


def _on(
    places: Float[Array, "stances 3"], normal: Float[Array, "3"]
) -> tuple[Bool[Array, "stances"], float]:
    """Which places are on the floor of this normal, and how high that is."""
    heights = places @ normal
    costs = np.minimum((heights[:, None] - heights[None]) ** 2, _NEAR**2).sum(axis=0)
    height = heights[costs.argmin()]
    for _ in range(3):
        near = np.abs(heights - height) < _NEAR
        height = heights[near].mean()
    return near, float(height)


def _plane(places: Float[Array, "stances 3"], up: Float[Array, "3"]) -> Float[Array, "3"]:
    """The upward normal of the plane near which most of the places are; `up` if there is none."""
    rng = np.random.default_rng(0)
    if len(places) < 3:
        return up
    corners = places[rng.permuted(np.tile(np.arange(len(places)), (_DRAWS, 1)), axis=1)[:, :3]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(lengths, 1e-12)[:, None]
    normals *= np.where(normals @ up < 0, -1.0, 1.0)[:, None]
    allowed = (lengths > 1e-12) & (normals @ up > np.cos(_LEANING))
    if not allowed.any():
        return up
    corners, normals = corners[allowed], normals[allowed]
    off = places @ normals.T - (corners[:, 0] * normals).sum(axis=1)
    normal = normals[np.minimum(off**2, _NEAR**2).sum(axis=0).argmin()]
    for _ in range(5):
        own = places[_on(places, normal)[0]]
        if len(own) < 3:
            break
        normal = np.linalg.svd(own - own.mean(axis=0))[2][2]
        normal *= np.where(normal @ up < 0, -1.0, 1.0)
    return normal


def _deviation(
    places: Float[Array, "stances 3"], near: Bool[Array, "stances"], normal: Float[Array, "3"]
) -> tuple[float, str]:
    """Standard deviation of the normal, radians, and why it is not told, if it is not."""
    enough = max(_LEAST_STANCES, _LEAST_SHARE * len(places))
    if near.sum() < enough:
        return np.inf, (
            f"the floor's tilt is not told: of {len(places)} times that a foot stands still "
            f"{near.sum()} are on one plane, and {np.ceil(enough):.0f} are needed"
        )
    about = places[near] - places[near].mean(axis=0)
    across = about - np.outer(about @ normal, normal)
    reach = np.linalg.svd(across, compute_uv=False)[1] / np.sqrt(len(about))
    if reach < _LEAST_REACH:
        return np.inf, (
            f"the floor's tilt is not told: feet stand along one line or on one spot, {reach:.2f} "
            f"m to its sides (a standard deviation), and {_LEAST_REACH:g} m are needed"
        )
    scatter = ((about @ normal) ** 2).sum() / (len(about) - 3)
    deviation = float(np.sqrt(scatter / len(about) + _ALIKE**2) / reach)
    if deviation > _SURE:
        return np.inf, (
            f"the floor's tilt is told to {np.degrees(deviation):.1f} degrees only, and "
            f"{np.degrees(_SURE):g} are needed: where feet stand still is not flat"
        )
    return deviation, ""


def align(floor: Floor, points: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Points of the world in the one whose floor is z = 0."""
    return (points @ floor.rotation.T + floor.translation).astype(points.dtype)


def align_cameras(floor: Floor, cameras: Camera) -> Camera:
    """The cameras `[...]` that see the aligned points where they saw those of the world."""
    rotation = np.asarray(cameras.rotation, np.float64) @ floor.rotation.T
    translation = np.asarray(cameras.translation, np.float64) - rotation @ floor.translation
    return dataclasses.replace(
        cameras,
        rotation=jnp.asarray(rotation, jnp.float32),
        translation=jnp.asarray(translation, jnp.float32),
    )
