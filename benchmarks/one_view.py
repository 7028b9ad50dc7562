"""One view, 81 frames at a time: what a fit makes of what a lifter says.

    python -m benchmarks.one_view --data data/cmu_mv_v1 --workdirs runs/typical_0 runs/typical_1
        runs/typical_2 [--frames 81] [--predict] [--quick]

`--workdirs` are trained lifters, alike but for their seeds. The test splits have the noise
`typical`; each view is lifted and then fitted by itself (`fitting.py`, `recipes.fit`), in pieces of
`--frames` that know nothing of one another. P1 in mm, mean over frames and views. `--predict`: what
a user gets of each view of each whole clip, too (`predict --adapt poses`: how much its keypoints
err is told by their size in the picture, and the lifter is taken to err as on exact ones); slow.
Ends with one line of JSON. `--quick`: a lifter of a few steps, of synthetic people.
"""

import argparse
import dataclasses
import functools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import quick
from pose3d_jax import checkpoint, compiled, evaluate, fitting, recipes, scoring, trained
from pose3d_jax.config import complete
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Prediction

SIGMA_PX = 2.0  # of the noise `typical`


def measure(
    workdir: Path, data: Path, frames: int, *, predict: bool
) -> dict[str, dict[str, float]]:
    """By split: P1 in mm of the lifter alone, fitted, and as `predict` fits."""
    config = complete(checkpoint.read_metadata(workdir)["config"])
    config["data"]["path"] = str(data)
    config["evaluation"] |= {
        "noise": "typical",
        "fit": {**config["evaluation"]["fit"], **recipes.fit(SIGMA_PX)},
        "references": (),
    }
    restored = evaluate.restore(workdir, config)
    assert restored.body is not None  # measured where a fit is wanted
    settings = fitting.settings_of(restored.config["evaluation"]["fit"])
    found = {}
    for split, poses in restored.splits.items():
        lift = functools.partial(evaluate.predict, restored)
        alone = lift(poses)
        fitted = fitting.fit_in_rounds(
            poses, alone, restored.body, settings, lift, piece=frames, overlap=0
        )
        rows = {"alone": alone, "fitted": fitted}
        if predict:
            rows["predict"] = by_predict(trained.load(workdir), poses, alone)
        found[split] = {}
        for name, predicted in rows.items():
            batch = restored.config["evaluation"]["batch_size"]
            errors, mask = scoring.score(restored.info, poses, predicted, batch, rows=None)
            table = scoring.summarise(errors, mask, poses)
            found[split][name] = 1000 * table["rows"]["method"]["p1"]["frames"]
    return found


def by_predict(network: trained.Trained, data: PoseData, alone: Prediction) -> Prediction:
    """What a user gets of each view of each clip; where a view sees nobody, what was lifted."""
    joints = np.array(alone.joints)
    observations = jax.tree.map(np.asarray, data.poses.observations)
    for clip, identity in zip(windows.clips(data.poses), windows.identities(data), strict=True):
        at = slice(clip.start, clip.stop)
        own = jax.tree.map(lambda x, at=at: x[at], observations)
        for view in range(joints.shape[1]):
            one = slice(view, view + 1)
            if own.confidence[:, one].any():
                found = network.predict(
                    own.keypoints[:, one],
                    jax.tree.map(lambda x, one=one: x[0, one], own.cameras),
                    own.confidence[:, one],
                    fps=identity.fps,
                    stages=("poses",),
                )
                joints[at, one] = found.in_views
    return dataclasses.replace(alone, joints=joints)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_view")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--workdirs", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    compiled.keep()
    with tempfile.TemporaryDirectory() as aside:
        if given.quick:
            given.data, *given.workdirs = quick.lifter(Path(aside))
        if not given.data or not given.workdirs or given.frames < 3:
            parser.error("give --data, --workdirs, and 3 --frames or more")
        started = time.monotonic()
        try:
            seeds = [
                measure(workdir, given.data, given.frames, predict=given.predict)
                for workdir in given.workdirs
            ]
        except UserError as error:
            sys.exit(f"error: {error}")
    rows: dict[str, Any] = {}
    print(f"{'P1, mm':24}{'lifters':>24}{'change':>10}")
    for split, of_split in seeds[0].items():
        values = {name: np.array([seed[split][name] for seed in seeds]) for name in of_split}
        change = {name: x.mean() / values["alone"].mean() - 1 for name, x in values.items()}
        rows[split] = {name: x.tolist() for name, x in values.items()} | {"change": change}
        for name, each in values.items():
            shown = " ".join(f"{x:6.1f}" for x in each)
            print(f"{split:16}{name:8}{shown:>24}{100 * change[name]:9.1f}%")
    wall = time.monotonic() - started
    print(json.dumps({"frames": given.frames, "by_split": rows, "wall_s": round(wall, 1)}))


if __name__ == "__main__":
    main()
