"""Features of frames: which images, which square of them, and what a set holds afterwards."""

import dataclasses

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from numpy.testing import assert_allclose
from PIL import Image

from data_prep import features, prepare, writer
from data_prep.penn_action import assumed
from pose3d_jax import skeleton
from pose3d_jax.cameras import Camera
from pose3d_jax.data import poses
from pose3d_jax.models import resnet
from pose3d_jax.schema import Identity
from pose3d_jax.sources import SourceError
from tests.models.test_resnet import weights

WIDTH, HEIGHT = 160, 120
JOINTS = skeleton.get("penn13").size


def record(clip="a", split="train", frames=3, start=0, views=("assumed",), recording="video"):
    """Somebody who walks through the image, and is not found in one of three frames."""
    rng = np.random.default_rng(frames)
    person = rng.uniform(-0.5, 0.5, (JOINTS, 2)) * [30, 90]
    points = person + [50, 60] + 8 * np.arange(frames)[:, None, None] * [1, 0]
    seen = np.ones((frames, len(views), JOINTS))
    seen[1] = 0
    seen[:, 1:] = 0  # of several views the first sees somebody
    identity = Identity(
        dataset="tiny", subject="s", action="walk", clip=clip, recording=recording,
        camera_names=views, start=start, group="g", split=split, fps=30.0,
        keypoint_skeleton="penn13", joint_skeleton="penn13", keypoint_source="test",
    )  # fmt: skip
    camera: Camera = jax.tree.map(
        lambda x: np.repeat(x, len(views), axis=0), assumed(WIDTH, HEIGHT)
    )
    none = np.zeros((frames, JOINTS, 3))
    keypoints = np.repeat(points[:, None], len(views), axis=1)
    return prepare.record(
        identity, camera, none, joints_valid=none[..., 0], keypoints=keypoints, confidence=seen
    )


def images(folder, numbers, name="frame_{}.png", seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    found = {}
    for number in numbers:
        coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
        found[number] = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(found[number]).save(folder / name.format(number))
    return found


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet.npz"
    np.savez(path, **weights())
    return path


def source(folder, *records, skip=None):
    by_split = {}
    for each in records:
        by_split.setdefault(each.identity.split, []).append(each)
    proof = writer.Proof()
    if skip:
        proof.skip(*skip)
    writer.write(
        folder, "tiny", by_split, description="A test.", citation="C", terms="T", proof=proof
    )
    return folder


def run(folder, net, *more):
    given = {"--source": "source", "--frames": "frames", "--output": "out"}
    arguments = [x for flag, name in given.items() for x in (flag, str(folder / name))]
    features.main([*arguments, "--weights", str(net), "--batch", "2", *more])


def expected_crop(image, square):
    """The same square by OpenCV, which maps the image's pixels to the crop's."""
    x, y, side = square.astype(float)
    scale = 224 / side
    matrix = np.array([[scale, 0, 111.5 - scale * x], [0, scale, 111.5 - scale * y]])
    return cv2.warpAffine(
        image.astype(np.float32), matrix, (224, 224), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


@pytest.mark.parametrize("square", [(80.0, 60.0, 100.0), (10.3, 100.7, 95.5), (70.25, 50.0, 448.0)])
def test_a_square_is_cut_as_opencv_cuts_it(square):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    square = np.array(square, np.float32)
    found = features.cut(image, square)
    # OpenCV takes places to a 32nd of a pixel.
    assert_allclose((found + 1) * 127.5, expected_crop(image, square), atol=255 / 32)
    assert abs((found + 1) * 127.5 - expected_crop(image, square)).mean() < 1.0


def test_people_are_150_pixels_tall_in_the_middle_of_their_squares():
    seen = record(frames=30).clip.observations
    points, confidence = seen.keypoints[:, 0], seen.confidence[:, 0]
    found = features.squares(points, confidence)
    placed = (points - found[:, None, :2]) * (224 / found[:, None, 2:]) + 111.5
    low, high = placed.min(axis=1), placed.max(axis=1)
    there = confidence.any(axis=1)
    assert_allclose(np.linalg.norm(high - low, axis=1)[there], 150.0, rtol=1e-4)
    assert_allclose((low + high)[12:-12] / 2, 111.5, atol=0.01)  # a Gaussian lags where it ends
    # Where nobody is found, the person has gone on.
    assert_allclose(found[1, :2], (found[0, :2] + found[2, :2]) / 2, atol=1.0)
    assert not features.squares(points, 0 * confidence).any()


def test_features_of_a_set_are_the_network_s_of_each_frame(tmp_path, net):
    one = record(views=("left", "right"))
    other = record("b", "test", frames=2, start=7, views=("left", "right"))
    source(tmp_path / "source", one, other, skip=("c", "nobody is seen"))
    frames = tmp_path / "frames"
    seen = images(frames / "a" / "left", range(9, 12))  # a clip's own, 9 before 10
    images(frames / "a" / "right", range(9, 12))
    later = images(frames / "video" / "left", range(5, 12), "{:04}.png", seed=1)
    images(frames / "video" / "right", range(5, 12), "{:04}.png")
    (frames / "video" / "left" / "notes.txt").write_text("no image")
    run(tmp_path, net)

    params = resnet.load(net)
    apply = jax.jit(resnet.ResNet50().apply)
    for before, split, there in ((one, "train", [seen[n] for n in (9, 10, 11)]),
                                 (other, "test", [later[n] for n in (7, 8)])):  # fmt: skip
        (after,) = poses.read_split(tmp_path / "out", split)
        assert after.identity == before.identity
        found = after.clip.observations.images
        crops = [expected_crop(i, s) for i, s in zip(there, found.square[:, 0], strict=True)]
        stacked = np.zeros((3, 224, 224, 3), np.float32)
        stacked[: len(crops)] = np.stack(crops) / 127.5 - 1
        expected = np.asarray(apply({"params": params}, stacked))[: len(crops)]
        away = abs(found.features[:, 0] - expected).mean()
        apart = abs(found.features[1:, 0] - found.features[:-1, 0]).mean(axis=-1)
        assert away < 1e-4 * apart.min()
        assert not found.features[:, 1].any()
        assert not found.square[:, 1].any()
        same = after.clip.replace(observations=after.clip.observations.replace(images=None))
        jax.tree.map(np.testing.assert_array_equal, same, before.clip)
    info = tfds.builder_from_directory(str(tmp_path / "out")).info
    assert (info.citation, info.redistribution_info.license) == ("C", "T")
    assert "resnet.npz (SHA-256" in info.description
    assert [entry["what"] for entry in info.metadata["skipped"]] == ["c"]


def refused(folder, net, capsys, message, *more):
    with pytest.raises(SystemExit):
        run(folder, net, *more)
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_frames_that_are_missing_or_too_many_are_said_before_anything_is_computed(
    tmp_path, capsys, net, monkeypatch
):
    monkeypatch.setattr(features, "Extractor", None)
    source(tmp_path / "source", record(start=4))
    refused(tmp_path, net, capsys, "frames: is no folder")
    frames = tmp_path / "frames"
    frames.mkdir()
    refused(tmp_path, net, capsys, "has no folder a with the frames of that clip, nor video")
    images(frames / "video", range(6))
    refused(tmp_path, net, capsys, "has no image number 6; clip a has 3 frames from number 4 on")
    images(frames / "a", range(2))
    refused(tmp_path, net, capsys, "holds 2 images, but clip a has 3 frames")
    images(frames / "a", range(2, 3), "other_{}.jpg")
    (frames / "a" / "no.png").write_bytes(b"")
    refused(tmp_path, net, capsys, "no.png: has no number in its name")
    (frames / "a" / "no.png").rename(frames / "a" / "late_02.png")
    refused(tmp_path, net, capsys, "other_2.jpg: has the number of late_02.png")
    refused(tmp_path, net, capsys, "--batch is 0", "--batch", "0")
    refused(tmp_path, net, capsys, "holds no prepared data set", "--source", str(frames))


def test_views_have_folders_of_their_own(tmp_path):
    identity = record(views=("left", "right")).identity
    images(tmp_path / "a" / "left", range(3))
    with pytest.raises(SourceError, match=r"a/right: is no folder"):
        features.frames_of(tmp_path, identity, 3)
    images(tmp_path / "a" / "right", range(3))
    left, right = features.frames_of(tmp_path, identity, 3)
    assert [path.parent.name for path in (left[0], right[2])] == ["left", "right"]
    whole = dataclasses.replace(identity, camera_names=("left",), recording="a", clip="c", start=1)
    images(tmp_path / "a", range(4))
    assert features.frames_of(tmp_path, whole, 2)[0][0].name == "frame_1.png"


def test_images_that_cannot_be_read_leave_nothing(tmp_path, capsys, net):
    source(tmp_path / "source", record())
    frames = tmp_path / "frames" / "a"
    images(frames, range(3))
    last = frames / "frame_2.png"
    whole = last.read_bytes()
    last.write_bytes(whole[:200])
    refused(tmp_path, net, capsys, "frame_2.png: cannot be read as an image")
    Image.new("RGB", (40, 30)).save(last)
    refused(tmp_path, net, capsys, "has 40 x 30 pixels, but the keypoints are in images of 160 x")
    Image.fromarray(np.full((HEIGHT, WIDTH), 4000, np.uint16)).save(last)
    refused(tmp_path, net, capsys, "save it with 8 bits a colour")
    last.write_bytes(whole)
    (frames / "._frame_1.png").write_bytes(b"left by a file system")
    refused(tmp_path, tmp_path / "none.npz", capsys, "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    refused(tmp_path, tmp_path / "other.npz", capsys, "conv1/weights")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "other.npz", "source"]
