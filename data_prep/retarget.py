"""Motion capture's joints to the rotations of a body of SMPL's layout.

Bodies differ in their bones; what is carried over is where each bone points. A joint with several
bones (pelvis, chest) has the rotation of the frame that two of them span; another turns no more
than its bone asks for, but the thigh and the upper arm turn about themselves, too, so that knee and
elbow bend like hinges. Collars move with the chest, hands and toes with what they hang on.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from pose3d_jax import skeleton

Array = np.ndarray
Bone = tuple[str, str]  # from, to

JOINTS = skeleton.get("smpl24").joints
# How much a bend says of a hinge's axis beside what a straight limb says: sine of the angle.
_STRAIGHT = 0.15

# Where bones of the source rigs begin and end (names of `cmu_rigs.json`), by joint of the body.
_SIDES = (("left", "l", "Left"), ("right", "r", "Right"))


def _table() -> dict[str, dict[str, Bone]]:
    amc: dict[str, Bone] = {
        "pelvis": ("root", "lowerback"),
        "hips": ("rhipjoint", "lhipjoint"),
        "spine1": ("lowerback", "upperback"),
        "spine2": ("upperback", "thorax"),
        "spine3": ("upperback", "thorax"),
        "shoulders": ("rclavicle", "lclavicle"),
        "neck_base": ("thorax", "upperneck"),
        "head_base": ("upperneck", "head"),
    }
    bvh: dict[str, Bone] = {
        "pelvis": ("Hips", "Chest"),
        "hips": ("RightHip", "LeftHip"),
        "spine1": ("Chest", "Chest2"),
        "spine2": ("Chest", "Chest2"),
        "spine3": ("Chest", "Chest2"),
        "shoulders": ("RightShoulder", "LeftShoulder"),
        "neck_base": ("lowerneck", "Neck"),
        "head_base": ("Neck", "Head"),
    }
    daz: dict[str, Bone] = {
        "pelvis": ("hip", "abdomen"),
        "hips": ("rThigh", "lThigh"),
        "spine1": ("abdomen", "chest"),
        "spine2": ("chest", "neck"),
        "spine3": ("chest", "neck"),
        "shoulders": ("rShldr", "lShldr"),
        "neck_base": ("neck", "head"),
    }
    for side, small, long in _SIDES:
        amc |= {
            f"{side}_hip": (f"{small}hipjoint", f"{small}femur"),
            f"{side}_knee": (f"{small}femur", f"{small}tibia"),
            f"{side}_ankle": (f"{small}tibia", f"{small}foot"),
            f"{side}_shoulder": (f"{small}clavicle", f"{small}humerus"),
            f"{side}_elbow": (f"{small}humerus", f"{small}radius"),
            f"{side}_wrist": (f"{small}radius", f"{small}hand"),
        }
        bvh |= {
            f"{side}_hip": (f"{long}Hip", f"{long}Knee"),
            f"{side}_knee": (f"{long}Knee", f"{long}Ankle"),
            f"{side}_ankle": (f"{long}Ankle", f"{long}Toe"),
            f"{side}_shoulder": (f"{long}Shoulder", f"{long}Elbow"),
            f"{side}_elbow": (f"{long}Elbow", f"{long}Wrist"),
            f"{side}_wrist": (f"{long}Wrist", f"{long[0]}Fingers"),
        }
        daz |= {
            f"{side}_hip": (f"{small}Thigh", f"{small}Shin"),
            f"{side}_knee": (f"{small}Shin", f"{small}Foot"),
            f"{side}_shoulder": (f"{small}Shldr", f"{small}ForeArm"),
            f"{side}_elbow": (f"{small}ForeArm", f"{small}Hand"),
            f"{side}_wrist": (f"{small}Hand", f"{small}Mid1"),
        }
    return {"amc": amc, "bvh131": bvh, "daz": daz}


BONES = _table()
# Each joint's child, along the bone that says how it turns.
_CHILD = {
    "spine1": "spine2",
    "spine2": "spine3",
    "neck_base": "head_base",
    **{
        f"{side}_{joint}": f"{side}_{child}"
        for side in ("left", "right")
        for joint, child in (
            ("hip", "knee"),
            ("knee", "ankle"),
            ("ankle", "foot"),
            ("shoulder", "elbow"),
            ("elbow", "wrist"),
            ("wrist", "hand"),
        )
    },
}
# Joints that turn about their own bone, the hinge below them, and whither that bends at rest.
_HINGES = {
    f"{side}_{joint}": (f"{side}_{hinge}", np.array(towards))
    for side in ("left", "right")
    for joint, hinge, towards in (
        ("hip", "knee", (0.0, 0.0, -1.0)),
        ("shoulder", "elbow", (0.0, 0.0, 1.0)),
    )
}


def directions(
    positions: Float[Array, "frames points 3"], names: tuple[str, ...], rig: str
) -> dict[str, Float[Array, "frames 3"]]:
    """Unit vectors of a source rig's bones, by the joint of the body that turns with them."""
    index = {name: i for i, name in enumerate(names)}
    found = {}
    for joint, (start, stop) in BONES[rig].items():
        away = positions[:, index[stop]] - positions[:, index[start]]
        found[joint] = away / np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-9)
    return found


def rotations(
    along: Mapping[str, Float[Array, "frames 3"]], rest: Float[Array, "joints 3"]
) -> Float[Array, "frames joints 3"]:
    """Rotation vectors of the body's joints, in their parents, of the root in the world.

    Args:
      along: directions by joint, in the world; see `directions`. Those that are not there leave
        their joints at rest.
      rest: joints of the body at rest, y up, facing z.
    """
    at = {name: rest[i] for i, name in enumerate(JOINTS)}
    parents = skeleton.get("smpl24").parents
    frames = len(along["hips"])
    turned: dict[str, Rotation] = {}
    found = np.zeros((frames, len(JOINTS), 3))
    for number, joint in enumerate(JOINTS):
        above = turned[JOINTS[parents[number]]] if number else Rotation.identity(frames)
        if joint == "pelvis":
            own = _of_frames(
                (at["left_hip"] - at["right_hip"], at["spine1"] - at["pelvis"]),
                (along["hips"], along["pelvis"]),
            )
        elif joint == "spine3":
            own = _of_frames(
                (at["neck_base"] - at["spine3"], at["left_shoulder"] - at["right_shoulder"]),
                (along["spine3"], along["shoulders"]),
            )
        elif joint == "head_base" and joint in along:
            # The top of the head is above its base.
            own = _swing(above, np.array([0.0, 1.0, 0.0]), along[joint])
        elif joint in _CHILD and joint in along:
            bone = at[_CHILD[joint]] - at[joint]
            own = _swing(above, bone, along[joint])
            if joint in _HINGES:
                hinge, towards = _HINGES[joint]
                own = own * _twist(own, bone, towards, along[hinge])
        else:
            own = above
        turned[joint] = own
        found[:, number] = (above.inv() * own).as_rotvec()
    return found


def _of_frames(
    rest: tuple[Float[Array, "3"], Float[Array, "3"]],
    now: tuple[Float[Array, "frames 3"], Float[Array, "frames 3"]],
) -> Rotation:
    """The turn that takes a first vector to another, and a second as near as it can."""

    def frame(first: Array, second: Array) -> Array:
        x = first / np.linalg.norm(first, axis=-1, keepdims=True)
        z = np.cross(x, second)
        z = z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-9)
        return np.stack([x, np.cross(z, x), z], axis=-1)

    return Rotation.from_matrix(frame(*now) @ frame(*rest).T)


def _swing(above: Rotation, bone: Float[Array, "3"], towards: Float[Array, "frames 3"]) -> Rotation:
    """The least turn beyond `above` that makes a bone of the rest pose point somewhere."""
    start = above.apply(bone / np.linalg.norm(bone))
    axis = np.cross(start, towards)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, np.sum(start * towards, axis=-1, keepdims=True))
    return Rotation.from_rotvec(axis / np.maximum(sine, 1e-9) * angle) * above


def _twist(
    own: Rotation,
    bone: Float[Array, "3"],
    towards: Float[Array, "3"],
    below: Float[Array, "frames 3"],
) -> Rotation:
    """The turn about a bone, in the rest pose, after which the hinge at its end bends as it may.

    Of a limb that is all but straight it is smaller: its bend says little.
    """
    bone = bone / np.linalg.norm(bone)
    first = towards - bone * (bone @ towards)
    first = first / np.linalg.norm(first)
    second = np.cross(bone, first)
    bent = own.inv().apply(below)
    angle = np.arctan2(bent @ second, bent @ first + _STRAIGHT)
    return Rotation.from_rotvec(angle[:, None] * bone)
