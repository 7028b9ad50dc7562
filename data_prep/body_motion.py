"""Procedural motions of an articulated body: walk, jog, box, and free random movement.

Each is a function of a random generator, a body, and evenly spaced times `t [T]` in seconds, two or
more, and returns the joints `[T, 17, 3]` in metres: feet near the floor z = 0, pelvis within 1.2 m
of the z axis in x and in y.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from data_prep.articulated import LIMITS, SKELETON, Body, clip_angles, forward_kinematics, stand

_SIDES = {"left": 0.0, "right": 0.5}  # when the leg's cycle begins
_GRAVITY = 9.81

Angles = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Gait:
    """A way to walk or run; angles in degrees, ranges are drawn from."""

    hip: tuple[float, ...]  # flexion at 0, 10, ..., 90 % of the cycle, heel strike at 0
    knee: tuple[float, ...]
    stance: float  # share of the cycle in which this foot alone carries the body
    frequency: tuple[float, float]  # strides per second
    size: tuple[float, float]  # factor on the angles of the legs
    arm: float  # swing of the shoulder
    elbow: tuple[float, float]
    lean: tuple[float, float]
    hop: float  # metres


# Near the usual gait curves of textbooks.
WALK = Gait(
    hip=(30, 25, 17, 8, -1, -8, -3, 14, 26, 31),
    knee=(4, 16, 17, 11, 6, 12, 38, 62, 50, 18),
    stance=0.5,
    frequency=(0.8, 1.0),
    size=(0.85, 1.05),
    arm=20,
    elbow=(10, 25),
    lean=(0, 4),
    hop=0.0,
)
JOG = Gait(
    hip=(35, 27, 12, -2, -8, 2, 22, 40, 46, 42),
    knee=(16, 36, 33, 20, 22, 55, 88, 88, 55, 22),
    stance=0.35,
    frequency=(1.25, 1.4),
    size=(0.5, 0.65),
    arm=40,
    elbow=(70, 90),
    lean=(4, 9),
    hop=0.05,
)
Motion = Callable[[np.random.Generator, Body, np.ndarray], np.ndarray]


def smooth(
    rng: np.random.Generator, t: np.ndarray, low: float, high: float, *, fastest: float = 0.5
) -> np.ndarray:
    """A random signal `[T]` that wanders between `low` and `high`, up to `fastest` Hz."""
    frequencies = rng.uniform(0.1, 1.0, 4) * fastest
    phases = rng.uniform(0, 2 * np.pi, 4)
    waves = np.sin(2 * np.pi * frequencies * t[:, None] + phases)
    return low + (high - low) * (0.5 + 0.5 * np.tanh(0.8 * waves.sum(axis=1)))


def _sway(rng: np.random.Generator, t: np.ndarray, degrees: float) -> np.ndarray:
    """Small random angles `[T, 3]` in radians, which make no two clips alike."""
    size = np.radians(degrees)
    return np.stack([smooth(rng, t, -size, size) for _ in range(3)], axis=-1)


def _column(flexion=0.0, side=0.0, twist=0.0) -> np.ndarray:
    """(flexion, side, twist) of any shapes as `[T, 3]` or `[3]`."""
    return np.stack(np.broadcast_arrays(flexion, side, twist), axis=-1)


def _loop(rng: np.random.Generator, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A point `[T, 2]` and heading `[T]` after each distance along a random ellipse or eight."""
    long, short = rng.uniform(0.85, 1.05), rng.uniform(0.65, 0.8)
    phi = np.linspace(0, 2 * np.pi, 2001)
    if rng.random() < 0.5:
        curve = np.stack([long * np.cos(phi), short * np.sin(phi)], axis=-1)
    else:
        curve = np.stack([long * np.sin(phi), short * np.sin(phi) * np.cos(phi)], axis=-1)
    turn, direction = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    curve[:, 1] *= direction
    cos, sin = np.cos(turn), np.sin(turn)
    curve = curve @ np.array([[cos, sin], [-sin, cos]])
    steps = np.diff(curve, axis=0)
    lengths = np.linalg.norm(steps, axis=-1)
    travelled = np.concatenate([[0.0], np.cumsum(lengths)])
    at = (distance + rng.uniform(0, travelled[-1])) % travelled[-1]
    point = np.stack([np.interp(at, travelled, axis) for axis in curve.T], axis=-1)
    # Steps lie between the curve's points; interpolating the tangent avoids jumps of the angle.
    middle = (travelled[1:] + travelled[:-1]) / 2
    tangent = [np.interp(at, middle, axis, period=travelled[-1]) for axis in steps.T]
    return point, np.unwrap(np.arctan2(tangent[1], tangent[0]))


def _stride(rng: np.random.Generator, body: Body, t: np.ndarray, gait: Gait) -> np.ndarray:
    """Walking or jogging along a loop, with counter-swinging arms."""
    step = t[1] - t[0]
    rate = rng.uniform(*gait.frequency) * (1 + 0.03 * np.sin(0.7 * t))
    cycle = rng.random() + np.cumsum(rate) * step
    size, elbow, lean = (
        rng.uniform(*gait.size),
        *(np.radians(rng.uniform(*pair)) for pair in (gait.elbow, gait.lean)),
    )
    swing = np.radians(gait.arm) * size
    hip, knee = (
        CubicSpline(np.linspace(0, 1, 11), np.radians([*curve, curve[0]]), bc_type="periodic")
        for curve in (gait.hip, gait.knee)
    )
    angles: Angles = {}
    for side, phase in _SIDES.items():
        leg = (cycle + phase) % 1
        angles[f"{side}_hip"] = _column(size * hip(leg), 0.02)
        angles[f"{side}_knee"] = _column(size * knee(leg))
        back = np.cos(2 * np.pi * leg)  # the arm is back when the leg of its side is in front
        angles[f"{side}_shoulder"] = _column(-swing * back, 0.12, 0.15)
        angles[f"{side}_elbow"] = _column(elbow + 0.4 * swing * (1 - back))
    turn = 0.2 * swing * np.cos(2 * np.pi * cycle)
    tilt = 0.04 * np.sin(2 * np.pi * cycle)
    angles["pelvis"] = _column(lean, tilt, -turn)
    angles["spine"] = _column(0.3 * lean, -tilt, turn)
    angles["thorax"] = _column(0.05, 0.0, turn)
    angles["neck"] = _column(-lean, 0.0, -turn)
    for joint in ("spine", "neck", "left_shoulder", "right_shoulder"):
        angles[joint] = angles[joint] + _sway(rng, t, 6)
    forward = _ankles(body, angles)[..., :1]
    speed = gaussian_filter1d(_carried(forward, cycle, gait)[:, 0] / step, 1.0, mode="nearest")
    point, heading = _loop(rng, np.cumsum(np.maximum(speed, 0.0)) * step)
    # Within a step the body moves about the loop so that the foot stays where it is planted.
    planted = _carried(_ankles(body, angles, heading)[..., :2], cycle, gait)
    planted = gaussian_filter1d(planted, 2.0, axis=0, mode="nearest")
    away = np.cumsum(planted, axis=0) - point
    point = point + away - gaussian_filter1d(away, 0.4 / step, axis=0, mode="nearest")
    # The trunk leans into the bend, half as far as a bicycle would.
    bend = 0.5 * np.arctan(speed.mean() * np.gradient(heading, step) / _GRAVITY)
    angles["spine"][:, 1] += gaussian_filter1d(bend, 5.0, mode="nearest")
    flight = np.sin(4 * np.pi * (cycle - gait.stance))  # over 0 from one stance to the next
    return _place(body, angles, point, heading, gait.hop * np.maximum(flight, 0.0))


def _ankles(body: Body, angles: Angles, heading: np.ndarray | float = 0.0) -> np.ndarray:
    """Left and right ankle `[T, 2, 3]` relative to the pelvis."""
    joints = forward_kinematics(body, clip_angles(angles), heading)
    return joints[:, [SKELETON.joints.index(f"{side}_ankle") for side in _SIDES]]


def _carried(feet: np.ndarray, cycle: np.ndarray, gait: Gait) -> np.ndarray:
    """How far the body goes in each frame `[T, C]`: as far as the planted foot of `[T, 2, C]` goes
    back under it; in flight, evenly on to the next foot.
    """
    back = -np.gradient(feet, axis=0)
    frames = np.arange(len(feet))
    planted = [(cycle + phase) % 1 < gait.stance for phase in _SIDES.values()]
    known = planted[0] | planted[1]
    if not known.any():  # a clip that is shorter than a flight
        known = np.ones_like(known)
    foot = np.where(planted[0], 0, 1)
    carried = back[frames, foot]
    return np.stack([np.interp(frames, frames[known], c[known]) for c in carried.T], axis=-1)


def walk(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Walking."""
    return _stride(rng, body, t, WALK)


def jog(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """A slow jog with bent arms and a short flight."""
    return _stride(rng, body, t, JOG)


def box(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Punches out of a guard, one foot ahead, shifting about."""
    fore, aft = rng.permutation(["left", "right"])
    bend = smooth(rng, t, 0.25, 0.6, fastest=0.8)
    angles: Angles = {
        f"{fore}_hip": _column(0.35 + 0.5 * bend, 0.12),
        f"{aft}_hip": _column(-0.3 + 0.5 * bend, 0.15),
        f"{fore}_knee": _column(bend),
        f"{aft}_knee": _column(0.8 * bend),
    }
    twist = np.zeros_like(t)
    for side in _SIDES:
        punch = _punches(rng, t)
        twist += punch if side == "right" else -punch
        reach = smooth(rng, t, 1.3, 1.7, fastest=0.2)
        guard = smooth(rng, t, 0.5, 0.9)
        angles[f"{side}_shoulder"] = _column(guard + (reach - guard) * punch, 0.15, 0.35)
        angles[f"{side}_elbow"] = _column(2.2 - 2.1 * punch)
    angles["pelvis"] = _column(0.1, 0.0, 0.25 * twist)
    angles["spine"] = _column(0.15, 0.0, 0.3 * twist) + _sway(rng, t, 6)
    angles["thorax"] = _column(0.1, 0.0, 0.3 * twist)
    angles["neck"] = _column(-0.1, 0.0, -0.7 * twist) + _sway(rng, t, 6)
    heading = rng.uniform(0, 2 * np.pi) + smooth(rng, t, -0.8, 0.8, fastest=0.15)
    return _place(body, angles, _stay(rng, t, 0.2), heading)


def _punches(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """0 in guard, 1 at full reach; about one punch in 1.3 seconds."""
    times = t[0] + np.cumsum(rng.uniform(0.7, 1.9, size=int(t[-1] - t[0]) + 3)) - 1.0
    return np.exp(-(((t[:, None] - times) / 0.13) ** 2)).max(axis=1)


def free(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Every joint wanders through its range, or a part of it, over the feet, slowly turning."""
    share = {"pelvis": 0.4, "shoulder": 0.9, "elbow": 0.9}
    angles: Angles = {}
    for part in ("pelvis", "spine", "thorax", "neck", "shoulder", "elbow"):
        ranges = np.radians(LIMITS[part]) * share.get(part, 0.7)
        sides = [f"{side}_{part}" for side in _SIDES] if part in ("shoulder", "elbow") else [part]
        for joint in sides:
            angles[joint] = np.stack([smooth(rng, t, *pair) for pair in ranges], axis=-1)
    for side in _SIDES:
        bend = smooth(rng, t, 0.0, 1.4)
        angles[f"{side}_knee"] = _column(bend)
        # Half the knee's angle, and the pelvis's own, keep the foot under the hip.
        forward = 0.5 * bend + angles["pelvis"][:, 0] + smooth(rng, t, -0.2, 0.3)
        angles[f"{side}_hip"] = _column(
            forward, smooth(rng, t, 0.0, 0.4), smooth(rng, t, -0.3, 0.3)
        )
    heading = rng.uniform(0, 2 * np.pi) + smooth(rng, t, -np.pi, np.pi, fastest=0.12)
    return _place(body, angles, _stay(rng, t, 0.3), heading)


def _stay(rng: np.random.Generator, t: np.ndarray, radius: float) -> np.ndarray:
    """Points `[T, 2]` that wander within `radius` of a random spot."""
    spot = rng.uniform(-0.7, 0.7, 2)
    wander = [smooth(rng, t, -radius, radius, fastest=0.15) for _ in range(2)]
    return spot + np.stack(wander, axis=-1)


def _place(
    body: Body,
    angles: Angles,
    point: np.ndarray,
    heading: np.ndarray,
    lift: np.ndarray | float = 0.0,
) -> np.ndarray:
    """The body in these angles on the floor, its pelvis over `point [T, 2]`."""
    frames = len(point)
    whole = {joint: np.broadcast_to(a, (frames, 3)) for joint, a in angles.items()}
    joints = stand(body, forward_kinematics(body, clip_angles(whole), heading), lift)
    return joints + np.pad(point, [(0, 0), (0, 1)])[:, None]


MOTIONS: dict[str, Motion] = {"walk": walk, "jog": jog, "box": box, "free": free}
