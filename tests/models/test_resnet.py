"""ResNet-50 v2 against the published layers written down one by one, and files of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose

from pose3d_jax.models import resnet
from pose3d_jax.sources import SourceError


def weights(seed=0):
    """Variables by slim's names, random, with statistics of a normalisation."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in resnet._variables().items():
        leaf = name.rpartition("/")[2]
        if leaf == "weights":
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))
        elif leaf in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = 0.1 * rng.normal(size=shape)
        found[f"resnet_v2_50/{name}"] = value.astype(np.float32)
    return found


def published(w, x):
    """Slim's graph, variable by variable; the numbers of its docstrings."""
    w = {name.removeprefix("resnet_v2_50/"): value for name, value in w.items()}

    def conv(name, x, stride, size):
        before = (size - 1) // 2  # `conv2d_same`
        pad = [(before, size - 1 - before)] * 2
        dims = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(
            x, w[f"{name}/weights"], (stride, stride), pad, dimension_numbers=dims,
            precision="highest",
        )  # fmt: skip
        return y + w[f"{name}/biases"].reshape(1, 1, 1, -1) if f"{name}/biases" in w else y

    def norm(name, x):
        row = lambda part: w[f"{name}/{part}"].reshape(1, 1, 1, -1)  # noqa: E731
        x = (x - row("moving_mean")) / jnp.sqrt(row("moving_variance") + 1e-5)
        return jnp.maximum(x * row("gamma") + row("beta"), 0)

    x = conv("conv1", x, 2, 7)
    # Of an even size, "SAME" pads after the last row alone.
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for block, (units, depth, stride) in enumerate(
        [(3, 256, 2), (4, 512, 2), (6, 1024, 2), (3, 2048, 1)], start=1
    ):
        for unit in range(1, units + 1):
            name = f"block{block}/unit_{unit}/bottleneck_v2"
            step = stride if unit == units else 1
            ready = norm(f"{name}/preact", x)
            if depth == x.shape[-1]:
                short = x[:, ::step, ::step]
            else:
                short = conv(f"{name}/shortcut", ready, step, 1)
            y = norm(f"{name}/conv1/BatchNorm", conv(f"{name}/conv1", ready, 1, 1))
            y = norm(f"{name}/conv2/BatchNorm", conv(f"{name}/conv2", y, step, 3))
            x = short + conv(f"{name}/conv3", y, 1, 1)
    return norm("postnorm", x).mean(axis=(1, 2))


def test_features_are_those_of_the_published_layers(tmp_path):
    w = weights()
    more = {f"Encoder/{name}": value for name, value in w.items()}
    np.savez(tmp_path / "weights.npz", global_step=np.array(3), **more)
    params = resnet.load(tmp_path / "weights.npz")
    images = np.random.default_rng(1).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    found = jax.jit(resnet.ResNet50().apply)({"params": params}, images)
    assert found.shape == (1, resnet.FEATURES)
    expected = jax.jit(published)(w, images)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(abs(expected).max()))
    like = jax.eval_shape(resnet.ResNet50().init, jax.random.key(0), images)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, like)
    assert sum(x.size for x in jax.tree.leaves(params)) == 23_564_800  # as Keras counts


def test_weights_that_are_not_whole_are_refused(tmp_path):
    w = weights()
    name = "resnet_v2_50/block2/unit_1/bottleneck_v2/shortcut/biases"
    np.savez(tmp_path / "lacks.npz", **{k: v for k, v in w.items() if k != name})
    with pytest.raises(SourceError, match="block2/unit_1/bottleneck_v2/shortcut/biases"):
        resnet.load(tmp_path / "lacks.npz")
    np.savez(tmp_path / "other.npz", **{**w, name: np.zeros(3)})
    with pytest.raises(SourceError, match=r"shape \[3\], expected \[512\]"):
        resnet.load(tmp_path / "other.npz")
