"""The tables of a report: the only place that turns metres into millimetres."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pose3d_jax import viewer
from pose3d_jax.runs import Run

# The metrics and the rows that are no method, as they are shown.
NAMES = {
    "p1": "P1",
    "p2": "P2",
    "n_mpjpe": "N-MPJPE",
    "stress": "stress",
    "absolute": "absolute",
    "mpjpe_report": "MPJPE (report)",
}
# In metres per second squared.
_MOTION = {"acceleration": "acceleration, m/s²"}
_SHARES = {"pck": "PCK@150", "auc": "AUC", "pck_2d": "2D-PCK@0.05"}
KINDS = ("action", "subject", "group")


def millimetres(metres: float | None) -> str:
    """One decimal, or a dash where there is no number."""
    return "–" if metres is None or not math.isfinite(metres) else f"{1000 * metres:.1f}"


def percent(share: float | None) -> str:
    """One decimal, or a dash where there is no number."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def per_second_squared(value: float | None) -> str:
    """Metres per second squared: two decimals, or a dash where there is no number."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"


def baseline(row: str) -> str | None:
    """The label of a row that is no method's, but what methods are held to; else None."""
    plain, _, kind = row.partition("triangulation")
    if not plain and row and (not kind or kind[0] == "_"):
        return "triangulation" + kind.replace("_", ", ", 1).replace("_", " + ")
    return "mean pose" if row == "mean_pose" else None


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One line of a table: a row of a run's metrics, under the name it is shown by."""

    label: str
    run: Run
    row: str

    @property
    def baseline(self) -> bool:
        """Whether it is no method's."""
        return baseline(self.row) is not None


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a data set, and all that was measured on it: methods first, then baselines."""

    name: str
    title: str
    entries: tuple[Entry, ...]

    def of(self, entry: Entry) -> dict[str, Any]:
        """What the entry's run measured on it."""
        return entry.run.metrics["splits"][self.name]


def taken(runs: Sequence[Run]) -> set[str]:
    """Labels that no run may have for its name."""
    splits = [split for run in runs for split in run.metrics["splits"].values()]
    labels = {baseline(row) for split in splits for row in split["rows"]}
    return {"triangulation", "mean pose"} | {label for label in labels if label}


def splits(runs: Sequence[Run]) -> list[Split]:
    """Runs share a split where data, noise, frames and clips are the same."""
    sharing: dict[tuple, list[Run]] = {}
    for run in runs:
        for name, split in run.metrics["splits"].items():
            data = (run.metrics.get(key, "") for key in ("dataset", "fingerprint"))
            noise = run.metrics.get("noise", "clean")
            sharing.setdefault((name, *data, noise, split["frames"], split["clips"]), []).append(
                run
            )
    splits = []
    for (name, dataset, _, noise, frames, clips), members in sharing.items():
        rows = {run.name: run.metrics["splits"][name]["rows"] for run in members}
        entries = [
            Entry(run.name if row == run.metrics["method"] else f"{run.name}: {row}", run, row)
            for run in members
            for row in rows[run.name]
            if baseline(row) is None
        ]
        baselines = {row: label for of in rows.values() for row in of if (label := baseline(row))}
        for row, label in sorted(
            baselines.items(), key=lambda item: (item[0] == "mean_pose", item)
        ):
            having = [run for run in members if row in rows[run.name]]
            if len({_digits(rows[run.name][row]) for run in having}) <= 1:  # they agree: once
                entries += [Entry(label, run, row) for run in having[:1]]
            else:
                entries += [Entry(f"{label} ({run.name})", run, row) for run in having]
        noisy = "" if noise == "clean" else f" · {noise} noise"
        title = f"{dataset} · {name}{noisy} · {frames:,} frames, {clips:,} clips"
        splits.append(Split(name, title, tuple(entries)))
    return splits


def collapses(split: Split) -> list[str]:
    """A line on each run whose predictions have collapsed: see `collapse.check`."""
    runs = {entry.run.name: split.of(entry).get("collapse", {}) for entry in split.entries}
    return [
        f"{name} has collapsed ({found['verdict']}) on {split.title}: its depths vary "
        f"{found['relief']:.2g} times as much as its widths (variances; about 1 for people who are "
        f"seen from all around)"
        for name, found in runs.items()
        if found.get("verdict", "none") != "none"
    ]


def _digits(row: Mapping[str, Mapping[str, float | None]]) -> str:
    return str({m: [millimetres(v.get(k)) for k in ("frames", "groups")] for m, v in row.items()})


def _lowest(values: Sequence[float | None]) -> str:
    """The lowest as it is shown; nothing where there is no other to compare it with."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return millimetres(min(known)) if len(known) > 1 else ""


def headline(split: Split) -> viewer.Table:
    """Every metric of every row, by its means; the best method's are bold."""
    # Where a group is an action, its mean goes by the name that the benchmarks use.
    parts = [split.of(entry).get("breakdown", {}) for entry in split.entries]
    by_action = all(part and part["group"].keys() == part["action"].keys() for part in parts)
    means = ("frames", "actions" if by_action else "groups")
    keys = [(metric, mean) for metric in (*NAMES, *_MOTION, *_SHARES) for mean in means]
    lines = {
        e: [split.of(e)["rows"][e.row].get(m, {}).get(k) for m, k in keys] for e in split.entries
    }
    texts = {
        entry: [_shown(metric, value) for (metric, _), value in zip(keys, line, strict=True)]
        for entry, line in lines.items()
    }
    best = [
        _best([texts[entry][i] for entry in lines if not entry.baseline], metric in _SHARES)
        for i, (metric, _) in enumerate(keys)
    ]
    rows = []
    for entry, cells in texts.items():
        bold = {i for i, cell in enumerate(cells) if cell == best[i] and not entry.baseline}
        rows.append(viewer.Row(entry.label, tuple(cells), frozenset(bold), quiet=entry.baseline))
    spans = tuple((name, 2) for name in (NAMES | _MOTION | _SHARES).values())
    return viewer.Table(split.title, tuple(mean for _, mean in keys), tuple(rows), spans)


def _shown(metric: str, value: float | None) -> str:
    """A metric's number in the unit that it is shown in."""
    if metric in _MOTION:
        return per_second_squared(value)
    return percent(value) if metric in _SHARES else millimetres(value)


def _best(cells: Sequence[str], higher: bool) -> str:
    """The best cell; nothing where there is no other to compare it with."""
    known = sorted((float(cell), cell) for cell in cells if cell != "–")
    return known[-1 if higher else 0][1] if len(known) > 1 else ""


def breakdowns(split: Split) -> list[viewer.Table]:
    """P1 and P2 of every method by action, by subject and by group."""
    tables = []
    labels = tuple(entry.label for entry in split.entries)
    for kind in KINDS:
        parts = {e: split.of(e).get("breakdown", {}).get(kind, {}) for e in split.entries}
        rows = []
        for value in dict.fromkeys(value for part in parts.values() for value in part):
            frames = max(part[value]["frames"] for part in parts.values() if value in part)
            cells, bold = [f"{frames:,}"], set()
            for metric in ("p1", "p2"):
                line = {e: part_of(part, value, e.row, metric) for e, part in parts.items()}
                best = _lowest([number for e, number in line.items() if not e.baseline])
                for entry, number in line.items():
                    if not entry.baseline and millimetres(number) == best:
                        bold.add(len(cells))
                    cells.append(millimetres(number))
            rows.append(viewer.Row(value, tuple(cells), frozenset(bold)))
        if rows:
            spans = (("", 1), ("P1", len(labels)), ("P2", len(labels)))
            title = f"{split.title.rsplit(' · ', 1)[0]} · by {kind}"
            tables.append(viewer.Table(title, ("frames", *labels, *labels), tuple(rows), spans))
    return tables


def part_of(part: Mapping[str, Any], value: str, row: str, metric: str) -> float | None:
    """A number of a breakdown, such as P1 of a row on an action, metres; None if there is none."""
    return part.get(value, {}).get("rows", {}).get(row, {}).get(metric)
