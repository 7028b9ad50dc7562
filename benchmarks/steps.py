"""What more steps of each stage of adaptation are worth, and whether held-out keypoints say so.

    python -m benchmarks.steps poses --data data/cmu_mv_v1 --workdirs runs/typical_0 runs/typical_1
        runs/typical_2 [--splits validation] [--out runs/steps] [--quick]
    python -m benchmarks.steps cameras --data data/cmu_mv_v1
    python -m benchmarks.steps weights --data data/cmu_mv_v1 --workdirs runs/clean_0 runs/clean_1
        runs/clean_2

`poses`: clips under the noise `typical`, in all views and in two (`poses_2`), each solved with
several numbers of steps: the error of all joints with all keypoints (mm), that with a tenth of them
hidden, and how far the hidden ones are from what is found (pixels, an outlier's at most 100).
`chosen` is what stopping each clip where hidden keypoints are best would give, with all keypoints,
`least` what stopping it where the truth is best would.
`cameras`: the same of `benchmarks.cameras`' disturbed calibrations, the steps being those of each
of three passes, after one similarity alignment. `weights`: the absolute error of lifters whose
weights were adapted for so many epochs, keypoints being exact. Means over clips and lifters.
`--out` has a figure of each stage. Ends with one line of JSON. `--quick`: a lifter of a few steps,
of synthetic people.
"""

import argparse
import dataclasses
import functools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks import cameras as disturbed
from benchmarks import quick
from benchmarks.noise_study import lifter
from benchmarks.view_loss import noisy
from pose3d_jax import (
    adapt,
    bundle,
    checkpoint,
    compiled,
    evaluate,
    noise,
    offsets,
    references,
    residuals,
    rigs,
    weights,
)
from pose3d_jax.config import complete
from pose3d_jax.data import poses, windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Observations
from pose3d_jax.viewer import figures

STEPS = {
    "poses": (1, 2, 3, 5, 7, 10, 15),
    "cameras": (1, 3, 10, 30),
    "weights": (0, 1, 3, 10, 30),
}
HIDDEN = 0.1  # of the keypoints
_LABELS = {"all": "error, mm", "shown": "with a tenth hidden, mm", "hidden_px": "of the hidden, px"}
# A clip's errors in mm, with all keypoints and without the hidden ones, and how far those are, px.
Curve = dict[str, Float[np.ndarray, "clips steps"]]


def of_poses(run: evaluate.Restored, data: PoseData, steps: tuple[int, ...]) -> Curve:
    """Of the stage `poses`, with this lifter."""
    shown, hidden = _without_some(data)
    body = adapt.body_under(run, noise.preset("typical"))
    lifted = [evaluate.predict(run, seen) for seen in (data, shown)]
    truth = np.asarray(data.poses.labels.joints)
    clips = windows.clips(data.poses)

    def errors(found: Float[np.ndarray, "frames joints 3"]) -> list[float]:
        away = 1000 * np.linalg.norm(found - truth, axis=-1).mean(axis=-1)
        return [away[clip.start : clip.stop].mean() for clip in clips]

    curve: dict[str, list[list[float]]] = {"all": [], "shown": [], "hidden_px": []}
    for count in steps:
        settings = offsets.Settings(steps=count)
        whole, part = (
            offsets.adapt_split(seen, said, body, settings)[1].joints
            for seen, said in zip((data, shown), lifted, strict=True)
        )
        curve["all"].append(errors(whole))
        curve["shown"].append(errors(part))
        each = ((own, part[at.start : at.stop], hid) for at, own, hid in _clips(data, hidden))
        curve["hidden_px"].append([missed(*one) for one in each])
    return {name: np.array(values).T for name, values in curve.items()}


def of_cameras(data: PoseData, steps: tuple[int, ...]) -> Curve:
    """Of the stage `cameras`, each clip being a recording of its own; see `benchmarks.cameras`."""
    shown, hidden = _without_some(data)
    truth, skeleton = np.asarray(data.poses.labels.joints), data.keypoint_skeleton
    names = [identity.clip for identity in windows.identities(data)]
    curve: dict[str, list[list[float]]] = {"all": [], "shown": [], "hidden_px": []}
    pairs = zip(names, _clips(data, hidden), _clips(shown, hidden), strict=True)
    for name, (at, whole, hid), (_, part, _) in pairs:
        moved = disturbed.disturbance(name, 0, whole.confidence.shape[1])
        whole, part = (disturbed.moved_by(seen, moved) for seen in (whole, part))
        rows: dict[str, list[float]] = {column: [] for column in curve}
        for count in steps:
            for column, seen in (("all", whole), ("shown", part)):
                found = bundle.corrections_of([seen], skeleton, rigs.Doubt(), count)
                mended = disturbed.moved_by(seen, found)
                joints = references.reconstruct(mended, skeleton, ("smooth_bones",))
                world = joints["smooth_bones"].joints
                rows[column].append(disturbed.aligned(world, truth[at.start : at.stop]))
            rows["hidden_px"].append(missed(disturbed.moved_by(whole, found), world, hid))
        for column, values in rows.items():
            curve[column].append(values)
    return {name: np.array(values) for name, values in curve.items()}


def of_weights(workdir: Path, data: Path, splits: list[str], epochs: int) -> dict[str, float]:
    """By split: the absolute error, mm, of a lifter whose weights were adapted for so long."""
    config = complete(checkpoint.read_metadata(workdir)["config"])
    config["data"]["path"] = [str(data)]
    config["evaluation"] |= {"noise": "clean", "references": [], "test": splits}
    config["evaluation"]["fit"]["on"] = False
    length = {"length_steps": None, "length_epochs": epochs or None}
    config["adaptation"] |= {"stages": ["weights"], **length}
    with tempfile.TemporaryDirectory() as aside:
        run = Path(aside) / "run"
        shutil.copytree(workdir, run, ignore=shutil.ignore_patterns("adapted*", "profile"))
        found = adapt.run(run, config) if epochs else evaluate.run(run, config)
    name = config["method"]["name"] + ("_adapted_shared" if epochs else "")
    return {
        split: 1000 * own["rows"][name]["absolute"]["frames"]
        for split, own in found["splits"].items()
    }


def missed(
    observations: Observations,
    joints: Float[np.ndarray, "frames joints 3"],
    hidden: Bool[np.ndarray, "frames views joints"],
) -> float:
    """How far hidden keypoints are from these joints, pixels: the mean, an outlier's at most."""
    off = np.asarray(residuals.reprojections(observations, jnp.asarray(joints))[0])
    away = np.minimum(np.linalg.norm(off, axis=-1), residuals.OUTLIER_PX)
    there = hidden & (np.asarray(observations.confidence) > 0)
    return float(away[there].mean())


def _without_some(data: PoseData) -> tuple[PoseData, Bool[np.ndarray, "frames views joints"]]:
    shown, hidden = weights.hide(data.poses, HIDDEN)
    assert hidden is not None
    return dataclasses.replace(data, poses=shown), np.asarray(hidden)


def _clips(data: PoseData, hidden: np.ndarray) -> Iterator[tuple[range, Observations, np.ndarray]]:
    """Each clip's frames, what was seen in them, and what was hidden."""
    for clip in windows.clips(data.poses):
        at = slice(clip.start, clip.stop)
        cut = functools.partial(_rows, at=at)
        yield clip, jax.tree.map(cut, data.poses.observations), hidden[at]


def _rows(x: Any, at: slice) -> np.ndarray:
    return np.asarray(x[at])


def table_of(curves: list[Curve], steps: tuple[int, ...]) -> dict[str, Any]:
    """Means over clips and lifters by steps, and what stopping by the hidden keypoints gives."""
    joined = {name: np.concatenate([curve[name] for curve in curves]) for name in curves[0]}
    best = joined["hidden_px"].argmin(axis=1)
    chosen = np.take_along_axis(joined["all"], best[:, None], axis=1)
    rows = {name: values.mean(axis=0).tolist() for name, values in joined.items()}
    least = joined["all"].min(axis=1)
    stopped = {"chosen": float(chosen.mean()), "least": float(least.mean())}
    return {"steps": list(steps), **rows, **stopped}


def draw(steps: list[int], lines: dict[str, list[float]], title: str, unit: str) -> Figure:
    """Errors over steps, and how far hidden keypoints are."""
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    colours = figures.palette(lines)
    for label, values in lines.items():
        axes.plot(steps, values, "o-", ms=3, color=colours[label], label=label)
    axes.set(xlabel=unit, yscale="log", xscale="symlog" if 0 in steps else "log")
    axes.set_xticks(steps, [str(x) for x in steps])
    axes.set_xlim(left=-0.2 if 0 in steps else None)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_title(title, loc="left")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    return figure


def pictures(stage: str, tables: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    """One of each table; of the weights one of all splits."""
    if stage == "weights":
        lines = {split: table["all"] for split, table in tables.items()}
        steps = next(iter(tables.values()))["steps"]
        return {stage: draw(steps, lines, "absolute error, mm, of adapted weights", "epochs")}
    return {
        name: draw(
            table["steps"],
            {label: table[row] for row, label in _LABELS.items()},
            name.replace("_2", ", two views"),
            "steps" if stage == "poses" else "steps of each pass",
        )
        for name, table in tables.items()
    }


def measure(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The tables of a stage: of `poses` by views, of `weights` by split."""
    steps = STEPS[given.stage][:2] if given.quick else STEPS[given.stage]
    if given.stage == "weights":
        each = [
            [of_weights(run, given.data, given.splits, count) for count in steps]
            for run in given.workdirs
        ]
        found = {split: np.array([[x[split] for x in row] for row in each]) for split in each[0][0]}
        return {
            split: {"steps": list(steps), "all": errors.mean(axis=0).tolist()}
            | {"lifters": errors.tolist()}
            for split, errors in found.items()
        }
    if given.stage == "cameras":
        mild = noise.preset("mild")
        loaded = [poses.load([given.data], split, noise=mild) for split in given.splits]
        return {"cameras": table_of([of_cameras(data, steps) for data in loaded], steps)}
    runs = [lifter(run, given.data) for run in given.workdirs]
    tables = {}
    for name, lost in (("poses", False), ("poses_2", True)):
        loaded = [
            noisy(given.data, split)
            if lost
            else poses.load([given.data], split, noise=noise.preset("typical"))
            for split in given.splits
        ]
        curves = [of_poses(run, data, steps) for run in runs for data in loaded]
        tables[name] = table_of(curves, steps)
    return tables


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps")
    parser.add_argument("stage", choices=STEPS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--workdirs", nargs="+", type=Path, default=[])
    parser.add_argument("--splits", nargs="+", default=["validation"])
    parser.add_argument("--out", type=Path, default=Path("runs/steps"))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    compiled.keep()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as aside:
        if given.quick:
            given.data, *given.workdirs = quick.lifter(Path(aside))
        if not given.data or (given.stage != "cameras" and not given.workdirs):
            parser.error("give --data, and --workdirs of lifters for weights and poses")
        try:
            tables = measure(given)
        except UserError as error:
            sys.exit(f"error: {error}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures(given.stage, tables).items():
        (given.out / f"{name}.png").write_bytes(figures.to_png(figure))
    for name, table in tables.items():
        print(f"{name}, {given.out}")
        for row, values in table.items():
            lines = values if row == "lifters" else [values]
            for line in lines:
                shown = line if isinstance(line, list) else [line]
                print(f"  {row:12}" + "".join(f"{x:10.4g}" for x in shown))
    wall = round(time.monotonic() - started, 1)
    print(json.dumps({"stage": given.stage, "tables": tables, "wall_s": wall}))


if __name__ == "__main__":
    main()
