"""Config data to what the loops run: checked keys, schedules, phases.

A config is one file of plain `ml_collections` data that tells a whole experiment; every key that it
may hold is listed here, with what it means when it is left out.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections
import optax

from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import Method, Mode
from pose3d_jax.step import Phase, Schedule

REQUIRED = object()

TOP = {
    "name": REQUIRED,
    "seed": 0,
    "devices": 1,  # of this host; 0 = all
    "precision": "float32",  # of the networks: "float32" or "bfloat16"
    "data": REQUIRED,
    "streams": REQUIRED,
    "method": REQUIRED,  # name and settings: checked by methods.create
    "phases": REQUIRED,
    "steps_per_call": 0,  # steps in one compiled call; 0 = a pass over the main stream
    "evaluation": {},
    "adaptation": {},  # at test time: --mode=adapt
}
DATA = {
    "paths": REQUIRED,  # prepared data sets, joined
    "keypoint_skeleton": "",  # "" = that of the data
    "joint_skeleton": "",
    "keypoint_source": "",  # what the 2D points must be from; "" = anything
}
STREAM = {
    "split": "train",
    "window": 1,  # frames per example
    "stride": 1,  # frames between the starts of windows
    "batch_size": REQUIRED,  # over all devices
}
PHASE = {
    "length_epochs": None,  # one of the two; an epoch is a pass over the main stream
    "length_steps": None,
    "dropout": True,
    "statistics": "batch",  # batch norm: "batch" (and update the running ones) or "running"
    "frozen": (),  # paths of parameters that rest
    "weights": REQUIRED,  # term -> number or schedule
    "optimizer": {"name": "adam"},  # an optax optimiser and its arguments
    "learning_rate": REQUIRED,  # number or schedule
    "optimizer_state": "keep",  # from the phase before: "keep" or "reset"
    "average_decay": 0.0,  # of the weight average that is evaluated; 0 = none
}
EVALUATION = {
    "validation": "validation",  # "" = none
    "test": ("test",),
    "batch_size": 256,
    "every_epochs": 1,
}
ADAPTATION = {
    "scope": "shared",  # one set of weights for a split ("shared"), or one for each clip ("clip")
    "init": "checkpoint",  # or "random"
    "method": "multiview",  # whose terms are minimised; it takes the trained method's settings
    "weights": {"self": 1.0, "cross": 1.0, "consistency": 0.1},
    "length_epochs": 60,  # one of the two; an epoch draws as many frames as the split has, in all
    "length_steps": None,
    "batch_size": 128,
    "optimizer": {"name": "adam"},
    "learning_rate": {"kind": "cosine", "start": 1e-3, "stop": 0.0},
    "chunk": 4,  # clips at once, where each has its own weights
    "seed": 0,
}
SCHEDULE = {
    "kind": REQUIRED,
    "start": REQUIRED,
    "stop": REQUIRED,
    "period_epochs": None,  # one of the two, or the phase's length; afterwards the value is `stop`
    "period_steps": None,
}


class ConfigError(UserError):
    """A key that is unknown or missing, or a value out of range; names it, and the nearest key."""


def complete(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as plain nested data, every key checked and every default filled in."""
    full = _fill(_plain(config), TOP, "config")
    full["data"] = _fill(full["data"], DATA, "config.data")
    full["evaluation"] = _fill(full["evaluation"], EVALUATION, "config.evaluation")
    full["adaptation"] = _fill(full["adaptation"], ADAPTATION, "config.adaptation")
    _choice(full["adaptation"]["scope"], ("shared", "clip"), "config.adaptation.scope")
    _choice(full["adaptation"]["init"], ("checkpoint", "random"), "config.adaptation.init")
    full["streams"] = {
        name: _fill(stream, STREAM, f"config.streams.{name}")
        for name, stream in full["streams"].items()
    }
    if "main" not in full["streams"]:
        raise ConfigError("config.streams has no `main`; every method trains on it")
    full["phases"] = [
        _fill(phase, PHASE, f"config.phases[{i}]") for i, phase in enumerate(full["phases"])
    ]
    if not full["phases"]:
        raise ConfigError("config.phases is empty; give at least one phase")
    for i, phase in enumerate(full["phases"]):
        if isinstance(phase["frozen"], str):
            raise ConfigError(f"config.phases[{i}].frozen must be a list of paths, not a string")
        _choice(phase["statistics"], ("batch", "running"), f"config.phases[{i}].statistics")
        _choice(phase["optimizer_state"], ("keep", "reset"), f"config.phases[{i}].optimizer_state")
    if full["evaluation"]["every_epochs"] <= 0:
        raise ConfigError("config.evaluation.every_epochs must be above 0")
    if not full["evaluation"]["test"]:
        raise ConfigError("config.evaluation.test names no split; every run ends in an evaluation")
    bounds = {
        "devices": (full["devices"], 0),
        "steps_per_call": (full["steps_per_call"], 0),
        "evaluation.batch_size": (full["evaluation"]["batch_size"], 1),
        **{f"adaptation.{key}": (full["adaptation"][key], 1) for key in ("batch_size", "chunk")},
    }
    for name, stream in full["streams"].items():
        for key in ("window", "stride", "batch_size"):
            bounds[f"streams.{name}.{key}"] = (stream[key], 1)
    for key, (value, least) in bounds.items():
        if value < least:
            raise ConfigError(f"config.{key} is {value}; it must be at least {least}")
    if isinstance(full["data"]["paths"], str):
        full["data"]["paths"] = [full["data"]["paths"]]
    return _plain(full)


def phases(config: Mapping[str, Any], method: Method, steps_per_epoch: int) -> list[Phase]:
    """The phases of a completed config, their durations in steps.

    Raises `ConfigError` for a weight of a term that the method lacks, an unknown optimiser or
    schedule, or a phase without length.
    """
    result: list[Phase] = []
    first_step = 0
    for i, settings in enumerate(config["phases"]):
        where = f"config.phases[{i}]"
        steps = _steps(settings, "length", steps_per_epoch, where)
        result.append(_phase(settings, method, first_step, steps, steps_per_epoch, where))
        first_step += steps
    return result


def adaptation_phase(config: Mapping[str, Any], method: Method, steps_per_epoch: int) -> Phase:
    """What holds while a completed config adapts: the whole network in inference mode.

    Raises `ConfigError` as `phases` does.
    """
    settings, where = config["adaptation"], "config.adaptation"
    steps = _steps(settings, "length", steps_per_epoch, where)
    inference = {"dropout": False, "statistics": "running"}
    full = {**PHASE, **inference, **{key: settings[key] for key in settings if key in PHASE}}
    return _phase(full, method, 0, steps, steps_per_epoch, where)


def _phase(
    settings: Mapping[str, Any],
    method: Method,
    first_step: int,
    steps: int,
    steps_per_epoch: int,
    where: str,
) -> Phase:
    known = [term for group in method.groups for term in group.terms]
    for term in settings["weights"]:
        _choice(term, known, f"{where}.weights")

    def over_time(value: Any, what: str) -> Schedule:
        return schedule(value, steps, steps_per_epoch, f"{where}.{what}")

    return Phase(
        first_step=first_step,
        steps=steps,
        mode=Mode(
            dropout=settings["dropout"],
            update_statistics=settings["statistics"] == "batch",
            frozen=tuple(settings["frozen"]),
        ),
        weights={
            term: over_time(value, f"weights.{term}")
            for term, value in settings["weights"].items()
            if value != 0  # a term of constant weight 0 is not computed
        },
        optimizer=_optimizer(settings["optimizer"], f"{where}.optimizer"),
        learning_rate=over_time(settings["learning_rate"], "learning_rate"),
        reset_optimizer=settings["optimizer_state"] == "reset",
        average_decay=settings["average_decay"],
    )


def phase_before(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that a state of this step was left by: on a boundary, the earlier one."""
    return [phase for phase in phases if phase.first_step < max(step, 1)][-1]


def schedule(
    value: float | Mapping[str, Any], steps: int, steps_per_epoch: int, where: str
) -> Schedule:
    """A number, or `{kind, start, stop, period_*}`, as a function of the step within its phase.

    Kinds: `linear`, `cosine` (half a cosine) and `exponential`, from `start` to `stop` over the
    period (by default the phase's `steps`) and `stop` from then on.
    """
    if not isinstance(value, Mapping):
        constant = float(value)
        return lambda _: jnp.float32(constant)
    value = _fill(value, SCHEDULE, where)
    if value["period_epochs"] is None and value["period_steps"] is None:
        value["period_steps"] = steps
    period = _steps(value, "period", steps_per_epoch, where)
    start, stop = float(value["start"]), float(value["stop"])
    shapes: dict[str, Callable] = {
        "linear": lambda x: start + (stop - start) * x,
        "cosine": lambda x: stop + (start - stop) * 0.5 * (1 + jnp.cos(jnp.pi * x)),
        "exponential": lambda x: start * (stop / start) ** x,
    }
    _choice(value["kind"], shapes, f"{where}.kind")
    if value["kind"] == "exponential" and (start <= 0 or stop <= 0):
        raise ConfigError(f"{where}: an exponential schedule needs start and stop above 0")
    shape = shapes[value["kind"]]
    return lambda step: shape(jnp.clip(step / period, 0.0, 1.0))


def _optimizer(settings: Mapping[str, Any], where: str) -> optax.GradientTransformation:
    """An optax optimiser by name, of learning rate 1: the phase's schedule multiplies its steps."""
    arguments = dict(settings)
    name = arguments.pop("name", None)
    make = getattr(optax, str(name), None)
    clip = arguments.pop("clip_norm", 0.0)
    try:
        optimizer = make(learning_rate=1.0, **arguments)  # type: ignore[misc]
    except TypeError as error:
        raise ConfigError(
            f"{where}: optax has no optimiser {name!r} with settings {sorted(arguments)}: {error}"
        ) from None
    return optax.chain(optax.clip_by_global_norm(clip), optimizer) if clip else optimizer


def _steps(settings: Mapping[str, Any], what: str, steps_per_epoch: int, where: str) -> int:
    """The duration that stands as `{what}_epochs` or `{what}_steps`, in steps."""
    epochs, steps = settings[f"{what}_epochs"], settings[f"{what}_steps"]
    if (epochs is None) == (steps is None):
        raise ConfigError(f"{where}: give either {what}_epochs or {what}_steps")
    count = round(epochs * steps_per_epoch) if steps is None else int(steps)
    if count < 1:
        raise ConfigError(f"{where}: {what} is {count} steps; it must be at least 1")
    return count


def _fill(given: Any, known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`given` with the defaults of `known`; unknown and missing keys are errors."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; it must hold keys: {', '.join(known)}")
    for key in given:
        _choice(key, known, where)
    missing = [key for key, default in known.items() if default is REQUIRED and key not in given]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    return {key: given.get(key, default) for key, default in known.items()}


def _choice(value: Any, known: Any, where: str) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{where}: {value!r} is unknown{hint} (known: {', '.join(map(str, known))})"
        )


def _plain(value: Any) -> Any:
    """Nested dicts, lists and scalars."""
    if isinstance(value, ml_collections.ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) or callable(value):
        raise ConfigError(f"a config holds plain data, not {value!r}")
    return value
