"""Meshes in files: read back as the formats' own rules say, and by trimesh."""

import numpy as np
import pygltflib
import pytest
import trimesh
from body_models.smpl.numpy import SMPL
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pose3d_jax import body as bodies
from pose3d_jax.errors import UserError
from pose3d_jax.formats import mesh
from tests.bodies import save_npz, table

KINDS = {5126: "<f4", 5123: "<u2", 5125: "<u4"}
SIZES = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}
FPS = 25.0


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """A file of a body, and its motion: rotation vectors, a shape, places."""
    rng = np.random.default_rng(0)
    path = save_npz(tmp_path_factory.mktemp("mesh") / "body.npz", table())
    turns = np.cumsum(0.3 * rng.normal(size=(6, 24, 3)), axis=0)
    turns[:, 0] += [0, 3.1, 0]  # about half a turn: quaternions change their signs there
    return path, turns, rng.normal(size=10), rng.normal(size=(6, 3))


def written(path, moving, **other):
    source, turns, shape, place = moving
    body = bodies.load(source) if not other else bodies.load(source).replace(**other)
    rotations = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(*turns.shape, 3)
    mesh.write_gltf(path, body, rotations, shape, place, FPS)
    return pygltflib.GLTF2().load(str(path))


def array(gltf, number):
    accessor = gltf.accessors[number]
    view = gltf.bufferViews[accessor.bufferView]
    shape = (accessor.count, *SIZES[accessor.type])
    kind = np.dtype(KINDS[accessor.componentType])
    raw = gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    return np.frombuffer(raw, kind).reshape(shape)


def skinned(gltf, frame):
    """The mesh of a frame as glTF 2.0 says, sections 3.7.2-3.7.3: morphs, then the skin."""
    tracks = {}
    for channel in gltf.animations[0].channels:
        sampler = gltf.animations[0].samplers[channel.sampler]
        values = array(gltf, sampler.output)
        tracks[channel.target.node, channel.target.path] = values.reshape(
            len(array(gltf, sampler.input)), -1
        )[frame]

    def whole(number):
        node = gltf.nodes[number]
        own = np.eye(4)
        turn = tracks.get((number, "rotation"), node.rotation)
        own[:3, :3] = Rotation.from_quat(turn).as_matrix()
        moved = tracks.get((number, "translation"), node.translation)
        own[:3, 3] = [0, 0, 0] if moved is None else moved
        above = [n for n, other in enumerate(gltf.nodes) if number in (other.children or [])]
        return whole(above[0]) @ own if above else own

    skin, primitive = gltf.skins[0], gltf.meshes[0].primitives[0]
    shown = next(n for n, node in enumerate(gltf.nodes) if node.mesh is not None)
    attributes = primitive.attributes
    points = array(gltf, attributes.POSITION).astype(float)
    for number, target in enumerate(primitive.targets or []):
        points = points + tracks[shown, "weights"][number] * array(gltf, target["POSITION"])
    inverse = array(gltf, skin.inverseBindMatrices).swapaxes(1, 2)  # stored column by column
    moves = np.stack([whole(n) @ m for n, m in zip(skin.joints, inverse, strict=True)])
    total = np.zeros((len(points), 4, 4))
    for group in range(6):
        joints = getattr(attributes, f"JOINTS_{group}", None)
        if joints is not None:
            share = array(gltf, getattr(attributes, f"WEIGHTS_{group}"))
            total += np.einsum("vk,vkij->vij", share, moves[array(gltf, joints)])
    assert_allclose(total[:, 3], np.tile([0, 0, 0, 1], (len(points), 1)), atol=1e-6)
    return np.einsum("vij,vj->vi", total[:, :3, :3], points) + total[:, :3, 3]


def y_up(points):
    """From z up: y is what z was, and z is minus y, so that hands stay hands."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def expected(moving):
    source, turns, shape, place = moving
    pose = {"body_pose": turns[:, 1:], "pelvis_rotation": turns[:, 0]}
    pose["shape"] = np.tile(shape, (len(turns), 1))
    single = {key: value.astype(np.float32) for key, value in pose.items()}
    peer = SMPL(model_path=source)
    return y_up(peer.forward_vertices(**single, global_translation=place.astype(np.float32)))


def test_gltf_moves_as_an_independent_implementation_does(tmp_path, moving):
    """With the changes of the mesh with the pose, which this body has."""
    gltf = written(tmp_path / "body.glb", moving)
    for frame, points in enumerate(expected(moving)):
        assert_allclose(skinned(gltf, frame), points, atol=2e-5)
    clock = array(gltf, gltf.animations[0].samplers[0].input)
    assert_allclose(clock, np.arange(6) / FPS, atol=1e-6)


def test_turns_take_the_short_way_from_frame_to_frame(tmp_path, moving):
    gltf = written(tmp_path / "body.glb", moving)
    found = [
        array(gltf, gltf.animations[0].samplers[channel.sampler].output)
        for channel in gltf.animations[0].channels
        if channel.target.path == "rotation"
    ]
    assert len(found) == 24
    inner = np.sum(np.stack(found)[:, 1:] * np.stack(found)[:, :-1], axis=-1)
    assert inner.min() > 0


def test_a_body_that_does_not_change_with_its_pose_has_no_morphs(tmp_path, moving):
    body = bodies.load(moving[0])
    gltf = written(tmp_path / "body.glb", moving, poses=0 * body.poses)
    assert not gltf.meshes[0].primitives[0].targets
    assert {c.target.path for c in gltf.animations[0].channels} == {"rotation", "translation"}


def test_trimesh_reads_both(tmp_path, moving):
    source, *_ = moving
    written(tmp_path / "body.glb", moving)
    scene = trimesh.load(tmp_path / "body.glb")
    (read,) = scene.geometry.values()
    faces = np.asarray(bodies.load(source).faces)
    assert_allclose(read.faces, faces)
    vertices = np.random.default_rng(1).normal(size=(3, 120, 3))
    mesh.write_obj(tmp_path / "obj", vertices, faces)
    assert [path.name for path in sorted((tmp_path / "obj").iterdir())] == [
        "000000.obj",
        "000001.obj",
        "000002.obj",
    ]
    read = trimesh.load(tmp_path / "obj" / "000001.obj", process=False, maintain_order=True)
    assert_allclose(read.vertices, y_up(vertices[1]), atol=1e-5)
    assert_allclose(read.faces, faces)


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    with pytest.raises(UserError, match="is there already; remove it, or give another name"):
        mesh.write_obj(tmp_path, np.zeros((1, 3, 3)), np.array([[0, 1, 2]]))
