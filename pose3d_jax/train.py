"""The training loop: data, state, phases, log, evaluation, checkpoints."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from tqdm import tqdm

import pose3d_jax
from pose3d_jax import (
    card,
    checkpoint,
    evaluate,
    fitting,
    hosts,
    inference,
    methods,
    scoring,
    warmstart,
    workdir,
)
from pose3d_jax import config as configs
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses
from pose3d_jax.data.poses import PoseData
from pose3d_jax.epoch import compile_epoch, draw_indices, replicate, to_host, unreplicate
from pose3d_jax.errors import Interrupted, NonFiniteError
from pose3d_jax.log import ScalarLog
from pose3d_jax.methods.base import (
    Info,
    Method,
    MethodError,
    covers,
    needs_images_of,
    picture_cells_of,
    recorded_of,
)
from pose3d_jax.phases import phase_before, phases_of
from pose3d_jax.rigs import Doubt
from pose3d_jax.signals import Signals
from pose3d_jax.state import (
    Phase,
    TrainState,
    init_optimizer,
    init_state,
    term_names,
    updates_per_step,
)
from pose3d_jax.streams import check_pictured, examples, feeds_of, read, read_all

PROFILED_STEPS = 10
FED = 25  # steps of a call by default, where the host decodes pictures for all of them


def run(
    config: Mapping[str, Any] | ConfigDict,
    directory: str | Path,
    *,
    profile: bool = False,
    other_code: bool = False,
) -> dict[str, Any]:
    """Trains as the config says, or goes on where the work directory's last checkpoint stopped.

    Leaves checkpoints, `scalars.jsonl`, TensorBoard's files and what `evaluate.run` leaves; returns
    its metrics. Nothing is written before config, data and method have been found to fit.

    Args:
      config: see `config.py`.
      directory: the work directory; one that is another experiment's is refused.
      profile: also leave a JAX trace of a few steps in `profile/`.
      other_code: go on with a run that another version of the package began.

    Raises a `UserError` for what does not fit, `NonFiniteError` where the loss is not finite, and
    `Interrupted` after SIGTERM or SIGINT, when the state has been saved.
    """
    # ------------------------------------------------------------------ config, data and method
    config = configs.complete(config)
    directory = Path(directory)
    devices = hosts.devices(config["devices"])
    splits = read_all(config)
    main = splits["main"]
    info = Info(
        main.keypoint_skeleton,
        main.joint_skeleton,
        main.recordings,
        doubt=Doubt(**config["streams"]["main"]["doubt"]),
        precision=config["precision"],
    )
    method = methods.create(config["method"], info)
    if recorded_of(method):
        info = dataclasses.replace(info, seeing=poses.seeing(main))
        method = methods.create(config["method"], info)
    inference.check_flip(method, flip=config["evaluation"]["flip"])
    streams, fps = examples(config, method, splits, devices)
    batch_sizes = {name: stream["batch_size"] for name, stream in config["streams"].items()}
    settings = config["evaluation"]
    if settings["fit"]["on"]:
        fitting.check(main)
    load = functools.partial(read, config, images=needs_images_of(method))
    validation = load(settings["validation"]) if settings["validation"] else None
    tests = {split: load(split) for split in settings["test"]}
    for split, data in {settings["validation"]: validation, **tests}.items():
        if data is not None and picture_cells_of(method):
            check_pictured(f"the split {split}", data)
    epoch = streams["main"].poses.size // batch_sizes["main"]
    phases = phases_of(config, method, epoch, fps)
    total = sum(phase.steps for phase in phases)

    # ------------------------------------------------------------------ state
    sets = {name: data.poses for name, data in streams.items()}
    state = _initial_state(config, method, phases, phases[0], sets)
    if not checkpoint.exists(directory):
        # Of recordings everything is learned anew.
        fresh = [*warmstart.paths(config["init"]["fresh"]), *recorded_of(method)]
        init = {**config["init"], "fresh": fresh}
        learnt = warmstart.learnt(init, method, info, main)
        state = warmstart.begin(state, learnt, init) if learnt else state
    _check_phases(method, phases, state)
    loaded = {**streams, **({"validation": validation} if validation else {}), **tests}
    experiment = {
        "config": config,
        "fingerprint": {name: data.fingerprint for name, data in loaded.items()},
        "code": workdir.code_version(),
    }
    workdir.check(directory, experiment, other_code=other_code, complete=configs.complete)
    metadata = {**_metadata(config, main, info), "steps_per_epoch": epoch, "fps": fps}
    lifting = inference.settings_of(config["streams"]["main"]["window"], settings, fps)
    earlier = 0.0  # seconds that the run took before it was taken up again
    if checkpoint.exists(directory):
        saved = checkpoint.read_metadata(directory)
        left_by = phase_before(phases, saved["step"])
        like = _initial_state(config, method, phases, left_by, sets)
        state = checkpoint.read_state(directory, like)
        earlier = saved["wall_s"]
    done = int(state.step)
    per_call = config["steps_per_call"] or (min(epoch, FED) if picture_cells_of(method) else epoch)
    draws = updates_per_step(method)
    feeds = feeds_of(
        method, state.key, streams, batch_sizes, done * draws, total * draws, per_call * draws
    )
    state = replicate(state, devices)

    # ------------------------------------------------------------------ phases
    started = time.monotonic() - earlier
    with (
        (
            workdir.claim(directory, experiment, lambda: checkpoint.exists(directory))
            if hosts.first()
            else contextlib.nullcontext()
        ),
        checkpoint.Checkpoints(directory) as checkpoints,
        ScalarLog(directory, done) if hosts.first() else contextlib.nullcontext() as log,
        tqdm(total=total, initial=done, unit="step", disable=not hosts.first()) as bar,
        Signals() as signals,
    ):
        for number, phase in enumerate(phases):
            last = phase.first_step + phase.steps
            if done == phase.first_step and number > 0:
                state = _enter_phase(method, phase, state, devices)
            compiled = functools.cache(
                functools.partial(compile_epoch, method, phase, batch_sizes, devices)
            )
            while done < last:
                # A run that was cut anywhere comes back to the calls of one that was not.
                call = min(per_call - (done - phase.first_step) % per_call, last - done)
                pixels = {name: feed.take(call * draws) for name, feed in feeds.items()}
                state, metrics = compiled(call)(state, sets, pixels)
                _check_finite(method, state, streams, batch_sizes)
                before, done = done, done + call
                bar.update(call)

                # ---------------------------------------------------------- log, evaluate, save
                scalars = {"epoch": done / epoch, "phase": number}
                scalars["wall_s"] = time.monotonic() - started
                for name, (value, count) in to_host(metrics).items():
                    scalars[f"train/{name}"] = float(value) / max(float(count), 1e-12)
                every = settings["every_epochs"] * epoch
                due = done // every > before // every or done == total
                if validation is not None and due:
                    metric, error = _validate(method, info, state, validation, lifting)
                    scalars[f"validation/{metric}"] = error
                    bar.set_postfix_str(f"validation {metric.upper()} {error:.4f} m")
                if log is not None:
                    log.write(done, scalars)
                stop = hosts.any_of(bool(signals.received)) and done < total
                if due or stop:
                    wall = time.monotonic() - started
                    checkpoints.save(unreplicate(state), {**metadata, "step": done, "wall_s": wall})
                if stop:
                    by = signals.received or "another host"
                    raise Interrupted(
                        f"{by} at step {done} of {total}: the state is saved in {directory}, and "
                        f"the same command goes on from there"
                    )
                if profile:
                    count = PROFILED_STEPS * draws
                    some = {name: np.resize(x, (count, *x.shape[1:])) for name, x in pixels.items()}
                    _profile(compiled(PROFILED_STEPS), state, sets, some, directory / "profile")
                    profile = False
    evaluated = evaluate.run(directory)
    saved = checkpoint.read_metadata(directory)  # by every process: Orbax waits for all of them
    if hosts.first():
        told = card.text(saved, evaluated["splits"])
        workdir.write_text(directory / "model_card.md", told)
    hosts.wait("evaluated")
    return evaluated


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
    init = functools.partial(init_state, method, phase, batch, average=average)
    return jax.jit(init)(jax.random.key(config["seed"]))


def _check_phases(method: Method, phases: list[Phase], state: TrainState) -> None:
    """Every path must exist, and every kept optimiser state fit its phase's optimiser."""
    params = ["/".join(path) for path in flatten_dict(state.variables["params"])]
    for group in method.groups:
        for path in group.paths:
            if not any(covers(path, param) for param in params):
                raise MethodError(
                    f"group {group.name!r} of {type(method).__name__}: no parameter is at or below "
                    f"{path!r}; there are, for example, {', '.join(params[:3])}"
                )
    kept = jax.tree.structure(state.optimizer)
    for number, phase in enumerate(phases):
        for frozen in phase.mode.frozen:
            if not any(covers(frozen, path) for path in params):
                raise ConfigError(
                    f"config.phases[{number}].frozen: no parameter is at or below {frozen!r}; "
                    f"there are, for example, {', '.join(params[:3])}"
                )
        own = functools.partial(init_optimizer, method, phase)
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
    fresh = init_optimizer(method, phase, unreplicate(state.variables))
    return dataclasses.replace(state, optimizer=replicate(fresh, devices))


def _validate(
    method: Method, info: Info, state: TrainState, data: PoseData, settings: inference.Settings
) -> tuple[str, float]:
    """Frame mean of P1, or of P2 where predictions have no size, metres, and which it is."""
    variables = unreplicate(state.evaluated)
    predicted = inference.predict_split(method, info, variables, data, settings)
    errors, mask = scoring.score(info, data, predicted, settings.batch_size, rows=None)
    metric = next(name for name in ("p1", "p2") if name in errors["method"])
    return metric, float(errors["method"][metric][mask].mean(dtype=np.float64))


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
    indices = draw_indices(state.key[0], sets, batch_sizes, "main", jnp.int32(draw), 1)[0]
    clips = sorted({streams["main"].identities[int(i)].clip for i in indices})
    more = f" and {len(clips) - 5} more" if len(clips) > 5 else ""
    raise NonFiniteError(
        f"{term_names(method)[term]} is not finite at step "
        f"{draw // updates_per_step(method)} (batch {draw}, with frames of "
        f"{', '.join(clips[:5])}{more}); no update has been applied since. A lower learning rate, "
        f"clip_norm, or a look at these clips may help"
    )


def _metadata(config: Mapping[str, Any], data: PoseData, info: Info) -> dict[str, Any]:
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
        "seeing": [list(views) for views in info.seeing],
        "version": pose3d_jax.__version__,
        "code": workdir.code_version(),
        "fingerprint": data.fingerprint,
        "sources": card.sources_of(config),
    }


def _profile(
    compiled: Callable,
    state: TrainState,
    sets: Mapping[str, Any],
    pixels: Mapping[str, np.ndarray],
    out: Path,
) -> None:
    """A trace of one compiled call, on a copy of the state: the run goes on as if it had not been.

    TensorBoard's profile plugin, XProf and Perfetto read it.
    """
    once = compiled(jax.tree.map(jnp.copy, state), sets, pixels)  # compiles
    with jax.profiler.trace(str(out)):
        jax.block_until_ready(compiled(once[0], sets, pixels))
