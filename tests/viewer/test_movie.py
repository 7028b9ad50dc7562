"""Moving pictures, read by Pillow and OpenCV: how many, how fast, of what size, and what moves."""

import dataclasses
import sys

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from pose3d_jax import skeleton
from pose3d_jax.errors import UserError
from pose3d_jax.viewer import figures, movie
from pose3d_jax.viewer import scene as scenes
from pose3d_jax.viewer.scene import Scene
from tests.formats.test_kinematics import walk
from tests.viewer.test_interactive import ring

H36M = skeleton.get("h36m17")
KINDS = ("gif", "mp4")


def scene(frames=24, fps=12.0, people=1, views=2, **other):
    """Somebody walks (a second person a metre aside), seen by cameras from around."""
    up = walk(frames / 30 + 0.1)[:frames]
    joints = np.stack([up[..., 0], -up[..., 2], up[..., 1]], axis=-1)  # z up again
    joints = np.stack([joints + np.array([0, n, 0]) for n in range(people)], axis=1)
    given = {"fps": fps, "skeleton": H36M, "methods": {"lifted": joints}}
    if views:
        cameras = ring(views)
        pixels = movie.interactive.reprojection(cameras, joints)
        ones = np.ones((*pixels.shape[:-1], 1))
        given["cameras"] = cameras
        given["views"] = tuple(f"view {n}" for n in range(views))
        given["keypoints"] = np.concatenate([pixels, ones], axis=-1)
    return Scene(**(given | other))


def read(path):
    """Frames `[N, H, W, 3]` and how many seconds each is shown."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            frames, seconds = [], []
            for number in range(image.n_frames):
                image.seek(number)
                frames.append(np.asarray(image.convert("RGB")))
                seconds.append(image.info["duration"] / 1000)
            return np.stack(frames), seconds
    video = cv2.VideoCapture(str(path))
    frames = []
    while (found := video.read())[0]:
        frames.append(found[1][..., ::-1])
    return np.stack(frames), [1 / video.get(cv2.CAP_PROP_FPS)] * len(frames)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_moves(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    assert movie.write(path, scene()) == "24 of 24 frames"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    frames, seconds = read(path)
    assert frames.shape == (24, 400, 640, 3)
    assert_allclose(sum(seconds), 2.0, atol=0.01)
    assert frames[:, 200, 2].min() > (254 if kind == "gif" else 250)  # paper is white
    inked = frames.min(axis=-1) < 200
    assert inked[:, :, :400].any(axis=(1, 2)).all()
    assert inked[:, :, 400:].any(axis=(1, 2)).all()
    changed = (np.abs(np.diff(frames.astype(int), axis=0)).max(axis=-1) > 60).sum(axis=(1, 2))
    assert changed.min() > 200


@pytest.mark.parametrize("views", [0, 1, 3, 6])
@pytest.mark.parametrize("people", [1, 2])
def test_any_number_of_views_and_people(tmp_path, views, people):
    movie.write(tmp_path / "a.gif", scene(3, views=views, people=people))
    frames, _ = read(tmp_path / "a.gif")
    assert frames.shape == (3, 400, 400 if views == 0 else 800, 3)
    colours = list(figures.palette(map(str, range(people))).values())
    for colour in colours:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        near = np.abs(frames[0].astype(int) - wanted).max(axis=-1) < 30
        assert near[:, :400].sum() > 50  # a strong limb of that person


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_where_nobody_is_seen_is_empty(tmp_path, kind):
    whole = scene(4, views=1)
    joints, points = whole.methods["lifted"].copy(), whole.keypoints.copy()
    joints[1], points[1] = np.nan, 0.0
    joints[2, 0, 5] = np.nan
    hidden = dataclasses.replace(whole, methods={"lifted": joints}, keypoints=points)
    movie.write(tmp_path / f"a.{kind}", hidden)
    frames, _ = read(tmp_path / f"a.{kind}")
    blue = (frames[..., 2].astype(int) - frames[..., 0] > 80).sum(axis=(1, 2))
    assert blue[1] < 20 < 200 < min(blue[0], blue[2], blue[3])


@pytest.mark.parametrize(
    ("frames", "fps", "most", "shown", "rate"),
    [
        (100, 30.0, 15.0, 50, 15.0),  # every second, as fast as it was
        (100, 25.0, 30.0, 100, 25.0),
        (100, 50.0, 15.0, 25, 12.5),
        (100, 5.0, 15.0, 100, 5.0),  # slow as it was
        (3000, 30.0, 30.0, 300, 10.0),  # every tenth, three times as fast
        (301, 30.0, 30.0, 151, 15.0),
        (1, 30.0, 15.0, 1, 15.0),
    ],
)
def test_long_and_fast_clips_are_thinned(frames, fps, most, shown, rate):
    chosen, found = movie.pace(frames, fps, most)
    assert (len(chosen), found) == (shown, rate)
    assert chosen[0] == 0
    assert len(set(np.diff(chosen))) <= 1
    assert chosen[-1] < frames <= chosen[-1] + (chosen[1] if shown > 1 else 1)


def test_what_is_left_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(movie, "MOST", 5)
    monkeypatch.setattr(scenes, "MAX_BYTES", 100)  # which is of pages
    told = movie.write(tmp_path / "a.gif", scene(20, fps=10.0, views=0))
    assert told == "5 of 20 frames, 4.0 times as fast as it was"
    assert len(read(tmp_path / "a.gif")[0]) == 5


def test_what_cannot_be_made_is_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"a\.avi: moving pictures are gif or mp4"):
        movie.write(tmp_path / "a.avi", scene(2))
    nobody = scene(2)
    nobody.methods[next(iter(nobody.methods))][:] = np.nan
    nobody.methods["other"] = scene(2).methods[next(iter(nobody.methods))]
    with pytest.raises(UserError, match="the first method has nobody in any frame"):
        movie.write(tmp_path / "a.gif", nobody)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(
        UserError, match=r"pip install imageio-ffmpeg\), or .* `movie`, or make a gif"
    ):
        movie.write(tmp_path / "a.mp4", scene(2))
    assert not list(tmp_path.iterdir())


def test_what_ffmpeg_says_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(movie.library("mp4"), "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(UserError, match="ffmpeg made no MP4"):
        movie.write(tmp_path / "a.mp4", scene(2, views=0))
    assert not list(tmp_path.iterdir())
