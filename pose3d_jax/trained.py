"""A trained network, ready for a user's arrays: what `pose3d_jax.load` gives.

lifter = pose3d_jax.load("runs/demo/multiview")
poses = lifter.predict(keypoints, cameras)  # [frames, views, joints, 2] pixels; Camera [views]
poses.world                                  # [frames, joints, 3], metres, z up
"""

import dataclasses
import functools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from absl import logging
from jaxtyping import Float

from pose3d_jax import (
    adapt,
    bundle,
    card,
    checkpoint,
    evaluate,
    fitting,
    inference,
    methods,
    noise,
    offsets,
    pieces,
    recipes,
    rigs,
    workdir,
)
from pose3d_jax import cameras as cam
from pose3d_jax.cameras import Camera
from pose3d_jax.config import complete
from pose3d_jax.data import own, windows
from pose3d_jax.data.own import PredictError
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import (
    Info,
    Method,
    Variables,
    context_of,
    needs_images_of,
    picture_cells_of,
)
from pose3d_jax.rigs import Doubt
from pose3d_jax.schema import Observations, Prediction
from pose3d_jax.skeleton import Skeleton

Array = np.ndarray
STAGES = ("clocks", "cameras", "poses")
_CLOCKS = Doubt(degrees=0.0, metres=0.0, focal=0.0)  # what the stage of that name has in doubt
CAREFUL = Doubt(degrees=0.15, metres=0.005, focal=0.0015)  # of a rig calibrated with care
# Frames lifted at once: clips of all lengths are cut into, or padded to, so many.
_PIECE = 1024
# Where a lifter's errors are kept, and for which noise of keypoints they are measured. The fit of
# one view has it lift points that are nearly right, in its second round.
_BODY, _NOISE = "body.npz", "typical"
_ALONE, _ALONE_NOISE = "body_one_view.npz", "clean"


@dataclasses.dataclass(frozen=True)
class Poses:
    """One person's joints over time, metres."""

    in_views: Float[Array, "frames views joints 3"]  # in each camera's axes
    world: Float[Array, "frames joints 3"] | None  # z up; None where places are not known
    # What was lifted: x, y, confidence, as cameras and clocks that were corrected have seen it.
    keypoints: Float[Array, "frames views keypoints 3"]
    # m^2, in the world; None but of the stage poses, of several views.
    covariance: Float[Array, "frames joints 3 3"] | None
    cameras: Camera  # [views], corrected by the stage cameras
    clocks: Float[Array, "views"]  # frames by which each view's clock was corrected
    space: str  # what `in_views` mean: absolute, root_relative or up_to_scale


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run's method with what its latest checkpoint learned; made by `load`."""

    directory: Path
    metadata: Mapping[str, Any]
    info: Info
    method: Method
    variables: Variables
    lifting: inference.Settings

    @property
    def keypoint_skeleton(self) -> Skeleton:
        """The joint set in which it wants keypoints."""
        return self.info.keypoint_skeleton

    @property
    def joint_skeleton(self) -> Skeleton:
        """The joint set of what it predicts."""
        return self.info.joint_skeleton

    @property
    def card(self) -> str:
        """Data and terms, limits, intended use: Markdown."""
        return card.text(self.metadata)

    def predict(
        self,
        keypoints: npt.ArrayLike,
        cameras: Camera,
        confidence: npt.ArrayLike | None = None,
        *,
        fps: float = 30.0,
        stages: Sequence[str] = (),
        corrections: Float[Array, "views entries"] | None = None,
        doubt: Doubt = CAREFUL,
    ) -> Poses:
        """One person's 3D joints from raw pixels.

        Args:
          keypoints: `[frames, views, joints, 2]` of `keypoint_skeleton`, or 3 with the confidence
            as the third. NaN, and a confidence of 0, are joints that were not found.
          cameras: of each view, `[views]`, which stand still.
          confidence: `[frames, views, joints]` in [0, 1]; by default 1.
          fps: frames per second, for networks that see several and for the stages.
          stages: of `STAGES`. `clocks`: views may be some frames late. `cameras`: where they are
            and their focal lengths are solved for with the joints, after the clocks, or without
            that stage together with them. `poses`: joints are moved to where all views, constant
            bones and quiet motion want them; one view is enough for that one (`fitting`, for a
            detector's keypoints). Without any, the world's joints are the mean of what the views
            say.
          corrections: of the cameras (see `rigs`), where they are known from elsewhere: see
            `corrections`. They are not solved for then.
          doubt: how far cameras may be from where they are said to be, for the stage `cameras`.

        Raises `PredictError` for what does not fit, `RowError` and `FitError` as the stages do.
        """
        observations = own.clip_of(keypoints, confidence, cameras, self.keypoint_skeleton)
        views = observations.confidence.shape[1]
        for stage in stages:
            if stage not in STAGES:
                raise PredictError(f"no stage is named {stage!r}; there are {', '.join(STAGES)}")
        several = [stage for stage in stages if stage != "poses"]
        if several and views < 2:
            raise PredictError(
                f"{' and '.join(several)}: one view tells nothing of these; give several views, or "
                f"the stage poses alone"
            )
        if corrections is None:
            corrections = self.corrections(observations, stages, doubt)
        if corrections.any():
            observations = jax.tree.map(np.asarray, _applied(observations, corrections))
        predicted = self.lift(observations, fps)
        covariance, world = None, None
        if "poses" in stages:
            offsets.check(self.keypoint_skeleton, self.joint_skeleton, predicted.space)
        if "poses" in stages and views == 1:
            predicted = self._fitted(observations, predicted, fps)
        elif "poses" in stages:
            (found,) = offsets.adapt_clips(
                [observations],
                [np.asarray(predicted.joints)],
                [fps],
                self.body,
                self.joint_skeleton,
                offsets.Settings(),
            )
            world, covariance = found.joints, found.covariance
            joints = _to_camera(observations.cameras, np.repeat(world[:, None], views, axis=1))
            predicted = dataclasses.replace(predicted, joints=np.asarray(joints))
        if world is None and predicted.space == "absolute":
            world = _mean_in_world(observations, np.asarray(predicted.joints))
        return Poses(
            in_views=np.asarray(predicted.joints),
            world=world,
            keypoints=np.concatenate(
                [observations.keypoints, observations.confidence[..., None]], axis=-1
            ),
            covariance=covariance,
            cameras=jax.tree.map(lambda x: x[0], observations.cameras),
            clocks=corrections[:, rigs.TIME],
            space=predicted.space,
        )

    def corrections(
        self, observations: Observations, stages: Sequence[str], doubt: Doubt = CAREFUL
    ) -> Float[Array, "views entries"]:
        """What a clip tells of the cameras, as far as the stages have them in doubt; see `rigs`.

        Looked at are the parts in which most is seen by several views. Quick motion tells clocks,
        what stays tells cameras: where these are nearly right, either is told best by itself.
        """
        found = np.zeros((observations.confidence.shape[1], rigs.SIZE), np.float32)
        if "clocks" in stages:
            found = self._corrections(observations, _CLOCKS)
            observations = jax.tree.map(np.asarray, _applied(observations, found))
            doubt = doubt._replace(frames=0.0)
        if "cameras" in stages:
            found = found + self._corrections(observations, doubt)
        return found

    def _corrections(
        self, observations: Observations, doubt: Doubt
    ) -> Float[Array, "views entries"]:
        firsts = range(0, len(observations.confidence), bundle.PART)
        parts = [
            jax.tree.map(lambda x, at=at: np.asarray(x)[at : at + bundle.PART], observations)
            for at in firsts
        ]
        parts = sorted(parts, key=lambda part: -own.shared(part.confidence))
        parts = [part for part in parts if own.shared(part.confidence)]
        if not parts:
            raise PredictError(
                "no two views see a joint at the same time, which alone tells of clocks and "
                "cameras; leave these stages out"
            )
        return bundle.corrections_of(parts, self.keypoint_skeleton, doubt)

    def _fitted(self, observations: Observations, lifted: Prediction, fps: float) -> Prediction:
        """Of each view by itself, as keypoints of a detector; see `fitting`."""
        sigma = fitting.detectors_noise(observations, lifted.joints, self.joint_skeleton.root)
        settings = {**fitting.Settings()._asdict(), **recipes.fit(sigma)}
        return fitting.fit_in_rounds(
            own.data_of(observations, self.keypoint_skeleton, self.joint_skeleton, fps),
            lifted,
            self.one_view_body,
            fitting.settings_of(settings),
            lambda shown: self.lift(jax.tree.map(np.asarray, shown.poses.observations), fps),
        )

    def lift(self, observations: Observations, fps: float) -> Prediction:
        """What the network says of a clip `[frames, views, ...]`, each view by itself.

        In pieces of one length, so that one compiled program serves clips of all lengths.
        """
        reach = max(self.lifting.window, *context_of(self.method))
        overlap = 0 if reach <= 1 else min(2 * reach, _PIECE // 2)
        frames = len(observations.confidence)
        parts = []
        for first in pieces.firsts(frames, _PIECE, overlap):
            piece, _ = pieces.cut(observations, first, _PIECE)
            data = own.data_of(piece, self.keypoint_skeleton, self.joint_skeleton, fps)
            found = inference.predict_split(
                self.method, self.info, self.variables, data, self.lifting
            )
            parts.append({"joints": np.asarray(found.joints)})
        joined = pieces.join(parts, frames, _PIECE, overlap)["joints"]
        return Prediction(joined, space=found.space)

    @functools.cached_property
    def body(self) -> fitting.Body:
        """What the training poses say of bodies and of how far the network errs.

        Kept beside the checkpoint as `body.npz`; without that file it is measured on the training
        split, where the run's config has it. Raises `PredictError` where there is neither.
        """
        return self._body(_BODY, _NOISE)

    @functools.cached_property
    def one_view_body(self) -> fitting.Body:
        """`body`, for the fit of one view; kept as `body_one_view.npz`."""
        return self._body(_ALONE, _ALONE_NOISE)

    def _body(self, name: str, noisy: str) -> fitting.Body:
        path = self.directory / name
        if not path.exists():
            try:
                restored = evaluate.restore(self.directory)
            except UserError as error:
                raise PredictError(
                    f"the stage poses needs what training poses say of bodies: {path}, or the "
                    f"training data, which cannot be read ({error}); copy that file from where the "
                    f"network was trained, or predict there once"
                ) from error
            measured = adapt.body_under(restored, noise.preset(noisy))
            try:
                _save(path, measured, self.metadata["step"])
            except OSError as error:
                logging.warning("%s cannot be written (%s) and is measured anew", path, error)
                return measured
        return _load(path, self.metadata["step"])


def load(directory: str | Path) -> Trained:
    """The latest checkpoint of a work directory, as training left it.

    Raises `CheckpointError` for what cannot be read, `PredictError` for a method that looks at
    pictures or at features of such.
    """
    directory = Path(directory)
    metadata = checkpoint.read_metadata(directory)
    trained = complete(metadata["config"])
    metadata = {**metadata, "config": trained}
    info = evaluate.info_of(metadata)
    checkpoint.check_fits(directory, metadata, {"normalisation": Info.normalisation})
    method = methods.create(trained["method"], info)
    if picture_cells_of(method) or needs_images_of(method):
        name = trained["method"]["name"]
        raise PredictError(
            f"{directory} is a run of the method {name} that looks at images, not at keypoints; "
            f"use pose3d_jax.photo or pose3d_jax.meshes, or give another run"
        )
    # No network's shapes depend on the number of views.
    blank = np.ones((1, 1, info.keypoint_skeleton.size, 2))
    seen = own.clip_of(blank, None, own.ideal((2, 2)), info.keypoint_skeleton)
    context = context_of(method)
    data = windows.cut(
        own.data_of(seen, info.keypoint_skeleton, info.joint_skeleton, 30.0), 1, context=context
    )
    example = jax.eval_shape(data.poses.take, jnp.zeros(1, jnp.int32))
    return Trained(
        directory=directory,
        metadata=metadata,
        info=info,
        method=method,
        variables=evaluate.variables_for(directory, metadata, method, example),
        lifting=inference.settings_of(
            trained["streams"]["main"]["window"], trained["evaluation"], metadata.get("fps", 0.0)
        ),
    )


_applied = jax.jit(rigs.apply)
_to_camera = jax.jit(cam.batched(cam.to_camera))
_to_world = jax.jit(cam.batched(cam.to_world))


def _mean_in_world(
    observations: Observations, joints: Float[Array, "frames views joints 3"]
) -> Float[Array, "frames joints 3"]:
    """The mean over the views that see anything; where none does, over all."""
    world = np.asarray(_to_world(observations.cameras, joints))
    sees = np.max(np.asarray(observations.confidence), axis=-1) > 0
    weight = np.where(sees.any(axis=1, keepdims=True), sees, 1.0)[..., None, None]
    return (weight * world).sum(axis=1) / weight.sum(axis=1)


def _save(path: Path, body: fitting.Body, step: int) -> None:
    def make(temporary: str) -> None:
        with open(temporary, "wb") as file:  # given a name, numpy would add a suffix
            np.savez(
                file, pairs=np.array(body.pairs), spread=body.spread, error=body.error, step=step
            )

    workdir.write(path, make)


def _load(path: Path, step: int) -> fitting.Body:
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            if int(file["step"]) != step:
                raise PredictError(
                    f"{path} is of step {int(file['step'])}, but the checkpoint of step {step}; "
                    f"delete that file, and predict once where the training data is"
                )
            pairs = tuple((int(a), int(b)) for a, b in file["pairs"])
            return fitting.Body(file["spread"], file["error"], pairs)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise PredictError(
            f"{path} cannot be read ({error}); delete it, and predict once where the training "
            f"data is"
        ) from error
