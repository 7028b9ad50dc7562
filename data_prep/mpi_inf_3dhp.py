"""MPI-INF-3DHP: eight people in a studio of 14 cameras, and six test sequences of one camera.

    python -m data_prep.mpi_inf_3dhp --source DIR --output DIR
    python -m data_prep.mpi_inf_3dhp --source DIR --output DIR --cameras 0 2 4 7 8 --universal

DIR holds `S1/Seq1/annot.mat` and `S1/Seq1/camera.calibration` ... `S8/Seq2` and
`mpi_inf_3dhp_test_set/TS1/annot_data.mat` ... `TS6`, as the download scripts leave them; whatever
else it holds is ignored, and sequences that are not there are reported and skipped. One sequence is
in memory at a time: 0.8 GB in all.

The joints are the 17 that both splits have, named as in h36m17: head_top, head and neck of the
files are its head, neck and thorax. By default the cameras are 0 1 2 4 5 6 7 8, at chest and knee
height and two from above, which most papers train on (VNect); those at chest height alone are 0 2 4
7 8, all are 0 to 13. Test records have one view; the others are missing and repeat its camera.

Training sequences have 25 or 50 fps, as published; for the test set 25 is assumed. Test sequences
are cut where the activity changes; frames that are not `valid_frame` have no 3D labels, but 2D
where the files do. The world is that of the calibration, or of the test set's published cameras.

`--universal` takes the skeleton of one size for all (`univ_annot3`), which papers report, with its
pelvis where the person's is; the 2D are then its joints as the cameras see them, not the annotated
ones.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from data_prep import mpi_inf_3dhp_files as files
from data_prep import prepare, rigs
from data_prep.proof import Proof
from pose3d_jax.cameras import Camera
from pose3d_jax.schema import Identity, Record
from pose3d_jax.sources import SourceError

NAME = "mpi_inf_3dhp"
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
# Frames per second, and of how many annotated frames there are images.
SEQUENCES = {
    "S1/Seq1": (25, 6416), "S1/Seq2": (50, 12430), "S2/Seq1": (25, 6502), "S2/Seq2": (25, 6081),
    "S3/Seq1": (50, 12488), "S3/Seq2": (50, 12283), "S4/Seq1": (25, 6171), "S4/Seq2": (25, 6675),
    "S5/Seq1": (50, 12820), "S5/Seq2": (50, 12312), "S6/Seq1": (25, 6188), "S6/Seq2": (25, 6145),
    "S7/Seq1": (25, 6239), "S7/Seq2": (25, 6320), "S8/Seq1": (25, 6468), "S8/Seq2": (25, 6054),
}  # fmt: skip
TESTS = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
TEST_FPS = 25
ACTIVITIES = (
    "Stand_Walk", "Exercise", "Sit_on_Chair", "Crouch_Reach", "On_the_Floor", "Sports", "Misc",
)  # fmt: skip
CITATION = (
    "Mehta, Rhodin, Casas, Fua, Sotnychenko, Xu, Theobalt: Monocular 3D Human Pose Estimation In "
    "The Wild Using Improved CNN Supervision. 3DV 2017."
)
TERMS = "For research only, not for commercial use."
_AGREE = 0.01  # metres; the same joint through two cameras is nearer than this


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`.

    Raises `SourceError` where it holds no sequence, or a file is not what it should be.
    """
    if len(set(args.cameras)) != len(args.cameras):
        raise SourceError(f"--cameras {args.cameras}: names a camera twice; name each once")
    source, test_set = args.source, "mpi_inf_3dhp_test_set"
    train = _present((source, source / NAME), SEQUENCES, "annot.mat", proof)
    folders = (source / test_set, source / test_set / test_set, source / NAME / test_set, source)
    tests = _present(folders, TESTS, "annot_data.mat", proof)
    if not train and not tests:
        raise SourceError(
            f"{source}: has no S1/Seq1/annot.mat, ... and no mpi_inf_3dhp_test_set/TS1/"
            f"annot_data.mat, ...; give the folder that holds them"
        )
    splits = {}
    if train:
        splits["train"] = _train(train, args.cameras, args.universal)
    if tests:
        splits["test"] = _test(tests, len(args.cameras), args.universal, proof)
    return prepare.Dataset(
        NAME,
        splits,
        f"MPI-INF-3DHP: 17 joints{' of universal size' if args.universal else ''}; cameras "
        f"{', '.join(map(str, args.cameras))}, one in the test set.",
        CITATION,
        TERMS,
    )


def _present(
    folders: Sequence[Path], names: Iterable[str], file: str, proof: Proof
) -> dict[str, Path]:
    """The sequences that are in one of the folders, and their files."""
    found = {}
    for name in names:
        paths = [folder / name / file for folder in folders if (folder / name / file).is_file()]
        if paths:
            found[name] = paths[0]
        else:
            proof.skip(name, f"there is no {folders[0] / name / file}")
    return found


def _train(paths: dict[str, Path], numbers: Sequence[int], universal: bool) -> Iterator[Record]:
    names = tuple(f"camera{number}" for number in numbers)
    for name, path in paths.items():
        fps, images = SEQUENCES[name]
        cameras = files.calibrated(path.with_name("camera.calibration"), numbers)
        points, annot3, univ = (x[:, :images] for x in files.train_arrays(path, numbers))
        joints = _world(annot3, cameras, path, numbers)
        if universal:
            joints = _standing(univ[0], joints, cameras.rotation[0])
            points = _film(joints, cameras)
        subject, sequence = name.split("/")
        clip = f"{subject}_{sequence}"
        identity = _identity(subject, sequence, clip, names, "train", fps, universal)
        yield prepare.record(identity, _single(cameras), joints, keypoints=points.swapaxes(0, 1))


def _world(seen: np.ndarray, cameras: Camera, path: Path, numbers: Sequence[int]) -> np.ndarray:
    """World joints `[T, 17, 3]` of camera-frame ones `[V, T, 17, 3]`, on which all must agree."""
    poses = zip(seen, cameras.translation, cameras.rotation, strict=True)
    found = [(joints - translation) @ rotation for joints, translation, rotation in poses]
    for number, other in zip(numbers, found, strict=True):
        apart = np.abs(other - found[0]).max(initial=0)
        if apart > _AGREE:
            raise SourceError(
                f"{path}, key annot3: cameras {numbers[0]} and {number} put a joint {apart:.3g} m "
                f"apart through camera.calibration; both must be this sequence's, in mm: fetch "
                f"them again"
            )
    return found[0]


def _standing(universal: np.ndarray, joints: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Universal joints, camera frame, turned into the world with their pelvis at the person's."""
    return joints[:, :1] + (universal - universal[:, :1]) @ rotation


def _test(paths: dict[str, Path], views: int, universal: bool, proof: Proof) -> Iterator[Record]:
    names = ("camera", *(f"missing{i}" for i in range(1, views)))
    first = np.arange(views)[:, None] == 0
    for name, path in paths.items():
        cameras = files.stack([files.of_test(name)] * views)
        annot2, annot3, univ, valid, activity = files.test_arrays(path)
        joints, points = (annot3 - cameras.translation[0]) @ cameras.rotation[0], annot2
        seen = np.isfinite(annot2).all(-1) & (annot2 != 0).any(-1)
        if universal:
            joints = _standing(univ, joints, cameras.rotation[0])
            points = _film(joints, cameras)[0]
        for run in np.split(np.arange(len(valid)), np.flatnonzero(np.diff(activity)) + 1):
            start = int(run[0])
            if not valid[run].any():
                proof.skip(f"{name}, frames {start} to {run[-1]}", "none is valid")
                continue
            action = ACTIVITIES[activity[start]]
            clip = f"{name}_{start}"
            identity = _identity(name, action, clip, names, "test", TEST_FPS, universal, start)
            yield prepare.record(
                identity,
                _single(cameras),
                joints[run],
                joints_valid=np.tile(valid[run, None], (1, 17)),
                keypoints=np.repeat(points[run, None], views, axis=1),
                confidence=seen[run, None] * first,
            )


def _film(joints: np.ndarray, cameras: Camera) -> np.ndarray:
    """Pixels `[V, T, 17, 2]`."""
    return rigs.film(joints, _single(cameras)).keypoints.swapaxes(0, 1)


def _single(cameras: Camera) -> Camera:
    return jax.tree.map(lambda x: x.astype(np.float32), cameras)


def _identity(
    subject: str,
    action: str,
    clip: str,
    names: tuple[str, ...],
    split: str,
    fps: float,
    universal: bool,
    start: int = 0,
) -> Identity:
    return Identity(
        dataset=NAME,
        subject=subject,
        action=action,
        clip=clip,
        recording=subject if split == "test" else clip,
        camera_names=names,
        start=start,
        group=action,
        split=split,
        fps=float(fps),
        keypoint_skeleton="h36m17",
        joint_skeleton="h36m17",
        keypoint_source="projected" if universal else "annotation",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog=f"python -m data_prep.{NAME}")
    parser.add_argument(
        "--cameras", nargs="+", type=int, default=CAMERAS, help="numbers of the studio's cameras"
    )
    parser.add_argument(
        "--universal", action="store_true", help="joints of universal size (univ_annot3)"
    )
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
