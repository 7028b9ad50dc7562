"""Scalars, tables and the HTML report: the only place that turns metres into millimetres."""

import dataclasses
import html
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

import jax
import numpy as np

from pose3d_jax import metrics as measures
from pose3d_jax import skeleton
from pose3d_jax.viewer import figures, page

_NAMES = {
    "p1": "P1",
    "p2": "P2",
    "n_mpjpe": "N-MPJPE",
    "absolute": "absolute",
    "mpjpe_report": "MPJPE (report)",
}
_BASELINES = {"triangulation": "triangulation", "mean_pose": "mean pose"}
_KINDS = ("action", "subject", "group")


class ReportError(ValueError):
    """A work directory that cannot be reported; the message says what, where and what to do."""


class ScalarLog:
    """Appends to `workdir/scalars.jsonl`, one line of JSON per call, whole on disk at once."""

    def __init__(self, workdir: str | os.PathLike[str]):
        self.path = Path(workdir) / "scalars.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():  # a killed run may have left half a line
            head, newline, _ = self.path.read_bytes().rpartition(b"\n")
            os.truncate(self.path, len(head + newline))

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Writes one line; a value that is not finite becomes null, JSON having no other word."""
        row: dict[str, Any] = {"step": int(step)}
        for name, value in values.items():
            number = value if isinstance(value, int) else float(value)
            row[name] = number if math.isfinite(number) else None
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_scalars(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a `scalars.jsonl`; a last line that was cut off is left out."""
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is cut off
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}, line {number} is not JSON ({error}); remove it") from error
    return rows


@dataclasses.dataclass(frozen=True)
class Run:
    """What one work directory holds. Lengths are in metres."""

    name: str
    metrics: dict[str, Any]
    scalars: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    examples: dict[str, np.ndarray] | None = None


def read_run(workdir: str | os.PathLike[str]) -> Run:
    """Reads `metrics.json` and, where they are, `scalars.jsonl` and `examples.npz`.

    Raises `ReportError` where there is no evaluation to report, or one that cannot be read.
    """
    workdir = Path(workdir).resolve()
    path = workdir / "metrics.json"
    if not path.exists():
        raise ReportError(
            f"{workdir} has no metrics.json: the run was not evaluated yet, or this is not its "
            f"work directory; run with --mode=evaluate --workdir={workdir} first"
        )
    again = "write it again with --mode=evaluate"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ReportError(f"{path} is not JSON ({error}); {again}") from error
    if metrics.get("unit") != "m" or "splits" not in metrics or "method" not in metrics:
        raise ReportError(f"{path} lacks a method, splits, or the unit 'm'; {again}")
    scalars, examples = workdir / "scalars.jsonl", None
    if (workdir / "examples.npz").exists():
        with np.load(workdir / "examples.npz") as arrays:
            examples = dict(arrays)
    return Run(workdir.name, metrics, read_scalars(scalars) if scalars.exists() else [], examples)


def millimetres(metres: float | None) -> str:
    """One decimal, or a dash where there is no number."""
    return "–" if metres is None or not math.isfinite(metres) else f"{1000 * metres:.1f}"


def table(metrics: Mapping[str, Any]) -> str:
    """The tables of one `metrics.json` as plain text, in millimetres."""
    run = Run(metrics["method"], dict(metrics))
    blocks = ["Errors in mm; means over all frames and views, and over the means of the groups."]
    for split in _splits([run]):
        blocks += [_headline(split).text(), *(part.text() for part in _breakdowns(split))]
    return "\n\n".join(blocks) + "\n"


def write_html(path: str | os.PathLike[str], runs: Sequence[Run], title: str) -> None:
    """Writes one self-contained page about the runs, whole or not at all."""
    if not runs:
        raise ReportError("there is no run to report; name at least one work directory")
    runs, colours = _distinct(runs)
    splits = _splits(runs)
    parts = [
        page.heading(title, f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} · errors in mm"),
        *(_headline(split).html() for split in splits),
        page.note(
            "frames: mean over all frames and views. groups: mean over the groups’ means. "
            "P1: relative to the root. P2: after Procrustes alignment. N-MPJPE: after scaling. "
            "absolute: as predicted. MPJPE (report): the root absolute, the rest relative to it. "
            "Bold: the lowest among several methods. –: the method does not predict that much."
        ),
        _facts(runs).html(),
    ]
    drawn = figures.curves({run.name: _shown(run.scalars) for run in runs}, colours, "mm")
    if drawn.axes:
        parts += [page.section("Training"), page.picture(figures.to_svg(drawn), "")]
    if any(run.examples is not None for run in runs):
        parts += [page.section("Poses"), *_pictures(runs, colours)]
    broken = [(split, _breakdowns(split)) for split in splits]
    if any(tables for _, tables in broken):
        parts.append(page.section("Breakdown"))
    for split, tables in broken:
        parts += _dots(split, colours)
        parts += [page.details(t.title, dataclasses.replace(t, title="").html()) for t in tables]
    parts.append(page.section("Configs"))
    for run in runs:
        text = json.dumps(run.metrics.get("config", {}), indent=2, ensure_ascii=False)
        parts.append(page.details(run.name, f"<pre>{html.escape(text)}</pre>"))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(page.whole(title, parts), encoding="utf-8")
    temporary.replace(path)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One line of a table: a row of a run's metrics, under the name it is shown by."""

    label: str
    run: Run
    row: str

    @property
    def baseline(self) -> bool:
        return self.row in _BASELINES


@dataclasses.dataclass(frozen=True)
class _Split:
    """A split of a data set, and all that was measured on it: methods first, then baselines."""

    name: str
    title: str
    entries: tuple[_Entry, ...]

    def of(self, entry: _Entry) -> dict[str, Any]:
        return entry.run.metrics["splits"][self.name]


def _splits(runs: Sequence[Run]) -> list[_Split]:
    """Runs share a split where data, frames and clips are the same."""
    sharing: dict[tuple, list[Run]] = {}
    for run in runs:
        for name, split in run.metrics["splits"].items():
            data = run.metrics.get("dataset", ""), run.metrics.get("fingerprint", "")
            sharing.setdefault((name, *data, split["frames"], split["clips"]), []).append(run)
    splits = []
    for (name, dataset, _, frames, clips), members in sharing.items():
        rows = {run.name: run.metrics["splits"][name]["rows"] for run in members}
        entries = [
            _Entry(run.name if row == run.metrics["method"] else f"{run.name}: {row}", run, row)
            for run in members
            for row in rows[run.name]
            if row not in _BASELINES
        ]
        for row, label in _BASELINES.items():
            having = [run for run in members if row in rows[run.name]]
            if len({_digits(rows[run.name][row]) for run in having}) <= 1:  # they agree: once
                entries += [_Entry(label, run, row) for run in having[:1]]
            else:
                entries += [_Entry(f"{label} ({run.name})", run, row) for run in having]
        title = f"{dataset} · {name} · {frames:,} frames, {clips:,} clips"
        splits.append(_Split(name, title, tuple(entries)))
    return splits


def _digits(row: Mapping[str, Mapping[str, float | None]]) -> str:
    return str({m: [millimetres(v.get(k)) for k in ("frames", "groups")] for m, v in row.items()})


def _headline(split: _Split) -> page.Table:
    keys = [(metric, mean) for metric in _NAMES for mean in ("frames", "groups")]
    rows = {e: split.of(e)["rows"][e.row] for e in split.entries}
    cells = {e: [rows[e].get(metric, {}).get(mean) for metric, mean in keys] for e in rows}
    methods = [e for e in split.entries if not e.baseline]
    bold = [_lowest([cells[e][i] for e in methods]) for i in range(len(keys))]
    return page.Table(
        split.title,
        tuple((name, 2) for name in _NAMES.values()),
        tuple(mean for _, mean in keys),
        tuple(
            page.Row(
                entry.label,
                tuple(millimetres(value) for value in values),
                frozenset(
                    i for i, low in enumerate(bold) if not entry.baseline and low == _mm(values[i])
                ),
                quiet=entry.baseline,
            )
            for entry, values in cells.items()
        ),
    )
