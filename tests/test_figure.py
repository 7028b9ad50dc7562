"""A body's keypoints without its mesh: against the whole mesh, and for SMPL's own files."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import body as bodies
from pose3d_jax import figure as figures
from pose3d_jax import skeleton
from pose3d_jax.body import BodyError
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.sources import SourceError
from tests.bodies import person, save_npz, save_pkl, table

ROOT = Path(__file__).parents[1]
BODY25 = skeleton.get("body25")
RNG = np.random.default_rng(0)
TURNS = jnp.asarray(0.5 * RNG.normal(size=(3, 24, 3)), jnp.float32)
SHAPE = jnp.asarray(RNG.normal(size=(3, 10)), jnp.float32)


def test_points_are_those_of_the_whole_mesh(tmp_path):
    path = person(tmp_path / "person.npz")
    figure = figures.load(path, BODY25)
    whole = bodies.load(path)
    assert figure.body.template.shape[1] < whole.template.shape[1]
    rotations = axis_angle_to_matrix(TURNS)
    vertices, _ = jax.jit(bodies.pose)(whole, rotations, SHAPE, jnp.zeros((3, 3)))
    regressor = np.load(path)["regressor_body25"].astype(np.float32)
    expected = np.einsum("pn,bni->bpi", regressor, vertices)
    assert_allclose(jax.jit(figure.pose)(rotations, SHAPE), expected, atol=1e-5)


@pytest.mark.parametrize("save", [save_npz, save_pkl])
def test_a_licensed_file_has_no_regressor_of_ours_and_needs_none(tmp_path, save):
    """SMPL's joints by name, a face and feet by the numbers of SMPL's own mesh."""
    arrays = table(vertices=6890)
    figure = figures.load(save(tmp_path / f"smpl.{save.__name__[5:]}", arrays), BODY25)
    found = jax.jit(figure.pose)(axis_angle_to_matrix(0 * TURNS), 0 * SHAPE)[0]
    rest = arrays["J_regressor"] @ arrays["v_template"]
    index = skeleton.get("smpl24").joints.index
    at = BODY25.joints.index
    assert_allclose(found[at("left_knee")], rest[index("left_knee")], atol=1e-5)
    both = (rest[index("left_hip")] + rest[index("right_hip")]) / 2
    assert_allclose(found[at("mid_hips")], both, atol=1e-5)
    assert_allclose(found[at("nose")], arrays["v_template"][332], atol=1e-5)


def test_what_a_file_does_not_tell_is_said(tmp_path):
    with pytest.raises(BodyError, match=r"nose.*left_heel.*regressor_body25 \[25, 120\]"):
        figures.load(save_npz(tmp_path / "small.npz", table()), BODY25)
    arrays = {**table(), "regressor_body25": np.zeros((25, 119))}
    with pytest.raises(SourceError, match="regressor_body25"):
        figures.load(save_npz(tmp_path / "other.npz", arrays), BODY25)


def test_it_compiles_as_users_compile():
    """The suite's flags hid that XLA could not, with several axes before the joints'."""
    code = (
        "import jax, jax.numpy as jnp; from pose3d_jax import body; from tests.bodies import table;"
        "b = body.make(**dict(zip(('template', 'shapes', 'poses', 'regressor', 'weights', 'tree', "
        "'faces'), table().values())));"
        "f = jax.jit(jax.grad("
        "lambda r, s: body.pose(b, r, s, jnp.zeros((2, 16, 20, 3)))[0].sum()));"
        "print(f(jnp.ones((2, 16, 20, 24, 3, 3)), jnp.zeros((2, 16, 20, 10))).shape)"
    )
    flags = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=flags, capture_output=True, text=True, cwd=ROOT
    )
    assert "(2, 16, 20, 24, 3, 3)" in done.stdout, done.stderr


def test_the_first_who_asks_may_be_traced(tmp_path):
    path = person(tmp_path / "person.npz")

    @jax.jit
    def points(turns):
        return figures.load(path, BODY25).pose(axis_angle_to_matrix(turns), SHAPE)

    first = points(TURNS)
    figure = figures.load(path, BODY25)  # nothing of the trace is left in it
    assert_allclose(jax.jit(figure.pose)(axis_angle_to_matrix(TURNS), SHAPE), first, atol=1e-6)
