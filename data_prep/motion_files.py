"""Acclaim (ASF/AMC) and BVH motion files to world positions of their joints.

Mind where a name points: in ASF/AMC it marks the END of its bone (`rhipjoint` is the hip, `rfemur`
the knee), in BVH the START.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from pose3d_jax.errors import UserError


class MotionFileError(UserError):
    """A motion file that cannot be read; the message names the file, the line and the fault."""


class Motion(NamedTuple):
    """World positions `[T, joints, 3]` in metres, axes as in the file, and the joints' names."""

    joints: tuple[str, ...]
    positions: np.ndarray


class _Bone(NamedTuple):
    """One joint of a tree. Offset in file units; `channels` such as `TX`, `RZ`, in file order."""

    name: str
    parent: int  # index, -1 at the root
    offset: np.ndarray  # [3] from the parent's position (BVH) or along the bone (ASF)
    axis: Rotation  # in which the local rotation is given
    order: str  # of the rotation, in SciPy's letters
    channels: tuple[str, ...]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="latin-1")  # comments hold any byte
    except OSError as error:
        raise MotionFileError(f"{path}: cannot be read ({error.strerror})") from error


# ---------------------------------------------------------------------------- ASF and AMC


def read_amc(asf: Path, amc: Path, *, step: int = 1) -> Motion:
    """The motion of `amc` on the skeleton of `asf`; every `step`-th frame from the first.

    A bone's rotation is `C M C^-1`, with C its axis and M its degrees of freedom; the joint that
    bears its name is at its end. Metres = value x 0.0254 / the file's unit of length.

    Raises:
      MotionFileError: a file is missing or corrupt, or the two do not belong together.
    """
    bones, radians, metres = _parse_asf(asf)
    values = _parse_amc(amc, asf, bones, step)
    positions: list[np.ndarray] = []
    rotations: list[Rotation] = []
    for bone in bones:
        channels = dict(zip(bone.channels, values[bone.name].T, strict=True))
        zero = np.zeros(len(values["root"]))
        angles = [channels.get(f"R{axis.upper()}", zero) for axis in bone.order]
        local = Rotation.from_euler(bone.order, np.stack(angles, -1), degrees=not radians)
        rotation = bone.axis * local * bone.axis.inv()
        if bone.parent < 0:
            moved = [channels.get(name, zero) for name in ("TX", "TY", "TZ")]
            position = bone.offset + np.stack(moved, -1)
        else:
            rotation = rotations[bone.parent] * rotation
            position = positions[bone.parent] + rotation.apply(bone.offset)
        rotations.append(rotation)
        positions.append(position)
    return Motion(tuple(bone.name for bone in bones), np.stack(positions, 1) * metres)


def _parse_asf(path: Path) -> tuple[list[_Bone], bool, float]:
    """Bones, parents before children; whether angles are in radians; metres per unit."""
    lines = [line.split("#")[0].split() for line in _read(path).splitlines()]
    sections: dict[str, list[list[str]]] = {}
    current: list[list[str]] = []
    for words in filter(None, lines):
        if words[0].startswith(":"):
            current = sections.setdefault(words[0], [])
        else:
            current.append(words)
    try:
        units = {words[0]: words[1] for words in sections[":units"]}
        radians = units["angle"].startswith("rad")
        fields = {words[0]: words[1:] for words in sections[":root"]}
        order = fields["axis"][0].lower()
        axis = Rotation.from_euler(order, _floats(fields["orientation"]), degrees=not radians)
        channels = tuple(name.upper() for name in fields["order"])
        bones = [_Bone("root", -1, _floats(fields["position"]), axis, order, channels)]
        data = {bone.name: bone for bone in _asf_bones(sections[":bonedata"], radians)}
        for parent, *children in sections[":hierarchy"]:
            if parent in ("begin", "end"):
                continue
            index = [bone.name for bone in bones].index(parent)
            bones += [data[child]._replace(parent=index) for child in children]
        return bones, radians, 0.0254 / float(units["length"])
    except (KeyError, ValueError, IndexError) as error:
        raise MotionFileError(f"{path}: is not a whole ASF skeleton ({error!r})") from error


def _asf_bones(lines: list[list[str]], radians: bool) -> Iterator[_Bone]:
    """The bones of `:bonedata`, without parents."""
    fields: dict[str, list[str]] = {}
    for words in lines:
        if words[0] == "end":
            *angles, order = fields["axis"]
            axis = Rotation.from_euler(order.lower(), _floats(angles), degrees=not radians)
            offset = _floats(fields["direction"]) * float(fields["length"][0])
            channels = tuple(name.upper() for name in fields.get("dof", []))
            yield _Bone(fields["name"][0], -1, offset, axis, order.lower(), channels)
            fields = {}
        else:
            fields[words[0]] = words[1:]


def _parse_amc(path: Path, asf: Path, bones: list[_Bone], step: int) -> dict[str, np.ndarray]:
    """Channel values `[T, channels]` of each bone, in file units."""
    channels = {bone.name: len(bone.channels) for bone in bones}
    frames: list[dict[str, np.ndarray]] = []
    count = 0
    for number, line in enumerate(_read(path).splitlines(), start=1):
        words = line.split()
        if not words or line[0] in "#:":
            continue
        if len(words) == 1 and words[0].isdigit():
            count += 1
            if int(words[0]) != count:
                raise MotionFileError(f"{path}:{number}: frame {words[0]} where {count} is due")
            if (count - 1) % step == 0:
                frames.append({})
            continue
        if not frames:
            raise MotionFileError(f"{path}:{number}: values before the first frame number")
        if (count - 1) % step:
            continue
        bone, *values = words
        if bone not in channels:
            raise MotionFileError(f"{path}:{number}: bone {bone!r} is not in {asf.name}")
        try:
            frames[-1][bone] = _floats(values)
        except ValueError as error:
            raise MotionFileError(f"{path}:{number}: bone {bone}: {error}") from error
        if len(values) != channels[bone]:
            raise MotionFileError(
                f"{path}:{number}: bone {bone} has {len(values)} values, but {asf.name} gives it "
                f"{channels[bone]} degrees of freedom"
            )
    if not frames:
        raise MotionFileError(f"{path}: has no frames")
    for i, frame in enumerate(frames):
        missing = [bone for bone, n in channels.items() if n and bone not in frame]
        if missing:
            raise MotionFileError(f"{path}: frame {i * step + 1} lacks {', '.join(missing)}")
    nothing = np.zeros((len(frames), 0))
    return {
        bone: np.stack([frame[bone] for frame in frames]) if n else nothing
        for bone, n in channels.items()
    }


# ---------------------------------------------------------------------------- BVH


def read_bvh(path: Path, *, scale: float, step: int = 1) -> Motion:
    """The motion of a BVH file, every `step`-th frame from the first; `scale` = metres per unit.

    A joint's position channels replace its OFFSET, as in Blender. End sites are not joints.

    Raises:
      MotionFileError: the file is missing or corrupt.
    """
    head, found, tail = _read(path).partition("MOTION")
    match = re.match(r"\s*Frames:\s*(\d+)\s*Frame Time:\s*(\S+)", tail)
    if not found or match is None:
        raise MotionFileError(f"{path}: is not a BVH file (no MOTION with Frames and Frame Time)")
    bones = _parse_hierarchy(path, head.split())
    frames, width = int(match[1]), sum(len(bone.channels) for bone in bones)
    try:
        values = _floats(tail[match.end() :].split())
    except ValueError as error:
        raise MotionFileError(f"{path}: {error}") from error
    if frames == 0 or values.size != frames * width:
        raise MotionFileError(
            f"{path}: {values.size} values, but {frames} frames of {width} channels are announced"
        )
    values = values.reshape(frames, width)[::step]
    positions: list[np.ndarray] = []
    rotations: list[Rotation] = []
    for bone in bones:
        own, values = np.split(values, [len(bone.channels)], axis=1)
        channels = dict(zip(bone.channels, own.T, strict=True))
        position = np.tile(bone.offset, (len(own), 1))
        for i, name in enumerate(("TX", "TY", "TZ")):
            position[:, i] = channels.get(name, position[:, i])
        angles = np.stack([channels[f"R{axis}"] for axis in bone.order], -1)
        rotation = Rotation.from_euler(bone.order, angles, degrees=True)
        if bone.parent >= 0:
            parent = rotations[bone.parent]
            position = positions[bone.parent] + parent.apply(position)
            rotation = parent * rotation
        rotations.append(rotation)
        positions.append(position)
    return Motion(tuple(bone.name for bone in bones), np.stack(positions, 1) * scale)


def _parse_hierarchy(path: Path, words: list[str]) -> list[_Bone]:
    """Joints, parents before children."""
    bones: list[_Bone] = []
    stack: list[int] = []  # open braces: joint index, or -1 for an end site
    opened = -1  # what the next brace opens
    stream = iter(words)
    try:
        for word in stream:
            if word in ("ROOT", "JOINT"):
                parent = stack[-1] if stack else -1
                opened = len(bones)
                bones.append(_Bone(next(stream), parent, np.zeros(3), Rotation.identity(), "", ()))
            elif word == "End":
                next(stream)
                opened = -1
            elif word == "{":
                stack.append(opened)
            elif word == "}":
                stack.pop()
            elif word == "OFFSET":
                offset = _floats([next(stream) for _ in range(3)])
                if stack[-1] >= 0:
                    bones[stack[-1]] = bones[stack[-1]]._replace(offset=offset)
            elif word == "CHANNELS":
                names = [next(stream) for _ in range(int(next(stream)))]
                channels = tuple(f"{'TR'[n.endswith('rotation')]}{n[0]}" for n in names)
                order = "".join(name[1] for name in channels if name[0] == "R")
                bones[stack[-1]] = bones[stack[-1]]._replace(order=order, channels=channels)
            elif word != "HIERARCHY":
                raise ValueError(f"unexpected word {word!r}")
    except (ValueError, IndexError, StopIteration) as error:
        raise MotionFileError(f"{path}: its HIERARCHY is broken ({error!r})") from error
    bad = [bone.name for bone in bones if sorted(bone.order) != ["X", "Y", "Z"]]
    if not bones or stack or bad:
        raise MotionFileError(f"{path}: its HIERARCHY is not whole; joints at fault: {bad}")
    return bones


def _floats(words: list[str]) -> np.ndarray:
    """Finite numbers; `ValueError` otherwise."""
    numbers = np.array(words, float)
    if not np.isfinite(numbers).all():
        raise ValueError("a value is not finite")
    return numbers
