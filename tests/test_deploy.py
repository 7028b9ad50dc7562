"""Exported lifters say what the checkpoint says, elsewhere: jax alone, onnxruntime."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_allclose

import pose3d_jax
from configs import cmu_fused, cmu_mv_seq, cmu_vae
from configs.demo import get_config
from data_prep import synthetic
from pose3d_jax import cameras as cam
from pose3d_jax import deploy, inference, methods, portable, skeleton, train
from pose3d_jax.config import complete
from pose3d_jax.data import own, poses, windows
from pose3d_jax.methods.base import Info, context_of
from pose3d_jax.portable import DeployError
from pose3d_jax.trained import Trained

# Reads the file and calls it for each batch; what it may import is jax and NumPy.
ALONE = """
import sys
import jax, numpy as np
from jax import export
path, given, found = sys.argv[1:]
lifter = jax.jit(export.deserialize(bytearray(open(path, "rb").read())).call)
arrays = np.load(given)
names = ("keypoints", "confidence", "focal", "center", "distortion")
said = {size: np.asarray(lifter(*(arrays[name][: int(size)] for name in names)))
        for size in arrays["sizes"].astype(str)}
assert not {"pose3d_jax", "flax", "orbax"} & {name.partition(".")[0] for name in sys.modules}
np.savez(found, **said)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps, and its data."""
    folder = tmp_path_factory.mktemp("deploy")
    synthetic.main(["--out", str(folder / "data"), "--scale", "0.1"])
    config = get_config("multiview-tiny")
    config.data.path = str(folder / "data")
    train.run(config, folder / "run")
    return folder


@pytest.fixture(scope="module")
def out(run):
    deploy.main(
        ["--checkpoint", str(run / "run"), "--output", str(run / "out"), "--formats", "jax", "onnx"]
    )
    return run / "out"


@pytest.fixture(scope="module")
def seen(run):
    """Rows of all views of the test clips, with missing joints, and what `predict` says of them."""
    clips = [record.clip.observations for record in poses.read_split(run / "data", "test")]
    rig = jax.tree.map(lambda x: np.asarray(x[0]), clips[0].cameras)
    keypoints = np.concatenate([np.array(clip.keypoints) for clip in clips])
    frames, views, joints, _ = keypoints.shape
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, (frames, views, joints)).astype(np.float32)
    confidence[rng.uniform(size=confidence.shape) < 0.2] = 0
    confidence[1] = 0  # nobody is seen
    confidence[2, :, 0] = 0  # the root is missing
    keypoints[3, :, 4] = np.nan
    assert np.abs(rig.distortion).max() > 0.05
    assert_allclose(rig.tangential, cam.TANGENTIAL["opencv"])
    expected = pose3d_jax.load(run / "run").predict(keypoints, rig, confidence).in_views

    def rows(x):
        return np.asarray(x, np.float32).reshape(frames * views, *x.shape[2:])

    lens = [np.repeat(x[None], frames, axis=0) for x in (rig.focal, rig.center, rig.distortion)]
    arrays = dict(zip(NAMES, map(rows, (keypoints, confidence, *lens)), strict=True))
    assert len(expected) * views > SIZES[-1]
    return arrays, rows(expected)


NAMES = ("keypoints", "confidence", "focal", "center", "distortion")
SIZES = (1, 7, 64, 400)


def test_it_says_the_same_where_there_is_jax_alone(out, seen, tmp_path):
    arrays, expected = seen
    np.savez(tmp_path / "given.npz", sizes=SIZES, **arrays)
    files = [
        str(p) for p in (out / "model.jaxexport", tmp_path / "given.npz", tmp_path / "found.npz")
    ]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *map(str, files)], check=True, cwd=tmp_path)
    with np.load(tmp_path / "found.npz") as found:
        for size in SIZES:
            assert_allclose(found[str(size)], expected[:size], atol=2e-5)


def test_it_says_the_same_in_onnxruntime(out, seen, capfd):
    arrays, expected = seen
    onnx.checker.check_model(str(out / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [each.name for each in session.get_inputs()] == list(NAMES)
    for size in SIZES:
        (found,) = session.run(["joints"], {name: arrays[name][:size] for name in NAMES})
        assert_allclose(found, expected[:size], atol=2e-5)
    assert "W:onnxruntime" not in capfd.readouterr().err  # of what is not used, for instance


def test_what_is_loaded_is_what_was_exported(out, seen):
    arrays, expected = seen
    lifter = deploy.load(out / "model.jaxexport")
    given = [arrays[name][:64] for name in NAMES]
    found = np.asarray(lifter(*given))
    assert_allclose(found, expected[:64], atol=2e-5)
    # Rows know nothing of one another.
    order = np.random.default_rng(0).permutation(64)
    assert_allclose(lifter(*(x[order] for x in given)), found[order], atol=1e-5)
    # What is missing is missing, whatever stands there.
    moved = np.where(given[1][..., None] > 0, given[0], 1e6)
    assert_allclose(lifter(moved, *given[1:]), found, atol=1e-6)
    # Poses are somebody's: they differ, and are somewhere in front of the camera.
    assert np.std(found - found[:, :1], axis=0).max() > 1e-3
    assert found[..., 2].min() > 0


def test_it_says_what_it_is(run, out):
    said = json.loads((out / "model.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == sorted([*said["files"], "model.json"])
    assert [each["name"] for each in said["inputs"]] == list(NAMES)
    model = onnx.load(out / "model.onnx")
    for each, there in zip(said["inputs"], model.graph.input, strict=True):
        dims = there.type.tensor_type.shape.dim
        assert each["shape"] == [dim.dim_param or dim.dim_value for dim in dims]
    assert said["output"]["space"] == "absolute"
    assert said["keypoints"]["names"] == list(skeleton.get("h36m17").joints)
    assert "**synthetic**" in said["card"]
    for file in said["files"].values():
        assert 0 <= file["largest_difference_m"] < 2e-5
    exported = jax.export.deserialize(bytearray((out / "model.jaxexport").read_bytes()))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}


def test_a_file_that_says_something_else_is_refused(run, out, monkeypatch, tmp_path):
    """And what was there stays."""
    there = shutil.copytree(out, tmp_path / "out")
    right = portable.lift_of

    def wrong(network):
        lift = right(network)
        return lambda *arrays: lift(*arrays) + 0.01

    monkeypatch.setattr(deploy, "lift_of", wrong)
    with pytest.raises(SystemExit, match=r"0\.01 m else than the checkpoint"):
        deploy.main(["--checkpoint", str(run / "run"), "--output", str(there)])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for path in out.iterdir():
        assert (there / path.name).read_bytes() == path.read_bytes()


def test_a_folder_holds_what_its_description_names(run, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_text("of an earlier run")
    (tmp_path / "notes.txt").write_text("mine")
    deploy.main(["--checkpoint", str(run / "run"), "--output", str(tmp_path)])
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"model.jaxexport", "model.json", "notes.txt"}


# ----------------------------------------------------------------------------- other networks


def fresh(config):
    """A network that nobody trained, its weights drawn so large that poses are no one point."""
    config = complete(config.to_dict())
    joints = skeleton.get("h36m17")
    info = Info(joints, joints, precision=config["precision"])
    method = methods.create(config["method"], info)
    blank = own.clip_of(np.ones((1, 1, joints.size, 2)), None, own.ideal((2, 2)), joints)
    data = windows.cut(own.data_of(blank, joints, joints, 30.0), 1, context=context_of(method))
    batch = {"main": data.poses.take(jnp.zeros(1, jnp.int32))}
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: np.asarray(x + rng.uniform(0, 0.1, x.shape), np.float32),
        jax.jit(method.init)(jax.random.key(0), batch),
    )
    lifting = inference.settings_of(1, config["evaluation"])
    metadata = {"config": config, "step": 0, "version": "0"}
    return Trained(Path("nowhere"), metadata, info, method, variables, lifting)


def test_a_network_of_several_frames_gets_them():
    network = fresh(cmu_mv_seq.get_config("network=convolution,tiny"))
    before, after = context_of(network.method)
    shapes = {each.name: each.shape for each in portable.inputs_of(network)}
    assert shapes["keypoints"] == (before + 1 + after, 17, 2)
    lift = jax.jit(portable.lift_of(network))
    assert deploy.difference(network, lift) < 2e-5
    # The other frames matter.
    rows = portable.rows_of(network, portable.example(network, 7))
    alone = rows[1] * (np.arange(before + 1 + after) == before)[:, None]
    assert np.abs(lift(rows[0], alone, *rows[2:]) - lift(*rows)).max() > 1e-3


def test_mirror_images_are_inside():
    network = fresh(get_config("supervised-tiny"))
    mirrored = dataclasses.replace(network, lifting=network.lifting._replace(flip=True))
    lift = jax.jit(portable.lift_of(mirrored))
    assert deploy.difference(mirrored, lift) < 2e-5
    assert deploy.difference(network, lift) > 1e-3


def test_what_was_trained_in_bfloat16_is_exported_in_float32():
    config = get_config("supervised-tiny")
    exact = fresh(config)
    config.precision = "bfloat16"
    rounded = fresh(config)
    lift = jax.jit(portable.lift_of(portable.in_float32(rounded)))
    assert deploy.difference(exact, lift) < 2e-5
    assert deploy.difference(rounded, lift) > 1e-4


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (cmu_fused.get_config("tiny"), "all views of a moment"),
        (cmu_mv_seq.get_config("network=transformer,tiny"), "windows that overlap"),
        (cmu_vae.get_config("tiny"), "draws poses by chance"),
    ],
)
def test_a_network_that_lifts_no_rows_is_refused(config, says):
    with pytest.raises(DeployError, match=says):
        portable.lift_of(fresh(config))


# ---------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output", "{here}/file"], "is no folder"),
        (["--formats", "tflite"], "no format is named 'tflite'; there are jax, onnx"),
        (["--checkpoint", "{here}/none"], "none"),
    ],
)
def test_what_a_newcomer_does_wrong(run, tmp_path, arguments, says):
    (tmp_path / "file").write_text("")
    given = ["--checkpoint", str(run / "run"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=f"^error: .*{says}"):
        deploy.main([*given, *(each.format(here=tmp_path) for each in arguments)])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_network_that_looks_at_pictures_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pose3d_jax.trained, "needs_images_of", lambda method: True)
    with pytest.raises(SystemExit, match="looks at images, not at keypoints"):
        deploy.main(["--checkpoint", str(run / "run"), "--output", str(tmp_path / "out")])


@pytest.mark.parametrize("module", ["jax2onnx", "onnxruntime"])
def test_without_the_extra_it_says_what_to_install(run, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    given = ["--checkpoint", str(run / "run"), "--output", str(tmp_path / "out")]
    with pytest.raises(
        SystemExit, match=rf"ONNX needs {module}: pip install 'pose3d_jax\[deploy\]'"
    ):
        deploy.main([*given, "--formats", "jax", "onnx"])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_loaded(tmp_path):
    (tmp_path / "model.jaxexport").write_bytes(b"no export at all")
    with pytest.raises(DeployError, match="export the checkpoint anew"):
        deploy.load(tmp_path / "model.jaxexport")
    with pytest.raises(DeployError, match="cannot be read"):
        deploy.load(tmp_path / "none")
