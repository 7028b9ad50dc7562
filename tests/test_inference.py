"""Whole clips from windows: every frame once, whatever the window, the rate, the side."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import writer
from pose3d_jax import inference, methods
from pose3d_jax.data import poses, windows
from pose3d_jax.inference import Settings
from pose3d_jax.methods.base import Info, MethodError, context_of
from pose3d_jax.schema import Pictures
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of 30, 7 and 1 frames; in the first, a view loses a person for a while."""
    folder = tmp_path_factory.mktemp("inference") / "set"
    records = [scenes.record(c, frames=n, seed=n) for c, n in (("a", 30), ("b", 7), ("c", 1))]
    observations = records[0].clip.observations
    confidence, keypoints = observations.confidence.copy(), observations.keypoints.copy()
    confidence[10:14, 1] = 0
    keypoints[10:14, 1] = 0
    clip = dataclasses.replace(
        records[0].clip,
        observations=dataclasses.replace(observations, confidence=confidence, keypoints=keypoints),
    )
    records[0] = records[0]._replace(clip=clip)
    writer.write(folder, "scene", {"train": records}, description="")
    return poses.load([folder], "train")


def made(data, network, **settings):
    """A method of that network with parameters that are not those of the start."""
    given = {"name": "supervised", "network": network, "width": 16, "centred": True, **settings}
    method = methods.create(given, INFO)
    example = windows.cut(data, 3, context=context_of(method)).poses.take(jnp.zeros(2, jnp.int32))
    variables = jax.jit(method.init)(jax.random.key(0), {"main": example})
    return method, moved(variables["params"]), {k: v for k, v in variables.items() if k != "params"}


@jax.jit
def moved(params):
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params)


def predicted(method, params, rest, data, **settings):
    variables = {"params": params, **rest}
    found = inference.predict_split(method, INFO, variables, data, Settings(**settings))
    assert found.space == "absolute"
    assert np.isfinite(found.joints).all()
    return found.joints


def test_a_method_of_single_frames_gives_what_it_gives(data):
    method, params, rest = made(data, "lifter")
    found = predicted(method, params, rest, data, batch_size=4)
    observations = data.poses.take(jnp.arange(data.poses.size)).observations
    direct = jax.jit(method.predict)({"params": params, **rest}, observations).joints[:, 0]
    np.testing.assert_allclose(found, direct, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_a_whole_clip_s_frames_are_those_of_their_own_windows(data, causal):
    """All frames at once by dilation, each one by itself by strides."""
    method, params, rest = made(data, "convolution", blocks=1, causal=causal)
    assert context_of(method) == ((8, 0) if causal else (4, 4))
    found = predicted(method, params, rest, data)
    single = windows.cut(data, 1, context=context_of(method)).poses
    observations = single.take(jnp.arange(single.size)).observations
    direct = jax.jit(method.predict)({"params": params, **rest}, observations).joints[:, 0]
    np.testing.assert_allclose(found, direct, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ("lifter", {}),
        ("convolution", {"blocks": 1, "causal": True}),
    ],
)
def test_a_stream_gives_what_the_whole_clip_gives(data, network, settings):
    """Frame by frame, with nothing but the state carried over; to 1e-5."""
    method, params, rest = made(data, network, **settings)
    whole = predicted(method, params, rest, data)
    frames = windows.clips(data.poses)[0]
    variables = {"params": params, **rest}
    clip = data.poses.take(jnp.arange(len(frames))).observations
    state = method.start_stream(variables, 3)
    step = jax.jit(method.next_pose)
    for t in range(len(frames)):
        state, joints = step(variables, state, jax.tree.map(lambda x, t=t: x[t, 0], clip))
        np.testing.assert_allclose(joints, whole[t], atol=1e-5)


@pytest.mark.parametrize(
    ("network", "settings"), [("convolution", {"blocks": 1}), ("attention", {})]
)
def test_a_network_that_looks_ahead_has_no_stream(data, network, settings):
    method, params, rest = made(data, network, **settings)
    with pytest.raises(MethodError, match="causal=True"):
        method.start_stream({"params": params, **rest}, 3)


@pytest.mark.parametrize(
    "network", [pytest.param("transformer", marks=pytest.mark.slow), "attention"]
)
def test_overlapping_windows_are_averaged(data, network):
    """The mean of what the windows give that see a frame, the middle of each weighing most."""
    method, params, rest = made(data, network)
    window = 8
    found = predicted(method, params, rest, data, window=window, overlap=0.5)
    cut = dataclasses.replace(
        windows.cut(data, window, 4).poses,
        **{k: jnp.array(v, jnp.int32) for k, v in {
            "start": [0, 4, 8, 12, 16, 20, 22], "begin": [0] * 7, "stop": [30] * 7,
            "recording": [0] * 7,
        }.items()},
    )  # fmt: skip
    observations = cut.take(jnp.arange(7)).observations
    direct = np.asarray(
        jax.jit(method.predict)({"params": params, **rest}, observations).joints, np.float64
    )
    weight = np.array([1, 2, 3, 4, 4, 3, 2, 1], float)
    total, sums = np.zeros((30, 3, 17, 3)), np.zeros((30, 1, 1, 1))
    for start, joints in zip([0, 4, 8, 12, 16, 20, 22], direct, strict=True):
        total[start : start + 8] += weight[:, None, None, None] * joints
        sums[start : start + 8, 0, 0, 0] += weight
    np.testing.assert_allclose(found[:30], total / sums, atol=1e-4)


def test_mirror_images_of_who_looks_at_no_pictures_are_of_points(data):
    """In a set that has pictures, too."""
    method, params, rest = made(data, "convolution", blocks=1)
    seen = data.poses.observations
    square = jnp.full((*seen.confidence.shape[:2], 3), 100.0)
    places = dataclasses.replace(seen, pictures=Pictures(square, None))
    pictured = dataclasses.replace(
        data,
        poses=dataclasses.replace(data.poses, observations=places),
        pictures=np.full(square.shape[:2], b"", object),
    )
    found = predicted(method, params, rest, pictured, flip=True)
    np.testing.assert_array_equal(found, predicted(method, params, rest, data, flip=True))


def test_the_mean_with_the_mirror_image_knows_no_side(data):
    """What is lifted from mirrored points is the mirror image of what is lifted from the points."""
    method, params, rest = made(data, "convolution", blocks=1)
    plain = predicted(method, params, rest, data, flip=True)
    mirror = jax.jit(lambda o: inference._mirrored(o, INFO))
    observations = mirror(data.poses.take(jnp.arange(data.poses.size)).observations)
    mirrored = dataclasses.replace(
        data,
        poses=dataclasses.replace(
            data.poses, observations=jax.tree.map(lambda x: x[:, 0], observations)
        ),
    )
    found = predicted(method, params, rest, mirrored, flip=True)
    back = found[..., np.array(scenes.H36M.mirrored), :] * [-1, 1, 1]
    np.testing.assert_allclose(back, plain, atol=1e-3)
    assert np.abs(plain - predicted(method, params, rest, data)).max() > 1e-3


def test_a_clip_of_another_rate_is_lifted_at_the_method_s(data):
    """Twice as many frames: every second one is what it was, the others lie between."""
    method, params, rest = made(data, "convolution", blocks=1)
    own = predicted(method, params, rest, data)
    clips = windows.clips(data.poses)
    places = np.concatenate(
        [np.minimum(np.arange(2 * len(c) - 1) / 2, len(c) - 1) + c.start for c in clips]
    )
    doubled = faster(data)
    assert doubled.poses.size == len(places)
    found = predicted(method, params, rest, doubled, fps=30.0)
    below, above = np.floor(places).astype(int), np.ceil(places).astype(int)
    np.testing.assert_allclose(found, (own[below] + own[above]) / 2, atol=1e-3)


def faster(data):
    """The same clips at twice the rate; points between frames lie between theirs."""
    halved = tuple(dataclasses.replace(i, fps=15.0) for i in data.identities)
    doubled = windows.at_rate(dataclasses.replace(data, identities=halved), 30.0)
    renamed = tuple(dataclasses.replace(i, fps=60.0) for i in doubled.identities)
    return dataclasses.replace(doubled, identities=renamed)


def test_some_clips_alone(data):
    method, params, rest = made(data, "lifter")
    variables = {"params": params, **rest}
    found = inference.predict_split(method, INFO, variables, data, Settings(), [1])
    whole = predicted(method, params, rest, data)
    np.testing.assert_allclose(found.joints[30:37], whole[30:37], atol=1e-6)
    assert not found.joints[:30].any()
    assert not found.joints[37:].any()
