"""Human3.6M: seven subjects, fifteen actions twice, four cameras at 50 fps.

    python -m data_prep.h36m --source DIR --output DIR

DIR holds one of these, in itself or at any depth; where several are there, `--form` chooses:

    npz   data_3d_h36m.npz, and any data_2d_h36m_NAME.npz
    cdf   S1/MyPoseFeatures/D3_Positions/Directions 1.cdf, ... (Poses_D3_Positions_S1.tgz, ... of
          the site, extracted), and any S1/MyPoseFeatures/D2_Positions/Directions 1.54138969.cdf
    h5    S1/MyPoses/3D_positions/Directions 1.h5, ... (the archive of the 2017 baseline), and
          S1/StackedHourglass/Directions_1.54138969.h5, ...

The 2D points are those of data_2d_h36m_gt.npz or D2_Positions where they are there, else the 3D
joints as the cameras see them; `--detections NAME` (of an npz file, or of a folder of HDF5 files)
takes others. Train is S1, S5, S6, S7, S8; test is S9, S11. With `--protocol hmmr` train is S1, S6,
S7, S8, validation S5 and test S9, S11 (Kanazawa et al., "Learning 3D Human Dynamics from Video",
CVPR 2019). All frames are kept; methods read them at its 25 a second where `data.fps` says so.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from data_prep import pose_files, prepare, rigs
from data_prep.pose_files import Detections, Key, Poses, Reader
from data_prep.proof import Proof
from pose3d_jax import sources
from pose3d_jax.schema import Identity, Record
from pose3d_jax.sources import SourceError

NAME = "h36m"
RIG = "human36m"
FPS = 50.0
PROTOCOLS = {
    "standard": {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")},
    "hmmr": {"train": ("S1", "S6", "S7", "S8"), "validation": ("S5",), "test": ("S9", "S11")},
}
SUBJECTS = tuple(subject for subjects in PROTOCOLS["standard"].values() for subject in subjects)
ACTIONS = (
    "Directions",
    "Discussion",
    "Eating",
    "Greeting",
    "Phoning",
    "Photo",
    "Posing",
    "Purchases",
    "Sitting",
    "SittingDown",
    "Smoking",
    "Waiting",
    "WalkDog",
    "Walking",
    "WalkTogether",
)
REPORT_ACTIONS = ("Walking", "Greeting", "Smoking", "Sitting")
REPORT_CAMERAS = 3
TERMS = "For academic research by registered users; not to be passed on (vision.imar.ro/human3.6m)."
CITATION = (
    "C. Ionescu, D. Papava, V. Olaru, C. Sminchisescu: Human3.6M: Large Scale Datasets and "
    "Predictive Methods for 3D Human Sensing in Natural Environments. IEEE TPAMI 36 (7), 2014."
)

_TRIALS = 2  # of each subject and action
_CORRUPT = {("S11", "Directions", ""): "one of its videos is corrupt; published protocols omit it"}
_D3 = ("D3_Positions", "Poses_D3_Positions")  # not ..._mono: those are in camera coordinates
_PACKED = re.compile(r"Poses_D3_Positions_S\d+\.tgz|h36m\.zip")
_D2 = ("D2_Positions", "Poses_D2_Positions")


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`; a sequence is read when its record is asked for.

    Raises `SourceError`, now or then, for what is missing or damaged. Absent sequences and views
    are reported to the proof.
    """
    actions = REPORT_ACTIONS if args.subset else ACTIONS if "all" in args.actions else args.actions
    _, names = rigs.load_rig(RIG, SUBJECTS[0])
    cameras = names[:REPORT_CAMERAS] if args.subset else names
    files = pose_files.find(args.source, ".npz", ".cdf", ".h5", ".tgz", ".zip")
    form, poses = _poses(files, args, proof)
    detections = _detections(files, form, args, names, proof)
    source = detections.source if detections else "projected"
    print(f"{args.source}: reading the form {form}, 2D points: {source}", flush=True)
    _report_absent(poses, actions, proof)
    wanted = sorted(key for key in poses.keys() - _CORRUPT.keys() if key[1] in actions)
    splits = {
        split: _records(split, keys, poses, detections, cameras, proof)
        for split, subjects in PROTOCOLS[args.protocol].items()
        if (keys := [key for key in wanted if key[0] in subjects])
    }
    if not poses:
        what, why = proof.skipped[0]
        raise SourceError(
            f"{args.source}: has the form {form}, but no sequence of a known name: {what} {why}. "
            f"Convert it again, with subjects such as S1 and actions such as Walking 1"
        )
    if not splits:
        raise SourceError(
            f"{args.source}: none of its {len(poses)} sequences is of the actions asked for "
            f"({', '.join(actions)}); ask for others, or fetch the rest"
        )
    return prepare.Dataset(
        NAME,
        splits,
        f"Human3.6M, {', '.join(actions)}; cameras {', '.join(cameras)}; 2D points: {source}; "
        f"splits: {args.protocol}",
        CITATION,
        TERMS,
    )


def _poses(files: Sequence[Path], args: argparse.Namespace, proof: Proof) -> tuple[str, Poses]:
    """The form that is read, and the 3D sequences in it."""
    npz = [path for path in files if path.name == "data_3d_h36m.npz"]
    cdf = [path for path in files if path.suffix == ".cdf" and path.parent.name in _D3]
    h5 = [path for path in files if path.suffix == ".h5" and path.parent.name == "3D_positions"]
    forms = [form for form, found in (("npz", npz), ("cdf", cdf), ("h5", h5)) if found]
    form = args.form or next(iter(forms), None)
    if form not in forms:
        raise SourceError(_not_there(args, files, forms))
    if len(forms) > 1 and not args.form:
        print(f"{args.source}: holds {' and '.join(forms)}; --form chooses", flush=True)
    if form == "npz":
        return form, _by_key(_npz_poses(pose_files.first(npz, proof)), proof)
    paths, read_file = (cdf, pose_files.cdf_pose) if form == "cdf" else (h5, pose_files.h5_pose)
    found = ((pose_files.subject(p), p.stem, str(p), partial(read_file, p)) for p in paths)
    return form, _by_key(found, proof)


def _not_there(args: argparse.Namespace, files: Sequence[Path], forms: Sequence[str]) -> str:
    if forms:
        return f"{args.source}: has the form {', '.join(forms)}, not {args.form}; leave --form out"
    packed = [path.name for path in files if _PACKED.fullmatch(path.name)]
    remedy = f"extract {packed[0]} first" if packed else "give the folder that holds one of them"
    return (
        f"{args.source}: found neither data_3d_h36m.npz nor S1/MyPoseFeatures/D3_Positions/*.cdf "
        f"nor S1/MyPoses/3D_positions/*.h5 (D3_Positions_mono, in camera coordinates, is not "
        f"read); {remedy}"
    )


def _npz_poses(path: Path) -> Iterator[tuple[str, str, str, Reader]]:
    members = sources.load_npz(path, "positions_3d")
    joints = None  # as many in all sequences as in the first
    for subject, name, value in pose_files.sequences(members, "positions_3d", path):
        where = f"{path}, positions_3d, {subject}, {name}"
        joints = joints or (17 if getattr(value, "shape", ())[1:2] == (17,) else 32)
        yield subject, name, where, partial(pose_files.npz_pose, value, joints, where)


def _by_key(found: Iterable[tuple[str | None, str, str, Reader]], proof: Proof) -> Poses:
    """Sequences by key, of subject, name, where it stands, and how it is read."""
    poses: Poses = {}
    for subject, name, where, reader in found:
        parts = pose_files.sequence(name)
        if subject not in SUBJECTS or parts is None or parts[0] not in ACTIONS:
            proof.skip(where, "is of none of the seven subjects and fifteen actions")
        elif (key := (subject, *parts)) in poses:
            proof.skip(where, f"is a second copy of {_clip(key)}")
        else:
            poses[key] = reader
    return poses


def _detections(
    files: Sequence[Path], form: str, args: argparse.Namespace, names: Sequence[str], proof: Proof
) -> Detections | None:
    """The 2D points asked for; by default `gt` of the form that is read; None: projected."""
    found: dict[str, Callable[[], Detections]] = {
        name: partial(_npz_detections, name, path, names)
        for name, path in pose_files.npz_detections(files, NAME, proof).items()
    }
    d2 = [path for path in files if path.suffix == ".cdf" and path.parent.name in _D2]
    if d2 and form == "cdf":
        read_file = pose_files.cdf_keypoints
        found["gt"] = partial(_file_detections, "gt", "h36m17", d2, read_file, names)
    h5 = [path for path in files if path.suffix == ".h5" and path.stem.rpartition(".")[2] in names]
    for folder in sorted({path.parent.name for path in h5}):
        inside = [path for path in h5 if path.parent.name == folder]
        read_file = pose_files.h5_keypoints
        found[folder] = partial(_file_detections, folder, "mpii16", inside, read_file, names)
    default = "gt" if "gt" in found and (form == "npz" or d2) else "projected"
    wanted = args.detections or default
    if wanted == "projected":
        return None
    if wanted not in found:
        raise SourceError(
            f"{args.source}: has no 2D points {wanted!r}; there are "
            f"{', '.join([*found, 'projected'])}. Give one of them with --detections"
        )
    return found[wanted]()


def _npz_detections(source: str, path: Path, names: Sequence[str]) -> Detections:
    members = sources.load_npz(path, "positions_2d", "metadata")
    layout, joints = pose_files.layout(members, path)
    found: dict[Key, dict[str, Reader]] = {}
    for subject, name, value in pose_files.sequences(members, "positions_2d", path):
        parts = pose_files.sequence(name)
        if subject in SUBJECTS and parts and (subject, *parts) not in found:
            where = f"{path}, positions_2d, {subject}, {name}"
            found[(subject, *parts)] = pose_files.views(value, names, joints, where)
    return Detections(source, layout, found)


def _file_detections(
    source: str,
    layout: str,
    files: Sequence[Path],
    read_file: Callable[[Path], np.ndarray],
    names: Sequence[str],
) -> Detections:
    found: dict[Key, dict[str, Reader]] = {}
    for path in files:
        name, _, camera = path.stem.rpartition(".")
        subject, parts = pose_files.subject(path), pose_files.sequence(name)
        if subject and parts and camera in names:
            there = found.setdefault((subject, *parts), {})
            there.setdefault(camera, partial(read_file, path))
    return Detections(source, layout, found)


def _report_absent(poses: Poses, actions: Sequence[str], proof: Proof) -> None:
    there = {*poses, *_CORRUPT}
    for subject in SUBJECTS:
        if not any(key[0] == subject for key in poses):
            proof.skip(subject, "none of its sequences is there")
            continue
        found = {action: sum(key[:2] == (subject, action) for key in there) for action in actions}
        missing = [f"{_TRIALS - n} of {action}" for action, n in found.items() if n < _TRIALS]
        if missing:
            proof.skip(subject, f"trials that are not there: {', '.join(missing)}")
    for key, why in _CORRUPT.items():
        if key[1] in actions and any(key[0] == other[0] for other in poses):
            proof.skip(_clip(key), why)


def _records(
    split: str,
    keys: Sequence[Key],
    poses: Poses,
    detections: Detections | None,
    names: tuple[str, ...],
    proof: Proof,
) -> Iterator[Record]:
    for key in keys:
        subject, action, _ = key
        cameras, _ = rigs.load_rig(RIG, subject, names)
        joints = poses[key]()
        keypoints = confidence = None
        if detections:
            views = detections.views.get(key, {})
            seen = pose_files.seen(views, names, len(joints), _clip(key), proof)
            if seen is None:
                continue
            keypoints, confidence = seen
        identity = Identity(
            dataset=NAME,
            subject=subject,
            action=action,
            clip=_clip(key),
            recording=f"{NAME}_{subject}",
            camera_names=names,
            start=0,
            group=action,
            split=split,
            fps=FPS,
            keypoint_skeleton=detections.skeleton if detections else "h36m17",
            joint_skeleton="h36m17",
            keypoint_source=detections.source if detections else "projected",
        )
        yield prepare.record(identity, cameras, joints, keypoints=keypoints, confidence=confidence)


def _clip(key: Key) -> str:
    return "_".join(part for part in key if part)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.h36m", description=CITATION)
    parser.add_argument("--form", choices=("npz", "cdf", "h5"), help="where several are there")
    parser.add_argument("--detections", metavar="NAME", help="2D points, or `projected`")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="standard", help="of the splits")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--subset", choices=("report",), help=f"{REPORT_ACTIONS}; three cameras")
    chosen.add_argument("--actions", nargs="+", choices=(*ACTIONS, "all"), default=["all"])
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
