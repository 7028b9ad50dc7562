"""Cameras that are not quite what a calibration says: how well a recording tells them.

    python -m benchmarks.cameras --data data/cmu_mv_v1 [--splits test_seen test_unseen] [--seeds 3]
        [--quick]

Every clip is a recording of its own, whose calibration is made wrong by 5 degrees, 10 cm and 2 % of
the focal length, each view in a direction of its own, and its clocks, but the first view's, by up
to 3 frames; keypoints have the noise `mild` (1 px). `bundle` solves for cameras and joints at once.
Errors are of the row `smooth_bones`, in mm after one similarity alignment per clip: with the true
cameras, with the wrong ones, and with those found; `relative` is the last over the first, with a 95
% interval (a bootstrap over clips of the mean over seeds), `worst` that of a single clip. Angles
are between views' rotations, baselines relative to their mean, clocks beside the first view's. Ends
with one line of JSON. `--quick`: a few short clips of synthetic people.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import stats

from benchmarks.noise_study import load
from pose3d_jax import bundle, geometry, noise, references, rigs, skeleton
from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Observations, Record
from pose3d_jax.skeleton import Skeleton

DEGREES, METRES, FOCAL, FRAMES = 5.0, 0.1, 0.02, 3.0
COLUMNS = ("true", "wrong", "found", "angle_wrong", "angle", "baseline_wrong", "baseline", "clock")
_EDGE = int(FRAMES) + 1  # frames at a clip's ends that a view may not have seen
_apply = jax.jit(rigs.apply)
_align = jax.jit(geometry.similarity_align)


def disturbance(name: str, seed: int, views: int) -> Float[np.ndarray, "views entries"]:
    """What a recording's cameras are moved by; the same for the same name and seed."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))

    def directions() -> np.ndarray:
        found = rng.standard_normal((views, 3))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    moved = np.zeros((views, rigs.SIZE), np.float32)
    moved[:, rigs.POSITION] = METRES * directions()
    moved[:, rigs.ROTATION] = np.radians(DEGREES) * directions()
    moved[:, rigs.FOCAL] = FOCAL * rng.choice([-1, 1], views)
    moved[1:, rigs.TIME] = rng.uniform(-FRAMES, FRAMES, views - 1)
    return moved


def moved_by(clip: Observations, moved: Float[np.ndarray, "views entries"]) -> Observations:
    """The clip with cameras and clocks that are wrong by so much."""
    return jax.tree.map(np.asarray, _apply(clip, moved))


def recovered(record: Record, seed: int) -> dict[str, float]:
    """The figures of one clip."""
    skeleton_ = skeleton.get(record.identity.keypoint_skeleton)
    true = noise.corrupt_record(record, noise.preset("mild"), seed).clip.observations
    moved = disturbance(record.identity.clip, seed, true.confidence.shape[1])
    wrong = moved_by(true, moved)
    corrections = bundle.corrections_of([wrong], skeleton_, rigs.Doubt())
    found = moved_by(wrong, corrections)
    figures = {
        name: error(record.clip.labels.joints, clip, skeleton_)
        for name, clip in (("true", true), ("wrong", wrong), ("found", found))
    }
    for suffix, own in (("_wrong", wrong), ("", found)):
        angle, baseline = apart(own.cameras, true.cameras)
        figures |= {f"angle{suffix}": angle, f"baseline{suffix}": baseline}
    off = corrections[1:, rigs.TIME] + moved[1:, rigs.TIME]
    return {**figures, "clock": float(np.abs(off).mean())}


def error(
    truth: Float[np.ndarray, "frames joints 3"], clip: Observations, skeleton_: Skeleton
) -> float:
    """Of `smooth_bones`, mm, after one alignment of the whole clip."""
    found = references.reconstruct(clip, skeleton_, ("smooth_bones",))["smooth_bones"].joints
    return aligned(found, truth)


def aligned(
    found: Float[np.ndarray, "frames joints 3"], truth: Float[np.ndarray, "frames joints 3"]
) -> float:
    """The mean distance, mm, after one alignment of the whole clip."""
    inner = slice(_EDGE, -_EDGE) if len(truth) > 4 * _EDGE else slice(None)
    own, other = (jnp.asarray(x[inner].reshape(-1, 3)) for x in (found, truth))
    off = np.asarray(_align(own, other, jnp.ones(len(own))) - other)
    return float(1000 * np.linalg.norm(off, axis=-1).mean())


def apart(cameras: Camera, true: Camera) -> tuple[float, float]:
    """Mean error of the rotations between views, degrees, and of relative baselines, percent."""

    def between(cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
        rotation, shift = (np.asarray(x)[0] for x in (cameras.rotation, cameras.translation))
        centre = -np.einsum("vab,va->vb", rotation, shift)
        pairs = np.triu_indices(len(rotation), 1)
        turns = np.einsum("vab,wcb->vwac", rotation, rotation)[pairs]
        lengths = np.linalg.norm(centre[:, None] - centre[None], axis=-1)[pairs]
        return turns, lengths / lengths.mean()

    (turns, lengths), (true_turns, true_lengths) = between(cameras), between(true)
    cosine = (np.einsum("nab,nab->n", turns, true_turns) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return float(angle.mean()), float(100 * np.abs(lengths / true_lengths - 1).mean())


def run(records: list[Record], seeds: int) -> dict[str, Any]:
    """The means of all clips' figures, and the ratio."""
    table = []
    for seed in range(seeds):
        rows = []
        for record in records:
            rows.append(recovered(record, seed))
            print(
                f"{record.identity.clip:20}" + "".join(f"{rows[-1][c]:>16.2f}" for c in COLUMNS),
                flush=True,
            )
        table.append(rows)
    each = {c: np.array([[row[c] for row in rows] for rows in table]).mean(axis=0) for c in COLUMNS}

    def ratio(found: np.ndarray, true: np.ndarray, axis: int = -1) -> np.ndarray:
        return found.mean(axis=axis) / true.mean(axis=axis)

    result: dict[str, Any] = {c: float(values.mean()) for c, values in each.items()}
    result["relative"] = float(ratio(each["found"], each["true"]))
    if len(records) > 1:
        low, high = stats.bootstrap(
            (each["found"], each["true"]), ratio, paired=True, n_resamples=2000,
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        result["relative_interval"] = [float(low), float(high)]
    result["worst"] = float(max(r["found"] / r["true"] for rows in table for r in rows))
    return {**result, "clips": len(records), "seeds": seeds}


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cameras")
    parser.add_argument("--data", type=Path, help="a prepared data set; default: synthetic people")
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds is {args.seeds}; give 1 or more")
    try:
        records = load(args.data, args.splits, args.quick)
    except UserError as error:
        sys.exit(str(error))
    started = time.monotonic()
    print(f"{'':20}" + "".join(f"{column:>16}" for column in COLUMNS))
    result = run(records[:2] if args.quick else records, args.seeds)
    print(f"{'mean':20}" + "".join(f"{result[column]:>16.2f}" for column in COLUMNS))
    print(json.dumps({**result, "wall_s": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
