"""Every way to lift one view, under one evaluator: rows of one table, a config each.

    python -m benchmarks.lifting --data data/cmu_mv_v1 --out runs/lifting [--rows vae ...]
        [--noise clean typical] [--splits test_seen test_unseen] [--seeds 1] [--root ROW] [--quick]

A row is trained as its config says, for each noise preset by itself (networks that are tested on
noisy points are trained on such), and scored view by view on the test splits; a run that is there
already, whole or cut, is taken up where it is. Rows that give hypotheses are calibrated on
validation, under the same noise, and measured on every tenth frame (`hypotheses.measure`; keys
`hypotheses_*`, those as they are drawn `hypotheses_raw_*`; of all joints, seen or not). Prints, per
preset and split, P1, P2, N-MPJPE and stress in mm (frames; a dash where a method knows no size),
and how far P2 is below that of the mean of the training poses, aligned with one another
(Procrustes); ends with one line of JSON: by preset, split and row.

`--root ROW` names a row that knows how far away people are (`root` is there for nothing else): all
others' poses are put there, and those without a size take it from there (`methods.root.placed`).
Two columns are added, `absolute`, and P1 then.
`--quick`: a few steps of the first of the rows, on `clean`.
"""

import argparse
import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from pose3d_jax import evaluate, factorize, hypotheses, scoring, train
from pose3d_jax.config import complete
from pose3d_jax.data.poses import PoseData
from pose3d_jax.geometry import similarity_align
from pose3d_jax.methods.base import Info
from pose3d_jax.methods.root import placed
from pose3d_jax.noise import preset
from pose3d_jax.schema import Prediction
from pose3d_jax.streams import read
from pose3d_jax.tables import millimetres


class Row(NamedTuple):
    """A config, its arguments but for the noise, and what it learns from.

    Without a config it is the classical factorisation of the test split itself.
    """

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
    "repnet": Row("cmu_repnet", "", "2D, unpaired 3D poses"),
    "kudo": Row("cmu_kudo", "", "2D of single views"),
    "chen": Row("cmu_chen", "", "2D of single views"),
    "c3dpo": Row("cmu_c3dpo", "", "2D of single views"),
    "factorisation": Row("", "", "2D of the test split, no training"),
    "distilled": Row("cmu_distilled", "", "2D of single views"),
    "root": Row("cmu_root", "", "3D labels (of the root)"),
}
SIZED = ("root", "supervised", "multiview", *(name for name in ROWS if name.startswith("vae")))
BASELINE = "mean of aligned poses"
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


def mean_of_aligned(data: PoseData, rounds: int = 10) -> Float[Array, "joints 3"]:
    """The generalised Procrustes mean of a split's labelled poses, of every tenth frame, metres.

    Gower, "Generalized Procrustes analysis" (Psychometrika 1975), with the size of the first.
    """
    labels = data.poses.labels
    whole = np.flatnonzero(np.asarray(labels.joints_valid).min(axis=-1) > 0)[::10]
    poses = jnp.asarray(labels.joints)[whole]
    weight = jnp.ones(poses.shape[1])

    @jax.jit
    def align(mean: Array) -> Array:
        moved = jax.vmap(similarity_align, in_axes=(0, None, None))(poses, mean, weight)
        return similarity_align(jnp.mean(moved, axis=0), mean, weight)

    mean = poses[0]
    for _ in range(rounds):
        mean = align(mean)
    return mean


def score(data: PoseData, joints: np.ndarray, space: str) -> dict[str, float | None]:
    """Means over frames of what a prediction in that space can be asked for, metres.

    Of the joints that evaluations count: those that two views see.
    """
    info = Info(data.keypoint_skeleton, data.joint_skeleton)
    predicted = Prediction(joints=joints, space=space)
    errors, mask = scoring.score(info, data, predicted, 512)
    found = errors["method"]
    return {
        name: float(found[name][mask].mean(dtype=np.float64)) if name in found else None
        for name in (*METRICS, "absolute")
    }


def with_root(
    restored: evaluate.Restored, data: PoseData, root: evaluate.Restored, root_data: PoseData
) -> dict[str, float | None]:
    """A row's errors, metres, where its poses are put where another row has the root."""
    index = restored.info.joint_skeleton.root
    there = jnp.asarray(evaluate.predict(root, root_data).joints)[..., index, :]
    own = evaluate.predict(restored, data)
    joints = np.asarray(placed(jnp.asarray(own.joints), there, index, own.space))
    found = score(data, joints, "absolute")
    return {"placed_p1": found["p1"], "placed_absolute": found["absolute"]}


def factorised(data: PoseData, quick: bool) -> dict[str, float | None]:
    """Errors of the classical factorisation: no training, the split's own 2D points."""
    started = time.monotonic()
    observations = jax.tree.map(np.asarray, data.poses.observations)
    joints = factorize.reconstruct(observations, iterations=2 if quick else 60)
    minutes = (time.monotonic() - started) / 60
    return {**score(data, joints, "up_to_scale"), "minutes": minutes}


def hypotheses_of(restored: evaluate.Restored, quick: bool) -> dict[str, dict[str, float]]:
    """By split, what `hypotheses.measure` says; nothing for a method that gives none."""
    example = next(iter(restored.splits.values())).poses.take(jnp.zeros(1, jnp.int32))
    key = jax.random.key(0)
    given = jax.eval_shape(restored.method.predict, restored.variables, example.observations, key)
    if given.samples is None:
        return {}
    common = {"stride": 200 if quick else STRIDE, "window": evaluate.settings_of(restored).window}
    of = (restored.method, restored.info, restored.variables)
    config = restored.metadata["config"]
    evaluation = config["evaluation"]
    recordings, noise = restored.info.recordings, preset(evaluation["noise"])
    validation = read(config, evaluation["validation"], recordings=recordings, noise=noise)
    scale = hypotheses.calibration(*of, validation, **common)
    found = {}
    for split, data in restored.splits.items():
        raw = hypotheses.measure(*of, data, **common)
        values = {
            "scale": scale,
            "raw_best_p1": raw["best_p1"],
            "raw_gaussian_p1": raw["gaussian_p1"],
            "raw_coverage_80": raw["coverage_80"],
            **hypotheses.measure(*of, data, scale=scale, **common),
        }
        found[split] = {f"hypotheses_{name}": value for name, value in values.items()}
    return found


def run(
    rows: list[str], noise: str, splits: list[str], data: str, out: Path, seeds: int, root: str,
    quick: bool,
) -> dict[str, Any]:  # fmt: skip
    """By split and row, the row's means over the seeds, metres."""

    def trained(name: str, seed: int) -> tuple[evaluate.Restored, dict[str, Any]]:
        label = "".join(c if c.isalnum() else "_" for c in name)
        workdir = out / noise / label / str(seed)
        metrics = train.run(config_of(ROWS[name], data, noise, splits, seed, quick), workdir)
        return evaluate.restore(workdir), metrics

    config = complete(config_of(ROWS["multiview"], data, noise, splits, 0, quick))
    whole = {split: read(config, split, noise=preset(noise)) for split in splits}
    mean = mean_of_aligned(read(config, "train"))
    found: dict[str, Any] = {}
    for split, frames in whole.items():
        shape = (*frames.poses.observations.confidence.shape[:2], *mean.shape)
        everywhere = np.broadcast_to(np.asarray(mean), shape)
        found[split] = {BASELINE: score(frames, everywhere, "up_to_scale")}
    placing = trained(root, 0)[0] if root else None
    for name in rows:
        if not ROWS[name].config:
            for split, frames in whole.items():
                found[split][name] = factorised(frames, quick)
            continue
        per_seed = []
        for seed in range(seeds):
            restored, metrics = trained(name, seed)
            many = hypotheses_of(restored, quick)
            own: dict[str, dict[str, float | None]] = {}
            for split, frames in restored.splits.items():
                errors = metrics["splits"][split]["rows"][metrics["method"]]
                own[split] = {key: errors[key]["frames"] for key in (*METRICS, "absolute")}
                own[split] |= many.get(split, {})
                own[split]["minutes"] = metrics["wall_s"] / 60
                if placing is not None:
                    own[split] |= with_root(restored, frames, placing, placing.splits[split])
            per_seed.append(own)
        for split in splits:
            found[split][name] = _means([own[split] for own in per_seed])
    return found


def _means(seeds: list[dict[str, float | None]]) -> dict[str, Any]:
    """Over the seeds, and the least and the most of P2."""
    means = {
        key: None if value is None else float(np.mean([of[key] for of in seeds]))  # type: ignore[arg-type]
        for key, value in seeds[0].items()
    }
    return {**means, "p2_seeds": [of["p2"] for of in seeds]}


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
        if "placed_p1" in errors:
            source += f"; placed: P1 {millimetres(errors['placed_p1'])}"
            source += f", absolute {millimetres(errors['placed_absolute'])}"
        lines.append(f"{name:<22}{cells}{below:>8}  {source}")
    for name, errors in found.items():
        if "hypotheses_p1" in errors:
            start = len("hypotheses_")
            own = {key[start:]: errors[key] for key in errors if key.startswith("hypotheses_")}
            lines.append(f"{name}: " + _said(own))
    return "\n".join(lines)


def _said(errors: Mapping[str, float]) -> str:
    """What is known of hypotheses, in words."""
    mm = {key: millimetres(errors[key]) for key in errors if "p1" in key or "best_p2" in key}
    return (
        f"P1 of the mean {mm['p1']}, of one hypothesis {mm['typical_p1']}, of the best "
        f"{mm['best_p1']} (P2 {mm['best_p2']}; of a Gaussian of the same covariance "
        f"{mm['gaussian_p1']}); NLL {errors['nll']:.2f} nats a joint; in the 80 % ellipsoids "
        f"{100 * errors['coverage_80']:.0f} % (scale {errors['scale']:.2f}; at 1 "
        f"{mm['raw_best_p1']}, {mm['raw_gaussian_p1']}, {100 * errors['raw_coverage_80']:.0f} %); "
        f"reprojection {errors['reprojection_px']:.2f} px"
    )


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lifting")
    parser.add_argument("--data", default="data/cmu_mv_v1", help="CMU-MV v1, prepared")
    parser.add_argument("--out", type=Path, default=Path("runs/lifting"))
    parser.add_argument("--rows", nargs="+", default=[name for name in ROWS if name != "root"])
    parser.add_argument("--noise", nargs="+", default=["clean", "typical"])
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few steps of the first row")
    parser.add_argument("--root", default="", metavar="ROW", help="where to put all poses")
    args = parser.parse_args()
    unknown = sorted({*args.rows, *([args.root] if args.root else [])} - set(ROWS))
    if unknown:
        parser.error(f"no row is named {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if args.root and args.root not in SIZED:
        parser.error(f"{args.root} does not know where people are; {', '.join(SIZED)} do")
    if args.quick:
        args.rows, args.noise = args.rows[:1], args.noise[:1]
    found = {
        noise: run(
            args.rows, noise, args.splits, args.data, args.out, args.seeds, args.root, args.quick
        )
        for noise in args.noise
    }
    for noise, by_split in found.items():
        for split, rows in by_split.items():
            print(f"\n{noise}, {split}\n{table(rows)}")
    print(json.dumps({"lifting": found}))


if __name__ == "__main__":
    main()
