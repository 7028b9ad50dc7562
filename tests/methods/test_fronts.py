"""HMMR from features of images: in which axes it speaks, what it looks at, what it refuses."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from configs import body_cmu
from pose3d_jax import cameras as cam
from pose3d_jax import evaluate, skeleton, train
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses, windows
from pose3d_jax.methods.base import Info, MethodError, Mode, covers
from pose3d_jax.methods.bodies import Said, target_of
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.methods.fronts import ImageFront
from pose3d_jax.models.crop import around
from pose3d_jax.schema import Images, Observations
from tests import bodies, scenes

BODY25 = skeleton.get("body25")
INFO = Info(BODY25, BODY25)
FEATURES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bodies.prepared(tmp_path_factory.mktemp("pictured"), features=FEATURES)


@pytest.fixture(scope="module")
def clip(folder):
    data = windows.cut(poses.load([folder / "data"], "train"), 8, 8, (6, 6))
    return data.poses.take(jnp.array([1, 2]))


def method(folder, **settings):
    small = {"width": 32, "hidden": 16, "critic_width": 16, "step": 6, "jitter": 0.0}
    body = str(folder / "person.npz")
    return HMMR(INFO, body=body, **{**small, "front": "features", **settings})


def seeing(clip, **images):
    """The clip with other images, or none."""
    observations = clip.observations
    made = observations.images.replace(**images) if images else None
    return clip.replace(observations=observations.replace(images=made))


def test_a_crop_is_turned_to_the_middle_of_its_square_and_half_a_side_large():
    """Against OpenCV's undistortion, and a small square's sides after the turn."""
    camera = jax.tree.map(lambda x: np.asarray(x)[None, None], scenes.ring(1))
    square = np.array([720.0, 400.0, 40.0], np.float32).reshape(1, 1, 1, 3)
    points = np.zeros((1, 1, 1, 1, 2), np.float32)
    seen = Observations(points, points[..., 0], camera, Images(np.ones((1, 1, 1, 4)), square))
    found = jax.jit(lambda o: ImageFront().crop(o, 2.0, None))(seen)
    own = jax.tree.map(lambda x: np.asarray(x, float).reshape(x.shape[3:]), camera)
    matrix = np.array(
        [[own.focal[0], 0, own.center[0]], [0, own.focal[1], own.center[1]], [0, 0, 1]]
    )
    k1, k2, _, _, k3 = own.distortion
    # With a factor of 1 the tangential terms are not OpenCV's, but as good as 0 here.
    lens = np.array([k1, k2, 0, 0, k3])
    middle = np.array([720.0, 400.0])
    where = middle + np.array([[0, 0], [-20, 0], [20, 0], [0, -20], [0, 20]])
    flat = cv2.undistortPoints(where[:, None], matrix, lens)[:, 0]
    rays = np.concatenate([flat, np.ones((5, 1))], axis=1) @ np.asarray(found.turn)[0, 0, 0].T
    placed = rays[:, :2] / rays[:, 2:]
    assert_allclose(placed[0], 0, atol=1e-3)
    halves = np.linalg.norm(placed[1:] - placed[0], axis=1)
    assert found.spread[0, 0, 0, 0] == pytest.approx(np.sqrt((halves**2).mean()), rel=5e-3)
    # On the axis of a camera without a lens it is a division.
    turn = around(jnp.zeros((1, 2)), 0.1 * jnp.array([[[1.0, 1], [1, -1], [-1, 1], [-1, -1]]]),
                  jnp.ones(1))  # fmt: skip
    assert_allclose(turn.spread, [[0.1]], rtol=1e-6)
    assert_allclose(turn.turn[0], np.eye(3), atol=1e-7)


def test_the_network_sees_the_points_of_its_crop_where_the_image_has_them(folder, clip):
    """The crop's axes are those of the picture: a point's place in the square, in half sides."""
    tested = method(folder)
    area = jax.jit(tested.crop)(clip.observations)
    target = target_of(clip, area, BODY25.root)
    square = np.asarray(clip.observations.images.square)[:, 6:14]
    pixels = np.asarray(clip.observations.keypoints)[:, 6:14]
    placed = (pixels - square[..., None, :2]) / (square[..., None, 2:] / 2)
    found = np.asarray(target.points).reshape(2, 2, 20, 25, 2)[:, :, 6:14]
    # What a turned camera sees is a perspective of the picture: equal to a few hundredths.
    assert_allclose(np.moveaxis(found, 1, 2), placed, rtol=0.03, atol=0.03)


def test_what_is_said_is_placed_where_the_image_was(folder, clip):
    """A flat body: weak perspective is exact, and joints lie on the rays of their points."""
    tested = method(folder)
    area = tested.crop(clip.observations)
    target = target_of(clip, area, BODY25.root).at(6, 8)
    flat = jnp.concatenate([target.points, jnp.zeros_like(target.points[..., :1])], axis=-1) / 0.8
    root = flat[..., BODY25.root, None, :]
    camera = jnp.concatenate([jnp.full_like(root[..., 0, :1], 0.8), 0.8 * root[..., 0, :2]], -1)
    placed = tested.placed(Said(camera, target.rotations, target.shape, flat - root), area)
    seen = jax.tree.map(lambda x: x[:, 6:14], clip.observations)
    world = jax.jit(cam.batched(cam.to_world))(seen.cameras, placed)
    found = jax.jit(cam.batched(cam.project))(seen.cameras, world)
    assert_allclose(found, seen.keypoints, atol=0.05)


def test_it_looks_at_images_alone(folder, clip):
    """Neither keypoints nor their absence matter, and a frame without an image is none."""
    tested = method(folder)
    variables = jax.jit(tested.init)(jax.random.key(0), {"main": clip})
    variables = jax.tree.map(lambda x: x + 0.02, variables)
    predict = jax.jit(lambda o: tested.predict(variables, o).joints)
    observations = clip.observations
    found = predict(observations)
    blind = observations.replace(
        keypoints=observations.keypoints + 50.0,
        confidence=jnp.zeros_like(observations.confidence),
    )
    assert_allclose(predict(blind), found, rtol=1e-5, atol=1e-6)
    images = observations.images
    other = images.replace(features=images.features.at[:, 10, 1].add(1.0))
    moved = np.abs(predict(observations.replace(images=other)) - found).max(axis=(0, 1, 3, 4))
    assert moved[0] == 0
    assert moved[1] > 1e-4
    # Without an image: what its features are does not reach the frames around.
    gone, none = (
        i.replace(square=i.square.at[:, 10].set(0.0)) for i in (images, other)
    )  # fmt: skip
    apart = np.abs(predict(observations.replace(images=gone))
                   - predict(observations.replace(images=none)))  # fmt: skip
    assert np.flatnonzero(apart.max(axis=(0, 2, 3, 4)) > 1e-6).tolist() == [4]
    assert np.isfinite(predict(observations.replace(images=gone))).all()


def test_as_many_features_as_the_networks_are_wide_are_taken_as_they_are(folder, clip):
    wide = seeing(clip, features=jnp.tile(clip.observations.images.features, 5)[..., :32])
    for given, projected in ((wide, False), (clip, True)):
        tested = method(folder)
        variables = jax.jit(tested.init)(jax.random.key(0), {"main": given})
        assert ("projection" in variables["params"]["dynamics"]) == projected
        assert set(variables["params"]) == {"dynamics", "critic"}
        for path in (path for group in tested.groups for path in group.paths):
            assert any(covers(path, name) for name in variables["params"])
        found = tested.features(variables, given.observations, tested.crop(given.observations))
        rows = np.moveaxis(np.asarray(given.observations.images.features), 2, 1).reshape(4, 20, -1)
        if projected:
            layer = variables["params"]["dynamics"]["projection"]
            rows = rows @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        assert_allclose(found, rows, rtol=1e-5, atol=1e-5)
    with pytest.raises(MethodError, match="learnt from 7 features of a frame, and is given 32"):
        tested.predict(variables, wide.observations)


def test_the_dense_layer_is_trained_with_the_body_and_not_by_the_hallucinator(folder, clip):
    tested = method(folder)
    variables = jax.jit(tested.init)(jax.random.key(0), {"main": clip})

    def total(variables, name):
        group = dataclasses.replace(tested.groups[1], terms=(name,))
        found, _ = tested.terms(
            variables, {"main": clip}, jax.random.key(1), jnp.zeros((), jnp.int32),
            group=group, mode=Mode(training=True),
        )  # fmt: skip
        return found[name][0]

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    learns = [
        float(abs(gradient(variables, name)["params"]["dynamics"]["projection"]["kernel"]).max())
        for name in ("keypoints", "hallucinate")
    ]
    assert learns[0] > 0
    assert learns[1] == 0


def tiny(folder, argument="tiny,front=features"):
    config = body_cmu.get_config(argument)
    config.data.path = str(folder / "data")
    config.method.body = str(folder / "person.npz")
    config.evaluation.test = ("validation",)
    return config


@pytest.mark.slow  # meshes' run, of the same config, stands for it
def test_the_config_trains_and_predicts_from_features(folder, tmp_path):
    metrics = train.run(tiny(folder), tmp_path / "run")
    row = metrics["splits"]["validation"]["rows"]["dynamics"]
    assert 0 < row["p1"]["frames"] < 2.0
    config = tiny(folder)
    config.evaluation.flip = True
    with pytest.raises(ConfigError, match=r"evaluation\.flip: .* none of mirror images"):
        evaluate.run(tmp_path / "run", config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.method.update(jitter=0.1), "jitter is 0.1, but features of images"),
        (lambda c: c.method.update(front="pixels"), "there are keypoints, features"),
        (lambda c: c.evaluation.update(flip=True), "flip: the method looks at features of images"),
        (lambda c: c.phases[0]["augmentation"].update(turn=9.0), "augmentation: changes keypoints"),
        (
            lambda c: c.phases[0]["disturbance"].update(missing=0.1),
            "disturbance: changes keypoints",
        ),
    ],
)
def test_what_features_cannot_follow_is_refused(folder, tmp_path, change, message):
    config = tiny(folder)
    change(config)
    with pytest.raises((MethodError, ConfigError), match=message):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_features_or_with_others_is_refused(folder, tmp_path):
    config = tiny(folder)
    config.data.path = str(bodies.prepared(tmp_path / "bare") / "data")
    with pytest.raises(MethodError, match=r"stream main has none; add .*data_prep\.features"):
        train.run(config, tmp_path / "run")
    config = tiny(folder)
    config.streams.pseudo["path"] = str(bodies.prepared(tmp_path / "other", features=9) / "data")
    with pytest.raises(MethodError, match=r"7 in the stream main, .*9 in the stream pseudo"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
