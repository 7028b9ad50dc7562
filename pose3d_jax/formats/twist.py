"""How bones turn about themselves, which places of joints do not tell.

A bone whose direction is known in its parent's axes has one angle left. It is chosen for all frames
at once: near the least turn from the parent, where this is well defined; where the bone ends in a
hinge that is bent, so that the next bone turns about the hinge's axis; and changing little from
frame to frame.
"""

import numpy as np
from jaxtyping import Complex, Float
from scipy.linalg import solve_banded
from scipy.spatial.transform import Rotation

# The axis about which a hinge bends, in the rest pose of `kinematics.py`, of the left side. It is
# an axial vector: on the right side its y and z are the other way round.
_HINGES = {"knee": (1.0, 0.0, 0.0), "elbow": (0.0, -1.0, 0.0)}
# Weights, as against one of a change between frames: an angle per frame deviates by 0.05 rad,
# that of a hinge that is bent by 90 degrees by 0.1 rad, that of the least turn by 1 rad.
_HINGE = 0.25
_LEAST = 0.0025
_STRAIGHT = np.sin(np.radians(20.0))  # nearer to straight, or folded, noise may turn the plane over
_BARELY = 1e-9  # a weight where there is none at all
_STEPS = 10


def hinge(name: str) -> Float[np.ndarray, "3"] | None:
    """The axis of a joint that is a hinge, in the rest pose; None where it is none."""
    side, _, part = name.partition("_")
    axis = _HINGES.get(part.partition("_")[0])
    if axis is None or side not in ("left", "right"):
        return None
    return np.array(axis) * (1.0 if side == "left" else [1.0, -1.0, -1.0])


def turned(
    above: Float[np.ndarray, "frames 3 3"],
    rest: Float[np.ndarray, "3"],
    bone: Float[np.ndarray, "frames 3"],
    axis: Float[np.ndarray, "3"] | None = None,
    onwards: Float[np.ndarray, "frames 3"] | None = None,
) -> Float[np.ndarray, "frames 3 3"]:
    """Rotations from the rest pose, in the world, that carry a bone to where it points.

    Args:
      above: the parent's rotations.
      rest: unit vector of the bone in the rest pose.
      bone: unit vectors of it in the world.
      axis: of the hinge at its end, in the rest pose.
      onwards: unit vectors of the bone behind the hinge, in the world.
    """
    back = above.swapaxes(-1, -2)
    local = np.einsum("tij,tj->ti", back, bone)
    least = _least(np.broadcast_to(rest, local.shape), local)
    # The least turn is not defined where the bone points the other way.
    weight = _LEAST * (1 + local @ rest) / 2
    wanted = weight.astype(complex)
    # By how much least turns twist from frame to frame: carried along without twist, the frame
    # before differs by this angle.
    carried = _least(local[:-1], local[1:]) @ least[:-1]
    slips = _angles(carried, least[1:], local[1:])
    drift = np.concatenate([[0.0], np.cumsum(slips)])
    if axis is not None and onwards is not None:
        normal = np.cross(local, np.einsum("tij,tj->ti", back, onwards))
        bent = np.linalg.norm(normal, axis=-1)
        carried_axis = least @ axis
        cosine = np.sum(carried_axis * normal, axis=-1)
        sine = np.sum(np.cross(carried_axis, normal) * local, axis=-1)
        told = _HINGE * np.maximum(bent - _STRAIGHT, 0.0) ** 2
        weight = weight + told
        wanted = wanted + told * np.exp(1j * np.arctan2(sine, cosine))
    twists = _smooth(wanted * np.exp(1j * drift), weight) - drift
    return above @ Rotation.from_rotvec(twists[:, None] * local).as_matrix() @ least


def _least(
    start: Float[np.ndarray, "frames 3"], stop: Float[np.ndarray, "frames 3"]
) -> Float[np.ndarray, "frames 3 3"]:
    """Rotations by the smallest angle from unit vectors to unit vectors."""
    cosine = np.sum(start * stop, axis=-1, keepdims=True)
    turns = np.concatenate([np.cross(start, stop), 1 + cosine], axis=-1)
    # Half a turn has no axis of its own: any that is across will do.
    across = np.cross(start, np.eye(3)[np.argmin(np.abs(start), axis=-1)])
    opposite = np.linalg.norm(turns, axis=-1) < 1e-9
    turns[opposite, :3] = across[opposite]
    return Rotation.from_quat(turns).as_matrix()


def _angles(
    one: Float[np.ndarray, "frames 3 3"],
    other: Float[np.ndarray, "frames 3 3"],
    about: Float[np.ndarray, "frames 3"],
) -> Float[np.ndarray, "frames"]:
    """From rotations to others that differ by a turn about these unit vectors."""
    vectors = Rotation.from_matrix(other @ one.swapaxes(-1, -2)).as_rotvec()
    return np.sum(vectors * about, axis=-1)


def _smooth(
    wanted: Complex[np.ndarray, "frames"], weight: Float[np.ndarray, "frames"]
) -> Float[np.ndarray, "frames"]:
    """Angles a that minimise sum (a[t+1] - a[t])^2 / 2 - sum Re(wanted[t] exp(-i a[t])).

    `weight` is of what was added up to `wanted`: at least its magnitude. The start is the minimum
    over points of the plane in place of the unit circle's, which has a closed form; from there each
    step minimises a quadratic bound (the curvature of a cosine is 1 at most).
    """
    frames = len(weight)
    neighbours = np.zeros(frames)
    neighbours[1:] += 1.0
    neighbours[:-1] += 1.0
    bands = np.zeros((3, frames))
    bands[0, 1:] = bands[2, :-1] = -1.0
    bands[1] = weight + neighbours + _BARELY
    start = solve_banded((1, 1), bands, np.stack([wanted.real, wanted.imag], axis=-1))
    angles = np.unwrap(np.arctan2(start[:, 1], start[:, 0]))
    for _ in range(_STEPS):
        steps = np.diff(angles)
        pull = np.imag(wanted * np.exp(-1j * angles))
        pull[:-1] += steps
        pull[1:] -= steps
        angles = angles + solve_banded((1, 1), bands, pull)
    return angles
