"""HRNet: heatmaps of joints from an image, at a quarter of its resolution, and public weights.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation" (CVPR 2019):
convolutions at several resolutions side by side, which tell each other what they found, over and
over. Modules are named as in the public checkpoints, numbers of lists joined by `_`.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Real

from pose3d_jax import sources, tensors
from pose3d_jax.models.layers import BatchNorm, conv, rectified

STRIDE = 4  # pixels of the image to one of a heatmap
COARSEST = 32  # pixels to a cell of the coarsest resolution: sides are multiples of it
# Of ImageNet, by which images of the public weights are normalised: RGB in [0, 1].
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HEATMAPS = nn.initializers.normal(1e-3)  # as published
_BOTTLENECK = 4  # widths of a unit of the first stage in to one out


def normalised(
    pixels: Real[Array, "batch height width 3"],
) -> Float[Array, "batch height width 3"]:
    """RGB of 0 to 255 as the public weights' images are."""
    mean, deviation = (np.array(x, np.float32).reshape(1, 1, 1, 3) for x in (MEAN, DEVIATION))
    return (pixels.astype(jnp.float32) / 255 - mean) / deviation


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a network is; each further resolution is as wide again."""

    width: int  # of the finest resolution
    stem: int = 64
    first: int = 4  # units of the first stage
    modules: tuple[int, ...] = (1, 4, 3)  # exchanges of the stages with 2, 3, 4 resolutions
    units: int = 4  # residual units at each resolution between two exchanges

    @property
    def coarsest(self) -> int:
        """Width of the coarsest resolution."""
        return self.width * 2 ** len(self.modules)


SIZES = {
    "w32": Size(32),
    "w48": Size(48),
    "tiny": Size(16, stem=16, first=0, modules=(1, 1, 2), units=1),
}


@dataclasses.dataclass(frozen=True)
class _How:
    """How normalisation runs: of which images, and whether by the batch's statistics."""

    there: Float[Array, "batch"]
    update: bool
    dtype: Any

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        width: int,
        size: int,
        names: tuple[str, str],
        *,
        stride: int = 1,
        relu: bool = True,
    ) -> Float[Array, "batch h w out"]:
        """A convolution and its normalisation, inside of a module."""
        x = conv(width, size, stride, names[0], self.dtype)(x)
        mask = jnp.broadcast_to(self.there[:, None, None], x.shape[:3])
        x = BatchNorm(name=names[1])(x, mask, self.update)
        return rectified(x) if relu else x


class Bottleneck(nn.Module):
    """Three convolutions, the middle one narrow, added to what came in."""

    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], how: _How
    ) -> Float[Array, "batch height width out"]:
        """See the class."""
        y = how(x, self.width, 1, ("conv1", "bn1"))
        y = how(y, self.width, 3, ("conv2", "bn2"))
        out = _BOTTLENECK * self.width
        y = how(y, out, 1, ("conv3", "bn3"), relu=False)
        if x.shape[-1] != out:
            x = how(x, out, 1, ("downsample_0", "downsample_1"), relu=False)
        return rectified(x + y)


class Basic(nn.Module):
    """Two convolutions, added to what came in."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], how: _How
    ) -> Float[Array, "batch height width channels"]:
        """See the class."""
        width = x.shape[-1]
        y = how(x, width, 3, ("conv1", "bn1"))
        return rectified(x + how(y, width, 3, ("conv2", "bn2"), relu=False))


class Exchange(nn.Module):
    """Residual units at each resolution, and then all resolutions into each.

    Attributes:
      units: of each resolution.
      out: how many resolutions, the finest first, are made.
    """

    units: int
    out: int

    @nn.compact
    def __call__(self, branches: tuple[Array, ...], how: _How) -> tuple[Array, ...]:
        """Images `[batch, height, width, channels]`, the finest first, each half the one before."""
        found = []
        for branch, x in enumerate(branches):
            for unit in range(self.units):
                x = Basic(name=f"branches_{branch}_{unit}")(x, how)
            found.append(x)
        return tuple(self._fused(found, to, how) for to in range(self.out))

    def _fused(
        self, found: list[Array], to: int, how: _How
    ) -> Float[Array, "batch height width channels"]:
        """The sum of what each resolution tells the one numbered `to`."""
        width = found[to].shape[-1]
        total = jnp.zeros_like(found[to])
        for number, x in enumerate(found):
            name = f"fuse_layers_{to}_{number}"
            if number > to:
                x = how(x, width, 1, (f"{name}_0", f"{name}_1"), relu=False)
                x = _larger(x, 2 ** (number - to))
            for k in range(to - number):
                last = k == to - number - 1
                names = (f"{name}_{k}_0", f"{name}_{k}_1")
                x = how(x, width if last else x.shape[-1], 3, names, stride=2, relu=not last)
            total = total + x
        return rectified(total)


def _larger(
    x: Float[Array, "batch height width channels"], times: int
) -> Float[Array, "batch h w channels"]:
    """Every pixel as a square of so many."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, times, width, times, channels))
    return x.reshape(batch, height * times, width * times, channels)


class Seen(NamedTuple):
    """What the network makes of images."""

    fine: Float[Array, "batch height width out"]  # a quarter of their resolution
    # The mean over the image of the coarsest resolution, before it tells the others for the last
    # time: what an image shows as a whole.
    coarse: Float[Array, "batch features"]


class HRNet(nn.Module):
    """An image's features at a quarter of its resolution, and a heatmap for each joint.

    Attributes:
      joints: heatmaps; 0 for features alone.
      size: see `SIZES`.
      dtype: what the network computes in.
    """

    joints: int
    size: Size = SIZES["w32"]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        there: Float[Array, "batch"],
        *,
        update_statistics: bool,
    ) -> Seen:
        """Heatmaps of images, whose sides are multiples of 32.

        `images`: see `normalised`. `there`: 0 for images that have no part in
        the batch's statistics.
        """
        how, size = _How(there, update_statistics, self.dtype), self.size
        x = images.astype(self.dtype)
        x = how(x, size.stem, 3, ("conv1", "bn1"), stride=2)
        x = how(x, size.stem, 3, ("conv2", "bn2"), stride=2)
        for unit in range(size.first):
            x = Bottleneck(size.stem, name=f"layer1_{unit}")(x, how)
        branches: tuple[Array, ...] = (x,)
        for number, modules in enumerate(size.modules):
            branches = self._more(branches, number + 1, how)
            for module in range(modules):
                # Nothing looks at what the last one tells the coarser resolutions.
                end = number == len(size.modules) - 1 and module == modules - 1
                coarse = branches[-1]
                name = f"stage{number + 2}_{module}"
                branches = Exchange(size.units, 1 if end else len(branches), name=name)(
                    branches, how
                )
        x = branches[0]
        if self.joints:
            head = conv(self.joints, 1, 1, "final_layer", self.dtype, bias=True, start=_HEATMAPS)
            x = head(x)
        return Seen(x, jnp.mean(coarse, axis=(1, 2)))

    def _more(self, branches: tuple[Array, ...], number: int, how: _How) -> tuple[Array, ...]:
        """The resolutions there are, in their widths, and one more that the coarsest makes."""
        made = []
        for branch in range(len(branches) + 1):
            width, name = self.size.width * 2**branch, f"transition{number}_{branch}"
            if branch == len(branches):
                x = how(branches[-1], width, 3, (f"{name}_0_0", f"{name}_0_1"), stride=2)
            elif branches[branch].shape[-1] != width:
                x = how(branches[branch], width, 3, (f"{name}_0", f"{name}_1"))
            else:
                x = branches[branch]
            made.append(x)
        return tuple(made)


# ----------------------------------------------------------------------------------- public weights

_LEAVES = {"bias": "bias", "mean": "running_mean", "var": "running_var"}  # others: weight
# What networks of this name have beside what is built here: counters, and heads of classifiers.
_LEFT_OUT = re.compile(
    r"(.*\.)?num_batches_tracked|(incre_modules|downsamp_modules|final_layer_cls|classifier)\..*"
)


def load(path: str | Path, network: HRNet) -> dict[str, Any]:
    """The variables of a network out of a PyTorch checkpoint in the public naming.

    A file as `tensors.load` reads it, with or without `module.` or `backbone.` before every name.
    A `final_layer` is left out if `network` has no joints.

    Raises `SourceError` for a file that cannot be read, and for tensors that are missing, left
    over, or of another shape, by name.
    """
    return convert(tensors.load(path), network, str(path))


def convert(given: Mapping[str, Any], network: HRNet, where: str) -> dict[str, Any]:
    """See `load`; of tensors by name."""
    for prefix in ("module.", "backbone."):
        if given and all(name.startswith(prefix) for name in given):
            given = {name.removeprefix(prefix): value for name, value in given.items()}
    image = jax.ShapeDtypeStruct((1, 2 * COARSEST, 2 * COARSEST, 3), jnp.float32)
    there = jax.ShapeDtypeStruct((1,), jnp.float32)
    like = jax.eval_shape(
        functools.partial(network.init, update_statistics=False), jax.random.key(0), image, there
    )
    wanted = {_public(path): (path, leaf.shape) for path, leaf in flatten_dict(like).items()}
    over = [name for name in given if name not in wanted and not _LEFT_OUT.fullmatch(name)]
    if not network.joints:
        over = [name for name in over if not name.startswith("final_layer.")]
    # The last exchange of networks for other purposes makes all resolutions.
    last = f"stage{len(network.size.modules) + 1}.{network.size.modules[-1] - 1}.fuse_layers."
    over = [name for name in over if not re.match(re.escape(last) + "[1-9]", name)]
    missing = [name for name in wanted if name not in given]
    for names, fault in ((missing, "lacks"), (over, "has, beside what this network takes,")):
        if names:
            raise sources.SourceError(
                f"{where}: {fault} {', '.join(sorted(names)[:5])} ({len(names)} in all); give the "
                f"weights of a network of this size, in the public naming"
            )
    made = {}
    for name, (path, shape) in wanted.items():
        kernel = path[-1] == "kernel"
        expected = (shape[3], shape[2], shape[0], shape[1]) if kernel else shape
        value = sources.array(given[name], expected, f"{where}, {name}").astype(np.float32)
        made[path] = value.transpose(2, 3, 1, 0) if kernel else value
    return unflatten_dict(made)


def _public(path: tuple[str, ...]) -> str:
    """The public name of a variable: `stage2_0/branches_1_0/conv1` is `stage2.0.branches.1.0`..."""
    _, *modules, leaf = path
    names = [re.sub(r"_(\d+)", r".\1", module) for module in modules]
    return ".".join([*names, _LEAVES.get(leaf, "weight")])
