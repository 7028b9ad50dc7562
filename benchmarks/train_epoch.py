"""Speed of an epoch beside what the machine's matrix products allow, and where the rest goes.

    python -m benchmarks.train_epoch [--quick] [--torch-python PYTHON]

The size of the original project: 3,347 frames x 3 views, width 1024, batch 128, method multiview.
`matmul_fraction` is the rate of an epoch's matrix products over the machine's own float32 rate on
the same products in the same run: forward, for the input and for the weights of every dense layer,
by JAX or by NumPy, whichever is faster. Everything is measured in turns; each figure is the least
of its turns, since a shared machine only ever makes things slower. Ends with one line of JSON.
"""

import argparse
import dataclasses
import itertools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_prep import rigs
from pose3d_jax import cameras as cam
from pose3d_jax import losses, methods, skeleton
from pose3d_jax.data.poses import PoseSet
from pose3d_jax.epoch import compile_epoch, draw_indices, replicate
from pose3d_jax.methods.base import Aux, Info, Method, Mode
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.schema import Labels, Observations
from pose3d_jax.state import Phase, Schedule, init_state

FRAMES, BATCH, WIDTH = 3347, 128, 1024
WEIGHTS = {"self": 1.0, "cross": 1.0, "consistency": 0.1}
H36M = skeleton.get("h36m17")
DRAWING = "drawing the batches alone"


def people(frames: int) -> PoseSet:
    """Random bodies in front of the HumanEva-I rig; only their number matters here."""
    camera, _ = rigs.load_rig("humaneva", "S1")
    rng = np.random.default_rng(0)
    place = rng.uniform(-0.5, 0.5, (frames, 1, 3)) * [1, 1, 0.1] + [0, 0, 1]
    joints = jnp.asarray(place + rng.uniform(-0.5, 0.5, (frames, H36M.size, 3)), jnp.float32)
    views = camera.focal.shape[0]
    cameras = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[None], frames, axis=0), camera)
    keypoints = cam.batched(cam.project)(cameras, jnp.repeat(joints[:, None], views, axis=1))
    number = jnp.arange(frames, dtype=jnp.int32)
    return PoseSet(
        observations=Observations(keypoints, jnp.ones(keypoints.shape[:-1]), cameras),
        labels=Labels(joints, jnp.ones(joints.shape[:-1])),
        start=number,
        begin=number,
        stop=number + 1,
        recording=jnp.zeros(frames, jnp.int32),
        window=1,
    )


def phase(optimizer: optax.GradientTransformation, weights: dict[str, float], mode: Mode) -> Phase:
    """A phase of constant weights."""

    def constant(value: float) -> Schedule:
        return lambda _: jnp.float32(value)

    terms = {term: constant(weight) for term, weight in weights.items()}
    return Phase(0, 10**6, mode, terms, optimizer, constant(3e-4))


class Epoch:
    """A compiled epoch that goes on from its own state."""

    def __init__(self, method: Method, phase: Phase, poses: PoseSet, devices: int = 1):
        self.steps = poses.size // BATCH
        self._streams = {"main": poses}
        batch = {"main": poses.take(jnp.zeros(1, jnp.int32))}
        state = init_state(method, phase, batch, jax.random.key(0), average=False)
        self._state = replicate(state, devices)
        self._run = compile_epoch(method, phase, {"main": BATCH}, devices, self.steps)

    def __call__(self) -> None:
        """Runs one epoch to its end."""
        self._state, metrics = self._run(self._state, self._streams)
        jax.block_until_ready((self._state, metrics))


@dataclasses.dataclass(frozen=True)
class NetworkOnly(MultiView):
    """The same network with a loss that costs nothing."""

    def terms(self, variables, batch, key, step, *, group, mode):
        """The mean coordinate."""
        joints, collections = self.lift(variables, batch["main"].observations, key, mode)
        return {"self": losses.weighted_term(joints, jnp.ones_like(joints))}, Aux(collections, {})


def shapes(views: int) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of every dense layer."""
    points = H36M.size
    widths = [3 * points + 2, *[WIDTH] * 5, 3 * points]
    return [(BATCH * views, a, b) for a, b in itertools.pairwise(widths)]


def operations(views: int) -> int:
    """Floating-point operations of a step's matrix products; none for the network's input."""
    forward = [2 * rows * a * b for rows, a, b in shapes(views)]
    return 3 * sum(forward) - forward[0]


def products_jax(views: int, steps: int) -> Callable[[], None]:
    """The matrix products of `steps` steps, and nothing else to speak of."""
    keys = jax.random.split(jax.random.key(0), 2 * len(shapes(views)))
    weights = [
        jax.random.normal(k, (a, b)) / a**0.5
        for k, (_, a, b) in zip(keys, shapes(views), strict=False)
    ]
    first = jax.random.normal(keys[-1], (shapes(views)[0][0], weights[0].shape[0]))

    def one(carry: tuple, _: None) -> tuple[tuple, None]:
        x, _ = carry
        inputs = []
        for weight in weights:
            inputs.append(x)
            x = x @ weight
        gradients, back = [], x
        for number in reversed(range(len(weights))):
            gradients.append(inputs[number].T @ back)
            if number:
                back = back @ weights[number].T
        # Each step needs the one before, and its results are kept: nothing can be left out.
        return (inputs[0] + 1e-20 * back[:, : inputs[0].shape[1]], gradients), None

    def run(x: jax.Array) -> tuple:
        empty = [jnp.zeros_like(weight) for weight in reversed(weights)]
        return jax.lax.scan(one, (x, empty), None, length=steps)[0]

    compiled = jax.jit(run)
    return lambda: jax.block_until_ready(compiled(first))


def products_numpy(views: int, steps: int) -> Callable[[], None]:
    """The same by NumPy's BLAS."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    layers = [
        (random(rows, a), random(a, b), random(rows, b)) for rows, a, b in shapes(views)
    ]  # input, weight, gradient of the output
    outs = [(np.empty_like(g), np.empty_like(w), np.empty_like(x)) for x, w, g in layers]

    def run() -> None:
        for _ in range(steps):
            for (x, w, g), (y, dw, dx) in zip(layers, outs, strict=True):
                np.matmul(x, w, out=y)
                np.matmul(x.T, g, out=dw)
                if x is not layers[0][0]:
                    np.matmul(g, w.T, out=dx)

    return run


def drawing(poses: PoseSet, steps: int) -> Callable[[], None]:
    """The batches of `steps` steps, drawn and gathered as training does, and summed up."""

    def run(first: jax.Array, poses: PoseSet) -> jax.Array:
        streams = {"main": poses}
        key = jax.random.key(0)
        drawn = draw_indices(key, streams, {"main": BATCH}, "main", first, steps)

        def total(indices: jax.Array) -> jax.Array:
            return sum(map(jnp.sum, jax.tree.leaves(poses.take(indices))))

        return jax.lax.map(total, drawn)

    compiled = jax.jit(run)
    return lambda: jax.block_until_ready(compiled(jnp.int32(0), poses))


def least_times(programs: dict[str, Callable[[], None]], turns: int) -> dict[str, float]:
    """Seconds of the fastest of so many turns, the programs taking turns."""
    for program in programs.values():
        program()  # compiles
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(turns):
        for name, program in programs.items():
            started = time.perf_counter()
            program()
            times[name].append(time.perf_counter() - started)
    return {name: min(found) for name, found in times.items()}


def main() -> None:
    """Measures, prints the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the frames, two turns")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--torch-python", help="a Python that has PyTorch: its step, too")
    arguments = parser.parse_args()
    poses = people(FRAMES // 10 if arguments.quick else FRAMES)
    turns = 2 if arguments.quick else arguments.turns
    views = poses.observations.confidence.shape[1]

    method = methods.create({"name": "multiview", "width": WIDTH}, Info(H36M, H36M))
    network = NetworkOnly(info=Info(H36M, H36M), width=WIDTH)
    training = Mode(dropout=True, update_statistics=True)
    adam, sgd = optax.adam(1.0), optax.sgd(1.0)
    cases = {
        "epoch: dropout, batch statistics, Adam": (method, adam, WEIGHTS, training),
        "epoch: inference mode, Adam": (method, adam, WEIGHTS, Mode()),
        "without dropout": (method, adam, WEIGHTS, Mode(update_statistics=True)),
        "with plain gradient steps": (method, sgd, WEIGHTS, training),
        "without the multi-view terms": (network, adam, {"self": 1.0}, training),
        "network and products alone": (network, sgd, {"self": 1.0}, Mode()),
    }
    programs: dict[str, Callable[[], None]] = {
        name: Epoch(chosen, phase(optimizer, weights, mode), poses)
        for name, (chosen, optimizer, weights, mode) in cases.items()
    }
    steps = poses.size // BATCH
    programs[DRAWING] = drawing(poses, steps)
    programs["matrix products, JAX"] = products_jax(views, steps)
    programs["matrix products, NumPy"] = products_numpy(views, steps)
    seconds = least_times(programs, turns)
    if arguments.torch_python:
        peer = Path(__file__).with_name("peer_torch.py")
        settings = [*map(str, (BATCH * views, WIDTH, H36M.size, steps, turns))]
        output = subprocess.check_output([arguments.torch_python, str(peer), *settings], text=True)
        seconds["PyTorch, same network, Adam, one-view loss"] = float(output)

    work = operations(views) * steps
    machine = work / min(seconds[f"matrix products, {by}"] for by in ("JAX", "NumPy"))
    print(f"{poses.size} frames x {views} views, width {WIDTH}, batch {BATCH}, {steps} steps\n")
    print(f"{'':44}{'s/epoch':>9}{'ms/step':>9}{'GFLOP/s':>9}{'fraction':>10}")
    for name, found in seconds.items():
        print(f"{name:44}{found:>9.2f}{1e3 * found / steps:>9.1f}", end="")
        rate = work / found
        print("" if name == DRAWING else f"{rate / 1e9:>9.0f}{rate / machine:>10.2f}")
    whole = seconds["epoch: dropout, batch statistics, Adam"]
    parts = {
        "matrix products, at the machine's rate": work / machine,
        "dropout": whole - seconds["without dropout"],
        "batch statistics": seconds["without dropout"] - seconds["epoch: inference mode, Adam"],
        "Adam beyond plain steps": whole - seconds["with plain gradient steps"],
        "multi-view terms": whole - seconds["without the multi-view terms"],
        "drawing the batches": seconds[DRAWING],
    }
    parts["all else (activations, plain steps, slower products)"] = whole - sum(parts.values())
    print("\nWhere an epoch's time goes: what it is shorter by without each part\n")
    for name, found in parts.items():
        print(f"{name:53}{found:>9.3f} s{found / whole:>8.0%}")
    figures = {
        "s_per_epoch": whole,
        "frames_per_s": steps * BATCH / whole,
        "gflop_per_s": work / whole / 1e9,
        "machine_gflop_per_s": machine / 1e9,
        "matmul_fraction": work / whole / machine,
        "matmul_fraction_inference_mode": work / seconds["epoch: inference mode, Adam"] / machine,
    }
    figures |= {f"s: {name}": found for name, found in seconds.items()}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
