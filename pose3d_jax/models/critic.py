"""Critics of 2D and 3D poses, and the networks that they teach; none has a batch norm, so that what
a critic says of one pose does not depend on others (its gradient penalty is of single poses).

They compute in `dtype`, but for what they say at last, which is of the type of what they are shown,
as their parameters are."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose3d_jax.geometry import HIGHEST
from pose3d_jax.models.layers import HE, NEAR_ZERO, Dense
from pose3d_jax.skeleton import Skeleton


class Residual(nn.Module):
    """A dense layer and residual blocks of two, leaky, without normalisation.

    The lifter of Martinez et al. (ICCV 2017) as Wandt and Rosenhahn (CVPR 2019) have it.
    """

    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*rows features"]) -> Float[Array, "*rows width"]:
        """Features to as many as the network is wide, in the type of `x`."""
        rows = x.reshape(-1, x.shape[-1])

        def layer(x: Array) -> Array:
            return nn.leaky_relu(Dense(self.width, dtype=self.dtype, kernel_init=HE)(x), 0.2)

        y = layer(rows)
        for _ in range(self.blocks):
            y = y + layer(layer(y))
        return y.astype(x.dtype).reshape(*x.shape[:-1], self.width)


class Regressor(nn.Module):
    """Features to numbers that are near zero at first."""

    outputs: int
    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*rows features"]) -> Float[Array, "*rows outputs"]:
        """See the class."""
        y = Residual(self.width, self.blocks, self.dtype)(x)
        return Dense(self.outputs, kernel_init=NEAR_ZERO)(y)


class Critic(nn.Module):
    """One number for what it is shown: the larger, the more like the data."""

    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*rows features"]) -> Float[Array, "*rows"]:
        """See the class."""
        return Dense(1)(Residual(self.width, self.blocks, self.dtype)(x))[..., 0]


class BoneCritic(nn.Module):
    """A critic of 3D poses with two ways in, joints and kinematic chain space.

    Wandt and Rosenhahn, "RepNet" (CVPR 2019), section 3.3.
    """

    skeleton: Skeleton
    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, joints: Float[Array, "*rows joints 3"]) -> Float[Array, "*rows"]:
        """Poses of about unit size to one number each."""
        chain = kinematic_chain_space(joints, self.skeleton)
        above = np.triu_indices(chain.shape[-1])  # it is symmetric
        net = {"width": self.width, "blocks": self.blocks, "dtype": self.dtype}
        bones = Residual(**net)(chain[..., above[0], above[1]])
        pose = Residual(**net)(joints.reshape(*joints.shape[:-2], -1))
        joined = jnp.concatenate([bones, pose], axis=-1)
        both = nn.leaky_relu(Dense(self.width // 4, kernel_init=HE)(joined), 0.2)
        return Dense(1)(both)[..., 0]


class BodyCritic(nn.Module):
    """A factorised critic of bodies: of each joint's rotation, of all together, and of the shape.

    Kanazawa et al., "End-to-end Recovery of Human Shape and Pose" (CVPR 2018), section 3.3: that of
    the whole pose sees the features that those of the joints have, which share their first layers.
    The root's rotation is not judged: people may face any way.

    Attributes:
      width: of the critic of the whole pose.
      dtype: what the network computes in.
    """

    width: int = 1024
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        rotations: Float[Array, "*rows joints 3 3"],
        shape: Float[Array, "*rows components"],
    ) -> Float[Array, "*rows critics"]:
        """A number for each joint but the root, then that of the pose, then that of the shape."""

        def layer(x: Array, width: int) -> Array:
            return nn.leaky_relu(Dense(width, dtype=self.dtype, kernel_init=HE)(x), 0.2)

        rows = rotations.shape[:-3]
        each = rotations[..., 1:, :, :].reshape(*rows, -1, 9)
        features = layer(layer(each, 32), 32)
        own = self.param("joints", HE, (each.shape[-2], 32))
        offset = self.param("offsets", nn.initializers.zeros, (each.shape[-2],))
        joints = jnp.sum(features * jnp.broadcast_to(own, features.shape), axis=-1)
        joints = joints + jnp.broadcast_to(offset, joints.shape)
        whole = Dense(1)(layer(layer(features.reshape(*rows, -1), self.width), self.width))
        body = Dense(1)(layer(layer(shape, 10), 5))
        return jnp.concatenate([joints, whole, body], axis=-1).astype(rotations.dtype)


def kinematic_chain_space(
    joints: Float[Array, "*rows joints 3"], skeleton: Skeleton
) -> Float[Array, "*rows bones bones"]:
    """Inner products of a pose's bones, square units: their squared lengths on the diagonal.

    Wandt and Rosenhahn, "RepNet" (CVPR 2019), section 3.3: B = X C with a matrix C that takes
    differences of joints along bones, and psi = B^T B. Bones in the order of `Skeleton.bones`.
    """
    parents, children = np.array(skeleton.bones).T
    bones = joints[..., children, :] - joints[..., parents, :]
    return jnp.einsum("...bi,...ci->...bc", bones, bones, precision=HIGHEST)
