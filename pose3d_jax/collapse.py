"""Whether predictions have collapsed: depths that are flat or alike, or that fly apart.

What a method that has no 3D labels can fall into without its losses telling: a body without depth,
one and the same depths for every image, or depths without bound. No label is needed to see it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.geometry import safe_divide
from pose3d_jax.losses import Term

# Relief within which depths are taken for those of people seen from all around. On CMU-MV the
# labels themselves have 1.1.
FLAT, TORN = 0.25, 4.0


def relief(
    joints: Float[Array, "*views joints 3"],
    weight: Float[Array, "*views"],
    root: int,
    axis_name: str | None = None,
) -> Term:
    """Variance of the joints' depths over that of their widths, as a sum and what to divide it by.

    Of camera-frame joints about their root, over the views that `weight` counts (and the devices
    of `axis_name`), each joint about its own mean. About 1 for people who are seen from all around;
    0 where depths are flat, or the same whatever is seen.
    """
    offsets = (joints - joints[..., root : root + 1, :]).reshape(-1, joints.shape[-2], 3)
    weight = weight.reshape(-1, 1, 1)
    total, count = jnp.sum(weight * offsets, axis=0, keepdims=True), jnp.sum(weight)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    mean = safe_divide(total, jnp.broadcast_to(count, total.shape))
    squares = jnp.sum(weight * (offsets - mean) ** 2, axis=(0, 1))
    return squares[2], squares[0]


def check(
    joints: Float[Array, "*views joints 3"], weight: Float[Array, "*views"], root: int
) -> dict[str, Any]:
    """The relief of a split's predictions, and a verdict: `none`, `flat` or `torn`.

    What is not finite is torn. Of poses without widths (all joints in one place, as a method has
    them that says where a person is and no more) or without views neither can be said: no entry.
    """
    depth, width = map(float, jax.jit(relief, static_argnums=2)(joints, weight, root))
    if width == 0.0:
        return {}
    found = depth / width
    verdict = "flat" if found < FLAT else "none" if found <= TORN else "torn"  # and so for NaN
    return {"relief": found, "verdict": verdict}
