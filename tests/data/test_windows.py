"""Other windows of the same frames, and other frame rates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import writer
from pose3d_jax.data import poses, windows
from tests import scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of 6, 4 and 1 frames."""
    folder = tmp_path_factory.mktemp("windows") / "set"
    records = [scenes.record(c, frames=n, seed=n) for c, n in (("a", 6), ("b", 4), ("c", 1))]
    writer.write(folder, "scene", {"train": records}, description="")
    return poses.load([folder], "train")


@jax.jit
def take(poses):
    return poses.take(jnp.arange(poses.size))


def taken(cut):
    return jax.tree.map(np.asarray, take(cut.poses))


def test_clips_are_found_again_in_any_windows(data):
    for window, stride in ((1, None), (4, None), (3, 1), (9, 2)):
        cut = windows.cut(data, window, stride)
        assert windows.clips(cut.poses) == [range(6), range(6, 10), range(10, 11)]
        assert [identity.clip for identity in windows.identities(cut)] == ["a", "b", "c"]


@pytest.mark.parametrize("window", [1, 2, 5, 8])
def test_context_is_the_clip_s_own_and_what_is_beyond_it_is_missing(data, window):
    before, after = 3, 2
    cut = windows.cut(data, window, context=(before, after))
    clip = taken(cut)
    plain = taken(windows.cut(data, window))
    assert clip.observations.keypoints.shape[1] == window + before + after
    middle = jax.tree.map(lambda x: x[:, before : before + window] if x.ndim > 1 else x, clip)
    jax.tree.map(np.testing.assert_array_equal, middle, plain)
    whole = np.asarray(data.poses.observations.keypoints)
    for i, start in enumerate(cut.poses.start.tolist()):
        own = {"a": range(6), "b": range(6, 10), "c": range(10, 11)}[cut.identities[i].clip]
        for t, frame in enumerate(range(start - before, start + window + after)):
            seen = clip.observations.confidence[i, t]
            if frame in own:
                np.testing.assert_array_equal(clip.observations.keypoints[i, t], whole[frame])
                assert seen.min() == 1
            else:
                assert seen.max() == 0
                assert clip.labels.joints_valid[i, t].max() == 0


def moving(frames, fps, data):
    """One clip of joints and points that move along straight lines, at that rate."""
    time = np.arange(frames) / fps
    slope = np.random.default_rng(0).normal(size=(3, 17, 2))
    points = 500 + 100 * time[:, None, None, None] * slope
    first = jax.tree.map(lambda x: np.asarray(x)[:1], data.poses)
    observations = jax.tree.map(lambda x: np.repeat(x, frames, axis=0), first.observations)
    joints = time[:, None, None] * np.ones((frames, 17, 3))
    valid = np.ones((frames, 17), np.float32)
    own = dataclasses.replace(
        first,
        observations=dataclasses.replace(observations, keypoints=points.astype(np.float32)),
        labels=dataclasses.replace(
            first.labels, joints=joints.astype(np.float32), joints_valid=valid
        ),
        start=np.arange(frames, dtype=np.int32),
        begin=np.zeros(frames, np.int32),
        stop=np.full(frames, frames, np.int32),
        recording=np.zeros(frames, np.int32),
    )
    identity = dataclasses.replace(data.identities[0], fps=fps)
    return dataclasses.replace(data, poses=own, identities=(identity,) * frames)


@given(st.integers(1, 10_000), st.floats(5, 240), st.floats(5, 240))
def test_frames_at_another_rate_lie_within_the_clip(frames, own, fps):
    before, share = windows.between(frames, own, fps)
    place = before + share
    assert place[0] == 0
    assert before.min() >= 0
    assert before.max() + (share[-1] > 0) <= frames - 1
    assert share.min() >= 0
    assert share.max() < 1
    np.testing.assert_allclose(np.diff(place), own / fps, atol=1e-3)
    assert place[-1] + own / fps > frames - 1 - 1e-3


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
@pytest.mark.parametrize("own", [12.5, 25.0, 30.0, 50.0, 120.0])
def test_at_another_rate_straight_lines_stay_what_they_are(data, frames, own):
    clip = moving(frames, own, data)
    other = windows.at_rate(clip, 30.0)
    assert {identity.fps for identity in other.identities} == {30.0}
    time = np.arange(other.poses.size) / 30.0
    assert time[-1] <= (frames - 1) / own + 1e-6
    assert time[-1] > (frames - 1) / own - 1 / 30
    np.testing.assert_allclose(other.poses.labels.joints[:, 0, 0], time, atol=1e-5)
    slope = np.random.default_rng(0).normal(size=(3, 17, 2))
    expected = 500 + 100 * time[:, None, None, None] * slope
    np.testing.assert_allclose(other.poses.observations.keypoints, expected, atol=1e-2)


def test_twice_the_rate_is_every_second_frame(data):
    clip = moving(9, 60.0, data)
    other = windows.at_rate(clip, 30.0)
    np.testing.assert_array_equal(
        other.poses.observations.keypoints, clip.poses.observations.keypoints[::2]
    )


def test_a_point_that_one_of_two_frames_lacks_is_the_nearer_frame_s(data):
    clip = moving(3, 20.0, data)
    observations = clip.poses.observations
    confidence = np.array(observations.confidence)
    confidence[1, 0, 5] = 0
    keypoints = np.where(confidence[..., None] > 0, observations.keypoints, 0).astype(np.float32)
    clip = dataclasses.replace(
        clip,
        poses=dataclasses.replace(
            clip.poses,
            observations=dataclasses.replace(
                observations, confidence=confidence, keypoints=keypoints
            ),
        ),
    )
    found = windows.at_rate(clip, 30.0).poses.observations  # at frames 0, 2/3, 4/3, 2
    assert found.confidence[:, 0, 5].tolist() == [1, 0, 0, 1]
    np.testing.assert_array_equal(found.keypoints[1:3, 0, 5], 0)
    assert found.confidence[:, 0, 4].tolist() == [1, 1, 1, 1]


def test_clips_that_have_the_rate_stay_as_they_are(data):
    same = windows.at_rate(data, 30.0)
    jax.tree.map(np.testing.assert_array_equal, same.poses, data.poses)


def test_a_share_of_the_clips_is_of_every_group(tmp_path):
    """What two shares split has no clip in common, whole clips, and some of each group."""
    records = []
    for group, count in (("walk", 7), ("jump", 1), ("box", 3)):
        for i in range(count):
            record = scenes.record(f"{group}_{i}", frames=3, seed=i)
            identity = dataclasses.replace(record.identity, group=group)
            records.append(record._replace(identity=identity))
    writer.write(tmp_path / "set", "scene", {"train": records}, description="")
    data = poses.load([tmp_path / "set"], "train")
    assert windows.some(data, 0.0, 1.0) is data

    def names(low, high):
        found = windows.some(data, low, high)
        clips = [identity.clip for identity in windows.identities(found)]
        assert sorted(clips * 3) == sorted(identity.clip for identity in found.identities)
        assert [len(frames) for frames in windows.clips(found.poses)] == [3] * len(clips)
        for clip, frame in zip(found.identities, taken(found).labels.joints, strict=True):
            of_clip = [i for i, other in enumerate(data.identities) if other.clip == clip.clip]
            whole = np.asarray(data.poses.labels.joints)[of_clip]
            assert np.any(np.all(whole == frame, axis=(1, 2)))
        return set(clips)

    few, others = names(0.0, 0.1), names(0.1, 1.0)
    assert sorted(name.split("_")[0] for name in few) == ["box", "jump", "walk"]
    assert not few & others
    assert len(few | others) == 11
    assert names(0.1, 0.55) < others
