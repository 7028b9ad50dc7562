"""Bodies per second, forward and backward, beside an independent implementation in JAX.

    python -m benchmarks.body [--body FILE] [--sizes 1 64 4096] [--turns 5] [--quick]

The independent one is `body-models`; both pose the same bodies of the same file (without one, a
made-up file of SMPL's size) from rotation vectors, compiled, in turns, and the fastest turn counts.
Backward is the gradient of the sum of squares of all vertices with respect to rotations and shapes.
Checks that both give the same vertices, and ends with one line of JSON, in which
`speed_over_independent` is above 1 where ours is faster. `--quick`: one body, one turn.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from body_models.smpl.jax import SMPL

from pose3d_jax import body as bodies
from pose3d_jax.geometry import axis_angle_to_matrix

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
VERTICES, FACES, COMPONENTS = 6890, 13776, 10


def made_up(path: Path) -> Path:
    """A file of SMPL's layout and size: four joints a vertex, as in SMPL."""
    rng = np.random.default_rng(0)
    joints = len(PARENTS)
    weights = np.zeros((VERTICES, joints))
    chosen = np.argsort(rng.uniform(size=weights.shape), axis=1)[:, :4]
    np.put_along_axis(weights, chosen, rng.dirichlet(np.ones(4), VERTICES), axis=1)
    regressor = rng.dirichlet(np.full(VERTICES, 0.01), joints)
    np.savez(
        path,
        v_template=rng.normal(size=(VERTICES, 3)),
        shapedirs=0.03 * rng.normal(size=(VERTICES, 3, COMPONENTS)),
        posedirs=0.01 * rng.normal(size=(VERTICES, 3, 9 * (joints - 1))),
        J_regressor=regressor,
        weights=weights,
        kintree_table=np.stack([np.array(PARENTS), np.arange(joints)]),
        f=rng.integers(0, VERTICES, (FACES, 3)),
    )
    return path


def ours(path: Path) -> Callable[[Any, Any], Any]:
    """Vertices of rotation vectors `[B, 24, 3]` and shapes `[B, 10]`."""
    body = bodies.load(path)

    def vertices(turns: Any, shape: Any) -> Any:
        rotations = axis_angle_to_matrix(turns)
        return bodies.pose(body, rotations, shape, jnp.zeros((len(shape), 3)))[0]

    return vertices


def independent(path: Path) -> Callable[[Any, Any], Any]:
    """The same, by `body-models`."""
    body = SMPL(model_path=path)

    def vertices(turns: Any, shape: Any) -> Any:
        return body.forward_vertices(turns[:, 1:], pelvis_rotation=turns[:, 0], shape=shape)

    return vertices


def both_ways(vertices: Callable[[Any, Any], Any]) -> dict[str, Callable[[Any, Any], Any]]:
    """Compiled: forward, and the gradient."""

    def energy(turns: Any, shape: Any) -> Any:
        return jnp.sum(vertices(turns, shape) ** 2)

    return {"forward": jax.jit(vertices), "backward": jax.jit(jax.grad(energy, argnums=(0, 1)))}


def measure(path: Path, size: int, turns: int) -> dict[str, float]:
    """Bodies per second of both, forward and backward."""
    rng = np.random.default_rng(1)
    arguments = (
        jnp.asarray(0.5 * rng.normal(size=(size, len(PARENTS), 3)), jnp.float32),
        jnp.asarray(rng.normal(size=(size, COMPONENTS)), jnp.float32),
    )
    rivals = {"ours": both_ways(ours(path)), "independent": both_ways(independent(path))}
    first = {name: np.asarray(of["forward"](*arguments)) for name, of in rivals.items()}
    np.testing.assert_allclose(first["ours"], first["independent"], atol=1e-4)
    found = {}
    for way in ("forward", "backward"):
        calls = max(1, 256 // size)
        seconds = dict.fromkeys(rivals, float("inf"))
        for turn in range(turns + 1):  # the first compiles
            for name, of in rivals.items():
                started = time.perf_counter()
                for _ in range(calls):
                    jax.block_until_ready(of[way](*arguments))
                if turn:
                    seconds[name] = min(seconds[name], time.perf_counter() - started)
        for name, taken in seconds.items():
            found[f"{name}_{way}"] = size * calls / taken
        found[f"speed_over_independent_{way}"] = seconds["independent"] / seconds["ours"]
    return found


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.body")
    parser.add_argument("--body", type=Path, help="a .npz or .pkl of SMPL's layout, 24 joints")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 64, 4096])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one body, one turn")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.turns = [1], 1
    with tempfile.TemporaryDirectory() as folder:
        path = args.body or made_up(Path(folder) / "body.npz")
        found = {size: measure(path, size, args.turns) for size in args.sizes}
    heads = ("forward", "independent", "backward", "independent")
    print(f"{'bodies per second':<18}" + "".join(f"{head:>13}" for head in heads))
    for size, of in found.items():
        cells = (
            of[f"{name}_{way}"]
            for way in ("forward", "backward")
            for name in ("ours", "independent")
        )
        print(f"{size:<18}" + "".join(f"{x:>13,.0f}" for x in cells))
    speed = {
        size: {way: of[f"speed_over_independent_{way}"] for way in ("forward", "backward")}
        for size, of in found.items()
    }
    print(json.dumps({"body": {"rates": found, "speed_over_independent": speed}}))


if __name__ == "__main__":
    main()
