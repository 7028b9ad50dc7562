"""A clip made consistent: against the truth, labels that are not looked at, and what cannot be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from data_prep import synthetic, writer
from pose3d_jax import cameras as cam
from pose3d_jax import fitting
from pose3d_jax.data import poses
from pose3d_jax.fitting import FitError, Settings
from pose3d_jax.schema import Prediction

FRAMES = 100


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips of people who move, and one frame of one; seen by two cameras."""
    folder = tmp_path_factory.mktemp("fitting") / "set"
    records = list(synthetic.records(0, 1.0)["train"])[:3]
    cut = [
        record._replace(
            clip=dataclasses.replace(
                record.clip,
                **{
                    part: jax.tree.map(lambda x, n=n: np.asarray(x)[:n], getattr(record.clip, part))
                    for part in ("observations", "labels")
                },
            )
        )
        for record, n in zip(records, (FRAMES, FRAMES, 1), strict=True)
    ]
    writer.write(folder, "synthetic", {"train": cut}, description="")
    return poses.load([folder], "train", views=[0, 1])


def truth(data):
    """Camera-frame joints `[frames, V, J, 3]`."""
    cameras = data.poses.observations.cameras
    views = cameras.focal.shape[1]
    world = jnp.repeat(data.poses.labels.joints[:, None], views, axis=1)
    return np.asarray(jax.jit(cam.batched(cam.to_camera))(cameras, world))


def lifted(data, seed=0, alike=10, deep=0.06):
    """The truth as a lifter might see it: off along the rays, the more the farther from the root,
    and much the same for some frames."""
    joints, rng = truth(data), np.random.default_rng(seed)
    frames = len(joints)
    knots = rng.standard_normal((frames // alike + 2, *joints.shape[1:3]))
    place = np.arange(frames) / alike
    at, share = place.astype(int), (place % 1)[:, None, None]
    off = deep * ((1 - share) * knots[at] + share * knots[at + 1])
    off[:, :, 0] *= 0.5
    return Prediction((joints * (1 + off / joints[..., 2])[..., None]).astype(np.float32))


def error(data, joints):
    """Root-relative, metres, of each frame, view and joint."""
    true = truth(data)
    return np.linalg.norm((joints - joints[:, :, :1]) - (true - true[:, :, :1]), axis=-1)


def test_the_body_is_that_of_the_poses(data):
    predicted = lifted(data)
    body = fitting.measure(data, predicted)
    bones = {tuple(sorted(bone)) for bone in data.joint_skeleton.bones}
    assert bones <= set(body.pairs)
    labels = np.asarray(data.poses.labels.joints)
    for (a, b), spread in zip(body.pairs, body.spread, strict=True):
        apart = np.linalg.norm(labels[:, a] - labels[:, b], axis=-1)
        within = np.sqrt(np.mean([apart[:FRAMES].var(), apart[FRAMES : 2 * FRAMES].var()]))
        assert within < 0.005 or (a, b) in bones
        assert_allclose(spread, np.clip(within, 0.003, 0.03), rtol=1e-3)
    world = jnp.asarray(predicted.joints)
    back = jax.jit(cam.batched(cam.to_world))(data.poses.observations.cameras, world)
    off = np.asarray(back) - labels[:, None]
    about = np.abs(off - off[:, :, :1]).mean(axis=(0, 1, 3))
    assert_allclose(body.error[1:], np.maximum(about[1:], 0.005), rtol=1e-4)
    assert_allclose(body.error[0], np.abs(off[:, :, 0]).mean(), rtol=1e-4)


def test_what_no_view_sees_does_not_count(data):
    """Nor do joints without 3D, whatever they hold."""
    predicted = lifted(data)
    seen = np.asarray(data.poses.observations.confidence).copy()
    seen[::2, 1] = 0
    valid = np.asarray(data.poses.labels.joints_valid).copy()
    valid[:50, 3] = 0
    expected, joints = [], predicted.joints.copy()
    for junk in (0.0, 7.0):
        joints[::2, 1] += junk
        labels = np.asarray(data.poses.labels.joints).copy()
        labels[:50, 3] += junk
        changed = dataclasses.replace(
            data.poses,
            observations=dataclasses.replace(data.poses.observations, confidence=jnp.asarray(seen)),
            labels=dataclasses.replace(
                data.poses.labels, joints=jnp.asarray(labels), joints_valid=jnp.asarray(valid)
            ),
        )
        known = dataclasses.replace(data, poses=changed)
        expected.append(fitting.measure(known, Prediction(joints)))
    assert expected[0].pairs == expected[1].pairs
    assert_allclose(expected[0].error, expected[1].error, rtol=1e-5)
    assert_allclose(expected[0].spread, expected[1].spread, rtol=1e-5)
    blank = dataclasses.replace(
        data.poses,
        labels=dataclasses.replace(
            data.poses.labels, joints_valid=jnp.zeros_like(data.poses.labels.joints_valid)
        ),
    )
    with pytest.raises(FitError, match="no 3D poses"):
        fitting.measure(dataclasses.replace(data, poses=blank), predicted)


@pytest.fixture(scope="module")
def fitted(data):
    predicted = lifted(data)
    body = fitting.measure(data, predicted)
    return predicted, body, fitting.fit_split(data, predicted, body, Settings(exact=True))


def test_one_body_and_exact_points_leave_little_open(data, fitted):
    predicted, _, found = fitted
    before, after = error(data, predicted.joints), error(data, found.joints)
    assert after.mean() < 0.5 * before.mean()
    # Joints lie on the rays of their points.
    points = np.asarray(found.joints)[..., :2] / np.asarray(found.joints)[..., 2:]
    true = truth(data)[..., :2] / truth(data)[..., 2:]
    assert_allclose(points, true, atol=1e-5)


def test_neither_labels_nor_other_views_are_looked_at(data, fitted):
    predicted, body, found = fitted
    observations, labels = data.poses.observations, data.poses.labels
    changed = dataclasses.replace(
        data.poses,
        labels=dataclasses.replace(labels, joints=labels.joints + 5.0),
        observations=dataclasses.replace(
            observations, keypoints=observations.keypoints.at[:, 1].add(40.0)
        ),
    )
    other = dataclasses.replace(data, poses=changed)
    again = fitting.fit_split(other, predicted, body, Settings(exact=True)).joints
    assert_allclose(again[:, 0], found.joints[:, 0], atol=1e-5)
    assert not np.allclose(again[:, 1], found.joints[:, 1], atol=1e-3)


def test_gaps_and_outliers_are_bridged(data, fitted):
    """Where a limb is not seen, or in a wrong place, its neighbours in time and body say more."""
    _, body, _ = fitted
    rng = np.random.default_rng(1)
    observations = jax.tree.map(np.array, data.poses.observations)
    seen = observations.confidence
    seen[30:40, 0, 3] = 0.0
    keypoints = observations.keypoints + rng.normal(0, 1.0, observations.keypoints.shape)
    keypoints[60:64, 0, 13] += 60.0
    predicted = lifted(data)
    joints = predicted.joints.copy()
    joints[30:40, 0, 3] += rng.normal(0, 0.2, (10, 3)).astype(np.float32)
    joints[60:64, 0, 13] += rng.normal(0, 0.2, (4, 3)).astype(np.float32)
    observations = dataclasses.replace(
        observations, keypoints=(keypoints * (seen > 0)[..., None]).astype(np.float32)
    )
    other = dataclasses.replace(
        data, poses=dataclasses.replace(data.poses, observations=jax.device_put(observations))
    )
    given = Prediction(joints)
    found = fitting.fit_split(other, given, body, Settings(sigma_px=1.0)).joints
    before, after = error(data, joints), error(data, found)
    assert after[30:40, 0, 3].mean() < 0.5 * before[30:40, 0, 3].mean()
    assert after[60:64, 0, 13].mean() < 0.5 * before[60:64, 0, 13].mean()
    assert after.mean() < 0.8 * before.mean()
    assert np.isfinite(found).all()


def test_a_view_that_never_sees_anything_stays_as_it_was_lifted(data, fitted):
    predicted, body, _ = fitted
    observations = data.poses.observations
    blind = dataclasses.replace(
        observations,
        confidence=observations.confidence.at[:, 1].set(0.0),
        keypoints=observations.keypoints.at[:, 1].set(0.0),
    )
    other = dataclasses.replace(data, poses=dataclasses.replace(data.poses, observations=blind))
    found = fitting.fit_split(other, predicted, body, Settings(exact=True)).joints
    assert_allclose(found[:, 1], predicted.joints[:, 1], atol=1e-6)
    assert_allclose(found[:, 0], fitted[2].joints[:, 0], atol=1e-5)


def test_what_cannot_be_fitted_is_said(data, fitted):
    predicted, body, _ = fitted
    with pytest.raises(FitError, match="absolute"):
        fitting.fit_split(data, predicted.replace(space="root_relative"), body, Settings())
    other = dataclasses.replace(data.keypoint_skeleton, name="others")
    with pytest.raises(FitError, match=r"keypoints others; switch evaluation\.fit off"):
        fitting.check(dataclasses.replace(data, keypoint_skeleton=other))


@pytest.mark.slow
def test_what_was_fitted_is_lifted_again(data, fitted):
    """From the points of the fitted joints, where anything was seen."""
    predicted, body, once = fitted
    shown = []

    def lift(known):
        shown.append(known)
        return Prediction(truth(data))

    twice = fitting.fit_in_rounds(data, predicted, body, Settings(exact=True, rounds=2), lift)
    assert error(data, twice.joints).mean() < 0.7 * error(data, once.joints).mean()
    (known,) = shown
    assert np.all(np.asarray(known.poses.observations.confidence) == 1)
    cameras = data.poses.observations.cameras
    world = jax.jit(cam.batched(cam.to_world))(cameras, jnp.asarray(once.joints))
    points = jax.jit(cam.batched(cam.project))(cameras, world)
    assert_allclose(known.poses.observations.keypoints, points, atol=1e-2)
