"""Tables and the HTML report: the only place that turns metres into millimetres."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose3d_jax import metrics as measures
from pose3d_jax import skeleton, viewer, workdir
from pose3d_jax.errors import UserError
from pose3d_jax.runs import Run, distinct, same_examples
from pose3d_jax.viewer import figures

# The metrics and the rows that are no method, as they are shown.
NAMES = {
    "p1": "P1",
    "p2": "P2",
    "n_mpjpe": "N-MPJPE",
    "absolute": "absolute",
    "mpjpe_report": "MPJPE (report)",
}
_SHARES = {"pck": "PCK@150", "auc": "AUC", "pck_2d": "2D-PCK@0.05"}
_KINDS = ("action", "subject", "group")
_MOST_DOTS = 40
_LEGEND = (
    "frames: mean over all frames and views; groups, actions: mean over their means. P1: relative "
    "to the root. P2: after Procrustes alignment. N-MPJPE: relative to the root, scaled. absolute: "
    "as predicted. MPJPE (report): absolute at the root, relative to it elsewhere. Shares of "
    "joints, %: PCK@150 within 150 mm, relative to the root; AUC its mean over 0 to 150 mm; "
    "2D-PCK@0.05 within 0.05 of the person’s size in the image. Bold: the best of several methods. "
    "–: no such number."
)


def millimetres(metres: float | None) -> str:
    """One decimal, or a dash where there is no number."""
    return "–" if metres is None or not math.isfinite(metres) else f"{1000 * metres:.1f}"


def percent(share: float | None) -> str:
    """One decimal, or a dash where there is no number."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def baseline(row: str) -> str | None:
    """The label of a row that is no method's, but what methods are held to; else None."""
    plain, _, kind = row.partition("triangulation")
    if not plain and row and (not kind or kind[0] == "_"):
        return "triangulation" + kind.replace("_", ", ", 1).replace("_", " + ")
    return "mean pose" if row == "mean_pose" else None


def table(runs: Sequence[Run]) -> str:
    """The runs' tables as plain text, in millimetres."""
    means = "means over all frames and views, and over the means of the groups"
    blocks = [f"Errors in mm, shares of joints in %; {means}."]
    for split in _splits(distinct(runs, taken=_taken(runs))):
        blocks += [_headline(split).text(), *(part.text() for part in _breakdowns(split))]
    return "\n\n".join(blocks) + "\n"


def write_html(path: str | Path, runs: Sequence[Run], title: str) -> None:
    """Writes one self-contained page about the runs, whole or not at all.

    Raises `UserError` where there is no run.
    """
    if not runs:
        raise UserError("there is no run to report; name at least one work directory")
    runs = distinct(runs, taken=_taken(runs))
    colours = figures.palette(run.name for run in runs)
    splits = _splits(runs)
    parts = [*(_headline(split).html() for split in splits), viewer.note(_LEGEND)]
    parts += [viewer.section("Runs"), _facts(runs).html()]
    if any("adaptation" in run.metrics for run in runs):
        parts += [viewer.section("Adaptation"), _adaptations(runs).html()]
    for run in runs:
        config = json.dumps(run.metrics.get("config", {}), indent=2, ensure_ascii=False)
        parts.append(viewer.details(f"Config of {run.name}", viewer.code(config)))
    drawn = figures.curves({run.name: _shown(run.scalars) for run in runs}, colours, "mm")
    if drawn.axes:
        parts += [viewer.section("Training"), viewer.picture(figures.to_svg(drawn), "")]
    if any(run.examples is not None for run in runs):
        parts += [viewer.section("Poses"), *_pictures(runs, colours)]
    if any(_breakdowns(split) for split in splits):
        parts.append(viewer.section("Breakdown"))
    for split in splits:
        parts += _dots(split, colours)
        for part in _breakdowns(split):
            untitled = dataclasses.replace(part, title="")
            parts.append(viewer.details(part.title, untitled.html()))
    lead = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}, errors in mm"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    workdir.write_text(path, viewer.page(title, lead, parts))


@dataclasses.dataclass(frozen=True, eq=False)
class _Entry:
    """One line of a table: a row of a run's metrics, under the name it is shown by."""

    label: str
    run: Run
    row: str

    @property
    def baseline(self) -> bool:
        return baseline(self.row) is not None


@dataclasses.dataclass(frozen=True)
class _Split:
    """A split of a data set, and all that was measured on it: methods first, then baselines."""

    name: str
    title: str
    entries: tuple[_Entry, ...]

    def of(self, entry: _Entry) -> dict[str, Any]:
        return entry.run.metrics["splits"][self.name]


def _taken(runs: Sequence[Run]) -> set[str]:
    """Labels that no run may have for its name."""
    splits = [split for run in runs for split in run.metrics["splits"].values()]
    labels = {baseline(row) for split in splits for row in split["rows"]}
    return {"triangulation", "mean pose"} | {label for label in labels if label}


def _splits(runs: Sequence[Run]) -> list[_Split]:
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
            _Entry(run.name if row == run.metrics["method"] else f"{run.name}: {row}", run, row)
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
                entries += [_Entry(label, run, row) for run in having[:1]]
            else:
                entries += [_Entry(f"{label} ({run.name})", run, row) for run in having]
        noisy = "" if noise == "clean" else f" · {noise} noise"
        title = f"{dataset} · {name}{noisy} · {frames:,} frames, {clips:,} clips"
        splits.append(_Split(name, title, tuple(entries)))
    return splits


def _digits(row: Mapping[str, Mapping[str, float | None]]) -> str:
    return str({m: [millimetres(v.get(k)) for k in ("frames", "groups")] for m, v in row.items()})


def _lowest(values: Sequence[float | None]) -> str:
    """The lowest as it is shown; nothing where there is no other to compare it with."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return millimetres(min(known)) if len(known) > 1 else ""


def _headline(split: _Split) -> viewer.Table:
    # Where a group is an action, its mean goes by the name that the benchmarks use.
    parts = [split.of(entry).get("breakdown", {}) for entry in split.entries]
    by_action = all(part and part["group"].keys() == part["action"].keys() for part in parts)
    means = ("frames", "actions" if by_action else "groups")
    keys = [(metric, mean) for metric in (*NAMES, *_SHARES) for mean in means]
    lines = {
        e: [split.of(e)["rows"][e.row].get(m, {}).get(k) for m, k in keys] for e in split.entries
    }
    texts = {
        entry: [
            percent(value) if metric in _SHARES else millimetres(value)
            for (metric, _), value in zip(keys, line, strict=True)
        ]
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
    spans = tuple((name, 2) for name in (*NAMES.values(), *_SHARES.values()))
    return viewer.Table(split.title, tuple(mean for _, mean in keys), tuple(rows), spans)


def _best(cells: Sequence[str], higher: bool) -> str:
    """The best cell; nothing where there is no other to compare it with."""
    known = sorted((float(cell), cell) for cell in cells if cell != "–")
    return known[-1 if higher else 0][1] if len(known) > 1 else ""


def _breakdowns(split: _Split) -> list[viewer.Table]:
    """P1 and P2 of every method by action, by subject and by group."""
    tables = []
    labels = tuple(entry.label for entry in split.entries)
    for kind in _KINDS:
        parts = {e: split.of(e).get("breakdown", {}).get(kind, {}) for e in split.entries}
        rows = []
        for value in dict.fromkeys(value for part in parts.values() for value in part):
            frames = max(part[value]["frames"] for part in parts.values() if value in part)
            cells, bold = [f"{frames:,}"], set()
            for metric in ("p1", "p2"):
                line = {e: _part(part, value, e.row, metric) for e, part in parts.items()}
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


def _part(part: Mapping[str, Any], value: str, row: str, metric: str) -> float | None:
    return part.get(value, {}).get("rows", {}).get(row, {}).get(metric)


def _dots(split: _Split, colours: Mapping[str, str]) -> Iterator[str]:
    """P1 by action, or what else there are several of; the mean pose is too far off to be shown."""
    entries = [entry for entry in split.entries if entry.row != "mean_pose"]
    for kind in _KINDS:
        parts = {e: split.of(e).get("breakdown", {}).get(kind, {}) for e in entries}
        errors = {
            e.label: {v: _in_mm(_part(part, v, e.row, "p1")) for v in part}
            for e, part in parts.items()
        }
        if 2 <= max(map(len, errors.values()), default=0) <= _MOST_DOTS:
            drawn = figures.errors_by_group(errors, colours, "mm")
            caption = f"P1 by {kind}, {split.title}"
            yield viewer.picture(figures.to_svg(drawn), caption)
            return


def _in_mm(metres: float | None) -> float | None:
    return None if metres is None else 1000 * metres


def _adaptations(runs: Sequence[Run]) -> viewer.Table:
    """How each adapted run was adapted, and what it took."""
    columns = ("weights", "start", "split", "steps", "wall time", "s per 1,000 frames")
    rows = []
    for run in runs:
        known = run.metrics.get("adaptation", {"splits": {}})
        for split, cost in known["splits"].items():
            scope = {"shared": "one set", "clip": "one set per clip"}[known["scope"]]
            costs = (
                f"{cost['steps']:,}",
                _time(cost["wall_s"]),
                f"{cost['s_per_1000_frames']:.1f}",
            )
            rows.append(viewer.Row(run.name, (scope, known["init"], split, *costs)))
    return viewer.Table("", columns, tuple(rows))


def _time(seconds: float | None) -> str:
    seconds = round(seconds or 0)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"


def _facts(runs: Sequence[Run]) -> viewer.Table:
    columns = ("method", "config", "data", "steps", "wall time", "version")
    rows = []
    for run in runs:
        known = run.metrics
        texts = [str(known.get(k, "–")) for k in ("method", "config_name", "dataset")]
        steps = f"{known['steps']:,}" if "steps" in known else "–"
        cells = (*texts, steps, _time(known.get("wall_s")), str(known.get("version", "–")))
        rows.append(viewer.Row(run.name, cells))
    return viewer.Table("", columns, tuple(rows))


def _shown(scalars: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Scalars with the validation errors in millimetres."""

    def is_error(name: str) -> bool:
        return name.startswith("validation/") and name.rpartition("/")[2] in NAMES

    return [{k: _in_mm(v) if is_error(k) else v for k, v in row.items()} for row in scalars]


def _pictures(runs: Sequence[Run], colours: Mapping[str, str]) -> Iterator[str]:
    """Runs over the same examples share a picture."""
    sharing: list[list[tuple[Run, dict[str, np.ndarray]]]] = []
    for run in runs:
        if run.examples is not None:
            known = next((g for g in sharing if same_examples(g[0][1], run.examples)), None)
            if known is None:
                sharing.append(known := [])
            known.append((run, run.examples))
    for group in sharing:
        shared = group[0][1]
        two = skeleton.get(str(shared["keypoint_skeleton"]))
        three = skeleton.get(str(shared["joint_skeleton"]))
        valid = shared["truth_valid"] > 0
        truth = _relative(shared["truth"], three.root)
        poses, captions = {}, {}
        for run, arrays in group:
            joints = _relative(arrays["prediction"], three.root)
            poses[run.name], captions[run.name] = _compared(joints, truth, valid, three.root, run)
        baseline = _relative(shared["triangulation"], three.root)
        label = "triangulation"
        poses[label], captions[label] = _compared(baseline, truth, valid, three.root, None)
        drawn = figures.examples(
            (two, three),
            {
                "names": shared["names"],
                **{k: np.asarray(shared[k], float) for k in ("keypoints", "confidence", "size")},
                # Without its root a truth is relative to nothing.
                "truth": np.where((valid & valid[:, [three.root]])[..., None], truth, np.nan),
                "predictions": poses,
                "captions": captions,
            },
            colours,
        )
        yield viewer.picture(
            figures.to_svg(drawn),
            "Left limbs are strong, right ones faint. Predictions lie over the truth, relative to "
            "the root and seen half from the side.",
        )


def _compared(
    joints: np.ndarray, truth: np.ndarray, valid: np.ndarray, root: int, run: Run | None
) -> tuple[np.ndarray, list[str]]:
    """Poses as they are drawn, and captions; poses known up to scale are scaled to the truth."""
    arrays = [np.asarray(array, np.float32) for array in (joints, truth, valid)]
    scored = jax.vmap(lambda v: measures.scored(v, root))(arrays[2])
    name, measure = "P1", measures.mpjpe
    if run is not None and run.up_to_scale:
        name, measure = "N-MPJPE", measures.n_mpjpe
        weighed = np.where(valid[..., None], joints, 0)
        products = (weighed * truth).sum((1, 2)) / np.maximum((weighed**2).sum((1, 2)), 1e-12)
        joints = joints * products[:, None, None]
    errors = jax.vmap(lambda p, t, v: measure(p, t, v, root))(*arrays)
    texts = [
        millimetres(float(e)) if known else "–" for e, known in zip(errors, scored, strict=True)
    ]
    return joints, [f"{name} {text} mm" for text in texts]


def _relative(joints: np.ndarray, root: int) -> np.ndarray:
    return joints - joints[:, [root]]
