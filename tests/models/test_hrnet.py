"""HRNet against timm's numbers, its published size, and files of weights."""

import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy.testing import assert_allclose, assert_array_equal

from pose3d_jax.models import hrnet
from pose3d_jax.models.hrnet import SIZES, HRNet
from pose3d_jax.models.layers import rectified
from pose3d_jax.sources import SourceError
from tests.oracles import timm_hrnet

ORACLE = Path(timm_hrnet.__file__).with_name("timm_hrnet_w32.npz")


def public():
    """Tensors in the public naming, as timm's network has them."""
    found = {}
    for line in np.load(ORACLE)["shapes"].tolist():
        name, _, numbers = line.partition(":")
        shape = tuple(int(n) for n in numbers.split(",") if n)
        found[name] = timm_hrnet.weight(name, shape) if shape else np.array(0)
    return found


def test_the_fine_branch_is_that_of_timm(tmp_path):
    given = public()
    np.savez(tmp_path / "w.npz", **{f"backbone.{name}": value for name, value in given.items()})
    network = HRNet(0)
    variables = hrnet.load(tmp_path / "w.npz", network)
    images = jnp.asarray(timm_hrnet.image().transpose(0, 2, 3, 1))
    apply = jax.jit(network.apply, static_argnames="update_statistics")
    found = apply(variables, images, jnp.ones(1), update_statistics=False).fine
    expected = np.load(ORACLE)["fine"].transpose(0, 2, 3, 1)
    assert_allclose(found[..., ::4], expected, atol=1e-4 * np.abs(expected).max())


def shapes(size, joints=17, sides=(256, 192)):
    network = HRNet(joints, SIZES[size])
    images = jax.ShapeDtypeStruct((1, *sides, 3), jnp.float32)
    there = jax.ShapeDtypeStruct((1,), jnp.float32)
    init = lambda *x: network.init(*x, update_statistics=False)  # noqa: E731
    return network, jax.eval_shape(init, jax.random.key(0), images, there), images, there


def multiply_adds(network, variables, *given):
    """Of its convolutions."""
    found = []

    def count(call, arguments, settings, context):
        made = call(*arguments, **settings)
        if isinstance(context.module, nn.Conv):
            patch = math.prod(context.module.kernel_size) * arguments[0].shape[-1]
            found.append(patch * made.size)
        return made

    with nn.intercept_methods(count):
        jax.eval_shape(lambda *x: network.apply(*x, update_statistics=False), variables, *given)
    return sum(found)


@pytest.mark.parametrize(("size", "parameters", "work"), [("w32", 28.5, 7.1), ("w48", 63.6, 14.6)])
def test_sizes_are_the_published(size, parameters, work):
    """Sun et al., table 1, at 256 x 192; their script divides multiply-adds by 2**30."""
    network, variables, *given = shapes(size)
    found = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert round(found / 1e6, 1) == parameters
    assert round(multiply_adds(network, variables, *given) / 2**30, 1) == work


def test_rectified_is_relu_of_finite_numbers():
    x = jnp.asarray([-3.0, -1e-30, 1e-30, 2.5, 1e30])
    found, slope = jax.vmap(jax.value_and_grad(rectified))(x)
    assert_array_equal(found, jax.nn.relu(x))
    assert_array_equal(slope, jax.vmap(jax.grad(jax.nn.relu))(x))


def test_heatmaps_are_a_quarter_as_large():
    network, variables, *given = shapes("tiny", joints=5, sides=(64, 96))
    apply = lambda *x: network.apply(*x, update_statistics=False)  # noqa: E731
    found = jax.eval_shape(apply, variables, *given)
    assert found.fine.shape == (1, 16, 24, 5)
    assert found.coarse.shape == (1, network.size.coarsest) == (1, 128)


@pytest.mark.slow
def test_images_that_are_not_there_leave_statistics_alone():
    network = HRNet(3, SIZES["tiny"])
    images = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    variables = network.init(jax.random.key(1), images, jnp.ones(3), update_statistics=False)

    @jax.jit
    def updated(images, there):
        run = lambda x, m: network.apply(  # noqa: E731
            variables, x, m, update_statistics=True, mutable=["batch_stats"]
        )
        return jax.vmap(run, axis_name="batch")(images[None], there[None])[1]

    there = jnp.array([1.0, 1.0, 0.0])
    both = [updated(images.at[2].set(value), there) for value in (0.0, 100.0)]
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), *both)
    before = flatten_dict(variables["batch_stats"])
    after = flatten_dict(both[0]["batch_stats"])
    assert all(np.abs(after[name][0] - before[name]).max() > 0 for name in before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("stage3.1.branches.2.0.bn1.running_var"), "lacks stage3.1.branches.2.0"),
        (lambda w: w.update({"stage5.0.conv.weight": np.zeros(3)}), "stage5.0.conv.weight"),
        (
            lambda w: w.update({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}),
            r"conv1.weight: has shape \[64, 3, 7, 7\], expected \[64, 3, 3, 3\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message):
    given = public()
    change(given)
    with pytest.raises(SourceError, match=message):
        hrnet.convert(given, HRNet(0), "weights.pth")


def test_a_head_for_other_joints_is_refused_unless_none_is_wanted():
    given = public()
    given["final_layer.weight"] = np.zeros((17, 32, 1, 1), np.float32)
    given["final_layer.bias"] = np.zeros(17, np.float32)
    hrnet.convert(given, HRNet(0), "weights.pth")
    assert "final_layer" in hrnet.convert(given, HRNet(17), "weights.pth")["params"]
    with pytest.raises(SourceError, match=r"final_layer.*: has shape \[17"):
        hrnet.convert(given, HRNet(16), "weights.pth")
