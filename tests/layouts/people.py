"""What the layouts have in common: moving people, cameras, projection, truth, damage.

The content is the procedural people of `data_prep.synthetic`, 17 joints, metres, z up; further
joints (eyes, hands, toes, collar bones, ...) are set at a constant distance from these. Projection
is OpenCV's `projectPoints` or formulas in NumPy, not the package's own, so that a reader is checked
against something else.
"""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np

from data_prep.body_motion import MOTIONS
from data_prep.synthetic import BODIES


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


H36M17 = words(
    "pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck head "
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"
)
COCO17 = words(
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle"
)
MPII16 = words(
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck "
    "head_top right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist"
)

_RIGS = Path(__file__).parents[2] / "data_prep" / "rigs.json"


@dataclass
class Clip:
    """What a reader must find of one sequence, in metres, pixels and frames a second."""

    subject: str
    action: str  # as the file names it, trial and chunk included
    split: str  # as the set itself splits, or ""
    fps: float
    joints: np.ndarray | None  # [T, J, 3], world z up unless the module says otherwise
    joint_names: tuple[str, ...]
    keypoints: dict[str, np.ndarray] = field(default_factory=dict)  # source -> [T, V, J', 2]
    keypoint_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cameras: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)  # what only this set has


@dataclass
class Truth:
    """What a reader must find in a folder: clips by key, and what is absent, with the reason."""

    clips: dict[Any, Clip] = field(default_factory=dict)
    absent: dict[Any, str] = field(default_factory=dict)


class Damage(NamedTuple):
    """One way to break what `write` wrote, and what an error message must name."""

    apply: Callable[[Path], None]
    names: tuple[str, ...]


class Camera(NamedTuple):
    """`x_camera = R x_world + t` in metres; `distortion` is (k1, k2, p1, p2, k3)."""

    name: str
    R: np.ndarray
    t: np.ndarray
    focal: np.ndarray
    center: np.ndarray
    distortion: np.ndarray
    size: tuple[int, int]

    @property
    def K(self) -> np.ndarray:
        """The 3 x 3 matrix of intrinsics."""
        (fx, fy), (cx, cy) = self.focal, self.center
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def motion(kind: str, frames: int, fps: float, *, body: str = "S1", seed: int = 0) -> np.ndarray:
    """Joints `[T, 17, 3]` (`H36M17`) of a person; `kind` is walk, jog, box or free.

    `body` is one of five people, S1 to S5; any other name is one of these, always the same.
    """
    names = list(BODIES)
    if body not in BODIES:
        body = names[sum(body.encode()) % len(names)]
    # A gait needs two frames at least to have a speed.
    time = np.arange(max(frames, 2)) / fps
    return MOTIONS[kind](np.random.default_rng(seed), BODIES[body], time)[:frames]


def points(joints: np.ndarray) -> dict[str, np.ndarray]:
    """Named points `[T, 3]` of joints `[T, 17, 3]`: these joints, and many that hang on them."""
    named = {name: joints[:, i] for i, name in enumerate(H36M17)}
    up = _unit(named["thorax"] - named["pelvis"])
    right = _unit(named["right_shoulder"] - named["left_shoulder"])
    forward = _unit(np.cross(up, right))
    tall = _unit(named["head"] - named["neck"])
    across = _unit(np.cross(forward, tall))
    ahead = np.cross(tall, across)

    def beside(base: str, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
        """Off `base`: x to the person's right, y forward, z up, in metres, along the trunk."""
        return named[base] + x * right + y * forward + z * up

    def between(base: str, tip: str, share: float) -> np.ndarray:
        return named[base] + share * (named[tip] - named[base])

    def face(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
        """Off the head, along its own axes."""
        return named["head"] + x * across + y * ahead + z * tall

    named["nose"] = face(y=0.10, z=-0.03)
    named["head_top"] = face(z=0.08)
    named["head_center"] = face(z=-0.05)
    named["upper_neck"] = named["neck"]
    named["lower_neck"] = between("thorax", "neck", 0.4)
    named["belly"] = between("pelvis", "spine", 0.6)
    named["chest"] = between("spine", "thorax", 0.4)
    named["upper_chest"] = between("spine", "thorax", 0.75)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        named[f"{side}_eye"] = face(sign * 0.033, 0.08)
        named[f"{side}_ear"] = face(sign * 0.07, 0.0, -0.02)
        named[f"{side}_clavicle"] = between("thorax", f"{side}_shoulder", 0.35)
        for far, near, name, length in (
            ("wrist", "elbow", "hand", 0.08),
            ("wrist", "elbow", "fingers", 0.16),
        ):
            along = _unit(named[f"{side}_{far}"] - named[f"{side}_{near}"])
            named[f"{side}_{name}"] = named[f"{side}_{far}"] + length * along
        named[f"{side}_thumb"] = named[f"{side}_hand"] + 0.03 * forward
        named[f"{side}_foot"] = beside(f"{side}_ankle", y=0.12, z=-0.05)
        named[f"{side}_toe"] = beside(f"{side}_ankle", y=0.19, z=-0.06)
    return named


def choose(named: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """`[T, J, 3]` of the points of these names."""
    return np.stack([named[name] for name in names], axis=1)


def mirror(names: Sequence[str]) -> list[int]:
    """For each joint the index of the one on the other side, or its own."""
    swap = {"left": "right", "right": "left"}
    names = list(names)
    partners = []
    for name in names:
        side, _, rest = name.partition("_")
        partners.append(names.index(f"{swap[side]}_{rest}" if side in swap else name))
    return partners


def late(x: np.ndarray, offset: int) -> np.ndarray:
    """Frames `[T, ...]` shown `offset` frames too late; the ends are repeated."""
    return x[np.clip(np.arange(len(x)) - offset, 0, len(x) - 1)]


def rig(name: str, subject: str) -> list[Camera]:
    """The cameras of `data_prep/rigs.json` (`human36m`, `humaneva`) for a subject."""
    chosen = json.loads(_RIGS.read_text())["rigs"][name]
    cameras = []
    for inner, outer in zip(chosen["cameras"], chosen["subjects"][subject], strict=True):
        to_world = _matrix(outer["orientation"])
        center = np.array(outer["translation_mm"]) / 1000
        cameras.append(
            Camera(
                inner["id"],
                to_world.T,
                -to_world.T @ center,
                np.array(inner["focal_px"]),
                np.array(inner["center_px"]),
                np.array(inner["distortion"]),
                tuple(inner["size_px"]),
            )
        )
    return cameras


def look_from(
    name: str, position: Sequence[float], *, focal: float, size: tuple[int, int], **fields: Any
) -> Camera:
    """A camera at a position in metres, z up, that faces the middle of the scene, upright."""
    center = np.array(position, float)
    forward = _unit(np.array([0.0, 0.0, 0.95]) - center)
    right = _unit(np.cross(forward, [0.0, 0.0, 1.0]))
    rotation = np.stack([right, np.cross(forward, right), forward])
    middle = np.array(size) / 2 + [3.25, -2.5]
    rest = {"focal": np.array([focal, focal + 1.5]), "center": middle, "distortion": np.zeros(5)}
    return Camera(name, rotation, -rotation @ center, size=size, **{**rest, **fields})


def project(x: np.ndarray, camera: Camera, lens: str = "opencv") -> np.ndarray:
    """Pixels `[..., 2]` of world points `[..., 3]` in metres.

    `lens` is `opencv`; `h36m`, whose tangential terms lack the factor 2; or `none`: a pinhole.
    """
    flat = np.ascontiguousarray(x, float).reshape(-1, 3)
    if lens == "h36m":
        pixels = _project_h36m(flat, camera)
    else:
        distortion = camera.distortion if lens == "opencv" else np.zeros(5)
        turn, _ = cv2.Rodrigues(camera.R)
        pixels, _ = cv2.projectPoints(flat, turn, camera.t, camera.K, distortion)
    return pixels.reshape(*x.shape[:-1], 2)


def film(x: np.ndarray, cameras: Sequence[Camera], lens: str = "opencv") -> np.ndarray:
    """Pixels `[T, V, J, 2]` of joints `[T, J, 3]`."""
    return np.stack([project(x, camera, lens) for camera in cameras], axis=1)


def old_pickle(x: Any, *, protocol: int = 3) -> bytes:
    """A pickle as NumPy before version 2 wrote it: it names `numpy.core`, not `numpy._core`.

    Protocol 3 is what `numpy.savez` wrote under Python 3. Protocol 2 is a Python 2 pickle: text and
    the arrays' bytes are both Python 2 strings, so that Python 3 reads it with latin1 only.
    """
    if protocol == 2:
        stream = io.BytesIO()
        _Python2Pickler(stream, protocol=2).dump(x)
        raw = stream.getvalue()
    else:
        raw = pickle.dumps(x, protocol=protocol)
    # Module names end with a line break at these protocols, so their length is free.
    return raw.replace(b"cnumpy._core.", b"cnumpy.core.")


def npz(path: Path, *, modern: bool = False, **objects: Any) -> None:
    """`numpy.savez_compressed(path, **objects)` as the NumPy of 2018 to 2023 wrote it.

    A dict becomes a 0-d array of objects, which is a pickle. `modern` leaves it to this NumPy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if modern:
        np.savez_compressed(path, **objects)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in objects.items():
            array = np.asanyarray(value)
            stream = io.BytesIO()
            if array.dtype == object:
                raw_npz_entry(stream, array.shape, old_pickle(array))
            else:
                np.lib.format.write_array(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())


def raw_npz_entry(stream: io.BytesIO, shape: tuple[int, ...], raw: bytes) -> None:
    """One `.npy` of objects whose pickle is `raw`, whatever that is."""
    header = {"descr": "|O", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    stream.write(raw)


def edit_npz(path: Path, **changes: Callable[[Any], Any] | None) -> None:
    """Rewrites keys of an npz of dicts: by a function of the old value, or None to drop the key."""
    with np.load(path, allow_pickle=True) as data:
        objects = {key: data[key].item() if data[key].ndim == 0 else data[key] for key in data}
    for key, change in changes.items():
        if change is None:
            del objects[key]
        else:
            objects[key] = change(objects[key])
    npz(path, **objects)


# Pickles that call something if they are loaded without care; nothing here loads them. What they
# would call is harmless here, but the last two also pass a filter by module that is too generous.
FOREIGN = {
    "os.system": b"cos\nsystem\n(S'true'\ntR.",
    "builtins.eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "numpy.fromfile": b"cnumpy\nfromfile\n(S'/dev/null'\ntR.",
}


def foreign_npz(path: Path, key: str, name: str) -> None:
    """Replaces a key of an npz by the pickle of `FOREIGN[name]`."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    raw_npz_entry(stream, (), FOREIGN[name])
    entries[f"{key}.npy"] = stream.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def truncate(path: Path) -> None:
    """Leaves the first half of a file."""
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def empty(path: Path) -> None:
    """Leaves nothing in a file."""
    path.write_bytes(b"")


def prose(path: Path) -> None:
    """Makes of a file what a failed download leaves."""
    path.write_text("<!DOCTYPE html><html><body>403 Forbidden</body></html>\n")


def file_damages(path: str) -> dict[str, Damage]:
    """The damages that any file can suffer; keys are `truncated`, `empty`, `web page`."""
    name = Path(path).name
    return {
        "truncated": Damage(lambda folder: truncate(folder / path), (name,)),
        "empty": Damage(lambda folder: empty(folder / path), (name,)),
        "web page": Damage(lambda folder: prose(folder / path), (name,)),
    }


def foreign_damages(path: str, key: str) -> dict[str, Damage]:
    """An npz that names something foreign; keys are `foreign os.system`, ..."""

    def damage(name: str) -> Damage:
        return Damage(lambda folder: foreign_npz(folder / path, key, name), (path, name))

    return {f"foreign {name}": damage(name) for name in FOREIGN}


def stray(folder: Path) -> None:
    """Files that lie about in real folders and mean nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text("How these files were made.\n")
    (folder / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\x00")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    np.savez(folder / "results_old.npz", errors=np.zeros(3))


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its one string type."""

    def _save_string(self, x: str | bytes) -> None:
        raw = x.encode("latin1") if isinstance(x, str) else x
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(raw)) + raw)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(x)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, str: _save_string, bytes: _save_string}


def _project_h36m(x: np.ndarray, camera: Camera) -> np.ndarray:
    """Human3.6M's own projection: the tangential terms without the factor 2."""
    in_camera = x @ camera.R.T + camera.t
    u, v = (in_camera[:, :2] / in_camera[:, 2:]).T
    k1, k2, p1, p2, k3 = camera.distortion
    r2 = u**2 + v**2
    shared = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * v + p2 * u
    return np.stack([u * shared + p2 * r2, v * shared + p1 * r2], -1) * camera.focal + camera.center


def _matrix(quaternion: Sequence[float]) -> np.ndarray:
    """Rotation matrix of a quaternion (w, x, y, z)."""
    w, *vector = np.array(quaternion, float) / np.linalg.norm(quaternion)
    x, y, z = vector
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * skew + 2 * skew @ skew


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
