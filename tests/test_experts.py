"""Bounds on the evidence of two modalities, of a linear model whose evidence is known.

x_m = a_m z + b_m w_m + noise of standard deviation s_m, all normal.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, special, stats

from pose3d_jax import bounds, experts
from pose3d_jax.experts import Experts

A, S, X = np.array([1.0, -0.7]), np.array([0.5, 0.8]), np.array([1.2, 0.4])
REPEATS = 20_000


def log_evidence(chosen, b):
    """log p(x) of the modalities that are chosen."""
    chosen = np.asarray(chosen, bool)
    covariance = np.outer(A, A) + np.diag(b**2 + S**2)
    within = covariance[np.ix_(chosen, chosen)]
    return stats.multivariate_normal(np.zeros(chosen.sum()), within).logpdf(X[chosen])


def likelihood(b, x=X):
    def log_p(m, z, w):
        mean = A[m] * z + b[m] * w
        spread = jnp.full_like(mean, 2 * np.log(S[m]))
        return bounds.log_normal(jnp.full_like(mean, x[m]), mean, spread)

    return log_p


def moments(mean, deviation, repeats=REPEATS):
    """Of both modalities, for as many rows."""
    shape = (2, repeats, 1)
    as_rows = lambda x: jnp.broadcast_to(jnp.float32(x)[:, None, None], shape)  # noqa: E731
    return as_rows(np.asarray(mean)), as_rows(2 * np.log(np.asarray(deviation)))


def exact(b, repeats=REPEATS):
    """Experts as the likelihoods are in z: their product with N(0, 1) is p(z | x)."""
    shared = moments(X / A, np.sqrt(S**2 + b**2) / np.abs(A), repeats)
    private = moments([0.0, 0.0], [1.0, 1.0], repeats)
    return Experts(shared, private, jnp.ones((2, repeats)))


def wrong(repeats=REPEATS):
    shared = moments([0.5, 0.2], [0.6, 0.9], repeats)
    private = moments([0.3, -0.2], [0.8, 0.7], repeats)
    return Experts(shared, private, jnp.ones((2, repeats)))


SUBSAMPLED = jax.jit(experts.subsampled_elbo, static_argnums=(1, 3))
STRATIFIED = jax.jit(experts.stratified_bound, static_argnums=(1, 3))


def test_the_sub_sampled_elbo_is_the_evidence_of_every_subset_where_experts_are_exact():
    none = np.zeros(2)
    found, chosen = SUBSAMPLED(exact(none), likelihood(none), jax.random.key(0), 1)
    assert found.shape == (4, REPEATS)
    assert_allclose(chosen[:3, :, 0], [[1, 1], [1, 0], [0, 1]])
    for subset in range(3):
        expected = log_evidence(chosen[subset, :, 0], none)
        assert_allclose(found[subset].mean(), expected, atol=0.03)
    # Random subsets lack one.
    kinds = np.asarray(chosen[3].T @ np.array([1, 2])).astype(int)
    assert_allclose(np.bincount(kinds) / REPEATS, [0, 0.5, 0.5], atol=0.02)
    for kind, subset in ((1, [1, 0]), (2, [0, 1])):
        mean = found[3][kinds == kind].mean()
        assert_allclose(mean, log_evidence(subset, none), atol=0.06)


def test_the_sub_sampled_elbo_is_below_the_evidence_where_experts_are_wrong():
    b = np.array([0.6, 0.3])
    found, chosen = SUBSAMPLED(wrong(), likelihood(b), jax.random.key(0), 0)
    below = [log_evidence(c[:, 0], b) - f.mean() for c, f in zip(chosen, found, strict=True)]
    assert min(below) > 0.02
    # E log p(x | z, w) less both divergences, in closed form, of the first modality alone.
    mean, variance = experts.product(wrong(1), jnp.float32([[1], [0]]))
    mean, variance = float(mean[0, 0]), float(np.exp(variance[0, 0]))
    off = X[0] - A[0] * mean - b[0] * 0.3
    spread = A[0] ** 2 * variance + b[0] ** 2 * 0.8**2
    gain = -0.5 * ((off**2 + spread) / S[0] ** 2 + np.log(2 * np.pi * S[0] ** 2))
    cost = [0.5 * (v + m**2 - 1 - np.log(v)) for m, v in ((mean, variance), (0.3, 0.8**2))]
    assert_allclose(found[1].mean(), gain - sum(cost), atol=0.03)


def test_a_subset_that_explains_all_has_a_bound_on_the_evidence_of_all():
    b = np.array([0.6, 0.3])
    elbo = functools.partial(experts.subsampled_elbo, explain_all=True)
    elbo = jax.jit(elbo, static_argnums=(1, 3))
    found, _ = elbo(exact(np.zeros(2)), likelihood(np.zeros(2)), jax.random.key(0), 0)
    whole = log_evidence([1, 1], np.zeros(2))
    assert_allclose(found[0].mean(), whole, atol=0.03)
    # What the second modality would have told is missing: KL(q(z | x_1) || p(z | x)).
    exactly = [
        experts.product(exact(np.zeros(2), 1), jnp.float32(c)) for c in ([[1], [0]], [[1]] * 2)
    ]
    (m1, v1), (m2, v2) = ((float(m[0, 0]), float(np.exp(v[0, 0]))) for m, v in exactly)
    missing = 0.5 * (v1 / v2 + (m1 - m2) ** 2 / v2 - 1 - np.log(v1 / v2))
    assert_allclose(found[1].mean(), whole - missing, atol=0.04)
    found, _ = elbo(wrong(), likelihood(b), jax.random.key(0), 1)
    assert np.max(found.mean(axis=1)) < log_evidence([1, 1], b) - 0.02
    # Given one alone, the other's own part is from N(0, 1), as z is from the first's product.
    mean, variance = experts.product(wrong(1), jnp.float32([[1], [0]]))
    mean, variance = float(mean[0, 0]), float(np.exp(variance[0, 0]))
    gains = []
    for m, (own, deviation) in enumerate(((0.3, 0.8), (0.0, 1.0))):
        off = X[m] - A[m] * mean - b[m] * own
        spread = A[m] ** 2 * variance + b[m] ** 2 * deviation**2
        gains.append(-0.5 * ((off**2 + spread) / S[m] ** 2 + np.log(2 * np.pi * S[m] ** 2)))
    cost = [0.5 * (v + m**2 - 1 - np.log(v)) for m, v in ((mean, variance), (0.3, 0.8**2))]
    assert_allclose(found[1].mean(), sum(gains) - sum(cost), atol=0.04)


def quadrature(expert, known):
    """log of the integral of q_m(z) p(z) p(x | z) / q(z | x) over z, without private parts."""
    shared = jax.tree.map(lambda x: np.asarray(x)[:, 0, 0], known.shared)
    q = [stats.norm(m, np.exp(v / 2)) for m, v in zip(*shared, strict=True)]

    def integrand(z):
        log_p = stats.norm.logpdf(z) + stats.norm(A * z, S).logpdf(X).sum()
        log_q = special.logsumexp([one.logpdf(z) for one in q]) - np.log(2)
        return np.exp(q[expert].logpdf(z) + log_p - log_q)

    return np.log(integrate.quad(integrand, -8, 8, limit=200)[0])


def test_the_stratified_bound_is_its_integral_and_its_mean_the_evidence():
    none, known = np.zeros(2), wrong(4)
    known = known._replace(private=moments([0.0, 0.0], [1.0, 1.0], 4))
    found = STRATIFIED(known, likelihood(none), jax.random.key(0), 20_000)
    expected = [quadrature(expert, known) for expert in range(2)]
    assert_allclose(found.mean(axis=1), expected, atol=0.02)
    evidence = special.logsumexp(expected) - np.log(2)
    assert_allclose(evidence, log_evidence([1, 1], none), atol=1e-4)


def test_the_mean_of_the_stratified_weights_is_the_evidence_with_private_parts():
    b = np.array([0.6, 0.3])
    found = STRATIFIED(wrong(4), likelihood(b), jax.random.key(0), 50_000)
    evidence = special.logsumexp(found, axis=0) - np.log(2)
    assert_allclose(evidence.mean(), log_evidence([1, 1], b), atol=0.03)


def test_stratified_bounds_are_below_the_evidence_and_rise_with_their_draws():
    b = np.array([0.6, 0.3])
    few, many = (
        STRATIFIED(wrong(5_000), likelihood(b), jax.random.key(0), draws).mean() for draws in (1, 8)
    )
    assert few + 0.05 < many < log_evidence([1, 1], b)


@pytest.mark.parametrize("name", ["product", "product that explains all", "mixture"])
def test_what_is_hidden_changes_nothing(name):
    b = np.array([0.6, 0.3])

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def bound(mean, x, there):
        known = wrong(2)
        shared = (known.shared[0].at[1].set(mean), known.shared[1])
        private = (shared[0] / 2, known.private[1])
        known = Experts(shared, private, jnp.broadcast_to(there[:, None], (2, 2)))
        log_p, key = likelihood(b, x), jax.random.key(0)
        if name.startswith("product"):
            whole = name.endswith("all")
            found, _ = experts.subsampled_elbo(known, log_p, key, 1, explain_all=whole)
        else:
            found = experts.stratified_bound(known, log_p, key, 3)
        return jnp.sum(found)

    one, none = jnp.float32([1, 0]), jnp.zeros(2)
    shown, _ = bound(0.3, jnp.float32(X), one)
    other, (mean_slope, x_slope) = bound(7.0, jnp.float32([X[0], -9.0]), one)
    assert_allclose(other, shown, rtol=1e-6)
    assert mean_slope == 0
    assert x_slope[1] == 0 != x_slope[0]
    # Of a row without any there is nothing, and it is finite.
    nothing, slopes = bound(0.3, jnp.float32(X), none)
    assert nothing == 0
    assert not any(np.any(slope) for slope in slopes)


def test_the_mixture_draws_from_its_experts_in_turn():
    known = wrong(3)
    known = known._replace(
        shared=moments([-50.0, 50.0], [1.0, 1.0], 3),
        there=jnp.float32([[1, 1, 0], [1, 0, 0]]),
    )
    found = experts.from_mixture(known, jnp.ones((2, 3)), jax.random.key(0), 400)[..., 0]
    assert (found[:, 0] > 0).mean() == 0.5
    assert (found[:, 1] < -40).all()
    assert_allclose([found[:, 2].mean(), found[:, 2].std()], [0, 1], atol=0.1)
    assert_allclose(found[:, 1].std(), 1.0, atol=0.1)
