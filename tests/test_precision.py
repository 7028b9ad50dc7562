"""Geometry never takes a matrix product at less than the highest precision, nor do its gradients;
networks compute in the precision that the config says.

Accelerators round the inputs of a product to 10 bits or fewer by default, which costs millimetres
and does not show on a processor; so this looks at the traced program.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.lax import Precision

from pose3d_jax import cameras as cam
from pose3d_jax import methods
from pose3d_jax.cameras import batched
from pose3d_jax.epoch import compile_epoch, replicate
from pose3d_jax.geometry import axis_angle_to_matrix, similarity_align
from pose3d_jax.methods.base import Info, Mode
from pose3d_jax.metrics import p_mpjpe
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.triangulate import triangulate
from tests import scenes
from tests.toys import ClipStream, constant, fresh, phase


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it (jit, scan, cond, custom derivatives)."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def products(function, *args):
    """Every matrix product or convolution in a function's trace."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    names = ("dot_general", "conv_general_dilated")
    return [e for e in equations(jaxpr) if e.primitive.name in names]


def is_highest(product):
    precision = product.params["precision"]
    both = precision if isinstance(precision, tuple) else (precision, precision)
    return all(p == Precision.HIGHEST for p in both)


def types(equation):
    return {value.aval.dtype.name for value in equation.invars}


def total(function):
    """The sum of a function's outputs: something to differentiate."""
    return lambda *args: sum(jnp.sum(x) for x in jax.tree.leaves(function(*args)))


OBSERVATIONS = scenes.batch(size=2).observations
WORLD = jnp.zeros((2, 1, 4, 17, 3))
POSE = jnp.asarray(scenes.people(1)[0, 0])
WEIGHT = jnp.ones(17)
GEOMETRY = {
    "project": (batched(cam.project), (OBSERVATIONS.cameras, WORLD)),
    "to_camera": (batched(cam.to_camera), (OBSERVATIONS.cameras, WORLD)),
    "to_world": (batched(cam.to_world), (OBSERVATIONS.cameras, WORLD)),
    "normalise": (batched(cam.normalise), (OBSERVATIONS.cameras, OBSERVATIONS.keypoints)),
    "look_at": (cam.look_at, (POSE[0], POSE[1], POSE[2])),
    "triangulate": (triangulate, (OBSERVATIONS,)),
    "axis_angle": (axis_angle_to_matrix, (POSE,)),
    "similarity_align": (similarity_align, (POSE, POSE[::-1], WEIGHT)),
    "p_mpjpe": (p_mpjpe, (POSE, POSE[::-1], WEIGHT)),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_every_product_has_the_highest_precision(name):
    function, args = GEOMETRY[name]
    assert all(map(is_highest, products(function, *args)))
    assert all(map(is_highest, products(jax.grad(total(function)), *args)))


def test_products_are_found_wherever_they_hide():
    a = jnp.eye(3)

    def hidden(x):
        x = jax.jit(lambda y: y @ a)(x)
        x = jax.lax.fori_loop(0, 2, lambda _, y: y @ a, x)
        return jax.lax.cond(x[0, 0] > 0, lambda y: y @ a, lambda y: y, x)

    found = products(hidden, a)
    assert len(found) == 3
    assert not any(map(is_highest, found))
    # Not vacuous: the alignment has two products and the look-at one.
    assert len(products(*GEOMETRY["similarity_align"][:1], *GEOMETRY["similarity_align"][1])) >= 2
    assert len(products(*GEOMETRY["look_at"][:1], *GEOMETRY["look_at"][1])) == 1


def training(precision, optimizer=None, name="multiview", **mode):
    """A step of a label-free method on a small scene: function, state and streams."""
    method = methods.create(
        {"name": name, "width": 32}, Info(scenes.H36M, scenes.H36M, precision=precision)
    )
    phase_ = phase(
        {"self": 1.0, "cross": 1.0, "consistency": 0.1},
        mode=Mode(update_statistics=True, **mode),
        optimizer=optimizer or optax.adam(1.0),
        learning_rate=constant(3e-3),
    )
    streams = {"main": ClipStream(scenes.batch(size=8, views=3))}
    batch = {"main": streams["main"].take(jnp.arange(1))}
    state = fresh(method, phase_, batch, jax.random.key(0))
    run = compile_epoch(method, phase_, {"main": 8}, 1, 1)
    return run, replicate(state, 1), streams


LAYERS = {"multiview": 6, "fused": 8}


def dense(found, name):
    """Those of a step's products that are a dense layer's, forward or backward, and the others."""
    two = [all(len(v.aval.shape) == 2 for v in product.invars) for product in found]
    split = [[p for p, is_dense in zip(found, two, strict=True) if is_dense == d] for d in (1, 0)]
    # Forward; of the input, but for the first one; of the weights.
    assert len(split[0]) == 3 * LAYERS[name] - 1
    return split


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "fused")) for n in LAYERS]
)
def test_float32_step_has_every_product_at_the_highest_precision(name):
    found = products(*training("float32", name=name, dropout=True))
    dense(found, name)
    assert all(map(is_highest, found))
    assert all(types(product) == {"float32"} for product in found)


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_step_has_its_dense_layers_and_nothing_else_in_bfloat16(name):
    run, state, streams = training("bfloat16", name=name, dropout=True)
    layers, others = dense(products(run, state, streams), name)
    assert all(types(product) == {"bfloat16"} for product in layers)
    assert others  # the batch statistics
    assert all(is_highest(p) and types(p) == {"float32"} for p in others)
    # What is geometry has axes of frames, views and joints; the network has rows of features.
    program = equations(jax.make_jaxpr(run)(state, streams).jaxpr)
    values = [value.aval for equation in program for value in equation.outvars]
    assert max(len(v.shape) for v in values if v.dtype == jnp.bfloat16) == 2
    assert max(len(v.shape) for v in values if v.dtype == jnp.float32) > 4
    after = jax.eval_shape(run, state, streams)
    floats = [x for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype.name for x in floats} == {"float32"}


def by_group(name, precision):
    """The products of each group's terms, and their types; traced, not run."""
    clip = scenes.batch(size=2, views=2, frames=2)
    batch = dict.fromkeys(("main", "prior", "domain"), clip)
    method = methods.create(
        {"name": name, "width": 32}, Info(scenes.H36M, scenes.H36M, precision=precision)
    )
    variables = jax.eval_shape(method.init, jax.random.key(0), batch)
    mode = Mode(update_statistics=True, training=True)
    for group in method.groups:

        def terms(variables, batch, group=group):
            key, step = jax.random.key(0), jnp.int32(0)
            return method.terms(variables, batch, key, step, group=group, mode=mode)

        over = jax.vmap(terms, in_axes=(None, 0), axis_name=BATCH_AXIS)
        batched = jax.tree.map(lambda x: x[None], batch)
        out = jax.eval_shape(over, variables, batched)
        floats = {x.dtype.name for x in jax.tree.leaves((variables, out))}
        yield [types(product) for product in products(over, variables, batched)], floats


@pytest.mark.parametrize("name", ["kudo", "chen", "repnet", "deep_nrsfm", "distilled", "c3dpo"])
def test_critics_and_factorisations_follow_the_precision(name):
    for found, floats in by_group(name, "bfloat16"):
        assert {"bfloat16"} in found  # the layers
        assert {"float32"} in found  # the geometry
        assert all(len(kinds) == 1 for kinds in found)
        assert floats == {"float32"}  # parameters, statistics and terms


@pytest.mark.slow
def test_bfloat16_learns_as_float32_does():
    losses = {}
    for precision in ("float32", "bfloat16"):
        run, state, streams = training(precision)
        losses[precision] = []
        for _ in range(40):
            state, metrics = run(state, streams)
            losses[precision].append(float(metrics["lifter/loss"][0][0]))
    single, half = losses["float32"], losses["bfloat16"]
    assert half[-1] < 0.5 * half[0]
    assert half[0] == pytest.approx(single[0], rel=0.01)
    assert half[-1] == pytest.approx(single[-1], rel=0.1)
    assert half != single


def test_prediction_follows_the_precision_of_its_info():
    clip = scenes.batch(size=4)
    info = Info(scenes.H36M, scenes.H36M)
    single = methods.create({"name": "supervised", "width": 32}, info)
    half = dataclasses.replace(single, info=dataclasses.replace(info, precision="bfloat16"))
    variables = jax.jit(single.init)(jax.random.key(0), {"main": clip})
    params = dict(variables["params"]["lifter"])
    params["Dense_5"] = jax.tree.map(lambda x: 30 * x, params["Dense_5"])
    variables = {**variables, "params": {"lifter": params}}
    joints = [jax.jit(m.predict)(variables, clip.observations).joints for m in (single, half)]
    assert joints[1].dtype == jnp.float32
    assert 0 < jnp.abs(joints[0] - joints[1]).max() < 0.05
