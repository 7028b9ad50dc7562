"""Pictures per second: what the loader decodes beside what a training step takes.

    python -m benchmarks.images --data data/rendered_cmu_v1 [--variant small] [--steps 20] [--quick]

The loader alone: an epoch's batches, decoded by the threads that training has; beside it one thread
that asks Pillow for the same pictures. The step alone: the second phase of
`configs/rendered_cmu.py`, compiled, on pictures that are there. Both at once, as training has it:
steps whose pictures the loader brings; and by how much the process' memory grew from the end of the
first tenth of the epoch to its end. On an accelerator also the share of its peak that the network's
multiply-adds are (`--peak`, in TFLOP/s, says what that is; three passes, two operations each).

Ends with one line of JSON; `loader_over_step` is above 1 where the loader is the quicker one.
`--quick`: a few pictures of a small network.
"""

import argparse
import functools
import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import rendered_cmu
from pose3d_jax import config as configs
from pose3d_jax import methods, streams, train
from pose3d_jax.data import images
from pose3d_jax.epoch import compile_epoch, replicate
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import Info, picture_cells_of
from pose3d_jax.phases import phases_of

THREE_PASSES, OPERATIONS = 3, 2  # forward, and backward to inputs and weights; a multiply-add


class Trained:
    """The second phase of a run, its pictures, and a state to step."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Raises a `UserError` for data that is not there or does not fit."""
        given = rendered_cmu.get_config(args.variant)
        given.data.path = args.data
        config = configs.complete(given)
        splits = streams.read_all(config)
        main = splits["main"]
        info = Info(
            main.keypoint_skeleton,
            main.joint_skeleton,
            main.recordings,
            precision=config["precision"],
        )
        self.method = methods.create(config["method"], info)
        found, _ = streams.examples(config, self.method, splits, 1)
        self.data = found["main"]
        self.batch = config["streams"]["main"]["batch_size"]
        self.cells = picture_cells_of(self.method)
        self.epoch = self.data.poses.size // self.batch
        phase = phases_of(config, self.method, self.epoch)[-1]
        self.sets = {"main": self.data.poses}
        state = train._initial_state(config, self.method, [phase], phase, self.sets)
        self.key = state.key
        self.state = replicate(state, 1)
        self.compiled = functools.cache(
            functools.partial(compile_epoch, self.method, phase, {"main": self.batch}, 1)
        )

    def feed(self, stop: int, ahead: int) -> images.Feed:
        """Pictures of so many batches."""
        found = streams.feeds_of(
            self.method, self.key, {"main": self.data}, {"main": self.batch}, 0, stop, ahead
        )
        return found["main"]

    def step(self, pixels: np.ndarray) -> None:
        """As many steps as there are batches of pictures."""
        run = self.compiled(len(pixels))
        self.state, _ = run(self.state, self.sets, {"main": pixels})

    def multiply_adds(self) -> int:
        """Of the convolutions, for one picture."""
        found: list[int] = []

        def count(call: Any, arguments: Any, settings: Any, context: Any) -> Any:
            made = call(*arguments, **settings)
            if isinstance(context.module, nn.Conv):
                patch = math.prod(context.module.kernel_size) * arguments[0].shape[-1]
                found.append(patch * made.size)
            return made

        network = self.method._nets[0]
        image = jax.ShapeDtypeStruct((1, self.cells, self.cells, 3), jnp.float32)
        one = jax.ShapeDtypeStruct((1,), jnp.float32)
        with nn.intercept_methods(count):
            init = functools.partial(network.init, update_statistics=False)
            jax.eval_shape(init, jax.random.key(0), image, one)
        return sum(found)


def memory() -> float:
    """Of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def rate(work: Iterable[Any], pictures: int) -> float:
    """Pictures per second of doing all the work."""
    began = time.perf_counter()
    for _ in work:
        pass
    return pictures / (time.perf_counter() - began)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of the JSON line."""
    run = Trained(args)
    calls, per_call = max(1, run.epoch // args.steps), min(args.steps, run.epoch)
    calls = min(calls, 5) if args.quick else calls
    total = calls * per_call * run.batch
    feed = run.feed(calls * per_call, per_call)
    loader = rate((feed.take(per_call) for _ in range(calls)), total)
    some = run.data.pictures.reshape(-1)[: min(256, total)]
    alone = rate((images.decode(x, run.cells) for x in some), len(some))

    pixels = run.feed(per_call, per_call).take(per_call)
    run.step(pixels)  # compiles
    jax.block_until_ready(run.state)
    turns = 1 if args.quick else 3

    def steps() -> Iterable[None]:
        for _ in range(turns):
            run.step(pixels)
            yield jax.block_until_ready(run.state) and None

    step = rate(steps(), turns * per_call * run.batch)
    held: list[float] = []
    feed = run.feed(calls * per_call, per_call)

    def both() -> Iterable[None]:
        for _ in range(calls):
            run.step(feed.take(per_call))
            held.append(memory())
            yield
        jax.block_until_ready(run.state)

    together = rate(both(), total)
    found = {
        "loader_per_s": loader,
        "one_thread_per_s": alone,
        "step_per_s": step,
        "together_per_s": together,
        "loader_over_step": loader / step,
        "memory_mb": held[-1],
        "memory_grew_mb": held[-1] - held[len(held) // 10],
        "multiply_adds": run.multiply_adds(),
        "device": jax.devices()[0].device_kind,
        "variant": args.variant or "w32",
    }
    if args.peak:
        work = THREE_PASSES * OPERATIONS * found["multiply_adds"] * step
        found["share_of_peak"] = work / (args.peak * 1e12)
    return found


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images")
    parser.add_argument("--data", default="data/rendered_cmu_v1", help="with pictures, prepared")
    parser.add_argument("--variant", default="small", help="arguments of configs/rendered_cmu.py")
    parser.add_argument("--steps", type=int, default=1, help="in a compiled call")
    parser.add_argument("--peak", type=float, default=0.0, help="of the accelerator, TFLOP/s")
    parser.add_argument("--quick", action="store_true", help="a few pictures of a small network")
    args = parser.parse_args()
    if args.quick:
        args.variant = "tiny"
    try:
        found = measure(args)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    for name, value in found.items():
        print(f"{name:<20}{value if isinstance(value, str) else format(value, '.4g')}")
    print(json.dumps({"images": found}))


if __name__ == "__main__":
    main()
