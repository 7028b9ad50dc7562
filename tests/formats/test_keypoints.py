"""OpenPose's files, as it writes them, and files that are not."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax.formats.keypoints import openpose
from pose3d_jax.sources import SourceError

RNG = np.random.default_rng(0)


def person(joints=25):
    points = np.concatenate([RNG.uniform(0, 500, (joints, 2)), RNG.uniform(size=(joints, 1))], 1)
    points[3] = 0
    return np.round(points, 5)


def write(folder, frame, people, key="pose_keypoints_2d", video="a_video"):
    table = {
        "version": 1.3,
        "people": [
            {"person_id": [-1], key: p.ravel().tolist(), "face_keypoints_2d": []} for p in people
        ],
    }
    (folder / f"{video}_{frame:012d}_keypoints.json").write_text(json.dumps(table))


@pytest.mark.parametrize(("joints", "name"), [(25, "body25"), (18, "coco18")])
def test_frames_come_in_order_with_their_people(tmp_path, joints, name):
    people = {7: [person(joints), person(joints)], 8: [], 10: [person(joints)]}
    for frame, some in people.items():
        write(tmp_path, frame, some, "pose_keypoints" if joints == 18 else "pose_keypoints_2d")
    frames, skeleton = openpose(tmp_path)
    assert skeleton.name == name
    assert [len(frame) for frame in frames] == [2, 0, 0, 1]  # frame 9 has no file
    assert_allclose(frames[0], people[7])
    assert_allclose(frames[3], people[10])
    assert {frame.shape[1] for frame in frames} == {joints}


def test_what_a_joint_without_confidence_says_is_nothing(tmp_path):
    some = person()
    some[5] = [12.0, 30.0, 0.0]
    write(tmp_path, 0, [some])
    (frame,), _ = openpose(tmp_path)
    assert not frame[0, 5].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:20], "60 numbers; a joint set has 75"),
        (lambda p: p * [1, 1, 3], "confidences outside 0 to 1"),
        (lambda p: p * np.nan, "is nan"),
    ],
)
def test_people_of_another_layout_are_refused(tmp_path, change, message):
    write(tmp_path, 0, [person(), change(person())])
    with pytest.raises(SourceError, match=message) as caught:
        openpose(tmp_path)
    assert "person 1" in str(caught.value)


def test_folders_that_are_not_openpose_s_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"holds no \*_keypoints.json"):
        openpose(tmp_path)
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(SourceError, match="no frame's number"):
        openpose(tmp_path)
    (tmp_path / "notes.json").unlink()
    write(tmp_path, 3, [person()])
    write(tmp_path, 3, [person()], video="b_video")
    with pytest.raises(SourceError, match="is frame 3, as"):
        openpose(tmp_path)
    (tmp_path / "b_video_000000000003_keypoints.json").unlink()
    write(tmp_path, 4, [person(18)])
    with pytest.raises(SourceError, match="25 joints in frame 3, 18 joints in frame 4"):
        openpose(tmp_path)
    (tmp_path / "a_video_000000000004_keypoints.json").write_text('{"people": {}}')
    with pytest.raises(SourceError, match="`people` is a dict"):
        openpose(tmp_path)
    (tmp_path / "a_video_000000000004_keypoints.json").write_text("[")
    with pytest.raises(SourceError, match="not readable JSON"):
        openpose(tmp_path)
