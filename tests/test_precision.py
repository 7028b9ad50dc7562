"""Geometry never takes a matrix product at less than the highest precision, nor do its gradients.

Accelerators round the inputs of a product to 10 bits or fewer by default, which costs millimetres
and does not show on a processor; so this looks at the traced program.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.lax import Precision

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import batched
from pose3d_jax.geometry import axis_angle_to_matrix, similarity_align
from pose3d_jax.metrics import p_mpjpe
from pose3d_jax.triangulate import triangulate
from tests import scenes


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
    """The precision of every matrix product or convolution in a function's trace."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    names = ("dot_general", "conv_general_dilated")
    return [e.params["precision"] for e in equations(jaxpr) if e.primitive.name in names]


def is_highest(precision):
    both = precision if isinstance(precision, tuple) else (precision, precision)
    return all(p == Precision.HIGHEST for p in both)


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
