"""HumanEva-I as VideoPose3D's conversion leaves it: a pair of npz files.

Published by facebookresearch/VideoPose3D: `DATASETS.md`, `data/prepare_data_humaneva.py` (files),
`data/ConvertHumanEva.m` (joints), `data/data_utils.py` (metadata), `common/humaneva_dataset.py`.

`data_3d_humaneva15.npz` (or 20): one key, `positions_3d`, a 0-d array of objects holding
{subject: {action: float32 [T, 15, 3]}}, metres, world, z up, 60 frames a second. Subjects are
`Train/S1` ... `Validate/S3`. Actions are `Walking 1`, `Jog 1`, `ThrowCatch 1` (not of S3, whose
capture is damaged), `Gestures 1`, `Box 1`, and the number of a chunk: the capture is cut where it
is not finite, and the numbers count the bad pieces too: `Walking 1 chunk0`, `Walking 1 chunk2`.
The official HumanEva validation set is the protocol's test set.

`data_2d_humaneva15_gt.npz`: `positions_2d` holds {subject: {action: [C1, C2, C3]}}, each float32
[T, 15, 2] pixels of 640 x 480, the joints' projections by OpenCV's model; `metadata` holds a dict
of `layout_name`, `num_joints` and `keypoints_symmetry` (left, right). Those of a detector, such as
`data_2d_humaneva15_detectron_pt_coco.npz`, have its joints (17, COCO) and, besides the above,
`Unlabeled/Train/S1` (the pieces without capture) and `Unlabeled/S4`.

15 joints: pelvis, thorax, left arm, right arm, left leg, right leg, head. The thorax, elbows and
knees are means of the ends of the two segments that meet there, in 3D and in 2D alike. 20 joints:
both ends are kept, so that elbows and knees come twice, and the thorax as thorax and neck.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.layouts import people
from tests.layouts.people import Clip, Damage, Truth

FPS = 60.0
SUBJECTS = ("Train/S1", "Train/S2", "Train/S3", "Validate/S1", "Validate/S2", "Validate/S3")
ACTIONS = ("Walking 1", "Jog 1", "ThrowCatch 1", "Gestures 1", "Box 1")
PROTOCOL = ("Walking", "Jog", "Box")  # of the report; the other two actions are not in it
CAMERAS = ("C1", "C2", "C3")

JOINTS15 = people.words(
    "pelvis thorax left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist "
    "left_hip left_knee left_ankle right_hip right_knee right_ankle head"
)
# The ends of HumanEva's segments; `2` marks where the next segment begins.
JOINTS20 = people.words(
    "pelvis thorax neck left_shoulder left_elbow left_elbow2 left_wrist right_shoulder right_elbow "
    "right_elbow2 right_wrist left_hip left_knee left_knee2 left_ankle right_hip right_knee "
    "right_knee2 right_ankle head"
)

_MOTION = {
    "Walking 1": "walk",
    "Jog 1": "jog",
    "Box 1": "box",
    "ThrowCatch 1": "free",
    "Gestures 1": "free",
}
_METADATA = {
    15: {
        "layout_name": "humaneva15",
        "num_joints": 15,
        "keypoints_symmetry": [[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]],
    },
    20: {
        "layout_name": "humaneva20",
        "num_joints": 20,
        "keypoints_symmetry": [[3, 4, 5, 6, 11, 12, 13, 14], [7, 8, 9, 10, 15, 16, 17, 18]],
    },
    "detectron_pt_coco": {
        "layout_name": "coco",
        "num_joints": 17,
        "keypoints_symmetry": [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]],
    },
}


def write(
    folder: Path,
    *,
    joints: int = 15,
    subjects: Sequence[str] = SUBJECTS,
    actions: Sequence[str] = ACTIONS,
    frames: Sequence[int] = (24, 5, 2),
    detections: Sequence[str] = ("gt",),
    noise: float = 2.0,
    stray: bool = True,
    absent_2d: Sequence[tuple[str, str]] = (),
    units: float = 1.0,
    offset: int = 0,
    cameras: Sequence[int] = (0, 1, 2),
    mirrored: bool = False,
    lens: str = "opencv",
    modern: bool = False,
    seed: int = 0,
) -> Truth:
    """Writes the files, and says what is in them. Clips are keyed (subject, action).

    Args:
      folder: where the files go.
      joints: 15 or 20.
      subjects: with their part, such as `Train/S1`.
      actions: without the chunk.
      frames: of the pieces of each capture; every second one (the second, the fourth) is bad.
      detections: `gt`, `detectron_pt_coco` or both.
      noise: standard deviation of a detector's error, pixels.
      stray: also files and keys that mean nothing to a reader.
      absent_2d: (subject, action with chunk) that the 2D files lack; not among the truth's clips.
      units: factor on the 3D joints; 1000 makes them millimetres.
      offset: by how many frames the 2D joints come too late.
      cameras: the order in which the 2D files have them.
      mirrored: left and right are exchanged in the 2D files.
      lens: see `people.project`.
      modern: pickles name modules of NumPy 2.
      seed: of the movements.

    The truth is what the files say: with `units=1000`, joints in thousandths of a metre.
    """
    rng = np.random.default_rng(seed)
    truth = Truth()
    positions_3d: dict = {}
    positions_2d: dict = {source: {} for source in detections}
    for subject in subjects:
        part, person = subject.split("/")
        positions_3d[subject] = {}
        for source in detections:
            positions_2d[source].setdefault(subject, {})
        rig = people.rig("humaneva", person)
        for number, action in enumerate(actions):
            if (person, action) == ("S3", "ThrowCatch 1"):
                continue
            salt = [seed, len(part), number]
            body = people.motion(_MOTION[action], sum(frames), FPS, body=person, seed=salt)
            ends = _ends(people.points(body))
            exact = {"gt": _layout(people.film(ends, rig, lens), joints)}
            coco = people.choose(people.points(body), people.COCO17)
            exact["detectron_pt_coco"] = people.film(coco, rig, lens)
            names = {"gt": JOINTS15 if joints == 15 else JOINTS20}
            names["detectron_pt_coco"] = people.COCO17
            shown = {}
            for source in detections:
                x = people.late(exact[source], offset)[:, list(cameras)]
                if source != "gt":
                    x = x + rng.normal(0, noise, x.shape)
                if mirrored:
                    x = x[:, :, people.mirror(names[source])]
                shown[source] = x.astype(np.float32)
            whole = (_layout(ends, joints) * units).astype(np.float32)
            for chunk, (start, stop) in enumerate(_pieces(frames)):
                key = f"{action} chunk{chunk}"
                views = {
                    source: [x[start:stop, view] for view in range(len(cameras))]
                    for source, x in shown.items()
                }
                if chunk % 2:
                    for source in detections:
                        if source != "gt":
                            bad = positions_2d[source].setdefault(f"Unlabeled/{subject}", {})
                            bad[key] = views[source]
                    continue
                positions_3d[subject][key] = whole[start:stop]
                if (subject, key) in absent_2d:
                    truth.absent[subject, key] = "not in the 2D file"
                    continue
                for source in detections:
                    positions_2d[source][subject][key] = views[source]
                truth.clips[subject, key] = Clip(
                    subject=person,
                    action=key,
                    split=part,
                    fps=FPS,
                    joints=whole[start:stop],
                    joint_names=names["gt"],
                    keypoints={source: x[start:stop] for source, x in shown.items()},
                    keypoint_names={source: names[source] for source in detections},
                    cameras=CAMERAS,
                )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    people.npz(folder / f"data_3d_humaneva{joints}.npz", modern=modern, positions_3d=positions_3d)
    for source, positions in positions_2d.items():
        metadata = _METADATA[joints if source == "gt" else source]
        if source != "gt":
            x = rng.uniform(100, 400, (4, 17, 2)).astype(np.float32)
            positions["Unlabeled/S4"] = {"Walking 1": [x, x, x]}
        extra = {"exported_by": "detector"} if stray else {}
        path = folder / f"data_2d_humaneva{joints}_{source}.npz"
        people.npz(path, modern=modern, positions_2d=positions, metadata=metadata, **extra)
    if stray:
        people.stray(folder)
        (folder / "converted_15j" / "Train" / "S1").mkdir(parents=True, exist_ok=True)
        (folder / "converted_15j" / "Train" / "S1" / "Walking_1.mat").write_bytes(b"MATLAB 5.0")
        people.npz(folder / "data_3d_h36m.npz", positions_3d={"S1": {}})
    return truth


def _pieces(frames: Sequence[int]) -> list[tuple[int, int]]:
    ends = np.cumsum(frames).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _ends(named: dict[str, np.ndarray]) -> np.ndarray:
    """The 20 ends of segments `[T, 20, 3]`; where two segments meet, they are 2 cm apart."""
    named = dict(named)
    for side in ("left", "right"):
        for base, middle, tip in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")):
            first, hinge, last = (named[f"{side}_{name}"] for name in (base, middle, tip))
            named[f"{side}_{middle}"] = hinge + 0.01 * people._unit(first - hinge)
            named[f"{side}_{middle}2"] = hinge + 0.01 * people._unit(last - hinge)
    return people.choose(named, JOINTS20)


def _layout(ends: np.ndarray, joints: int) -> np.ndarray:
    """Of ends `[..., 20, C]` themselves, or the 15 joints, means of the ends that meet."""
    if joints == 20:
        return ends
    pairs = {"thorax": "neck"} | {
        f"{side}_{name}": f"{side}_{name}2"
        for side in ("left", "right")
        for name in ("elbow", "knee")
    }
    first = [JOINTS20.index(name) for name in JOINTS15]
    second = [JOINTS20.index(pairs.get(name, name)) for name in JOINTS15]
    return (ends[..., first, :] + ends[..., second, :]) / 2


THREE, TWO = "data_3d_humaneva15.npz", "data_2d_humaneva15_gt.npz"
_AT = ("Train/S1", "Walking 1 chunk0")


def _at(change, *, view: int | None = None):
    """A change of one sequence, as a change of the dict of all."""

    def apply(positions: dict) -> dict:
        subject, action = _AT
        actions = dict(positions[subject])
        if view is None:
            actions[action] = change(actions[action])
        else:
            views = list(actions[action])
            views[view] = change(views[view])
            actions[action] = views
        return {**positions, subject: actions}

    return apply


def _3d(change) -> Damage:
    return Damage(
        lambda folder: people.edit_npz(folder / THREE, positions_3d=_at(change)), (THREE, *_AT)
    )


def _2d(change, view: int | None = 1) -> Damage:
    return Damage(
        lambda folder: people.edit_npz(folder / TWO, positions_2d=_at(change, view=view)),
        (TWO, *_AT),
    )


def _nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[1, 2, 0] = np.nan
    return x


# For files that `write(folder)` wrote: 15 joints, exact detections.
DAMAGES = {
    **{f"{kind} 3d": damage for kind, damage in people.file_damages(THREE).items()},
    **{f"{kind} 2d": damage for kind, damage in people.file_damages(TWO).items()},
    "no 3d file": Damage(lambda folder: (folder / THREE).unlink(), ("data_3d_humaneva",)),
    "no 2d file": Damage(lambda folder: (folder / TWO).unlink(), ("data_2d_humaneva15",)),
    "missing key 3d": Damage(
        lambda folder: people.npz(folder / THREE, poses={"Train/S1": {}}), (THREE, "positions_3d")
    ),
    "missing key 2d": Damage(
        lambda folder: people.edit_npz(folder / TWO, positions_2d=None), (TWO, "positions_2d")
    ),
    "missing metadata": Damage(
        lambda folder: people.edit_npz(folder / TWO, metadata=None), (TWO, "metadata")
    ),
    "metadata of another layout": Damage(
        lambda folder: people.edit_npz(
            folder / TWO, metadata=lambda old: {**old, "layout_name": "openpose25"}
        ),
        (TWO, "openpose25"),
    ),
    "metadata contradicts the arrays": Damage(
        lambda folder: people.edit_npz(
            folder / TWO, metadata=lambda old: {**old, "num_joints": 17}
        ),
        (TWO, "num_joints"),
    ),
    "not a dict": Damage(
        lambda folder: people.npz(folder / THREE, positions_3d=np.zeros((5, 15, 3), np.float32)),
        (THREE, "positions_3d"),
    ),
    **{
        f"{kind} 3d": damage
        for kind, damage in people.foreign_damages(THREE, "positions_3d").items()
    },
    **{f"{kind} 2d": damage for kind, damage in people.foreign_damages(TWO, "metadata").items()},
    "joint count 3d": _3d(lambda x: x[:, :14]),
    "axis order 3d": _3d(lambda x: x.transpose(0, 2, 1)),
    "frames last 3d": _3d(lambda x: x.transpose(1, 2, 0)),
    "nan 3d": _3d(_nan),
    "objects 3d": _3d(lambda x: x.astype(object)),
    "text 3d": _3d(lambda x: x.astype(str)),
    "no frames 3d": _3d(lambda x: x[:0]),
    "joint count 2d": _2d(lambda x: x[:, :14]),
    "axis order 2d": _2d(lambda x: x.transpose(0, 2, 1)),
    "nan 2d": _2d(_nan),
    "objects 2d": _2d(lambda x: x.astype(object)),
    "missing camera": _2d(lambda views: views[:2], view=None),
    "camera is None": _2d(lambda x: None),
    "fewer frames 2d": _2d(lambda x: x[:-3]),
}
