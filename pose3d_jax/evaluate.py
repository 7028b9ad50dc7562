"""From a work directory to tables: the method beside triangulation and the mean pose.

Every row is scored on the same frames, views and joints. Errors are in metres.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from pose3d_jax import cameras as cam
from pose3d_jax import checkpoint, methods, metrics, report
from pose3d_jax import config as configs
from pose3d_jax.data import poses
from pose3d_jax.data.poses import PoseData
from pose3d_jax.methods.base import Info, Method, Variables, view_seen
from pose3d_jax.schema import Clip
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.step import init_state
from pose3d_jax.triangulate import triangulate

EXAMPLES = 4  # poses that the report shows

# Row -> metric -> error of each window, frame and view.
Errors = Mapping[str, Mapping[str, np.ndarray]]


def run(
    workdir: str | Path, config: Mapping[str, Any] | ConfigDict | None = None
) -> dict[str, Any]:
    """Evaluates the latest checkpoint of a work directory and leaves its results there.

    Writes `metrics.json`, `examples.npz` and `report.html`. Data and evaluation settings are those
    of the checkpoint's config, or of `config` where it is given. Returns the metrics.

    Raises `CheckpointError`, `DataError`, `ConfigError` or `MethodError` for what does not fit.
    """
    workdir = Path(workdir)
    metadata = checkpoint.read_metadata(workdir)
    trained = metadata["config"]
    given, config = config, trained if config is None else configs.complete(config)
    info = _info(metadata)
    method = methods.create(trained["method"], info)

    def load(split: str, window: int) -> PoseData:
        return poses.load(
            config["data"]["paths"],
            split,
            window=window,
            keypoint_skeleton=info.keypoint_skeleton.name,
            joint_skeleton=info.joint_skeleton.name,
            recordings=info.recordings,
        )

    stream, settings = trained["streams"]["main"], config["evaluation"]
    splits = {split: load(split, stream["window"]) for split in settings["test"]}
    train = load(stream["split"], 1)
    first = next(iter(splits.values()))
    for what in ("fingerprint", "keypoint_source"):
        if given is None and getattr(train, what) != metadata[what]:
            raise checkpoint.CheckpointError(
                f"{config['data']['paths']} is not what {workdir} was trained on: its {what} is "
                f"{getattr(train, what)}, not {metadata[what]}; to evaluate on other data on "
                f"purpose, give --config"
            )
    variables = _restore(workdir, trained, method, first)
    mean = mean_pose(train)

    results: dict[str, Any] = {}
    for split, data in splits.items():
        errors, mask = evaluate(method, variables, data, settings["batch_size"], mean)
        named = {trained["method"]["name"]: errors["method"], **_without(errors, "method")}
        results[split] = summarise(named, mask, data)
    summary = {
        "unit": "m",
        "method": trained["method"]["name"],
        "config_name": trained["name"],
        "version": metadata["version"],
        "steps": metadata["step"],
        "wall_s": metadata["wall_s"],
        "dataset": "+".join(sorted({identity.dataset for identity in first.identities})),
        "fingerprint": train.fingerprint,
        "splits": results,
        "config": trained,
    }
    (workdir / "metrics.json").write_text(json.dumps(summary, indent=1))
    split = next(iter(splits))
    shown = examples(method, variables, splits[split], split, trained["method"]["name"])
    np.savez(workdir / "examples.npz", **shown)  # type: ignore[arg-type]
    report.write_html(workdir / "report.html", [report.read_run(workdir)], trained["name"])
    return summary


def evaluate(
    method: Method,
    variables: Variables,
    data: PoseData,
    batch_size: int,
    mean: Float[Array, "joints 3"] | None = None,
    *,
    references: bool = True,
) -> tuple[Errors, np.ndarray]:
    """Errors, metres, of every window, frame and view, and which of them count: `[N, T, V]`.

    Rows are `method` and, with `references`, `triangulation` (where there are two views; then every
    row is scored on the joints that it finds) and (given `mean`) `mean_pose`.
    """
    parts = [
        jax.tree.map(lambda x, n=count: np.asarray(x)[:n], result)
        for clip, key, count in _batches(data, batch_size)
        for result in [eval_step(method, variables, clip, key, mean, references)]
    ]
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@functools.partial(jax.jit, static_argnums=(0, 5))
def eval_step(
    method: Method,
    variables: Variables,
    clip: Clip,
    key: Array,
    mean: Float[Array, "joints 3"] | None,
    references: bool,
) -> tuple[dict[str, dict[str, Array]], Array]:
    """`evaluate` for one batch: every row's errors and the mask, each `[B, T, V]`."""
    observations, labels = clip.observations, clip.labels
    views = observations.confidence.shape[2]

    def per_view(x: Array) -> Array:  # [B, T, ...] -> [B, T, V, ...]
        return jnp.repeat(x[:, :, None], views, axis=2)

    def in_views(world: Array) -> Array:
        return cam.batched(cam.to_camera)(observations.cameras, per_view(world))

    truth = in_views(labels.joints)
    valid = per_view(labels.joints_valid)
    root = _root(method)
    prediction = method.predict(variables, observations, key)
    rows = {"method": (prediction.joints, prediction.space)}
    if references and views > 1:
        points, found = triangulate(observations)
        valid = valid * per_view(found)
        rows["triangulation"] = (in_views(points), "absolute")
    if references and mean is not None:
        constant = jnp.broadcast_to(mean[None, None, None], truth.shape)
        rows["mean_pose"] = (constant, "root_relative")
    errors = _errors(rows, truth, valid, root)
    scored = _over_views(functools.partial(metrics.scored, root=root))(valid)
    return errors, scored & (view_seen(observations.confidence) > 0)


def mean_pose(data: PoseData) -> Float[Array, "joints 3"] | None:
    """Mean root-relative pose, metres, over all labelled frames and views; None without labels."""
    observations, labels = data.poses.observations, data.poses.labels
    root = data.joint_skeleton.root
    world = jnp.repeat(labels.joints[:, None], observations.confidence.shape[1], axis=1)
    joints = np.asarray(cam.batched(cam.to_camera)(observations.cameras, world))
    valid = labels.joints_valid[:, None] * labels.joints_valid[:, None, root, None]
    weight = np.asarray(view_seen(observations.confidence)[..., None] * valid)
    if not weight.any():
        return None
    relative = joints - joints[..., [root], :]
    total = np.maximum(weight.sum((0, 1)), 1)
    return jnp.asarray((relative * weight[..., None]).sum((0, 1)) / total[:, None], jnp.float32)


def summarise(errors: Errors, mask: np.ndarray, data: PoseData) -> dict[str, Any]:
    """The tables of one split: means over frames, over groups' means, and by action and so on."""

    def mean(row: str, metric: str, chosen: np.ndarray) -> float | None:
        values = errors[row].get(metric)
        if values is None:
            return None
        values = values[chosen & mask]
        return float(values.mean(dtype=np.float64)) if values.size else None

    def windows(field: str, value: str) -> np.ndarray:
        found = np.array([getattr(identity, field) == value for identity in data.identities])
        return np.broadcast_to(found[:, None, None], mask.shape)

    def values_of(field: str) -> list[str]:
        return sorted({getattr(identity, field) for identity in data.identities})

    everything = np.ones_like(mask)
    groups = [windows("group", value) for value in values_of("group")]

    def over_groups(row: str, metric: str) -> float | None:
        means = [mean(row, metric, chosen) for chosen in groups]
        present = [value for value in means if value is not None]
        return float(np.mean(present)) if present else None

    def table(chosen: np.ndarray) -> dict[str, dict[str, float | None]]:
        return {
            row: {metric: mean(row, metric, chosen) for metric in metrics.METRICS} for row in errors
        }

    return {
        "frames": _frames(mask),
        "clips": len({(identity.dataset, identity.clip) for identity in data.identities}),
        "rows": {
            row: {
                metric: {
                    "frames": mean(row, metric, everything),
                    "groups": over_groups(row, metric),
                }
                for metric in metrics.METRICS
            }
            for row in errors
        },
        "breakdown": {
            field: {
                value: {
                    "frames": _frames(mask & windows(field, value)),
                    "rows": table(windows(field, value)),
                }
                for value in values_of(field)
            }
            for field in ("action", "subject", "group")
        },
    }


def examples(
    method: Method, variables: Variables, data: PoseData, split: str, name: str
) -> dict[str, np.ndarray]:
    """A few evenly spaced poses for the report, one view each, in that view's camera frame."""
    chosen = np.linspace(0, data.poses.size - 1, EXAMPLES).astype(int)
    clip = data.poses.take(jnp.asarray(chosen))
    observations = clip.observations
    views = np.arange(len(chosen)) % observations.confidence.shape[2]
    row = np.arange(len(chosen))

    def pick(x: Array) -> np.ndarray:  # [N, T, V, ...] -> [N, ...]
        return np.asarray(x)[row, 0, views]

    def in_views(world: Array) -> np.ndarray:
        world = jnp.repeat(world[:, :, None], observations.confidence.shape[2], axis=2)
        return pick(cam.batched(cam.to_camera)(observations.cameras, world))

    prediction = method.predict(variables, observations, jax.random.key(0))
    return {
        "names": np.array(
            [f"{data.identities[i].clip}, view {v}" for i, v in zip(chosen, views, strict=True)]
        ),
        "split": np.array([split] * len(chosen)),
        "keypoints": pick(observations.keypoints),
        "confidence": pick(observations.confidence),
        "size": pick(observations.cameras.size),
        "truth": in_views(clip.labels.joints),
        "truth_valid": np.asarray(clip.labels.joints_valid)[row, 0],
        "prediction": pick(prediction.joints),
        "triangulation": in_views(triangulate(observations)[0]),
        "keypoint_skeleton": np.array(data.keypoint_skeleton.name),
        "joint_skeleton": np.array(data.joint_skeleton.name),
        "method": np.array(name),
    }


def _batches(data: PoseData, batch_size: int) -> Iterator[tuple[Clip, Array, int]]:
    """Batches of one size in order, a key for each, and how many of its windows are real."""
    size = data.poses.size
    batch_size = min(batch_size, size)
    for number, first in enumerate(range(0, size, batch_size)):
        indices = jnp.minimum(first + jnp.arange(batch_size), size - 1)
        key = jax.random.fold_in(jax.random.key(0), number)
        yield data.poses.take(indices), key, min(batch_size, size - first)


def _errors(
    rows: Mapping[str, tuple[Array, str]], truth: Array, valid: Array, root: int
) -> dict[str, dict[str, Float[Array, "batch time views"]]]:
    """Each row's metrics, as far as its space goes, from (joints `[B, T, V, J, 3]`, space).

    All rows are scored in one call: XLA's CPU runtime can deadlock where a program holds several
    batched SVDs (Procrustes) that run at once, each waiting for a thread of the same small pool.
    """
    score = functools.partial(metrics.errors, root=root, space="absolute")
    joints = jnp.stack([joints for joints, _ in rows.values()])
    errors = jax.vmap(_over_views(score), in_axes=(0, None, None))(joints, truth, valid)
    return {
        row: {name: errors[name][i] for name in metrics.available(space)}
        for i, (row, (_, space)) in enumerate(rows.items())
    }


def _over_views(function: Any) -> Any:
    return jax.vmap(jax.vmap(jax.vmap(function)))


def _frames(mask: np.ndarray) -> int:
    """Frames of which any view counts."""
    return int(mask.any(axis=-1).sum())


def _without(rows: Errors, name: str) -> dict[str, Mapping[str, np.ndarray]]:
    return {row: errors for row, errors in rows.items() if row != name}


def _root(method: Any) -> int:
    return method.info.joint_skeleton.root


def _restore(workdir: Path, config: Mapping[str, Any], method: Method, data: PoseData) -> Variables:
    """The variables to evaluate, from the latest checkpoint."""
    metadata = checkpoint.read_metadata(workdir)
    phases = configs.phases(config, method, metadata["steps_per_epoch"])
    average = any(phase.average_decay for phase in phases)
    phase = configs.phase_before(phases, metadata["step"])
    batch = {"main": data.poses.take(jnp.zeros(1, jnp.int32))}
    like = jax.eval_shape(
        lambda key: init_state(method, phase, batch, key, average), jax.random.key(0)
    )
    return checkpoint.read_state(workdir, like).evaluated


def _info(metadata: Mapping[str, Any]) -> Info:
    def read(saved: Mapping[str, Any]) -> Skeleton:
        joints, parents = tuple(saved["joints"]), tuple(saved["parents"])
        return Skeleton(saved["name"], joints, parents, saved["root"])

    return Info(
        keypoint_skeleton=read(metadata["keypoint_skeleton"]),
        joint_skeleton=read(metadata["joint_skeleton"]),
        recordings=tuple(metadata["recordings"]),
        normalisation=metadata["normalisation"],
    )
