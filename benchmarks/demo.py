"""The demo: synthetic people, one run with 3D labels and one without, one report, and its checks.

    python -m benchmarks.demo --workdir runs/demo --report report.html

Leaves `example/keypoints.npz` and `example/cameras.toml`, too: a test clip as a detector might have
seen it, for `pose3d_jax.predict`. Ends with one line of JSON: P1 in millimetres on the test split,
and what was asked of it. `--quick` trains for a few steps only, to see that everything runs; it
checks triangulation alone.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np

from configs.demo import get_config
from data_prep import synthetic
from pose3d_jax import noise, report, train
from pose3d_jax.data import poses
from pose3d_jax.formats import calibration
from pose3d_jax.runs import read_run

METHODS = ("supervised", "multiview")
BELOW_MEAN_POSE = 0.60  # each method's P1 is at least this much below that of the mean pose
TRIANGULATION_MM = 1.0


def run(workdir: Path, report_path: Path, quick: bool) -> dict[str, float]:
    """Prepares, trains, evaluates and reports; the figures of the last line."""
    for part in ("synthetic", *METHODS):  # the demo starts afresh; nothing else in there is its own
        shutil.rmtree(workdir / part, ignore_errors=True)
    data = workdir / "synthetic"
    arguments = ["--out", str(data)] + (["--scale", "0.05"] if quick else [])
    synthetic.main(arguments)
    figures: dict[str, float] = {}
    for method in METHODS:
        started = time.monotonic()
        config = get_config(f"{method}-tiny" if quick else method)
        config.data.path = str(data)
        rows = train.run(config, workdir / method)["splits"]["test"]["rows"]
        figures[f"{method}_mm"] = 1000 * rows[method]["p1"]["frames"]
        figures[f"{method}_s"] = time.monotonic() - started
        figures["mean_pose_mm"] = 1000 * rows["mean_pose"]["p1"]["frames"]
        figures["triangulation_mm"] = 1000 * rows["triangulation"]["p1"]["frames"]
    example(data, workdir / "example")
    runs = [read_run(workdir / method) for method in METHODS]
    report.write_html(report_path, runs, "pose3d_jax demo")
    return figures


def example(data: Path, out: Path) -> None:
    """The first test clip's keypoints, as noisy as a detector's, and its cameras, as users have."""
    clip, identity = noise.corrupt_record(
        poses.read_split(data, "test")[0], noise.preset("typical")
    )
    seen = clip.observations
    out.mkdir(parents=True, exist_ok=True)
    np.savez(
        out / "keypoints.npz",
        keypoints=seen.keypoints,
        confidence=seen.confidence,
        skeleton=identity.keypoint_skeleton,
        views=np.array(identity.camera_names),
    )
    still = jax.tree.map(lambda x: np.asarray(x[0]), seen.cameras)
    calibration.write(out / "cameras.toml", calibration.Rig(identity.camera_names, still))


def failures(figures: dict[str, float], quick: bool) -> list[str]:
    """What the demo asserts and does not hold."""
    found = []
    if figures["triangulation_mm"] >= TRIANGULATION_MM:
        found.append(f"triangulation is not under {TRIANGULATION_MM} mm")
    limit = (1 - BELOW_MEAN_POSE) * figures["mean_pose_mm"]
    return found + [
        f"{method} is not {BELOW_MEAN_POSE:.0%} below the mean pose"
        for method in (() if quick else METHODS)
        if figures[f"{method}_mm"] > limit
    ]


def main() -> None:
    """Runs, prints the figures, and exits with status 1 where a check does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--report", type=Path, default=Path("report.html"))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    figures = run(arguments.workdir, arguments.report, arguments.quick)
    print(f"the report is {arguments.report}")
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
    found = failures(figures, arguments.quick)
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
