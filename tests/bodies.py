"""Files of bodies as their licensors lay them out, with made-up contents."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
from scipy import sparse

from data_prep import body_cmu as prepare
from data_prep import cmu, writer
from pose3d_jax import figure as figures
from pose3d_jax import skeleton
from tests import scenes

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def table(seed=0, vertices=120, parents=SMPL_PARENTS, components=10):
    """The arrays of a body, in the axes, types and habits of SMPL's files."""
    rng = np.random.default_rng(seed)
    joints = len(parents)
    weights = np.zeros((vertices, joints))
    for row in weights:
        row[rng.choice(joints, 4, replace=False)] = rng.dirichlet(np.ones(4))
    regressor = np.zeros((joints, vertices))
    for row in regressor:
        row[rng.choice(vertices, 6, replace=False)] = rng.dirichlet(np.ones(6))
    tree = np.stack([np.array(parents), np.arange(joints)])
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": 0.05 * rng.normal(size=(vertices, 3, components)),
        "posedirs": 0.02 * rng.normal(size=(vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": tree.astype(np.uint32),  # the root's parent is 2^32 - 1
        "f": rng.integers(0, vertices, (50, 3)).astype(np.uint32),
    }


def save_npz(path: Path, arrays) -> Path:
    np.savez(path, **arrays)
    return path


def save_pkl(path: Path, arrays, protocol=2) -> Path:
    """As SMPL 1.0 is pickled: `chumpy` arrays, a sparse regressor, and what nobody needs."""
    chumpy, inner = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    inner.Ch = Ch
    sys.modules.update({"chumpy": chumpy, "chumpy.ch": inner})
    try:
        held = {key: Ch(arrays[key]) for key in ("v_template", "shapedirs", "weights")}
        rest = {key: arrays[key] for key in ("posedirs", "kintree_table", "f")}
        regressor = sparse.csc_matrix(arrays["J_regressor"])
        more = {"bs_style": "lbs", "bs_type": "lrotmin", "J": Ch(np.zeros((24, 3)))}
        with path.open("wb") as stream:
            pickle.dump({**held, **rest, "J_regressor": regressor, **more}, stream, protocol)
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    return path


SMPL = skeleton.get("smpl24")
# Metres, y up, facing z: a T pose, arms out along x.
REST = np.zeros((24, 3))
for name, place in {
    "left_hip": (0.09, -0.08, 0.0),
    "spine1": (0.0, 0.1, -0.01),
    "left_knee": (0.1, -0.48, 0.01),
    "spine2": (0.0, 0.25, 0.0),
    "left_ankle": (0.09, -0.9, -0.03),
    "spine3": (0.0, 0.3, 0.01),
    "left_foot": (0.11, -0.96, 0.1),
    "neck_base": (0.0, 0.5, -0.02),
    "left_collar": (0.08, 0.42, 0.0),
    "head_base": (0.0, 0.6, 0.0),
    "left_shoulder": (0.18, 0.44, -0.01),
    "left_elbow": (0.45, 0.43, -0.02),
    "left_wrist": (0.7, 0.44, -0.02),
    "left_hand": (0.79, 0.43, -0.03),
}.items():
    REST[SMPL.joints.index(name)] = place
    if name.startswith("left"):
        other = SMPL.joints.index(name.replace("left", "right"))
        REST[other] = np.array(place) * [-1, 1, 1]


def person(path: Path) -> Path:
    """A body of a person's measure, six vertices about each joint, with its regressors."""
    rng = np.random.default_rng(0)
    corners = 0.04 * np.concatenate([np.eye(3), -np.eye(3)])
    vertices = (REST[:, None] + corners).reshape(-1, 3)
    octahedron = np.array([(x, y, z) for x in (0, 3) for y in (1, 4) for z in (2, 5)])
    weights = np.repeat(np.eye(24), 6, axis=0)
    middle = np.repeat(np.eye(24), 6, axis=1) / 6
    points = skeleton.get("body25").joints
    parts = {
        "mid_hips": ("left_hip", "right_hip"),
        "mid_shoulders": ("left_shoulder", "right_shoulder"),
    }
    regressor = np.zeros((25, len(vertices)))
    for number, name in enumerate(points):
        joints = parts.get(name, (name,))
        if all(joint in SMPL.joints for joint in joints):
            regressor[number] = np.mean([middle[SMPL.joints.index(j)] for j in joints], axis=0)
        else:  # of the face, of the feet
            side = name.partition("_")[0]
            near = f"{side}_foot" if "toe" in name or "heel" in name else "head_base"
            regressor[number, 6 * SMPL.joints.index(near) + number % 6] = 1.0
    near = {
        "pelvis": "pelvis", "spine": "spine2", "thorax": "spine3", "neck": "neck_base",
        "head": "head_base", "head_top": "head_base", "nose": "head_base",
    }  # fmt: skip
    own = [near.get(name, name) for name in skeleton.get("h36m17").joints]
    arrays = {
        "regressor_h36m17": np.stack([middle[SMPL.joints.index(name)] for name in own]),
        "v_template": vertices,
        "shapedirs": 0.03 * rng.normal(size=(24, 3, 10)).repeat(6, axis=0),
        "posedirs": np.zeros((len(vertices), 3, 207)),
        "J_regressor": middle,
        "weights": weights,
        "kintree_table": np.stack([np.array(SMPL_PARENTS), np.arange(24)]),
        "f": np.concatenate([6 * joint + octahedron for joint in range(24)]),
        "regressor_body25": regressor,
    }
    return save_npz(path, arrays)


RIG = cmu.rig_joints("amc")


def motion(frames, seed):
    """Somebody of the rig `amc` who waves all limbs: positions `[frames, 31, 3]`, y up."""
    rng = np.random.default_rng(seed)
    still = np.zeros((31, 3))
    for name, place in {
        "lowerback": (0, 0.1, 0), "upperback": (0, 0.25, 0), "thorax": (0, 0.5, 0),
        "lowerneck": (0, 0.52, 0), "upperneck": (0, 0.6, 0), "head": (0, 0.7, 0),
        "hipjoint": (0.09, -0.08, 0), "femur": (0.1, -0.48, 0.02), "tibia": (0.1, -0.9, 0),
        "foot": (0.1, -0.95, 0.1), "toes": (0.1, -0.95, 0.15), "clavicle": (0.18, 0.44, 0),
        "humerus": (0.45, 0.43, 0), "radius": (0.68, 0.43, 0.05), "hand": (0.76, 0.43, 0.06),
        "wrist": (0.7, 0.43, 0.05), "fingers": (0.8, 0.43, 0.06), "thumb": (0.74, 0.43, 0.1),
    }.items():  # fmt: skip
        for joint, sign in ((name, 1), (f"l{name}", 1), (f"r{name}", -1)):
            if joint in RIG:
                still[RIG.index(joint)] = np.array(place) * [sign, 1, 1]
    t = np.arange(frames)[:, None, None] / 15
    wave = 0.08 * np.sin(t + rng.uniform(0, 6, (1, 31, 3)))
    wave[:, [RIG.index(name) for name in ("lhipjoint", "rhipjoint", "root")]] = 0
    return still + wave + [0, 0.95, 0]


def prepared(folder: Path, frames=40, features=None) -> Path:
    """Body-CMU's tiers and validation in `folder/data`, a clip each, of `folder/person.npz`.

    With so many `features` of images, random ones.
    """
    folder.mkdir(exist_ok=True)
    figure = figures.load(person(folder / "person.npz"), skeleton.get("body25"))
    by_split = {}
    for number, split in enumerate(("train", "train_2d", "train_pseudo", "validation")):
        spec = {
            "name": f"{split}_clip", "clip": "amc/01_01", "start": 0, "group": "g",
            "center_xy": [0.0, 0.0],
        }  # fmt: skip
        record = prepare.record(figure, motion(frames, number), spec, split, 30.0)
        by_split[split] = [scenes.pictured(record, features) if features else record]
    writer.write(folder / "data", prepare.NAME, by_split, description="small")
    return folder
