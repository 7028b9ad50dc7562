"""Pictures as networks take them: decoded while the device works, in the order of its draws."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import grain
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from pose3d_jax.data.integrity import DataError

_THREADS = min(16, 2 * (os.cpu_count() or 1))  # Pillow decodes outside of Python's lock
# What damaged files make Pillow raise.
DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def decode(encoded: bytes, cells: int) -> UInt8[np.ndarray, "cells cells 3"]:
    """A square picture, RGB, so many pixels to a side; black for no bytes.

    Raises `DataError` for bytes that are no image.
    """
    if not encoded:
        return np.zeros((cells, cells, 3), np.uint8)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            # A JPEG that is at least twice as large is decoded at a fraction of its size.
            image.draft("RGB", (cells, cells))
            found = image.convert("RGB")
            if found.size != (cells, cells):
                found = found.resize((cells, cells), Image.Resampling.BOX)
            return np.asarray(found)
    except DAMAGED as error:
        raise DataError(
            f"a picture of the data set cannot be decoded ({error}); prepare the data again"
        ) from error


def pixels(
    encoded: np.ndarray, frames: Int[np.ndarray, "*batch"], cells: int
) -> UInt8[np.ndarray, "*batch views cells cells 3"]:
    """The pictures of frames by number; `encoded` as in `PoseData.pictures`."""
    chosen = encoded[frames]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(decode, cells=cells), chosen.reshape(-1)))
    return np.stack(found).reshape(*chosen.shape, cells, cells, 3)


class _Examples:
    """The pictures of an endless series of examples, by their place in it: Grain's source."""

    def __init__(
        self,
        encoded: np.ndarray,
        frame_of: Int[np.ndarray, "examples"],
        order: Callable[[int], Int[np.ndarray, "drawn"]],
        per_pass: int,
        stop: int,
        cells: int,
    ) -> None:
        self._encoded, self._frame_of = encoded, frame_of
        self._order = lru_cache(maxsize=2)(order)
        self._per_pass, self._stop, self._cells = per_pass, stop, cells

    def __len__(self) -> int:
        return self._stop

    def __getitem__(self, place: Any) -> UInt8[np.ndarray, "1 views cells cells 3"]:
        number, rest = divmod(int(place), self._per_pass)
        frame = self._frame_of[self._order(number)[rest]]
        views = [decode(encoded, self._cells) for encoded in self._encoded[frame]]
        return np.stack(views)[None]


class Feed:
    """The pictures of a stream's batches, from one of them on, in turn.

    Threads decode ahead of what is asked for, as much as `ahead` batches.
    """

    def __init__(
        self,
        encoded: np.ndarray,
        frame_of: Int[np.ndarray, "examples"],
        order: Callable[[int], Int[np.ndarray, "drawn"]],
        *,
        batch: int,
        first: int,
        stop: int,
        cells: int,
        ahead: int,
    ) -> None:
        """
        Args:
          encoded: as in `PoseData.pictures`.
          frame_of: each example's frame.
          order: of the pass with a number, which examples its batches are made of, in turn.
          batch: examples in a batch.
          first, stop: numbers of the first batch, and of one past the last.
          cells: pixels to a side.
          ahead: batches.
        """
        per_pass = len(frame_of) // batch * batch
        source = _Examples(encoded, frame_of, order, per_pass, stop * batch, cells)
        buffer = ahead * batch
        options = grain.ReadOptions(num_threads=min(_THREADS, buffer), prefetch_buffer_size=buffer)
        examples = grain.MapDataset.source(source)[first * batch :]
        self._batches = iter(examples.to_iter_dataset(options).batch(batch))

    def take(self, count: int) -> UInt8[np.ndarray, "count batch 1 views cells cells 3"]:
        """The pictures of the next batches."""
        return np.stack([next(self._batches) for _ in range(count)])
