"""Bodies of the SMPL family: a mesh with shapes, posed by linear blend skinning.

Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015). Which file it is
(SMPL, SMPL-H, SMPL-X, or an open one of the same layout) makes no difference beyond its numbers of
vertices, joints and shapes. Lengths are in the file's unit, metres for all published ones.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int
from scipy import sparse

from pose3d_jax import sources
from pose3d_jax.errors import UserError
from pose3d_jax.geometry import HIGHEST


class BodyError(UserError):
    """A body that is not one; the message says of which file, and what is wrong."""


@struct.dataclass
class Body:
    """A body at rest and what changes it; made by `load` or `make`, which check it.

    Joints follow the tree: a parent stands before its children, joint 0 is the root. Vertices are
    the last axis: a processor works along it.
    """

    template: Float[Array, "3 vertices"]
    shapes: Float[Array, "components 3 vertices"]
    joint_template: Float[Array, "joints 3"]  # the regressor's, of the template
    joint_shapes: Float[Array, "components joints 3"]  # and of each shape
    poses: Float[Array, "entries 3 vertices"]  # of 9 entries of each joint's rotation but the root
    weights: Float[Array, "joints vertices"]
    faces: Int[Array, "faces 3"]
    parents: tuple[int, ...] = struct.field(pytree_node=False)  # -1 of the root

    @property
    def size(self) -> int:
        """Number of joints."""
        return len(self.parents)

    @property
    def components(self) -> int:
        """Number of shape components."""
        return len(self.shapes)


def pose(
    body: Body,
    rotations: Float[Array, "*batch joints 3 3"],
    shape: Float[Array, "*batch components"],
    translation: Float[Array, "*batch 3"],
) -> tuple[Float[Array, "*batch vertices 3"], Float[Array, "*batch joints 3"]]:
    """Vertices and joints of bodies (Loper et al., equations 2-4, 7-10).

    Args:
      body: of which file it may be.
      rotations: of each joint in its parent's axes, of the root in the world's.
      shape: weights of the shape components; fewer than the body has leave the others 0.
      translation: added to everything.
    """
    given = shape.shape[-1]
    joints_rest = _changed(body.joint_template, (shape, body.joint_shapes[:given]))
    joints, transforms = _along_tree(body.parents, rotations, joints_rest)
    apart = rotations[..., 1:, :, :]
    apart = apart - jnp.broadcast_to(jnp.eye(3), apart.shape)
    apart = apart.reshape(*apart.shape[:-3], -1)
    rest = _changed(body.template, (shape, body.shapes[:given]), (apart, body.poses))

    mixed = jnp.einsum("...jk,jn->...kn", transforms, body.weights, precision=HIGHEST)
    # Coordinate by coordinate, which is quick to differentiate on a processor; sums are not.
    m = jnp.split(mixed, 12, axis=-2)
    x, y, z = jnp.split(rest, 3, axis=-2)
    posed = [m[i] * x + m[3 + i] * y + m[6 + i] * z + m[9 + i] for i in range(3)]
    vertices = jnp.swapaxes(jnp.concatenate(posed, axis=-2), -1, -2)
    return vertices + translation[..., None, :], joints + translation[..., None, :]


def part(
    body: Body, regressor: Float[Array, "points vertices"]
) -> tuple[Body, Float[Array, "points used"]]:
    """The body of those vertices alone that a regressor of points uses, and it of them.

    For who needs the points and no mesh: they and the joints are those of the whole body.
    """
    used = np.flatnonzero(np.any(np.asarray(regressor) != 0, axis=0))
    small = dataclasses.replace(
        body,
        template=body.template[:, used],
        shapes=body.shapes[:, :, used],
        poses=body.poses[:, :, used],
        weights=body.weights[:, used],
        faces=jnp.zeros((0, 3), jnp.int32),
    )
    return small, jnp.asarray(regressor)[:, used]


def regress(
    regressor: Float[Array, "points vertices"], vertices: Float[Array, "*batch vertices 3"]
) -> Float[Array, "*batch points 3"]:
    """Other points of a mesh, each a weighted mean of vertices: keypoints of any joint set."""
    return jnp.einsum("pn,...ni->...pi", regressor, vertices, precision=HIGHEST)


def normals(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """Of unit length: the mean of a vertex' faces', by their areas; up where it has none."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, faces[:, k], across)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0], total.dtype)
    return np.where(length > 0, total / np.where(length > 0, length, 1.0), up)


def _changed(
    template: Float[Array, "n m"], *parts: tuple[Float[Array, "*batch _"], Array]
) -> Float[Array, "*batch n m"]:
    """The template and what is linear in coefficients, each with its basis `[k, n, m]`."""
    batch = parts[0][0].shape[:-1]
    total = jnp.broadcast_to(template, (*batch, *template.shape))
    for coefficients, basis in parts:
        found = jnp.matmul(coefficients, basis.reshape(len(basis), -1), precision=HIGHEST)
        total = total + found.reshape(*batch, *template.shape)
    return total


def _along_tree(
    parents: tuple[int, ...],
    rotations: Float[Array, "*batch joints 3 3"],
    rest: Float[Array, "*batch joints 3"],
) -> tuple[Float[Array, "*batch joints 3"], Float[Array, "*batch joints 12"]]:
    """Where joints come to be, and what moves a point of the rest pose with each of them: the
    columns of the rotation, then the offset.
    """
    above = np.array(parents[1:])
    bones = jnp.concatenate([rest[..., :1, :], rest[..., 1:, :] - rest[..., above, :]], axis=-2)
    own = jnp.concatenate([rotations, bones[..., None]], axis=-1)
    last = jnp.zeros_like(own[..., :1, :]).at[..., 3].set(1.0)
    own = jnp.concatenate([own, last], axis=-2)
    # Level by level, which is fewer and larger products than joint by joint.
    levels = _levels(parents)
    moved, place = own[..., :1, :, :], [0]
    for level in levels[1:]:
        hung = np.array([place.index(parents[joint]) for joint in level])
        left, right = moved[..., hung, :, :], own[..., level, :, :]
        # Written out: XLA (of jaxlib 0.10) does not compile such a product of several leading axes.
        turned = sum(left[..., :, k : k + 1] * right[..., k : k + 1, :] for k in range(4))
        moved, place = jnp.concatenate([moved, turned], axis=-3), [*place, *level]
    whole = moved[..., np.argsort(place), :, :]
    turn, joints = whole[..., :3, :3], whole[..., :3, 3]
    offset = joints - jnp.einsum("...ij,...j->...i", turn, rest, precision=HIGHEST)
    columns = jnp.swapaxes(turn, -1, -2).reshape(*turn.shape[:-2], 9)
    return joints, jnp.concatenate([columns, offset], axis=-1)


def _levels(parents: tuple[int, ...]) -> list[np.ndarray]:
    """Joints by how far they are from the root."""
    depth = [0]
    for parent in parents[1:]:
        depth.append(depth[parent] + 1)
    return [np.flatnonzero(np.array(depth) == level) for level in range(max(depth) + 1)]


# ------------------------------------------------------------------------------------------- files


def load(path: str | Path, components: int = 10) -> Body:
    """The body of a published file: SMPL, SMPL-H or SMPL-X, as `.npz` or as `.pkl`.

    Pickles may hold arrays of `chumpy` and sparse matrices of SciPy; neither library's code runs.

    Args:
      path: the file, as downloaded.
      components: how many shapes are taken, at most.

    Raises `BodyError` for a body that is not one (see `make`), `sources.SourceError` for a file
    that cannot be read, lacks a key, or holds classes that a body has no need of.
    """
    found = arrays(path)
    return make(
        template=found["v_template"],
        shapes=found["shapedirs"],
        poses=found["posedirs"],
        regressor=found["J_regressor"],
        weights=found["weights"],
        tree=found["kintree_table"],
        faces=found["f"],
        components=components,
        where=str(path),
    )


_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


def arrays(path: str | Path, *more: str) -> dict[str, Any]:
    """What a body's file says, by the keys of SMPL's files; of `more` what there is.

    Raises as `load` does, but does not look into the arrays.
    """
    path = Path(path)
    if path.suffix == ".npz":
        table = sources.load_npz(path, *_KEYS, *more)
    elif path.suffix == ".pkl":
        table = sources.load_pickle(path, inert=("chumpy", "scipy"))
    else:
        raise BodyError(f"{path}: a body is a .npz or a .pkl file, as its licensor gives it")
    there = isinstance(table, dict)
    keys = (*_KEYS, *(key for key in more if there and key in table))
    return {key: _plain(sources.member(table, key, str(path)), f"{path}, {key}") for key in keys}


def make(
    *,
    template: Any,
    shapes: Any,
    poses: Any,
    regressor: Any,
    weights: Any,
    tree: Any,
    faces: Any,
    components: int = 10,
    where: str = "body",
) -> Body:
    """A body of arrays with the axes of SMPL's files.

    Args:
      template: `[vertices, 3]`.
      shapes: `[vertices, 3, components]`.
      poses: `[vertices, 3, 9 (joints - 1)]`.
      regressor: `[joints, vertices]`, of the joints at rest.
      weights: `[vertices, joints]`, of the skinning.
      tree: `[2, joints]`: each joint's parent, and the joint; the root's parent is no joint.
      faces: `[faces, 3]`, vertices by number.
      components: how many shapes are taken, at most.
      where: what errors call it.

    Raises `BodyError` for arrays that do not fit one another, numbers that are not finite, weights
    that are negative or do not sum to 1, faces of vertices that are not there, and a tree that is
    none or in which a child stands before its parent.
    """

    def array(value: Any, name: str, *shape: int | None) -> np.ndarray:
        try:
            return sources.array(value, shape, f"{where}, {name}")
        except sources.SourceError as error:
            raise BodyError(str(error)) from None

    points = array(template, "v_template", None, 3)
    vertices = len(points)
    skin = array(weights, "weights", None, None)
    if len(skin) != vertices:
        raise BodyError(
            f"{where}: {vertices} vertices of v_template, {len(skin)} of weights; these are parts "
            f"of different bodies"
        )
    joints = skin.shape[1]
    parents = _parents(array(tree, "kintree_table", 2, joints), where)
    if skin.min() < 0:
        raise BodyError(f"{where}, weights: {skin.min():.3g} is negative; a share cannot be")
    total = skin.sum(axis=1)
    if abs(total - 1).max() > 1e-3:
        worst = int(abs(total - 1).argmax())
        raise BodyError(
            f"{where}, weights: those of vertex {worst} sum to {total[worst]:.4g}; they are shares "
            f"and must sum to 1"
        )
    triangles = array(faces, "f", None, 3)
    if (triangles != triangles.round()).any() or not (
        triangles.min() >= 0 and triangles.max() < vertices
    ):
        raise BodyError(
            f"{where}, f: faces must be of vertices 0 to {vertices - 1}; found "
            f"{triangles.min():g} to {triangles.max():g}"
        )
    directions = array(shapes, "shapedirs", vertices, 3, None)[..., :components]
    blends = array(poses, "posedirs", vertices, 3, 9 * (joints - 1))
    linear = array(regressor, "J_regressor", joints, vertices)

    flat = np.moveaxis(directions, -1, 0)
    single = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    return Body(
        template=single(points.T),
        shapes=single(flat.swapaxes(1, 2)),
        joint_template=single(linear @ points),
        joint_shapes=single(linear @ flat),
        poses=single(blends.transpose(2, 1, 0)),
        weights=single((skin / total[:, None]).T),
        faces=jnp.asarray(triangles, jnp.int32),
        parents=parents,
    )


def _parents(tree: np.ndarray, where: str) -> tuple[int, ...]:
    """Each joint's parent, -1 of the root; joints by their place in the table."""
    above, own = tree
    joints = tree.shape[1]
    if (own != np.arange(joints)).any():
        raise BodyError(f"{where}, kintree_table: joints must be numbered 0 to {joints - 1}")
    # The root's parent is -1, in files as an unsigned number.
    parents = [int(p) if 0 <= p < joints else -1 for p in above]
    roots = [joint for joint, parent in enumerate(parents) if parent < 0]
    for joint in range(joints):
        seen, at = set(), joint
        while at >= 0 and at not in seen:
            seen.add(at)
            at = parents[at]
        if at >= 0:
            raise BodyError(
                f"{where}, kintree_table: joint {joint} hangs on a cycle ({sorted(seen)}), and not "
                f"on the root"
            )
    if roots != [0]:
        raise BodyError(f"{where}, kintree_table: joint 0 must be the one root; found {roots}")
    late = [joint for joint, parent in enumerate(parents) if parent >= joint]
    if late:
        raise BodyError(f"{where}, kintree_table: joint {late[0]} stands before its parent")
    return tuple(parents)


def _plain(value: Any, where: str) -> Any:
    """An array out of a `chumpy` object or a sparse matrix, as their pickles have them."""
    if not isinstance(value, sources.Inert):
        return value
    state, kind = value.state, type(value)
    library = kind.__module__.partition(".")[0]
    if library == "chumpy" and isinstance(state, dict) and "x" in state:
        return _plain(state["x"], where)
    if library == "scipy" and isinstance(state, dict) and kind.__name__.startswith(("csc", "csr")):
        try:
            rows = sparse.csr_matrix if kind.__name__.startswith("csr") else sparse.csc_matrix
            data, indices, pointers = (np.asarray(state[k]) for k in ("data", "indices", "indptr"))
            found = rows((data, indices, pointers), shape=state.get("_shape", state.get("shape")))
            found.check_format()
            return found.toarray()
        # What damage makes of its parts.
        except Exception as error:
            raise BodyError(f"{where}: is a sparse matrix that cannot be read ({error})") from error
    raise BodyError(
        f"{where}: is a {kind.__module__}.{kind.__name__} whose values are not in the file; save "
        f"it as plain arrays"
    )
