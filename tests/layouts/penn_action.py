"""Penn Action: a MATLAB 5 file of 2D joints for each of 2326 videos.

Published in the set's `README` and on its page (dreamdragon/PennAction on GitHub).

`labels/0001.mat`, ... `labels/2326.mat`; the frames are `frames/0001/000001.jpg`, counted from 1.
Keys, T frames:

| key | what |
|---|---|
| `action` | `tennis_serve`, ... (15 names) |
| `pose` | the viewpoint: `front`, `back`, `left` or `right` |
| `x`, `y` | [T, 13] pixels, in MATLAB's count: the first pixel is 1 |
| `visibility` | [T, 13], 0 or 1 |
| `train` | 1: training, -1: test |
| `bbox` | [T, 4] |
| `dimensions` | [1, 3]: height, width, T |
| `nframes` | T |

MATLAB saves doubles that are all whole in as few bytes as they need, and scipy's `loadmat` gives
them back as such integers: `x` may be uint16, `nframes` uint8. Images are at most 640 x 480. There
are no cameras, no 3D, and no frame rate (the videos come from the web).

13 joints: head, then left and right of shoulder, elbow, wrist, hip, knee, ankle.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat, savemat

from tests.layouts import people
from tests.layouts.people import Clip, Damage, Truth

PENN13 = people.words(
    "head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip "
    "right_hip left_knee right_knee left_ankle right_ankle"
)
ACTIONS = people.words(
    "baseball_pitch baseball_swing bench_press bowl clean_and_jerk golf_swing jump_rope "
    "jumping_jacks pullup pushup situp squat strum_guitar tennis_forehand tennis_serve"
)


def write(
    folder: Path,
    *,
    numbers: Sequence[int] = (1, 2, 17, 2326),
    frames: int = 15,
    stray: bool = True,
    units: float = 1.0,
    mirrored: bool = False,
    seed: int = 0,
) -> Truth:
    """Writes the files, and says what is in them. Clips are keyed by name, such as `0001`.

    Args:
      folder: the root, which gets `labels` and `frames`.
      numbers: of the videos. Odd places have whole pixels, in few bytes; even ones have fractions.
      frames: of the first; each further one has one more.
      stray: also files and keys that mean nothing to a reader.
      units: factor on the pixels, as if the labels were of an image of another size.
      mirrored: left and right are exchanged.
      seed: of the movements.

    `keypoints["labels"]` [T, 1, 13, 2] are the numbers of the file; `more` has `visibility`
    [T, 1, 13], `size` (width, height), `bbox` [T, 4] and `pose`. `joints` is None, `fps` is 0:
    unknown.
    """
    folder = Path(folder)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    truth = Truth()
    for order, number in enumerate(numbers):
        rng = np.random.default_rng([seed, order])
        name = f"{number:04d}"
        length = frames + order
        kind = ("walk", "box", "free", "jog")[order % 4]
        body = people.motion(kind, length, 30.0, body=f"S{order % 5 + 1}", seed=[seed, order])
        width, height = (480, 270) if order % 2 else (640, 480)
        position = (0.5, -5.0, 1.3)
        camera = people.look_from("0", position, focal=0.9 * width, size=(width, height))
        x = people.project(people.choose(people.points(body), PENN13), camera) + 1
        visible = rng.uniform(size=x.shape[:2]) > 0.1
        visible[0] = True
        # What is out of sight was never placed, and stands in the corner.
        x[~visible] = 1.0
        x = x * units
        if mirrored:
            x, visible = x[:, people.mirror(PENN13)], visible[:, people.mirror(PENN13)]
        low, high = x.min(axis=1) - 8, x.max(axis=1) + 8
        if order % 2 == 0:
            x = np.round(x)
        contents = {
            "action": ACTIONS[(number * 7) % 15],
            "pose": ("front", "back", "left", "right")[order % 4],
            "x": _small(x[..., 0]),
            "y": _small(x[..., 1]),
            "visibility": visible.astype(np.uint8),
            "train": np.int16(-1) if order % 2 else np.uint8(1),
            "bbox": np.concatenate([low, high], axis=1),
            "dimensions": np.array([[height, width, length]], np.uint16),
            "nframes": np.uint8(length),
        }
        if stray:
            contents["comment"] = "checked"
        savemat(folder / "labels" / f"{name}.mat", contents, do_compression=True)
        truth.clips[name] = Clip(
            subject=name,
            action=contents["action"],
            split="test" if order % 2 else "train",
            fps=0.0,
            joints=None,
            joint_names=(),
            keypoints={"labels": x[:, None]},
            keypoint_names={"labels": PENN13},
            cameras=("0",),
            more={
                "visibility": visible[:, None],
                "size": (width, height),
                "bbox": contents["bbox"],
                "pose": contents["pose"],
            },
        )
        images = folder / "frames" / name
        images.mkdir(parents=True, exist_ok=True)
        for t in range(length):
            (images / f"{t + 1:06d}.jpg").write_bytes(b"\xff\xd8\xff")
    if stray:
        people.stray(folder)
        people.stray(folder / "labels")
        (folder / "tools").mkdir(exist_ok=True)
        savemat(folder / "tools" / "palette.mat", {"colors": np.zeros((13, 3))})
        (folder / "tools" / "visualize.m").write_text("% a script\n")
    return truth


def _small(x: np.ndarray) -> np.ndarray:
    """As MATLAB writes doubles: whole ones in two bytes."""
    return x.astype(np.uint16) if (x == np.round(x)).all() else x


_FIRST = "labels/0001.mat"


def _edit(change: Callable[[dict], object], *names: str) -> Damage:
    def apply(folder: Path) -> None:
        contents = loadmat(folder / _FIRST)
        contents = {key: x for key, x in contents.items() if not key.startswith("__")}
        change(contents)
        savemat(folder / _FIRST, contents)

    return Damage(apply, ("0001.mat", *names))


def _put(key: str, change: Callable[[np.ndarray], object]) -> Damage:
    def edit(contents: dict) -> None:
        contents[key] = change(contents[key])

    return _edit(edit, key)


def _drop(key: str) -> Damage:
    return _edit(lambda contents: contents.pop(key), key)


def _nan(x: np.ndarray) -> np.ndarray:
    x = x.astype(float)
    x[1, 2] = np.nan
    return x


def _cells(x: np.ndarray) -> np.ndarray:
    cells = np.empty(x.shape, object)
    cells[:] = x
    return cells


# For files that `write(folder)` wrote.
DAMAGES = {
    **people.file_damages(_FIRST),
    "missing key x": _drop("x"),
    "missing key visibility": _drop("visibility"),
    "missing key dimensions": _drop("dimensions"),
    "missing key action": _drop("action"),
    "missing key train": _drop("train"),
    "joint count": _put("x", lambda x: x[:, :12]),
    "axis order": _put("x", lambda x: x.T),
    "y of fewer frames": _put("y", lambda y: y[:-2]),
    "visibility of fewer frames": _put("visibility", lambda x: x[:-2]),
    "nan": _put("y", _nan),
    "cells": _put("x", _cells),
    "text": _put("x", lambda x: "right"),
    "nframes contradicts": _put("nframes", lambda x: np.uint8(99)),
    "no frames": _edit(
        lambda contents: contents.update(
            {key: contents[key][:0] for key in ("x", "y", "visibility", "bbox")}
        ),
        "x",
    ),
}
