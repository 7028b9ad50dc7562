"""Rigid bones in motion as animation software reads them: BVH, and animated glTF."""

import warnings

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from pose3d_jax.formats.gltf import Gltf, continuous
from pose3d_jax.formats.kinematics import Articulated

_CENTIMETRES = 100.0
_END = 0.05  # metres from the last joint of a limb to the end of its bone
_GIRTH = 0.1  # of a bone as it is shown, of its length
_BALL = 0.015  # metres from a joint to the corners of what shows it


def bvh(motion: Articulated, fps: float) -> str:
    """The text of a BVH file: centimetres, degrees; rotations about z, x, y, each the last's axes.

    Of the angles that say the same turn, those next to the frame before's are written. The last
    joint of a limb keeps its name and does not turn; its end site is 5 cm further on. Joints that
    `articulate` put before the children of a branching joint have no length.
    """
    lines = ["HIERARCHY", *_branch(motion, 0, ""), "MOTION", f"Frames: {len(motion.root)}"]
    lines.append(f"Frame Time: {1 / fps:.10g}")
    local = motion.local
    with warnings.catch_warnings():
        # At x = +-90 degrees only the sum of the other two angles tells; any two will do.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_euler("ZXY", degrees=True)
    angles = _going_on(angles.reshape(*local.shape[:2], 3)).reshape(len(local), -1)
    values = np.concatenate([_CENTIMETRES * motion.root, angles], axis=1).round(6) + 0.0  # no -0
    lines += [" ".join(f"{value:.6f}" for value in row) for row in values]
    return "\n".join(lines) + "\n"


def _going_on(angles: Float[np.ndarray, "frames joints 3"]) -> Float[np.ndarray, "frames joints 3"]:
    """Of all angles z, x, y that say the same, in degrees, those nearest to the frame before.

    Whole turns may be added to each, and (z, x, y) is (z + 180, 180 - x, y + 180).
    """
    both = np.stack([angles, angles * [1, -1, 1] + 180.0])
    found = angles.copy()
    for frame in range(1, len(angles)):
        before = found[frame - 1]
        steps = both[:, frame] - before
        steps -= 360.0 * np.round(steps / 360.0)
        second = np.abs(steps[1]).sum(axis=-1) < np.abs(steps[0]).sum(axis=-1)
        found[frame] = before + np.where(second[:, None], steps[1], steps[0])
    return found


def _branch(motion: Articulated, joint: int, indent: str) -> list[str]:
    """The lines of a joint and all below it."""
    place = "Xposition Yposition Zposition "
    deeper = indent + "  "
    lines = [
        f"{indent}{'JOINT' if joint else 'ROOT'} {motion.names[joint]}",
        f"{indent}{{",
        f"{deeper}{_offset(motion.offsets[joint])}",
        f"{deeper}CHANNELS {3 if joint else 6} {'' if joint else place}"
        "Zrotation Xrotation Yrotation",
    ]
    children = [child for child, parent in enumerate(motion.parents) if parent == joint]
    for child in children:
        lines += _branch(motion, child, deeper)
    if not children:
        end = _offset(_END * _onwards(motion.offsets[joint]))
        lines += [f"{deeper}End Site", f"{deeper}{{", f"{deeper}  {end}", f"{deeper}}}"]
    return [*lines, f"{indent}}}"]


def _offset(vector: Float[np.ndarray, "3"]) -> str:
    return "OFFSET " + " ".join(f"{_CENTIMETRES * value:.6f}" for value in vector)


def _onwards(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """The direction of a bone; up where it has no length."""
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else np.array([0.0, 1.0, 0.0])


def glb(motion: Articulated, fps: float, name: str, *, first: int = 0) -> bytes:
    """A binary glTF 2.0 file: metres, y up; nodes of the joints, and a skin that shows the bones.

    The joints' nodes lie below one that has the motion's name. It moves from frame `first` on,
    which is at `first / fps` seconds, and until then stands as it begins. Raises `UserError`
    without pygltflib.
    """
    file = Gltf()
    rest = np.zeros((len(motion.names), 3))
    for joint, parent in enumerate(motion.parents[1:], start=1):
        rest[joint] = rest[parent] + motion.offsets[joint]
    corners, faces, owners = _figure(rest, motion.parents)
    mesh = file.mesh(corners, faces, np.eye(len(rest))[owners], None)
    upright = Rotation.identity().as_quat()
    nodes = file.skeleton(motion.offsets, motion.parents, upright, motion.names, name)
    file.node(name="bones", mesh=mesh, skin=file.skin(nodes, -rest))
    local = motion.local
    turns = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_quat().reshape(*local.shape[:2], 4)
    turns = continuous(turns)
    moves = {(node, "rotation"): turns[:, number] for number, node in enumerate(nodes)}
    moves[nodes[0], "translation"] = motion.root
    file.animation((first + np.arange(len(motion.root))) / fps, moves)
    return file.whole()


def _figure(
    rest: Float[np.ndarray, "joints 3"], parents: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Octahedra: corners `[C, 3]`, faces `[F, 3]`, and the joint `[C]` that each corner follows.

    Faces share no corners, so that they look flat.
    """
    # Two tips and a square between; faces seen from outside, counter-clockwise.
    ring = ((2, 3), (3, 4), (4, 5), (5, 2))
    sides = [face for a, b in ring for face in ((0, b, a), (1, a, b))]
    corners, owners = [], []
    for joint, (parent, place) in enumerate(zip(parents, rest, strict=True)):
        length = float(np.linalg.norm(place - rest[parent]))
        up = np.array([0.0, _BALL, 0.0])
        solids = [(joint, place - up, place + up, 0.5, _BALL)] if length > 0 or parent < 0 else []
        if parent >= 0 and length > 0:
            solids.append((parent, rest[parent], place, 0.2, _GIRTH * length))
        for owner, start, stop, middle, girth in solids:
            along = _onwards(stop - start)
            across = np.cross(along, np.eye(3)[np.argmin(np.abs(along))])
            across *= girth / np.linalg.norm(across)
            other = np.cross(along, across)
            waist = start + middle * (stop - start)
            tips = [start, stop, waist + across, waist + other, waist - across, waist - other]
            corners.append(np.stack(tips)[np.array(sides).ravel()])
            owners.append(np.full(len(corners[-1]), owner))
    whole = np.concatenate(corners)
    return whole, np.arange(len(whole)).reshape(-1, 3), np.concatenate(owners)
