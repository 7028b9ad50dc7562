"""Networks that factorise 2D points into a shape and a camera: non-rigid structure from motion.

Points are `rays.look`'s, about the root and in sizes of the pose; so are shapes. Every function
takes rows, one for each view.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pose3d_jax.geometry import HIGHEST, axes_to_matrix
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
        self.axes = Dense(6 * self.cameras, kernel_init=NEAR_ZERO, bias_init=_around)
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
        if errors is not None and weight is not None:
            total = jax.lax.psum(jnp.sum(errors * weight[:, None], axis=0), BATCH_AXIS)
            count = jnp.maximum(jax.lax.psum(jnp.sum(weight), BATCH_AXIS), 1.0)
            self.sign_errors.value = 0.99 * self.sign_errors.value + 0.01 * total / count
        errors = self.sign_errors.value
        return jnp.where(errors[1] < errors[0], -1.0, 1.0)


def _around(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Array:
    """The first two rows of rotations about the image's vertical, all around."""
    del key
    angle = jnp.arange(shape[0] // 6, dtype=dtype) * (12 * jnp.pi / shape[0])
    c, s, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.stack([c, zero, s, zero, one, zero], axis=-1).reshape(shape)
