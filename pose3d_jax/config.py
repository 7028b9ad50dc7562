"""Config data to what the loops run: checked keys, schedules, phases.

A config is one file of plain `ml_collections` data that tells a whole experiment; every key that it
may hold is listed here, with what it means when it is left out.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import ml_collections
import optax

from pose3d_jax import noise, references
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import Method, Mode
from pose3d_jax.step import Phase, Schedule

Keys: TypeAlias = Mapping[str, tuple[Any, Any]]


class ConfigError(UserError):
    """A key that is unknown or missing, or a value out of range; names it, and the nearest key."""


class Kind(NamedTuple):
    """What a value may be: the end of "it must be ...", and the test."""

    text: str
    fits: Callable[[Any], bool]


def _whole(least: int, below: int = 2**31) -> Kind:  # the device counts in 32 bits
    return Kind(
        f"at least {least}, a whole number below {below}",
        lambda value: type(value) is int and least <= value < below,
    )


def _number(bounds: str, within: Callable[[float], bool]) -> Kind:
    most = float(jnp.finfo(jnp.float32).max)
    return Kind(
        f"a finite number {bounds}",
        lambda value: type(value) in (int, float) and -most <= value <= most and within(value),
    )


def _one_of(*words: str) -> Kind:
    return Kind(" or ".join(map(repr, words)), lambda value: value in words)


def _list_of(what: str) -> Kind:
    return Kind(
        f"a list of {what}",
        lambda value: isinstance(value, list) and all(map(TEXT.fits, value)),
    )


def _some_of(*words: str) -> Kind:
    return Kind(
        f"a list of some of {', '.join(map(repr, words))}",
        lambda value: isinstance(value, list) and all(word in words for word in value),
    )


def _or_none(kind: Kind) -> Kind:
    return Kind(f"None or {kind.text}", lambda value: value is None or kind.fits(value))


TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("True or False", lambda value: isinstance(value, bool))
LIST = Kind("a list", lambda value: isinstance(value, list))
TABLE = Kind("a table of keys", lambda value: isinstance(value, Mapping))
PATHS = Kind("a list of paths", lambda value: TEXT.fits(value) or _list_of("").fits(value))
POSITIVE = _number("above 0", lambda value: value > 0)
AMOUNT = _number("of at least 0", lambda value: value >= 0)
FRACTION = _number("of at least 0 and below 1", lambda value: 0 <= value < 1)
# What a schedule holds is checked where it is built.
RATE = Kind(f"{AMOUNT.text}, or a schedule", lambda x: TABLE.fits(x) or AMOUNT.fits(x))
WEIGHTS = Kind(
    f"a table of terms, each with {RATE.text}",
    lambda value: TABLE.fits(value) and all(map(RATE.fits, value.values())),
)
REQUIRED = object()
_MAX_STEPS = 2**31 - 1

# key -> what its value may be (a kind, or a table like this one), and what it is when left out.
DATA: Keys = {
    "paths": (PATHS, REQUIRED),  # prepared data sets, joined
    "keypoint_skeleton": (TEXT, ""),  # "" = that of the data
    "joint_skeleton": (TEXT, ""),
    "keypoint_source": (TEXT, ""),  # what the 2D points must be from; "" = anything
}
STREAM: Keys = {
    "split": (TEXT, "train"),
    "window": (_whole(1, 10**5), 1),  # frames per example
    "stride": (_whole(1), 1),  # frames between the starts of windows
    "batch_size": (_whole(1), REQUIRED),  # over all devices
}
PHASE: Keys = {
    "length_epochs": (_or_none(POSITIVE), None),  # one of the two; an epoch passes the main stream
    "length_steps": (_or_none(_whole(1)), None),
    "dropout": (FLAG, True),
    "statistics": (_one_of("batch", "running"), "batch"),  # "batch" also updates the running ones
    "frozen": (_list_of("paths"), []),  # of parameters that rest
    "weights": (WEIGHTS, REQUIRED),  # term -> number or schedule
    "optimizer": (TABLE, {"name": "adam"}),  # an optax optimiser and its arguments
    "learning_rate": (RATE, REQUIRED),
    "optimizer_state": (_one_of("keep", "reset"), "keep"),  # from the phase before
    "average_decay": (FRACTION, 0.0),  # of the weight average that is evaluated; 0 = none
}
EVALUATION: Keys = {
    "validation": (TEXT, "validation"),  # "" = none
    "test": (_list_of("splits"), ["test"]),
    "noise": (_one_of(*noise.PRESETS), "clean"),  # of the test splits' keypoints
    "references": (_some_of(*references.ROWS[1:]), []),  # beside plain triangulation
    "batch_size": (_whole(1), 256),
    "every_epochs": (POSITIVE, 1),
}
ADAPTATION: Keys = {
    "scope": (_one_of("shared", "clip"), "shared"),  # one set of weights for a split, or for a clip
    "init": (_one_of("checkpoint", "random"), "checkpoint"),
    "method": (TEXT, "multiview"),  # whose terms are minimised, with the trained method's settings
    "weights": (WEIGHTS, {"self": 1.0, "cross": 1.0, "consistency": 0.1}),
    # One of the two, or 30 epochs; an epoch draws a split's worth of frames.
    "length_epochs": (_or_none(POSITIVE), None),
    "length_steps": (_or_none(_whole(1)), None),
    "batch_size": (_whole(1), 128),
    "optimizer": (TABLE, {"name": "adam"}),
    "learning_rate": (RATE, {"kind": "cosine", "start": 3e-4, "stop": 0.0}),
    "chunk": (_whole(1), 4),  # clips at once, where each has its own weights
    "seed": (_whole(0), 0),
}
SCHEDULE: Keys = {
    "kind": (TEXT, REQUIRED),
    "start": (AMOUNT, REQUIRED),
    "stop": (AMOUNT, REQUIRED),
    # One of the two, or the phase's length; afterwards the value is `stop`.
    "period_epochs": (_or_none(POSITIVE), None),
    "period_steps": (_or_none(_whole(1)), None),
}
TOP: Keys = {
    "name": (TEXT, REQUIRED),
    "seed": (_whole(0), 0),
    "devices": (_whole(0), 1),  # of this host; 0 = all
    "precision": (_one_of("float32", "bfloat16"), "float32"),  # of the networks
    "data": (DATA, REQUIRED),
    "streams": (TABLE, REQUIRED),  # name -> stream
    "method": (TABLE, REQUIRED),  # name and settings: checked by methods.create
    "phases": (LIST, REQUIRED),
    "steps_per_call": (_whole(0), 0),  # in one compiled call; 0 = a pass over the main stream
    "evaluation": (EVALUATION, {}),
    "adaptation": (ADAPTATION, {}),  # at test time: --mode=adapt
}


def complete(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as plain nested data, every key checked and every default filled in."""
    full = _fill(_plain(config, "config"), TOP, "config")
    if isinstance(full["data"]["paths"], str):
        full["data"]["paths"] = [full["data"]["paths"]]
    if full["adaptation"]["length_epochs"] is None and full["adaptation"]["length_steps"] is None:
        full["adaptation"]["length_epochs"] = 30
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
    if not full["evaluation"]["test"]:
        raise ConfigError("config.evaluation.test names no split; every run ends in an evaluation")
    return _plain(full, "config")  # a copy: nobody can change the defaults


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
    if first_step > _MAX_STEPS:
        raise ConfigError(f"config.phases have {first_step} steps; {_MAX_STEPS} is the most")
    return result


def adaptation_phase(config: Mapping[str, Any], method: Method, steps_per_epoch: int) -> Phase:
    """What holds while a completed config adapts: the whole network in inference mode.

    Raises `ConfigError` as `phases` does.
    """
    settings, where = config["adaptation"], "config.adaptation"
    steps = _steps(settings, "length", steps_per_epoch, where)
    inference = {"dropout": False, "statistics": "running"}
    given = {**inference, **{key: settings[key] for key in settings if key in PHASE}}
    return _phase(_fill(given, PHASE, where), method, 0, steps, steps_per_epoch, where)


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

    weights = {
        term: over_time(value, f"weights.{term}")
        for term, value in settings["weights"].items()
        if value != 0  # a term of constant weight 0 is not computed
    }
    if not weights:
        raise ConfigError(f"{where}.weights has no weight above 0: nothing would be trained")
    return Phase(
        first_step=first_step,
        steps=steps,
        mode=Mode(
            dropout=settings["dropout"],
            update_statistics=settings["statistics"] == "batch",
            frozen=tuple(settings["frozen"]),
        ),
        weights=weights,
        optimizer=_optimizer(settings["optimizer"], f"{where}.optimizer"),
        learning_rate=over_time(settings["learning_rate"], "learning_rate"),
        reset_optimizer=settings["optimizer_state"] == "reset",
        average_decay=float(settings["average_decay"]),
    )


def phase_before(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that a state of this step was left by: on a boundary, the earlier one."""
    return [phase for phase in phases if phase.first_step < max(step, 1)][-1]


def schedule(
    value: int | float | Mapping[str, Any], steps: int, steps_per_epoch: int, where: str
) -> Schedule:
    """A number, or `{kind, start, stop, period_*}`, as a function of the step within its phase.

    Kinds: `linear`, `cosine` (half a cosine) and `exponential`, from `start` to `stop` over the
    period (by default the phase's `steps`) and `stop` from then on.
    """
    if not isinstance(value, Mapping):
        _check(value, RATE, where)
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
    clip = arguments.pop("clip_norm", 0.0)
    _check(clip, AMOUNT, f"{where}.clip_norm")
    parameters = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    try:
        optimizer = getattr(optax, str(name))(learning_rate=1.0, **arguments)
        # Optax checks few of its arguments: wrong ones show when it takes a step.
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), parameters)
    except Exception as error:
        raise ConfigError(
            f"{where}: optax has no optimiser {name!r} with settings {sorted(arguments)}, or not "
            f"with these values: {error}"
        ) from None
    return optax.chain(optax.clip_by_global_norm(clip), optimizer) if clip else optimizer


def _steps(settings: Mapping[str, Any], what: str, steps_per_epoch: int, where: str) -> int:
    """The duration that stands as `{what}_epochs` or `{what}_steps`, in steps."""
    epochs, steps = settings[f"{what}_epochs"], settings[f"{what}_steps"]
    if (epochs is None) == (steps is None):
        raise ConfigError(f"{where}: give either {what}_epochs or {what}_steps")
    count = round(epochs * steps_per_epoch) if steps is None else steps
    if not 1 <= count <= _MAX_STEPS:
        raise ConfigError(f"{where}: {what} is {count} steps; it must be 1 to {_MAX_STEPS}")
    return count


def _fill(given: Any, known: Keys, where: str) -> dict[str, Any]:
    """`given` with the defaults of `known`; unknown or missing keys and wrong values are errors."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; it must hold keys: {', '.join(known)}")
    for key in given:
        _choice(key, known, where)
    missing = [
        key for key, (_, default) in known.items() if default is REQUIRED and key not in given
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    full = {}
    for key, (kind, default) in known.items():
        value, name = given.get(key, default), f"{where}.{key}"
        full[key] = (
            _check(value, kind, name) if isinstance(kind, Kind) else _fill(value, kind, name)
        )
    return full


def _check(value: Any, kind: Kind, where: str) -> Any:
    """The value, if it is of that kind."""
    if not kind.fits(value):
        raise ConfigError(f"{where} is {value!r}; it must be {kind.text}")
    return value


def _choice(value: Any, known: Any, where: str) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{where}: {value!r} is unknown{hint} (known: {', '.join(map(str, known))})"
        )


def _plain(value: Any, where: str) -> Any:
    """Nested dicts, lists and scalars, copied."""
    if isinstance(value, ml_collections.ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if type(value) not in (bool, int, float, str, type(None)):
        raise ConfigError(f"{where} is {value!r}; a config holds plain data: text, numbers, lists")
    if type(value) is float and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}; give a finite number")
    return value
