"""A body reduced to the keypoints of its mesh, in a joint set of the registry.

Which mixture of vertices a keypoint is, a file says itself (`regressor_NAME`, as
`data_prep/open_body.py` writes it); of SMPL's own files it follows from their joints and from
vertices that are known by number.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from pose3d_jax import body as bodies
from pose3d_jax import skeleton, sources
from pose3d_jax.body import Body, BodyError
from pose3d_jax.skeleton import Skeleton

# Of the mesh of SMPL and SMPL-H, as the field numbers them.
_MESH = 6890
_VERTICES = {
    "nose": 332,
    "right_eye": 6260,
    "left_eye": 2800,
    "right_ear": 4071,
    "left_ear": 583,
    "left_big_toe": 3216,
    "left_small_toe": 3226,
    "left_heel": 3387,
    "right_big_toe": 6617,
    "right_small_toe": 6624,
    "right_heel": 6787,
}
_MEANS = {
    "mid_hips": ("left_hip", "right_hip"),
    "mid_shoulders": ("left_shoulder", "right_shoulder"),
}


@struct.dataclass
class Figure:
    """A body of those vertices alone that its keypoints are made of."""

    body: Body
    regressor: Float[Array, "points vertices"]

    def pose(
        self,
        rotations: Float[Array, "*batch joints 3 3"],
        shape: Float[Array, "*batch components"],
    ) -> Float[Array, "*batch points 3"]:
        """Keypoints of bodies, the root joint where it is at rest; see `body.pose`."""
        nowhere = jnp.zeros((*shape.shape[:-1], 3))
        vertices, _ = bodies.pose(self.body, rotations, shape, nowhere)
        return bodies.regress(self.regressor, vertices)


@functools.lru_cache(maxsize=4)
def load(path: str | Path, wanted: Skeleton, components: int = 10) -> Figure:
    """The figure of a file: see `body.load`.

    Raises `BodyError` for a file that does not tell where all of the joint set's points are,
    `SourceError` for a regressor of another mesh; else as `body.load`.
    """
    # Whoever asks first may be in the middle of being traced.
    with jax.ensure_compile_time_eval():
        return _load(path, wanted, components)


def _load(path: str | Path, wanted: Skeleton, components: int) -> Figure:
    whole = bodies.load(path, components)
    key = f"regressor_{wanted.name}"
    found = bodies.arrays(path, key)
    own = np.asarray(found["J_regressor"])
    if key in found:
        vertices = whole.template.shape[1]
        regressor = sources.array(found[key], (wanted.size, vertices), f"{path}, {key}")
    else:
        regressor = _by_name(own, wanted, str(path))
    return Figure(*bodies.part(whole, jnp.asarray(regressor, jnp.float32)))


def _by_name(own: np.ndarray, wanted: Skeleton, where: str) -> np.ndarray:
    """A regressor out of SMPL's `own` of its joints and known vertices, by the points' names."""
    # SMPL-H and SMPL-X have SMPL's joints up to the wrists; theirs beyond are others.
    names = skeleton.get("smpl24").joints[: 24 if len(own) == 24 else 22]
    vertices = own.shape[1]
    found = np.zeros((wanted.size, vertices))
    missing = []
    for number, name in enumerate(wanted.joints):
        parts = _MEANS.get(name, (name,))
        if all(part in names for part in parts) and len(own) >= len(names):
            found[number] = np.mean([own[names.index(part)] for part in parts], axis=0)
        elif name in _VERTICES and vertices == _MESH:
            found[number, _VERTICES[name]] = 1.0
        else:
            missing.append(name)
    if missing:
        raise BodyError(
            f"{where}: tells nothing of where {', '.join(missing)} of {wanted.name} are; save the "
            f"body as .npz with an array regressor_{wanted.name} [{wanted.size}, {vertices}]"
        )
    return found
