"""MPI-INF-3DHP: the training set's MATLAB 5 files and the test set's MATLAB 7.3 (HDF5) files.

Published in the README and `util/*.m` that come with the set (copies are on GitHub), and as read by
isarandi/posepile (3DHP), anibali/margipose (`data/mpi_inf_3dhp`), nkolot/SPIN and
TaatiTeam/MotionAGFormer (`data/preprocess/data_to_npz_3dhp*.py`).

`S1/Seq1/annot.mat`, ... `S8/Seq2/annot.mat`, MATLAB 5. Three cell arrays of 14 x 1, a cell for each
camera: `annot2`, double [N, 56], pixels x1 y1 x2 y2 ...; `annot3`, double [N, 84], millimetres in
that camera's frame, x1 y1 z1 ...; `univ_annot3`, the same of a body of everybody's size, which does
not project onto `annot2`. `cameras`, uint8 [1, 14]: 0 to 13. `frames`, uint16 [N, 1]: 0 to N - 1.

`S1/Seq1/camera.calibration`, text. A title, then for each camera seven lines: `name` (0 to 13),
`sensor` and `size` (two numbers, the size in pixels: 2048 2048), `animated` 0, `intrinsic` and
`extrinsic` (16 numbers, a 4 x 4 matrix row by row; world to camera, millimetres) and `radial` 0:
no distortion. The world's y axis points up.

Frame rates of the training set are in a table of the set's own code, not in its files: `FPS`.
Videos exist for cameras 0 1 2 4 5 6 7 8 (`VNECT`); that of S6/Seq2, camera 2, is short.

`mpi_inf_3dhp_test_set/TS1/annot_data.mat`, ... `TS6`, MATLAB 7.3, so HDF5 with the axes reversed:
`annot2` [N, 1, 17, 2], `annot3` and `univ_annot3` [N, 1, 17, 3] (millimetres, camera frame),
`valid_frame` and `activity_annotation` [N, 1] (1 to 7; frames that are not valid are not
evaluated), `bb_crop` [N, 34]. Images are `imageSequence/img_000001.jpg`, counted from 1. One
camera, whose parameters are not in the file: 2048 x 2048 for TS1 to TS4, 1920 x 1080 and a strong
lens for TS5 and TS6.

28 joints (`JOINTS28`), of which the test set has 17 (`JOINTS17`).
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat, savemat

from tests.layouts import people
from tests.layouts.people import Camera, Clip, Damage, Truth

FPS = {
    f"S{subject}/Seq{sequence}": 50.0
    if (subject, sequence) == (1, 2) or subject in (3, 5)
    else 25.0
    for subject in range(1, 9)
    for sequence in (1, 2)
}
VNECT = (0, 1, 2, 4, 5, 6, 7, 8)
JOINTS28 = people.words(
    "spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow "
    "left_wrist left_hand right_clavicle right_shoulder right_elbow right_wrist right_hand "
    "left_hip left_knee left_ankle left_foot left_toe right_hip right_knee right_ankle right_foot "
    "right_toe"
)
# Of the 28, in the order of the test set: head_top, neck, right arm, left arm, right leg, left leg,
# pelvis, spine, head.
RELEVANT = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
JOINTS17 = tuple(JOINTS28[i] for i in RELEVANT)
ACTIVITIES = people.words("Stand/Walk Exercise Sit Reach/Crouch On-Floor Sports Misc.")

# The set's spines are numbered upwards: spine, spine2, spine3, spine4; then the neck.
_POINTS = {
    "spine3": "upper_chest",
    "spine4": "thorax",
    "spine2": "chest",
    "spine": "belly",
    "head": "head_center",
}
_MOTIONS = ("walk", "free", "box", "jog")


def write(
    folder: Path,
    *,
    train: Sequence[str] = ("S1/Seq1", "S1/Seq2", "S2/Seq1", "S8/Seq2"),
    test: Sequence[str] = ("TS1", "TS2", "TS5"),
    frames: int = 10,
    stray: bool = True,
    units: float = 1.0,
    offset: int = 0,
    cameras: Sequence[int] = tuple(range(14)),
    mirrored: bool = False,
    lens: str = "opencv",
    seed: int = 0,
) -> Truth:
    """Writes the files, and says what is in them. Clips are keyed `S1/Seq1` or `TS1`.

    Args:
      folder: where the files go.
      train: sequences of the training set.
      test: sequences of the test set.
      frames: of the first sequence; each further one has one frame more.
      stray: also files and keys that mean nothing to a reader.
      units: factor on all 3D, millimetres otherwise; 0.001 makes them metres.
      offset: by how many frames `annot2` comes too late.
      cameras: which camera's `annot2` stands in the place of the first, the second, ...
      mirrored: left and right are exchanged in `annot2`.
      lens: see `people.project`; it makes a difference for TS5 and TS6.
      seed: of the movements.

    Training: `joints` [T, 28, 3], metres (times `units`), in the world, turned about x so that z
    points up: (x, y, z) of the file is (x, -z, y) there. `more["in_camera"]` [T, 14, 28, 3] has
    them in each camera's frame, whatever way a reader turns the world.

    Test: 17 joints. The world is the camera's frame, x right, z up; `more["in_camera"]`
    [T, 1, 17, 3], `more["valid"]` [T], `more["activity"]` [T].
    """
    folder = Path(folder)
    truth = Truth()
    rig = _studio()
    for number, name in enumerate(train):
        subject, sequence = name.split("/")
        x = _body(subject, frames + number, FPS[name], [seed, number])
        in_camera = np.stack([x @ camera.R.T + camera.t for camera in rig], axis=1)
        shown = people.late(people.film(x, rig, lens), offset)[:, list(cameras)]
        if mirrored:
            shown = shown[:, :, people.mirror(JOINTS28)]
        _write_annot(folder / name / "annot.mat", shown, in_camera * 1000 * units, stray)
        (folder / name / "camera.calibration").write_text(_calibration(rig))
        truth.clips[name] = Clip(
            subject=subject,
            action=sequence,
            split="train",
            fps=FPS[name],
            joints=x * units,
            joint_names=JOINTS28,
            keypoints={"annot2": shown},
            keypoint_names={"annot2": JOINTS28},
            cameras=tuple(camera.name for camera in rig),
            more={"in_camera": in_camera * units, "rig": rig},
        )
    for number, name in enumerate(test):
        length = frames + number
        camera = camera_of(name)
        x = _body(name, length, 25.0, [seed, 100 + number])[:, RELEVANT]
        in_camera = (x @ camera.R.T + camera.t)[:, None]
        shown = people.late(people.film(x, [camera], lens), offset)
        if mirrored:
            shown = shown[:, :, people.mirror(JOINTS17)]
        valid = np.arange(length) % 5 != 3
        in_camera[~valid] = 0.0
        shown[~valid] = 0.0
        activity = np.arange(length) * 7 // length + 1
        path = folder / "mpi_inf_3dhp_test_set" / name / "annot_data.mat"
        _write_test(path, shown, in_camera * 1000 * units, valid, activity, stray)
        right, down, forward = np.moveaxis(in_camera[:, 0] * units, -1, 0)
        truth.clips[name] = Clip(
            subject=name,
            action="",
            split="test",
            fps=25.0,
            joints=np.stack([right, forward, -down], axis=-1),
            joint_names=JOINTS17,
            keypoints={"annot2": shown},
            keypoint_names={"annot2": JOINTS17},
            cameras=("0",),
            more={
                "in_camera": in_camera * units,
                "valid": valid,
                "activity": activity,
                "rig": [camera],
            },
        )
    if stray:
        people.stray(folder)
        for name in train:
            (folder / name / "imageSequence").mkdir(exist_ok=True)
            (folder / name / "imageSequence" / "video_0.avi").write_bytes(b"RIFF")
        util = folder / "mpi_inf_3dhp_test_set" / "test_util"
        util.mkdir(parents=True, exist_ok=True)
        (util / "mpii_test_predictions.m").write_text("% a script\n")
        savemat(folder / "mpii_3dhp_prediction.mat", {"sequencewise_error": np.zeros((6, 1))})
    return truth


def camera_of(name: str) -> Camera:
    """The camera of TS1 ... TS6, of the set's own code (numbers as in isarandi/posepile).

    Its position is given in millimetres in a world with y up; here in metres with z up.
    """
    if name in ("TS1", "TS2", "TS3", "TS4"):
        sensor, size, focal, aspect = (10.0, 10.0), (2048, 2048), 7.32506, 1.00044
        shift = (-0.0322884, 0.0929296)
        origin = (3427.28, 1387.86, 309.42)
        up, right = (-0.208215, 0.976233, 0.06014), (0.000575281, 0.0616098, -0.9981)
    else:
        sensor, size, focal, aspect = (10.0, 5.625), (1920, 1080), 8.770747185, 0.993236423
        shift = (-0.104908645, 0.104899704)
        origin = (-2104.3074, 1038.6707, -4596.6367)
        up = (0.025272345, 0.995038509, 0.096227370)
        right = (-0.939647257, -0.009210289, 0.342020929)
    per_mm = np.array(size) / sensor
    rotation = np.stack([right, -np.array(up), np.cross(up, right)]) @ _TO_Y_UP
    center = _TO_Y_UP.T @ np.array(origin) / 1000
    return Camera(
        name="0",
        R=rotation,
        t=-rotation @ center,
        focal=focal * per_mm * [1, aspect],
        center=(np.array(sensor) / 2 + shift) * per_mm,
        distortion=np.zeros(5),  # the annotations know nothing of a lens
        size=size,
    )


# From our world (z up) to the set's (y up): (x, y, z) becomes (x, z, -y).
_TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def _body(subject: str, frames: int, fps: float, seed: list[int]) -> np.ndarray:
    kind = _MOTIONS[seed[1] % len(_MOTIONS)]
    named = people.points(people.motion(kind, frames, fps, body=subject, seed=seed))
    return people.choose(named, [_POINTS.get(name, name) for name in JOINTS28])


def _studio() -> list[Camera]:
    """14 cameras: a ring at chest height, a ring above, and three at the ceiling."""
    cameras = []
    for i in range(14):
        ring, angle = divmod(i, 6)[0], 2 * np.pi * (i % 6) / 6 + 0.3 * (i // 6)
        radius, height = [(3.9, 1.4), (3.6, 2.5), (1.3, 4.6)][ring]
        position = (radius * np.cos(angle), radius * np.sin(angle), height)
        cameras.append(people.look_from(str(i), position, focal=1497.0 + i, size=(2048, 2048)))
    return cameras


def _calibration(rig: Sequence[Camera]) -> str:
    lines = ["Skeletool Camera Calibration File V1.0"]
    for camera in rig:
        inner = np.eye(4)
        inner[:3, :3] = camera.K
        outer = np.eye(4)
        outer[:3, :3] = camera.R @ _TO_Y_UP.T
        outer[:3, 3] = camera.t * 1000
        lines += [
            f"name          {camera.name}",
            "  sensor      10 10",
            f"  size        {camera.size[0]} {camera.size[1]}",
            "  animated    0",
            f"  intrinsic   {_numbers(inner)} ",
            f"  extrinsic   {_numbers(outer)} ",
            "  radial      0",
        ]
    return "\n".join(lines) + "\n"


def _numbers(matrix: np.ndarray) -> str:
    return " ".join(f"{x:.10g}" for x in matrix.ravel())


def _write_annot(path: Path, shown: np.ndarray, in_camera: np.ndarray, stray: bool) -> None:
    frames, views = shown.shape[:2]
    pelvis = in_camera[:, :, [JOINTS28.index("pelvis")]]
    everybody = pelvis + 0.93 * (in_camera - pelvis)
    contents = {
        "annot2": _cells(shown),
        "annot3": _cells(in_camera),
        "univ_annot3": _cells(everybody),
        "cameras": np.arange(views, dtype=np.uint8)[None],
        "frames": np.arange(frames, dtype=np.uint16)[:, None],
    }
    if stray:
        contents["notes"] = "converted"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, contents, do_compression=True)


def _cells(x: np.ndarray) -> np.ndarray:
    """A cell array 14 x 1 of `[N, J * C]` for `[N, V, J, C]`."""
    cells = np.empty((x.shape[1], 1), object)
    for view in range(x.shape[1]):
        cells[view, 0] = np.ascontiguousarray(x[:, view].reshape(len(x), -1))
    return cells


def _write_test(
    path: Path,
    shown: np.ndarray,
    in_camera: np.ndarray,
    valid: np.ndarray,
    activity: np.ndarray,
    stray: bool,
) -> None:
    pelvis = in_camera[:, :, [JOINTS17.index("pelvis")]]
    contents = {
        "annot2": shown,
        "annot3": in_camera,
        "univ_annot3": pelvis + 0.93 * (in_camera - pelvis),
        "valid_frame": valid[:, None].astype(float),
        "activity_annotation": activity[:, None].astype(float),
    }
    if stray:
        contents["bb_crop"] = np.zeros((len(valid), 34))
    write_v73(path, contents)


def write_v73(path: Path, contents: dict[str, np.ndarray]) -> None:
    """A MATLAB 7.3 file: HDF5 after a header of 512 bytes. Arrays have MATLAB's axes reversed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=512) as file:
        for key, value in contents.items():
            file[key] = value
            file[key].attrs["MATLAB_class"] = np.bytes_("double")
    raw = bytearray(stream.getvalue())
    title = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 1 HDF5 schema 1.00 ."
    raw[:512] = title.ljust(124) + b"\x00\x02IM" + bytes(384)
    path.write_bytes(raw)


_TRAIN, _TEST = "S1/Seq1/annot.mat", "mpi_inf_3dhp_test_set/TS1/annot_data.mat"
_CAMERA = "S1/Seq1/camera.calibration"


def _remat(change: Callable[[dict], None], *names: str) -> Damage:
    """Edits the dict of an `annot.mat`."""

    def apply(folder: Path) -> None:
        contents = loadmat(folder / _TRAIN)
        contents = {key: x for key, x in contents.items() if not key.startswith("__")}
        change(contents)
        savemat(folder / _TRAIN, contents)

    return Damage(apply, ("annot.mat", *names))


def _cell(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Edits one camera's cell."""

    def edit(contents: dict) -> None:
        contents[key][3, 0] = change(contents[key][3, 0])

    return _remat(edit, "Seq1", key)


def _retest(change: Callable[[dict], None], *names: str) -> Damage:
    def apply(folder: Path) -> None:
        with h5py.File(folder / _TEST, "r") as file:
            contents = {key: file[key][()] for key in file}
        change(contents)
        write_v73(folder / _TEST, contents)

    return Damage(apply, ("annot_data.mat", *names))


def _recalibrate(change: Callable[[str], str], *names: str) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / _CAMERA
        path.write_text(change(path.read_text()))

    return Damage(apply, ("camera.calibration", *names))


def _put(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    def edit(contents: dict) -> None:
        contents[key] = change(contents[key])

    return edit


def _drop(key: str) -> Callable[[dict], None]:
    return lambda contents: contents.pop(key)


def _nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[(1, *(0,) * (x.ndim - 1))] = np.nan
    return x


# For files that `write(folder)` wrote.
DAMAGES = {
    **{f"{kind} train": damage for kind, damage in people.file_damages(_TRAIN).items()},
    **{f"{kind} test": damage for kind, damage in people.file_damages(_TEST).items()},
    **{f"{kind} calibration": damage for kind, damage in people.file_damages(_CAMERA).items()},
    "no calibration": Damage(lambda folder: (folder / _CAMERA).unlink(), ("camera.calibration",)),
    "missing key annot2": _remat(_drop("annot2"), "annot2"),
    "missing key annot3": _remat(_drop("annot3"), "annot3"),
    "joint count annot3": _cell("annot3", lambda x: x[:, :81]),
    "joint count annot2": _cell("annot2", lambda x: x[:, :54]),
    "axis order annot3": _cell("annot3", lambda x: x.T),
    "nan annot3": _cell("annot3", _nan),
    "nan annot2": _cell("annot2", _nan),
    "fewer frames annot2": _cell("annot2", lambda x: x[:-2]),
    "missing camera": _remat(_put("annot2", lambda x: x[:13]), "annot2"),
    "text annot3": _cell("annot3", lambda x: np.array("84 numbers a row")),
    "calibration lacks a camera": _recalibrate(
        lambda text: text.replace("name          3\n", "name          33\n"), "3"
    ),
    "calibration lacks a matrix": _recalibrate(
        lambda text: "\n".join(line for line in text.split("\n") if "extrinsic" not in line),
        "extrinsic",
    ),
    "calibration of 12 numbers": _recalibrate(
        lambda text: text.replace(" 0 0 0 1 \n  extrinsic", " \n  extrinsic"), "intrinsic"
    ),
    "calibration has words": _recalibrate(
        lambda text: text.replace("extrinsic   ", "extrinsic   nil ", 1), "extrinsic"
    ),
    "test missing key annot3": _retest(_drop("annot3"), "annot3"),
    "test missing key valid_frame": _retest(_drop("valid_frame"), "valid_frame"),
    "test joint count": _retest(_put("annot3", lambda x: x[:, :, :16]), "annot3"),
    "test axis order": _retest(_put("annot3", lambda x: x.T), "annot3"),
    "test nan": _retest(_put("annot3", _nan), "annot3"),
    "test fewer frames": _retest(_put("annot2", lambda x: x[:-2]), "annot2"),
}
