"""People over time and across views: detections of single frames joined to tracks, and tracks of
several views to people; the boxes that follow them.

NumPy and SciPy, on the host: it is done once, before anything is trained or lifted.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera

Array = np.ndarray
_FAR = 1e6  # cost of a pair that may not be
_PART = 4096  # points undistorted at once: one program for clips of all lengths
LOST = 2.0  # seconds, after which who has another number is another person
_SPEED = 6.0  # heights a second that somebody may go: a sprinter's 10 m/s
_JITTER = 0.3  # heights by which a detection may be off beside that


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


@dataclasses.dataclass(frozen=True)
class Person:
    """One person's keypoints in all views from frame `start` on; confidence 0 where not seen."""

    start: int
    keypoints: Float[Array, "frames views joints 3"]  # x, y, confidence


def across(
    views: Sequence[Sequence[Track]], cameras: Camera, *, reach: float = 0.2, least: int = 5
) -> list[Person]:
    """Who is who from view to view: tracks joined in the order of what their triangulation costs.

    The cost of two tracks of different views is the median distance, metres, at which the rays of
    the same joints in the same frames pass one another. Those of one person may be several in a
    view, one after another, where another view shows that they are the same.

    Args:
      views: the tracks of each view, their frames counted alike.
      cameras: `[views]`, which stand still.
      reach: tracks whose rays pass farther from one another are of different people.
      least: frames that two tracks must have in common for one to tell of the other.
    """
    places = [(view, track) for view, own in enumerate(views) for track in own]
    if not places:
        return []
    rays = [
        rays_of(jax.tree.map(lambda x, v=v: x[v], cameras), track.keypoints) for v, track in places
    ]
    cost = np.full((len(places),) * 2, np.nan)
    apart = np.zeros_like(cost, bool)  # two at once in a view are two people
    for i, (view, track) in enumerate(places):
        for j, (other, against) in enumerate(places[:i]):
            if view == other:
                apart[i, j] = apart[j, i] = _at_once(track, against)
            else:
                cost[i, j] = cost[j, i] = _passing(track, against, rays[i], rays[j], least)
    groups = _joined(cost, apart, reach)
    found = [_person([places[i] for i in group], len(views)) for group in groups]
    return sorted(found, key=lambda person: (person.start, -len(person.keypoints)))


def alone(
    views: Sequence[Sequence[Track]], *, numbered: Sequence[bool] = (), fps: float = 30.0
) -> list[Person]:
    """Who is there, one at a time, where no view shows two at once; else nobody.

    That is one person, but for views whose detector has numbered people: detectors give somebody
    they lose another number, and another person has another, too. A track of such a view is of who
    was there last only if that was at most `LOST` seconds ago in any view, and, where no other view
    shows them meanwhile, not farther away than somebody can have gone since.

    Args:
      views: the tracks of each view, their frames counted alike.
      numbered: of each view, whether its tracks are a detector's numbers; none are by default.
      fps: frames a second.
    """
    for own in views:
        for i, track in enumerate(own):
            if any(_at_once(track, other) for other in own[:i]):
                return []
    places = [(view, track) for view, own in enumerate(views) for track in own]
    found: list[list[tuple[int, Track]]] = []
    for view, track in sorted(places, key=lambda place: place[1].start):
        last = max(found, key=lambda own: max(_last(t, track.start) for _, t in own), default=None)
        told = bool(numbered) and numbered[view]
        if last is None or (told and not _goes_on(last, view, track, fps)):
            found.append(last := [])
        last.append((view, track))
    return [_person(own, len(views)) for own in found]


def _goes_on(own: Sequence[tuple[int, Track]], view: int, track: Track, fps: float) -> bool:
    """Whether a track can be of the person of others, all of which began before."""
    seen = [(_last(other, track.start), at, other) for at, other in own]
    since = track.start - max(frame for frame, _, _ in seen)
    before = [(frame, other) for frame, at, other in seen if at == view]
    if since > LOST * fps:
        return False
    if since == 0 or not before:
        return True
    frame, other = max(before, key=lambda each: each[0])
    passed = track.start - frame
    reach = (_JITTER + _SPEED * passed / fps) / passed
    there = _Growing(frame, other.keypoints[frame - other.start])
    return there.distance(track.keypoints[0], track.start, reach) < _FAR


def _last(track: Track, frame: int) -> int:
    """The last frame up to that one in which a track, which begins by then, shows its person."""
    return track.start + int(np.flatnonzero(_there(track)[: frame - track.start + 1])[-1])


def _joined(cost: Array, apart: Array, reach: float) -> list[list[int]]:
    """Groups, the cheapest two of them joined as long as their mean cost is within reach."""
    groups = [[i] for i in range(len(cost))]
    while True:
        best, pair = reach, None
        for i, own in enumerate(groups):
            for j, other in enumerate(groups[:i]):
                between = cost[np.ix_(own, other)]
                known = between[~np.isnan(between)]
                if len(known) and not apart[np.ix_(own, other)].any() and known.mean() < best:
                    best, pair = known.mean(), (j, i)
        if pair is None:
            return groups
        groups[pair[0]] += groups.pop(pair[1])


def _at_once(track: Track, other: Track) -> bool:
    """Whether both are seen in a frame."""
    own, against = _overlap(track, other)
    return bool((_there(track)[own] & _there(other)[against]).any())


def _there(track: Track) -> Array:
    return np.max(track.keypoints[..., 2], axis=1) > 0


def _overlap(track: Track, other: Track) -> tuple[slice, slice]:
    """The frames that both have, in the frames of either."""
    first = max(track.start, other.start)
    last = max(first, min(track.start + track.frames, other.start + other.frames))
    own, against = (slice(first - t.start, last - t.start) for t in (track, other))
    return own, against


def _passing(
    track: Track,
    other: Track,
    rays: tuple[Array, Array],
    others: tuple[Array, Array],
    least: int,
) -> float:
    """The median distance of the rays of two tracks; NaN where too little tells."""
    own, against = _overlap(track, other)
    both = (track.keypoints[own, :, 2] > 0) & (other.keypoints[against, :, 2] > 0)
    if both.any(axis=1).sum() < least:
        return float("nan")
    away = passing(rays[0], rays[1][own][both], others[0], others[1][against][both])
    return float(np.median(away))


def passing(
    a: Float[Array, "3"],
    d: Float[Array, "*batch 3"],
    b: Float[Array, "3"],
    e: Float[Array, "*batch 3"],
) -> Float[Array, "*batch"]:
    """How far rays from `a` along `d`, and from `b` along `e`, both of length 1, pass one another;
    infinite where that is behind either."""
    # The points nearest to one another on the lines a + s d and b + t e.
    along, between = (d * e).sum(axis=-1), a - b
    sideways = np.maximum(1 - along**2, 1e-9)
    s = (along * (e @ between) - d @ between) / sideways
    t = (e @ between - along * (d @ between)) / sideways
    away = np.linalg.norm(between + s[..., None] * d - t[..., None] * e, axis=-1)
    return np.where((s < 0) | (t < 0), np.inf, away)


def rays_of(
    camera: Camera, keypoints: Float[Array, "frames joints 3"]
) -> tuple[Float[Array, "3"], Float[Array, "frames joints 3"]]:
    """A camera's place, and the directions, of length 1, in which it sees the joints; world."""
    points = keypoints[..., :2].reshape(-1, 2).astype(np.float32)
    parts = range(0, len(points), _PART)
    padded = np.pad(points, ((0, -len(points) % _PART), (0, 0)))
    seen = np.concatenate([np.asarray(_normalised(camera, padded[i : i + _PART])) for i in parts])
    rays = np.concatenate([seen[: len(points)], np.ones((len(points), 1))], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    turn = np.asarray(camera.rotation, float)
    shape = (*keypoints.shape[:2], 3)
    return -turn.T @ np.asarray(camera.translation, float), (rays @ turn).reshape(shape)


_normalised = jax.jit(jax.vmap(cam.normalise, in_axes=(None, 0)))


def _person(places: Sequence[tuple[int, Track]], views: int) -> Person:
    first = min(track.start for _, track in places)
    last = max(track.start + track.frames for _, track in places)
    keypoints = np.zeros((last - first, views, *places[0][1].keypoints.shape[1:]))
    for view, track in places:
        there = np.flatnonzero(_there(track))
        keypoints[track.start - first + there, view] = track.keypoints[there]
    return Person(first, keypoints)


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
