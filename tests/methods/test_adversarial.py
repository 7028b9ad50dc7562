"""Adversarial lifters: their pieces against closed forms, and small families that they solve."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cam
from pose3d_jax import geometry, methods
from pose3d_jax.disturb import Disturbance, disturb
from pose3d_jax.epoch import compile_epoch, replicate, unreplicate
from pose3d_jax.methods import adversarial, chen, monocular, repnet
from pose3d_jax.methods.base import Info, MethodError, Mode
from pose3d_jax.methods.chen import Chen
from pose3d_jax.methods.monocular import turned
from pose3d_jax.models import rays
from pose3d_jax.models.layers import BATCH_AXIS
from tests import scenes
from tests.toys import BONE, ClipStream, fresh, phase
from tests.walkers import WALKER, filmed, walkers

INFO = Info(WALKER, WALKER)
TRAINING = Mode(training=True)


def make(name, **settings):
    small = {"width": 64, "blocks": 1, "critic_width": 128, **settings}
    return methods.create({"name": name, **small}, INFO)


def terms(method, variables, batch, names):
    """Terms by name, of whatever groups, under the axis of one device."""
    found = {}
    for group in method.groups:
        own = dataclasses.replace(group, terms=tuple(n for n in group.terms if n in names))

        def call(variables, batch, own=own):
            key = jax.random.key(0)
            return method.terms(variables, batch, key, jnp.int32(0), group=own, mode=TRAINING)

        batched = jax.tree.map(lambda x: x[None], batch)
        over = jax.jit(jax.vmap(call, in_axes=(None, 0), axis_name=BATCH_AXIS))
        if own.terms:
            out, aux = over(variables, batched)
            found |= {name: out[name] for name in own.terms} | aux.diagnostics
    return {name: float(total[0] / count[0]) for name, (total, count) in found.items()}


def without(clip, *joints):
    """The clip with these joints missing."""
    seen = clip.observations.confidence.at[..., np.array(joints, int)].set(0.0)
    points = jnp.where(seen[..., None] > 0, clip.observations.keypoints, 0.0)
    observations = dataclasses.replace(clip.observations, keypoints=points, confidence=seen)
    return dataclasses.replace(clip, observations=observations)


def in_camera(clip):
    """Camera-frame joints of the labels, one view's."""
    world = clip.labels.joints[:, :, None]
    return jax.jit(cam.batched(cam.to_camera))(clip.observations.cameras, world)


# ---------------------------------------------------------------------------------- the critics


def test_slope_of_a_linear_and_of_a_quadratic_critic():
    rng = np.random.default_rng(0)
    w, a = rng.normal(size=5).astype(np.float32), rng.normal(size=(5, 5)).astype(np.float32)
    x = jnp.asarray(rng.normal(size=(3, 4, 5)), jnp.float32)
    linear = adversarial.slope(lambda x: x @ w, x)
    np.testing.assert_allclose(linear, np.full((3, 4), np.linalg.norm(w)), rtol=1e-5)
    quadratic = adversarial.slope(lambda x: jnp.einsum("...i,ij,...j->...", x, a, x), x)
    expected = np.linalg.norm(np.asarray(x) @ (a + a.T), axis=-1)  # d (x A x) = (A + A^T) x
    np.testing.assert_allclose(quadratic, expected, rtol=1e-4)


def test_wasserstein_terms_of_a_linear_critic_have_a_closed_form():
    rng = np.random.default_rng(1)
    w = rng.normal(size=5).astype(np.float32)
    fake, real = (rng.normal(size=(n, 5)).astype(np.float32) for n in (6, 4))
    weights = np.array([1, 1, 0, 1, 1, 0], np.float32), np.array([1, 0, 1, 1], np.float32)
    arrays = [jnp.asarray(x) for x in (fake, weights[0], real, weights[1])]
    found = adversarial.wasserstein(lambda x: x @ w, *arrays, jax.random.key(0))
    for name, expected, count in (
        ("fake", (fake @ w * weights[0]).sum(), 4),
        ("real", -(real @ w * weights[1]).sum(), 3),
        # Rows that count on both sides: 0 and 3 of the fakes, and 4 beside 0 of the real ones.
        ("penalty", 3 * (np.linalg.norm(w) - 1) ** 2, 3),
    ):
        np.testing.assert_allclose(found[name], (expected, count), rtol=1e-5)


def test_logistic_terms_are_cross_entropies():
    rng = np.random.default_rng(2)
    w = rng.normal(size=5).astype(np.float32)
    fake, real = (rng.normal(size=(6, 5)).astype(np.float32) for _ in range(2))
    one = jnp.ones(6)
    found = adversarial.logistic(
        lambda x: x @ w, jnp.asarray(fake), one, jnp.asarray(real), one, "_x"
    )
    opinion = [1 / (1 + np.exp(-x.astype(np.float64) @ w)) for x in (fake, real)]
    np.testing.assert_allclose(found["fake_x"][0], -np.log(1 - opinion[0]).sum(), rtol=1e-5)
    np.testing.assert_allclose(found["real_x"][0], -np.log(opinion[1]).sum(), rtol=1e-5)
    np.testing.assert_allclose(found["penalty_x"], (6 * (w @ w), 6), rtol=1e-5)
    fool = adversarial.fooled(lambda x: x @ w, jnp.asarray(fake), one)
    np.testing.assert_allclose(fool[0], -np.log(opinion[0]).sum(), rtol=1e-5)


def decaying(weights, steps, rates, disturb=None):
    """A phase of so many steps, its learning rate falling to zero."""
    return phase(
        weights,
        disturb=disturb,
        optimizer=optax.adam(1.0, b1=0.5, b2=0.9),
        learning_rate=lambda step: 2e-3 * (1 - step / steps),
        rates=rates,
    )


def trained(method, phase_, streams, steps):
    """The state after training from scratch, and its metrics."""
    batch = {key: stream.take(jnp.arange(1)) for key, stream in streams.items()}
    state = fresh(method, phase_, batch, jax.random.key(0))
    run = compile_epoch(method, phase_, dict.fromkeys(streams, 128), 1, steps)
    return unreplicate(run(replicate(state, 1), streams))


# ----------------------------------------------------------------------------------- the lifters


def test_what_is_predicted_is_on_the_rays_of_the_points():
    clip = scenes.batch(size=2)
    method = methods.create({"name": "kudo", "width": 16}, Info(scenes.H36M, scenes.H36M))
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
    joints = jax.jit(method.predict)(variables, clip.observations).joints
    again = jax.jit(cam.batched(cam.project))(
        clip.observations.cameras, joints_in_world(joints, clip)
    )
    np.testing.assert_allclose(again, clip.observations.keypoints, atol=0.05)


def joints_in_world(joints, clip):
    return jax.jit(cam.batched(cam.to_world))(clip.observations.cameras, joints)


def test_turns_keep_the_vertical_and_reach_every_side():
    method = make("kudo")
    tilt = 0.2
    variables = {"params": {"vertical": {"tilt": jnp.float32(tilt)}}}
    found = np.asarray(method.turns(variables, (500,), jax.random.key(0)))
    axis = np.array([0.0, np.cos(tilt), np.sin(tilt)])
    np.testing.assert_allclose(found @ axis, np.broadcast_to(axis, (500, 3)), atol=1e-5)
    angles = Rotation.from_matrix(found).as_rotvec() @ axis
    assert np.histogram(angles, 8, (-np.pi, np.pi))[0].min() > 35  # 62 of each on average
    method = make("kudo", elevation=30.0)
    found = np.asarray(method.turns(variables, (500,), jax.random.key(0)))
    off = np.degrees(np.arccos(np.clip(found @ axis @ axis, -1, 1)))
    assert 25 < off.max() < 30.01


def test_knees_bend_forwards_whatever_the_direction():
    joints = walkers(50)
    rotation = jnp.asarray(Rotation.random(50, 0).as_matrix(), jnp.float32)
    forward = turned(jnp.asarray(joints), rotation, 0)
    np.testing.assert_array_equal(adversarial.backward_knees(forward, WALKER), 0.0)
    backward = adversarial.backward_knees(forward.at[..., 2].multiply(-1.0), WALKER)
    assert backward.min() > 0.05
    with pytest.raises(MethodError, match="knees needs left_hip"):
        adversarial.backward_knees(jnp.zeros((1, 2, 3)), BONE)


@pytest.mark.parametrize(
    ("name", "names"), [("kudo", ("fool",)), ("chen", ("fool", "cycle", "back"))]
)
def test_joints_hidden_from_the_lifter_are_learnt_but_not_those_that_nobody_sees(name, names):
    """By the slopes of every term in what the lifter's last layer adds to its numbers."""
    main = without(filmed(walkers(6)), 3, 6)  # both sides alike: half of the views are mirrored
    batch = {"main": main, "shown": without(main, 0, 2, 5)}
    method = make(name, width=16, critic_width=16)
    variables = jax.jit(method.init)(jax.random.key(0), batch)
    group = dataclasses.replace(method.groups[-1], terms=names)

    def found(bias, batch):
        lifter = variables["params"]["lifter"]
        last = {**lifter["Dense_0"], "bias": bias}
        own = {**variables["params"], "lifter": {**lifter, "Dense_0": last}}
        key, step = jax.random.key(1), jnp.int32(0)
        terms, _ = method.terms({"params": own}, batch, key, step, group=group, mode=TRAINING)
        return {term: terms[term] for term in names}

    bias = 0.1 * jax.random.normal(jax.random.key(2), (24,))
    slopes = jax.jacrev(lambda bias, batch: {n: x for n, (x, _) in found(bias, batch).items()})
    over = jax.vmap(slopes, in_axes=(None, 0), axis_name=BATCH_AXIS)
    batched = jax.tree.map(lambda x: x[None], batch)
    learnt = {term: np.abs(x.reshape(8, 3)) for term, x in jax.jit(over)(bias, batched).items()}
    for term in names:
        assert np.isfinite(learnt[term]).all()
    for x in (learnt["fool"], sum(learnt.values())):
        assert x[[0, 2, 5], :2].min() > 1e-6  # sideways, the root too
        assert x[[1, 2, 4, 5, 7], 2].min() > 1e-6  # depths of what there is
        # What is seen says where it is sideways, how far away the root is is known, and of what
        # nobody sees there is nothing to learn.
        np.testing.assert_allclose(x[[1, 4, 7], :2], 0.0, atol=1e-12)
        np.testing.assert_allclose(x[[3, 6]], 0.0, atol=1e-12)


def test_the_critic_takes_the_undisturbed_for_real():
    main = filmed(walkers(6))
    method = make("kudo", width=16, critic_width=16)
    variables = jax.jit(method.init)(jax.random.key(0), {"main": main})
    batch = {"main": main, "shown": without(main, 2)}
    one, other = (terms(method, variables, b, {"real", "fake"}) for b in ({"main": main}, batch))
    assert one["real"] == other["real"]
    assert one["fake"] != other["fake"]


def test_sizes_are_of_the_joints_that_count():
    joints = np.random.default_rng(0).normal(size=(3, 8, 3)).astype(np.float32)
    visible = np.ones((3, 8), np.float32)
    visible[1, 5] = visible[2, 0] = visible[2, 6] = 0.0
    about = [joints[0, 0], joints[1, 0], joints[2, visible[2] > 0].mean(axis=0)]
    relative = joints - np.stack(about)[:, None]
    size = [
        np.sqrt((r[v > 0] ** 2).sum() / n)
        for r, v, n in zip(relative, visible, (7, 6, 6), strict=True)
    ]
    expected = np.array(size)[:, None, None]
    found, sizes = monocular.sized(jnp.asarray(joints), 0, jnp.asarray(visible))
    np.testing.assert_allclose(sizes, expected, rtol=1e-5)
    np.testing.assert_allclose(found, relative / expected, rtol=1e-4, atol=1e-5)
    every, _ = monocular.sized(jnp.asarray(joints), 0)
    np.testing.assert_allclose(every[0], found[0], rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Told(Chen):
    """Lifts whatever it sees to one answer."""

    answer: Any = None

    def lift(self, variables, sight):
        return self.answer


@pytest.mark.parametrize("right", [True, False])
def test_a_second_lifting_is_compared_with_what_was_turned(right):
    clip = filmed(walkers(6))
    truth = in_camera(clip)  # the root is on the axis
    level = {"vertical": {"tilt": jnp.zeros(())}}
    rotation = make("chen").turns({"params": level}, (6, 1, 1), jax.random.key(1))
    moved = turned(truth, rotation, 0)
    method = Told(INFO, critic_width=16, blocks=0, answer=moved if right else truth)
    sight = method.see(clip.observations)
    other = method.again(moved, sight.visible)
    critic = jax.jit(method.critic.init)(jax.random.key(0), adversarial.pictured(sight))["params"]
    variables = {"params": {"critic": critic}}
    found = jax.jit(method.relifted)(variables, sight, truth, rotation, other)
    errors = [float(found[name][0] / found[name][1]) for name in ("cycle", "back")]
    # Any other size would do as well: both are compared in sizes of their own.
    assert max(errors) < 1e-4 if right else min(errors) > 0.1


def test_the_motion_critic_sees_the_way_of_the_points_turned_alike():
    one, other = filmed(walkers(5)), filmed(walkers(5, 1))
    still, moving = (
        jax.tree.map(lambda *x: jnp.concatenate(x, axis=1) if x[0].ndim > 1 else x[0], one, one, to)
        for to in (one, other)
    )
    method = make("chen")
    variables = jax.jit(method.init)(jax.random.key(0), {"main": still})
    way, seen = chen.way(method.see(moving.observations))
    first, last = (method.see(clip.observations) for clip in (one, other))
    size = np.asarray(first.far / last.far)[..., None]
    expected = np.asarray(last.relative * size - first.relative)[:, 0].reshape(5, 1, -1)
    np.testing.assert_allclose(way[..., :16], expected, atol=1e-5)
    np.testing.assert_array_equal(seen, 1.0)
    # Who stands still stands still from everywhere, if all frames are turned alike.
    found = terms(method, variables, {"main": still}, {"fake_motion"})
    nothing = jnp.zeros((1, 24)).at[:, 16:].set(1.0)
    opinion = float(method.judge(variables, "motion_critic")(nothing)[0])
    assert found["fake_motion"] == pytest.approx(np.log1p(np.exp(opinion)), abs=1e-4)
    with pytest.raises(MethodError, match="needs 2 frames"):
        terms(method, variables, {"main": one}, {"fake_motion"})


@pytest.mark.slow
def test_an_adapter_undoes_what_sets_a_domain_apart():
    """Another detector's heads are lower and its feet wider apart; which poses, nobody says."""
    main, own = (filmed(walkers(2048, seed)) for seed in (0, 1))
    points = own.observations.keypoints.at[..., 7, 1].add(0.03)  # of about 0.08 above the pelvis
    points = points.at[..., 3, 0].add(0.02).at[..., 6, 0].add(0.02)
    domain = dataclasses.replace(
        own, observations=dataclasses.replace(own.observations, keypoints=points)
    )
    streams = {"main": ClipStream(main), "domain": ClipStream(domain)}
    weights = {"fake_domain": 1.0, "real_domain": 1.0, "penalty_domain": 0.01}
    whole = make("chen")
    groups = tuple(group for group in whole.groups if group.name in ("domain_critic", "adapter"))
    method = dataclasses.replace(whole, groups=groups)
    phase_ = decaying({**weights, "fool_domain": 1.0, "near": 0.1}, 400, {"domain_critic": 4.0})
    state, _ = trained(method, phase_, streams, 400)
    wanted, given = (method.see(clip.observations) for clip in (own, domain))
    adapted = jax.jit(method.adapt)(state.variables, given)
    before, after = (
        float(jnp.linalg.norm(sight.relative - wanted.relative, axis=-1).mean())
        for sight in (given, adapted)
    )
    assert after < 0.5 * before
    with pytest.raises(MethodError, match="stream `domain`"):
        terms(method, state.variables, {"main": main}, {"fool_domain"})


def test_every_network_of_chen_learns_from_two_frames_and_another_domain():
    one, other = filmed(walkers(4)), filmed(walkers(4, 1))
    main = jax.tree.map(
        lambda *x: jnp.concatenate(x, axis=1) if x[0].ndim > 1 else x[0], one, other
    )
    batch = {"main": main, "domain": filmed(walkers(6, 2))}
    method = make("chen", width=16, critic_width=16)
    variables = jax.jit(method.init)(jax.random.key(0), batch)
    batched = jax.tree.map(lambda x: x[None], batch)
    for group in method.groups:

        def loss(params, batch, group=group):
            key, step = jax.random.key(1), jnp.int32(0)
            found, aux = method.terms(
                {"params": params}, batch, key, step, group=group, mode=TRAINING
            )
            counts = {name: found[name][1] for name in group.terms}
            return sum(found[name][0] for name in group.terms), (counts, aux.diagnostics)

        slopes = jax.vmap(jax.grad(loss, has_aux=True), in_axes=(None, 0), axis_name=BATCH_AXIS)
        found, (counts, _) = jax.jit(slopes)(variables["params"], batched)
        for path in group.paths:
            for leaf in jax.tree.leaves(found[path]):
                assert np.isfinite(leaf).all()
                assert np.abs(leaf).max() > 0, f"{group.name}: {path}"
        if group.name == "lifter":  # 4 clips of two frames, and 6 of one from the domain
            expected = {"fool": 14, "fool_motion": 4, "cycle": 14 * 7, "back": 14 * 7, "knees": 8}
            assert {name: float(count[0]) for name, count in counts.items()} == expected


# ---------------------------------------------------------------------------------------- RepNet


def test_a_camera_is_split_into_the_nearest_rotation_and_its_scale():
    rng = np.random.default_rng(0)
    rotation = Rotation.random(20, 1).as_matrix()
    scale = rng.uniform(0.5, 2.0, 20)
    exact = (scale[:, None, None] * rotation[:, :2]).astype(np.float32)
    found, size = repnet.split_camera(jnp.asarray(exact))
    np.testing.assert_allclose(found, rotation, atol=1e-5)
    np.testing.assert_allclose(size, scale, rtol=1e-5)
    np.testing.assert_allclose(repnet.skew(jnp.asarray(exact)), 0.0, atol=1e-5)
    # Rows of one length, but not at right angles: the polar factor is the nearest.
    u, _, vt = np.linalg.svd(np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]))
    leaning = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    found, _ = repnet.split_camera(leaning)
    np.testing.assert_allclose(found[:2], u @ vt[:2], atol=1e-5)
    # K K^T = [[1, .6], [.6, 1]]: off by .6 twice.
    np.testing.assert_allclose(repnet.skew(leaning), 0.6 * np.sqrt(2), rtol=1e-5)


def test_the_prior_is_of_size_one_and_heads_one_way():
    joints = walkers(40)
    method = make("repnet")
    pose, weight = method.prior(filmed(joints), jax.random.key(0))
    np.testing.assert_array_equal(weight, 1.0)
    across = pose[:, 4] - pose[:, 1]
    np.testing.assert_allclose(across[:, 1], 0.0, atol=1e-5)
    assert across[:, 0].min() > 0
    np.testing.assert_allclose((pose**2).sum((1, 2)) / 7, 1.0, rtol=1e-4)
    np.testing.assert_array_equal(adversarial.backward_knees(pose, WALKER), 0.0)  # no mirror image


@pytest.mark.parametrize("joints", [(), (0,), (0, 5)], ids=["whole", "root", "root and knee"])
def test_a_weak_perspective_camera_and_its_pose_meet_the_points_whatever_is_hidden(joints):
    """From so far away that weak perspective holds."""
    clip = filmed(walkers(6), 60.0)
    truth = in_camera(clip)
    method = make("repnet")
    sight = method.see(without(clip, *joints).observations)
    pose, size = monocular.sized(truth, 0)
    scale = size * sight.far[..., None] / (60.0 * rays.SPREAD)
    matrix = scale * jnp.broadcast_to(jnp.eye(2, 3), (*scale.shape[:-2], 2, 3))
    off = repnet.projected(matrix, pose, sight) - sight.relative
    assert np.abs(np.where(sight.visible[..., None] > 0, off, 0.0)).max() < 0.02
    found = np.asarray(method.place_pose(pose, matrix, sight))
    found = np.einsum("...ji,...nj->...ni", sight.turn, found)
    off = found[..., :2] / found[..., 2:] - truth[..., :2] / truth[..., 2:]
    assert np.abs(off * 60.0).max() < 0.02  # metres, of those that are hidden, too


def test_repnet_without_hips_or_a_prior_says_so():
    with pytest.raises(MethodError, match="repnet needs the joint left_hip, which bone2 lacks"):
        methods.create({"name": "repnet"}, Info(BONE, BONE))
    clip = filmed(walkers(4))
    method = make("repnet")
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
    with pytest.raises(MethodError, match="stream `prior`"):
        terms(method, variables, {"main": clip}, {"fake"})


# ----------------------------------------------------------------------- families that they solve

ADVERSARIAL = {"fake": 1.0, "real": 1.0, "penalty": 0.01, "fool": 1.0, "knees": 1.0}
FAMILIES = {
    "kudo": ({**ADVERSARIAL}, {"critic": 4.0}),
    "chen": ({**ADVERSARIAL, "cycle": 1.0, "back": 1.0}, {"critic": 4.0}),
    "repnet": (
        {"fake": 1.0, "real": 1.0, "penalty": 10.0, "fool": 5.0, "reproject": 10.0, "camera": 1.0},
        {},
    ),
}


def p2(predicted, truth):
    align = jax.jit(jax.vmap(geometry.similarity_align, (0, 0, None)))
    ones = jnp.ones(truth.shape[1])
    aligned = align(jnp.asarray(predicted), jnp.asarray(truth), ones)
    return float(jnp.linalg.norm(aligned - truth, axis=-1).mean())


@pytest.mark.parametrize("name", ["kudo", "repnet", pytest.param("chen", marks=pytest.mark.slow)])
def test_it_solves_walkers(name):
    """Far below the mean pose, with depths as varied as widths, and no label of `main` seen."""
    weights, rates = FAMILIES[name]
    method, steps = make(name), 600
    main = filmed(walkers(2048))
    unknown = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), main.labels)
    streams = {"main": ClipStream(dataclasses.replace(main, labels=unknown))}
    if name == "repnet":
        streams["prior"] = ClipStream(filmed(walkers(2048, 1)))
    state, metrics = trained(method, decaying(weights, steps, rates), streams, steps)
    depth, width = metrics["lifter/relief"]
    test = filmed(walkers(256, 2))
    truth = np.asarray(test.labels.joints)[:, 0]
    joints = jax.jit(method.predict)(state.variables, test.observations).joints[:, 0, 0]
    # World to camera is a rotation, which an alignment undoes.
    mean = np.broadcast_to(walkers(2048).mean(axis=0), truth.shape)
    assert p2(joints, truth) < 0.35 * p2(mean, truth)
    assert 0.3 < depth / width < 3.0


@pytest.mark.slow
def test_kudo_finds_joints_that_it_is_not_shown():
    """Masked out of what the critic sees, they were 0.31 m off."""
    weights, rates = FAMILIES["kudo"]
    hide = functools.partial(disturb, Disturbance(joints=0.5), WALKER, 30.0)
    method = make("kudo")
    streams = {"main": ClipStream(filmed(walkers(2048)))}
    state, _ = trained(method, decaying(weights, 600, rates, hide), streams, 600)
    test = filmed(walkers(256, 2))
    holed = jax.jit(hide)(test, jax.random.key(9)).observations
    joints = jax.jit(method.predict)(state.variables, holed).joints[:, 0, 0]
    align = jax.jit(jax.vmap(geometry.similarity_align, (0, 0, None)))
    truth = test.labels.joints[:, 0]
    off = jnp.linalg.norm(align(joints, truth, jnp.ones(8)) - truth, axis=-1)
    hidden = np.asarray(holed.confidence)[:, 0, 0] == 0
    assert float(off[hidden].mean()) < 0.12
