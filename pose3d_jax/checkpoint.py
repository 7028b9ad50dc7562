"""Checkpoints: the training state and what it takes to use it. The only file that imports Orbax."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from pose3d_jax.errors import UserError

_FOLDER = "checkpoints"
_STATE, _METADATA = "state", "metadata"
_DIGEST, _SEAL = "digest", "seal"  # of the state; of the metadata with that digest


class CheckpointError(UserError):
    """No checkpoint, or one that is damaged or does not fit; says where and which part."""


class Checkpoints:
    """The checkpoints of a work directory; a context manager, which waits for what is being saved.

    `metadata` (plain data) goes with every checkpoint: config, both skeletons, 2D source,
    normalisation, recordings, code version and data fingerprint. A checkpoint takes its place only
    when it is whole.
    """

    def __init__(self, workdir: str | Path, keep: int = 2):
        self._directory = Path(workdir).absolute() / _FOLDER
        self._manager = ocp.CheckpointManager(
            self._directory, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: Any, metadata: Mapping[str, Any]) -> None:
        """Saves a pytree with a `step`, without device axis, under that step; in the background.

        In a run of several processes every one calls this.
        """
        step, arrays = int(state.step), jax.tree.map(_plain, state)
        saved = {**metadata, _DIGEST: _digest(arrays)}
        arguments = {
            _STATE: ocp.args.StandardSave(arrays),
            _METADATA: ocp.args.JsonSave({**saved, _SEAL: _seal(saved)}),
        }
        self._manager.save(step, args=ocp.args.Composite(**arguments))


def exists(workdir: str | Path) -> bool:
    """Whether the work directory holds a finished checkpoint."""
    folder = Path(workdir).absolute() / _FOLDER
    return folder.is_dir() and bool(ocp.utils.checkpoint_steps(folder))


def read_metadata(workdir: str | Path) -> dict[str, Any]:
    """What was saved beside the latest state. Raises `CheckpointError`."""
    metadata = _restore(workdir, _METADATA, ocp.args.JsonRestore())
    metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
    if metadata.pop(_SEAL, None) != _seal(metadata):
        raise CheckpointError(
            f"{_latest(workdir)} is damaged: its metadata is not what was saved{_way_on(workdir)}"
        )
    return metadata


def read_state(workdir: str | Path, like: Any) -> Any:
    """The latest state; `like` gives its structure, shapes and types (see `jax.eval_shape`).

    Raises `CheckpointError` where there is none, where it differs from `like`, and where it is not
    what was saved.
    """
    plain = jax.eval_shape(lambda state: jax.tree.map(_key_data, state), like)
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), plain)
    arrays = _restore(workdir, _STATE, ocp.args.StandardRestore(shapes))
    if _digest(arrays) != read_metadata(workdir)[_DIGEST]:
        raise CheckpointError(
            f"{_latest(workdir)} is damaged: its arrays are not those that were saved"
            f"{_way_on(workdir)}"
        )
    # Orbax fills arrays of other shapes than it was asked for without a word.
    paths, wanted = zip(*jax.tree.leaves_with_path(shapes), strict=True)
    for path, array, leaf in zip(paths, jax.tree.leaves(arrays), wanted, strict=True):
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            name = jax.tree_util.keystr(path)
            raise CheckpointError(
                f"{_latest(workdir)} does not fit the model of its config: {name} is {array.shape} "
                f"{array.dtype}, not {leaf.shape} {leaf.dtype}"
            )
    return jax.tree.map(_like, arrays, like)


def check_fits(workdir: str | Path, metadata: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """Raises `CheckpointError` where what a checkpoint was trained with is not what it is to meet.

    `found` holds any of `keypoint_skeleton`, `joint_skeleton`, `normalisation`, `keypoint_source`
    by name.
    """
    for what, name in found.items():
        saved = metadata[what]["name"] if isinstance(metadata[what], Mapping) else metadata[what]
        if saved != name:
            raise CheckpointError(
                f"the checkpoint in {workdir} was trained with {what} {saved!r}, not {name!r}; "
                + _REMEDIES[what]
            )


_REMEDIES = {
    "keypoint_skeleton": "to convert the data, name that one in config.data.keypoint_skeleton, and "
    "give --config",
    "joint_skeleton": "to convert the data, name that one in config.data.joint_skeleton, and give "
    "--config",
    "normalisation": "use the version of the package that it was trained with, or train anew",
    "keypoint_source": "to use it on other 2D points on purpose, name their source in "
    "config.data.keypoint_source, and give --config",
}


def _way_on(workdir: str | Path) -> str:
    folder = Path(workdir).absolute() / _FOLDER
    if len(ocp.utils.checkpoint_steps(folder)) > 1:
        return "; delete that folder, and the run goes on from the checkpoint before it"
    return "; there is none before it, so that the run must begin again in another --workdir"


def _latest(workdir: str | Path) -> Path:
    folder = Path(workdir).absolute() / _FOLDER
    return folder / str(max(ocp.utils.checkpoint_steps(folder)))


def _restore(workdir: str | Path, item: str, args: Any) -> Any:
    if not exists(workdir):
        raise CheckpointError(
            f"no checkpoint in {Path(workdir) / _FOLDER}; train first (--mode=train), or correct "
            f"--workdir"
        )
    try:
        with ocp.CheckpointManager(Path(workdir).absolute() / _FOLDER) as manager:
            step = manager.latest_step()
            restored = manager.restore(step, args=ocp.args.Composite(**{item: args}))
    except Exception as error:  # Orbax and its storage raise many kinds for damage
        raise CheckpointError(
            f"the {item} in {_latest(workdir)} cannot be read, or does not fit the model of its "
            f"config: {_first_line(error)}{_way_on(workdir)}"
        ) from error
    return restored[item]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _seal(metadata: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def _digest(arrays: Any) -> str:
    """SHA-256 over all leaves' bytes: what was read back must be what was saved."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _plain(leaf: Any) -> np.ndarray:
    """On the host, where every process holds the same and Orbax has nothing to gather."""
    return np.asarray(_key_data(leaf))


def _like(array: np.ndarray, like: Any) -> jax.Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array))
    return jnp.asarray(array)
