"""The Human3.6M loader, on small files in its three forms, written by `tests.layouts`."""

import argparse
import re
import shutil
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import h36m, pose_files
from data_prep.proof import Proof
from pose3d_jax import schema, skeleton
from pose3d_jax.data import poses
from pose3d_jax.sources import SourceError
from tests.layouts import h36m as layout
from tests.layouts import people

FORMS = ("cdf", "hdf5", "npz")
FLAGS = {"cdf": "cdf", "hdf5": "h5", "npz": "npz"}
AT = ("S1", "Walking 1")
HOURGLASS = {"sh_pt_mpii": "StackedHourglass", "sh_ft_h36m": "StackedHourglassFineTuned240"}
REMEDY = r"(?i)fetch|convert|save|choose|give|scale|extract"
# What is no damage to this loader: a view, or a sequence that is too short in 2D, is reported and
# left out; an HDF5 file can have either order of axes.
TOLERATED = {"camera is None", "fewer frames 2d", "axis order 3d hdf5"}
DAMAGES = {
    f"{form} {name}": (form, damage)
    for form, damages in layout.DAMAGES.items()
    for name, damage in damages.items()
    if name not in TOLERATED and f"{name} {form}" not in TOLERATED
}


def read(folder, proof=None, **flags):
    """Records by clip, and the proof."""
    defaults = {"form": None, "detections": None, "subset": None, "actions": ["all"]}
    defaults |= {"protocol": "standard"}
    proof = proof or Proof()
    dataset = h36m.read(argparse.Namespace(source=folder, **{**defaults, **flags}), proof)
    records = list(chain.from_iterable(dataset.splits.values()))
    for record in records:
        schema.validate(record)
    by_clip = {record.identity.clip: record for record in records}
    assert len(by_clip) == len(records)
    return by_clip, proof


def name_of(subject, action):
    return f"{subject}_{action}".replace(" ", "_")


def skipped(proof, start):
    return {what: why for what, why in proof.skipped if what.startswith(start)}


def edit(folder, key, change):
    """Changes the sequence `AT` of the npz pair."""
    name = {"positions_3d": "data_3d_h36m.npz", "positions_2d": "data_2d_h36m_gt.npz"}[key]

    def changed(positions):
        subject, action = AT
        actions = {**positions[subject], action: change(positions[subject][action])}
        return {**positions, subject: actions}

    people.edit_npz(folder / name, **{key: changed})


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    written = {}
    for form in FORMS:
        folder = tmp_path_factory.mktemp(form)
        detections = ("sh_pt_mpii", "sh_ft_h36m") if form == "hdf5" else ("gt",)
        written[form] = folder, layout.write(folder, form, detections=detections)
    return written


@pytest.fixture(scope="module")
def ones(tmp_path_factory):
    """One action of a train subject, to be copied and changed."""
    written = {}
    for form in FORMS:
        folder = tmp_path_factory.mktemp(form)
        written[form] = folder, layout.write(folder, form, subjects=("S1",), actions=("Walking",))
    return written


@pytest.fixture
def own(ones, tmp_path):
    """Copies what was written in a form."""

    def copy(form):
        return Path(shutil.copytree(ones[form][0], tmp_path / form))

    return copy


@pytest.mark.parametrize("form", FORMS)
def test_all_that_is_in_the_files_is_found(wholes, form):
    folder, truth = wholes[form]
    source = "gt" if form != "hdf5" else "projected"
    records, _ = read(folder)
    assert len(records) == len(truth.clips) == 30
    for (subject, name), clip in truth.clips.items():
        record, identity = records[name_of(subject, name)]
        np.testing.assert_allclose(record.labels.joints, clip.joints, atol=1e-6)
        assert record.labels.joints_valid.min() == record.observations.confidence.min() == 1
        if source == "gt":
            found = record.observations.keypoints
            np.testing.assert_array_equal(found, clip.keypoints["gt"])
        assert identity == schema.Identity(
            dataset="h36m",
            subject=subject,
            action=clip.more["action"],
            clip=name_of(subject, name),
            recording=f"h36m_{subject}",
            camera_names=("54138969", "55011271", "58860488", "60457274"),
            start=0,
            group=clip.more["action"],
            split={"S1": "train", "S5": "train", "S9": "test"}[subject],
            fps=50.0,
            keypoint_skeleton="h36m17",
            joint_skeleton="h36m17",
            keypoint_source=source,
        )


def test_joints_stand_in_the_published_order(wholes):
    clip = wholes["npz"][1].clips[AT]
    assert skeleton.get("h36m17").joints == clip.joint_names
    assert pose_files.KEPT == layout.MOVING
    # Two sets give two joints other names.
    same = {"head": "head_top"}
    names = tuple(same.get(name, name) for name in skeleton.get("mpii16").joints)
    assert names == wholes["hdf5"][1].clips[AT].keypoint_names["sh_pt_mpii"]


@pytest.mark.parametrize("form", FORMS)
def test_projected_points_are_what_the_cameras_see(wholes, form):
    records, _ = read(wholes[form][0], detections="projected", actions=["Walking"])
    exact = wholes["cdf"][1].clips
    assert len(records) == 6
    for record, identity in records.values():
        clip = exact[identity.subject, identity.clip.partition("_")[2].replace("_", " ")]
        found = record.observations.keypoints
        np.testing.assert_allclose(found, clip.keypoints["gt"], atol=2e-3)
        assert identity.keypoint_source == "projected"


def test_all_actions_of_all_subjects(tmp_path):
    layout.write(
        tmp_path, "cdf", subjects=h36m.SUBJECTS, actions=layout.ACTIONS, frames=2, detections=()
    )
    assert tuple(h36m.ACTIONS) == tuple(layout.ACTIONS)
    proof = Proof()
    flags = {"form": None, "detections": None, "subset": None, "actions": ["all"]}
    flags["protocol"] = "standard"
    dataset = h36m.read(argparse.Namespace(source=tmp_path, **flags), proof)
    identities = {split: [r.identity for r in found] for split, found in dataset.splits.items()}
    assert {split: len(found) for split, found in identities.items()} == {"train": 150, "test": 59}
    assert {i.subject for i in identities["train"]} == {"S1", "S5", "S6", "S7", "S8"}
    assert {i.subject for i in identities["test"]} == {"S9", "S11"}
    assert {i.action for i in identities["train"]} == set(h36m.ACTIONS)
    # `TakingPhoto 1.cdf` of S1
    assert "S1_Photo_1" in [i.clip for i in identities["train"]]
    assert [what for what, _ in proof.skipped] == ["S11_Directions"]


def test_the_splits_of_hmmr(tmp_path):
    """Kanazawa et al., CVPR 2019: trains on S1, S6, S7, S8, validates on S5, tests on S9, S11."""
    source, output = tmp_path / "in", tmp_path / "out"
    few = {"frames": 2, "detections": ()}
    layout.write(source, "cdf", subjects=h36m.SUBJECTS, actions=("Walking",), **few)
    flags = ["--protocol", "hmmr", "--source", str(source), "--output", str(output)]
    h36m.main(flags)
    found = {
        split: {record.identity.subject for record in poses.read_split(output, split)}
        for split in ("train", "validation", "test")
    }
    assert found == {
        "train": {"S1", "S6", "S7", "S8"},
        "validation": {"S5"},
        "test": {"S9", "S11"},
    }
    assert "splits: hmmr" in tfds.builder_from_directory(output).info.description


@pytest.mark.parametrize("form", FORMS)
def test_the_corrupt_sequence_is_left_out_and_reported(tmp_path, form):
    layout.write(tmp_path, form, subjects=("S1", "S11"), actions=("Directions",))
    records, proof = read(tmp_path, actions=["Directions"])
    assert set(records) == {"S1_Directions", "S1_Directions_1", "S11_Directions_1"}
    assert [why for what, why in proof.skipped if what == "S11_Directions"] == [
        "one of its videos is corrupt; published protocols omit it"
    ]
    assert "S11" not in [what for what, _ in proof.skipped]


def test_absent_sequences_and_subjects_are_reported(tmp_path):
    layout.write(tmp_path, "cdf", absent_3d=[("S5", "Photo"), ("S5", "Photo 2")])
    (tmp_path / "S9/MyPoseFeatures/D3_Positions/Walking 1.cdf").unlink()
    records, proof = read(
        tmp_path, actions=["Walking", "Photo", "Greeting", "Sitting", "SittingDown"]
    )
    assert len(records) == 27
    for subject in ("S6", "S7", "S8", "S11"):
        assert skipped(proof, f"{subject}") == {subject: "none of its sequences is there"}
    assert skipped(proof, "S5") == {"S5": "trials that are not there: 2 of Photo"}
    assert skipped(proof, "S9") == {"S9": "trials that are not there: 1 of Walking"}
    assert "S1" not in [what for what, _ in proof.skipped]


@pytest.mark.parametrize("form", FORMS)
def test_sequences_absent_in_2d_are_left_out_and_reported(tmp_path, form):
    absent = ("S5", "Walking")
    layout.write(tmp_path, form, subjects=("S1", "S5"), actions=("Walking",), absent_2d=[absent])
    records, proof = read(tmp_path, detections="StackedHourglass" if form == "hdf5" else "gt")
    assert set(records) == {"S1_Walking", "S1_Walking_1", "S5_Walking_1"}
    assert "--detections projected" in skipped(proof, "S5_Walking")["S5_Walking"]


@pytest.mark.parametrize("form", ["cdf", "hdf5"])
def test_a_view_without_its_file_is_missing_and_reported(tmp_path, ones, form):
    gap = ("S1", "Walking 1", 2)
    layout.write(tmp_path, form, subjects=("S1",), actions=("Walking",), absent_views=[gap])
    detections = {"cdf": "gt", "hdf5": "StackedHourglass"}[form]
    source = {"cdf": "gt", "hdf5": "sh_pt_mpii"}[form]
    records, proof = read(tmp_path, detections=detections)
    observations = records["S1_Walking_1"].clip.observations
    assert observations.confidence.mean((0, 2)).tolist() == [1, 1, 0, 1]
    assert not observations.keypoints[:, 2].any()
    truth = ones[form][1].clips[AT].keypoints[source]
    np.testing.assert_array_equal(observations.keypoints[:, [0, 1, 3]], truth[:, [0, 1, 3]])
    assert skipped(proof, "S1_Walking_1, ").keys() == {"S1_Walking_1, 58860488"}
    assert records["S1_Walking"].clip.observations.confidence.min() == 1


def test_a_view_of_none_is_missing_and_reported(own):
    folder = own("npz")
    edit(folder, "positions_2d", lambda views: [None, *views[1:]])
    records, proof = read(folder)
    confidence = records["S1_Walking_1"].clip.observations.confidence
    assert confidence.mean((0, 2)).tolist() == [0, 1, 1, 1]
    assert skipped(proof, "S1_Walking_1, ").keys() == {"S1_Walking_1, 54138969"}


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_with_too_few_points_is_left_out_and_reported(own, form):
    folder = own(form)
    layout.DAMAGES[form]["fewer frames 2d"].apply(folder)
    records, proof = read(folder, detections="StackedHourglass" if form == "hdf5" else "gt")
    assert set(records) == {"S1_Walking"}
    assert "but 17 in 3D" in skipped(proof, "S1")["S1_Walking_1"]


@pytest.mark.parametrize("source", HOURGLASS)
def test_a_folder_of_detections_can_be_chosen(wholes, source):
    folder, truth = wholes["hdf5"]
    records, _ = read(folder, detections=HOURGLASS[source])
    for (subject, name), clip in truth.clips.items():
        record, identity = records[name_of(subject, name)]
        found = record.observations.keypoints
        np.testing.assert_allclose(found, clip.keypoints[source], atol=1e-4)
        assert identity.keypoint_source == HOURGLASS[source]
        assert (identity.keypoint_skeleton, identity.joint_skeleton) == ("mpii16", "h36m17")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("cpn_ft_h36m_dbb", "h36m17"),
        ("detectron_ft_h36m", "h36m17"),
        ("sh_pt_mpii", "mpii16"),
        ("sh_ft_h36m", "mpii16"),
    ],
)
def test_detections_of_an_npz_file_keep_their_joint_set(tmp_path, source, expected):
    truth = layout.write(
        tmp_path, "npz", subjects=("S1",), actions=("Walking",), detections=("gt", source)
    )
    record, identity = read(tmp_path, detections=source)[0]["S1_Walking_1"]
    found = record.observations.keypoints
    np.testing.assert_array_equal(found, truth.clips[AT].keypoints[source])
    assert (identity.keypoint_source, identity.keypoint_skeleton) == (source, expected)
    assert read(tmp_path)[0]["S1_Walking_1"].identity.keypoint_source == "gt"


@pytest.mark.parametrize("form", FORMS)
def test_without_2d_the_points_are_projected(tmp_path, form):
    layout.write(tmp_path, form, subjects=("S1",), actions=("Walking",), detections=())
    records, _ = read(tmp_path)
    assert {r.identity.keypoint_source for r in records.values()} == {"projected"}
    with pytest.raises(SourceError, match=r"no 2D points 'cpn'; there are projected"):
        read(tmp_path, detections="cpn")


def test_detections_of_an_npz_file_go_with_the_official_poses(own):
    folder = own("cdf")
    shutil.copy(own("npz") / "data_2d_h36m_gt.npz", folder / "data_2d_h36m_cpn_ft_h36m_dbb.npz")
    records, _ = read(folder, detections="cpn_ft_h36m_dbb")
    assert {r.identity.keypoint_source for r in records.values()} == {"cpn_ft_h36m_dbb"}
    assert {r.identity.keypoint_source for r in read(folder)[0].values()} == {"gt"}


def test_exact_points_of_another_form_are_not_taken_unasked(own, tmp_path):
    folder = own("hdf5")
    shutil.copy(own("npz") / "data_2d_h36m_gt.npz", folder)
    assert {r.identity.keypoint_source for r in read(folder)[0].values()} == {"projected"}
    asked = read(folder, detections="gt")[0]
    assert {r.identity.keypoint_source for r in asked.values()} == {"gt"}
    (tmp_path / "npz/data_2d_h36m_gt.npz").unlink()
    shutil.copytree(own("cdf"), tmp_path / "npz", dirs_exist_ok=True)
    found = read(tmp_path / "npz", form="npz")[0]
    assert {r.identity.keypoint_source for r in found.values()} == {"projected"}


def test_the_report_s_subset(wholes):
    folder, truth = wholes["npz"]
    records, proof = read(folder, subset="report")
    assert {r.identity.action for r in records.values()} == {"Walking", "Greeting", "Sitting"}
    assert {r.identity.camera_names for r in records.values()} == {layout.CAMERAS[:3]}
    found = records["S1_Walking_1"].clip.observations.keypoints
    np.testing.assert_array_equal(found, truth.clips[AT].keypoints["gt"][:, :3])
    assert skipped(proof, "S5") == {"S5": "trials that are not there: 2 of Smoking"}


def test_actions_can_be_chosen(wholes):
    records, _ = read(wholes["cdf"][0], actions=["Sitting"])  # and not SittingDown
    assert {r.identity.action for r in records.values()} == {"Sitting"}
    with pytest.raises(SourceError, match=r"none of its 30 sequences .*\(Posing\); ask"):
        read(wholes["cdf"][0], actions=["Posing"])


def test_of_several_forms_one_is_read_and_said(tmp_path, capsys):
    for place, form in enumerate(FORMS):  # told apart by their units
        few = {"subjects": ("S1",), "actions": ("Walking",), "detections": (), "stray": False}
        layout.write(tmp_path, form, units=1.0 + place, **few)

    def scale(**flags):
        joints = read(tmp_path, **flags)[0]["S1_Walking_1"].clip.labels.joints
        return float(joints[:, :, 2].max())

    npz = scale()
    assert "holds npz and cdf and h5; --form chooses" in (said := capsys.readouterr().out)
    assert "reading the form npz" in said
    factors = [scale(form=FLAGS[form]) / npz for form in FORMS]
    np.testing.assert_allclose(factors, [1 / 3, 2 / 3, 1], rtol=1e-5)
    shutil.rmtree(tmp_path / "S1")
    (tmp_path / "data_3d_h36m.npz").unlink()
    assert scale() == pytest.approx(npz * 2 / 3, rel=1e-5)
    with pytest.raises(SourceError, match=r"has the form h5, not cdf; leave --form out"):
        read(tmp_path, form="cdf")


@pytest.mark.parametrize(
    ("form", "folders"), [("cdf", "fetch"), ("hdf5", "bare"), ("hdf5", "official")]
)
def test_folders_as_other_tools_leave_them_and_copies(tmp_path, form, folders):
    few = {"subjects": ("S1",), "actions": ("Walking",), "folders": folders}
    truth = layout.write(tmp_path / "data", form, **few)
    layout.write(tmp_path / "data" / "a" / "copy", form, units=2.0, **few)
    records, proof = read(tmp_path)
    found = records["S1_Walking_1"].clip.labels.joints
    np.testing.assert_allclose(found, truth.clips[AT].joints, atol=1e-6)
    source = {"cdf": "gt", "hdf5": "projected"}[form]
    assert records["S1_Walking_1"].identity.keypoint_source == source
    copies = {what: why for what, why in proof.skipped if "copy" in what}
    assert len(copies) == 2
    assert {"is a second copy of S1_Walking", "is a second copy of S1_Walking_1"} == set(
        copies.values()
    )


def test_files_of_other_names_and_subjects_are_reported(own):
    folder = own("cdf")
    home = folder / "S1/MyPoseFeatures/D3_Positions"
    shutil.copy(home / "Walking.cdf", home / "_ALL 1.cdf")
    shutil.copy(home / "Walking.cdf", home / "._Walking.cdf")
    shutil.copytree(folder / "S1", folder / "S2")
    records, proof = read(folder)
    assert set(records) == {"S1_Walking", "S1_Walking_1"}
    unknown = [Path(what).name for what, why in proof.skipped if "none of the seven" in why]
    assert sorted(unknown) == ["Walking 1.cdf", "Walking.cdf", "_ALL 1.cdf", "_ALL 1.cdf"]


def test_names_that_are_all_unknown(own):
    folder = own("npz")
    people.edit_npz(folder / "data_3d_h36m.npz", positions_3d=lambda old: {1: old["S1"]})
    with pytest.raises(
        SourceError, match=r"no sequence of a known name: .*positions_3d, 1, Walking.*such as S1"
    ):
        read(folder)


def test_archives_that_are_not_extracted(tmp_path):
    (tmp_path / "Poses_D3_Positions_mono_S1.tgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SourceError, match=r"D3_Positions_mono, in camera coo.*; give the folder"):
        read(tmp_path)
    (tmp_path / "Poses_D3_Positions_S1.tgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SourceError, match=r"extract Poses_D3_Positions_S1.tgz first"):
        read(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_files_of_17_joints(own, ones, form):
    folder = own(form)
    joints = ones[form][1].clips[AT].joints
    if form == "cdf":
        path = folder / "S1/MyPoseFeatures/D3_Positions/Walking 1.cdf"
        layout.write_cdf(path, joints.reshape(len(joints), 51) * 1000)
    elif form == "hdf5":
        with h5py.File(folder / "h36m/S1/MyPoses/3D_positions/Walking 1.h5", "w") as file:
            file["3D_positions"] = joints.reshape(len(joints), 51).T * 1000
    else:

        def seventeen(positions):
            return {
                subject: {name: x[:, layout.MOVING] for name, x in actions.items()}
                for subject, actions in positions.items()
            }

        people.edit_npz(folder / "data_3d_h36m.npz", positions_3d=seventeen)
    found = read(folder)[0]["S1_Walking_1"].clip.labels.joints
    np.testing.assert_allclose(found, joints, atol=1e-6)


# 96 x 96 is as published; 17 and 51 are numbers of joints and of their coordinates.
@pytest.mark.parametrize(
    ("frames", "turned"),
    [(17, True), (17, False), (51, True), (51, False), (95, False), (96, True)],
)
def test_either_order_of_an_hdf5_file_s_axes(own, frames, turned):
    folder = own("hdf5")
    value = np.random.default_rng(0).normal(size=(frames, 96))
    with h5py.File(folder / "h36m/S1/MyPoses/3D_positions/Walking 1.h5", "w") as file:
        file["3D_positions"] = (value.T if turned else value) * 1000
    found = read(folder, actions=["Walking"])[0]["S1_Walking_1"].clip.labels.joints
    expected = value.reshape(frames, 32, 3)[:, layout.MOVING]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("form", ["cdf", "hdf5"])
def test_a_sequence_is_read_when_its_record_is_asked_for(own, form, monkeypatch):
    opened = []
    name = {"cdf": "_read_cdf", "hdf5": "_read_h5"}[form]
    read_file = getattr(pose_files, name)

    def noted(path, *rest):
        opened.append(path.parent.name)
        return read_file(path, *rest)

    monkeypatch.setattr(pose_files, name, noted)
    flags = {"form": None, "detections": None, "subset": None, "actions": ["all"]}
    flags["protocol"] = "standard"
    dataset = h36m.read(argparse.Namespace(source=own(form), **flags), Proof())
    assert opened == []
    next(iter(dataset.splits["train"]))
    assert len([folder for folder in opened if folder in ("D3_Positions", "3D_positions")]) == 1


@pytest.mark.parametrize(("form", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_an_error_that_names_file_key_and_remedy(own, form, damage):
    folder = own(form)
    flags = {"detections": "StackedHourglass" if form == "hdf5" else "gt"}
    assert len(read(folder, **flags)[0]) == 2
    damage.apply(folder)
    with pytest.raises(SourceError) as caught:
        read(folder, **flags)
    message = str(caught.value)
    assert not [name for name in damage.names if name not in message], message
    assert str(folder) in message
    assert re.search(REMEDY, message), message


@pytest.mark.parametrize("form", FORMS)
def test_the_command_needs_no_other_flag(wholes, tmp_path, form):
    output = tmp_path / "output"
    h36m.main(["--source", str(wholes[form][0]), "--output", str(output)])
    builder = tfds.builder_from_directory(output)
    counts = {split: len(builder.as_data_source(split)) for split in builder.info.splits}
    assert counts == {"train": 20, "test": 10}


def test_a_damaged_file_ends_the_command_with_nothing_written(own, tmp_path, capsys):
    folder = own("cdf")
    layout.DAMAGES["cdf"]["truncated 3d"].apply(folder)
    with pytest.raises(SystemExit) as caught:
        h36m.main(["--source", str(folder), "--output", str(tmp_path / "output")])
    assert caught.value.code == 1
    assert "Walking 1.cdf: is not a readable CDF file" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
