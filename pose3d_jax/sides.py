"""Left and right, which detectors take for one another in a view, told by the other views.

A person from behind looks much like one from the front: a detector's left and right may change
places in one view for seconds. Where three views or more see the person, the rays of a joint pass
one another nearest with the sides that most views have.
"""

import itertools

import jax
import numpy as np
from jaxtyping import Bool, Float

from pose3d_jax import tracking
from pose3d_jax.cameras import Camera
from pose3d_jax.skeleton import Skeleton

Array = np.ndarray
_FAR = 0.3  # metres: rays that pass farther apart tell no more
_EXCHANGED = 0.01  # metres that exchanged sides must bring the rays nearer, in the mean
_CHANGE = 0.2  # metres, summed over frames, that a change from one frame to the next must gain
_MOST = 2  # views that are wrong at a time


def exchanged(
    keypoints: Float[Array, "frames views joints 3"], cameras: Camera, known: Skeleton
) -> Bool[Array, "frames views"]:
    """Where a view has left and right exchanged, by what most others say; `cameras` are `[views]`.

    Of all ways to exchange sides in fewer than half of the views, the one of least cost over the
    frames (Viterbi, 1967): how far the rays of joints that have a side pass one another, mean over
    the joints and pairs of views, and what it costs to change. Two views cannot tell whose are
    wrong, and are left as they are.
    """
    frames, views = keypoints.shape[:2]
    sided = np.flatnonzero(np.array(known.mirrored) != np.arange(known.size))
    if views < 3 or not len(sided):
        return np.zeros((frames, views), bool)
    ways = np.array(
        [
            np.isin(np.arange(views), wrong)
            for count in range(min(_MOST, (views - 1) // 2) + 1)
            for wrong in itertools.combinations(range(views), count)
        ]
    )
    cost = _EXCHANGED * ways.sum(axis=1) + _cost(keypoints, cameras, known, sided, ways)
    change = _CHANGE * (ways[:, None] != ways).sum(axis=-1)
    before = np.zeros((frames, len(ways)), int)
    total = cost[0]
    for frame in range(1, frames):
        reached = total[:, None] + change
        before[frame] = reached.argmin(axis=0)
        total = reached.min(axis=0) + cost[frame]
    way = np.empty(frames, int)
    way[-1] = total.argmin()
    for frame in range(frames - 1, 0, -1):
        way[frame - 1] = before[frame, way[frame]]
    return ways[way]


def mended(
    keypoints: Float[Array, "frames views joints 3"],
    wrong: Bool[Array, "frames views"],
    known: Skeleton,
) -> Float[Array, "frames views joints 3"]:
    """Keypoints with the sides of these frames and views exchanged."""
    return np.where(wrong[..., None, None], keypoints[:, :, list(known.mirrored)], keypoints)


def _cost(
    keypoints: Array, cameras: Camera, known: Skeleton, sided: Array, ways: Array
) -> Float[Array, "frames ways"]:
    """The mean over pairs of views of how far rays pass, for each way; metres."""
    views = keypoints.shape[1]
    other = np.array(known.mirrored)[sided]
    seen = [
        (*tracking.rays_of(jax.tree.map(lambda x, v=v: x[v], cameras), keypoints[:, v]), v)
        for v in range(views)
    ]
    total = np.zeros((len(keypoints), len(ways)))
    for (a, d, u), (b, e, v) in itertools.combinations(seen, 2):
        cost, tells = [], np.ones(len(keypoints), bool)
        for joints in (sided, other):
            both = (keypoints[:, u, sided, 2] > 0) & (keypoints[:, v, joints, 2] > 0)
            away = np.minimum(tracking.passing(a, d[:, sided], b, e[:, joints]), _FAR)
            cost.append((away * both).sum(axis=1) / np.maximum(both.sum(axis=1), 1))
            tells &= both.any(axis=1)
        # Where one way has no joint in common, as of a side that is hidden, neither is the better.
        cost = [np.where(tells, way, 0.0) for way in cost]
        differ = ways[:, u] != ways[:, v]
        total += np.where(differ, cost[1][:, None], cost[0][:, None])
    return total / (views * (views - 1) / 2)
