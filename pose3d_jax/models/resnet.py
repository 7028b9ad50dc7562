"""ResNet-50 v2: a frame's features from an image, and weights that users bring.

He et al., "Identity Mappings in Deep Residual Networks" (ECCV 2016), as TensorFlow's slim lays it
out, on which HMR and HMMR stand: a group's stride is in its last unit, biases are where no
normalisation follows. For features alone: normalisation is by the statistics that came with the
weights, and nothing is trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float

from pose3d_jax import sources
from pose3d_jax.models.layers import conv

FEATURES = 2048
UNITS = (3, 4, 6, 3)
_EPSILON = 1e-5
_PREFIX = "resnet_v2_50"


class Norm(nn.Module):
    """Normalisation by given statistics, then ReLU."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """See the class."""
        width = (x.shape[-1],)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        gamma, beta = self.param("gamma", ones, width), self.param("beta", zeros, width)
        mean = self.param("moving_mean", zeros, width)
        variance = self.param("moving_variance", ones, width)
        gain = gamma / jnp.sqrt(variance + _EPSILON)
        row = (1,) * (x.ndim - 1)
        offset = (beta - mean * gain).reshape(*row, -1)
        return nn.relu(x * gain.reshape(*row, -1).astype(x.dtype) + offset.astype(x.dtype))


class Unit(nn.Module):
    """A bottleneck: normalised first, then three convolutions, added to what came in."""

    width: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch h w out"]:
        """See the class."""
        ready = Norm(name="preact")(x)
        if x.shape[-1] == 4 * self.width:
            kept = x[:, :: self.stride, :: self.stride]
        else:
            kept = conv(4 * self.width, 1, self.stride, "shortcut", x.dtype, bias=True)(ready)
        y = conv(self.width, 1, 1, "conv1", x.dtype)(ready)
        y = conv(self.width, 3, self.stride, "conv2", x.dtype)(Norm(name="conv1_BatchNorm")(y))
        y = conv(4 * self.width, 1, 1, "conv3", x.dtype, bias=True)(Norm(name="conv2_BatchNorm")(y))
        return kept + y


class ResNet50(nn.Module):
    """Features of images."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch features"]:
        """Means over the image of the last layer.

        `images`: RGB in [-1, 1], people as in a crop of 224 pixels.
        """
        x = conv(64, 7, 2, "conv1", self.dtype, bias=True)(images.astype(self.dtype))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for group, units in enumerate(UNITS):
            for unit in range(units):
                last = unit == units - 1 and group < len(UNITS) - 1
                name = f"block{group + 1}_unit_{unit + 1}"
                x = Unit(64 * 2**group, 2 if last else 1, name=name)(x)
        return jnp.mean(Norm(name="postnorm")(x).astype(jnp.float32), axis=(1, 2))


def load(path: str | Path) -> dict[str, Any]:
    """The parameters of `ResNet50` out of an `.npz` with slim's names, one array for each variable.

    Such as a TensorFlow checkpoint's reader gives them: `resnet_v2_50/conv1/weights`,
    `resnet_v2_50/block1/unit_1/bottleneck_v2/preact/gamma`, with or without more before
    `resnet_v2_50`; other variables (an optimiser's, a classifier's) are left out.

    Raises `SourceError` for a file that cannot be read, lacks variables, or has them in another
    shape.
    """
    table = sources.load_npz(path)
    given: dict[str, Any] = {}
    for name, value in table.items():
        _, found, rest = name.partition(f"{_PREFIX}/")
        if found and rest in given:
            raise sources.SourceError(
                f"{path}: has {_PREFIX}/{rest} twice; give one network's variables"
            )
        if found:
            given[rest] = value
    made: dict[tuple[str, ...], np.ndarray] = {}
    for name, shape in _variables().items():
        value = sources.member(given, name, f"{path}, {_PREFIX}")
        made[_place(name)] = sources.array(value, shape, f"{path}, {name}").astype(np.float32)
    return unflatten_dict(made)


def _place(name: str) -> tuple[str, ...]:
    """Where a variable of slim stands among ours."""
    name = name.replace("/bottleneck_v2", "").replace("/unit_", "_unit_")
    *folder, leaf = name.replace("/BatchNorm", "_BatchNorm").split("/")
    return (*folder, {"weights": "kernel", "biases": "bias"}.get(leaf, leaf))


def _variables() -> Mapping[str, tuple[int, ...]]:
    """Every variable of slim's network that features take, and its shape."""
    found: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            found[f"{name}/{part}"] = (width,)

    def conv(name: str, size: int, before: int, after: int, *, bias: bool) -> None:
        found[f"{name}/weights"] = (size, size, before, after)
        if bias:
            found[f"{name}/biases"] = (after,)
        else:
            norm(f"{name}/BatchNorm", after)

    conv("conv1", 7, 3, 64, bias=True)
    before = 64
    for group, units in enumerate(UNITS):
        width = 64 * 2**group
        for unit in range(units):
            name = f"block{group + 1}/unit_{unit + 1}/bottleneck_v2"
            norm(f"{name}/preact", before)
            if before != 4 * width:
                conv(f"{name}/shortcut", 1, before, 4 * width, bias=True)
            conv(f"{name}/conv1", 1, before, width, bias=False)
            conv(f"{name}/conv2", 3, width, width, bias=False)
            conv(f"{name}/conv3", 1, width, 4 * width, bias=True)
            before = 4 * width
    norm("postnorm", before)
    return found
