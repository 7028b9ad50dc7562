"""Training that goes on from what another run learnt, or from public weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pose3d_jax import checkpoint, evaluate, methods
from pose3d_jax.config import ConfigError, complete
from pose3d_jax.data.poses import PoseData
from pose3d_jax.methods.base import Info, Method, Variables, covers, recorded_of
from pose3d_jax.state import TrainState

# Settings of methods that change what the same weights say.
_MEANING = ("root_depth", "reach", "centred", "step")


def learnt(settings: Mapping[str, Any], method: Method, info: Info, data: PoseData) -> Variables:
    """What `config.init` takes from another run's latest checkpoint, under its new names.

    Nothing where it names none; of public weights what the method can use of them.

    Args:
      settings: `config.init`.
      method, info: those of the run to come.
      data: any split, in windows of one frame.

    Raises `CheckpointError` for a checkpoint that cannot be read or knows other joint sets, and
    `ConfigError` where it has no such part; `SourceError` for public weights that do not fit.
    """
    if settings["weights"]:
        return _public(settings, method)
    if not settings["workdir"]:
        return {}
    directory = Path(settings["workdir"])
    metadata = checkpoint.read_metadata(directory)
    metadata = {**metadata, "config": complete(metadata["config"])}
    own = {
        "keypoint_skeleton": info.keypoint_skeleton.name,
        "joint_skeleton": info.joint_skeleton.name,
        "normalisation": info.normalisation,
    }
    checkpoint.check_fits(directory, metadata, own)
    other = methods.create(metadata["config"]["method"], evaluate.info_of(metadata))
    for name in _MEANING:
        there, here = getattr(other, name, None), getattr(method, name, None)
        if there != here:
            raise ConfigError(
                f"config.method.{name} is {here}, but {directory} was trained with {there}: its "
                f"weights would mean another pose; set it to {there}"
            )
    _check_bodies(directory, getattr(other, "body", ""), getattr(method, "body", ""))
    variables = evaluate.variables_of(directory, metadata, other, data)
    part, into = settings["part"], _names(settings["into"])
    fresh = paths(settings["fresh"])
    found: dict[tuple[str, ...], Any] = {}
    for path, leaf in flatten_dict(variables).items():
        name = "/".join(path[1:])
        if covers(part, name) and not any(covers(own, name) for own in recorded_of(other)):
            place = (*into, *path[1 + len(_names(part)) :])
            if not any(covers(prefix, "/".join(place)) for prefix in fresh):
                found[(path[0], *place)] = leaf
    if not found:
        there = sorted({path[1] for path in flatten_dict(variables)})
        raise ConfigError(
            f"config.init.part: {directory} has no variables at or below {part!r}; the top ones "
            f"are {', '.join(there)}"
        )
    return unflatten_dict(found)


def _public(settings: Mapping[str, Any], method: Method) -> Variables:
    if settings["workdir"]:
        raise ConfigError("config.init names both a workdir and weights; give one of them")
    load = getattr(method, "pretrained", None)
    if load is None:
        raise ConfigError(
            f"config.init.weights: {type(method).__name__} has no network that public weights "
            f"are of; leave it empty"
        )
    found = flatten_dict(load(settings["weights"]))
    fresh = paths(settings["fresh"])
    return unflatten_dict(
        {p: x for p, x in found.items() if not any(covers(f, "/".join(p[1:])) for f in fresh)}
    )


def paths(value: str | Sequence[str]) -> tuple[str, ...]:
    """One path, several, or none."""
    return ((value,) if value else ()) if isinstance(value, str) else tuple(value)


def _names(path: str) -> list[str]:
    """Of a path; none of the top's, which is ""."""
    return path.split("/") if path else []


def _check_bodies(directory: Path, there: str, here: str) -> None:
    """Raises `ConfigError` where two methods' files of a body are not the same."""
    if not (there and here) or there == here:
        return
    try:
        same = Path(there).read_bytes() == Path(here).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"config.init: {directory} was trained with the body {there}; to see that {here} is "
            f"the same, both are needed ({error.strerror}: {error.filename})"
        ) from error
    if not same:
        raise ConfigError(
            f"config.method.body is {here}, but {directory} was trained with {there}, another "
            f"body: its weights would mean another pose; set it to that"
        )


def begin(state: TrainState, learnt: Variables, settings: Mapping[str, Any]) -> TrainState:
    """The state with what was learnt in its place; `settings` is `config.init`.

    Raises `ConfigError` where it does not fit.
    """
    fresh, found = flatten_dict(state.variables), flatten_dict(learnt)
    left = paths(settings["fresh"])
    wanted = {
        path: leaf
        for path, leaf in fresh.items()
        if covers(settings["into"], name := "/".join(path[1:]))
        and not any(covers(prefix, name) for prefix in left)
    }
    for path in sorted({*wanted, *found}):
        shapes = [np.shape(tree[path]) if path in tree else None for tree in (wanted, found)]
        if shapes[0] != shapes[1]:
            name = "/".join(path[1:])
            said = [str(shape) if shape is not None else "absent" for shape in shapes]
            raise ConfigError(
                f"config.init: {name} is {said[0]} in this network, {said[1]} in the checkpoint; "
                f"give both the same method and settings, or correct init.part and init.into"
            )
    variables = unflatten_dict({**fresh, **jax.tree.map(jnp.asarray, found)})
    average = None if state.average is None else jax.tree.map(jnp.copy, variables)
    return dataclasses.replace(state, variables=variables, average=average)
