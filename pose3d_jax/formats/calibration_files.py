"""Cameras one by one, in their file's unit: what is a camera; Pose2Sim, anipose, Qualisys, NPZ.

`calibration.read` finds the reader, and makes a rig of what it says. OpenCV's files, and
EasyMocap's, are read in `calibration_opencv.py`.
"""

import dataclasses
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from pose3d_jax import sources
from pose3d_jax.cameras import TANGENTIAL
from pose3d_jax.sources import SourceError

Array = np.ndarray

_COEFFICIENTS = 5  # of distortion: k1, k2, p1, p2, k3
_SKEW = 1e-4  # of the focal length: some hundredths of a pixel at the image's edge
_TOLERANCE = 1e-3  # of a rotation's products

# Qualisys: hundreds of names of models; those that film in colour say so in one of these ways
# (Miqus Video, Miqus Hybrid, Oqus 210c), and other writers of the format name none.
_FILMS = re.compile(r"video|hybrid|\dc\b|^none$|^$", re.I)
_SUBPIXELS = 64  # in Qualisys's files to a pixel
# Qualisys's camera axes have y up and z backward.
_FLIP = np.diag([1.0, -1.0, -1.0])


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """One camera; lengths in its file's unit. `size` is None where the file does not say it."""

    name: str
    where: str
    focal: Float[Array, "2"]
    center: Float[Array, "2"]
    distortion: Float[Array, "5"]
    rotation: Float[Array, "3 3"]  # world-to-camera
    translation: Float[Array, "3"]
    size: Float[Array, "2"] | None
    tangential: float


def checked(
    name: str,
    where: str,
    matrix: Any,
    distortion: Any,
    rotation: Any,
    translation: Any,
    size: Any = None,
    *,
    tangential: float = TANGENTIAL["opencv"],
) -> Calibrated:
    """The camera of what its file says; its rotation is a matrix or a vector.

    Raises `SourceError` for what is no camera, or one that `cameras.Camera` has no place for.
    """
    at = f"{where}, camera {name}"
    matrix = _shaped(matrix, (3, 3), f"{at}, camera matrix")
    distortion = _shaped(distortion, (None,), f"{at}, distortion")
    rotation = _rotation(rotation, f"{at}, rotation")
    translation = _shaped(translation, (3,), f"{at}, translation")
    focal, center = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    if not (focal > 0).all() or abs(matrix[2] - [0, 0, 1]).max() > 1e-9 or matrix[1, 0] != 0:
        raise SourceError(f"{at}: its matrix is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], fx > 0")
    if abs(matrix[0, 1]) > _SKEW * focal[0]:
        raise SourceError(
            f"{at}: has a skew of {matrix[0, 1]:g} pixels, which is not modelled; calibrate without"
        )
    if distortion[_COEFFICIENTS:].any():
        raise SourceError(
            f"{at}: has {len(distortion)} distortion coefficients; only k1, k2, p1, p2, k3 are "
            f"modelled; calibrate with these (OpenCV: without CALIB_RATIONAL_MODEL and the like)"
        )
    padded = np.zeros(_COEFFICIENTS)
    padded[: len(distortion)] = distortion[:_COEFFICIENTS]
    if size is not None:
        size = np.round(_shaped(size, (2,), f"{at}, size of its image"))
        if not (size > 0).all():
            raise SourceError(f"{at}: its image has the size {size.tolist()}; both must be above 0")
    return Calibrated(name, where, focal, center, padded, rotation, translation, size, tangential)


def _shaped(value: Any, shape: tuple[int | None, ...], where: str) -> Array:
    """The numbers as a finite array of that shape; those listed flat, in a row or a column, too."""
    try:
        value = np.asarray(value)
    except ValueError as error:  # lists of several lengths
        raise SourceError(f"{where}: has rows of several lengths") from error
    if None in shape:
        value = value.ravel()
    elif value.size == np.prod([n or 0 for n in shape]):
        value = value.reshape([n or 0 for n in shape])
    return sources.array(value, shape, where)


def _rotation(value: Any, where: str) -> Float[Array, "3 3"]:
    """Of a matrix or of a rotation vector (Rodrigues: the axis times the angle)."""
    flat = _shaped(value, (None,), where)
    if len(flat) == 3:
        return Rotation.from_rotvec(flat).as_matrix()
    matrix = _shaped(value, (3, 3), where)
    off = abs(matrix @ matrix.T - np.eye(3)).max()
    if off > _TOLERANCE or np.linalg.det(matrix) < 0:
        kind = "mirrors" if off <= _TOLERANCE else "is no rotation"
        raise SourceError(f"{where}: {kind}; its rows should be right-handed axes of length 1")
    return Rotation.from_matrix(matrix).as_matrix()


def refuse_lens(at: str, model: Any) -> None:
    """Raises the `SourceError` of a lens that `cameras.Camera` does not model."""
    raise SourceError(
        f"{at}: has another lens model ({model}); only OpenCV's plain one (k1, k2, p1, p2, k3) is "
        f"known; calibrate with that, or undistort the videos and calibrate them"
    )


def image_size(table: Mapping, where: str, width: str, height: str) -> list[float] | None:
    """Width and height by their keys, or None where the table has neither."""
    if width not in table and height not in table:
        return None
    return [number(sources.member(table, key, where), f"{where}, {key}") for key in (width, height)]


def number(value: Any, where: str) -> float:
    """A number, or text that is one; anything else is a `SourceError`."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{where}: is {str(value)[:40]!r}, not a number") from error


# --------------------------------------------------------------------------- Pose2Sim, anipose


def toml(path: Path) -> list[Calibrated]:
    """The sections of a TOML file that have a `matrix`, a `rotation` or a `translation`."""
    with sources.opened(path) as stream:
        try:
            table = tomllib.load(stream)
        except ValueError as error:  # also text that is not UTF-8
            raise SourceError(f"{path}: is not readable TOML ({sources.short(error)})") from error
    found = []
    for key, section in table.items():
        if not isinstance(section, Mapping) or not section.keys() & {
            "matrix", "rotation", "translation"
        }:  # fmt: skip
            continue
        name, at = str(section.get("name", key)), f"{path}, [{key}]"
        if section.get("fisheye", False):
            refuse_lens(at, "fisheye")
        matrix, distortion, rotation, translation = (
            sources.member(section, k, at)
            for k in ("matrix", "distortions", "rotation", "translation")
        )
        size = section.get("size")
        found.append(checked(name, str(path), matrix, distortion, rotation, translation, size))
    if not found:
        raise SourceError(f"{path}: has no cameras: sections with `matrix`, `rotation` and others")
    return found


# ----------------------------------------------------------------------------------- Qualisys


def qualisys(path: Path) -> list[Calibrated]:
    """The active cameras of a `.qca.txt` that film: intrinsics in 64ths of a pixel, millimetres.

    Of a view that is a part of the sensor (`fov_video`) the pixels are the part's. Raises
    `SourceError` also where intrinsics are in other units than Qualisys's (Theia3D's are), and for
    a view that is turned on the screen, whose videos may be turned or not.
    """
    with sources.opened(path) as stream:
        text = stream.read()
    if b"<!" in text.replace(b"<!--", b""):
        raise SourceError(f"{path}: declares XML entities, which no calibration has")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise SourceError(
            f"{path}: is not readable XML ({sources.short(error)}); export the calibration from "
            f"QTM as text (.qca.txt); the binary .qca is not read"
        ) from error
    cameras = root.findall(".//cameras/camera")
    active = [c for c in cameras if c.get("active") == "1"]
    filming = [c for c in active if _FILMS.search(c.get("model", "").strip())]
    if not filming:
        models = ", ".join(sorted({c.get("model", "no model") for c in active})) or "none"
        raise SourceError(f"{path}: has no active video cameras; models of active ones: {models}")
    return [_of_qualisys(camera, path) for camera in filming]


def _of_qualisys(camera: ElementTree.Element, path: Path) -> Calibrated:
    name = sources.member(dict(camera.attrib), "serial", f"{path}, a camera")
    at = f"{path}, camera {name}"
    if camera.get("viewrotation", "0") != "0":
        raise SourceError(
            f"{at}: its view is turned by {camera.get('viewrotation')} degrees; where its video "
            f'lies as the sensor does, write viewrotation="0", else turn the video back first'
        )

    def values(element: str, *keys: str) -> list[float]:
        found = camera.find(element)
        if found is None:
            raise SourceError(f"{at}: has no {element}; is it QTM's? Export it from there")
        there = dict(found.attrib)
        return [
            number(sources.member(there, key, f"{at}, {element}"), f"{at}, {element}, {key}")
            for key in keys
        ]

    left, top, right, bottom = values("fov_video", "left", "top", "right", "bottom")
    most = values("fov_video_max", "right", "bottom")
    sensor = np.array(values("intrinsic", "sensorMaxU", "sensorMaxV")) / _SUBPIXELS
    # Writers count from 0 or from 1, pixels or 64ths.
    if abs(sensor - most).max() > 2:
        raise SourceError(
            f"{at}: its sensor has {sensor[0]:.0f} x {sensor[1]:.0f} pixels (of {_SUBPIXELS} units)"
            f" and its video up to {most[0] + 1:.0f} x {most[1] + 1:.0f}: intrinsics of another "
            f"resolution, or of a program that is not QTM; calibrate at the video's resolution"
        )
    fu, fv, cu, cv, skew = (
        x / _SUBPIXELS
        for x in values(
            "intrinsic", "focalLengthU", "focalLengthV", "centerPointU", "centerPointV", "skew"
        )
    )
    radial = values("intrinsic", *(f"radialDistortion{n}" for n in (1, 2, 3)))
    tangential = values("intrinsic", *(f"tangentalDistortion{n}" for n in (1, 2)))
    listed = values("transform", *(f"r{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3)))
    # Checked before it is a factor of the translation.
    rotation = _FLIP @ _rotation(np.reshape(listed, (3, 3)), f"{at}, transform")
    return checked(
        name,
        str(path),
        [[fu, skew, cu - left], [0, fv, cv - top], [0, 0, 1]],
        [*radial[:2], *tangential, radial[2]],
        rotation,
        -rotation @ np.array(values("transform", "x", "y", "z")),
        size=[right - left + 1, bottom - top + 1],
    )


# ------------------------------------------------------------------------------------ our own


def npz(path: Path) -> list[Calibrated]:
    """What `calibration.write` wrote: `names`, and a `Camera`'s fields with axis `[views]`."""
    table = sources.load_npz(path)
    names = np.ravel(sources.member(table, "names", str(path)))
    count = len(names)
    shapes = {
        "focal": (2,), "center": (2,), "distortion": (_COEFFICIENTS,), "rotation": (3, 3),
        "translation": (3,), "size": (2,),
    }  # fmt: skip
    of = {
        key: sources.array(sources.member(table, key, str(path)), (count, *shape), f"{path}, {key}")
        for key, shape in shapes.items()
    }
    factors = sources.array(
        table.get("tangential", np.full(count, TANGENTIAL["opencv"])), (count,),
        f"{path}, tangential",
    )  # fmt: skip
    found = []
    for view, name in enumerate(names):
        matrix = np.diag([*of["focal"][view], 1.0])
        matrix[:2, 2] = of["center"][view]
        found.append(
            checked(
                str(name),
                str(path),
                matrix,
                of["distortion"][view],
                of["rotation"][view],
                of["translation"][view],
                of["size"][view],
                tangential=float(factors[view]),
            )
        )
    return found
