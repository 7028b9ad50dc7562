"""Joints over time as a skeleton of rigid bones: one rest pose, and each joint's rotation."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from pose3d_jax.formats import bones, twist
from pose3d_jax.skeleton import Skeleton, SkeletonError

# Where joints are in the rest pose, metres: arms held out, y up, facing z, the left side at x > 0.
# Only directions from joint to joint matter. Any other joint goes on as the bone before it.
_REST = {
    "pelvis": (0.0, 1.0, 0.0), "mid_hips": (0.0, 1.0, 0.0), "hip": (0.1, 0.95, 0.0),
    "knee_upper": (0.1, 0.53, 0.0), "knee": (0.1, 0.52, 0.0), "knee_lower": (0.1, 0.51, 0.0),
    "ankle": (0.1, 0.08, 0.0), "foot": (0.1, 0.02, 0.13), "heel": (0.1, 0.02, -0.05),
    "big_toe": (0.09, 0.01, 0.2), "small_toe": (0.15, 0.01, 0.17), "spine": (0.0, 1.2, 0.0),
    "thorax_lower": (0.0, 1.25, 0.0), "thorax": (0.0, 1.42, 0.0), "mid_shoulders": (0.0, 1.45, 0.0),
    "neck_base": (0.0, 1.48, 0.0), "neck": (0.0, 1.5, 0.0), "upper_neck": (0.0, 1.5, 0.0),
    "head_base": (0.0, 1.58, 0.0), "head_center": (0.0, 1.63, 0.0), "head": (0.0, 1.72, 0.0),
    "nose": (0.0, 1.62, 0.1), "eye": (0.03, 1.66, 0.08), "ear": (0.07, 1.64, 0.0),
    "collar": (0.06, 1.43, 0.0), "clavicle": (0.06, 1.43, 0.0), "shoulder": (0.18, 1.43, 0.0),
    "elbow_upper": (0.45, 1.43, 0.0), "elbow": (0.46, 1.43, 0.0), "elbow_lower": (0.47, 1.43, 0.0),
    "wrist": (0.71, 1.43, 0.0), "hand": (0.79, 1.43, 0.0),
}  # fmt: skip
_UP = np.array([0.0, 1.0, 0.0])
# How much less than its children, by the squares of their lengths in metres, the parent's rotation
# says of a joint's: it decides where these are all on one line.
_TWIST = 1e-6
_SHAPE_STEPS = 10  # of the alternation that finds how several children lie to one another


@dataclasses.dataclass(frozen=True)
class Articulated:
    """Rigid bones in motion; every joint comes after its parent, and subtrees are together."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float[np.ndarray, "joints 3"]  # from the parent in the rest pose, metres; the root's 0
    root: Float[np.ndarray, "frames 3"]  # the root's place
    rotations: Float[np.ndarray, "frames joints 3 3"]  # from the rest pose, in the world

    @property
    def local(self) -> Float[np.ndarray, "frames joints 3 3"]:
        """Rotations relative to the parent's."""
        above = self.rotations[:, list(self.parents)]
        turned = above.swapaxes(-1, -2) @ self.rotations
        turned[:, 0] = self.rotations[:, 0]
        return turned

    @property
    def positions(self) -> Float[np.ndarray, "frames joints 3"]:
        """The joints' places: forward kinematics."""
        places = np.repeat(self.root[:, None], len(self.parents), axis=1)
        for joint, parent in enumerate(self.parents[1:], start=1):
            turned = self.rotations[:, parent] @ self.offsets[joint]
            places[:, joint] = places[:, parent] + turned
        return places

    def turned(self, turn: Rotation) -> "Articulated":
        """The same motion in other axes."""
        matrix = turn.as_matrix()
        return dataclasses.replace(
            self,
            offsets=turn.apply(self.offsets),
            root=turn.apply(self.root),
            rotations=matrix @ self.rotations @ matrix.T,
        )


def articulate(joints: Float[np.ndarray, "frames joints 3"], skeleton: Skeleton) -> Articulated:
    """Inverse kinematics: the motion of rigid bones that is nearest to the joints.

    Bones are as long as they are in the median, and point where the squared distances of all joints
    of a frame are least (`bones.fit`). A joint with several children turns as these do together
    (Wahba's problem, by the singular value decomposition: Markley, 1988). Before each of them comes
    a joint at the same place, `PARENT_to_CHILD`, which turns the bone to that child alone: hips
    and shoulders move within a trunk. How bones turn about themselves: `twist.turned`.

    Where a joint is missing, its place relative to its parent is taken between the frames before
    and after. A joint that is never there is left out, its children hanging on the joint above it;
    a root that is never there is in the middle of its children.

    Args:
      joints: metres, y up; NaN where missing, at least one of them there.
      skeleton: of the joints.

    Raises `SkeletonError` for a skeleton of several trees.
    """
    if skeleton.parents.count(-1) != 1:
        roots = [n for n, p in zip(skeleton.joints, skeleton.parents, strict=True) if p < 0]
        raise SkeletonError(
            f"{skeleton.name} has the roots {', '.join(roots)}; bones need a skeleton of one tree"
        )
    found = np.isfinite(joints).all(axis=-1)
    used, parents = _tree(skeleton, found.any(axis=0))
    names = tuple(skeleton.joints[joint] for joint in used)
    found = found[:, used]
    places = _filled(np.where(found[..., None], joints[:, used], 0.0), found, parents)

    rest = _directions(names, parents)
    fitted = bones.fit(places, found, parents, rest)
    return _posed(names, parents, rest, fitted)


def _posed(
    names: tuple[str, ...],
    parents: tuple[int, ...],
    rest: Float[np.ndarray, "joints 3"],
    fitted: bones.Bones,
) -> Articulated:
    """The rotations that carry the bones of a rest pose (unit vectors) to where they point."""
    lengths, ways = fitted.lengths, fitted.ways
    children = [[c for c, parent in enumerate(parents) if parent == j] for j in range(len(names))]
    moved: dict[str, list] = {"names": [], "parents": [], "offsets": [], "rotations": []}

    def add(name: str, parent: int, offset: np.ndarray, rotation: np.ndarray) -> int:
        for values, value in zip(moved.values(), (name, parent, offset, rotation), strict=True):
            values.append(value)
        return len(moved["names"]) - 1

    def turn(joint: int, child: int, offset: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Of the bone from a joint to its child, which lies at the offset in the rest pose."""
        axis, last = twist.hinge(names[child]), child
        while axis is not None and len(children[last]) == 1:
            last = children[last][0]
            if twist.hinge(names[last]) is None:  # some hinges are two joints, near one another
                return twist.turned(above, offset, ways[:, child], axis, ways[:, last])
        return twist.turned(above, offset, ways[:, child])

    def visit(joint: int, parent: int, offset: np.ndarray, above: np.ndarray) -> None:
        below = children[joint]
        if len(below) == 1:
            own = turn(joint, below[0], rest[below[0]], above)
            place = add(names[joint], parent, offset, own)
            visit(below[0], place, lengths[below[0]] * rest[below[0]], own)
        else:
            arrows = lengths[below, None] * ways[:, below]
            offsets = _shape(arrows, lengths[below, None] * rest[below])
            own = _aligned(arrows, offsets, above)
            place = add(names[joint], parent, offset, own)
            for child, away in zip(below, offsets, strict=True):
                way = bones.unit(away) if lengths[child] > 0 else rest[child]
                by_itself = turn(joint, child, way, own)
                name = f"{names[joint]}_to_{names[child]}"
                while name in (*names, *moved["names"]):
                    name += "_"
                between = add(name, place, np.zeros(3), by_itself)
                visit(child, between, away, by_itself)

    visit(0, -1, np.zeros(3), np.tile(np.eye(3), (len(ways), 1, 1)))
    return Articulated(
        tuple(moved["names"]),
        tuple(moved["parents"]),
        np.stack(moved["offsets"]),
        fitted.root,
        np.stack(moved["rotations"], axis=1),
    )


def _tree(skeleton: Skeleton, there: Bool[np.ndarray, "joints"]) -> tuple[list[int], tuple]:
    """The joints that are there, depth first, the root in any case; and each one's parent."""
    used: list[int] = []
    parents: list[int] = []

    def add(joint: int, above: int) -> None:
        if there[joint] or above < 0:
            used.append(joint)
            parents.append(above)
            above = len(used) - 1
        for child, parent in enumerate(skeleton.parents):
            if parent == joint:
                add(child, above)

    add(skeleton.parents.index(-1), -1)
    return used, tuple(parents)


def _filled(
    places: Float[np.ndarray, "frames joints 3"],
    found: Bool[np.ndarray, "frames joints"],
    parents: tuple[int, ...],
) -> Float[np.ndarray, "frames joints 3"]:
    """Joints in all frames, linear in time between those in which they were found."""
    places = places.copy()
    if not found[:, 0].any():
        below = [joint for joint, parent in enumerate(parents) if parent == 0]
        children = [_between(places[:, joint], found[:, joint]) for joint in below]
        places[:, 0] = np.mean(children, axis=0)
    else:
        places[:, 0] = _between(places[:, 0], found[:, 0])
    for joint, parent in enumerate(parents[1:], start=1):
        base = places[:, parent]
        places[:, joint] = base + _between(places[:, joint] - base, found[:, joint])
    return places


def _between(
    values: Float[np.ndarray, "frames 3"], known: Bool[np.ndarray, "frames"]
) -> Float[np.ndarray, "frames 3"]:
    times = np.arange(len(values))
    return np.stack([np.interp(times, times[known], axis[known]) for axis in values.T], axis=-1)


def _directions(names: tuple[str, ...], parents: tuple[int, ...]) -> Float[np.ndarray, "joints 3"]:
    """Unit vectors from the parent in the rest pose; 0 at the root."""
    places = np.zeros((len(names), 3))
    directions = np.zeros_like(places)
    for joint, (name, parent) in enumerate(zip(names, parents, strict=True)):
        side, _, part = name.partition("_")
        sign = {"left": 1.0, "right": -1.0}.get(side)
        known = _REST.get(name if sign is None else part)
        if known is not None:
            places[joint] = np.array(known) * [1.0 if sign is None else sign, 1.0, 1.0]
        elif joint:
            onwards = directions[parent] if parent else _UP
            places[joint] = places[parent] + 0.1 * onwards
        if joint:
            away = places[joint] - places[parent]
            length = np.linalg.norm(away)
            directions[joint] = away / length if length > 0 else _UP
    return directions


def _shape(
    arrows: Float[np.ndarray, "frames children 3"], start: Float[np.ndarray, "children 3"]
) -> Float[np.ndarray, "children 3"]:
    """How a joint's children lie to one another, turned to where the rest pose has them.

    Generalised Procrustes analysis of the frames (Gower, 1975), the lengths kept.
    """
    lengths = np.linalg.norm(start, axis=-1, keepdims=True)
    shape = start
    for _ in range(_SHAPE_STEPS):
        turns = _aligned(arrows, shape, np.eye(3))
        mean = np.einsum("tji,tcj->ci", turns, arrows)
        shape = mean * lengths / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
    return shape @ _aligned(start[None], shape, np.eye(3))[0].T


def _aligned(
    arrows: Float[np.ndarray, "frames children 3"],
    offsets: Float[np.ndarray, "children 3"],
    prior: Float[np.ndarray, "*frames 3 3"],
) -> Float[np.ndarray, "frames 3 3"]:
    """Rotations that carry offsets onto arrows; what these leave open is as in the prior."""
    both = np.einsum("tci,cj->tij", arrows, offsets) + _TWIST * prior
    left, _, right = np.linalg.svd(both)
    left[..., -1] *= np.sign(np.linalg.det(left @ right))[:, None]
    return left @ right
