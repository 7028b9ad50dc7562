"""Frames per second and error of every row of `references`, beside OpenCV and aniposelib.

    python -m benchmarks.triangulate [--quick] [--data PREPARED] [--anipose-python PYTHON]

All see the same: the Human3.6M rig with its lens distortion (4 views, 17 joints), 'typical' noise,
synthetic people or the first clips of a prepared set's validation split. The peers know OpenCV's
tangential distortion alone, and so that is what films here. A figure is the way from raw pixels to
world joints of all frames, compiled before: what is faster for seeing less of the data shows it in
its error, a mean over the joints that two views or more see, after `triangulate.infill` for all.
Errors on the same observations without noise prove each implementation's cameras.

OpenCV (`pip install opencv-python-headless`) is given the first two views, as it takes no more.
`--anipose-python` is a Python of its own that has aniposelib (`PYTHON -m pip install aniposelib`).
Programs take turns, and a time is the least over the turns; the peer's slow ones run once.

Memory is the peak of a process of its own that runs `smooth_bones` on so many clips: after its
first clip (most of it is what compiling took) and after its last. Ends with one line of JSON.
`--quick` takes one short clip and some of the rows.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from data_prep import rigs
from data_prep.articulated import SKELETON
from data_prep.body_motion import MOTIONS
from data_prep.synthetic import BODIES, FPS
from pose3d_jax import noise, references, skeleton
from pose3d_jax import triangulate as tri
from pose3d_jax.cameras import TANGENTIAL, Camera
from pose3d_jax.data import poses
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Observations

# What a row's time contains; each is run on its own, and nothing that it does not need.
ROWS = {
    "dlt": "undistortion, DLT of all views",
    "weighted": "the same with confidences",
    "robust": "dlt, noise scale, RANSAC over pairs of views",
    "refined": "robust, noise scale, Levenberg-Marquardt, covariance",
    "smooth": "refined, clip with smooth motion, covariance",
    "bones": "refined, clip with constant bones, covariance",
    "smooth_bones": "refined, clip with both, covariance",
}
OPENCV = {
    "opencv, frame by frame": "two views, undistortPoints and triangulatePoints, joints at once",
    "opencv, whole clips": "two views, the same with all frames at once",
}
ANIPOSE = {
    "triangulate": "undistortion, linear, all views",
    "triangulate_fast": "undistortion, median over pairs of views",
    "ransac": "the subset of views of least reprojection error",
    "optim_points": "triangulate, clip with smooth motion and bones",
    "ransac_optim_points": "ransac, clip with smooth motion and bones",
}
QUICK_ROWS = ("dlt", "robust", "smooth_bones")
QUICK_ANIPOSE = ("triangulate", "triangulate_fast", "optim_points")
SLOW = ("ransac", "optim_points", "ransac_optim_points")
PROVEN = ("triangulate", "triangulate_fast")  # those that have no error without noise
MOST_CLEAN_MM = 1.0

# Joints `[clips, T, joints, 3]`, NaN where not found, and the seconds that they took.
Program = Callable[[], tuple[float, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Clips of one length: true joints, what cameras `[views]` see of them, and with noise."""

    joints: np.ndarray  # [clips, T, joints, 3]
    cameras: Camera
    clean: list[Observations]
    observed: list[Observations]

    @property
    def seen(self) -> np.ndarray:
        """Which joints two views or more see, `[clips, T, joints]`."""
        return np.stack([np.sum(clip.confidence > 0, axis=1) >= 2 for clip in self.observed])


def film(clips: Sequence[np.ndarray], fps: float) -> Scene:
    """What the Human3.6M rig, with OpenCV's distortion, sees of joints `[T, 17, 3]`."""
    cameras, names = rigs.load_rig("human36m", "S1")
    factor = np.full(len(names), TANGENTIAL["opencv"], np.float32)
    cameras = dataclasses.replace(cameras, tangential=factor)
    clean = [rigs.film(joints, cameras) for joints in clips]
    observed = [
        noise.corrupt(
            clip, noise.preset("typical"), clip=str(i), fps=fps, mirrored=SKELETON.mirrored
        )
        for i, clip in enumerate(clean)
    ]
    return Scene(np.stack(clips), cameras, clean, observed)


def synthetic(clips: int, frames: int) -> Scene:
    """Different people and motions in turn."""
    bodies, motions = list(BODIES.values()), list(MOTIONS.values())
    moved = [
        motions[i % len(motions)](
            np.random.default_rng(i), bodies[i % len(bodies)], np.arange(frames) / FPS
        )
        for i in range(clips)
    ]
    return film([joints.astype(np.float32) for joints in moved], FPS)


def prepared(directory: Path, clips: int, frames: int) -> Scene:
    """The beginnings of the first clips of a prepared set's validation split, filmed anew."""
    found = [
        record
        for record in poses.read_split(directory, "validation")
        if len(record.clip.labels.joints) >= frames
        and record.identity.joint_skeleton == SKELETON.name
        and np.all(record.clip.labels.joints_valid[:frames] > 0)
    ][:clips]
    if len(found) < clips:
        raise UserError(
            f"{directory}: {len(found)} clips of its validation split have {frames} frames of "
            f"{SKELETON.name}; ask for at most so many with --clips, or for fewer --frames"
        )
    joints = [np.asarray(record.clip.labels.joints[:frames]) for record in found]
    return film(joints, found[0].identity.fps)


def ours(observed: Sequence[Observations], row: str) -> np.ndarray:
    """A row's joints."""
    found = references.reconstruct_all(observed, skeleton.get(SKELETON.name), (row,))
    return np.stack([estimates[row].joints for estimates in found])


def opencv() -> ModuleType:
    """The package; raises `UserError` where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise UserError("needs OpenCV: pip install opencv-python-headless") from error
    return cv2


def two_views(observations: Observations, *, at_once: bool) -> np.ndarray:
    """OpenCV's joints `[T, joints, 3]` of the first two views, a frame at a time or all at once."""
    cv2 = opencv()
    frames = len(observations.confidence)
    camera = jax.tree.map(lambda x: np.asarray(x[0], np.float64), observations.cameras)
    matrices = [np.diag([*focal, 1.0]) for focal in camera.focal[:2]]
    for matrix, center in zip(matrices, camera.center, strict=False):
        matrix[:2, 2] = center
    projections = [
        np.column_stack([camera.rotation[view], camera.translation[view]]) for view in range(2)
    ]
    keypoints = np.asarray(observations.keypoints[:, :2], np.float64)
    found = np.full((frames, keypoints.shape[2], 3), np.nan)
    size = frames if at_once else 1
    for first in range(0, frames, size):
        points = [
            cv2.undistortPoints(
                keypoints[first : first + size, view].reshape(-1, 1, 2),
                matrices[view],
                camera.distortion[view],
            ).reshape(-1, 2)
            for view in range(2)
        ]
        homogeneous = cv2.triangulatePoints(*projections, points[0].T, points[1].T)
        joints = (homogeneous[:3] / homogeneous[3]).T
        found[first : first + size] = joints.reshape(-1, keypoints.shape[2], 3)
    both = np.all(observations.confidence[:, :2] > 0, axis=1)
    return np.where(both[..., None], found, np.nan)


class Anipose:
    """The process of `peer_anipose.py`."""

    def __init__(self, python: str, scene: Scene, folder: Path):
        self._folder = folder
        missing = np.stack([clip.confidence for clip in scene.observed])[..., None] == 0
        arrays = {
            "clean": np.stack([clip.keypoints for clip in scene.clean]),
            "keypoints": np.where(
                missing, np.nan, np.stack([clip.keypoints for clip in scene.observed])
            ),
            "confidence": np.stack([clip.confidence for clip in scene.observed]),
            "bones": np.array(SKELETON.bones),
            **vars(scene.cameras),
        }
        np.savez(folder / "observations.npz", **arrays)  # type: ignore[arg-type]
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("peer_anipose.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, way: str, source: str = "keypoints") -> tuple[float, np.ndarray]:
        """Seconds, and joints `[clips, T, joints, 3]`, of the noisy or the `clean` keypoints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{way} {source}\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self.end()
            raise UserError(
                "--anipose-python: its process ended, see above; it needs aniposelib: PYTHON -m "
                "pip install aniposelib"
            )
        return float(line), np.load(self._folder / "joints.npy")

    def end(self) -> None:
        """Ends it."""
        self._process.communicate()


def timed(solve: Callable[[], np.ndarray]) -> Program:
    """A program of this process."""

    def run() -> tuple[float, np.ndarray]:
        started = time.perf_counter()
        found = solve()
        return time.perf_counter() - started, found

    return run


def least(
    programs: dict[str, Program], turns: int, once: Iterable[str] = ()
) -> dict[str, tuple[float, np.ndarray]]:
    """Each program's least seconds over the turns, and its joints; some get one turn."""
    for name, program in programs.items():
        if name not in once:
            program()  # compiles
    best: dict[str, tuple[float, np.ndarray]] = {}
    for turn in range(turns):
        for name, program in programs.items():
            if turn == 0 or name not in once:
                seconds, found = program()
                best[name] = min(seconds, best.get(name, (np.inf,))[0]), found
    return best


_infill = jax.jit(jax.vmap(tri.infill, in_axes=(0, 0, None)), static_argnums=2)


def error_mm(scene: Scene, found: np.ndarray) -> float:
    """Mean error of the joints that two views see; what was not found is filled in first."""
    valid = np.isfinite(found).all(axis=-1)
    points = jnp.asarray(np.where(valid[..., None], found, 0.0), jnp.float32)
    filled = np.asarray(_infill(points, jnp.asarray(valid, jnp.float32), SKELETON.root))
    error = np.linalg.norm(filled - scene.joints, axis=-1)
    return float(1000 * error[scene.seen].mean())


def prove(name: str, scene: Scene, found: np.ndarray) -> float:
    """The error, mm, of what an implementation finds without noise, which must be next to none."""
    clean = dataclasses.replace(scene, observed=scene.clean)
    error = error_mm(clean, found)
    if not error < MOST_CLEAN_MM:
        raise AssertionError(f"{name}: {error:.2f} mm without noise: its cameras are others")
    return error


def peak_mb() -> float:
    """This process's so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def memory_case(clips: int, frames: int) -> None:
    """What a process of its own does: prints its peaks after the first clip and after the last."""
    observed = synthetic(clips, frames).observed
    peaks = [
        peak_mb()
        for _ in references.reconstruct_all(
            observed, skeleton.get(SKELETON.name), ("smooth_bones",)
        )
    ]
    print(json.dumps({"first": round(peaks[0]), "last": round(peaks[-1])}))


def memory(cases: Sequence[tuple[int, int]]) -> dict[str, dict[str, int]]:
    """`memory_case` for each (clips, frames), each in its own process, side by side.

    Linux gives a child its parent's peak, so measure before this process has grown.
    """
    command = [sys.executable, "-m", "benchmarks.triangulate", "--memory-case"]
    started = {
        f"{clips} clips of {frames} frames": subprocess.Popen(
            [*command, str(clips), str(frames)], stdout=subprocess.PIPE, text=True
        )
        for clips, frames in cases
    }
    outputs = {name: process.communicate()[0] for name, process in started.items()}
    for name, process in started.items():
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, f"--memory-case of {name}")
    return {name: json.loads(output.splitlines()[-1]) for name, output in outputs.items()}


def figures(
    scene: Scene,
    found: dict[str, tuple[float, np.ndarray]],
    clean_mm: dict[str, float],
    peaks: dict[str, dict[str, int]],
) -> dict:
    """The numbers of the table and of the line of JSON."""
    frames = scene.joints.shape[0] * scene.joints.shape[1]
    return {
        "clips": scene.joints.shape[0],
        "frames": frames,
        "frames_per_s": {name: round(frames / s, 1) for name, (s, _) in found.items()},
        "error_mm": {name: round(error_mm(scene, x), 3) for name, (_, x) in found.items()},
        "found_share": {
            name: round(float(np.isfinite(x).all(axis=-1)[scene.seen].mean()), 4)
            for name, (_, x) in found.items()
        },
        "clean_error_mm": {name: round(error, 4) for name, error in clean_mm.items()},
        "smooth_bones_peak_mb": peaks,
    }


def text(result: dict, contents: dict[str, str]) -> str:
    """The tables to read."""
    lines = [f"{'':32}{'frames/s':>10}{'mm':>8}{'found':>8}   from pixels to joints: what it is"]
    for name, rate in result["frames_per_s"].items():
        lines.append(
            f"{name:32}{rate:>10.1f}{result['error_mm'][name]:>8.1f}"
            f"{result['found_share'][name]:>8.0%}   {contents[name]}"
        )
    lines.append("\nerrors without noise, mm: " + json.dumps(result["clean_error_mm"]))
    lines.append(f"\n{'smooth_bones, peak memory, MB':32}{'first clip':>12}{'all clips':>12}")
    for case, peak in result["smooth_bones_peak_mb"].items():
        lines.append(f"{case:32}{peak['first']:>12}{peak['last']:>12}")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Measures, prints the tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, help="a prepared data set; default: synthetic people")
    parser.add_argument("--anipose-python", metavar="PYTHON", help="a Python that has aniposelib")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=128, help="of each clip")
    parser.add_argument("--memory-case", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.memory_case:
        memory_case(*arguments.memory_case)
        return
    try:
        opencv()
        measure(arguments)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")


def measure(arguments: argparse.Namespace) -> None:
    """The whole of it, for the command line's arguments."""
    quick = arguments.quick
    clips, frames, turns = (1, 32, 2) if quick else (
        arguments.clips, arguments.frames, arguments.turns,
    )  # fmt: skip
    cases = [(2, 64), (8, 64)] if quick else [(4, 256), (32, 256)]
    peaks = memory(cases)

    scene = synthetic(clips, frames)
    if arguments.data:
        scene = prepared(arguments.data, clips, frames)
    rows = QUICK_ROWS if quick else references.ROWS
    programs: dict[str, Program] = {
        row: timed(lambda row=row: ours(scene.observed, row))  # type: ignore[misc]
        for row in rows
    }
    clean_mm = {"dlt": prove("dlt", scene, ours(scene.clean, "dlt"))}
    for name, at_once in zip(OPENCV, (False, True), strict=True):

        def solve(clips: list[Observations], at_once: bool = at_once) -> np.ndarray:
            return np.stack([two_views(clip, at_once=at_once) for clip in clips])

        clean_mm[name] = prove(name, scene, solve(scene.clean))
        programs[name] = timed(lambda solve=solve: solve(scene.observed))  # type: ignore[misc]

    contents = ROWS | OPENCV | {f"aniposelib {way}": what for way, what in ANIPOSE.items()}
    slow = [f"aniposelib {way}" for way in SLOW]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.anipose_python:
            peer = Anipose(arguments.anipose_python, scene, Path(folder))
            for way in QUICK_ANIPOSE if quick else ANIPOSE:
                programs[f"aniposelib {way}"] = lambda way=way: peer.run(way)  # type: ignore[misc]
            for way in PROVEN:
                name = f"aniposelib {way}"
                clean_mm[name] = prove(name, scene, peer.run(way, "clean")[1])
        found = least(programs, turns, slow)
        if arguments.anipose_python:
            peer.end()
    result = {
        "data": str(arguments.data or "synthetic"), "turns": turns, "cores": os.cpu_count(),
        **figures(scene, found, clean_mm, peaks),
    }  # fmt: skip
    print(f"{clips} clips of {frames} frames, 4 views, 17 joints, typical noise\n")
    print(text(result, contents))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
