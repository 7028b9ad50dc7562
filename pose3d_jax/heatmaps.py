"""Points as pictures and back: heatmaps, and where they say that a point is."""

import jax
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


def soft_argmax(
    heatmaps: Float[Array, "*batch joints height width"],
    temperature: float,
    *,
    flattened: bool = False,
) -> Float[Array, "*batch joints 2"]:
    """Where each heatmap is highest, (x, y) in cells: the mean place under a softmax.

    "Distilling 3D Human Pose from a Single Image" (ETH report), equation 2; then Sun et al. (ECCV
    2018), eq. 3, or, `flattened`, the report's equations 3 to 5: the mean number tau of the cells
    row by row, x its remainder by the width and y its quotient. That is the same where all is in
    one cell (but for y, which x over the width is added to); where two rows have a share, x is
    anything.

    `temperature`: its inverse, what heatmaps are multiplied by.
    """
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.reshape(*heatmaps.shape[:-2], height * width)
    shares = jax.nn.softmax(temperature * flat, axis=-1)
    if not flattened:
        return expected(shares.reshape(heatmaps.shape))
    number = jnp.matmul(shares, jnp.arange(height * width, dtype=shares.dtype), precision=HIGHEST)
    return jnp.stack([jnp.mod(number, width), number / width], axis=-1)


def targets(
    points: Float[Array, "*batch joints 2"], size: int, kind: str
) -> Float[Array, "*batch joints size size"]:
    """What heatmaps of so many cells to a side should be, for points in cells.

    `kind`: "gaussian" (of height 1 and standard deviation 1 about the point), or "report": 1 in the
    cell that the point is in, smoothed by a Gaussian of 3 x 3 cells whose weights add up to 1.
    """
    if kind == "gaussian":
        return render(points, (size, size), 1.0)
    cell = jnp.round(points)
    near = jnp.abs(jnp.arange(size, dtype=points.dtype)[None] - cell.reshape(-1, 1)) <= 1
    near = near.reshape(*cell.shape, size)
    total = 1 + 2 * jnp.exp(-0.5)
    whole = render(cell, (size, size), 1.0) / total**2
    return whole * near[..., 1, :, None] * near[..., 0, None, :]
