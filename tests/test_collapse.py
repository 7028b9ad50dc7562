"""Collapse: what its measure says of depths that are right, flat, alike, and torn."""

import jax.numpy as jnp
import numpy as np
import pytest

from pose3d_jax import collapse


def people(size: int = 4000) -> np.ndarray:
    """Camera-frame joints of random bodies, turned to any side, 4 m away."""
    rng = np.random.default_rng(0)
    body = rng.normal(size=(6, 3)) + 0.2 * rng.normal(size=(size, 6, 3))
    angle = rng.uniform(-np.pi, np.pi, size)
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros(size), np.ones(size)
    turn = np.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(size, 3, 3)
    joints = np.einsum("nij,nkj->nki", turn, body)
    return (joints - joints[:, :1] + [0.3, 0.0, 4.0]).astype(np.float32)


def squeezed(factor: float) -> np.ndarray:
    joints = people()
    joints[..., 2] = 4.0 + factor * (joints[..., 2] - 4.0)
    return joints


def alike() -> np.ndarray:
    joints = people()
    joints[..., 2] = joints[0, :, 2]  # the same depths whatever is seen
    return joints


@pytest.mark.parametrize(
    ("joints", "verdict", "relief"),
    [
        (people(), "none", 1.0),
        (squeezed(0.6), "none", 0.36),
        (squeezed(0.1), "flat", 0.01),
        (alike(), "flat", 0.0),
        (squeezed(3.0), "torn", 9.0),
    ],
    ids=["right", "timid", "flat", "alike", "torn"],
)
def test_verdict(joints, verdict, relief):
    found = collapse.check(jnp.asarray(joints), jnp.ones(len(joints)), 0)
    assert found["verdict"] == verdict
    assert found["relief"] == pytest.approx(relief, rel=0.05, abs=1e-4)


def test_relief_is_of_the_rows_that_count():
    joints = people(200)
    weight = np.repeat([1.0, 0.0], 100).astype(np.float32)
    total, count = collapse.relief(jnp.asarray(joints), jnp.asarray(weight), 0)
    offsets = joints[:100] - joints[:100, :1]
    variance = offsets.var(axis=0).sum(axis=0)
    np.testing.assert_allclose(total / count, variance[2] / variance[0], rtol=1e-4)


def test_there_is_no_verdict_where_there_is_no_width_and_what_is_not_finite_is_torn():
    joints = jnp.asarray(people(200))
    assert collapse.check(joints, jnp.zeros(200), 0) == {}  # nobody is seen
    roots = jnp.repeat(joints[:, :1], 6, axis=1)  # of a method that knows no more of a person
    assert collapse.check(roots, jnp.ones(200), 0) == {}
    for value in (jnp.nan, jnp.inf):
        lost = joints.at[0, 2].set(value)
        assert collapse.check(lost, jnp.ones(200), 0)["verdict"] == "torn"
