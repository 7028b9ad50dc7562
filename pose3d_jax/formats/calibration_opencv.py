"""Cameras in OpenCV's YAML and JSON, and in EasyMocap's pair of files, which are OpenCV's too."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pose3d_jax import sources
from pose3d_jax.formats.calibration_files import (
    Calibrated,
    checked,
    image_size,
    number,
    refuse_lens,
)
from pose3d_jax.sources import SourceError

Array = np.ndarray

# Other lens models than OpenCV's plain one, by what files call them.
_OTHER_LENSES = re.compile("fish|equidist|kannala|omni|mei|division|unified|scaramuzza", re.I)


def _load(path: Path) -> Any:
    """What a JSON or a YAML file holds, OpenCV's dialect of it too; a YAML's scalars as text."""
    if path.suffix.lower() == ".json":
        return sources.load_json(path)
    with sources.opened(path) as stream:
        try:
            # OpenCV below 5 begins with %YAML:1.0, which is no directive of YAML.
            text = re.sub(r"\A%YAML[^\n]*\n", "", stream.read().decode("utf-8-sig"))
            # Text, lists and dicts only, whatever the tags; and a name "01" is not the number 1.
            return yaml.load(text, yaml.BaseLoader)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise SourceError(f"{path}: is not readable YAML ({sources.short(error)})") from error


def _numbers(value: Any, where: str) -> Array:
    """An array from an OpenCV matrix, from lists, or from one number."""
    if isinstance(value, Mapping):
        data = _numbers(sources.member(value, "data", where), where).ravel()
        # An opencv-nd-matrix has `sizes`, which OpenCV 5 writes for arrays of one axis.
        sizes = value.get("sizes", [value.get("rows"), value.get("cols")])
        sizes = sizes if isinstance(sizes, list) else [sizes]
        shape = [number(n, f"{where}, its size") for n in sizes]
        if np.prod(shape) != data.size or not all(n in range(1, data.size + 1) for n in shape):
            raise SourceError(
                f"{where}: has {data.size} numbers, not {' x '.join(map(str, shape))}"
            )
        return data.reshape([int(n) for n in shape])
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SourceError(
            f"{where}: is not an array of numbers ({sources.short(error)})"
        ) from error


def easymocap(path: Path) -> list[Calibrated]:
    """The cameras of `intri.yml` and `extri.yml`, of which `path` is one."""
    names: list[str] = []
    tables: dict[str, Any] = {}
    for stem in ("intri", "extri"):
        file = path.with_name(f"{stem}{path.suffix}")
        table = _load(file)
        listed = sources.member(table, "names", str(file))
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise SourceError(f"{file}: `names` is not a list of names")
        if names and listed != names:
            raise SourceError(f"{file}: names {', '.join(listed)}, not those of intri{path.suffix}")
        names = listed
        tables |= table

    def numbers(key: str) -> Array:
        return _numbers(sources.member(tables, key, str(path.parent)), f"{path.parent}, {key}")

    return [
        checked(
            name,
            str(path.parent),
            numbers(f"K_{name}"),
            numbers(f"dist_{name}"),
            numbers(f"Rot_{name}" if f"Rot_{name}" in tables else f"R_{name}"),
            numbers(f"T_{name}"),
            image_size(tables, str(path.parent), f"W_{name}", f"H_{name}"),
        )
        for name in names
    ]


# What OpenCV's users call the parts of a camera, in small letters and without marks.
_KEYS = {
    "camera_matrix": ("cameramatrix", "k", "intrinsicmatrix", "matrix"),
    "distortion_coefficients": (
        "distortioncoefficients", "distcoeffs", "distortion", "distortions", "dist", "d"
    ),
    "R or rvec": ("r", "rot", "rotation", "rotationmatrix", "rvec", "rotationvector"),
    "T or tvec": ("t", "tvec", "translation", "translationvector"),
}  # fmt: skip


def opencv(path: Path) -> list[Calibrated]:
    """The camera of a YAML or JSON file, called like the file; or those of its dict or list.

    In a dict cameras are called by their keys, in a list by their `name` or `id`, else by their
    numbers from 0. Either may be the file's `cameras`.
    """
    table = _load(path)
    if isinstance(table, Mapping) and _is_camera(table):
        return [_of_opencv(path.stem, table, path)]
    if isinstance(table, Mapping) and "cameras" in table:
        table = table["cameras"]
    if isinstance(table, list):
        entries = [
            (str(x.get("name", x.get("id", number))), x)
            for number, x in enumerate(table)
            if isinstance(x, Mapping)
        ]
    else:
        entries = [(str(key), x) for key, x in table.items()] if isinstance(table, Mapping) else []
    found = [_of_opencv(name, x, path) for name, x in entries if _is_camera(x)]
    if not found:
        there = ", ".join(name for name, _ in entries[:12]) or "nothing"
        raise SourceError(f"{path}: has no camera, such as `camera_matrix` or `K`; it has {there}")
    return found


def _plain(table: Any) -> dict[str, Any]:
    """With keys in small letters and without marks."""
    return {re.sub("[^a-z0-9]", "", str(key).lower()): value for key, value in table.items()}


def _is_camera(table: Any) -> bool:
    """Whether it has a camera matrix, or two of the other parts and has forgotten it."""
    if not isinstance(table, Mapping):
        return False
    there = [part for part, keys in _KEYS.items() if _plain(table).keys() & set(keys)]
    return "camera_matrix" in there or len(there) > 1


def _of_opencv(name: str, table: Mapping, path: Path) -> Calibrated:
    at, plain = f"{path}, camera {name}", _plain(table)
    for key in ("distortionmodel", "cameramodel"):
        if _OTHER_LENSES.search(str(plain.get(key, ""))):
            refuse_lens(at, plain[key])
    for key in ("fisheye", "fisheyemodel"):
        if str(plain.get(key, "0")).lower() not in ("0", "false", "no"):
            refuse_lens(at, "fisheye")
    values: dict[str, Any] = {}
    for part, keys in _KEYS.items():
        there = [key for key in keys if key in plain]
        if not there:
            raise SourceError(
                f"{at}: has no {part}; it has {', '.join(map(str, table))}. A camera's place "
                f"belongs to it as well as its lens; distortion is zeros where images have none"
            )
        values[part] = _numbers(plain[there[0]], f"{at}, {part}")
    size: Any = image_size(plain, at, "imagewidth", "imageheight")
    if size is None:
        size = image_size(plain, at, "width", "height")
    for key in ("imagesize", "size"):
        if size is None and key in plain:
            size = _numbers(plain[key], f"{at}, {key}")
    matrix, distortion, rotation, translation = (values[part] for part in _KEYS)
    return checked(name, str(path), matrix, distortion, rotation, translation, size)
