"""How bones turn about themselves: known motions, and a general optimiser."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from pose3d_jax.formats import twist

DOWN, KNEE = np.array([0.0, -1.0, 0.0]), np.array([1.0, 0.0, 0.0])


def smooth(frames, size, rng, waves=3):
    """Functions of time made of a few slow waves `[frames, size]`, within -1 and 1."""
    t = np.linspace(0, 1, frames)[:, None, None]
    parts = np.sin(2 * np.pi * (rng.uniform(0.2, 2, (size, waves)) * t + rng.uniform(size=(waves))))
    return parts.mean(axis=-1)


def leg(frames, bend, seed=0):
    """A thigh's rotations, its direction, and the shin's, of a knee bent as said (radians)."""
    rng = np.random.default_rng(seed)
    thigh = Rotation.from_rotvec(1.2 * smooth(frames, 3, rng))
    shin = thigh * Rotation.from_rotvec(np.outer(bend, KNEE))
    return thigh, thigh.apply(DOWN), shin.apply(DOWN)


def upright(frames):
    return np.tile(np.eye(3), (frames, 1, 1))


@pytest.mark.parametrize("name", ["left_knee", "right_knee", "left_elbow", "right_elbow"])
def test_hinges_bend_as_bodies_do(name):
    """Shins go backward, forearms of arms held out forward; z is forward."""
    axis = twist.hinge(name)
    rest = DOWN if "knee" in name else np.array([1.0 if "left" in name else -1.0, 0, 0])
    bent = Rotation.from_rotvec(np.pi / 2 * axis).apply(rest)
    assert_allclose(bent, [0, 0, -1 if "knee" in name else 1], atol=1e-12)


def test_other_joints_are_no_hinges():
    for name in ("pelvis", "head", "left_hip", "knee", "nose_knee", "left_kneecap"):
        assert twist.hinge(name) is None


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(seed=st.integers(0, 10**6), frames=st.integers(1, 40))
def test_bones_are_carried_to_where_they_point(seed, frames):
    rng = np.random.default_rng(seed)
    above = Rotation.random(frames, rng=rng)
    rest, *ways = (v / np.linalg.norm(v) for v in rng.normal(size=(frames + 1, 3)))
    other = Rotation.random(frames, rng=rng).apply(rest)
    found = twist.turned(above.as_matrix(), rest, np.stack(ways), rng.normal(size=3), other)
    assert_allclose(found @ rest, ways, atol=1e-9)
    assert_allclose(np.linalg.det(found), 1.0)


def test_a_bent_knee_tells_how_the_thigh_turns():
    thigh, down, on = leg(120, np.full(120, np.radians(60)))
    found = twist.turned(upright(120), DOWN, down, KNEE, on)
    away = np.degrees((Rotation.from_matrix(found).inv() * thigh).magnitude())
    assert np.median(away) < 3.0
    assert away.max() < 12.0  # at the ends, where fewer frames tell
    least = twist.turned(upright(120), DOWN, down)
    assert np.degrees((Rotation.from_matrix(least).inv() * thigh).magnitude()).max() > 20.0


def spins(rotations, bone):
    """Degrees from frame to frame about the bone."""
    vectors = Rotation.from_matrix(rotations[1:] @ rotations[:-1].swapaxes(1, 2)).as_rotvec()
    return np.degrees(np.abs(np.sum(vectors * (bone[1:] + bone[:-1]) / 2, axis=-1)))


def test_a_straight_knee_with_noise_does_not_spin_the_thigh():
    """A standing leg whose knee is 1 cm to any side, which turns its plane over all the time."""
    rng = np.random.default_rng(0)
    bend = np.radians(np.interp(np.arange(120), [0, 20, 40, 80, 100, 119], [60, 60, 0, 0, 60, 60]))
    thigh, down, on = leg(120, bend)
    down, on = (v + 0.025 * rng.normal(size=v.shape) for v in (down, on))
    down, on = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (down, on))
    found = twist.turned(upright(120), DOWN, down, KNEE, on)
    away = np.degrees((Rotation.from_matrix(found).inv() * thigh).magnitude())
    normal = np.cross(down, on)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    raw = np.degrees(np.arccos(np.clip(np.sum(normal[1:] * normal[:-1], axis=-1), -1, 1)))
    assert spins(found, down).max() < 8.0 < 90.0 < raw.max()
    assert away[[*range(25), *range(95, 120)]].max() < 15.0  # where the knee is bent


def test_a_bone_that_swings_past_the_other_way_does_not_spin():
    """Straight up is where the least turn from straight down is any; a kick comes by there."""
    angle = np.linspace(0, np.pi, 31)
    way = np.stack([0.02 * np.ones(31), -np.cos(angle), np.sin(angle)], axis=-1)
    way = np.concatenate([way, way[::-1] * [-1, 1, 1]])
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    found = twist.turned(upright(62), DOWN, way)
    assert spins(found, way).max() < 12.0
    alone = [Rotation.align_vectors(w[None], DOWN[None])[0].as_matrix() for w in way]
    assert spins(np.stack(alone), way).max() > 60.0


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(seed=st.integers(0, 10**6), frames=st.integers(1, 12))
def test_angles_are_as_good_as_an_optimiser_finds_from_there(seed, frames):
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.05, 1.0, frames)
    wanted = weight * np.exp(1j * (0.8 * rng.normal(size=frames) + rng.uniform(-3, 3)))

    def cost(angles):
        steps = np.diff(angles)
        return 0.5 * np.sum(steps**2) - np.sum(np.real(wanted * np.exp(-1j * angles)))

    found = twist._smooth(wanted, weight)
    best = minimize(cost, found, tol=1e-12)
    assert cost(found) <= best.fun + 0.01 * abs(best.fun)
