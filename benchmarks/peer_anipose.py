"""aniposelib's triangulations of a set of clips; run by triangulate.py with a Python that has it.

Argument: a folder with `observations.npz`. Runs whatever way a line names, leaves its joints there
as `joints.npy` (metres, NaN where it finds none) and prints the seconds that it took.

aniposelib takes points `[views, points, 2]` with NaN for what is missing, world-to-camera rotation
vectors and OpenCV's distortion. Lengths are in its own unit, the millimetre, which its homogeneous
solution depends on: in metres `triangulate` errs by 6 % less here, `optim_points` by 2 % more.
`ransac` is given only points that two views see: one that none sees ends it with an error (0.8.0).
"""

import sys
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
from aniposelib.cameras import Camera, CameraGroup

MM = 1000.0


def group(data: dict[str, np.ndarray]) -> CameraGroup:
    """The cameras; their intrinsics, distortion and orientation as OpenCV has them."""
    cameras = []
    for view, rotation in enumerate(data["rotation"].astype(float)):
        matrix = np.diag([*data["focal"][view], 1.0])
        matrix[:2, 2] = data["center"][view]
        cameras.append(
            Camera(
                matrix=matrix,
                dist=data["distortion"][view],
                size=data["size"][view],
                rvec=cv2.Rodrigues(rotation)[0],
                tvec=MM * data["translation"][view],
                name=str(view),
            )
        )
    return CameraGroup(cameras)


class Ways:
    """Each method: points `[views, T, joints, 2]` and scores of a clip to `[T, joints, 3]`, mm."""

    def __init__(self, cameras: CameraGroup, bones: np.ndarray):
        self._cameras = cameras
        self._bones = bones.tolist()

    def triangulate(self, points: np.ndarray, scores: np.ndarray, **options: bool) -> np.ndarray:
        """Linear, of all views that see a point, which weigh the same."""
        found = self._cameras.triangulate(_flat(points), **options)
        return found.reshape(*points.shape[1:3], 3)

    def triangulate_fast(self, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The median of what all pairs of views give."""
        return self.triangulate(points, scores, fast=True)

    def ransac(self, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Of all subsets of views the point of least reprojection error in that subset."""
        return self._ransac(points)[0]

    def optim_points(self, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """All frames at once: robust reprojection error, smooth motion, bones of one length."""
        return self._optimise(points, scores, self.triangulate(points, scores))

    def ransac_optim_points(self, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The same from what `ransac` found and of the keypoints that it kept."""
        found, kept = self._ransac(points)
        return self._optimise(kept, scores, found)

    def _ransac(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = _flat(points)
        usable = (~np.isnan(flat[..., 0])).sum(axis=0) >= 2
        found, kept = np.full((flat.shape[1], 3), np.nan), np.full_like(flat, np.nan)
        found[usable], _, kept[:, usable], _ = self._cameras.triangulate_ransac(flat[:, usable])
        return found.reshape(*points.shape[1:3], 3), kept.reshape(points.shape)

    def _optimise(self, points: np.ndarray, scores: np.ndarray, start: np.ndarray) -> np.ndarray:
        # Second differences, as in our own rows: more accurate here than its default, the first,
        # and quicker. All else as it comes.
        return self._cameras.optim_points(
            points, start, constraints=self._bones, scores=scores, n_deriv_smooth=2
        )


def _flat(points: np.ndarray) -> np.ndarray:
    return points.reshape(len(points), -1, 2)


def main() -> None:
    """Serves until no line comes."""
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    data = dict(np.load(folder / "observations.npz"))
    ways = Ways(group(data), data["bones"])
    views_first = {
        name: data[name].swapaxes(1, 2).astype(float, order="C")  # [clips, views, T, joints, ...]
        for name in ("keypoints", "clean", "confidence")
    }
    # Contiguous as whole clips are: numba compiles for each layout of an array.
    some = [views_first[x][0, :, :16].copy() for x in ("keypoints", "confidence")]
    run: set[str] = set()
    for line in sys.stdin:
        name, source = line.split()
        if name not in run:
            run.add(name)
            getattr(ways, name)(*some)  # compiles
        started = time.perf_counter()
        found = [
            getattr(ways, name)(points, scores)
            for points, scores in zip(views_first[source], views_first["confidence"], strict=True)
        ]
        seconds = time.perf_counter() - started
        np.save(folder / "joints.npy", np.stack(found) / MM)
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
