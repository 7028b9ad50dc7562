"""3DPW: one Python 2 pickle for each sequence, with a moving camera and one or two people.

Published in the set's `readme_and_demo/readme.txt` and `demo.py` (copies are on GitHub), and as
read by akanazawa/human_dynamics, mkocabas/VIBE (`lib/data_utils/threedpw_utils.py`) and
Arthur151/ROMP.

`sequenceFiles/train/courtyard_arguing_00.pkl`, likewise `validation` and `test`. Pickles of Python
2, whose texts and arrays Python 3 reads with `encoding="latin1"` only. A dict; P people, N images
at 30 a second:

| key | what |
|---|---|
| `sequence` | the name |
| `poses`, `trans` | P arrays [N, 72], [N, 3]: SMPL's axis angles, metres |
| `betas`, `betas_clothed` | P arrays [10] |
| `genders` | P texts, `m` or `f` |
| `jointPositions` | P arrays [N, 72]: SMPL's 24 joints, metres, world |
| `poses2d` | P arrays [N, 3, 18]: x, y, confidence of OpenPose's 18 joints, zeros if under 6 |
| `cam_intrinsics` | [3, 3], pixels; no distortion |
| `cam_poses` | [N, 4, 4], world to camera |
| `campose_valid` | P arrays [N], 1 where the camera's pose fits that person |
| `img_frame_ids` | [N], each image's frame at 60 a second |
| `poses_60Hz`, `trans_60Hz` | P arrays at 60 a second |
| `texture_maps`, `v_template_clothed` | P arrays, for rendering |

The size of the images is not in the file; the principal point is their middle. Images are
`imageFiles/courtyard_arguing_00/image_00000.jpg`. The world's y axis points up.
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.layouts import people
from tests.layouts.people import Clip, Damage, Truth

FPS = 30.0
SMPL24 = people.words(
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 "
    "left_foot right_foot neck left_collar right_collar head left_shoulder right_shoulder "
    "left_elbow right_elbow left_wrist right_wrist left_hand right_hand"
)
OPENPOSE18 = people.words(
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear "
    "left_ear"
)
# sequence -> (part, people)
SEQUENCES = {
    "courtyard_arguing_00": ("train", 2),
    "outdoors_freestyle_00": ("train", 1),
    "courtyard_basketball_01": ("validation", 2),
    "downtown_walking_00": ("test", 2),
    "flat_guitar_01": ("test", 1),
}

# Such that all bones of SMPL's tree keep their lengths, as they do in the set.
_SMPL_POINTS = {
    "spine1": "belly",
    "spine2": "spine",
    "spine3": "thorax",
    "neck": "lower_neck",
    "left_collar": "left_clavicle",
    "right_collar": "right_clavicle",
    "head": "neck",
}
_OPENPOSE_POINTS = {"neck": "thorax"}
# From our world (z up) to the set's (y up).
_TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def write(
    folder: Path,
    *,
    sequences: Sequence[str] = tuple(SEQUENCES),
    frames: int = 12,
    noise: float = 2.0,
    stray: bool = True,
    units: float = 1.0,
    offset: int = 0,
    mirrored: bool = False,
    inverted: bool = False,
    seed: int = 0,
) -> Truth:
    """Writes the files, and says what is in them. Clips are keyed (sequence, person).

    Args:
      folder: the root, which gets `sequenceFiles` and `imageFiles`.
      sequences: of `SEQUENCES`.
      frames: images of the first sequence; each further one has one more.
      noise: standard deviation of `poses2d` around the projected joints, pixels.
      stray: also files and keys that mean nothing to a reader.
      units: factor on `jointPositions` and `trans`; 1000 makes them millimetres.
      offset: by how many frames `poses2d` comes too late.
      mirrored: left and right are exchanged in `poses2d`.
      inverted: `cam_poses` are camera to world, as one might think.
      seed: of the movements.

    `joints` [N, 24, 3], metres (times `units`), are in the world, turned about x so that z points
    up: (x, y, z) of the file is (x, -z, y) there. `more["in_camera"]` [N, 1, 24, 3] has them in
    the camera's frame, whatever way a reader turns the world; `more["valid"]` [N] is
    `campose_valid`; `more["confidence"]` [N, 1, 18] is that of `poses2d`; `more["cameras"]` has a
    camera for each frame, `x_camera = R x + t` with x as in `joints` (for `units` 1).
    """
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    truth = Truth()
    for number, name in enumerate(sequences):
        part, count = SEQUENCES[name]
        length = frames + number
        cameras = _walk_along(length)
        outer = np.tile(np.eye(4), (length, 1, 1))
        outer[:, :3, :3] = [camera.R @ _TO_Y_UP.T for camera in cameras]
        outer[:, :3, 3] = [camera.t for camera in cameras]
        contents: dict = {
            "sequence": name,
            "cam_intrinsics": cameras[0].K,
            "cam_poses": np.linalg.inv(outer) if inverted else outer,
            "img_frame_ids": np.arange(length) * 2,
        }
        for person in range(count):
            x, keypoints, confidence, valid = _person(
                rng, cameras, person, [seed, number, person], noise, offset
            )
            if mirrored:
                # What is zero stays in its place: the detector's idea of the sides is wrong.
                keypoints = keypoints[:, people.mirror(OPENPOSE18)]
                confidence = confidence[:, people.mirror(OPENPOSE18)]
            world = x @ _TO_Y_UP.T * units
            smpl = rng.normal(0, 0.2, (2 * length, 72))
            entries = {
                "poses": smpl[::2],
                "trans": world[:, 0],
                "betas": rng.normal(0, 1, 10),
                "betas_clothed": rng.normal(0, 1, 10),
                "genders": "fm"[person],
                "jointPositions": world.reshape(length, 72),
                "poses2d": np.concatenate([keypoints, confidence[..., None]], -1)
                .transpose(0, 2, 1)
                .copy(),
                "campose_valid": valid.astype(np.int64),
                "poses_60Hz": smpl,
                "trans_60Hz": np.repeat(world[:, 0], 2, axis=0),
                "texture_maps": np.zeros((4, 4, 3), np.uint8),
                "v_template_clothed": np.zeros((6890, 3)),
            }
            for key, value in entries.items():
                contents.setdefault(key, []).append(value)
            in_camera = (
                np.stack(
                    [camera.R @ joint.T for camera, joint in zip(cameras, x, strict=True)]
                ).transpose(0, 2, 1)
                + np.stack([camera.t for camera in cameras])[:, None]
            )
            truth.clips[name, person] = Clip(
                subject=f"{name}_{person}",
                action=name,
                split=part,
                fps=FPS,
                joints=x * units,
                joint_names=SMPL24,
                keypoints={"poses2d": keypoints[:, None]},
                keypoint_names={"poses2d": OPENPOSE18},
                cameras=("0",),
                more={
                    "in_camera": in_camera[:, None] * units,
                    "valid": valid,
                    "confidence": confidence[:, None],
                    "cameras": cameras,
                    "gender": "fm"[person],
                },
            )
        if stray:
            contents["comment"] = "exported"
        path = folder / "sequenceFiles" / part / f"{name}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(people.old_pickle(contents, protocol=2))
        (folder / "imageFiles" / name).mkdir(parents=True, exist_ok=True)
    if stray:
        people.stray(folder)
        people.stray(folder / "sequenceFiles")
        (folder / "__MACOSX" / "sequenceFiles" / "train").mkdir(parents=True, exist_ok=True)
        hidden = folder / "__MACOSX" / "sequenceFiles" / "train" / "._courtyard_arguing_00.pkl"
        hidden.write_bytes(b"\x00\x05\x16\x07")
        for name in sequences:
            (folder / "imageFiles" / name / "image_00000.jpg").write_bytes(b"\xff\xd8\xff")
    return truth


def _walk_along(frames: int) -> list[people.Camera]:
    """A hand-held camera, upright format, that goes a little with each frame."""
    time = np.arange(frames) / FPS
    positions = np.stack([4.2 - 0.4 * time, -3 + 0.9 * time, 1.5 + 0.05 * np.sin(5 * time)], -1)
    return [
        people.look_from(
            "0",
            position,
            focal=1961.0,
            size=(1080, 1920),
            center=np.array([540.0, 960.0]),
        )
        for position in positions
    ]


def _person(
    rng: np.random.Generator,
    cameras: Sequence[people.Camera],
    person: int,
    seed: list[int],
    noise: float,
    offset: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Joints [N, 24, 3], keypoints [N, 18, 2], confidence [N, 18], valid [N]."""
    length = len(cameras)
    kind = ("walk", "free")[person]
    named = people.points(people.motion(kind, length, FPS, body=f"S{person + 1}", seed=seed))
    aside = np.array([0.0, 0.8 * person, 0.0])
    named = {key: x + aside for key, x in named.items()}
    x = people.choose(named, [_SMPL_POINTS.get(name, name) for name in SMPL24])
    seen = people.choose(named, [_OPENPOSE_POINTS.get(name, name) for name in OPENPOSE18])
    keypoints = np.stack(
        [people.project(frame, camera) for frame, camera in zip(seen, cameras, strict=True)]
    )
    keypoints = people.late(keypoints, offset) + rng.normal(0, noise, keypoints.shape)
    confidence = rng.uniform(0.5, 1.0, keypoints.shape[:2])
    confidence[rng.uniform(size=confidence.shape) < 0.1] = 0.0
    confidence[length // 2] = 0.0  # nobody found
    keypoints[confidence == 0] = 0.0
    valid = np.ones(length, bool)
    valid[-2:] = False
    return x, keypoints, confidence, valid


_FIRST = "sequenceFiles/train/courtyard_arguing_00.pkl"
_NAME = Path(_FIRST).name


def _edit(change: Callable[[dict], None], *names: str) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / _FIRST
        contents = pickle.loads(path.read_bytes(), encoding="latin1")  # ours, written above
        change(contents)
        path.write_bytes(people.old_pickle(contents, protocol=2))

    return Damage(apply, (_NAME, *names))


def _first(key: str, change: Callable[[np.ndarray], object]) -> Damage:
    """Edits the first person's entry of a key."""

    def edit(contents: dict) -> None:
        contents[key][0] = change(contents[key][0])

    return _edit(edit, key)


def _whole(key: str, change: Callable) -> Damage:
    def edit(contents: dict) -> None:
        contents[key] = change(contents[key])

    return _edit(edit, key)


def _drop(key: str) -> Damage:
    return _edit(lambda contents: contents.pop(key), key)


def _nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[(1, *(0,) * (x.ndim - 1))] = np.nan
    return x


def _foreign(name: str) -> Damage:
    raw = people.FOREIGN[name]
    return Damage(lambda folder: (folder / _FIRST).write_bytes(raw), (_NAME, name))


def _chumpy(folder: Path) -> None:
    """SMPL's own files have such arrays; these have not."""
    raw = b"\x80\x02cchumpy.ch\nCh\n)\x81}U\x01xK\x01sb."
    (folder / _FIRST).write_bytes(raw)


# For files that `write(folder)` wrote.
DAMAGES = {
    **people.file_damages(_FIRST),
    **{f"foreign {name}": _foreign(name) for name in people.FOREIGN},
    "chumpy": Damage(_chumpy, (_NAME, "chumpy.ch.Ch")),
    "not a dict": Damage(
        lambda folder: (folder / _FIRST).write_bytes(people.old_pickle([1, 2], protocol=2)),
        (_NAME,),
    ),
    "missing key jointPositions": _drop("jointPositions"),
    "missing key poses2d": _drop("poses2d"),
    "missing key cam_poses": _drop("cam_poses"),
    "missing key cam_intrinsics": _drop("cam_intrinsics"),
    "joint count 3d": _first("jointPositions", lambda x: x[:, :66]),
    "joint count 2d": _first("poses2d", lambda x: x[:, :, :17]),
    "axis order 2d": _first("poses2d", lambda x: x.transpose(0, 2, 1)),
    "fewer frames 2d": _first("poses2d", lambda x: x[:-2]),
    "nan 3d": _first("jointPositions", _nan),
    "nan 2d": _first("poses2d", _nan),
    "objects 3d": _first("jointPositions", lambda x: x.astype(object)),
    "person is None": _first("jointPositions", lambda x: None),
    "fewer people": _whole("poses2d", lambda x: x[:1]),
    "camera of 3 rows": _whole("cam_poses", lambda x: x[:, :3]),
    "one camera only": _whole("cam_poses", lambda x: x[0]),
    "nan camera": _whole("cam_poses", _nan),
    "intrinsics of 4 numbers": _whole(
        "cam_intrinsics", lambda x: np.array([1961.0, 1961.0, 540.0, 960.0])
    ),
}
