"""Lifters trained with cameras that are wrong: what solving for them, or learning them, is worth.

    python -m benchmarks.wrong_cameras --data data/cmu_mv_v1 --out runs/wrong_cameras
        [--rows true wrong solved learned ...] [--seeds 1] [--epochs 10] [--width 512] [--quick]

The clips of each person in the training split are a recording of their own, each of whose cameras
is made wrong as in `benchmarks.cameras` (5 degrees, 10 cm, 2 % of the focal length, up to 3 frames;
other directions for each seed), and keypoints have the noise `mild` (1 px). Rows are lifters of
`configs/cmu_mv.py`, without 3D labels: `true` is trained with the true cameras, `wrong` with the
wrong ones, `solved` with `cameras=solved` (512 frames of each recording), `learned` with
`cameras=learned` (all frames), whose examples are not filmed anew; `true_plain`, `wrong_plain` and
`solved_plain` are trained as that is, on cameras that stay. All are measured with true cameras and
the noise `mild` on the test splits: P1 over frames, mm, means of the seeds, and (`more`) by how
much it is more than that of `true`, or, for `learned` and the plain ones, of `true_plain`, percent;
`solved_plain` is what `learned` is to be compared with. Of what was solved or learned the angles
between views, degrees, baselines relative to their mean, and that mean (`size`), percent, and
clocks, frames, as they were and as they were found, means over recordings. The JSON line at the end
has each seed. Runs that are there already, whole or cut, are taken up. `--quick`: a few steps of
two rows.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
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
    "solved_plain": ("cameras=learned", True),
}
PLAIN = ("learned", "wrong_plain", "solved_plain")  # compared with `true_plain`
NOISE = noise.preset("mild")
_grown = jax.jit(rigs.grown)
Corrections = dict[str, Float[np.ndarray, "views entries"]]


def recorded(record: Record) -> Record:
    """The record as one of its person's own recording."""
    identity = record.identity
    own = dataclasses.replace(identity, recording=f"{identity.recording}_{identity.subject}")
    return Record(record.clip, own)


def prepare(source: Path, target: Path, seed: int, *, wrong: bool) -> None:
    """A copy of a data set: training clips with noise and, where asked, wrong cameras."""
    if target.exists():
        return

    def copies(split: str) -> Iterator[Record]:
        for record in map(recorded, poses.read_split(source, split)):
            if split != "train":
                yield record
                continue
            noisy = noise.corrupt_record(record, NOISE, seed)
            if wrong:
                moved = moved_of(record, seed)
                seen = moved_by(noisy.clip.observations, moved)
                noisy = Record(dataclasses.replace(noisy.clip, observations=seen), noisy.identity)
            yield noisy

    first = next(iter(poses.read_split(source, "train")))
    description = f"{source} with noise in training" + (", wrong cameras" if wrong else "")
    writer.write(
        target,
        first.identity.dataset,
        {s: copies(s) for s in poses.splits(source)},
        description=description,
    )


def moved_of(record: Record, seed: int) -> Float[np.ndarray, "views entries"]:
    """What the cameras of a record's recording are moved by."""
    return disturbance(
        record.identity.recording, seed, record.clip.observations.confidence.shape[1]
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
        config.streams.main.cameras = "solved" if row == "solved_plain" else "given"
        phases = [{**phase, "weights": cmu_mv.TUNED, "rates": {}} for phase in phases]
    config.phases = tuple(phases)
    config.data.path = str(data_of(args, seed, wrong=wrong))
    config.seed = seed
    config.evaluation.update({"noise": "mild", "references": (), "test": tuple(args.splits)})
    return config


def data_of(args: argparse.Namespace, seed: int, *, wrong: bool) -> Path:
    """Where a copy is."""
    source = hashlib.sha256(str(args.data.resolve()).encode()).hexdigest()[:8]
    return args.out / "data" / f"{'wrong' if wrong else 'true'}_{seed}_{source}"


def measured(row: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """A row's figures with a seed, trained where it is not there yet."""
    workdir = args.out / row / str(seed)
    config = config_of(row, seed, args)
    wrong = ROWS[row][1]
    prepare(args.data, data_of(args, seed, wrong=wrong), seed, wrong=wrong)
    splits = train.run(config, workdir)["splits"]
    method = config.method.name
    figures = {
        split: 1000 * found["rows"][method]["p1"]["frames"] for split, found in splits.items()
    }
    if row in ("learned", "solved", "solved_plain"):
        records = map(recorded, poses.read_split(args.data, "train"))
        figures |= off_by(found_of(workdir), records, seed)
    return figures


def found_of(workdir: Path) -> Corrections:
    """By recording, what a run has made of its wrong cameras."""
    restored = evaluate.restore(workdir)
    method = restored.method
    assert isinstance(method, MultiView)
    if method.cameras == "learned":
        table = np.asarray(method.corrections(restored.variables))
        return dict(zip(restored.info.recordings, table, strict=True))
    return bundle.correct_split(streams.read(restored.config, "train"), rigs.Doubt())[1]


def off_by(found: Corrections, records: Iterable[Record], seed: int) -> dict[str, float]:
    """What cameras are off by when corrected, beside what they were: means over recordings."""
    of_recording = {joining.recording_of(record.identity): record for record in records}
    rows = []
    for name, record in of_recording.items():
        clip, moved = record.clip.observations, moved_of(record, seed)
        wrong = moved_by(clip, moved)
        row = {}
        for suffix, own in (("", moved_by(wrong, found[name])), ("_wrong", wrong)):
            row[f"angle{suffix}"], row[f"baseline{suffix}"] = apart(own.cameras, clip.cameras)
            sees = np.ones(len(moved), np.float32)
            row[f"size{suffix}"] = 100 * abs(float(_grown(own.cameras, clip.cameras, sees)))
        row["clock"] = float(np.abs(found[name] + moved)[1:, rigs.TIME].mean())
        row["clock_wrong"] = float(np.abs(moved)[1:, rigs.TIME].mean())
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """By row, the figures of each seed, and how much more they are: see above."""
    table: dict[str, Any] = {}
    for row, seed in tqdm([(row, seed) for row in args.rows for seed in range(args.seeds)]):
        for name, value in measured(row, seed, args).items():
            table.setdefault(row, {}).setdefault(name, []).append(value)
    for row, found in table.items():
        beside = "true_plain" if row in PLAIN else "true"
        for split in args.splits:
            if beside in table and row not in ("true", "true_plain"):
                more = 100 * (np.array(found[split]) / np.array(table[beside][split]) - 1)
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
