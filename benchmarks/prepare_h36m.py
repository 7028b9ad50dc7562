"""How long Human3.6M at full size takes to prepare and to load, and how much memory.

    python -m benchmarks.prepare_h36m [--quick] [--folder DIR]

Writes a simulated npz pair in the real one's layout (seven subjects, fifteen actions, two trials,
1.5 million frames, four views; the poses are procedural), prepares it with `data_prep.h36m`, and
loads the training split, each in a process of its own. Needs about 6 GB of disk in DIR (a temporary
folder by default). Ends with one line of JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FRAMES = 1_500_000
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases",
    "Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "WalkTogether", "Walking",
)  # fmt: skip
_JOINTS = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)  # the 17 of 32


def simulate(folder: Path, frames: int) -> None:
    """Writes `data_3d_h36m.npz` and `data_2d_h36m_gt.npz` with so many frames in all."""
    from data_prep import rigs, synthetic
    from data_prep.body_motion import MOTIONS

    count = len(SUBJECTS) * len(ACTIONS) * 2
    length = frames // count
    cycle = min(length, 2000)  # one motion, repeated: what the numbers are does not matter
    body = next(iter(synthetic.BODIES.values()))
    joints = MOTIONS["free"](np.random.default_rng(0), body, np.arange(cycle) / 50.0)
    wide = np.zeros((cycle, 32, 3), np.float32)
    wide[:, _JOINTS] = joints
    repeat = np.arange(length) % cycle
    positions: dict[str, dict] = {}
    points: dict[str, dict] = {}
    for subject in SUBJECTS:
        cameras, _ = rigs.load_rig("human36m", subject)
        seen = rigs.film(joints, cameras).keypoints[repeat]
        views = [np.ascontiguousarray(seen[:, view]) for view in range(4)]
        trials = [f"{action}{trial}" for action in ACTIONS for trial in ("", " 1")]
        positions[subject] = {trial: wide[repeat].copy() for trial in trials}
        points[subject] = {trial: [view.copy() for view in views] for trial in trials}
    metadata = {
        "num_joints": 17,
        "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    }
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=positions)
    np.savez_compressed(folder / "data_2d_h36m_gt.npz", positions_2d=points, metadata=metadata)


def load(directory: Path) -> None:
    """What training does with the prepared set before its first step."""
    from pose3d_jax.data import poses, windows

    print(windows.cut(poses.load([directory], "train"), 1, 5).poses.size, flush=True)


def measured(arguments: list[str]) -> dict[str, float]:
    """Seconds and megabytes (greatest resident size) of this module's command in a new process."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", *arguments], check=True)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"s": round(seconds, 1), "peak_mb": round(peak)}


def run(folder: Path, frames: int) -> dict[str, object]:
    """The figures of the last line."""
    source, output = folder / "source", folder / "h36m"
    source.mkdir(parents=True)
    # Not the process that measures: the greatest of all children is what it is told.
    own = "benchmarks.prepare_h36m"
    subprocess.run(
        [sys.executable, "-c", f"from {own} import simulate; from pathlib import Path; "
         f"simulate(Path({str(source)!r}), {frames})"],
        check=True,
    )  # fmt: skip
    found = {}
    commands = {
        "prepare": ["data_prep.h36m", "--source", str(source), "--output", str(output)],
        "load": [own, "--load", str(output)],
    }
    for what, command in commands.items():
        child = [sys.executable, "-m", own, "--measure", json.dumps(command)]
        answer = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(answer, flush=True)
        found[what] = json.loads(answer.strip().splitlines()[-1])
    size = sum(path.stat().st_size for path in output.iterdir())
    return {"frames": frames, "views": 4, "disk_mb": round(size / 1e6), **found}


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare_h36m")
    parser.add_argument("--folder", type=Path, help="default: a temporary one")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the frames")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        load(args.load)
        return
    if args.measure:
        print(json.dumps(measured(json.loads(args.measure))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures = run(Path(folder), args.frames // (100 if args.quick else 1))
    print(json.dumps({"prepare_h36m": figures}))


if __name__ == "__main__":
    main()
