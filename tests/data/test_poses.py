"""Loading: golden shards of two unlike data sets in one batch, windows, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import writer
from pose3d_jax.data import poses, windows
from pose3d_jax.data.poses import DataError
from pose3d_jax.noise import PRESETS
from pose3d_jax.schema import Record
from pose3d_jax.skeleton import SkeletonError
from tests import scenes


def write(directory, *records, dataset="scene"):
    splits = {}
    for record in records:
        splits.setdefault(record.identity.split, []).append(record)
    writer.write(directory, dataset, splits, description="a test")
    return directory


@pytest.fixture
def still(tmp_path):
    """Labelled, 3 still cameras, clips of 6 and 4 frames."""
    return write(
        tmp_path / "still",
        scenes.record("a", frames=6, seed=0),
        scenes.record("b", frames=4, seed=1),
    )


@pytest.fixture
def moving(tmp_path):
    """Unlabelled, 2 moving cameras, one clip of 5 frames."""
    one = scenes.record(
        "m", dataset="other", frames=5, views=2, seed=2, labelled=False, moving=True
    )
    return write(tmp_path / "moving", one, dataset="other")


def test_views_and_actions_are_picked(tmp_path, caplog):
    records = [
        scenes.record(name, frames=3, views=3, seed=seed)  # those of odd seeds stand
        for seed, name in enumerate(("a", "b", "c"), start=1)
    ]
    writer.write(tmp_path / "set", "scene", {"train": records}, description="")
    whole = poses.load([tmp_path / "set"], "train")
    some = poses.load([tmp_path / "set"], "train", views=(2, 0), actions=("stand",))
    assert {identity.clip for identity in some.identities} == {"a", "c"}
    names = whole.identities[0].camera_names
    assert some.identities[0].camera_names == (names[2], names[0])
    np.testing.assert_array_equal(
        some.poses.observations.keypoints[:3], whole.poses.observations.keypoints[:3][:, [2, 0]]
    )
    assert some.fingerprint != whole.fingerprint
    with pytest.raises(DataError, match="'train' has no clip of run; it has stand, wave; correct"):
        poses.load([tmp_path / "set"], "train", actions=("run",))
    with caplog.at_level("WARNING"):
        assert len(poses.load([tmp_path / "set"], "train", actions=("wave", "run")).identities) == 3
    assert "has no clip of run" in caplog.text
    for wrong in ((3,), (1, 1)):
        with pytest.raises(DataError, match=r"data.views is \[.*cameras 0 to 2"):
            poses.load([tmp_path / "set"], "train", views=wrong)


def test_golden_shards_form_one_batch(still, moving):
    data = windows.cut(poses.load([still, moving], "train"), 4)
    clip = data.poses.take(jnp.arange(data.poses.size))
    observations, labels = clip.observations, clip.labels
    # Clips of 6, 4 and 5 frames in windows of 4: 2 + 1 + 2, views padded to 3.
    assert observations.keypoints.shape == (5, 4, 3, 17, 2)
    assert labels.joints.shape == (5, 4, 17, 3)
    assert [i.clip for i in data.identities] == ["a", "a", "b", "m", "m"]
    assert data.recordings == ("other/ring", "scene/ring")
    assert clip.recording.tolist() == [1, 1, 1, 0, 0]

    source = {name: scenes.record(name, frames=f, seed=s).clip for name, f, s in
              [("a", 6, 0), ("b", 4, 1)]}  # fmt: skip
    np.testing.assert_array_equal(observations.keypoints[0], source["a"].observations.keypoints[:4])
    np.testing.assert_array_equal(labels.joints[1, :2], source["a"].labels.joints[4:])
    np.testing.assert_array_equal(labels.joints[2], source["b"].labels.joints)
    # Padding in time and in views is missing, and nothing of it is labelled.
    assert observations.confidence[1, 2:].sum() == 0
    assert labels.joints_valid[1, 2:].sum() == 0
    assert observations.confidence[3:, :, 2].sum() == 0
    assert observations.confidence[3, :, :2].min() == 1
    assert labels.joints_valid[3:].sum() == 0
    # Padded cameras stay cameras; moving ones move.
    for leaf in jax.tree.leaves(observations.cameras):
        assert jnp.isfinite(leaf).all()
    assert observations.cameras.focal.min() > 0
    assert np.ptp(observations.cameras.translation[3, :, 0], axis=0).max() > 0.1
    assert np.ptp(observations.cameras.translation[0, :, 0], axis=0).max() == 0


def test_padding_changes_no_term(still, moving):
    """A batch with padded views and frames has the terms of its parts."""
    from pose3d_jax import methods
    from pose3d_jax.methods.base import Info
    from tests.methods.test_methods import terms

    method = methods.create({"name": "multiview", "width": 16}, Info(scenes.H36M, scenes.H36M))
    joint = windows.cut(poses.load([still, moving], "train"), 4)
    parts = [poses.load([directory], "train") for directory in (still, moving)]
    take = lambda data: data.poses.take(jnp.arange(data.poses.size))  # noqa: E731
    variables = jax.jit(method.init)(jax.random.key(0), {"main": take(joint)})
    whole = terms(method, variables, take(joint))[0]
    separate = [terms(method, variables, take(part))[0] for part in parts]
    for name in whole:
        for i in range(2):  # sum and count
            total = sum(float(part[name][i]) for part in separate)
            assert float(whole[name][i]) == pytest.approx(total, rel=1e-5)


def test_every_frame_stands_in_one_window(still):
    data = windows.cut(poses.load([still], "train"), 4)
    clip = data.poses.take(jnp.arange(data.poses.size))
    assert clip.labels.joints_valid[..., 0].sum() == 10
    overlapping = windows.cut(poses.load([still], "train"), 4, 1)
    assert overlapping.poses.size == 10


def test_recordings_of_an_existing_table(still, moving):
    data = poses.load([still, moving], "train", recordings=("scene/ring",))
    assert set(data.poses.recording[:10].tolist()) == {0}
    assert set(data.poses.recording[10:].tolist()) == {-1}


def test_fingerprint_is_of_the_content(still, tmp_path):
    same = write(
        tmp_path / "again", scenes.record("a", frames=6), scenes.record("b", frames=4, seed=1)
    )
    other = write(
        tmp_path / "other", scenes.record("a", frames=6), scenes.record("b", frames=4, seed=3)
    )
    prints = [poses.load([d], "train").fingerprint for d in (still, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_what_is_missing_is_named(still, tmp_path):
    with pytest.raises(DataError, match=r"no directory .*nowhere; prepare the data first"):
        poses.load([tmp_path / "nowhere"], "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no prepared data set"):
        poses.load([tmp_path / "empty"], "train")
    with pytest.raises(DataError, match=r"no split 'test'; it has train"):
        poses.load([still], "test")
    with pytest.raises(DataError, match=r"data.path is empty"):
        poses.load([], "train")


def test_differing_joint_sets_are_refused(still, tmp_path):
    clip, identity = scenes.record("k", dataset="coco")
    coco = write(
        tmp_path / "coco",
        Record(clip, dataclasses.replace(identity, keypoint_skeleton="coco17")),
        dataset="coco",
    )
    with pytest.raises(DataError, match=r"differ in keypoint_skeleton: .*coco17 in coco"):
        poses.load([still, coco], "train")
    with pytest.raises(SkeletonError, match=r"coco17 has no pelvis, spine"):
        poses.load([still, coco], "train", keypoint_skeleton="h36m17")


def test_joints_are_delivered_in_the_wanted_order(still):
    whole = poses.load([still], "train")
    fewer = poses.load(
        [still], "train", keypoint_skeleton="humaneva15", joint_skeleton="humaneva15"
    )
    order = [whole.joint_skeleton.joints.index(name) for name in fewer.joint_skeleton.joints]
    np.testing.assert_array_equal(
        fewer.poses.labels.joints, np.asarray(whole.poses.labels.joints)[:, order]
    )
    np.testing.assert_array_equal(
        fewer.poses.observations.keypoints,
        np.asarray(whole.poses.observations.keypoints)[:, :, order],
    )


@pytest.fixture
def pictured(tmp_path):
    """Clips of 6 and 4 frames with features of images; another set has one view."""
    records = [scenes.record("a", frames=6, views=2), scenes.record("b", frames=4, views=2, seed=1)]
    one = scenes.record("c", dataset="other", frames=5, views=1, seed=2)
    return (
        write(tmp_path / "two", *[scenes.pictured(record) for record in records]),
        write(tmp_path / "one", scenes.pictured(one), dataset="other"),
    )


def test_features_of_images_go_where_their_frames_go(pictured):
    data = windows.cut(poses.load(pictured, "train"), 4, context=(1, 0))
    source = scenes.pictured(scenes.record("a", frames=6, views=2)).clip.observations.images
    clip = data.poses.take(jnp.arange(data.poses.size))
    images = clip.observations.images
    assert images.features.shape == (5, 5, 2, 7)
    np.testing.assert_array_equal(images.features[1, :3], source.features[3:])
    np.testing.assert_array_equal(images.square[0, 1:], source.square[:4])
    # Beyond the clip and in views that are not there, there is no image.
    for leaf in jax.tree.leaves(images):
        assert not leaf[1, 3:].any()
        assert not leaf[0, :1].any()
        assert not leaf[3:, :, 1].any()
    assert (images.square[3, 1:, 0, 2] == 200).all()
    picked = poses.load(pictured[:1], "train", views=(1,)).poses.observations.images
    np.testing.assert_array_equal(picked.features[:6, 0], source.features[:, 1])
    left = poses.load(pictured, "train", images=False)
    assert left.poses.take(jnp.array([0])).observations.images is None
    assert left.fingerprint == data.fingerprint


def test_sets_with_unlike_features_of_images_are_not_joined(pictured, tmp_path):
    clip = scenes.record("d", dataset="third")
    others = {"no": clip, "8": scenes.pictured(clip, 8)}
    for count, record in others.items():
        other = write(tmp_path / count, record, dataset="third")
        with pytest.raises(DataError, match=rf"7 features of images, third has .*{count} features"):
            poses.load([pictured[0], other], "train")


def test_what_a_view_that_is_lost_showed_is_lost_and_other_images_stay(pictured):
    whole = poses.load(pictured[:1], "train").poses.observations
    noise = dataclasses.replace(PRESETS["typical"], lost_views=1)
    found = poses.load(pictured[:1], "train", noise=noise).poses.observations
    lost = np.asarray(found.images.square)[..., 2] == 0
    assert lost.sum(axis=1).tolist() == [1] * 10
    assert not np.asarray(found.confidence)[lost].any()
    np.testing.assert_array_equal(
        np.asarray(found.images.features)[~lost], np.asarray(whole.images.features)[~lost]
    )


def test_features_of_images_at_another_rate_are_the_nearest_frame_s(pictured):
    data = poses.load(pictured[:1], "train")
    slow = windows.at_rate(data, 12.0).poses.observations  # every 2.5th of 30 frames a second
    images = data.poses.observations.images
    np.testing.assert_array_equal(
        slow.images.features, np.asarray(images.features)[[0, 3, 5, 6, 9]]
    )
