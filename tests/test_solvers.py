"""Solvers against NumPy's dense algebra, closed forms and a famous valley."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose
from scipy.stats import ortho_group

from pose3d_jax.solvers import (
    inverse3,
    inverse_of_chain,
    levenberg_marquardt,
    solve3,
    solve_chain,
)

EPS = np.finfo(np.float32).eps
SIZE, COLUMNS = 3, 2  # of a chain's blocks, and of its right-hand sides
invert = jax.jit(inverse3)
solve = jax.jit(solve3)


def f32(array):
    return jnp.asarray(np.asarray(array, np.float32))


# ------------------------------------------------------------------------------------- minimisation


def gauss_newton(residual):
    """The model of a sum of squares, of a dictionary of numbers, for `levenberg_marquardt`."""

    def model(unknowns, _):
        flat, unravel = ravel_pytree(unknowns)
        function = lambda x: residual(unravel(x))  # noqa: E731
        jacobian, value = jax.jacfwd(function)(flat), function(flat)

        def cost(unknowns):
            return jnp.sum(residual(unknowns) ** 2)

        def propose(damping):
            normal = jacobian.T @ jacobian
            normal = normal + damping * jnp.diag(jnp.diag(normal))
            return unravel(flat - jnp.linalg.solve(normal, jacobian.T @ value))

        return cost, propose

    return model


def rosenbrock(at):
    return jnp.stack([10 * (at["y"] - at["x"] ** 2), 1 - at["x"]])


@jax.jit
def descend(start, steps):
    """Where so many steps lead down Rosenbrock's valley: one program for any number of them."""
    return levenberg_marquardt(gauss_newton(rosenbrock), start, steps)


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.floats(-3, 3))
@example(-1.456011651404351, 3.0)  # where programs of 2 and of 4 steps differ by rounding
def test_rosenbrock_never_gets_worse(x, y):
    start = {"x": jnp.float32(x), "y": jnp.float32(y)}
    found = [descend(start, steps) for steps in (0, 1, 2, 4, 8, 100)]
    x, y = (np.array([at[axis] for at in found], np.float64) for axis in "xy")
    costs = (10 * (y - x**2)) ** 2 + (1 - x) ** 2
    # By how much float32's cost errs: its first residual is 10 times a difference of large numbers.
    rounding = 2 * EPS * (np.sqrt(costs) * 10 * (np.abs(y) + x**2) + costs)
    assert np.all(costs[1:] <= costs[:-1] + rounding[1:] + rounding[:-1])


# Not from everywhere in so few steps: the valley is long.
@pytest.mark.parametrize(("x", "y"), [(-1.2, 1.0), (2.0, -2.0), (0.0, 0.0)])
def test_rosenbrock_is_solved(x, y):
    found = descend({"x": jnp.float32(x), "y": jnp.float32(y)}, 100)
    assert_allclose([found["x"], found["y"]], 1.0, atol=1e-3)


def test_an_undamped_step_solves_linear_least_squares():
    rng = np.random.default_rng(0)
    matrix, target = rng.standard_normal((10, 4)), rng.standard_normal(10)
    a, b = f32(matrix), f32(target)
    model = gauss_newton(lambda at: jnp.matmul(a, at["x"], precision="highest") - b)
    found = levenberg_marquardt(model, {"x": jnp.zeros(4)}, steps=1, damping=0.0)
    assert_allclose(found["x"], np.linalg.lstsq(matrix, target)[0], atol=1e-5)


def test_a_step_that_is_nan_is_not_taken():
    never = lambda at, _: (lambda x: x**2, lambda damping: jnp.nan * at)  # noqa: E731
    assert levenberg_marquardt(never, jnp.float32(3.0), steps=5) == 3.0
    # NaN until the damping has grown from 1e-4 to 1e-1, which takes three refused steps.
    late = lambda at, _: (lambda x: x**2, lambda d: jnp.where(d < 0.05, jnp.nan, at / 2))  # noqa: E731
    assert levenberg_marquardt(late, jnp.float32(3.0), steps=3) == 3.0
    assert levenberg_marquardt(late, jnp.float32(3.0), steps=4) == 1.5
    # And so is none from where the cost is NaN.
    lost = lambda at, _: (lambda x: x**2, lambda damping: jnp.float32(1.0))  # noqa: E731
    assert np.isnan(levenberg_marquardt(lost, jnp.float32(np.nan), steps=2))


def test_the_model_knows_its_step():
    model = lambda at, i: (lambda x: -x, lambda damping: at + i)  # noqa: E731
    assert levenberg_marquardt(model, jnp.float32(0.0), steps=5) == 0 + 1 + 2 + 3 + 4


# ------------------------------------------------------------------------------------- 3 x 3


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 10_000),
    st.tuples(*[st.floats(-1.5, 1.5)] * 3),
    st.floats(-15, 15),
)
def test_inverse_of_a_positive_definite_matrix_matches_numpy(seed, spread, scale):
    axes = ortho_group.rvs(3, random_state=seed)
    eigenvalues = 10.0 ** (scale + np.array(spread))
    matrix = np.asarray(axes * eigenvalues @ axes.T, np.float32)
    right = np.random.default_rng(seed).standard_normal(3).astype(np.float32)
    expected = np.linalg.inv(matrix.astype(np.float64))
    accurate = 10 * EPS * max(eigenvalues) / min(eigenvalues) * np.linalg.norm(expected, 2)
    assert_allclose(invert(f32(matrix)), expected, atol=accurate, rtol=0)
    assert_allclose(solve(f32(matrix), f32(right)), expected @ right, atol=4 * accurate, rtol=0)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_inverse_of_a_singular_matrix_is_large(rank, scale):
    for seed in range(50):
        axes = ortho_group.rvs(3, random_state=seed)
        matrix = f32(scale * axes[:, :rank] @ axes[:, :rank].T)
        inverse = np.asarray(invert(matrix), np.float64)
        assert np.isfinite(inverse).all()
        assert np.isfinite(solve(matrix, jnp.ones(3))).all()
        unknown, diagonal = axes[:, rank:], max(float(jnp.trace(matrix)) / 3, 1e-30)
        assert np.linalg.eigvalsh(unknown.T @ inverse @ unknown).min() > 1e6 / diagonal
        # But no larger for one unknown direction than for another.
        if rank == 2:
            assert np.linalg.eigvalsh(inverse).max() < 1e8 / diagonal


def test_gradient_of_an_inverse_is_finite_at_singular_matrices():
    gradient_at = jax.jit(jax.grad(lambda a: jnp.sum(inverse3(a))))
    for diagonal in ([1e-12, 1e-12, 1e-12], [1, 0, 0], [0, 1, 1], [1, 1e-12, 1]):
        gradient = gradient_at(jnp.diag(f32(diagonal)))
        assert np.isfinite(gradient).all(), diagonal


# ------------------------------------------------------------------------------------- chains


def chain(blocks, seed=0):
    """A well-conditioned chain as (diagonal, lower), with `lower[0]` NaN, and as a dense matrix."""
    rng = np.random.default_rng(seed)
    shape = (blocks, SIZE, blocks, SIZE)
    factor = np.zeros(shape)
    for k in range(blocks):
        factor[k, :, k] = np.tril(rng.standard_normal((SIZE, SIZE)), -1)
        factor[k, :, k] += np.diag(rng.uniform(1, 2, SIZE))
        if k:
            factor[k, :, k - 1] = 0.5 * rng.standard_normal((SIZE, SIZE))
    factor = factor.reshape(blocks * SIZE, -1)
    dense = (factor @ factor.T).reshape(shape)
    diagonal = np.stack([dense[k, :, k] for k in range(blocks)])
    lower = np.stack([dense[k, :, k - 1] if k else np.full((SIZE, SIZE), np.nan)
                      for k in range(blocks)])  # fmt: skip
    return f32(diagonal), f32(lower), dense.reshape(blocks * SIZE, -1)


@pytest.mark.parametrize("blocks", range(1, 7))
def test_chain_matches_dense_algebra(blocks):
    """Of three chains at a time, by `vmap`."""
    diagonal, lower, dense = zip(*[chain(blocks, seed) for seed in range(3)], strict=True)
    right = np.random.default_rng(1).standard_normal((3, blocks, SIZE, COLUMNS)).astype(np.float32)
    solved = jax.vmap(solve_chain)(jnp.stack(diagonal), jnp.stack(lower), f32(right))
    inverse = jax.vmap(inverse_of_chain)(jnp.stack(diagonal), jnp.stack(lower))
    for i in range(3):
        expected = np.linalg.solve(dense[i], right[i].reshape(-1, COLUMNS))
        scale = np.abs(np.linalg.inv(dense[i])).max()
        assert_allclose(solved[i].reshape(-1, COLUMNS), expected, atol=1e-5 * scale)
        whole = np.linalg.inv(dense[i]).reshape(blocks, SIZE, blocks, SIZE)
        expected = np.stack([whole[k, :, k] for k in range(blocks)])
        assert_allclose(inverse[i], expected, atol=1e-5 * scale)


@pytest.mark.parametrize("at", [0, 2, 5])
def test_chain_that_is_not_positive_definite_is_nan(at):
    diagonal, lower, _ = chain(6)
    diagonal = diagonal.at[at, 1, 1].add(-1000.0)
    assert np.isnan(solve_chain(diagonal, lower, jnp.ones((6, SIZE, COLUMNS)))).all()
    assert np.isnan(inverse_of_chain(diagonal, lower)).all()
