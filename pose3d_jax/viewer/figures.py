"""Pictures: 2D and 3D poses, curves, errors per group. Each has a `Figure` of its own, no pyplot.

Lengths are drawn in the unit they come in; the caller names it. `INK` is the colour of text: an SVG
says `currentColor` instead, so that a picture inside a page follows its light or dark theme.
"""

import io
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter, MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from pose3d_jax.skeleton import Skeleton

INK = "#1b1f27"
GREY = "#7f8792"
# Middle tones, which stand out from white and from black.
_COLOURS = ("#2f86d1", "#e0752d", "#27a071", "#a26bd4", "#d94f70", "#b8961f", "#1aa0b0", "#8a6a52")
_OPACITY = {"left": 1.0, "middle": 0.75, "right": 0.5}  # shades of a body's sides, on any ground
SPACE: dict[str, Any] = {"projection": "3d", "computed_zorder": False}
_MARKERS = "Ds^v"
_SMALL = 8.5


def palette(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label, in order; they repeat after eight. A label without one is grey."""
    return {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(labels)}


def pose_2d(
    axes: Axes,
    keypoints: Float[np.ndarray, "keypoints 2"],
    confidence: Float[np.ndarray, "keypoints"],
    skeleton: Skeleton,
    size: Float[np.ndarray, "2"],
    *,
    colour: str = INK,
) -> None:
    """Draws pixels, y down, in a square window around the person, with the image's border.

    Joints of confidence 0, and bones that end in one, are not drawn.
    """
    points = np.where(confidence[:, None] > 0, keypoints, np.nan)
    segments, colours = bone_lines(points, skeleton, colour)
    axes.add_collection(LineCollection(segments, colors=colours, linewidths=2, capstyle="round"))
    seen = points[np.isfinite(points).all(-1)]
    axes.scatter(seen[:, 0], seen[:, 1], s=7, color=colour, linewidths=0, zorder=3)
    width, height = size
    border = Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=GREY, linewidth=0.8)
    axes.add_patch(border)
    centre, radius = _window(seen if len(seen) else np.array([[0.0, 0.0], [width, height]]))
    axes.set_xlim(centre[0] - radius, centre[0] + radius)
    axes.set_ylim(centre[1] + radius, centre[1] - radius)
    axes.set_aspect("equal")
    axes.set_axis_off()


def pose_3d(
    axes: Axes3D,
    joints: Float[np.ndarray, "joints 3"],
    skeleton: Skeleton,
    *,
    colour: str = INK,
    opacity: float = 1.0,
) -> None:
    """Draws camera-frame joints upright: x to the right, z away from the camera, -y upwards.

    Joints that are not finite, and bones that end in one, are not drawn. The window is a cube
    around these joints, so that lengths are true in every direction.
    """
    upright = _upright(joints)
    segments, colours = bone_lines(upright, skeleton, colour, opacity)
    if segments:
        bones = Line3DCollection(segments, colors=colours, linewidths=2, capstyle="round")
        axes.add_collection3d(bones)
    _cube(axes, upright)


def examples(
    skeletons: tuple[Skeleton, Skeleton], example: dict[str, Any], colours: Mapping[str, str]
) -> Figure:
    """One row per example: 2D input, truth, and each prediction over a faint truth.

    Args:
        skeletons: of the keypoints and of the joints.
        example: `names [N]`, `keypoints [N, K, 2]`, `confidence [N, K]`, `size [N, 2]`,
            `truth [N, J, 3]` relative to the root, NaN where there is no label, and by label the
            `predictions` (`[N, J, 3]`, relative to the root) and their `captions` (`[N]` strings).
        colours: by the predictions' labels.
    """
    two, three = skeletons
    predictions, captions = example["predictions"], example["captions"]
    rows, columns = len(example["names"]), 2 + len(predictions)
    height = 2.25 * rows + 0.4
    figure = Figure(figsize=(1.95 * columns, height))
    grid = figure.add_gridspec(
        rows, columns, left=0.0, right=1.0, bottom=0.0, top=1 - 0.65 / height, wspace=0, hspace=0.22
    )
    for row, name in enumerate(example["names"]):
        flat = figure.add_subplot(grid[row, 0])
        keypoints = example["keypoints"][row], example["confidence"][row]
        pose_2d(flat, *keypoints, two, example["size"][row])
        name = textwrap.shorten(name, 56, placeholder=" …")
        _title(flat, "2D input" if row == 0 else "", textwrap.fill(name, 28))
        truth = example["truth"][row]
        upright = _upright(truth)
        panel = space_axes(figure, grid[row, 1])
        pose_3d(panel, truth, three)
        _title(panel, "truth" if row == 0 else "", "")
        for column, (label, joints) in enumerate(predictions.items(), 2):
            panel = space_axes(figure, grid[row, column])
            pose_3d(panel, truth, three, opacity=0.3)
            pose_3d(panel, joints[row], three, colour=colours.get(label, GREY))
            # The truth frames all panels of a row, so that they can be compared.
            _cube(panel, upright if np.isfinite(upright).any() else _upright(joints[row]))
            _title(panel, label if row == 0 else "", captions[label][row])
    return figure


def photograph(
    image: UInt8[np.ndarray, "height width 3"],
    points: Float[np.ndarray, "people joints 2"],
    joints: Float[np.ndarray, "people joints 3"],
    skeleton: Skeleton,
) -> Figure:
    """An image with people's points, and beside it the joints of each in space, in its colour."""
    people = len(points)
    figure = Figure(figsize=(3.6 + 2.4 * people, 3.6))
    grid = figure.add_gridspec(
        1, 1 + people, width_ratios=(3.6, *[2.4] * people), left=0, right=1, bottom=0, top=1
    )
    flat = figure.add_subplot(grid[0])
    height, width = image.shape[:2]
    colours = itertools.cycle(_COLOURS)
    for number, colour in zip(range(people), colours, strict=False):
        size = np.array([width, height], np.float32)
        pose_2d(flat, points[number], np.ones(points.shape[1]), skeleton, size, colour=colour)
        space = space_axes(figure, grid[1 + number])
        pose_3d(space, joints[number], skeleton, colour=colour)
    flat.imshow(image)
    flat.set_xlim(-0.5, width - 0.5)
    flat.set_ylim(height - 0.5, -0.5)
    return figure


def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], colours: Mapping[str, str], unit: str = "m"
) -> Figure:
    """Validation errors and training terms against steps: a panel per scalar, a line per run.

    Terms have a log scale unless one is not positive. A dotted line is where a run's phase ends.
    `unit` names the unit of the validation errors. Without any scalar the figure has no axes.
    """
    names = {name for rows in runs.values() for row in rows for name in row}
    errors = sorted(n for n in names if n.startswith("validation/") and n[-3:] in ("/p1", "/p2"))
    shown = (n for n in names if n.startswith("train/") and "/gradient/" not in n)  # many
    terms = sorted(shown, key=lambda n: (n.count("/"), n))
    panels = [*errors, *terms]
    columns = max(1, min(3, len(panels)))
    rows_ = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows_ + 0.4), layout="constrained")
    for place, name in enumerate(panels, 1):
        axes = figure.add_subplot(rows_, columns, place)
        lowest = math.inf
        for label, rows in runs.items():
            points = _points(rows, name)
            lowest = min([lowest, *points.values()])
            marker = "o" if len(points) == 1 else None
            axes.plot(
                list(points), list(points.values()), color=colours[label], lw=1.4, marker=marker
            )
            for step in _phase_ends(rows):
                axes.axvline(step, color=colours[label], linewidth=0.8, linestyle=":")
        if name in terms and 0 < lowest < math.inf:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(_Decimals())
            axes.yaxis.set_minor_formatter(_Decimals(labelOnlyBase=False))
        _plain_axes(axes, f"{name} ({unit})" if name in errors else name)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        if place > len(panels) - columns:
            axes.set_xlabel("steps", color=INK, fontsize=_SMALL)
    if panels:
        _legend(figure, [Line2D([], [], color=colours[label]) for label in runs], list(runs))
    return figure


def errors_by_group(
    errors: Mapping[str, Mapping[str, float | None]], colours: Mapping[str, str], unit: str = "m"
) -> Figure:
    """A dot per method (outer key) and group (inner key); groups downwards, errors to the right."""
    groups = list(dict.fromkeys(group for values in errors.values() for group in values))
    figure = Figure(figsize=(7.2, 0.27 * len(groups) + 0.95), layout="constrained")
    axes = figure.add_subplot()
    handles: list[Line2D] = []
    for label, values in errors.items():
        known = {g: v for g, v in values.items() if v is not None}
        marker = "o" if label in colours else _MARKERS[len(handles) % len(_MARKERS)]
        x, y = list(known.values()), [groups.index(group) for group in known]
        colour = colours.get(label, GREY)
        handles += axes.plot(x, y, marker, color=colour, markersize=5.5, clip_on=False)
    axes.set_yticks(range(len(groups)), [literal(group) for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(left=0)
    _plain_axes(axes, "", grid="both")
    axes.set_xlabel(f"P1 ({unit})", color=INK, fontsize=_SMALL)
    _legend(figure, handles, list(errors))
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page: text stays text, ink is the page's own."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pose3d_jax"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r' id="[a-z0-9A-Z]+_\d+"', "", text)  # running numbers collide within a page


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG file on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def _upright(joints: np.ndarray) -> np.ndarray:
    return np.stack([joints[..., 0], joints[..., 2], -joints[..., 1]], -1)


def bone_lines(
    points: np.ndarray, skeleton: Skeleton, colour: str, opacity: float = 1.0
) -> tuple[list[np.ndarray], list[tuple[float, float, float, float]]]:
    """Segments `[2, C]` of the bones whose ends are both finite, and their colours by side."""
    bones = [bone for bone in skeleton.bones if np.isfinite(points[list(bone)]).all()]
    return [points[list(bone)] for bone in bones], [
        to_rgba(colour, opacity * _OPACITY[skeleton.side(child)]) for _, child in bones
    ]


def _window(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and half edge of the square or cube around `points [N, C]`, with a margin."""
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, max(0.56 * float((high - low).max()), 1e-3)


def cube(axes: Axes3D, joints: Float[np.ndarray, "joints 3"]) -> None:
    """The window of `pose_3d` around these joints, whatever else is drawn."""
    _cube(axes, _upright(joints))


def _cube(axes: Axes3D, upright: np.ndarray) -> None:
    points = upright[np.isfinite(upright).all(-1)]
    if len(points):
        centre, radius = _window(points)
        for setter, middle in zip(
            (axes.set_xlim, axes.set_ylim, axes.set_zlim), centre, strict=True
        ):
            setter(middle - radius, middle + radius)
    axes.set_box_aspect((1, 1, 1), zoom=1.5)


def space_axes(figure: Figure, place: Any) -> Axes3D:
    """3D axes of a part of a grid; see `space_of`."""
    return space_of(figure.add_subplot(place, **SPACE))


def space_of(axes: Axes3D) -> Axes3D:
    """3D axes seen half from the side, where errors in depth show, drawn in the order of calls."""
    axes.view_init(elev=12, azim=-50)
    axes.set_axis_off()
    axes.patch.set_alpha(0)
    return axes


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    """Finite values by step, in order; where a resumed run repeats a step, the later one counts."""
    values = {row["step"]: row[name] for row in rows if row.get(name) is not None}
    return {step: v for step, v in sorted(values.items()) if math.isfinite(v)}


def _phase_ends(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The last step of every phase but the last."""
    phases = sorted({row["step"]: row["phase"] for row in rows if "phase" in row}.items())
    return [a for (a, old), (_, new) in itertools.pairwise(phases) if old != new]


def literal(text: str) -> str:
    """Text that matplotlib takes as it is: no formula, and no name that a legend hides."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _title(axes: Axes | Axes3D, heading: str, caption: str) -> None:
    """A heading in bold above a caption, at the upper edge of a panel."""
    up: dict[str, Any] = {"ha": "center", "va": "bottom", "color": INK, "fontsize": _SMALL}
    draw = axes.text2D if isinstance(axes, Axes3D) else axes.text
    draw(0.5, 1.0, literal(caption), transform=axes.transAxes, **up)
    offset = 1.01 + 0.075 * (caption.count("\n") + 1)
    short = textwrap.shorten(heading, 24, placeholder="…") if " " in heading else heading[:24]
    draw(0.5, offset, literal(short), transform=axes.transAxes, fontweight="bold", **up)


class _Decimals(LogFormatter):
    """Labels of a log scale as 0.01: typesetting 10⁻² takes as long as the rest of a picture."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _plain_axes(axes: Axes, title: str, grid: Any = "y") -> None:
    axes.set_title(literal(title), loc="left", color=INK, fontsize=_SMALL + 0.5)
    axes.grid(axis=grid, color=GREY, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, labelsize=_SMALL - 0.5, length=0)
    axes.spines[:].set_visible(False)
    axes.patch.set_alpha(0)


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    figure.legend(
        handles,
        [literal(label) for label in labels],
        loc="outside upper left",
        ncols=min(4, len(labels)),
        frameon=False,
        fontsize=_SMALL,
        labelcolor=INK,
    )
