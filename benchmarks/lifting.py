"""Every way to lift one view, under one evaluator: rows of one table, a config each.

    python -m benchmarks.lifting --data data/cmu_mv_v1 --out runs/lifting [--rows vae ...]
        [--noise clean typical] [--splits test_seen test_unseen] [--seeds 1] [--quick]

A row is trained as its config says, for each noise preset by itself (networks that are tested on
noisy points are trained on such), and scored view by view on the test splits; a run that is there
already, whole or cut, is taken up where it is. Rows that give hypotheses are calibrated on
validation and measured on every tenth frame (`hypotheses.measure`). Prints, per preset and split,
P1, P2, N-MPJPE and stress in mm (frames; a dash where a method knows no size), and the distance of
P2 from that of the training set's mean pose; ends with one line of JSON: by preset, split and row.
`--quick`: a few steps of each row.
"""

import argparse
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from pose3d_jax import evaluate, hypotheses, train
from pose3d_jax.streams import read
from pose3d_jax.tables import millimetres


class Row(NamedTuple):
    """A config, its arguments but for the noise, and what it learns from."""

    config: str
    argument: str
    supervision: str


ROWS: Mapping[str, Row] = {
    "supervised": Row("cmu_mv_seq", "labels", "3D labels"),
    "multiview": Row("cmu_mv_seq", "", "2D, calibrated views"),
    "vae": Row("cmu_vae", "kind=dense", "3D labels"),
    "vae, convolution": Row("cmu_vae", "kind=convolution", "3D labels"),
    "vae, graph": Row("cmu_vae", "kind=graph", "3D labels"),
    "vae, reprojection": Row("cmu_vae", "supervision=reprojection", "2D, calibrated views"),
}
BASELINE = "mean_pose"
METRICS = ("p1", "p2", "n_mpjpe", "stress")
STRIDE = 10  # of the frames on which hypotheses are measured: those between are much alike


def config_of(row: Row, data: str, noise: str, splits: list[str], seed: int, quick: bool) -> Any:
    """The experiment of a row under a preset."""
    words = [word for word in (row.argument, f"noise={noise}", "tiny" if quick else "") if word]
    config: ConfigDict = importlib.import_module(f"configs.{row.config}").get_config(
        ",".join(words)
    )
    config.data.path = data
    config.seed = seed
    with config.ignore_type():
        config.evaluation.test = tuple(splits)
        config.evaluation.references = ()
    return config


def errors_of(metrics: Mapping[str, Any], split: str, row: str) -> dict[str, float | None]:
    """A row of an evaluation, metres, means over frames."""
    found = metrics["splits"][split]["rows"][row]
    return {name: found[name]["frames"] for name in METRICS}


def hypotheses_of(workdir: Path, quick: bool) -> dict[str, dict[str, float]]:
    """By split, what `hypotheses.measure` says; nothing for a method that gives none."""
    restored = evaluate.restore(workdir)
    if not hasattr(restored.method, "samples"):
        return {}
    common = {"stride": 200 if quick else STRIDE, "window": evaluate.settings_of(restored).window}
    of = (restored.method, restored.info, restored.variables)
    config = restored.metadata["config"]
    validation = read(
        config, config["evaluation"]["validation"], recordings=restored.info.recordings
    )
    scale = hypotheses.calibration(*of, validation, **common)
    return {
        split: {"scale": scale, **hypotheses.measure(*of, data, scale=scale, **common)}
        for split, data in restored.splits.items()
    }


def run(
    rows: list[str], noises: list[str], splits: list[str], data: str, out: Path, seeds: int,
    quick: bool,
) -> dict[str, Any]:  # fmt: skip
    """By preset, split and row, the row's means over the seeds, metres."""
    found: dict[str, Any] = {noise: {split: {} for split in splits} for noise in noises}
    for noise in noises:
        for name in rows:
            per_seed: list[dict[str, dict[str, float | None]]] = []
            for seed in range(seeds):
                label = "".join(c if c.isalnum() else "_" for c in name)
                workdir = out / noise / label / str(seed)
                config = config_of(ROWS[name], data, noise, splits, seed, quick)
                metrics = train.run(config, workdir)
                own = {split: errors_of(metrics, split, metrics["method"]) for split in splits}
                for split, more in hypotheses_of(workdir, quick).items():
                    own[split] |= more
                for split in splits:
                    own[split]["minutes"] = metrics["wall_s"] / 60
                    found[noise][split].setdefault(BASELINE, errors_of(metrics, split, BASELINE))
                per_seed.append(own)
            for split in splits:
                every = [own[split] for own in per_seed]
                found[noise][split][name] = {
                    key: None if every[0][key] is None else float(np.mean([x[key] for x in every]))
                    for key in every[0]
                }
                found[noise][split][name]["p2_seeds"] = [x["p2"] for x in every]
    return found


def table(found: Mapping[str, Any]) -> str:
    """The rows of one preset and split, as text."""
    base = found[BASELINE]["p2"]
    lines = [f"{'':<22}{'P1':>8}{'P2':>8}{'N-MPJPE':>9}{'stress':>8}{'below':>8}  learns from"]
    for name, errors in found.items():
        cells = "".join(
            millimetres(errors[metric]).rjust(width)
            for metric, width in zip(METRICS, (8, 8, 9, 8), strict=True)
        )
        below = f"{100 * (1 - errors['p2'] / base):.0f} %"
        source = ROWS[name].supervision if name in ROWS else ""
        lines.append(f"{name:<22}{cells}{below:>8}  {source}")
    for name, errors in found.items():
        if "best_p1" in errors:
            lines.append(f"{name}: " + _said(errors))
    return "\n".join(lines)


def _said(errors: Mapping[str, float]) -> str:
    """What is known of hypotheses, in words."""
    mm = {key: millimetres(errors[key]) for key in errors if "p1" in key or "best_p2" in key}
    return (
        f"P1 of the mean {mm['p1']}, of one hypothesis {mm['typical_p1']}, of the best "
        f"{mm['best_p1']} (P2 {mm['best_p2']}; of a Gaussian of the same covariance "
        f"{mm['gaussian_p1']}); NLL {errors['nll']:.2f} nats a joint; in the 80 % ellipsoids "
        f"{100 * errors['coverage_80']:.0f} % (scale {errors['scale']:.2f}); "
        f"reprojection {errors['reprojection_px']:.2f} px"
    )


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lifting")
    parser.add_argument("--data", default="data/cmu_mv_v1", help="CMU-MV v1, prepared")
    parser.add_argument("--out", type=Path, default=Path("runs/lifting"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW")
    parser.add_argument("--noise", nargs="+", default=["clean", "typical"])
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few steps of each row")
    args = parser.parse_args()
    unknown = sorted(set(args.rows) - set(ROWS))
    if unknown:
        parser.error(f"no row is named {', '.join(unknown)}; there are {', '.join(ROWS)}")
    found = run(args.rows, args.noise, args.splits, args.data, args.out, args.seeds, args.quick)
    for noise, by_split in found.items():
        for split, rows in by_split.items():
            print(f"\n{noise}, {split}\n{table(rows)}")
    print(json.dumps({"lifting": found}))


if __name__ == "__main__":
    main()
