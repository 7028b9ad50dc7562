"""What the loaders' commands say of data that are right, and of data with the usual mistakes."""

import argparse
import dataclasses
import json

import numpy as np
import pytest

from data_prep import h36m, humaneva, jta, mpi_inf_3dhp, panoptic, penn_action, prepare, pw3d
from data_prep.proof import Proof
from pose3d_jax.schema import Record
from tests.layouts import h36m as h36m_files
from tests.layouts import humaneva as humaneva_files
from tests.layouts import jta as jta_files
from tests.layouts import mpi_inf_3dhp as mpi_inf_3dhp_files
from tests.layouts import panoptic as panoptic_files
from tests.layouts import penn_action as penn_action_files
from tests.layouts import people
from tests.layouts import pw3d as pw3d_files

# Of one split each: a proof is summed up after every split, and once more for the command.
FEW_EVA = {
    "subjects": ("Train/S1",),
    "actions": ("Walking 1", "Box 1"),
    "frames": (24, 3, 12),
}
FEW_H36M = {"subjects": ("S1",), "actions": ("Walking", "Greeting")}
COCO = {"detections": ("detectron_pt_coco",)}
NOISY = ("--detections", "StackedHourglass")
ALL_14 = ("--cameras", *map(str, range(14)))
ALL_31 = ("--cameras", *map(str, range(31)))
STUDIO = {"train": ("S1/Seq1", "S2/Seq1"), "test": ()}


@pytest.fixture
def said(tmp_path, capsys):
    """Runs a loader's command on what a fixture writer wrote; its warnings, after a check of all.

    What is stored in the data set's metadata has to be the same, and strict JSON.
    """

    def run(loader, files, *form, flags=(), edit=None, **options):
        files.write(tmp_path / "in", *form, **options)
        if edit:
            edit(tmp_path / "in")
        loader.main(["--source", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *flags])
        lines = capsys.readouterr().out.splitlines()
        warnings = [line[len("warning: ") :] for line in lines if line.startswith("warning: ")]
        stored = (tmp_path / "out" / "metadata.json").read_text()
        assert json.loads(stored, parse_constant=pytest.fail)["warnings"] == warnings
        return warnings

    return run


def eva(said, **options):
    return said(humaneva, humaneva_files, **{**FEW_EVA, **options})


def h36(said, form="npz", **options):
    return said(h36m, h36m_files, form, **{**FEW_H36M, **options})


def only(warnings, text):
    """All that is said is one warning with this text."""
    assert len(warnings) == 1, warnings
    assert text in warnings[0]


RIGHT = {
    "humaneva": (humaneva, humaneva_files, (), FEW_EVA),
    "humaneva of 20 joints": (humaneva, humaneva_files, (), {**FEW_EVA, "joints": 20}),
    "humaneva, two frames": (humaneva, humaneva_files, (), {**FEW_EVA, "frames": (2, 2, 2)}),
    "humaneva, detector": (humaneva, humaneva_files, (), {**FEW_EVA, **COCO, "noise": 5.0}),
    "humaneva, two frames, detector": (
        humaneva, humaneva_files, (), {**FEW_EVA, **COCO, "frames": (2, 2, 2)}
    ),
    "humaneva of 20 joints, detector": (
        humaneva, humaneva_files, (), {**FEW_EVA, **COCO, "joints": 20}
    ),
    "h36m npz": (h36m, h36m_files, (), {**FEW_H36M, "form": "npz"}),
    "h36m cdf, two frames": (h36m, h36m_files, (), {**FEW_H36M, "form": "cdf", "frames": 2}),
    "h36m, detector": (h36m, h36m_files, NOISY, {**FEW_H36M, "form": "hdf5", "noise": 7.0}),
    "h36m, projected": (h36m, h36m_files, (), {**FEW_H36M, "form": "hdf5"}),
    "14 cameras": (mpi_inf_3dhp, mpi_inf_3dhp_files, ALL_14, STUDIO),
    "a single view": (
        mpi_inf_3dhp, mpi_inf_3dhp_files, ("--cameras", "0"), {"test": ("TS1", "TS5")}
    ),
    "views that are all missing": (
        mpi_inf_3dhp, mpi_inf_3dhp_files, (), {"train": (), "test": ("TS1",)}
    ),
    "a universal body": (mpi_inf_3dhp, mpi_inf_3dhp_files, ("--universal",), STUDIO),
    "a moving camera": (pw3d, pw3d_files, (), {"noise": 6.0}),
    "no 3D": (penn_action, penn_action_files, (), {}),
    "31 cameras, joints missing": (
        panoptic, panoptic_files, ALL_31, {"views": 31, "sequences": ("160906_band1",)}
    ),
    "far people": (jta, jta_files, (), {}),
    "far people, whole pixels": (
        jta, jta_files, (), {"whole_pixels": True, "sequences": (("train", 0),)}
    ),
    "nearly the right focal length": (
        jta, jta_files, (), {"focal": 1167.0, "sequences": (("train", 0),)}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loader", "files", "flags", "options"), RIGHT.values(), ids=RIGHT)
def test_nothing_is_said_of_data_that_are_right(said, loader, files, flags, options):
    assert said(loader, files, flags=flags, **options) == []


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (1000, r"436 m long: the joints are probably in millimetres"),
        (100, r"43.6 m long: the joints are probably in centimetres"),
        (0.001, r"0.000436 m long: the joints are probably in km, or were converted twice"),
        (0.1, r"0.0436 m long, which no person's are: units or joint order"),
    ],
)
def test_units(said, units, text):
    found = eva(said, units=units)
    assert f"thighs are {text}" in found[0]
    # Nothing else explains where such joints are seen.
    assert "no usual mistake explains it: cameras, units" in found[1]
    assert len(found) == 2


def test_units_where_knees_stand_twice(said):
    assert "the joints are probably in millimetres" in eva(said, joints=20, units=1000)[0]


@pytest.mark.parametrize("form", ["npz", "cdf", "hdf5"])
@pytest.mark.parametrize(("units", "unit"), [(1000, "millimetres"), (0.001, "km")])
def test_units_of_other_files(said, form, units, unit):
    assert f"the joints are probably in {unit}, or were" in h36(said, form, units=units)[0]


def test_units_of_a_moving_camera(said):
    assert "in millimetres" in said(pw3d, pw3d_files, units=1000)[0]


def test_units_that_change_no_pixel(said):
    only(said(jta, jta_files, units=1000), "in millimetres")


def test_units_that_calibrations_contradict(said, capsys):
    with pytest.raises(SystemExit):
        said(mpi_inf_3dhp, mpi_inf_3dhp_files, units=1000, **STUDIO)
    assert "m apart through camera.calibration" in capsys.readouterr().err


def y_up(folder):
    """Turns the 3D about the x axis, as files of other sets have it."""
    people.edit_npz(
        folder / humaneva_files.THREE,
        positions_3d=lambda subjects: {
            subject: {name: x[..., [0, 2, 1]] * [1, 1, -1] for name, x in actions.items()}
            for subject, actions in subjects.items()
        },
    )


def test_y_up(said):
    found = eva(said, edit=y_up)
    assert "z is probably not the axis that points up" in found[0]
    assert "no usual mistake explains it" in found[1]
    assert len(found) == 2


def test_y_up_without_2d(said):
    only(eva(said, edit=y_up, detections=()), "z is probably not the axis that points up")


@pytest.mark.parametrize(
    ("run", "lens", "right"), [(eva, "h36m", "'h36m'"), (h36, "opencv", "'opencv'")]
)
def test_the_other_tangential_model(said, run, lens, right):
    only(run(said, lens=lens), f"only 0.00 px if the distortion model is {right} (factor")


@pytest.mark.parametrize("run", [eva, h36])
def test_undistorted_points(said, run):
    only(run(said, lens="none"), "only 0.00 px if the 2D points are undistorted already")


@pytest.mark.parametrize(
    ("run", "order", "options"),
    [
        (eva, (1, 0, 2), {}),
        (eva, (1, 2, 0), {"joints": 20}),
        (eva, (0, 2, 1), COCO),
        (eva, (0, 2, 1), {"frames": (2, 2, 2)}),
        (h36, (1, 0, 2, 3), {}),  # two of four are right, and so is the median of all
        (h36, (3, 0, 1, 2), {}),
        (h36, (1, 0, 2, 3), {"form": "hdf5", "flags": NOISY}),
    ],
)
def test_exchanged_cameras(said, run, order, options):
    found = run(said, cameras=order, **options)
    only(found, f"px if the cameras of the 2D come in the order {', '.join(map(str, order))}:")


@pytest.mark.parametrize("order", [(1, 0, *range(2, 14)), tuple(range(13, -1, -1))])
def test_exchanged_cameras_among_many(said, order):
    found = said(mpi_inf_3dhp, mpi_inf_3dhp_files, flags=ALL_14, cameras=order, **STUDIO)
    only(found, f"px if the cameras of the 2D come in the order {', '.join(map(str, order))}:")


@pytest.mark.parametrize(
    ("loader", "files", "flags", "options"),
    [
        (humaneva, humaneva_files, (), FEW_EVA),
        (humaneva, humaneva_files, (), {**FEW_EVA, "joints": 20}),
        (humaneva, humaneva_files, (), {**FEW_EVA, **COCO}),
        (h36m, h36m_files, (), {**FEW_H36M, "form": "cdf"}),
        (h36m, h36m_files, NOISY, {**FEW_H36M, "form": "hdf5"}),
        (mpi_inf_3dhp, mpi_inf_3dhp_files, ("--cameras", "0"), STUDIO),
        (pw3d, pw3d_files, (), {}),
        (jta, jta_files, (), {"sequences": (("train", 0),)}),
    ],
)
def test_exchanged_sides(said, loader, files, flags, options):
    found = said(loader, files, flags=flags, mirrored=True, **options)
    only(found, "px if left and right joints are exchanged: that is probably what is wrong")


def reordered(*swapped):
    """Exchanges two joints in all 2D of HumanEva."""
    order = list(range(15))
    first, second = swapped
    order[first], order[second] = second, first

    def edit(folder):
        people.edit_npz(
            folder / humaneva_files.TWO,
            positions_2d=lambda subjects: {
                subject: {name: [x[:, order] for x in views] for name, views in actions.items()}
                for subject, actions in subjects.items()
            },
        )

    return edit


def test_two_joints_in_each_other_s_place(said):
    found = eva(said, edit=reordered(0, 1))  # the other 13 are right, and so is the median of all
    only(found, "the 2D joints come in another order (pelvis at thorax, thorax at pelvis, ...)")


def test_joints_of_3d_in_another_order(said):
    def edit(folder):  # the legs before the arms
        people.edit_npz(
            folder / humaneva_files.THREE,
            positions_3d=lambda subjects: {
                subject: {
                    name: x[:, [0, 1, *range(8, 14), *range(2, 8), 14]]
                    for name, x in actions.items()
                }
                for subject, actions in subjects.items()
            },
        )

    assert "the 2D joints come in another order" in " ".join(eva(said, edit=edit))


@pytest.mark.parametrize(
    ("run", "offset", "text"),
    [
        (eva, 1, "the 2D is 1 frames late"),
        (eva, -3, "the 2D is 3 frames early"),
        (h36, 4, "the 2D is 4 frames late"),
    ],
)
def test_frame_offsets(said, run, offset, text):
    only(run(said, offset=offset), f"only 0.00 px if {text}")


def test_the_frame_offset_of_a_detector(said):
    only(eva(said, offset=5, **COCO), "the 2D is 5 frames late")


@pytest.mark.parametrize(
    ("loader", "files", "flags", "options"),
    [
        (pw3d, pw3d_files, (), {}),
        (jta, jta_files, (), {"sequences": (("train", 0),)}),
    ],
)
def test_frame_offsets_of_other_sets(said, loader, files, flags, options):
    only(said(loader, files, flags=flags, offset=2, **options), "the 2D is 2 frames late")


def test_one_wrong_camera_of_four(said):
    def edit(folder):
        people.edit_npz(
            folder / "data_2d_h36m_gt.npz",
            positions_2d=lambda subjects: {
                subject: {name: [*views[:3], 1000 - views[3]] for name, views in actions.items()}
                for subject, actions in subjects.items()
            },
        )

    only(h36(said, edit=edit), "(median of the worst camera), and no usual mistake explains it")


def test_joints_that_are_zero_where_missing(said):
    def edit(folder):
        def zeros(x):
            x = x.copy()
            x[::3, [4, 7, 10, 13]] = 0
            return x

        people.edit_npz(
            folder / humaneva_files.THREE,
            positions_3d=lambda subjects: {
                subject: {name: zeros(x) for name, x in actions.items()}
                for subject, actions in subjects.items()
            },
        )

    assert "within a clip: the joints are probably in another order, or missing ones hold" in (
        " ".join(eva(said, edit=edit, detections=()))
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eva")
    humaneva_files.write(folder, **{**FEW_EVA, "subjects": ("Train/S1", "Validate/S2")})
    flags = {"joints": None, "detections": None, "actions": list(humaneva.PROTOCOL)}
    args = argparse.Namespace(source=folder, **flags)
    return [r for split in humaneva.read(args, Proof()).splits.values() for r in split]


def test_numbers(records):
    proof = Proof()
    proof.skip("S9", "no reason")
    for record in records:
        proof.add(record)
    found = proof.summary()
    frames = sum(len(record.clip.labels.joints) for record in records)
    assert found["splits"] == {
        "train": {"clips": 4, "frames": frames // 2},
        "test": {"clips": 4, "frames": frames // 2},
    }
    assert found["subjects"] == {"S1": frames // 2, "S2": frames // 2}
    assert found["actions"] == {"Walking": frames // 2, "Box": frames // 2}
    assert (found["fps"], found["cameras"]) == ([60.0], ["C1", "C2", "C3"])
    assert found["skipped"] == [{"what": "S9", "why": "no reason"}]
    joints = np.concatenate([record.clip.labels.joints for record in records])
    assert found["height"]["lowest_joint_m"] == pytest.approx(joints[..., 2].min(), abs=0.03)
    assert found["height"]["highest_joint_m"] == pytest.approx(joints[..., 2].max(), abs=0.03)
    upright = np.median(np.ptp(joints[..., 2], axis=1))
    assert found["height"]["median_extent_m"] == pytest.approx(upright, abs=0.03)
    assert found["reprojection_px"]["median"] < 1e-3
    assert found["triangulation_mm"]["median"] < 0.1


def moved(record, by):
    observations = record.clip.observations
    points = np.array(observations.keypoints) + np.float32(by)
    observations = dataclasses.replace(observations, keypoints=points)
    return Record(dataclasses.replace(record.clip, observations=observations), record.identity)


def test_a_shift_of_the_keypoints_is_the_residual(records):
    proof = Proof()
    for record in records:
        proof.add(moved(record, [3, 4]))
    found = proof.summary()
    assert found["reprojection_px"]["median"] == pytest.approx(5, abs=0.01)
    assert found["reprojection_px"]["by_camera"] == pytest.approx([5, 5, 5], abs=0.01)
    assert found["triangulation_mm"]["median"] > 5


def test_bone_lengths_vary_as_they_do(records):
    clip, identity = records[0]
    joints = np.array(clip.labels.joints)
    joints[:] = joints[0]
    joints[::2] *= 1.1  # by a twentieth of the mean up and down
    proof = Proof()
    proof.add(prepare.record(identity, clip.observations.cameras, joints))
    found = proof.summary()["bone_length_variation"]
    assert found["median"] == found["worst"] == pytest.approx(0.05 / 1.05, rel=1e-3)
    assert found["worst_clip"] == identity.clip


def test_of_many_clips_a_few_are_sampled_from_all_over(records, monkeypatch):
    monkeypatch.setattr("data_prep.proof.SAMPLED_CLIPS", 8)
    proof = Proof()
    for number in range(100):
        clip, identity = moved(records[0], number)
        proof.add(Record(clip, dataclasses.replace(identity, clip=f"c{number}")))
    assert 4 <= len(proof._samples) <= 8
    taken = [
        s.points[0, 0, 0, 0] - records[0].clip.observations.keypoints[0, 0, 0, 0]
        for s in proof._samples
    ]
    assert min(taken) < 25 < 75 < max(taken) + 1
    assert sum(counts["clips"] for counts in proof.summary()["splits"].values()) == 100


def test_nothing_is_said_of_nothing():
    assert Proof().summary() == {}
    assert "skipped: 0" in Proof().text("x", "y")
