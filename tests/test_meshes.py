"""Bodies of clips in files: placed as the labels have them; a run's own, by the command."""

import jax
import numpy as np
import pytest
import trimesh
from numpy.testing import assert_allclose
from PIL import Image

from configs import body_cmu
from pose3d_jax import body as bodies
from pose3d_jax import cameras as cam
from pose3d_jax import evaluate, meshes, skeleton, train
from pose3d_jax.data import poses, windows
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.methods.base import Info
from pose3d_jax.methods.dynamics import HMMR
from tests.bodies import prepared

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


@pytest.mark.parametrize("view", [0, 1])
def test_a_body_that_is_known_stands_where_the_labels_have_it(folder, view):
    """Said in the axes of a turned camera; the second camera moves, too."""
    data = poses.load([folder / "data"], "validation")
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
    said = meshes.Bodies(
        joints=np.zeros((1, frames, 2, 25, 3), np.float32),
        rotations=rotations.astype(np.float32),
        shape=np.repeat(np.asarray(labels.body.shape)[:, None], 2, axis=1),
        turn=turn.astype(np.float32),
        root=camera[:, :, BODY25.root],
    )
    method = HMMR(Info(BODY25, BODY25), body=str(folder / "person.npz"), width=32)
    (clip,) = windows.clips(data.poses)
    motion = meshes.motion_of(method, said, data, clip, view)
    whole = bodies.load(folder / "person.npz")
    vertices = meshes.posed(whole, motion)
    with np.load(folder / "person.npz") as file:
        regressor = file["regressor_body25"]
    assert_allclose(np.einsum("pn,tni->tpi", regressor, vertices), labels.joints, atol=2e-5)


def test_what_is_said_of_whole_clips_is_what_is_predicted_of_them(folder, run):
    restored = evaluate.restore(run[0])
    data = restored.splits["validation"]
    method = restored.method
    said = meshes.said_of(method, restored.variables, data, 4)
    assert said.joints.shape[:3] == (3, len(data.poses.labels.joints), 2)
    predicted = evaluate.predict(restored, data).joints
    # Crops are smoothed over windows, which lie otherwise.
    assert_allclose(said.root, predicted[:, :, BODY25.root], atol=1e-3)
    about = predicted - predicted[:, :, BODY25.root][:, :, None]
    assert_allclose(np.einsum("tvij,tvnj->tvni", said.turn, about), said.joints[0], atol=1e-3)


def test_the_command_leaves_a_mesh_and_a_preview_of_each_clip(run, tmp_path, capsys):
    common = ["--workdir", str(run[0]), "--output", str(tmp_path / "out")]
    meshes.main([*common, "--view", "1", "--preview"])
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / f"validation_clip.{kind}") for kind in ("glb", "gif")
    ]
    with Image.open(tmp_path / "out" / "validation_clip.gif") as picture:
        assert picture.n_frames > 10  # 40 frames at 30 a second, every second
    (read,) = trimesh.load(tmp_path / "out" / "validation_clip.glb").geometry.values()
    assert read.vertices.shape == (24 * 6, 3)
    meshes.main([*common, "--format", "obj", "--clip", "validation_clip"])
    assert len(list((tmp_path / "out" / "validation_clip").iterdir())) == 40


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
