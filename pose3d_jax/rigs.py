"""Cameras that are not quite what a calibration says: what they are off by, and what follows.

A correction of a camera holds for a whole recording, and is the identity at zero.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Bool, Float

from pose3d_jax.cameras import Camera
from pose3d_jax.geometry import HIGHEST, safe_norm
from pose3d_jax.schema import Observations

# A correction's entries: of the pose an element of se(3) in the camera's axes, first metres, then
# radians; of the focal length its logarithm; of the first radial coefficient; of the clock frames.
SIZE = 9
POSITION, ROTATION = slice(0, 3), slice(3, 6)
FOCAL, RADIAL, TIME = 6, 7, 8

EDGE = 0.25  # frames
GROWTH = 1e-3  # share by which the mean distance of cameras may change: see `grown`


class Doubt(NamedTuple):
    """How far cameras may be from their calibration: standard deviations; 0: not at all."""

    degrees: float = 3.0  # about each axis
    metres: float = 0.1  # along each
    focal: float = 0.02  # of its length
    radial: float = 0.0  # of k1
    frames: float = 2.0  # of the clock, beside that of the first view


def deviations(doubt: Doubt, sees: Bool[np.ndarray, "views"]) -> Float[np.ndarray, "views entries"]:
    """Of each entry of each view's correction; 0 of views that see nothing.

    The clock of the first view that sees anything is the recording's.
    """
    found = np.zeros((len(sees), SIZE), np.float32)
    found[:, POSITION], found[:, ROTATION] = doubt.metres, math.radians(doubt.degrees)
    found[:, FOCAL], found[:, RADIAL], found[:, TIME] = doubt.focal, doubt.radial, doubt.frames
    found[~sees] = 0.0
    found[np.argmax(sees), TIME] = 0.0
    return found


def moves(cameras: Camera) -> bool:
    """Whether cameras `[time, views]` are not where they were from frame to frame."""
    return any(bool((x != x[:1]).any()) for x in (cameras.rotation, cameras.translation))


def corrected(camera: Camera, correction: Float[Array, "entries"]) -> Camera:
    """One camera with its correction: what it sees is moved by the element of SE(3)."""
    with jax.default_matmul_precision("highest"):
        moved = jaxlie.SE3.exp(correction[:FOCAL])
    turn = moved.rotation().as_matrix()
    return dataclasses.replace(
        camera,
        rotation=jnp.matmul(turn, camera.rotation, precision=HIGHEST),
        translation=jnp.matmul(turn, camera.translation, precision=HIGHEST) + moved.translation(),
        focal=camera.focal * jnp.exp(correction[FOCAL]),
        distortion=camera.distortion.at[0].add(correction[RADIAL]),
    )


def grown(moved: Camera, given: Camera, sees: Float[Array, "views"]) -> Float[Array, ""]:
    """Logarithm of how much farther from one another cameras `[time, views]` are than as given.

    In the mean of those that see anything (1 or 0).
    """
    pairs = sees[:, None] * sees[None, :]

    def apart(cameras: Camera) -> Array:
        at = jnp.einsum("tvab,tva->tvb", cameras.rotation, cameras.translation, precision=HIGHEST)
        between = safe_norm(at[:, :, None] - at[:, None])
        return jnp.maximum(jnp.sum(jnp.mean(between, axis=0) * pairs), 1e-6)

    return jnp.log(apart(moved) / apart(given))


def at_time(
    keypoints: Float[Array, "time joints 2"],
    confidence: Float[Array, "time joints"],
    frames: Float[Array, ""],
) -> tuple[Float[Array, "time joints 2"], Float[Array, "time joints"]]:
    """One view's points so many frames later: between the two nearest, where both are seen.

    Up to `EDGE` beyond the clip's ends they are on the line of the last two; then there is nothing.
    """
    last = len(keypoints) - 1
    wanted = jnp.arange(len(keypoints)) + frames
    first = jnp.clip(jnp.floor(wanted), 0, max(last - 1, 0))
    share = wanted - jax.lax.stop_gradient(first)
    before = first.astype(jnp.int32)
    after = jnp.minimum(before + 1, last)
    sure = jnp.minimum(
        # On a frame itself the other does not matter.
        jnp.where((share == 1)[:, None], 1.0, confidence[before]),
        jnp.where((share == 0)[:, None], 1.0, confidence[after]),
    )
    there = (wanted >= -EDGE) & (wanted <= last + EDGE)
    # Where one is missing the other stays, whatever the clock.
    here, there_too = (confidence[x][..., None] > 0 for x in (before, after))
    slope = jnp.where(here & there_too, keypoints[after] - keypoints[before], 0.0)
    base = jnp.where(here, keypoints[before], keypoints[after])
    points = base + share[:, None, None] * slope
    return points, jnp.where(there[:, None], sure, 0.0)


# Sum of the squares of the weights below, about the same wherever between two frames.
QUIET = 0.48


def quiet_at_time(
    keypoints: Float[Array, "time joints 2"],
    confidence: Float[Array, "time joints"],
    frames: Float[Array, ""],
) -> tuple[Float[Array, "time joints 2"], Float[Array, "time joints"]]:
    """One view's points so many frames later: the uniform cubic B-spline, where all four are seen.

    Between two frames `at_time` has the mean of two points, which errs less than one, so that a
    clock solved for by it moves to where keypoints are quiet. Here they are as quiet everywhere.
    """
    last = len(keypoints) - 1
    wanted = jnp.arange(len(keypoints)) + frames
    first = jnp.floor(wanted)
    s = (wanted - jax.lax.stop_gradient(first))[:, None]
    parts = (1 - s) ** 3, 3 * s**3 - 6 * s**2 + 4, -3 * s**3 + 3 * s**2 + 3 * s + 1, s**3
    points, sure = jnp.zeros_like(keypoints), jnp.ones_like(confidence)
    for offset, part in zip((-1, 0, 1, 2), parts, strict=True):
        frame = first.astype(jnp.int32) + offset
        at = jnp.clip(frame, 0, last)
        there = jnp.where(((frame >= 0) & (frame <= last))[:, None], confidence[at], 0.0)
        points += (part / 6)[..., None] * keypoints[at]
        sure = jnp.minimum(sure, jnp.where(part == 0, 1.0, there))  # what has no part is not needed
    return points, sure


def apply(
    observations: Observations, corrections: Float[Array, "views entries"], *, quiet: bool = False
) -> Observations:
    """A clip's observations `[T, views, ...]` as its cameras, corrected, have seen them.

    `quiet`: with points by `quiet_at_time`, to solve for clocks.
    """
    own_time = quiet_at_time if quiet else at_time
    over_frames = jax.vmap(jax.vmap(corrected, in_axes=(0, 0)), in_axes=(0, None))
    keypoints, confidence = jax.vmap(own_time, in_axes=(1, 1, 0), out_axes=1)(
        observations.keypoints, observations.confidence, corrections[:, TIME]
    )
    return dataclasses.replace(
        observations,
        cameras=over_frames(observations.cameras, corrections),
        keypoints=jnp.where(confidence[..., None] > 0, keypoints, 0.0),
        confidence=confidence,
    )
