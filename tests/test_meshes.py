"""Bodies of clips in files: placed as the labels have them; a run's own, by the command."""

import dataclasses
import sys

import jax
import numpy as np
import pygltflib
import pytest
import trimesh
from numpy.testing import assert_allclose
from PIL import Image
from scipy.spatial.transform import Rotation

from configs import body_cmu
from data_prep import body_cmu as prepare
from data_prep import writer
from pose3d_jax import body as bodies
from pose3d_jax import cameras as cam
from pose3d_jax import evaluate, meshes, skeleton, train
from pose3d_jax import figure as figures
from pose3d_jax.data import poses, windows
from pose3d_jax.errors import UserError
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.methods.base import Info
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.viewer import interactive
from pose3d_jax.viewer.scene import Scene
from tests.bodies import motion as walk
from tests.bodies import prepared
from tests.viewer.test_interactive import embedded, numbers

BODY25 = skeleton.get("body25")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("meshes"))


@pytest.fixture(scope="module")
def run(folder):
    config = body_cmu.get_config("tiny")
    config.data.path = str(folder / "data")
    config.method.body = str(folder / "person.npz")
    config.evaluation.test = ("validation",)
    for phase in config.phases:  # quicker to compile: tests of their own
        phase.update(augmentation={}, disturbance={})
    return folder / "run", train.run(config, folder / "run")


def test_the_config_trains_and_predicts(run):
    row = run[1]["splits"]["validation"]["rows"]["dynamics"]
    assert 0 < row["p1"]["frames"] < 2.0
    assert 0 < row["absolute"]["frames"] < 20.0


@pytest.mark.slow
def test_a_step_at_the_published_width(folder, tmp_path):
    """All of it: 2,048 features, 1,024 hidden units, windows of 20 frames."""
    config = body_cmu.get_config("variant=published")
    config.data.path = str(folder / "data")
    config.method.body = str(folder / "person.npz")
    with config.ignore_type():
        config.evaluation.test = ("validation",)
    config.phases[0]["length_steps"] = 1
    for stream in config.streams.values():
        stream["batch_size"] = 1
    found = train.run(config, tmp_path / "run")
    assert found["steps"] == 1
    assert 0 < found["splits"]["validation"]["rows"]["dynamics"]["p1"]["frames"] < 2.0
    variables = evaluate.restore(tmp_path / "run").variables["params"]["dynamics"]
    count = sum(x.size for x in jax.tree.leaves(variables["encoder"]))
    assert abs(count / 75e6 - 1) < 0.02


def known(data):
    """What would be said if everything was known, in the axes of turned cameras."""
    labels, cameras = data.poses.labels, data.poses.observations.cameras
    frames = len(labels.joints)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(frames, 2, 3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))[..., None, None]
    rotations = np.asarray(jax.jit(axis_angle_to_matrix)(labels.body.rotations))
    rotations = np.repeat(rotations[:, None], 2, axis=1)
    rotations[:, :, 0] = turn @ np.asarray(cameras.rotation) @ rotations[:, :, 0]
    world = np.repeat(np.asarray(labels.joints)[:, None], 2, axis=1)
    camera = np.asarray(jax.jit(cam.batched(cam.to_camera))(cameras, world))
    return meshes.Bodies(
        joints=np.zeros((1, frames, 2, 25, 3), np.float32),
        rotations=rotations.astype(np.float32),
        shape=np.repeat(np.asarray(labels.body.shape)[:, None], 2, axis=1),
        turn=turn.astype(np.float32),
        root=np.array(camera[:, :, BODY25.root]),
    )


def moving(folder, data, said, view):
    """A motion, and the joints of the mesh that is written, in the world."""
    method = HMMR(Info(BODY25, BODY25), body=str(folder / "person.npz"), width=32)
    (clip,) = windows.clips(data.poses)
    motion = meshes.motion_of(method, said, data, clip, view)
    vertices = meshes.posed(bodies.load(folder / "person.npz"), motion)
    with np.load(folder / "person.npz") as file:
        return motion, np.einsum("pn,tni->tpi", file["regressor_body25"], vertices)


@pytest.mark.parametrize("view", [0, 1])
def test_a_body_that_is_known_stands_where_the_labels_have_it(folder, view):
    """The second camera moves."""
    data = poses.load([folder / "data"], "validation")
    _, joints = moving(folder, data, known(data), view)
    assert_allclose(joints, data.poses.labels.joints, atol=2e-5)


def test_where_nothing_is_seen_a_body_moves_on_evenly(folder):
    """Whatever is said of such frames; before the first and after the last it stands still."""
    data = poses.load([folder / "data"], "validation")
    said, truth = known(data), np.asarray(data.poses.labels.joints)
    blank = np.r_[0:3, 10:15, 38:40]
    for part in (said.rotations, said.shape, said.root):
        part[blank] = np.roll(part, 7, axis=0)[blank] * 1.5
    observations = data.poses.observations
    hidden = observations.confidence.at[blank].set(0.0)
    observations = dataclasses.replace(observations, confidence=hidden)
    data = dataclasses.replace(
        data, poses=dataclasses.replace(data.poses, observations=observations)
    )
    motion, joints = moving(folder, data, said, 0)
    seen = np.setdiff1d(np.arange(40), blank)
    assert_allclose(joints[seen], truth[seen], atol=2e-5)
    root = BODY25.root
    between = np.linspace(truth[9, root], truth[15, root], 7)
    assert_allclose(joints[9:16, root], between, atol=2e-5)
    assert_allclose(joints[:3], np.repeat(truth[3:4], 3, axis=0), atol=2e-5)
    assert_allclose(joints[38:], np.repeat(truth[37:38], 2, axis=0), atol=2e-5)
    # Half way limbs have turned by half of what they turn.
    for part in motion.rotations.swapaxes(0, 1):
        half = Rotation.from_matrix(part[[9, 15]]).mean().as_matrix()
        assert_allclose(part[12], half, atol=1e-5)
    nothing = dataclasses.replace(observations, confidence=0 * hidden)
    nothing = dataclasses.replace(data, poses=dataclasses.replace(data.poses, observations=nothing))
    with pytest.raises(UserError, match="shows nothing"):
        moving(folder, nothing, said, 0)


def test_what_is_said_of_whole_clips_is_what_is_predicted_of_them(folder, run):
    restored = evaluate.restore(run[0])
    data = restored.splits["validation"]
    method = restored.method
    said = meshes.said_of(method, restored.variables, data)
    assert said.joints.shape[:3] == (3, len(data.poses.labels.joints), 2)
    predicted = evaluate.predict(restored, data).joints
    assert_allclose(said.root, predicted[:, :, BODY25.root], atol=1e-4)
    about = predicted - predicted[:, :, BODY25.root][:, :, None]
    assert_allclose(np.einsum("tvij,tvnj->tvni", said.turn, about), said.joints[0], atol=1e-4)


def test_the_command_leaves_a_mesh_and_a_preview_of_each_clip(run, tmp_path, capsys):
    common = ["--workdir", str(run[0]), "--output", str(tmp_path / "out")]
    meshes.main([*common, "--view", "1", "--preview", "--page"])
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / f"validation_clip.{kind}") for kind in ("glb", "html", "gif")
    ]
    with Image.open(tmp_path / "out" / "validation_clip.gif") as picture:
        assert picture.n_frames > 10  # 40 frames at 30 a second, every second
    (read,) = trimesh.load(tmp_path / "out" / "validation_clip.glb").geometry.values()
    assert read.vertices.shape == (24 * 6, 3)
    page = embedded((tmp_path / "out" / "validation_clip.html").read_text())
    (method,) = page["methods"]
    surface = method["mesh"]
    steps = numbers(surface["vertices"], 40, 24 * 6, 3)
    shown = steps * np.array(surface["step"]) + surface["middle"]
    meshes.main([*common, "--view", "1", "--format", "obj", "--clip", "validation_clip"])
    files = sorted((tmp_path / "out" / "validation_clip").iterdir())
    assert len(files) == 40
    for frame in (0, 39):  # the page's body is that of the files, around its joints
        x, up, back = np.asarray(trimesh.load(files[frame], process=False).vertices).T
        vertices = np.stack([x, -back, up], axis=-1)  # the files are y up
        assert_allclose(shown[frame], vertices, atol=1e-3)
        joints = numbers(method["joints"], 40, 25, 3)[frame]
        assert np.linalg.norm(joints.mean(axis=0) - vertices.mean(axis=0)) < 0.5


def test_a_page_has_the_view_of_a_camera_that_stands_still(folder):
    found = poses.load([folder / "data"], "validation").poses.observations
    points = np.zeros((len(found.confidence), 25, 3), np.float32)
    moved = []
    for view in range(2):
        cameras = jax.tree.map(lambda x, view=view: x[:, view], found.cameras)
        shown = meshes._in_view(cameras, ("still", "moving"), view, points)
        moved.append(not shown)
        if shown:
            joints = np.ones((len(points), 1, 25, 3))
            scene = Scene(30.0, BODY25, {"body": joints}, keypoint_skeleton=BODY25, **shown)
            (own,) = embedded(interactive.render(scene))["views"]
            assert own["name"] == "still"
    assert moved == [False, True]


def test_clips_of_another_rate_are_written_at_the_run_s(folder, run, tmp_path):
    figure = figures.load(folder / "person.npz", BODY25)
    spec = {"name": "slow", "clip": "amc/01_01", "start": 0, "group": "g", "center_xy": [0.0, 0.0]}
    record = prepare.record(figure, walk(20, 5), spec, "test", 15.0)
    writer.write(tmp_path / "data", prepare.NAME, {"test": [record]}, description="small")
    wanted = meshes.Wanted(tmp_path / "out")
    (path,) = meshes.run(run[0], wanted, data=str(tmp_path / "data"), split="test")
    gltf = pygltflib.GLTF2().load(str(path))
    clock = gltf.accessors[gltf.animations[0].samplers[0].input]
    assert clock.count == 39  # the same 19 / 15 seconds
    assert_allclose(clock.max, [38 / 30], rtol=1e-5)


def test_missing_libraries_are_said_before_anything_is_done(tmp_path, monkeypatch):
    for name in ("pygltflib", "embreex"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="glTF needs pygltflib; install it"):
        meshes.Wanted(tmp_path / "out").check(["a"])
    with pytest.raises(UserError, match="meshes needs embreex; install it"):
        meshes.Wanted(tmp_path / "out", format="obj", preview=True).check(["a"])


def test_two_clips_of_one_file_are_refused(tmp_path):
    wanted = meshes.Wanted(tmp_path / "out")
    with pytest.raises(UserError, match=r"would be of both a 1 and a_1; name one"):
        wanted.check(["a 1", "a_1"])
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        wanted.check(["a"])
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="is there already; remove it, or give another"):
        meshes.Wanted(tmp_path, format="obj").check(["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "other"], "validation has no clip other; it has validation_clip"),
        (["--view", "2"], "--view 2: validation has views 0 to 1"),
        (["--data", "nowhere"], "nowhere"),
        (["--split", "nowhere"], "nowhere"),
    ],
)
def test_what_is_not_there_is_said(run, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        meshes.main(["--workdir", str(run[0]), "--output", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()
