"""How long a user waits: 10,000 frames of 4 views from keypoints to 3D, after compilation.

    python -m benchmarks.predict [--workdir RUN] [--frames 10000] [--views 4] [--width 1024]
        [--quick]

A network as `configs/cmu_mv.py` has it (of `--width`; not trained, or a run's) is given a synthetic
person's keypoints as a user gives them (`trained.Trained.predict`), twice: `seconds` is the second
time, `first_seconds` the first of all, which compiles. `other_seconds` is a clip of another length,
for which nothing is compiled. Ends with one line of JSON. `--quick`: a small network, few frames.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.train_epoch import people
from configs import cmu_mv
from data_prep import synthetic
from pose3d_jax import train, trained


def untrained(width: int, folder: Path) -> trained.Trained:
    """A network of that width after a step or two, which are as quick as any."""
    synthetic.main(["--out", str(folder / "data"), "--scale", "0.02"])
    config = cmu_mv.get_config("tiny")
    config.data.path = str(folder / "data")
    config.method.width = width
    config.evaluation.test = ("test",)
    config.evaluation.references = ()
    train.run(config, folder / "run")
    return trained.load(folder / "run")


def timed(network: trained.Trained, frames: int, views: int) -> float:
    """Seconds from keypoints to joints in the world."""
    poses = people(frames)
    seen = jax.tree.map(lambda x: np.asarray(x)[:frames], poses.observations)
    index = np.arange(views) % seen.confidence.shape[1]
    keypoints = seen.keypoints[:, index]
    cameras = jax.tree.map(lambda x: x[0, index], seen.cameras)
    started = time.monotonic()
    found = network.predict(keypoints, cameras)
    assert np.isfinite(found.in_views).all()
    return time.monotonic() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, help="of a trained lifter of h36m17")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    frames, width = (200, 32) if given.quick else (given.frames, given.width)
    with tempfile.TemporaryDirectory() as folder:
        network = trained.load(given.workdir) if given.workdir else untrained(width, Path(folder))
        first = timed(network, frames, given.views)
        seconds = timed(network, frames, given.views)
        other = timed(network, frames * 3 // 4 + 1, given.views)
    print(
        json.dumps(
            {
                "seconds": round(seconds, 3),
                "first_seconds": round(first, 3),
                "other_seconds": round(other, 3),
                "frames": frames,
                "views": given.views,
                "flip": network.lifting.flip,
            }
        )
    )


if __name__ == "__main__":
    main()
