"""The bodies that a run says of clips: as glTF or OBJ files, and as a moving picture.

    python -m pose3d_jax.meshes --workdir runs/body_cmu --output out [--data DIR]
        [--split test_seen] [--clip NAME ...] [--view 0] [--format glb] [--page] [--preview]

Clips come from a prepared data set, by default the run's own; keypoints of one's own videos become
one by `data_prep.pseudo_truth`. Every clip leaves `CLIP.glb` or a folder `CLIP` of OBJ files, with
`--page` `CLIP.html`, in which the body moves (beside the view's keypoints, where its camera stands
still), with `--preview` `CLIP.gif`: the body under the points, and from the camera's left; at the
frame rate that the run learnt. Bones have one length through a clip, the mean of what its frames
say, and where a view shows nothing the body moves on evenly.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float, Int
from scipy.spatial.transform import Rotation, Slerp

from pose3d_jax import body as bodies
from pose3d_jax import cameras as cam
from pose3d_jax import checkpoint, config, evaluate, methods
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.formats import gltf, mesh
from pose3d_jax.inference import PIECE
from pose3d_jax.methods.base import Variables, needs_images_of
from pose3d_jax.methods.bodies import pick
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.methods.monocular import to_views
from pose3d_jax.streams import read
from pose3d_jax.viewer import interactive, render
from pose3d_jax.viewer.scene import Mesh, Scene

_PIECES = 4  # at once
FORMATS = ("glb", "obj")
_BODY = "body"  # what the page calls it


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
    joints: Float[np.ndarray, "time joints 3"]  # those of the run


def said_of(method: HMMR, variables: Variables, data: PoseData, *, alone: bool = False) -> Bodies:
    """What a method says of all frames of a split, in the pieces that evaluations have.

    Args:
      method, variables: of a run.
      data: the split, in whatever windows, at the run's frame rate.
      alone: from the hallucinator, of each frame by itself.
    """
    cut = windows.cut(data, PIECE, PIECE, method.context).poses
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
    for first in range(0, len(starts), _PIECES):
        chosen = np.arange(first, min(first + _PIECES, len(starts)))
        padded = np.pad(chosen, (0, _PIECES - len(chosen)), mode="edge")
        found = [np.asarray(x) for x in say(jnp.asarray(padded))]
        for number, place in enumerate(chosen):
            frames = min(PIECE, int(stops[place] - starts[place]))
            for part, x in zip(parts, found, strict=True):
                part.append(x[number, :frames])
    # Pieces are in the order of the frames.
    joints, *others = (np.concatenate(part) for part in parts)
    return Bodies(np.moveaxis(joints, 1, 0), *others)


def motion_of(method: HMMR, said: Bodies, data: PoseData, clip: range, view: int) -> Motion:
    """One clip's body in the world, as a view says it.

    In frames in which the view shows nothing it moves evenly from the one before to the one after.
    Raises `UserError` where there is none that shows anything.
    """
    frames = slice(clip.start, clip.stop)
    observations = jax.tree.map(lambda x: x[frames, view], data.poses.observations)
    seen = np.flatnonzero((np.asarray(observations.confidence) > 0).any(axis=-1))
    if not len(seen):
        raise UserError("the view shows nothing of it")
    cameras = observations.cameras
    rotations = np.array(said.rotations[frames, view])
    to_world = np.einsum("tji,tkj->tik", np.asarray(cameras.rotation), said.turn[frames, view])
    rotations[:, 0] = to_world @ rotations[:, 0]
    place = np.asarray(_to_world(cameras, jnp.asarray(said.root[frames, view])))
    rotations, place = _bridged(rotations, place, seen)
    shape = said.shape[frames, view][seen].mean(axis=0)
    same = jnp.broadcast_to(jnp.asarray(shape), (len(rotations), len(shape)))
    joints = jax.jit(method.figure.pose)(rotations, same)
    away = place - np.asarray(joints[:, method.info.joint_skeleton.root])
    return Motion(rotations, shape, away, np.asarray(joints) + away[:, None])


_to_world = jax.jit(jax.vmap(cam.to_world))


def _bridged(
    rotations: Float[np.ndarray, "time parts 3 3"],
    place: Float[np.ndarray, "time 3"],
    seen: Int[np.ndarray, "frames"],
) -> tuple[Float[np.ndarray, "time parts 3 3"], Float[np.ndarray, "time 3"]]:
    """The motion between and beyond the frames that are seen from them alone."""
    times = np.arange(len(place))
    inside = np.clip(times, seen[0], seen[-1])
    place = np.stack([np.interp(inside, seen, x[seen]) for x in place.T], axis=-1)
    if len(seen) == 1:
        return np.repeat(rotations[seen], len(times), axis=0), place.astype(np.float32)
    turned = [
        Slerp(seen, Rotation.from_matrix(part[seen]))(inside).as_matrix()
        for part in rotations.swapaxes(0, 1)
    ]
    return np.stack(turned, axis=1).astype(np.float32), place.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be written of each clip."""

    output: Path
    view: int = 0
    format: str = "glb"
    preview: bool = False
    page: bool = False

    def check(self, names: Iterable[str]) -> None:
        """Raises `UserError` where a library is missing, or files would take another's place."""
        if self.format == "glb":
            gltf.pygltflib()
        if self.preview:
            render.trimesh()
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"{self.output}: is a file; name a folder")
        there: dict[Path, str] = {}
        for name in names:
            path = self.file(name, self.format)
            if path in there:
                raise UserError(f"{path}: would be of both {there[path]} and {name}; name one")
            if self.format == "obj" and path.exists():
                raise UserError(f"{path}: is there already; remove it, or give another --output")
            there[path] = name

    def file(self, clip: str, kind: str) -> Path:
        """Where a clip's file of that kind goes."""
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in clip)
        return self.output / (plain if kind == "obj" else f"{plain}.{kind}")


def run(
    workdir: str | Path,
    wanted: Wanted,
    *,
    data: str = "",
    split: str = "",
    clips: Sequence[str] = (),
) -> list[Path]:
    """Writes the bodies that a run says of clips; the files.

    Args:
      workdir: a run of the method dynamics.
      wanted: what is written, and where.
      data: a prepared data set; by default the run's own.
      split: by default the first that the run is tested on.
      clips: by name; by default all of them.

    Raises `UserError`, before anything is written, for what does not fit.
    """
    directory = Path(workdir)
    metadata = checkpoint.read_metadata(directory)
    settings = config.complete(metadata["config"])
    metadata = {**metadata, "config": settings}
    method = methods.create(settings["method"], evaluate.info_of(metadata))
    if not isinstance(method, HMMR):
        name = settings["method"]["name"]
        raise UserError(f"{directory}: is a run of {name}, which says nothing of bodies")
    if data:
        # Of other data everything is wanted, whatever made its keypoints.
        own = {"path": [data], "keypoint_source": "", "views": (), "actions": ()}
        settings = {**settings, "data": {**settings["data"], **own}}
    split = split or next(iter(settings["evaluation"]["test"]))
    pictured = needs_images_of(method)
    found = read(settings, split, recordings=method.info.recordings, images=pictured)
    source = data or settings["data"]["keypoint_source"]
    evaluate.check_fits(directory, metadata, found, source)
    if fps := metadata.get("fps", 0.0):
        found = windows.at_rate(found, fps)
    views = found.poses.observations.confidence.shape[1]
    if not 0 <= wanted.view < views:
        raise UserError(f"--view {wanted.view}: {split} has views 0 to {views - 1}")
    chosen = _chosen(found, clips, split)
    wanted.check(chosen)
    variables = evaluate.variables_of(directory, metadata, method, found)
    said = said_of(method, variables, found)
    motions = {}
    for name, clip in chosen.items():
        try:
            motions[name] = motion_of(method, said, found, clip, wanted.view)
        except UserError as error:
            logging.warning("%s is left out: %s", name, error)
    wanted.output.mkdir(parents=True, exist_ok=True)
    whole = bodies.load(method.body)
    return [
        path
        for name, motion in motions.items()
        for path in write(wanted, name, whole, motion, found, chosen[name])
    ]


def _chosen(data: PoseData, names: Sequence[str], split: str) -> dict[str, range]:
    """Clips by name; all of them where none is named."""
    there: dict[str, range] = {}
    for identity, clip in zip(windows.identities(data), windows.clips(data.poses), strict=True):
        # Of several sets, names may be the same.
        name = (
            identity.clip if identity.clip not in there else f"{identity.dataset}/{identity.clip}"
        )
        there[name] = clip
    unknown = [name for name in names if name not in there]
    if unknown:
        raise UserError(
            f"{split} has no clip {', '.join(unknown)}; it has {', '.join(sorted(there)[:10])}"
            f"{', ...' if len(there) > 10 else ''}"
        )
    return {name: there[name] for name in names or there}


def write(
    wanted: Wanted, name: str, whole: bodies.Body, motion: Motion, data: PoseData, clip: range
) -> list[Path]:
    """The files of one clip."""
    fps = data.identities[clip.start].fps
    found = [wanted.file(name, wanted.format)]
    if wanted.format == "glb":
        mesh.write_gltf(found[0], whole, motion.rotations, motion.shape, motion.translation, fps)
    if wanted.format == "glb" and not (wanted.preview or wanted.page):
        return found
    vertices = posed(whole, motion)
    if wanted.format == "obj":
        mesh.write_obj(found[0], vertices, np.asarray(whole.faces))
    frames = slice(clip.start, clip.stop)
    observations = jax.tree.map(lambda x: x[frames, wanted.view], data.poses.observations)
    cameras = observations.cameras
    points = np.concatenate([observations.keypoints, observations.confidence[..., None]], axis=-1)
    if wanted.page:
        found.append(wanted.file(name, "html"))
        surface = Mesh(vertices[:, None], np.asarray(whole.faces))
        scene = Scene(
            fps=fps,
            skeleton=data.joint_skeleton,
            methods={_BODY: motion.joints[:, None]},
            meshes={_BODY: surface},
            title=name,
            **_in_view(cameras, data.identities[clip.start].camera_names, wanted.view, points),
            keypoint_skeleton=data.keypoint_skeleton,
        )
        interactive.leave(found[-1], scene)
    if wanted.preview:
        found.append(wanted.file(name, "gif"))
        render.preview(
            found[-1],
            np.asarray(_to_cameras(cameras, jnp.asarray(vertices))),
            np.asarray(whole.faces),
            points,
            np.asarray(cameras.focal),
            np.asarray(cameras.center),
            fps,
        )
    return found


def _in_view(
    cameras: cam.Camera, names: Sequence[str], view: int, points: Float[np.ndarray, "time joints 3"]
) -> dict[str, Any]:
    """Of a scene: the view, if its camera stands still, which a page takes it to do."""
    first = jax.tree.map(lambda x: np.asarray(x[:1]), cameras)
    if not all(jax.tree.leaves(jax.tree.map(lambda x, y: (x == y).all(), cameras, first))):
        return {}
    name = names[view] if view < len(names) else str(view)
    return {"cameras": first, "views": (name,), "keypoints": points[:, None, None]}


_to_cameras = jax.jit(cam.batched(cam.to_camera))
_posed = jax.jit(lambda *body: bodies.pose(*body)[0])


def posed(whole: bodies.Body, motion: Motion) -> Float[np.ndarray, "time vertices 3"]:
    """The mesh of every frame, in the world."""
    shape = jnp.asarray(motion.shape)
    pairs = zip(motion.rotations, motion.translation, strict=True)
    return np.stack([np.asarray(_posed(whole, turns, shape, place)) for turns, place in pairs])


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
    parser.add_argument("--page", action="store_true", help="an interactive page beside it")
    parser.add_argument("--preview", action="store_true", help="a GIF beside it")
    given = parser.parse_args(arguments)
    wanted = Wanted(given.output, given.view, given.format, given.preview, given.page)
    try:
        found = run(given.workdir, wanted, data=given.data, split=given.split, clips=given.clip)
        print("\n".join(str(path) for path in found))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
