"""BlazePose: where people's 33 landmarks are in pictures, by weights that others trained.

V. Bazarevsky et al., "BlazePose: On-device real-time body pose tracking", 2020. Two networks, as
TensorFlow Lite files: one finds people (the middle of the hips, and a circle around the body), one
finds landmarks in a square that is turned as the person is. Where somebody was, the landmarks of
that frame say where to look in the next.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pose3d_jax import errors
from pose3d_jax.errors import UserError

Array = np.ndarray
Picture = UInt8[np.ndarray, "height width 3"]
FINDER = "pose_detection.tflite"
LANDMARKS = "pose_landmark_full.tflite"
JOINTS = 33

_SIDE = 224  # of the square in which people are looked for, pixels
_GRIDS = ((28, 2), (14, 2), (7, 6))  # cells along a side, and boxes that each of them says
_PERSON = 0.5  # least probability of somebody
_SAME = 0.3  # overlap of two boxes from which on they are one person's
_WIDER = 1.25  # how much wider the square is than the body's circle
_CROP = 256
_HEATMAP = 64
_WINDOW = 3  # cells of a heatmap around a landmark, to each side
_TWICE = 0.2  # two people whose hips are nearer than so much of their square's side are one


class DetectorError(UserError):
    """The networks are not there, are others, or nothing that runs them is installed."""


@dataclasses.dataclass(frozen=True)
class Square:
    """Where a person is looked at: its middle and side in pixels, and its turn, radians."""

    middle: Float[Array, "2"]
    side: float
    turn: float

    @property
    def axes(self) -> Float[Array, "2 2"]:
        """The square's right and down, as columns, of the length of its side."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return self.side * np.array([[c, -s], [s, c]])


@dataclasses.dataclass(frozen=True)
class Found:
    """A person in a picture, and where to look for him in the next."""

    points: Float[Array, "33 3"]  # x, y in pixels, confidence
    square: Square


class BlazePose:
    """Both networks; `folder` holds `FINDER` and `LANDMARKS`. Raises `DetectorError`."""

    def __init__(self, folder: str | Path, *, threads: int = 2, mirrored: bool = True) -> None:
        self._find = _network(Path(folder) / FINDER, threads, (_SIDE, _SIDE))
        self._look = _network(Path(folder) / LANDMARKS, threads, (_CROP, _CROP))
        self._mirrored = mirrored

    def follow(self, frames: Iterable[Picture]) -> Iterator[Float[Array, "people 33 3"]]:
        """The people of each frame of a video, x, y in pixels and confidence."""
        squares: list[Square] = []
        for frame in frames:
            found = self.people(frame, squares)
            squares = [person.square for person in found]
            yield np.array([person.points for person in found]).reshape(-1, JOINTS, 3)

    def people(self, picture: Picture, squares: Sequence[Square] = ()) -> list[Found]:
        """Everybody in a picture, looked for in `squares` and wherever the finder sees somebody."""
        image = Image.fromarray(picture)
        found: list[Found] = []
        for square in (*squares, *self._squares(image)):
            person = self._landmarks(image, square)
            if person is not None and not any(_same(person, other) for other in found):
                found.append(person)
        return found

    def _squares(self, image: Image.Image) -> list[Square]:
        side = max(image.size)
        left, top = (side - image.width) / 2, (side - image.height) / 2
        whole = Square(np.array(image.size) / 2, float(side), 0.0)
        boxes, scores = self._find(cut(image, whole, _SIDE)[None] / 127.5 - 1)
        places = decode(boxes[0], scores[0, :, 0])
        return [
            square_of(hips * side - (left, top), rim * side - (left, top)) for hips, rim in places
        ]

    def _landmarks(self, image: Image.Image, square: Square) -> Found | None:
        crop = cut(image, square, _CROP)[None] / 255
        points, there = self._in_crop(crop)
        if there < _PERSON:
            return None
        if self._mirrored:
            other, _ = self._in_crop(crop[:, :, ::-1])
            other = other[_MIRRORED]
            other[:, 0] = 1 - other[:, 0]
            points = (points + other) / 2
        places = square.middle + (points[:, :2] - 0.5) @ square.axes.T
        # Pixels are counted from the middle of the first.
        known = np.concatenate([places[:JOINTS] - 0.5, points[:JOINTS, 2:]], axis=1)
        return Found(known, square_of(places[JOINTS], places[JOINTS + 1]))

    def _in_crop(self, crop: Array) -> tuple[Float[Array, "39 3"], float]:
        """x and y in sides of the crop, and confidence; and the probability of a person."""
        said, there, _, heatmaps, _ = self._look(crop)
        said = said.reshape(-1, 5)
        points = refined(said[:, :2] / _CROP, _sigmoid(heatmaps[0]))
        sure = _sigmoid(said[:, 3:]).min(axis=1)  # neither hidden nor beyond the crop
        return np.concatenate([points, sure[:, None]], axis=1), float(there[0, 0])


# Landmarks and the two that follow them, of a mirrored person: eyes, ears and mouth, then limbs.
_MIRRORED = np.array(
    [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9]
    + [i + 1 if i % 2 else i - 1 for i in range(11, 33)]
    + [33, 34, 35, 36, 37, 38]
)


def anchors() -> Float[Array, "2254 2"]:
    """The middles of the finder's cells, in sides of its square."""
    parts = []
    for cells, boxes in _GRIDS:
        y, x = np.mgrid[:cells, :cells]
        middles = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        parts.append(np.repeat(middles, boxes, axis=0))
    return np.concatenate(parts)


def decode(
    boxes: Float[Array, "2254 12"], scores: Float[Array, "2254"]
) -> list[Float[Array, "2 2"]]:
    """The finder's people, best first: the middle of their hips and a point on the circle around
    them, in sides of the square.

    Boxes that overlap are one person's, whose place is their mean, weighted by their scores.
    """
    probability = _sigmoid(scores)
    order = np.argsort(-probability)
    order = order[probability[order] > _PERSON]
    values = boxes[order].reshape(-1, 6, 2) / _SIDE
    middles = anchors()[order]
    weights = probability[order]
    places = values[:, 2:4] + middles[:, None]
    low = values[:, 0] + middles - values[:, 1] / 2
    high = low + values[:, 1]
    found = []
    left = np.ones(len(order), bool)
    while left.any():
        best = np.flatnonzero(left)[0]
        shared = np.clip(np.minimum(high, high[best]) - np.maximum(low, low[best]), 0, None)
        common = shared.prod(axis=1)
        both = (high - low).prod(axis=1) + (high[best] - low[best]).prod() - common
        same = left & (common > _SAME * both)
        same[best] = True
        found.append(np.average(places[same], axis=0, weights=weights[same]))
        left &= ~same
    return found


def square_of(hips: Float[Array, "2"], rim: Float[Array, "2"]) -> Square:
    """The square around a body, its up along the line from the hips to the circle's rim."""
    x, y = rim - hips
    return Square(hips, 2 * _WIDER * float(np.hypot(x, y)), float(np.arctan2(x, -y)))


def cut(image: Image.Image, square: Square, pixels: int) -> Float[Array, "pixels pixels 3"]:
    """What is in a square, upright, in [0, 255]; black beyond the picture."""
    axes = square.axes / pixels
    corner = square.middle - axes.sum(axis=1) * pixels / 2
    # Reduced beforehand, or most of its pixels would have no part.
    times = max(1, int(square.side / pixels))
    if times > 1:
        image, axes, corner = image.reduce(times), axes / times, corner / times
    rows = (*axes[0], corner[0], *axes[1], corner[1])
    shown = image.transform(
        (pixels, pixels), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR
    )
    return np.asarray(shown, np.float32)


def refined(
    points: Float[Array, "points 2"], heatmaps: Float[Array, "rows columns points"]
) -> Float[Array, "points 2"]:
    """Points, in sides of the crop, moved to the mean of their heatmap nearby, if that is sure."""
    moved = points.copy()
    for number, (x, y) in enumerate(points * _HEATMAP):
        if not (0 <= x < _HEATMAP and 0 <= y < _HEATMAP):
            continue
        rows = np.arange(max(0, int(y) - _WINDOW), min(_HEATMAP, int(y) + _WINDOW + 1))
        columns = np.arange(max(0, int(x) - _WINDOW), min(_HEATMAP, int(x) + _WINDOW + 1))
        near = heatmaps[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, number]
        if near.max() >= 0.5:
            total = near.sum() * _HEATMAP
            moved[number] = (near.sum(axis=0) @ columns, near.sum(axis=1) @ rows) / total
    return moved


def _same(one: Found, other: Found) -> bool:
    """Whether two are one person, whose left and right may have been taken for one another."""
    apart = np.linalg.norm(one.square.middle - other.square.middle)
    smaller, larger = sorted((one.square.side, other.square.side))
    return bool(apart < _TWICE * smaller and larger < 2 * smaller)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def _network(path: Path, threads: int, size: tuple[int, int]):  # type: ignore[no-untyped-def]
    """A function from a batch of one picture to the file's outputs, in its order."""
    lite = errors.library(
        "ai_edge_litert.interpreter", "video", "the detector", package="ai-edge-litert",
        error=DetectorError,
    )  # fmt: skip
    if not path.is_file():
        raise DetectorError(f"{path}: there is no such network; without --weights it is fetched")
    try:
        network = lite.Interpreter(str(path), num_threads=threads)
        network.allocate_tensors()
        (taken,) = network.get_input_details()
    except (ValueError, RuntimeError) as error:
        raise DetectorError(
            f"{path}: is no network that LiteRT reads ({error}); delete it and fetch it again"
        ) from error
    if tuple(taken["shape"]) != (1, *size, 3):
        raise DetectorError(
            f"{path}: takes pictures of {tuple(taken['shape'])}, not {(1, *size, 3)}; it is "
            f"another network; delete it and fetch it again"
        )
    given = [said["index"] for said in network.get_output_details()]

    def run(picture: Array) -> list[Array]:
        network.set_tensor(taken["index"], np.ascontiguousarray(picture, np.float32))
        network.invoke()
        return [network.get_tensor(index) for index in given]

    return run
