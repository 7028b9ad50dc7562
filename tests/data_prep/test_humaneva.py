"""The HumanEva loader, on small files written from the published layout by `tests.layouts`."""

import argparse
import re
import shutil
from itertools import chain

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import humaneva
from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.sources import SourceError
from tests.layouts import humaneva as layout
from tests.layouts import people

TWO = "data_2d_humaneva15_gt.npz"
AT = ("Train/S1", "Walking 1 chunk0")
# What is no damage to this loader: no 2D file, a view, or a sequence is reported and left out.
TOLERATED = {"no 2d file", "camera is None", "fewer frames 2d"}
DAMAGES = {name: damage for name, damage in layout.DAMAGES.items() if name not in TOLERATED}
REMEDY = r"(?i)fetch|convert|save|choose|give|scale"


def read(folder, proof=None, **flags):
    """Records by clip, and the proof."""
    defaults = {"joints": None, "detections": None, "actions": list(humaneva.PROTOCOL)}
    proof = proof or Proof()
    dataset = humaneva.read(argparse.Namespace(source=folder, **{**defaults, **flags}), proof)
    records = list(chain.from_iterable(dataset.splits.values()))
    for record in records:
        schema.validate(record)
    by_clip = {record.identity.clip: record for record in records}
    assert len(by_clip) == len(records)
    return by_clip, proof


def name_of(part, clip):
    return f"{part}_{clip.subject}_{clip.action}".replace(" ", "_")


def edit_2d(folder, change, view=None):
    """Changes a sequence's list of views, or one view."""

    def edit(positions):
        views = list(positions[AT[0]][AT[1]])
        if view is None:
            views = change(views)
        else:
            views[view] = change(views[view])
        return {**positions, AT[0]: {**positions[AT[0]], AT[1]: views}}

    people.edit_npz(folder / TWO, positions_2d=edit)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("humaneva")
    return folder, layout.write(folder, detections=("gt", "detectron_pt_coco"))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One sequence of a train and a test subject, to be copied and changed."""
    folder = tmp_path_factory.mktemp("one")
    subjects = ("Train/S1", "Validate/S2")
    return folder, layout.write(folder, subjects=subjects, actions=("Walking 1",))


@pytest.fixture
def own(one, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(one[0], folder)
    return folder


@pytest.mark.parametrize(("joints", "modern"), [(15, False), (15, True), (20, False)])
def test_all_that_is_in_the_files_is_found(tmp_path, joints, modern):
    truth = layout.write(tmp_path, joints=joints, modern=modern)
    records, _ = read(tmp_path, actions=["all"])
    assert len(records) == len(truth.clips) == 56
    for (subject, _), clip in truth.clips.items():
        part = subject.partition("/")[0]
        found, identity = records[name_of(part, clip)]
        observations, labels = found.observations, found.labels
        np.testing.assert_allclose(labels.joints, clip.joints, atol=1e-6)
        np.testing.assert_array_equal(observations.keypoints, clip.keypoints["gt"])
        assert observations.confidence.min() == labels.joints_valid.min() == 1
        action = clip.action.partition(" ")[0]
        assert identity == schema.Identity(
            dataset="humaneva",
            subject=clip.subject,
            action=action,
            clip=name_of(part, clip),
            recording=f"humaneva_{clip.subject}",
            camera_names=("C1", "C2", "C3"),
            start=0,
            group=action,
            split={"Train": "train", "Validate": "test"}[part],
            fps=60.0,
            keypoint_skeleton=f"humaneva{joints}",
            joint_skeleton=f"humaneva{joints}",
            keypoint_source="gt",
        )


def test_joints_stand_in_the_published_order(whole):
    clip = next(iter(whole[1].clips.values()))
    assert skeleton.get("humaneva15").joints == clip.joint_names
    assert skeleton.get("coco17").joints == clip.keypoint_names["detectron_pt_coco"]
    parents = (-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1)
    assert skeleton.get("humaneva15").parents == parents


def test_by_default_the_protocol_s_actions_and_the_exact_points(whole):
    records, proof = read(whole[0])
    assert {record.identity.action for record in records.values()} == {"Walking", "Jog", "Box"}
    assert {record.identity.keypoint_source for record in records.values()} == {"gt"}
    assert [what for what, _ in proof.skipped] == ["action Gestures, ThrowCatch"]


def test_actions_can_be_chosen(whole):
    records, _ = read(whole[0], actions=["Jog"])
    assert {record.identity.action for record in records.values()} == {"Jog"}
    assert len(records) == 12


def test_an_action_that_is_not_there(own):
    with pytest.raises(SourceError, match=r"data_3d_humaneva15.npz.*no sequence of Jog.*Walking"):
        read(own, actions=["Jog"])


def test_a_detector_s_points_keep_their_joint_set(whole):
    records, _ = read(whole[0], detections="detectron_pt_coco")
    clip = whole[1].clips[AT]
    record = records["Train_S1_Walking_1_chunk0"]
    found = record.clip.observations.keypoints
    np.testing.assert_array_equal(found, clip.keypoints["detectron_pt_coco"])
    assert record.identity.keypoint_source == "detectron_pt_coco"
    assert record.identity.keypoint_skeleton == "coco17"
    assert record.identity.joint_skeleton == "humaneva15"


def test_the_only_detector_is_taken_and_of_several_one_has_to_be_chosen(own):
    (own / TWO).rename(own / "data_2d_humaneva15_cpn.npz")
    records, _ = read(own)
    assert {record.identity.keypoint_source for record in records.values()} == {"cpn"}
    shutil.copy(own / "data_2d_humaneva15_cpn.npz", own / "data_2d_humaneva15_sh.npz")
    with pytest.raises(SourceError, match=r"cpn, sh; choose with --detections"):
        read(own)
    assert read(own, detections="sh")[0]
    with pytest.raises(SourceError, match=r"no data_2d_humaneva15_gt.npz.*cpn, sh"):
        read(own, detections="gt")


@pytest.mark.parametrize("asked", [True, False])
def test_without_2d_the_cameras_see_the_joints(own, one, asked):
    if not asked:
        (own / TWO).unlink()
    records, _ = read(own, detections="projected" if asked else None)
    assert len(records) == 4
    for (subject, _), clip in one[1].clips.items():
        record = records[name_of(subject.partition("/")[0], clip)]
        assert record.identity.keypoint_source == "projected"
        found = record.clip.observations.keypoints
        # The file's elbows, knees and thorax are means of projections, not projections of means.
        np.testing.assert_allclose(found, clip.keypoints["gt"], atol=0.05)
        np.testing.assert_allclose(found[:, :, 0], clip.keypoints["gt"][:, :, 0], atol=1e-3)


def test_sequences_absent_in_2d_are_left_out_and_reported(tmp_path):
    truth = layout.write(tmp_path, actions=("Jog 1",), absent_2d=[("Train/S2", "Jog 1 chunk2")])
    records, proof = read(tmp_path)
    assert len(records) == len(truth.clips) == 11
    assert "Train_S2_Jog_1_chunk2" not in records
    assert [what for what, _ in proof.skipped] == ["Train_S2_Jog_1_chunk2"]


def test_subjects_that_are_not_there_are_reported(own):
    _, proof = read(own)
    missing = ["Train/S2", "Train/S3", "Validate/S1", "Validate/S3"]
    assert [what for what, _ in proof.skipped] == missing


def test_points_beyond_the_last_pose_are_cut_off(own, one):
    edit_2d(own, lambda views: [np.concatenate([x, x[-1:] + 7]) for x in views])
    found = read(own)[0]["Train_S1_Walking_1_chunk0"].clip.observations.keypoints
    np.testing.assert_array_equal(found, one[1].clips[AT].keypoints["gt"])


def test_a_sequence_with_too_few_points_is_left_out_and_reported(own):
    edit_2d(own, lambda x: x[:-3], view=1)
    records, proof = read(own)
    assert len(records) == 3
    assert ("Train_S1_Walking_1_chunk0", "21 frames in 2D (C2), but 24 in 3D") in proof.skipped


def test_a_view_of_none_is_missing_and_reported(own, one):
    edit_2d(own, lambda x: None, view=1)
    records, proof = read(own)
    observations = records["Train_S1_Walking_1_chunk0"].clip.observations
    assert observations.confidence.mean((0, 2)).tolist() == [1, 0, 1]
    assert not observations.keypoints[:, 1].any()
    clip = one[1].clips[AT]
    np.testing.assert_array_equal(observations.keypoints[:, 2], clip.keypoints["gt"][:, 2])
    assert "Train_S1_Walking_1_chunk0, C2" in [what for what, _ in proof.skipped]


def test_a_third_column_is_the_confidence(own, one):
    edit_2d(own, lambda x: np.concatenate([x, np.full((*x.shape[:2], 1), 0.25)], -1), view=1)
    observations = read(own)[0]["Train_S1_Walking_1_chunk0"].clip.observations
    assert observations.confidence.mean((0, 2)).tolist() == [1, 0.25, 1]
    truth = one[1].clips[AT].keypoints["gt"]
    np.testing.assert_array_equal(observations.keypoints, truth)
    edit_2d(own, lambda x: x * [1, 1, 40], view=1)
    with pytest.raises(SourceError, match=r"Walking 1 chunk0, C2.*confidence, is 10.*scale it"):
        read(own)


def test_a_confidence_may_pass_1_by_a_little(own):
    edit_2d(own, lambda x: np.concatenate([x, np.full((*x.shape[:2], 1), 1.04)], -1), view=1)
    observations = read(own)[0]["Train_S1_Walking_1_chunk0"].clip.observations
    assert observations.confidence.max() == 1


def test_the_joint_set_of_points_without_a_layout_name_is_told_by_their_sides(own):
    people.edit_npz(
        own / TWO,
        metadata=lambda old: {key: old[key] for key in ("num_joints", "keypoints_symmetry")},
    )
    assert {r.identity.keypoint_skeleton for r in read(own)[0].values()} == {"humaneva15"}
    people.edit_npz(own / TWO, metadata=lambda old: {**old, "keypoints_symmetry": [[1], [2]]})
    with pytest.raises(SourceError, match=r"keypoints_symmetry \[\[1\], \[2\]\].*Convert"):
        read(own)


def test_further_keys_may_hold_anything(own):
    for name, key in ((TWO, "positions_2d"), ("data_3d_humaneva15.npz", "positions_3d")):
        people.edit_npz(own / name, **{key: lambda old: old})
        with np.load(own / name, allow_pickle=True) as data:
            objects = {k: data[k].item() for k in data}
        people.npz(own / name, **objects, args={"lr": 1})
        people.foreign_npz(own / name, "args", "os.system")
    assert len(read(own)[0]) == 4


def test_keys_of_bytes(own, one):
    """As files of Python 2 have them that were read with `encoding="bytes"`, and saved again."""

    def to_bytes(value):
        if isinstance(value, dict):
            return {key.encode(): to_bytes(x) for key, x in value.items()}
        return value.encode() if isinstance(value, str) else value

    people.edit_npz(own / TWO, positions_2d=to_bytes, metadata=to_bytes)
    people.edit_npz(own / "data_3d_humaneva15.npz", positions_3d=to_bytes)
    records, _ = read(own)
    found = records["Train_S1_Walking_1_chunk0"]
    assert found.identity.keypoint_skeleton == "humaneva15"
    truth = one[1].clips[AT].keypoints["gt"]
    np.testing.assert_array_equal(found.clip.observations.keypoints, truth)


@pytest.mark.parametrize("wrap", [np.array, lambda x: np.array([*x, None], object)[:3], tuple])
def test_views_in_an_array_or_a_tuple(own, one, wrap):
    edit_2d(own, wrap)
    found = read(own)[0]["Train_S1_Walking_1_chunk0"].clip.observations.keypoints
    np.testing.assert_array_equal(found, one[1].clips[AT].keypoints["gt"])


def test_files_are_found_at_any_depth_and_copies_reported(own, one, tmp_path):
    for depth in ("deep/er", "deep/er/copy"):
        shutil.copytree(own, tmp_path / "outer" / depth, dirs_exist_ok=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/data").symlink_to(tmp_path / "outer")
    (tmp_path / "outer/back").symlink_to(tmp_path / "linked")
    records, proof = read(tmp_path / "linked")
    assert len(records) == len(one[1].clips)
    copies = [what for what, _ in proof.skipped if what.endswith(".npz")]
    assert [copy.partition("copy/")[2] for copy in copies] == ["data_3d_humaneva15.npz", TWO]


def test_15_joints_go_before_20(own):
    layout.write(own, joints=20, subjects=("Train/S1",), actions=("Box 1",), stray=False)
    assert {r.identity.joint_skeleton for r in read(own)[0].values()} == {"humaneva15"}
    assert {r.identity.joint_skeleton for r in read(own, joints=20)[0].values()} == {"humaneva20"}
    (own / "data_3d_humaneva20.npz").unlink()
    with pytest.raises(SourceError, match=r"has no data_3d_humaneva20.npz"):
        read(own, joints=20)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_an_error_that_names_file_key_and_remedy(own, damage):
    read(own)
    damage.apply(own)
    with pytest.raises(SourceError) as caught:
        read(own)
    message = str(caught.value)
    assert not [name for name in damage.names if name not in message], message
    assert str(own) in message
    assert re.search(REMEDY, message), message


def test_the_command_needs_no_other_flag(whole, tmp_path, capsys):
    output = tmp_path / "output"
    humaneva.main(["--source", str(whole[0]), "--output", str(output)])
    builder = tfds.builder_from_directory(output)
    counts = {split: len(builder.as_data_source(split)) for split in builder.info.splits}
    assert counts == {"train": 18, "test": 18}
    assert "warning" not in capsys.readouterr().out


def test_a_damaged_file_ends_the_command_with_nothing_written(own, tmp_path, capsys):
    layout.DAMAGES["nan 3d"].apply(own)
    with pytest.raises(SystemExit) as caught:
        humaneva.main(["--source", str(own), "--output", str(tmp_path / "output")])
    assert caught.value.code == 1
    assert "data_3d_humaneva15.npz, positions_3d, Train/S1, Walking 1 chunk0: is nan" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "output").exists()
