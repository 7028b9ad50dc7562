"""Videos to keypoints: who is in every frame, as BlazePose sees them (the extra `video`).

    python -m pose3d_jax.detect --videos cam01.mp4 cam02.mp4 --output keypoints

Leaves an NPZ for each video, named like it, which `pose3d_jax.predict --keypoints keypoints` reads;
that command takes videos themselves, too. The networks' weights, MediaPipe's (Apache-2.0), come
with the package `mediapipe`, from which pip fetches them once, as data, to
`~/.cache/pose3d_jax/blazepose`; `--weights` names another folder with the two files.

Any other detector's output serves equally well: see `formats/keypoints.py`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pose3d_jax import skeleton, wheels, workdir
from pose3d_jax.errors import UserError
from pose3d_jax.formats import video
from pose3d_jax.formats.blazepose import FINDER, JOINTS, LANDMARKS, BlazePose, DetectorError
from pose3d_jax.formats.keypoints import Detections

_PACKAGE = "mediapipe==0.10.21"
_WEIGHTS = {
    f"mediapipe/modules/pose_detection/{FINDER}": (
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
    ),
    f"mediapipe/modules/pose_landmark/{LANDMARKS}": (
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
    ),
}


def weights(folder: Path | None = None) -> Path:
    """Where the networks are; without a folder, the cache, into which they are fetched once."""
    if folder is not None:
        return folder
    try:
        folder = Path("~/.cache/pose3d_jax/blazepose").expanduser()
    except RuntimeError as error:
        raise DetectorError("there is no home directory to keep networks in; give --weights") from (
            error
        )
    wheels.fetch(_PACKAGE, _WEIGHTS, folder)
    return folder


def view(path: Path, network: BlazePose) -> Detections:
    """Everybody in every frame of a video. Raises `VideoError` for one that cannot be decoded."""
    seen = video.Seen()
    frames = tqdm(seen.watch(video.frames(path)), desc=path.name, unit="frame", disable=None)
    people = tuple(network.follow(frames))
    return Detections(
        people,
        skeleton.get("blazepose33"),
        first=0,
        picture=seen.picture(),
        fps=video.fps_of(path),
    )


def save(path: Path, name: str, found: Detections) -> None:
    """Writes a view as the NPZ that `formats/keypoint_tables.py` reads."""
    most = max(len(people) for people in found.people)
    points = np.zeros((len(found.people), 1, most, JOINTS, 3))
    for row, people in zip(points, found.people, strict=True):
        row[0, : len(people)] = people

    def make(temporary: str) -> None:
        with open(temporary, "wb") as file:  # given a name, numpy would add a suffix
            np.savez(
                file,
                keypoints=points[..., :2],
                confidence=points[..., 2],
                skeleton=found.skeleton.name,
                views=np.array([name]),
                picture=np.array([found.picture]),
                fps=float(found.fps or 0),
            )

    workdir.write(path, make)


def views(paths: Sequence[Path], folder: Path | None = None) -> dict[str, Detections]:
    """What is seen in each video, by its name without the suffix.

    `folder`: of the weights; see `weights`. Raises `VideoError`, `DetectorError`, and `SourceError`
    where the weights cannot be fetched.
    """
    network = BlazePose(weights(folder))
    return {path.stem: view(path, network) for path in paths}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m pose3d_jax.detect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--videos", nargs="+", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--weights", type=Path, help="a folder with the networks' two files")
    given = parser.parse_args(arguments)
    try:
        run(given)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(given: argparse.Namespace) -> None:
    """What the command does; nothing is written before all videos have been read to their ends."""
    names = [path.stem for path in given.videos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise video.VideoError(f"--videos has {twice[0]} twice; views need names of their own")
    if given.output.exists() and not given.output.is_dir():
        raise video.VideoError(f"--output {given.output} is no folder; name one, or a new one")
    found = views(given.videos, given.weights)
    empty = [name for name, seen in found.items() if not any(map(len, seen.people))]
    if len(empty) == len(found):
        raise video.VideoError(f"nobody is seen in {', '.join(empty)}; look at the videos")
    given.output.mkdir(parents=True, exist_ok=True)
    for name, seen in found.items():
        save(given.output / f"{name}.npz", name, seen)
        frames = sum(len(people) > 0 for people in seen.people)
        print(f"{given.output}/{name}.npz: somebody in {frames} of {len(seen.people)} frames")


if __name__ == "__main__":
    main()
