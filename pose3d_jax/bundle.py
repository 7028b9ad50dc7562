"""A recording's cameras and joints at once: bundle adjustment with the priors of whole clips.

What `posterior` says of a clip, whose cameras have corrections besides (`rigs`), each normal about
the calibration. Reprojection leaves a similarity of the world open, seven numbers. Where the world
is and how it is turned the calibration says, as far as it is believed. Its size is that of the
calibration, whose cameras stay as far from one another in the mean: bones and motion, constant in
metres, would rather have a smaller one. The clock is that of the first view.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax import bordered, pieces, posterior, references, residuals, rigs, triangulate
from pose3d_jax import trajectory as tj
from pose3d_jax.bordered import Normal
from pose3d_jax.cameras import Leaf
from pose3d_jax.data import joining, windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.geometry import HIGHEST
from pose3d_jax.posterior import Bones, Model, Unknowns
from pose3d_jax.references import RowError
from pose3d_jax.rigs import Doubt
from pose3d_jax.schema import Observations
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.solvers import levenberg_marquardt
from pose3d_jax.triangulate import LEAST_SIGMA

STEPS = 30
FRAMES = 512  # of a recording that are looked at, at most
PART = 160  # of a clip
_STEP = 128  # they are padded to a multiple: few programs
_BLOCK = 128  # frames over which errors are looked at for what stays the same
_GAP = 8  # blank frames between clips at least, more than clocks differ by
_LOOSE = 10.0  # see `solve`; by CMU-MV's validation split, and what focal lengths bear
_FEWEST = 32  # frames of a further clip that are of use


# By recording, of each view: see `rigs`.
Corrections: TypeAlias = dict[str, Float[np.ndarray, "views entries"]]

_applied = jax.jit(rigs.apply)


def _put(into: np.ndarray, where: slice, values: Array) -> None:
    into[where] = values


@struct.dataclass
class Bundle:
    """What is solved for."""

    clip: Leaf  # Unknowns
    corrections: Leaf  # [views, rigs.SIZE] in units of their deviations


def correct_split(data: PoseData, doubt: Doubt) -> tuple[PoseData, Corrections]:
    """A split as its cameras, corrected recording by recording, have seen it; the corrections.

    Raises `RowError` as `corrections_of` does.
    """
    observations = jax.tree.map(np.asarray, data.poses.observations)
    people: dict[str, dict[str, list[Observations]]] = {}
    for clip, identity in zip(windows.clips(data.poses), windows.identities(data), strict=True):
        own = jax.tree.map(lambda x, at=clip: x[at.start : at.stop], observations)
        name = joining.recording_of(identity)
        people.setdefault(name, {}).setdefault(identity.subject, []).append(own)
    found = {}
    for name, by_person in people.items():
        # Their bones are taken to be one person's.
        most = max(by_person.values(), key=lambda own: sum(len(c.confidence) for c in own))
        found[name] = corrections_of(most, data.keypoint_skeleton, doubt)
    return corrected(data, found), found


def corrected(data: PoseData, corrections: Corrections) -> PoseData:
    """A split as its cameras, with the corrections of each recording, have seen it.

    Recordings without corrections stay as they are.
    """
    observations = jax.tree.map(np.asarray, data.poses.observations)
    seen = jax.tree.map(np.array, observations)
    for clip, identity in zip(windows.clips(data.poses), windows.identities(data), strict=True):
        at = slice(clip.start, clip.stop)
        found = corrections.get(joining.recording_of(identity))
        if found is None:
            continue
        applied = _applied(jax.tree.map(lambda x, at=at: x[at], observations), found)
        jax.tree.map(lambda whole, x, at=at: _put(whole, at, x), seen, applied)
    poses = dataclasses.replace(data.poses, observations=jax.device_put(seen))
    return dataclasses.replace(data, poses=poses)


def corrections_of(
    clips: Sequence[Observations], skeleton: Skeleton, doubt: Doubt, steps: int = STEPS
) -> Float[np.ndarray, "views entries"]:
    """Of the cameras that have filmed all of these clips, of one person; see `rigs`.

    Of long recordings the middles of the longest clips are looked at, `FRAMES` in all. Raises
    `RowError` for fewer than two views, numbers that are not finite, and cameras that move where
    clocks are in doubt.
    """
    references.check(clips, skeleton, ())
    if doubt.frames and any(rigs.moves(clip.cameras) for clip in clips):
        raise RowError(
            "cameras that move are not given other clocks, and cannot be solved for with them; let "
            "a stream's cameras be as given, or set config.adaptation.cameras.frames to 0"
        )
    gap = max(_GAP, math.ceil(4 * doubt.frames))
    parts: list[Any] = []
    room = FRAMES
    # Those with the most frames first: motion tells clocks, and of a glimpse nothing tells.
    for clip in sorted(clips, key=lambda clip: -len(clip.confidence)):
        kept = min(len(clip.confidence), PART, room)
        if parts and kept < _FEWEST:
            break
        first = (len(clip.confidence) - kept) // 2
        middle = jax.tree.map(lambda x, a=first, n=kept: np.asarray(x)[a : a + n], clip)
        parts.append(pieces.cut(middle, 0, kept + gap))
        room -= kept + gap
    seen, inside = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    length = -(-len(inside) // _STEP) * _STEP
    inside = np.pad(inside, (0, length - len(inside)))
    seen, _ = pieces.cut(seen, 0, length)
    deviations = rigs.deviations(doubt, (seen.confidence > 0).any(axis=(0, 2)))
    solved, _ = _solve(
        seen,
        inside,
        skeleton.bones,
        skeleton.root,
        deviations,
        clocks=doubt.frames > 0,
        steps=steps,
    )
    return np.asarray(solved)


def solve(
    observations: Observations,
    inside: Float[Array, "time"],
    bones: Bones,
    root: int,
    deviations: Float[Array, "views entries"],
    *,
    clocks: bool,
    steps: int = STEPS,
) -> tuple[Float[Array, "views entries"], Float[Array, "time joints 3"]]:
    """Each view's correction (see `rigs`), and the joints, metres, of a clip of a recording.

    The number of frames must be even; those where `inside` is 0 pad the clip. How much the
    keypoints err is told by the median residual of each step, so that cameras that are far off are
    brought near before any keypoint counts as an outlier. `clocks`: whether these are solved for,
    too, by smoothed keypoints (`rigs.quiet_at_time`), and held from then on.

    More than once: bones and motion bring cameras near that are far off, but pull, being constant
    in metres: where keypoints are noisy they would rather have other focal lengths and clocks. So
    from there on the keypoints are left to themselves.
    """
    points, valid = triangulate.triangulate(observations)
    start = triangulate.infill(points, valid, root)
    none = jnp.zeros_like(deviations)
    near, joints = _settled(
        observations, inside, bones, deviations, none, start, steps, clocks=clocks, loose=1.0
    )
    if clocks:
        near, joints = _settled(
            observations, inside, bones, deviations, near, joints, steps, clocks=True, loose=_LOOSE
        )
    own = jnp.zeros_like(near).at[:, rigs.TIME].set(near[:, rigs.TIME])
    held = jnp.asarray(deviations).at[:, rigs.TIME].set(0.0)
    seen = rigs.apply(observations, own)
    found, joints = _settled(
        seen, inside, bones, held, near - own, joints, steps, clocks=False, loose=_LOOSE
    )
    return found + own, joints


def _settled(
    observations: Observations,
    inside: Float[Array, "time"],
    bones: Bones,
    deviations: Float[Array, "views entries"],
    corrections: Float[Array, "views entries"],
    start: Float[Array, "time joints 3"],
    steps: int,
    *,
    clocks: bool,
    loose: float,
) -> tuple[Float[Array, "views entries"], Float[Array, "time joints 3"]]:
    """What is most probable, from these corrections and joints on; priors are so much looser."""
    model = Model(
        observations=observations,
        inside=inside,
        start=start,
        sigma=jnp.ones(()),
        correlation=jnp.zeros(()),
        step=tj.motion_scale(start, inside),
        bones=bones,
    )
    seen_by = functools.partial(at, clocks=clocks)
    # Neighbours err alike once they are smoothed; what is slow has the errors that it had.
    quiet = math.sqrt(rigs.QUIET) if clocks else 1.0
    units = jnp.where(deviations > 0, corrections / jnp.maximum(deviations, 1e-12), 0.0)
    first = Bundle(Unknowns(start, posterior.median_lengths(model)), units)

    def local(unknowns: Bundle, _: Array) -> tuple[Any, Any]:
        now = seen_by(model, unknowns.corrections, deviations)
        sigma = scale(now.observations, unknowns.clip.joints) / quiet
        now = dataclasses.replace(now, sigma=sigma)
        motion = loose * tj.motion_scale(unknowns.clip.joints, inside)
        # Where cameras are far off so are lengths: held to millimetres nothing could move.
        bone = loose * posterior.BONE * jnp.maximum(sigma, 1.0)
        weight = posterior.inliers(now, unknowns.clip.joints)
        # Quick motion tells clocks, in which errors that stay have no part.
        same = 1.0 if clocks else alike(now.observations, unknowns.clip.joints, weight)
        fixed = dataclasses.replace(model, sigma=jnp.sqrt(same) * sigma, step=motion, bone=bone)
        normal = normal_equations(fixed, unknowns, weight, deviations, clocks=clocks)

        def propose(damping: Array) -> Bundle:
            joints, shared = bordered.step(normal, damping)
            lengths, corrections = jnp.split(shared, [len(bones)])
            return Bundle(
                Unknowns(unknowns.clip.joints + joints, unknowns.clip.lengths + lengths),
                unknowns.corrections + corrections.reshape(deviations.shape),
            )

        return lambda candidate: cost(fixed, candidate, weight, deviations, clocks=clocks), propose

    found = levenberg_marquardt(local, first, steps)
    return found.corrections * deviations, found.clip.joints


_solve = jax.jit(solve, static_argnums=(2, 3), static_argnames=("clocks", "steps"))


def at(
    model: Model,
    corrections: Float[Array, "views entries"],
    deviations: Float[Array, "views entries"],
    *,
    clocks: bool,
) -> Model:
    """The model with the cameras' corrections, in units of their deviations; see `solve`."""
    seen = rigs.apply(model.observations, corrections * deviations, quiet=clocks)
    return dataclasses.replace(model, observations=seen)


def cost(
    model: Model,
    unknowns: Bundle,
    weight: Float[Array, "time views joints"],
    deviations: Float[Array, "views entries"],
    *,
    clocks: bool,
) -> Float[Array, ""]:
    """-2 log of the density, but for a constant, with the keypoints' weights as they are."""
    now = at(model, unknowns.corrections, deviations, clocks=clocks)
    size = _grown(model, unknowns.corrections, deviations)
    clip = posterior.cost(now, unknowns.clip, weight)
    # What another clock no longer sees costs what it would: else losing points would pay.
    clip += 2 * jnp.sum(jnp.where(now.observations.confidence > 0, 0.0, weight))
    return clip + jnp.sum(unknowns.corrections**2) + (size / rigs.GROWTH) ** 2


def normal_equations(
    model: Model,
    unknowns: Bundle,
    weight: Float[Array, "time views joints"],
    deviations: Float[Array, "views entries"],
    *,
    clocks: bool,
) -> Normal:
    """Gauss-Newton's approximation of half the `cost`: the corrections follow the bones' lengths.

    The keypoints' errors must not be correlated in time.
    """
    now = at(model, unknowns.corrections, deviations, clocks=clocks)
    normal = posterior.normal_equations(now, unknowns.clip, weight)
    joints = unknowns.clip.joints
    residual, jacobian = residuals.reprojections(now.observations, joints)
    precision = weight * now.observations.confidence / model.sigma**2

    def errors(view: Observations, own: Array, deviation: Array) -> Array:
        one = jax.tree.map(lambda x: x[:, None], view)
        seen = rigs.apply(one, (own * deviation)[None], quiet=clocks)
        return residuals.reprojections(seen, joints)[0][:, 0]

    over = jax.vmap(jax.jacfwd(errors, argnums=1), in_axes=(1, 0, 0), out_axes=1)
    moved = over(model.observations, unknowns.corrections, deviations)  # [T, V, J, 2, entries]
    weighted = precision[..., None, None] * moved
    border = jnp.einsum("tvjxa,tvjxs->tjavs", jacobian, weighted, precision=HIGHEST)
    corner = jnp.einsum("tvjxs,tvjxr->vsr", moved, weighted, precision=HIGHEST)
    pull = jnp.einsum("tvjxs,tvjx->vs", weighted, residual, precision=HIGHEST)
    pull = pull + unknowns.corrections
    size, slope = jax.value_and_grad(_grown, argnums=1)(model, unknowns.corrections, deviations)
    pull = (pull + size * slope / rigs.GROWTH**2).ravel()
    views, entries = deviations.shape
    lengths = len(model.bones)
    own = views * entries
    whole = jnp.zeros((lengths + own,) * 2).at[:lengths, :lengths].set(normal.corner)
    blocks = jnp.einsum("vsr,vw->vswr", corner, jnp.eye(views)).reshape(own, own) + jnp.eye(own)
    blocks = blocks + jnp.outer(slope, slope) / rigs.GROWTH**2
    whole = whole.at[lengths:, lengths:].set(blocks)
    border = border.reshape(*normal.gradient.shape, own)
    return dataclasses.replace(
        normal,
        border=jnp.concatenate([normal.border, border], axis=-1),
        corner=whole,
        corner_gradient=jnp.concatenate([normal.corner_gradient, pull]),
    )


def _grown(model: Model, corrections: Array, deviations: Array) -> Array:
    given = model.observations
    moved = rigs.apply(given, corrections * deviations)
    sees = jnp.any(deviations > 0, axis=1).astype(jnp.float32)
    return rigs.grown(moved.cameras, given.cameras, sees)


def alike(
    observations: Observations,
    joints: Float[Array, "time joints 3"],
    weight: Float[Array, "time views joints"],
) -> Float[Array, ""]:
    """For how many frames errors tell the same: 1 where each frame's are its own.

    The variance of means over `_BLOCK` frames, over what it would be then (batch means; Geyer,
    1992). A detector is wrong about a joint in much the same way for as long as the view does not
    change: all of these frames tell of the cameras once.
    """
    residual = weight[..., None] * residuals.reprojections(observations, joints)[0]
    frames = len(residual)
    block = min(_BLOCK, frames)

    def blocks(x: Array) -> Array:
        return jnp.sum(x[: frames // block * block].reshape(-1, block, *x.shape[1:]), axis=1)

    # Sums of squares: of the sums, and of the frames' own.
    together = jnp.sum(blocks(residual) ** 2)
    apart = jnp.sum(blocks(residual**2))
    return jnp.clip(together / jnp.maximum(apart, 1e-12), 1.0, block)


def scale(observations: Observations, joints: Float[Array, "time joints 3"]) -> Float[Array, ""]:
    """The keypoints' standard deviation, pixels, from the median length of their residuals."""
    squared = jnp.sum(residuals.reprojections(observations, joints)[0] ** 2, axis=-1)
    median = jnp.nanmedian(jnp.where(observations.confidence > 0, squared, jnp.nan))
    # The median of a chi-square distribution with 2 degrees of freedom is 2 log 2.
    variance = jnp.nan_to_num(median) / (2 * jnp.log(2.0))
    return jnp.sqrt(jnp.maximum(variance, LEAST_SIGMA**2))
