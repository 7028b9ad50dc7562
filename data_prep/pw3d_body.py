"""3DPW's people as bodies: SMPL's files, posed as the set's rotations and shapes say.

Joints and keypoints are then OpenPose's 25 (`body25`), as those of Body-CMU are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from data_prep import body_cmu
from pose3d_jax import figure as figures
from pose3d_jax import skeleton
from pose3d_jax.errors import UserError
from pose3d_jax.figure import Figure
from pose3d_jax.schema import BodyLabels
from pose3d_jax.sources import SourceError

Array = np.ndarray

SKELETON = "body25"
DETECTED = "coco18"
# The joints that published numbers are of, but for the top of the head, and the root.
_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COMMON = (
    *(f"{side}_{joint}" for side in ("left", "right") for joint in _LIMBS),
    "mid_shoulders",
    "mid_hips",
)
_PARTS = 24  # of SMPL's poses


class Motion(NamedTuple):
    """A person's body, as a file has it."""

    rotations: Float[Array, "frames 24 3"]  # vectors; of the root in the file's world
    shape: Float[Array, "components"]
    gender: str  # m or f


def load(paths: Sequence[str | Path]) -> dict[str, Figure]:
    """The figures of men (`m`) and women (`f`): of one file for both, or of a file each.

    Raises `UserError` for more files, for bodies that are not of SMPL's 24 joints, and for two
    with other numbers of shapes; `BodyError` and `SourceError` as `figure.load` does.
    """
    if len(paths) > 2:
        raise UserError(f"{len(paths)} bodies; give one for everybody, or those of men and women")
    found = {}
    for gender, path in (("m", paths[0]), ("f", paths[-1])):
        found[gender] = figures.load(path, skeleton.get(SKELETON))
        parts = found[gender].body.size
        if parts != _PARTS:
            raise UserError(
                f"{path}: has {parts} joints, but the poses of 3DPW are of SMPL's {_PARTS}; give a "
                f"file of SMPL"
            )
    components = {figure.body.components for figure in found.values()}
    if len(components) > 1:
        raise UserError(
            f"{paths[0]} and {paths[1]} have other numbers of shapes ({sorted(components)}); give "
            f"two of one kind"
        )
    return found


def labelled(
    figure: Figure,
    motion: Motion,
    pelvis: Float[Array, "frames 3"],
    valid: Bool[Array, "frames"],
    turn: Float[Array, "3 3"],
    where: str,
) -> tuple[Float[Array, "frames 25 3"], BodyLabels]:
    """Joints, metres, and labels of a body in a world turned by `turn`.

    Args:
      figure: of the motion's gender.
      motion: as the file has it.
      pelvis: metres, the body's first joint in the turned world.
      valid: which frames are labelled.
      turn: from the file's world.
      where: what errors call the person.

    Raises `SourceError` where the motion has fewer shapes than the body; further ones are left out.
    """
    components = figure.body.components
    if len(motion.shape) < components:
        raise SourceError(
            f"{where}: has {len(motion.shape)} betas, but the body has {components} shapes; fetch "
            f"the file again"
        )
    first = Rotation.from_matrix(turn) * Rotation.from_rotvec(motion.rotations[:, 0])
    rotations = np.concatenate([first.as_rotvec()[:, None], motion.rotations[:, 1:]], axis=1)
    rotations = rotations.astype(np.float32)
    shape = motion.shape[:components].astype(np.float32)
    # The pelvis, since what a translation is added to depends on the file.
    place = (pelvis - body_cmu.rest_joints(figure, shape)[0]).astype(np.float32)
    there = valid.astype(np.float32)
    labels = BodyLabels(rotations * there[:, None, None], shape * there[:, None], there)
    return body_cmu.keypoints(figure, rotations, shape, place), labels


def apart(
    points: Float[Array, "frames 25 3"], joints: Float[Array, "frames 24 3"]
) -> Float[Array, "frames shared"]:
    """Metres between a posed body's joints and SMPL's joints of the same names."""
    ours, theirs = skeleton.get(SKELETON).joints, skeleton.get("smpl24").joints
    shared = [(i, theirs.index(name)) for i, name in enumerate(ours) if name in theirs]
    here, there = np.array(shared).T
    return np.linalg.norm(points[:, here] - joints[:, there], axis=-1)


def as_body25(detected: Float[Array, "frames 18 3"]) -> Float[Array, "frames 25 3"]:
    """Detections (x, y, confidence) of OpenPose's 18 joints as its 25.

    The middle of the hips is theirs, where both are seen, with the lower confidence; the feet are
    missing.
    """
    ours, theirs = skeleton.get(SKELETON).joints, skeleton.get(DETECTED).joints
    found = np.zeros((len(detected), len(ours), 3))
    found[:, [ours.index(name) for name in theirs]] = detected
    hips = detected[:, [theirs.index("left_hip"), theirs.index("right_hip")]]
    confidence = hips[..., 2].min(axis=1)
    middle = np.concatenate([hips[..., :2].mean(axis=1), confidence[:, None]], axis=1)
    found[:, ours.index("mid_hips")] = np.where(confidence[:, None] > 0, middle, 0.0)
    return found
