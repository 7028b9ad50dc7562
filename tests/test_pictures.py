"""Pictures in another light against Pillow's, and in a mirror."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageEnhance

from pose3d_jax import cameras as cam
from pose3d_jax import pictures
from pose3d_jax.pictures import Change
from pose3d_jax.schema import Pictures
from tests import scenes

PILLOW = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@pytest.mark.parametrize("name", PILLOW)
def test_a_change_is_pillows_by_a_factor_within_bounds(name):
    rng = np.random.default_rng(0)
    given = rng.integers(60, 180, (6, 1, 2, 16, 16, 3)).astype(np.uint8)
    found = pictures.recoloured(Change(**{name: 0.3}), jnp.asarray(given), jax.random.key(1))
    factors = []
    for clip in range(6):
        at = (clip, 0, 1)
        off = []
        for factor in np.linspace(0.7, 1.3, 121):
            wanted = PILLOW[name](Image.fromarray(given[at])).enhance(factor)
            off.append(np.abs(np.asarray(found[at]) - np.asarray(wanted)).max())
        factors.append(np.linspace(0.7, 1.3, 121)[np.argmin(off)])
        assert min(off) < 2.5  # Pillow rounds its greys
    assert np.ptp(factors) > 0.1


mirrored = jax.jit(functools.partial(pictures.mirrored, scenes.H36M, scenes.H36M))


def clip(size=16, views=2):
    made = scenes.batch(size, views=views)
    points = np.asarray(made.observations.keypoints)
    square = np.concatenate([points.mean(axis=-2), np.full((*points.shape[:3], 1), 800.0)], axis=-1)
    pixels = np.random.default_rng(0).integers(0, 255, (*points.shape[:3], 32, 32, 3))
    shown = Pictures(jnp.asarray(square, jnp.float32), jnp.asarray(pixels, jnp.uint8))
    return made.replace(observations=made.observations.replace(pictures=shown))


def test_a_mirror_twice_is_nothing():
    made = clip()
    twice = mirrored(mirrored(made))
    assert_allclose(twice.observations.keypoints, made.observations.keypoints, atol=1e-3)
    assert_allclose(twice.observations.pictures.pixels, made.observations.pictures.pixels)


def test_a_mirror_shows_the_left_hand_where_the_right_one_was():
    """And on the same pixels: a point's place in the square is reversed, as the row it is in."""
    made = clip()
    found = mirrored(made)
    left, right = (scenes.H36M.joints.index(f"{side}_wrist") for side in ("left", "right"))
    square = made.observations.pictures.square
    before = (made.observations.keypoints[..., right, :] - square[..., :2]) / square[..., 2:]
    after = (found.observations.keypoints[..., left, :] - square[..., :2]) / square[..., 2:]
    assert_allclose(after, np.asarray(before) * [-1, 1], atol=1e-6)
    assert not found.labels.joints_valid.any()


def test_every_second_picture_is_mirrored_and_keeps_its_points():
    made = clip(64)
    found = jax.jit(
        lambda c, k: pictures.changed(Change(mirror=True), scenes.H36M, scenes.H36M, c, k)
    )(made, jax.random.key(0))
    valid = np.asarray(found.labels.joints_valid).all(axis=(1, 2))
    assert 15 < valid.sum() < 49
    assert_allclose(found.observations.keypoints[valid], made.observations.keypoints[valid])
    other = mirrored(made)
    assert_allclose(
        found.observations.pictures.pixels[~valid], other.observations.pictures.pixels[~valid]
    )


def test_what_one_camera_sees_in_a_mirror_is_labelled_still():
    """The mirrored camera sees the mirrored person where the keypoints are, lens and all."""
    made = clip(views=1)
    camera = made.observations.cameras
    lens = np.array([0.02, -0.01, 0.013, -0.017, 0.004], np.float32)
    bent = camera.distortion + lens.reshape(1, 1, 1, 5)
    camera = dataclasses.replace(camera, distortion=bent)
    project = jax.jit(lambda c, x: cam.batched(cam.project)(c, x[:, :, None]))
    points = project(camera, made.labels.joints)
    seen = made.observations.replace(
        cameras=camera, keypoints=points, confidence=jnp.ones(points.shape[:-1])
    )
    found = mirrored(made.replace(observations=seen))
    again = project(found.observations.cameras, found.labels.joints)
    assert_allclose(again, found.observations.keypoints, atol=0.02)
    assert_array_equal(
        found.labels.joints_valid, made.labels.joints_valid[..., np.array(scenes.H36M.mirrored)]
    )
    # A body of the same size, which no turn makes of the other.
    bones = np.array(scenes.H36M.bones)
    lengths = [
        np.linalg.norm(np.diff(np.asarray(joints)[..., bones, :], axis=-2), axis=-1)
        for joints in (made.labels.joints, found.labels.joints)
    ]
    order = [scenes.H36M.bones.index(b) for b in mirrored_bones()]
    assert_allclose(lengths[1][..., 0], lengths[0][..., order, 0], atol=1e-4)
    back = mirrored(found)
    assert_allclose(back.labels.joints, made.labels.joints, atol=1e-4)
    assert_allclose(back.observations.cameras.center, camera.center, atol=1e-3)


def mirrored_bones():
    """The bone on the other side of each."""
    other = scenes.H36M.mirrored
    return [(other[a], other[b]) for a, b in scenes.H36M.bones]
