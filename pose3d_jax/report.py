"""The report of several runs: as text, and as one HTML page with curves and poses."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from pose3d_jax import metrics as measures
from pose3d_jax import skeleton, tables, viewer, workdir
from pose3d_jax.errors import UserError
from pose3d_jax.runs import Run, distinct, same_examples
from pose3d_jax.viewer import figures

_MOST_DOTS = 40
_EXAMPLES = 4  # poses that are shown
_LEGEND = (
    "frames: mean over all frames and views; groups, actions: mean over their means. P1: relative "
    "to the root. P2: after Procrustes alignment. N-MPJPE: relative to the root, scaled. absolute: "
    "as predicted. MPJPE (report): absolute at the root, relative to it elsewhere. Shares of "
    "joints, %: PCK@150 within 150 mm, relative to the root; AUC its mean over 0 to 150 mm; "
    "2D-PCK@0.05 within 0.05 of the person’s size in the image. Bold: the best of several methods. "
    "–: no such number."
)


def table(runs: Sequence[Run]) -> str:
    """The runs' tables as plain text, in millimetres."""
    means = "means over all frames and views, and over the means of the groups"
    blocks = [f"Errors in mm, shares of joints in %; {means}."]
    for split in tables.splits(distinct(runs, taken=tables.taken(runs))):
        blocks += [
            tables.headline(split).text(),
            *tables.collapses(split),
            *(part.text() for part in tables.breakdowns(split)),
        ]
    return "\n\n".join(blocks) + "\n"


def write_html(path: str | Path, runs: Sequence[Run], title: str) -> None:
    """Writes one self-contained page about the runs, whole or not at all.

    Raises `UserError` where there is no run.
    """
    if not runs:
        raise UserError("there is no run to report; name at least one work directory")
    runs = distinct(runs, taken=tables.taken(runs))
    colours = figures.palette(run.name for run in runs)
    splits = tables.splits(runs)
    parts = [*(tables.headline(split).html() for split in splits), viewer.note(_LEGEND)]
    parts += [viewer.note(line) for split in splits for line in tables.collapses(split)]
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
    if any(tables.breakdowns(split) for split in splits):
        parts.append(viewer.section("Breakdown"))
    for split in splits:
        parts += _dots(split, colours)
        for part in tables.breakdowns(split):
            untitled = dataclasses.replace(part, title="")
            parts.append(viewer.details(part.title, untitled.html()))
    lead = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}, errors in mm"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    workdir.write_text(path, viewer.page(title, lead, parts))


def _dots(split: tables.Split, colours: Mapping[str, str]) -> Iterator[str]:
    """P1 by action, or what else there are several of; the mean pose is too far off to be shown."""
    entries = [entry for entry in split.entries if entry.row != "mean_pose"]
    for kind in tables.KINDS:
        parts = {e: split.of(e).get("breakdown", {}).get(kind, {}) for e in entries}
        errors = {
            e.label: {v: _in_mm(tables.part_of(part, v, e.row, "p1")) for v in part}
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
    columns = (
        *("stages", "weights", "start", "split"),
        *("steps", "wall time", "s per 1,000 frames", "in 80 % ellipsoids"),
    )
    rows = []
    for run in runs:
        known = run.metrics.get("adaptation", {"splits": {}})
        for split, cost in known["splits"].items():
            # Those of older versions adapted weights alone.
            stages = known.get("stages", ["weights"])
            scope = {"shared": "one set", "clip": "one set per clip"}[known["scope"]]
            weights = (scope, known["init"]) if "weights" in stages else ("–", "–")
            costs = (
                f"{cost['steps']:,}",
                _time(cost["wall_s"]),
                f"{cost['s_per_1000_frames']:.1f}",
                f"{100 * cost['coverage_80%']:.0f} %" if "coverage_80%" in cost else "–",
            )
            rows.append(viewer.Row(run.name, (", ".join(stages), *weights, split, *costs)))
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
        return name.startswith("validation/") and name.rpartition("/")[2] in tables.NAMES

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
        few = np.linspace(0, len(shared["names"]) - 1, _EXAMPLES).round().astype(int)
        few = np.unique(few)
        valid = shared["truth_valid"][few] > 0
        truth = relative(shared["truth"][few], three.root)
        poses, captions = {}, {}
        for name, own, joints in (
            *((run.name, run, arrays["prediction"]) for run, arrays in group),
            ("triangulation", None, shared["triangulation"]),
        ):
            sized = own is None or not own.up_to_scale
            poses[name], errors = scored(joints[few], truth, valid, three.root, sized=sized)
            measure = "P1" if sized else "N-MPJPE"
            captions[name] = [f"{measure} {tables.millimetres(error)} mm" for error in errors]
        drawn = figures.examples(
            (two, three),
            {
                "names": shared["names"][few],
                **{
                    k: np.asarray(shared[k][few], float)
                    for k in ("keypoints", "confidence", "size")
                },
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


def scored(
    joints: Float[np.ndarray, "examples joints 3"],
    truth: Float[np.ndarray, "examples joints 3"],
    valid: Bool[np.ndarray, "examples joints"],
    root: int,
    *,
    sized: bool,
) -> tuple[Float[np.ndarray, "examples joints 3"], list[float]]:
    """Poses as they are drawn, relative to the root, and their P1 in metres.

    Poses known up to scale are scaled to the truth, and the errors are their N-MPJPE. Without a
    label of the root there is no error: NaN.
    """
    joints = relative(joints, root)
    arrays = [np.asarray(array, np.float32) for array in (joints, truth, valid)]
    measure = measures.mpjpe if sized else measures.n_mpjpe

    @jax.jit
    @jax.vmap
    def measured(pose: Array, truth: Array, valid: Array) -> tuple[Array, Array]:
        return measure(pose, truth, valid, root), measures.scored(valid, root)

    if not sized:
        weighed = np.where(valid[..., None], joints, 0)
        products = (weighed * truth).sum((1, 2)) / np.maximum((weighed**2).sum((1, 2)), 1e-12)
        joints = joints * products[:, None, None]
    errors, known = measured(*arrays)
    return joints, np.where(known, errors, np.nan).tolist()


def relative(
    joints: Float[np.ndarray, "examples joints 3"], root: int
) -> Float[np.ndarray, "examples joints 3"]:
    """Joints from the root on."""
    return joints - joints[:, [root]]
