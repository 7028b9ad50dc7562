"""Clips filmed anew: geometry by OpenCV, what must not change, and what nothing may reach."""

import dataclasses
import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep import writer
from pose3d_jax import cameras as cam
from pose3d_jax import references, skeleton
from pose3d_jax.augment import Augmentation, _composed, augment
from pose3d_jax.data import poses
from pose3d_jax.schema import Labels
from tests import scenes

EVERYTHING = Augmentation(
    turn=180.0, flip=True, orbit=20.0, elevation=10.0, distance=0.2, tilt=4.0,
    stature=0.1, bones=0.1, bend=10.0,
)  # fmt: skip
MIRRORED = np.array(scenes.H36M.mirrored)


@functools.partial(jax.jit, static_argnums=0)
def changed_by(settings, clip, key):
    return augment(settings, scenes.H36M, clip, key)


def run(settings, clip, key=0):
    return jax.tree.map(np.asarray, changed_by(settings, clip, jax.random.key(key)))


composed = jax.jit(_composed, static_argnums=0)
project, to_camera = (jax.jit(cam.batched(f)) for f in (cam.project, cam.to_camera))


def bone_lengths(joints):
    parents, children = np.array(scenes.H36M.bones).T
    return np.linalg.norm(joints[..., children, :] - joints[..., parents, :], axis=-1)


def filmed_by_opencv(camera, joints):
    """Pixels of joints `[J, 3]` by one camera; scenes have Human3.6M's lens, without a factor 2."""
    rotation, _ = cv2.Rodrigues(np.asarray(camera.rotation, float))
    fx, fy = np.asarray(camera.focal, float)
    cx, cy = np.asarray(camera.center, float)
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    lens = np.array(camera.distortion, float)
    lens[2:4] = 0  # the tangential terms differ
    return cv2.projectPoints(
        joints.astype(float), rotation, np.asarray(camera.translation, float), matrix, lens
    )[0][:, 0]


def without_tangential(clip):
    """The same people by lenses that OpenCV knows."""
    cameras = clip.observations.cameras
    lens = cameras.distortion.at[..., 2:4].set(0.0)
    cameras = dataclasses.replace(cameras, distortion=lens)
    world = jnp.repeat(clip.labels.joints[:, :, None], lens.shape[2], axis=2)
    points = project(cameras, world)
    observations = dataclasses.replace(clip.observations, cameras=cameras, keypoints=points)
    return dataclasses.replace(clip, observations=observations)


def test_points_are_where_opencv_films_the_new_people_by_the_new_cameras():
    changed = run(EVERYTHING, without_tangential(scenes.batch(4)))
    observations = changed.observations
    assert observations.confidence.all()
    for b, v in np.ndindex(4, 4):
        camera = jax.tree.map(lambda x, at=(b, 0, v): x[at], observations.cameras)
        expected = filmed_by_opencv(camera, changed.labels.joints[b, 0])
        np.testing.assert_allclose(observations.keypoints[b, 0, v], expected, atol=0.02)


def test_nothing_asked_for_is_nothing_changed():
    clip = scenes.batch(2)
    jax.tree.map(np.testing.assert_array_equal, run(Augmentation(), clip), clip)


@pytest.mark.parametrize(
    "settings",
    [Augmentation(turn=180.0), Augmentation(flip=True), Augmentation(orbit=20.0, distance=0.3)],
    ids=["turn", "flip", "cameras"],
)
def test_bodies_stay_what_they_are(settings):
    clip = scenes.batch(16, frames=3)
    before, after = (
        bone_lengths(clip.labels.joints),
        bone_lengths(run(settings, clip).labels.joints),
    )
    # A clip that was flipped has left and right bones exchanged.
    exchange = [scenes.H36M.bones.index((MIRRORED[p], MIRRORED[c])) for p, c in scenes.H36M.bones]
    same = np.abs(after - before).max((1, 2)) < 1e-5
    flipped = np.abs(after - before[..., exchange]).max((1, 2)) < 1e-5
    assert (same | flipped).all()
    assert flipped.any() == settings.flip
    assert same.any()


def test_a_turn_is_one_rotation_about_the_vertical_through_the_person():
    clip = scenes.batch(8, frames=3)
    after = run(Augmentation(turn=180.0), clip).labels.joints
    before = np.asarray(clip.labels.joints)
    np.testing.assert_allclose(after[..., 2], before[..., 2], atol=1e-6)
    centre = before[:, :, 0, :2].mean(axis=1)[:, None, None]
    a, b = ((x[..., :2] - centre) @ np.array([1, 1j]) for x in (before, after))
    turns = (b / a).reshape(8, -1)
    np.testing.assert_allclose(turns, turns[:, :1].repeat(turns.shape[1], 1), atol=1e-3)
    angles = np.angle(turns[:, 0])
    assert np.ptp(angles) > 2  # every clip its own


def test_other_bodies_are_symmetric_and_stand_as_high():
    settings = Augmentation(bones=0.2, stature=0.1)
    clip = scenes.batch(16)
    after = run(settings, clip).labels.joints
    factor = bone_lengths(after) / bone_lengths(clip.labels.joints)
    children = np.array([child for _, child in scenes.H36M.bones])
    index = {child: i for i, child in enumerate(children)}
    counterpart = [index[MIRRORED[child]] for child in children]
    np.testing.assert_allclose(factor, factor[..., counterpart], rtol=1e-4)
    assert np.abs(np.log(factor)).max() <= 0.3 + 1e-4
    assert np.log(factor).std(axis=-1).min() > 0.01  # bones differ
    np.testing.assert_allclose(
        after[..., 2].min((1, 2)), np.asarray(clip.labels.joints)[..., 2].min((1, 2)), atol=1e-5
    )


def test_another_posture_turns_the_bones_that_leave_a_joint_as_one():
    clip = scenes.batch(4, frames=3)
    before = np.asarray(clip.labels.joints, float)
    after = run(Augmentation(bend=15.0), clip).labels.joints.astype(float)
    np.testing.assert_allclose(bone_lengths(after), bone_lengths(before), atol=1e-5)
    np.testing.assert_allclose(after[..., 2].min((1, 2)), before[..., 2].min((1, 2)), atol=1e-5)

    def turn_at(joint, b, t):
        children = [c for p, c in scenes.H36M.bones if p == joint]
        bones = [(x[b, t, children] - x[b, t, joint]) for x in (after, before)]
        turn, residual = Rotation.align_vectors(*bones)
        assert residual < 1e-4
        return turn

    for b in range(4):
        pelvis, thorax = ([turn_at(joint, b, t) for t in range(3)] for joint in (0, 8))
        assert all((a * pelvis[0].inv()).magnitude() < 1e-3 for a in pelvis)
        assert all((a * thorax[0].inv()).magnitude() < 1e-3 for a in thorax)
        assert 0.01 < pelvis[0].magnitude() < np.deg2rad(15) * np.sqrt(3)
        assert (thorax[0] * pelvis[0].inv()).magnitude() > 0.01


@pytest.mark.parametrize("name", ["h36m17", "coco18", "mpii16", "jta22"])  # some not in order
def test_a_joint_turns_all_that_hangs_on_it_and_nothing_else(name):
    body = skeleton.get(name)
    rng = np.random.default_rng(0)
    for joint in range(body.size):
        own = np.zeros((body.size, 3), np.float32)
        own[joint] = rng.uniform(-1, 1, 3)
        alone = Rotation.from_rotvec(own[joint]).as_matrix()
        for other, turn in enumerate(np.asarray(composed(body, jnp.asarray(own)))):
            above = other
            while above >= 0 and above != joint:
                above = body.parents[above]
            expected = alone if above == joint else np.eye(3)
            np.testing.assert_allclose(turn, expected, atol=1e-6)


def test_turns_add_up_from_the_root_outwards():
    own = np.random.default_rng(1).uniform(-1, 1, (17, 3)).astype(np.float32)
    hip, knee = (scenes.H36M.joints.index(f"left_{part}") for part in ("hip", "knee"))
    pelvis, thigh, shin = (Rotation.from_rotvec(own[joint]) for joint in (0, hip, knee))
    found = np.asarray(composed(scenes.H36M, jnp.asarray(own)))[knee]
    np.testing.assert_allclose(found, (pelvis * thigh * shin).as_matrix(), atol=1e-5)


def test_another_body_has_no_joint_below_one_that_is_not_known():
    """A missing knee leaves the ankle nowhere; it moved by the knee's zeros once."""
    clip = scenes.batch(16)
    knee, ankle = (scenes.H36M.joints.index(f"left_{part}") for part in ("knee", "ankle"))
    valid = clip.labels.joints_valid.at[:, :, knee].set(0.0)
    labels = Labels(jnp.where(valid[..., None] > 0, clip.labels.joints, 0), valid)
    settings = Augmentation(bones=0.2, stature=0.1, bend=10.0)
    whole = run(settings, clip)
    after = run(settings, dataclasses.replace(clip, labels=labels))
    known = np.delete(np.arange(17), [knee, ankle])
    assert after.labels.joints_valid[..., known].all()
    assert not after.labels.joints_valid[..., [knee, ankle]].any()
    assert not after.observations.confidence[..., [knee, ankle]].any()
    # All else but the height, which the lowest joint that is known gives.
    up_to_height = after.labels.joints[..., known, :] - after.labels.joints[..., :1, :]
    expected = whole.labels.joints[..., known, :] - whole.labels.joints[..., :1, :]
    np.testing.assert_allclose(up_to_height, expected, atol=1e-5)
    lowest = [
        np.asarray(x)[:, :, known, 2].min((1, 2)) for x in (after.labels.joints, clip.labels.joints)
    ]
    np.testing.assert_allclose(*lowest, atol=1e-5)


def test_cameras_go_on_looking_at_the_person_from_as_far_as_was_drawn():
    clip = scenes.batch(16)
    settings = Augmentation(orbit=15.0, elevation=10.0, distance=0.2)
    after = run(settings, clip)
    np.testing.assert_allclose(after.labels.joints, clip.labels.joints, atol=1e-5)

    def of_root(clip):
        world = jnp.repeat(jnp.asarray(clip.labels.joints)[:, :, None, :1], 4, axis=2)
        return np.asarray(to_camera(clip.observations.cameras, world))[..., 0, :]

    before, now = of_root(clip), of_root(after)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (before, now)]
    np.testing.assert_allclose(*unit, atol=1e-4)  # where it stood in the image
    factor = np.log(np.linalg.norm(now, axis=-1) / np.linalg.norm(before, axis=-1))
    assert np.abs(factor).max() <= 0.2 + 1e-4
    assert factor.std(axis=2).min() > 0.01  # each view its own
    # The world stays upright: a camera's elevation changes by no more than was asked for.
    pitch = [
        np.degrees(np.arcsin(c.observations.cameras.rotation[..., 2, 2])) for c in (clip, after)
    ]
    assert 1 < np.abs(pitch[1] - pitch[0]).max() <= 10 + 1e-2


def test_points_keep_their_errors_and_what_is_missing_stays_missing():
    clip = scenes.batch(4)
    error = jnp.asarray(np.random.default_rng(0).normal(0, 5, (4, 1, 4, 17, 2)), jnp.float32)
    confidence = clip.observations.confidence.at[:, :, 1, 3].set(0.0)
    observations = dataclasses.replace(
        clip.observations, keypoints=clip.observations.keypoints + error, confidence=confidence
    )
    noisy = run(Augmentation(turn=180.0), dataclasses.replace(clip, observations=observations))
    exact = run(Augmentation(turn=180.0), clip)
    off = noisy.observations.keypoints - exact.observations.keypoints
    seen = np.asarray(confidence) > 0
    np.testing.assert_allclose(off[seen], np.asarray(error)[seen], atol=2e-3)
    np.testing.assert_array_equal(noisy.observations.confidence, confidence)
    assert (noisy.observations.keypoints[~seen] == 0).all()


def test_what_has_no_3d_goes_missing_and_behind_a_camera_nothing_is_seen():
    clip = scenes.batch(4)
    valid = clip.labels.joints_valid.at[:, :, 5].set(0.0)
    labels = Labels(jnp.where(valid[..., None] > 0, clip.labels.joints, 0), valid)
    changed = run(Augmentation(turn=90.0), dataclasses.replace(clip, labels=labels))
    assert not changed.observations.confidence[..., 5].any()
    assert changed.observations.confidence[..., np.arange(17) != 5].all()
    assert (changed.labels.joints[:, :, 5] == 0).all()
    cameras = clip.observations.cameras
    behind = dataclasses.replace(cameras, translation=cameras.translation.at[..., 2].add(-9.0))
    observations = dataclasses.replace(clip.observations, cameras=behind)
    changed = run(Augmentation(turn=90.0), dataclasses.replace(clip, observations=observations))
    assert not changed.observations.confidence.any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(changed))


def test_a_share_of_keypoints_goes_missing():
    changed = run(Augmentation(missing=0.3), scenes.batch(64)).observations
    gone = changed.confidence == 0
    assert gone.mean() == pytest.approx(0.3, abs=0.03)
    assert (changed.keypoints[gone] == 0).all()


def test_a_draw_depends_on_the_key_alone():
    clip = scenes.batch(4)
    once, again, other = (run(EVERYTHING, clip, key) for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert (once.observations.keypoints != other.observations.keypoints).all()


def test_joints_that_are_triangulated_come_from_the_keypoints_alone(tmp_path):
    record = scenes.record("a", frames=20, seed=1)
    writer.write(tmp_path / "data", "scene", {"train": [record]}, description="")
    data = poses.load([tmp_path / "data"], "train")
    zeros = jax.tree.map(jnp.zeros_like, data.poses.labels)
    blank = dataclasses.replace(data, poses=dataclasses.replace(data.poses, labels=zeros))
    found = references.relabelled(blank, "dlt").poses.labels
    np.testing.assert_allclose(found.joints, data.poses.labels.joints, atol=1e-4)
    assert np.asarray(found.joints_valid).all()
    of_labelled = references.relabelled(data, "dlt").poses.labels
    np.testing.assert_array_equal(found.joints, of_labelled.joints)
