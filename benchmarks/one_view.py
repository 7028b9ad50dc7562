"""One view, 81 frames at a time: what a fit makes of what a lifter says.

    python -m benchmarks.one_view --data data/cmu_mv_v1 --workdirs runs/typical_0 runs/typical_1
        runs/typical_2 [--frames 81] [--quick]

`--workdirs` are trained lifters, alike but for their seeds. The test splits have the noise
`typical`; each view is lifted and then fitted by itself (`fitting.py`, `recipes.fit`), in pieces of
`--frames` that know nothing of one another. P1 in mm, mean over frames and views. Ends with one
line of JSON. `--quick`: a lifter of a few steps, of synthetic people.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import quick
from pose3d_jax import checkpoint, compiled, evaluate, fitting, recipes, scoring
from pose3d_jax.config import complete
from pose3d_jax.errors import UserError

SIGMA_PX = 2.0  # of the noise `typical`


def measure(workdir: Path, data: Path, frames: int) -> dict[str, dict[str, float]]:
    """By split: P1 in mm of the lifter alone, and fitted."""
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
        found[split] = {}
        for name, predicted in (("alone", alone), ("fitted", fitted)):
            batch = restored.config["evaluation"]["batch_size"]
            errors, mask = scoring.score(restored.info, poses, predicted, batch, rows=None)
            table = scoring.summarise(errors, mask, poses)
            found[split][name] = 1000 * table["rows"]["method"]["p1"]["frames"]
    return found


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_view")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--workdirs", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=81)
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
            seeds = [measure(workdir, given.data, given.frames) for workdir in given.workdirs]
        except UserError as error:
            sys.exit(f"error: {error}")
    rows: dict[str, Any] = {}
    print(f"{'P1, mm':16}{'alone':>24}{'fitted':>24}{'change':>10}")
    for split in seeds[0]:
        alone, fitted = (
            np.array([seed[split][name] for seed in seeds]) for name in ("alone", "fitted")
        )
        change = fitted.mean() / alone.mean() - 1
        rows[split] = {"alone": alone.tolist(), "fitted": fitted.tolist(), "change": change}
        shown = (" ".join(f"{x:6.1f}" for x in values) for values in (alone, fitted))
        print(f"{split:16}{next(shown):>24}{next(shown):>24}{100 * change:9.1f}%")
    wall = time.monotonic() - started
    print(json.dumps({"frames": given.frames, "by_split": rows, "wall_s": round(wall, 1)}))


if __name__ == "__main__":
    main()
