"""The dynamics benchmark: its filter and its baselines by hand, and the command itself."""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks import body_measures
from benchmarks import dynamics as benchmark
from pose3d_jax import smoothing
from pose3d_jax.data import poses
from pose3d_jax.errors import UserError
from tests import bodies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bodies.prepared(tmp_path_factory.mktemp("body"))


def test_the_filter_is_an_exponential_mean_where_speed_counts_nothing():
    rng = np.random.default_rng(0)
    values, fps, cutoff = rng.normal(size=(20, 3)), 30.0, 2.0
    share = 1 / (1 + fps / (2 * np.pi * cutoff))  # of a first-order low-pass filter
    expected = [values[0]]
    for value in values[1:]:
        expected.append((1 - share) * expected[-1] + share * value)
    assert_allclose(smoothing.one_euro(values, fps, cutoff, 0.0), expected)
    # What moves fast is followed more closely.
    ramp = np.arange(40.0)[:, None]
    lag = [ramp[-1] - smoothing.one_euro(ramp, fps, cutoff, beta)[-1] for beta in (0.0, 1.0)]
    assert lag[1] < lag[0] / 3


def test_the_nearest_of_a_set_s_own_frames_are_themselves(folder):
    data = poses.load([folder / "data"], "train")
    now, before, after = body_measures.beside(data, 6)
    assert now.tolist() == list(range(6, 34))
    assert ((now - before) == 6).all()
    assert ((after - now) == 6).all()
    found = body_measures.nearest_of(data, data, now, 6)
    truth = np.asarray(data.poses.labels.joints)
    assert_allclose(found["past"], truth[before])
    assert_allclose(found["future"], truth[after])
    # However somebody faces.
    turned = body_measures._facing(truth * [-1, -1, 1], data.joint_skeleton)
    assert_allclose(turned, body_measures._facing(truth, data.joint_skeleton), atol=1e-5)


def test_true_poses_have_no_error(folder):
    data = poses.load([folder / "data"], "validation")
    observations = data.poses.observations
    truth = np.einsum(
        "tvij,tnj->tvni", observations.cameras.rotation, data.poses.labels.joints
    )  # up to where the camera is, which no error of these counts
    found = body_measures.now_of(truth, data)
    assert found["p1"] < 1e-2
    assert found["acceleration"] < 0.05  # rounding, times 900 twice
    later = body_measures.now_of(np.roll(truth, 1, axis=0), data)
    assert later["p1"] > 1.0


def test_points_are_compared_with_those_of_the_truth_or_else_with_keypoints(folder):
    """Moved by 3 pixels times the squared time, half of it to either side."""
    data = poses.load([folder / "data"], "validation")
    cameras = data.poses.observations.cameras
    truth = np.einsum("tvij,tnj->tvni", cameras.rotation, data.poses.labels.joints)
    truth += np.asarray(cameras.translation)[:, :, None]
    exact = body_measures.in_2d(truth, data, data)
    assert exact["pck_2d"] == 1.0
    assert exact["acceleration_px"] < 0.05
    time = np.arange(len(truth))[:, None, None]
    moved = truth.copy()
    moved[..., 0] += 1.5 * time**2 * truth[..., 2] / np.asarray(cameras.focal)[..., :1]
    found = body_measures.in_2d(moved, data, data)
    assert_allclose(found["acceleration_px"], 3.0, atol=0.05)
    assert found["pck_2d"] < 0.5
    labels = data.poses.labels
    blank = dataclasses.replace(labels, joints_valid=0 * labels.joints_valid)
    flat = dataclasses.replace(data, poses=dataclasses.replace(data.poses, labels=blank))
    shaken = dataclasses.replace(
        flat.poses.observations, keypoints=0 * data.poses.observations.keypoints
    )
    shaken = dataclasses.replace(flat, poses=dataclasses.replace(flat.poses, observations=shaken))
    found = body_measures.in_2d(moved, shaken, flat)
    assert_allclose(found["acceleration_px"], 3.0, atol=0.05)
    nothing = dataclasses.replace(
        data.poses.observations, confidence=0 * data.poses.observations.confidence
    )
    nothing = dataclasses.replace(data, poses=dataclasses.replace(data.poses, observations=nothing))
    with pytest.raises(UserError, match="no frame of validation shows 6 keypoints"):
        body_measures.in_2d(moved, nothing, data)


def test_what_has_no_label_does_not_count(folder):
    data = poses.load([folder / "data"], "validation")
    cameras, labels = data.poses.observations.cameras, data.poses.labels
    truth = np.einsum("tvij,tnj->tvni", cameras.rotation, labels.joints)
    wrong = truth.copy()
    wrong[20:30, :, 5] += 1.0
    wrong[5] += np.random.default_rng(0).normal(size=wrong[5].shape)
    valid = labels.joints_valid.at[20:30, 5].set(0.0).at[5, data.joint_skeleton.root].set(0.0)
    labels = dataclasses.replace(labels, joints_valid=valid)
    less = dataclasses.replace(data, poses=dataclasses.replace(data.poses, labels=labels))
    found = body_measures.now_of(wrong, less)
    assert found["p1"] < 1e-2
    assert found["p2"] < 1e-2
    assert found["acceleration"] < 0.05


def test_views_that_show_too_little_do_not_count(folder):
    data = poses.load([folder / "data"], "validation")
    observations = data.poses.observations
    truth = np.einsum("tvij,tnj->tvni", observations.cameras.rotation, data.poses.labels.joints)
    wrong = truth.copy()
    wrong[7, 1, 3] += 1.0
    assert body_measures.now_of(wrong, data)["p1"] > 0.1
    hidden = observations.confidence.at[7, 1, body_measures.FEWEST - 1 :].set(0.0)
    hidden = dataclasses.replace(observations, confidence=hidden)
    less = dataclasses.replace(data, poses=dataclasses.replace(data.poses, observations=hidden))
    found = body_measures.now_of(wrong, less)
    assert found["p1"] < 1e-2
    assert found["acceleration"] < 0.05


@pytest.mark.slow
def test_one_command_prints_the_tables(folder, tmp_path, capsys, monkeypatch):
    words = ["--data", str(folder / "data"), "--body", str(folder / "person.npz"), "--quick"]
    rows = ["--rows", "temporal", "single frame", "--splits", "validation"]
    monkeypatch.setattr("sys.argv", ["dynamics", *words, *rows, "--out", str(tmp_path)])
    benchmark.main()
    printed = capsys.readouterr().out.splitlines()
    found = json.loads(printed[-1])["dynamics"]["validation"]
    assert set(found) == {"temporal", "single frame"}
    assert set(found["temporal"]["one_frame"]) == {"hallucinator", "constant", "nearest"}
    own = found["temporal"]["one_frame"]
    assert own["hallucinator"]["now"] == pytest.approx(own["constant"]["now"])
    assert found["single frame"]["one_euro"]["acceleration"] > 0
    assert any("One-Euro" in line for line in printed)
