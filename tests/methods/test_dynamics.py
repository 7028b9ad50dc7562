"""HMMR: what it compares with what, where its crop looks, what it refuses, and a run of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from data_prep import writer
from pose3d_jax import cameras as cam
from pose3d_jax import methods, skeleton
from pose3d_jax.augment import Augmentation, augment
from pose3d_jax.data import poses, windows
from pose3d_jax.errors import UserError
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.methods.base import Info, MethodError, Mode
from pose3d_jax.methods.bodies import Said, compared_around, jolted, target_of, tiers
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.models.crop import follow
from pose3d_jax.schema import Clip
from tests import bodies, scenes

BODY25 = skeleton.get("body25")
INFO = Info(BODY25, BODY25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bodies.prepared(tmp_path_factory.mktemp("body"))


@pytest.fixture(scope="module")
def clip(folder):
    data = windows.cut(poses.load([folder / "data"], "train"), 8, 8, (6, 6))
    return data.poses.take(jnp.array([1, 2]))


def method(folder, **settings):
    small = {"width": 32, "hidden": 16, "critic_width": 16, "step": 6, **settings}
    return HMMR(INFO, body=str(folder / "person.npz"), **small)


def truth(tested, clip):
    """What would be said if everything was known; the crop."""
    area = tested.crop(clip.observations)
    target = target_of(clip, area, BODY25.root)
    joints = tested.figure.pose(target.rotations, target.shape)
    joints = joints - joints[..., BODY25.root : BODY25.root + 1, :]
    camera = jnp.zeros((*target.shape.shape[:-1], 3))
    return Said(camera, target.rotations, target.shape, joints), target


def test_the_labels_body_is_the_labels_joints_seen_through_the_crop(folder, clip):
    said, target = jax.jit(lambda clip: truth(method(folder), clip))(clip)
    assert target.body_valid.min() == target.joints_valid.min() == 1
    assert_allclose(said.joints, target.joints, atol=1e-5)


def test_the_past_and_the_future_are_compared_with_their_own_frames(folder, clip):
    tested = method(folder)

    @jax.jit
    def compared(clip, shift):
        said, target = truth(tested, clip)
        both = (
            [jnp.roll(x, 6 + shift, axis=1)[:, 6:14] for x in jax.tree.leaves(said)],
            [jnp.roll(x, -6 - shift, axis=1)[:, 6:14] for x in jax.tree.leaves(said)],
        )
        stacked = [jnp.stack(pair) for pair in zip(*both, strict=True)]
        beside = jax.tree.unflatten(jax.tree.structure(said), stacked)
        return compared_around(beside, target, 6, 8, (-6, 6))

    exact, late = compared(clip, 0), compared(clip, 1)
    for name in ("joints_around", "parameters_around"):
        assert exact[name][0] / exact[name][1] < 1e-9
        assert late[name][0] / late[name][1] > 1e-6
    # Perspective is all that a weak-perspective camera leaves; 2 of 3 frames are seen by both.
    total, count = exact["keypoints_around"]
    assert total / count < 0.1
    assert count == 2 * 4 * 8 * 25


def test_accelerations_are_those_of_joints_that_are_off_by_a_parabola(folder, clip):
    """Whose second difference is constant; a missing joint spoils three frames."""

    def found(clip):
        said, target = truth(method(folder), clip)
        frames = said.joints.shape[1]
        off = 0.5 * jnp.arange(frames)[:, None, None] ** 2 * jnp.array([[[0.03, 0.0, 0.04]]])
        valid = target.joints_valid.at[:, 5, 3].set(0.0)
        moved = dataclasses.replace(said, joints=said.joints + off[None])
        return jolted(moved, target._replace(joints_valid=valid)), valid.shape

    (total, count), (rows, frames, joints) = jax.jit(found)(clip)
    assert count == rows * ((frames - 2) * joints - 3)
    assert_allclose(total / count, 0.05, rtol=1e-3)


def test_padding_and_blank_frames_count_for_nothing(folder):
    tested = method(folder)
    # Of the last window's frames 4 are the clip's; of the second view's 3 more are blank.
    clip = windows.cut(poses.load([folder / "data"], "train"), 8, 36, (6, 6)).poses.take(
        jnp.array([1])
    )
    seen = clip.observations.confidence.at[0, 6:9, 1].set(0.0)
    clip = dataclasses.replace(
        clip, observations=dataclasses.replace(clip.observations, confidence=seen)
    )
    variables = jax.jit(tested.init)(jax.random.key(0), {"main": clip})

    @jax.jit
    def counts(clip):
        found = {}
        for group in tested.groups:
            terms, _ = tested.terms(
                variables, {"main": clip}, jax.random.key(1), jnp.zeros((), jnp.int32),
                group=group, mode=Mode(),
            )  # fmt: skip
            found |= {name: count for name, (_, count) in terms.items()}
        return found

    found = counts(clip)
    for name, each in (
        ("shape", 1),
        ("constant", 1),
        ("hallucinate", 1),
        ("fool", 25),
        ("fake", 75),
    ):
        assert found[name] == (4 + 1) * each, name


def test_the_hallucinator_sees_one_frame(folder, clip):
    tested = method(folder)
    variables = jax.jit(tested.init)(jax.random.key(0), {"main": clip})
    variables = jax.tree.map(lambda x: x + 0.05, variables)

    @jax.jit
    def strips(observations):
        area = tested.crop(observations, alone=True)
        alone = tested.hallucinate(variables, observations, area)
        return alone, tested.strips(variables, observations, tested.crop(observations))

    changed = clip.observations.keypoints.at[:, 10].add(30.0)
    other = dataclasses.replace(clip.observations, keypoints=changed)
    (alone, within), (alone_, within_) = strips(clip.observations), strips(other)
    where = lambda a, b: np.flatnonzero(abs(a - b).max(axis=(0, 2)) > 1e-6).tolist()  # noqa: E731
    assert where(alone, alone_) == [4]
    assert where(within, within_) == list(range(8))


def test_a_crop_stays_on_a_person_who_goes_through_the_image(folder, clip):
    """In the middle, of unit spread, whatever the camera's direction; missing points count not."""
    rng = np.random.default_rng(1)
    points = jnp.asarray(0.1 * rng.normal(size=(1, 9, 1, 25, 2)), jnp.float32)
    seen = jnp.ones((1, 9, 1, 25))
    area = follow(points, seen, 2.0)
    placed = area.place(points)
    assert abs(placed.mean(axis=-2)).max() < 0.6
    assert 0.7 < jnp.sqrt((placed**2).sum(-1).mean()) < 1.3
    # One who stands still and is small: everything moves over the image, nothing in the crop.
    one = jnp.broadcast_to(points[:, :1], points.shape)
    here, there = follow(one, seen, 2.0), follow(one + 0.02, seen, 2.0)
    assert_allclose(here.place(one), there.place(one + 0.02), atol=0.05)
    # Far off the axis the plane is stretched; the turned camera sees the same person.
    ray = jnp.concatenate([0.1 * jnp.sin(points), jnp.ones_like(points[..., :1])], axis=-1)
    aside = jnp.einsum("ij,...nj->...ni", axis_angle_to_matrix(jnp.array([0.0, 0.4, 0.0])), ray)
    both = [follow(x[..., :2] / x[..., 2:], seen, 2.0) for x in (ray, aside)]
    assert_allclose(both[0].size, both[1].size, atol=0.02)
    hidden = one.at[:, 4].set(9.0)
    blank = follow(hidden, seen.at[:, 4].set(0.0), 2.0)
    assert_allclose(blank.turn, here.turn, atol=1e-6)
    nothing = follow(points, 0 * seen, 2.0)
    assert_allclose(nothing.turn[0, 0, 0], np.eye(3))
    assert np.isfinite(nothing.place(points)).all()


def test_jitter_is_one_for_all_frames_of_a_view_s_clip():
    points = jnp.broadcast_to(0.1 * jnp.ones((1, 1, 1, 5, 2)), (2, 6, 3, 5, 2))
    points = points * jnp.arange(1.0, 6).reshape(1, 1, 1, 5, 1)
    seen = jnp.ones(points.shape[:-1])
    plain = follow(points, seen, 2.0).place(points)
    moved = follow(points, seen, 2.0, 0.2, jax.random.key(0)).place(points)
    away = np.asarray(moved - plain)
    assert_allclose(away, np.broadcast_to(away[:, :1], away.shape), atol=1e-5)
    assert np.unique(np.round(away[:, 0, :, 0, 0], 4)).size == 6
    assert abs(away).max() < 1.0


def test_what_is_said_is_placed_where_the_crop_saw_it(folder, clip):
    """A flat body: weak perspective is exact, and joints lie on the rays of their points."""
    tested = method(folder)
    area = tested.crop(clip.observations)
    target = target_of(clip, area, BODY25.root).at(6, 8)
    flat = jnp.concatenate([target.points, jnp.zeros_like(target.points[..., :1])], axis=-1) / 2.0
    root = flat[..., BODY25.root, None, :]
    camera = jnp.concatenate([jnp.full_like(root[..., 0, :1], 2.0), 2.0 * root[..., 0, :2]], -1)
    said = Said(camera, target.rotations, target.shape, flat - root)
    placed = tested.placed(said, area)
    seen = target_of(clip, area, BODY25.root)  # and through the whole camera
    observations = jax.tree.map(lambda x: x[:, 6:14], clip.observations)
    world = jax.jit(cam.batched(cam.to_world))(observations.cameras, placed)
    found = jax.jit(cam.batched(cam.project))(observations.cameras, world)
    assert_allclose(found, observations.keypoints, atol=0.05)
    assert seen.points.shape[1] == 20


def test_streams_without_3d_teach_2d_alone(folder, clip):
    """Masks do it: of a set with one view and no bodies only the 2D terms know."""
    tested = method(folder)
    labels = clip.labels
    none = dataclasses.replace(
        labels,
        joints=jnp.full_like(labels.joints, 7.0),
        joints_valid=jnp.zeros_like(labels.joints_valid),
        body=None,
    )
    one_view = jax.tree.map(lambda x: x[:, :, :1], clip.observations)
    pseudo = dataclasses.replace(clip, observations=one_view, labels=none)
    variables = jax.jit(tested.init)(jax.random.key(0), {"main": clip})
    group = tested.groups[1]

    @jax.jit
    def terms(batch):
        return tested.terms(
            variables, batch, jax.random.key(1), jnp.zeros((), jnp.int32), group=group, mode=Mode()
        )[0]

    alone, both = terms({"main": clip}), terms({"main": clip, "pseudo": pseudo})
    assert set(alone) == set(group.terms)
    for name in group.terms:
        count = both[name][1] / alone[name][1]
        if name.startswith(("joints", "parameters", "acceleration")):
            assert_allclose(both[name], alone[name], rtol=1e-5, err_msg=name)
        else:
            assert_allclose(count, 1.5, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_single_frame_s_method_sees_one_frame(folder, clip):
    tested = method(folder, temporal=False)
    assert tested.context == (0, 0)
    variables = jax.jit(tested.init)(jax.random.key(0), {"main": clip})
    params = jax.tree.map(lambda x: x + 0.01, variables)
    observations = clip.observations
    predict = jax.jit(lambda o: tested.predict(params, o).joints)
    found = predict(observations)
    assert found.shape == (2, 20, 2, 25, 3)
    one = jax.tree.map(lambda x: x[:, 3:4], observations)
    assert_allclose(predict(one)[:, 0], found[:, 3], rtol=1e-4, atol=1e-4)
    group = dataclasses.replace(tested.groups[1], terms=("keypoints_around",))
    with pytest.raises(MethodError, match="without its setting temporal"):
        tested.terms(
            variables, {"main": clip}, jax.random.key(0), jnp.zeros((), jnp.int32),
            group=group, mode=Mode(),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"body": ""}, "set config.method.body"),
        ({"rotation": "euler"}, "there are vector, axes"),
        ({"width": 48}, "multiple of 32"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder, settings, message):
    config = {"name": "dynamics", "body": str(folder / "person.npz"), **settings}
    with pytest.raises(MethodError, match=message):
        methods.create(config, INFO)


def test_another_body_than_the_data_s_is_refused(folder, clip):
    tested = method(folder)
    body = clip.labels.body
    fewer = dataclasses.replace(body, shape=body.shape[..., :8])
    other = dataclasses.replace(clip, labels=dataclasses.replace(clip.labels, body=fewer))
    with pytest.raises(MethodError, match="have 24 parts and 8 shapes"):
        tiers({"main": other}, tested.figure.body, tested.body)


def test_a_set_without_bodies_and_an_augmentation_that_moves_are_refused(folder, clip):
    tested = method(folder)
    bare = dataclasses.replace(clip, labels=dataclasses.replace(clip.labels, body=None))
    variables = jax.eval_shape(tested.init, jax.random.key(0), {"main": clip})
    with pytest.raises(MethodError, match=r"data_prep\.body_cmu"):
        jax.eval_shape(
            lambda v: tested.terms(
                v, {"main": bare}, jax.random.key(0), jnp.zeros((), jnp.int32),
                group=tested.groups[1], mode=Mode(),
            )[0],
            variables,
        )  # fmt: skip
    with pytest.raises(UserError, match="would leave behind"):
        augment(Augmentation(turn=10.0, flip=True), BODY25, clip, jax.random.key(0))


def test_bodies_turn_with_their_joints_and_cameras_go_around_them(folder, clip):
    tested = method(folder)
    settings = Augmentation(turn=180.0, orbit=20.0, elevation=10.0, distance=0.2, tilt=5.0)

    @jax.jit
    def moved(clip, key):
        other = augment(settings, BODY25, clip, key)
        return other, truth(tested, other)

    other, (said, target) = moved(clip, jax.random.key(0))
    assert abs(other.labels.joints - clip.labels.joints).max() > 0.1
    assert_allclose(said.joints, target.joints, atol=1e-4)


def test_sets_with_and_without_bodies_are_not_joined(folder, tmp_path):
    record = scenes.record("clip", dataset="other", split="train")
    writer.write(tmp_path / "other", "other", {"train": [record]}, description="no bodies")
    with pytest.raises(poses.DataError, match=r"bodies of 24 parts, 10 components.*no bodies"):
        poses.load(
            [folder / "data", tmp_path / "other"], "train",
            keypoint_skeleton="coco17", joint_skeleton="coco17",
        )  # fmt: skip


def test_padding_has_no_body(folder):
    data = windows.cut(poses.load([folder / "data"], "train"), 8, 8, (6, 6))
    first = data.poses.take(jnp.array([0]))
    assert isinstance(first, Clip)
    assert_allclose(first.labels.body.valid[0], [0] * 6 + [1] * 14)
