"""Joints on the rays of their points, whatever the network says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax.models import rays

RNG = np.random.default_rng(0)
POINTS = jnp.asarray(RNG.uniform(-0.3, 0.3, (5, 17, 2)), jnp.float32)
SEEN = jnp.ones((5, 17)).at[1, 3].set(0.0).at[2, 0].set(0.0).at[3].set(0.0)
RAW = jnp.asarray(RNG.normal(size=(5, 17, 3)), jnp.float32)


def placed(raw=RAW, points=POINTS, centred=True, depth_known=False):
    sight = rays.look(points, SEEN, 0, centred=centred)
    joints = rays.place_on_rays(
        raw, sight, root=0, root_depth=4.0, reach=1.5, depth_known=depth_known
    )
    return np.asarray(joints), sight


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("depth_known", [False, True])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_what_is_seen_projects_to_its_point(centred, depth_known, scale):
    joints, _ = placed(scale * RAW, centred=centred, depth_known=depth_known)
    assert np.isfinite(joints).all()
    seen = np.asarray(SEEN) > 0
    # A joint on a ray far from the turned camera's axis may come near the own camera.
    seen &= joints[..., 2] > 0.1
    assert seen.sum() > 0.95 * np.asarray(SEEN).sum()
    assert_allclose(joints[seen][:, :2] / joints[seen][:, 2:], POINTS[seen], atol=2e-4)


def test_what_is_not_seen_is_within_reach_of_the_root():
    joints, _ = placed(100 * RAW)
    away = np.linalg.norm(joints - joints[:, :1], axis=-1)
    assert away[np.asarray(SEEN) == 0].max() <= 1.5 * np.sqrt(3) + 1e-4


def test_with_its_depth_known_a_person_is_as_far_as_its_points_spread():
    """Twice as near, twice the spread: half the depth. The network has no say."""
    one, sight = placed(depth_known=True)
    other, _ = placed(-RAW, depth_known=True)
    depth = lambda joints, s: (np.asarray(s.turn) @ joints[:, 0, :, None])[:, 2, 0]  # noqa: E731
    assert_allclose(depth(one, sight), 4.0 * np.asarray(sight.far)[:, 0], rtol=1e-4)
    keep = np.asarray(SEEN[:, 0]) > 0
    assert_allclose(one[keep, 0], other[keep, 0], rtol=1e-5)
    small = jnp.zeros((1, 17, 2)).at[0, 1:].set(POINTS[0, 1:] * 0.1)
    spreads = [
        np.asarray(rays.look(k * small, jnp.ones((1, 17)), 0, centred=True).far) for k in (1, 2)
    ]
    assert_allclose(spreads[0], 2 * spreads[1], rtol=1e-5)


def test_gradients_are_finite_at_extremes():
    def total(raw, points):
        sight = rays.look(points, SEEN, 0, centred=True)
        return jnp.sum(rays.place_on_rays(raw, sight, root=0, root_depth=4.0, reach=1.5) ** 2)

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))
    for scale in (0.0, 1.0, 1e4):
        for spread in (0.0, 1.0, 100.0):
            found = slopes(scale * RAW, spread * POINTS)
            assert all(np.isfinite(x).all() for x in found)
