"""Videos, frame by frame, as FFmpeg decodes them (the extra `video`)."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pose3d_jax import errors
from pose3d_jax.errors import UserError
from pose3d_jax.formats.keypoint_people import Picture

SUFFIXES = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts",
    ".3gp", ".mxf",
)  # fmt: skip
_EVERY = 10  # frames that are looked at for bars
_BLACK = 24  # of 255: no row of a bar is brighter in the mean

Image = UInt8[np.ndarray, "_ _ 3"]  # of any size: of a video, all should be alike


class VideoError(UserError):
    """A video cannot be read, or nothing that reads videos is installed."""


def fps_of(path: str | Path) -> float:
    """Frames per second, as the file says. Raises `VideoError` where it does not, and as `frames`
    does."""
    av = _library()
    try:
        with av.open(str(path)) as file:
            rate = file.streams.video[0].average_rate
    except (av.FFmpegError, OSError, IndexError) as error:
        raise VideoError(f"{path}: is no video that can be read ({error}); look at it") from error
    if not rate:
        raise VideoError(f"{path}: does not say its frame rate; write it again, e.g. by ffmpeg")
    return float(rate)


class Seen:
    """Watches frames go by, and tells what of them is picture, and what black bars beside it."""

    def __init__(self) -> None:
        self._brightest: UInt8[np.ndarray, "height width"] | None = None

    def watch(self, images: Iterable[Image]) -> Iterator[Image]:
        """The same frames."""
        for number, image in enumerate(images):
            if number % _EVERY == 0:
                bright = image.max(axis=-1)
                if self._brightest is not None:
                    if bright.shape != self._brightest.shape:
                        raise VideoError(
                            f"frame {number} is of another size than those before; write the video "
                            f"anew, in one size, e.g. by `ffmpeg -i in.mp4 -s WIDTHxHEIGHT out.mp4`"
                        )
                    bright = np.maximum(bright, self._brightest)
                self._brightest = bright
            yield image

    def picture(self) -> Picture:
        """What is not black all along."""
        assert self._brightest is not None
        found = []
        for axis in (0, 1):
            lit = np.flatnonzero(self._brightest.mean(axis=axis) > _BLACK)
            low, high = (lit[0], lit[-1] + 1) if len(lit) else (0, self._brightest.shape[1 - axis])
            found.append((float(low), float(high - low)))
        (left, width), (top, height) = found
        tall, wide = self._brightest.shape
        return Picture(left, top, width, height, float(wide), float(tall))


def frames(path: str | Path) -> Iterator[Image]:
    """Every frame, red, green, blue, upright as the file says it is to be shown.

    Raises `VideoError` for what is missing, no video, or cannot be decoded to its end, and where
    PyAV is not installed.
    """
    av = _library()
    if not Path(path).is_file():
        raise VideoError(f"{path}: there is no such video; check the name")
    number, packets, told = 0, 0, 0
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise VideoError(f"{path}: has no pictures; give a video")
            stream = file.streams.video[0]
            stream.thread_type = "AUTO"
            # What is damaged is told, not guessed.
            stream.codec_context.options = {"err_detect": "explode"}
            told = stream.frames
            for packet in file.demux(stream):
                packets += packet.size > 0  # the last one only empties the decoder
                for frame in packet.decode():
                    assert isinstance(frame, av.VideoFrame)  # of a stream of video
                    # A turn is counter-clockwise, in degrees, in steps of 90.
                    yield np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    number += 1
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: cannot be decoded after frame {number} ({error}); copy it again from where "
            f"it was taken, or write it anew, e.g. by `ffmpeg -i {Path(path).name} new.mp4`"
        ) from error
    # Of what is there some may be meant not to be shown, where a video was trimmed.
    if packets < told:
        raise VideoError(
            f"{path}: ends after {packets} of {told} frames; copy it again from where it was taken"
        )
    if not number:
        raise VideoError(f"{path}: has no frames; copy it again from where it was taken")


def _library() -> Any:
    return errors.library("av", "video", "a video", error=VideoError)
