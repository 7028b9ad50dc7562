"""The observation noise of every benchmark here: a definition, fixed and seeded, no augmentation.

What a detector does to the points of a calibrated view, in this order: errors that are correlated
in time, bursts of outliers, bursts in which left and right are exchanged, gaps, views that are lost
for the whole clip; and a confidence that knows a part of it. A change of anything here changes
every published number: `tests/test_noise.py` holds the presets to their recorded digests.
"""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from pose3d_jax import skeleton
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Observations, Pictures, Record

CORRELATION = 0.9  # of an error with that of the same joint and view 1/30 s later
OUTLIER_PX = 100.0  # longest offset of an outlier
BURST_FRAMES = 5  # of outliers and of exchanged sides
GAP_FRAMES = 15
SURE = 0.3  # share of the outlier bursts that the detector does not notice
_CONFIDENCE_PX = 25.0  # the error at which confidence is about a half
_CONFIDENCE_SPREAD = 0.8  # standard deviation of the logarithm of the error that it thinks it made
_LEAST_CONFIDENCE = 0.05  # 0 means missing


@dataclasses.dataclass(frozen=True)
class Noise:
    """How much of what; shares are of (frame, view, joint), those of `swaps` of (frame, view)."""

    sigma_px: float = 0.0  # standard deviation of x and of y, pixels
    outliers: float = 0.0
    missing: float = 0.0
    swaps: float = 0.0
    lost_views: int = 0
    correlation: float = CORRELATION  # 0: every frame's error is independent
    unsure: bool = True  # False: the confidence of everything that is seen stays as it was

    def __post_init__(self) -> None:
        """Raises `UserError` for a share outside [0, 1), a negative amount, a correlation of 1."""
        for name in ("outliers", "missing", "swaps", "correlation"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"noise.{name} is {getattr(self, name)}; give 0 <= {name} < 1")
        if not 0 <= self.sigma_px < np.inf:
            raise UserError(f"noise.sigma_px is {self.sigma_px}; give 0 or more pixels")
        if type(self.lost_views) is not int or self.lost_views < 0:
            raise UserError(f"noise.lost_views is {self.lost_views!r}; give a whole number")


PRESETS = {
    "clean": Noise(unsure=False),
    "mild": Noise(sigma_px=1.0),
    "typical": Noise(sigma_px=2.0, outliers=0.05, missing=0.2, swaps=0.01),
    "hard": Noise(sigma_px=4.5, outliers=0.1, missing=0.3, swaps=0.03),
}


def preset(name: str) -> Noise:
    """The noise of that name. Raises `UserError` for one that is not in `PRESETS`."""
    if name not in PRESETS:
        raise UserError(f"no noise is named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def corrupt_record(record: Record, noise: Noise, seed: int = 0) -> Record:
    """`corrupt` for a record, with what it says of itself."""
    clip, identity = record
    observations = corrupt(
        clip.observations,
        noise,
        clip=identity.clip,
        fps=identity.fps,
        mirrored=skeleton.get(identity.keypoint_skeleton).mirrored,
        seed=seed,
    )
    return Record(dataclasses.replace(clip, observations=observations), identity)


def corrupt(
    observations: Observations,
    noise: Noise,
    *,
    clip: str,
    fps: float,
    mirrored: tuple[int, ...],
    seed: int = 0,
) -> Observations:
    """A clip's observations `[T, views, ...]` (NumPy arrays) as a detector would give them.

    The same `seed` and name of the `clip` give the same draws whatever the `noise`, so that its
    amounts are compared on the same dice, with any number of lost views. `mirrored` is
    `Skeleton.mirrored`. Keypoints that are missing stay so, as zeros (where sides are exchanged, as
    those of the other side). Raises `UserError` where no view would be left.
    """
    clean = np.asarray(observations.keypoints, np.float64)
    there = np.asarray(observations.confidence) > 0
    frames, views, joints = there.shape
    # A set with fewer views than others is padded with blind ones.
    showing = np.flatnonzero(there.any(axis=(0, 2)))
    if noise.lost_views and noise.lost_views >= len(showing):
        raise UserError(
            f"clip {clip}: {noise.lost_views} of {len(showing)} views that show anything cannot be "
            f"lost; at least one must be left"
        )
    digest = hashlib.sha256(f"{seed}/{clip}".encode()).digest()
    # A generator for each kind of draw: one kind's dice do not depend on another's number.
    errors, outliers, swaps, gaps, views_lost, doubts = (
        np.random.Generator(np.random.PCG64(s))
        for s in np.random.SeedSequence(int.from_bytes(digest[:16], "little")).spawn(6)
    )

    rho = noise.correlation ** (30.0 / fps) if noise.correlation else 0.0
    error = noise.sigma_px * _correlated(errors.standard_normal(clean.shape), rho)
    offset, sure, hit = _outliers(outliers, there.shape, noise.outliers)
    keypoints = clean + error + np.where(hit[..., None], offset, 0.0)

    exchanged = _bursts(swaps, (frames, views), noise.swaps, BURST_FRAMES)[0][..., None]
    index = np.where(exchanged, np.asarray(mirrored), np.arange(joints))
    keypoints = np.take_along_axis(keypoints, index[..., None], axis=2)
    # A detector that takes left for right sees each joint as well as ever.
    known = np.take_along_axis(
        error + np.where((hit & ~sure)[..., None], offset, 0.0), index[..., None], axis=2
    )
    seen = np.take_along_axis(there, index, axis=2)
    before = np.take_along_axis(np.asarray(observations.confidence), index, axis=2)

    seen = seen & ~_bursts(gaps, there.shape, noise.missing, GAP_FRAMES)[0]
    lost = views_lost.permutation(showing)[: noise.lost_views]
    seen[:, lost] = False
    given = _confidence(doubts, np.linalg.norm(known, axis=-1)) if noise.unsure else 1.0
    kept = ~np.isin(np.arange(views), lost)[None, :, None]
    return Observations(
        keypoints=np.where(seen[..., None], keypoints, 0.0).astype(np.float32),
        confidence=np.where(seen, before * given, 0.0).astype(np.float32),
        cameras=observations.cameras,
        images=jax.tree.map(lambda x: np.where(kept, x, np.float32(0)), observations.images),
        pictures=_kept(observations.pictures, kept),
    )


def _kept(pictures: Pictures | None, kept: Bool[np.ndarray, "1 views 1"]) -> Pictures | None:
    """The pictures of the views that are not lost."""
    if pictures is None:
        return None
    encoded = np.where(kept[..., 0], pictures.pixels, b"")
    return Pictures(np.where(kept, pictures.square, np.float32(0)), encoded)


def _correlated(
    white: Float[np.ndarray, "frames *rest"], rho: float
) -> Float[np.ndarray, "frames *rest"]:
    """An autoregression of order 1 of unit variance, in equilibrium from its first frame on."""
    found = white.copy()
    for t in range(1, len(white)):
        found[t] = rho * found[t - 1] + np.sqrt(1 - rho**2) * white[t]
    return found


def _outliers(
    rng: np.random.Generator, shape: tuple[int, ...], share: float
) -> tuple[np.ndarray, Bool[np.ndarray, "*shape"], Bool[np.ndarray, "*shape"]]:
    """Offsets in pixels, constant in a burst; which are not noticed; and which are outliers."""
    hit, start = _bursts(rng, shape, share, BURST_FRAMES)
    draws = rng.random((3, shape[0] + BURST_FRAMES - 1, *shape[1:]))
    length, angle, sure = (np.take_along_axis(x, start, axis=0) for x in draws)
    direction = np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=-1)
    return OUTLIER_PX * length[..., None] * direction, sure < SURE, hit


def _bursts(
    rng: np.random.Generator, shape: tuple[int, ...], share: float, length: int
) -> tuple[Bool[np.ndarray, "*shape"], np.ndarray]:
    """Which of the frames `shape[0]` lie in a burst of `length`, and in which one: its start.

    Bursts start as often as puts `share` of the frames into one, and some before the first frame:
    starts are counted from `length - 1` frames before it.
    """
    starts = rng.random((shape[0] + length - 1, *shape[1:])) < 1 - (1 - share) ** (1 / length)
    frame = np.arange(len(starts)).reshape(-1, *[1] * (len(shape) - 1))
    last = np.maximum.accumulate(np.where(starts, frame, -length), axis=0)
    return (frame - last < length)[length - 1 :], np.maximum(last, 0)[length - 1 :]


def _confidence(rng: np.random.Generator, error_px: np.ndarray) -> np.ndarray:
    spread, doubt = rng.standard_normal(error_px.shape), rng.random(error_px.shape)
    return confidence(error_px, spread, doubt, np)


def confidence(error_px: Any, spread: Any, doubt: Any, numpy: Any) -> Any:
    """What a detector that errs by `error_px`, as far as it knows, says of itself.

    `spread` are draws from a standard normal distribution, `doubt` from [0, 1); `numpy` is NumPy or
    `jax.numpy`, whose arrays they are.
    """
    believed = error_px * numpy.exp(_CONFIDENCE_SPREAD * spread)
    return numpy.clip((1 - 0.2 * doubt) / (1 + believed / _CONFIDENCE_PX), _LEAST_CONFIDENCE, 1.0)
