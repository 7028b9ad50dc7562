"""A person's joints over time in files of other software, by the file's suffix.

| suffix | holds | axes | unit | where a joint is missing |
|---|---|---|---|---|
| npz | `joints`, `found`, `contact` of `feet`, what `_Moved.about` names | z up | m | NaN |
| csv | `frame`, `time`, `JOINT_x`, `JOINT_y`, `JOINT_z`; a line a frame | z up | m | empty |
| json | `joints` and what `_Moved.about` names | z up | m | null |
| trc | markers, as OpenSim reads them | y up | m | empty |
| c3d | points, as biomechanics laboratories have them | z up | mm | NaN, residual -1 |
| bvh | rigid bones in motion (`kinematics.articulate`) | y up | cm | by its neighbours |
| glb | the same as glTF 2.0, and a mesh that shows the bones | y up | m | the same |

A recording's frames count from 0, in TRC and C3D from 1, and frame 0 is at 0 s: who comes in at
`Motion.first` is there from then on, in all formats but BVH, which has no time to begin at. Numbers
in text have six decimals.

Where it is known how sure joints are, NPZ holds `covariance` (m^2), JSON `deviation` and CSV behind
all joints, `JOINT_x_sd` and so on: standard deviations along the file's axes, m.
"""

import csv
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Shaped

from pose3d_jax import errors, workdir
from pose3d_jax.errors import UserError
from pose3d_jax.formats import animation, gltf
from pose3d_jax.formats.kinematics import Articulated, articulate
from pose3d_jax.skeleton import Skeleton

_C3D_FRAMES = 65_535  # more would be in the file and seen by no reader


class ExportError(UserError):
    """A motion or a name that cannot be written."""


@dataclasses.dataclass(frozen=True)
class Motion:
    """One person's joints over time."""

    joints: Float[np.ndarray, "frames joints 3"]  # metres, world, z up
    skeleton: Skeleton
    fps: float
    found: Shaped[np.ndarray, "frames joints"] | None = None  # 1 where measured; None: everywhere
    name: str = "person"
    contact: Bool[np.ndarray, "frames feet"] | None = None  # whether they touch the floor
    feet: tuple[str, ...] = ()  # joints of the skeleton
    covariance: Float[np.ndarray, "frames joints 3 3"] | None = None  # m^2, of errors, z up
    first: int = 0  # the recording's frame that is the first of these


def write(path: str | Path, motion: Motion, *, y_up: bool | None = None) -> None:
    """Writes a motion as what the suffix names (`FORMATS`), whole or not at all.

    Args:
      path: the file; folders above it are made.
      motion: what it says of joints that were not found is not written.
      y_up: axes other than the format's own (glTF knows y up only). What is at (x, y, z) with z up
        is at (x, z, -y) with y up.

    Raises `ExportError` for another suffix, axes that a format does not have, more frames than it
    counts (C3D), and a motion without frames, without a joint that was found, with numbers that are
    not finite, before frame 0, or that is not of its skeleton; `SkeletonError` where bones need one
    tree (BVH, glTF); `UserError` without the library that a format needs.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _WRITERS:
        raise ExportError(
            f"{path}: no format is named {kind!r}; there are {', '.join(FORMATS)}, by the suffix"
        )
    if kind == "glb" and y_up is False:
        raise ExportError(f"{path}: glTF is y up always; leave y_up, or write another format")
    joints = _checked(motion, str(path))
    check_frames(path, len(joints))
    up = kind in _Y_UP if y_up is None else y_up
    moved = _Moved(motion, _upright(joints) if up else joints, up)
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write(path, lambda name: _WRITERS[kind](name, moved))


def check_frames(path: str | Path, frames: int) -> None:
    """Raises `ExportError` for more frames than what the suffix names counts."""
    if Path(path).suffix.lower() == ".c3d" and frames > _C3D_FRAMES:
        raise ExportError(
            f"{path}: C3D counts {_C3D_FRAMES} frames, but there are {frames}; cut the motion or "
            f"write another format"
        )


def _checked(motion: Motion, where: str) -> Float[np.ndarray, "frames joints 3"]:
    """The joints, NaN where they were not found."""
    skeleton, shape = motion.skeleton, motion.joints.shape
    if len(shape) != 3 or shape[1:] != (skeleton.size, 3):
        raise ExportError(
            f"{where}: the joints have shape {list(shape)}, but {skeleton.name} needs "
            f"[frames, {skeleton.size}, 3]; give the skeleton that they are in"
        )
    if not (np.isfinite(motion.fps) and motion.fps > 0):
        raise ExportError(f"{where}: {motion.fps} frames per second; give a number above 0")
    if motion.first < 0:
        raise ExportError(f"{where}: the first frame is {motion.first}; give a number from 0 on")
    for name in skeleton.joints:
        if name.split() != [name] or not name.isprintable():
            raise ExportError(f"{where}: a joint is named {name!r}; give it one word")
    if len(set(skeleton.joints)) < skeleton.size:
        raise ExportError(f"{where}: {skeleton.name} has several joints of one name; rename them")
    found = np.ones(shape[:2], bool) if motion.found is None else np.asarray(motion.found) > 0
    if found.shape != shape[:2]:
        raise ExportError(
            f"{where}: found has shape {list(found.shape)}, but the joints {list(shape)}"
        )
    if motion.contact is not None and motion.contact.shape != (len(found), len(motion.feet)):
        raise ExportError(
            f"{where}: contact has shape {list(motion.contact.shape)}; give "
            f"[{len(found)}, {len(motion.feet)}], of every frame and each of {motion.feet}"
        )
    if motion.covariance is not None:
        if motion.covariance.shape != (*shape, 3):
            raise ExportError(
                f"{where}: covariance has shape {list(motion.covariance.shape)}; give "
                f"{[*shape, 3]}, of every joint"
            )
        if not np.isfinite(motion.covariance[found]).all():
            raise ExportError(
                f"{where}: a covariance of a joint that was found holds NaN or infinity; leave "
                f"covariance out, or say by `found` which joints were not measured"
            )
    if not found.any():
        raise ExportError(
            f"{where}: the motion has {shape[0]} frames with no joint in them; nothing was written"
        )
    broken = np.argwhere(found & ~np.isfinite(motion.joints).all(axis=-1))
    if len(broken):
        frame, joint = broken[0]
        raise ExportError(
            f"{where}: {skeleton.joints[joint]} is {motion.joints[frame, joint]} in frame {frame}; "
            f"say by `found` which joints were not measured"
        )
    return np.where(found[..., None], motion.joints.astype(np.float64), np.nan)


@dataclasses.dataclass(frozen=True)
class _Moved:
    """What a writer writes."""

    motion: Motion
    joints: Float[np.ndarray, "frames joints 3"]  # in the file's axes; NaN where missing
    y_up: bool

    @property
    def names(self) -> tuple[str, ...]:
        return self.motion.skeleton.joints

    @property
    def found(self) -> np.ndarray:
        return np.isfinite(self.joints).all(axis=-1)

    @property
    def covariance(self) -> Float[np.ndarray, "frames joints 3 3"] | None:
        """In the file's axes; NaN where the joint is missing."""
        given = self.motion.covariance
        if given is None:
            return None
        turn = gltf.Y_UP.as_matrix() if self.y_up else np.eye(3)
        return np.where(self.found[..., None, None], turn @ given @ turn.T, np.nan)

    @property
    def deviation(self) -> Float[np.ndarray, "frames joints 3"] | None:
        """Standard deviations along the file's axes, metres."""
        covariance = self.covariance
        if covariance is None:
            return None
        return np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0.0))

    @property
    def about(self) -> dict[str, Any]:
        """What stands beside the joints."""
        skeleton = self.motion.skeleton
        return {
            "name": self.motion.name,
            "unit": "m",
            "up": "y" if self.y_up else "z",
            "fps": float(self.motion.fps),
            "first_frame": self.motion.first,
            "skeleton": skeleton.name,
            "names": list(skeleton.joints),
            "parents": list(skeleton.parents),
        }

    def rows(self) -> list[list[str]]:
        """A line a frame: time, then x, y, z of each joint, empty where missing."""
        texts = []
        for frame, places in enumerate(self.joints, start=self.motion.first):
            texts.append([f"{frame / self.motion.fps:.6f}", *_cells(places)])
        return texts


def _cells(numbers: Float[np.ndarray, "joints 3"]) -> list[str]:
    return ["" if np.isnan(x) else f"{x:.6f}" for x in numbers.ravel()]


def _npz(name: str, moved: _Moved) -> None:
    about = {key: np.array(value) for key, value in moved.about.items()}
    about |= {"joints": moved.joints, "found": moved.found}
    if moved.motion.contact is not None:
        about |= {"contact": moved.motion.contact, "feet": np.array(moved.motion.feet)}
    if moved.covariance is not None:
        about["covariance"] = moved.covariance
    with Path(name).open("wb") as stream:  # by its name alone it would get another suffix
        np.savez_compressed(stream, **about)  # type: ignore[arg-type]  # mypy mistakes its flag


def _json(name: str, moved: _Moved) -> None:
    holds = {**moved.about, "joints": _or_null(moved.joints, moved.found)}
    if moved.deviation is not None:
        holds["deviation"] = _or_null(moved.deviation, moved.found)
    text = json.dumps(holds, ensure_ascii=False, allow_nan=False)
    Path(name).write_text(text, encoding="utf-8")


def _or_null(numbers: Float[np.ndarray, "frames joints 3"], found: np.ndarray) -> list[Any]:
    there = zip(np.round(numbers, 6).tolist(), found, strict=True)
    return [[x if s else None for x, s in zip(frame, seen, strict=True)] for frame, seen in there]


def _csv(name: str, moved: _Moved) -> None:
    with Path(name).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        columns = [f"{joint}_{axis}" for joint in moved.names for axis in "xyz"]
        rows, sure = moved.rows(), moved.deviation
        if sure is not None:  # behind all joints, whose columns stay where they are
            columns += [f"{column}_sd" for column in columns]
            rows = [[*row, *_cells(own)] for row, own in zip(rows, sure, strict=True)]
        table.writerow(["frame", "time", *columns])
        table.writerows([n, *row] for n, row in enumerate(rows, moved.motion.first))


def _trc(name: str, moved: _Moved) -> None:
    """OpenSim counts a field for each tab: a last field that is empty needs one behind it, too."""
    frames, first, rate = len(moved.joints), moved.motion.first + 1, f"{moved.motion.fps:.10g}"
    markers = [field for joint in moved.names for field in (joint, "", "")]
    axes = [f"{axis}{number}" for number in range(1, len(moved.names) + 1) for axis in "XYZ"]
    # Where others put the file's name, which is a temporary one here; blanks would divide it.
    label = "_".join(moved.motion.name.split()) or "person"
    header = {
        "DataRate": rate, "CameraRate": rate, "NumFrames": frames, "NumMarkers": len(moved.names),
        "Units": "m", "OrigDataRate": rate, "OrigDataStartFrame": first, "OrigNumFrames": frames,
    }  # fmt: skip
    lines = [
        "\t".join(["PathFileType", "4", "(X/Y/Z)", f"{label}.trc"]),
        "\t".join(header),
        "\t".join(map(str, header.values())),
        "\t".join(["Frame#", "Time", *markers, ""]),
        "\t".join(["", "", *axes, ""]),
        "",
    ]
    lines += ["\t".join([str(n), *row, ""]) for n, row in enumerate(moved.rows(), first)]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _c3d(name: str, moved: _Moved) -> None:
    """Raises `UserError` without ezc3d."""
    ezc3d = errors.library("ezc3d", "files", "C3D")
    file = ezc3d.c3d()
    first, last = moved.motion.first, moved.motion.first + len(moved.joints)
    if last > _C3D_FRAMES:  # the header's words have no room for it
        logging.warning(
            "%s: C3D counts to %d, and these are frames %d to %d; there they are numbered from 1",
            moved.motion.name,
            _C3D_FRAMES,
            first + 1,
            last,
        )
        first = 0
    file["header"]["points"]["first_frame"] = first  # it counts from 0, the file from 1
    point = file["parameters"]["POINT"]
    point["RATE"]["value"] = [float(moved.motion.fps)]
    point["UNITS"]["value"] = ["mm"]
    point["LABELS"]["value"] = list(moved.names)
    places = 1000.0 * moved.joints.transpose(2, 1, 0)
    file["data"]["points"] = np.concatenate([places, np.ones_like(places[:1])])
    residuals = np.where(moved.found.T, 0.0, -1.0)[None]
    cameras = np.zeros((7, *residuals.shape[1:]), bool)
    file["data"]["meta_points"] = {"residuals": residuals, "camera_masks": cameras}
    with tempfile.TemporaryDirectory() as folder:  # it writes to names that end in .c3d only
        whole = Path(folder) / "motion.c3d"
        file.write(str(whole))
        Path(name).write_bytes(whole.read_bytes())


def _bvh(name: str, moved: _Moved) -> None:
    text = animation.bvh(_articulated(moved), moved.motion.fps)
    Path(name).write_text(text, encoding="utf-8", newline="\n")


def _glb(name: str, moved: _Moved) -> None:
    motion = moved.motion
    bones = _articulated(moved)
    Path(name).write_bytes(animation.glb(bones, motion.fps, motion.name, first=motion.first))


def _articulated(moved: _Moved) -> Articulated:
    skeleton = moved.motion.skeleton
    if moved.y_up:
        return articulate(moved.joints, skeleton)
    return articulate(_upright(moved.joints), skeleton).turned(gltf.Y_UP.inv())


def _upright(joints: Float[np.ndarray, "frames joints 3"]) -> Float[np.ndarray, "frames joints 3"]:
    """From z up to y up."""
    return gltf.Y_UP.apply(joints.reshape(-1, 3)).reshape(joints.shape)


_WRITERS: dict[str, Callable[[str, _Moved], None]] = {
    "npz": _npz, "csv": _csv, "json": _json, "trc": _trc, "c3d": _c3d, "bvh": _bvh, "glb": _glb,
}  # fmt: skip
FORMATS = tuple(_WRITERS)
_Y_UP = ("trc", "bvh", "glb")
