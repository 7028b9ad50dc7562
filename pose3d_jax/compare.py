"""Two evaluated runs side by side: their errors, and how sure the difference is.

The interval is a paired percentile bootstrap over clips (Efron and Tibshirani, "An Introduction to
the Bootstrap", 1993, section 13.3): clips are drawn with replacement, the same ones for both runs.
It speaks of other clips like these, not of other people: those are not drawn. For the mean over
groups it is too narrow where groups have one or two clips, a clip drawn twice being there once: in
simulations with 40 clips it covered the truth in 87 % with one clip a group, 90 % with two.
"""

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pose3d_jax import tables, viewer
from pose3d_jax.errors import UserError
from pose3d_jax.runs import Run, read_clips, read_run

RESAMPLES = 10_000
ROUGH = 5  # with fewer clips than these the interval is too narrow to be believed
_SEED = 0
_PART = 500  # resamples at a time, for the sake of memory
_MEANS = ("frames", "groups")
_REMEDY = (
    "evaluate both on the same data with --mode=evaluate (and one --config, where they differ)"
)
_LEGEND = (
    "Errors in mm. frames: mean over all frames and views; groups: mean over the groups’ means.\n"
    "95 %: interval of B - A, from {resamples:,} resamples of the clips, drawn alike for both;\n"
    "for groups of one or two clips it is too narrow.\n"
    "B lower: share of the resamples in which B has the lower error, ties counting half."
)


class CompareError(UserError):
    """Two runs that cannot be compared; the message says which, why, and what to do."""


def run(workdir_a: str | os.PathLike[str], workdir_b: str | os.PathLike[str]) -> dict[str, Any]:
    """Compares two evaluated runs on every split that they share. Lengths are in metres.

    Compared are the runs' own rows, and rows of the same name that are neither theirs nor a
    baseline's. Returns `runs` (`a` and `b`: workdir, method, steps), `resamples`, `left_out` (`a`
    and `b`: splits that the other one lacks) and `splits`: by name the number of `clips`, of those
    that were `scored` at all, and `rows`. A row has its names `a` and `b` and `metrics`: by metric
    and mean (`frames`, `groups`) the errors `a` and `b`, `difference` (b - a), `interval` (95 %)
    and `b_lower` (share of the resamples), None where there is no such number.

    Raises `RunError` for a directory without an evaluation, `CompareError` where the two were not
    scored on the same frames.
    """
    workdirs = {"a": str(workdir_a), "b": str(workdir_b)}
    runs = {side: read_run(path) for side, path in workdirs.items()}
    clips = {side: read_clips(path) for side, path in workdirs.items()}
    methods = {side: run.metrics["method"] for side, run in runs.items()}
    shared = [split for split in clips["a"] if split in clips["b"]]
    where = " and ".join(workdirs.values())
    if not shared:
        raise CompareError(
            f"{where} have no split in common: {', '.join(clips['a'])} in the first, "
            f"{', '.join(clips['b'])} in the second; {_REMEDY}"
        )
    for side, name in itertools.product(workdirs, shared):
        if methods[side] not in clips[side][name]["rows"]:
            raise CompareError(
                f"clips.json in {workdirs[side]} has no row {methods[side]} for {name}, which "
                f"metrics.json tells of; write both again with --mode=evaluate"
            )
    _check_joints(where, runs)
    return {
        "unit": "m",
        "runs": {
            side: {
                "workdir": workdirs[side],
                "method": methods[side],
                "steps": run.metrics.get("steps"),
            }
            for side, run in runs.items()
        },
        "resamples": RESAMPLES,
        "splits": {
            name: _split(f"{where}, split {name},", clips["a"][name], clips["b"][name], methods)
            for name in shared
        },
        "left_out": {side: [s for s in clips[side] if s not in shared] for side in clips},
    }


def table(result: Mapping[str, Any]) -> str:
    """What `run` returns as plain text, in millimetres."""
    lines = []
    for side, told in result["runs"].items():
        steps = "" if told["steps"] is None else f" · {told['steps']:,} steps"
        lines.append(f"{side.upper()}: {told['workdir']} · {told['method']}{steps}")
    blocks = ["\n".join(lines), _LEGEND.format(resamples=result["resamples"])]
    for name, split in result["splits"].items():
        remark = _remark(split["scored"])
        blocks += [_rows_table(name, split, row).text() + remark for row in split["rows"]]
    for side, names in result["left_out"].items():
        if names:
            blocks.append(f"Left out, being in {side.upper()} alone: {', '.join(names)}")
    return "\n\n".join(blocks) + "\n"


def _rows_table(name: str, split: Mapping[str, Any], row: Mapping[str, Any]) -> viewer.Table:
    rows = []
    for metric, label in tables.NAMES.items():
        for mean in _MEANS if metric in row["metrics"] else ():
            values = row["metrics"][metric][mean]
            interval, lower = values["interval"], values["b_lower"]
            cells = (
                tables.millimetres(values["a"]),
                tables.millimetres(values["b"]),
                _signed(values["difference"]),
                "–" if interval is None else f"[{', '.join(map(_signed, interval))}]",
                "–" if lower is None else f"{lower:.0%}",
            )
            rows.append(viewer.Row(f"{label}, {mean}", cells))
    names = row["a"] if row["a"] == row["b"] else f"A: {row['a']}, B: {row['b']}"
    title = f"{name} · {split['scored']:,} of {split['clips']:,} clips scored · {names}"
    return viewer.Table(title, ("A", "B", "B - A", "95 %", "B lower"), tuple(rows))


def _remark(clips: int) -> str:
    """What the number of clips means for the interval."""
    if clips == 0:
        return "\nNo clip has labels."
    if clips == 1:
        return "\nOne clip alone tells nothing of how the difference varies: no interval."
    return f"\nThe interval is rough: there are only {clips} clips." if clips < ROUGH else ""


def _signed(metres: float | None) -> str:
    """Millimetres with their sign; a zero has none."""
    if metres is None or not math.isfinite(metres):
        return tables.millimetres(None)
    text = tables.millimetres(abs(metres))
    return text if float(text) == 0 else f"{'-' if metres < 0 else '+'}{text}"


def _check_joints(where: str, runs: Mapping[str, Run]) -> None:
    """The fingerprint is of the data as it lies on disk, before joints were picked from it."""
    names = [str(r.examples["joint_skeleton"]) for r in runs.values() if r.examples is not None]
    if len(set(names)) > 1:
        raise CompareError(
            f"{where} were scored on other joints, {' and '.join(names)}; train or evaluate both "
            f"with the same config.data.joint_skeleton"
        )


def _split(
    where: str, a: Mapping[str, Any], b: Mapping[str, Any], methods: Mapping[str, str]
) -> dict[str, Any]:
    """One split of the result, from both runs' clips of it."""
    for what in ("fingerprint", "clips", "groups"):
        if a[what] != b[what]:
            raise CompareError(
                f"{where} were scored on {_other(what, a[what], b[what])}; {_REMEDY}"
            )
    own = methods["a"], methods["b"]
    shared = [row for row in a["rows"] if row in b["rows"]]
    pairs = [own, *((r, r) for r in shared if r not in own and not tables.baseline(r))]
    rows = []
    for row_a, row_b in pairs:
        of_a, of_b = a["rows"][row_a], b["rows"][row_b]
        metrics = {}
        for metric in (metric for metric in of_a if metric in of_b):
            count = of_a[metric]["count"]
            _check_counts(f"{where} {metric},", a["clips"], count, of_b[metric]["count"])
            metrics[metric] = _compare(of_a[metric]["sum"], of_b[metric]["sum"], count, a["groups"])
        rows.append({"a": row_a, "b": row_b, "metrics": metrics})
    scored = max(np.count_nonzero(metric["count"]) for metric in a["rows"][own[0]].values())
    return {"clips": len(a["clips"]), "scored": int(scored), "rows": rows}


def _other(what: str, a: Any, b: Any) -> str:
    """What differs, with the first difference of two lists."""
    if isinstance(a, str):
        return f"other data (fingerprints {a} and {b})"
    if len(a) != len(b):
        return f"other {what} ({len(a)} and {len(b)})"
    one, other = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
    return f"other {what} ({one} and {other}, for example)"


def _check_counts(where: str, clips: list[str], a: list[float], b: list[float]) -> None:
    for clip, one, other in zip(clips, a, b, strict=True):
        if one != other:
            raise CompareError(
                f"{where} were scored on other frames: {one:g} frames and views of {clip} in the "
                f"first, {other:g} in the second; {_REMEDY}"
            )


def _compare(
    sum_a: list[float], sum_b: list[float], count: list[float], groups: list[str]
) -> dict[str, dict[str, Any]]:
    """One metric of a row, by mean; each list has one entry a clip."""
    kept = np.flatnonzero(np.asarray(count))
    if kept.size == 0:
        nothing = dict.fromkeys(("a", "b", "difference", "interval", "b_lower"))
        return dict.fromkeys(_MEANS, nothing)
    names, inverse = np.unique(np.asarray(groups)[kept], return_inverse=True)
    order = np.argsort(inverse, kind="stable")  # clips of a group in one stretch
    kept, inverse = kept[order], inverse[order]
    starts = np.searchsorted(inverse, np.arange(len(names)))
    columns = [np.asarray(values, float)[kept] for values in (sum_a, sum_b, count)]

    once = np.ones((1, kept.size), int)
    a, b = (means[0].tolist() for means in _means(once, columns, starts))
    parts = [np.subtract(*_means(drawn, columns, starts)[::-1]) for drawn in _draws(kept.size)]
    differences = np.concatenate(parts)
    intervals = np.percentile(differences, [2.5, 97.5], axis=0).T.tolist()
    lower = ((differences < 0) + 0.5 * (differences == 0)).mean(axis=0).tolist()
    known = kept.size > 1 and bool(np.isfinite(differences).all())
    return {
        mean: {
            "a": a[i],
            "b": b[i],
            "difference": b[i] - a[i],
            "interval": intervals[i] if known else None,
            "b_lower": lower[i] if known else None,
        }
        for i, mean in enumerate(_MEANS)
    }


def _draws(clips: int) -> Iterator[Int[np.ndarray, "resamples clips"]]:
    """How often each resample has each clip, a part of the resamples at a time."""
    random = np.random.default_rng(_SEED)
    for first in range(0, RESAMPLES, _PART):
        size = min(_PART, RESAMPLES - first)
        drawn = random.integers(clips, size=(size, clips))
        flat = drawn + clips * np.arange(size)[:, None]
        yield np.bincount(flat.ravel(), minlength=size * clips).reshape(size, clips)


def _means(
    drawn: Int[np.ndarray, "resamples clips"],
    columns: list[Float[np.ndarray, "clips"]],
    starts: Int[np.ndarray, "groups"],
) -> tuple[Float[np.ndarray, "resamples 2"], Float[np.ndarray, "resamples 2"]]:
    """For each run the mean over frames and the mean over groups' means, of every resample.

    `columns` are the sums of both runs and the counts; the clips of the group g start at
    `starts[g]`. Groups that a resample lacks are not in its mean over groups.
    """
    sum_a, sum_b, count = (np.add.reduceat(drawn * x, starts, axis=1) for x in columns)
    present = count > 0

    def means(sums: np.ndarray) -> np.ndarray:
        of_groups = np.divide(sums, count, out=np.zeros_like(sums), where=present)
        over_frames = sums.sum(axis=1) / count.sum(axis=1)
        return np.stack([over_frames, of_groups.sum(axis=1) / present.sum(axis=1)], axis=1)

    return means(sum_a), means(sum_b)
