"""Multimodal VAEs: what is seen of a pose, what tells of what, and the probes of their latents."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.spatial.transform import Rotation

from benchmarks import multimodal as benchmark
from configs import cmu_multimodal
from data_prep import writer
from pose3d_jax import methods, train
from pose3d_jax.methods.base import Info, MethodError, Mode
from pose3d_jax.methods.modalities import Seen, rows_of
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Images
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)
ROOT = scenes.H36M.root
TINY = {"name": "multimodal", "width": 16, "blocks": 0, "shared": 3, "private": 2, "samples": 4}


def make(**settings):
    return methods.create({**TINY, "cells": 6, **settings}, INFO)


@pytest.fixture(scope="module")
def clip():
    return scenes.batch(size=4, views=3)


@pytest.fixture(scope="module")
def variables(clip):
    return jax.jit(make().init)(jax.random.key(0), {"main": clip})


def terms(method, variables, clip, key=0, mode=Mode(training=True)):  # noqa: B008
    def call(variables, clip, key):
        group = method.groups[0]
        return method.terms(variables, {"main": clip}, key, jnp.int32(0), group=group, mode=mode)

    over_devices = jax.vmap(call, in_axes=(None, 0, None), axis_name=BATCH_AXIS)
    out, aux = over_devices(variables, jax.tree.map(lambda x: x[None], clip), jax.random.key(key))
    return jax.tree.map(lambda x: x[0], (out, aux))


def blanked(clip, *views):
    """Some views see nothing."""
    confidence = clip.observations.confidence
    for clip_, view in views:
        confidence = confidence.at[clip_, :, view].set(0.0)
    observations = dataclasses.replace(clip.observations, confidence=confidence)
    return dataclasses.replace(clip, observations=observations)


@pytest.mark.parametrize("corruption", ["independent", "same"])
def test_what_befalls_the_heatmap_is_its_own_or_in_the_control_the_same(corruption):
    method = make(corruption=corruption)
    places = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 17, 2)), jnp.float32)
    found = jax.jit(method.corruptions)(places, jax.random.key(0))
    for field in ("shift", "noise", "hidden"):
        a, b = (np.asarray(getattr(found[m], field)).ravel() for m in ("points", "heatmap"))
        correlation = np.corrcoef(a, b)[0, 1]
        assert correlation == pytest.approx(1.0) if corruption == "same" else correlation < 0.05
    own = found["heatmap"]
    assert_allclose([own.shift.std(), own.noise.std()], [method.shift, method.noise], rtol=0.05)
    some = np.asarray(own.hidden).any(axis=1)
    assert 0.8 * method.occluded < some.mean() <= method.occluded + 0.03
    # What is hidden lies in one disc.
    for row in np.flatnonzero(some)[:50]:
        hidden = np.asarray(places[row])[np.asarray(own.hidden[row]) > 0]
        apart = np.linalg.norm(hidden[:, None] - hidden[None], axis=-1)
        assert apart.max() < 2 * method.radius


def test_modalities_show_the_same_points_moved_and_hidden_as_said(clip):
    method = make(cells=24, blur=1.0)
    sight = method.see(clip.observations)
    seen = jax.jit(method.observe)(clip.observations, sight, jax.random.key(0))
    places = rows_of(sight.relative)
    corruption = method.corruptions(places, jax.random.key(0))
    for name, values in (
        ("points", seen["points"].values),
        ("heatmap", method.peaks(seen["heatmap"].values)),
    ):
        own = corruption[name]
        expected = np.asarray(places + own.shift[:, None] + own.noise)
        there = np.asarray(seen[name].there) > 0
        assert_allclose(seen[name].there, 1 - own.hidden)
        # Heatmaps have an edge.
        within = there & (np.abs(expected).max(axis=-1) < 1.8)
        assert within.sum() > 50
        assert_allclose(np.asarray(values)[within], expected[within], atol=0.01)
        assert not np.asarray(seen[name].values)[~there].any()


def test_the_3d_pose_is_as_the_camera_turned_to_the_root_sees_it(clip):
    method = make()
    sight = method.see(clip.observations)
    pose = method.labelled(clip, sight)
    camera = clip.observations.cameras
    world = np.asarray(clip.labels.joints[1, 0])
    own = (world - world[ROOT]) @ np.asarray(camera.rotation[1, 0, 2]).T
    in_camera = world @ np.asarray(camera.rotation[1, 0, 2]).T + np.asarray(
        camera.translation[1, 0, 2]
    )
    ray = in_camera[ROOT] / np.linalg.norm(in_camera[ROOT])
    axis = np.cross(ray, [0, 0, 1])
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.arccos(ray[2]))
    assert_allclose(pose.values[1 * 3 + 2], turn.apply(own), atol=1e-4)


def test_a_prediction_is_about_a_root_on_its_ray_and_of_what_is_given_alone(clip, variables):
    method = make(given="heatmap")
    predict = jax.jit(method.predict)
    found = predict(variables, clip.observations, jax.random.key(1))
    assert found.space == "root_relative"
    assert found.samples.shape == (4, 4, 1, 3, 17, 3)
    assert found.covariance.shape == (4, 1, 3, 17, 3, 3)
    assert_allclose(found.samples.mean(axis=0), found.joints, atol=1e-5)
    root = np.asarray(found.joints[..., ROOT, :])
    camera = clip.observations.cameras
    truth = np.einsum("bvij,bj->bvi", camera.rotation[:, 0], clip.labels.joints[:, 0, ROOT])
    truth = truth + np.asarray(camera.translation[:, 0])
    assert_allclose(root[:, 0, :, :2] / root[:, 0, :, 2:], truth[..., :2] / truth[..., 2:],
                    atol=2e-4)  # fmt: skip

    sight = method.see(clip.observations)
    observed = method.observe(clip.observations, sight, jax.random.key(0))
    seen = {**observed, "pose": method.labelled(clip, sight)}
    other = {name: Seen(1 - x.values, jnp.ones_like(x.there)) for name, x in seen.items()}
    lift = jax.jit(
        lambda seen, given: method.generate(variables, seen, given, "pose", jax.random.key(2), 2),
        static_argnums=1,
    )
    for given in (("points",), ("pose",), ("points", "heatmap")):
        shown = lift(seen, given)
        mixed = {name: seen[name] if name in given else other[name] for name in seen}
        assert_allclose(lift(mixed, given), shown, atol=1e-6)  # a label is nothing to points
        last = {**seen, given[-1]: other[given[-1]]}
        assert not np.allclose(lift(last, given), shown, atol=1e-6)


@pytest.mark.parametrize("fusion", ["product", "mixture"])
def test_missing_modalities_leave_terms_finite_and_what_is_hidden_is_not_seen(
    fusion, clip, variables
):
    method = make(fusion=fusion, draws=2, absent=0.4)
    clip = blanked(clip, (0, 0), (1, 2))
    unlabelled = dataclasses.replace(
        clip.labels, joints_valid=clip.labels.joints_valid.at[:2].set(0.0)
    )
    clip = dataclasses.replace(clip, labels=unlabelled)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, clip):
        found, _ = terms(method, {**variables, "params": params}, clip)
        return found["bound"]

    (shown, count), gradient = loss(variables["params"], clip)
    # Nothing at all is known of two rows of twelve; one modality is kept of each other one, but
    # where that is a pose without a label.
    assert 4 <= count <= 10
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    points = clip.observations.keypoints.at[0, 0, 0, 3].add(500.0)
    joints = clip.labels.joints.at[:2, :, 5].add(3.0)
    hidden = dataclasses.replace(
        clip,
        observations=dataclasses.replace(clip.observations, keypoints=points),
        labels=dataclasses.replace(clip.labels, joints=joints),
    )
    (again, same), _ = loss(variables["params"], hidden)
    assert_allclose([again, same], [shown, count], rtol=1e-6)
    # What is not hidden is.
    seen = dataclasses.replace(
        clip.observations, keypoints=clip.observations.keypoints.at[3, :, :, 3].add(500.0)
    )
    (other, _), _ = loss(variables["params"], dataclasses.replace(clip, observations=seen))
    assert abs(other - shown) > 1e-4 * abs(shown)


def test_likelihoods_are_those_densities_of_numpy():
    method = make(cells=3, counts=5.0)
    rng = np.random.default_rng(0)
    there = jnp.asarray(rng.uniform(size=(2, 17)) > 0.3, jnp.float32)
    scale = rng.uniform(0.1, 0.5, 17).astype(np.float32)

    def found(name, said, values):
        seen = Seen(
            jnp.asarray(values * np.asarray(there).reshape(2, 17, *[1] * (values.ndim - 2))), there
        )
        flat = jnp.asarray(said.reshape(2, -1))
        return method.likelihood(name, flat, seen, jnp.log(scale)), np.asarray(seen.values)

    said = rng.normal(size=(2, 17, 3)).astype(np.float32)
    chance = 1 / (1 + np.exp(-said[..., -1]))
    bernoulli = np.log(np.where(there, chance, 1 - chance)).sum(axis=1)
    log_p, values = found("points", said, rng.normal(size=(2, 17, 2)).astype(np.float32))
    away = np.linalg.norm(said[..., :2] - values, axis=-1)
    density = np.exp(-away / scale) / (2 * np.pi * scale**2)
    assert_allclose(log_p, (np.log(density) * there).sum(axis=1) + bernoulli, rtol=1e-4)

    log_p, values = found("pose", said, rng.normal(size=(2, 17, 3)).astype(np.float32))
    joints = method.reach * np.tanh(said)
    away = np.linalg.norm(joints - joints[:, [ROOT]] - values, axis=-1)
    density = np.exp(-away / scale) / (8 * np.pi * scale**3)
    each = np.log(density) * there
    assert_allclose(log_p, each.sum(axis=1) - each[:, ROOT], rtol=1e-4)

    said = rng.normal(size=(2, 17, 10)).astype(np.float32)
    log_p, values = found("heatmap", said, rng.uniform(size=(2, 17, 3, 3)).astype(np.float32))
    chance = 1 / (1 + np.exp(-said[..., -1]))
    bernoulli = np.log(np.where(there, chance, 1 - chance)).sum(axis=1)
    flat = values.reshape(2, 17, 9)
    softmax = np.exp(said[..., :9]) / np.exp(said[..., :9]).sum(axis=-1, keepdims=True)
    draws = 5 * (flat * np.log(softmax)).sum(axis=-1) / np.maximum(flat.sum(axis=-1), 1e-6)
    assert_allclose(log_p, (draws * there).sum(axis=1) + bernoulli, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "sum"}, "no fusion is named 'sum'"),
        ({"corruption": "none"}, "no corruption is named 'none'"),
        ({"modalities": "points,depth,pose"}, "no modality is named 'depth'"),
        ({"modalities": "points,heatmap"}, "must hold pose"),
        ({"given": ""}, "given is empty"),
        ({"occluded": 5.0}, "at most 1"),
        ({"given": "points,pose"}, "given holds 'pose'"),
        ({"modalities": "points,pose", "given": "heatmap"}, "given holds 'heatmap'"),
    ],
)
def test_what_there_is_not_is_refused(settings, message):
    with pytest.raises(MethodError, match=message):
        make(**settings)


# ------------------------------------------------------------------------------ the benchmark


def test_probes_find_what_a_latent_tells_and_nothing_else():
    rng = np.random.default_rng(0)
    latent, other = rng.normal(size=(2, 3000, 5))
    ways, noise = rng.normal(size=(5, 4)), rng.normal(size=(2, 3000, 4))
    signal = [x @ ways + 2.0 for x in (latent, other)]
    r_squared = benchmark.r_squared
    assert r_squared(latent, signal[0], other, signal[1]) > 0.999
    assert abs(r_squared(latent, noise[0], other, noise[1])) < 0.02
    mixed = [s + 3.0 * n for s, n in zip(signal, noise, strict=True)]
    share = (ways**2).sum() / ((ways**2).sum() + 4 * 9.0)
    assert_allclose(r_squared(latent, mixed[0], other, mixed[1]), share, atol=0.03)


def test_the_margin_is_1_for_a_factorised_latent_and_minus_1_for_the_opposite():
    def parts(right):
        own, common = (0.0, 1.0) if right else (1.0, 0.0)
        told = {"shared": common, "private": own}
        return {
            "points": {
                "pose": told,
                "shift": {"shared": own, "private": common},
                "hidden": {"shared": own, "private": common},
                "noise": {"shared": 0.0, "private": 0.0},
            },
            "pose": {"pose": told},
        }

    assert benchmark.margin(parts(True)) == 1.0
    assert benchmark.margin(parts(False)) == -1.0


def test_synergy_is_positive_only_where_both_are_better_than_the_best_alone():
    both = {"points": 60.0, "heatmap": 80.0, "points + heatmap": 45.0}
    assert benchmark.synergy(both, 50.0, 90.0) == {
        "within": pytest.approx(0.25),
        "synergy": pytest.approx(0.1),
    }
    assert benchmark.synergy(both, 40.0, 90.0)["synergy"] < 0


def test_a_pose_at_the_usual_distance_is_projected_to_what_the_networks_see(clip):
    """A person with the root 4 m before the camera, on its axis."""
    method = make()
    joints = scenes.people(3, seed=2)[:, 0] / 2
    relative = jnp.asarray(joints - joints[:, [ROOT]])
    seen = relative.at[..., 2].add(method.root_depth)
    sight = method.look(seen[..., :2] / seen[..., 2:], jnp.ones(seen.shape[:-1]))
    assert_allclose(benchmark.projected(relative, method), sight.relative, atol=1e-4)


def with_images(clip, features=7):
    """A batch with features of images, but of the first clip's first view."""
    lead = clip.observations.confidence.shape[:3]
    rng = np.random.default_rng(0)
    square = jnp.full((*lead, 3), 100.0).at[0, 0, 0].set(0.0)
    images = Images(jnp.asarray(rng.normal(size=(*lead, features)), jnp.float32), square)
    observations = dataclasses.replace(clip.observations, images=images)
    return dataclasses.replace(clip, observations=observations)


def test_an_image_is_its_features_whose_likelihood_is_gaussian(clip):
    method = make(modalities="points,image,pose", given="image", features=7)
    shown = with_images(clip).observations
    seen = method.observe(shown, method.see(shown), jax.random.key(0))["image"]
    assert_allclose(seen.there[:, 0], [0] + [1] * 11)
    assert not seen.values[0].any()
    assert_allclose(seen.values[1:], rows_of(shown.images.features)[1:])
    rng = np.random.default_rng(1)
    said, log_scale = rng.normal(size=(12, 7)), rng.normal(size=7)
    found = method.likelihood("image", jnp.asarray(said), seen, jnp.asarray(log_scale))
    expected = stats.norm.logpdf(seen.values, said, np.exp(log_scale)).sum(axis=-1)
    assert_allclose(found[1:], expected[1:], rtol=1e-4)
    assert found[0] == 0


def test_what_lifts_from_images_looks_at_nothing_else_but_where_the_person_is(clip):
    method = make(modalities="points,image,pose", given="image", features=7)
    shown = with_images(clip)
    variables = jax.jit(method.init)(jax.random.key(0), {"main": shown})
    predict = jax.jit(method.predict)

    def about(observations):
        joints = predict(variables, observations, jax.random.key(1)).joints
        return joints - joints[..., ROOT : ROOT + 1, :]

    first = about(shown.observations)
    images = shown.observations.images
    other = dataclasses.replace(images, features=images.features[::-1])
    changed = about(dataclasses.replace(shown.observations, images=other))
    apart = np.abs(changed - first).max(axis=(-1, -2))
    assert apart[1:].min() > 1e-6
    knee = shown.observations.keypoints.at[..., 5, :].add(30.0)
    moved = about(dataclasses.replace(shown.observations, keypoints=knee))
    assert_allclose(moved, first, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "message"),
    [(None, "the data has none; add them"), (9, "the data has 9 features of an image")],
)
def test_data_without_these_features_of_images_are_refused(clip, features, message):
    method = make(modalities="image,pose", given="image", features=7)
    assert method.needs_images
    assert not make().needs_images
    given = with_images(clip, features) if features else clip
    with pytest.raises(MethodError, match=message):
        method.init(jax.random.key(0), {"main": given})


def test_the_config_trains_and_predicts(tmp_path, synthetic_set):
    config = cmu_multimodal.get_config("tiny,fusion=mixture,modalities=points")
    config.data.path = str(synthetic_set)
    config.evaluation.test = ("test",)
    metrics = train.run(config, tmp_path / "run")
    row = metrics["splits"]["test"]["rows"]["multimodal"]
    assert 0 < row["p1"]["frames"] < 1.0
    assert row["absolute"]["frames"] is None  # no size is known


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """A set with features of images."""
    folder = tmp_path_factory.mktemp("images") / "data"
    made = {
        split: [
            scenes.pictured(scenes.record(f"{split}{n}", split=split, frames=12, views=2, seed=n))
            for n in range(3)
        ]
        for split in ("train", "validation", "test")
    }
    writer.write(folder, "scene", made, description="small")
    return folder


@pytest.mark.slow
def test_images_are_a_modality_of_the_config(tmp_path, pictured):
    config = cmu_multimodal.get_config("tiny,image")
    assert config.method.given == "points,heatmap,image"
    config.data.path, config.method.features = str(pictured), 7
    config.evaluation.test = ("test",)
    metrics = train.run(config, tmp_path / "run")
    assert 0 < metrics["splits"]["test"]["rows"]["multimodal"]["p1"]["frames"] < 1.0


def test_networks_of_fewer_modalities_are_trained_as_long_by_more_steps():
    wanted = {"three": "fusion=mixture", "one": "fusion=mixture,modalities=image"}
    # By hand: each of m modalities is encoded once and decoded twice by each of m experts.
    assert benchmark.steps_of(wanted, 1000) == {"three": 1000, "one": round(1000 * 21 / 10)}
    more = {**wanted, "four": "fusion=mixture,image"}
    assert benchmark.steps_of(more, 1000)["three"] == round(1000 * 36 / 21)


def test_errors_of_generated_features_are_in_their_deviations():
    rng = np.random.default_rng(0)
    values = rng.normal([1, -2, 5], [0.1, 2, 4], (500, 3))
    seen = {"image": Seen(jnp.asarray(values), jnp.ones((500, 1)))}
    rows = benchmark.Rows(jnp.zeros((500, 1, 2)), seen["image"], seen, {})
    mean = jnp.broadcast_to(jnp.asarray(values.mean(axis=0)), values.shape)
    assert benchmark.error("image", mean, rows) == pytest.approx(1.0)
    assert benchmark.error("image", jnp.asarray(values), rows) == 0.0
    half = (mean + values) / 2
    assert benchmark.error("image", half, rows) == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("image", [False, True])
def test_one_command_prints_the_four_criteria(
    image, tmp_path, synthetic_set, pictured, capsys, monkeypatch
):
    words = ["--out", str(tmp_path), "--split", "test", "--quick"]
    words += ["--data", str(pictured), "--image", "7"] if image else ["--data", str(synthetic_set)]
    monkeypatch.setattr("sys.argv", ["multimodal", *words])
    monkeypatch.setenv("XLA_FLAGS", "")  # which the command adds to
    benchmark.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["multimodal"]
    numbers = jax.tree.leaves(found["product"])
    assert len(numbers) > 40
    assert ("image -> pose" in found["product"]["cross_generation"]) == image
    assert np.isfinite(numbers).all()
