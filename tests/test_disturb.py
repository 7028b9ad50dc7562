"""What networks are shown: the statistics of `noise.py`, and what is hidden."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose3d_jax import noise
from pose3d_jax.disturb import Disturbance, disturb
from pose3d_jax.noise import Noise
from pose3d_jax.occlusion import radii, self_occluded
from tests import scenes

CLIP = scenes.batch(size=2, views=3, frames=400)
BEFORE = CLIP.observations


def shown(seed=0, clip=CLIP, fps=30.0, **settings):
    made = Disturbance(**settings)
    run = jax.jit(lambda clip, key: disturb(made, scenes.H36M, fps, clip, key))
    return run(clip, jax.random.key(seed)).observations


def full(monkeypatch):
    """Every clip suffers all of it."""
    monkeypatch.setattr(
        jax.random, "uniform",
        lambda key, shape=(), *a, original=jax.random.uniform, **k:
            jnp.ones(()) if shape == () else original(key, shape, *a, **k),
    )  # fmt: skip


def test_labels_cameras_and_what_is_off_stay():
    found = jax.jit(
        lambda clip: disturb(Disturbance(joints=0.5), scenes.H36M, 30.0, clip, jax.random.key(0))
    )(CLIP)
    jax.tree.map(np.testing.assert_array_equal, found.labels, CLIP.labels)
    jax.tree.map(np.testing.assert_array_equal, found.observations.cameras, BEFORE.cameras)
    left = found.observations.confidence > 0
    np.testing.assert_array_equal(found.observations.keypoints[left], BEFORE.keypoints[left])
    assert not found.observations.keypoints[~left].any()
    assert set(np.unique(found.observations.confidence)) == {0, 1}


@pytest.mark.parametrize(
    "settings",
    [
        {"sigma_px": 3.0},
        {"outliers": 0.1},
        {"sigma_px": 1.0, "missing": 0.3},
        {"swaps": 0.1},
        {"sigma_px": 2.0, "outliers": 0.05, "missing": 0.2, "swaps": 0.01},
    ],
)
def test_all_of_it_is_as_the_benchmark_s_noise(settings, monkeypatch):
    """Spread, share, correlation in time and confidence, against the host's own."""
    full(monkeypatch)
    found = shown(**settings)
    host = jax.tree.map(np.asarray, BEFORE)
    mirrored = scenes.H36M.mirrored
    twins = [
        noise.corrupt(
            jax.tree.map(lambda x, i=i: x[i], host), Noise(**settings), clip=str(i), fps=30.0,
            mirrored=mirrored,
        )
        for i in range(2)
    ]  # fmt: skip
    twin = jax.tree.map(lambda *xs: np.stack(xs), *twins)

    def told(observations):
        seen = np.asarray(observations.confidence) > 0
        error = np.asarray(observations.keypoints) - np.asarray(BEFORE.keypoints)
        size = np.linalg.norm(error, axis=-1)
        both = seen[:, 1:] & seen[:, :-1]
        follows = [size[:, 1:][both], size[:, :-1][both]]
        confidence = np.asarray(observations.confidence)[seen]
        return {
            "seen": seen.mean(),
            "median": np.median(size[seen]),
            "far": (size[seen] > 20).mean(),
            "stays": (np.abs(follows[0] - follows[1]) < 0.5 * (follows[0] + 1e-3)).mean(),
            "confidence": confidence.mean(),
            "doubtful": (confidence < 0.5).mean(),
        }

    own, other = told(found), told(twin)
    for name in own:
        assert own[name] == pytest.approx(other[name], rel=0.1, abs=0.02), name


def test_clips_suffer_between_nothing_and_all_of_it():
    many = scenes.batch(size=64, views=2, frames=20)
    found = shown(clip=many, missing=0.6)
    gone = 1 - (np.asarray(found.confidence) > 0).mean(axis=(1, 2, 3))
    assert gone.min() < 0.1
    assert 0.45 < gone.max() < 0.75
    assert 0.2 < gone.mean() < 0.4


def test_hidden_frames_are_a_view_s_whole_ones():
    found = shown(frames=0.5)
    seen = np.asarray(found.confidence) > 0
    assert (seen.all(axis=-1) | ~seen.any(axis=-1)).all()
    assert not np.array_equal(seen[:, :, 0], seen[:, :, 1])


def test_what_was_missing_stays_so():
    confidence = BEFORE.confidence.at[:, :, 1, 4].set(0.0)
    keypoints = jnp.where(confidence[..., None] > 0, BEFORE.keypoints, 0.0)
    gaps = dataclasses.replace(
        CLIP,
        observations=dataclasses.replace(BEFORE, confidence=confidence, keypoints=keypoints),
    )
    found = shown(clip=gaps, sigma_px=2.0, outliers=0.1)
    assert not found.confidence[:, :, 1, 4].any()
    assert not found.keypoints[:, :, 1, 4].any()


def test_errors_of_a_faster_camera_change_less_from_frame_to_frame(monkeypatch):
    full(monkeypatch)

    def correlation(fps):
        error = np.asarray(shown(fps=fps, sigma_px=2.0).keypoints - BEFORE.keypoints)
        return np.mean(error[:, 1:] * error[:, :-1]) / np.mean(error**2)

    assert correlation(30.0) == pytest.approx(0.9, abs=0.02)
    assert correlation(60.0) == pytest.approx(0.9**0.5, abs=0.02)


def test_what_the_body_hides_is_hidden_from_the_network_by_a_share():
    """All of it where each clip draws its whole share; nothing else, and the truth is as it was."""
    found = shown(occluded=1.0)
    truth = (
        np.einsum(
            "btvij,btkj->btvki", np.asarray(BEFORE.cameras.rotation), np.asarray(CLIP.labels.joints)
        )
        + np.asarray(BEFORE.cameras.translation)[..., None, :]
    )
    thick = jnp.asarray(radii(scenes.H36M))
    one = jax.jit(jax.vmap(lambda pose: self_occluded(pose, scenes.H36M, thick)))
    behind = np.asarray(one(truth.reshape(-1, 17, 3))).reshape(found.confidence.shape)
    hidden = np.asarray(found.confidence) == 0
    assert behind.any()
    assert not (hidden & ~behind).any()
    share = [hidden[i].sum() / behind[i].sum() for i in range(2)]
    assert min(share) > 0
    assert max(share) < 1
    assert share[0] != share[1]
