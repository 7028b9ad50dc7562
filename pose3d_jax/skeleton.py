"""Joint sets: names, tree, left/right pairs, and the explicit way from one set to another."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

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

    @property
    def bone_pairs(self) -> tuple[tuple[int, int], ...]:
        """Indices in `bones` of each bone and its left/right counterpart, once."""
        index = {bone: i for i, bone in enumerate(self.bones)}
        partner = [index.get((self.mirrored[p], self.mirrored[c]), -1) for p, c in self.bones]
        return tuple((i, j) for i, j in enumerate(partner) if i < j)

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
        right_shoulder<thorax right_elbow<right_shoulder right_wrist<right_elbow left_hip<pelvis
        left_knee<left_hip left_ankle<left_knee right_hip<pelvis right_knee<right_hip
        right_ankle<right_knee head<thorax
    """,
    # Ends of segments: elbows and knees stand twice, a centimetre apart.
    "humaneva20": """
        pelvis thorax_lower<pelvis neck_base<thorax_lower left_shoulder<thorax_lower
        left_elbow_upper<left_shoulder left_elbow_lower<left_elbow_upper
        left_wrist<left_elbow_lower right_shoulder<thorax_lower right_elbow_upper<right_shoulder
        right_elbow_lower<right_elbow_upper right_wrist<right_elbow_lower left_hip<pelvis
        left_knee_upper<left_hip left_knee_lower<left_knee_upper left_ankle<left_knee_lower
        right_hip<pelvis right_knee_upper<right_hip right_knee_lower<right_knee_upper
        right_ankle<right_knee_lower head<neck_base
    """,
    "coco17": """
        nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye left_shoulder<nose
        right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder
        right_hip<right_shoulder left_knee<left_hip right_knee<right_hip left_ankle<left_knee
        right_ankle<right_knee
    """,
    "mpii16": """
        right_ankle<right_knee right_knee<right_hip right_hip<pelvis left_hip<pelvis
        left_knee<left_hip left_ankle<left_knee pelvis thorax<pelvis upper_neck<thorax
        head<upper_neck right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<thorax
        left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow
    """,
    "smpl24": """
        pelvis left_hip<pelvis right_hip<pelvis spine1<pelvis left_knee<left_hip
        right_knee<right_hip spine2<spine1 left_ankle<left_knee right_ankle<right_knee
        spine3<spine2 left_foot<left_ankle right_foot<right_ankle neck_base<spine3
        left_collar<spine3 right_collar<spine3 head_base<neck_base left_shoulder<left_collar
        right_shoulder<right_collar left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_hand<left_wrist right_hand<right_wrist
    """,
    # OpenPose's order.
    "coco18": """
        nose<mid_shoulders mid_shoulders right_shoulder<mid_shoulders right_elbow<right_shoulder
        right_wrist<right_elbow left_shoulder<mid_shoulders left_elbow<left_shoulder
        left_wrist<left_elbow right_hip<mid_shoulders right_knee<right_hip right_ankle<right_knee
        left_hip<mid_shoulders left_knee<left_hip left_ankle<left_knee right_eye<nose left_eye<nose
        right_ear<right_eye left_ear<left_eye
    """,
    # OpenPose's 25, with feet.
    "body25": """
        nose<mid_shoulders mid_shoulders<mid_hips right_shoulder<mid_shoulders
        right_elbow<right_shoulder right_wrist<right_elbow left_shoulder<mid_shoulders
        left_elbow<left_shoulder left_wrist<left_elbow mid_hips right_hip<mid_hips
        right_knee<right_hip right_ankle<right_knee left_hip<mid_hips left_knee<left_hip
        left_ankle<left_knee right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye
        left_big_toe<left_ankle left_small_toe<left_big_toe left_heel<left_ankle
        right_big_toe<right_ankle right_small_toe<right_big_toe right_heel<right_ankle
    """,
    # Halpe's body, as AlphaPose and RTMPose find it; `head` is its top, `neck` its base.
    "halpe26": """
        nose<neck left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
        left_shoulder<neck right_shoulder<neck left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_hip<mid_hips right_hip<mid_hips
        left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee
        head<neck neck<mid_hips mid_hips left_big_toe<left_ankle right_big_toe<right_ankle
        left_small_toe<left_big_toe right_small_toe<right_big_toe left_heel<left_ankle
        right_heel<right_ankle
    """,
    # MediaPipe's landmarks.
    "blazepose33": """
        nose left_eye_inner<nose left_eye<left_eye_inner left_eye_outer<left_eye
        right_eye_inner<nose right_eye<right_eye_inner right_eye_outer<right_eye
        left_ear<left_eye_outer right_ear<right_eye_outer left_mouth<nose right_mouth<nose
        left_shoulder<nose right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_pinky<left_wrist right_pinky<right_wrist
        left_index<left_wrist right_index<right_wrist left_thumb<left_wrist right_thumb<right_wrist
        left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip
        left_ankle<left_knee right_ankle<right_knee left_heel<left_ankle right_heel<right_ankle
        left_foot_index<left_ankle right_foot_index<right_ankle
    """,
    # CMU Panoptic's joints19.
    "coco19": """
        mid_shoulders<pelvis nose<mid_shoulders pelvis left_shoulder<mid_shoulders
        left_elbow<left_shoulder left_wrist<left_elbow left_hip<pelvis left_knee<left_hip
        left_ankle<left_knee right_shoulder<mid_shoulders right_elbow<right_shoulder
        right_wrist<right_elbow right_hip<pelvis right_knee<right_hip right_ankle<right_knee
        left_eye<nose left_ear<left_eye right_eye<nose right_ear<right_eye
    """,
    "penn13": """
        head left_shoulder<head right_shoulder<head left_elbow<left_shoulder
        right_elbow<right_shoulder left_wrist<left_elbow right_wrist<right_elbow
        left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip
        left_ankle<left_knee right_ankle<right_knee
    """,
    "jta22": """
        head<head_center head_center<neck_base neck_base<spine0 right_clavicle<neck_base
        right_shoulder<right_clavicle right_elbow<right_shoulder right_wrist<right_elbow
        left_clavicle<neck_base left_shoulder<left_clavicle left_elbow<left_shoulder
        left_wrist<left_elbow spine0<spine1 spine1<spine2 spine2<spine3 spine3<spine4 spine4
        right_hip<spine4 right_knee<right_hip right_ankle<right_knee left_hip<spine4
        left_knee<left_hip left_ankle<left_knee
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
            f"{source.name} has no {', '.join(missing)}, which {target.name} needs; "
            f"{_way(source, target)}, or set the config's skeleton to {source.name}"
        )
    return points[..., [source.joints.index(name) for name in target.joints], :]


def _pairs(**shares: float) -> Mapping[str, float]:
    """Weights of left and right joints, by what they are of."""
    return {f"{side}_{part}": share for part, share in shares.items() for side in ("left", "right")}


# Joints of h36m17 that detectors do not find, as means of those that they find. Neck and head are
# on the line from the middle of the shoulders to that of the ears, 3/4 and 4/3 of the way.
_MADE: Mapping[str, Mapping[str, float]] = {
    "pelvis": _pairs(hip=1 / 2),
    "spine": _pairs(hip=1 / 4, shoulder=1 / 4),
    "thorax": _pairs(shoulder=1 / 2),
    "neck": _pairs(ear=3 / 8, shoulder=1 / 8),
    "head": _pairs(ear=2 / 3, shoulder=-1 / 6),
}
_DETECTED = ("coco17", "coco18", "body25", "halpe26", "blazepose33")
# What `convert` can do: (source, target) -> joint -> weights of the source's joints. What is not
# listed is the source's joint of that name.
CONVERSIONS: Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]] = {
    **{(source, "h36m17"): _MADE for source in _DETECTED},
    ("halpe26", "h36m17"): {**_MADE, "head": {"head": 1.0}},  # both are the top of the head
    **{(source, "coco17"): {} for source in _DETECTED[1:]},
}


def convert(
    points: Float[np.ndarray, "*batch joints axes"], source: Skeleton, target: Skeleton
) -> Float[np.ndarray, "*batch made axes"]:
    """The target's joints out of a detector's, some of them *made*.

    Points are coordinates in any number and, last, a confidence: x, y, confidence in images.

    `CONVERSIONS` are those that there are. To `coco17`: the joints of that name. To `h36m17`: the
    joints of that name, and what is made of others: pelvis and thorax are the middles of hips and
    shoulders, the spine is half way between these, neck and head are on the line from the middle of
    the shoulders to that of the ears (`halpe26` has a head of its own).

    These are approximations. On the average body of `data_prep.open_body`, upright, the thorax is
    10 cm too low, the spine 7, head and neck are 4 and 3 cm off, the pelvis 2; a head that is
    turned or bent, and an ear on the wrong place, add to that. In images, where perspective is
    strong, a mean of pixels is not the pixel of a mean.

    A made joint's confidence is the least of those that it is made of; where one of them is missing
    (0), it is missing. What is missing is at 0. Raises `SkeletonError` where there is no such
    conversion, and for points of another number than the source has joints.
    """
    if points.shape[-2] != source.size:
        raise SkeletonError(
            f"the points have {points.shape[-2]} joints, but their skeleton {source.name} has "
            f"{source.size}; name the skeleton that they are in"
        )
    if (source.name, target.name) not in CONVERSIONS:
        there = ", ".join(f"{a} to {b}" for a, b in CONVERSIONS)
        raise SkeletonError(
            f"no conversion makes {target.name} of {source.name}; there are {there}"
        )
    made = CONVERSIONS[source.name, target.name]
    share = np.zeros((target.size, source.size))
    for row, name in zip(share, target.joints, strict=True):
        for part, weight in made.get(name, {name: 1.0}).items():
            row[source.joints.index(part)] = weight
    confidence = points[..., -1]
    known = np.where(share != 0, confidence[..., None, :], np.inf).min(axis=-1)
    found = share @ np.where(confidence[..., None] > 0, points[..., :-1], 0.0)
    known = known[..., None]
    return np.concatenate([np.where(known > 0, found, 0.0), known], axis=-1)


def _way(source: Skeleton, target: Skeleton) -> str:
    """How a set may become another that has more joints."""
    if (source.name, target.name) in CONVERSIONS:
        return "`skeleton.convert` makes them, approximately, when the data is prepared"
    return "convert the data when it is prepared"
