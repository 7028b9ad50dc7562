"""How many clips a second are adapted to all their views, one by one and by the thousand.

    python -m benchmarks.adapt [--clips 1 10 100 1000] [--frames 81] [--views 4] [--quick]

Clips of a synthetic person with the noise `typical`, each with unknowns of its own: the poses'
offsets of `offsets`, ten damped Gauss-Newton steps, what the lifter says being the truth with 5 cm
of error. All clips of a case are in memory, `chunk` of them at a time in one compiled call (on a
processor 1, on accelerators 32). Clips per second is the median of three runs after one that
compiles; memory is what the process has had at most up to then (on an accelerator, the device).
Ends with one line of JSON. `--quick`: 1 and 4 short clips.
"""

import argparse
import json
import resource
import time
from typing import Any

import jax
import numpy as np

from benchmarks.train_epoch import H36M, people
from pose3d_jax import cameras as cam
from pose3d_jax import noise, offsets
from pose3d_jax.fitting import Body
from pose3d_jax.schema import Observations

FPS = 30.0
LIFTED = 0.05  # metres
RUNS = 3
_to_camera = jax.jit(cam.batched(cam.to_camera))


def scene(clips: int, frames: int, views: int) -> tuple[list[Observations], list[np.ndarray]]:
    """Observations of the clips, and what a lifter might say of them."""
    poses = people(frames)
    index = np.arange(views) % poses.observations.confidence.shape[1]
    own = jax.tree.map(lambda x: np.asarray(x)[:frames, index], poses.observations)
    joints = np.asarray(poses.labels.joints)[:frames, None]
    exact = np.asarray(_to_camera(own.cameras, np.repeat(joints, views, axis=1)))
    rng = np.random.default_rng(0)
    seen, lifted = [], []
    for clip in range(clips):
        noisy = noise.corrupt(
            own, noise.preset("typical"), clip=str(clip), fps=FPS, mirrored=H36M.mirrored
        )
        seen.append(noisy)
        lifted.append((exact + LIFTED * rng.standard_normal(exact.shape)).astype(np.float32))
    return seen, lifted


def adapted(seen: list[Observations], lifted: list[np.ndarray]) -> float:
    """Seconds that all of them take."""
    bones = tuple(H36M.bones)
    body = Body(
        np.full(len(bones), 0.003, np.float32), np.full(H36M.size, LIFTED, np.float32), bones
    )
    started = time.monotonic()
    for found in offsets.adapt_clips(
        seen, lifted, [FPS] * len(seen), body, H36M, offsets.Settings()
    ):
        assert np.isfinite(found.joints).all()
    return time.monotonic() - started


def memory() -> float:
    """MiB at most so far: of the device where it counts them, else of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapt")
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.clips, args.frames = [1, 4], 30
    if min(args.clips) < 1 or args.frames < 2 or args.views < 2:
        parser.error("give 1 clip or more, 2 frames or more and 2 views or more")
    found: dict[str, Any] = {}
    print(f"{'clips':>6}{'seconds':>10}{'clips/s':>10}{'s/1,000 frames':>16}{'MiB':>8}")
    seen, lifted = scene(max(args.clips), args.frames, args.views)
    adapted(seen[:1], lifted[:1])
    for clips in sorted(args.clips):
        runs = RUNS if clips <= 100 else 1
        seconds = float(np.median([adapted(seen[:clips], lifted[:clips]) for _ in range(runs)]))
        found[str(clips)] = {
            "seconds": round(seconds, 3),
            "clips_per_s": round(clips / seconds, 2),
            "s_per_1000_frames": round(1000 * seconds / clips / args.frames, 2),
            "mib": round(memory()),
        }
        row = found[str(clips)]
        print(
            f"{clips:>6}{seconds:>10.2f}{row['clips_per_s']:>10.2f}"
            f"{row['s_per_1000_frames']:>16.2f}{row['mib']:>8}",
            flush=True,
        )
    device = jax.devices()[0].device_kind
    print(json.dumps({"frames": args.frames, "views": args.views, "device": device, "by": found}))


if __name__ == "__main__":
    main()
