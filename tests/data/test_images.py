"""Pictures: whatever kind of file they are, in the order of the draws, from any of them on."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from data_prep import writer
from pose3d_jax.data import images, poses, windows
from pose3d_jax.data.integrity import DataError
from pose3d_jax.epoch import draw_indices, pass_order, stream_key
from tests import scenes


def saved(image, kind="PNG", **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def test_pictures_of_any_kind_are_rgb():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (32, 32), np.uint8)
    three = np.repeat(grey[..., None], 3, axis=-1)
    assert_array_equal(images.decode(saved(Image.fromarray(grey)), 32), three)
    assert_array_equal(images.decode(saved(Image.fromarray(three)), 32), three)
    clear = np.concatenate([three, np.full((32, 32, 1), 255, np.uint8)], axis=-1)
    assert_array_equal(images.decode(saved(Image.fromarray(clear)), 32), three)
    assert_array_equal(images.decode(b"", 32), np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_larger_picture_is_the_mean_of_its_pixels(kind):
    row, column = np.mgrid[:128, :128]
    image = np.stack([row, column, 200 - row], axis=-1).astype(np.uint8)
    found = images.decode(saved(Image.fromarray(image), kind), 32)
    wanted = image.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - wanted).max() < (1 if kind == "PNG" else 6)


@pytest.mark.parametrize("cut", [10, 60, -20])
def test_damaged_pictures_are_refused(cut):
    whole = saved(Image.fromarray(np.zeros((64, 64, 3), np.uint8)), "JPEG")
    with pytest.raises(DataError, match="cannot be decoded"):
        images.decode(whole[:cut], 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "data"
    made = [
        scenes.photographed(scenes.record(f"c{n}", frames=2 + n, views=2, seed=n), 32)
        for n in range(3)
    ]
    writer.write(folder, "scene", {"train": made}, description="small")
    return poses.load([folder], "train"), made


def test_a_set_keeps_its_pictures_beside_its_poses(data):
    found, made = data
    whole = np.concatenate([r.clip.observations.pictures.pixels for r in made])
    assert found.pictures.shape == (9, 2)
    assert (found.pictures == whole).all()
    held = found.poses.observations.pictures
    assert held.pixels is None
    assert_array_equal(
        held.square, np.concatenate([r.clip.observations.pictures.square for r in made])
    )


def test_other_pictures_are_other_data(tmp_path, data):
    _, made = data
    other = [scenes.photographed(record, 48) for record in made]
    writer.write(tmp_path / "other", "scene", {"train": other}, description="small")
    assert poses.load([tmp_path / "other"], "train").fingerprint != data[0].fingerprint


@pytest.mark.parametrize("first", [0, 3, 7])
def test_a_feed_gives_what_the_device_draws(first, data):
    """From any batch on: 4 batches of 2 to a pass of 9 examples."""
    found, _ = data
    split = windows.cut(found, 1)
    key, streams = jax.random.key(3), {"main": split.poses}
    own = stream_key(key, streams, "main")
    feed = images.Feed(
        found.pictures,
        np.asarray(split.poses.start),
        lambda number: np.asarray(pass_order(own, number, 9)),
        batch=2, first=first, stop=12, cells=32, ahead=2,
    )  # fmt: skip
    drawn = draw_indices(key, streams, {"main": 2}, "main", jnp.int32(first), 12 - first)
    wanted = images.pixels(found.pictures, np.asarray(drawn)[..., None], 32)
    parts = [feed.take(2), feed.take(12 - first - 2)]
    assert_array_equal(np.concatenate(parts), wanted)
    with pytest.raises(StopIteration):
        feed.take(1)
