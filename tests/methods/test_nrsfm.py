"""Structure from motion by networks: low-rank shapes from exact points, terms by hand, and rays."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from pose3d_jax import methods
from pose3d_jax.cameras import Camera
from pose3d_jax.epoch import compile_epoch, replicate, unreplicate
from pose3d_jax.methods.base import Info, Method, Mode
from pose3d_jax.schema import Clip, Labels, Observations
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.state import init_state
from tests import toys

JOINTS = 8
BODY = Skeleton("body8", tuple(f"j{i}" for i in range(JOINTS)), (-1, 0, 0, 0, 0, 0, 0, 0), 0)
TRAINING = Mode(update_statistics=True, training=True)
PRIORS = {"deformation": 0.02, "depth": 0.02}


def bodies(size, distance, seed=0):
    """Shapes of rank 2 about a mean, that face any way before a level camera: a labelled clip."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(2, JOINTS, 3)) * np.array([0.3, 0.5, 0.3])
    basis[:, 0] = 0.0  # the root
    rng = np.random.default_rng(1 + seed)
    weights = np.stack([np.ones(size), 0.4 * rng.normal(size=size)], axis=1)
    shape = np.einsum("nk,kjc->njc", weights, basis)
    turn = np.zeros((size, 3))
    turn[:, 1] = rng.uniform(-np.pi, np.pi, size)
    joints = np.einsum("nij,nkj->nki", Rotation.from_rotvec(turn).as_matrix(), shape)
    joints = (joints + np.array([0, 0, distance]))[:, None].astype(np.float32)
    one = Camera(
        rotation=jnp.eye(3), translation=jnp.zeros(3), focal=jnp.ones(2), center=jnp.zeros(2),
        distortion=jnp.zeros(5), tangential=jnp.array(2.0), size=jnp.ones(2),
    )  # fmt: skip
    cameras = jax.tree.map(lambda x: jnp.broadcast_to(x, (size, 1, 1, *x.shape)), one)
    points = jnp.asarray(joints[..., :2] / joints[..., 2:])[:, :, None]
    observations = Observations(points, jnp.ones(points.shape[:-1]), cameras)
    return Clip(observations, Labels(jnp.asarray(joints), jnp.ones(joints.shape[:-1])),
                jnp.zeros(size, jnp.int32))  # fmt: skip


def trained(method, clip, phases):
    """Variables after phases of (steps, weights, frozen), at falling rates."""
    state, first = None, 0
    for steps, weights, frozen in phases:
        phase = toys.phase(
            weights,
            mode=dataclasses.replace(TRAINING, frozen=frozen),
            optimizer=optax.adam(1.0),
            learning_rate=lambda step, n=steps: 3e-3 * 0.5 * (1 + jnp.cos(jnp.pi * step / n)),
            first_step=first,
        )
        if state is None:
            begin = functools.partial(init_state, method, phase, average=False)
            state = replicate(jax.jit(begin)({"main": clip}, jax.random.key(0)), 1)
        run = compile_epoch(method, phase, {"main": 64}, 1, steps)
        state, _ = run(state, {"main": toys.ClipStream(clip)})
        assert state.failure[0][0] < 0
        first += steps
    return unreplicate(state).variables


def stress(found, truth):
    """Of each pose at its own scale, in mean distances."""
    off = []
    for pair in zip(
        *(np.asarray(x, float).reshape(-1, JOINTS, 3) for x in (found, truth)), strict=True
    ):
        p, t = map(pdist, pair)
        off.append(np.abs(p @ t / (p @ p) * p - t).mean() / t.mean())
    return np.mean(off)


def agreement(found, truth):
    """Correlation of depths about the root."""
    found, truth = (np.asarray(x[..., 2] - x[..., :1, 2]).ravel() for x in (found, truth))
    return np.corrcoef(found, truth)[0, 1]


CASES = {
    "orthographic": (60.0, [(600, {"orthographic": 1.0, "canonical": 0.1, **PRIORS}, ())]),
    "perspective": (
        3.0,
        [
            (500, {"orthographic": 1.0, "canonical": 0.1, **PRIORS}, ()),
            (300, {"perspective": 1.0, "canonical": 0.1, "deformation": 0.005}, ()),
        ],
    ),
}


@pytest.mark.parametrize("projection", CASES)
def test_c3dpo_finds_shapes_of_low_rank(projection):
    distance, phases = CASES[projection]
    settings = {"width": 64, "blocks": 1, "shapes": 2, "turn": 5.0}
    method = methods.create({"name": "c3dpo", **settings}, Info(BODY, BODY))
    assert isinstance(method, Method)
    variables = trained(method, bodies(2000, distance), phases)
    clip = bodies(200, distance, seed=1)
    joints = jax.jit(method.predict)(variables, clip.observations).joints
    truth = clip.labels.joints[:, :, None]
    assert stress(joints.at[..., 2].set(distance), truth) > 0.15  # so much for flat poses
    assert stress(joints, truth) < 0.06
    # Perspective tells the sign of depths; from far away there is none to be told.
    same = agreement(joints, truth)
    assert (same if projection == "perspective" else abs(same)) > 0.9
