"""Photographs with 2D joints: what becomes of them, what is said of those that are no use."""

import io
import json

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from data_prep import coco
from pose3d_jax import skeleton
from pose3d_jax.data import crops, images, poses
from pose3d_jax.sources import SourceError

COCO17, H36M = skeleton.get("coco17"), skeleton.get("h36m17")


def photograph(width=120, height=80):
    row, column = np.mgrid[:height, :width]
    return np.stack([2 * column, 3 * row, 0 * row + 90], axis=-1).astype(np.uint8)


def person(identity, image, box=(20.0, 10.0, 40.0, 60.0), seen=2, **more):
    x, y, width, height = box
    points = [(x + width * (j % 5) / 4, y + height * j / 16, seen) for j in range(17)]
    return {
        "id": identity, "image_id": image, "bbox": list(box), "iscrowd": 0,
        "keypoints": [n for point in points for n in point], **more,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Images of many kinds, one of them damaged, one missing; people in and out of them."""
    shown = tmp_path / "images" / "inner"
    shown.mkdir(parents=True)
    rgb = photograph()
    Image.fromarray(rgb).save(shown / "colour.png")
    Image.fromarray(rgb[..., 0]).save(shown / "grey.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(shown / "clear.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) << 8).save(shown / "deep.png")
    Image.fromarray(rgb).save(shown / "whole.jpg")
    (shown / "half.jpg").write_bytes((shown / "whole.jpg").read_bytes()[:300])
    names = ["colour.png", "grey.png", "clear.png", "deep.png", "half.jpg", "missing.jpg"]
    people = [person(n, n) for n in range(6)]
    people += [
        person(10, 4),  # another one in the damaged image
        person(11, 0, box=(500.0, 500.0, 40.0, 40.0)),
        person(12, 0, seen=0),
        person(13, 0, iscrowd=1),
        person(14, 99),
        person(15, 0, box=(5.0, 5.0, 0.0, 0.0)),
        person(16, 0, box=(-30.0, -20.0, 60.0, 60.0), seen=1),
    ]
    table = {
        "images": [{"id": n, "file_name": f"some/{name}"} for n, name in enumerate(names)],
        "annotations": people,
        "categories": [{"keypoints": list(COCO17.joints)}],
    }
    for name in ("train", "val"):
        (tmp_path / f"person_keypoints_{name}.json").write_text(json.dumps(table))
    return tmp_path


def run(folder, *more):
    words = ["--source", str(folder), "--images", str(folder / "images")]
    coco.main([*words, "--output", str(folder / "out"), *more])


def test_people_are_read_and_the_others_are_counted(folder, capsys):
    run(folder)
    said = capsys.readouterr().out
    assert "skipped: 16" in said  # 8 of each file
    for reason in ("half.jpg", "missing.jpg is not there", "outside of the image", "is a crowd",
                   "nothing is seen", "there is no image 99", "0 x 0 pixels"):  # fmt: skip
        assert reason in said, reason
    data = poses.load([folder / "out"], "train")
    assert poses.splits(folder / "out") == ("train", "validation")
    assert [i.clip[-2:] for i in data.identities] == ["_0", "16", "_1", "_2", "_3"]
    observations = data.poses.observations
    assert not data.poses.labels.joints_valid.any()
    wrist = observations.keypoints[0, 0, H36M.joints.index("left_wrist")]
    number = COCO17.joints.index("left_wrist")
    assert_allclose(wrist, [20 + 40 * (number % 5) / 4, 10 + 60 * number / 16], rtol=1e-6)
    hips = [COCO17.joints.index(f"{side}_hip") for side in ("left", "right")]
    between = np.mean([[20 + 10 * (j % 5), 10 + 60 * j / 16] for j in hips], axis=0)
    assert_allclose(observations.keypoints[0, 0, 0], between, rtol=1e-6)
    confidence = np.asarray(observations.confidence[:, 0])
    assert confidence[0, H36M.joints.index("spine")] == 0  # COCO has none
    assert set(confidence[1]) == {0.0, 0.5}  # labelled, not seen


def test_pictures_of_any_kind_are_cut_as_opencv_cuts_them(folder):
    run(folder)
    data = poses.load([folder / "out"], "train")
    rgb = photograph()
    grey = np.repeat(rgb[..., :1], 3, axis=-1)
    for clip, image in ((0, rgb), (2, grey), (3, rgb), (4, grey)):
        found = images.decode(data.pictures[clip, 0], crops.CELLS)
        x, y, side = np.asarray(data.poses.observations.pictures.square[clip, 0], float)
        assert_allclose([x, y, side], [39.5, 39.5, 75.0])
        step = side / crops.CELLS
        first = [v - side / 2 + step / 2 for v in (x, y)]
        matrix = np.array([[step, 0, first[0]], [0, step, first[1]]])
        wanted = cv2.warpAffine(
            image, matrix, (crops.CELLS,) * 2, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        inner = np.s_[8:-8, 8:-8]
        assert np.abs(found[inner].astype(int) - wanted[inner]).max() < 12  # a JPEG
        assert np.abs(found[inner].astype(int) - wanted[inner]).mean() < 1.5


def test_a_square_beyond_the_image_is_black_there():
    image = Image.fromarray(np.full((40, 40, 3), 200, np.uint8))
    encoded = crops.cut(image, np.array([0.0, 20.0, 40.0]), 64)
    found = np.asarray(Image.open(io.BytesIO(encoded)))
    assert found[:, :24].max() < 20
    assert found[4:-4, 40:].min() > 180


def test_files_of_another_layout_are_refused(tmp_path, folder, capsys):
    with pytest.raises(SystemExit):
        run(folder, "--joints", "elephant20")
    assert "there are h36m17" in capsys.readouterr().err
    (folder / "person_keypoints_val.json").write_text('{"images": []}')
    with pytest.raises(SystemExit):
        run(folder)
    assert "has no 'annotations'" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_mpiis_joints_are_told_by_their_number(tmp_path):
    table = {"annotations": [{"keypoints": [0] * 48}]}
    assert coco._joints(table, tmp_path).name == "mpii16"
    with pytest.raises(SourceError, match="has 7 joints"):
        coco._joints({"annotations": [{"keypoints": [0] * 21}]}, tmp_path)


def test_joints_of_one_set_are_those_of_another_by_name():
    rng = np.random.default_rng(0)
    points, confidence = rng.normal(size=(17, 2)), np.ones(17)
    found, sure = coco._as(COCO17, COCO17, points, confidence)
    assert_array_equal(found, points)
    assert_array_equal(sure, confidence)


def written(folder, table, name="train.json"):
    for path in folder.glob("*.json"):
        path.unlink()
    (folder / name).write_text(json.dumps(table))


def table_of(*people, images=None, **more):
    return {"images": images or [], "annotations": list(people), **more}


def test_an_image_is_the_one_at_its_name_or_the_only_one_of_it(folder, capsys):
    for number, name in enumerate(("a", "b")):
        (folder / "images" / name).mkdir()
        plain = np.full((80, 120, 3), 100 * (number + 1), np.uint8)
        Image.fromarray(plain).save(folder / "images" / name / "0001.png")
    images_ = [
        {"id": n, "file_name": x} for n, x in enumerate(("a/0001.png", "b/0001.png", "c/0001.png"))
    ]
    written(folder, table_of(*(person(n, n) for n in range(3)), images=images_))
    run(folder)
    assert "there are 2 images 0001.png, none of them at c/0001.png" in capsys.readouterr().out
    data = poses.load([folder / "out"], "train")
    middle = [images.decode(x, 64)[32, 32, 0] for x in data.pictures[:, 0]]
    assert_allclose(middle, [100, 200], atol=3)


def test_an_image_of_another_size_than_its_joints_are_in_is_no_use(folder, capsys):
    entry = {"id": 0, "file_name": "colour.png", "width": 240, "height": 160}
    good = {"id": 1, "file_name": "grey.png", "width": 120, "height": 80}
    written(folder, table_of(person(0, 0), person(1, 1), images=[entry, good]))
    run(folder)
    assert "has 120 x 80 pixels, its joints are in 240 x 160" in capsys.readouterr().out


def test_joints_in_another_order_are_those_of_their_names_or_refused(folder, capsys):
    names = list(H36M.joints)
    entry = {"id": 0, "file_name": "colour.png"}
    written(folder, table_of(person(0, 0), images=[entry], categories=[{"keypoints": names}]))
    run(folder)
    data = poses.load([folder / "out"], "train")
    number = names.index("right_ankle")
    wanted = [20 + 10 * (number % 5), 10 + 60 * number / 16]
    assert_allclose(data.poses.observations.keypoints[0, 0, number], wanted, rtol=1e-6)
    names[3], names[4] = names[4], names[3]
    written(folder, table_of(person(0, 0), images=[entry], categories=[{"keypoints": names}]))
    with pytest.raises(SystemExit):
        run(folder, "--overwrite")
    assert "which is no joint set that is known" in capsys.readouterr().err


def test_a_box_that_is_far_too_large_is_counted(folder, capsys):
    entry = {"id": 0, "file_name": "colour.png"}
    huge = person(1, 0, box=(-20000.0, -20000.0, 40000.0, 40000.0))
    written(folder, table_of(person(0, 0), huge, images=[entry]))
    run(folder)
    assert "its box cannot be cut" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_a_file_whose_lists_are_none_is_refused(key, folder, capsys):
    written(folder, {**table_of(), key: None})
    with pytest.raises(SystemExit):
        run(folder)
    assert f"{key}: is no list of entries" in capsys.readouterr().err
