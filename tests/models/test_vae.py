"""Networks over joints: against flax's own convolution, and what a graph's layers reach."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax.models import vae
from pose3d_jax.skeleton import get

RNG = np.random.default_rng(0)
H36M = get("h36m17")


@pytest.mark.parametrize("over_time", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_dense_layer_of_neighbourhoods_is_a_convolution(frames, over_time):
    x = jnp.asarray(RNG.normal(size=(2, frames, 17, 4)), jnp.float32)
    height = 3 if over_time else 1
    kernel = jnp.asarray(RNG.normal(size=(height, 3, 4, 6)), jnp.float32)
    conv = nn.Conv(6, (height, 3), use_bias=False, precision="highest")
    expected = conv.apply({"params": {"kernel": kernel}}, x)
    found = jnp.matmul(vae._neighbourhood(x, over_time), kernel.reshape(-1, 6), precision="highest")
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_neighbours_are_the_other_ends_of_bones():
    near = vae._neighbours(H36M)
    assert_allclose(near.sum(axis=1), 1.0)
    pairs = {(a, b) for a, b in zip(*np.nonzero(near), strict=True)}
    assert pairs == {p for a, b in H36M.bones for p in ((a, b), (b, a))}


def trunk(kind, blocks, over_time=False):
    made = vae.Trunk(kind, H36M, width=64, blocks=blocks, over_time=over_time)
    joints = jnp.asarray(RNG.normal(size=(2, 3, 17, 4)), jnp.float32)
    more, mask = jnp.ones((2, 3, 2)), jnp.ones((2, 3))
    variables = made.init(jax.random.key(0), joints, more, mask, False)
    run = jax.jit(lambda x: made.apply(variables, x, more, mask, False))
    return run, joints


@pytest.mark.parametrize("kind", vae.KINDS)
def test_what_a_frame_s_features_depend_on(kind):
    """Dense and graph: on their frame alone. Convolutions over time: on those beside it, too."""
    run, joints = trunk(kind, blocks=0, over_time=kind == "convolution")
    changed = joints.at[:, 2].add(1.0)
    first, other = run(joints), run(changed)
    assert first.shape == (2, 3, 64)
    assert_allclose(first[:, 0], other[:, 0], atol=1e-6)
    alone = np.allclose(first[:, 1], other[:, 1], atol=1e-6)
    assert alone == (kind != "convolution")
    assert not np.allclose(first[:, 2], other[:, 2])
