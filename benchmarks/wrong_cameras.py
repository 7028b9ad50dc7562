"""Lifters trained with cameras that are wrong: what solving for them, or learning them, is worth.

    python -m benchmarks.wrong_cameras --data data/cmu_mv_v1 --out runs/wrong_cameras
        [--rows true wrong solved learned ...] [--seeds 1] [--epochs 10] [--width 512] [--quick]

Of every recording of the training split each camera is made wrong as in `benchmarks.cameras` (5
degrees, 10 cm, 2 % of the focal length, up to 3 frames), and keypoints have the noise `mild`
(1 px). Rows are lifters of `configs/cmu_mv.py`, without 3D labels: `true` is trained with the true
cameras, `wrong` with the wrong ones, `solved` with `cameras=solved`, `learned` with
`cameras=learned`, whose examples are not filmed anew; `true_plain` and `wrong_plain` are trained as
it is, with cameras that stay. All are measured with true cameras and the noise `mild` on the test
splits: P1 over frames, mm, mean of the seeds, and in the JSON line at the end by how much it is
more than that of `true` (of `true_plain` for the last three), percent. Of what was solved or
learned also the angles between views, degrees, baselines, percent, and clocks, frames, as they were
and as they were found. Runs that are there already, whole or cut, are taken up. `--quick`: a few
steps of two rows.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from benchmarks.cameras import apart, disturbance, moved_by
from configs import cmu_mv
from data_prep import writer
from pose3d_jax import bundle, evaluate, noise, recipes, rigs, streams, train
from pose3d_jax.data import joining, poses
from pose3d_jax.errors import UserError
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.schema import Record

# Row -> argument of the config, whether cameras are wrong.
ROWS = {
    "true": ("", False),
    "wrong": ("", True),
    "solved": ("cameras=solved", True),
    "learned": ("cameras=learned", True),
    "true_plain": ("cameras=learned", False),
    "wrong_plain": ("cameras=learned", True),
}
BESIDE = {"learned": "true_plain", "wrong_plain": "true_plain"}  # the others: beside `true`
NOISE, SEED = noise.preset("mild"), 0  # of keypoints and cameras, whatever the lifter's seed


def prepare(source: Path, target: Path, *, wrong: bool) -> None:
    """A copy of a data set: training clips with noise and, where asked, wrong cameras."""
    if target.exists():
        return

    def copies(split: str) -> Iterator[Record]:
        for record in poses.read_split(source, split):
            if split != "train":
                yield record
                continue
            noisy = noise.corrupt_record(record, NOISE, SEED)
            if wrong:
                views = noisy.clip.observations.confidence.shape[1]
                moved = disturbance(record.identity.recording, SEED, views)
                seen = moved_by(noisy.clip.observations, moved)
                noisy = Record(dataclasses.replace(noisy.clip, observations=seen), noisy.identity)
            yield noisy

    first = next(iter(poses.read_split(source, "train")))
    description = f"{source.name} with noise in training" + (", wrong cameras" if wrong else "")
    writer.write(
        target,
        first.identity.dataset,
        {s: copies(s) for s in poses.splits(source)},
        description=description,
    )


def config_of(row: str, seed: int, args: argparse.Namespace) -> ConfigDict:
    """What a row trains."""
    argument, wrong = ROWS[row]
    words = [argument, "tiny" if args.quick else ""]
    config = cmu_mv.get_config(",".join(word for word in words if word))
    phases = [dict(phase) for phase in config.phases]
    if not args.quick:
        config.method.width = args.width
        for phase, own in zip(phases, recipes.plain(args.epochs, {}), strict=True):
            phase["length_epochs"] = own["length_epochs"]
    if row.endswith("plain"):
        config.method.cameras = "given"
        phases = [{**phase, "weights": cmu_mv.TUNED, "rates": {}} for phase in phases]
    config.phases = tuple(phases)
    config.data.path = str(data_of(args.out, wrong=wrong))
    config.seed = seed
    config.evaluation.update({"noise": "mild", "references": (), "test": tuple(args.splits)})
    return config


def data_of(out: Path, *, wrong: bool) -> Path:
    """Where a copy is."""
    return out / "data" / ("wrong" if wrong else "true")


def measured(row: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """A row's figures with a seed, trained where it is not there yet."""
    workdir = args.out / row / str(seed)
    config = config_of(row, seed, args)
    splits = train.run(config, workdir)["splits"]
    method = config.method.name
    figures = {
        split: 1000 * found["rows"][method]["p1"]["frames"] for split, found in splits.items()
    }
    return figures | (calibrated(workdir, args.out) if row in ("solved", "learned") else {})


def calibrated(workdir: Path, out: Path) -> dict[str, float]:
    """What a run's cameras are off by, beside what they were: means over recordings."""
    restored = evaluate.restore(workdir)
    method = restored.method
    assert isinstance(method, MultiView)
    wrong = streams.read(restored.config, "train")
    if method.cameras == "learned":
        table = np.asarray(method.corrections(restored.variables))
        found = dict(zip(restored.info.recordings, table, strict=True))
    else:
        _, found = bundle.correct_split(wrong, rigs.Doubt())
    rows = []
    done = set()
    for record in poses.read_split(data_of(out, wrong=False), "train"):
        name = joining.recording_of(record.identity)
        if name in done:
            continue
        done.add(name)
        clip = record.clip.observations
        moved = disturbance(record.identity.recording, SEED, clip.confidence.shape[1])
        off = {"": moved_by(moved_by(clip, moved), found[name]), "_wrong": moved_by(clip, moved)}
        row = {}
        for suffix, own in off.items():
            row[f"angle{suffix}"], row[f"baseline{suffix}"] = apart(own.cameras, clip.cameras)
        row["clock"] = float(np.abs(found[name] + moved)[1:, rigs.TIME].mean())
        row["clock_wrong"] = float(np.abs(moved)[1:, rigs.TIME].mean())
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """By row, the figures of each seed, and how much more than those of the row with true cameras.

    The latter in percent, with the range over seeds, of each test split.
    """
    for wrong in (False, True):
        prepare(args.data, data_of(args.out, wrong=wrong), wrong=wrong)
    table: dict[str, Any] = {}
    for row, seed in tqdm([(row, seed) for row in args.rows for seed in range(args.seeds)]):
        for name, value in measured(row, seed, args).items():
            table.setdefault(row, {}).setdefault(name, []).append(value)
    for row, found in table.items():
        beside = table.get(BESIDE.get(row, "true"), {})
        for split in args.splits:
            if row != "true" and split in beside:
                more = 100 * (np.array(found[split]) / np.array(beside[split]) - 1)
                found[f"{split}_more"] = [float(x) for x in more]
    return table


def text(table: dict[str, Any]) -> str:
    """As a table: means over the seeds."""
    columns = list(dict.fromkeys(name for found in table.values() for name in found))
    lines = ["".join(f"{name:>18}" for name in ("", *columns))]
    for row, found in table.items():
        cells = (f"{np.mean(found[c]):18.2f}" if c in found else f"{'-':>18}" for c in columns)
        lines.append(f"{row:>18}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wrong_cameras")
    parser.add_argument("--data", type=Path, default=Path("data/cmu_mv_v1"))
    parser.add_argument("--out", type=Path, default=Path("runs/wrong_cameras"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=None)
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="a few steps of two rows")
    args = parser.parse_args()
    if min(args.seeds, args.epochs, args.width) < 1:
        parser.error("--seeds, --epochs and --width are 1 or more")
    args.rows = args.rows or (["true_plain", "learned"] if args.quick else list(ROWS))
    if args.quick:
        args.out = args.out / "quick"
    try:
        table = run(args)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(text(table))
    print(json.dumps({"wrong_cameras": table}))


if __name__ == "__main__":
    main()
