"""Moving pictures: people in 3D, seen from a place that goes around them, beside every view."""

import itertools
import math
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from PIL import Image

from pose3d_jax import errors, workdir
from pose3d_jax.errors import UserError
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.viewer import figures, interactive
from pose3d_jax.viewer.scene import Scene, check

FORMATS = ("gif", "mp4")
MOST = 300  # pictures
_RATES = {"gif": 15.0, "mp4": 30.0}  # pictures a second, at most
_SLOWEST = 10.0  # pictures a second, at least, where not all can be shown
_TURN = 15.0  # degrees a second around the people
_PIXELS = 400  # of the edge of the square that shows the 3D, and of the views beside it
_DPI = 100
_MOST_VIEWS = 4
_PAPER = 248


def library(kind: str) -> Any:
    """What writes that format, beside Pillow. Raises `UserError` without it."""
    if kind != "mp4":
        return None
    return errors.library(
        "imageio_ffmpeg", "movie", "MP4", package="imageio-ffmpeg", otherwise="make a gif"
    )


def write(path: str | Path, scene: Scene) -> str:
    """Writes the first method's people as a GIF or an MP4, by the suffix; whole or not at all.

    Beside them are up to four views with their keypoints, where the scene has any. Returns what a
    user should know of it: how many frames it shows, and how fast.

    Raises `UserError` for another suffix, a missing library, a scene that cannot be shown, and what
    ffmpeg says.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UserError(f"{path}: moving pictures are {' or '.join(FORMATS)}, by the suffix")
    library(kind)
    check(scene)
    joints = next(iter(scene.methods.values()))
    if not np.isfinite(joints).all(axis=-1).any():
        raise UserError("the first method has nobody in any frame; leave the moving picture out")
    frames = len(joints)
    shown, rate = pace(frames, scene.fps, _RATES[kind])
    pictures = _pictures(scene, shown, rate)
    make = gif if kind == "gif" else _mp4
    workdir.write(path, lambda name: make(name, pictures, rate))
    faster = rate * float(np.diff(shown).mean() if len(shown) > 1 else 1) / scene.fps
    speed = "" if abs(faster - 1) < 0.05 else f", {faster:.1f} times as fast as it was"
    return f"{len(shown)} of {frames} frames{speed}"


def pace(frames: int, fps: float, most: float) -> tuple[Int[np.ndarray, "shown"], float]:
    """Which frames are shown, and how many of them a second.

    No more than `MOST`, evenly spaced, at no more than `most` a second. So that a long clip does
    not become a row of stills, it is shown faster than it was: at 10 a second at least.
    """
    step = max(math.ceil(fps / most - 1e-9), math.ceil(frames / MOST))
    shown = np.arange(0, frames, step)
    return shown, min(max(fps / step, min(fps, _SLOWEST)), most)


def gif(
    path: str | Path, pictures: Iterable[UInt8[np.ndarray, "height width 3"]], fps: float
) -> None:
    """A GIF that repeats itself."""
    images = []
    for picture in pictures:
        image = Image.fromarray(picture).quantize(256)
        colours = np.array(image.getpalette()).reshape(-1, 3)
        colours[colours.min(axis=1) >= _PAPER] = 255  # the mean of what is nearly white is not
        image.putpalette(colours.ravel().tolist())
        images.append(image)
    # GIF counts hundredths of a second: what is cut off here is made good there.
    ends = 10 * np.round(100 / fps * np.arange(len(images) + 1))
    durations = np.diff(ends).astype(int).tolist()
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def _mp4(
    path: str | Path, pictures: Iterator[UInt8[np.ndarray, "height width 3"]], fps: float
) -> None:
    """H.264 as browsers and slides play it. The library's own writer forks, which JAX forbids."""
    first = next(pictures)
    height, width = first.shape[:2]
    given = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps:.6f} -i -"
    made = "-c:v libx264 -crf 20 -pix_fmt yuv420p -movflags +faststart -f mp4"
    try:
        binary = library("mp4").get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError(f"imageio-ffmpeg has no ffmpeg for this machine ({error})") from error
    command = [binary, "-y", "-loglevel", "error"]
    command += [*given.split(), *made.split(), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            for picture in itertools.chain([first], pictures):
                process.stdin.write(np.ascontiguousarray(picture).tobytes())
        except BrokenPipeError:
            pass  # what ended it is said below
        _, said = process.communicate()
    if process.returncode:
        raise UserError(f"ffmpeg made no MP4 of the pictures: {said.decode(errors='replace')}")


# ------------------------------------------------------------------------------------ what is seen


def _pictures(
    scene: Scene, shown: Int[np.ndarray, "shown"], rate: float
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The frames drawn, one after the other, on one canvas."""
    method, joints = next(iter(scene.methods.items()))
    people = joints.shape[1]
    colours = list(figures.palette(f"person {number}" for number in range(people)).values())
    views = range(min(len(scene.views), _MOST_VIEWS) if scene.keypoints is not None else 0)
    columns = 1 if len(views) <= 2 else 2
    edge = _PIXELS / _DPI
    beside = edge * (0.0, 1.0, 0.6, 1.0, 1.0)[len(views)]
    figure = Figure(figsize=(edge + beside, edge), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    width = edge / figure.get_figwidth()
    space = figures.space_axes(
        figure, figure.add_gridspec(1, 1, left=0, right=width, bottom=0, top=1)[0]
    )
    bodies = Line3DCollection([np.zeros((2, 3))], linewidths=2.5, capstyle="round")
    _room(space, scene, joints)
    space.add_collection3d(bodies)
    space.text2D(0.03, 0.95, method, transform=space.transAxes, color=figures.INK, fontsize=9)
    clock = space.text2D(0.97, 0.95, "", transform=space.transAxes, ha="right", fontsize=9)
    clock.set_color(figures.GREY)
    panels = []
    if views:
        grid = figure.add_gridspec(
            -(-len(views) // columns), columns, left=width, right=0.99, bottom=0.01, top=0.95,
            wspace=0.04, hspace=0.12,
        )  # fmt: skip
        panels = [_panel(figure.add_subplot(grid[view]), scene, view) for view in views]
    own = scene.keypoint_skeleton or scene.skeleton
    azimuth = space.azim
    for number, frame in enumerate(shown):
        _draw(bodies, joints[frame], scene.skeleton, colours)
        space.view_init(elev=12, azim=azimuth + _TURN * number / rate)
        clock.set_text(f"{frame / scene.fps:.1f} s")
        for view, (lines, dots) in zip(views, panels, strict=True):
            assert scene.keypoints is not None
            points = interactive.points_found(scene.keypoints[frame, view])
            _draw(lines, points, own, colours)
            dots.set_offsets(points[np.isfinite(points).all(axis=-1)])
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(
    lines: LineCollection | Line3DCollection,
    people: Float[np.ndarray, "people joints _"],
    skeleton: Skeleton,
    colours: Sequence[str],
) -> None:
    """Everybody's bones, in place of those that were there."""
    segments, shades = [], []
    for joints, colour in zip(people, colours, strict=True):
        own, sides = figures.bone_lines(joints, skeleton, colour)
        segments += own
        shades += sides
    lines.set_visible(bool(segments))
    if segments:
        lines.set_segments(segments)
        lines.set_color(shades)


def _room(space: Any, scene: Scene, joints: Float[np.ndarray, "..."]) -> None:
    """Limits around the people throughout, lengths true in every direction, and a floor."""
    points = joints[np.isfinite(joints).all(axis=-1)]
    low, high = np.percentile(points, (1, 99), axis=0)
    low[2] = min(low[2], scene.floor)
    radius = max(0.55 * float((high - low).max()), 0.5)
    middle = (low + high) / 2
    x, y, z = ((m - radius, m + radius) for m in middle)
    space.set_xlim(x), space.set_ylim(y), space.set_zlim(z)
    space.set_box_aspect((1, 1, 1), zoom=1.35)
    lines = [[(i, y[0]), (i, y[1])] for i in _metres(x)] + [
        [(x[0], i), (x[1], i)] for i in _metres(y)
    ]
    floor = [[(*end, scene.floor) for end in line] for line in lines]
    space.add_collection3d(Line3DCollection(floor, colors=figures.GREY, alpha=0.35, linewidths=0.6))


def _metres(limits: tuple[float, float]) -> Float[np.ndarray, "lines"]:
    """Where the floor's lines are: half metres."""
    return np.arange(math.ceil(2 * limits[0]), math.floor(2 * limits[1]) + 1) / 2


def _panel(axes: Any, scene: Scene, view: int) -> tuple[LineCollection, PathCollection]:
    """A view's part where people are, its name, and what will show its keypoints."""
    assert scene.keypoints is not None
    assert scene.cameras is not None
    size = np.asarray(scene.cameras.size[view], float)
    left, top, width = interactive.window_of(
        [interactive.points_found(scene.keypoints[:, view])], size
    )
    height = width * size[1] / size[0]
    axes.set_xlim(left, left + width)
    axes.set_ylim(top + height, top)
    axes.set_aspect("equal")
    axes.set_axis_off()
    ground = Rectangle((left, top), width, height, facecolor="#f1f2f4", edgecolor="none")
    axes.add_patch(ground)
    axes.set_title(figures.literal(scene.views[view]), fontsize=8, color=figures.GREY, pad=2)
    lines = LineCollection([], linewidths=1.5, capstyle="round")
    axes.add_collection(lines)
    return lines, axes.scatter([], [], s=3, color=figures.INK, linewidths=0, zorder=3)
