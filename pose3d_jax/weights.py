"""Weights adapted at test time, first order: `method.terms` minimised on what is to be lifted.

The whole network is in inference mode, and labels are blanked before anything sees the clips.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int
from tqdm import tqdm

from pose3d_jax import cameras as cam
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData, PoseSet
from pose3d_jax.epoch import compile_epoch, replicate, train_epoch, unreplicate
from pose3d_jax.errors import NonFiniteError
from pose3d_jax.geometry import safe_norm
from pose3d_jax.methods.base import Method, Variables
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.residuals import OUTLIER_PX
from pose3d_jax.schema import Identity, Prediction
from pose3d_jax.state import Phase, TrainState, init_optimizer, term_names

_JUDGED = 1024  # windows at most on which weights are judged
_CALLS = 40  # compiled calls of an adaptation, between which the progress bar moves


# What adapted weights predict for a split, or for the clips of these numbers alone.
Lift: TypeAlias = Callable[[Variables, Sequence[int] | None], Prediction]


class Adapted(NamedTuple):
    """What an adaptation of one split leaves."""

    predictions: Prediction  # joints [frames, V, J, 3], in camera frames, metres
    curve: dict[int, dict[str, float]]  # step -> means of the terms over the steps before it


def adapt_shared(
    method: Method,
    phase: Phase,
    variables: Variables,
    data: PoseData,
    batch_size: int,
    devices: int,
    lift: Lift,
    bar: tqdm,
    held_out: float = 0.0,
    seed: int = 0,
) -> Adapted:
    """One set of weights for all windows: training as ever, on what is to be lifted.

    `held_out`: the share of keypoints that are not shown; the weights that predict them best are
    those that lift. `seed`: of which keypoints, and of what each step draws. Raises
    `NonFiniteError` naming the term.
    """
    poses, hidden = hide(without_labels(data.poses), held_out, seed)

    def program(steps: int) -> Callable:
        return compile_epoch(method, phase, {"main": batch_size}, devices, steps)

    state = replicate(_state(method, phase, variables, seed), devices)
    check = lambda failure: _check_finite(method, failure[:1], ["the split"])  # noqa: E731
    judge = None
    if hidden is not None:
        chosen = jnp.asarray(_spread(np.arange(poses.size), min(poses.size, _JUDGED)), jnp.int32)
        missed = jax.jit(functools.partial(_missed, method, poses, hidden))
        judge = lambda found: missed(unreplicate(found), chosen)  # noqa: E731
    state, curve = _minimise(phase, functools.cache(program), state, poses, bar, check, judge=judge)
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
    held_out: float = 0.0,
    seed: int = 0,
) -> Adapted:
    """A set of weights for every clip, `chunk` of them at a time under `vmap`.

    All start from the same `variables` and take the same number of steps. Several devices share the
    clips of a chunk. `held_out` and `seed` as in `adapt_shared`, clip by clip. Raises
    `NonFiniteError` naming the term and the clip.
    """
    poses, hidden = hide(without_labels(data.poses), held_out, seed)
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

    @jax.jit
    def missed(found: Variables, at: Array) -> Array:
        over = jax.vmap(lambda own, at: _missed(method, poses, hidden, unreplicate(own), at))
        return over(found, at)

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
        state = replicate(replicate(_state(method, phase, variables, seed), 1), chunk)
        state = jax.device_put(state, over_devices)
        check = lambda failure, m=members: _check_finite(method, failure[: len(m), 0], m)  # noqa: E731
        judge = None
        if hidden is not None:
            some = _spread(np.arange(slots), min(slots, _JUDGED))
            at = jnp.asarray(drawn[:, some], jnp.int32)
            judge = functools.partial(missed, at=at)
        state, curve = _minimise(phase, program, state, chosen, bar, check, len(members), judge)
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


def _spread(windows: Int[np.ndarray, "windows"], slots: int) -> Int[np.ndarray, "slots"]:
    """The windows over more slots, each as often as any other to within one.

    So short clips and long ones run in one program without a draw wasted on padding.
    """
    return windows[np.arange(slots) * len(windows) // slots]


def _state(method: Method, phase: Phase, variables: Variables, seed: int) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(seed),
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
    judge: Callable[[Variables], Array] | None = None,
) -> tuple[TrainState, dict[int, Any]]:
    """Runs the phase in a few compiled calls; also the sums and counts of terms at their ends.

    With a `judge` (of variables, or of a chunk of them, the lower the better) the state has the
    best variables that a call began or ended with, by set.
    """
    per_call, done, curve = -(-phase.steps // _CALLS), 0, {}
    # Calls take over what they are given.
    best = None if judge is None else jax.tree.map(jnp.copy, state.variables)
    least = None if judge is None else judge(state.variables)
    while done < phase.steps:
        call = min(per_call, phase.steps - done)
        state, terms = program(call)(state, {"main": poses})
        check(state.failure)
        done += call
        curve[done] = jax.device_get(terms)
        bar.update(call * sets)
        if judge is not None:
            now = judge(state.variables)
            best, least = _better(now, state.variables, least, best)
    return (state if best is None else dataclasses.replace(state, variables=best)), curve


@jax.jit
def _better(now: Array, own: Variables, least: Array, best: Variables) -> tuple[Variables, Array]:
    """Of each set the variables that are better, and how good they are."""

    def chosen(a: Array, b: Array) -> Array:
        return jnp.where((now < least).reshape(now.shape + (1,) * (a.ndim - now.ndim)), a, b)

    return jax.tree.map(chosen, own, best), jnp.where(now < least, now, least)


def hide(poses: PoseSet, share: float, seed: int = 0) -> tuple[PoseSet, Array | None]:
    """The set without a share of its keypoints, drawn by frame, view, joint; which those are."""
    if not share:
        return poses, None
    confidence = poses.observations.confidence
    drawn = jax.random.uniform(jax.random.key(seed), confidence.shape) < share
    hidden = drawn & (confidence > 0)
    shown = jnp.where(hidden, 0.0, confidence)
    observations = dataclasses.replace(poses.observations, confidence=shown)
    return dataclasses.replace(poses, observations=observations), hidden


def _missed(
    method: Method, poses: PoseSet, hidden: Array | None, variables: Variables, chosen: Array
) -> Array:
    """How far keypoints that were not shown are from what the views predict: a mean, pixels.

    What each view predicts is compared in all views: its own alone does not see its depth. A
    keypoint counts `OUTLIER_PX` at most: it may be an outlier.
    """
    assert hidden is not None
    observations = poses.take(chosen).observations
    # The windows' own frames, without what a method sees around them.
    before, _ = poses.context
    frame = poses.start[chosen][:, None] + jnp.arange(poses.window)[None]
    inside = frame < poses.stop[chosen][:, None]
    there = hidden[jnp.minimum(frame, len(hidden) - 1)] & inside[..., None, None]
    wanted = observations.keypoints[:, before : before + poses.window]
    cameras = jax.tree.map(lambda x: x[:, before : before + poses.window], observations.cameras)
    joints = method.predict(variables, observations).joints
    world = cam.batched(cam.to_world)(cameras, joints)

    def seen_by_all(joints: Array) -> Array:  # [B, T, J, 3] -> [B, T, V, J, 2]
        shown = jnp.broadcast_to(joints[:, :, None], world.shape)
        return cam.batched(cam.project)(cameras, shown)

    points = jax.vmap(seen_by_all, in_axes=2)(world)  # of each view's prediction
    away = jnp.minimum(safe_norm(points - wanted[None]), OUTLIER_PX).mean(axis=0)
    return jnp.sum(jnp.where(there, away, 0.0)) / jnp.maximum(jnp.sum(there), 1)


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
