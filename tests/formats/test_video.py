"""Videos written here by PyAV, read back; OpenCV as the independent reader."""

import subprocess
import sys

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from pose3d_jax.formats import video
from pose3d_jax.formats.video import VideoError

FRAMES = 25


def pictures(width=96, height=64, frames=FRAMES, bar=0):
    """A bright square that moves over a lit ground; black bars above and below."""
    found = np.full((frames, height, width, 3), 90, np.uint8)
    for number, image in enumerate(found):
        image[20:36, 4 + 2 * number : 20 + 2 * number] = (230, 120, 40)
    found[:, :bar] = found[:, height - bar :] = 0
    return found


def write(path, images, fps=50):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = images.shape[2], images.shape[1]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for image in images:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    return path


def test_frames_are_those_that_were_written_and_that_opencv_reads(tmp_path):
    images = pictures()
    path = write(tmp_path / "a.mp4", images)
    found = np.stack(list(video.frames(path)))
    assert found.shape == images.shape
    assert np.abs(found.astype(int) - images).mean() < 3
    reader = cv2.VideoCapture(str(path))
    others = []
    while (read := reader.read())[0]:
        others.append(read[1][..., ::-1])
    assert np.abs(found.astype(int) - np.stack(others)).mean() < 2
    assert video.fps_of(path) == 50


def test_a_video_that_is_to_be_turned_is_shown_upright(tmp_path):
    """As phones write them: lying, with a turn by which they are to be shown."""
    images = pictures(frames=5)
    path = write(tmp_path / "lying.mp4", images)
    binary = imageio_ffmpeg.get_ffmpeg_exe()
    turned = tmp_path / "turned.mp4"
    command = [binary, "-loglevel", "error", "-display_rotation", "90", "-i", path, "-c", "copy"]
    subprocess.run([*command, turned], check=True)
    shown = tmp_path / "shown.mp4"  # by FFmpeg itself, which turns pictures when it writes anew
    subprocess.run([binary, "-loglevel", "error", "-i", turned, "-qscale", "1", shown], check=True)
    found, expected = (np.stack(list(video.frames(p))) for p in (turned, shown))
    assert found.shape == (5, 96, 64, 3)
    assert np.abs(found.astype(int) - expected).mean() < 3


def test_bars_are_told_from_the_picture(tmp_path):
    for bar in (0, 8):
        seen = video.Seen()
        path = write(tmp_path / f"{bar}.mp4", pictures(bar=bar))
        assert len(list(seen.watch(video.frames(path)))) == FRAMES
        left, top, width, height, *frame = seen.picture()
        assert (left, width, *frame) == (0, 96, 96, 64)
        assert (top, height) == pytest.approx((bar, 64 - 2 * bar), abs=1)


def test_a_black_video_is_all_picture():
    seen = video.Seen()
    list(seen.watch(np.zeros((3, 20, 30, 3), np.uint8)))
    assert seen.picture() == (0, 0, 30, 20, 30, 20)


def test_frames_of_several_sizes_are_told():
    changing = [np.zeros((20, 30, 3), np.uint8)] * 10 + [np.zeros((30, 20, 3), np.uint8)] * 10
    with pytest.raises(VideoError, match="frame 10 is of another size"):
        list(video.Seen().watch(changing))


def test_what_cannot_be_decoded_is_told(tmp_path):
    whole = write(tmp_path / "whole.mp4", pictures())
    content = whole.read_bytes()
    cases = {
        "text.mp4": (b"no video at all", "cannot be decoded after frame 0"),
        "cut.mp4": (content[: len(content) // 2], "cannot be decoded after frame 0"),
        "empty.mp4": (b"", "cannot be decoded after frame 0"),
    }
    for name, (what, message) in cases.items():
        (tmp_path / name).write_bytes(what)
        with pytest.raises(VideoError, match=message):
            list(video.frames(tmp_path / name))
        with pytest.raises(VideoError, match="is no video that can be read"):
            video.fps_of(tmp_path / name)
    with pytest.raises(VideoError, match="there is no such video"):
        list(video.frames(tmp_path / "none.mp4"))


def test_a_video_that_lacks_its_end_is_not_taken_for_whole(tmp_path):
    """With its table of frames in front, as those that are streamed have it."""
    whole = write(tmp_path / "whole.mp4", pictures(frames=60))
    front = tmp_path / "front.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", whole, "-c", "copy"]
    subprocess.run([*command, "-movflags", "faststart", front], check=True)
    content = front.read_bytes()
    front.write_bytes(content[: 2 * len(content) // 3])
    with pytest.raises(VideoError, match=r"front.mp4: (ends|cannot be decoded) after"):
        list(video.frames(front))


def test_a_trimmed_video_is_whole(tmp_path):
    """As phones cut them: what was trimmed is in the file still, and not to be shown."""
    long = write(tmp_path / "long.mp4", pictures(frames=40))
    cut = tmp_path / "cut.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-ss", "0.3", "-i", long]
    subprocess.run([*command, "-c", "copy", cut], check=True)
    found = len(list(video.frames(cut)))
    with av.open(str(cut)) as file:
        assert found < file.streams.video[0].frames  # or it would show nothing
    assert found == pytest.approx(25, abs=2)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with pytest.raises(VideoError, match="has no pictures"):
        list(video.frames(tmp_path / "a.wav"))


def test_without_pyav_its_installation_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", pictures(frames=3))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r"pip install av\), or .* `video`"):
        list(video.frames(path))
