"""Test-time adaptation: what is to be lifted tells the cameras, the weights, and the poses.

Three stages, each of which may be left out (`config.adaptation.stages`), in this order. `cameras`:
every recording's calibration is solved for with its joints (`bundle`), second order. `weights`: the
last part of "3D Pose Estimation Using 2D Supervision" (CMU 16-824 report): what trained the lifter
is minimised once more on the observations that are to be lifted, first order (`weights`). `poses`:
every frame's joints are moved to where all views, constant bones and quiet motion want them
(`offsets`), second order. No stage sees labels of what is adapted.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from pose3d_jax import (
    bundle,
    evaluate,
    fitting,
    hosts,
    inference,
    methods,
    noise,
    offsets,
    parts,
    scoring,
)
from pose3d_jax import cameras as cam
from pose3d_jax.config import ConfigError
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.evaluate import Restored
from pose3d_jax.log import ScalarLog
from pose3d_jax.methods.base import (
    Info,
    Method,
    Variables,
    context_of,
    needs_images_of,
    picture_cells_of,
    recorded_of,
)
from pose3d_jax.phases import adaptation_phase
from pose3d_jax.references import Estimate
from pose3d_jax.rigs import Doubt
from pose3d_jax.schema import Prediction
from pose3d_jax.streams import posed, read
from pose3d_jax.weights import Adapted, Lift, adapt_clips, adapt_shared


def run(
    directory: str | Path, config: Mapping[str, Any] | ConfigDict | None = None
) -> dict[str, Any]:
    """Adapts the latest checkpoint of a work directory to each test split, and evaluates.

    `config.adaptation` says how (the checkpoint's config, or `config` where it is given). Leaves
    what an evaluation leaves in a folder of the work directory, whose name says the stages:
    `adapted_shared` or `adapted_clip` where weights alone are adapted (with `_random` behind it
    where they started anew), `adapted_poses`, `adapted_cameras_shared_poses` and so on. Evaluates
    the checkpoint itself too, and puts both into the work directory's report. Returns the metrics
    of the adapted run.

    Raises what `evaluate.run` raises, and `NonFiniteError`.
    """
    restored = evaluate.restore(directory, config)
    settings = restored.config["adaptation"]
    stages = settings["stages"]
    method = _method(restored)
    variables = _start(restored, method)
    _check(restored, method, variables)  # refuses what does not fit before any work
    noisy = noise.preset(restored.config["evaluation"]["noise"])
    body = body_under(restored, noisy) if "poses" in stages else None
    trained = restored.metadata["config"]["method"]["name"]
    evaluate.leave(restored, restored.directory, trained)

    name = name_of(settings)
    predictions, told = {}, {}
    with ScalarLog(restored.directory / name) as log:
        for split, data in restored.splits.items():
            started = time.monotonic()
            adapted, world, curve, own = _adapt(restored, method, variables, body, split, data)
            seconds = time.monotonic() - started
            predictions[split] = adapted
            told[split] = {
                **own,
                "wall_s": seconds,
                "s_per_1000_frames": 1000 * seconds / data.poses.size,
                **({} if world is None else coverage(data, world)),
            }
            for done, terms in curve.items():
                log.write(done, {f"train/{split}/{term}": v for term, v in terms.items()})
    return evaluate.leave(
        restored,
        restored.directory / name,
        f"{trained}_{name}",
        predictions,
        {"adaptation": {**settings, "stages": ordered(stages), "splits": told}},
    )


def coverage(data: PoseData, world: Estimate) -> dict[str, float]:
    """Shares of joints inside their ellipsoids, of those that two views or more see."""
    labels = jax.tree.map(np.asarray, data.poses.labels)
    twice = np.sum(np.asarray(data.poses.observations.confidence) > 0, axis=1) >= 2
    counted = twice & (labels.joints_valid > 0)
    error = (world.joints - labels.joints)[counted]
    return scoring.coverage(error, world.covariance[counted])


def name_of(settings: Mapping[str, Any]) -> str:
    """Of the folder that an adaptation leaves: its stages, the weights' by their scope."""
    weights = settings["scope"] + ("_random" if settings["init"] == "random" else "")
    stages = [weights if stage == "weights" else stage for stage in ordered(settings["stages"])]
    return "_".join(["adapted", *stages])


def ordered(stages: Sequence[str]) -> list[str]:
    """The stages as they follow on one another."""
    return [stage for stage in ("cameras", "weights", "poses") if stage in stages]


def _adapt(
    restored: Restored,
    method: Method,
    variables: Variables,
    body: fitting.Body | None,
    split: str,
    data: PoseData,
) -> tuple[Prediction, Estimate | None, dict[int, dict[str, float]], dict[str, Any]]:
    """A split's predictions in the cameras' frames as given; of the stage `poses`, joints in the
    world and how sure they are; the weights' curve; what to report."""
    settings = restored.config["adaptation"]
    lifting = evaluate.settings_of(restored)
    curve: dict[int, dict[str, float]] = {}
    report: dict[str, Any] = {"steps": 0}
    seen = data
    if "cameras" in settings["stages"]:
        seen, corrections = bundle.correct_split(data, Doubt(**settings["cameras"]))
        report["cameras"] = {name: found.tolist() for name, found in corrections.items()}
    if "weights" in settings["stages"]:
        found, steps = _adapt_weights(restored, method, variables, split, seen, lifting)
        predicted, curve, report["steps"] = found.predictions, found.curve, steps
    else:
        predicted = inference.predict_split(method, restored.info, variables, seen, lifting)
    world = None
    if body is not None:
        chosen = offsets.Settings(**{k: settings[k] for k in ("doubt", "alike")})
        predicted, world = offsets.adapt_split(seen, predicted, body, chosen)
    if seen is not data:
        predicted = _in_given_cameras(seen, data, predicted)
    return predicted, world, curve, report


def _adapt_weights(
    restored: Restored,
    method: Method,
    variables: Variables,
    split: str,
    frames: PoseData,
    lifting: inference.Settings,
) -> tuple[Adapted, int]:
    """What adapted weights predict for a split, and after how many steps."""
    settings = restored.config["adaptation"]
    devices = hosts.devices(restored.config["devices"])
    known = windows.at_rate(frames, lifting.fps) if lifting.fps else frames
    data = windows.cut(known, lifting.window, context=context_of(method))
    lift = _lift(method, restored.info, frames, lifting)
    clip = settings["scope"] == "clip"
    sets = len(set(data.identities)) if clip else 1
    batch_size = _batch_size(settings["batch_size"], data.poses.size, devices)
    epoch = max(1, data.poses.size // (sets * batch_size))
    phase = adaptation_phase(restored.config, method, epoch)
    share, seed = settings["held_out"], settings["seed"]
    rests, changed, variables = _part(settings, method, variables, restored.info)
    phase = dataclasses.replace(phase, mode=dataclasses.replace(phase.mode, frozen=rests))
    if changed is not None:
        merged, own = changed.merged, lift
        method, lift = changed, lambda found, clips: own(merged(found), clips)
    with tqdm(total=phase.steps * sets, desc=split, unit="step", dynamic_ncols=True) as bar:
        if clip:
            chunk = settings["chunk"]
            adapted = adapt_clips(
                method, phase, variables, data, batch_size, chunk, devices, lift, bar, share, seed
            )
        else:
            adapted = adapt_shared(
                method, phase, variables, data, batch_size, devices, lift, bar, share, seed
            )
    return adapted, phase.steps


def _in_given_cameras(seen: PoseData, data: PoseData, predicted: Prediction) -> Prediction:
    """Joints in corrected cameras' frames, carried through the world into those as given."""
    own, given = (jax.device_put(x.poses.observations.cameras) for x in (seen, data))
    joints = _carried(own, given, jnp.asarray(predicted.joints))
    return dataclasses.replace(predicted, joints=np.asarray(joints))


@jax.jit
def _carried(own: cam.Camera, given: cam.Camera, joints: Any) -> Any:
    return cam.batched(cam.to_camera)(given, cam.batched(cam.to_world)(own, joints))


def body_under(restored: Restored, noisy: noise.Noise) -> fitting.Body:
    """The training split's body, and how far the method errs there where keypoints are so noisy.

    Raises `FitError` as `fitting.measure` does.
    """
    main = restored.metadata["config"]["streams"]["main"]
    path = main["path"] or restored.config["data"]["path"]
    load = functools.partial(
        read, restored.config, main["split"], path=path, recordings=restored.info.recordings
    )
    clean, shown = (
        evaluate.as_learned(restored, windows.some(x, *main["clips"]))
        for x in (load(), load(noise=noisy))
    )
    if main["cameras"] == "solved":
        clean, corrections = bundle.correct_split(clean, Doubt(**main["doubt"]))
        shown = bundle.corrected(shown, corrections)
    known = posed({**main, "clips": (0.0, 1.0), "cameras": "given"}, clean)
    labelled = dataclasses.replace(shown.poses, labels=known.poses.labels)
    shown = dataclasses.replace(shown, poses=labelled)
    return fitting.measure(shown, evaluate.predict(restored, shown))


def _method(restored: Restored) -> Method:
    """The method whose terms are minimised, with the trained network. Raises `ConfigError`."""
    settings = restored.config["adaptation"]
    if not settings["stages"]:
        raise ConfigError("config.adaptation.stages is empty; name what is to be adapted")
    if restored.config["evaluation"]["fit"]["on"]:
        raise ConfigError(
            "config.evaluation.fit: what was adapted is not fitted; switch fit.on off to adapt"
        )
    if picture_cells_of(restored.method):
        raise ConfigError(
            "config.adaptation: the method looks at pictures, and an adaptation is to "
            "keypoints that are given; there are none"
        )
    trained = restored.metadata["config"]["method"]
    if "weights" not in settings["stages"]:
        return restored.method
    known = dict(trained)
    if recorded_of(restored.method):
        # Cameras are a stage's; what was learned of them in training is of other recordings. Left
        # out rather than given, for methods without such a setting.
        del known["cameras"]
    try:
        return methods.create({**known, "name": settings["method"]}, restored.info)
    except methods.MethodError as error:
        raise ConfigError(f"config.adaptation.method: {error}") from error


def _check(restored: Restored, method: Method, variables: Variables) -> None:
    """Raises `ConfigError` or `PartError` for settings that do not fit the method or the data."""
    settings, info = restored.config["adaptation"], restored.info
    stages, where = settings["stages"], "config.adaptation"
    if "weights" in stages:
        devices = hosts.devices(restored.config["devices"])
        if settings["batch_size"] % devices:
            raise ConfigError(
                f"{where}.batch_size is {settings['batch_size']}, which {devices} devices cannot "
                f"share"
            )
        adaptation_phase(restored.config, method, 1)
        _part(settings, method, variables, info)
    if settings["init"] == "random" and stages != ["weights"]:
        raise ConfigError(
            f"{where}.init is 'random', which is for the stage weights alone: the others believe "
            f"the lifter as far as it erred in training; set it to 'checkpoint'"
        )
    if {"cameras", "poses"} & set(stages):
        for split, data in restored.splits.items():
            if data.poses.observations.confidence.shape[1] < 2:
                raise ConfigError(
                    f"{where}.stages: split {split} has one view, and cameras and poses are "
                    f"adapted to several; one view is fitted by config.evaluation.fit, and your "
                    f"own keypoints by python -m pose3d_jax.predict --adapt poses"
                )
    if "cameras" in stages and needs_images_of(method):
        raise ConfigError(
            f"{where}.stages: the method looks at features of images, which belong to the cameras "
            f"as given; leave out cameras"
        )
    if "poses" in stages or settings["held_out"]:
        data = windows.cut(next(iter(restored.splits.values())), 1, context=context_of(method))
        example = jax.eval_shape(data.poses.take, jnp.zeros(1, jnp.int32)).observations
        space = jax.eval_shape(method.predict, variables, example).space
        asking = "held_out" if settings["held_out"] else "stages"
        try:
            offsets.check(info.keypoint_skeleton, info.joint_skeleton, space)
        except fitting.FitError as error:
            raise ConfigError(f"{where}.{asking}: {error}; or leave that out") from error


def _part(
    settings: Mapping[str, Any], method: Method, variables: Variables, info: Info
) -> tuple[tuple[str, ...], parts.LowRank | None, Variables]:
    """What rests of the weights, the method with a change of low rank, and the variables."""
    if settings["part"] == "low_rank":
        changed = parts.LowRank(method, settings["rank"])
        key = jax.random.key(settings["seed"])
        return (), changed, changed.around(key, variables)
    outputs = (3, 3 * info.joint_skeleton.size)
    return parts.resting(variables, settings["part"], outputs), None, variables


def _lift(method: Method, info: Info, data: PoseData, settings: inference.Settings) -> Lift:
    def lift(variables: Variables, clips: Sequence[int] | None) -> Prediction:
        return inference.predict_split(method, info, variables, data, settings, clips)

    return lift


def _batch_size(wanted: int, windows: int, devices: int) -> int:
    """As many windows as are wanted or there are, in equal parts."""
    if windows < devices:
        raise ConfigError(f"config.devices is {devices}, but the split has {windows} windows")
    return min(wanted, windows // devices * devices)


def _start(restored: Restored, method: Method) -> Variables:
    """The checkpoint's variables, or fresh ones; either way of the network that is adapted."""
    settings = restored.config["adaptation"]
    data = next(iter(restored.splits.values()))
    batch = {"main": data.poses.take(jnp.zeros(1, jnp.int32))}
    key = jax.random.key(settings["seed"])
    shapes = jax.eval_shape(method.init, key, batch)
    variables, learned = restored.variables, recorded_of(restored.method)
    if learned and recorded_of(method) != learned:
        kept = {k: v for k, v in variables["params"].items() if k not in learned}
        variables = {**variables, "params": kept}
    if str(jax.tree.structure(shapes)) != str(jax.tree.structure(variables)):
        raise ConfigError(
            f"config.adaptation.method is {settings['method']!r}, whose network is not that of the "
            f"checkpoint in {restored.directory}"
        )
    return jax.jit(method.init)(key, batch) if settings["init"] == "random" else variables
