"""People over time: detections of single frames joined to tracks, and the boxes that follow them.

NumPy and SciPy, on the host: it is done once, before anything is trained.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment

Array = np.ndarray
_FAR = 1e6  # cost of a pair that may not be


@dataclasses.dataclass(frozen=True)
class Track:
    """One person's keypoints from frame `start` on; confidence 0 where the person was lost."""

    start: int
    keypoints: Float[Array, "frames joints 3"]  # x, y, confidence

    @property
    def frames(self) -> int:
        """How long it is, gaps among them."""
        return len(self.keypoints)


def tracks(
    frames: Sequence[Float[Array, "_ joints 3"]],
    *,
    reach: float = 0.3,
    gap: int = 10,
    least: int = 13,
) -> list[Track]:
    """Who is who from frame to frame: the assignment of least total distance (Kuhn, 1955).

    The distance of a detection from a track is the mean over the joints that both have, in heights
    of the person, from where the joints were last, carried on by the track's last velocity.

    Args:
      frames: the people of each frame: x, y, confidence; 0 where a joint was not found.
      reach: at most so far, in heights, for each frame that has passed.
      gap: frames that a person may be lost for.
      least: tracks of fewer frames with the person in them are left out.
    """
    done: list[_Growing] = []
    growing: list[_Growing] = []
    for number, people in enumerate(frames):
        growing, over = (
            [t for t in growing if number - t.last <= gap + 1],
            [t for t in growing if number - t.last > gap + 1],
        )
        done += over
        free = set(range(len(people)))
        if growing and len(people):
            cost = np.array([[t.distance(p, number, reach) for p in people] for t in growing])
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if cost[row, column] < _FAR:
                    growing[row].add(number, people[column])
                    free.discard(int(column))
        growing += [_Growing(number, people[i]) for i in sorted(free) if _height(people[i]) > 0]
    found = [t.track() for t in (*done, *growing) if len(t.seen) >= least]
    return sorted(found, key=lambda track: track.start)


class _Growing:
    """A track as it grows."""

    def __init__(self, number: int, person: Array) -> None:
        self.seen = {number: person}
        self.last, self.now = number, person
        self.velocity = np.zeros(2)  # of the middle, pixels a frame

    def distance(self, person: Array, number: int, reach: float) -> float:
        """To a detection, in heights; `_FAR` beyond reach."""
        both = (self.now[:, 2] > 0) & (person[:, 2] > 0)
        height = max(_height(self.now), _height(person))
        if not both.any() or height <= 0:
            return _FAR
        passed = number - self.last
        expected = self.now[both, :2] + passed * self.velocity
        away = np.linalg.norm(person[both, :2] - expected, axis=1).mean() / height
        return float(away) if away <= reach * passed else _FAR

    def add(self, number: int, person: Array) -> None:
        both = (self.now[:, 2] > 0) & (person[:, 2] > 0)
        moved = (person[both, :2] - self.now[both, :2]).mean(axis=0) / (number - self.last)
        self.velocity = 0.5 * self.velocity + 0.5 * moved
        self.seen[number], self.last, self.now = person, number, person

    def track(self) -> Track:
        start = min(self.seen)
        keypoints = np.zeros((self.last - start + 1, *self.now.shape))
        for number, person in self.seen.items():
            keypoints[number - start] = person
        return Track(start, keypoints)


def _height(person: Float[Array, "joints 3"]) -> float:
    """The diagonal of the box around what was found: lying people are as tall."""
    there = person[person[:, 2] > 0, :2]
    return float(np.linalg.norm(np.ptp(there, axis=0))) if len(there) > 1 else 0.0


def boxes(
    track: Track, *, smooth: float = 3.0
) -> tuple[Float[Array, "frames 2"], Float[Array, "frames"]]:
    """Middle (x, y) and height of the person in each frame, pixels, smoothed over time.

    Frames without the person are between their neighbours. Heights are diagonals of the box around
    what was found. `smooth` is the standard deviation of a Gaussian, frames.
    """
    there = track.keypoints[..., 2] > 0
    enough = there.sum(axis=1) > 1
    times = np.arange(track.frames)
    middles, heights = [], []
    for frame in times[enough]:
        points = track.keypoints[frame, there[frame], :2]
        middles.append((points.min(axis=0) + points.max(axis=0)) / 2)
        heights.append(np.linalg.norm(np.ptp(points, axis=0)))
    known = np.concatenate([np.array(middles), np.array(heights)[:, None]], axis=1)
    filled = np.stack([np.interp(times, times[enough], x) for x in known.T], axis=1)
    filled = gaussian_filter1d(filled, smooth, axis=0, mode="nearest")
    return filled[:, :2], filled[:, 2]


def crop(
    keypoints: Float[Array, "frames joints 3"],
    middle: Float[Array, "frames 2"],
    height: Float[Array, "frames"],
    *,
    size: int = 224,
    person: float = 150.0,
) -> tuple[Float[Array, "frames joints 3"], Float[Array, "frames"]]:
    """Keypoints in crops of `size` pixels in which people are `person` pixels tall, and the scale.

    Pixel (0, 0) has its middle at the origin, in the image and in the crop.
    """
    scale = person / np.maximum(height, 1.0)
    centre = (size - 1) / 2
    points = (keypoints[..., :2] - middle[:, None]) * scale[:, None, None] + centre
    there = keypoints[..., 2:] > 0
    return np.concatenate([np.where(there, points, 0.0), keypoints[..., 2:]], axis=-1), scale
