"""An articulated body with the joints of h36m17: sizes, joint limits, forward kinematics.

Body axes: x forward, y left, z up. At rest the body stands with hanging arms. A joint turns by
three angles in radians, the same sign meaning the same movement on both sides:

- flexion: limbs and trunk go forward, the knee backward;
- side: a limb goes outward (abduction), the trunk to the left;
- twist: a limb turns inward about itself, the trunk turns to the left.

The joint's rotation is `Ry(flexion) Rx(side) Rz(twist)`, signs as above.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from pose3d_jax import skeleton

SKELETON = skeleton.get("h36m17")

# Least and greatest (flexion, side, twist) of each joint that turns, in degrees. With `side` and
# `twist` under 90 degrees the hinges' axes never turn over: elbows and knees bend one way only.
LIMITS = {
    "pelvis": ((-20, 35), (-20, 20), (-20, 20)),
    "spine": ((-15, 40), (-20, 20), (-20, 20)),
    "thorax": ((-15, 25), (-15, 15), (-25, 25)),
    "neck": ((-35, 40), (-30, 30), (-60, 60)),
    "shoulder": ((-50, 170), (-5, 80), (-60, 60)),
    "elbow": ((0, 145), (0, 0), (0, 0)),
    "hip": ((-30, 110), (-15, 45), (-25, 25)),
    "knee": ((0, 140), (0, 0), (0, 0)),
}

# Share of the standing height, after Winter, "Biomechanics and Motor Control of Human Movement",
# ch. 4: the offset of each joint from its parent at rest (x, y, z), left side.
_OFFSETS = {
    "hip": (0.0, 0.065, 0.0),
    "knee": (0.0, 0.0, -0.245),
    "ankle": (0.0, 0.0, -0.246),
    "spine": (0.0, 0.0, 0.130),
    "thorax": (0.0, 0.0, 0.150),
    "neck": (0.0, 0.0, 0.060),
    "head": (0.01, 0.0, 0.110),
    "shoulder": (0.0, 0.105, -0.015),
    "elbow": (0.0, 0.0, -0.186),
    "wrist": (0.0, 0.0, -0.146),
}
_ANKLE_HEIGHT = 0.039


@dataclasses.dataclass(frozen=True)
class Body:
    """A person's size: standing height in metres, and factors on the usual proportions."""

    height: float
    legs: float = 1.0
    arms: float = 1.0
    width: float = 1.0  # of hips and shoulders

    @property
    def offsets(self) -> np.ndarray:
        """Each joint's offset from its parent at rest, `[17, 3]` metres; the pelvis's is 0."""
        offsets = np.zeros((SKELETON.size, 3))
        factors = {"knee": self.legs, "ankle": self.legs, "elbow": self.arms, "wrist": self.arms}
        for i, joint in enumerate(SKELETON.joints):
            part = _part(joint)
            if part in _OFFSETS:
                mirror = -1 if SKELETON.side(i) == "right" else 1
                offsets[i] = np.multiply(_OFFSETS[part], (1, mirror * self.width, 1))
                offsets[i] *= self.height * factors.get(part, 1.0)
        return offsets

    @property
    def ankle_height(self) -> float:
        """Of the ankle of a foot flat on the floor, metres."""
        return _ANKLE_HEIGHT * self.height


def _part(joint: str) -> str:
    return joint.split("_")[-1]


def clip_angles(angles: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The angles `[T, 3]` (radians) of each joint, held within `LIMITS`."""
    clipped = {}
    for joint, values in angles.items():
        low, high = np.radians(LIMITS[_part(joint)]).T
        clipped[joint] = np.clip(values, low, high)
    return clipped


def forward_kinematics(
    body: Body, angles: Mapping[str, np.ndarray], heading: np.ndarray | float = 0.0
) -> np.ndarray:
    """Joints `[T, 17, 3]` (metres) of a body whose pelvis is at the origin.

    `angles` holds (flexion, side, twist) `[T, 3]` of joints by name; those left out stay at rest.
    `heading [T]` turns the whole body about z (radians).
    """
    frames = len(next(iter(angles.values())))
    heading = np.broadcast_to(heading, frames)
    joints = np.zeros((frames, SKELETON.size, 3))
    rotations: list[Rotation] = []
    for i, (name, parent) in enumerate(zip(SKELETON.joints, SKELETON.parents, strict=True)):
        rotation = _rotation(i, angles.get(name, np.zeros((frames, 3))))
        if parent < 0:
            rotation = Rotation.from_euler("z", heading[:, None]) * rotation
        else:
            joints[:, i] = joints[:, parent] + rotations[parent].apply(body.offsets[i])
            rotation = rotations[parent] * rotation
        rotations.append(rotation)
    return joints


def _rotation(joint: int, angles: np.ndarray) -> Rotation:
    side = SKELETON.side(joint)
    limb = side != "middle"
    forward = -1 if limb and _part(SKELETON.joints[joint]) != "knee" else 1
    outward = 1 if side == "left" else -1
    inward = -1 if side == "left" else 1
    return Rotation.from_euler("YXZ", angles * [forward, outward, inward])


def stand(body: Body, joints: np.ndarray, lift: np.ndarray | float = 0.0) -> np.ndarray:
    """The joints `[T, 17, 3]` moved up or down so that the lower foot is `lift [T]` over z = 0."""
    ankles = [SKELETON.joints.index(f"{side}_ankle") for side in ("left", "right")]
    lowest = joints[:, ankles, 2].min(axis=1)
    up = np.broadcast_to(body.ankle_height + lift - lowest, len(joints))
    return joints + up[:, None, None] * np.array([0.0, 0.0, 1.0])
