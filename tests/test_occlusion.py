"""Which joints a body hides: distances of segments against sampling, and an arm behind a back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pose3d_jax import occlusion
from tests import scenes

POINTS = st.lists(st.floats(-2, 2, width=32), min_size=12, max_size=12)
distance = jax.jit(occlusion.segment_distance)


@settings(deadline=None, max_examples=50)
@given(POINTS)
def test_the_distance_of_segments_is_the_least_of_many(numbers):
    p, q, a, b = np.reshape(numbers, (4, 3)).astype(np.float32)
    share = np.linspace(0, 1, 201)[:, None]
    first, second = p + share * (q - p), a + share * (b - a)
    least = np.linalg.norm(first[:, None] - second[None], axis=-1).min()
    found = distance(p, q, a, b)
    longest = max(np.linalg.norm(q - p), np.linalg.norm(b - a))
    assert least - longest / 200 - 1e-4 <= found <= least + 1e-4


@pytest.mark.parametrize("joint", ["left_wrist", "right_wrist"])
def test_an_arm_behind_the_trunk_is_hidden_and_one_in_front_is_not(joint):
    """The wrist on the axis between camera and chest: behind it, then before it."""
    h36m = scenes.H36M
    names = {name: i for i, name in enumerate(h36m.joints)}
    pose = np.zeros((17, 3), np.float32)
    height = {"pelvis": 0.0, "spine": -0.25, "thorax": -0.5, "neck": -0.6, "head": -0.8}
    for name, y in height.items():
        pose[names[name]] = [0, y, 0]
    for side, x in (("left", 0.3), ("right", -0.3)):
        for part, y in (("hip", 0), ("knee", 0.45), ("ankle", 0.9), ("shoulder", -0.5),
                        ("elbow", -0.3), ("wrist", -0.1)):  # fmt: skip
            pose[names[f"{side}_{part}"]] = [x, y, 0]
    pose += [0, 0, 4]
    hidden = jax.jit(lambda x: occlusion.self_occluded(x, h36m, jnp.asarray(occlusion.radii(h36m))))
    assert not hidden(pose).any()
    pose[names[joint]] = [0, -0.3, 4.5]
    assert np.flatnonzero(hidden(pose)).tolist() == [names[joint]]
    pose[names[joint]] = [0, -0.3, 3.5]
    assert not hidden(pose)[names[joint]]
    # A hand at the back, in its flesh, is not yet behind it.
    pose[names[joint]] = [0, -0.3, 4.1]
    assert not hidden(pose)[names[joint]]


def test_a_thinner_body_hides_less_and_a_line_nothing():
    joints = scenes.people(60, seed=3)[:, 0] + np.float32([0, 0, 4])
    thick = jnp.asarray(occlusion.radii(scenes.H36M))
    hidden = jax.jit(
        jax.vmap(lambda x, r: occlusion.self_occluded(x, scenes.H36M, r), in_axes=(0, None))
    )
    some, few = hidden(joints, thick), hidden(joints, thick / 2)
    assert 0 < few.sum() < some.sum()
    assert hidden(joints, thick * 0.001).sum() < 0.01 * some.sum()


def test_radii_are_those_of_limbs():
    h36m = scenes.H36M
    thick = dict(zip([h36m.joints[c] for _, c in h36m.bones], occlusion.radii(h36m), strict=True))
    assert_allclose(thick["thorax"], 0.13)
    assert thick["left_wrist"] < thick["left_knee"] < thick["spine"]
