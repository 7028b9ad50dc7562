"""What an evaluated run left in its work directory, read back. Lengths are in metres."""

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose3d_jax.errors import UserError
from pose3d_jax.log import read_scalars

_SEAL = "seal"
_AGAIN = "write it again with --mode=evaluate"


class RunError(UserError):
    """A work directory that cannot be read back; the message says what, where and what to do."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What one work directory holds. Lengths are in metres."""

    name: str
    metrics: dict[str, Any]
    scalars: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    examples: dict[str, np.ndarray] | None = None

    @property
    def up_to_scale(self) -> bool:
        """Whether the method's predictions have no size: no split has a P1 of them."""
        splits = self.metrics["splits"].values()
        rows = [split["rows"].get(self.metrics["method"], {}) for split in splits]
        return all(row.get("p1", {}).get("frames") is None for row in rows)


def read_run(workdir: str | os.PathLike[str]) -> Run:
    """Reads `metrics.json` and, where they are, `scalars.jsonl` and `examples.npz`.

    Raises `RunError` where there is no evaluation, or one that cannot be read, and `LogError`.
    """
    workdir = Path(workdir).resolve()
    metrics = _read(workdir, "metrics.json", ("method", "splits"))
    scalars, examples = workdir / "scalars.jsonl", workdir / "examples.npz"
    return Run(
        workdir.name,
        metrics,
        read_scalars(scalars) if scalars.exists() else [],
        _read_examples(examples) if examples.exists() else None,
    )


def read_runs(workdir: str | os.PathLike[str]) -> list[Run]:
    """The run of a work directory, and those in it that were adapted from the same checkpoint.

    Raises as `read_run` does.
    """
    own = read_run(workdir)
    folders = sorted(path.parent for path in Path(workdir).glob("*/metrics.json"))
    adapted = [read_run(folder) for folder in folders]
    return [own, *(run for run in adapted if run.metrics["steps"] == own.metrics["steps"])]


def read_clips(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The splits of `clips.json`: what `metrics.json` is a mean of, clip by clip.

    By split: `fingerprint` of its data; `clips` and `groups`, a name for each clip; and `rows`, by
    row and metric the `sum` of the errors of each clip, metres, and the `count` of its frames and
    views that were scored.

    Raises `RunError` where there is none, or one that cannot be read.
    """
    return _read(Path(workdir).resolve(), "clips.json", ("splits",))["splits"]


def distinct(runs: Sequence[Run], taken: Iterable[str] = ()) -> list[Run]:
    """The runs with no name twice, nor one that is taken."""
    used, renamed = set(taken), []
    for run in runs:
        name, number = run.name, 1
        while name in used:
            number += 1
            name = f"{run.name} ({number})"
        used.add(name)
        renamed.append(dataclasses.replace(run, name=name))
    return renamed


def same_examples(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether two runs show the same examples: their names, what went in, what is true."""
    texts = ("names", "split", "keypoint_skeleton", "joint_skeleton")
    numbers = ("keypoints", "confidence", "truth", "triangulation")
    return all(np.array_equal(one[k], other[k]) for k in texts) and all(
        one[k].shape == other[k].shape and np.allclose(one[k], other[k], atol=1e-3, equal_nan=True)
        for k in numbers
    )


def sealed(results: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The results with a seal: where it is there, `read_run` and `read_clips` hold them to it.

    `name` is that of the file that they are written to: one cannot be taken for another.
    """
    return {**results, _SEAL: _digest(results, name)}


def _digest(results: Mapping[str, Any], name: str) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    plain = {key: value for key, value in results.items() if key != _SEAL}
    return hashlib.sha256(json.dumps([name, plain], sort_keys=True).encode()).hexdigest()


def _read_examples(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            # Numpy reads no further than a header says, so it may not come to the checksum.
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is not what was written")
        with np.load(path) as arrays:
            return dict(arrays)
    except Exception as error:  # zipfile and numpy raise many kinds for damage
        raise RunError(f"{path} cannot be read ({error}); {_AGAIN}") from error


def _read(workdir: Path, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """One of the files of an evaluation, which must be in metres and have these keys."""
    path = workdir / name
    if not path.exists():
        raise RunError(
            f"{workdir} has no {name}: the run was not evaluated yet, or this is not its work "
            f"directory; run with --mode=evaluate --workdir={workdir} first"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not JSON ({error}); {_AGAIN}") from error
    if not isinstance(found, dict) or found.get("unit") != "m" or any(k not in found for k in keys):
        raise RunError(f"{path} lacks {', '.join(keys)} or the unit 'm'; {_AGAIN}")
    if _SEAL in found and found[_SEAL] != _digest(found, name):
        raise RunError(f"{path} is not what was written: its seal is of other results; {_AGAIN}")
    return found
