"""Normal equations of a clip: block tridiagonal in time, with a border of what all frames share."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax.cameras import Leaf
from pose3d_jax.geometry import HIGHEST
from pose3d_jax.solvers import inverse_of_chain, solve_chain
from pose3d_jax.triangulate import unknown

# Share of its diagonal by which a matrix is moved away from those that float32 calls singular.
_RIDGE = 1e-5


@struct.dataclass
class Normal:
    """Second and first derivatives of half a cost, of a clip's joints and what they share."""

    own: Leaf  # [T, 3 joints, 3 joints]
    before: Leaf  # [T, 3 joints, 3 joints] frame t with frame t - 1
    skip: Leaf  # [T, 3 joints] frame t with frame t - 2, a diagonal
    gradient: Leaf  # [T, 3 joints]
    border: Leaf  # [T, 3 joints, shared]
    corner: Leaf  # [shared, shared]
    corner_gradient: Leaf  # [shared]


def step(
    normal: Normal, damping: Float[Array, ""]
) -> tuple[Float[Array, "time joints 3"], Float[Array, "shared"]]:
    """Of the joints, metres, and of what they share: minus the inverse times the gradient.

    `damping` is the share by which the diagonal is raised first; see `levenberg_marquardt`.
    """
    frames, size = normal.gradient.shape
    diagonal, lower = _chain(normal, damping)
    right = jnp.concatenate([normal.border, -normal.gradient[..., None]], axis=-1)
    right = right.reshape(*diagonal.shape[:2], -1)
    solved = solve_chain(diagonal, lower, right)
    border, alone, joints = right[..., :-1], solved[..., :-1], solved[..., -1]
    shared = jnp.zeros_like(normal.corner_gradient)
    if shared.size:
        raised = normal.corner * (1 + damping * jnp.eye(shared.size, dtype=shared.dtype))
        pull = jnp.einsum("kib,ki->b", border, joints, precision=HIGHEST)
        schur = _schur(raised, border, alone)
        shared = jnp.linalg.solve(schur, -normal.corner_gradient - pull)
        joints = joints - jnp.matmul(alone, shared, precision=HIGHEST)
    return joints.reshape(frames, size // 3, 3), shared


def covariance(normal: Normal) -> Float[Array, "time joints 3 3"]:
    """Each joint's block of the inverse, m^2.

    What float32 cannot tell from nothing being known is known within `triangulate.ROOM`.
    """
    frames, size = normal.gradient.shape
    diagonal, lower = _chain(normal, jnp.asarray(_RIDGE))
    inverse = inverse_of_chain(diagonal, lower)
    if normal.corner_gradient.size:
        # What is not known of what they share is not known of the joints either.
        border = normal.border.reshape(*diagonal.shape[:2], -1)
        solved = solve_chain(diagonal, lower, border)
        schur = _schur(normal.corner, border, solved)
        inverse = inverse + jnp.matmul(
            solved, jnp.linalg.solve(schur[None], solved.swapaxes(1, 2)), precision=HIGHEST
        )
    per_block = diagonal.shape[-1] // 3
    index = np.arange(per_block)
    blocks = inverse.reshape(-1, per_block, 3, per_block, 3)[:, index, :, index]
    blocks = blocks.swapaxes(0, 1).reshape(frames, size // 3, 3, 3)
    return jnp.where(
        jnp.isfinite(blocks).all(axis=(-2, -1), keepdims=True), blocks, unknown(blocks)
    )


def _schur(corner: Array, border: Array, solved: Array) -> Array:
    return corner - jnp.einsum("kia,kib->ab", border, solved, precision=HIGHEST)


def _chain(normal: Normal, damping: Array) -> tuple[Array, Array]:
    """The joints' part as a block tridiagonal matrix with two frames in a block."""
    size = normal.gradient.shape[-1]
    diagonal = jnp.diagonal(normal.own, axis1=1, axis2=2)
    own = normal.own + (damping * diagonal)[..., None] * jnp.eye(size)[None]
    skip = normal.skip[..., None] * jnp.eye(size)[None]
    within = normal.before[1::2]  # the second frame of a block with its first
    blocks = jnp.block([[own[0::2], within.swapaxes(1, 2)], [within, own[1::2]]])
    across = normal.before[0::2]  # the first frame of a block with the second of the one before
    lower = jnp.block([[skip[0::2], across], [jnp.zeros_like(across), skip[1::2]]])
    return blocks, lower
