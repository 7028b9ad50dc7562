"""The depth of the root: a usual size untrained, and poses put where it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from configs import cmu_root
from pose3d_jax import methods, train
from pose3d_jax.methods.base import Info
from pose3d_jax.methods.root import placed
from pose3d_jax.runs import read_run
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)
RNG = np.random.default_rng(0)


def seen_from(joints):
    """Observations of camera-frame joints by a camera that looks along z."""
    blank = jax.tree.map(jnp.zeros_like, scenes.ring(1))
    ideal = dataclasses.replace(
        blank, rotation=jnp.eye(3)[None], focal=jnp.ones((1, 2)), size=jnp.ones((1, 2))
    )
    return scenes.film(joints, ideal)


def test_untrained_a_person_is_as_far_as_one_of_the_usual_size():
    """Flat poses of a size before the camera: depth is proportional to how small they are seen."""
    flat = RNG.normal(size=(1, 1, 17, 3)).astype(np.float32) * [1, 1, 0]
    flat = flat - flat[:, :, :1]
    flat *= 0.52 / np.sqrt((flat**2).sum(axis=-1).mean())
    method = methods.create({"name": "root", "width": 16}, INFO)
    predict = jax.jit(method.predict)
    variables = None
    for size, depth in ((1.0, 3.0), (1.0, 6.0), (1.5, 6.0)):
        observations = seen_from((size * flat + [0, 0, depth]).astype(np.float32))
        if variables is None:
            clip = scenes.batch(size=1, views=1)
            variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
        found = predict(variables, observations).joints
        assert_allclose(found[0, 0, 0, 0], [0, 0, depth / size], rtol=0.02, atol=1e-3)
        assert_allclose(found, jnp.broadcast_to(found[..., :1, :], found.shape))


@pytest.mark.parametrize("space", ["up_to_scale", "root_relative"])
def test_poses_are_put_where_the_root_is(space):
    joints = jnp.asarray(RNG.normal(size=(4, 17, 3)) * 0.3 + [0, 0, 5.0], jnp.float32)
    if space == "up_to_scale":
        root = joints[:, 0] * 1.3  # another depth on the same ray
    else:
        root = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    found = placed(joints, root, 0, space)
    assert_allclose(found[:, 0], root, rtol=1e-5)
    if space == "up_to_scale":
        assert_allclose(
            found[..., :2] / found[..., 2:], joints[..., :2] / joints[..., 2:], rtol=1e-4
        )
    else:
        assert_allclose(found - found[:, :1], joints - joints[:, :1], atol=1e-5)


def test_the_config_trains_and_finds_roots_better_than_by_the_usual_size(synthetic_set, tmp_path):
    config = cmu_root.get_config("tiny")
    config.data.path = str(synthetic_set)
    config.evaluation.test = ("test",)
    config.phases = config.phases[:1]  # each is compiled by itself
    config.steps_per_call = 20
    for phase in config.phases:
        phase["length_steps"] = 60
        phase["augmentation"] = {}
    train.run(config, tmp_path / "run")
    errors = [s["train/root/root"] for s in read_run(tmp_path / "run").scalars]
    assert errors[-1] < 0.8 * errors[0]
