"""Scalars of a run, as it goes: lines of JSON, and the same for TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from tensorboardX import SummaryWriter

from pose3d_jax import workdir
from pose3d_jax.errors import UserError

_FLUSH_SECONDS = 1  # a run that is killed leaves out of TensorBoard what came after the last flush


class LogError(UserError):
    """A `scalars.jsonl` that cannot be read; the message says where and what to do."""


class ScalarLog:
    """Appends to `scalars.jsonl` of a directory, and to the event files in its `tensorboard/`.

    A run that is taken up again at step `first_step` writes anew what came after it: the rows of
    later steps are dropped, and TensorBoard is told to forget them. A context manager; without
    `close` the last rows may be missing in TensorBoard.

    Raises `LogError` where there are rows already, one of which cannot be read.
    """

    def __init__(self, directory: str | os.PathLike[str], first_step: int = 0):
        directory = Path(directory)
        self.path = directory / "scalars.jsonl"
        directory.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [row for row in read_scalars(self.path) if row["step"] <= first_step]
            workdir.write_text(self.path, "".join(map(_line, kept)))
        self._board: SummaryWriter | None = SummaryWriter(
            str(directory / "tensorboard"),
            purge_step=first_step + 1,  # TensorBoard forgets this step and the later ones
            flush_secs=_FLUSH_SECONDS,
            # Files are named by the second: two runs within one must not write over each other.
            filename_suffix=f".{first_step:09d}",
        )

    def __enter__(self) -> "ScalarLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Writes one line, whole on disk when this returns, and a TensorBoard event for each value.

        A value that is not finite becomes null, JSON having no other word; TensorBoard lacks it.
        Raises `ValueError` after `close`.
        """
        if self._board is None:
            raise ValueError(f"the log of {self.path.parent} is closed")
        row: dict[str, Any] = {"step": int(step)}
        for name, value in values.items():
            number = value if isinstance(value, int) else float(value)
            row[name] = number if math.isfinite(number) else None
            if math.isfinite(number):
                self._board.add_scalar(name, number, int(step))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def close(self) -> None:
        """Writes what TensorBoard's queue still holds and closes its file; once is enough."""
        if self._board is not None:
            self._board.close()
            self._board = None


def read_scalars(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a `scalars.jsonl`; a last line that was cut off is left out.

    Raises `LogError` naming the first line that is not a row, or a file that cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise LogError(f"{path} cannot be read ({error.strerror}); move it away") from error
    rows = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is cut off
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LogError(f"{path}, line {number} is not JSON ({error}); remove it") from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise LogError(f"{path}, line {number} is not a row with a step; remove it")
        rows.append(row)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"
