"""CMU Panoptic Studio: a folder for each sequence, a JSON file for each frame, one for the cameras.

Published by CMU-Perceptual-Computing-Lab/panoptic-toolbox (`README.md`, `python/panutils.py`,
`python/demo_3Dkeypoints_reprojection_hd.py`); real files in open-mmlab/mmpose,
`tests/data/panoptic_body3d/160906_band1`; read by microsoft/voxelpose-pytorch.

`160906_band1/calibration_160906_band1.json`: `calibDataSource` and `cameras`, a list of `name`
(`00_00`: panel and node), `type` (`vga`: 480 of 640 x 480 at 25 fps; `hd`: 31 of 1920 x 1080 at
29.97 fps, panel 0; `kinect-color`, panel 50), `resolution`, `panel`, `node`, `K` 3 x 3, `distCoef`
(k1, k2, p1, p2, k3; OpenCV's model), `R` 3 x 3 and `t` 3 x 1, world to camera, centimetres.

`160906_band1/hdPose3d_stage1_coco19/body3DScene_00000168.json`: `version` 0.7, `univTime`
(milliseconds), `fpsType` `hd_29_97` and `bodies`, a list of `id` and `joints19`: 76 numbers, x y z
and a confidence for each of 19 joints (`COCO19`), centimetres; a joint not found is 0 0 0 -1. The
world's y axis points down. Sequences do not begin at frame 0, `bodies` may be empty, people come
and go. The older `hdPose3d_stage1` has `joints15`, 60 numbers (`MPI15`), and `id` -1 for what is
nobody. There are no 2D joints.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.layouts import people
from tests.layouts.people import Clip, Damage, Truth

FPS = 29.97
COCO19 = people.words(
    "neck nose pelvis left_shoulder left_elbow left_wrist left_hip left_knee left_ankle "
    "right_shoulder right_elbow right_wrist right_hip right_knee right_ankle left_eye left_ear "
    "right_eye right_ear"
)
MPI15 = people.words(
    "neck head_top pelvis left_shoulder left_elbow left_wrist left_hip left_knee left_ankle "
    "right_shoulder right_elbow right_wrist right_hip right_knee right_ankle"
)
FOLDERS = {19: "hdPose3d_stage1_coco19", 15: "hdPose3d_stage1"}

_POINTS = {"neck": "thorax"}
# From our world (z up) to the set's (y down).
_TO_Y_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def write(
    folder: Path,
    *,
    sequences: Sequence[str] = ("160906_band1", "160906_pizza1"),
    joints: int = 19,
    frames: int = 14,
    start: int = 168,
    views: int = 4,
    stray: bool = True,
    units: float = 1.0,
    seed: int = 0,
) -> Truth:
    """Writes the files, and says what is in them. Clips are keyed (sequence, person's id).

    Each sequence has two people. The second comes at the fourth frame, is lost for one frame and
    leaves two frames before the end; one frame before that is empty.

    Args:
      folder: the root, which gets a folder for each sequence.
      sequences: their names.
      joints: 19, or 15 for the older files.
      frames: files of each sequence.
      start: number of the first.
      views: HD cameras; there are two VGA cameras and a Kinect besides.
      stray: also files, folders and keys that mean nothing to a reader.
      units: factor on the people's joints, centimetres otherwise; 10 makes them millimetres.
      seed: of the movements.

    `joints` [T, J, 3], metres (times `units`), are in the world, turned about x so that z points
    up: (x, y, z) of the file is (x, z, -y) there. T is `frames`, of all of a sequence's files;
    `more["confidence"]` [T, J] is that of the file, -1 where a joint or the person is missing
    (joints are 0 there). `keypoints["projected"]` [T, V, J, 2] are projections into the HD cameras,
    in the file's order (for `units` 1); `more["numbers"]` [T] are the files' numbers.
    """
    names = COCO19 if joints == 19 else MPI15
    folder = Path(folder)
    truth = Truth()
    for number, sequence in enumerate(sequences):
        rng = np.random.default_rng([seed, number])
        home = folder / sequence
        cameras = _studio(views)
        home.mkdir(parents=True, exist_ok=True)
        (home / f"calibration_{sequence}.json").write_text(_calibration(cameras, stray))
        filmed = [camera for kind, camera in cameras if kind == "hd"]
        numbers = np.arange(start, start + frames)
        bodies: list[list[dict]] = [[] for _ in numbers]
        for person, kind in enumerate(("walk", "free")):
            seeds = [seed, number, person]
            body = people.motion(kind, frames, FPS, body=f"S{person + 1}", seed=seeds)
            aside = np.array([-0.6 + 1.2 * person, 0.3 * person, 0.0])
            named = {key: x + aside for key, x in people.points(body).items()}
            x = people.choose(named, [_POINTS.get(name, name) for name in names])
            stored = np.vectorize(lambda value: float(f"{value:.6g}"))(
                x @ _TO_Y_DOWN.T * 100 * units
            )
            confidence = np.round(rng.uniform(0.2, 0.7, x.shape[:2]), 6)
            confidence[rng.uniform(size=confidence.shape) < 0.05] = -1.0
            if person:
                confidence[[0, 1, 2, 6, -2, -1]] = -1.0
            confidence[-3] = -1.0
            stored[confidence < 0] = 0.0
            for t in range(frames):
                if (confidence[t] < 0).all():
                    continue
                flat = np.concatenate([stored[t], confidence[t][:, None]], axis=-1).ravel()
                bodies[t].append({"id": person, f"joints{joints}": flat.tolist()})
            metres = stored @ _TO_Y_DOWN / 100
            truth.clips[sequence, person] = Clip(
                subject=str(person),
                action=sequence,
                split="",
                fps=FPS,
                joints=metres,
                joint_names=names,
                keypoints={"projected": people.film(metres / units, filmed)},
                keypoint_names={"projected": names},
                cameras=tuple(camera.name for camera in filmed),
                more={"confidence": confidence, "numbers": numbers, "rig": filmed},
            )
        if joints == 15:
            bodies[0].append({"id": -1, "joints15": [0.0] * 60})
        for t, here in zip(numbers, bodies, strict=True):
            path = home / FOLDERS[joints] / f"body3DScene_{t:08d}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(_scene(here, int(t)))
        if stray:
            _stray(home)
    if stray:
        people.stray(folder)
        (folder / "scripts").mkdir(exist_ok=True)
        (folder / "scripts" / "getData.sh").write_text("#!/bin/bash\n")
    return truth


def _studio(views: int) -> list[tuple[str, people.Camera]]:
    """VGA cameras come first in the file, then HD, then a Kinect, all on a dome."""
    lens = np.array([-0.29, 0.21, 0.0007, -0.0004, 0.03])
    cameras = []

    def add(kind: str, name: str, angle: float, height: float, **settings) -> None:
        position = (2.8 * np.cos(angle), 2.8 * np.sin(angle), height)
        cameras.append((kind, people.look_from(name, position, distortion=lens, **settings)))

    for i in range(2):
        add("vga", f"01_{i + 1:02d}", 0.4 + 3 * i, 1.2, focal=745.0, size=(640, 480))
    for i in range(views):
        angle = 2 * np.pi * i / views
        add("hd", f"00_{i:02d}", angle, 1.0 + 0.4 * i, focal=1395.0 + i, size=(1920, 1080))
    add("kinect-color", "50_01", 1.0, 1.5, focal=1050.0, size=(1920, 1080))
    return cameras


def _calibration(cameras: Sequence[tuple[str, people.Camera]], stray: bool) -> str:
    entries = []
    for kind, camera in cameras:
        panel, node = (int(part) for part in camera.name.split("_"))
        entry = {
            "name": camera.name,
            "type": kind,
            "resolution": list(camera.size),
            "panel": panel,
            "node": node,
            "K": camera.K.tolist(),
            "distCoef": camera.distortion.tolist(),
            "R": (camera.R @ _TO_Y_DOWN.T).tolist(),
            "t": (camera.t[:, None] * 100).tolist(),
        }
        if stray and kind == "kinect-color":
            entry["lensType"] = "normal"
        entries.append(entry)
    contents = {"calibDataSource": "160906_calib_norm", "cameras": entries}
    return json.dumps(contents, indent="\t")


def _scene(bodies: Sequence[dict], number: int) -> str:
    """A frame's file, in the set's own spelling of JSON."""
    blocks = []
    for body in bodies:
        (key, flat) = next((key, x) for key, x in body.items() if key.startswith("joints"))
        numbers = ", ".join(f"{x:.6g}" for x in flat)
        blocks.append(f'{{ "id": {body["id"]},\n"{key}": [{numbers}]\n}}')
    inside = ",\n".join(blocks)
    return (
        f'{{ "version": 0.7, \n"univTime" :{number * 1001 / 30:.3f},\n'
        f'"fpsType" :"hd_29_97",\n"bodies" :\n[\n{inside}\n] }}\n'
    )


def _stray(home: Path) -> None:
    """What lies beside: other rates, faces, hands, archives, images."""
    for name in ("vgaPose3d_stage1_coco19", "hdFace3d", "hdHand3d", "hdImgs/00_00"):
        (home / name).mkdir(parents=True, exist_ok=True)
    scene = _scene([{"id": 7, "joints19": [1.0] * 76}], 3).replace("hd_29_97", "vga_25")
    (home / "vgaPose3d_stage1_coco19" / "body3DScene_00000003.json").write_text(scene)
    (home / "hdFace3d" / "faceRecon3D_hd00000168.json").write_text('{"people": []}')
    (home / "hdHand3d" / "handRecon3D_hd00000168.json").write_text('{"people": []}')
    (home / "hdImgs" / "00_00" / "00_00_00000168.jpg").write_bytes(b"\xff\xd8\xff")
    (home / "hdPose3d_stage1_coco19.tar").write_bytes(bytes(512))


_SCENE = "160906_band1/hdPose3d_stage1_coco19/body3DScene_00000170.json"
_CALIBRATION = "160906_band1/calibration_160906_band1.json"


def _edit(path: str, change: Callable[[dict], object], *names: str) -> Damage:
    def apply(folder: Path) -> None:
        contents = json.loads((folder / path).read_text())
        change(contents)
        (folder / path).write_text(json.dumps(contents))

    return Damage(apply, (Path(path).name, *names))


def _camera(change: Callable[[dict], object], *names: str) -> Damage:
    """Edits the first HD camera."""

    def edit(contents: dict) -> None:
        change(next(camera for camera in contents["cameras"] if camera["type"] == "hd"))

    return _edit(_CALIBRATION, edit, "00_00", *names)


def _body(change: Callable[[dict], object]) -> Damage:
    return _edit(_SCENE, lambda contents: change(contents["bodies"][0]), "joints19")


def _only_vga(contents: dict) -> None:
    contents["cameras"] = [camera for camera in contents["cameras"] if camera["type"] == "vga"]


# For files that `write(folder)` wrote.
DAMAGES = {
    **{f"{kind} scene": damage for kind, damage in people.file_damages(_SCENE).items()},
    **{f"{kind} calibration": damage for kind, damage in people.file_damages(_CALIBRATION).items()},
    "no calibration": Damage(
        lambda folder: (folder / _CALIBRATION).unlink(), ("calibration_160906_band1.json",)
    ),
    "missing key bodies": _edit(_SCENE, lambda contents: contents.pop("bodies"), "bodies"),
    "missing key joints19": _body(lambda body: body.pop("joints19")),
    "missing key id": _edit(_SCENE, lambda contents: contents["bodies"][0].pop("id"), "id"),
    "joint count": _body(lambda body: body.update(joints19=body["joints19"][:72])),
    "nested": _body(lambda body: body.update(joints19=[body["joints19"]])),
    "nan": _body(lambda body: body["joints19"].__setitem__(5, float("nan"))),
    "text": _body(lambda body: body["joints19"].__setitem__(5, "left")),
    "null": _body(lambda body: body["joints19"].__setitem__(5, None)),
    "person twice": _edit(
        _SCENE, lambda contents: contents["bodies"].append(contents["bodies"][0]), "id"
    ),
    "missing key cameras": _edit(_CALIBRATION, lambda contents: contents.pop("cameras"), "cameras"),
    "no hd camera": _edit(_CALIBRATION, _only_vga, "hd"),
    "missing key K": _camera(lambda camera: camera.pop("K"), "K"),
    "missing key distCoef": _camera(lambda camera: camera.pop("distCoef"), "distCoef"),
    "R of two rows": _camera(lambda camera: camera.update(R=camera["R"][:2]), "R"),
    "R is no rotation": _camera(lambda camera: camera["R"][0].__setitem__(0, 3.0), "R"),
    "t of two numbers": _camera(lambda camera: camera.update(t=camera["t"][:2]), "t"),
}
