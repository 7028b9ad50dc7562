"""A user's way: keypoints and cameras in, files out; and what a newcomer does wrong."""

import dataclasses
import json
import shlex
import shutil
import sys

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

import pose3d_jax
from benchmarks import demo
from configs import cmu_mv_seq
from configs.demo import get_config
from data_prep import synthetic
from data_prep.articulated import Body
from data_prep.body_motion import walk
from pose3d_jax import (
    adapt,
    bundle,
    detect,
    evaluate,
    fitting,
    gather,
    inference,
    noise,
    predict,
    sides,
    skeleton,
    train,
    trained,
)
from pose3d_jax import cameras as cam
from pose3d_jax.data import own, poses
from pose3d_jax.data.own import PredictError
from pose3d_jax.errors import UserError
from pose3d_jax.formats import calibration, export, keypoints, video
from pose3d_jax.formats.keypoints import Detections
from pose3d_jax.rigs import Doubt
from pose3d_jax.schema import Prediction
from pose3d_jax.trained import CAREFUL
from pose3d_jax.viewer import movie, scene
from tests.formats.test_video import pictures, write


@pytest.fixture(scope="module")
def run(demo_run, tmp_path_factory):
    """A run of a few steps, longer clips than it was trained on, and the demo's example."""
    folder = tmp_path_factory.mktemp("predict")
    synthetic.main(["--out", str(folder / "data"), "--scale", "0.1"])
    shutil.copytree(demo_run("multiview"), folder / "run")
    demo.example(folder / "data", folder / "example")
    return folder


@pytest.fixture(scope="module")
def clip(run):
    """Exact keypoints of a test clip, its cameras `[views]`, joints."""
    record = poses.read_split(run / "data", "test")[0]
    seen = record.clip.observations
    still = jax.tree.map(lambda x: np.asarray(x[0]), seen.cameras)
    return np.asarray(seen.keypoints), still, np.asarray(record.clip.labels.joints)


@pytest.fixture(scope="module")
def lifter(run):
    return pose3d_jax.load(run / "run")


def test_it_says_what_an_evaluation_says(run, clip, lifter):
    """In pieces of one length, of a user's arrays, as of the split on disk."""
    config = get_config("multiview-tiny")
    config.data.path = str(run / "data")
    restored = evaluate.restore(run / "run", config)
    expected = evaluate.predict(restored, restored.splits["test"]).joints[: len(clip[0])]
    found = lifter.predict(clip[0], clip[1])
    assert_allclose(found.in_views, expected, atol=1e-5)
    turn, away = np.asarray(clip[1].rotation), np.asarray(clip[1].translation)
    back = np.einsum("vba,tvjb->tvja", turn, found.in_views - away[:, None])
    assert_allclose(found.world, back.mean(axis=1), atol=1e-5)
    assert found.space == "absolute"
    assert found.covariance is None


def test_it_carries_its_card(run, lifter):
    assert "**synthetic**" in lifter.card
    assert "multiview" in (run / "run/model_card.md").read_text()


def test_clips_of_all_lengths_are_one_program(clip, lifter, monkeypatch):
    monkeypatch.setattr(trained, "_PIECE", 32)
    whole = np.concatenate([clip[0]] * 4)[:70]
    found = lifter.predict(whole, clip[1]).in_views
    before = inference._lift._cache_size()
    for frames in (1, 31, 33, 69):
        part = lifter.predict(whole[:frames], clip[1]).in_views
        assert_allclose(part, found[:frames], atol=1e-5)
    assert inference._lift._cache_size() == before


@pytest.mark.slow
def test_networks_that_see_several_frames_say_what_an_evaluation_says(run, clip, monkeypatch):
    """In pieces that overlap by what the network sees."""
    config = cmu_mv_seq.get_config("network=convolution,tiny")
    config.data.path = str(run / "data")
    config.evaluation.test = ("test",)
    config.evaluation.references = ()
    train.run(config, run / "convolution")
    restored = evaluate.restore(run / "convolution")
    frames = len(clip[0])
    expected = evaluate.predict(restored, restored.splits["test"]).joints[:frames]
    network = pose3d_jax.load(run / "convolution")
    found = network.predict(clip[0], clip[1], fps=30.0).in_views
    assert_allclose(found, expected, atol=1e-5)
    monkeypatch.setattr(trained, "_PIECE", 64)
    long = np.concatenate([clip[0], clip[0][::-1]] * 6)[:200]
    pieces = network.predict(long, clip[1], fps=30.0).in_views
    monkeypatch.setattr(trained, "_PIECE", 256)
    assert_allclose(pieces, network.predict(long, clip[1], fps=30.0).in_views, atol=1e-5)


def test_adapted_poses_are_better_and_say_how_sure_they_are(clip, lifter):
    rng = np.random.default_rng(0)
    noisy = clip[0] + rng.normal(0, 2.0, clip[0].shape)
    plain = lifter.predict(noisy, clip[1])
    found = lifter.predict(noisy, clip[1], stages=("poses",))
    error = np.linalg.norm(found.world - clip[2], axis=-1).mean()
    assert error < 0.02 < np.linalg.norm(plain.world - clip[2], axis=-1).mean()
    assert found.covariance.shape == (*found.world.shape, 3)
    deviation = np.sqrt(np.trace(found.covariance, axis1=-2, axis2=-1).mean())
    assert 0.3 * error < deviation < 5 * error
    # From then on without the training data, and not for another checkpoint.
    path = lifter.directory / "body.npz"
    assert path.exists()
    monkey = dataclasses.replace(lifter)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(adapt, "body_under", None)
        again = monkey.predict(noisy, clip[1], stages=("poses",))
    assert_allclose(again.world, found.world, atol=1e-6)
    other = dataclasses.replace(lifter, metadata={**lifter.metadata, "step": 7})
    with pytest.raises(PredictError, match="but the checkpoint of step 7; delete that file"):
        other.predict(noisy, clip[1], stages=("poses",))


def seen_once(record, setting, view=0):
    """One noisy view of a record: keypoints, camera, confidence."""
    seen = noise.corrupt_record(record, noise.preset(setting), 0).clip.observations
    camera = jax.tree.map(lambda x: np.asarray(x)[0, [view]], seen.cameras)
    return np.asarray(seen.keypoints)[:, [view]], camera, np.asarray(seen.confidence)[:, [view]]


def about_root(joints):
    return joints - joints[..., :1, :]


class Toy:
    """Joints on the rays of what is shown, at depths that are wrong for some frames alike."""

    def __init__(self, data, seed):
        cameras = data.poses.observations.cameras
        views = cameras.focal.shape[1]
        world = np.repeat(np.asarray(data.poses.labels.joints)[:, None], views, axis=1)
        self.truth = np.asarray(jax.jit(cam.batched(cam.to_camera))(cameras, world))
        frames = np.arange(len(world)) / 10
        knots = np.random.default_rng(seed).standard_normal((len(world) // 10 + 2, views, 17))
        place, share = frames.astype(int), (frames % 1)[:, None, None]
        self.off = 0.08 * ((1 - share) * knots[place] + share * knots[place + 1])

    def __call__(self, observations, fps=30.0):
        points = jax.jit(cam.batched(cam.normalise))(observations.cameras, observations.keypoints)
        depth = (self.truth[..., 2] + self.off)[..., None]
        placed = np.concatenate([depth * np.asarray(points), depth], axis=-1)
        seen = np.asarray(observations.confidence)[..., None] > 0
        moved = self.truth + self.off[..., None]
        return Prediction(np.where(seen, placed, moved).astype(np.float32))


@pytest.mark.parametrize(("setting", "share"), [("mild", 0.6), ("typical", 0.7)])
def test_one_noisy_view_is_fitted(run, lifter, monkeypatch, setting, share):
    """What a lifter says of it comes nearer to the truth, which nobody looks at."""
    known = poses.load([run / "data"], "train", views=[0])
    body = fitting.measure(known, Toy(known, 1)(known.poses.observations))
    record = poses.read_split(run / "data", "test")[0]
    keypoints, camera, confidence = seen_once(record, setting)
    keypoints, confidence = keypoints[:120], confidence[:120]
    truth = np.asarray(record.clip.labels.joints)[:120]
    clip = own.data_of(
        own.clip_of(keypoints, confidence, camera, lifter.keypoint_skeleton),
        lifter.keypoint_skeleton, lifter.joint_skeleton, 30.0,
    )  # fmt: skip
    labels = dataclasses.replace(clip.poses.labels, joints=truth)
    toy = Toy(dataclasses.replace(clip, poses=dataclasses.replace(clip.poses, labels=labels)), 2)
    other = dataclasses.replace(lifter)
    vars(other)["one_view_body"] = body
    monkeypatch.setattr(trained.Trained, "lift", lambda self, seen, fps: toy(seen))
    alone = other.predict(keypoints, camera, confidence)
    found = other.predict(keypoints, camera, confidence, stages=("poses",))
    before, after = (
        np.linalg.norm(about_root(x.world) - about_root(truth), axis=-1).mean()
        for x in (alone, found)
    )
    assert after < share * before
    turned = np.einsum("ab,tjb->tja", np.asarray(camera.rotation[0]), found.world)
    assert_allclose(found.in_views[:, 0], turned + np.asarray(camera.translation[0]), atol=1e-4)
    assert found.covariance is None


def test_how_much_keypoints_err_goes_with_the_size_of_people(clip, lifter):
    """By the focal length and the distance: 2 px of 229 in a metre, as far as anybody is seen."""
    seen = own.clip_of(clip[0][:9], None, clip[1], lifter.keypoint_skeleton)
    focal = np.full_like(seen.cameras.focal, 1145.0)
    seen = dataclasses.replace(seen, cameras=dataclasses.replace(seen.cameras, focal=focal))
    joints = np.zeros((*seen.confidence.shape, 3), np.float32)
    joints[..., 2] = 5.0
    assert fitting.detectors_noise(seen, joints, 0) == pytest.approx(2.0, rel=0.05)
    nearer = joints / 2
    expected = 2 * fitting.detectors_noise(seen, joints, 0)
    assert fitting.detectors_noise(seen, nearer, 0) == pytest.approx(expected)
    seen.confidence[:, 1:] = 0
    nearer[:, 1:] = 99.0
    assert fitting.detectors_noise(seen, nearer, 0) == pytest.approx(expected)
    assert fitting.detectors_noise(seen, 100 * joints, 0) == 0.5


@pytest.mark.slow
def test_one_noisy_view_of_a_trained_lifter_is_fitted(run):
    """By what it measures on its own training data, which it keeps."""
    synthetic.main(["--out", str(run / "more"), "--scale", "0.3"])
    config = get_config("multiview")
    config.data.path = str(run / "more")
    train.run(config, run / "trained")
    network = pose3d_jax.load(run / "trained")
    record = poses.read_split(run / "more", "test")[0]
    truth = np.asarray(record.clip.labels.joints)
    for setting in ("clean", "mild"):
        errors = []
        for view in range(3):
            seen = seen_once(record, setting, view)
            for stages in ((), ("poses",)):
                found = network.predict(*seen, stages=stages).world
                errors.append(np.linalg.norm(about_root(found) - about_root(truth), axis=-1).mean())
        assert np.sum(errors[1::2]) < 0.9 * np.sum(errors[::2])
    assert (run / "trained/body_one_view.npz").exists()


def one_view(run, folder):
    """The example's first view in a file of its own."""
    with np.load(run / "example/keypoints.npz") as file:
        whole = dict(file)
    own_ = {"keypoints": whole["keypoints"][:, :1], "confidence": whole["confidence"][:, :1]}
    np.savez(folder / "one.npz", **{**whole, **own_, "views": whole["views"][:1]})
    return folder / "one.npz"


@pytest.mark.parametrize("cameras", [True, False], ids=["calibrated", "not"])
def test_one_view_is_adapted_by_the_command(run, lifter, tmp_path, cameras):
    path = one_view(run, tmp_path)
    rig = calibration.read(run / "example/cameras.toml")
    camera = jax.tree.map(lambda x: x[:1], rig.cameras)
    given = ["--cameras", run / "example/cameras.toml"]
    if not cameras:
        camera, given = own.ideal((900, 700), 700.0), ["--size", 900, 700, "--focal", 700]
    given += ["--checkpoint", run / "run", "--keypoints", path, "--adapt", "poses"]
    predict.main([str(x) for x in (*given, "--output", tmp_path / "out")])
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert left == {"person_0.npz", "viewer.html", "summary.json"}
    with np.load(path) as seen, np.load(tmp_path / "out/person_0.npz") as file:
        keypoints, confidence, joints = seen["keypoints"], seen["confidence"], file["joints"]
    expected = lifter.predict(keypoints, camera, confidence, fps=30.0, stages=("poses",))
    assert_allclose(joints, expected.world, atol=1e-4)


@pytest.mark.parametrize("stages", [("clocks",), ("cameras", "poses")])
def test_one_view_tells_of_no_clocks_and_cameras(run, tmp_path, stages):
    given = ["--checkpoint", run / "run", "--keypoints", one_view(run, tmp_path), "--cameras"]
    given += [run / "example/cameras.toml", "--output", tmp_path / "out", "--adapt", *stages]
    with pytest.raises(SystemExit, match=rf"error: {stages[0]}: one view tells nothing of these"):
        predict.main([str(x) for x in given])
    assert not (tmp_path / "out").exists()


def test_one_view_is_not_fitted_where_joints_are_nowhere_in_space(clip, lifter, monkeypatch):
    said = Prediction(np.zeros((len(clip[0]), 1, 17, 3), np.float32), space="root_relative")
    monkeypatch.setattr(trained.Trained, "lift", lambda *_: said)
    camera = jax.tree.map(lambda x: x[:1], clip[1])
    with pytest.raises(fitting.FitError, match="root_relative; take a method that predicts"):
        lifter.predict(clip[0][:, :1], camera, stages=("poses",))


def test_a_view_that_is_late_is_brought_onto_the_clock(clip, lifter):
    keypoints, cameras, _ = clip
    late = np.concatenate([keypoints] * 2)[:120]  # a jump back, which all see
    late = np.stack([late[4:-4, 0], late[2:-6, 1], late[4:-4, 2]], axis=1)
    found = lifter.predict(late, cameras, stages=("clocks",))
    assert_allclose(found.clocks, [0, 2, 0], atol=0.1)
    assert_allclose(found.cameras.rotation, cameras.rotation, atol=1e-6)


@pytest.mark.slow
def test_clocks_and_then_cameras(clip, lifter):
    """Of a rig that is right a late view makes no other; one that is not is found by itself."""
    keypoints, cameras, _ = clip
    late = np.stack([keypoints[4:-4, 0], keypoints[2:-6, 1], keypoints[4:-4, 2]], axis=1)
    turned = Rotation.from_rotvec([0, 0.01, 0]).as_matrix().astype(np.float32)
    rotation = np.array(cameras.rotation)
    translation = np.array(cameras.translation)
    rotation[2], translation[2] = turned @ rotation[2], turned @ translation[2]
    off = dataclasses.replace(cameras, rotation=rotation, translation=translation)

    def apart(a):
        """Of view 2 as view 0 has it, which no turn of the world changes; radians."""
        found, known = (
            np.asarray(x.rotation)[2] @ np.asarray(x.rotation)[0].T for x in (a, cameras)
        )
        return np.linalg.norm(Rotation.from_matrix(found @ known.T).as_rotvec())

    found = lifter.predict(late, cameras, stages=("clocks", "cameras"))
    assert_allclose(found.clocks, [0, 2, 0], atol=0.1)
    assert apart(found.cameras) < np.radians(3 * CAREFUL.degrees)
    doubt = Doubt(0.5, 0.01, 0.005, frames=0.0)
    found = lifter.predict(keypoints, off, stages=("cameras",), doubt=doubt)
    assert apart(off) == pytest.approx(0.01, rel=0.01)
    assert apart(found.cameras) < 0.005
    believed = lifter.predict(
        keypoints, off, stages=("cameras",), doubt=Doubt(1e-4, 1e-5, 1e-5, 0, 0)
    )
    assert apart(believed.cameras) == pytest.approx(0.01, rel=0.05)


def test_a_view_without_calibration_is_said_in_its_own_axes(clip, lifter):
    camera = own.ideal((1000, 1000), 1100.0)
    found = lifter.predict(clip[0][:, :1], camera)
    assert found.in_views.shape == (len(clip[0]), 1, lifter.joint_skeleton.size, 3)
    # z up: what is up in the image is up.
    assert_allclose(found.world[..., 2], -found.in_views[:, 0, :, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k, c: (k[0], c, None), r"expected \[frames, views, joints, 2 or 3\]"),
        (
            lambda k, c: (k[:, :, :9], c, None),
            "there are 9 keypoints, but the network knows h36m17",
        ),
        (lambda k, c: (k[:, :2], c, None), r"leading axes \(3,\), but the keypoints 2 views"),
        (lambda k, c: (k, c, np.full(k.shape[:3], 7.0)), "a confidence is 7"),
        (lambda k, c: (k, c, np.zeros(k.shape[:3])), "no keypoint was found"),
        (lambda k, c: (k, c, np.ones(k.shape[:2])), "confidence has shape"),
        (lambda k, c: (k * np.nan, c, None), "no keypoint was found"),
        (
            lambda k, c: (k, dataclasses.replace(c, focal=c.focal * np.nan), None),
            "a camera holds NaN",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(clip, lifter, change, message):
    keypoints, cameras, confidence = change(clip[0], clip[1])
    with pytest.raises(PredictError, match=message):
        lifter.predict(keypoints, cameras, confidence)


def test_nan_is_a_joint_that_was_not_found(clip, lifter):
    keypoints = clip[0].copy()
    keypoints[3, 1, 4] = np.nan
    confidence = np.ones(keypoints.shape[:3])
    confidence[3, 1, 4] = 0
    found = lifter.predict(keypoints, clip[1])
    expected = lifter.predict(np.nan_to_num(keypoints), clip[1], confidence)
    assert_allclose(found.in_views, expected.in_views, atol=1e-6)


def command(run, out, *more):
    example = run / "example"
    given = ["--checkpoint", run / "run", "--keypoints", example / "keypoints.npz"]
    given += ["--cameras", example / "cameras.toml", "--output", out, *more]
    predict.main([str(x) for x in given])


def test_the_demos_example_becomes_files(run, tmp_path, capsys):
    formats = ("npz", "csv", "json", "trc", "bvh")
    command(run, tmp_path / "out", "--adapt", "poses", "--formats", *formats)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {*(f"person_0.{x}" for x in formats), "viewer.html", "summary.json"}
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    record = poses.read_split(run / "data", "test")[0]
    truth = np.asarray(record.clip.labels.joints)
    assert summary["people"][0]["frames"] == len(truth)
    with np.load(tmp_path / "out/person_0.npz") as file:
        assert np.linalg.norm(file["joints"] - truth, axis=-1).mean() < 0.05
        assert file["covariance"].shape == (*truth.shape, 3)
        deviation = np.sqrt(np.einsum("tjaa->tja", file["covariance"]))
    whole = json.loads((tmp_path / "out/person_0.json").read_text())
    assert_allclose(whole["deviation"], deviation, atol=1e-6)
    assert "viewer.html" in capsys.readouterr().out


def test_a_moving_picture_that_fails_loses_nothing_else(run, tmp_path, monkeypatch):
    def fails(path, scene):
        raise UserError("the disk is full")

    monkeypatch.setattr(movie, "write", fails)
    command(run, tmp_path / "out", "--movie", "gif")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["movie_failed"] == "the disk is full"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "person_0.npz",
        "viewer.html",
        "summary.json",
    }


def test_of_a_clip_too_long_for_a_page_everything_else_is_whole(run, tmp_path, monkeypatch, caplog):
    frames = len(poses.read_split(run / "data", "test")[0].clip.labels.joints)
    of = -(-frames // 3)
    # The joints said and triangulated, and keypoints, of one person in three views.
    monkeypatch.setattr(scene, "MAX_BYTES", of * 4 * 17 * (2 * (3 + 2 * 3) + 3 * 3))
    command(run, tmp_path / "out", "--formats", "npz", "csv", "--movie", "gif")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"person_0.npz", "person_0.csv", "viewer.html", "movie.gif", "summary.json"}
    assert f"viewer.html shows one of 3 frames, {of} of {frames}" in caplog.text
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["viewer_shows"] == f"{of} of {frames} frames"
    with np.load(tmp_path / "out/person_0.npz") as file:
        assert len(file["joints"]) == frames


def test_a_short_view_is_told_and_who_comes_later_is_there_from_then_on(
    run, clip, tmp_path, caplog
):
    """A person, then another, whom a detector numbers; one of three views ends early."""
    points = np.zeros((130, 3, 17, 2))
    ids = np.full((130, 3, 1), -1)
    for number, start in enumerate((0, 100)):
        points[start : start + 15], ids[start : start + 15] = clip[0][:15], number
    for view, (name, frames) in enumerate((("C1", 130), ("C2", 125), ("C3", 50))):
        own_points, own_ids = points[:frames, view : view + 1], ids[:frames, view : view + 1]
        np.savez(
            tmp_path / f"{name}.npz", keypoints=own_points[:, :, None], ids=own_ids,
            confidence=(own_ids >= 0)[..., None] * np.ones(17), skeleton="h36m17", views=[name],
        )  # fmt: skip
    given = ["--checkpoint", run / "run", "--cameras", run / "example/cameras.toml"]
    given += ["--output", tmp_path / "out", "--formats", "csv", "--fps", "25", "--keypoints"]
    predict.main([str(x) for x in (*given, *sorted(tmp_path.glob("*.npz")))])
    assert "are not the same (C1 0 to 129, C2 0 to 124, C3 0 to 49); all are kept" in caplog.text
    for number, start in enumerate((0, 100)):
        rows = (tmp_path / f"out/person_{number}.csv").read_text().splitlines()[1:]
        assert len(rows) == 15
        assert rows[0].startswith(f"{start},{start / 25:.6f},")


def test_views_cut_by_a_few_frames_are_not_told(clip, caplog):
    points = clip[0][:, :, None]
    gather.tell_lengths({"a": seen_as(points[10:, 0], first=10), "b": seen_as(points[:-10, 1])})
    assert not caplog.records
    gather.tell_lengths({"a": seen_as(points[11:, 0], first=11), "b": seen_as(points[:, 1])})
    assert f"(a 11 to {len(points) - 1}, b 0 to {len(points) - 1})" in caplog.text


def test_what_c3d_does_not_count_is_told_before_anything_is_lifted(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_C3D_FRAMES", 7)
    monkeypatch.setattr(trained.Trained, "predict", None)
    with pytest.raises(SystemExit, match="C3D counts 7 frames, but there are"):
        command(run, tmp_path / "out", "--formats", "npz", "c3d")


def test_axes_of_cameras_and_about_the_root(run, tmp_path):
    command(run, tmp_path / "out", "--space", "camera")
    names = [
        f"person_0_{name}.npz" for name in calibration.read(run / "example/cameras.toml").names
    ]
    assert all((tmp_path / "out" / name).exists() for name in names)
    command(run, tmp_path / "root", "--space", "root")
    with np.load(tmp_path / "root/person_0.npz") as file:
        assert_allclose(file["joints"][:, skeleton.get("h36m17").root], 0.0, atol=1e-6)


def two_people(clip, tmp_path):
    """One of them two metres aside; who is first changes from frame to frame."""
    keypoints, cameras, joints = clip
    aside = joints + np.array([0.0, 1.5, 0.0], np.float32)
    project = jax.jit(cam.batched(cam.project))
    wide = np.repeat(aside[:, None], keypoints.shape[1], axis=1)
    over = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], len(joints), 0), cameras)
    both = np.stack([keypoints, np.asarray(project(over, wide))], axis=2)
    both[::2] = both[::2, :, ::-1]
    np.savez(
        tmp_path / "two.npz", keypoints=both, confidence=np.ones(both.shape[:-1]),
        skeleton="h36m17", views=np.array(["a", "b", "c"]),
    )  # fmt: skip
    return aside


def test_people_leave_a_file_each(run, clip, tmp_path):
    aside = two_people(clip, tmp_path)
    arguments = ["--checkpoint", run / "run", "--keypoints", tmp_path / "two.npz"]
    arguments += ["--cameras", run / "example/cameras.toml", "--output", tmp_path / "out"]
    predict.main([str(x) for x in (*arguments, "--adapt", "poses")])
    found = []
    for number in range(2):
        with np.load(tmp_path / f"out/person_{number}.npz") as file:
            found.append(file["joints"])
    for truth in (aside, clip[2]):
        assert min(np.linalg.norm(x - truth, axis=-1).mean() for x in found) < 0.01


def test_several_people_and_cameras_in_another_order_are_refused(run, clip, tmp_path):
    two_people(clip, tmp_path)
    arguments = ["--checkpoint", run / "run", "--keypoints", tmp_path / "two.npz", "--cameras"]
    arguments += [run / "example/cameras.toml", "--views", "C3", "C1", "C2"]
    with pytest.raises(SystemExit, match="the views do not fit the cameras: C3"):
        predict.main([str(x) for x in (*arguments, "--output", tmp_path / "out")])


def test_people_whom_no_two_views_share_are_refused(clip):
    seen = np.repeat(clip[0][:, :, None], 2, axis=2)
    seen[:, :, 1] += 150.0  # two in each view, of whom those of other views are far away
    seen[:, 1:] += np.array([0.0, 400.0])
    people = np.concatenate([seen, np.ones((*seen.shape[:-1], 1))], axis=-1)
    views = [
        keypoints.Detections(tuple(people[:, view]), skeleton.get("h36m17"), 0)
        for view in range(people.shape[1])
    ]
    with pytest.raises(PredictError, match="no two views see the same people"):
        gather.people_of(views[:2], jax.tree.map(lambda x: x[:2], clip[1]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--views", "C2", "C1"), "--views names 2 cameras for 3 views"),
        (("--views", "C2", "C1", "C9"), "C9"),
        (("--views", "C2", "C1", "C3"), "C1, C2, C3"),  # the residuals tell
        (("--fps", "0"), "--fps 0.0: give a number above 0"),
        (("--people", "-1"), "--people and --size take"),
        (("--focal", "900"), "--focal is for one view without --cameras"),
        (("--doubt", "1", "0.1", "0.01"), "are about the stage cameras"),
        (("--doubt-radial", "0.1"), "are about the stage cameras"),
        (("--adapt", "cameras", "--doubt", "-1", "0", "0"), "--doubt takes numbers from 0 on"),
        (("--formats", "fbx"), "no format is named 'fbx'"),
        (("--convert", "coco17"), "coco17"),
        (("--smooth", "kalman", "--space", "root"), "--smooth work in the world"),
        (("--floor", "--space", "camera"), "leave out --space camera, or --floor"),
    ],
)
def test_a_wrong_command_says_what_to_do_and_leaves_nothing(run, tmp_path, more, message):
    with pytest.raises(SystemExit) as stopped:
        command(run, tmp_path / "out", *more)
    assert "error: " in str(stopped.value)
    assert message in str(stopped.value)
    assert not (tmp_path / "out").exists()


def test_what_fails_while_it_is_written_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("C3D needs ezc3d")

    monkeypatch.setitem(export._WRITERS, "c3d", fail)
    with pytest.raises(SystemExit, match="C3D needs ezc3d"):
        command(run, tmp_path / "out", "--formats", "npz", "c3d")
    assert not list(tmp_path.iterdir())


def test_views_without_cameras_are_refused(run, tmp_path):
    given = ["--checkpoint", run / "run", "--keypoints", run / "example/keypoints.npz"]
    with pytest.raises(SystemExit, match=r"there are 3 views .* and no --cameras"):
        predict.main([str(x) for x in (*given, "--output", tmp_path / "out")])
    with pytest.raises(SystemExit, match="no checkpoint in"):
        predict.main([str(x) for x in ("--checkpoint", tmp_path, *given[2:], "--output", "x")])


def seen_as(points, first=0, ids=None):
    """Detections of one view: people `[frames, people, joints, 2]`, NaN where nobody is."""
    whole = np.concatenate([np.nan_to_num(points), np.ones((*points.shape[:-1], 1))], axis=-1)
    there = [~np.isnan(frame).any(axis=(1, 2)) for frame in points]
    people = tuple(frame[own] for frame, own in zip(whole, there, strict=True))
    ids = None if ids is None else tuple(np.array(i) for i in ids)
    return keypoints.Detections(people, skeleton.get("h36m17"), first, ids)


def test_views_that_begin_at_other_frames_are_counted_alike(clip):
    points = clip[0][:, :, None]
    views = [seen_as(points[2:, 0], first=2), seen_as(points[:-3, 1])]
    (person,) = gather.people_of(views, jax.tree.map(lambda x: x[:2], clip[1]))
    assert person.start == 0
    assert_allclose(person.keypoints[2:, 0, :, :2], points[2:, 0, 0])
    assert not person.keypoints[:2, 0].any()
    assert not person.keypoints[-3:, 1].any()


def test_detectors_ids_are_followed_but_glimpses_are_nobody(clip):
    points = np.full((len(clip[0]), 2, 17, 2), np.nan)
    points[:, 0] = clip[0][:, 0]
    points[7, 1] = 900.0
    ids = [[3, 50] if frame == 7 else [3] for frame in range(len(points))]
    (person,) = gather.people_of([seen_as(points, ids=ids)], own.ideal((1000, 1000)))
    assert_allclose(person.keypoints[:, 0, :, :2], clip[0][:, 0])


def test_people_one_after_another_are_two_where_numbers_say_so(clip, caplog):
    points = np.full((280, 2, 17, 2), np.nan)
    points[:15, 0] = clip[0][:15, 0]
    points[240:255, 1] = 1.5 * clip[0][:15, 0]
    ids = [[1] if frame < 15 else [2] if 240 <= frame < 255 else [] for frame in range(280)]
    camera = own.ideal((1000, 1000))
    first, second = gather.people_of([seen_as(points, ids=ids)], camera)
    assert (first.start, second.start) == (0, 240)
    assert_allclose(second.keypoints[:, 0, :, :2], points[240:255, 1])
    assert not caplog.records
    assert len(gather.people_of([seen_as(points)], camera)) == 1
    assert "nobody is seen in frames 15 to 239; who is there then is taken" in caplog.text


def test_few_frames_of_several_people_are_enough(clip):
    aside = clip[0][:3, :, None] + np.array([0.0, 150.0])  # two in each view
    both = np.concatenate([clip[0][:3, :, None], aside], axis=2)
    views = [seen_as(both[:, view]) for view in range(2)]
    people = gather.people_of(views, jax.tree.map(lambda x: x[:2], clip[1]))
    assert any((person.keypoints[..., 2].any(axis=(0, 2))).all() for person in people)


@pytest.mark.parametrize("names", [("b", "c", "e"), ("a", "b")])
def test_names_that_agree_in_part_are_not_paired_by_order(clip, names):
    rig = calibration.Rig(("a", "b", "c"), clip[1])
    views = {name: seen_as(clip[0][:, 0][:, None]) for name in names}
    if set(names) <= set(rig.names):
        assert gather.paired(views, rig, ()).names == names
    else:
        with pytest.raises(PredictError, match=r"by --views which camera"):
            gather.paired(views, rig, ())


def test_frames_in_which_nobody_is_seen_are_left_empty(clip, lifter):
    blank = np.ones(clip[0].shape[:3])
    blank[5:9] = 0
    blank[:, 2] = 0
    found = lifter.predict(clip[0], clip[1], blank)
    ((_, measured),) = predict.in_space(found, "world", lifter, "abc").values()
    assert_array_equal(np.flatnonzero(measured[:, 0] == 0), [5, 6, 7, 8])
    of_camera = predict.in_space(found, "camera", lifter, "abc")
    assert not of_camera["_c"][1].any()
    # x to the right, y away, z up.
    places, _ = of_camera["_a"]
    assert_allclose(places[..., 1], found.in_views[:, 0, :, 2])
    assert_allclose(places[..., 2], -found.in_views[:, 0, :, 1])


def test_cameras_are_told_by_the_parts_that_several_views_see(clip, lifter, monkeypatch):
    monkeypatch.setattr(bundle, "PART", 8)
    given = []
    solved = np.zeros((3, 9), np.float32)
    monkeypatch.setattr(bundle, "corrections_of", lambda parts, *_: given.extend(parts) or solved)
    there = np.ones(clip[0].shape[:3])
    there[:8, 1:] = 0
    lifter.predict(clip[0], clip[1], there, stages=("cameras",))
    assert [part.confidence[:, 1].any() for part in given] == [True, True]
    there[:, 1:] = 0
    with pytest.raises(PredictError, match="no two views see a joint at the same time"):
        lifter.predict(clip[0], clip[1], there, stages=("clocks",))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut"])
def test_a_damaged_body_is_told(tmp_path, damage):
    (tmp_path / "body.npz").write_bytes(damage)
    with pytest.raises(PredictError, match="cannot be read"):
        trained._load(tmp_path / "body.npz", 3)


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_moving_picture_is_left_and_told(run, tmp_path, capsys, kind):
    example = run / "example"
    predict.main(
        shlex.split(
            f"--checkpoint {run}/run --keypoints {example}/keypoints.npz --cameras "
            f"{example}/cameras.toml --movie {kind} --output {tmp_path}/out"
        )
    )
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["movie"] == f"movie.{kind}"
    assert f"movie.{kind}: {summary['movie_shows']}" in capsys.readouterr().out
    assert (tmp_path / "out" / summary["movie"]).stat().st_size > 10_000


def test_a_moving_picture_that_cannot_be_made_is_told_first(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    arguments = shlex.split(
        f"--checkpoint {run}/none --keypoints a.npz --movie mp4 --output {tmp_path}/out"
    )
    with pytest.raises(SystemExit, match="MP4 needs imageio-ffmpeg"):
        predict.main(arguments)


def test_people_are_made_quiet_and_set_on_their_floor(run, clip, tmp_path, monkeypatch):
    """Of a world that lies on its side, the cameras are told and shown anew, too."""
    views = ("C1", "C2", "C3")
    joints = walk(np.random.default_rng(0), Body(height=1.6), np.arange(150) / 30)
    project = jax.jit(cam.batched(cam.project))

    def seen_by(cameras, joints):
        over = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], len(joints), 0), cameras)
        wide = np.repeat(joints[:, None], len(views), axis=1).astype(np.float32)
        return np.array(project(over, wide))

    turn = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    rotation = np.asarray(clip[1].rotation) @ turn.T
    lying = dataclasses.replace(clip[1], rotation=rotation.astype(np.float32))
    calibration.write(tmp_path / "lying.toml", calibration.Rig(views, lying))
    points, there = seen_by(clip[1], joints), np.ones((150, 3, 17), np.float32)
    there[70:75] = 0  # nobody
    np.savez(
        tmp_path / "seen.npz", keypoints=points, confidence=there, skeleton="h36m17", views=views
    )

    def say(self, keypoints, cameras, **_):  # the truth, but for some trembling
        trembling = joints + 0.005 * (-1.0) ** np.arange(150)[:, None, None]
        world = (trembling @ turn.T).astype(np.float32)
        in_views = np.repeat(world[:, None], 3, axis=1)
        return trained.Poses(
            in_views, world, keypoints, None, cameras, np.zeros(3, np.float32), "absolute"
        )

    monkeypatch.setattr(trained.Trained, "predict", say)
    given = ["--checkpoint", run / "run", "--keypoints", tmp_path / "seen.npz", "--cameras"]
    given += [tmp_path / "lying.toml", "--output", tmp_path / "out"]
    predict.main([str(x) for x in (*given, "--smooth", "butterworth", "--floor")])

    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["floor"]["tilt_degrees"] == pytest.approx(90, abs=0.5)
    assert summary["cameras"] == "cameras.toml"
    with np.load(tmp_path / "out/person_0.npz") as file:
        found, contact, feet = (file[name] for name in ("joints", "contact", "feet"))
    assert feet.tolist() == ["right_ankle", "left_ankle"]
    assert not contact[70:75].any()
    assert np.isnan(found[70:75]).all()
    known = np.delete(np.arange(150), range(70, 75))
    ankles = [skeleton.get("h36m17").joints.index(name) for name in feet]
    expected = joints[..., 2] - joints[:, ankles, 2].min() + 0.09
    assert np.abs(found[..., 2] - expected)[known].mean() < 0.005
    # The trembling is gone: it bent every joint by 2 cm a frame.
    bends = np.diff(found - joints, n=2, axis=0)[5:60]
    assert np.abs(bends - bends.mean(axis=(0, 1))).mean() < 0.003
    for name, touching in zip(feet, contact.T, strict=True):
        said = np.zeros(150, bool)
        for first, stop in summary["people"][0]["contact"][name]:
            said[first:stop] = True
        assert_array_equal(said, touching)
    assert 0.1 < contact.mean() < 0.8
    cameras = calibration.read(tmp_path / "out/cameras.toml").cameras
    assert np.median(np.abs(seen_by(cameras, found[known]) - points[known])) < 1.0


def test_videos_are_taken_as_keypoints_are(run, clip, tmp_path, monkeypatch, caplog):
    """A view that left and right are exchanged in is mended; what is no video leaves nothing."""
    views = [f"C{number}" for number in range(1, len(clip[0][0]) + 1)]
    points = np.concatenate([clip[0], np.ones((*clip[0].shape[:-1], 1))], axis=-1)[:25]
    wrong = np.zeros(points.shape[:2], bool)
    wrong[5:20, 1] = True
    shown = sides.mended(points, wrong, skeleton.get("h36m17"))

    def seen(path, network):
        list(video.frames(path))  # as what looks at it would find it
        view = views.index(path.stem)
        people = tuple(frame[None] for frame in shown[:, view])
        return Detections(people, skeleton.get("h36m17"), 0, fps=50.0)

    monkeypatch.setattr(detect, "weights", lambda folder: tmp_path)
    monkeypatch.setattr(detect, "BlazePose", lambda folder: None)
    monkeypatch.setattr(detect, "view", seen)
    videos = [write(tmp_path / f"{name}.mp4", pictures(frames=5)) for name in views]
    calibration.write(tmp_path / "cameras.toml", calibration.Rig(tuple(views), clip[1]))
    given = ["--checkpoint", run / "run", "--cameras", tmp_path / "cameras.toml"]
    given += ["--output", tmp_path / "out", "--keypoints"]
    predict.main([str(x) for x in (*given, *videos)])
    assert json.loads((tmp_path / "out/summary.json").read_text())["fps"] == 50
    with np.load(tmp_path / "out/person_0.npz") as file:
        found = file["joints"]
    expected = pose3d_jax.load(run / "run").predict(points, clip[1]).world
    away = np.linalg.norm(found - expected, axis=-1).max(axis=1)
    assert np.count_nonzero(away > 1e-4) <= 4  # frames about the change
    assert "left and right were exchanged" in caplog.text

    videos[0].write_bytes(b"no video")
    given[given.index(tmp_path / "out")] = tmp_path / "other"
    with pytest.raises(SystemExit, match=r"C1\.mp4: is no video that can be read"):
        predict.main([str(x) for x in (*given, *videos)])
    assert not (tmp_path / "other").exists()
