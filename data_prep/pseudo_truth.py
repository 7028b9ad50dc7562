"""2D pseudo-truth: what OpenPose found in videos, as clips of one person each.

    python -m data_prep.pseudo_truth --source DIR --output DIR [--name vlog] [--size 640 480]
        [--fps 25] [--test LIST] [--whole]

DIR holds folders of OpenPose's `*_keypoints.json`, a file for each frame: one for a video
(`VIDEO/`: people are followed from frame to frame), or one for each track in it (`VIDEO/TRACK/`, as
InstaVariety's and VLOG-people's tracks are kept; NBA's and others' alike). Images are of `--size`;
Penn Action's files say it themselves. With
`labels/0001.mat` beside folders `0001/`, Penn Action's: of the people in a video then only the one
that is annotated is kept. `LIST` is a text file with a video's name in each line: those are the
split `test`, all others `train`.

As published (Kanazawa et al., "Learning 3D Human Dynamics from Video", CVPR 2019, section 4 and its
code): a clip begins where more than 6 keypoints are seen and ends where no more than 4 are (medians
of 5 frames), it has 40 to 500 frames (longer ones are cut;
published: their first 500), and it is left out where 40 % of its frames show no more than
head and shoulders. Keypoints are in a crop of 224 pixels that follows the person, smoothed, 150
pixels tall; the cameras are those of the crop, of an assumed one whose focal length is the longer
side of the image. With `--whole` keypoints and cameras stay those of the images: rays are the same,
and `data_prep.features` finds people in the frames by them. A clip's recording is its video. There
is no 3D. Jitter is for training to add: see `methods/dynamics.py`.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.signal import medfilt

from data_prep import penn_action, prepare
from data_prep.proof import Proof
from pose3d_jax import skeleton, tracking
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.errors import UserError
from pose3d_jax.formats import keypoints
from pose3d_jax.schema import Identity, Record
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.sources import SourceError
from pose3d_jax.tracking import Track

Array = np.ndarray
CITATION = "Kanazawa et al.: Learning 3D Human Dynamics from Video. CVPR 2019."
TERMS = "Those of the videos."
CROP, PERSON = 224, 150.0  # pixels
BEGIN, END = 6, 4  # more keypoints than; no more than
LEAST, MOST = 40, 500  # frames
_FACE_ONLY = 0.4  # share of the frames
_UPPER = ("shoulder", "neck", "head", "nose", "eye", "ear")


def cleaned(track: Track, joints: Skeleton) -> list[Track]:
    """The parts of a track that are worth to learn from: see the module's docstring."""
    seen = track.keypoints[..., 2] > 0
    count = medfilt(seen.sum(axis=1).astype(float), 5)
    below = [i for i, name in enumerate(joints.joints) if not any(u in name for u in _UPPER)]
    found, frame = [], 0
    while frame < track.frames:
        if count[frame] <= BEGIN:
            frame += 1
            continue
        stop = frame
        while stop < track.frames and count[stop] > END and stop - frame < MOST:
            stop += 1
        body = seen[frame:stop, below].any(axis=1)
        if stop - frame >= LEAST and (~body).mean() < _FACE_ONLY:
            found.append(Track(track.start + frame, track.keypoints[frame:stop]))
        frame = stop
    return found


def cropped(
    track: Track, size: tuple[float, ...]
) -> tuple[Float[Array, "frames joints 3"], Camera]:
    """A track's keypoints in the crop that follows it, and the crop's cameras `[frames, 1]`."""
    middle, height = tracking.boxes(track)
    points, scale = tracking.crop(track.keypoints, middle, height, size=CROP, person=PERSON)
    frames = len(points)
    centre = (np.array(size) - 1) / 2
    moved = (centre - middle) * scale[:, None] + (CROP - 1) / 2

    def full(value: Array) -> Array:
        return np.broadcast_to(value, (frames, 1, *np.shape(value))).astype(np.float32)

    return points, Camera(
        rotation=full(penn_action.UPRIGHT),
        translation=full(np.zeros(3)),
        focal=(max(size) * scale)[:, None, None].repeat(2, axis=-1).astype(np.float32),
        center=moved[:, None].astype(np.float32),
        distortion=full(np.zeros(5)),
        tangential=np.full((frames, 1), TANGENTIAL["opencv"], np.float32),
        size=full(np.array([CROP, CROP])),
    )


def annotated(
    about: penn_action.Annotation, found: Sequence[Track], joints: Skeleton
) -> list[Track]:
    """The track of whom Penn Action's file annotates: whose joints are nearest on the whole.

    Nobody where no track is within half of a person's height of them.
    """
    points, seen = about.keypoints, about.seen
    names = skeleton.get("penn13").joints

    def away(track: Track) -> float:
        both = [(i, joints.joints.index(n)) for i, n in enumerate(names) if n in joints.joints]
        here, there = (list(x) for x in zip(*both, strict=True))
        frames = np.arange(track.start, min(track.start + track.frames, len(points)))
        own = track.keypoints[: len(frames), there]
        known = seen[frames][:, here] & (own[..., 2] > 0)
        if not known.any():
            return np.inf
        off = np.linalg.norm(own[..., :2] - points[frames][:, here], axis=-1)
        return float((off * known).sum() / known.sum() / np.median(tracking.boxes(track)[1]))

    scored = [(away(t), t) for t in found]
    best = min(scored, key=lambda pair: pair[0], default=(np.inf, None))
    return [best[1]] if best[1] is not None and best[0] < 0.5 else []


def folders(source: Path) -> dict[str, Path]:
    """Every folder that holds JSON files, by its path in the source."""
    found = {
        str(path.relative_to(source)): path
        for path in sorted({file.parent for file in source.rglob("*.json")})
    }
    if not found:
        raise SourceError(
            f"{source}: holds no folder of *_keypoints.json; give what OpenPose wrote"
        )
    return found


def read(args: argparse.Namespace, proof: Proof) -> prepare.Dataset:
    """The data set in `args.source`. Raises `SourceError` where there is nothing to read."""
    there = folders(args.source)
    try:
        named = args.test.read_text().split() if args.test else []
    except OSError as error:
        raise UserError(f"{args.test}: cannot be read ({error.strerror}); give a text file") from (
            error
        )
    unknown = sorted(set(named) - {name.partition("/")[0] for name in there})
    if unknown:
        raise UserError(f"{args.test}: {', '.join(unknown[:5])} are not in {args.source}")
    splits: dict[str, dict[str, Path]] = {"train": {}, "test": {}}
    for name, path in there.items():
        splits["test" if name.partition("/")[0] in named else "train"][name] = path
    return prepare.Dataset(
        args.name,
        {s: _records(some, s, args, proof) for s, some in splits.items() if some},
        f"{args.name}: people whom OpenPose saw in videos; cameras are assumed ones.",
        CITATION,
        TERMS,
    )


def _records(
    there: Mapping[str, Path], split: str, args: argparse.Namespace, proof: Proof
) -> Iterator[Record]:
    for name, path in there.items():
        seen = keypoints.openpose(path)
        frames, joints = seen.people, seen.skeleton
        # A track's folder in a video's holds one person; a video's may hold several, one by one.
        alone = "/" in name and all(len(people) <= 1 for people in frames)
        found = [_one(frames)] if alone else tracking.tracks(frames)
        label, size = args.source / "labels" / f"{name}.mat", tuple(args.size)
        if label.exists():
            about = penn_action.annotation(label)
            found, size = annotated(about, found, joints), about.size
        kept = [part for track in found for part in cleaned(track, joints)]
        if not kept:
            proof.skip(name, "nobody is seen for long enough")
        for number, track in enumerate(kept):
            clip = f"{name}_{number}".replace("/", "_")
            video = name.partition("/")[0]
            yield _record(clip, video, track, joints, split, seen.first, size, args)


def _one(frames: Sequence[Array]) -> Track:
    """The track of the only person there is."""
    empty = np.zeros((1, *frames[0].shape[1:]))
    return Track(0, np.concatenate([people if len(people) else empty for people in frames]))


def _record(
    clip: str,
    video: str,
    track: Track,
    joints: Skeleton,
    split: str,
    first: int,
    size: tuple[float, ...],
    args: argparse.Namespace,
) -> Record:
    if args.whole:
        points, cameras = track.keypoints, penn_action.assumed(*size)
    else:
        points, cameras = cropped(track, size)
    identity = Identity(
        dataset=args.name,
        subject="unknown",
        action="unknown",
        clip=clip,
        recording=video,
        camera_names=("assumed",),
        start=first + track.start,
        group=args.name,
        split=split,
        fps=args.fps,
        keypoint_skeleton=joints.name,
        joint_skeleton=joints.name,
        keypoint_source="openpose",
    )
    none = np.zeros((track.frames, joints.size))
    return prepare.record(
        identity,
        cameras,
        np.zeros((*none.shape, 3)),
        joints_valid=none,
        keypoints=points[:, None, :, :2],
        confidence=points[:, None, :, 2],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.pseudo_truth")
    parser.add_argument("--name", default="pseudo_truth", help="of the data set")
    parser.add_argument(
        "--size", type=float, nargs=2, default=(640.0, 480.0), metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--whole", action="store_true", help="keypoints in the image, not a crop")
    parser.add_argument("--test", type=Path, help="text file: a test video's name in each line")
    prepare.main(parser, read, arguments)


if __name__ == "__main__":
    main()
