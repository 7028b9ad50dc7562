"""JTA (Joint Track Auto): a JSON file of rows for each sequence of a game.

Published by fabbrimatteo/JTA-Dataset (`README.md`, `joint.py`, `pose.py`, `coco_style_convert.py`).

`annotations/train/seq_0.json` (256 files), `annotations/val` (128) and `annotations/test` (128):
a list of rows of ten numbers

    frame (from 1), person's id, joint (0 to 21), x2D, y2D, x3D, y3D, z3D, occluded, self-occluded

Pixels of 1920 x 1080 from the top left corner, metres in the camera's frame (x right, y down,
z forward), 30 frames a second, 900 frames. The camera moves; where it is, is not told. Its
intrinsics are the same for all: focal length 1158, centre (960, 540), no distortion. People come
and go, most are far away, and some are outside the image. Videos are `videos/train/seq_0.mp4`.
The paper's test set is `test` and `val` together.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.layouts import people
from tests.layouts.people import Clip, Damage, Truth

FPS = 30.0
FOCAL, CENTER, SIZE = 1158.0, (960.0, 540.0), (1920, 1080)
JTA22 = people.words(
    "head_top head_center neck right_clavicle right_shoulder right_elbow right_wrist left_clavicle "
    "left_shoulder left_elbow left_wrist spine0 spine1 spine2 spine3 spine4 right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle"
)

# The spine is numbered downwards, from below the neck to the pelvis.
_POINTS = {
    "spine0": "upper_chest",
    "spine1": "chest",
    "spine2": "spine",
    "spine3": "belly",
    "spine4": "pelvis",
}


def write(
    folder: Path,
    *,
    sequences: Sequence[tuple[str, int]] = (
        ("train", 0),
        ("train", 1),
        ("val", 256),
        ("test", 384),
    ),
    frames: int = 12,
    count: int = 3,
    stray: bool = True,
    shuffled: bool = False,
    digits: int = 4,
    whole_pixels: bool = False,
    focal: float = FOCAL,
    units: float = 1.0,
    offset: int = 0,
    mirrored: bool = False,
    seed: int = 0,
) -> Truth:
    """Writes the files, and says what is in them. Clips are keyed (part, sequence, person's id).

    The second person comes at the third frame; the third is lost for two frames.

    Args:
      folder: the root, which gets `annotations` and `videos`.
      sequences: part and number of each.
      frames: of each sequence.
      count: people in each.
      stray: also files that mean nothing to a reader.
      shuffled: the rows come in any order.
      digits: decimals in the file.
      whole_pixels: 2D has none; the set's own code cuts them off.
      focal: of the camera; the set's image is said to fit 1167 better (see its issue 13).
      units: factor on 3D; 1000 makes it millimetres.
      offset: by how many frames 2D comes too late.
      mirrored: left and right are exchanged in 2D.
      seed: of the movements.

    `joints` [T, 22, 3], metres (times `units`): (x, y, z) of the file is (x, z, -y) there, so that
    z points up as far as the camera is level; `more["in_camera"]` [T, 1, 22, 3] is as in the file.
    T is `frames`; `more["present"]` [T] says when the person is there (all is 0 otherwise),
    `more["occluded"]` and `more["self_occluded"]` [T, 22] repeat the file.
    """
    folder = Path(folder)
    truth = Truth()
    for order, (part, number) in enumerate(sequences):
        rng = np.random.default_rng([seed, order])
        rows = []
        for person in range(count):
            x = _person(rng, [seed, order, person], frames)
            pixels = x[..., :2] / x[..., 2:] * focal + CENTER
            pixels = people.late(pixels, offset)
            if mirrored:
                pixels = pixels[:, people.mirror(JTA22)]
            x, pixels = np.round(x * units, digits), np.round(pixels, 0 if whole_pixels else digits)
            occluded, own = rng.uniform(size=(2, *x.shape[:2])) < [[[0.2]], [[0.1]]]
            present = np.ones(frames, bool)
            if person == 1:
                present[:2] = False
            if person == 2:
                present[5:7] = False
            for t in np.flatnonzero(present):
                for j in range(len(JTA22)):
                    place = [int(t) + 1, person, j]
                    flags = [int(occluded[t, j]), int(own[t, j])]
                    rows.append([*place, *pixels[t, j].tolist(), *x[t, j].tolist(), *flags])
            for array in (x, pixels, occluded, own):
                array[~present] = 0
            right, down, forward = np.moveaxis(x, -1, 0)
            truth.clips[part, number, person] = Clip(
                subject=str(person),
                action=f"seq_{number}",
                split=part,
                fps=FPS,
                joints=np.stack([right, forward, -down], axis=-1),
                joint_names=JTA22,
                keypoints={"annotated": pixels[:, None]},
                keypoint_names={"annotated": JTA22},
                cameras=("0",),
                more={
                    "in_camera": x[:, None],
                    "present": present,
                    "occluded": occluded,
                    "self_occluded": own,
                },
            )
        rows.sort(key=lambda row: row[0])
        if shuffled:
            rng.shuffle(rows)
        path = folder / "annotations" / part / f"seq_{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    if stray:
        people.stray(folder)
        people.stray(folder / "annotations")
        (folder / "videos" / "train").mkdir(parents=True, exist_ok=True)
        (folder / "videos" / "train" / "seq_0.mp4").write_bytes(b"\x00\x00ftyp")
        (folder / "coco_annotations" / "train").mkdir(parents=True, exist_ok=True)
        coco = folder / "coco_annotations" / "train" / "seq_0.coco.json"
        coco.write_text('{"images": [], "annotations": []}')
        (folder / "to_imgs.py").write_text("# a script\n")
    return truth


def _person(rng: np.random.Generator, seed: list[int], frames: int) -> np.ndarray:
    """Joints `[T, 22, 3]` in the frame of a camera that rides along at 2 m a second."""
    kind = ("walk", "free", "jog")[seed[-1] % 3]
    named = people.points(people.motion(kind, frames, FPS, body=f"S{seed[-1] + 1}", seed=seed))
    x = people.choose(named, [_POINTS.get(name, name) for name in JTA22])
    away = np.array([rng.uniform(-3, 3), rng.uniform(7, 20), -1.6])
    ahead = np.stack([0 * np.arange(frames), -2.0 * np.arange(frames) / FPS], -1)
    x = x + away
    x[..., :2] += ahead[:, None]
    right, forward, up = np.moveaxis(x, -1, 0)
    return np.stack([right, -up, forward], axis=-1)


_FIRST = "annotations/train/seq_0.json"


def _edit(change: Callable[[list], object], *names: str) -> Damage:
    def apply(folder: Path) -> None:
        rows = json.loads((folder / _FIRST).read_text())
        rows = change(rows)
        (folder / _FIRST).write_text(json.dumps(rows))

    return Damage(apply, ("seq_0.json", *names))


def _number(column: int, value: object) -> Damage:
    """Puts something into row 30."""

    def change(rows: list) -> list:
        rows[30][column] = value
        return rows

    return _edit(change)


# For files that `write(folder)` wrote.
DAMAGES = {
    **people.file_damages(_FIRST),
    "not a list": _edit(lambda rows: {"rows": rows}),
    "rows of nine": _edit(lambda rows: [row[:9] for row in rows]),
    "one row of nine": _edit(
        lambda rows: [row[: 9 if i == 30 else 10] for i, row in enumerate(rows)]
    ),
    "columns by rows": _edit(lambda rows: [list(column) for column in zip(*rows, strict=True)]),
    "no rows": _edit(lambda rows: []),
    "joint missing": _edit(lambda rows: rows[:30] + rows[31:]),
    "joint twice": _edit(lambda rows: [*rows, rows[30]]),
    "joint 22": _number(2, 22),
    "frame 0": _number(0, 0),
    "nan": _number(5, float("nan")),
    "text": _number(5, "far"),
    "null": _number(3, None),
}
