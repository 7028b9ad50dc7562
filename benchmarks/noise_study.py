"""What plain geometry makes of noisy keypoints: every row, preset and number of views.

    python -m benchmarks.noise_study --data data/cmu_mv_v1 --out runs/noise_study
        [--workdirs RUN ...] [--settings typical ...]

Reconstructs the test splits of a prepared data set with every row of `references`, under every
preset of `noise`, with all, one fewer and two views, and sets the limits of Cramer and Rao beside
them. Leaves `noise_study.json` and `noise_study.png`. Errors are absolute, in millimetres, a mean
over frames and joints: (a) joints that two views or more see, (b) all joints. Ends with one line of
JSON. `--quick` takes a few short clips of synthetic people instead.

`--workdirs` are trained lifters of the data, alike but for their seeds: their poses, adapted to the
same observations (`offsets`), are the row `adapted`, its figures means over the lifters, its ratios
to other rows with 95 % intervals (a bootstrap over clips of the mean over the lifters).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from scipy import stats
from tqdm import tqdm

from data_prep import synthetic
from pose3d_jax import (
    adapt,
    checkpoint,
    evaluate,
    limits,
    metrics,
    noise,
    offsets,
    references,
    scoring,
    skeleton,
)
from pose3d_jax.config import complete
from pose3d_jax.data import poses, windows
from pose3d_jax.errors import UserError
from pose3d_jax.fitting import Body
from pose3d_jax.noise import Noise
from pose3d_jax.references import Estimate
from pose3d_jax.schema import Observations, Record
from pose3d_jax.viewer import figures
from pose3d_jax.workdir import write_text

INDEPENDENT = "typical, independent"
LEVELS = (0.5, 0.8, 0.95)
_PER_FRAME = jax.jit(limits.per_frame)
_WITH_PRIORS = jax.jit(limits.with_priors, static_argnums=4)


def settings() -> dict[str, Noise]:
    """The presets, and the typical one with noise that is independent in time."""
    independent = {**vars(noise.preset("typical")), "correlation": 0.0}
    return {**noise.PRESETS, INDEPENDENT: Noise(**independent)}


ADAPTED = "adapted"
_RIVALS = ("smooth", "smooth_bones")
_RESAMPLES = 2000


def study(
    records: list[Record],
    setting: Noise,
    seed: int,
    lifters: Sequence[tuple[evaluate.Restored, Body]] = (),
    splits: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Every row's figures, and the limits', under one setting.

    `lifters`, with how far each errs under that noise, are those whose poses are adapted; the
    records are then those of the `splits`.
    """
    skeleton_ = skeleton.get(records[0].identity.keypoint_skeleton)
    observed = [noise.corrupt_record(record, setting, seed).clip.observations for record in records]
    parts: dict[str, list[dict[str, np.ndarray]]] = {row: [] for row in references.ROWS}
    found = references.reconstruct_all(observed, skeleton_)
    for record, observations, rows in zip(records, observed, found, strict=True):
        for row, estimate in rows.items():
            parts[row].append(figures_of(record, observations, estimate))
    result: dict[str, dict[str, Any]] = {row: summary(clips) for row, clips in parts.items()}
    found_by = []
    for run, body in lifters:
        estimates = adapted(run, body, records, observed, setting, splits)
        found_by.append(
            [figures_of(*of_clip) for of_clip in zip(records, observed, estimates, strict=True)]
        )
    if found_by:
        each = [summary(clips) for clips in found_by]
        result[ADAPTED] = {
            **{name: float(np.mean([own[name] for own in each])) for name in each[0]},
            "b_by_lifter": [own["b"] for own in each],
            **{f"over_{row}": ratio(found_by, parts[row]) for row in _RIVALS},
        }
    if setting.sigma_px:
        result |= bounds(records, observed, setting)
    return result


def adapted(
    run: evaluate.Restored,
    body: Body,
    records: list[Record],
    observed: list[Observations],
    setting: Noise,
    splits: Sequence[str],
) -> Iterator[Estimate]:
    """World joints of each record, from what a lifter says of the same observations."""
    lifted: list[np.ndarray] = []
    for split in splits:
        data = poses.load(run.config["data"]["path"], split, noise=setting)
        joints = np.asarray(evaluate.predict(run, data).joints)
        clips = windows.clips(data.poses)
        seen = np.asarray(data.poses.observations.keypoints)
        for clip, own in zip(clips, observed[len(lifted) :], strict=False):
            np.testing.assert_array_equal(seen[clip.start : clip.stop], own.keypoints)
            lifted.append(joints[clip.start : clip.stop])
    rates = [record.identity.fps for record in records]
    skeleton_ = skeleton.get(records[0].identity.keypoint_skeleton)
    yield from offsets.adapt_clips(observed, lifted, rates, body, skeleton_, offsets.Settings())


def ratio(
    lifters: Sequence[list[dict[str, np.ndarray]]], others: list[dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Error of all joints over that of another row, and its interval over clips."""

    def sums(clips: list[dict[str, np.ndarray]]) -> np.ndarray:
        return np.array([_length(clip)[clip["valid"]].sum() for clip in clips])

    own, other = np.mean([sums(clips) for clips in lifters], axis=0), sums(others)

    def over(own: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
        return own.sum(axis=axis) / other.sum(axis=axis)

    interval = stats.bootstrap(
        (own, other), over, paired=True, n_resamples=_RESAMPLES, rng=np.random.default_rng(0)
    ).confidence_interval
    return {"ratio": float(over(own, other)), "interval": [float(x) for x in interval]}


def _length(clip: dict[str, np.ndarray]) -> np.ndarray:
    return np.linalg.norm(clip["error"], axis=-1)


def figures_of(
    record: Record, observations: Observations, estimate: Estimate
) -> dict[str, np.ndarray]:
    """One clip's errors by joint `[T, J, ...]`, and its motion's (sum, count)."""
    truth, valid = record.clip.labels.joints, record.clip.labels.joints_valid
    clip, fps = (
        (jnp.asarray(estimate.joints), jnp.asarray(truth), jnp.asarray(valid)),
        record.identity.fps,
    )
    motion = {
        "velocity": metrics.velocity_error(*clip, fps),
        "acceleration": metrics.acceleration_error(*clip, fps),
        "jitter": metrics.jitter(clip[0], clip[2], fps),
    }
    root = skeleton.get(record.identity.joint_skeleton).root
    error = estimate.joints - truth
    return {
        "error": error,
        "relative": error - error[:, [root]],
        "valid": valid > 0,
        "seen": (np.sum(observations.confidence > 0, axis=1) >= 2) & (valid > 0),
        **{name: np.asarray(value) for name, value in motion.items()},
        **({} if estimate.covariance is None else {"covariance": estimate.covariance}),
    }


def summary(clips: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Means over the frames and joints of all clips: millimetres, shares, and per second."""
    joined = {
        name: np.concatenate([clip[name] for clip in clips])
        for name in clips[0]
        if clips[0][name].ndim > 1
    }
    length = 1000 * np.linalg.norm(joined["error"], axis=-1)
    relative = 1000 * np.linalg.norm(joined["relative"], axis=-1)
    seen, valid = joined["seen"], joined["valid"]
    found = {
        "a": float(length[seen].mean()),
        "b": float(length[valid].mean()),
        "p1_b": float(relative[valid].mean()),
        "a_rms": float(np.sqrt((length[seen] ** 2).mean())),
        "a_share": float(seen.sum() / valid.sum()),
    }
    for name in ("velocity", "acceleration", "jitter"):
        total, count = np.sum([clip[name] for clip in clips], axis=0)
        found[name] = float(1000 * total / count)
    if "covariance" in joined:
        error, covariance = (joined[name][seen] for name in ("error", "covariance"))
        shares = scoring.coverage(error, covariance, LEVELS)
        calibration = metrics.calibration_error(
            jnp.asarray(error), jnp.asarray(covariance), jnp.ones(len(error))
        )
        found |= {**shares, "calibration_error": float(calibration)}
    return found


def bounds(
    records: list[Record], observed: list[Observations], setting: Noise
) -> dict[str, dict[str, float]]:
    """The limits' errors on joints of kind (a), where no keypoint that is seen is an outlier."""
    parts: dict[str, list[np.ndarray]] = {"limit_per_frame": [], "limit_with_priors": []}
    for record, observations in zip(records, observed, strict=True):
        truth = record.clip.labels.joints
        frames, sigma = len(truth), setting.sigma_px
        rho = setting.correlation ** (30 / record.identity.fps) if setting.correlation else 0.0
        seen = np.sum(observations.confidence > 0, axis=1) >= 2
        padded = -(-frames // 256) * 256
        index = np.minimum(np.arange(padded), frames - 1)
        inside = jnp.asarray(np.arange(padded) < frames, jnp.float32)
        clip, joints = jax.tree.map(lambda x, i=index: jnp.asarray(x[i]), (observations, truth))
        bones = skeleton.get(record.identity.joint_skeleton).bones
        for name, covariance in (
            ("limit_per_frame", _PER_FRAME(clip, joints, sigma)),
            ("limit_with_priors", _WITH_PRIORS(clip, inside, joints, sigma, bones, rho)),
        ):
            parts[name].append(np.asarray(covariance)[:frames][seen])
    return {name: _of_covariances(np.concatenate(found)) for name, found in parts.items()}


def _of_covariances(covariances: np.ndarray) -> dict[str, float]:
    """Mean length and root mean square of Gaussian errors, millimetres; the mean by fixed draws."""
    variances = np.maximum(np.linalg.eigvalsh(covariances.astype(np.float64)), 0.0)
    draws = np.random.default_rng(0).standard_normal((16, *variances.shape))
    length = np.sqrt((draws**2 * variances).sum(axis=-1))
    return {
        "a": float(1000 * length.mean()),
        "a_rms": float(1000 * np.sqrt(variances.sum(-1).mean())),
    }


def ratios(table: dict[str, Any], views: list[int]) -> dict[str, dict[str, Any]]:
    """`typical`, kind (b): error of one row over that of another, by number of views."""
    if "typical" not in table:
        return {}
    rows = {str(v): table["typical"][str(v)] for v in views}
    found = {
        "smooth_bones_over_robust": {
            v: round(of["smooth_bones"]["b"] / of["robust"]["b"], 3) for v, of in rows.items()
        }
    }
    if ADAPTED in table["typical"][str(views[0])]:
        for row in _RIVALS:
            named = {v: of[ADAPTED][f"over_{row}"] for v, of in rows.items()}
            found[f"{ADAPTED}_over_{row}"] = {v: round(of["ratio"], 3) for v, of in named.items()}
            found[f"{ADAPTED}_over_{row}_interval"] = {
                v: [round(x, 3) for x in of["interval"]] for v, of in named.items()
            }
    return found


def load(data: Path | None, splits: list[str], quick: bool) -> list[Record]:
    """The test splits' records; synthetic ones where no data is given."""
    if data is not None:
        return [record for split in splits for record in poses.read_split(data, split)]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "synthetic"
        synthetic.main(["--out", str(made), "--scale", "0.05" if quick else "1"])
        return poses.read_split(made, "test")


def lifter(workdir: Path, data: Path) -> evaluate.Restored:
    """A trained lifter, which the data's training split must have taught."""
    config = complete(checkpoint.read_metadata(workdir)["config"])
    config["data"]["path"] = [str(data)]
    return evaluate.restore(workdir, config)


def main() -> None:
    """Runs the study, leaves its files, and prints the tables and the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a prepared data set; default: synthetic people")
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--out", type=Path, default=Path("runs/noise_study"))
    parser.add_argument("--workdirs", type=Path, nargs="+", default=[], help="of trained lifters")
    parser.add_argument("--settings", nargs="+", choices=list(settings()), help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.workdirs and (arguments.data is None or arguments.seed or arguments.quick):
        parser.error("--workdirs needs --data, --seed 0 and not --quick")
    try:
        records = load(arguments.data, arguments.splits, arguments.quick)
        runs = [lifter(workdir, arguments.data) for workdir in arguments.workdirs]
    except UserError as error:
        sys.exit(str(error))
    if arguments.quick:
        records = records[:2]
    most = records[0].clip.observations.confidence.shape[1]
    views = list(range(most, 1, -1))
    chosen = settings()
    names = arguments.settings or (["clean", "typical"] if arguments.quick else list(chosen))
    chosen = {name: chosen[name] for name in names}
    started = time.monotonic()
    table: dict[str, Any] = {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    lifters: list[tuple[evaluate.Restored, Body]] = []
    with tqdm([(name, v) for name in chosen for v in views], desc="settings") as bar:
        for name, left in bar:
            if left == most:  # a new setting
                lifters = [(run, adapt.body_under(run, chosen[name])) for run in runs]
            setting = Noise(**{**vars(chosen[name]), "lost_views": most - left})
            found = study(records, setting, arguments.seed, lifters, arguments.splits)
            table.setdefault(name, {})[str(left)] = found
            bar.write(f"{name}, {left} views\n" + text(table[name][str(left)]))
    frames = sum(len(record.clip.labels.joints) for record in records)
    result = {
        "unit": "mm, mm/s, mm/s^2, mm/s^3", "data": str(arguments.data or "synthetic"),
        "splits": arguments.splits, "frames": frames, "seed": arguments.seed, "settings": table,
        "wall_s": round(time.monotonic() - started, 1),
    }  # fmt: skip
    write_text(arguments.out / "noise_study.json", json.dumps(result, indent=1))
    (arguments.out / "noise_study.png").write_bytes(figures.to_png(draw(table)))
    print(f"{arguments.out}/noise_study.json, {arguments.out}/noise_study.png")
    print(json.dumps({"frames": frames, **ratios(table, views)}))


def draw(table: dict[str, Any]) -> Figure:
    """Kind (b) of every row: a panel for each setting, a colour for each number of views."""
    columns = min(3, len(table) + 1)
    lines = -(-(len(table) + 1) // columns)
    figure = Figure(figsize=(4 * columns, 3.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    colours = figures.palette(next(iter(table.values())))
    for axes, (setting, by_views) in zip(panels, table.items(), strict=False):
        for views, rows in by_views.items():
            shown = [row for row in (*references.ROWS, ADAPTED) if row in rows]
            values = [max(rows[row]["b"], 1e-3) for row in shown]
            axes.plot(values, shown, "o", color=colours[views])
            if "limit_per_frame" in rows:
                axes.axvline(rows["limit_per_frame"]["a"], color=colours[views], lw=1, alpha=0.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_title(setting, loc="left")
        axes.set_xlabel("error of all joints, mm")
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    for axes in panels[len(table) :]:
        axes.axis("off")
    handles = [
        Line2D([], [], marker="o", ls="", color=c, label=f"{v} views") for v, c in colours.items()
    ]
    handles.append(
        Line2D([], [], color=figures.GREY, lw=1, label="limit of a frame, joints seen twice")
    )
    panels[-1].legend(handles=handles, loc="center", frameon=False)
    return figure


def text(rows: dict[str, dict[str, float]]) -> str:
    """One setting's rows as a table to read."""
    columns = ("a", "b", "coverage_80%", "calibration_error", "velocity", "jitter")
    lines = [f"  {'row':18}" + "".join(f"{column:>19}" for column in columns)]
    for row, values in rows.items():
        cells = [f"{values[c]:19.4g}" if c in values else f"{'-':>19}" for c in columns]
        lines.append(f"  {row:18}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
