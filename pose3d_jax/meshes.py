"""The bodies that a run says of clips: as glTF or OBJ files, and as a moving picture.

    python -m pose3d_jax.meshes --workdir runs/body_cmu --output out [--data DIR]
        [--split test_seen] [--clip NAME ...] [--view 0] [--format glb] [--preview]

Clips come from a prepared data set, by default the run's own; keypoints of one's own videos become
one by `data_prep.pseudo_truth`. Every clip leaves `CLIP.glb` or a folder `CLIP` of OBJ files, with
`--preview` `CLIP.gif`, too: the body over the points, and from its left. Bones have one length
through a clip, the mean of what its frames say.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose3d_jax import body as bodies
from pose3d_jax import cameras as cam
from pose3d_jax import checkpoint, config, evaluate, methods
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.formats import mesh
from pose3d_jax.methods.base import Variables
from pose3d_jax.methods.bodies import pick
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.methods.monocular import to_views
from pose3d_jax.streams import read
from pose3d_jax.viewer import render

_WINDOWS = 16  # at once
FORMATS = ("glb", "obj")


@dataclasses.dataclass(frozen=True)
class Bodies:
    """What a method says of all frames of a split, each view by itself.

    The axes are those of the camera turned by `turn` to the person, metres.
    """

    joints: Float[np.ndarray, "when frames views joints 3"]  # about the root: now, before, after
    rotations: Float[np.ndarray, "frames views parts 3 3"]
    shape: Float[np.ndarray, "frames views components"]
    turn: Float[np.ndarray, "frames views 3 3"]
    root: Float[np.ndarray, "frames views 3"]  # in the camera's axes


@dataclasses.dataclass(frozen=True)
class Motion:
    """A body that moves in the world, as `body.pose` takes it."""

    rotations: Float[np.ndarray, "time parts 3 3"]
    shape: Float[np.ndarray, "components"]
    translation: Float[np.ndarray, "time 3"]


def said_of(
    method: HMMR, variables: Variables, data: PoseData, window: int, *, alone: bool = False
) -> Bodies:
    """What a method says of all frames of a split.

    Args:
      method, variables: of a run.
      data: the split, in whatever windows.
      window: frames that the method learnt from at once.
      alone: from the hallucinator, of each frame by itself.
    """
    cut = windows.cut(data, window, window, method.context).poses
    views = data.poses.observations.confidence.shape[1]
    from_frame = alone and method.temporal

    @jax.jit
    def say(indices: Array) -> tuple[Array, ...]:
        clip = cut.take(indices)
        area = method.crop(clip.observations, alone=alone)
        strips = (method.hallucinate if from_frame else method.strips)(
            variables, clip.observations, area
        )
        found = method.say(variables, strips, around=method.temporal and method.around)
        now = pick(found, 0)
        before, after = method.context
        root = method.info.joint_skeleton.root
        return (
            jnp.moveaxis(jax.vmap(lambda x: to_views(x, views))(found.joints), 0, 2),
            to_views(now.rotations, views),
            to_views(now.shape, views),
            area.turn[:, before : area.turn.shape[1] - after],
            method.placed(now, area)[..., root, :],
        )

    starts, stops = np.asarray(cut.start), np.asarray(cut.stop)
    parts: list[list[np.ndarray]] = [[] for _ in range(5)]
    for first in range(0, len(starts), _WINDOWS):
        chosen = np.arange(first, min(first + _WINDOWS, len(starts)))
        padded = np.pad(chosen, (0, _WINDOWS - len(chosen)), mode="edge")
        found = [np.asarray(x) for x in say(jnp.asarray(padded))]
        for number, place in enumerate(chosen):
            frames = min(window, int(stops[place] - starts[place]))
            for part, x in zip(parts, found, strict=True):
                part.append(x[number, :frames])
    # Windows are in the order of the frames.
    joints, *others = (np.concatenate(part) for part in parts)
    return Bodies(np.moveaxis(joints, 1, 0), *others)


def motion_of(method: HMMR, said: Bodies, data: PoseData, clip: range, view: int) -> Motion:
    """One clip's body in the world, as a view says it."""
    frames = slice(clip.start, clip.stop)
    cameras = jax.tree.map(lambda x: x[frames, view], data.poses.observations.cameras)
    rotations = np.array(said.rotations[frames, view])
    to_world = np.einsum("tji,tkj->tik", np.asarray(cameras.rotation), said.turn[frames, view])
    rotations[:, 0] = to_world @ rotations[:, 0]
    shape = said.shape[frames, view].mean(axis=0)
    figure = method.figure
    same = jnp.broadcast_to(jnp.asarray(shape), (len(rotations), len(shape)))
    joints = jax.jit(figure.pose)(rotations, same)
    place = jax.jit(jax.vmap(cam.to_world))(cameras, jnp.asarray(said.root[frames, view]))
    away = place - joints[:, method.info.joint_skeleton.root]
    return Motion(rotations, shape, np.asarray(away))


def run(args: argparse.Namespace) -> list[Path]:
    """Writes what the arguments ask for; the files."""
    directory = Path(args.workdir)
    metadata = checkpoint.read_metadata(directory)
    settings = config.complete(metadata["config"])
    metadata = {**metadata, "config": settings}
    method = methods.create(settings["method"], evaluate.info_of(metadata))
    if not isinstance(method, HMMR):
        name = settings["method"]["name"]
        raise UserError(f"{directory}: is a run of {name}, which says nothing of bodies")
    split = args.split or next(iter(settings["evaluation"]["test"]))
    data = read(settings, split, path=args.data, recordings=method.info.recordings)
    # Whoever names other data wants other keypoints.
    evaluate.check_fits(directory, metadata, data, args.data or settings["data"]["keypoint_source"])
    views = data.poses.observations.confidence.shape[1]
    if not 0 <= args.view < views:
        raise UserError(f"--view {args.view}: {split} has views 0 to {views - 1}")
    chosen = _chosen(data, args.clip, split)
    variables = evaluate.variables_of(directory, metadata, method, data)
    said = said_of(method, variables, data, settings["streams"]["main"]["window"])
    whole = bodies.load(method.body)
    args.output.mkdir(parents=True, exist_ok=True)
    found = []
    for name, clip in chosen.items():
        motion = motion_of(method, said, data, clip, args.view)
        place = args.output / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        found += write(place, whole, motion, data, clip, args)
    return found


def _chosen(data: PoseData, names: list[str], split: str) -> dict[str, range]:
    """Clips by name; all of them where none is named."""
    identities = windows.identities(data)
    there = {
        identity.clip: clip
        for identity, clip in zip(identities, windows.clips(data.poses), strict=True)
    }
    unknown = [name for name in names if name not in there]
    if unknown:
        raise UserError(
            f"{split} has no clip {', '.join(unknown)}; it has {', '.join(sorted(there)[:10])}"
            f"{', ...' if len(there) > 10 else ''}"
        )
    return {name: there[name] for name in names or there}


def write(
    place: Path, whole: bodies.Body, motion: Motion, data: PoseData, clip: range, args: Any
) -> list[Path]:
    """The files of one clip; `place` is their name without what tells their kind."""
    fps = data.identities[0].fps
    found = [place.with_name(place.name + ".glb") if args.format == "glb" else place]
    if args.format == "glb":
        mesh.write_gltf(found[0], whole, motion.rotations, motion.shape, motion.translation, fps)
    if args.format == "glb" and not args.preview:
        return found
    vertices = posed(whole, motion)
    if args.format == "obj":
        mesh.write_obj(found[0], vertices, np.asarray(whole.faces))
    if args.preview:
        found.append(place.with_name(place.name + ".gif"))
        frames = slice(clip.start, clip.stop)
        observations = jax.tree.map(lambda x: x[frames, args.view], data.poses.observations)
        points = jnp.concatenate(
            [observations.keypoints, observations.confidence[..., None]], axis=-1
        )
        cameras = observations.cameras
        render.preview(
            found[1],
            np.asarray(jax.jit(cam.batched(cam.to_camera))(cameras, jnp.asarray(vertices))),
            np.asarray(whole.faces),
            np.asarray(points),
            np.asarray(cameras.focal),
            np.asarray(cameras.center),
            fps,
        )
    return found


def posed(whole: bodies.Body, motion: Motion) -> Float[np.ndarray, "time vertices 3"]:
    """The mesh of every frame, in the world."""
    shape = jnp.asarray(motion.shape)
    one = jax.jit(lambda turns, place: bodies.pose(whole, turns, shape, place)[0])
    pairs = zip(motion.rotations, motion.translation, strict=True)
    return np.stack([np.asarray(one(turns, place)) for turns, place in pairs])


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m pose3d_jax.meshes")
    parser.add_argument("--workdir", required=True, help="a run of the method dynamics")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--data", default="", help="a prepared data set; default: the run's own")
    parser.add_argument("--split", default="", help="default: the first that the run is tested on")
    parser.add_argument("--clip", nargs="+", default=[], help="by name; default: all of them")
    parser.add_argument("--view", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS, default="glb")
    parser.add_argument("--preview", action="store_true", help="a GIF beside it")
    try:
        print("\n".join(str(path) for path in run(parser.parse_args(arguments))))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
