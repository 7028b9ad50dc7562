"""Which layout a file has, and OpenPose's and Pose2Sim's folders."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax.formats import keypoints
from pose3d_jax.skeleton import SkeletonError
from pose3d_jax.sources import SourceError
from tests.layouts.detectors import SETS, archive, entry, instance, only, person, save, write


@pytest.mark.parametrize(("joints", "name"), SETS.items())
def test_frames_come_in_order_with_their_people(tmp_path, joints, name):
    people = {7: [person(joints), person(joints)], 8: [], 10: [person(joints)]}
    for frame, some in people.items():
        write(tmp_path, frame, some, "pose_keypoints" if joints == 18 else "pose_keypoints_2d")
    for seen in (only(tmp_path), keypoints.openpose(tmp_path)):
        assert seen.skeleton.name == name
        assert (seen.first, seen.ids) == (7, None)
        assert [len(frame) for frame in seen.people] == [2, 0, 0, 1]  # frame 9 has no file
        assert_allclose(seen.people[0], people[7])
        assert_allclose(seen.people[3], people[10])
        assert {frame.shape[1] for frame in seen.people} == {joints}


def test_a_pose2sim_project_has_a_folder_for_each_camera(tmp_path):
    some = person(26)
    write(tmp_path / "pose" / "cam01_json", 0, [some], end="", video="cam01")
    write(tmp_path / "pose" / "cam02_json", 5, [some], end="", video="cam02")
    write(tmp_path / "pose" / "cam03_json", 5, [], end="", video="cam03")
    (tmp_path / "pose" / "cam01_pose.mp4").write_bytes(b"")
    views = keypoints.read(tmp_path / "pose")
    assert {name: seen.first for name, seen in views.items()} == {
        "cam01": 0,
        "cam02": 5,
        "cam03": 5,
    }
    assert {seen.skeleton.name for seen in views.values()} == {"halpe26"}  # of cam03, the others'
    assert_allclose(views["cam02"].people[0][0], some)
    write(tmp_path / "pose" / "cam01", 0, [some])
    with pytest.raises(SourceError, match="cam01_json: has the view cam01, as another"):
        keypoints.read(tmp_path / "pose")


def test_people_whom_the_detector_follows_keep_their_numbers(tmp_path):
    write(tmp_path, 0, [person(), person()], ids=(4, 2))
    write(tmp_path, 2, [person()], ids=(2,))
    assert [found.tolist() for found in only(tmp_path).ids] == [[4, 2], [], [2]]
    write(tmp_path, 3, [person()])  # of whom it is not known
    assert only(tmp_path).ids is None
    write(tmp_path, 3, [person(), person()], ids=(1, 1))
    with pytest.raises(SourceError, match="frame 3: two people are number 1"):
        keypoints.read(tmp_path)


def test_what_a_joint_without_confidence_says_is_nothing(tmp_path):
    some = person(26)
    some[5] = [12.0, 30.0, 0.0]
    some[6] = [np.nan, np.nan, 0.0]
    some[7] = np.nan  # as Pose2Sim writes joints that are lost
    some[8] = [12.0, 30.0, -0.01]  # as RTMPose may
    some[9] = [12.0, 30.0, 1.3]
    write(tmp_path, 0, [some, np.zeros((26, 3))])  # the second is nobody
    ((found,),) = only(tmp_path).people
    assert not found[5:9].any()
    assert found[9].tolist() == [12.0, 30.0, 1.0]
    assert_allclose(found[10:], some[10:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:20], r"20 joints; those known by their number are 17 \(coco17\)"),
        (lambda p: np.tile(p, (6, 1))[:133], r"133 joints \(COCO-WholeBody\)"),
        (lambda p: p.ravel()[:-1], "74 numbers, which are not x, y, confidence"),
        (lambda p: p * [1, 1, 0] + [0, 0, 2], "nose: has confidence 2, outside 0 to 1"),
        (lambda p: p + np.array([0, np.nan, 0.1]), "nose: is at .*, nan with confidence"),
        (lambda p: p + np.array([0, 0, np.nan]), "nose: is at .* with confidence nan"),
    ],
)
def test_people_of_another_layout_are_refused(tmp_path, change, message):
    write(tmp_path, 0, [person(), change(person())])
    with pytest.raises(SourceError, match=message) as caught:
        keypoints.read(tmp_path)
    assert "000000_keypoints.json, person 1" in str(caught.value)


def test_folders_that_are_not_openpose_s_are_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no keypoints"):
        keypoints.read(tmp_path)
    with pytest.raises(SourceError, match=r"holds no \*_keypoints.json"):
        keypoints.openpose(tmp_path)
    save(tmp_path / "notes.json", {"people": []})
    with pytest.raises(SourceError, match="no frame's number"):
        keypoints.read(tmp_path)
    (tmp_path / "notes.json").unlink()
    write(tmp_path, 3, [person()])
    write(tmp_path, 3, [person()], video="b_video")
    with pytest.raises(SourceError, match="is frame 3, as"):
        keypoints.read(tmp_path)
    (tmp_path / "b_video_000000000003_keypoints.json").unlink()
    write(tmp_path, 4, [person(18)])
    with pytest.raises(SourceError, match="25 joints in frame 3, 18 joints in frame 4"):
        keypoints.read(tmp_path)
    last = tmp_path / "a_video_000000000004_keypoints.json"
    for text, message in (
        ('{"people": {}}', "people: is a dict, not a list"),
        ('{"people": [[]]}', "person 0: is a list, not a dict"),
        ("{}", "has no 'people'"),
        ("[", "not readable JSON"),
    ):
        last.write_text(text)
        with pytest.raises(SourceError, match=message):
            keypoints.read(tmp_path)


def test_nobody_has_the_joint_set_that_is_named(tmp_path):
    write(tmp_path, 3, [])
    assert keypoints.openpose(tmp_path).skeleton.name == "body25"
    assert only(tmp_path, skeleton="coco18").people[0].shape == (0, 18, 3)
    with pytest.raises(SourceError, match="nobody is in any frame"):
        keypoints.read(tmp_path)


def test_a_joint_set_may_be_named(tmp_path):
    write(tmp_path, 0, [person(17)])
    assert only(tmp_path).skeleton.name == "coco17"
    assert only(tmp_path, skeleton="h36m17").skeleton.name == "h36m17"
    with pytest.raises(SourceError, match="17 joints, but mpii16 has 16"):
        keypoints.read(tmp_path, skeleton="mpii16")
    with pytest.raises(SkeletonError, match="no skeleton is named 'coco'"):
        keypoints.read(tmp_path, skeleton="coco")


def test_numbers_that_are_no_frames_are_refused(tmp_path):
    write(tmp_path, 3, [person()])
    write(tmp_path, 1732000000, [person()])
    with pytest.raises(SourceError, match="frames 3 to 1732000000, which cannot be"):
        keypoints.read(tmp_path)


@pytest.mark.parametrize(
    "table", [{}, [], [[]], [None], ["a"], {"annotations": [{}]}, [{"a": 1}], [[3]]]
)
def test_other_json_is_refused(tmp_path, table):
    with pytest.raises(SourceError, match=r"is no layout of keypoints that is known|give the size"):
        keypoints.read(save(tmp_path / "a.json", table))


def test_files_that_are_missing_or_cut_are_refused(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        keypoints.read(tmp_path / "none.json")
    (tmp_path / "a.json").write_text('[{"image_id": 3')
    with pytest.raises(SourceError, match="not readable JSON"):
        keypoints.read(tmp_path / "a.json")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SourceError, match="not a readable npz"):
        keypoints.read(tmp_path / "a.npz")


def test_a_folder_of_results_has_a_view_for_each_file(tmp_path):
    save(tmp_path / "a.json", [entry("3.jpg", person(17))])
    save(tmp_path / "b.json", [{"frame_id": 1, "instances": [instance(person(17))]}])
    views = keypoints.read(tmp_path)
    assert {name: seen.first for name, seen in views.items()} == {"a": 3, "b": 1}
    np.savez(tmp_path / "c.npz", **{**archive(), "views": ["a", "c"]})
    with pytest.raises(SourceError, match=r"c.npz: has the view a, as another"):
        keypoints.read(tmp_path)


def test_views_are_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        folder = tmp_path / f"cam{number}_json"
        folder.mkdir()
        write(folder, 0, [person()])
    assert list(keypoints.read(tmp_path)) == ["cam1", "cam2", "cam10"]
