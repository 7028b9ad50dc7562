"""HumanEva-I's whole way on people who are not its own, for those who have not got its files.

    python -m benchmarks.humaneva_stand_in --positions cmu_positions_30fps.npz
        --output runs/stand_in [--epochs 60] [--seed 0] [--quick]

CMU's people walking, jogging and boxing, filmed by HumanEva-I's rig, are written as its npz files
(each segment's first half is of Train, the second of Validate, 60 fps by a cubic spline), prepared
by `data_prep.humaneva`, trained on by `configs/humaneva_mv.py` without 3D labels, and adapted: the
network's weights, as in "3D Pose Estimation Using 2D Supervision", and poses. Errors in that
report's metric, `mpjpe_report`, in mm, over all frames of Validate. 2D points and cameras are
exact, as they are in the files. What comes out says that the way works, not what it gives on
HumanEva-I. Ends with one line of JSON. `--quick`: a network of a few steps, the first 60 frames of
each segment.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy.interpolate import CubicSpline

from configs import humaneva_mv
from data_prep import cmu, humaneva
from pose3d_jax import adapt, compiled, skeleton, train
from pose3d_jax.errors import UserError

# What each of HumanEva-I's subjects does, by CMU's trials.
TRIALS = {
    "S1": {
        "Walking 1": ("amc/02_01", "amc/02_02"),
        "Jog 1": ("amc/02_03",),
        "Box 1": ("amc/02_05",),
    },
    "S2": {
        "Walking 1": ("amc/03_01", "amc/03_02", "amc/03_03"),
        "Box 1": ("daz/martial_03", "daz/martial_04"),
    },
    "S3": {
        "Walking 1": ("bvh131/131_01", "bvh131/131_02", "bvh131/131_03"),
        "Box 1": ("daz/martial_05",),
    },
}
_COLUMNS = {"mpjpe_report": 14, "p1": 10, "absolute": 10}  # as wide


def write(positions: Path, folder: Path, longest: int | None = None) -> dict[str, int]:
    """Writes `data_3d_humaneva15.npz`, of segments of at most so many frames; frames by part.

    Raises `UserError` where a trial is missing.
    """
    h36m17 = skeleton.get("h36m17").joints
    kept = [h36m17.index(name) for name in skeleton.get("humaneva15").joints]
    by_trial: dict[str, list[np.ndarray]] = {}
    for spec, joints in cmu.segments(cmu.load_positions(positions), allow_partial=True):
        by_trial.setdefault(spec["clip"], []).append(joints[:longest, kept])
    lacking = {trial for actions in TRIALS.values() for own in actions.values() for trial in own}
    if lacking := lacking - by_trial.keys():
        raise UserError(f"{positions}: has no {', '.join(sorted(lacking))}; take the whole file")
    found: dict[str, dict[str, np.ndarray]] = {}
    for subject, actions in TRIALS.items():
        for action, trials in actions.items():
            for chunk, joints in enumerate(x for trial in trials for x in by_trial[trial]):
                often = _twice_as_often(joints)
                halves = {"Train": often[: len(often) // 2], "Validate": often[len(often) // 2 :]}
                for part, own in halves.items():
                    found.setdefault(f"{part}/{subject}", {})[f"{action} chunk{chunk}"] = own
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "data_3d_humaneva15.npz", positions_3d=np.array(found))
    frames = dict.fromkeys(("Train", "Validate"), 0)
    for key, own in found.items():
        frames[key.partition("/")[0]] += sum(len(joints) for joints in own.values())
    return frames


def _twice_as_often(joints: np.ndarray) -> np.ndarray:
    """From 30 to 60 fps."""
    known = np.arange(len(joints))
    between = np.arange(2 * len(joints) - 1) / 2
    return CubicSpline(known, joints)(between).astype(np.float32)


def config_of(given: argparse.Namespace, data: Path) -> ConfigDict:
    """Of a network half as wide as `configs/humaneva_mv.py`'s, for fewer epochs."""
    config = humaneva_mv.get_config("tiny" if given.quick else "")
    config.data.path, config.seed = str(data), given.seed
    config.evaluation.references = ()
    if not given.quick:
        config.method.width = 512
        phases = [dict(phase) for phase in config.phases]
        total = sum(phase["length_epochs"] for phase in phases)
        for phase in phases:
            phase["length_epochs"] *= given.epochs / total
        config.phases = tuple(phases)
    return config


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.humaneva_stand_in")
    parser.add_argument("--positions", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    compiled.keep()
    started = time.monotonic()
    files, data, run = (given.output / name for name in ("files", "data", "run"))
    try:
        frames = write(given.positions, files, 60 if given.quick else None)
        humaneva.main(["--source", str(files), "--output", str(data), "--overwrite"])
        config = config_of(given, data)
        found = _errors(train.run(config, run))
        for stage in ("weights", "poses"):
            config.adaptation.stages = (stage,)
            found |= _errors(adapt.run(run, config))
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{frames['Train']:,} frames of Train, {frames['Validate']:,} of Validate; mm")
    print(f"{'':28}{'mpjpe_report':>14}{'P1':>10}{'absolute':>10}")
    for name, row in found.items():
        print(f"{name:28}" + "".join(f"{row[x]:{w}.3f}" for x, w in _COLUMNS.items()))
    wall = time.monotonic() - started
    print(json.dumps({"frames": frames, "by": found, "wall_s": round(wall, 1)}))


def _errors(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of the test split, by row, over frames, in mm; the mean pose is nowhere, and has none."""
    (split,) = metrics["splits"].values()
    return {
        name: {column: 1000 * row[column]["frames"] for column in _COLUMNS}
        for name, row in split["rows"].items()
        if name != "mean_pose"
    }


if __name__ == "__main__":
    main()
