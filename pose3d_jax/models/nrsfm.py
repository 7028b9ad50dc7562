"""Networks that factorise 2D points into a shape and a camera: non-rigid structure from motion.

Points are `rays.look`'s, about the root and in sizes of the pose; so are shapes. Every function
takes rows, one for each view.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST, axes_to_matrix, safe_divide, safe_norm
from pose3d_jax.models.layers import BATCH_AXIS, HE, NEAR_ZERO, BatchNorm, Dense


class Trunk(nn.Module):
    """An input layer and residual blocks of two, each dense, batch norm, ReLU."""

    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows features"], mask: Float[Array, "rows"], update: bool
    ) -> Float[Array, "rows width"]:
        """Rows whose mask is 0 leave the batch statistics alone."""

        def layer(x: Array) -> Array:
            x = Dense(self.width, dtype=self.dtype, kernel_init=HE)(x)
            return nn.relu(BatchNorm()(x, mask, update))

        x = layer(x)
        for _ in range(self.blocks):
            x = x + layer(layer(x))
        return x


class C3DPO(nn.Module):
    """The two networks and the linear basis of shapes of C3DPO.

    Novotny et al., "C3DPO: Canonical 3D Pose Networks for Non-Rigid Structure From Motion" (ICCV
    2019): equation 3 (shapes are `coefficients @ basis`), section 4 (canonicalisation). Rotations
    are two axes (Zhou et al.), theirs an exponential.

    Attributes:
      joints, root: number of joints, and index of the root, which stays at the origin.
      shapes: number of basis shapes.
      width, blocks: of both networks.
      dtype: what they compute in.
    """

    joints: int
    root: int
    shapes: int = 10
    cameras: int = 8
    width: int = 1024
    blocks: int = 2
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Parameters are below `factorisation`, `basis` and `canonicalisation`."""
        trunk = {"width": self.width, "blocks": self.blocks, "dtype": self.dtype}
        self.factorisation = Trunk(**trunk)
        self.canonicalisation = Trunk(**trunk)
        self.coefficients = Dense(self.shapes, kernel_init=NEAR_ZERO)
        self.canonical_coefficients = Dense(self.shapes, kernel_init=NEAR_ZERO)
        self.axes = Dense(
            6 * self.cameras,
            kernel_init=NEAR_ZERO,
            bias_init=lambda *_: _around_vertical(self.cameras).reshape(-1),
        )
        self.log_scale = Dense(1, kernel_init=NEAR_ZERO)
        size = (self.joints, 3)
        self.mean = self.param("mean", nn.initializers.normal(0.3), size)
        self.basis = self.param("basis", nn.initializers.normal(0.3), (self.shapes, *size))
        self.sign_errors = self.variable("batch_stats", "sign_errors", jnp.zeros, (2,))

    def __call__(
        self,
        relative: Float[Array, "rows joints 2"],
        where: Float[Array, "rows 1"],
        visible: Float[Array, "rows joints"],
        *,
        update: bool,
    ) -> tuple[Float[Array, "rows shapes"], Float[Array, "rows cameras 3 3"]]:
        """Coefficients of the shape, and cameras to choose from: rotations, times a scale."""
        if self.is_initializing():
            self.canonicalise(jnp.zeros((*relative.shape[:2], 3)), visible[:, 0], update=False)
        flat = relative.reshape(len(relative), -1)
        seen = visible.max(axis=-1)
        x = self.factorisation(jnp.concatenate([flat, where, visible], axis=-1), seen, update)
        x = x.astype(relative.dtype)
        rotation = axes_to_matrix(self.axes(x).reshape(len(x), self.cameras, 6))
        return self.coefficients(x), jnp.exp(self.log_scale(x))[..., None, None] * rotation

    def shape(self, coefficients: Float[Array, "rows shapes"]) -> Float[Array, "rows joints 3"]:
        """The canonical shape, its root at the origin."""
        shape = jnp.einsum("rk,kjc->rjc", coefficients, self.basis, precision=HIGHEST)
        shape = shape + self.mean[None]
        return shape - shape[:, self.root : self.root + 1]

    def deformation(self, coefficients: Float[Array, "rows shapes"]) -> Float[Array, "rows joints"]:
        """Squared distances of a shape's joints from those of the mean."""
        off = self.shape(coefficients) - self.shape(jnp.zeros_like(coefficients))
        return jnp.sum(off**2, axis=-1)

    def canonicalise(
        self, shape: Float[Array, "rows joints 3"], seen: Float[Array, "rows"], *, update: bool
    ) -> Float[Array, "rows joints 3"]:
        """The canonical shape of one that was turned."""
        x = self.canonicalisation(shape.reshape(len(shape), -1), seen, update)
        return self.shape(self.canonical_coefficients(x.astype(shape.dtype)))

    def sign(
        self,
        errors: Float[Array, "rows 2"] | None = None,
        weight: Float[Array, "rows"] | None = None,
    ) -> Float[Array, ""]:
        """1, or -1 where depths of the other sign fit the points better: of all that was seen.

        `errors` are of both signs, as they are and turned round; they are added to the running
        statistics, where given.
        """
        return _sign(self.sign_errors, errors, weight)


class Dictionaries(nn.Module):
    """Hierarchical block-sparse coding: points to codes and camera, and codes to the shape.

    Kong and Lucey, "Deep Non-Rigid Structure from Motion" (ICCV 2019), section 4: a shape is
    `D1 a1`, its code `a1 = D2 a2`, and so on, all sparse and not negative. Points are then `D1` and
    blocks, code times camera: each layer of the encoder is one step of block-sparse coding with the
    same dictionary, each layer of the decoder its way back. Blocks are shrunk by their norms (the
    authors' ReLU of their entries stands for that); the camera is made of two axes without an SVD.

    Attributes:
      joints, root: number of joints, and index of the root, which stays at the origin.
      cameras: to choose from, the shape being turned about its vertical first.
      sizes: of the dictionaries, from the shape's to the last code's.
      dtype: what codes are computed in.
    """

    joints: int
    root: int
    cameras: int = 8
    sizes: tuple[int, ...] = (128, 64, 32, 16)
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Parameters: dictionaries, thresholds there and back, and what reads the last blocks."""
        last = self.sizes[-1]
        lecun = nn.initializers.lecun_normal()

        def own(name: str, init: Any, *size: int) -> Array:
            return self.param(name, init, size).astype(self.dtype)

        shape = own("dictionary_0", lecun, self.joints * 3, self.sizes[0])
        self.shape_dictionary = shape.reshape(self.joints, 3, -1)
        self.dictionaries = [
            own(f"dictionary_{i + 1}", HE, *size)
            for i, size in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        ]
        zeros = nn.initializers.zeros
        self.there = [own(f"there_{i}", zeros, size) for i, size in enumerate(self.sizes)]
        self.back = [own(f"back_{i}", zeros, size) for i, size in enumerate(self.sizes[:-1])]
        self.code = Dense(last, dtype=self.dtype, kernel_init=HE)
        self.camera = Dense(1, use_bias=False)
        self.sign_errors = self.variable("batch_stats", "sign_errors", jnp.zeros, (2,))

    def __call__(
        self, relative: Float[Array, "rows joints 2"]
    ) -> tuple[Float[Array, "rows joints 3"], Float[Array, "rows cameras 3 3"]]:
        """The canonical shape, and cameras to choose from: rotations."""
        points = relative.astype(self.dtype)
        blocks = jnp.einsum("rjc,jak->rkac", points, self.shape_dictionary, precision=HIGHEST)
        blocks = _shrunk(blocks, self.there[0])
        for dictionary, threshold in zip(self.dictionaries, self.there[1:], strict=True):
            blocks = jnp.einsum("rkac,kl->rlac", blocks, dictionary, precision=HIGHEST)
            blocks = _shrunk(blocks, threshold)
        code = nn.relu(self.code(blocks.reshape(len(blocks), -1)))
        last = jnp.moveaxis(blocks, 1, -1).astype(relative.dtype)
        axes = self.camera(last)[..., 0]  # [rows, 3, 2]
        rotation = axes_to_matrix(jnp.swapaxes(axes, 1, 2).reshape(-1, 6))
        for dictionary, threshold in zip(self.dictionaries[::-1], self.back[::-1], strict=True):
            product = jnp.einsum("rl,kl->rk", code, dictionary, precision=HIGHEST)
            code = nn.relu(product - threshold[None])
        shape = jnp.einsum("rk,jak->rja", code, self.shape_dictionary, precision=HIGHEST)
        shape = shape.astype(relative.dtype)
        turns = axes_to_matrix(_around_vertical(self.cameras))
        cameras = jnp.einsum("rij,mjk->rmik", rotation, turns, precision=HIGHEST)
        return shape - shape[:, self.root : self.root + 1], cameras

    def sign(
        self,
        errors: Float[Array, "rows 2"] | None = None,
        weight: Float[Array, "rows"] | None = None,
    ) -> Float[Array, ""]:
        """See `C3DPO.sign`."""
        return _sign(self.sign_errors, errors, weight)


class Offsets(nn.Module):
    """A trunk that says where each joint lies, in sizes of the pose: aside, and how deep."""

    joints: int
    width: int = 1024
    blocks: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        relative: Float[Array, "rows joints 2"],
        where: Float[Array, "rows 1"],
        visible: Float[Array, "rows joints"],
        *,
        update: bool,
    ) -> Float[Array, "rows joints 3"]:
        """From what `rays.look` gives."""
        flat = jnp.concatenate([relative.reshape(len(relative), -1), where, visible], axis=-1)
        x = Trunk(self.width, self.blocks, self.dtype)(flat, visible.max(axis=-1), update)
        x = x.astype(relative.dtype)
        # Layers of their own: where every joint is seen, aside is never asked for.
        depth = Dense(self.joints, kernel_init=NEAR_ZERO)(x)[..., None]
        aside = Dense(2 * self.joints, kernel_init=NEAR_ZERO)(x).reshape(*depth.shape[:-1], 2)
        return jnp.concatenate([aside, depth], axis=-1)


def _shrunk(
    blocks: Float[Array, "rows codes 3 2"], threshold: Float[Array, "codes"]
) -> Float[Array, "rows codes 3 2"]:
    """Blocks made shorter by their thresholds, to 0: the proximal step of the sum of norms."""
    size = safe_norm(blocks.reshape(*blocks.shape[:2], -1))
    kept = nn.relu(size - threshold[None])
    return blocks * safe_divide(kept, size)[..., None, None]


def _sign(
    stored: nn.Variable,
    errors: Float[Array, "rows 2"] | None,
    weight: Float[Array, "rows"] | None,
) -> Float[Array, ""]:
    if errors is not None and weight is not None:
        total = jax.lax.psum(jnp.sum(errors * weight[:, None], axis=0), BATCH_AXIS)
        count = jnp.maximum(jax.lax.psum(jnp.sum(weight), BATCH_AXIS), 1.0)
        stored.value = 0.99 * stored.value + 0.01 * total / count
    return jnp.where(stored.value[1] < stored.value[0], -1.0, 1.0)


def _around_vertical(cameras: int) -> Float[Array, "cameras 6"]:
    """The first two rows of rotations about the image's vertical, all around."""
    angle = jnp.arange(cameras) * (2 * jnp.pi / cameras)
    c, s, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.stack([c, zero, s, zero, one, zero], axis=-1)
