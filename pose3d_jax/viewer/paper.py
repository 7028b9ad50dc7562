"""Figures for papers and talks: rows of poses beside what was seen and what is true."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from pose3d_jax import workdir
from pose3d_jax.errors import UserError
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.viewer import figures

FORMATS = ("pdf", "svg", "png")
_WIDE = 7.0  # inches, of all columns: the text of a page of two columns
_LEFT = 0.2  # inches, for what the rows are called
_TOP = 0.25
_BELOW = 0.2  # a row's height beyond its width: the errors
_SIZE = 8  # points of the text


def rows(
    skeletons: tuple[Skeleton, Skeleton],
    seen: tuple[Float[np.ndarray, "rows keypoints 2"], Float[np.ndarray, "rows keypoints"]],
    size: Float[np.ndarray, "rows 2"],
    columns: Mapping[str, tuple[Float[np.ndarray, "rows joints 3"], Sequence[str]]],
    truth: Float[np.ndarray, "rows joints 3"],
    labels: Sequence[str],
) -> Figure:
    """A row for each pose: its keypoints, what each method says over a faint truth, the truth.

    Args:
        skeletons: of the keypoints and of the joints.
        seen: keypoints in pixels, and their confidence.
        size: of the images, pixels.
        columns: by heading the joints, relative to the root, and what stands below each.
        truth: relative to the root; NaN where there is no label.
        labels: of the rows.
    """
    two, three = skeletons
    number = len(columns) + 2
    edge = (_WIDE - _LEFT) / number
    height = _TOP + len(labels) * (edge + _BELOW)
    figure = Figure(figsize=(_WIDE, height))
    colours = figures.palette(columns)

    def place(row: int, column: int, **kind: Any) -> Any:
        bottom = height - _TOP - row * (edge + _BELOW) - edge
        box = (_LEFT + column * edge, bottom, edge, edge)
        scaled = np.array(box) / [_WIDE, height, _WIDE, height]
        return figure.add_axes(tuple(scaled), **kind)

    for row, label in enumerate(labels):
        flat = place(row, 0)
        figures.pose_2d(flat, seen[0][row], seen[1][row], two, size[row])
        middle = 1 - (_TOP + row * (edge + _BELOW) + edge / 2) / height
        figure.text(
            0.07 / _WIDE, middle, figures.literal(label), rotation=90, va="center", ha="left",
            fontsize=_SIZE, color=figures.GREY,
        )  # fmt: skip
        panels: list[tuple[str, Axes | Axes3D, str]] = [("input", flat, "")]
        for column, (heading, (joints, below)) in enumerate(columns.items(), 1):
            panel = figures.space_of(place(row, column, **figures.SPACE))
            figures.pose_3d(panel, truth[row], three, opacity=0.25)
            figures.pose_3d(panel, joints[row], three, colour=colours[heading])
            figures.cube(panel, truth[row])
            panels.append((heading, panel, below[row]))
        panel = figures.space_of(place(row, number - 1, **figures.SPACE))
        figures.pose_3d(panel, truth[row], three)
        panels.append(("truth", panel, ""))
        for heading, axes, below in panels:
            text = axes.text2D if isinstance(axes, Axes3D) else axes.text
            given: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "fontsize": _SIZE}
            given["color"] = figures.INK
            if below:
                text(0.5, 0.0, figures.literal(below), va="top", **given)
            if row == 0:
                text(0.5, 1.02, figures.literal(heading), va="bottom", fontweight="bold", **given)
    return figure


def write(path: str | Path, figure: Figure) -> None:
    """Writes a figure as its suffix says, whole or not at all; the same bytes each time.

    Raises `UserError` for another suffix.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UserError(f"{path}: figures are {', '.join(FORMATS)}, by the suffix")
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Text stays text, for those who set it.
    with matplotlib.rc_context(
        {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "pose3d_jax"}
    ):
        workdir.write(
            path,
            lambda name: figure.savefig(
                name, format=kind, dpi=300, facecolor="white", metadata=undated
            ),
        )
