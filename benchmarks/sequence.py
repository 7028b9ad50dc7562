"""What the temporal networks cost: training, inference, streams, memory.

    python -m benchmarks.sequence [--quick]

Each network beside the single-frame lifter, 4 views of one person: parameters, multiply-adds for a
frame of a view, windows per second in training, frames (of all views) per second in inference, and
which share of the machine's own rate of float32 matrix products (measured in the same run) both
reach. Then the memory of a training step on one clip as it gets longer, and the time from a frame
to its pose in a stream. Ends with one line of JSON.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.train_epoch import H36M, least_times, people, phase
from configs.cmu_mv_seq import NETWORKS, SIZES
from pose3d_jax import methods
from pose3d_jax.data.poses import PoseSet
from pose3d_jax.epoch import compile_epoch, replicate
from pose3d_jax.methods.base import Info, Method, Mode, context_of
from pose3d_jax.state import init_state

VIEWS = 4
FRAMES = 512  # predicted in a step of training, over all windows
PIECE = 243  # frames that are lifted at once
WEIGHTS = {"pose": 1.0, "self": 0.1, "cross": 0.1}

# Network, settings beside those of configs/cmu_mv_seq.py, and frames that are predicted together.
CASES: Mapping[str, tuple[str, dict[str, Any], int]] = {
    "lifter": ("lifter", {"width": 1024, "blocks": 2}, 1),
    "convolution, 27 frames": ("convolution", {"blocks": 2}, 1),
    "convolution, 81 frames": ("convolution", {"blocks": 3}, 1),
    "convolution, 243 frames": ("convolution", {"blocks": 4}, 1),
    "convolution, 243 frames, all of a window": ("convolution", {"blocks": 4}, 27),
    "convolution, 27 frames, causal": ("convolution", {"blocks": 2, "causal": True}, 1),
    "convolution, 243 frames, causal": ("convolution", {"blocks": 4, "causal": True}, 1),
    "transformer": ("transformer", {}, 27),
    **{f"attention {size}": ("attention", dict(SIZES[size]), 27) for size in SIZES},
    "attention s, parallel": ("attention", {**SIZES["s"], "parallel": True}, 27),
}
QUICK = ("lifter", "convolution, 27 frames, causal", "attention xs")
LENGTHS = (27, 243, 1000)


def made(network: str, settings: Mapping[str, Any]) -> Method:
    """The method, label-free, with a network of that name and the config's settings for it."""
    own = NETWORKS[network][0] if network in NETWORKS else {}
    given = {"name": "multiview", "network": network, "centred": True, "dropout": 0.0}
    return methods.create({**given, **own, **settings}, Info(H36M, H36M))


def clip(frames: int) -> PoseSet:
    """One clip of a person in front of four cameras, in windows of one frame."""
    poses = people(frames)
    views = np.arange(VIEWS) % poses.observations.confidence.shape[1]
    return dataclasses.replace(
        poses,
        observations=jax.tree.map(lambda x: x[:, views], poses.observations),
        begin=jnp.zeros(frames, jnp.int32),
        stop=jnp.full(frames, frames, jnp.int32),
    )


def windows_of(poses: PoseSet, window: int, method: Method) -> PoseSet:
    """As many windows of it as cover it once."""
    start = jnp.arange(0, poses.size - window + 1, window, dtype=jnp.int32)
    return dataclasses.replace(
        poses,
        start=start,
        begin=poses.begin[: len(start)],
        stop=poses.stop[: len(start)],
        recording=poses.recording[: len(start)],
        window=window,
        context=context_of(method),
    )


def training(method: Method, poses: PoseSet, batch: int) -> tuple[Any, Any, Any]:
    """A compiled step, its state and its streams."""
    mode = Mode(dropout=False, update_statistics=True)
    own = phase(optax.adam(1.0), WEIGHTS, mode)
    example = {"main": poses.take(jnp.zeros(1, jnp.int32))}
    state = init_state(method, own, example, jax.random.key(0), average=False)
    step = compile_epoch(method, own, {"main": batch}, 1, 1)
    return step, replicate(state, 1), {"main": poses}


class Training:
    """One step after another."""

    def __init__(self, method: Method, poses: PoseSet, batch: int):
        self._step, self._state, self._streams = training(method, poses, batch)

    def __call__(self) -> None:
        """One step, to its end."""
        self._state, metrics = self._step(self._state, self._streams)
        jax.block_until_ready((self._state, metrics))


def inference(method: Method, variables: Any) -> tuple[Callable[[], None], int]:
    """A piece of a clip lifted at once, and its multiply-adds for a frame of a view."""
    before, after = context_of(method)
    poses = clip(PIECE + before + after)
    whole = dataclasses.replace(poses, start=poses.start[:1], window=PIECE + before + after)
    observations = whole.take(jnp.zeros(1, jnp.int32)).observations
    lowered = jax.jit(method.predict).lower(variables, observations)
    compiled = lowered.compile()
    cost = lowered.cost_analysis()
    work = float(cost["flops"]) / 2 / PIECE / VIEWS
    return lambda: jax.block_until_ready(compiled(variables, observations)), int(work)


def memory(method: Method, frames: int) -> float:
    """Megabytes that a step of training on one clip of so many frames needs beside its state."""
    poses = windows_of(clip(2 * frames), frames, method)
    step, state, streams = training(method, poses, 1)
    analysis = jax.jit(step).lower(state, streams).compile().memory_analysis()
    return float(analysis.temp_size_in_bytes) / 1e6


def latency(method: Method, variables: Any, frames: int) -> tuple[float, float]:
    """Milliseconds from a frame of one view to its pose in a stream: median, 99th percentile."""
    observations = jax.tree.map(lambda x: x[:, :1], clip(frames).observations)
    host = jax.tree.map(np.asarray, observations)
    step = jax.jit(method.next_pose)
    state = method.start_stream(variables, 1)
    times = []
    for frame in range(frames):
        started = time.perf_counter()
        state, joints = step(variables, state, jax.tree.map(lambda x, t=frame: x[t], host))
        np.asarray(joints)
        times.append(time.perf_counter() - started)
    steady = 1e3 * np.array(times[frames // 10 :])  # the first one compiles
    return float(np.median(steady)), float(np.quantile(steady, 0.99))


def machine_rate(turns: int) -> float:
    """Operations per second of a product of square float32 matrices."""
    size = 1024
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=jax.lax.Precision.HIGHEST))
    seconds = least_times({"product": lambda: jax.block_until_ready(product(x))}, turns)
    return float(2 * size**3 / seconds["product"])


def main() -> None:
    """Measures, prints the tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three networks, few turns")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    quick = arguments.quick
    turns = 2 if quick else arguments.turns
    frames = FRAMES // 8 if quick else FRAMES
    rate = machine_rate(4 * turns)
    print(f"Matrix products: {rate / 1e9:.0f} GFLOP/s, {jax.devices()[0].device_kind}\n")
    print(f"{'':42}{'params':>8}{'MAC':>8}{'windows/s':>10}{'share':>7}{'frames/s':>9}{'share':>7}")
    print(f"{'':42}{'M':>8}{'M':>8}{'training':>10}{'':>7}{'inference':>9}")
    figures: dict[str, float] = {"machine_gflop_per_s": rate / 1e9}
    for name in QUICK if quick else CASES:
        network, settings, window = CASES[name]
        method = made(network, settings)
        batch = max(1, frames // VIEWS // window)
        poses = windows_of(clip(max(2 * batch * window, 2 * window)), window, method)
        variables = jax.jit(functools.partial(method.init, jax.random.key(0)))(
            {"main": poses.take(jnp.zeros(1, jnp.int32))}
        )
        count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        lift, work = inference(method, variables)
        programs: dict[str, Callable[[], None]] = {
            "training": Training(method, poses, batch),
            "inference": lift,
        }
        seconds = least_times(programs, turns)
        per_second = PIECE / seconds["inference"]
        trained = batch / seconds["training"]
        reached = 2 * work * VIEWS * per_second / rate
        step = _step_operations(method, poses, batch) / seconds["training"] / rate
        print(
            f"{name:42}{count / 1e6:>8.2f}{work / 1e6:>8.2f}{trained:>10.1f}{step:>7.2f}"
            f"{per_second:>9.0f}{reached:>7.2f}",
            flush=True,
        )
        figures |= {
            f"{name}: parameters": count,
            f"{name}: multiply_adds_per_frame": work,
            f"{name}: training_windows_per_s": trained,
            f"{name}: training_share": step,
            f"{name}: inference_frames_per_s": per_second,
            f"{name}: inference_share": reached,
        }

    print(f"\nMemory of a training step on one clip, MB{'':6}", end="")
    lengths = LENGTHS[:1] if quick else LENGTHS
    print("".join(f"{f'T = {length}':>11}" for length in lengths))
    remembered = ("convolution, 243 frames", "transformer", "attention xs", "attention s")
    for name in QUICK[-1:] if quick else remembered:
        network, settings, _ = CASES[name]
        found = [memory(made(network, settings), length) for length in lengths]
        print(f"{name:48}" + "".join(f"{value:>11.0f}" for value in found), flush=True)
        figures |= {
            f"{name}: mb_at_{length}": value for length, value in zip(lengths, found, strict=True)
        }

    print("\nFrom a frame of one view to its pose in a stream, ms     median   99 %")
    for name in CASES:
        if "causal" not in name or (quick and name not in QUICK):
            continue
        network, settings, window = CASES[name]
        method = made(network, settings)
        poses = windows_of(clip(2 * window), window, method)
        variables = method.init(jax.random.key(0), {"main": poses.take(jnp.zeros(1, jnp.int32))})
        median, slow = latency(method, variables, 60 if quick else 600)
        print(f"{name:54}{median:>9.2f}{slow:>7.2f}")
        figures |= {f"{name}: stream_ms": median, f"{name}: stream_ms_99": slow}
    print(json.dumps({name: round(float(value), 4) for name, value in figures.items()}))


def _step_operations(method: Method, poses: PoseSet, batch: int) -> float:
    """Floating-point operations of a training step as XLA counts them."""
    step, state, streams = training(method, poses, batch)
    return float(jax.jit(step).lower(state, streams).cost_analysis()["flops"])


if __name__ == "__main__":
    main()
