"""The method that CONTRIBUTING.md shows, taken from the text itself: it trains as the text says."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import install_import_hook

from pose3d_jax import methods, train
from pose3d_jax.epoch import compile_epoch, replicate, unreplicate
from pose3d_jax.geometry import safe_divide
from pose3d_jax.methods.base import Info, Method, Mode
from tests import scenes, toys

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Add your own method in 50 lines\n(.*?)^## ", TEXT, re.M | re.S)[1]
METHOD, CONFIG = re.findall(r"^```python\n(.*?)^```$", SECTION, re.M | re.S)
BLOCKS = {"pose3d_jax/methods/mine.py": METHOD, "configs/mine.py": CONFIG}


def load(name, source, folder):
    """The source as a module; annotations of shapes are checked when its functions are called."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, install_import_hook(name, "beartype.beartype"):
        patch.setattr(sys, "path", [str(folder), *sys.path])
        importlib.invalidate_caches()
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contributing")


@pytest.fixture(scope="module")
def mine(folder):
    """The method's class, registered as the text says."""
    kind = load("contributed_method", METHOD, folder).Mine
    assert '`"mine": Mine` in `METHODS`' in SECTION
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(methods.METHODS, "mine", kind)
        yield kind


@pytest.fixture(scope="module")
def config(mine, folder):
    """The text's config, its tiny form."""
    return load("contributed_config", CONFIG, folder).get_config("supervised-tiny")


@pytest.fixture(scope="module")
def method(mine, config):
    return methods.create(dict(config.method), Info(scenes.H36M, scenes.H36M))


def clips(size):
    """Labelled clips with masks that differ from clip to clip; in one, a view sees nothing."""
    clip = scenes.batch(size, views=2)
    rng = np.random.default_rng(0)
    share = np.linspace(1.0, 0.3, size)[:, None, None]
    confidence = rng.uniform(size=(size, 1, 2, 17)) < share[..., None]
    confidence[1, 0, 1] = False
    valid = rng.uniform(size=(size, 1, 17)) < share
    valid[2] = False  # no label at all
    valid[3, 0, 0] = False  # no root
    observations, labels = clip.observations, clip.labels
    return dataclasses.replace(
        clip,
        observations=dataclasses.replace(
            observations, confidence=jnp.asarray(confidence, jnp.float32)
        ),
        labels=dataclasses.replace(labels, joints_valid=jnp.asarray(valid, jnp.float32)),
    )


@pytest.fixture(scope="module")
def variables(method):
    return jax.jit(method.init)(jax.random.key(1), {"main": clips(4)})


def terms(method, variables, clip, names=("pose", "symmetry")):
    group = dataclasses.replace(method.groups[0], terms=names)
    key, zero = jax.random.key(0), jnp.int32(0)
    call = lambda v, c: method.terms(v, {"main": c}, key, zero, group=group, mode=Mode())[0]  # noqa: E731
    return jax.jit(call)(variables, clip)


def test_it_has_at_most_50_lines():
    assert len(METHOD.splitlines()) <= 50


@pytest.mark.parametrize("path", BLOCKS)
@pytest.mark.parametrize("command", [["check", "--no-cache"], ["format", "--check", "--no-cache"]])
def test_ruff_passes_it_where_it_is_to_stand(path, command):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--stdin-filename", path, "-"],
        cwd=ROOT, input=BLOCKS[path], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_mypy_passes_it(folder):
    path = folder / "mine.py"
    path.write_text(METHOD, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def test_it_trains_and_stands_beside_triangulation(config, folder, synthetic_set):
    config = config.copy_and_resolve_references()
    config.data.path = str(synthetic_set)
    config.evaluation.update({"validation": "", "every_epochs": 4})  # for speed
    for phase in config.phases:
        phase["length_steps"] = 24  # instead of 3: the loss is to fall
    metrics = train.run(config, folder / "run")
    lines = [json.loads(line) for line in (folder / "run/scalars.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == metrics["steps"] == 48
    assert lines[-1]["train/net/loss"] < 0.7 * lines[0]["train/net/loss"]
    assert {"train/net/pose", "train/net/symmetry"} < set(lines[0])
    rows = metrics["splits"]["test"]["rows"]
    assert set(rows) == {"mine", "triangulation", "mean_pose"}
    assert rows["triangulation"]["p1"]["frames"] < 1e-3
    assert 0 < rows["mine"]["p1"]["frames"] < 1
    assert rows["mine"]["absolute"]["frames"] is None  # it says that it is root-relative


def test_one_and_four_devices_have_the_loss_and_gradients_of_the_whole_batch(method, config):
    """Against the loss of all clips at once, divided by the counts of all: no mean of means."""
    clip, weights = clips(24), config.phases[0]["weights"]
    phase = toys.phase(weights)
    state = toys.fresh(method, phase, {"main": clip}, jax.random.key(0))

    def loss(params):
        parts = terms(method, {"params": params}, clip)
        return sum(weights[name] * safe_divide(*term) for name, term in parts.items())

    expected, gradient = jax.jit(jax.value_and_grad(loss))(state.variables["params"])
    for devices in (1, 4):
        run = compile_epoch(method, phase, {"main": 24}, devices, 1)
        after, metrics = run(replicate(state, devices), {"main": toys.ClipStream(clip)})
        assert metrics["net/loss"][0][0] == pytest.approx(float(expected), rel=1e-5)
        moved = unreplicate(after).variables["params"]
        for new, old, slope in zip(
            *map(jax.tree.leaves, (moved, state.variables["params"], gradient)), strict=True
        ):
            assert np.abs(slope).max() > 0  # every parameter is in the group, and trained
            np.testing.assert_allclose(new - old, -0.1 * slope, rtol=1e-3, atol=1e-6)


def test_prediction_sees_neither_labels_nor_missing_points(method, variables):
    clip = clips(8)
    predict = jax.jit(lambda clip: method.predict(variables, clip.observations))
    prediction = predict(clip)
    assert isinstance(method, Method)
    assert prediction.joints.shape == (8, 1, 2, 17, 3)
    labels = dataclasses.replace(clip.labels, joints=clip.labels.joints * 1.5)
    relabelled = dataclasses.replace(clip, labels=labels)
    np.testing.assert_array_equal(predict(relabelled).joints, prediction.joints)
    # The labels move `pose`, but not through the prediction.
    before, after = terms(method, variables, clip), terms(method, variables, relabelled)
    assert before["symmetry"] == after["symmetry"]
    assert before["pose"] != after["pose"]

    def with_points(keypoints):
        observations = dataclasses.replace(clip.observations, keypoints=keypoints)
        return predict(dataclasses.replace(clip, observations=observations)).joints

    points, missing = clip.observations.keypoints, clip.observations.confidence[..., None] == 0
    np.testing.assert_array_equal(with_points(jnp.where(missing, 0.0, points)), prediction.joints)
    assert not np.array_equal(with_points(points + 10.0), prediction.joints)


def test_counts_come_from_masks_and_terms_from_the_closed_form(method, variables):
    clip = clips(8)
    joints = np.asarray(method.predict(variables, clip.observations).joints)
    valid = np.asarray(clip.labels.joints_valid)[:, :, None]
    seen = np.asarray(clip.observations.confidence).max(-1, keepdims=True) > 0
    weight = np.broadcast_to(valid * valid[..., :1] * seen, joints.shape[:-1])
    # Root-relative, so the camera's rotation is all that the labels need.
    world = np.asarray(clip.labels.joints - clip.labels.joints[:, :, :1])
    truth = np.einsum("btvij,btkj->btvki", clip.observations.cameras.rotation, world)
    error = np.linalg.norm(joints - truth, axis=-1)
    names = scenes.H36M.joints
    lengths = {
        names[child]: np.linalg.norm(joints[..., child, :] - joints[..., parent, :], axis=-1)
        for parent, child in scenes.H36M.bones
    }
    pairs = [(n, n.replace("left", "right")) for n in names if n.startswith("left")]
    # Each pair stands there twice: as the left bone's error and as the right one's.
    uneven = sum(2 * np.abs(lengths[left] - lengths[right]) * seen[..., 0] for left, right in pairs)
    found = terms(method, variables, clip)
    assert found["pose"][1] == weight.sum()
    assert found["symmetry"][1] == seen.sum() * 17
    np.testing.assert_allclose(found["pose"][0], (error * weight).sum(), rtol=1e-4)
    np.testing.assert_allclose(found["symmetry"][0], uneven.sum(), rtol=1e-4)
    # One term alone, as where the config weighs no other.
    assert set(terms(method, variables, clip, ("symmetry",))) == {"symmetry"}


def test_nothing_labelled_is_zero_with_a_finite_gradient(method, variables):
    clip = clips(4)
    clip = dataclasses.replace(clip, labels=jax.tree.map(jnp.zeros_like, clip.labels))
    total = lambda v: terms(method, v, clip, ("pose",))["pose"][0]  # noqa: E731
    value, gradient = jax.value_and_grad(total)(variables)
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))
