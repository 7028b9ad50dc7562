"""Temporal networks: which frames they see, what is missing, and the parts that others wrote."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose3d_jax.models import rays as plain
from pose3d_jax.models.attention import Attention, JointAttention, Transformer, sines
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.models.sequence import Convolution, SequenceLifter
from tests.compiled import module

rays = module(plain)
RNG = np.random.default_rng(0)
TRUNKS = {
    "convolution": Convolution(17, width=16, blocks=1),
    "causal convolution": Convolution(17, width=16, blocks=1, causal=True),
    "transformer": Transformer(17, width=16, blocks=1, dropout=0.0, positions=True),
    "attention": JointAttention(17, width=16, blocks=1),
    "attention, parallel": JointAttention(17, width=16, blocks=1, parallel=True),
}
FRAMES = 12


def fresh(lifter, points, seen):
    """Its first variables."""
    init = functools.partial(lifter.init, dropout=False, update_statistics=False)
    return jax.jit(init)(jax.random.key(0), points, seen)


@functools.cache
def programs(trunk, centred):
    """Variables of a lifter with that trunk, shaken, and what it says."""
    lifter = SequenceLifter(trunk, root=0, keypoint_root=0, centred=centred)

    @jax.jit
    def shaken(points, seen):
        variables = fresh(lifter, points, seen)
        params = jax.tree.map(
            lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), variables["params"]
        )
        return {**variables, "params": params}

    return shaken, jax.jit(functools.partial(lifter.apply, dropout=False, update_statistics=False))


def made(trunk, centred=True, frames=FRAMES):
    """A lifter with that trunk, its variables shaken, and points and confidences for it."""
    shaken, lift = programs(trunk, centred)
    points = jnp.asarray(RNG.uniform(-0.3, 0.3, (2, frames, 2, 17, 2)), jnp.float32)
    seen = jnp.ones(points.shape[:-1])
    # Deaf to inputs that are missing whatever they hold.
    seen = seen.at[0, 5, 0].set(0.0).at[1, 2:4, 1, 3].set(0.0)
    return functools.partial(lift, shaken(points, seen)), points, seen


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", TRUNKS)
def test_every_frame_and_view_gets_a_pose_and_missing_points_do_not_matter(name, centred):
    lift, points, seen = made(TRUNKS[name], centred)
    joints = lift(points, seen)
    before, after = TRUNKS[name].context
    assert joints.shape == (2, FRAMES - before - after, 2, 17, 3)
    assert np.isfinite(joints).all()
    assert joints[..., 0, 2].min() >= 0
    hidden = jnp.where(seen[..., None] > 0, points, 7.0)
    np.testing.assert_array_equal(lift(hidden, seen), joints)
    # No view has any part in another's pose.
    other = lift(points.at[:, :, 1].multiply(1.5), seen)
    np.testing.assert_array_equal(other[:, :, 0], joints[:, :, 0])
    assert not np.array_equal(other[:, :, 1], joints[:, :, 1])


@pytest.mark.parametrize("name", TRUNKS)
def test_which_frames_a_frame_sees(name):
    trunk = TRUNKS[name]
    before, after = trunk.context
    lift, points, seen = made(trunk)
    joints = np.asarray(lift(points, seen))
    for frame in range(FRAMES):
        changed = np.asarray(lift(points.at[:, frame].multiply(1.3), seen)) != joints
        moved = np.flatnonzero(changed.any(axis=(0, 2, 3, 4)))
        first, last = frame - before - after, frame  # of what comes out
        if not before + after:
            first, last = 0, FRAMES - 1  # attention: every frame sees every frame
        expected = np.arange(max(first, 0), min(last, len(joints[0]) - 1) + 1)
        assert moved.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["transformer", "attention", "attention, parallel"])
def test_frames_in_which_nothing_is_seen_are_not_attended_to(name):
    """So that padding changes nothing: a window's frames are as those of a shorter one."""
    lift, points, seen = made(TRUNKS[name])
    blank = seen.at[:, 8:].set(0.0)
    np.testing.assert_allclose(
        lift(points, blank)[:, :8], lift(points[:, :8], blank[:, :8]), atol=1e-5
    )


def test_without_positions_the_report_s_transformer_sees_a_set_of_frames():
    order = RNG.permutation(FRAMES)
    for positions in (False, True):
        trunk = Transformer(17, width=16, blocks=2, dropout=0.0, positions=positions)
        lift, points, seen = made(trunk)
        seen = jnp.ones_like(seen)  # where nothing is seen, the neighbours say where to look
        same = np.allclose(
            lift(points[:, order], seen[:, order]), lift(points, seen)[:, order], atol=1e-4
        )
        assert same == (not positions)


def test_a_frame_that_sees_nothing_looks_where_the_nearest_one_did():
    points = jnp.asarray(RNG.uniform(-0.3, 0.3, (2, 5, 17, 2)), jnp.float32)
    seen = jnp.zeros((2, 5, 17)).at[0, 0].set(1.0).at[0, 4, 3:].set(0.5)
    found = np.asarray(rays.nearest_seen(points, seen, 0))
    first, last = points[0, 0, 0], points[0, 4, 3:].mean(axis=0)  # the others, without its root
    np.testing.assert_allclose(found[0, [0, 1]], [first, first], atol=1e-6)
    np.testing.assert_allclose(found[0, [3, 4]], [last, last], atol=1e-6)
    np.testing.assert_array_equal(found[1], 0.0)
    sight = rays.look(points, seen, 0, rays.nearest_seen(points, seen, 0), centred=True)
    np.testing.assert_allclose(sight.turn[0, 1], sight.turn[0, 0], atol=1e-6)
    assert np.abs(sight.turn[0, 1] - np.eye(3)).max() > 1e-3


def test_attention_is_flax_s_own():
    """With the same matrices; flax keeps those of queries, keys and values apart."""
    x = jnp.asarray(RNG.normal(size=(3, 5, 8)), jnp.float32)
    seen = jnp.asarray([[1, 1, 0, 1, 0], [1] * 5, [0] * 5], jnp.float32)
    ours = Attention(heads=2)
    variables = jax.jit(ours.init)(jax.random.key(0), x, seen)
    first, second = (variables["params"][f"Dense_{i}"] for i in range(2))
    kernels = first["kernel"].reshape(8, 3, 2, 4)
    biases = RNG.normal(size=(3, 2, 4)).astype(np.float32)
    variables["params"]["Dense_0"]["bias"] = jnp.asarray(biases.reshape(-1))
    theirs = {
        name: {"kernel": kernels[:, i], "bias": biases[i]}
        for i, name in enumerate(("query", "key", "value"))
    }
    theirs["out"] = {"kernel": second["kernel"].reshape(2, 4, 8), "bias": second["bias"]}
    mask = (seen > 0).at[2].set(True)[:, None, None]  # where nothing is seen, all are attended to
    expected = nn.MultiHeadDotProductAttention(num_heads=2).apply(
        {"params": theirs}, x, mask=jnp.broadcast_to(mask, (3, 1, 5, 5))
    )
    np.testing.assert_allclose(ours.apply(variables, x, seen), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["convolution", "transformer"])
def test_batch_statistics_leave_blank_frames_out(name):
    lifter = SequenceLifter(TRUNKS[name], root=0, keypoint_root=0)
    frames = 9 if name == "convolution" else 4
    points = jnp.asarray(RNG.uniform(-0.3, 0.3, (6, frames, 1, 17, 2)), jnp.float32)
    seen = jnp.ones(points.shape[:-1]).at[4:].set(0.0)
    variables = fresh(lifter, points, seen)

    def statistics(points, seen):
        def run(points):
            return lifter.apply(
                variables, points, seen, dropout=False, update_statistics=True,
                mutable=["batch_stats"],
            )[1]  # fmt: skip

        return jax.jit(jax.vmap(run, axis_name=BATCH_AXIS))(points[None])

    whole = statistics(points, seen)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        whole,
        statistics(points[:4], seen[:4]),
    )


@pytest.mark.parametrize("name", TRUNKS)
def test_gradients_are_finite_with_nothing_visible(name):
    lifter = SequenceLifter(TRUNKS[name], root=0, keypoint_root=0)
    points, seen = jnp.zeros((1, FRAMES, 1, 17, 2)), jnp.zeros((1, FRAMES, 1, 17))
    variables = fresh(lifter, points, seen)

    def loss(params, points):
        joints = lifter.apply(
            {**variables, "params": params}, points, seen, dropout=False, update_statistics=False
        )
        return jnp.sum(joints**2)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], points)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_sines_tell_frames_apart():
    code = np.asarray(sines(1000, 64))
    distance = np.linalg.norm(code[:, None] - code[None], axis=-1) + 10 * np.eye(1000)
    assert distance.min() > 0.1
    assert code.shape == (1000, 64)
    assert np.asarray(sines(5, 7)).shape == (5, 7)
