"""What filters do for triangulated joints, and how well feet tell the floor and when they touch it.

    python -m benchmarks.smoothing --data data/cmu_mv_v1 [--positions cmu_positions_30fps.npz]
        [--splits test_seen test_unseen] [--views 4 2] [--quick]

Keypoints have the noise `typical`. Filters (`smoothing.py`) see joints of the row `robust`, one of
them those of `refined` with their covariances; beside them stand rows that see the keypoints of
whole clips. Errors are of joints that `robust` found: mm, and of accelerations m/s^2. Settings are
those that make the sum of both, each relative to `robust`, least on validation; butterworth stands
there at its usual 6 Hz, too.

The floor is looked for in the world turned and moved at random, clip by clip, where CMU's is flat
(subject 1 climbs, 3 walks on uneven ground): how often its tilt is told, by how many degrees it is
off then, and by how many mm CMU's own z = 0 (its z is the floor's in the captured clips alone, not
in those named daz). Contacts (`--positions`; of captured clips on flat ground in which feet do not
stand all the while) are held against the tips of the toes, which h36m17 has not: below 4 cm above
the clip's lowest 5 %, slower than 0.3 m/s. Ends with one line of JSON. `--quick`: two short clips
of synthetic people, the first number of views.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from scipy.spatial.transform import Rotation

from benchmarks.noise_study import load
from data_prep import cmu
from pose3d_jax import ground, noise, references, skeleton, smoothing
from pose3d_jax.errors import UserError
from pose3d_jax.references import Estimate
from pose3d_jax.schema import Record

ROWS = ("robust", "refined", "smooth", "smooth_bones")
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "butterworth": {"cutoff": (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)},
    "one-euro": {"cutoff": (1.0, 2.0, 4.0, 8.0), "beta": (0.3, 3.0, 10.0, 30.0)},
    "kalman": {"order": (1, 2), "motion": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)},
}
COVARIANCES = "kalman of refined, with covariances"
UNEVEN = ("amc_01", "amc_03")
STANDING = 0.9
CAPTURED = ("amc_", "bvh131_")
TIPS = {"amc": ("rtoes", "ltoes"), "bvh131": ("RightToe", "LeftToe")}  # as `ground.feet` of h36m17
Found = dict[str, Estimate]
Clips = list[tuple[Record, Found]]


def reconstructed(records: list[Record], views: int) -> Clips:
    """Each clip's rows, of noisy keypoints of so many views."""
    most = records[0].clip.observations.confidence.shape[1]
    setting = dataclasses.replace(noise.preset("typical"), lost_views=most - views)
    observed = [noise.corrupt_record(record, setting).clip.observations for record in records]
    skeleton_ = skeleton.get(records[0].identity.keypoint_skeleton)
    return list(zip(records, references.reconstruct_all(observed, skeleton_, ROWS), strict=True))


def measured(estimate: Estimate, found: np.ndarray) -> np.ndarray:
    """An estimate's joints, NaN where `robust` found none."""
    return np.where(found[..., None] > 0, np.asarray(estimate.joints), np.nan)


def filtered(record: Record, rows: Found, name: str, **settings: float) -> np.ndarray:
    """One clip through a filter."""
    found, fps = rows["robust"].found, record.identity.fps
    if name != COVARIANCES:
        return smoothing.smooth(measured(rows["robust"], found), fps, name, **settings)
    joints, covariance = measured(rows["refined"], found), rows["refined"].covariance
    return smoothing.smooth(joints, fps, "kalman", covariance=np.asarray(covariance), **settings)


def errors(clips: Clips, estimate: Callable[[Record, Found], np.ndarray]) -> dict[str, float]:
    """Means over frames and joints of all clips: mm, and m/s^2."""
    lengths, bends = [], []
    for record, rows in clips:
        off = estimate(record, rows) - np.asarray(record.clip.labels.joints)
        known = (rows["robust"].found > 0) & (np.asarray(record.clip.labels.joints_valid) > 0)
        off = np.where(known[..., None], off, np.nan)
        lengths.append(np.linalg.norm(off, axis=-1).ravel())
        bend = np.diff(off, n=2, axis=0) * record.identity.fps**2
        bends.append(np.linalg.norm(bend, axis=-1).ravel())
    return {
        "error": 1000 * float(np.nanmean(np.concatenate(lengths))),
        "acceleration": float(np.nanmean(np.concatenate(bends))),
    }


def row(name: str) -> Callable[[Record, Found], np.ndarray]:
    """What `errors` wants of a row of `references`."""
    return lambda _, rows: np.asarray(rows[name].joints)


def tuned(clips: Clips, name: str) -> dict[str, float]:
    """A filter's settings that are best on these clips; see the module's docstring."""
    plain = errors(clips, row("robust"))
    grid = GRIDS["kalman" if name == COVARIANCES else name]
    scores = {}
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        own = errors(clips, functools.partial(filtered, name=name, **settings))
        scores[values] = sum(own[key] / plain[key] for key in plain)
    return dict(zip(grid, min(scores, key=lambda values: scores[values]), strict=True))


def filters(validation: Clips, test: Clips) -> dict[str, dict[str, Any]]:
    """The table: rows and filters, with their settings."""
    table: dict[str, dict[str, Any]] = {"robust": errors(test, row("robust"))}
    usual = functools.partial(filtered, name="butterworth")
    table["butterworth, 6 Hz"] = errors(test, usual)
    for name in (*smoothing.KINDS, COVARIANCES):
        settings = tuned(validation, name)
        own = errors(test, functools.partial(filtered, name=name, **settings))
        table[name] = {**own, **settings}
    return table | {name: errors(test, row(name)) for name in ROWS[1:]}


# --------------------------------------------------------------------------------- floor, contacts


def joints_by_source(record: Record, rows: Found) -> Iterator[tuple[str, np.ndarray]]:
    """One clip's joints, as captured and as seen."""
    yield "captured", np.asarray(record.clip.labels.joints)
    yield "robust", measured(rows["robust"], rows["robust"].found)
    yield "butterworth, 6 Hz", filtered(record, rows, "butterworth")
    yield "smooth_bones", np.asarray(rows["smooth_bones"].joints)


def floors(clips: Clips) -> dict[str, dict[str, float]]:
    """By source of the joints, how well a turned world's floor is found."""
    table: dict[str, list[dict[str, float]]] = {}
    flat = [clip for clip in clips if not clip[0].identity.clip.startswith(UNEVEN)]
    for number, (record, rows) in enumerate(flat):
        turn = Rotation.random(rng=np.random.default_rng(number)).as_matrix()
        for source, joints in joints_by_source(record, rows):
            table.setdefault(source, []).append(floor_error(record, joints, turn))
    columns = ("tilt", "deviation", "height")

    def summary(own: list[dict[str, float]]) -> dict[str, float]:
        said = {c: np.array([x[c] for x in own if c in x]) for c in columns}
        means = {c: float(np.abs(x).mean()) for c, x in said.items() if len(x)}
        worst = {"tilt_worst": float(said["tilt"].max())} if len(said["tilt"]) else {}
        return {"clips": len(own), "told": len(said["tilt"]), **means, **worst}

    return {source: summary(own) for source, own in table.items()}


def floor_error(record: Record, joints: np.ndarray, turn: np.ndarray) -> dict[str, float]:
    """Degrees and mm; only what was told, and of the height where CMU's own z tells it."""
    skeleton_ = skeleton.get(record.identity.joint_skeleton)
    away = np.array([1.0, -2.0, 0.5])
    try:
        floor = ground.floor_of([joints @ turn.T + away], skeleton_, record.identity.fps)
    except ground.GroundError:
        return {}
    if floor.doubt:
        return {}
    up = (floor.rotation @ turn)[2]
    tilt = np.degrees(np.arccos(np.clip(up[2], -1, 1)))
    found = {"tilt": float(tilt), "deviation": float(np.degrees(floor.deviation))}
    if record.identity.clip.startswith(CAPTURED):
        under = np.nanmean(joints[:, skeleton_.root], axis=0) * [1, 1, 0]  # on CMU's floor
        there = ground.align(floor, turn @ under + away)
        found["height"] = 1000 * float(there[2])
    return found


def touches(clips: Clips, positions: Path) -> dict[str, dict[str, float]]:
    """By source of the joints, contacts that the tips of the toes have, too; z as it is."""
    segments = {segment["name"]: segment for segment in cmu.benchmark()["segments"]}
    counts: dict[str, np.ndarray] = {}
    with np.load(positions) as archive:
        for record, rows in clips:
            name = record.identity.clip
            if name.startswith(UNEVEN) or not name.startswith(CAPTURED):
                continue
            own = toes(archive[segments[name]["clip"]], segments[name])
            if own.mean() > STANDING:
                continue
            for source, joints in joints_by_source(record, rows):
                said = ground.contacts(joints, skeleton.get("h36m17"), record.identity.fps)
                cells = [(said & own).sum(), (said & ~own).sum(), (~said & own).sum()]
                counts[source] = counts.get(source, 0) + np.array([*cells, own.size])
    return {
        source: {
            "precision": float(both / (both + only_said)),
            "recall": float(both / (both + only_own)),
            "agreement": float(1 - (only_said + only_own) / size),
        }
        for source, (both, only_said, only_own, size) in counts.items()
    }


def toes(positions: np.ndarray, segment: dict[str, Any]) -> np.ndarray:
    """When the tips of a segment's toes are on the floor: `[frames, right and left]`."""
    rig = segment["clip"].split("/")[0]
    index = [cmu.rig_joints(rig).index(name) for name in TIPS[rig]]
    tips = positions[segment["start"] : segment["stop"], index].astype(np.float64)
    height = tips[..., 1]  # y up
    speed = np.linalg.norm(np.gradient(tips, 1 / 30, axis=0), axis=-1)
    return (height < np.percentile(height, 5) + 0.04) & (speed < 0.3)


def text(table: dict[str, dict[str, Any]]) -> str:
    """A table to read."""
    columns = list(dict.fromkeys(column for own in table.values() for column in own))
    lines = [f"  {'':38}" + "".join(f"{column:>14}" for column in columns)]
    for name, own in table.items():
        cells = [f"{own[c]:>14.3g}" if c in own else f"{'-':>14}" for c in columns]
        lines.append(f"  {name:38}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smoothing")
    parser.add_argument("--data", type=Path, help="a prepared data set; default: synthetic people")
    parser.add_argument("--positions", type=Path, help="CMU-MV's source, for the contacts")
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--views", nargs="+", type=int, default=[4, 2])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # of short stretches, in every clip and setting
    started = time.monotonic()
    try:
        records = load(args.data, args.splits, args.quick)
        learn = records if args.data is None else load(args.data, ["validation"], args.quick)
    except UserError as error:
        sys.exit(str(error))
    if args.quick:
        records, learn, args.views = records[:2], learn[:2], args.views[:1]
    most = records[0].clip.observations.confidence.shape[1]
    result: dict[str, Any] = {"clips": len(records)}
    for views in dict.fromkeys(min(v, most) for v in args.views):
        clips = reconstructed(records, views)
        tables = {"filters": filters(reconstructed(learn, views), clips), "floor": floors(clips)}
        if args.positions:
            tables["contacts"] = touches(clips, args.positions)
        for name, table in tables.items():
            print(f"{name}, {views} views\n{text(table)}", flush=True)
        result[f"{views} views"] = tables
    print(json.dumps({**result, "wall_s": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
