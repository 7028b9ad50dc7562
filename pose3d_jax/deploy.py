"""A trained lifter as a file that runs without this project: for jax alone, or as ONNX.

    python -m pose3d_jax.deploy --checkpoint runs/demo/multiview --output out [--formats jax onnx]

What is exported lifts one view: raw pixels, confidences and the camera's calibration to joints in
the camera's axes, metres, as `Trained.lift` predicts them; rows of a batch of any size know nothing
of one another. Undistortion, weights (float32; the average, where evaluations use it) and the
mirror image, where evaluations use that, are inside. `model.json` says what goes in and comes out,
and by how much the files, read back, differ from `Trained.lift`; one that differs by more than
`TOLERANCE` is an error, and nothing is left. See docs/deployment.md.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from pose3d_jax import compiled, errors, trained, workdir
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import context_of
from pose3d_jax.portable import (
    DeployError,
    Input,
    Lift,
    example,
    in_float32,
    inputs_of,
    lift_of,
    rows_of,
)
from pose3d_jax.trained import Trained

DESCRIPTION = "model.json"
FILES = {"jax": "model.jaxexport", "onnx": "model.onnx"}
NEEDED = {"jax": (), "onnx": ("jax2onnx", "onnx_ir", "onnxruntime")}  # of the extra `deploy`
PLATFORMS = ("cpu", "cuda", "tpu")
# Metres. Two programs that round float32 otherwise differ by some millionths of the distance to the
# person: 1e-5 at 10 m. What differs by ten times that computes something else; a lifter errs by a
# hundred times more still.
TOLERANCE = 1e-4
OPSET = 21  # of ONNX
BATCHES = (1, 7, 64)  # rows for which the difference is measured


def write_jax(path: Path, lift: Lift, inputs: Sequence[Input]) -> None:
    """The function as `jax.export` serialises it, for `PLATFORMS` and batches of any size."""
    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *each.shape), jnp.float32) for each in inputs]
    exported = export.export(jax.jit(lift), platforms=PLATFORMS)(*shapes)
    workdir.write(path, lambda temporary: Path(temporary).write_bytes(exported.serialize()))


def write_onnx(path: Path, lift: Lift, inputs: Sequence[Input]) -> None:
    """The function as an ONNX model, the first axis of its inputs being dynamic.

    Raises `DeployError` where the extra `deploy` is not installed.
    """
    jax2onnx, ir = _extra("jax2onnx"), _extra("onnx_ir")
    passes = _extra("onnx_ir.passes.common")
    model = jax2onnx.to_onnx(
        lift,
        inputs=[("batch", *each.shape) for each in inputs],
        model_name="lifter",
        opset=OPSET,
        return_mode="ir",
        input_names=[each.name for each in inputs],
        output_names=["joints"],
    )
    passes.RemoveUnusedNodesPass()(model)
    _quiet(model)
    workdir.write(path, lambda temporary: ir.save(model, temporary))


def _quiet(model: Any) -> None:
    """Takes out of an `onnx_ir.Model` what is not used, of which saving and loading would warn."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            used = any(node.graph is not None for node, _ in value.uses())
            if not (used or value.is_graph_output()):
                del graph.initializers[name]
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.type is None:  # a shape without a type is not saved
                value.shape = None


def _extra(name: str) -> Any:
    """A module of the extra `deploy`."""
    return errors.library(
        name, "deploy", "ONNX", otherwise="leave onnx out of --formats", error=DeployError
    )


def load(path: str | Path) -> Lift:
    """The lifter of a `model.jaxexport`, jitted; nothing but the file is needed.

    Its arguments are those of `inputs_of`, in that order, float32 `[batch, ...]`. Raises
    `DeployError` for what is no such file.
    """
    try:
        exported = export.deserialize(bytearray(Path(path).read_bytes()))
    except OSError as error:
        raise DeployError(f"{path} cannot be read ({error}); give a {FILES['jax']}") from error
    except Exception as error:  # whatever the reader of foreign bytes comes upon
        raise DeployError(
            f"{path} is no export of jax that this version ({jax.__version__}) reads ({error}); "
            f"export the checkpoint anew"
        ) from error
    return jax.jit(exported.call)


def _load_onnx(path: Path) -> Lift:
    session = _extra("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def lift(*arrays: np.ndarray) -> Any:
        return session.run(None, dict(zip(names, arrays, strict=True)))[0]

    return lift


_WRITERS = {"jax": write_jax, "onnx": write_onnx}
_LOADERS: dict[str, Callable[[Path], Lift]] = {"jax": load, "onnx": _load_onnx}


def difference(network: Trained, lift: Lift) -> float:
    """The largest distance, metres along an axis, from what `Trained.lift` says; see `BATCHES`."""
    found = []
    for batch in BATCHES:
        clip = example(network, batch)
        said = network.lift(clip, network.lifting.fps or 30.0).joints[:, 0]
        off = np.abs(np.asarray(lift(*rows_of(network, clip))) - said)
        found.append(float(off.max()))  # NaN, where there is one
    return float(np.max(found))


def describe(network: Trained, space: str, differences: dict[str, float]) -> dict[str, Any]:
    """What `model.json` says."""
    before, after = context_of(network.method)
    keypoints, joints = network.keypoint_skeleton, network.joint_skeleton
    return {
        "model": network.metadata["config"]["name"],
        "method": network.metadata["config"]["method"]["name"],
        "step": network.metadata["step"],
        "version": network.metadata["version"],
        "inputs": [
            {
                "name": each.name,
                "shape": ["batch", *each.shape],
                "type": "float32",
                "meaning": each.meaning,
            }
            for each in inputs_of(network)
        ],
        "keypoints": {"skeleton": keypoints.name, "names": keypoints.joints},
        "frames": {"before": before, "after": after, "fps": network.lifting.fps or None},
        "output": {
            "name": "joints",
            "shape": ["batch", joints.size, 3],
            "type": "float32",
            "unit": "m",
            "axes": "of the camera: x to the right, y down, z away from it",
            "space": space,
        },
        "joints": {
            "skeleton": joints.name,
            "names": joints.joints,
            "parents": joints.parents,
            "root": joints.root,
        },
        "files": {
            FILES[name]: {"format": name, "largest_difference_m": off}
            for name, off in differences.items()
        },
        "measured": {"batches": BATCHES, "tolerance_m": TOLERANCE},
        "platforms": PLATFORMS,
        "jax": jax.__version__,
        "card": network.card,
    }


def run(given: argparse.Namespace) -> dict[str, Any]:
    """What the command does; returns what `model.json` says, which is written last."""
    for name in given.formats:
        if name not in FILES:
            raise DeployError(f"no format is named {name!r}; there are {', '.join(FILES)}")
        for module in NEEDED[name]:
            _extra(module)
    if given.output.exists() and not given.output.is_dir():
        raise DeployError(f"--output {given.output} is no folder; name one, or a new one")
    network = in_float32(trained.load(given.checkpoint))
    lift, inputs = lift_of(network), inputs_of(network)
    clip = example(network, 1)
    space = network.lift(clip, network.lifting.fps or 30.0).space
    differences = {}
    given.output.resolve().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=given.output.resolve().parent) as aside:
        for name in dict.fromkeys(given.formats):
            path = Path(aside) / FILES[name]
            try:
                _WRITERS[name](path, lift, inputs)
                off = differences[name] = difference(network, _LOADERS[name](path))
            except UserError:
                raise
            except Exception as error:  # whatever tracing and the converters come upon
                raise DeployError(
                    f"{given.checkpoint}: its network cannot be written as {FILES[name]} for "
                    f"batches of any size ({str(error)[:200]}); try another of --formats, export "
                    f"another run, or use pose3d_jax.load(...).predict"
                ) from error
            if not off <= TOLERANCE:
                raise DeployError(
                    f"{FILES[name]} says up to {off:.3g} m else than the checkpoint, more than "
                    f"{TOLERANCE:g}, and is not kept; try another version of jax or jax2onnx"
                )
        description = describe(network, space, differences)
        workdir.write_text(Path(aside) / DESCRIPTION, json.dumps(description, indent=1))
        given.output.mkdir(exist_ok=True)
        # Whoever finds a description finds its files, and no others.
        for old in (DESCRIPTION, *FILES.values()):
            (given.output / old).unlink(missing_ok=True)
        for new in (*description["files"], DESCRIPTION):
            os.replace(Path(aside) / new, given.output / new)
    return description


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m pose3d_jax.deploy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="a run's work directory")
    parser.add_argument("--output", required=True, type=Path, help="a folder")
    parser.add_argument("--formats", nargs="+", default=("jax",), help=", ".join(FILES))
    given = parser.parse_args(arguments)
    compiled.keep()
    try:
        description = run(given)
    except UserError as error:
        sys.exit(f"error: {error}")
    for name, file in description["files"].items():
        print(
            f"{given.output / name}: at most {file['largest_difference_m']:.1e} m from the "
            f"checkpoint's poses"
        )
    print(given.output / DESCRIPTION)


if __name__ == "__main__":
    main()
