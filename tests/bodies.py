"""Files of bodies as their licensors lay them out, with made-up contents."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
from scipy import sparse

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
