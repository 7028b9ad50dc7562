"""Squares cut from users' images of any kind, and what is wrong with the others."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from pose3d_jax.data.images import DAMAGED
from pose3d_jax.sources import SourceError

CELLS = 256  # pixels of a picture, to a side
MARGIN = 1.25  # of a box' longer side
_QUALITY = 90  # of JPEG
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow's modes of 16 bits
_LEAST = 4.0  # pixels of an image that a square must show, along each side


def open_rgb(path: Path) -> Image.Image:
    """An image in RGB of 8 bits: grey ones three times, 16 bits by their upper half, no alpha.

    Raises `SourceError` for one that is missing or damaged, or of a kind that is no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in _WIDE:
                upper = np.asarray(image).astype(np.int64) >> 8
                return Image.fromarray(np.clip(upper, 0, 255).astype(np.uint8)).convert("RGB")
            if image.mode == "F":
                raise SourceError(f"{path}: has floating-point colours; save it with 8 bits")
            return image.convert("RGB")
    except DAMAGED as error:
        raise SourceError(f"{path}: cannot be read as an image ({error})") from error


def around(
    points: Float[np.ndarray, "points 2"], confidence: Float[np.ndarray, "points"]
) -> Float[np.ndarray, "3"]:
    """Middle and side, pixels, of the square around the points that are seen; 0 without two."""
    seen = points[confidence > 0]
    if len(seen) < 2:
        return np.zeros(3)
    low, high = seen.min(axis=0), seen.max(axis=0)
    return np.array([*(low + high) / 2, MARGIN * max((high - low).max(), 1.0)])


def of_box(left: float, top: float, width: float, height: float) -> Float[np.ndarray, "3"]:
    """Middle and side, pixels, of the square around a box from the corner of its first pixel."""
    # Pixels are counted from their middles.
    middle = np.array([left + width / 2, top + height / 2]) - 0.5
    return np.array([*middle, MARGIN * max(width, height)])


def cut(image: Image.Image, square: Float[np.ndarray, "3"], cells: int = CELLS) -> bytes:
    """A square of an image as a JPEG; black where it leaves the image.

    Raises `SourceError` for one that shows nothing of the image.
    """
    x, y, side = square.astype(float)
    # Pillow counts from the corner of the first pixel, whose middle is our origin.
    left, top = x - side / 2 + 0.5, y - side / 2 + 0.5
    width = min(left + side, image.width) - max(left, 0)
    height = min(top + side, image.height) - max(top, 0)
    if min(width, height) < min(_LEAST, side / 2):
        raise SourceError("its box is outside of the image")
    first = np.floor([left, top]).astype(int)
    last = np.ceil([left + side, top + side]).astype(int)
    try:
        part = image.crop((*first.tolist(), *last.tolist()))
    except DAMAGED as error:  # of squares that are far too large
        raise SourceError(f"its box cannot be cut ({error})") from error
    box = (left - first[0], top - first[1], left - first[0] + side, top - first[1] + side)
    found = part.resize((cells, cells), Image.Resampling.BILINEAR, box=box)
    stream = io.BytesIO()
    found.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
