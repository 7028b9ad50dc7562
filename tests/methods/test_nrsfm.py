"""Structure from motion by networks: low-rank shapes from exact points, terms by hand, and rays."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cam
from pose3d_jax import methods
from pose3d_jax.cameras import Camera
from pose3d_jax.epoch import compile_epoch, replicate, unreplicate
from pose3d_jax.methods import nrsfm
from pose3d_jax.methods.base import Info, Method, MethodError, Mode
from pose3d_jax.methods.distilled import DeepNRSfM, Distilled
from pose3d_jax.methods.lifting import normalised_points
from pose3d_jax.methods.monocular import Monocular
from pose3d_jax.models import nrsfm as models
from pose3d_jax.models import rays
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Clip, Labels, Observations
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.state import init_state
from tests import scenes, toys
from tests.walkers import WALKER, filmed, walkers

JOINTS = 8
BODY = Skeleton("body8", tuple(f"j{i}" for i in range(JOINTS)), (-1, 0, 0, 0, 0, 0, 0, 0), 0)
TRAINING = Mode(update_statistics=True, training=True)


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


def trained(method, clip, steps, weights, *, frozen=(), state=None, seed=0):
    """The state after so many steps at a falling rate; weights are functions of the share done."""
    phase = toys.phase(
        {},
        mode=dataclasses.replace(TRAINING, frozen=frozen),
        optimizer=optax.adam(1.0),
        learning_rate=lambda step: 3e-3 * 0.5 * (1 + jnp.cos(jnp.pi * step / steps)),
        first_step=0 if state is None else int(state.step),
    )
    over_time = {name: lambda step, f=f: f(step / steps) for name, f in weights.items()}
    phase = dataclasses.replace(phase, weights=over_time)
    if state is None:
        begin = functools.partial(init_state, method, phase, average=False)
        state = jax.jit(begin)({"main": clip}, jax.random.key(seed))
    run = compile_epoch(method, phase, {"main": 64}, 1, steps)
    state = unreplicate(run(replicate(state, 1), {"main": toys.ClipStream(clip)})[0])
    assert state.failure[0] < 0
    return state


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


def constant(value):
    return lambda done: value + 0 * done


# Weak perspective first.
FIRST = {
    "orthographic": lambda done: jnp.where(done < 0.6, 1.0, 0.0),
    "perspective": lambda done: jnp.where(done < 0.6, 0.0, 1.0),
}
PRIORS = {"canonical": constant(0.1), "deformation": constant(0.02), "depth": constant(0.02)}


@pytest.mark.parametrize(
    "projection", [pytest.param("orthographic", marks=pytest.mark.slow), "perspective"]
)
def test_c3dpo_finds_shapes_of_low_rank(projection):
    """From seed 2; one start in four ends in another minimum, with four times the loss."""
    distance = {"orthographic": 60.0, "perspective": 3.0}[projection]
    weights = FIRST if projection == "perspective" else {projection: constant(1.0)}
    settings = {"name": "c3dpo", "width": 64, "blocks": 1, "shapes": 2, "turn": 5.0}
    method = methods.create(settings, Info(BODY, BODY))
    assert isinstance(method, Method)
    clip, seen = bodies(2000, distance), bodies(200, distance, seed=1)
    variables = trained(method, clip, 1000, {**weights, **PRIORS}, seed=2).variables
    joints = jax.jit(method.predict)(variables, seen.observations).joints
    truth = seen.labels.joints[:, :, None]
    assert stress(joints.at[..., 2].set(distance), truth) > 0.15  # so much for flat poses
    assert stress(joints, truth) < 0.03
    # Perspective tells the sign of depths; from far away there is none to be told.
    same = agreement(joints, truth)
    assert (same if projection == "perspective" else abs(same)) > 0.95


@pytest.mark.slow
def test_a_deep_teacher_finds_them_too_and_its_student_learns_from_it_alone():
    """From seed 1; of four starts two end in another minimum."""
    settings = {"name": "distilled", "width": 64, "blocks": 1}
    method = methods.create(settings, Info(BODY, BODY))
    clip, seen = bodies(2000, 60.0), bodies(200, 60.0, seed=1)
    truth = seen.labels.joints[:, :, None]
    weights = {"orthographic": constant(1.0), "depth": constant(0.02)}
    taught = trained(method, clip, 1000, weights, seed=1)
    teacher = DeepNRSfM.predict(method, taught.variables, seen.observations).joints
    assert stress(teacher, truth) < 0.06
    assert abs(agreement(teacher, truth)) > 0.95
    untaught = method.predict(taught.variables, seen.observations).joints
    one = {"distilled": constant(1.0)}
    after = trained(method, clip, 200, one, frozen=("teacher",), state=taught)
    for collection in ("params", "batch_stats"):
        both = (state.variables[collection]["teacher"] for state in (taught, after))
        jax.tree.map(np.testing.assert_array_equal, *both)
    joints = method.predict(after.variables, seen.observations).joints
    assert stress(joints, teacher) < 0.05 < 0.12 < stress(untaught, teacher)


NAMES = ("c3dpo", "deep_nrsfm", "distilled")


def made(name, clip):
    """A small method, and fresh variables."""
    small = {"c3dpo": {"shapes": 3}, "deep_nrsfm": {"dictionary": 16, "levels": 2}}
    settings = small.get(name, small["deep_nrsfm"])
    method = methods.create({"name": name, "width": 16, **settings}, Info(scenes.H36M, scenes.H36M))
    return method, jax.jit(method.init)(jax.random.key(0), {"main": clip})


def holed(clip):
    """With missing joints, roots and views."""
    seen = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 1, 4, 17)) > 0.3, jnp.float32)
    seen = seen.at[0, 0, 0].set(0.0).at[1, 0, :, 0].set(0.0)
    return dataclasses.replace(
        clip, observations=dataclasses.replace(clip.observations, confidence=seen)
    )


@pytest.mark.parametrize("name", NAMES)
def test_joints_that_are_seen_are_on_their_rays_and_nothing_else_is_used(name):
    clip = holed(scenes.batch())
    method, variables = made(name, clip)
    observations = clip.observations
    prediction = jax.jit(method.predict)(variables, observations)
    assert prediction.space == "up_to_scale"
    assert np.isfinite(prediction.joints).all()
    points = np.asarray(normalised_points(observations))
    plane = np.asarray(prediction.joints[..., :2] / prediction.joints[..., 2:])
    seen = np.asarray(observations.confidence) > 0
    np.testing.assert_allclose(plane[seen], points[seen], atol=1e-5)
    unseen = jnp.where(observations.confidence[..., None] > 0, observations.keypoints, 1e3)
    other = dataclasses.replace(observations, keypoints=unseen)
    again = jax.jit(method.predict)(variables, other)
    np.testing.assert_allclose(again.joints, prediction.joints, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_of_what_is_seen_and_views_that_see_nothing_change_nothing(name):
    clip = holed(scenes.batch())
    method, variables = made(name, clip)
    confidence = clip.observations.confidence
    joints, views = float(confidence.sum()), float(17 * confidence.max(axis=-1).sum())
    expected = {"orthographic": joints, "perspective": joints, "canonical": views,
                "deformation": views, "depth": views, "distilled": views}  # fmt: skip

    def terms(variables, keypoints, group):
        observations = dataclasses.replace(clip.observations, keypoints=keypoints)
        batch = {"main": dataclasses.replace(clip, observations=observations)}
        key, step = jax.random.key(1), jnp.int32(0)
        found, aux = method.terms(variables, batch, key, step, group=group, mode=TRAINING)
        return found, aux.diagnostics

    for group in method.groups:
        call = functools.partial(terms, group=group)
        over = jax.jit(jax.vmap(call, in_axes=(None, 0), axis_name=BATCH_AXIS))
        found, diagnostics = over(variables, clip.observations.keypoints[None])
        depth, width = diagnostics["relief"]  # which tells a collapse
        assert depth > 0
        assert width > 0
        assert {name: float(count[0]) for name, (_, count) in found.items()} == {
            name: expected[name] for name in group.terms
        }
        blank = confidence[..., None].max(axis=-2, keepdims=True) == 0
        moved = jnp.where(blank, -50.0, clip.observations.keypoints)
        again, _ = over(variables, moved[None])
        for term, (total, _) in found.items():
            np.testing.assert_allclose(again[term][0], total, rtol=1e-4)


def test_projection_and_sign_have_their_closed_forms():
    """The truth has no error in perspective, whether its root is seen or not; its mirror has."""
    clip = holed(scenes.batch())
    method, _ = made("c3dpo", clip)
    sight = method.see(clip.observations)
    world = jnp.repeat(clip.labels.joints[:, :, None], 4, axis=2)
    truth = jax.jit(cam.batched(cam.to_camera))(clip.observations.cameras, world)
    turned = jnp.einsum("...ij,...nj->...ni", sight.turn, truth)
    # About the sight's root, or the point that stands for it at the root's depth.
    depth = turned[..., :1, 2:]
    posed = (turned - turned[..., :1, :]) * sight.far[..., None] / rays.SPREAD / depth
    flat, posed = nrsfm.rows(sight), posed.reshape(-1, 17, 3)
    whole = np.asarray(flat.visible[:, 0] * flat.seen) > 0
    found = nrsfm.projected(posed, flat, "perspective")
    there = whole[:, None] & (np.asarray(flat.visible) > 0)
    np.testing.assert_allclose(found[there], flat.relative[there], atol=1e-4)
    np.testing.assert_array_equal(
        nrsfm.projected(posed, flat, "orthographic")[whole], posed[whole][..., :2]
    )
    errors = np.asarray(nrsfm.sign_errors(posed, flat))[whole]
    assert errors[:, 0].max() < 1e-6 < errors[:, 1].min()


# ---------------------------------------------------------------- networks shown disturbed points


def truth_of(sight, clip):
    """A clip's poses as a sight has them: about the root, in its turned camera and sizes."""
    world = clip.labels.joints[:, :, None]
    joints = jax.jit(cam.batched(cam.to_camera))(clip.observations.cameras, world)
    flat = joints.reshape(-1, *joints.shape[3:])
    turned = jnp.einsum("rij,rnj->rni", sight.turn, flat)
    posed = (turned - turned[:, :1]) / turned[:, :1, 2:]
    return posed * sight.far[..., None] / rays.SPREAD


def aside_of(sight, posed):
    """What a student that is right says: where joints are about what stands for the root."""
    seen = np.asarray(sight.visible)[..., None]
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    mean = (seen * posed[..., :2]).sum(1, keepdims=True) / count
    root_seen = np.asarray(sight.visible)[:, :1, None]
    return posed.at[..., :2].add(-(1 - root_seen) * mean)


class Says:
    """A network that gives one answer."""

    def __init__(self, answer):
        self.answer = answer

    def apply(self, *args, **kwargs):
        return self.answer, {}


@dataclasses.dataclass(frozen=True)
class Right(Distilled):
    """A teacher that finds the truth in whatever it sees, and a student of one answer."""

    clip: Any = None
    says: Any = None

    def factorised(self, variables, sight, mode):
        return truth_of(sight, self.clip), {}

    @property
    def student(self):
        return Says(self.says)


def without(clip, *joints):
    """The clip with these joints missing, and a view that sees nothing."""
    seen = clip.observations.confidence.at[..., np.array(joints)].set(0.0).at[0].set(0.0)
    observations = dataclasses.replace(clip.observations, confidence=seen)
    return dataclasses.replace(clip, observations=observations)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(2, 5), (0, 2)], ids=["joints", "root"])
def test_a_student_learns_where_the_joints_are_that_it_is_not_shown(hidden):
    clip = filmed(walkers(6), 60.0)  # far away, where weak perspective holds
    batch = {"main": clip, "shown": without(clip, *hidden)}
    method = Right(Info(WALKER, WALKER), clip=clip)
    sight = nrsfm.rows(method.see(batch["shown"].observations))
    right = aside_of(sight, truth_of(sight, clip))

    def term(says, batch=batch):
        own = dataclasses.replace(method, says=says)
        call = functools.partial(own.terms, {}, key=jax.random.key(0), step=jnp.int32(0),
                                 group=own.groups[1], mode=TRAINING)  # fmt: skip
        over = jax.vmap(lambda b: call(batch=b)[0]["distilled"], axis_name=BATCH_AXIS)
        total, count = over(jax.tree.map(lambda x: x[None], batch))
        assert count[0] == 5 * 8
        return float(total[0])

    assert term(right) < 40 * 2e-3
    # Sideways, what is said counts of the joints that are not shown alone.
    moved = right.at[:, :, 0].add(0.3).at[:, :, 1].add(0.4)
    assert term(moved) == pytest.approx(5 * 2 * 0.5, abs=0.1)
    joints = dataclasses.replace(method, says=right).predict({}, batch["shown"].observations).joints
    off = joints[..., :2] / joints[..., 2:] - clip.observations.keypoints
    assert np.abs(off[1:]).max() * 60.0 < 0.02  # metres


@pytest.mark.slow
def test_a_factorisation_that_is_shown_less_answers_for_all_there_is():
    clip = filmed(walkers(6), 60.0)
    shown = without(clip, 0, 2)
    method = Right(Info(WALKER, WALKER), clip=clip)
    for batch, views in (({"main": clip}, 6), ({"main": clip, "shown": shown}, 5)):
        call = functools.partial(method.terms, {}, key=jax.random.key(0), step=jnp.int32(0),
                                 group=method.groups[0], mode=TRAINING)  # fmt: skip
        over = jax.vmap(lambda b, call=call: call(batch=b)[0], axis_name=BATCH_AXIS)
        found = over(jax.tree.map(lambda x: x[None], batch))
        total, count = found["orthographic"]
        assert count[0] == 8 * views
        assert total[0] / count[0] < 1e-2


# --------------------------------------------------------------------------- networks and errors


@pytest.mark.parametrize(
    "name", [n for n, m in methods.METHODS.items() if issubclass(m, Monocular)]
)
def test_a_refusal_names_the_method_as_configs_do(name):
    with pytest.raises(MethodError, match=f"method {name} compares"):
        methods.create({"name": name}, Info(toys.BONE, WALKER))


def test_blocks_are_shrunk_as_the_sum_of_their_norms_asks():
    """The proximal step: the minimum of half the squared distance and the weighed norm."""
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(1, 2, 3, 2)) * np.array([1.0, 0.1])[:, None, None]
    threshold = np.array([0.5, 0.5])
    found = np.asarray(models._shrunk(*(jnp.asarray(x, jnp.float32) for x in (blocks, threshold))))
    assert (found[0, 1] == 0).all()

    def cost(x):
        return 0.5 * np.sum((x - blocks[0, 0].ravel()) ** 2) + 0.5 * np.linalg.norm(x)

    best = minimize(cost, blocks[0, 0].ravel(), tol=1e-12).x
    np.testing.assert_allclose(found[0, 0].ravel(), best, atol=1e-4)


def test_a_shape_turned_is_the_same_shape_to_its_basis():
    """Canonical shapes and deformations are those of the linear basis, by NumPy."""
    clip = scenes.batch()
    method, variables = made("c3dpo", clip)
    params = variables["params"]["c3dpo"]
    coefficients = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    own = {name: tree["c3dpo"] for name, tree in variables.items()}
    found = method.model.apply(own, coefficients, method="shape")
    moved = np.einsum("rk,kjc->rjc", coefficients, np.asarray(params["basis"]))
    shape = np.asarray(params["mean"]) + moved
    np.testing.assert_allclose(found, shape - shape[:, :1], atol=1e-5)
    deformation = method.model.apply(own, coefficients, method="deformation")
    np.testing.assert_allclose(deformation, ((moved - moved[:, :1]) ** 2).sum(-1), rtol=1e-4)


@pytest.mark.slow
def test_canonicalisation_is_told_of_a_shape_turned_at_random_and_held_against_it():
    """The term by NumPy and SciPy, from parameters and turns that are known."""
    clip = scenes.batch(size=4, views=2)
    method, variables = made("c3dpo", clip)
    rng = np.random.default_rng(0)

    def random(path, x):
        if "sign_errors" in jax.tree_util.keystr(path):
            return x
        size = 0.3 * rng.normal(size=x.shape) + ("scale" in str(path) or "var" in str(path))
        return jnp.asarray(np.abs(size) if "var" in str(path) else size, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(random, variables)
    group = dataclasses.replace(method.groups[0], terms=("canonical",))
    key = jax.random.key(3)

    def term(variables, batch):
        return method.terms(variables, batch, key, jnp.int32(0), group=group, mode=Mode())[0]

    over = jax.jit(jax.vmap(term, in_axes=(None, 0), axis_name=BATCH_AXIS))
    total, count = over(variables, {"main": jax.tree.map(lambda x: x[None], clip)})["canonical"]

    own = {name: tree["c3dpo"] for name, tree in variables.items()}
    sight = nrsfm.rows(method.see(clip.observations))
    apply = functools.partial(method.model.apply, own)
    weights, _ = apply(sight.relative, sight.where, sight.visible, update=False)
    shape = np.asarray(apply(weights, method="shape"))
    quaternion = jax.random.normal(jax.random.split(key)[1], (8, 4))
    turns = Rotation.from_quat(np.asarray(quaternion)[:, [1, 2, 3, 0]]).as_matrix()
    own = jax.tree.map(np.asarray, own)
    params, stats = (own[name]["canonicalisation"] for name in ("params", "batch_stats"))

    def layer(i, x):
        dense, norm = params[f"Dense_{i}"], params[f"BatchNorm_{i}"]
        x = x @ dense["kernel"] + dense["bias"]
        mean, var = (stats[f"BatchNorm_{i}"][name] for name in ("mean", "var"))
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"], 0)

    def expected(shown):
        x = layer(0, shown.reshape(8, -1))
        for i in (1, 3):
            x = x + layer(i + 1, layer(i, x))
        last = own["params"]["canonical_coefficients"]
        found = x @ last["kernel"] + last["bias"]
        back = own["params"]["mean"] + np.einsum("rk,kjc->rjc", found, own["params"]["basis"])
        off = np.linalg.norm(back - back[:, :1] - shape, axis=-1)
        return (0.01 * (np.sqrt(1 + (off / 0.01) ** 2) - 1)).sum()

    right = expected(np.einsum("rij,rnj->rni", turns, shape))
    assert float(count[0]) == 8 * 17
    np.testing.assert_allclose(total[0], right, rtol=1e-3)
    for wrong in (shape, np.zeros_like(shape)):  # not turned; not told
        assert abs(expected(wrong) - right) > 0.01 * right
