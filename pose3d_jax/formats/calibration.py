"""Calibrated cameras as tools leave them, as one rig: metres, world-to-camera, by name.

Read are Pose2Sim's and anipose's TOML, Qualisys's `.qca.txt`, EasyMocap's `intri.yml` with
`extri.yml`, OpenCV's YAML and JSON, and our own NPZ; written are NPZ and TOML.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from pose3d_jax import sources, workdir
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.formats import calibration_files, calibration_opencv
from pose3d_jax.formats.calibration_files import Calibrated
from pose3d_jax.formats.keypoint_people import Picture
from pose3d_jax.sources import SourceError

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # in metres

_SAME_SIZE, _SAME_SHAPE = 0.001, 0.005  # shares by which pictures may differ
# Between the two cameras of a rig that are farthest apart, metres.
_NEAREST, _FARTHEST = 0.05, 100.0


@dataclasses.dataclass(frozen=True)
class Rig:
    """Cameras `[views]` (NumPy, float32) and what they are called; no two have one name."""

    names: tuple[str, ...]
    cameras: Camera


class _Format(NamedTuple):
    read: Callable[[Path], list[Calibrated]]
    unit: str  # what its lengths are in, or are taken to be in
    said: bool  # whether that is the format's own


_FORMATS = {
    "TOML": _Format(calibration_files.toml, "m", False),
    "Qualisys": _Format(calibration_files.qualisys, "mm", True),
    "EasyMocap": _Format(calibration_opencv.easymocap, "m", True),
    "OpenCV": _Format(calibration_opencv.opencv, "m", False),
    "NPZ": _Format(calibration_files.npz, "m", True),
}
_ENDINGS = {
    ".toml": "TOML", ".qca.txt": "Qualisys", ".qca": "Qualisys", ".yml": "OpenCV",
    ".yaml": "OpenCV", ".json": "OpenCV", ".npz": "NPZ",
}  # fmt: skip


def read(path: str | Path, *, unit: str = "", size: tuple[int, int] | None = None) -> Rig:
    """The cameras of a file, or of all files of a folder, which must be of one format.

    Their order is the file's; of several files that of their names, numbers by their value.

    Args:
      path: the file or folder; of EasyMocap's pair either file, or its folder.
      unit: `m`, `cm` or `mm`: what the file's lengths are in. Without, the format's own (Qualisys:
        mm; EasyMocap, ours: m), or metres where a format has none (TOML, OpenCV).
      size: width and height of the image, pixels, of cameras whose file does not say it.

    Raises `SourceError` for files that are missing, damaged, of another layout or of several
    formats; cameras of one name; lenses that are not modelled (fisheye, more than k1, k2, p1, p2,
    k3, skew), images of unknown size, and, without `unit`, cameras that are no rig's distances
    apart where the format does not say its unit.
    """
    if unit and unit not in UNITS:
        raise SourceError(f"{unit!r} is no unit of length; give one of {', '.join(UNITS)}")
    path = Path(path)
    files = {file: _format_of(file) for file in _files(path)}
    kinds = sorted(set(files.values()))
    if len(kinds) != 1:
        raise SourceError(f"{path}: holds files of {' and '.join(kinds)}; give one of them")
    form = _FORMATS[kinds[0]]
    # EasyMocap's two files are read as one.
    once = list(files)[:1] if kinds == ["EasyMocap"] else list(files)
    found = [camera for file in once for camera in form.read(file)]
    rig = _rig(found, UNITS[unit or form.unit], size)
    if not unit and not form.said:
        _check_distances(rig, path)
    return rig


def subset(rig: Rig, names: Sequence[str]) -> Rig:
    """The cameras of these names, in this order; an unknown name is a `SourceError`."""
    unknown = [name for name in names if name not in rig.names]
    if unknown:
        raise SourceError(f"no camera is called {unknown[0]!r}; there are {', '.join(rig.names)}")
    if len(set(names)) != len(names) or not names:
        raise SourceError(f"cameras {', '.join(names) or 'none'}: give each once, and one or more")
    index = [rig.names.index(name) for name in names]
    return Rig(tuple(names), jax.tree.map(lambda x: x[np.array(index)], rig.cameras))


def fitted(rig: Rig, pictures: Sequence[Picture | None]) -> tuple[Rig, list[str]]:
    """The rig for pictures that were made larger or smaller since it was calibrated, or put between
    black bars; and what was done of that, or could not be, to be told.

    `pictures`: of each view; None where not known. Frames of the size that was calibrated are taken
    for it, whatever of them is black. A camera is changed where its picture has the shape that it
    was calibrated for, within half a percent: cut off on one side only, it tells nothing of where
    its middle was.
    """
    cameras = jax.tree.map(np.array, rig.cameras)
    told = []
    for v, (name, picture) in enumerate(zip(rig.names, pictures, strict=True)):
        if picture is None:
            continue
        place, size = np.array(picture[:2]), np.array(picture[2:4])
        frame = np.array(picture[4:])
        if np.abs(frame / cameras.size[v] - 1).max() < _SAME_SIZE:
            continue
        scale = size / cameras.size[v]
        now = "{:.0f} x {:.0f} pixels".format(*size)
        was = "{:.0f} x {:.0f}".format(*cameras.size[v])
        if abs(scale[0] / scale[1] - 1) > _SAME_SHAPE:
            told.append(f"{name} was calibrated for {was}, its pictures are {now}: left as it is")
            continue
        told.append(f"{name} was calibrated for {was}, its pictures are {now}: brought to these")
        cameras.focal[v] *= scale
        cameras.center[v] = (cameras.center[v] + 0.5) * scale - 0.5 + place
        cameras.size[v] = frame
    return Rig(rig.names, cameras), told


def write(path: str | Path, rig: Rig) -> None:
    """Writes a rig, whole or not at all: `.npz`, or `.toml` as Pose2Sim and anipose read it.

    Raises `SourceError` for another ending, and for tangential distortion that is not OpenCV's in
    a TOML file, which has no place for its factor.
    """
    path = Path(path)
    if path.suffix == ".npz":
        fields = dataclasses.asdict(rig.cameras)
        workdir.write(path, lambda name: _save(name, names=np.array(rig.names), **fields))
    elif path.suffix == ".toml":
        workdir.write_text(path, _toml(rig))
    else:
        raise SourceError(f"{path}: cameras are written as .npz or .toml; end the name with one")


def centres(cameras: Camera) -> Float[np.ndarray, "views 3"]:
    """Where cameras are, world, in the unit of their translations; float64."""
    rotation, translation = (np.asarray(x, float) for x in (cameras.rotation, cameras.translation))
    return -np.einsum("vab,va->vb", rotation, translation)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise SourceError(f"{path}: is not there; give a calibration file, or a folder of such")
    if not path.is_dir():
        return [path]
    found = [file for file in path.iterdir() if file.is_file() and _ending(file)]
    if not found:
        raise SourceError(f"{path}: holds no calibration ({', '.join(_ENDINGS)})")
    return sorted(found, key=sources.natural)


def _ending(path: Path) -> str:
    return next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")


def _format_of(path: Path) -> str:
    if path.stem in ("intri", "extri") and path.suffix.lower() in (".yml", ".yaml"):
        return "EasyMocap"
    if ending := _ending(path):
        return _ENDINGS[ending]
    if path.suffix.lower() in (".txt", ".xml"):
        return "Qualisys"
    raise SourceError(f"{path}: is no calibration that is known ({', '.join(_ENDINGS)})")


def _rig(found: list[Calibrated], metres: float, size: tuple[int, int] | None) -> Rig:
    names = [camera.name for camera in found]
    for number, name in enumerate(names):
        if name in names[:number]:
            places = sorted({found[names.index(name)].where, found[number].where})
            raise SourceError(f"{' and '.join(places)}: two cameras are called {name!r}")
    for camera in found:
        if camera.size is None and size is None:
            raise SourceError(
                f"{camera.where}: does not say how large the image of camera {camera.name} is; "
                f"give its width and height in pixels"
            )

    def stacked(values: list) -> np.ndarray:
        return np.stack([np.asarray(x, np.float32) for x in values])

    cameras = Camera(
        rotation=stacked([c.rotation for c in found]),
        translation=stacked([metres * c.translation for c in found]),
        focal=stacked([c.focal for c in found]),
        center=stacked([c.center for c in found]),
        distortion=stacked([c.distortion for c in found]),
        tangential=stacked([c.tangential for c in found]),
        size=stacked([size if c.size is None else c.size for c in found]),
    )
    return Rig(tuple(names), cameras)


def _check_distances(rig: Rig, path: Path) -> None:
    """Raises `SourceError` where the cameras cannot be in metres."""
    at = centres(rig.cameras)
    apart = float(np.linalg.norm(at[:, None] - at, axis=-1).max())
    if len(at) < 2 or _NEAREST <= apart <= _FARTHEST:
        return
    fitting = [
        f"--unit {unit} ({apart * factor:.3g} m)"
        for unit, factor in UNITS.items()
        if unit != "m" and _NEAREST <= apart * factor <= _FARTHEST
    ]
    remedy = f"give {' or '.join(fitting)}" if fitting else "calibrate with a board of known size"
    raise SourceError(
        f"{path}: does not say its unit, and in metres its cameras would be "
        f"{float(f'{apart:.3g}'):g} m apart; "
        f"{remedy}, or --unit m if that is so"
    )


def _save(name: str, **arrays: np.ndarray) -> None:
    with Path(name).open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _toml(rig: Rig) -> str:
    """The layout that Pose2Sim and anipose share: rotations as vectors."""
    vectors = Rotation.from_matrix(np.asarray(rig.cameras.rotation, float)).as_rotvec()
    lines = []
    for view, name in enumerate(rig.names):
        camera = jax.tree.map(lambda x, view=view: np.asarray(x[view], float), rig.cameras)
        if camera.tangential != TANGENTIAL["opencv"] and camera.distortion[2:4].any():
            raise SourceError(
                f"camera {name}: its tangential distortion is not OpenCV's; write an .npz"
            )
        (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
        lines += [
            f"[cam_{view}]",
            f"name = {json.dumps(name, ensure_ascii=False)}",
            f"size = {camera.size.tolist()}",
            f"matrix = {[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]}",
            f"distortions = {camera.distortion.tolist()}",
            f"rotation = {vectors[view].tolist()}",
            f"translation = {camera.translation.tolist()}",
            "fisheye = false",
            "",
        ]
    return "\n".join([*lines, "[metadata]", "adjusted = false", "error = 0.0", ""])
