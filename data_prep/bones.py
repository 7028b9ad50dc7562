"""Are these bones a person's? Half a metre from pelvis to hip is a wrong joint, not a wide hip."""

import numpy as np

from pose3d_jax.errors import UserError
from pose3d_jax.skeleton import Skeleton

# (parent, child) without sides -> shortest and longest plausible bone in metres, adults of
# 1.4 to 2.1 m in the definitions of joints that the datasets use.
_RANGES = {
    ("pelvis", "hip"): (0.06, 0.22),
    ("hip", "knee"): (0.28, 0.58),
    ("knee", "ankle"): (0.28, 0.56),
    ("pelvis", "spine"): (0.08, 0.36),
    ("spine", "thorax"): (0.08, 0.40),
    ("pelvis", "thorax"): (0.30, 0.72),
    ("thorax", "neck"): (0.04, 0.28),
    ("neck", "head"): (0.06, 0.30),
    ("thorax", "head"): (0.12, 0.50),
    ("thorax", "shoulder"): (0.08, 0.28),
    ("shoulder", "elbow"): (0.18, 0.42),
    # As short as 0.18: in CMU's files `radius` ends before the wrist.
    ("elbow", "wrist"): (0.15, 0.38),
}

# Bones that are not listed (eyes, ears, a detector's sets) need only be shorter than this.
_LONGEST = 0.8


class BoneLengthError(UserError):
    """A bone no person has; the message names the clip, the bone and the length."""


def check_bone_lengths(joints: np.ndarray, skeleton: Skeleton, name: str) -> None:
    """Raises `BoneLengthError` unless every bone of `joints [T, J, 3]` (metres) is plausible.

    `name` is what the message calls the clip.
    """
    for parent, child in skeleton.bones:
        lengths = np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1)
        ends = [skeleton.joints[i].split("_")[-1] for i in (parent, child)]
        low, high = _RANGES.get((ends[0], ends[1]), (0.0, _LONGEST))
        wrong = ~((lengths >= low) & (lengths <= high))
        if wrong.any():
            frame = int(np.argmax(wrong))
            raise BoneLengthError(
                f"{name}: the bone {skeleton.joints[parent]} to {skeleton.joints[child]} is "
                f"{lengths[frame]:.3f} m long in frame {frame}, expected {low} to {high} m; are "
                f"units and joint order right?"
            )
