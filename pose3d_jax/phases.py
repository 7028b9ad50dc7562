"""A checked config to what the loops run: phases, their schedules and optimisers."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pose3d_jax.augment import Augmentation, augment
from pose3d_jax.config import AMOUNT, COUNT, PHASE, RATE, SCHEDULE, ConfigError, check, choice, fill
from pose3d_jax.disturb import Disturbance, disturb
from pose3d_jax.methods.base import Method, Mode, needs_images_of, picture_cells_of, recorded_of
from pose3d_jax.pictures import Change, changed
from pose3d_jax.state import Augment, Phase, Schedule

_MAX_STEPS = 2**31 - 1


def phases_of(
    config: Mapping[str, Any], method: Method, steps_per_epoch: int, fps: float = 0.0
) -> list[Phase]:
    """The phases of a completed config, their durations in steps.

    `fps` is the streams' frame rate, 0 where it does not matter.

    Raises `ConfigError` for a weight of a term that the method lacks, an unknown optimiser or
    schedule, or a phase without length.
    """
    result: list[Phase] = []
    first_step = 0
    for i, settings in enumerate(config["phases"]):
        where = f"config.phases[{i}]"
        steps = _steps(settings, "length", steps_per_epoch, where)
        result.append(_phase(settings, method, first_step, steps, steps_per_epoch, where, fps))
        first_step += steps
    if first_step > _MAX_STEPS:
        raise ConfigError(f"config.phases have {first_step} steps; {_MAX_STEPS} is the most")
    return result


def adaptation_phase(config: Mapping[str, Any], method: Method, steps_per_epoch: int) -> Phase:
    """What holds while a completed config adapts: the whole network in inference mode.

    Raises `ConfigError` as `phases_of` does.
    """
    settings, where = config["adaptation"], "config.adaptation"
    steps = _steps(settings, "length", steps_per_epoch, where)
    inference = {"dropout": False, "statistics": "running"}
    given = {**inference, **{key: settings[key] for key in settings if key in PHASE}}
    phase = _phase(fill(given, PHASE, where), method, 0, steps, steps_per_epoch, where)
    return dataclasses.replace(phase, mode=dataclasses.replace(phase.mode, training=False))


def _phase(
    settings: Mapping[str, Any],
    method: Method,
    first_step: int,
    steps: int,
    steps_per_epoch: int,
    where: str,
    fps: float = 0.0,
) -> Phase:
    known = [term for group in method.groups for term in group.terms]
    for term in settings["weights"]:
        choice(term, known, f"{where}.weights")

    parts = dict.fromkeys(name for group in method.groups for name in (group.name, *group.paths))
    for part in settings["rates"]:
        choice(part, parts, f"{where}.rates")

    def over_time(value: Any, what: str) -> Schedule:
        return schedule(value, steps, steps_per_epoch, f"{where}.{what}")

    weights = {
        term: over_time(value, f"weights.{term}")
        for term, value in settings["weights"].items()
        if value != 0  # a term of constant weight 0 is not computed
    }
    if not weights:
        raise ConfigError(f"{where}.weights has no weight above 0: nothing would be trained")
    every = settings["optimizer"].get("every", 1)
    optimizer = _optimizer(settings["optimizer"], f"{where}.optimizer")
    if steps % every:
        raise ConfigError(
            f"{where} has {steps} steps; give a multiple of optimizer.every, {every}, or the last "
            f"batches' gradients would be lost"
        )
    return Phase(
        first_step=first_step,
        steps=steps,
        mode=Mode(
            dropout=settings["dropout"],
            update_statistics=settings["statistics"] == "batch",
            frozen=tuple(settings["frozen"]),
            training=True,
        ),
        weights=weights,
        optimizer=optimizer,
        learning_rate=over_time(settings["learning_rate"], "learning_rate"),
        reset_optimizer=settings["optimizer_state"] == "reset",
        average_decay=float(settings["average_decay"]),
        rates={part: float(factor) for part, factor in settings["rates"].items()},
        augment=_augmentation(settings["augmentation"], method, f"{where}.augmentation"),
        picture=_picture(settings["pictures"], method, f"{where}.pictures"),
        disturb=_disturbance(settings["disturbance"], method, fps, f"{where}.disturbance"),
        gradient_norms=settings["gradient_norms"],
    )


def _augmentation(settings: Mapping[str, Any], method: Any, where: str) -> Augment | None:
    """What `step.update` does to the main stream's batches; None where nothing is on."""
    augmentation = Augmentation(**settings)
    if augmentation == Augmentation():
        return None
    _check_images(method, where)
    keypoints, joints = method.info.keypoint_skeleton, method.info.joint_skeleton
    if augmentation.moves and keypoints != joints:
        raise ConfigError(
            f"{where}: projects joints ({joints.name}) anew to where keypoints ({keypoints.name}) "
            f"are; give data with one joint set, or only `missing`"
        )
    if augmentation.moves and recorded_of(method):
        raise ConfigError(
            f"{where}: films clips anew, with the cameras as given, but the method learns what "
            f"these are off by; leave all but `missing` out, or set method.cameras to 'given'"
        )
    return functools.partial(augment, augmentation, joints)


def _check_images(method: Any, where: str) -> None:
    """Raises `ConfigError` for a method to which what becomes of keypoints does not show."""
    if needs_images_of(method) or picture_cells_of(method):
        raise ConfigError(
            f"{where}: changes keypoints and cameras, but the method looks at images, which stay "
            f"as they are; leave it empty"
        )


def _picture(settings: Mapping[str, Any], method: Any, where: str) -> Augment | None:
    """What becomes of pictures; None where nothing is on."""
    change = Change(**settings)
    if change == Change():
        return None
    if not picture_cells_of(method):
        raise ConfigError(f"{where}: the method looks at no pictures; leave it empty")
    info = method.info
    return functools.partial(changed, change, info.keypoint_skeleton, info.joint_skeleton)


def _disturbance(
    settings: Mapping[str, Any], method: Any, fps: float, where: str
) -> Augment | None:
    """What becomes of what networks are shown; None where nothing is on."""
    disturbance = Disturbance(**settings)
    if disturbance == Disturbance():
        return None
    _check_images(method, where)
    keypoints, joints = method.info.keypoint_skeleton, method.info.joint_skeleton
    if disturbance.occluded and recorded_of(method):
        raise ConfigError(
            f"{where}.occluded: what a body hides is told from the cameras as given, but the "
            f"method learns what these are off by; leave it out"
        )
    if disturbance.occluded and keypoints != joints:
        raise ConfigError(
            f"{where}.occluded: what a body hides is told from joints ({joints.name}), not "
            f"keypoints ({keypoints.name}); give data with one joint set, or leave it out"
        )
    # A frame by itself has errors of any rate.
    return functools.partial(disturb, disturbance, method.info.keypoint_skeleton, fps or 30.0)


def phase_before(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that a state of this step was left by: on a boundary, the earlier one."""
    return [phase for phase in phases if phase.first_step < max(step, 1)][-1]


def schedule(
    value: int | float | Mapping[str, Any], steps: int, steps_per_epoch: int, where: str
) -> Schedule:
    """A number, or `{kind, start, stop, period_*}`, as a function of the step within its phase.

    Kinds: `linear`, `cosine` (half a cosine) and `exponential`, from `start` to `stop` over the
    period (by default the phase's `steps`) and `stop` from then on. `cyclic` is linear over the
    first half of each period and `stop` over the second, again and again: Fu et al., "Cyclical
    Annealing Schedule: A Simple Approach to Mitigating KL Vanishing" (NAACL 2019). Any may rise to
    this from 0, in proportion, over its first `warmup_steps`.
    """
    if not isinstance(value, Mapping):
        check(value, RATE, where)
        constant = float(value)
        return lambda _: jnp.float32(constant)
    value = fill(value, SCHEDULE, where)
    if value["period_epochs"] is None and value["period_steps"] is None:
        value["period_steps"] = steps
    period = _steps(value, "period", steps_per_epoch, where)
    start, stop = float(value["start"]), float(value["stop"])
    shapes: dict[str, Callable] = {
        "linear": lambda x: start + (stop - start) * x,
        "cosine": lambda x: stop + (start - stop) * 0.5 * (1 + jnp.cos(jnp.pi * x)),
        "exponential": lambda x: start * (stop / start) ** x,
        "cyclic": lambda x: start + (stop - start) * jnp.minimum(2 * (x % 1.0), 1.0),
    }
    choice(value["kind"], shapes, f"{where}.kind")
    if value["kind"] == "exponential" and (start <= 0 or stop <= 0):
        raise ConfigError(f"{where}: an exponential schedule needs start and stop above 0")
    shape, again = shapes[value["kind"]], value["kind"] == "cyclic"
    warmup = value["warmup_steps"]

    def over_time(step: Any) -> Any:
        whole = shape(step / period if again else jnp.clip(step / period, 0.0, 1.0))
        return whole * jnp.minimum((step + 1) / warmup, 1.0) if warmup else whole

    return over_time


def _optimizer(settings: Mapping[str, Any], where: str) -> optax.GradientTransformation:
    """An optax optimiser by name, of learning rate 1: the phase's schedule multiplies its steps.

    Beside its arguments, `clip_norm`: what the gradient's norm is at most, and `every`: how many
    batches' gradients are averaged to one step, each batch being worth the same, whatever it shows.
    """
    arguments = dict(settings)
    name = arguments.pop("name", None)
    clip = arguments.pop("clip_norm", 0.0)
    check(clip, AMOUNT, f"{where}.clip_norm")
    every = arguments.pop("every", 1)
    check(every, COUNT, f"{where}.every")
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
    optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer) if clip else optimizer
    return optax.MultiSteps(optimizer, every).gradient_transformation() if every > 1 else optimizer


def _steps(settings: Mapping[str, Any], what: str, steps_per_epoch: int, where: str) -> int:
    """The duration that stands as `{what}_epochs` or `{what}_steps`, in steps."""
    epochs, steps = settings[f"{what}_epochs"], settings[f"{what}_steps"]
    if (epochs is None) == (steps is None):
        raise ConfigError(f"{where}: give either {what}_epochs or {what}_steps")
    count = round(epochs * steps_per_epoch) if steps is None else steps
    if not 1 <= count <= _MAX_STEPS:
        raise ConfigError(f"{where}: {what} is {count} steps; it must be 1 to {_MAX_STEPS}")
    return count
