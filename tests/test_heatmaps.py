"""Heatmaps against SciPy's density, and points that come back from them."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import ndimage, special, stats

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


def test_a_soft_argmax_is_where_a_sharp_heatmap_is_highest():
    maps = np.random.default_rng(0).uniform(0, 1, (5, 7, 9)).astype(np.float32)
    for number, (row, column) in enumerate([(0, 0), (6, 8), (3, 4), (0, 8), (5, 1)]):
        maps[number, row, column] = 3.0
        for flattened in (False, True):
            found = heatmaps.soft_argmax(
                jnp.asarray(maps[number : number + 1]), 100.0, flattened=flattened
            )
            place = [column, row + column / 9 if flattened else row]
            assert_allclose(found, [place], atol=1e-4)


def test_a_soft_argmax_is_the_mean_under_scipys_softmax():
    maps = np.random.default_rng(1).normal(size=(3, 6, 8)).astype(np.float32)
    shares = special.softmax(2.5 * maps.reshape(3, -1), axis=-1).reshape(maps.shape)
    row, column = np.mgrid[:6, :8]
    wanted = [[(s * column).sum(), (s * row).sum()] for s in shares]
    assert_allclose(heatmaps.soft_argmax(jnp.asarray(maps), 2.5), wanted, atol=1e-5)


def test_the_reports_flattened_index_is_wrong_where_mass_crosses_rows():
    """Two cells of one column, one above the other: the mean is between them, the report's x not.

    Their numbers are 3 and 3 + 8; the mean, 7, is the last cell of the first row.
    """
    maps = jnp.zeros((1, 8, 8)).at[0, 0:2, 3].set(1.0)
    assert_allclose(heatmaps.soft_argmax(maps, 200.0), [[3.0, 0.5]], atol=1e-5)
    assert_allclose(heatmaps.soft_argmax(maps, 200.0, flattened=True), [[7.0, 7 / 8]], atol=1e-5)


def test_the_reports_targets_are_scipys_smoothing_of_a_one():
    points = np.array([[3.2, 4.6], [0.4, 7.0], [5.0, 0.0], [30.0, 2.0]], np.float32)
    found = heatmaps.targets(jnp.asarray(points), 8, "report")
    kernel = np.exp(-0.5 * (np.mgrid[-1:2, -1:2] ** 2).sum(axis=0))
    for number, (x, y) in enumerate(np.round(points).astype(int)):
        one = np.zeros((8, 8))
        if x < 8:
            one[y, x] = 1.0
        wanted = ndimage.convolve(one, kernel / kernel.sum(), mode="constant")
        assert_allclose(found[number], wanted, atol=1e-6)
