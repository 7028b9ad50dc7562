"""From a picture to 3D, row by row: end to end beside frozen heatmaps, and the report's ablation.

    python -m benchmarks.from_images --data data/rendered_cmu_v1 --out runs/from_images
        [--rows all frozen ...] [--variant small] [--share 1] [--seeds 1] [--other_code] [--quick]

A row is trained as `configs/rendered_cmu.py` says for its arguments; a run that is there already,
whole or cut, is taken up where it is. `all` is the default, `frozen` the same with the heatmaps'
network at rest after the first phase (as many epochs in all); `encoder`, `3d`, `decoder`, `bones`,
`both`, `skip` are the rows of "Distilling 3D Human Pose from a Single Image", table 3, in its
order: which terms are minimised. On the split `test`: P1 and P2, mm, with the mean with the mirror
image, and without it the mean distance of the points that the soft-argmax finds, in percent of the
square's side; means over the seeds, and the difference of P1 from the first row with its 95 %
interval: a bootstrap over pictures (of each the mean over the seeds), which says nothing of other
seeds; these are in the JSON line at the end. `--share`: of the training pictures, in a fixed order.
`--quick`: a few steps of small networks, two rows.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import stats

from configs import rendered_cmu
from pose3d_jax import evaluate, train
from pose3d_jax.data import images
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import EVALUATION
from pose3d_jax.methods.image import ImageTo3D
from pose3d_jax.schema import with_pixels
from pose3d_jax.scoring import score

ROWS = {"all": "", "frozen": "frozen"} | {
    row: f"loss={row}" for row in rendered_cmu.ROWS if row != "all"
}
_AT_ONCE = 64
_RESAMPLES = 2000


class Errors(NamedTuple):
    """Of every picture of the test split."""

    p1: Float[np.ndarray, "pictures"]  # mm
    p2: Float[np.ndarray, "pictures"]  # mm
    flat: Float[np.ndarray, "pictures"]  # percent of the square's side


def trained(row: str, seed: int, args: argparse.Namespace) -> tuple[Errors, float]:
    """A row's errors with a seed, and the minutes that it took."""
    size = "tiny" if args.quick else args.variant
    config = rendered_cmu.get_config(",".join(word for word in (size, ROWS[row]) if word))
    config.data.path, config.seed = args.data, seed
    config.streams.main.clips = (0.0, args.share)
    workdir = Path(args.out / row / str(seed))
    said = train.run(config, workdir, other_code=args.other_code)
    return errors_of(evaluate.restore(workdir)), said["wall_s"] / 60


def errors_of(restored: evaluate.Restored) -> Errors:
    """See `Errors`."""
    data = restored.splits["test"]
    predicted = evaluate.predict(restored, data)
    found, mask = score(restored.info, data, predicted, _AT_ONCE)
    kept = mask.reshape(len(mask), -1) > 0
    p1, p2 = (
        1000 * np.asarray(found["method"][name]).reshape(kept.shape)[kept] for name in ("p1", "p2")
    )
    return Errors(p1, p2, 100 * flat_errors(restored))


def flat_errors(restored: evaluate.Restored) -> Float[np.ndarray, "pictures"]:
    """Mean distance of each picture's points from where they are, in sides of its square."""
    data, method = restored.splits["test"], restored.method
    assert isinstance(method, ImageTo3D)
    assert data.pictures is not None
    see = jax.jit(
        lambda observations: (
            method.see(restored.variables, observations, jax.random.key(0), EVALUATION)[0].points
        )
    )
    found = []
    for first in range(0, data.poses.size, _AT_ONCE):
        # Batches of one length are compiled once.
        chosen = np.minimum(first + np.arange(_AT_ONCE), data.poses.size - 1)
        clip = data.poses.take(jnp.asarray(chosen))
        pixels = images.pixels(data.pictures, chosen[:, None], method.cells)
        observations = with_pixels(clip.observations, pixels)
        points = np.asarray(see(observations))
        assert observations.pictures is not None
        square = np.asarray(observations.pictures.square).reshape(-1, 1, 3)
        keypoints = np.asarray(clip.observations.keypoints).reshape(points.shape)
        seen = np.asarray(clip.observations.confidence).reshape(points.shape[:2]) > 0
        places = 2 * (keypoints - square[..., :2]) / np.maximum(square[..., 2:], 1e-6)
        away = np.where(seen, np.linalg.norm(points - places, axis=-1) / 2, 0.0)
        mean = away.sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1)
        kept = min(_AT_ONCE, data.poses.size - first) * (len(points) // _AT_ONCE)
        found.append(mean[:kept][seen.any(axis=-1)[:kept]])
    return np.concatenate(found)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """By row, what the table shows; lists are by seed."""
    found: dict[str, Any] = {}
    first: np.ndarray | None = None
    for row in args.rows:
        seeds = [trained(row, seed, args) for seed in range(args.seeds)]
        errors = [errors for errors, _ in seeds]
        own = np.mean([e.p1 for e in errors], axis=0)
        found[row] = {
            name: [float(getattr(e, name).mean()) for e in errors] for name in Errors._fields
        } | {"minutes": [minutes for _, minutes in seeds]}
        if first is None:
            first = own
            continue
        worse = stats.bootstrap(
            (own - first,), np.mean, n_resamples=_RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
        found[row]["p1_more"] = float((own - first).mean())
        found[row]["p1_more_interval"] = [float(worse.low), float(worse.high)]
    return found


def table(found: dict[str, Any]) -> str:
    """As text."""
    lines = [f"{'':<10}{'P1':>8}{'P2':>8}{'2D, %':>8}  P1 beside the first row"]
    for name, row in found.items():
        cells = "".join(f"{np.mean(row[key]):>8.1f}" for key in ("p1", "p2"))
        more = ""
        if "p1_more" in row:
            low, high = row["p1_more_interval"]
            more = f"  {row['p1_more']:+.1f} [{low:+.1f}, {high:+.1f}]"
        lines.append(f"{name:<10}{cells}{np.mean(row['flat']):>8.2f}{more}")
    return "\n".join(lines)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.from_images")
    parser.add_argument("--data", default="data/rendered_cmu_v1", help="Rendered-CMU v1, prepared")
    parser.add_argument("--out", type=Path, default=Path("runs/from_images"))
    parser.add_argument("--rows", nargs="+", help="by default all; with --quick two")
    parser.add_argument("--variant", default="small", help="argument of the config; '' = its own")
    parser.add_argument("--share", type=float, default=1.0, help="of the training pictures")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--other_code", action="store_true", help="go on with runs of another version"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of small networks")
    args = parser.parse_args()
    args.rows = args.rows or (["all", "frozen"] if args.quick else list(ROWS))
    unknown = sorted(set(args.rows) - set(ROWS))
    if unknown:
        parser.error(f"no row is named {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if args.seeds < 1:
        parser.error(f"--seeds is {args.seeds}; give 1 or more")
    if not 0 < args.share <= 1:
        parser.error(f"--share is {args.share}; give more than 0, up to 1")
    if args.quick:
        args.out = args.out / "quick"
    try:
        found = run(args)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    print(table(found))
    print(json.dumps({"from_images": found}))


if __name__ == "__main__":
    main()
