"""The MPI-INF-3DHP loader, on small files written from the published layout by `tests.layouts`."""

import argparse
import re
import shutil
from itertools import chain

import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy.io import loadmat, savemat

from data_prep import mpi_inf_3dhp
from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.sources import SourceError
from tests.layouts import mpi_inf_3dhp as layout

JOINTS = skeleton.get("h36m17").joints
# What the files call the joints that h36m17 calls otherwise.
THEIRS = {"thorax": "neck", "neck": "head", "head": "head_top"}
TRAIN = [layout.JOINTS28.index(THEIRS.get(name, name)) for name in JOINTS]
TEST = [layout.JOINTS17.index(THEIRS.get(name, name)) for name in JOINTS]
SMALL = {"train": ("S1/Seq1",), "test": ("TS1",)}


def read(folder, proof=None, **flags):
    defaults = {"cameras": mpi_inf_3dhp.CAMERAS, "universal": False}
    proof = proof or Proof()
    args = argparse.Namespace(source=folder, **{**defaults, **flags})
    records = list(chain.from_iterable(mpi_inf_3dhp.read(args, proof).splits.values()))
    for record in records:
        schema.validate(record)
    by_clip = {record.identity.clip: record for record in records}
    assert len(by_clip) == len(records)
    return by_clip, proof


def in_camera(record, view):
    """The labels `[T, 17, 3]` as the view's camera has them."""
    cameras = record.clip.observations.cameras
    turned = np.einsum("tij,tkj->tki", cameras.rotation[:, view], record.clip.labels.joints)
    return turned + cameras.translation[:, view, None]


def pixels(record):
    """The labels `[T, V, 17, 2]` as the cameras see them, which have no distortion."""
    cameras = record.clip.observations.cameras
    views = range(cameras.tangential.shape[1])
    seen = np.stack([in_camera(record, view) for view in views], axis=1)
    scaled = seen[..., :2] / seen[..., 2:] * cameras.focal[:, :, None]
    return scaled + cameras.center[:, :, None]


def test_clips_of(records, name):
    """The test clips of a sequence by their first frame."""
    found = [r for clip, r in records.items() if clip.startswith(f"{name}_")]
    return sorted(found, key=lambda record: record.identity.start)


test_clips_of.__test__ = False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mpi")
    return folder, layout.write(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return folder, layout.write(folder, **SMALL)


@pytest.fixture
def own(one, tmp_path):
    shutil.copytree(one[0], tmp_path / "own")
    return tmp_path / "own"


def test_training_sequences(whole):
    records, _ = read(whole[0])
    for name in ("S1/Seq1", "S1/Seq2", "S2/Seq1", "S8/Seq2"):
        clip, record = whole[1].clips[name], records[name.replace("/", "_")]
        found, identity = record
        np.testing.assert_allclose(found.labels.joints, clip.joints[:, TRAIN], atol=1e-5)
        points = clip.keypoints["annot2"][:, list(layout.VNECT)][:, :, TRAIN]
        np.testing.assert_allclose(found.observations.keypoints, points, rtol=1e-7)
        assert found.observations.confidence.min() == found.labels.joints_valid.min() == 1
        for view, number in enumerate(layout.VNECT):
            seen = clip.more["in_camera"][:, number, TRAIN]
            np.testing.assert_allclose(in_camera(record, view), seen, atol=1e-5)
        assert identity == schema.Identity(
            dataset="mpi_inf_3dhp",
            subject=clip.subject,
            action=clip.action,
            clip=name.replace("/", "_"),
            recording=name.replace("/", "_"),
            camera_names=tuple(f"camera{number}" for number in layout.VNECT),
            start=0,
            group=clip.action,
            split="train",
            fps=layout.FPS[name],
            keypoint_skeleton="h36m17",
            joint_skeleton="h36m17",
            keypoint_source="annotation",
        )


def test_rates_are_those_of_the_set_s_own_table():
    assert {name: fps for name, (fps, _) in mpi_inf_3dhp.SEQUENCES.items()} == layout.FPS


def test_keypoints_are_the_joints_that_the_cameras_see(whole):
    record = read(whole[0], cameras=range(14))[0]["S2_Seq1"]
    observations = record.clip.observations
    np.testing.assert_allclose(pixels(record), observations.keypoints, atol=2e-3)
    assert (observations.cameras.size == 2048).all()


@pytest.mark.parametrize("name", ["TS1", "TS2", "TS5"])
def test_test_sequences_are_cut_by_activity(whole, name):
    records = test_clips_of(read(whole[0])[0], name)
    clip = whole[1].clips[name]
    more, activity = clip.more, clip.more["activity"]
    stops = [record.identity.start + len(record.clip.labels.joints) for record in records]
    for record, stop in zip(records, stops, strict=True):
        at, identity = slice(record.identity.start, stop), record.identity
        (number,) = set(activity[at])
        assert identity.action == identity.group == mpi_inf_3dhp.ACTIVITIES[number - 1]
        assert (identity.subject, identity.recording, identity.fps) == (name, name, 25)
        assert len(identity.camera_names) == 8
        valid, labels = more["valid"][at], record.clip.labels
        np.testing.assert_array_equal(labels.joints_valid, np.tile(valid[:, None], (1, 17)))
        seen = more["in_camera"][at, 0][:, TEST]
        np.testing.assert_allclose(in_camera(record, 0)[valid], seen[valid], atol=1e-5)
        observations = record.clip.observations
        np.testing.assert_array_equal(observations.confidence[:, 0], labels.joints_valid)
        points = clip.keypoints["annot2"][at][:, :, TEST]
        np.testing.assert_allclose(observations.keypoints[:, :1], points, rtol=1e-7)
        assert not observations.confidence[:, 1:].any()
        assert not observations.keypoints[:, 1:].any()
    assert {number - 1 for number in activity[more["valid"]]} == {
        mpi_inf_3dhp.ACTIVITIES.index(record.identity.action) for record in records
    }


def test_the_test_set_s_cameras(whole):
    """Fitted to the published annotations by others (`cam_intri` in public evaluation code)."""
    records = read(whole[0])[0]
    fitted = {
        "TS1": ([1500.069, 1500.659], [1017.379, 1043.063], [2048, 2048]),
        "TS5": ([1683.483, 1671.927], [939.928, 560.207], [1920, 1080]),
    }
    for name, (focal, center, size) in fitted.items():
        record = test_clips_of(records, name)[0]
        cameras = record.clip.observations.cameras
        np.testing.assert_allclose(cameras.focal[0, 0], focal, atol=0.7)
        np.testing.assert_allclose(cameras.center[0, 0], center, atol=0.1)
        np.testing.assert_array_equal(cameras.size[0, 0], size)
        assert not cameras.distortion.any()


def test_people_of_both_splits_stand_upright(whole):
    records = read(whole[0])[0]
    for name in ("S1_Seq1", test_clips_of(records, "TS1")[0].identity.clip):
        labels = records[name].clip.labels
        joints = labels.joints[labels.joints_valid[:, 0] > 0]
        trunk = joints[:, JOINTS.index("thorax")] - joints[:, JOINTS.index("pelvis")]
        assert (trunk[:, 2] > 0.9 * np.linalg.norm(trunk, axis=-1)).all()


def test_points_of_frames_that_are_not_valid_are_kept_where_there_are_any(own):
    layout._retest(
        layout._put("annot2", lambda x: np.where(x == 0, 77.0, x)),
    ).apply(own)
    records = test_clips_of(read(own)[0], "TS1")
    valid = np.concatenate([r.clip.labels.joints_valid[:, 0] for r in records])
    seen = np.concatenate([r.clip.observations.confidence[:, 0, 0] for r in records])
    assert not valid.all()
    assert seen.all()


def test_frames_without_an_image_are_left_out(own, one, monkeypatch):
    monkeypatch.setitem(mpi_inf_3dhp.SEQUENCES, "S1/Seq1", (25, 7))
    found = read(own)[0]["S1_Seq1"].clip.labels.joints
    np.testing.assert_allclose(found, one[1].clips["S1/Seq1"].joints[:7, TRAIN], atol=1e-5)


def test_universal_joints_stand_where_the_person_stands(own, one):
    records = read(own, universal=True)[0]
    joints = one[1].clips["S1/Seq1"].joints[:, TRAIN]
    pelvis = joints[:, :1]
    record = records["S1_Seq1"]
    found = record.clip.labels.joints
    np.testing.assert_allclose(found, pelvis + 0.93 * (joints - pelvis), atol=1e-5)
    keypoints = record.clip.observations.keypoints
    np.testing.assert_allclose(keypoints, pixels(record), atol=2e-3)
    assert record.identity.keypoint_source == "projected"
    record = test_clips_of(records, "TS1")[0]
    seen = one[1].clips["TS1"].more["in_camera"][:2, 0][:, TEST]
    expected = seen[:, :1] + 0.93 * (seen - seen[:, :1])
    np.testing.assert_allclose(in_camera(record, 0)[:2], expected, atol=1e-5)


def test_cells_belong_to_the_cameras_that_the_file_names(own, one):
    path = own / "S1/Seq1/annot.mat"
    table = {key: x for key, x in loadmat(path).items() if not key.startswith("__")}
    for key in ("annot2", "annot3", "univ_annot3", "cameras"):
        table[key] = table[key][:, ::-1] if key == "cameras" else table[key][::-1]
    savemat(path, table)
    found = read(own, cameras=[2, 9])[0]["S1_Seq1"].clip.observations.keypoints
    points = one[1].clips["S1/Seq1"].keypoints["annot2"][:, [2, 9]][:, :, TRAIN]
    np.testing.assert_allclose(found, points, rtol=1e-7)


def test_sequences_that_are_not_there_are_reported(one):
    _, proof = read(one[0])
    skipped = [what for what, _ in proof.skipped if "frames" not in what]
    assert len(skipped) == 15 + 5
    assert {"S8/Seq2", "TS6"} <= set(skipped)


@pytest.mark.parametrize("part", ["S1", "mpi_inf_3dhp_test_set"])
def test_either_split_alone_will_do(own, part):
    shutil.rmtree(own / part)
    assert {r.identity.split for r in read(own)[0].values()} == {
        "test" if part == "S1" else "train"
    }


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(SourceError, match=r"has no S1/Seq1/annot.mat.*give the folder"):
        read(tmp_path)


def test_the_folders_of_the_download_scripts(own, one, tmp_path):
    outer = tmp_path / "outer"
    shutil.move(own / "S1", outer / "mpi_inf_3dhp/S1")
    tests = "mpi_inf_3dhp_test_set"
    shutil.move(own / tests, outer / tests / tests)
    assert set(read(outer)[0]) == set(read(one[0])[0])


def test_cameras_that_do_not_agree(own):
    text = (own / "S1/Seq1/camera.calibration").read_text()
    swapped = re.sub(r"name          (0|1)\n", lambda m: f"name          {1 - int(m[1])}\n", text)
    (own / "S1/Seq1/camera.calibration").write_text(swapped)
    with pytest.raises(SourceError, match=r"annot.mat, key annot3: cameras 0 and 1.*fetch"):
        read(own)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("intrinsic   1497 ", "intrinsic   -1497 ", "camera 0, keys intrinsic and size"),
        ("extrinsic   ", "extrinsic   7", "camera 0, key extrinsic: is no rotation"),
    ],
)
def test_cameras_that_cannot_be(own, old, new, message):
    path = own / "S1/Seq1/camera.calibration"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SourceError, match=message):
        read(own)


@pytest.mark.parametrize(
    ("cameras", "message"), [([0, 0], "names a camera twice"), ([0, 14], "'14'")]
)
def test_cameras_that_are_not_there(one, cameras, message):
    with pytest.raises(SourceError, match=message):
        read(one[0], cameras=cameras)


def test_frames_without_an_activity_continue_the_one_before_them(own, one):
    more = one[1].clips["TS1"].more

    def change(x):
        x[~more["valid"]] = 0
        return x

    layout._retest(layout._put("activity_annotation", change)).apply(own)
    records = test_clips_of(read(own)[0], "TS1")
    frames = {r.identity.start: len(r.clip.labels.joints) for r in records}
    # The layout's activities are 1 1 2 3 3 4 5 5 6 7, and its frames 3 and 8 are not valid.
    assert frames == {0: 2, 2: 2, 4: 1, 5: 1, 6: 3, 9: 1}


def test_no_activity_in_a_valid_frame(own):
    layout._retest(layout._put("activity_annotation", lambda x: x + 1)).apply(own)
    with pytest.raises(SourceError, match=r"annot_data.mat, key activity_annotation.*1 to 7"):
        read(own)


@pytest.mark.parametrize("damage", layout.DAMAGES.values(), ids=layout.DAMAGES)
def test_damage_is_an_error_that_names_file_key_and_remedy(own, damage):
    damage.apply(own)
    with pytest.raises(SourceError) as caught:
        read(own, cameras=range(14))
    message = str(caught.value)
    assert not [name for name in damage.names if name not in message], message
    assert str(own) in message
    assert re.search(r"(?i)fetch|choose|layout", message), message


def test_the_command_needs_no_other_flag(one, tmp_path, capsys):
    output = tmp_path / "output"
    mpi_inf_3dhp.main(["--source", str(one[0]), "--output", str(output)])
    builder = tfds.builder_from_directory(output)
    assert len(builder.as_data_source("train")) == 1
    assert len(builder.as_data_source("test")) == len(test_clips_of(read(one[0])[0], "TS1"))
    assert "mpi_inf_3dhp in" in capsys.readouterr().out


def test_the_command_s_flags(one, tmp_path):
    output = tmp_path / "output"
    flags = ["--cameras", "13", "2", "--universal"]
    mpi_inf_3dhp.main(["--source", str(one[0]), "--output", str(output), *flags])
    builder = tfds.builder_from_directory(output)
    assert builder.info.metadata["keypoint_source"] == "projected"
    assert builder.info.features["keypoints"].shape == (None, 2, 17, 2)
