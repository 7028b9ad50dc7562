"""COCO's, AlphaPose's, MMPose's and MediaPipe's JSON, by hand, and JSON that is not."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import skeleton
from pose3d_jax.formats import keypoints
from pose3d_jax.sources import SourceError
from tests.layouts.detectors import SETS, entry, instance, only, person, save


def meta(names):
    return {"dataset_name": "of it", "keypoint_id2name": dict(enumerate(names))}


# --- COCO and AlphaPose ---


@pytest.mark.parametrize("joints", [17, 26])
@pytest.mark.parametrize("name", [int, "{}.jpg".format, "some/frame_{:06}.png".format])
def test_lists_of_coco_and_alphapose_are_sorted_into_frames(tmp_path, joints, name):
    a, b, c = person(joints), person(joints), person(joints)
    a[0, 2] = 1.08
    table = [
        entry(name(14), c, idx=1), entry(name(12), a, idx=3.0), entry(name(12), b, idx=1),
    ]  # fmt: skip
    seen = only(save(tmp_path / "results.json", table))
    assert list(keypoints.read(tmp_path / "results.json")) == ["results"]
    assert seen.skeleton.name == SETS[joints]
    assert (seen.first, [len(p) for p in seen.people]) == (12, [2, 0, 1])
    assert [found.tolist() for found in seen.ids] == [[3, 1], [], [1]]
    assert_allclose(seen.people[0], [np.minimum(a, [np.inf, np.inf, 1]), b])
    assert_allclose(seen.people[2], [c])


def test_boxes_that_were_merged_are_no_identities(tmp_path):
    table = [entry("0.jpg", person(17), idx=[0.0]), entry("0.jpg", person(17), idx=[0.0, 0.0])]
    assert only(save(tmp_path / "results.json", table)).ids is None


@pytest.mark.parametrize(
    ("held", "joints"),
    [
        (lambda p: {"version": "0.3", "people": [{"pose_keypoints_2d": p}]}, 18),
        (lambda p: {"version": "0.3", "bodies": [{"joints": p}]}, 18),
        (lambda p: [{"keypoints": p, "idx": 0}], 17),
    ],
)
def test_alphapose_s_dicts_are_by_image(tmp_path, held, joints):
    some = person(joints)
    nobody = {"people": []} if joints == 18 else []
    path = save(tmp_path / "a.json", {"3.jpg": held(some.ravel().tolist()), "5.jpg": nobody})
    seen = only(path)
    assert (seen.first, [len(p) for p in seen.people]) == (3, [1, 0, 0])
    assert seen.skeleton.name == SETS[joints]
    assert_allclose(seen.people[0][0], some)
    save(path, {"3.jpg": held(some.ravel().tolist()), "b_3.jpg": nobody})
    with pytest.raises(SourceError, match=r"b_3.jpg: is frame 3, as another image is"):
        keypoints.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "photo.jpg"}, "entry 1, image_id: is 'photo.jpg', which has no frame's"),
        ({"image_id": -3}, "is -3, which has no frame's number"),
        ({"image_id": "b_12.jpg"}, "entry 1: b_12.jpg is frame 12, as 12.jpg is"),
        ({"keypoints": [1.0, 2.0, 6.0] * 17}, "frame 12, nose: has confidence 6"),
        ({"keypoints": [1.0, 2.0, 0.5] * 16}, "16 joints"),
        ({"keypoints": [1.0, 2.0, 0.5] * 26}, "17 joints in frame 12, 26 joints in frame 12"),
        ({"keypoints": ["1", "2"]}, "not an array of numbers"),
        ({"keypoints": [1.0, None, 0.5] * 17}, "not an array of numbers"),
        ({"idx": 1.5}, "is person 1.5, which is no whole number"),
        ({"idx": 0}, "frame 12: two people are number 0"),
    ],
)
def test_entries_that_are_not_people_are_refused(tmp_path, change, message):
    table = [entry("12.jpg", person(17), idx=0), {**entry("12.jpg", person(17)), **change}]
    with pytest.raises(SourceError, match=message):
        keypoints.read(save(tmp_path / "results.json", table))


def test_boxes_alone_are_no_keypoints(tmp_path):
    table = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.9}]
    with pytest.raises(SourceError, match="has no 'keypoints'"):
        keypoints.read(save(tmp_path / "results.json", table))


# --- MMPose ---


@pytest.mark.parametrize("whole", [True, False])
def test_mmpose_s_videos(tmp_path, whole):
    a, b = person(17), person(17)
    a[1, 2] = 1.11
    table = [
        {"frame_id": 1, "instances": []},
        {"frame_id": 2, "instances": [instance(a), instance(b)]},
        {"frame_id": 3, "instances": []},
    ]
    if whole:
        table = {"meta_info": meta(skeleton.get("coco17").joints), "instance_info": table}
    seen = only(save(tmp_path / "video.json", table))
    assert (seen.skeleton.name, seen.first, seen.ids) == ("coco17", 1, None)
    assert [len(p) for p in seen.people] == [0, 2, 0]
    assert_allclose(seen.people[1], [np.minimum(a, [np.inf, np.inf, 1]), b])


def test_mmpose_s_images_are_a_folder_of_frames(tmp_path):
    a, b = person(26), person(26)
    names = ["hip" if n == "mid_hips" else n for n in skeleton.get("halpe26").joints]
    save(tmp_path / "shot" / "000004.json", [instance(a)])
    save(tmp_path / "shot" / "000005.json", [])
    held = {"meta_info": meta(names), "instance_info": [instance(a), instance(b)]}
    save(tmp_path / "shot" / "000006.json", held)
    ((view, seen),) = keypoints.read(tmp_path / "shot").items()
    assert (view, seen.skeleton.name, seen.first) == ("shot", "halpe26", 4)
    assert [len(p) for p in seen.people] == [1, 0, 2]
    assert_allclose(seen.people[2], [a, b])
    with pytest.raises(SourceError, match="is of one frame; give the folder"):
        keypoints.read(tmp_path / "shot" / "000004.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_id": 7}, "entry 1: is frame 7, as another entry is"),
        ({"frame_id": "?"}, "entry 1, frame_id: is '?'"),
        ({"instances": None}, "frame 8: is a NoneType, not a list"),
        ({"instances": [{"keypoints": [[0, 0]] * 17}]}, "person 0: has no 'keypoint_scores'"),
        ({"instances": [instance(person(17)[:, [0, 1, 1, 2]])]}, "outside 0 to 1"),
        (
            {"instances": [{"keypoints": [[0, 0]] * 17, "keypoint_scores": [0.5] * 16}]},
            r"frame 8, person 0, keypoint_scores: has shape \[16\], expected \[17\]",
        ),
        (
            {"instances": [{"keypoints": [[0, 0, 0]] * 17, "keypoint_scores": [0.5] * 17}]},
            r"keypoints: has shape \[17, 3\], expected \[any, 2\]",  # lifted to 3D
        ),
        (
            {"instances": [instance(person(17) + np.array([np.nan, 0, 0.1]))]},
            "frame 8, person 0, nose: is at nan",
        ),
    ],
)
def test_instances_that_are_not_people_are_refused(tmp_path, change, message):
    table = [
        {"frame_id": 7, "instances": [instance(person(17))]},
        {"frame_id": 8, "instances": [], **change},
    ]
    with pytest.raises(SourceError, match=message):
        keypoints.read(save(tmp_path / "video.json", table))


def test_mmpose_s_names_of_joints_count(tmp_path):
    names = ["root", *skeleton.get("coco17").joints[1:]]
    frames = [{"frame_id": 0, "instances": [instance(person(17))]}]
    path = save(tmp_path / "a.json", {"meta_info": meta(names), "instance_info": frames})
    with pytest.raises(SourceError, match="meta_info: its joints are root, left_eye"):
        keypoints.read(path)
    assert only(path, skeleton="h36m17").skeleton.name == "h36m17"
    names = skeleton.get("coco17").joints[::-1]
    save(path, {"meta_info": meta(names), "instance_info": frames})
    with pytest.raises(SourceError, match="joints of coco17 in another order"):
        keypoints.read(path)


# --- MediaPipe ---

SIZE = (640, 480)


def landmarks(points, form):
    shares = [((x + 0.5) / 640, (y + 0.5) / 480, c) for x, y, c in points]
    if form == "list":
        return [[x, y, -0.2, c] for x, y, c in shares]
    return [{"x": x, "y": y, "z": -0.2, "visibility": c} for x, y, c in shares]


FRAMES = {
    "list": lambda marks: [marks, None, [], marks],
    "dict": lambda marks: [marks, None, [], marks],
    "several": lambda marks: [[marks, marks], [], [], [marks]],
    "tasks": lambda marks: [{"pose_landmarks": x} for x in ([marks], [], [], [marks])],
    "solutions": lambda marks: [
        {"pose_landmarks": {"landmark": marks}}, *[{"pose_landmarks": None}] * 2,
        {"pose_landmarks": {"landmark": marks}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", FRAMES)
def test_landmarks_are_brought_to_pixels(tmp_path, form):
    some = person(33)
    path = save(tmp_path / "cam.json", FRAMES[form](landmarks(some, form)))
    seen = only(path, size=SIZE)
    assert (seen.skeleton.name, seen.first) == ("blazepose33", 0)
    assert [len(p) for p in seen.people] == [2 if form == "several" else 1, 0, 0, 1]
    assert_allclose(seen.people[3][0], some, atol=1e-9)
    with pytest.raises(SourceError, match="give the size of the image"):
        keypoints.read(path)


@pytest.mark.parametrize("form", ["list", "dict", "tasks"])
def test_one_image_s_landmarks_are_one_frame(tmp_path, form):
    marks = landmarks(person(33), form)
    path = save(tmp_path / "cam.json", {"pose_landmarks": marks} if form == "tasks" else marks)
    assert [len(p) for p in only(path, size=SIZE).people] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:32], "frame 1, person 0: has 32 joints, but blazepose33 has 33"),
        (lambda m: [{**m[0], "x": 320.0}, *m[1:]], "at 320 times the image's size"),
        (lambda m: [{"x": 0.5, "y": 0.5}, *m[1:]], "landmark 0: has no 'visibility'"),
        (lambda m: [{**m[0], "visibility": 7.0}, *m[1:]], "nose: has confidence 7"),
        (lambda m: [{**m[0], "x": np.nan}, *m[1:]], "nose: is at nan"),
        (lambda m: [[0.5, 0.5, 0.9]] * 33, r"has shape \[3\], expected \[4\]"),
        (lambda m: {"left_hand_landmarks": m}, "frame 1: has no 'pose_landmarks'"),
    ],
)
def test_landmarks_that_are_not_a_body_are_refused(tmp_path, change, message):
    marks = landmarks(person(33), "dict")
    with pytest.raises(SourceError, match=message):
        keypoints.read(save(tmp_path / "cam.json", [marks, change(marks)]), size=SIZE)
