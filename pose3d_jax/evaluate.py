"""From a work directory to tables: restore, score, summarise, write down.

Every evaluation leaves `metrics.json` (the tables), `clips.json` (the same errors clip by clip),
`examples.npz` and `report.html`. Errors are in metres.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from pose3d_jax import (
    bundle,
    checkpoint,
    collapse,
    fitting,
    hosts,
    inference,
    methods,
    noise,
    report,
    rigs,
    scoring,
    workdir,
)
from pose3d_jax import config as configs
from pose3d_jax.data import joining, poses, windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.methods.base import (
    Info,
    Method,
    Variables,
    context_of,
    needs_images_of,
    recorded_of,
    view_seen,
)
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.phases import phase_before, phases_of
from pose3d_jax.rigs import Doubt
from pose3d_jax.runs import read_runs, sealed
from pose3d_jax.schema import Clip, Prediction
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.state import init_state
from pose3d_jax.streams import posed, read

EXAMPLES = 60  # poses that pictures choose from


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint, and the data that it is to be evaluated on."""

    directory: Path
    metadata: Mapping[str, Any]
    config: Mapping[str, Any]  # data and evaluation settings; the checkpoint's, or those given
    info: Info
    method: Method
    variables: Variables
    splits: Mapping[str, PoseData]  # in windows of one frame
    mean: Float[Array, "joints 3"] | None  # of the training split, where the data has it
    fingerprint: str  # of the training split; without one, of those that are evaluated
    body: fitting.Body | None = None  # of the training split, where predictions are to be fitted


def run(
    directory: str | Path, config: Mapping[str, Any] | ConfigDict | None = None
) -> dict[str, Any]:
    """Evaluates the latest checkpoint of a work directory and leaves its results there.

    Data and evaluation settings are those of the checkpoint's config, or of `config` where it is
    given; other data need not have a training split, but without it there is no row of the mean
    pose, nor a fit. Returns what `metrics.json` holds (nothing on hosts other than the first).

    Raises `CheckpointError`, `DataError`, `ConfigError` or `MethodError` for what does not fit.
    """
    restored = restore(directory, config)
    if not hosts.first():
        return {}
    return leave(restored, restored.directory, restored.metadata["config"]["method"]["name"])


def restore(
    directory: str | Path, config: Mapping[str, Any] | ConfigDict | None = None
) -> Restored:
    """The latest checkpoint of a work directory with its test splits; see `run`."""
    directory = Path(directory)
    metadata = checkpoint.read_metadata(directory)
    # An older version's lacks the settings that it did not know: they have their defaults.
    trained = configs.complete(metadata["config"])
    metadata = {**metadata, "config": trained}
    given, config = config, trained if config is None else configs.complete(config)
    info = info_of(metadata)
    checkpoint.check_fits(directory, metadata, {"normalisation": Info.normalisation})
    method = methods.create(trained["method"], info)
    inference.check_flip(method, flip=config["evaluation"]["flip"])

    noisy = noise.preset(config["evaluation"]["noise"])
    pictured = needs_images_of(method)
    load = functools.partial(read, config, recordings=info.recordings, images=pictured)
    splits = {split: load(split, noise=noisy) for split in config["evaluation"]["test"]}
    demanded = given is None or config["evaluation"]["fit"]["on"]
    train = _training_split(config, trained["streams"]["main"], load, demanded=demanded)
    for data in (*([] if train is None else [train]), *splits.values()):
        check_fits(directory, metadata, data, config["data"]["keypoint_source"])
    # Without a training split, tables are of the same data where the evaluated splits are.
    marks = [data.fingerprint for data in splits.values()]
    fingerprint = (
        hashlib.sha256("".join(marks).encode()).hexdigest() if train is None else train.fingerprint
    )
    if given is None and fingerprint != metadata["fingerprint"]:
        raise checkpoint.CheckpointError(
            f"{config['data']['path']} is not what {directory} was trained on: its fingerprint is "
            f"{fingerprint}, not {metadata['fingerprint']}; to evaluate on other data on "
            f"purpose, give --config"
        )
    restored = Restored(
        directory=directory,
        metadata=metadata,
        config=config,
        info=info,
        method=method,
        variables=variables_of(directory, metadata, method, next(iter(splits.values()))),
        splits=splits,
        mean=None if train is None else scoring.mean_pose(train),
        fingerprint=fingerprint,
    )
    if train is not None and config["evaluation"]["fit"]["on"]:
        known = posed(trained["streams"]["main"], as_learned(restored, train))
        body = fitting.measure(known, predict(restored, known))
        restored = dataclasses.replace(restored, body=body)
    return restored


def _training_split(
    config: Mapping[str, Any],
    main: Mapping[str, Any],
    load: Callable[..., PoseData],
    *,
    demanded: bool,
) -> PoseData | None:
    """The split that the stream `main` names; None where other data has none and nobody must."""
    own = main["path"] or config["data"]["path"]
    paths = [own] if isinstance(own, str) else own
    if not demanded and not all(main["split"] in poses.splits(path) for path in paths):
        named = ", ".join(paths)
        logging.warning("%s: no split %r, hence no row of the mean pose", named, main["split"])
        return None
    return load(main["split"], path=main["path"])


def leave(
    restored: Restored,
    out: Path,
    name: str,
    predictions: Mapping[str, Prediction] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Scores every split and writes all that an evaluation leaves into `out`.

    Args:
      restored: checkpoint and data.
      out: the work directory, or a folder in it.
      name: of the row; the other rows are the references. With `config.evaluation.fit` the row is
        of unfitted predictions, and `NAME_fitted` stands beside it.
      predictions: by split, what to score instead of the method's own: see `inference`.
      more: further entries of `metrics.json`.
    """
    batch_size = restored.config["evaluation"]["batch_size"]
    title = name if restored.body is None else f"{name}_fitted"
    tables, clips, shown = {}, {}, None
    for split, data in restored.splits.items():
        predicted = alone = predict(restored, data) if predictions is None else predictions[split]
        if restored.body is not None:
            fit = fitting.settings_of(restored.config["evaluation"]["fit"])
            lift = functools.partial(predict, restored)
            predicted = fitting.fit_in_rounds(data, alone, restored.body, fit, lift)
        errors, mask = scoring.score(
            restored.info,
            data,
            predicted,
            batch_size,
            restored.mean,
            rows=restored.config["evaluation"]["references"],
        )
        if restored.body is not None:
            # With triangulation, whose joints are those that all rows are scored on.
            unfitted, _ = scoring.score(restored.info, data, alone, batch_size)
            errors = {**errors, name: unfitted["method"]}
        shown = shown or examples(restored, split, title, predicted)
        named = {title if row == "method" else row: metric for row, metric in errors.items()}
        tables[split] = scoring.summarise(named, mask, data)
        seen = view_seen(data.poses.observations.confidence)
        tables[split]["collapse"] = collapse.check(
            jnp.asarray(alone.joints), seen, restored.info.joint_skeleton.root
        )
        clips[split] = scoring.by_clip(named, mask, data)
    metadata = restored.metadata
    first = next(iter(restored.splits))
    identities = restored.splits[first].identities
    summary = {
        "unit": "m",
        "method": title,
        "config_name": metadata["config"]["name"],
        "version": metadata["version"],
        "steps": metadata["step"],
        "wall_s": metadata["wall_s"],
        "dataset": "+".join(sorted({identity.dataset for identity in identities})),
        "fingerprint": restored.fingerprint,
        "noise": restored.config["evaluation"]["noise"],
        "evaluation": restored.config["evaluation"],
        "data": restored.config["data"],
        "splits": tables,
        "config": metadata["config"],
        **(more or {}),
    }
    summary = sealed(summary, "metrics.json")
    out.mkdir(exist_ok=True)
    by_clip = sealed({"unit": "m", "splits": clips}, "clips.json")
    workdir.write_text(out / "clips.json", json.dumps(by_clip))
    assert shown is not None
    workdir.write(out / "examples.npz", lambda path: _savez(path, shown))
    workdir.write_text(out / "metrics.json", json.dumps(summary, indent=1))
    runs = read_runs(restored.directory)
    report.write_html(restored.directory / "report.html", runs, summary["config_name"])
    return summary


def predict(restored: Restored, data: PoseData) -> Prediction:
    """What the restored method predicts for a split; without `config.evaluation.fit`."""
    return inference.predict_split(
        restored.method, restored.info, restored.variables, data, settings_of(restored)
    )


def as_learned(restored: Restored, data: PoseData) -> PoseData:
    """A split as its cameras have seen it, with what the method learned of those that it knows."""
    if not recorded_of(restored.method):
        return data
    assert isinstance(restored.method, MultiView)
    learned = np.array(restored.method.corrections(restored.variables))
    # Of the views that are looked at; one that was not there in training is as given.
    views = data.poses.observations.confidence.shape[1]
    own = list(restored.metadata["config"]["data"]["views"]) or list(range(learned.shape[1]))
    table = np.zeros((len(learned), views, rigs.SIZE), learned.dtype)
    for place, view in enumerate(restored.config["data"]["views"] or range(views)):
        if view in own:
            table[:, place] = learned[:, own.index(view)]
    found = dict(zip(restored.info.recordings, table, strict=True))
    rates = {joining.recording_of(identity): identity.fps for identity in data.identities}
    if rate := restored.metadata["fps"]:
        for name in found.keys() & rates.keys():
            found[name][:, rigs.TIME] *= rates[name] / rate
    return bundle.corrected(data, found)


def settings_of(restored: Restored) -> inference.Settings:
    """How the restored method lifts whole clips."""
    window = restored.metadata["config"]["streams"]["main"]["window"]
    # Checkpoints from before there were windows have no rate.
    fps = restored.metadata.get("fps", 0.0)
    return inference.settings_of(window, restored.config["evaluation"], fps)


def examples(
    restored: Restored, split: str, name: str, predicted: Prediction
) -> dict[str, np.ndarray]:
    """Evenly spaced poses for pictures, one view each, in that view's camera frame."""
    data = restored.splits[split]
    chosen = np.unique(np.linspace(0, data.poses.size - 1, EXAMPLES).astype(int))
    views = np.arange(len(chosen)) % data.poses.observations.confidence.shape[1]
    shown = _shown(restored.info, data.poses.take(jnp.asarray(chosen)))
    return {
        "names": np.array(
            [f"{data.identities[i].clip}, view {v}" for i, v in zip(chosen, views, strict=True)]
        ),
        "split": np.array([split] * len(chosen)),
        **{name: np.asarray(x)[np.arange(len(chosen)), 0, views] for name, x in shown.items()},
        "prediction": predicted.joints[chosen, views],
        "keypoint_skeleton": np.array(data.keypoint_skeleton.name),
        "joint_skeleton": np.array(data.joint_skeleton.name),
        "method": np.array(name),
    }


@functools.partial(jax.jit, static_argnums=0)
def _shown(info: Info, clip: Clip) -> dict[str, Array]:
    """What an example holds beside the prediction, `[N, T, V, ...]`; joints in camera frames."""
    observations, labels = clip.observations, clip.labels
    views = observations.confidence.shape[2]
    return {
        "keypoints": observations.keypoints,
        "confidence": observations.confidence,
        "size": observations.cameras.size,
        "truth": scoring.in_views(observations, labels.joints),
        "truth_valid": scoring.per_view(labels.joints_valid, views),
        "triangulation": scoring.in_views(
            observations, scoring.triangulated(observations, info)[0]
        ),
    }


def variables_of(
    directory: Path, metadata: Mapping[str, Any], method: Method, data: PoseData
) -> Variables:
    """The variables to evaluate, from the latest checkpoint; only the shapes of `data` matter."""
    example = windows.cut(data, 1, context=context_of(method))
    shapes = jax.eval_shape(example.poses.take, jnp.zeros(1, jnp.int32))
    return variables_for(directory, metadata, method, shapes)


def variables_for(
    directory: Path, metadata: Mapping[str, Any], method: Method, example: Clip
) -> Variables:
    """`variables_of`, for a batch with the shapes of `example`."""
    phases = phases_of(metadata["config"], method, metadata["steps_per_epoch"])
    average = any(phase.average_decay for phase in phases)
    phase = phase_before(phases, metadata["step"])
    init = functools.partial(init_state, method, phase, average=average)
    like = jax.eval_shape(init, {"main": example}, jax.random.key(0))
    return checkpoint.read_state(directory, like).evaluated


def info_of(metadata: Mapping[str, Any]) -> Info:
    """The joint sets that a checkpoint knows."""

    def read(saved: Mapping[str, Any]) -> Skeleton:
        joints, parents = tuple(saved["joints"]), tuple(saved["parents"])
        return Skeleton(saved["name"], joints, parents, saved["root"])

    return Info(
        keypoint_skeleton=read(metadata["keypoint_skeleton"]),
        joint_skeleton=read(metadata["joint_skeleton"]),
        recordings=tuple(metadata["recordings"]),
        seeing=tuple(tuple(views) for views in metadata.get("seeing", ())),
        doubt=Doubt(**metadata["config"]["streams"]["main"]["doubt"]),
        normalisation=metadata["normalisation"],
        precision=metadata["config"]["precision"],
    )


def check_fits(
    directory: Path, metadata: Mapping[str, Any], data: PoseData, source_on_purpose: str
) -> None:
    """Raises `CheckpointError` where a checkpoint knows other joint sets or another 2D source."""
    found = {
        "keypoint_skeleton": data.keypoint_skeleton.name,
        "joint_skeleton": data.joint_skeleton.name,
    }
    if not source_on_purpose:  # else `poses.load` has seen to it that the data is of that source
        found["keypoint_source"] = data.keypoint_source
    checkpoint.check_fits(directory, metadata, found)
    for own, saved in (
        (data.keypoint_skeleton, info_of(metadata).keypoint_skeleton),
        (data.joint_skeleton, info_of(metadata).joint_skeleton),
    ):
        if own != saved:
            raise checkpoint.CheckpointError(
                f"the checkpoint in {directory} knows {saved.name} with the joints "
                f"{', '.join(saved.joints)}, this version of the package with "
                f"{', '.join(own.joints)}; use the version that it was trained with"
            )


def _savez(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add a suffix
        np.savez(file, **arrays)  # type: ignore[arg-type]
