"""The training loop: data, state, phases, log, evaluation, checkpoints."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from tqdm import tqdm

import pose3d_jax
from pose3d_jax import checkpoint, evaluate, methods, step
from pose3d_jax import config as configs
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses
from pose3d_jax.data.poses import PoseData
from pose3d_jax.methods.base import Info, Method, covers
from pose3d_jax.report import ScalarLog
from pose3d_jax.step import Phase, TrainState


class NonFiniteError(RuntimeError):
    """A term or a gradient was NaN or infinite; names the step, the term and the batch's clips."""


def run(config: Mapping[str, Any] | ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains as the config says, or goes on where the work directory's last checkpoint stopped.

    Leaves checkpoints, `scalars.jsonl` and what `evaluate.run` leaves; returns its metrics. Nothing
    is written before config, data and method have been found to fit.

    Raises a `UserError` for what does not fit, `NonFiniteError` where the loss is not finite.
    """
    # ------------------------------------------------------------------ config, data and method
    config = configs.complete(config)
    workdir = Path(workdir)
    devices = config["devices"] or jax.local_device_count()
    streams = {name: _load(config, stream) for name, stream in config["streams"].items()}
    batch_sizes = {name: stream["batch_size"] for name, stream in config["streams"].items()}
    _check_batches(streams, batch_sizes, devices)
    main = streams["main"]
    settings = config["evaluation"]
    validation = _load_split(config, settings["validation"]) if settings["validation"] else None
    for split in settings["test"]:
        _load_split(config, split)  # a missing split is found now, not after hours of training

    method = methods.create(
        config["method"], Info(main.keypoint_skeleton, main.joint_skeleton, main.recordings)
    )
    epoch = main.poses.size // batch_sizes["main"]
    phases = configs.phases(config, method, epoch)
    total = sum(phase.steps for phase in phases)

    # ------------------------------------------------------------------ state
    sets = {name: data.poses for name, data in streams.items()}
    state = _initial_state(config, method, phases, phases[0], sets)
    _check_phases(method, phases, state)
    metadata = {**_metadata(config, main), "steps_per_epoch": epoch}
    earlier = 0.0  # seconds that the run took before it was taken up again
    if checkpoint.exists(workdir):
        _check_same_experiment(workdir, metadata)
        saved = checkpoint.read_metadata(workdir)
        left_by = configs.phase_before(phases, saved["step"])
        like = _initial_state(config, method, phases, left_by, sets)
        state = checkpoint.read_state(workdir, like)
        earlier = saved["wall_s"]
    state = step.replicate(state, devices)
    done = int(state.step[0])

    # ------------------------------------------------------------------ phases
    workdir.mkdir(parents=True, exist_ok=True)
    log = ScalarLog(workdir)
    started = time.monotonic() - earlier
    with (
        checkpoint.Checkpoints(workdir) as checkpoints,
        tqdm(total=total, initial=done, unit="step", dynamic_ncols=True) as bar,
    ):
        for number, phase in enumerate(phases):
            last = phase.first_step + phase.steps
            if done == phase.first_step and number > 0:
                state = _enter_phase(method, phase, state, devices)
            compiled = functools.cache(
                functools.partial(step.compile_epoch, method, phase, batch_sizes, devices)
            )
            while done < last:
                call = min(config["steps_per_call"] or epoch, last - done)
                state, metrics = compiled(call)(state, sets)
                _check_finite(method, state, streams, batch_sizes)
                before, done = done, done + call
                bar.update(call)

                # ---------------------------------------------------------- log, evaluate, save
                scalars = {"epoch": done / epoch, "phase": number}
                scalars["wall_s"] = time.monotonic() - started
                for name, (value, count) in step.unreplicate(metrics).items():
                    scalars[f"train/{name}"] = float(value) / max(float(count), 1e-12)
                every = settings["every_epochs"] * epoch
                if validation is not None and (done // every > before // every or done == total):
                    p1 = _validate(method, state, validation, settings["batch_size"])
                    scalars["validation/p1"] = p1
                    bar.set_postfix_str(f"validation P1 {p1:.4f} m")
                log.write(done, scalars)
                if done // every > before // every or done == total:
                    wall = time.monotonic() - started
                    checkpoints.save(
                        step.unreplicate(state), {**metadata, "step": done, "wall_s": wall}
                    )
    return evaluate.run(workdir)


def _load(config: Mapping[str, Any], stream: Mapping[str, Any]) -> PoseData:
    return poses.load(
        config["data"]["paths"],
        stream["split"],
        window=stream["window"],
        stride=stream["stride"],
        keypoint_skeleton=config["data"]["keypoint_skeleton"] or None,
        joint_skeleton=config["data"]["joint_skeleton"] or None,
    )


def _load_split(config: Mapping[str, Any], split: str) -> PoseData:
    """A split for evaluation: every frame stands in one window."""
    window = config["streams"]["main"]["window"]
    return _load(config, {"split": split, "window": window, "stride": window})


def _check_batches(
    streams: Mapping[str, PoseData], batch_sizes: Mapping[str, int], devices: int
) -> None:
    available = jax.local_device_count()
    if devices > available:
        raise ConfigError(f"config.devices is {devices}, but there are {available}")
    for name, size in batch_sizes.items():
        windows = streams[name].poses.size
        if not 1 <= size <= windows:
            raise ConfigError(
                f"config.streams.{name}.batch_size is {size}; it must be 1 to {windows}, the "
                f"number of windows"
            )
        if size % devices:
            raise ConfigError(
                f"config.streams.{name}.batch_size is {size}, which {devices} devices cannot share"
            )


def _initial_state(
    config: Mapping[str, Any],
    method: Method,
    phases: list[Phase],
    phase: Phase,
    sets: Mapping[str, Any],
) -> TrainState:
    """A fresh state with the optimiser of `phase`."""
    batch = {name: poses.take(jnp.zeros(1, jnp.int32)) for name, poses in sets.items()}
    average = any(phase.average_decay for phase in phases)
    init = functools.partial(step.init_state, method, phase, batch, average=average)
    return jax.jit(init)(jax.random.key(config["seed"]))


def _check_phases(method: Method, phases: list[Phase], state: TrainState) -> None:
    """Every frozen path must exist, and every kept optimiser state fit its phase's optimiser."""
    params = ["/".join(path) for path in flatten_dict(state.variables["params"])]
    kept = jax.tree.structure(state.optimizer)
    for number, phase in enumerate(phases):
        for frozen in phase.mode.frozen:
            if not any(covers(frozen, path) for path in params):
                raise ConfigError(
                    f"config.phases[{number}].frozen: no parameter is at or below {frozen!r}; "
                    f"there are, for example, {', '.join(params[:3])}"
                )
        own = functools.partial(step.init_optimizer, method, phase)
        fresh = jax.tree.structure(jax.eval_shape(own, state.variables))
        if number and not phase.reset_optimizer and str(fresh) != str(kept):
            raise ConfigError(
                f"config.phases[{number}] changes the optimiser but keeps its state; set its "
                f"optimizer_state to 'reset'"
            )
        kept = fresh


def _enter_phase(method: Method, phase: Phase, state: TrainState, devices: int) -> TrainState:
    """The state as the phase begins: with a fresh optimiser where it says so."""
    if not phase.reset_optimizer:
        return state
    fresh = step.init_optimizer(method, phase, step.unreplicate(state.variables))
    return dataclasses.replace(state, optimizer=step.replicate(fresh, devices))


def _validate(method: Method, state: TrainState, data: PoseData, batch_size: int) -> float:
    """Frame mean of P1, metres."""
    variables = step.unreplicate(state.evaluated)
    errors, mask = evaluate.evaluate(method, variables, data, batch_size, references=False)
    return float(errors["method"]["p1"][mask].mean(dtype=np.float64))


def _check_finite(
    method: Method,
    state: TrainState,
    streams: Mapping[str, PoseData],
    batch_sizes: Mapping[str, int],
) -> None:
    draw, term = (int(x) for x in state.failure[0])
    if draw < 0:
        return
    sets = {name: data.poses for name, data in streams.items()}
    indices = step.draw_indices(state.key[0], sets, batch_sizes, "main", jnp.int32(draw), 1)[0]
    clips = sorted({streams["main"].identities[int(i)].clip for i in indices})
    more = f" and {len(clips) - 5} more" if len(clips) > 5 else ""
    raise NonFiniteError(
        f"{step.term_names(method)[term]} is not finite at step "
        f"{draw // step.updates_per_step(method)} (batch {draw}, with frames of "
        f"{', '.join(clips[:5])}{more}); no update has been applied since. A lower learning rate, "
        f"clip_norm, or a look at these clips may help"
    )


def _metadata(config: Mapping[str, Any], data: PoseData) -> dict[str, Any]:
    def describe(skeleton: Any) -> dict[str, Any]:
        return {
            "name": skeleton.name,
            "joints": list(skeleton.joints),
            "parents": list(skeleton.parents),
            "root": skeleton.root,
        }

    return {
        "config": dict(config),
        "keypoint_skeleton": describe(data.keypoint_skeleton),
        "joint_skeleton": describe(data.joint_skeleton),
        "keypoint_source": data.keypoint_source,
        "normalisation": Info(data.keypoint_skeleton, data.joint_skeleton).normalisation,
        "recordings": list(data.recordings),
        "version": pose3d_jax.__version__,
        "fingerprint": data.fingerprint,
    }


def _check_same_experiment(workdir: Path, metadata: Mapping[str, Any]) -> None:
    """A work directory goes on with its own experiment only."""
    saved = checkpoint.read_metadata(workdir)
    differing = [key for key in ("config", "fingerprint") if saved[key] != metadata[key]]
    if differing:
        raise ConfigError(
            f"{workdir} holds another experiment: its {' and '.join(differing)} differ; give "
            f"another --workdir, or delete that one"
        )
