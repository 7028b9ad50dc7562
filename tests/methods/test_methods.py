"""What holds for the methods: what a prediction may depend on, modes, and their terms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose3d_jax import methods, skeleton
from pose3d_jax.methods.base import Info, MethodError, Mode
from pose3d_jax.models.layers import BATCH_AXIS
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)
NAMES = ("supervised", "multiview")


def make(name, **settings):
    return methods.create({"name": name, "width": 32, **settings}, INFO)


@functools.cache
def init(method):
    return jax.jit(method.init)


def trained(method, clip, spread=30.0):
    """Variables whose predictions differ from pose to pose."""
    variables = init(method)(jax.random.key(1), {"main": clip})
    params = dict(variables["params"]["lifter"])
    params["Dense_5"] = jax.tree.map(lambda x: x * spread, params["Dense_5"])
    return {**variables, "params": {"lifter": params}}


OVER_TIME = ("motion", "bones", "smooth")  # they need several frames


def terms(method, variables, clip, mode=Mode(), key=0, names=None):  # noqa: B008
    """The terms and new collections, under the axis of one device."""
    group = method.groups[0]
    names = names or tuple(name for name in group.terms if name not in OVER_TIME)
    program = compiled(method, dataclasses.replace(group, terms=names), mode)
    add_axis = jax.tree.map(lambda x: x[None], clip)
    out, aux = program(variables, add_axis, jax.random.key(key))
    return jax.tree.map(lambda x: x[0], (out, aux.collections))


@functools.cache
def compiled(method, group, mode):
    """Nothing is a constant of the program: it is compiled once for all that it is called on."""

    def call(variables, clip, key):
        return method.terms(variables, {"main": clip}, key, jnp.int32(0), group=group, mode=mode)

    return jax.jit(jax.vmap(call, in_axes=(None, 0, None), axis_name=BATCH_AXIS))


@pytest.mark.parametrize("name", NAMES)
def test_prediction_sees_neither_labels_nor_other_views(name):
    clip = scenes.batch()
    method = make(name)
    variables = trained(method, clip)
    predict = jax.jit(method.predict)
    joints = predict(variables, clip.observations).joints
    # Labels cannot reach it: `predict` is given none. Other views could.
    observations = clip.observations
    changed = dataclasses.replace(
        observations,
        keypoints=observations.keypoints.at[:, :, 1:].multiply(1.7),
        confidence=observations.confidence.at[:, :, 2:].set(0.0),
    )
    other = predict(variables, changed).joints
    np.testing.assert_array_equal(joints[:, :, 0], other[:, :, 0])
    assert not np.array_equal(joints[:, :, 1], other[:, :, 1])


@pytest.mark.parametrize("name", NAMES)
def test_training_on_other_labels_leaves_the_prediction_inside_terms_identical(name):
    """The network's part of `terms` does not see labels: without 3D terms nothing changes."""
    clip = scenes.batch()
    method = make(name)
    variables = trained(method, clip)
    moved = dataclasses.replace(
        clip, labels=dataclasses.replace(clip.labels, joints=clip.labels.joints + 1.0)
    )
    mode = Mode(dropout=True, update_statistics=True)
    before, statistics = terms(method, variables, clip, mode)
    after, statistics_moved = terms(method, variables, moved, mode)
    jax.tree.map(np.testing.assert_array_equal, statistics, statistics_moved)
    if name == "multiview":
        jax.tree.map(np.testing.assert_array_equal, before, after)
    else:
        assert before["root"] != after["root"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("update", [False, True])
def test_dropout_and_statistics_switch_independently(name, dropout, update):
    clip = scenes.batch()
    method = make(name)
    variables = trained(method, clip)
    mode = Mode(dropout=dropout, update_statistics=update)
    first, collections = terms(method, variables, clip, mode, key=0)
    second, _ = terms(method, variables, clip, mode, key=1)
    assert (jax.tree.leaves(first) != jax.tree.leaves(second)) == dropout
    old = jax.tree.leaves(variables["batch_stats"])
    new = jax.tree.leaves(collections["batch_stats"])
    changed = [not np.array_equal(a, b) for a, b in zip(old, new, strict=True)]
    assert all(changed) if update else not any(changed)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_lifter_uses_running_statistics(name):
    clip = scenes.batch()
    method = make(name)
    variables = trained(method, clip)
    frozen = Mode(update_statistics=True, frozen=("lifter",))
    running, _ = terms(method, variables, clip, Mode())
    same, collections = terms(method, variables, clip, frozen)
    assert jax.tree.leaves(running) == jax.tree.leaves(same)
    jax.tree.map(
        np.testing.assert_array_equal, variables["batch_stats"], collections["batch_stats"]
    )


@functools.cache
def fixed(name):
    """The method with a network that always answers the `joints` among its variables."""
    kind = methods.METHODS[name]

    @dataclasses.dataclass(frozen=True)
    class Fixed(kind):
        def lift(self, variables, observations, key, mode):
            return variables["joints"], {}

    return Fixed(INFO)


def true_joints(clip):
    return make("supervised"), clip.labels.joints


@pytest.mark.parametrize("views", [2, 3, 4])
def test_terms_of_the_truth_are_zero(views):
    clip = scenes.batch(views=views)
    rotation, translation = (
        getattr(clip.observations.cameras, field) for field in ("rotation", "translation")
    )
    truth = jnp.einsum("btvij,btkj->btvki", rotation, clip.labels.joints)
    truth = truth + translation[..., None, :]
    for name in NAMES:
        found = terms(fixed(name), {"joints": truth}, clip)[0]
        found.pop("symmetry", None)  # these people's left and right differ
        for term, (total, count) in found.items():
            assert total / count < 1e-5, (name, term)


def test_multiview_counts_are_confidences_and_pairs():
    clip = scenes.batch(size=2, views=3)
    confidence = clip.observations.confidence.at[0, 0, 1].set(0.0)  # one view of one clip is lost
    confidence = confidence.at[1, 0, 2, 5].set(0.5)
    observations = dataclasses.replace(clip.observations, confidence=confidence)
    clip = dataclasses.replace(clip, observations=observations)
    counts = {name: float(c) for name, (_, c) in terms(make("multiview"), trained(
        make("multiview"), clip), clip)[0].items()}  # fmt: skip
    assert counts["self"] == 2 * 17 + (3 * 17 - 0.5)
    assert counts["cross"] == 2 * 17 + 2 * (3 * 17 - 0.5)
    assert counts["consistency"] == 17 + (3 * 17 - 2 * 0.25)


def test_the_pose_term_looks_away_from_depth_and_needs_a_root_that_two_views_see():
    clip = scenes.batch(size=2, views=3)
    rotation, translation = (
        getattr(clip.observations.cameras, field) for field in ("rotation", "translation")
    )
    truth = jnp.einsum("btvij,btkj->btvki", rotation, clip.labels.joints)
    truth = truth + translation[..., None, :]
    farther = truth.at[..., 2].add(0.3)
    found = {name: float(a / b) for name, (a, b) in terms(
        fixed("multiview"), {"joints": farther}, clip)[0].items()}  # fmt: skip
    assert found["pose"] < 1e-5 < 5e-3 < min(found["cross"], found["self"])
    bent = truth.at[..., 3, 0].add(0.1)
    assert terms(fixed("multiview"), {"joints": bent}, clip)[0]["pose"][0] > 0.1
    confidence = clip.observations.confidence.at[0, 0, 1:, 0].set(0.0)  # one view sees its root
    confidence = confidence.at[1, 0, 2, 5].set(0.5)
    observations = dataclasses.replace(clip.observations, confidence=confidence)
    clip = dataclasses.replace(clip, observations=observations)
    counts = {name: float(c) for name, (_, c) in terms(make("multiview"), trained(
        make("multiview"), clip), clip)[0].items()}  # fmt: skip
    assert counts["pose"] == 3 * (3 * 17 - 0.5)


def test_supervised_counts_valid_joints_of_seeing_views():
    clip = scenes.batch(size=2, views=3)
    labels = dataclasses.replace(
        clip.labels, joints_valid=clip.labels.joints_valid.at[0, 0, 4].set(0)
    )
    confidence = clip.observations.confidence.at[1, 0, 2].set(0.0)
    observations = dataclasses.replace(clip.observations, confidence=confidence)
    clip = dataclasses.replace(clip, labels=labels, observations=observations)
    method = make("supervised")
    counts = {n: float(c) for n, (_, c) in terms(method, trained(method, clip), clip)[0].items()}
    assert counts == {"pose": 3 * 15 + 2 * 16, "root": 3 + 2}


@pytest.mark.slow
def test_semisupervised_is_both_each_on_its_own_stream():
    """Terms are those of the two methods on the stream of each; statistics follow both."""
    main, few = scenes.batch(size=6, views=3), scenes.batch(size=4, views=3, seed=5)
    method = make("semisupervised")
    variables = trained(method, main)
    group = method.groups[0]
    names = tuple(name for name in group.terms if name not in OVER_TIME)
    group = dataclasses.replace(group, terms=names)

    def call(variables, batch, key, mode):
        over = jax.vmap(
            lambda batch: method.terms(variables, batch, key, jnp.int32(0), group=group, mode=mode),
            axis_name=BATCH_AXIS,
        )
        out, aux = over(jax.tree.map(lambda x: x[None], batch))
        return jax.tree.map(lambda x: x[0], (out, aux.collections))

    run = jax.jit(call, static_argnums=3)
    batch = {"main": main, "labelled": few}
    found, _ = run(variables, batch, jax.random.key(0), Mode())
    views, _ = terms(make("multiview"), variables, main)
    labels, _ = terms(make("supervised"), variables, few)
    expected = {**views, **{f"labelled_{name}": term for name, term in labels.items()}}
    assert found.keys() == expected.keys()
    for name, term in expected.items():
        np.testing.assert_allclose(found[name], term, rtol=1e-5)

    training = Mode(update_statistics=True)
    _, after = run(variables, batch, jax.random.key(0), training)
    _, first = terms(make("multiview"), variables, main, training)
    _, second = terms(make("supervised"), {**variables, **first}, few, training)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with pytest.raises(MethodError, match="a stream `labelled` beside `main`"):
        terms(method, variables, main)


def test_multiview_refuses_one_view_and_differing_joint_sets():
    clip = scenes.batch(views=1)
    method = make("multiview")
    with pytest.raises(MethodError, match="at least 2 views"):
        terms(method, trained(method, clip), clip)
    with pytest.raises(MethodError, match="humaneva15"):
        methods.create(
            {"name": "multiview"}, Info(skeleton.get("humaneva15"), skeleton.get("h36m17"))
        )


def test_unknown_method_and_setting_are_named():
    with pytest.raises(MethodError, match=r"'lifting'.*supervised, multiview"):
        methods.create({"name": "lifting"}, INFO)
    with pytest.raises(MethodError, match="no setting widht"):
        methods.create({"name": "supervised", "widht": 3}, INFO)


def moving(frames=5):
    """A clip with gaps, and every view's own idea of it."""
    clip = scenes.batch(size=2, views=3, frames=frames)
    confidence = clip.observations.confidence.at[0, 2, 1].set(0.0)  # a view sees nothing
    confidence = confidence.at[1, 1, 0, 5].set(0.0)  # or misses a joint
    clip = dataclasses.replace(
        clip, observations=dataclasses.replace(clip.observations, confidence=confidence)
    )
    rng = np.random.default_rng(3)
    truth = camera_frame(clip)
    return clip, jnp.asarray(truth + rng.normal(0, 0.05, truth.shape), jnp.float32)


def camera_frame(clip):
    """The true joints in every view."""
    rotation, translation = (
        np.asarray(getattr(clip.observations.cameras, name)) for name in ("rotation", "translation")
    )
    world = np.asarray(clip.labels.joints)
    return np.einsum("btvij,btnj->btvni", rotation, world) + translation[..., None, :]


def test_motion_with_labels_is_the_error_of_each_step():
    clip, joints = moving()
    (found, _) = terms(fixed("supervised"), {"joints": joints}, clip, names=("motion",))
    total = count = 0.0
    truth = camera_frame(clip)
    own, wanted = (np.asarray(x) - np.asarray(x)[..., :1, :] for x in (joints, truth))
    seen = np.asarray(clip.observations.confidence).any(axis=-1)
    for b, t, v, j in np.ndindex(2, 4, 3, 17):
        if j != 0 and seen[b, t, v] and seen[b, t + 1, v]:
            step = own[b, t + 1, v, j] - own[b, t, v, j]
            total += np.linalg.norm(step - (wanted[b, t + 1, v, j] - wanted[b, t, v, j]))
            count += 1
    assert count == (2 * 4 * 3 - 2) * 16
    np.testing.assert_allclose(found["motion"], (total, count), rtol=1e-5)


def test_terms_over_time_have_their_closed_forms():
    clip, joints = moving()
    found, _ = terms(fixed("multiview"), {"joints": joints}, clip, names=("bones", "smooth"))
    seen = np.asarray(clip.observations.confidence).any(axis=-1)
    joints = np.asarray(joints, np.float64)
    parents, children = np.array(scenes.H36M.bones).T
    lengths = np.linalg.norm(joints[..., children, :] - joints[..., parents, :], axis=-1)
    relative = joints - joints[..., :1, :]
    bones, smooth = np.zeros(2), np.zeros(2)
    for b, v in np.ndindex(2, 3):
        known = seen[b, :, v]
        own = lengths[b, known, v]
        bones += np.abs(own - own.mean(axis=0)).sum(), own.size
        for t in range(1, 4):
            if known[t - 1 : t + 2].all():
                turn = relative[b, t + 1, v] - 2 * relative[b, t, v] + relative[b, t - 1, v]
                smooth += np.linalg.norm(turn, axis=-1).sum(), 17
    # The cameras stand still, so that relative joints turn in them as they do in the world.
    np.testing.assert_allclose(found["bones"], bones, rtol=1e-4)
    np.testing.assert_allclose(found["smooth"], smooth, rtol=1e-4)


def test_motion_without_labels_is_that_of_the_reprojection():
    """The truth has none, and a pose that is off by the same in all frames next to none."""
    clip, _ = moving()
    truth = jnp.asarray(camera_frame(clip), jnp.float32)
    motion = lambda joints: terms(  # noqa: E731
        fixed("multiview"), {"joints": joints}, clip, names=("pose", "motion")
    )[0]
    exact = motion(truth)
    assert float(exact["motion"][0]) < 1e-3
    assert float(exact["motion"][1]) > 0
    shaken = motion(truth.at[:, ::2, :, 1:].add(0.1))
    shifted = motion(truth.at[..., 1:, :].add(0.1))
    ratio = lambda found: float(found["motion"][0] / found["pose"][0])  # noqa: E731
    assert ratio(shifted) < 0.3
    assert ratio(shaken) > 1


@pytest.mark.parametrize(("name", "term"), [("supervised", "motion"), ("multiview", "smooth")])
def test_terms_over_time_need_frames(name, term):
    with pytest.raises(MethodError, match=rf"term {term} needs . frames.*main.window"):
        terms(fixed(name), {"joints": jnp.zeros(())}, scenes.batch(views=3), names=(term,))


def test_frames_that_are_padding_change_no_term_over_time():
    clip, joints = moving()
    pad = lambda x: jnp.concatenate([x, jnp.repeat(x[:, -1:], 3, axis=1)], axis=1)  # noqa: E731
    longer = jax.tree.map(lambda x: pad(x) if x.ndim > 1 else x, clip)
    blank = longer.observations.confidence.at[:, 5:].set(0.0)
    longer = dataclasses.replace(
        longer,
        observations=dataclasses.replace(longer.observations, confidence=blank),
        labels=dataclasses.replace(
            longer.labels, joints_valid=longer.labels.joints_valid.at[:, 5:].set(0.0)
        ),
    )
    wild = pad(joints).at[:, 5:].add(1.0)
    for name, names in (("supervised", ("motion",)), ("multiview", OVER_TIME)):
        plain, _ = terms(fixed(name), {"joints": joints}, clip, names=names)
        padded, _ = terms(fixed(name), {"joints": wild}, longer, names=names)
        for term in names:
            np.testing.assert_allclose(plain[term], padded[term], rtol=1e-5)


def test_networks_and_what_they_have_no_use_for():
    with pytest.raises(MethodError, match="no network is named 'lstm'; there are lifter, conv"):
        make("multiview", network="lstm")
    with pytest.raises(MethodError, match="network lifter has no setting causal; leave it at"):
        make("multiview", causal=True)
    with pytest.raises(MethodError, match="width 30 cannot be shared by 4 heads"):
        make("supervised", network="attention", width=30)
