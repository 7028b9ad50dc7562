"""One image: where the joints of the people in it are, in 3D.

    python -m pose3d_jax.photo --workdir runs/rendered_cmu --image me.jpg --box 310 40 220 560 \
        [--box ...] [--focal 1150 [1150]] [--center 640 360] --output out

A box is the left, top, width and height, pixels, of what encloses a person; one for each. The
square around it is cut and shown to a run of the method `image`; what is found is brought back to
the image, and through its camera to where the person stands. Without `--focal`, as long as the
image's longer side is assumed: where the person stands is then a guess, which is said. Leaves
`out/pose.json` (people in the order of their boxes: `joints_m` in the camera's axes, x to the
right, y down, z forward, and where these are in the image, `points_px`) and `out/pose.png`.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import Image, ImageOps

from pose3d_jax import checkpoint, evaluate, methods, workdir
from pose3d_jax.cameras import Camera
from pose3d_jax.config import complete
from pose3d_jax.data import crops, images
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import EVALUATION, Variables
from pose3d_jax.methods.image import ImageTo3D
from pose3d_jax.schema import Clip, Labels, Observations, Pictures
from pose3d_jax.viewer import figures


@dataclasses.dataclass(frozen=True)
class Poses:
    """What a run says of the people in an image."""

    joints: Float[np.ndarray, "people joints 3"]  # in the camera's axes, metres
    points: Float[np.ndarray, "people joints 2"]  # where the heatmaps have them, pixels


def camera_of(
    size: tuple[int, int], focal: Sequence[float] | None, center: Sequence[float] | None
) -> Camera:
    """An ideal camera at the origin; what is not given is assumed.

    `size`: of its image, width and height, pixels. Raises `UserError` for lengths not above 0.
    """
    if focal is None:
        focal = (float(max(size)),)
        logging.warning(
            "no focal length is given: %.0f pixels, the image's longer side, are assumed, so how "
            "far people are is a guess; give --focal",
            focal[0],
        )
    if len(focal) > 2 or not all(math.isfinite(f) and f > 0 for f in focal):
        raise UserError(f"--focal {' '.join(map(str, focal))}: give one or two numbers above 0")
    middle = center or [(pixels - 1) / 2 for pixels in size]
    if not all(map(math.isfinite, middle)):
        raise UserError(f"--center {' '.join(map(str, middle))}: give two numbers")
    return Camera(
        rotation=np.eye(3, dtype=np.float32),
        translation=np.zeros(3, np.float32),
        focal=np.broadcast_to(np.array(focal, np.float32), 2),
        center=np.array(middle, np.float32),
        distortion=np.zeros(5, np.float32),
        tangential=np.float32(1),
        size=np.array(size, np.float32),
    )


def square_of(box: Sequence[float]) -> Float[np.ndarray, "3"]:
    """Middle and side of the square around a box. Raises `UserError` for a box of no extent."""
    if not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise UserError(f"--box {' '.join(map(str, box))}: width and height must be above 0")
    return crops.of_box(*box)


def run_of(directory: str | Path) -> tuple[ImageTo3D, Variables]:
    """The method and the variables of a run of `image`, by its latest checkpoint.

    Raises `CheckpointError` for what cannot be read and `UserError` for a run of another method.
    """
    directory = Path(directory)
    metadata = checkpoint.read_metadata(directory)
    metadata = {**metadata, "config": complete(metadata["config"])}
    method = methods.create(metadata["config"]["method"], evaluate.info_of(metadata))
    if not isinstance(method, ImageTo3D):
        name = metadata["config"]["method"]["name"]
        raise UserError(
            f"{directory} is a run of the method {name}, which looks at no pictures; give one of "
            f"the method image"
        )
    cells, joints = method.cells, method.info.joint_skeleton.size
    blank = np.zeros((1, cells, cells, 3), np.uint8)
    camera = camera_of((cells, cells), [float(cells)], None)
    seen = observations(method, camera, np.zeros((1, 3), np.float32), blank)
    labels = Labels(np.zeros((1, 1, joints, 3), np.float32), np.zeros((1, 1, joints), np.float32))
    example = Clip(seen, labels, np.zeros(1))
    return method, evaluate.variables_for(directory, metadata, method, example)


def predict(
    directory: str | Path,
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    camera: Camera,
) -> tuple[Poses, ImageTo3D]:
    """The people in boxes of an RGB image, by the latest checkpoint of a run of `image`.

    Raises `CheckpointError` and `UserError` for what cannot be read, or does not fit.
    """
    method, variables = run_of(directory)
    squares = np.stack([square_of(box) for box in boxes]).astype(np.float32)
    shown = []
    for box, square in zip(boxes, squares, strict=True):
        try:
            part = crops.cut(image, square)  # as those of training are
        except UserError as error:
            raise UserError(f"--box {' '.join(map(str, box))}: {error}") from error
        shown.append(images.decode(part, method.cells))
    seen = observations(method, camera, squares, np.stack(shown))
    found, points = _said(method, variables, seen)
    return Poses(np.asarray(found)[:, 0, 0], np.asarray(points)), method


def observations(
    method: ImageTo3D,
    camera: Camera,
    squares: Float[np.ndarray, "people 3"],
    shown: np.ndarray,
) -> Observations:
    """People in one image as a batch of clips of a frame and a view each; none has keypoints."""
    lead = (len(squares), 1, 1)
    keypoints = method.info.keypoint_skeleton.size
    return Observations(
        keypoints=np.zeros((*lead, keypoints, 2), np.float32),
        confidence=np.zeros((*lead, keypoints), np.float32),
        cameras=jax.tree.map(lambda x: np.broadcast_to(x, (*lead, *np.shape(x))), camera),
        pictures=Pictures(squares[:, None, None], shown[:, None, None]),
    )


@partial(jax.jit, static_argnums=0)
def _said(method: ImageTo3D, variables: Any, seen: Observations) -> tuple[jax.Array, jax.Array]:
    said, _ = method.see(variables, seen, jax.random.key(0), EVALUATION)
    assert seen.pictures is not None
    square = jnp.asarray(seen.pictures.square).reshape(-1, 1, 3)
    joints = said.joints[:, None, None]
    return joints, square[..., :2] + said.points * square[..., 2:] / 2


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m pose3d_jax.photo")
    parser.add_argument("--workdir", required=True, help="a run of the method image")
    parser.add_argument("--image", required=True, type=Path)
    parser.add_argument(
        "--box", required=True, nargs=4, type=float, action="append", metavar=("X", "Y", "W", "H")
    )
    parser.add_argument(
        "--focal", nargs="+", type=float, help="pixels; default: the image's longer side"
    )
    parser.add_argument("--center", nargs=2, type=float, help="pixels; default: the middle")
    parser.add_argument("--output", required=True, type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.output.exists() and not given.output.is_dir():
            raise UserError(f"--output {given.output} is no folder; name one, or a new one")
        # As viewers show it, in which boxes are measured.
        image = ImageOps.exif_transpose(crops.open_rgb(given.image))
        camera = camera_of(image.size, given.focal, given.center)
        found, method = predict(given.workdir, image, given.box, camera)
        skeleton = method.info.joint_skeleton
        said = {
            "unit": "m",
            "axes": "the camera's: x to the right, y down, z forward",
            "joints": list(skeleton.joints),
            "parents": list(skeleton.parents),
            "camera": {
                "focal_px": camera.focal.tolist(),
                "center_px": camera.center.tolist(),
                "focal_assumed": given.focal is None,
                "center_assumed": given.center is None,
            },
            "people": [
                {"box_px": box, "joints_m": joints.tolist(), "points_px": points.tolist()}
                for box, joints, points in zip(given.box, found.joints, found.points, strict=True)
            ],
        }
        given.output.mkdir(parents=True, exist_ok=True)
        workdir.write_text(given.output / "pose.json", json.dumps(said, indent=1))
        shown = figures.photograph(np.asarray(image), found.points, found.joints, skeleton)
        picture = figures.to_png(shown)
        workdir.write(given.output / "pose.png", lambda path: Path(path).write_bytes(picture))
        print(f"{given.output / 'pose.json'}\n{given.output / 'pose.png'}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
