"""Bodies: against an independent implementation on the same file, and files that are none."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from body_models.smpl.numpy import SMPL
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pose3d_jax import body as bodies
from pose3d_jax.body import BodyError
from pose3d_jax.sources import SourceError
from tests.bodies import SMPL_PARENTS, save_npz, save_pkl, table

RNG = np.random.default_rng(0)
posed = jax.jit(bodies.pose)


def parameters(batch, joints=24, components=10):
    """Rotation vectors (some of none at all), shapes, places."""
    turns = RNG.normal(size=(*batch, joints, 3))
    turns[..., ::5, :] = 0
    shape, place = RNG.normal(size=(*batch, components)), RNG.normal(size=(*batch, 3))
    return tuple(x.astype(np.float32) for x in (turns, shape, place))


def matrices(turns):
    flat = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix()
    return flat.reshape(*turns.shape, 3).astype(np.float32)


@pytest.mark.parametrize("kind", ["npz", "pkl", "protocol 0"])
def test_meshes_and_joints_are_those_of_an_independent_implementation(tmp_path, kind):
    arrays = table()
    path = tmp_path / f"body.{kind[:3] if kind in ('npz', 'pkl') else 'pkl'}"
    if kind == "npz":
        save_npz(path, arrays)
    else:
        save_pkl(path, arrays, protocol=2 if kind == "pkl" else 0)
    body = bodies.load(path)
    turns, shape, place = parameters((5,))
    vertices, joints = posed(body, matrices(turns), shape, place)
    peer = SMPL(model_path=save_npz(tmp_path / "peer.npz", arrays))
    pose = {"body_pose": turns[:, 1:], "pelvis_rotation": turns[:, 0], "shape": shape}
    expected = peer.forward_vertices(**pose, global_translation=place)
    assert_allclose(vertices, expected, atol=1e-5)
    expected = peer.forward_skeleton(**pose, global_translation=place)
    assert_allclose(joints, expected[..., :3, 3], atol=1e-5)
    assert_allclose(body.faces, arrays["f"])


def test_any_axes_before_and_fewer_shapes_than_there_are():
    body = bodies.make(**renamed(table(components=16)), components=12)
    assert (body.components, body.size) == (12, 24)
    turns, shape, place = parameters((2, 3), components=4)
    many = posed(body, matrices(turns), shape, place)
    full = np.concatenate([shape, np.zeros((2, 3, 8), np.float32)], axis=-1)
    one = posed(body, matrices(turns[1, 2]), full[1, 2], place[1, 2])
    for all_of_them, alone in zip(many, one, strict=True):
        assert_allclose(all_of_them[1, 2], alone, atol=1e-5)


def test_a_turn_of_the_root_turns_the_body_about_its_root():
    body = bodies.make(**renamed(table()))
    turns, shape, place = parameters(())
    rotations = matrices(turns)
    turn = Rotation.random(random_state=0).as_matrix().astype(np.float32)
    vertices, joints = posed(body, rotations, shape, place)
    other = rotations.copy()
    other[0] = turn @ rotations[0]
    moved, moved_joints = posed(body, other, shape, place)
    about = np.asarray(joints[0])
    assert_allclose(moved, (np.asarray(vertices) - about) @ turn.T + about, atol=1e-5)
    assert_allclose(moved_joints, (np.asarray(joints) - about) @ turn.T + about, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    body = bodies.make(**renamed(table(vertices=20)))
    turns, shape, place = parameters(())
    rotations = matrices(turns)
    direction = [RNG.normal(size=x.shape).astype(np.float32) for x in (rotations, shape, place)]

    @jax.jit
    def along(step):
        moved = (x + step * d for x, d in zip((rotations, shape, place), direction, strict=True))
        vertices, joints = posed(body, *moved)
        return jnp.sum(jnp.sin(vertices)) + jnp.sum(jnp.cos(joints))

    slope = (along(1e-2) - along(-1e-2)) / 2e-2
    assert_allclose(jax.grad(along)(0.0), slope, rtol=2e-2)


def test_other_points_are_weighted_means_of_vertices():
    body = bodies.make(**renamed(table()))
    turns, shape, place = parameters((3,))
    vertices, _ = posed(body, matrices(turns), shape, place)
    regressor = np.zeros((2, 120), np.float32)
    regressor[0, 7] = 1
    regressor[1, [3, 4]] = 0.25, 0.75
    found = bodies.regress(jnp.asarray(regressor), vertices)
    assert_allclose(found[:, 0], vertices[:, 7], atol=1e-6)
    assert_allclose(found[:, 1], 0.25 * vertices[:, 3] + 0.75 * vertices[:, 4], atol=1e-6)


def test_bodies_of_other_sizes_load_as_well(tmp_path):
    """SMPL-H has 52 joints, SMPL-X 55 with its face: numbers of a file, as of any other."""
    parents = (*SMPL_PARENTS[:22], *(20 if i % 15 == 0 else 21 + i for i in range(30)))
    arrays = table(parents=parents, components=16)
    body = bodies.load(save_npz(tmp_path / "smplh.npz", arrays), components=16)
    assert (body.size, body.components, body.parents[22]) == (52, 16, 20)


def renamed(arrays):
    """A file's keys as `make` has them."""
    names = {"v_template": "template", "shapedirs": "shapes", "posedirs": "poses", "f": "faces",
             "J_regressor": "regressor", "kintree_table": "tree", "weights": "weights"}  # fmt: skip
    return {names[key]: value for key, value in arrays.items()}


def changed(arrays, key, at, value):
    array = np.array(arrays[key], copy=True)
    array[at] = value
    return {**arrays, key: array}


DAMAGES = {
    "vertices": (lambda t: {**t, "weights": t["weights"][:-1]}, "120 vertices of v_template, 119"),
    "regressor": (
        lambda t: {**t, "J_regressor": t["J_regressor"][:, 1:]},
        r"J_regressor: has shape \[24, 119\]",
    ),
    "shapes": (lambda t: {**t, "shapedirs": t["shapedirs"][:50]}, r"expected \[120, 3, any\]"),
    "poses": (lambda t: {**t, "posedirs": t["posedirs"][..., :9]}, r"expected \[120, 3, 207\]"),
    "sum": (lambda t: changed(t, "weights", 4, 0.2), "of vertex 4 sum to 4.8"),
    "negative": (lambda t: changed(t, "weights", (4, 3), -0.2), "-0.2 is negative"),
    "not finite": (lambda t: changed(t, "v_template", (4, 1), np.nan), "v_template: is nan"),
    "cycle": (lambda t: changed(t, "kintree_table", (0, 5), 8), r"cycle \(\[5, 8\]\)"),
    "itself": (lambda t: changed(t, "kintree_table", (0, 5), 5), "hangs on a cycle"),
    "two roots": (lambda t: changed(t, "kintree_table", (0, 5), 2**32 - 1), r"found \[0, 5\]"),
    "late": (lambda t: changed(t, "kintree_table", (0, 5), 23), "joint 5 stands before its parent"),
    "order": (lambda t: changed(t, "kintree_table", (1, 5), 6), "numbered 0 to 23"),
    "face": (lambda t: changed(t, "f", (0, 0), 120), "vertices 0 to 119"),
    "text": (lambda t: {**t, "f": np.array(["a"])}, "not an array of numbers"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_body_is_refused_with_the_reason(tmp_path, damage):
    change, message = DAMAGES[damage]
    path = save_npz(tmp_path / "body.npz", change(table()))
    with pytest.raises(BodyError, match=message) as caught:
        bodies.load(path)
    assert str(path) in str(caught.value)


class Sly:
    def __reduce__(self):
        return (print, ("ran",))


def test_files_that_are_no_bodies_files_are_refused(tmp_path, capsys):
    arrays = table()
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps({**arrays, "weights": Sly()}))
    with pytest.raises(SourceError, match=r"holds builtins\.print"):
        bodies.load(path)
    assert not capsys.readouterr().out
    del arrays["f"]
    with pytest.raises(SourceError, match="has no 'f'"):
        bodies.load(save_npz(tmp_path / "body.npz", arrays))
    with pytest.raises(SourceError, match="cannot be read"):
        bodies.load(tmp_path / "none.npz")
    with pytest.raises(BodyError, match=r"a \.npz or a \.pkl file"):
        bodies.load(tmp_path / "body.obj")


def test_objects_of_other_libraries_need_their_values_in_the_file(tmp_path):
    arrays = table()
    path = save_pkl(tmp_path / "body.pkl", arrays)
    # A name of the same length: the state no longer has values under `x`.
    path.write_bytes(path.read_bytes().replace(b"X\x01\x00\x00\x00x", b"X\x01\x00\x00\x00y"))
    with pytest.raises(BodyError, match=r"v_template: is a chumpy\.ch\.Ch whose values"):
        bodies.load(path)
    damaged = {**arrays, "J_regressor": arrays["J_regressor"][:, :100]}
    with pytest.raises(BodyError, match=r"J_regressor: has shape \[24, 100\]"):
        bodies.load(save_pkl(tmp_path / "narrow.pkl", damaged))


def test_normals_point_out_of_a_ball():
    ball = trimesh.creation.icosphere(subdivisions=3)
    found = bodies.normals(np.asarray(ball.vertices), np.asarray(ball.faces))
    assert_allclose(found, ball.vertices, atol=0.02)
    alone = bodies.normals(np.zeros((4, 3)), np.array([[0, 1, 2]]))
    assert_allclose(np.linalg.norm(alone, axis=-1), 1)
