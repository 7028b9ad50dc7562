"""Networks shown worse observations than they answer for: noise and gaps, drawn in every step.

What is disturbed is what a network is shown in training; what its output is compared with stays as
it was. A twin of `noise.py`, which is the benchmark's definition, runs on the host and has fixed
dice; this one runs on the device, and every clip draws how much of it it suffers.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from pose3d_jax import cameras as cam
from pose3d_jax import noise
from pose3d_jax.geometry import safe_norm
from pose3d_jax.occlusion import radii, self_occluded
from pose3d_jax.schema import Clip, Labels, Observations
from pose3d_jax.skeleton import Skeleton


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """How much of what, at most: every clip draws its share of it all, uniform in [0, 1].

    `sigma_px`, `outliers`, `missing` and `swaps` are those of `noise.Noise`; `joints` and `frames`
    are the shares of keypoints (in each frame by itself) and of whole frames of a view that are
    hidden: masked pre-training, as in Zhu et al., "MotionBERT: A Unified Perspective on Learning
    Human Motion Representations" (ICCV 2023). `occluded` is the share of the joints hidden from a
    view by the person's own body that is hidden from the network, too, as in Cheng et al.,
    "Occlusion-Aware Networks for 3D Human Pose Estimation in Video" (ICCV 2019): see `occlusion`.
    It takes the stream's 3D joints, which are the keypoints.
    """

    sigma_px: float = 0.0
    outliers: float = 0.0
    missing: float = 0.0
    swaps: float = 0.0
    joints: float = 0.0
    frames: float = 0.0
    occluded: float = 0.0

    @property
    def errs(self) -> bool:
        """Whether anything stands in a wrong place."""
        return bool(self.sigma_px or self.outliers or self.swaps)


def disturb(
    settings: Disturbance, skeleton: Skeleton, fps: float, clip: Clip, key: Key[Array, ""]
) -> Clip:
    """The clips `[B, T, ...]` with observations as they might have been detected.

    `skeleton` is the keypoints', `fps` the clips' frame rate. Confidences fall where something
    errs, as in `noise.corrupt`; without `sigma_px`, `outliers` and `swaps` those of what is left
    stay as they are.
    """
    keys = jax.random.split(key, len(clip.recording))
    observations = clip.observations
    if settings.occluded:
        observations = jax.vmap(functools.partial(_hide_occluded, settings.occluded, skeleton))(
            observations, clip.labels, jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1)
        )
    one = lambda observations, key: _one(settings, skeleton, fps, observations, key)  # noqa: E731
    return dataclasses.replace(clip, observations=jax.vmap(one)(observations, keys))


def _hide_occluded(
    share: float,
    skeleton: Skeleton,
    observations: Observations,
    labels: Labels,
    key: Key[Array, ""],
) -> Observations:
    """A share of what each view does not see for the person's own body, drawn from 0 on."""
    views = observations.confidence.shape[1]
    world = jnp.repeat(labels.joints[:, None], views, axis=1)
    joints = cam.batched(cam.to_camera)(observations.cameras, world)
    thick = jnp.asarray(radii(skeleton))
    behind = jax.vmap(jax.vmap(lambda pose: self_occluded(pose, skeleton, thick)))(joints)
    known = (labels.joints_valid.min(axis=-1) > 0)[:, None, None]  # bones need both their ends
    amount_key, joints_key = jax.random.split(key)
    drawn = share * jax.random.uniform(amount_key)
    there = ~(jax.random.bernoulli(joints_key, drawn, behind.shape) & behind & known)
    return dataclasses.replace(
        observations,
        keypoints=jnp.where(there[..., None], observations.keypoints, 0.0),
        confidence=jnp.where(there, observations.confidence, 0.0),
    )


def _one(
    settings: Disturbance,
    skeleton: Skeleton,
    fps: float,
    observations: Observations,
    key: Key[Array, ""],
) -> Observations:
    amount_key, error_key, outlier_key, swap_key, gap_key, doubt_key, hide_key = jax.random.split(
        key, 7
    )
    amount = jax.random.uniform(amount_key)
    confidence, keypoints = observations.confidence, observations.keypoints
    frames, views, _ = confidence.shape
    there = confidence > 0

    if settings.errs:
        rho = noise.CORRELATION ** (30.0 / fps)
        error = amount * settings.sigma_px * _correlated(error_key, keypoints.shape, rho)
        offset, sure, hit = _outliers(outlier_key, there.shape, amount * settings.outliers)
        moved = keypoints + error + jnp.where(hit[..., None], offset, 0.0)
        exchanged = _bursts(swap_key, (frames, views), amount * settings.swaps, noise.BURST_FRAMES)[
            0
        ][..., None]
        known = error + jnp.where((hit & ~sure)[..., None], offset, 0.0)
        other = np.array(skeleton.mirrored)
        keypoints = jnp.where(exchanged[..., None], moved[:, :, other], moved)
        known = jnp.where(exchanged[..., None], known[:, :, other], known)
        there = jnp.where(exchanged, there[:, :, other], there)
        confidence = jnp.where(exchanged, confidence[:, :, other], confidence)
        error_px = safe_norm(known)
        spread = jax.random.normal(doubt_key, error_px.shape)
        doubt = jax.random.uniform(jax.random.fold_in(doubt_key, 1), error_px.shape)
        confidence = confidence * noise.confidence(error_px, spread, doubt, jnp)

    there &= ~_bursts(gap_key, there.shape, amount * settings.missing, noise.GAP_FRAMES)[0]
    joints_key, frames_key = jax.random.split(hide_key)
    there &= ~jax.random.bernoulli(joints_key, amount * settings.joints, there.shape)
    hidden = jax.random.bernoulli(frames_key, amount * settings.frames, (frames, views, 1))
    there &= ~hidden
    return dataclasses.replace(
        observations,
        keypoints=jnp.where(there[..., None], keypoints, 0.0),
        confidence=jnp.where(there, confidence, 0.0),
    )


def _correlated(
    key: Key[Array, ""], shape: tuple[int, ...], rho: float
) -> Float[Array, "frames *rest"]:
    """An autoregression of order 1 of unit variance, in equilibrium from its first frame on."""
    white = jax.random.normal(key, shape)

    def step(last: Array, white: Array) -> tuple[Array, Array]:
        now = rho * last + jnp.sqrt(1 - rho**2) * white
        return now, now

    _, rest = jax.lax.scan(step, white[0], white[1:])
    return jnp.concatenate([white[:1], rest])


def _outliers(
    key: Key[Array, ""], shape: tuple[int, ...], share: Float[Array, ""]
) -> tuple[Float[Array, "*shape 2"], Bool[Array, "*shape"], Bool[Array, "*shape"]]:
    """Offsets in pixels, constant in a burst; which are not noticed; and which are outliers."""
    burst_key, draw_key = jax.random.split(key)
    hit, start = _bursts(burst_key, shape, share, noise.BURST_FRAMES)
    drawn = jax.random.uniform(draw_key, (3, shape[0] + noise.BURST_FRAMES - 1, *shape[1:]))
    length, angle, sure = (jnp.take_along_axis(x, start, axis=0) for x in drawn)
    angle = 2 * jnp.pi * angle
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return noise.OUTLIER_PX * length[..., None] * direction, sure < noise.SURE, hit


def _bursts(
    key: Key[Array, ""], shape: tuple[int, ...], share: Float[Array, ""], length: int
) -> tuple[Bool[Array, "*shape"], Array]:
    """Which frames lie in a burst of `length`, and in which one: see `noise._bursts`."""
    starts = jax.random.bernoulli(
        key, 1 - (1 - share) ** (1 / length), (shape[0] + length - 1, *shape[1:])
    )
    frame = jnp.arange(len(starts)).reshape(-1, *[1] * (len(shape) - 1))
    last = jax.lax.cummax(jnp.where(starts, frame, -length), axis=0)
    return (frame - last < length)[length - 1 :], jnp.maximum(last, 0)[length - 1 :]
