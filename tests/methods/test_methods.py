"""What holds for the methods: what a prediction may depend on, modes, and their terms."""

import dataclasses

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


def trained(method, clip, spread=30.0):
    """Variables whose predictions differ from pose to pose."""
    variables = jax.jit(method.init)(jax.random.key(1), {"main": clip})
    params = dict(variables["params"]["lifter"])
    params["Dense_5"] = jax.tree.map(lambda x: x * spread, params["Dense_5"])
    return {**variables, "params": {"lifter": params}}


def terms(method, variables, clip, mode=Mode(), key=0):  # noqa: B008
    """The terms and new collections, under the axis of one device."""

    def call(clip):
        return method.terms(
            variables, {"main": clip}, jax.random.key(key), jnp.int32(0),
            group=method.groups[0], mode=mode,
        )  # fmt: skip

    add_axis = jax.tree.map(lambda x: x[None], clip)
    out, aux = jax.jit(jax.vmap(call, axis_name=BATCH_AXIS))(add_axis)
    return jax.tree.map(lambda x: x[0], (out, aux.collections))


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


def fixed(name, joints):
    """The method with a network that always answers `joints`."""
    kind = methods.METHODS[name]

    @dataclasses.dataclass(frozen=True)
    class Fixed(kind):
        def lift(self, variables, observations, key, mode):
            return joints, {}

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
        method = fixed(name, truth)
        found = terms(method, {}, clip)[0]
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
        fixed("multiview", farther), {}, clip)[0].items()}  # fmt: skip
    assert found["pose"] < 1e-5 < 5e-3 < min(found["cross"], found["self"])
    bent = truth.at[..., 3, 0].add(0.1)
    assert terms(fixed("multiview", bent), {}, clip)[0]["pose"][0] > 0.1
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
