"""Time and memory of training over the size of the data set, and over faked devices.

    python -m benchmarks.scaling [--quick] [--turns TURNS]

One, ten and a hundred times the 3,347 frames of `train_epoch`: the whole set lies on the device, so
that its memory grows with the frames and the time of a step must not. Then the same global batch on
one, two and four faked devices, which share the same cores: what more devices than cores cost. Each
case is a process of its own, which waits for its turn; figures are the least over the turns. Ends
with one line of JSON.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

FRAMES, MOST_STEPS = 3347, 261
DEVICES = "--xla_force_host_platform_device_count="


class Case:
    """A process that trains on so many frames with so many devices whenever it is told to."""

    def __init__(self, frames: int, devices: int, width: int, steps: int):
        flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}{devices}"
        numbers = map(str, (frames, devices, width, steps))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scaling", "--case", *numbers],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._found: list[dict[str, float]] = []

    def turn(self) -> None:
        """Has it train for a call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._found.append(json.loads(self._process.stdout.readline()))

    def end(self) -> dict[str, float]:
        """Ends it: milliseconds of a step, and megabytes of the set and of the process."""
        self._process.communicate()
        return {
            "ms_per_step": round(min(turn["ms_per_step"] for turn in self._found[1:]), 2),
            "poses_mb": round(self._found[-1]["poses_mb"], 1),
            "peak_mb": round(self._found[-1]["peak_mb"]),
        }


def serve(frames: int, devices: int, width: int, most_steps: int) -> None:
    """What a case's process does: a call for every line that comes in; the first one compiles."""
    import jax
    import optax

    from benchmarks.train_epoch import BATCH, H36M, WEIGHTS, people, phase
    from pose3d_jax import methods
    from pose3d_jax.epoch import compile_epoch, replicate
    from pose3d_jax.methods.base import Info, Mode
    from pose3d_jax.state import init_state

    poses = people(frames)
    steps = min(frames // BATCH, most_steps)
    method = methods.create({"name": "multiview", "width": width}, Info(H36M, H36M))
    training = phase(optax.adam(1.0), WEIGHTS, Mode(dropout=True, update_statistics=True))
    batch = {"main": poses.take(jax.numpy.zeros(1, jax.numpy.int32))}
    state = init_state(method, training, batch, jax.random.key(0), average=False)
    state = replicate(state, devices)
    run = compile_epoch(method, training, {"main": BATCH}, devices, steps)
    for _ in sys.stdin:
        started = time.perf_counter()
        state, _ = run(state, {"main": poses})
        jax.block_until_ready(state)
        found = {
            "ms_per_step": 1e3 * (time.perf_counter() - started) / steps,
            "poses_mb": sum(x.nbytes for x in jax.tree.leaves(poses)) / 1e6,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }
        print(json.dumps(found), flush=True)


def main() -> None:
    """Measures, prints the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small network, up to 10 x, once")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--case", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        serve(*arguments.case)
        return
    width, steps = (128, 26) if arguments.quick else (1024, MOST_STEPS)
    sizes = (1, 10) if arguments.quick else (1, 10, 100)
    devices = (1, 2) if arguments.quick else (1, 2, 4)
    cases = {f"{size} x {FRAMES} frames": Case(size * FRAMES, 1, width, steps) for size in sizes}
    cases |= {f"{count} faked devices": Case(FRAMES, count, width, steps) for count in devices[1:]}
    for _ in range(1 + (1 if arguments.quick else arguments.turns)):
        for case in cases.values():
            case.turn()
    figures = {name: case.end() for name, case in cases.items()}

    print(f"width {width}, batch 128 x 3 views, calls of an epoch but at most {steps} steps\n")
    print(f"{'':22}{'ms/step':>9}{'poses, MB':>11}{'process, MB':>13}")
    for name, row in figures.items():
        print(f"{name:22}{row['ms_per_step']:>9}{row['poses_mb']:>11}{row['peak_mb']:>13}")
    times = [figures[f"{size} x {FRAMES} frames"]["ms_per_step"] for size in sizes]
    print(json.dumps({**figures, "slowest_over_fastest_size": round(max(times) / min(times), 3)}))


if __name__ == "__main__":
    main()
