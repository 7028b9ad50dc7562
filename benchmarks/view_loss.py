"""A view is lost for a while: of two that film a clip, one sees nothing in its middle third.

    python -m benchmarks.view_loss --data data/cmu_mv_v1 --workdirs runs/typical_0 runs/typical_1
        runs/typical_2 [--out runs/view_loss] [--quick]

`--workdirs` are trained lifters, alike but for their seeds. The test splits have the noise
`typical`, all but two views of a clip are lost for all of it. Rows: geometry of whole clips
(`references`), and what it says with a lifter beside it (`offsets`). Absolute error of all joints
in mm, of all frames and of those that one view alone sees. Leaves `view_loss.png`: the error over
the clip. Ends with one line of JSON. `--quick`: a lifter of a few steps, of synthetic people.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks import quick
from benchmarks.noise_study import lifter
from pose3d_jax import adapt, compiled, evaluate, noise, offsets, references
from pose3d_jax.data import poses, windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.viewer import figures

ROWS = ("smooth", "smooth_bones")
ADAPTED = "adapted"
_BINS = 30  # of a clip's length, in the figure


def noisy(data: Path, split: str) -> PoseData:
    """A split under the noise `typical`, two views of each clip left."""
    views = poses.load([data], split).poses.observations.confidence.shape[1]
    left = dataclasses.replace(noise.preset("typical"), lost_views=views - 2)
    return poses.load([data], split, noise=left)


def lose(data: PoseData) -> PoseData:
    """The second of the views that see each clip sees nothing in its middle third."""
    observations = data.poses.observations
    keypoints, confidence = (np.array(x) for x in (observations.keypoints, observations.confidence))
    for clip in windows.clips(data.poses):
        inside = slice(clip.start, clip.stop)
        second = np.flatnonzero(confidence[inside].any(axis=(0, 2)))[1]
        third = slice(clip.start + len(clip) // 3, clip.start + 2 * len(clip) // 3)
        keypoints[third, second] = confidence[third, second] = 0.0
    shown = dataclasses.replace(
        observations, keypoints=jnp.asarray(keypoints), confidence=jnp.asarray(confidence)
    )
    return dataclasses.replace(data, poses=dataclasses.replace(data.poses, observations=shown))


def measure(
    data: Path, splits: list[str], runs: list[evaluate.Restored]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Errors by row `[frames]`, m (adapted: `[lifters, frames]`); when; who is lost."""
    errors: dict[str, list[np.ndarray]] = {row: [] for row in (*ROWS, ADAPTED)}
    times, lost = [], []
    bodies = [adapt.body_under(run, noise.preset("typical")) for run in runs]
    for split in splits:
        seen = lose(noisy(data, split))
        truth = np.asarray(seen.poses.labels.joints)
        for row, estimate in references.reconstruct_split(seen, ROWS).items():
            errors[row].append(_of_frames(estimate.joints, truth))
        found = []
        for run, body in zip(runs, bodies, strict=True):
            predicted = evaluate.predict(run, seen)
            world = offsets.adapt_split(seen, predicted, body, offsets.Settings())[1]
            found.append(_of_frames(world.joints, truth))
        errors[ADAPTED].append(np.stack(found))
        for clip in windows.clips(seen.poses):
            when = np.arange(len(clip)) / len(clip)
            times.append(when)
            frame = np.arange(len(clip))
            lost.append((frame >= len(clip) // 3) & (frame < 2 * len(clip) // 3))
    joined = {row: np.concatenate(parts, axis=-1) for row, parts in errors.items()}
    return joined, np.concatenate(times), np.concatenate(lost)


def _of_frames(joints: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.linalg.norm(joints - truth, axis=-1).mean(axis=-1)


def draw(errors: dict[str, np.ndarray], times: np.ndarray) -> Figure:
    """The mean error of the frames of each part of a clip; a band from lifter to lifter."""
    figure = Figure(figsize=(6.5, 3.4), layout="constrained")
    axes = figure.subplots()
    colours = figures.palette(errors)
    part = np.minimum((times * _BINS).astype(int), _BINS - 1)
    there = np.unique(part)  # short clips have no frame in some
    at = (there + 0.5) / _BINS
    for row, each in errors.items():
        lines = np.array(
            [[own[part == p].mean() for p in there] for own in 1000 * np.atleast_2d(each)]
        )
        axes.plot(at, lines.mean(axis=0), color=colours[row], label=row.replace("_", " + "))
        axes.fill_between(at, lines.min(axis=0), lines.max(axis=0), color=colours[row], alpha=0.2)
    axes.axvspan(1 / 3, 2 / 3, color=figures.GREY, alpha=0.12, lw=0)
    axes.set(xlabel="time in the clip", ylabel="error of all joints, mm", yscale="log", xlim=(0, 1))
    axes.set_title("one of two views sees nothing in the middle third", loc="left")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.view_loss")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--workdirs", nargs="+", type=Path)
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--out", type=Path, default=Path("runs/view_loss"))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    compiled.keep()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as aside:
        if given.quick:
            given.data, *given.workdirs = quick.lifter(Path(aside))
            given.splits = ["test"]
        if not given.data or not given.workdirs:
            parser.error("give --data and --workdirs")
        try:
            runs = [lifter(run, given.data) for run in given.workdirs]
            errors, times, lost = measure(given.data, given.splits, runs)
        except UserError as error:
            sys.exit(f"error: {error}")
    given.out.mkdir(parents=True, exist_ok=True)
    picture = given.out / "view_loss.png"
    picture.write_bytes(figures.to_png(draw(errors, times)))
    rows = {
        row: {
            name: [round(1000 * float(x), 1) for x in np.atleast_2d(each)[:, chosen].mean(axis=-1)]
            for name, chosen in (("all", np.ones_like(lost)), ("one_view", lost))
        }
        for row, each in errors.items()
    }
    print(f"{'absolute, mm':16}{'all frames':>24}{'those of one view':>24}")
    for row, of in rows.items():
        print(f"{row:16}" + "".join(f"{' '.join(map(str, of[name])):>24}" for name in of))
    wall = round(time.monotonic() - started, 1)
    print(picture)
    print(json.dumps({"frames": len(times), "by": rows, "wall_s": wall}))


if __name__ == "__main__":
    main()
