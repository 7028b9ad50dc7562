"""Videos to files of keypoints; the networks are stood in for, videos are written here."""

import argparse

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import detect, gather, skeleton
from pose3d_jax.data.own import PredictError
from pose3d_jax.formats import keypoints
from pose3d_jax.formats.blazepose import BlazePose
from pose3d_jax.formats.keypoint_people import Picture
from pose3d_jax.formats.keypoints import Detections
from tests.formats.test_video import FRAMES, pictures, write

PEOPLE = np.random.default_rng(0).uniform(1, 60, (FRAMES, 2, 33, 3)) * [1, 1, 1 / 60]


class Detector(BlazePose):
    """Two people; in the first frame nobody."""

    def __init__(self, folder):
        self.folder = folder

    def follow(self, frames):
        for number, _ in enumerate(frames):
            yield PEOPLE[number] if number else PEOPLE[:0, 0]


@pytest.fixture(autouse=True)
def detector(monkeypatch, tmp_path):
    monkeypatch.setattr(detect, "BlazePose", Detector)
    monkeypatch.setattr(detect, "weights", lambda folder=None: tmp_path)


def command(tmp_path, *videos):
    return ["--videos", *map(str, videos), "--output", str(tmp_path / "seen")]


def test_what_is_seen_is_read_back(tmp_path, capsys):
    one = write(tmp_path / "left.mp4", pictures(bar=8))
    other = write(tmp_path / "right.mp4", pictures())
    detect.main(command(tmp_path, one, other))
    views = keypoints.read(tmp_path / "seen")
    assert list(views) == ["left", "right"]
    seen = views["left"]
    assert seen.skeleton.name == "blazepose33"
    assert [len(people) for people in seen.people] == [0] + [2] * (FRAMES - 1)
    assert_allclose(np.stack(seen.people[1:]), PEOPLE[1:])
    assert seen.fps == 50
    assert seen.picture == pytest.approx((0, 8, 96, 48, 96, 64), abs=1)
    assert views["right"].picture == (0, 0, 96, 64, 96, 64)
    assert f"somebody in {FRAMES - 1} of {FRAMES} frames" in capsys.readouterr().out


def test_nothing_is_written_of_videos_one_of_which_is_none(tmp_path):
    whole = write(tmp_path / "a.mp4", pictures())
    (tmp_path / "b.mp4").write_bytes(whole.read_bytes()[:500])
    with pytest.raises(SystemExit, match=r"error: .*b.mp4: cannot be decoded after frame 0"):
        detect.main(command(tmp_path, whole, tmp_path / "b.mp4"))
    assert not (tmp_path / "seen").exists()


def test_wrong_commands_are_told(tmp_path, monkeypatch):
    video = write(tmp_path / "a.mp4", pictures(frames=5))
    with pytest.raises(SystemExit, match="error: --videos has a twice"):
        detect.main(command(tmp_path, video, video))
    (tmp_path / "seen").write_text("a file")
    with pytest.raises(SystemExit, match="is no folder"):
        detect.main(command(tmp_path, video))
    (tmp_path / "seen").unlink()
    monkeypatch.setattr(Detector, "follow", lambda self, frames: [PEOPLE[:0, 0] for _ in frames])
    with pytest.raises(SystemExit, match="nobody is seen in a"):
        detect.main(command(tmp_path, video))


def test_frame_rates_are_those_of_the_videos_and_must_be_one():
    def view(fps):
        return Detections((), skeleton.get("blazepose33"), 0, fps=fps)

    assert gather.fps_of(None, {"a": view(50.0), "b": view(50.0)}) == 50
    assert gather.fps_of(25.0, {"a": view(50.0)}) == 25
    assert gather.fps_of(None, {"a": view(None)}) == 30
    with pytest.raises(PredictError, match=r"different frame rates \(a 50, b 30\)"):
        gather.fps_of(None, {"a": view(50.0), "b": view(30.0)})


def test_one_video_tells_its_own_size():
    seen = Detections(
        (), skeleton.get("blazepose33"), 0, picture=Picture(10.0, 0.0, 60.0, 44.0, 96.0, 64.0)
    )
    given = argparse.Namespace(cameras=None, size=None, focal=100.0)
    rig = gather.rig_of(given, {"a": seen})
    assert_allclose(rig.cameras.size, [[96, 64]])
