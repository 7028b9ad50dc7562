"""Human3.6M in the three forms in which people hold it.

Published by una-dinosauria/3d-pose-baseline (`README.md`, `src/data_utils.py`, `src/cameras.py`),
facebookresearch/VideoPose3D (`DATASETS.md`, `data/prepare_data_h36m.py`,
`data/prepare_data_2d_h36m_sh.py`, `data/data_utils.py`, `common/h36m_dataset.py`) and
anibali/h36m-fetch (`extract_all.py`, `process_all.py`).

Everywhere: subjects S1 S5 S6 S7 S8 S9 S11, 15 actions, two trials of each, 50 frames a second,
32 joints in the world, z up. Trials are numbered unevenly: see `trials`. The official files call
two actions of S1 `TakingPhoto` and `WalkingDog`; all others, and both other forms, say `Photo` and
`WalkDog`. Of the 32 joints, 17 move by themselves (`MOVING`); the others repeat one of these or are
toes, thumbs and finger tips. 2D is pixels, projected by Human3.6M's own lens model.

- `cdf`, the official archives. `Poses_D3_Positions_S1.tgz` unpacks to
  `S1/MyPoseFeatures/D3_Positions/Walking 1.cdf`, `Poses_D2_Positions_S1.tgz` to
  `S1/MyPoseFeatures/D2_Positions/Walking 1.54138969.cdf`; h36m-fetch unpacks the same files to
  `S1/Poses_D3_Positions/` and `S1/Poses_D2_Positions/`. One variable, `Pose`, CDF_FLOAT, one record
  [T, 96] of millimetres or [T, 64] of pixels, so that cdflib gives [1, T, 96]. Beside them lie
  `D3_Positions_mono` (a camera's frame) and `D3_Positions_mono_universal` (of another size too).
- `hdf5`, the archive of the 2017 baseline, `h36m.zip`. `h36m/S1/MyPoses/3D_positions/Walking 1.h5`:
  `3D_positions`, float64 [96, T], millimetres. `h36m/S1/StackedHourglass/Walking_1.54138969.h5`
  (of the fine-tuned detector: `S1/StackedHourglassFineTuned240/...`): `poses`, [T', 16, 2], MPII
  order, with an underscore in the name and now and then more frames than the 3D. `h36m/cameras.h5`.
- `npz`, VideoPose3D's. `data_3d_h36m.npz`: `positions_3d`, {subject: {action: float32 [T, 32, 3]}},
  metres. `data_2d_h36m_gt.npz` and those of detectors (`cpn_ft_h36m_dbb`, `detectron_ft_h36m`,
  `sh_pt_mpii`, `sh_ft_h36m`): `positions_2d`, {subject: {action: [4 x float32 [T', 17, 2]]}}, in
  the order of `CAMERAS`, 16 joints if `sh`, and `metadata`. That of `gt` and of `sh` has no
  `layout_name`. Detectors' files have S2, S3 and S4 too, which have no 3D.

`Directions` of S11 is left out everywhere: one of its videos is broken. The archives have its 3D,
but one of the detector's four files is missing.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import cdflib
import h5py
import numpy as np
from cdflib.cdfwrite import CDF

from tests.layouts import people
from tests.layouts.people import Clip, Damage, Truth

FPS = 50.0
TRAIN, TEST = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
CAMERAS = ("54138969", "55011271", "58860488", "60457274")
ACTIONS = people.words(
    "Directions Discussion Eating Greeting Phoning Photo Posing Purchases Sitting SittingDown "
    "Smoking Waiting WalkDog Walking WalkTogether"
)
MOVING = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)

# Numbers of the two trials where they are not "" and "1" (the baseline's archive, as listed by
# MatteoT90/WibergianLearning, HumanPose/set.sh).
_TRIALS = {
    "S1": {"Eating": ("", "2"), "Sitting": ("1", "2"), "SittingDown": ("", "2")},
    "S5": {
        "Directions": ("1", "2"),
        "Discussion": ("2", "3"),
        "Greeting": ("1", "2"),
        "Photo": ("", "2"),
        "Waiting": ("1", "2"),
    },
    "S6": {
        "Eating": ("1", "2"),
        "Posing": ("", "2"),
        "Sitting": ("1", "2"),
        "Waiting": ("", "3"),
    },
    "S7": {"Phoning": ("", "2"), "Waiting": ("1", "2"), "Walking": ("1", "2")},
    "S8": {"WalkTogether": ("1", "2")},
    "S9": {"Discussion": ("1", "2")},
    "S11": {
        "Discussion": ("1", "2"),
        "Greeting": ("", "2"),
        "Phoning": ("2", "3"),
        "Smoking": ("", "2"),
    },
}
_OFFICIAL_S1 = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog"}
_HOURGLASS = {"sh_pt_mpii": "StackedHourglass", "sh_ft_h36m": "StackedHourglassFineTuned240"}
_SYMMETRY = {
    17: [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    16: [[3, 4, 5, 13, 14, 15], [0, 1, 2, 10, 11, 12]],
}
_MOTION = {"Walking": "walk", "WalkDog": "walk", "WalkTogether": "walk", "Greeting": "box"}


def trials(subject: str, action: str) -> tuple[str, str]:
    """The names of both trials, such as ("Walking", "Walking 1")."""
    first, second = _TRIALS.get(subject, {}).get(action, ("", "1"))
    return f"{action} {first}".strip(), f"{action} {second}".strip()


def write(
    folder: Path,
    form: str,
    *,
    subjects: Sequence[str] = ("S1", "S5", "S9"),
    actions: Sequence[str] = ("Walking", "Greeting", "Sitting", "SittingDown", "Photo"),
    frames: int = 16,
    detections: Sequence[str] | None = None,
    noise: float = 2.0,
    extra_frames: int = 2,
    folders: str = "official",
    stray: bool = True,
    absent_3d: Sequence[tuple[str, str]] = (),
    absent_2d: Sequence[tuple[str, str]] = (),
    absent_views: Sequence[tuple[str, str, int]] = (),
    units: float = 1.0,
    offset: int = 0,
    cameras: Sequence[int] = (0, 1, 2, 3),
    mirrored: bool = False,
    lens: str = "h36m",
    seed: int = 0,
) -> Truth:
    """Writes the files, and says what is in them. Clips are keyed (subject, action with trial).

    Args:
      folder: where the files go; point a reader at it.
      form: `cdf`, `hdf5` or `npz`.
      subjects: such as `S1`.
      actions: both trials of each are written.
      frames: of the first trial of a sequence; the others have one frame more each.
      detections: sources of 2D, by their names in VideoPose3D; () for none. By default `gt` (of
        `cdf` and `npz`; the only one that `cdf` can have) or `sh_pt_mpii` (of `hdf5`, which can
        have the two of `sh`).
      noise: standard deviation of a detector's error, pixels.
      extra_frames: how many frames more detectors have than the 3D.
      folders: `official` or `fetch`, of `cdf`; `h36m` is the root within `hdf5` unless `bare`.
      stray: also files and keys that mean nothing to a reader.
      absent_3d: (subject, action with trial) whose 3D is missing.
      absent_2d: those whose 2D is missing; such a clip is in the truth, without keypoints.
      absent_views: (subject, action with trial, camera's place) of which a single file is missing
        (`cdf` and `hdf5` only); such a clip is not in the truth.
      units: factor on the 3D joints as the form has them.
      offset: by how many frames the 2D joints come too late.
      cameras: which camera's joints stand in the place of the first, the second, ...
      mirrored: left and right are exchanged in 2D.
      lens: see `people.project`.
      seed: of the movements.

    Joints of the truth are in metres (times `units`), those of `MOVING`.
    """
    rng = np.random.default_rng(seed)
    if detections is None:
        detections = ("sh_pt_mpii",) if form == "hdf5" else ("gt",)
    truth = Truth()
    sequences: dict = {}
    for subject in subjects:
        rig = people.rig("human36m", subject)
        for number, action in enumerate(actions):
            for trial, name in enumerate(trials(subject, action)):
                if (subject, name) == ("S11", "Directions"):
                    truth.absent[subject, name] = "one of its videos is broken"
                if (subject, name) in absent_3d:
                    truth.absent[subject, name] = "no 3D"
                if any((subject, name) == absent[:2] for absent in absent_views):
                    truth.absent[subject, name] = "one camera is missing"
                length = frames + number + trial
                kind = _MOTION.get(action, "free")
                body = people.motion(
                    kind, length + extra_frames, FPS, body=subject, seed=[seed, number, trial]
                )
                named = people.points(body)
                joints = joints32(named)[:length]
                stored = _round_trip(joints, form, units)
                shown = {}
                for source in detections:
                    x = people.film(_keypoints(named, source), rig, lens)[:, list(cameras)]
                    x = people.late(x, offset)
                    x = x[:length] if source == "gt" else x + rng.normal(0, noise, x.shape)
                    if mirrored:
                        x = x[:, :, people.mirror(_names(source))]
                    shown[source] = x.astype(np.float32)
                if (subject, name) in absent_2d:
                    shown = {}
                sequences[subject, name] = (stored, shown, people.film(joints, rig, lens))
                if (subject, name) in truth.absent:
                    continue
                truth.clips[subject, name] = Clip(
                    subject=subject,
                    action=name,
                    split="train" if subject in TRAIN else "test",
                    fps=FPS,
                    joints=_metres(stored, form)[:, MOVING],
                    joint_names=people.H36M17,
                    keypoints={source: x[:length] for source, x in shown.items()},
                    keypoint_names={source: _names(source) for source in shown},
                    cameras=CAMERAS,
                    more={"action": action},
                )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    no_3d = set(absent_3d)
    gaps = {("S11", "Directions", 0), *absent_views}
    if form == "cdf":
        _write_cdf(folder, sequences, no_3d, set(absent_views), folders, stray)
    elif form == "hdf5":
        root = folder if folders == "bare" else folder / "h36m"
        _write_hdf5(root, sequences, no_3d, gaps, stray)
    elif form == "npz":
        _write_npz(folder, sequences, no_3d, detections, stray)
    else:
        raise ValueError(form)
    if stray:
        people.stray(folder)
    return truth


def joints32(named: dict[str, np.ndarray]) -> np.ndarray:
    """All joints `[T, 32, 3]` of `people.points`; those that do not move repeat others."""
    order = people.words(
        "pelvis right_hip right_knee right_ankle right_foot right_toe "
        "left_hip left_knee left_ankle left_foot left_toe "
        "pelvis spine thorax neck head "
        "thorax left_shoulder left_elbow left_wrist left_wrist left_thumb left_fingers "
        "left_fingers "
        "thorax right_shoulder right_elbow right_wrist right_wrist right_thumb right_fingers "
        "right_fingers"
    )
    return people.choose(named, order)


def write_cdf(path: Path, data: np.ndarray, variable: str = "Pose") -> None:
    """A CDF with one CDF_FLOAT variable of one record `[T, C]`, in column order as by MATLAB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    x = np.asarray(data, np.float32)
    file = CDF(str(path), cdf_spec={"Majority": "column_major"})
    spec = {
        "Variable": variable,
        "Data_Type": CDF.CDF_FLOAT,
        "Num_Elements": 1,
        "Rec_Vary": True,
        "Dim_Sizes": list(x.shape),
    }
    # The writer takes the bytes as they come, the reader reads them in column order.
    file.write_var(spec, var_data=x.ravel(order="F").reshape(1, *x.shape))
    file.close()


def read_cdf(path: Path) -> np.ndarray:
    """`[1, T, C]`, as cdflib gives it."""
    return cdflib.CDF(str(path)).varget("Pose")


def _write_cdf(
    folder: Path, sequences: dict, no_3d: set, gaps: set, folders: str, stray: bool
) -> None:
    prefix = "MyPoseFeatures/" if folders == "official" else "Poses_"
    for (subject, name), (stored, shown, projected) in sequences.items():
        action, _, trial = name.partition(" ")
        if subject == "S1":
            action = _OFFICIAL_S1.get(action, action)
        file = f"{action} {trial}".strip()
        home = folder / subject
        if (subject, name) not in no_3d:
            write_cdf(home / f"{prefix}D3_Positions" / f"{file}.cdf", stored)
        if "gt" in shown:
            for view, camera in enumerate(CAMERAS):
                if (subject, name, view) in gaps:
                    continue
                # The official 2D has the 32 joints too; the moving ones are those of `shown`.
                x = projected[:, view].copy()
                x[:, MOVING] = shown["gt"][:, view]
                path = home / f"{prefix}D2_Positions" / f"{file}.{camera}.cdf"
                write_cdf(path, x.reshape(len(x), 64))
    if stray:
        subject, name = next(iter(sequences))
        stored = sequences[subject, name][0]
        for kind in ("D3_Positions_mono", "D3_Positions_mono_universal"):
            path = folder / subject / f"{prefix}{kind}" / f"{name}.{CAMERAS[0]}.cdf"
            write_cdf(path, stored * 0.9 + 5000)
        write_cdf(folder / subject / f"{prefix}D3_Angles" / f"{name}.cdf", np.zeros((9, 78)))
        (folder / subject / "Videos").mkdir(exist_ok=True)
        (folder / subject / "Videos" / f"{name}.{CAMERAS[0]}.mp4").write_bytes(b"\x00\x00ftyp")
        (folder / "metadata.xml").write_text("<H36M><w0>[]</w0></H36M>\n")
        (folder / "Poses_D3_Positions_S1.tgz").write_bytes(b"\x1f\x8b")


def _write_hdf5(folder: Path, sequences: dict, no_3d: set, gaps: set, stray: bool) -> None:
    for (subject, name), (stored, shown, _) in sequences.items():
        if (subject, name) not in no_3d:
            path = folder / subject / "MyPoses" / "3D_positions" / f"{name}.h5"
            _hdf5(path, {"3D_positions": stored.T})
        for source, x in shown.items():
            for view, camera in enumerate(CAMERAS):
                if (subject, name, view) in gaps:
                    continue
                file = f"{name.replace(' ', '_')}.{camera}.h5"
                path = folder / subject / _HOURGLASS[source] / file
                _hdf5(path, {"poses": x[:, view].astype(np.float64)})
    if stray:
        cameras = {}
        for subject in sorted({subject for subject, _ in sequences}):
            for number, camera in enumerate(people.rig("human36m", subject), 1):
                k1, k2, p1, p2, k3 = camera.distortion
                here = f"subject{subject[1:]}/camera{number}"
                values = {
                    "R": camera.R.T,  # MATLAB's axis order
                    "T": (-camera.R.T @ camera.t * 1000)[:, None],
                    "f": camera.focal[:, None],
                    "c": camera.center[:, None],
                    "k": np.array([[k1], [k2], [k3]]),
                    "p": np.array([[p1], [p2]]),
                    "Name": np.array([[ord(letter)] for letter in camera.name], np.uint16),
                }
                cameras |= {f"{here}/{key}": value for key, value in values.items()}
        _hdf5(folder / "cameras.h5", cameras)


def _write_npz(
    folder: Path, sequences: dict, no_3d: set, detections: Sequence[str], stray: bool
) -> None:
    positions_3d: dict = {subject: {} for subject, _ in sequences}
    positions_2d: dict = {
        source: {subject: {} for subject, _ in sequences} for source in detections
    }
    for (subject, name), (stored, shown, _) in sequences.items():
        if (subject, name) == ("S11", "Directions"):
            continue
        if (subject, name) not in no_3d:
            positions_3d[subject][name] = stored
        for source, x in shown.items():
            positions_2d[source][subject][name] = list(x.transpose(1, 0, 2, 3).copy())
    people.npz(folder / "data_3d_h36m.npz", positions_3d=positions_3d)
    for source, positions in positions_2d.items():
        count = len(_names(source))
        metadata = {"num_joints": count, "keypoints_symmetry": _SYMMETRY[count]}
        if source not in ("gt", *_HOURGLASS):
            metadata = {"layout_name": "h36m", **metadata}
            x = np.full((5, count, 2), 500, np.float32)
            positions |= {f"S{number}": {"Directions 1": [x] * 4} for number in (2, 3, 4)}
        path = folder / f"data_2d_h36m_{source}.npz"
        people.npz(path, positions_2d=positions, metadata=metadata)
    if stray:
        people.npz(folder / "data_2d_3dhp.npz", positions_2d={})
        people.npz(folder / "data_3d_humaneva15.npz", positions_3d={"Train/S1": {}})


def _round_trip(joints: np.ndarray, form: str, units: float) -> np.ndarray:
    """Joints `[T, 32, 3]` in metres as the form stores them."""
    if form == "npz":
        return (joints * units).astype(np.float32)
    stored = (joints * units * 1000).reshape(len(joints), 96)
    return stored.astype(np.float32) if form == "cdf" else stored


def _metres(stored: np.ndarray, form: str) -> np.ndarray:
    return stored if form == "npz" else stored.reshape(len(stored), 32, 3) / 1000


def _names(source: str) -> tuple[str, ...]:
    return people.MPII16 if source in _HOURGLASS else people.H36M17


def _keypoints(named: dict[str, np.ndarray], source: str) -> np.ndarray:
    return people.choose(named, _names(source))


def _hdf5(path: Path, values: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # In memory first: many small files, and HDF5 is slow to open and close them on disk.
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for key, value in values.items():
            file[key] = value
    path.write_bytes(stream.getvalue())


_CDF3, _CDF2 = (
    "S1/MyPoseFeatures/D3_Positions/Walking 1.cdf",
    ("S1/MyPoseFeatures/D2_Positions/Walking 1.55011271.cdf"),
)
_H3, _H2 = (
    "h36m/S1/MyPoses/3D_positions/Walking 1.h5",
    ("h36m/S1/StackedHourglass/Walking_1.55011271.h5"),
)
_N3, _N2 = "data_3d_h36m.npz", "data_2d_h36m_gt.npz"
_AT = ("S1", "Walking 1")


def _name(path: str) -> str:
    return Path(path).name


def _recdf(path: str, change: Callable, variable: str = "Pose", *more: str) -> Damage:
    def apply(folder: Path) -> None:
        write_cdf(folder / path, change(read_cdf(folder / path)[0]), variable)

    return Damage(apply, (_name(path), *more))


def _rehdf5(path: str, change: Callable, key: str, to: str = "", *more: str) -> Damage:
    def apply(folder: Path) -> None:
        with h5py.File(folder / path, "r") as file:
            value = file[key][()]
        _hdf5(folder / path, {to or key: change(value)})

    return Damage(apply, (_name(path), *(more or (key,))))


def _renpz(path: str, key: str, change: Callable, view: int | None = None) -> Damage:
    def edit(positions: dict) -> dict:
        subject, action = _AT
        actions = dict(positions[subject])
        if view is None:
            actions[action] = change(actions[action])
        else:
            actions[action] = list(actions[action])
            actions[action][view] = change(actions[action][view])
        return {**positions, subject: actions}

    return Damage(lambda folder: people.edit_npz(folder / path, **{key: edit}), (path, *_AT))


def _nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[(1, *(0,) * (x.ndim - 1))] = np.nan
    return x


def _same(x: np.ndarray) -> np.ndarray:
    return x


# By form, for files that `write(folder, form)` wrote.
DAMAGES = {
    "cdf": {
        **{f"{kind} 3d": damage for kind, damage in people.file_damages(_CDF3).items()},
        **{f"{kind} 2d": damage for kind, damage in people.file_damages(_CDF2).items()},
        "missing key 3d": _recdf(_CDF3, _same, "Angles", "Pose"),
        "missing key 2d": _recdf(_CDF2, _same, "Angles", "Pose"),
        "joint count 3d": _recdf(_CDF3, lambda x: x[:, :93]),
        "joint count 2d": _recdf(_CDF2, lambda x: x[:, :62]),
        "axis order 3d": _recdf(_CDF3, lambda x: x.T),
        "nan 3d": _recdf(_CDF3, _nan),
        "nan 2d": _recdf(_CDF2, _nan),
        "fewer frames 2d": _recdf(_CDF2, lambda x: x[:-3]),
        "nothing there": Damage(
            lambda folder: [path.unlink() for path in folder.rglob("*.cdf")], ("D3_Positions",)
        ),
    },
    "hdf5": {
        **{f"{kind} 3d": damage for kind, damage in people.file_damages(_H3).items()},
        **{f"{kind} 2d": damage for kind, damage in people.file_damages(_H2).items()},
        "missing key 3d": _rehdf5(_H3, _same, "3D_positions", "positions"),
        "missing key 2d": _rehdf5(_H2, _same, "poses", "preds"),
        "joint count 3d": _rehdf5(_H3, lambda x: x[:93], "3D_positions"),
        "joint count 2d": _rehdf5(_H2, lambda x: x[:, :15], "poses"),
        "axis order 3d": _rehdf5(_H3, lambda x: x.T, "3D_positions"),
        "axis order 2d": _rehdf5(_H2, lambda x: x.transpose(0, 2, 1), "poses"),
        "nan 3d": _rehdf5(_H3, _nan, "3D_positions"),
        "nan 2d": _rehdf5(_H2, _nan, "poses"),
        "text 3d": _rehdf5(_H3, lambda x: x.astype("S8"), "3D_positions"),
        "fewer frames 2d": _rehdf5(_H2, lambda x: x[:-9], "poses"),
        "nothing there": Damage(
            lambda folder: [path.unlink() for path in folder.rglob("3D_positions/*.h5")],
            ("3D_positions",),
        ),
    },
    "npz": {
        **{f"{kind} 3d": damage for kind, damage in people.file_damages(_N3).items()},
        **{f"{kind} 2d": damage for kind, damage in people.file_damages(_N2).items()},
        "missing key 3d": Damage(
            lambda folder: people.npz(folder / _N3, poses={"S1": {}}), (_N3, "positions_3d")
        ),
        "missing key 2d": Damage(
            lambda folder: people.edit_npz(folder / _N2, positions_2d=None), (_N2, "positions_2d")
        ),
        "missing metadata": Damage(
            lambda folder: people.edit_npz(folder / _N2, metadata=None), (_N2, "metadata")
        ),
        "metadata contradicts the arrays": Damage(
            lambda folder: people.edit_npz(
                folder / _N2, metadata=lambda old: {**old, "num_joints": 16}
            ),
            (_N2, "num_joints"),
        ),
        "not a dict": Damage(
            lambda folder: people.npz(folder / _N3, positions_3d=np.zeros((5, 32, 3), np.float32)),
            (_N3, "positions_3d"),
        ),
        **{
            f"{kind} 3d": damage
            for kind, damage in people.foreign_damages(_N3, "positions_3d").items()
        },
        **{
            f"{kind} 2d": damage
            for kind, damage in people.foreign_damages(_N2, "positions_2d").items()
        },
        "joint count 3d": _renpz(_N3, "positions_3d", lambda x: x[:, :17]),
        "axis order 3d": _renpz(_N3, "positions_3d", lambda x: x.transpose(0, 2, 1)),
        "nan 3d": _renpz(_N3, "positions_3d", _nan),
        "objects 3d": _renpz(_N3, "positions_3d", lambda x: x.astype(object)),
        "no frames 3d": _renpz(_N3, "positions_3d", lambda x: x[:0]),
        "joint count 2d": _renpz(_N2, "positions_2d", lambda x: x[:, :16], 2),
        "axis order 2d": _renpz(_N2, "positions_2d", lambda x: x.transpose(0, 2, 1), 2),
        "nan 2d": _renpz(_N2, "positions_2d", _nan, 2),
        "objects 2d": _renpz(_N2, "positions_2d", lambda x: x.astype(object), 2),
        "camera is None": _renpz(_N2, "positions_2d", lambda x: None, 2),
        "missing camera": _renpz(_N2, "positions_2d", lambda views: views[:3]),
        "fewer frames 2d": _renpz(_N2, "positions_2d", lambda x: x[:-3], 2),
    },
}
