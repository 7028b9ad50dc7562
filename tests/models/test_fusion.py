"""Views that are told of one another: how many, in which order, and in whose frame."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose3d_jax import cameras as cam
from pose3d_jax import inference, methods
from pose3d_jax.methods.base import EVALUATION, Info, MethodError, Mode
from pose3d_jax.methods.fused import _random
from pose3d_jax.methods.lifting import normalised_points
from pose3d_jax.models import rays
from pose3d_jax.models.fusion import _seen_from, _triangulated
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)


def made(**settings):
    return methods.create(
        {"name": "fused", "width": 32, "fusion_width": 16, "dropout": 0.0, **settings}, INFO
    )


def views(observations, chosen):
    return jax.tree.map(lambda x: x[:, :, chosen], observations)


@pytest.fixture(scope="module")
def fitted():
    """A method whose predictions differ from pose to pose, and its observations."""
    method, clip = made(), scenes.batch()
    variables = jax.jit(method.init)(jax.random.key(1), {"main": clip})
    own = variables["params"]["lifter"]
    last = own["lifter"]["Dense_5"]
    louder = {**own, "lifter": {**own["lifter"], "Dense_5": jax.tree.map(lambda x: 30 * x, last)}}
    return method, {**variables, "params": {"lifter": louder}}, clip.observations


def test_a_view_sees_the_others_whatever_their_order_and_number(fitted):
    method, variables, observations = fitted
    predict = jax.jit(method.predict)
    joints = predict(variables, observations).joints
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(
        predict(variables, views(observations, order)).joints,
        joints[:, :, np.array(order)],
        atol=1e-5,
    )
    fewer = predict(variables, views(observations, np.array([0, 1]))).joints
    assert np.abs(fewer[:, :, 0] - joints[:, :, 0]).max() > 1e-3
    # A view that sees nothing is as good as none.
    blank = dataclasses.replace(
        observations, confidence=observations.confidence.at[:, :, 2:].set(0.0)
    )
    np.testing.assert_allclose(predict(variables, blank).joints[:, :, :2], fewer, atol=1e-5)


def test_where_the_world_s_axes_are_does_not_matter(fitted):
    method, variables, observations = fitted
    predict = jax.jit(method.predict)
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    move = np.array([3.0, -2.0, 0.5], np.float32)
    cameras = observations.cameras
    # x' = turn x + move in the world: R' = R turn^T, t' = t - R' move.
    rotation = cameras.rotation @ turn.T
    translation = cameras.translation - rotation @ move
    moved = dataclasses.replace(
        observations,
        cameras=dataclasses.replace(cameras, rotation=rotation, translation=translation),
    )
    np.testing.assert_allclose(
        predict(variables, moved).joints, predict(variables, observations).joints, atol=1e-4
    )


def test_what_others_see_in_the_turned_frame_of_the_view_that_is_told():
    """Points: the pose flattened along the other's axis, as large as it is there."""
    clip = scenes.batch()
    observations = clip.observations

    @jax.jit
    def look(observations):
        points = normalised_points(observations)
        sight = rays.look(points, observations.confidence, 0, centred=True)
        return sight, _seen_from(sight, observations.confidence, observations.cameras)

    sight, features = jax.tree.map(np.asarray, look(observations))
    rotation, translation = map(
        np.asarray, (observations.cameras.rotation, observations.cameras.translation)
    )
    centre = np.linalg.solve(rotation, -translation[..., None])[..., 0]
    turned = sight.turn @ rotation
    joints = np.asarray(clip.labels.joints)[:, :, None]
    relative = (joints - joints[..., :1, :])[:, :, 0]
    for told, other in ((0, 1), (3, 2)):
        inward = joints[:, :, 0, 0] - centre[:, :, other]
        axis = inward / np.linalg.norm(inward, axis=-1, keepdims=True)  # through the root

        def in_view(x, told=told):
            return np.einsum("btij,bt...j->bt...i", turned[:, :, told], x)

        along = np.einsum("btnk,btk->btn", relative, axis)
        wanted = in_view(relative - along[..., None] * axis[:, :, None])
        points, confidence, ray, place, size = np.split(
            features[:, :, told, other], [51, 68, 71, 74], axis=-1
        )
        points = points.reshape(wanted.shape)
        cosine = (wanted * points).sum((-1, -2)) / np.sqrt(
            (wanted**2).sum((-1, -2)) * (points**2).sum((-1, -2))
        )
        assert cosine.min() > 0.98  # but for perspective
        np.testing.assert_array_equal(confidence, 1.0)
        np.testing.assert_allclose(ray, in_view(axis), atol=1e-4)
        np.testing.assert_allclose(
            4 * place, in_view(centre[:, :, other] - centre[:, :, told]), atol=1e-4
        )
        np.testing.assert_array_equal(size, sight.where[:, :, other])


def test_a_view_knows_what_it_and_those_that_it_is_told_of_triangulate():
    clip = scenes.batch()
    observations = clip.observations
    # The first view is told of the second alone, whose second joint is off.
    others = np.zeros((8, 4, 4), np.float32)
    others[:, 0, 1] = others[:, 2, [0, 3]] = 1.0
    moved = observations.keypoints.at[:, :, 1, 1].add(jnp.array([0.0, 200.0]))

    @jax.jit
    def found(observations):
        points = normalised_points(observations)
        sight = rays.look(points, observations.confidence, 0, centred=True)
        told = _triangulated(
            sight, points, observations.confidence, observations.cameras, jnp.asarray(others), 0
        )
        in_view = jax.jit(cam.batched(cam.to_camera))(
            observations.cameras, jnp.repeat(clip.labels.joints[:, :, None], 4, axis=2)
        )
        return *told, jnp.einsum("btvij,btvkj->btvki", sight.turn, in_view)

    pose, away, joints = map(np.asarray, found(dataclasses.replace(observations, keypoints=moved)))
    points, valid, depth = np.split(pose, [51, 68], axis=-1)
    relative = 2 * (joints - joints[..., :1, :])
    for view in (0, 2):
        fits = np.arange(17) != 1 if view == 0 else np.arange(17) >= 0
        np.testing.assert_allclose(
            points[:, :, view].reshape(8, 1, 17, 3)[:, :, fits],
            relative[:, :, view, fits],
            atol=1e-3,
        )
        np.testing.assert_array_equal(valid[:, :, view], 1.0)
        np.testing.assert_allclose(4 * depth[:, :, view, 0], joints[:, :, view, 0, 2], atol=1e-3)
    assert np.abs(points[:, :, [1, 3]]).max() == np.abs(valid[:, :, [1, 3]]).max() == 0.0
    assert away[:, :, 0, 1, 1].min() > 0.9
    assert away[:, :, 2, :, 2:].max() < 1e-3


def test_a_single_view_is_lifted_too(fitted):
    method, variables, observations = fitted
    one = jax.jit(method.predict)(variables, views(observations, np.array([2]))).joints
    blank = np.array([0, 1, 3])
    alone = dataclasses.replace(
        observations, confidence=observations.confidence.at[:, :, blank].set(0.0)
    )
    among = jax.jit(method.predict)(variables, alone).joints[:, :, 2:3]
    np.testing.assert_allclose(one, among, atol=1e-5)


def test_in_training_it_is_told_of_some_of_the_others(fitted):
    method, variables, observations = fitted
    lift = jax.jit(
        lambda key, mode: method.lift(variables, observations, key, mode)[0], static_argnums=1
    )
    some = [np.asarray(lift(jax.random.key(seed), Mode(training=True))) for seed in range(8)]
    every = np.asarray(jax.jit(method.predict)(variables, observations).joints)
    # An adaptation is in training's terms, but sees what it is to predict.
    np.testing.assert_allclose(lift(jax.random.key(0), EVALUATION), every, atol=1e-5)
    differ = [np.abs(x - every).max(axis=(1, 3, 4)) > 1e-4 for x in some]  # [B, V]
    assert np.any(differ)
    assert not np.array_equal(some[0], some[1])
    known = np.asarray(_random(jax.random.key(0), 2000, 4))
    shares = known.mean(axis=-1)
    assert 0.45 < shares.mean() < 0.55
    assert min(np.mean(shares == 0), np.mean(shares == 1)) > 0.1


def test_it_needs_to_be_centred_and_has_streams_frame_by_frame_only(fitted):
    with pytest.raises(MethodError, match="centred=True"):
        made(centred=False)
    with pytest.raises(MethodError, match="network=lifter only"):
        made(network="convolution", causal=True).start_stream({}, 4)
    method, variables, observations = fitted
    state = method.start_stream(variables, 4)
    _, joints = jax.jit(method.next_pose)(
        variables, state, jax.tree.map(lambda x: x[0, 0], observations)
    )
    whole = jax.jit(method.predict)(variables, observations).joints
    np.testing.assert_allclose(joints, whole[0, 0], atol=1e-5)


def test_a_mirrored_scene_gives_the_mirrored_pose_s_inputs(fitted):
    """The cameras of the mirror image see the mirrored points where they are."""
    method, variables, observations = fitted
    mirror = jax.jit(lambda o: inference._mirrored(o, INFO))
    twice = mirror(mirror(observations))
    predict = jax.jit(method.predict)
    np.testing.assert_allclose(
        predict(variables, twice).joints, predict(variables, observations).joints, atol=1e-4
    )
    once = mirror(observations)
    joints = np.asarray(scenes.batch().labels.joints)
    mirrored = joints[..., np.array(scenes.H36M.mirrored), :] * [-1, 1, 1]
    seen = jax.jit(cam.batched(cam.project))(
        once.cameras, jnp.repeat(jnp.asarray(mirrored, jnp.float32)[:, :, None], 4, axis=2)
    )
    np.testing.assert_allclose(seen, once.keypoints, atol=1e-4)


def test_any_network_can_be_told():
    method = made(network="convolution", blocks=1)
    clip = scenes.batch(frames=11)
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
    joints = jax.jit(method.predict)(variables, clip.observations).joints
    assert joints.shape[1] == 11 - sum(method.context)
    assert jnp.isfinite(joints).all()
