"""Joint sets: names, tree, left/right pairs, and the explicit way from one set to another."""

import dataclasses

import numpy as np

from pose3d_jax.errors import UserError


class SkeletonError(UserError):
    """Two joint sets do not match, or a set is unknown; the message names the joints."""


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A named, ordered joint set. `parents[i]` is the index of joint i's parent, -1 at a root.

    Joints outside a tree (eyes and ears of a detector's set) hang on the joint they sit on.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    root: int

    @property
    def size(self) -> int:
        """Number of joints."""
        return len(self.joints)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) index pairs."""
        return tuple((p, c) for c, p in enumerate(self.parents) if p >= 0)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each joint the index of its left/right counterpart, or its own."""
        swap = {"left": "right", "right": "left"}
        index = {name: i for i, name in enumerate(self.joints)}
        partners = []
        for name in self.joints:
            side, _, rest = name.partition("_")
            partners.append(index[f"{swap[side]}_{rest}"] if side in swap else index[name])
        return tuple(partners)

    def side(self, joint: int) -> str:
        """`left`, `right` or `middle`."""
        prefix = self.joints[joint].partition("_")[0]
        return prefix if prefix in ("left", "right") else "middle"


def _skeleton(name: str, tree: str) -> Skeleton:
    """A skeleton from words `joint<parent`; the one without a parent is the root."""
    joints, _, parents = zip(*(word.partition("<") for word in tree.split()), strict=True)
    indices = tuple(joints.index(parent) if parent else -1 for parent in parents)
    return Skeleton(name, joints, indices, root=indices.index(-1))


_TREES = {
    "h36m17": """
        pelvis right_hip<pelvis right_knee<right_hip right_ankle<right_knee left_hip<pelvis
        left_knee<left_hip left_ankle<left_knee spine<pelvis thorax<spine neck<thorax head<neck
        left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow right_shoulder<thorax
        right_elbow<right_shoulder right_wrist<right_elbow
    """,
    "humaneva15": """
        pelvis thorax<pelvis left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow
        left_hip<pelvis left_knee<left_hip left_ankle<left_knee right_shoulder<thorax
        right_elbow<right_shoulder right_wrist<right_elbow right_hip<pelvis right_knee<right_hip
        right_ankle<right_knee head<thorax
    """,
    "coco17": """
        nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye left_shoulder<nose
        right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder
        right_hip<right_shoulder left_knee<left_hip right_knee<right_hip left_ankle<left_knee
        right_ankle<right_knee
    """,
}

SKELETONS = {name: _skeleton(name, tree) for name, tree in _TREES.items()}


def get(name: str) -> Skeleton:
    """The registered skeleton, or `SkeletonError` with the names there are."""
    if name not in SKELETONS:
        raise SkeletonError(f"no skeleton is named {name!r}; there are {', '.join(SKELETONS)}")
    return SKELETONS[name]


def reorder(points: np.ndarray, source: Skeleton, target: Skeleton) -> np.ndarray:
    """The target's joints, by name, out of `points [..., source joints, C]`.

    Raises `SkeletonError` naming the joints that the source lacks; nothing is invented. Raises it
    also for points of another number than the source has joints.
    """
    if points.shape[-2] != source.size:
        raise SkeletonError(
            f"the points have {points.shape[-2]} joints, but their skeleton {source.name} has "
            f"{source.size}; name the skeleton that they are in"
        )
    missing = [name for name in target.joints if name not in source.joints]
    if missing:
        raise SkeletonError(
            f"{source.name} has no {', '.join(missing)}, which {target.name} needs; convert the "
            f"data when it is prepared, or set the config's skeleton to {source.name}"
        )
    return points[..., [source.joints.index(name) for name in target.joints], :]
