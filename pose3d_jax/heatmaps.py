"""Points as pictures and back: heatmaps, and where they say that a point is."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST, safe_divide


def render(
    points: Float[Array, "*batch joints 2"], size: tuple[int, int], sigma: float
) -> Float[Array, "*batch joints height width"]:
    """A Gaussian of height 1 about each point (Tompson et al., NeurIPS 2014, section 2.1).

    Args:
      points: (x, y) in cells, origin at the centre of the top-left one; they may lie outside.
      size: cells, height and width.
      sigma: cells, of the Gaussian.
    """

    def along(place: Float[Array, "*some"], cells: int) -> Float[Array, "*some cells"]:
        centres = jnp.arange(cells, dtype=place.dtype).reshape(*[1] * place.ndim, cells)
        return jnp.exp(-0.5 * ((centres - place[..., None]) / sigma) ** 2)

    height, width = size
    x, y = along(points[..., 0], width), along(points[..., 1], height)
    return y[..., :, None] * x[..., None, :]


def expected(
    heatmaps: Float[Array, "*batch joints height width"],
) -> Float[Array, "*batch joints 2"]:
    """The mean place (x, y), in cells, of each heatmap taken as shares; 0 for an empty one.

    Of a softmax's output this is the integral of Sun et al., "Integral Human Pose Regression"
    (ECCV 2018), eq. 3, also named soft-argmax.
    """
    height, width = heatmaps.shape[-2:]
    total = jnp.sum(heatmaps, axis=(-2, -1))
    x = jnp.matmul(jnp.sum(heatmaps, axis=-2), jnp.arange(width, dtype=heatmaps.dtype),
                   precision=HIGHEST)  # fmt: skip
    y = jnp.matmul(jnp.sum(heatmaps, axis=-1), jnp.arange(height, dtype=heatmaps.dtype),
                   precision=HIGHEST)  # fmt: skip
    return jnp.stack([safe_divide(x, total), safe_divide(y, total)], axis=-1)
