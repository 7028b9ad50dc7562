"""Checkpoints: the training state and what it takes to use it. The only file that imports Orbax."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from pose3d_jax.errors import UserError

_FOLDER = "checkpoints"
_STATE, _METADATA = "state", "metadata"


class CheckpointError(UserError):
    """No checkpoint, or one that does not fit; the message says where and which part."""


class Checkpoints:
    """The checkpoints of a work directory; a context manager, which waits for what is being saved.

    `metadata` (plain data) goes with every checkpoint: config, both skeletons, 2D source,
    normalisation, recordings, package version and data fingerprint.
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
        """Saves a pytree with a `step`, without device axis, under that step; in the background."""
        arguments = {
            _STATE: ocp.args.StandardSave(state),
            _METADATA: ocp.args.JsonSave(dict(metadata)),
        }
        self._manager.save(int(state.step), args=ocp.args.Composite(**arguments))


def exists(workdir: str | Path) -> bool:
    """Whether the work directory holds a finished checkpoint."""
    folder = Path(workdir).absolute() / _FOLDER
    return folder.is_dir() and bool(ocp.utils.checkpoint_steps(folder))


def read_metadata(workdir: str | Path) -> dict[str, Any]:
    """What was saved beside the latest state. Raises `CheckpointError` where there is none."""
    return dict(_restore(workdir, _METADATA, ocp.args.JsonRestore()))


def read_state(workdir: str | Path, like: Any) -> Any:
    """The latest state; `like` gives its structure, shapes and types (see `jax.eval_shape`).

    Raises `CheckpointError` where there is none, or where it differs from `like`.
    """
    try:
        return _restore(workdir, _STATE, ocp.args.StandardRestore(like))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"the checkpoint in {workdir} does not fit the model of its config: {error}"
        ) from error


def _restore(workdir: str | Path, item: str, args: Any) -> Any:
    if not exists(workdir):
        raise CheckpointError(
            f"no checkpoint in {Path(workdir) / _FOLDER}; train first (--mode=train), or correct "
            f"--workdir"
        )
    with ocp.CheckpointManager(Path(workdir).absolute() / _FOLDER) as manager:
        restored = manager.restore(manager.latest_step(), args=ocp.args.Composite(**{item: args}))
    return restored[item]
