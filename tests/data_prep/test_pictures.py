"""Pictures for a prepared set: a square of each frame, and what is no picture."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from data_prep import pictures, writer
from pose3d_jax.data import images, poses
from tests import scenes


@pytest.fixture
def folder(tmp_path):
    """Two clips of two views, and frames of 1000 x 1002 pixels, whose red and green say where."""
    made = [scenes.record(f"c{n}", frames=3, views=2, seed=n) for n in range(2)]
    writer.write(tmp_path / "data", "scene", {"train": made}, description="small")
    row, column = np.mgrid[:1002, :1000]
    image = Image.fromarray(np.stack([column // 4, row // 4, 0 * row], axis=-1).astype(np.uint8))
    for record in made:
        for view in record.identity.camera_names:
            place = tmp_path / "frames" / record.identity.clip / view
            place.mkdir(parents=True)
            for number in range(3):
                image.save(place / f"{number}.png")
    return tmp_path


def run(folder, *more):
    words = ["--source", str(folder / "data"), "--frames", str(folder / "frames")]
    pictures.main([*words, "--output", str(folder / "out"), *more])


def test_each_frame_has_its_pictures_where_its_square_says(folder, capsys):
    run(folder)
    assert "skipped: 0" in capsys.readouterr().out
    data, before = (poses.load([folder / name], "train") for name in ("out", "data"))
    assert len({identity.clip for identity in data.identities}) == 6
    assert_allclose(data.poses.labels.joints, before.poses.labels.joints)
    assert_allclose(data.poses.observations.keypoints, before.poses.observations.keypoints)
    square = np.asarray(data.poses.observations.pictures.square)
    shown = images.pixels(data.pictures, np.arange(6), 256)
    for at in np.ndindex(6, 2):
        x, y, side = square[at]
        for place in (64, 128, 200):
            where = np.array([x, y]) + (place - 127.5) * side / 256
            if (where > 10).all() and (where < 990).all():
                assert_allclose(shown[at][place, place, :2], where / 4, atol=4)


def test_every_third_frame_and_images_that_cannot_be_used(folder, capsys):
    damaged = folder / "frames" / "c0" / "c1" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    Image.new("RGB", (30, 30)).save(folder / "frames" / "c1" / "c0" / "0.png")
    run(folder, "--every", "3")
    said = capsys.readouterr().out
    assert "skipped: 2" in said
    assert "cannot be read as an image" in said
    assert "has 30 x 30 pixels, the keypoints are in 1000 x 1002" in said
    data = poses.load([folder / "out"], "train")
    side = np.asarray(data.poses.observations.pictures.square)[..., 2]
    assert (side > 0).tolist() == [[True, False], [False, True]]
    assert (data.pictures == b"").tolist() == [[False, True], [True, False]]


def test_folders_that_are_not_there_are_refused(folder, capsys):
    with pytest.raises(SystemExit):
        run(folder, "--every", "0")
    assert "give 1 frame or more" in capsys.readouterr().err
    (folder / "frames").rename(folder / "elsewhere")
    with pytest.raises(SystemExit):
        run(folder)
    assert "is no folder" in capsys.readouterr().err
    assert not (folder / "out").exists()
