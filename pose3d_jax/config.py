"""Config data, checked: the keys there are, what they may hold, and what they are when left out.

A config is one file of plain `ml_collections` data that tells a whole experiment; every key that it
may hold is listed here, with what it means when it is left out.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import ml_collections

from pose3d_jax import noise, offsets, parts, references
from pose3d_jax.errors import UserError
from pose3d_jax.rigs import Doubt

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


def _list_of_whole() -> Kind:
    return Kind(
        "a list of whole numbers of at least 0",
        lambda value: isinstance(value, list) and all(type(x) is int and x >= 0 for x in value),
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
PATHS = Kind(
    "a path or a list of paths", lambda value: TEXT.fits(value) or _list_of("").fits(value)
)
_SHARES = Kind(
    "a list of two numbers, from 0 to 1, the second the larger",
    lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and all(type(x) in (int, float) for x in value)
        and 0 <= value[0] < value[1] <= 1
    ),
)
POSITIVE = _number("above 0", lambda value: value > 0)
AMOUNT = _number("of at least 0", lambda value: value >= 0)
COUNT = _whole(1)
FRACTION = _number("of at least 0 and below 1", lambda value: 0 <= value < 1)
SHARE = _number("of 0 to 1", lambda value: 0 <= value <= 1)
ANGLE = _number("of at least 0 and below 90, degrees", lambda value: 0 <= value < 90)
# What a schedule holds is checked where it is built.
RATE = Kind(f"{AMOUNT.text}, or a schedule", lambda x: TABLE.fits(x) or AMOUNT.fits(x))
WEIGHTS = Kind(
    f"a table of terms, each with {RATE.text}",
    lambda value: TABLE.fits(value) and all(map(RATE.fits, value.values())),
)
RATES = Kind(
    f"a table of groups or their parts, each with {POSITIVE.text}",
    lambda value: TABLE.fits(value) and all(map(POSITIVE.fits, value.values())),
)
REQUIRED = object()

# key -> what its value may be (a kind, or a table like this one), and what it is when left out.
DATA: Keys = {
    "path": (PATHS, REQUIRED),  # prepared data sets, joined
    "keypoint_skeleton": (TEXT, ""),  # "" = that of the data
    "joint_skeleton": (TEXT, ""),
    "keypoint_source": (TEXT, ""),  # what the 2D points must be from; "" = anything
    "views": (_list_of_whole(), []),  # indices of the cameras to use; none = all
    "actions": (_list_of("actions"), []),  # to use; none = all
    "fps": (AMOUNT, 0.0),  # frame rate at which methods that see several frames work; 0 = its own
}
# Standard deviations of what cameras are off by: see `rigs.Doubt`.
CAMERAS: Keys = {name: (AMOUNT, value) for name, value in Doubt()._asdict().items()}
STREAM: Keys = {
    "path": (PATHS, ""),  # prepared data sets of its own; "" = data.path
    "split": (TEXT, "train"),
    # As the data says, or of each recording solved for with its joints: see `bundle`.
    "cameras": (_one_of("given", "solved"), "given"),
    "doubt": (CAMERAS, {}),  # of these cameras, where they are solved for, or a method learns them
    # What stands for its 3D: labels, or the row of `references` that its own 2D gives.
    "joints": (_one_of("labels", *references.ROWS), "labels"),
    # Of the clips of each group those between two shares of their number, in a fixed order.
    "clips": (_SHARES, [0.0, 1.0]),
    "window": (_whole(1, 10**5), 1),  # frames per example, without a method's context
    "stride": (COUNT, 1),  # frames between the starts of windows
    "batch_size": (COUNT, REQUIRED),  # over all devices
}
# See augment.Augmentation.
AUGMENTATION: Keys = {
    "turn": (_number("of 0 to 180, degrees", lambda value: 0 <= value <= 180), 0.0),
    "flip": (FLAG, False),
    **dict.fromkeys(("orbit", "elevation", "tilt", "bend"), (ANGLE, 0.0)),
    **dict.fromkeys(("distance", "stature", "bones", "missing"), (FRACTION, 0.0)),
}
# See pictures.Change.
PICTURES: Keys = {
    **dict.fromkeys(("brightness", "contrast", "saturation"), (FRACTION, 0.0)),
    "mirror": (FLAG, False),
}
# See disturb.Disturbance.
DISTURBANCE: Keys = {
    "sigma_px": (AMOUNT, 0.0),
    **dict.fromkeys(("outliers", "missing", "swaps", "joints", "frames"), (FRACTION, 0.0)),
    "occluded": (SHARE, 0.0),
}
PHASE: Keys = {
    "length_epochs": (_or_none(POSITIVE), None),  # one of the two; an epoch passes the main stream
    "length_steps": (_or_none(COUNT), None),
    "dropout": (FLAG, True),
    "statistics": (_one_of("batch", "running"), "batch"),  # "batch" also updates the running ones
    "frozen": (_list_of("paths"), []),  # of parameters that rest
    "weights": (WEIGHTS, REQUIRED),  # term -> number or schedule
    "optimizer": (TABLE, {"name": "adam"}),  # an optax optimiser and its arguments
    "learning_rate": (RATE, REQUIRED),
    "rates": (RATES, {}),  # group, or a part of one -> factor on its learning rate; without one, 1
    "optimizer_state": (_one_of("keep", "reset"), "keep"),  # from the phase before
    "augmentation": (AUGMENTATION, {}),  # of the streams main and labelled
    "pictures": (PICTURES, {}),  # what becomes of those of all streams
    "disturbance": (DISTURBANCE, {}),  # of what networks are shown of the main stream
    "average_decay": (FRACTION, 0.0),  # of the weight average that is evaluated; 0 = none
    # Norms of the gradient are logged for each part of the networks, told by so many names of a
    # parameter's path; 0 = none.
    "gradient_norms": (_whole(0), 0),
}
# A whole clip made consistent with its keypoints, one body and smooth motion: see fitting.py.
FIT: Keys = {
    "on": (FLAG, False),
    "sigma_px": (POSITIVE, 0.3),  # of the keypoints' errors
    "exact": (FLAG, False),  # keypoints are without error: joints end on their rays
    "correlation": (FRACTION, 0.0),  # of a keypoint's error with that 1/30 s before
    "doubt": (POSITIVE, 1.0),  # sigma of the method's errors, in mean errors in training
    "alike": (POSITIVE, 1 / 3),  # seconds over which they are much the same
    "rounds": (_whole(1, 10), 1),  # all but the first begin from the fitted points, lifted anew
}
EVALUATION: Keys = {
    "validation": (TEXT, "validation"),  # "" = none
    "test": (_list_of("splits"), ["test"]),
    "noise": (_one_of(*noise.PRESETS), "clean"),  # of the test splits' keypoints
    "references": (_some_of(*references.ROWS[1:]), []),  # beside plain triangulation
    "batch_size": (COUNT, 256),  # frames at once
    "overlap": (FRACTION, 0.5),  # of the windows of a method that lifts several frames together
    "flip": (FLAG, False),  # the mean of what an observation and its mirror image give
    "fit": (FIT, {}),
    "every_epochs": (POSITIVE, 1),
}
ADAPTATION: Keys = {
    # One after the other, in this order, those that are named.
    "stages": (_some_of("cameras", "weights", "poses"), ["weights"]),
    "scope": (_one_of("shared", "clip"), "shared"),  # one set of weights for a split, or for a clip
    "init": (_one_of("checkpoint", "random"), "checkpoint"),
    "method": (TEXT, "multiview"),  # whose terms are minimised, with the trained method's settings
    "weights": (WEIGHTS, {"self": 1.0, "cross": 1.0, "consistency": 0.1}),
    # One of the two, or 30 epochs; an epoch draws a split's worth of frames.
    "length_epochs": (_or_none(POSITIVE), None),
    "length_steps": (_or_none(COUNT), None),
    "batch_size": (COUNT, 128),
    "optimizer": (TABLE, {"name": "adam"}),
    "learning_rate": (RATE, {"kind": "cosine", "start": 3e-4, "stop": 0.0}),
    "chunk": (COUNT, 4),  # clips at once, where each has its own weights
    "seed": (_whole(0), 0),  # of what the stage `weights` draws
    # Of the stage `weights`: which of them, the rank of a change of low rank, and the share of
    # keypoints that are not shown, by which the best of the weights on the way are chosen.
    "part": (_one_of(*parts.PARTS), "all"),
    "rank": (COUNT, 4),
    "held_out": (FRACTION, 0.0),
    # Of the stage `poses`: as in FIT, of all views together.
    "doubt": (POSITIVE, offsets.Settings().doubt),
    "alike": (POSITIVE, offsets.Settings().alike),
    "cameras": (CAMERAS, {}),  # of the stage of that name
}
# What training begins with: a part of the variables that another run learnt, and where it goes
# ("": all of them).
INIT: Keys = {
    "workdir": (TEXT, ""),  # of the other run; "" = nothing
    # Instead: a PyTorch checkpoint of public weights, for a method with a network of that kind; it
    # is named by `into`, and what of it is not in the file by `fresh`.
    "weights": (TEXT, ""),
    "part": (TEXT, "lifter"),
    "into": (TEXT, "lifter"),
    "fresh": (PATHS, ""),  # what of it begins anew all the same
}
SCHEDULE: Keys = {
    "kind": (TEXT, REQUIRED),
    "start": (AMOUNT, REQUIRED),
    "stop": (AMOUNT, REQUIRED),
    # One of the two, or the phase's length; afterwards the value is `stop`.
    "period_epochs": (_or_none(POSITIVE), None),
    "period_steps": (_or_none(COUNT), None),
    "warmup_steps": (_whole(0), 0),  # over which it rises from 0
}
TOP: Keys = {
    "name": (TEXT, REQUIRED),
    "seed": (_whole(0), 0),
    "devices": (_whole(0), 1),  # of this host; 0 = all
    "precision": (_one_of("float32", "bfloat16"), "float32"),  # of the networks
    "data": (DATA, REQUIRED),
    "streams": (TABLE, REQUIRED),  # name -> stream
    "method": (TABLE, REQUIRED),  # name and settings: checked by methods.create
    "init": (INIT, {}),
    "phases": (LIST, REQUIRED),
    "steps_per_call": (_whole(0), 0),  # in one compiled call; 0 = a pass over the main stream
    "evaluation": (EVALUATION, {}),
    "adaptation": (ADAPTATION, {}),  # at test time: --mode=adapt
}


def complete(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as plain nested data, every key checked and every default filled in."""
    full = fill(_plain(config, "config"), TOP, "config")
    if isinstance(full["data"]["path"], str):
        full["data"]["path"] = [full["data"]["path"]]
    if full["adaptation"]["length_epochs"] is None and full["adaptation"]["length_steps"] is None:
        full["adaptation"]["length_epochs"] = 30
    full["streams"] = {
        name: fill(stream, STREAM, f"config.streams.{name}")
        for name, stream in full["streams"].items()
    }
    if "main" not in full["streams"]:
        raise ConfigError("config.streams has no `main`; every method trains on it")
    if "shown" in full["streams"]:
        raise ConfigError(
            "config.streams.shown: that name is what networks are shown of `main` (a phase's "
            "disturbance); give the stream another"
        )
    evaluation = full["evaluation"]
    if evaluation["fit"]["on"] and evaluation["fit"]["exact"] and evaluation["noise"] != "clean":
        raise ConfigError(
            f"config.evaluation.fit.exact: points under the noise {evaluation['noise']} are not "
            f"exact; set it to False, and fit.sigma_px to their error"
        )
    full["phases"] = [
        fill(phase, PHASE, f"config.phases[{i}]") for i, phase in enumerate(full["phases"])
    ]
    if not full["phases"]:
        raise ConfigError("config.phases is empty; give at least one phase")
    if not full["evaluation"]["test"]:
        raise ConfigError("config.evaluation.test names no split; every run ends in an evaluation")
    return _plain(full, "config")  # a copy: nobody can change the defaults


def arguments(text: str, **defaults: Any) -> SimpleNamespace:
    """What stands behind the colon of `--config=FILE.py:a,b=2`, for a config's `get_config`.

    `defaults` are the arguments that there are: a flag where the default is False, else one of the
    default's type, or, where it is a tuple, one of its words, by default the first. Raises
    `ConfigError` for any other.
    """
    given = {name: value for name, _, value in (p.partition("=") for p in text.split(",") if p)}
    for name in given:
        choice(name, defaults, "the config's arguments")
    return SimpleNamespace(
        **{name: _argument(name, given.get(name), default) for name, default in defaults.items()}
    )


def _argument(name: str, value: str | None, default: Any) -> Any:
    where = f"the config's argument {name}"
    words = default if isinstance(default, tuple) else ()
    if value is None:
        return words[0] if words else default
    if (value == "") != (default is False):
        how = f"alone, as {name}" if default is False else f"with a value, as {name}=VALUE"
        raise ConfigError(f"{where}: give it {how}")
    if words:
        choice(value, words, where)
    if default is False:
        return True
    if type(default) is int:
        return check(int(value) if value.isdecimal() else value, _whole(0), where)
    return value


def fill(given: Any, known: Keys, where: str) -> dict[str, Any]:
    """`given` with the defaults of `known`; unknown or missing keys and wrong values are errors."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; it must hold keys: {', '.join(known)}")
    for key in given:
        choice(key, known, where)
    missing = [
        key for key, (_, default) in known.items() if default is REQUIRED and key not in given
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    full = {}
    for key, (kind, default) in known.items():
        value, name = given.get(key, default), f"{where}.{key}"
        full[key] = check(value, kind, name) if isinstance(kind, Kind) else fill(value, kind, name)
    return full


def check(value: Any, kind: Kind, where: str) -> Any:
    """The value, if it is of that kind."""
    if not kind.fits(value):
        raise ConfigError(f"{where} is {value!r}; it must be {kind.text}")
    return value


def choice(value: Any, known: Any, where: str) -> None:
    """Raises `ConfigError` for a value that is not among those known; names the nearest."""
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
