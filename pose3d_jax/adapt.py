"""Test-time adaptation: the multi-view terms minimised on the test clips, first order.

The last part of "3D Pose Estimation Using 2D Supervision" (CMU 16-824 report): what trained the
lifter is minimised once more on the observations that are to be lifted, with all views at hand.
Labels are blanked before anything else sees the clips.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int
from ml_collections import ConfigDict
from tqdm import tqdm

from pose3d_jax import evaluate, hosts, inference, methods
from pose3d_jax.config import ConfigError
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData, PoseSet
from pose3d_jax.epoch import compile_epoch, replicate, train_epoch, unreplicate
from pose3d_jax.errors import NonFiniteError
from pose3d_jax.evaluate import Restored
from pose3d_jax.log import ScalarLog
from pose3d_jax.methods.base import Info, Method, Variables, context_of, picture_cells_of
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.phases import adaptation_phase
from pose3d_jax.schema import Identity, Prediction
from pose3d_jax.state import Phase, TrainState, init_optimizer, term_names

_CALLS = 40  # compiled calls of an adaptation, between which the progress bar moves


# What adapted weights predict for a split, or for the clips of these numbers alone.
Lift: TypeAlias = Callable[[Variables, Sequence[int] | None], Prediction]


class Adapted(NamedTuple):
    """What an adaptation of one split leaves."""

    predictions: Prediction  # joints [frames, V, J, 3], in camera frames, metres
    curve: dict[int, dict[str, float]]  # step -> means of the terms over the steps before it


def run(
    directory: str | Path, config: Mapping[str, Any] | ConfigDict | None = None
) -> dict[str, Any]:
    """Adapts the latest checkpoint of a work directory to each test split, and evaluates.

    `config.adaptation` says how (the checkpoint's config, or `config` where it is given). Leaves
    what an evaluation leaves in a folder of the work directory, `adapted_shared` or `adapted_clip`
    (with `_random` behind it where the weights started anew), evaluates the checkpoint itself too,
    and puts both into the work directory's report. Returns the metrics of the adapted run.

    Raises what `evaluate.run` raises, and `NonFiniteError`.
    """
    restored = evaluate.restore(directory, config)
    settings = restored.config["adaptation"]
    if restored.config["evaluation"]["fit"]["on"]:
        raise ConfigError(
            "config.evaluation.fit: what was adapted is not fitted; switch fit.on off to adapt"
        )
    if picture_cells_of(restored.method):
        raise ConfigError(
            "config.adaptation: the method looks at pictures, and an adaptation is to "
            "keypoints that are given; there are none"
        )
    trained = restored.metadata["config"]["method"]
    try:
        method = methods.create({**trained, "name": settings["method"]}, restored.info)
    except methods.MethodError as error:
        raise ConfigError(f"config.adaptation.method: {error}") from error
    variables = _start(restored, method)
    devices = hosts.devices(restored.config["devices"])
    if settings["batch_size"] % devices:
        raise ConfigError(
            f"config.adaptation.batch_size is {settings['batch_size']}, which {devices} devices "
            f"cannot share"
        )
    adaptation_phase(restored.config, method, 1)  # refuses what does not fit before any work
    evaluate.leave(restored, restored.directory, trained["name"])

    name = f"adapted_{settings['scope']}" + ("_random" if settings["init"] == "random" else "")
    predictions, times = {}, {}
    with ScalarLog(restored.directory / name) as log:
        lifting = evaluate.settings_of(restored)
        for split, frames in restored.splits.items():
            started = time.monotonic()
            known = windows.at_rate(frames, lifting.fps) if lifting.fps else frames
            data = windows.cut(known, lifting.window, context=context_of(method))
            lift = _lift(method, restored.info, frames, lifting)
            sets = len(set(data.identities)) if settings["scope"] == "clip" else 1
            batch_size = _batch_size(settings["batch_size"], data.poses.size, devices)
            epoch = max(1, data.poses.size // (sets * batch_size))
            phase = adaptation_phase(restored.config, method, epoch)
            with tqdm(total=phase.steps * sets, desc=split, unit="step", dynamic_ncols=True) as bar:
                if settings["scope"] == "clip":
                    adapted = adapt_clips(
                        method, phase, variables, data, batch_size, settings["chunk"], devices,
                        lift, bar,
                    )  # fmt: skip
                else:
                    adapted = adapt_shared(
                        method, phase, variables, data, batch_size, devices, lift, bar
                    )
            seconds = time.monotonic() - started
            times[split] = {
                "steps": phase.steps,
                "wall_s": seconds,
                "s_per_1000_frames": 1000 * seconds / frames.poses.size,
            }
            predictions[split] = adapted.predictions
            for done, terms in adapted.curve.items():
                log.write(done, {f"train/{split}/{term}": v for term, v in terms.items()})
    return evaluate.leave(
        restored,
        restored.directory / name,
        f"{trained['name']}_{name}",
        predictions,
        {"adaptation": {**settings, "splits": times}},
    )


def adapt_shared(
    method: Method,
    phase: Phase,
    variables: Variables,
    data: PoseData,
    batch_size: int,
    devices: int,
    lift: Lift,
    bar: tqdm,
) -> Adapted:
    """One set of weights for all windows: training as ever, on what is to be lifted.

    Raises `NonFiniteError` naming the term.
    """
    poses = without_labels(data.poses)

    def program(steps: int) -> Callable:
        return compile_epoch(method, phase, {"main": batch_size}, devices, steps)

    state = replicate(_state(method, phase, variables), devices)
    check = lambda failure: _check_finite(method, failure[:1], ["the split"])  # noqa: E731
    state, curve = _minimise(phase, functools.cache(program), state, poses, bar, check)
    adapted = unreplicate(state.variables)
    first = jax.tree.map(lambda x: x[0], curve)  # the devices agree
    return Adapted(lift(adapted, None), _means([first]))


def adapt_clips(
    method: Method,
    phase: Phase,
    variables: Variables,
    data: PoseData,
    batch_size: int,
    chunk: int,
    devices: int,
    lift: Lift,
    bar: tqdm,
) -> Adapted:
    """A set of weights for every clip, `chunk` of them at a time under `vmap`.

    All start from the same `variables` and take the same number of steps. Several devices share the
    clips of a chunk. Raises `NonFiniteError` naming the term and the clip.
    """
    poses = without_labels(data.poses)
    clips = windows_of_clips(data)
    slots = max(len(windows) for windows in clips.values())
    sizes = {"main": min(batch_size, slots)}
    chunk = -(-min(chunk, len(clips)) // devices) * devices
    mapped: dict[str, Any] = {"start": 0, "begin": 0, "stop": 0, "recording": 0}
    per_clip = dataclasses.replace(jax.tree.map(lambda _: None, poses), **mapped)
    over_devices = NamedSharding(
        Mesh(np.array(jax.local_devices()[:devices]), ("clips",)), PartitionSpec("clips")
    )

    @functools.cache
    def program(steps: int) -> Callable:
        def one(state: TrainState, streams: Mapping[str, PoseSet]) -> tuple:
            return train_epoch(method, phase, sizes, steps, 1, state, streams)

        # What a step sums over is the inner axis, of size one: clips do not mix.
        bound = jax.vmap(one, in_axes=(0, None), axis_name=BATCH_AXIS)
        return jax.jit(jax.vmap(bound, in_axes=(0, {"main": per_clip})), donate_argnums=0)

    joints: Any = 0.0  # what is lifted of one clip is 0 elsewhere
    curves = []
    names, numbers = list(clips), _numbers(data)
    for first in range(0, len(names), chunk):
        members = names[first : first + chunk]
        padded = members + members[-1:] * (chunk - len(members))  # one program for all chunks
        drawn = np.stack([_spread(clips[name], slots) for name in padded])
        chosen = dataclasses.replace(
            poses,
            **{field: getattr(poses, field)[drawn] for field in mapped},
        )
        state = replicate(replicate(_state(method, phase, variables), 1), chunk)
        state = jax.device_put(state, over_devices)
        check = lambda failure, m=members: _check_finite(method, failure[: len(m), 0], m)  # noqa: E731
        state, curve = _minimise(phase, program, state, chosen, bar, check, len(members))
        curves += [jax.tree.map(lambda x, i=i: x[i, 0], curve) for i in range(len(members))]
        for i, name in enumerate(members):
            own = jax.tree.map(lambda x, i=i: x[i, 0], state.variables)
            found = lift(own, numbers[name].tolist())
            joints = joints + found.joints
    return Adapted(dataclasses.replace(found, joints=joints), _means(curves))


def without_labels(poses: PoseSet) -> PoseSet:
    """The pose set with nothing in it that only a loss or a metric may see."""
    return dataclasses.replace(poses, labels=jax.tree.map(jnp.zeros_like, poses.labels))


def windows_of_clips(data: PoseData) -> dict[str, Int[np.ndarray, "windows"]]:
    """Which windows are each clip's; segments of a recording are clips of their own."""
    return _by_name(data.identities)


def _numbers(data: PoseData) -> dict[str, Int[np.ndarray, "clips"]]:
    """The numbers in `windows.clips` of what `windows_of_clips` calls a clip."""
    return _by_name(windows.identities(data))


def _by_name(identities: Sequence[Identity]) -> dict[str, Int[np.ndarray, "there"]]:
    found: dict[str, list[int]] = {}
    for i, identity in enumerate(identities):
        name = f"{identity.dataset}/{identity.clip} from frame {identity.start}"
        found.setdefault(name, []).append(i)
    return {name: np.array(there) for name, there in found.items()}


def _lift(method: Method, info: Info, data: PoseData, settings: inference.Settings) -> Lift:
    def lift(variables: Variables, clips: Sequence[int] | None) -> Prediction:
        return inference.predict_split(method, info, variables, data, settings, clips)

    return lift


def _batch_size(wanted: int, windows: int, devices: int) -> int:
    """As many windows as are wanted or there are, in equal parts."""
    if windows < devices:
        raise ConfigError(f"config.devices is {devices}, but the split has {windows} windows")
    return min(wanted, windows // devices * devices)


def _spread(windows: Int[np.ndarray, "windows"], slots: int) -> Int[np.ndarray, "slots"]:
    """The windows over more slots, each as often as any other to within one.

    So short clips and long ones run in one program without a draw wasted on padding.
    """
    return windows[np.arange(slots) * len(windows) // slots]


def _start(restored: Restored, method: Method) -> Variables:
    """The checkpoint's variables, or fresh ones; either way of the network that is adapted."""
    settings = restored.config["adaptation"]
    data = next(iter(restored.splits.values()))
    batch = {"main": data.poses.take(jnp.zeros(1, jnp.int32))}
    key = jax.random.key(settings["seed"])
    shapes = jax.eval_shape(method.init, key, batch)
    if str(jax.tree.structure(shapes)) != str(jax.tree.structure(restored.variables)):
        raise ConfigError(
            f"config.adaptation.method is {settings['method']!r}, whose network is not that of the "
            f"checkpoint in {restored.directory}"
        )
    return jax.jit(method.init)(key, batch) if settings["init"] == "random" else restored.variables


def _state(method: Method, phase: Phase, variables: Variables) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(0),
        variables=variables,
        optimizer=init_optimizer(method, phase, variables),
        average=None,
        failure=jnp.full(2, -1, jnp.int32),
    )


def _minimise(
    phase: Phase,
    program: Callable[[int], Callable],
    state: TrainState,
    poses: PoseSet,
    bar: tqdm,
    check: Callable[[Array], None],
    sets: int = 1,
) -> tuple[TrainState, dict[int, Any]]:
    """Runs the phase in a few compiled calls; also the sums and counts of terms at their ends."""
    per_call, done, curve = -(-phase.steps // _CALLS), 0, {}
    while done < phase.steps:
        call = min(per_call, phase.steps - done)
        state, terms = program(call)(state, {"main": poses})
        check(state.failure)
        done += call
        curve[done] = jax.device_get(terms)
        bar.update(call * sets)
    return state, curve


def _means(curves: list[dict[int, Any]]) -> dict[int, dict[str, float]]:
    """Over curves of the same steps: sums of sums over sums of counts."""
    return {
        done: {
            name: float(sum(curve[done][name][0] for curve in curves))
            / max(float(sum(curve[done][name][1] for curve in curves)), 1e-12)
            for name in curves[0][done]
        }
        for done in curves[0]
    }


def _check_finite(method: Method, failures: Int[Array, "sets 2"], names: list[str]) -> None:
    for (draw, term), name in zip(np.asarray(failures), names, strict=True):
        if draw >= 0:
            raise NonFiniteError(
                f"adapting to {name}: {term_names(method)[term]} is not finite at step "
                f"{draw}; a lower config.adaptation.learning_rate may help"
            )
