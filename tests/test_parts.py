"""Which weights move: chosen layers, and changes of low rank."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy.testing import assert_allclose, assert_array_equal

from pose3d_jax import methods, parts
from pose3d_jax.methods.base import EVALUATION, Info
from pose3d_jax.parts import LowRank, PartError
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)
OUTPUTS = (3, 3 * scenes.H36M.size)


@functools.cache
def lifter():
    method = methods.create({"name": "multiview", "width": 16, "blocks": 1}, INFO)
    batch = {"main": scenes.batch(4)}
    return method, batch, jax.jit(method.init)(jax.random.key(0), batch)


def moving(variables, part):
    rest = parts.resting(variables, part, OUTPUTS)
    return {"/".join(path) for path in flatten_dict(variables["params"])} - set(rest)


def test_layers_are_chosen_by_what_they_are():
    _, _, variables = lifter()
    assert parts.resting(variables, "all", OUTPUTS) == ()
    last = {"lifter/Dense_3/kernel", "lifter/Dense_3/bias"}
    assert moving(variables, "last") == last
    norms = moving(variables, "norms")
    assert norms == {f"lifter/BatchNorm_{i}/{leaf}" for i in range(3) for leaf in ("scale", "bias")}
    with pytest.raises(PartError, match="part is 'last', of which the network has nothing"):
        parts.resting(variables, "last", (1234,))


def test_a_change_begins_at_zero_and_has_its_rank():
    method, _, variables = lifter()
    low = LowRank(method, 2)
    around = low.around(jax.random.key(1), variables)
    same = low.merged(around)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(variables), strict=True):
        assert_array_equal(a, b)
    assert low.groups[0].paths == ("change/lifter",)
    change = around["params"]["change"]["lifter"]["Dense_1"]["kernel"]
    assert {name: x.shape for name, x in change.items()} == {"a": (16, 2), "b": (2, 16)}
    moved = jax.tree.map(lambda x: x + 0.1, around["params"]["change"])
    after = low.merged({**around, "params": {**around["params"], "change": moved}})
    kernel = lambda v: np.asarray(v["params"]["lifter"]["Dense_1"]["kernel"], np.float64)  # noqa: E731
    difference = kernel(after) - kernel(variables)
    expected = (change["a"] + 0.1) @ (change["b"] + 0.1)
    assert_allclose(difference, expected, atol=1e-6)


def test_terms_and_predictions_are_those_of_the_merged_weights():
    method, batch, variables = lifter()
    low = LowRank(method, 3)
    around = low.around(jax.random.key(1), variables)
    change = jax.tree.map(lambda x: x + 0.05, around["params"]["change"])
    around = {**around, "params": {**around["params"], "change": change}}
    own = low.merged(around)
    key, step = jax.random.key(2), jnp.int32(0)

    def total(method, variables, group):
        found, _ = method.terms(variables, batch, key, step, group=group, mode=EVALUATION)
        return sum(found[name][0] / found[name][1] for name in group.terms)

    group = dataclasses.replace(method.groups[0], terms=("self", "cross"))
    changed = dataclasses.replace(low.groups[0], terms=("self", "cross"))
    a = jax.jit(lambda v: total(method, v, group))(own)
    b = jax.jit(lambda v: total(low, v, changed))(around)
    assert_allclose(a, b, rtol=1e-6)
    seen = batch["main"].observations
    expected = jax.jit(method.predict)(own, seen).joints
    assert_allclose(jax.jit(low.predict)(around, seen).joints, expected, atol=1e-6)
