"""Divergences, bounds and experts against SciPy, closed forms and a model of known evidence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate, stats

from pose3d_jax import bounds

RNG = np.random.default_rng(0)


def moments(*shape):
    mean, log_variance = RNG.normal(size=shape), RNG.uniform(-2, 2, size=shape)
    return jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32)


@settings(deadline=None, max_examples=20)
@given(st.floats(-3, 3), st.floats(-4, 3))
def test_the_divergence_is_its_integral(mean, log_variance):
    q = stats.norm(mean, np.exp(log_variance / 2))

    def integrand(z):
        return q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z))

    low, high = q.mean() - 12 * q.std(), q.mean() + 12 * q.std()
    expected, _ = integrate.quad(integrand, low, high, limit=200)
    found = bounds.kl_divergence(jnp.float32([mean]), jnp.float32([log_variance]))
    assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_free_bits_leave_what_is_below_them_without_a_gradient():
    divergence = jnp.array([[0.1, 2.0], [0.3, 4.0], [9.0, 9.0]])
    weight = jnp.array([1.0, 1.0, 0.0])
    free = lambda d: jnp.sum(bounds.free_bits(d, weight, 0.5) * weight)  # noqa: E731
    assert_allclose(free(divergence), (0.5 + 2.0) + (0.5 + 4.0))
    assert_allclose(jax.grad(free)(divergence), [[0, 1], [0, 1], [0, 0]])
    assert_allclose(bounds.free_bits(divergence, weight, 0.0), divergence.sum(axis=1))
    # Two devices with a row each: the mean is over both.
    split = jax.vmap(lambda d, w: bounds.free_bits(d, w, 0.25, "rows"), axis_name="rows")
    rows = jnp.array([[[0.1]], [[0.3]]]), jnp.ones((2, 1))
    assert_allclose(split(*rows), [[0.25], [0.25]])


def test_the_log_density_is_scipy_s():
    mean, log_variance = moments(4, 3)
    value = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    expected = stats.norm(mean, np.exp(np.asarray(log_variance) / 2)).logpdf(value).sum(axis=-1)
    assert_allclose(bounds.log_normal(value, mean, log_variance), expected, rtol=1e-5)


def gaussian_model(samples, q_mean, q_log_variance, seed=0):
    """x = z + noise, z and noise N(0, 1): log p(x = 1.5, z) - log q(z) of draws from a q."""
    x = 1.5
    noise = jax.random.normal(jax.random.key(seed), (samples, 1))
    z = q_mean + jnp.exp(q_log_variance / 2) * noise
    likelihood = bounds.log_normal(jnp.full_like(z, x), z, jnp.zeros_like(z))
    prior = bounds.log_normal(z, jnp.zeros_like(z), jnp.zeros_like(z))
    each = jnp.full_like(z, q_log_variance)
    return likelihood, prior - bounds.log_normal(z, jnp.full_like(z, q_mean), each)


EVIDENCE = stats.norm(0, np.sqrt(2)).logpdf(1.5)


def test_bounds_are_exact_where_q_is_the_posterior():
    likelihood, ratio = gaussian_model(8, 0.75, jnp.log(0.5))
    assert_allclose(likelihood + ratio, EVIDENCE, atol=1e-5)
    assert_allclose(bounds.importance_weighted(likelihood + ratio), EVIDENCE, atol=1e-5)


def test_more_samples_bring_the_bound_up_to_the_evidence():
    """Burda et al., theorem 1; with one sample its mean is the ELBO's."""
    likelihood, ratio = gaussian_model(200_000, 0.0, 0.0)
    weight = likelihood + ratio
    mean_of = lambda k: jnp.mean(bounds.importance_weighted(weight.reshape(k, -1)))  # noqa: E731
    one, some, many = mean_of(1), mean_of(5), mean_of(500)
    exact = jnp.mean(likelihood)  # the ELBO: draws are from the prior, the divergence is 0
    assert_allclose(one, exact, atol=0.01)
    # E log N(x; z, 1) over z ~ N(0, 1), in closed form.
    assert_allclose(exact, -0.5 * (np.log(2 * np.pi) + 1.5**2 + 1), atol=0.01)
    assert one < some - 0.1 < many - 0.1 < EVIDENCE
    assert_allclose(many, EVIDENCE, atol=0.01)


@pytest.mark.parametrize("there", [(1, 1, 1), (1, 0, 1), (0, 0, 0)])
def test_a_product_of_experts_is_proportional_to_their_product(there):
    means, log_variances = moments(3, 2)
    mask = jnp.asarray(there, jnp.float32)
    mean, log_variance = bounds.product_of_experts(means, log_variances, mask)
    at = np.linspace(-3, 3, 7)[:, None] * np.ones(2)
    own = stats.norm(mean, np.exp(np.asarray(log_variance) / 2)).logpdf(at)
    product = stats.norm.logpdf(at)
    for expert in np.flatnonzero(there):
        scale = np.exp(np.asarray(log_variances[expert]) / 2)
        product = product + stats.norm(means[expert], scale).logpdf(at)
    off = own - product  # a constant, for each dimension
    assert_allclose(off - off[:1], 0.0, atol=2e-4)


@pytest.mark.parametrize("there", [(1, 1, 1), (0, 1, 0)])
def test_a_mixture_of_experts_is_their_mean_density(there):
    means, log_variances = moments(3, 2)
    value = jnp.asarray(RNG.normal(size=2), jnp.float32)
    mask = jnp.asarray(there, jnp.float32)
    found = bounds.mixture_of_experts(value, means, log_variances, mask)
    densities = [
        np.prod(stats.norm(means[i], np.exp(np.asarray(log_variances[i]) / 2)).pdf(value))
        for i in np.flatnonzero(there)
    ]
    assert_allclose(found, np.log(np.mean(densities)), rtol=1e-4)
