"""What variational methods minimise: divergences, bounds on the evidence, experts put together.

Gaussians are diagonal, given by mean and log variance over the last axis. In nats.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Moments = tuple[Float[Array, "*batch latent"], Float[Array, "*batch latent"]]


def kl_divergence(
    mean: Float[Array, "*batch latent"], log_variance: Float[Array, "*batch latent"]
) -> Float[Array, "*batch latent"]:
    """KL(N(mean, variance) || N(0, 1)), dimension by dimension.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (ICLR 2014), appendix B.
    """
    return 0.5 * (jnp.exp(log_variance) + mean**2 - 1.0 - log_variance)


def free_bits(
    divergence: Float[Array, "*batch latent"],
    weight: Float[Array, "*batch"],
    least: float,
    axis_name: str | None = None,
) -> Float[Array, "*batch"]:
    """The divergence summed over dimensions, of which each counts `least` nats on average or more.

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (NeurIPS 2016),
    eq. 15: a dimension whose mean over the weighted batch (over the devices of `axis_name`, too) is
    less has no gradient, so that it need not be given up.
    """
    total = jnp.sum(divergence * weight[..., None], axis=tuple(range(divergence.ndim - 1)))
    count = jnp.sum(weight)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    mean = total / jnp.maximum(count, 1e-12)
    enough = (mean > least).reshape(*[1] * (divergence.ndim - 1), -1)
    return jnp.sum(jnp.where(enough, divergence, least), axis=-1)


def log_normal(
    value: Float[Array, "*batch latent"],
    mean: Float[Array, "*batch latent"],
    log_variance: Float[Array, "*batch latent"],
) -> Float[Array, "*batch"]:
    """Log density of a diagonal Gaussian, summed over its dimensions."""
    square = (value - mean) ** 2 * jnp.exp(-log_variance)
    return -0.5 * jnp.sum(square + log_variance + jnp.log(2 * jnp.pi), axis=-1)


def importance_weighted(
    log_weight: Float[Array, "samples *batch"],
) -> Float[Array, "*batch"]:
    """log of the mean over the samples of p(x, z) / q(z | x), given its logs.

    Burda et al., "Importance Weighted Autoencoders" (ICLR 2016), eq. 8; with one sample the ELBO.
    """
    return jax.nn.logsumexp(log_weight, axis=0) - jnp.log(log_weight.shape[0])


def product_of_experts(
    means: Float[Array, "experts *batch latent"],
    log_variances: Float[Array, "experts *batch latent"],
    there: Float[Array, "experts *batch"],
) -> Moments:
    """The Gaussian proportional to N(0, I) times those of the experts that are there.

    Wu and Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning" (NeurIPS
    2018), section 2.2. Without any it is N(0, I).
    """
    precision = there[..., None] * jnp.exp(-log_variances)
    total = 1.0 + jnp.sum(precision, axis=0)
    return jnp.sum(precision * means, axis=0) / total, -jnp.log(total)


def mixture_of_experts(
    value: Float[Array, "*batch latent"],
    means: Float[Array, "experts *batch latent"],
    log_variances: Float[Array, "experts *batch latent"],
    there: Float[Array, "experts *batch"],
) -> Float[Array, "*batch"]:
    """Log density of the equal mixture of the experts that are there.

    Shi et al., "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models"
    (NeurIPS 2019), section 3.
    """
    each = jax.vmap(log_normal, in_axes=(None, 0, 0))(value, means, log_variances)
    count = jnp.maximum(jnp.sum(there, axis=0), 1.0)
    known = jnp.where(there > 0, each, -jnp.inf)
    return jax.nn.logsumexp(known, axis=0) - jnp.log(count)
