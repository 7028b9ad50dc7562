"""Moving meshes as 3D software reads them: animated glTF, or an OBJ file a frame."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from pose3d_jax import workdir
from pose3d_jax.body import Body
from pose3d_jax.errors import UserError
from pose3d_jax.formats.gltf import Y_UP, Gltf, continuous


def write_gltf(
    path: str | Path,
    body: Body,
    rotations: Float[np.ndarray, "time joints 3 3"],
    shape: Float[np.ndarray, "components"],
    translation: Float[np.ndarray, "time 3"],
    fps: float,
) -> None:
    """A body in motion as one binary glTF 2.0 file (`.glb`): skeleton, skin and animation.

    Exactly what `body.pose` makes of the same numbers: changes of the mesh with the pose, where
    the body has such, are morph targets whose weights are animated.

    Args:
      path: the file; whole or not at all.
      body, rotations, translation: as `body.pose` takes them, in the world, z up, metres.
      shape: of all frames: bones have one length.
      fps: frames per second.

    Raises `UserError` without pygltflib, which the extra `mesh` installs.
    """
    file = Gltf()
    shape = np.asarray(shape, np.float32)
    rest, joints = (
        np.asarray(start) + np.tensordot(shape, np.asarray(basis)[: len(shape)], axes=1)
        for start, basis in (
            (body.template.T, body.shapes.swapaxes(1, 2)),
            (body.joint_template, body.joint_shapes),
        )
    )
    times = np.arange(len(rotations), dtype=np.float32) / fps

    morphs, weights = _morphs(body, rotations)
    mesh = file.mesh(rest, np.asarray(body.faces), np.asarray(body.weights).T, morphs)
    offsets = np.concatenate([joints[:1], joints[1:] - joints[np.array(body.parents[1:])]])
    quaternions = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat()
    quaternions = continuous(quaternions.reshape(len(rotations), -1, 4))
    nodes = file.skeleton(offsets, body.parents, Y_UP.as_quat())
    skin = file.skin(nodes, -joints)
    shown = file.node(mesh=mesh, skin=skin)
    moves = {(node, "rotation"): quaternions[:, number] for number, node in enumerate(nodes)}
    moves[nodes[0], "translation"] = joints[0] + translation
    if morphs is not None:
        moves[shown, "weights"] = weights.reshape(-1)
    file.animation(times, moves)
    workdir.write(path, lambda name: Path(name).write_bytes(file.whole()))


def write_obj(
    directory: str | Path,
    vertices: Float[np.ndarray, "time vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
) -> None:
    """A folder of `000000.obj`, `000001.obj`, ..., whole or not at all; y up, metres.

    Raises `UserError` where something of that name is there already.
    """
    directory = Path(directory)
    if directory.exists():
        raise UserError(f"{directory}: is there already; remove it, or give another name")
    directory.parent.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        below = "\n".join("f {} {} {}".format(*face) for face in np.asarray(faces) + 1)
        for number, points in enumerate(vertices):
            above = "\n".join("v {:.5f} {:.5f} {:.5f}".format(*p) for p in Y_UP.apply(points))
            (own / f"{number:06d}.obj").write_text(f"{above}\n{below}\n", encoding="ascii")
        own.chmod(0o755)
        own.rename(directory)
    except BaseException:
        shutil.rmtree(own)
        raise


def _morphs(
    body: Body, rotations: Float[np.ndarray, "time joints 3 3"]
) -> tuple[Float[np.ndarray, "entries vertices 3"] | None, Float[np.ndarray, "time entries"]]:
    """The changes with the pose that the body has, and how much of each there is."""
    blends = np.asarray(body.poses)
    used = np.flatnonzero(np.any(blends != 0, axis=(1, 2)))
    entries = (rotations[:, 1:] - np.eye(3)).reshape(len(rotations), -1)
    return (blends[used].swapaxes(1, 2) if len(used) else None), entries[:, used]
