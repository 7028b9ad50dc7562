"""Motions in BVH and glTF, read by pybvh, pygltflib and trimesh; places by their own kinematics."""

import io

import numpy as np
import pybvh
import pygltflib
import pytest
import trimesh
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pose3d_jax import skeleton
from pose3d_jax.formats import animation
from pose3d_jax.formats.kinematics import Articulated, articulate
from tests.formats.test_kinematics import H36M, rigid, walk
from tests.formats.test_mesh import array

FPS = 25.0


def read_bvh(folder, motion, fps=FPS):
    path = folder / "motion.bvh"
    path.write_text(animation.bvh(motion, fps), encoding="utf-8")
    return pybvh.read_bvh_file(str(path), world_up="+y")


def assert_bvh_holds(read, motion):
    order = [read.joint_names.index(name) for name in motion.names]
    assert_allclose(read.joint_positions()[:, order], 100 * motion.positions, atol=2e-4)


@pytest.mark.parametrize("name", skeleton.SKELETONS)
def test_bvh_of_every_skeleton_as_pybvh_reads_it(tmp_path, name):
    sk = skeleton.get(name)
    motion = articulate(rigid(sk, 5), sk)
    read = read_bvh(tmp_path, motion)
    assert_bvh_holds(read, motion)
    parents = {node.name: getattr(node.parent, "name", None) for node in read.nodes}
    for joint, parent in zip(sk.joints, sk.parents, strict=True):
        found = parents[joint]
        if found not in sk.joints and parent >= 0:  # a joint of no length between the two
            assert found == f"{sk.joints[parent]}_to_{joint}"
            found = parents[found]
        assert found == (sk.joints[parent] if parent >= 0 else None)


@pytest.mark.parametrize("fps", [1.0, 23.976, 30.0, 59.94, 1000.0])
def test_bvh_has_any_frame_rate(tmp_path, fps):
    motion = articulate(walk(0.2), H36M)
    text = animation.bvh(motion, fps)
    (line,) = (line for line in text.splitlines() if line.startswith("Frame Time:"))
    assert float(line.split()[2]) == pytest.approx(1 / fps, rel=1e-9)
    assert read_bvh(tmp_path, motion, fps).frame_count == len(motion.root)


def chain(turns):
    """Two bones, turned in every frame as said `[T, 2, 3]`: z, x, y in degrees."""
    local = Rotation.from_euler("ZXY", turns.reshape(-1, 3), degrees=True).as_matrix()
    local = local.reshape(len(turns), 2, 3, 3)
    rotations = np.stack([local[:, 0], local[:, 0] @ local[:, 1]], axis=1)
    ends = rotations[:, 1:]
    offsets = np.array([[0.0, 0, 0], [0.3, 0, 0], [0, 0.2, 0.1]])
    return Articulated(
        ("hüfte", "knie", "fuß"),
        (-1, 0, 1),
        offsets,
        np.ones((len(turns), 3)),
        np.concatenate([rotations, ends], axis=1),
    )


def test_bvh_has_angles_that_do_not_jump(tmp_path):
    """Two turns about one axis, and none of the places where two axes are one is lost."""
    turns = np.zeros((73, 2, 3))
    turns[:, 0, 2] = np.linspace(0, 720, 73)
    turns[:, 1, 1] = np.linspace(-90, 90, 73)
    read = read_bvh(tmp_path, motion := chain(turns))
    assert_bvh_holds(read, motion)
    assert read.joint_names == ["hüfte", "knie", "fuß"]
    assert_allclose(np.degrees(read.joint_angles[:, 0, 2]), turns[:, 0, 2], atol=1e-4)


def test_bvh_goes_on_past_where_two_axes_are_one(tmp_path):
    """A somersault about x: z and y stay, though past 90 degrees there are other such angles."""
    turns = np.zeros((60, 2, 3))
    turns[:, 0] = np.stack([np.full(60, 20.0), np.linspace(-2, 587, 60), np.full(60, -30.0)], -1)
    turns[:, 1] = np.cumsum(np.random.default_rng(0).uniform(-9, 9, (60, 3)), axis=0)
    read = read_bvh(tmp_path, motion := chain(turns))
    assert_bvh_holds(read, motion)
    assert_allclose(np.degrees(read.joint_angles[:, 0]), turns[:, 0], atol=1e-3)


def test_bvh_of_one_frame_and_of_one_joint(tmp_path):
    one = articulate(walk(0.2)[:1], H36M)
    assert_bvh_holds(read_bvh(tmp_path, one), one)
    dot = skeleton.Skeleton("dot", ("pelvis",), (-1,), 0)
    alone = articulate(walk(0.2)[:, :1], dot)
    assert_bvh_holds(read_bvh(tmp_path, alone), alone)


def read_glb(motion, name="person"):
    return pygltflib.GLTF2.load_from_bytes(animation.glb(motion, FPS, name))


def places(gltf, frame):
    """Each named node's matrix in a frame, by glTF 2.0, section 3.5.2: T R S, parents first."""
    tracks = {}
    for channel in gltf.animations[0].channels:
        sampler = gltf.animations[0].samplers[channel.sampler]
        tracks[channel.target.node, channel.target.path] = array(gltf, sampler.output)[frame]
    found = {}

    def visit(number, above):
        node = gltf.nodes[number]
        own = np.eye(4)
        turn = tracks.get((number, "rotation"), node.rotation)
        own[:3, :3] = np.eye(3) if turn is None else Rotation.from_quat(turn).as_matrix()
        place = tracks.get((number, "translation"), node.translation)
        own[:3, 3] = 0.0 if place is None else place
        found[number] = above @ own
        for child in node.children or []:
            visit(child, found[number])

    for number in gltf.scenes[gltf.scene].nodes:
        visit(number, np.eye(4))
    return found


@pytest.mark.parametrize("name", ["h36m17", "coco17", "mpii16", "body25"])
def test_glb_nodes_are_where_the_joints_are(name):
    sk = skeleton.get(name)
    motion = articulate(rigid(sk, 4), sk)
    gltf = read_glb(motion, "Ünal")
    for frame in range(4):
        found = places(gltf, frame)
        by_name = {gltf.nodes[n].name: matrix[:3, 3] for n, matrix in found.items()}
        ours = [by_name[joint] for joint in motion.names]
        assert_allclose(ours, motion.positions[frame], atol=2e-6)
    assert "Ünal" in by_name
    clock = array(gltf, gltf.animations[0].samplers[0].input)
    assert_allclose(clock, np.arange(4) / FPS, atol=1e-6)


def test_glb_shows_bones_from_joint_to_joint():
    """The skinned mesh touches both ends of every bone, in every frame."""
    motion = articulate(walk(0.2), H36M)
    gltf = read_glb(motion)
    skin, primitive = gltf.skins[0], gltf.meshes[0].primitives[0]
    corners = array(gltf, primitive.attributes.POSITION).astype(float)
    owner = array(gltf, primitive.attributes.JOINTS_0)[:, 0]
    assert_allclose(array(gltf, primitive.attributes.WEIGHTS_0)[:, 0], 1.0)
    inverse = array(gltf, skin.inverseBindMatrices).swapaxes(1, 2)
    for frame in (0, 5):
        found = places(gltf, frame)
        matrices = np.stack([found[n] @ i for n, i in zip(skin.joints, inverse, strict=True)])
        moved = np.einsum("vij,vj->vi", matrices[owner, :3, :3], corners) + matrices[owner, :3, 3]
        for joint, parent in enumerate(motion.parents):
            if not motion.offsets[joint].any():
                continue
            ends = motion.positions[frame, [parent, joint]]
            of_bone = moved[owner == parent]
            away = np.linalg.norm(of_bone[:, None] - ends, axis=-1).min(axis=0)
            assert away.max() < 1e-5


def test_glb_keeps_to_the_specification():
    """Section 3.6.2: bounds of times and places; 3.11: unit quaternions, the short way round."""
    motion = articulate(walk(1.0), H36M)
    gltf = read_glb(motion)
    for channel in gltf.animations[0].channels:
        sampler = gltf.animations[0].samplers[channel.sampler]
        assert gltf.accessors[sampler.input].min == [0.0]
        assert gltf.accessors[sampler.input].max[0] == np.float32((len(motion.root) - 1) / FPS)
        if channel.target.path == "rotation":
            turns = array(gltf, sampler.output)
            assert_allclose(np.linalg.norm(turns, axis=-1), 1.0, atol=1e-6)
            assert np.sum(turns[1:] * turns[:-1], axis=-1).min() > 0
    primitive = gltf.meshes[0].primitives[0]
    corners = array(gltf, primitive.attributes.POSITION)
    bounds = gltf.accessors[primitive.attributes.POSITION]
    assert_allclose(bounds.min, corners.min(axis=0))
    assert_allclose(bounds.max, corners.max(axis=0))


def test_trimesh_reads_closed_solids():
    scene = trimesh.load(io.BytesIO(animation.glb(articulate(walk(0.2), H36M), FPS, "a")), "glb")
    (shown,) = scene.geometry.values()
    shown.merge_vertices(merge_norm=True)
    solids = shown.split(only_watertight=False)
    assert len(shown.faces) == 8 * (17 + 16)
    assert all(solid.is_watertight and solid.volume > 0 for solid in solids)  # faces look outward


def test_glb_of_one_frame_and_of_one_joint():
    one = articulate(walk(0.2)[:1], H36M)
    assert_allclose(places(read_glb(one), 0)[1][:3, 3], one.root[0], atol=1e-6)
    dot = skeleton.Skeleton("dot", ("тело",), (-1,), 0)
    alone = articulate(walk(0.2)[:, :1], dot)
    gltf = read_glb(alone)
    assert gltf.nodes[1].name == "тело"
    assert_allclose(places(gltf, 3)[1][:3, 3], alone.root[3], atol=1e-6)
