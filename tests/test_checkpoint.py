"""Checkpoints give back what was saved, or say what is wrong."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pose3d_jax import checkpoint
from pose3d_jax.checkpoint import CheckpointError
from pose3d_jax.state import init_state
from tests import toys
from tests.toys import clips, phase

METADATA = {
    "config": {"name": "toy", "rate": 0.1},
    "keypoint_skeleton": {"name": "h36m17"},
    "joint_skeleton": {"name": "h36m17"},
    "keypoint_source": "projected",
    "normalisation": "undistorted",
}


@pytest.fixture
def state():
    fresh = init_state(
        toys.Toy(), phase({"error": 1.0}, optimizer=optax.adam(1.0)), {"main": clips(2)},
        jax.random.key(3), average=True,
    )  # fmt: skip
    return dataclasses.replace(fresh, step=jnp.int32(7))


@pytest.fixture
def saved(state, tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(dataclasses.replace(state, step=jnp.int32(5)), METADATA)
        checkpoints.save(state, METADATA)
    return tmp_path


def test_the_state_comes_back_bit_for_bit(state, saved):
    found = checkpoint.read_state(saved, state)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert jax.random.key_data(found.key).tolist() == jax.random.key_data(state.key).tolist()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert one.dtype == other.dtype
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_shapes_alone_are_enough_to_restore(state, saved):
    like = jax.eval_shape(lambda: state)
    assert int(checkpoint.read_state(saved, like).step) == 7


def test_metadata_comes_back(saved):
    found = checkpoint.read_metadata(saved)
    assert {key: found[key] for key in METADATA} == METADATA


def test_another_structure_is_refused(state, saved):
    other = dataclasses.replace(state, variables={"params": {"other": {"value": jnp.zeros(3)}}})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        checkpoint.read_state(saved, other)


def test_another_shape_is_refused(state, saved):
    grown = jax.tree.map(lambda x: jnp.concatenate([x, x]) if x.ndim else x, state.variables)
    with pytest.raises(CheckpointError, match=r"offset.*value.* is \(3,\) float32, not \(6,\)"):
        checkpoint.read_state(saved, dataclasses.replace(state, variables=grown))


def test_altered_arrays_are_refused_and_the_one_before_is_the_way_on(state, saved, monkeypatch):
    """As if Orbax had read other values than were saved."""
    restore = checkpoint._restore

    def altered(workdir, item, args):
        found = restore(workdir, item, args)
        return found if item == "metadata" else jax.tree.map(lambda x: x + x.dtype.type(1), found)

    monkeypatch.setattr(checkpoint, "_restore", altered)
    with pytest.raises(CheckpointError, match=r"checkpoints/7 is damaged.*delete that folder"):
        checkpoint.read_state(saved, state)
    monkeypatch.undo()
    shutil.rmtree(saved / "checkpoints" / "7")
    assert int(checkpoint.read_state(saved, state).step) == 5


def test_altered_metadata_is_refused(saved):
    file = saved / "checkpoints" / "7" / "metadata" / "metadata"
    file.write_text(file.read_text().replace("0.1", "0.2"))
    with pytest.raises(CheckpointError, match="its metadata is not what was saved"):
        checkpoint.read_metadata(saved)


def test_an_unfinished_save_is_no_checkpoint(saved):
    folder = saved / "checkpoints"
    shutil.copytree(folder / "7", folder / "9.orbax-checkpoint-tmp")
    assert checkpoint.read_metadata(saved)["config"] == METADATA["config"]
    shutil.rmtree(folder / "5")
    shutil.rmtree(folder / "7")
    assert not checkpoint.exists(saved)


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("keypoint_skeleton", "coco17"),
        ("joint_skeleton", "humaneva15"),
        ("normalisation", "pixels"),
        ("keypoint_source", "vitpose"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(what, name):
    own = METADATA[what]["name"] if isinstance(METADATA[what], dict) else METADATA[what]
    checkpoint.check_fits("run", METADATA, {what: own})
    with pytest.raises(CheckpointError, match=f"run was trained with {what} '{own}', not '{name}'"):
        checkpoint.check_fits("run", METADATA, {what: name})
