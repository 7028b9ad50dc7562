"""Second-order minimisation, and the linear systems that it leads to."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pose3d_jax.geometry import HIGHEST

Unknowns = TypeVar("Unknowns")
Cost: TypeAlias = Callable[[Unknowns], Float[Array, ""]]
Propose: TypeAlias = Callable[[Float[Array, ""]], Unknowns]

_LEAST_DAMPING, _MOST_DAMPING = 1e-7, 1e7


def levenberg_marquardt(
    model: Callable[[Unknowns, Int[Array, ""]], tuple[Cost, Propose]],
    start: Unknowns,
    steps: int | Int[Array, ""],
    damping: float = 1e-4,
) -> Unknowns:
    """What `steps` damped Gauss-Newton steps make of `start`.

    `model(unknowns, i)` is what is minimised near `unknowns` in step `i`, with what stays fixed in
    the step (robust weights, say) taken from there: its cost, and what `propose(damping)` gives as
    the unknowns after a step; damping 0 is Gauss-Newton's. A step that does not bring that cost
    down, or is not finite, is not taken, and the next is damped ten times more; else ten times
    less. Levenberg (1944), Marquardt (1963), in a fixed number of steps, so that `vmap` waits for
    nothing.
    """

    def step(i: Array, carry: Any) -> Any:
        unknowns, damping = carry
        cost, propose = model(unknowns, i)
        candidate = propose(damping)
        better = cost(candidate) <= cost(unknowns)  # False for NaN
        unknowns = jax.tree.map(lambda a, b: jnp.where(better, a, b), candidate, unknowns)
        damping = jnp.where(better, damping / 10, damping * 10)
        return unknowns, jnp.clip(damping, _LEAST_DAMPING, _MOST_DAMPING)

    carry = (start, jnp.asarray(damping, jnp.float32))
    return jax.lax.fori_loop(0, steps, step, carry)[0]


def solve3(matrix: Float[Array, "3 3"], right: Float[Array, "3"]) -> Float[Array, "3"]:
    """`matrix^-1 right` for a positive definite matrix, written out: it fuses under `vmap`."""
    return jnp.sum(inverse3(matrix) * right[None, :], axis=-1)


def inverse3(matrix: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Inverse of a positive definite matrix, from `factor3`."""
    rows, pivots = factor3(matrix)
    return jnp.sum(rows[:, :, None] * rows[:, None, :] / pivots[:, None, None], axis=0)


def factor3(matrix: Float[Array, "3 3"]) -> tuple[Float[Array, "3 3"], Float[Array, "3"]]:
    """R and d with R A R^T = diag(d): Cholesky's L^-1 and pivots, written out.

    So A^-1 = R^T diag(1/d) R. Pivots are held at a ten-millionth of the mean of the diagonal: a
    matrix that float32 cannot tell from a singular one has a large inverse, not an infinite one.
    """
    scale = jnp.maximum(jnp.trace(matrix) / 3, 1e-30)
    a = matrix / scale
    tiny = 1e-7
    d0 = jnp.maximum(a[0, 0], tiny)
    l10, l20 = a[1, 0] / d0, a[2, 0] / d0
    d1 = a[1, 1] - l10 * a[1, 0]
    known = d1 > tiny * (1 + l10 * l10)
    d1 = jnp.maximum(d1, tiny)
    l21 = (a[2, 1] - l20 * a[1, 0]) / d1
    corner = l10 * l21 - l20
    # The last pivot is v^T A v of the last row v of L^-1, which is long where what is unknown lies
    # across the last axis: with v^T v it is held alike for any direction.
    least = jnp.where(known, tiny * (1 + l21 * l21 + corner * corner), tiny)
    d2 = jnp.maximum(a[2, 2] - l20 * a[2, 0] - l21 * l21 * d1, least)
    zero, one = jnp.zeros_like(d0), jnp.ones_like(d0)
    rows = [
        jnp.stack([one, zero, zero]),
        jnp.stack([-l10, one, zero]),
        jnp.stack([corner, -l21, one]),
    ]
    return jnp.stack(rows), scale * jnp.stack([d0, d1, d2])


def solve_chain(
    diagonal: Float[Array, "blocks size size"],
    lower: Float[Array, "blocks size size"],
    right: Float[Array, "blocks size columns"],
) -> Float[Array, "blocks size columns"]:
    """`A^-1 right` for a symmetric positive definite, block tridiagonal A.

    `diagonal[k]` is A's block (k, k) and `lower[k]` its block (k, k - 1); `lower[0]` is not read.
    Block elimination (the Thomas algorithm, with Cholesky's factors): memory and time grow with the
    number of blocks. NaN where A is not positive definite in float32.
    """
    _, coupling, reduced = _eliminate(diagonal, lower, right)

    def back(after: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        coupling, reduced = block
        found = reduced - jnp.matmul(coupling, after, precision=HIGHEST)
        return found, found

    start = jnp.zeros_like(right[0])
    return jax.lax.scan(back, start, (coupling, reduced), reverse=True)[1]


def inverse_of_chain(
    diagonal: Float[Array, "blocks size size"], lower: Float[Array, "blocks size size"]
) -> Float[Array, "blocks size size"]:
    """The blocks (k, k) of the inverse of `solve_chain`'s A.

    The recursion of Rauch, Tung & Striebel's smoother (AIAA Journal 1965) for its covariances.
    """
    size = diagonal.shape[-1]
    identity = jnp.broadcast_to(jnp.eye(size, dtype=diagonal.dtype), diagonal.shape)
    alone, coupling, _ = _eliminate(diagonal, lower, identity[..., :0])

    def back(after: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        alone, coupling = block
        spread = jnp.matmul(coupling, after, precision=HIGHEST)
        inverse = jax.scipy.linalg.cho_solve((alone, True), jnp.eye(size, dtype=alone.dtype))
        found = inverse + jnp.matmul(spread, coupling.T, precision=HIGHEST)
        return found, found

    return jax.lax.scan(back, jnp.zeros_like(diagonal[0]), (alone, coupling), reverse=True)[1]


def _eliminate(diagonal: Array, lower: Array, right: Array) -> tuple[Array, Array, Array]:
    """Forward elimination: per block the Cholesky factor of what is left of the diagonal, that
    inverse times the coupling to the next block, and times what is left of the right-hand side."""
    size = diagonal.shape[-1]
    next_lower = jnp.concatenate([lower[1:], jnp.zeros_like(lower[:1])])

    def step(before: tuple[Array, Array], block: tuple[Array, ...]) -> Any:
        coupling, reduced = before
        diagonal, lower, next_lower, right = block
        left = diagonal - jnp.matmul(lower, coupling, precision=HIGHEST)
        factor = jnp.linalg.cholesky(left, symmetrize_input=False)
        right = right - jnp.matmul(lower, reduced, precision=HIGHEST)
        solved = jax.scipy.linalg.cho_solve(
            (factor, True), jnp.concatenate([next_lower.T, right], 1)
        )
        coupling, reduced = solved[:, :size], solved[:, size:]
        return (coupling, reduced), (factor, coupling, reduced)

    zero = jnp.zeros_like(lower[0])
    start = (zero, jnp.zeros_like(right[0]))
    lower = lower.at[0].set(0.0)
    return jax.lax.scan(step, start, (diagonal, lower, next_lower, right))[1]
