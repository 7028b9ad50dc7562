"""Bounds on the evidence of several modalities, each of which may be missing.

A modality has a decoder of what all share and of what is its own, p(x_m | z, w_m), with z and every
w_m from N(0, I), and an encoder that gives q(z | x_m), its expert on z, and q(w_m | x_m). Moments
are those of diagonal Gaussians; in nats.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pose3d_jax import bounds
from pose3d_jax.bounds import Moments


class Experts(NamedTuple):
    """What the encoders say, one after the other along the first axis."""

    shared: Moments  # [modalities, *batch, shared] q(z | x_m)
    private: Moments  # [modalities, *batch, private] q(w_m | x_m)
    there: Float[Array, "modalities *batch"]  # 1 where the modality is


# log p(x_m | z, w_m) by the number of the modality, for several draws `[draws, *batch, ...]`.
Likelihood = Callable[[int, Array, Array], Float[Array, "draws *batch"]]


def draw(moments: Moments, noise: Float[Array, "draws *batch latent"]) -> Array:
    """Draws of a Gaussian by their normal noise, so that gradients reach its moments."""
    mean, log_variance = moments
    return mean[None] + jnp.exp(log_variance / 2)[None] * noise


def product(experts: Experts, chosen: Float[Array, "modalities *batch"]) -> Moments:
    """q(z | the modalities that are chosen and there): see `bounds.product_of_experts`."""
    return bounds.product_of_experts(*experts.shared, chosen * experts.there)


def from_mixture(
    experts: Experts, chosen: Float[Array, "modalities *batch"], key: Key[Array, ""], draws: int
) -> Float[Array, "draws *batch shared"]:
    """Draws of z from the mixture of experts that are chosen and there, each in its turn.

    So every one of them gives as many draws as any other (but for a remainder); from N(0, I) where
    there is none.
    """
    known = chosen * experts.there
    count = jnp.sum(known, axis=0)
    turn = jnp.cumsum(known, axis=0) - 1
    number = jnp.arange(draws, dtype=known.dtype).reshape(-1, *[1] * count.ndim)
    now = jnp.mod(number, jnp.maximum(count, 1.0)[None])  # whose turn it is, [draws, *batch]
    mine = (known[None] > 0) & (turn[None] == now[:, None])  # [draws, modalities, *batch]
    noise = jax.random.normal(key, (draws, *experts.shared[0].shape[1:]))
    each = draw(experts.shared, jnp.broadcast_to(noise[:, None], (draws, *experts.shared[0].shape)))
    found = jnp.sum(jnp.where(mine[..., None], each, 0.0), axis=1)
    return jnp.where((count > 0)[None, ..., None], found, noise)


def subsampled_elbo(
    experts: Experts,
    log_likelihood: Likelihood,
    key: Key[Array, ""],
    random: int = 0,
    *,
    explain_all: bool = False,
) -> tuple[Float[Array, "subsets *batch"], Float[Array, "subsets modalities *batch"]]:
    """ELBOs of subsets of the modalities, z from the product of their experts, and the subsets.

    All together, each alone, and so many that lack one at random; each ELBO is of one draw. It is
    one of log p(what the subset holds and is there); their sum is the sub-sampled objective of Wu
    and Goodman (NeurIPS 2018), section 2.2, with parts of the latent that are a modality's own.
    With `explain_all` it is one of log p(all that is there), of which the subset sees only some:
    the modalities that it lacks have their own part from N(0, I), as in `stratified_bound` (compare
    Sutter et al., "Generalized Multimodal ELBO", ICLR 2021).
    """
    there = experts.there
    count, batch = there.shape[0], there.shape[1:]
    subset_key, key = jax.random.split(key)
    alone = jnp.eye(count).reshape(count, count, *[1] * len(batch))
    lacking = jax.random.randint(subset_key, (random, 1, *batch), 0, count)
    number = jnp.arange(count).reshape(1, count, *[1] * len(batch))
    parts = [
        jnp.ones_like(there)[None],
        jnp.broadcast_to(alone, (count, *there.shape)),
        (lacking != number).astype(there.dtype),
    ]
    chosen = jnp.concatenate(parts) * there[None]
    wanted = jnp.broadcast_to(there[None], chosen.shape) if explain_all else chosen
    wanted = wanted * chosen.max(axis=1, keepdims=True)

    mean, log_variance = jax.vmap(product, in_axes=(None, 0))(experts, chosen)
    # One call for all noise: each would be compiled by itself.
    private = experts.private[0].shape[-1]
    noise = jax.random.normal(key, (*mean.shape[:-1], mean.shape[-1] + count * private))
    z = mean + jnp.exp(log_variance / 2) * noise[..., : mean.shape[-1]]
    found = -jnp.sum(bounds.kl_divergence(mean, log_variance), axis=-1)
    for m in range(count):
        every = range(1 + count + random)
        subsets = jnp.array([n for n in every if explain_all or n in (0, 1 + m) or n > count])
        own = (experts.private[0][m], experts.private[1][m])
        first = mean.shape[-1] + m * private
        w = noise[subsets, ..., first : first + private]
        has, wants = chosen[subsets, m] > 0, wanted[subsets, m] > 0
        w = jnp.where(has[..., None], draw(own, w), w)
        cost = jnp.sum(bounds.kl_divergence(*own), axis=-1)[None]
        gain = log_likelihood(m, z[subsets], w) - jnp.where(has, cost, 0.0)
        found = found.at[subsets].add(jnp.where(wants, gain, 0.0))
    return found, chosen


def stratified_bound(
    experts: Experts, log_likelihood: Likelihood, key: Key[Array, ""], draws: int
) -> Float[Array, "modalities *batch"]:
    """Importance-weighted bounds on log p(all that is there), z from one expert after the other.

    The weights of an expert's draws are over the mixture of all experts, so that their mean over
    experts is an unbiased estimate of the evidence, and the mean of these bounds, which is what is
    maximised, a bound (Shi et al., NeurIPS 2019, section 3, the looser of two estimates: the other
    lets an expert go that explains less). A modality that z does not come from has its own part
    from N(0, I) (Palumbo et al., "MMVAE+", ICLR 2023, whose auxiliary priors are learnt). 0 for an
    expert that is not there.
    """
    there = experts.there
    count = there.shape[0]
    # Without any, all are taken to be there: what comes of it counts for nothing and is finite.
    known = jnp.where(jnp.sum(there, axis=0, keepdims=True) > 0, there, 1.0)
    # One call for all noise: each would be compiled by itself.
    shared, private = (x[0].shape[-1] for x in (experts.shared, experts.private))
    shape = (count, draws, *there.shape[1:], shared + count * private)
    noise = jax.random.normal(key, shape)
    z = jax.vmap(draw)(experts.shared, noise[..., :shared])  # [modalities, draws, *batch, shared]
    flat = z.reshape(count * draws, *z.shape[2:])
    mixture = jax.vmap(bounds.mixture_of_experts, in_axes=(0, None, None, None))
    zero = jnp.zeros_like(flat)
    log_weight = bounds.log_normal(flat, zero, zero) - mixture(flat, *experts.shared, known)
    log_weight = log_weight.reshape(z.shape[:-1])
    for m in range(count):
        every = noise[..., shared + m * private : shared + (m + 1) * private]
        own = (experts.private[0][m], experts.private[1][m])
        w = draw(own, every[m])
        every = every.at[m].set(w)
        gain = log_likelihood(m, flat, every.reshape(flat.shape[0], *w.shape[1:]))
        gain = jnp.where(known[m][None] > 0, gain, 0.0)
        log_weight = log_weight + gain.reshape(log_weight.shape)
        zero, each = jnp.zeros_like(w), (jnp.broadcast_to(x[None], w.shape) for x in own)
        ratio = bounds.log_normal(w, zero, zero) - bounds.log_normal(w, *each)
        log_weight = log_weight.at[m].add(ratio)
    found = jax.vmap(bounds.importance_weighted)(log_weight)
    return jnp.where(there > 0, found, 0.0)
