"""OpenPose's output of videos to clips: who is followed, what is kept, where the crop is."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.io import savemat

from data_prep import pseudo_truth
from pose3d_jax import skeleton
from pose3d_jax.data import poses
from pose3d_jax.tracking import Track

BODY25 = skeleton.get("body25")
SHAPE = np.random.default_rng(0).uniform(-1, 1, (25, 2)) * [20, 60]
UPPER = [i for i, n in enumerate(BODY25.joints) if any(u in n for u in pseudo_truth._UPPER)]


def walker(frames, place=(200, 150), speed=2.0):
    centre = np.asarray(place) + np.arange(frames)[:, None] * [speed, 0]
    return np.concatenate([centre[:, None] + SHAPE, np.ones((frames, 25, 1))], axis=-1)


def write(folder, people):
    folder.mkdir(parents=True)
    for frame in range(len(people[0])):
        there = [p[frame] for p in people if p[frame, :, 2].any()]
        table = {"people": [{"pose_keypoints_2d": p.ravel().tolist()} for p in there]}
        (folder / f"v_{frame:012d}_keypoints.json").write_text(json.dumps(table))


def test_a_clip_begins_and_ends_with_what_is_seen():
    person = walker(200)
    person[:10, 5:, 2] = 0  # 5 are seen
    person[120:, 3:, 2] = 0
    (part,) = pseudo_truth.cleaned(Track(7, person), BODY25)
    assert (part.start, part.frames) == (17, 110)
    long = pseudo_truth.cleaned(Track(0, walker(1100, speed=0.1)), BODY25)
    assert [track.frames for track in long] == [500, 500, 100]
    assert not pseudo_truth.cleaned(Track(0, walker(39)), BODY25)
    face = walker(100)
    face[:45, [i for i in range(25) if i not in UPPER], 2] = 0
    assert not pseudo_truth.cleaned(Track(0, face), BODY25)


def test_the_crop_s_camera_sees_what_the_whole_image_s_saw():
    """Rays through the crop's points are those through the image's."""
    track = Track(0, walker(60, speed=5.0))
    points, cameras = pseudo_truth.cropped(track, (640, 480))
    ray = (points[..., :2] - cameras.center) / cameras.focal
    expected = (track.keypoints[..., :2] - [319.5, 239.5]) / 640
    assert_allclose(ray, expected, atol=1e-5)
    tall = np.linalg.norm(np.ptp(points[30, :, :2], axis=0))
    assert tall == pytest.approx(150, abs=3)
    assert abs(points[5:-5, :, :2].mean(axis=1) - 111.5).max() < 40


def run(source, output, *more):
    pseudo_truth.main(["--source", str(source), "--output", str(output), "--fps", "30", *more])


def test_videos_and_tracks_become_clips_of_one_person_each(tmp_path, capsys):
    source = tmp_path / "source"
    one, other = walker(80), walker(80, (500, 300), -3.0)
    other[:20] = 0
    write(source / "both", [one, other])
    write(source / "tracks" / "0", [walker(50)])
    write(source / "short", [walker(20)])
    (tmp_path / "list.txt").write_text("tracks\n")
    run(source, tmp_path / "data", "--test", str(tmp_path / "list.txt"), "--name", "vlog")
    assert "short: nobody is seen for long enough" in capsys.readouterr().out
    found = {i.clip: i for i in poses.load([tmp_path / "data"], "train").identities}
    assert {clip: i.start for clip, i in found.items()} == {"both_0": 0, "both_1": 20}
    test = poses.load([tmp_path / "data"], "test")
    assert {i.clip for i in test.identities} == {"tracks_0_0"}
    assert test.poses.labels.body is None
    assert not np.asarray(test.poses.labels.joints_valid).any()


def test_whole_images_keep_their_pixels_and_crops_have_the_same_rays(tmp_path):
    person = walker(50)
    write(tmp_path / "source" / "video" / "7", [person])
    more = ["--size", "640", "480"]
    run(tmp_path / "source", tmp_path / "crop", *more)
    run(tmp_path / "source", tmp_path / "whole", *more, "--whole")
    crop, whole = (poses.load([tmp_path / name], "train") for name in ("crop", "whole"))
    assert {(i.clip, i.recording) for i in whole.identities} == {("video_7_0", "video")}
    found = whole.poses.observations
    assert_allclose(found.keypoints[:, 0], person[..., :2], atol=1e-4)
    assert_allclose(found.cameras.size[:, 0], np.broadcast_to([640, 480], (50, 2)))
    rays = [
        (o.keypoints - o.cameras.center[:, :, None]) / o.cameras.focal[:, :, None]
        for o in (crop.poses.observations, found)
    ]
    assert_allclose(rays[0], rays[1], atol=1e-5)


def test_of_penn_action_s_people_the_annotated_one_is_kept(tmp_path):
    source = tmp_path / "source"
    one, other = walker(60), walker(60, (500, 300))
    write(source / "0001", [one, other])
    index = [
        BODY25.joints.index(n) if n in BODY25.joints else 0 for n in skeleton.get("penn13").joints
    ]
    x, y = np.moveaxis(other[:, index, :2] + 1, -1, 0)
    (source / "labels").mkdir()
    table = {
        "x": x, "y": y, "visibility": np.ones_like(x), "dimensions": [[480, 640, 60]],
        "nframes": [[60]], "action": "bowl", "train": 1,
    }  # fmt: skip
    savemat(source / "labels" / "0001.mat", table)
    run(source, tmp_path / "data")
    data = poses.load([tmp_path / "data"], "train")
    assert len({i.clip for i in data.identities}) == 1
    cameras = data.poses.observations.cameras
    ray = (data.poses.observations.keypoints - cameras.center[:, :, None]) / cameras.focal[
        :, :, None
    ]
    assert_allclose(ray[:, 0], (other[..., :2] - [319.5, 239.5]) / 640, atol=1e-4)


def test_a_list_that_is_not_there_is_said(tmp_path, capsys):
    write(tmp_path / "source" / "video", [walker(50)])
    with pytest.raises(SystemExit):
        run(tmp_path / "source", tmp_path / "data", "--test", str(tmp_path / "none.txt"))
    assert "none.txt: cannot be read" in capsys.readouterr().err


def test_frames_may_be_called_by_their_numbers_alone(tmp_path):
    write(tmp_path / "source" / "video", [walker(50)])
    for path in (tmp_path / "source" / "video").iterdir():
        path.rename(path.with_name(path.name[2:].replace("_keypoints", "")))
    run(tmp_path / "source", tmp_path / "data")
    assert poses.load([tmp_path / "data"], "train").identities[0].start == 0


@pytest.mark.parametrize(
    ("names", "message"), [(None, "holds no folder"), ("elsewhere", "elsewhere are not in")]
)
def test_what_a_user_can_get_wrong_is_said(tmp_path, capsys, names, message):
    source = tmp_path / "source"
    source.mkdir()
    more = []
    if names:
        write(source / "video", [walker(50)])
        (tmp_path / "list.txt").write_text(names)
        more = ["--test", str(tmp_path / "list.txt")]
    with pytest.raises(SystemExit):
        run(source, tmp_path / "data", *more)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
