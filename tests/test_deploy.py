"""Exported lifters say what the checkpoint says, elsewhere: jax alone, onnxruntime."""

import dataclasses
import functools
import json
import re
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
from pose3d_jax import cameras as cam
from pose3d_jax import checkpoint, deploy, inference, methods, portable, skeleton
from pose3d_jax.config import complete
from pose3d_jax.data import own, windows
from pose3d_jax.formats import calibration
from pose3d_jax.methods.base import Info, context_of
from pose3d_jax.phases import phases_of
from pose3d_jax.portable import DeployError
from pose3d_jax.state import init_state
from pose3d_jax.trained import Trained

H36M = skeleton.get("h36m17")
NAMES = ("keypoints", "confidence", "focal", "center", "distortion")
SIZES = (1, 7, 64, 440)
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


def fresh(config):
    """A network that nobody trained, its weights drawn so large that poses are no one point."""
    config = complete(config.to_dict())
    info = Info(H36M, H36M, precision=config["precision"])
    method = methods.create(config["method"], info)
    rng = np.random.default_rng(0)

    def drawn(leaf):
        found = rng.normal(0, 0.1, leaf.shape) if leaf.ndim > 1 else rng.uniform(0.5, 1, leaf.shape)
        return found.astype(np.float32)

    shapes = jax.eval_shape(method.init, jax.random.key(0), {"main": blank(method)})
    variables = jax.tree.map(drawn, shapes)
    lifting = inference.settings_of(1, config["evaluation"])
    metadata = {"config": config, "step": 0, "version": "0"}
    return Trained(Path("nowhere"), metadata, info, method, variables, lifting)


def blank(method):
    """A batch of one window, for its shapes."""
    clip = own.clip_of(np.ones((1, 1, H36M.size, 2)), None, own.ideal((2, 2)), H36M)
    data = windows.cut(own.data_of(clip, H36M, H36M, 30.0), 1, context=context_of(method))
    return data.poses.take(jnp.zeros(1, jnp.int32))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that left its checkpoint before anything was learnt; its average is another network."""
    config = get_config("multiview-tiny")
    for phase in config.phases:
        phase["average_decay"] = 0.9
    network = fresh(config)
    config, method = network.metadata["config"], network.method
    phase = phases_of(config, method, 3)[0]
    make = functools.partial(init_state, method, phase, average=True)
    key = jax.random.key(0)
    shapes = jax.eval_shape(make, {"main": blank(method)}, key)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.replace(key=None))
    state = state.replace(key=key, average=network.variables)
    joints = {**dataclasses.asdict(H36M), "joints": H36M.joints, "parents": H36M.parents}
    metadata = {
        "config": config, "keypoint_skeleton": joints, "joint_skeleton": joints,
        "keypoint_source": "projected", "normalisation": "undistorted", "recordings": [],
        "steps_per_epoch": 3, "step": 0, "version": "0",
        "sources": [{"name": "nobody", "about": "", "terms": ""}],
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("deploy")
    with checkpoint.Checkpoints(folder / "run") as checkpoints:
        checkpoints.save(state, metadata)
    return folder


@pytest.fixture(scope="module")
def out(run):
    deploy.main(
        ["--checkpoint", str(run / "run"), "--output", str(run / "out"), "--formats", "jax", "onnx"]
    )
    return run / "out"


@pytest.fixture(scope="module")
def seen(run):
    """Rows of four lenses' views, with missing joints, and what `predict` says of them."""
    rng = np.random.default_rng(0)
    frames, views = 110, 4
    rig = jax.tree.map(lambda x: np.repeat(x, views, axis=0), own.ideal((1000, 1000)))
    rig = dataclasses.replace(
        rig,
        focal=rng.uniform(900, 1300, (views, 2)).astype(np.float32),
        distortion=np.float32([0.25, 0.1, 0.002, 0.002, 0.02]) * rng.uniform(-1, 1, (views, 5)),
        tangential=np.full(views, cam.TANGENTIAL["opencv"], np.float32),
    )
    middle = rng.uniform(300, 700, (frames, views, 1, 2))
    keypoints = middle + rng.normal(0, 100, (frames, views, H36M.size, 2))
    confidence = rng.uniform(0.2, 1, keypoints.shape[:3])
    confidence[rng.uniform(size=confidence.shape) < 0.2] = 0
    confidence[1] = 0  # nobody is seen
    confidence[2, :, 0] = 0  # the root is missing
    keypoints[3, :, 4] = np.nan
    expected = pose3d_jax.load(run / "run").predict(keypoints, rig, confidence).in_views

    def rows(x):
        return np.asarray(x, np.float32).reshape(frames * views, *x.shape[2:])

    lens = [np.repeat(x[None], frames, axis=0) for x in (rig.focal, rig.center, rig.distortion)]
    arrays = dict(zip(NAMES, map(rows, (keypoints, confidence, *lens)), strict=True))
    return (arrays, rows(expected)), (keypoints, confidence.astype(np.float32), rig), expected


def test_it_says_the_same_where_there_is_jax_alone(out, seen, tmp_path):
    arrays, expected = seen[0]
    np.savez(tmp_path / "given.npz", sizes=SIZES, **arrays)
    files = [
        str(p) for p in (out / "model.jaxexport", tmp_path / "given.npz", tmp_path / "found.npz")
    ]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *map(str, files)], check=True, cwd=tmp_path)
    with np.load(tmp_path / "found.npz") as found:
        for size in SIZES:
            assert_allclose(found[str(size)], expected[:size], atol=2e-5)


def test_it_says_the_same_in_onnxruntime(out, seen, capfd):
    arrays, expected = seen[0]
    onnx.checker.check_model(str(out / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [each.name for each in session.get_inputs()] == list(NAMES)
    for size in SIZES:
        (found,) = session.run(["joints"], {name: arrays[name][:size] for name in NAMES})
        assert_allclose(found, expected[:size], atol=2e-5)
    assert "W:onnxruntime" not in capfd.readouterr().err  # of what is not used, for instance


def test_what_is_loaded_is_what_was_exported(out, seen):
    arrays, expected = seen[0]
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
    assert np.std(found - found[:, :1], axis=0).max() > 1e-2  # not one pose for all


def test_it_says_what_it_is(run, out):
    said = json.loads((out / "model.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == sorted([*said["files"], "model.json"])
    assert [each["name"] for each in said["inputs"]] == list(NAMES)
    model = onnx.load(out / "model.onnx")
    for each, there in zip(said["inputs"], model.graph.input, strict=True):
        dims = there.type.tensor_type.shape.dim
        assert each["shape"] == [dim.dim_param or dim.dim_value for dim in dims]
    assert said["output"]["space"] == "absolute"
    assert said["keypoints"]["names"] == list(H36M.joints)
    assert "**nobody**" in said["card"]
    for file in said["files"].values():
        assert 0 <= file["largest_difference_m"] < 2e-5
    exported = jax.export.deserialize(bytearray((out / "model.jaxexport").read_bytes()))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}


@pytest.fixture
def one_batch(monkeypatch):
    """Differences of seven rows alone, which is quick."""
    monkeypatch.setattr(deploy, "BATCHES", (7,))


def test_a_file_that_says_something_else_is_refused(run, out, one_batch, monkeypatch, tmp_path):
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


def test_a_folder_holds_what_its_description_names(run, tmp_path, one_batch):
    (tmp_path / "model.onnx").write_text("of an earlier run")
    (tmp_path / "notes.txt").write_text("mine")
    deploy.main(["--checkpoint", str(run / "run"), "--output", str(tmp_path)])
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"model.jaxexport", "model.json", "notes.txt"}


# ----------------------------------------------------------------------------- other networks


def test_a_network_of_several_frames_gets_them(one_batch):
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


def test_mirror_images_are_inside(one_batch):
    network = fresh(get_config("supervised-tiny"))
    mirrored = dataclasses.replace(network, lifting=network.lifting._replace(flip=True))
    lift = jax.jit(portable.lift_of(mirrored))
    assert deploy.difference(mirrored, lift) < 2e-5
    assert deploy.difference(network, lift) > 1e-3


def test_what_was_trained_in_bfloat16_is_exported_in_float32(one_batch):
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


def test_a_network_for_one_size_of_batch_is_refused(run, tmp_path, monkeypatch):
    def sized(*arrays):
        return jnp.zeros(int(arrays[0].shape[0]))

    monkeypatch.setattr(deploy, "lift_of", lambda network: sized)
    with pytest.raises(SystemExit, match="for batches of any size"):
        deploy.main(["--checkpoint", str(run / "run"), "--output", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["jax2onnx", "onnxruntime"])
def test_without_the_extra_it_says_what_to_install(run, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    given = ["--checkpoint", str(run / "run"), "--output", str(tmp_path / "out")]
    with pytest.raises(
        SystemExit,
        match=rf"ONNX needs {module}; install it \(pip install {module}\), or .* `deploy`",
    ):
        deploy.main([*given, "--formats", "jax", "onnx"])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_loaded(tmp_path):
    (tmp_path / "model.jaxexport").write_bytes(b"no export at all")
    with pytest.raises(DeployError, match="export the checkpoint anew"):
        deploy.load(tmp_path / "model.jaxexport")
    with pytest.raises(DeployError, match="cannot be read"):
        deploy.load(tmp_path / "none")


# ------------------------------------------------------------------------------ the page, and slow


def test_the_code_on_the_page_runs(run, out, seen, tmp_path, monkeypatch):
    """As written, on files like those that `make demo` leaves."""
    _, (keypoints, confidence, rig), expected = seen
    (tmp_path / "runs/demo/example").mkdir(parents=True)
    (tmp_path / "runs/demo/deployed").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    arrays = {"keypoints": keypoints.astype(np.float32), "confidence": confidence}
    np.savez("runs/demo/example/keypoints.npz", **arrays)
    names = tuple("abcd")
    calibration.write(Path("runs/demo/example/cameras.toml"), calibration.Rig(names, rig))
    page = (Path(deploy.__file__).parents[1] / "docs/deployment.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    (block,) = blocks
    there = {}
    exec(block, there)
    for found in ("joints", "same"):
        assert_allclose(there[found], expected[:, 0], atol=2e-5)
    there["seen"].close()


@pytest.mark.slow
def test_a_network_of_several_frames_as_onnx(tmp_path):
    network = fresh(cmu_mv_seq.get_config("network=convolution,tiny"))
    path = tmp_path / "model.onnx"
    deploy.write_onnx(path, portable.lift_of(network), portable.inputs_of(network))
    assert deploy.difference(network, deploy._load_onnx(path)) < 2e-5
