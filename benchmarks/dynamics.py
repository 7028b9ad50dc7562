"""A body, its past and its future: the tables of "Learning 3D Human Dynamics from Video".

    python -m benchmarks.dynamics --data data/body_cmu_v1 --body data/open_body.npz
        --out runs/dynamics [--rows temporal "single frame" ...] [--splits test_seen test_unseen]
        [--noise typical] [--seeds 1] [--steps 0] [--other_code] [--quick]

A row is trained as `configs/body_cmu.py` says for its argument, temporal ones from the weights of
the single frame's network (*trained on*: this one from its own, as the temporal ones and for about
as long); a run that is there already, whole or cut, is taken up where it is. Three tables, of
keypoints under the preset:

1. *Now*: MPJPE, PA-MPJPE (mm), acceleration error (m/s^2; published in mm per squared frame, 1.11
   times as much at 30 frames per second), 2D PCK@0.05 and acceleration error in pixels per squared
   frame (both against where the true joints are seen; of a set without 3D, against its keypoints).
   With a One-Euro filter of the single frame's poses, whose settings are the best on validation in
   MPJPE and acceleration (the sum of both in shares of the unfiltered).
2. *The mesh*: mean distance of vertices, mm, posed (about the root) and unposed (shape alone), of
   every tenth frame.
3. *One frame*: PA-MPJPE of the poses 0.2 s before, now and 0.2 s after, from the hallucinator;
   beside it *constant* (the present pose for all three) and *nearest* (the training pose nearest to
   the true present one, turned to face the same way, with what came before and after it there:
   it is told the truth of the present).

Frames of a view that shows fewer than 6 keypoints do not count. Ends with one line of JSON.
`--quick`: a few steps of small networks.
"""

import argparse
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.body_measures import in_2d, mesh_errors, now_of, one_frame, smoothed
from configs import body_cmu
from pose3d_jax import body as bodies
from pose3d_jax import evaluate, meshes, train
from pose3d_jax.errors import UserError
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.noise import preset
from pose3d_jax.streams import read

SINGLE = "single frame"
# Arguments of the config, and the row whose weights training begins with.
ROWS: dict[str, tuple[str, str]] = {
    SINGLE: ("single", ""),
    "single frame, trained on": ("single,on", SINGLE),
    "temporal": ("", SINGLE),
    "without dynamics": ("still", SINGLE),
    "without constant shape": ("loose", SINGLE),
}
for _share in ("0", "25", "50"):
    _row = f"single frame, pseudo-truth {_share} %"
    ROWS[_row] = (f"single,pseudo={_share}", "")
    ROWS[f"temporal, pseudo-truth {_share} %"] = (f"pseudo={_share}", _row)


def trained(
    name: str, args: argparse.Namespace, seed: int
) -> tuple[evaluate.Restored, dict[str, Any]]:
    """A row's run, and its evaluation; what it begins with is trained first."""
    given, base = ROWS[name]
    words = [word for word in (given, "tiny" if args.quick else "") if word]
    config = body_cmu.get_config(",".join(words))
    config.data.path, config.method.body, config.seed = args.data, args.body, seed
    if args.steps:
        config.phases[0]["length_steps"] = args.steps
    with config.ignore_type():
        config.evaluation.test = tuple(args.splits)
        config.evaluation.noise = args.noise
    if base:
        if (base, seed) not in args.done:
            trained(base, args, seed)
        config.init.workdir = str(workdir_of(base, args, seed))
    workdir = workdir_of(name, args, seed)
    found = train.run(config, workdir, other_code=args.other_code)
    args.done.add((name, seed))
    return evaluate.restore(workdir), found


def workdir_of(name: str, args: argparse.Namespace, seed: int) -> Path:
    """Of a row's run."""
    label = "".join(c if c.isalnum() else "_" for c in name)
    return Path(args.out / label / str(seed))


def best_filter(restored: evaluate.Restored) -> dict[str, float]:
    """Settings of the filter that are best on validation: see the docstring above."""
    config = restored.config
    evaluation = config["evaluation"]
    data = read(
        config,
        evaluation["validation"],
        recordings=restored.info.recordings,
        noise=preset(evaluation["noise"]),
    )
    joints = np.asarray(evaluate.predict(restored, data).joints)
    plain = now_of(joints, data)
    scores = {}
    for cutoff in (0.5, 1.0, 2.0, 4.0):
        for beta in (0.0, 0.3, 1.0, 3.0):
            found = now_of(smoothed(joints, data, cutoff=cutoff, beta=beta), data)
            parts = [found[name] / plain[name] for name in ("p1", "acceleration")]
            scores[cutoff, beta] = sum(parts)
    cutoff, beta = min(scores, key=lambda key: scores[key])
    return {"cutoff": cutoff, "beta": beta}


# ---------------------------------------------------------------------------------------- the rows


def run(args: argparse.Namespace) -> dict[str, Any]:
    """By split and row, what the tables show; means over the seeds."""
    found: dict[str, Any] = {split: {} for split in args.splits}
    for name in args.rows:
        seeds = [measured(*trained(name, args, seed)) for seed in range(args.seeds)]
        for split in args.splits:
            several = [own[split] for own in seeds]
            found[split][name] = jax.tree.map(lambda *x: float(np.mean(x)), *several)
            found[split][name]["seeds"] = several
    return found


def measured(restored: evaluate.Restored, said: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By split, what the tables show of one run."""
    method, config = restored.method, restored.config
    assert isinstance(method, HMMR)
    learnt = read(config, config["streams"]["main"]["split"])
    settings = None if method.temporal else best_filter(restored)
    say = functools.partial(meshes.said_of, method, restored.variables)
    whole = bodies.load(method.body)
    found = {}
    for split, data in restored.splits.items():
        joints = np.asarray(evaluate.predict(restored, data).joints)
        own: dict[str, Any] = {
            "minutes": said["wall_s"] / 60,
            **in_2d(joints, data, read(config, split)),
        }
        if np.any(data.poses.labels.joints_valid):
            own |= now_of(joints, data)
            if settings:
                own["one_euro"] = settings | now_of(smoothed(joints, data, **settings), data)
            if method.temporal and method.around:
                alone = say(data, alone=True)
                own["one_frame"] = one_frame(alone, data, learnt, method.step)
        body = data.poses.labels.body
        if body is not None and np.any(body.valid):
            own["mesh"] = mesh_errors(whole, say(data), data)
        found[split] = own
    return found


def table(rows: Mapping[str, Any]) -> str:
    """One split's three tables, as text; a dash where a set has no 3D to compare with."""
    heads = ("MPJPE", "PA", "accel", "PCK, %", "px", "mesh", "unposed")

    def line(name: str, *values: float | None) -> str:
        cells = (f"{value:>9.2f}" if value is not None else f"{'-':>9}" for value in values)
        return f"{name:<32}" + "".join(cells)

    lines = [f"{'':<32}" + "".join(f"{head:>9}" for head in heads)]
    for name, row in rows.items():
        mesh = row.get("mesh", {})
        now = [row.get(key) for key in ("p1", "p2", "acceleration")]
        flat = [100 * row["pck_2d"], row["acceleration_px"]]
        lines.append(line(name, *now, *flat, mesh.get("posed"), mesh.get("unposed")))
        if "one_euro" in row:
            own = row["one_euro"]
            lines.append(
                line("  One-Euro filter of it", *(own[k] for k in ("p1", "p2", "acceleration")))
            )
    for name, row in rows.items():
        for how, errors in row.get("one_frame", {}).items():
            said = ", ".join(f"{when} {errors[when]:.1f}" for when in ("past", "now", "future"))
            lines.append(f"{name}, one frame: {how:<14} {said}")
    return "\n".join(lines)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamics")
    parser.add_argument("--data", default="data/body_cmu_v1", help="Body-CMU v1, prepared")
    parser.add_argument("--body", default="data/open_body.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/dynamics"))
    parser.add_argument("--rows", nargs="+", help="by default all; with --quick two")
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--noise", default="typical")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="0: those of the config")
    parser.add_argument(
        "--other_code", action="store_true", help="go on with runs of another version"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of small networks")
    args = parser.parse_args()
    args.done = set()  # rows and seeds that are trained
    args.rows = args.rows or ([SINGLE, "temporal"] if args.quick else list(ROWS))
    unknown = sorted(set(args.rows) - set(ROWS))
    if unknown:
        parser.error(f"no row is named {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if args.quick:
        args.out = args.out / "quick"
    try:
        found = run(args)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    for split, rows in found.items():
        print(f"\n{split}\n{table(rows)}")
    print(json.dumps({"dynamics": found}))


if __name__ == "__main__":
    main()
