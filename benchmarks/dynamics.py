"""A body, its past and its future: the tables of "Learning 3D Human Dynamics from Video".

    python -m benchmarks.dynamics --data data/body_cmu_v1 --body data/open_body.npz
        --out runs/dynamics [--rows temporal "single frame" ...] [--splits test_seen test_unseen]
        [--noise typical] [--seeds 1] [--steps 0] [--other_code] [--quick]

A row is trained as `configs/body_cmu.py` says for its argument, temporal ones from the weights of
the single frame's network (*trained on*: this one from its own, for about as long as the temporal
ones); a run that is there already, whole or cut, is taken up where it is. Three tables, of
keypoints under the preset:

1. *Now*: MPJPE, PA-MPJPE (mm), 2D PCK@0.05 (of where the true joints are seen), acceleration error
   (m/s^2; published in mm per squared frame, 1.11 times as much at 30 frames per second), with a
   One-Euro filter of the single frame's poses, whose settings are the best on validation in MPJPE
   and acceleration (the sum of both in shares of the unfiltered).
2. *The mesh*: mean distance of vertices, mm, posed (about the root) and unposed (shape alone), of
   every tenth frame.
3. *One frame*: PA-MPJPE of the poses 0.2 s before, now and 0.2 s after, from the hallucinator;
   beside it *constant* (the present pose for all three) and *nearest* (the training pose nearest to
   the true present one, turned to face the same way, with what came before and after it there:
   it is told the truth of the present).

Every joint of every frame counts; of the second and third table those frames alone of which a view
shows 6 keypoints. Ends with one line of JSON. `--quick`: a few steps of small networks.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import cKDTree

from configs import body_cmu
from pose3d_jax import body as bodies
from pose3d_jax import cameras as cam
from pose3d_jax import evaluate, meshes, metrics, train
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.geometry import axis_angle_to_matrix
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.noise import preset
from pose3d_jax.streams import read

SINGLE = "single frame"
# Arguments of the config, and the row whose weights training begins with.
ROWS: dict[str, tuple[str, str]] = {
    SINGLE: ("single", ""),
    "single frame, trained on": ("single", SINGLE),
    "temporal": ("", SINGLE),
    "without dynamics": ("still", SINGLE),
    "without constant shape": ("loose", SINGLE),
}
for _share in ("0", "25", "50"):
    _row = f"single frame, pseudo-truth {_share} %"
    ROWS[_row] = (f"single,pseudo={_share}", "")
    ROWS[f"temporal, pseudo-truth {_share} %"] = (f"pseudo={_share}", _row)
FEWEST = 6  # keypoints of a view that counts
STRIDE = 10  # of the frames whose meshes are compared
MM = 1000.0


def trained(
    name: str, args: argparse.Namespace, seed: int
) -> tuple[evaluate.Restored, dict[str, Any]]:
    """A row's run, and its evaluation; what it begins with is trained first."""
    given, base = ROWS[name]
    words = [word for word in (given, "tiny" if args.quick else "") if word]
    config = body_cmu.get_config(",".join(words))
    config.data.path, config.method.body, config.seed = args.data, args.body, seed
    if args.steps:
        config.phases[0]["length_steps"] = args.steps
    with config.ignore_type():
        config.evaluation.test = tuple(args.splits)
        config.evaluation.noise = args.noise
    if base:
        trained(base, args, seed)
        config.init.workdir = str(workdir_of(base, args, seed))
    workdir = workdir_of(name, args, seed)
    found = train.run(config, workdir, other_code=args.other_code)
    return evaluate.restore(workdir), found


def workdir_of(name: str, args: argparse.Namespace, seed: int) -> Path:
    """Of a row's run."""
    label = "".join(c if c.isalnum() else "_" for c in name)
    return Path(args.out / label / str(seed))


# -------------------------------------------------------------------------------- past and future


def _said(restored: evaluate.Restored, data: PoseData, *, alone: bool) -> meshes.Bodies:
    method = restored.method
    assert isinstance(method, HMMR)
    window = restored.metadata["config"]["streams"]["main"]["window"]
    return meshes.said_of(method, restored.variables, data, window, alone=alone)


def beside(data: PoseData, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames that have others `step` before and after in their clip; those; these."""
    now = np.concatenate(
        [np.arange(clip.start + step, clip.stop - step) for clip in windows.clips(data.poses)]
    )
    return now, now - step, now + step


_aligned = jax.jit(jax.vmap(metrics.p_mpjpe))


def pa_mpjpe(
    predicted: Float[np.ndarray, "frames joints 3"], truth: Float[np.ndarray, "frames joints 3"]
) -> float:
    """Mean over frames, mm."""
    return MM * float(np.mean(_aligned(predicted, truth, np.ones(truth.shape[:2], np.float32))))


def one_frame(
    restored: evaluate.Restored, data: PoseData, learnt: PoseData
) -> dict[str, dict[str, float]]:
    """The third table: by what says it, PA-MPJPE of past, present and future."""
    method = restored.method
    assert isinstance(method, HMMR)
    said = _said(restored, data, alone=True).joints
    truth = np.asarray(data.poses.labels.joints)
    enough = (np.asarray(data.poses.observations.confidence) > 0).sum(axis=-1) >= FEWEST
    now, before, after = beside(data, method.step)
    found: dict[str, dict[str, float]] = {"hallucinator": {}, "constant": {}, "nearest": {}}
    nearest = nearest_of(data, learnt, now, method.step)
    frame, view = np.nonzero(enough[now])
    for number, (name, then) in enumerate((("now", now), ("past", before), ("future", after))):
        wanted = truth[then[frame]]
        of_now = said[0][now[frame], view]
        found["hallucinator"][name] = pa_mpjpe(said[number][now[frame], view], wanted)
        found["constant"][name] = pa_mpjpe(of_now, wanted)
        found["nearest"][name] = pa_mpjpe(nearest[name][frame], wanted)
    return found


def nearest_of(
    data: PoseData, learnt: PoseData, now: np.ndarray, step: int
) -> dict[str, Float[np.ndarray, "frames joints 3"]]:
    """For frames of a split the nearest true pose in training, and what was around it there."""
    there, before, after = beside(learnt, step)
    skeleton = data.joint_skeleton
    known = np.asarray(learnt.poses.labels.joints)
    tree = cKDTree(_facing(known[there], skeleton).reshape(len(there), -1))
    wanted = _facing(np.asarray(data.poses.labels.joints)[now], skeleton)
    _, index = tree.query(wanted.reshape(len(now), -1))
    return {
        name: known[at[index]] for name, at in (("now", there), ("past", before), ("future", after))
    }


def _facing(joints: np.ndarray, skeleton: Any) -> np.ndarray:
    """World poses about their root, hips along x."""
    left, right = (skeleton.joints.index(f"{side}_hip") for side in ("left", "right"))
    about = joints - joints[:, skeleton.root : skeleton.root + 1]
    across = about[:, left] - about[:, right]
    angle = -np.arctan2(across[:, 1], across[:, 0])
    cos, sin, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 1 + 0 * angle
    turn = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)
    return np.einsum("fij,fnj->fni", turn, about)


# ---------------------------------------------------------------------------------------- the mesh


def mesh_errors(restored: evaluate.Restored, data: PoseData) -> dict[str, float]:
    """The second table, mm, of every so many frames."""
    method = restored.method
    assert isinstance(method, HMMR)
    whole = bodies.load(method.body)
    said = _said(restored, data, alone=False)
    labels = data.poses.labels.body
    assert labels is not None
    enough = (np.asarray(data.poses.observations.confidence) > 0).sum(axis=-1) >= FEWEST
    frame, view = np.nonzero(enough[::STRIDE])
    frame = frame * STRIDE
    turn = jax.jit(axis_angle_to_matrix)(jnp.asarray(labels.rotations))
    # The truth's root as the crop has it: a posed mesh is compared in the camera's axes.
    rotation = data.poses.observations.cameras.rotation
    to_crop = np.einsum("tvij,tvjk->tvik", said.turn, rotation)

    @jax.jit
    def distance(
        a: tuple[Array, Array], b: tuple[Array, Array]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        def both(turns: Array, shape: Array) -> tuple[Array, Array]:
            nowhere, still = jnp.zeros(3), jnp.broadcast_to(jnp.eye(3), turns.shape)
            posed, joints = bodies.pose(whole, turns, shape, nowhere)
            rest, own = bodies.pose(whole, still, shape, nowhere)
            return posed - joints[:1], rest - own[:1]

        found = [
            jnp.mean(jnp.linalg.norm(x - y, axis=-1))
            for x, y in zip(both(*a), both(*b), strict=True)
        ]
        return found[0], found[1]

    total = np.zeros(2)
    for t, v in zip(frame, view, strict=True):
        true_turns = turn[t].at[0].set(to_crop[t, v] @ turn[t, 0])
        predicted = (jnp.asarray(said.rotations[t, v]), jnp.asarray(said.shape[t, v]))
        total += [float(x) for x in distance(predicted, (true_turns, labels.shape[t]))]
    posed, unposed = MM * total / max(len(frame), 1)
    return {"posed": posed, "unposed": unposed}


# ----------------------------------------------------------------------------------------- filters


def one_euro(
    values: Float[np.ndarray, "time *rest"], fps: float, cutoff: float, beta: float
) -> Float[np.ndarray, "time *rest"]:
    """Casiez, Roussel and Vogel, "1 Euro Filter" (CHI 2012), equations 1-8; slopes cut at 1 Hz."""

    def share(hertz: Any) -> Any:
        rate = 2 * np.pi * hertz / fps
        return rate / (rate + 1)

    found, slope = np.array(values), np.zeros_like(values[0])
    for t in range(1, len(values)):
        slope = slope + share(1.0) * ((values[t] - found[t - 1]) * fps - slope)
        found[t] = found[t - 1] + share(cutoff + beta * abs(slope)) * (values[t] - found[t - 1])
    return found


def smoothed(
    joints: Float[np.ndarray, "frames views joints 3"], data: PoseData, **settings: float
) -> Float[np.ndarray, "frames views joints 3"]:
    """Each clip of camera-frame poses about their root, filtered; the root is left out."""
    root, fps = data.joint_skeleton.root, data.identities[0].fps
    about = joints - joints[..., root : root + 1, :]
    return np.concatenate(
        [
            one_euro(about[clip.start : clip.stop], fps, **settings)
            for clip in windows.clips(data.poses)
        ]
    )


def now_of(joints: Float[np.ndarray, "frames views joints 3"], data: PoseData) -> dict[str, float]:
    """MPJPE, PA-MPJPE (mm) and acceleration error (m/s^2) of camera-frame poses."""
    labels, observations = data.poses.labels, data.poses.observations
    root, fps = data.joint_skeleton.root, data.identities[0].fps
    views = joints.shape[1]
    world = jnp.repeat(jnp.asarray(labels.joints)[:, None], views, axis=1)
    truth = np.asarray(jax.jit(cam.batched(cam.to_camera))(observations.cameras, world))
    truth, about = (x - x[..., root : root + 1, :] for x in (truth, np.asarray(joints)))
    off = about - truth
    sums = np.zeros(2)
    for clip in windows.clips(data.poses):
        bend = np.diff(off[clip.start : clip.stop], n=2, axis=0) * fps**2
        sums += [np.linalg.norm(bend, axis=-1).sum(), bend[..., 0].size]
    flat = (-1, *about.shape[-2:])
    return {
        "p1": MM * float(np.linalg.norm(off, axis=-1).mean()),
        "p2": pa_mpjpe(about.reshape(flat), truth.reshape(flat)),
        "acceleration": float(sums[0] / sums[1]),
    }


def pck_of(joints: Float[np.ndarray, "frames views joints 3"], data: PoseData) -> float:
    """2D PCK@0.05 of camera-frame poses where they are, against the true joints' points."""
    views = joints.shape[1]
    world = jnp.repeat(jnp.asarray(data.poses.labels.joints)[:, None], views, axis=1)
    truth = jax.jit(cam.batched(cam.to_camera))(data.poses.observations.cameras, world)
    points, wanted = (
        (x[..., :2] / jnp.maximum(x[..., 2:], cam.MIN_DEPTH)).reshape(-1, *x.shape[-2:-1], 2)
        for x in (jnp.asarray(joints), truth)
    )
    every = jnp.ones(wanted.shape[:2])
    return float(jnp.mean(jax.jit(jax.vmap(metrics.pck_2d))(points, wanted, every)))


def best_filter(restored: evaluate.Restored) -> dict[str, float]:
    """Settings of the filter that are best on validation: see the docstring above."""
    config = restored.config
    evaluation = config["evaluation"]
    data = read(
        config,
        evaluation["validation"],
        recordings=restored.info.recordings,
        noise=preset(evaluation["noise"]),
    )
    joints = np.asarray(evaluate.predict(restored, data).joints)
    plain = now_of(joints, data)
    scores = {}
    for cutoff in (0.5, 1.0, 2.0, 4.0):
        for beta in (0.0, 0.3, 1.0, 3.0):
            found = now_of(smoothed(joints, data, cutoff=cutoff, beta=beta), data)
            parts = [found[name] / plain[name] for name in ("p1", "acceleration")]
            scores[cutoff, beta] = sum(parts)
    cutoff, beta = min(scores, key=lambda key: scores[key])
    return {"cutoff": cutoff, "beta": beta}


# ---------------------------------------------------------------------------------------- the rows


def run(args: argparse.Namespace) -> dict[str, Any]:
    """By split and row, what the tables show; means over the seeds."""
    found: dict[str, Any] = {split: {} for split in args.splits}
    for name in args.rows:
        seeds: dict[str, list[dict[str, Any]]] = {split: [] for split in args.splits}
        for seed in range(args.seeds):
            restored, said = trained(name, args, seed)
            config = restored.config
            learnt = read(config, config["streams"]["main"]["split"])
            method = restored.method
            assert isinstance(method, HMMR)
            settings = None if method.temporal else best_filter(restored)
            for split, data in restored.splits.items():
                joints = np.asarray(evaluate.predict(restored, data).joints)
                own: dict[str, Any] = {
                    **now_of(joints, data),
                    "pck_2d": pck_of(joints, data),
                    "mesh": mesh_errors(restored, data),
                    "minutes": said["wall_s"] / 60,
                }
                if settings:
                    own["one_euro"] = settings | now_of(smoothed(joints, data, **settings), data)
                if method.temporal and method.around:
                    own["one_frame"] = one_frame(restored, data, learnt)
                seeds[split].append(own)
        for split, several in seeds.items():
            found[split][name] = jax.tree.map(lambda *x: float(np.mean(x)), *several)
            found[split][name]["seeds"] = [
                {key: own[key] for key in ("p1", "p2", "acceleration")} for own in several
            ]
    return found


def table(rows: Mapping[str, Any]) -> str:
    """One split's three tables, as text."""
    lines = [f"{'':<32}{'MPJPE':>8}{'PA':>8}{'accel':>8}{'PCK':>7}{'mesh':>8}{'unposed':>9}"]
    for name, row in rows.items():
        mesh = row["mesh"]
        lines.append(
            f"{name:<32}{row['p1']:>8.1f}{row['p2']:>8.1f}{row['acceleration']:>8.2f}"
            f"{100 * row['pck_2d']:>6.1f}%{mesh['posed']:>8.1f}{mesh['unposed']:>9.1f}"
        )
        if "one_euro" in row:
            own = row["one_euro"]
            lines.append(
                f"  {'One-Euro filter of it':<30}{own['p1']:>8.1f}{own['p2']:>8.1f}"
                f"{own['acceleration']:>8.2f}"
            )
    for row in rows.values():
        for name, errors in row.get("one_frame", {}).items():
            lines.append(
                f"one frame, {name:<14} past {errors['past']:.1f}, now {errors['now']:.1f}, "
                f"future {errors['future']:.1f}"
            )
    return "\n".join(lines)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamics")
    parser.add_argument("--data", default="data/body_cmu_v1", help="Body-CMU v1, prepared")
    parser.add_argument("--body", default="data/open_body.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/dynamics"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--noise", default="typical")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="0: those of the config")
    parser.add_argument(
        "--other_code", action="store_true", help="go on with runs of another version"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of small networks")
    args = parser.parse_args()
    unknown = sorted(set(args.rows) - set(ROWS))
    if unknown:
        parser.error(f"no row is named {', '.join(unknown)}; there are {', '.join(ROWS)}")
    found = run(args)
    for split, rows in found.items():
        print(f"\n{split}\n{table(rows)}")
    print(json.dumps({"dynamics": found}))


if __name__ == "__main__":
    main()
