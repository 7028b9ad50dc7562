"""Heatmaps against SciPy's density, and points that come back from them."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from pose3d_jax import heatmaps

RENDER = jax.jit(heatmaps.render, static_argnums=(1, 2))


def test_a_heatmap_is_a_gaussian_of_height_1_at_every_cell():
    rng = np.random.default_rng(0)
    points = rng.uniform(-3, 9, (2, 3, 2)).astype(np.float32)
    found = RENDER(points, (5, 8), 1.3)
    assert found.shape == (2, 3, 5, 8)
    row, column = np.mgrid[:5, :8]
    cells = np.stack([column, row], axis=-1)  # (x, y)
    for index in np.ndindex(2, 3):
        density = stats.multivariate_normal(points[index], 1.3**2 * np.eye(2)).pdf(cells)
        assert_allclose(found[index], 2 * np.pi * 1.3**2 * density, rtol=1e-3, atol=1e-7)


@settings(deadline=None, max_examples=30)
@given(st.floats(5, 9), st.floats(4, 6))
def test_a_point_within_comes_back(x, y):
    found = heatmaps.expected(RENDER(jnp.float32([[x, y]]), (11, 15), 0.8))
    assert_allclose(found, [[x, y]], atol=2e-3)


def test_an_empty_heatmap_has_no_place_and_a_gradient():
    empty = jnp.zeros((1, 4, 6))
    assert not heatmaps.expected(empty).any()
    slope = jax.grad(lambda h: heatmaps.expected(h).sum())(empty)
    assert np.isfinite(slope).all()


def test_the_mean_place_is_numpy_s_weighted_average():
    shares = np.random.default_rng(0).uniform(size=(2, 4, 7)).astype(np.float32)
    found = heatmaps.expected(jnp.asarray(shares))
    x = np.average(np.broadcast_to(np.arange(7), shares.shape), axis=(1, 2), weights=shares)
    y = np.average(np.broadcast_to(np.arange(4)[:, None], shares.shape), axis=(1, 2),
                   weights=shares)  # fmt: skip
    assert_allclose(found, np.stack([x, y], axis=-1), rtol=1e-5)
