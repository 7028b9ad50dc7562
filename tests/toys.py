"""Toy methods that use one thing each of the protocol, and batches for them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pose3d_jax.cameras import Camera, look_at
from pose3d_jax.losses import weighted_term
from pose3d_jax.methods.base import Aux, Group, Info, Mode
from pose3d_jax.models.layers import BatchNorm
from pose3d_jax.schema import Clip, Labels, Observations, Prediction
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.state import Phase, TrainState, init_state

BONE = Skeleton("bone2", ("pelvis", "head"), (-1, 0), 0)
INFO = Info(BONE, BONE, ("a", "b", "c"))


def constant(value: float):
    return lambda _: jnp.float32(value)


def phase(weights: dict[str, float], **settings: Any) -> Phase:
    defaults: dict[str, Any] = {
        "first_step": 0,
        "steps": 100,
        "mode": Mode(),
        "optimizer": optax.sgd(1.0),
        "learning_rate": constant(0.1),
    }
    weights = {name: constant(value) for name, value in weights.items()}
    return Phase(**{**defaults, **settings, "weights": weights})


def fresh(method: Any, phase: Phase, batch: Any, key: Any, average: bool = False) -> TrainState:
    """A fresh state, made by one program."""
    return jax.jit(functools.partial(init_state, method, phase, average=average))(batch, key)


def clips(size: int, *, seed: int = 0, views: int = 1, frames: int = 1) -> Clip:
    """Random two-joint clips `[size, T, V, 2]`; confidences and validity are 0 or 1, unevenly."""
    rng = np.random.default_rng(seed)
    rotation, translation = jax.jit(look_at)(
        jnp.array([0.0, -4.0, 1.0]), jnp.array([0.0, 0.0, 1.0]), jnp.array([0.0, 0.0, 1.0])
    )
    leading = (size, frames, views)
    one = Camera(
        rotation=rotation,
        translation=translation,
        focal=jnp.array([500.0, 500.0]),
        center=jnp.array([320.0, 240.0]),
        distortion=jnp.zeros(5),
        tangential=jnp.array(2.0),
        size=jnp.array([640.0, 480.0]),
    )
    cameras = jax.tree.map(lambda x: jnp.asarray(np.broadcast_to(x, (*leading, *x.shape))), one)
    # The later a clip, the less of it is visible: devices get uneven masks.
    share = np.linspace(1.0, 0.2, size)
    confidence = (rng.uniform(size=(*leading, 2)) < share[:, None, None, None]).astype(np.float32)
    valid = (rng.uniform(size=(size, frames, 2)) < share[:, None, None]).astype(np.float32)
    return Clip(
        Observations(
            jnp.asarray(rng.normal(320, 100, (*leading, 2, 2)), jnp.float32),
            jnp.asarray(confidence),
            cameras,
        ),
        Labels(jnp.asarray(rng.normal(size=(size, frames, 2, 3)), jnp.float32), jnp.asarray(valid)),
        jnp.asarray(rng.integers(0, 3, size), jnp.int32),
    )


@dataclasses.dataclass
class ClipStream:
    """Clips as a stream."""

    clips: Clip

    @property
    def size(self) -> int:
        return self.clips.recording.shape[0]

    def take(self, indices: jax.Array) -> Clip:
        return jax.tree.map(lambda x: x[indices], self.clips)


jax.tree_util.register_dataclass(ClipStream, data_fields=["clips"], meta_fields=[])


@dataclasses.dataclass(frozen=True)
class Toy:
    """Predicts one learned offset from the origin for every joint."""

    info: Info = INFO
    groups: tuple[Group, ...] = (Group("offset", ("offset",), ("error",)),)

    def init(self, key, batch):
        del key, batch
        return {"params": {"offset": {"value": jnp.zeros(3)}}}

    def terms(self, variables, batch, key, step, *, group, mode):
        del key, step, group, mode
        labels = batch["main"].labels
        error = (labels.joints - variables["params"]["offset"]["value"][None, None, None]) ** 2
        return {"error": weighted_term(error.sum(-1), labels.joints_valid)}, Aux({}, {})

    def predict(self, variables, observations, key=None):
        del key
        shape = (*observations.keypoints.shape[:-1], 3)
        value = variables["params"]["offset"]["value"]
        return Prediction(jnp.broadcast_to(value[None, None, None, None], shape))


@dataclasses.dataclass(frozen=True)
class Adversarial(Toy):
    """1. A critic, updated five times a step, before the generator, on an unpaired `prior`."""

    groups: tuple[Group, ...] = (
        Group("critic", ("critic",), ("wasserstein",), updates=5),
        Group("generator", ("generator",), ("fool",)),
    )

    def init(self, key, batch):
        del key, batch
        return {
            "params": {"critic": {"w": jnp.ones(3)}, "generator": {"bias": jnp.zeros(3)}},
            "counters": {"critic": {"calls": jnp.zeros(())}, "generator": {"calls": jnp.zeros(())}},
        }

    def terms(self, variables, batch, key, step, *, group, mode):
        del key, step, mode
        params, counters = variables["params"], variables["counters"]
        real = batch["prior"].labels.joints
        fake = batch["main"].labels.joints + params["generator"]["bias"][None, None, None]
        w = params["critic"]["w"]
        weight = jnp.ones(real.shape[:-1])
        # Touches both modules' counters; only the group's own may be kept.
        counters = jax.tree.map(lambda x: x + 1, counters)
        if group.name == "critic":
            terms = {"wasserstein": weighted_term(fake @ w - real @ w, weight)}
        else:
            terms = {"fool": weighted_term(-(fake @ w), weight)}
        diagnostics = {"prior_mean": weighted_term(real[..., 0], weight)}
        return terms, Aux({"counters": counters}, diagnostics)


@dataclasses.dataclass(frozen=True)
class Sampler(Toy):
    """2. `predict` draws samples with the key it is given."""

    def predict(self, variables, observations, key=None):
        mean = super().predict(variables, observations)
        noise = jax.random.normal(key, (4, *mean.joints.shape))
        return Prediction(mean.joints, samples=mean.joints[None] + noise)


@dataclasses.dataclass(frozen=True)
class Normalised(Toy):
    """3. Two modules with batch statistics; the second phase freezes one of them."""

    groups: tuple[Group, ...] = (Group("both", ("encoder", "head"), ("error",)),)

    def _apply(self, variables, observations, mode: Mode):
        x = observations.keypoints.reshape(*observations.keypoints.shape[:3], -1) / 100.0
        mask = (observations.confidence > 0).any(-1).astype(x.dtype)
        collections = {}
        for module in ("encoder", "head"):
            own = {name: tree[module] for name, tree in variables.items()}
            x, new = BatchNorm().apply(
                own, x, mask, mode.statistics(module), mutable=["batch_stats"]
            )
            collections[module] = new["batch_stats"]
        return x, mask, collections

    def init(self, key, batch):
        del batch
        one = BatchNorm().init(key, jnp.zeros((1, 1, 1, 4)), jnp.ones((1, 1, 1)), False)
        return {name: {"encoder": tree, "head": tree} for name, tree in one.items()}

    def terms(self, variables, batch, key, step, *, group, mode):
        del key, step, group
        clip = batch["main"]
        x, mask, collections = self._apply(variables, clip.observations, mode)
        target = clip.labels.joints.reshape(*x.shape[:2], 1, 6)[..., :4]
        error = ((x - target) ** 2).sum(-1)
        return {"error": weighted_term(error, mask)}, Aux({"batch_stats": collections}, {})


@dataclasses.dataclass(frozen=True)
class Distilled(Toy):
    """4. A teacher that the loss reads but does not move."""

    groups: tuple[Group, ...] = (Group("student", ("offset", "teacher"), ("imitate",)),)

    def init(self, key, batch):
        del key, batch
        return {
            "params": {
                "offset": {"value": jnp.zeros(3)},
                "teacher": {"value": jnp.array([1.0, 2.0, 3.0])},
            }
        }

    def terms(self, variables, batch, key, step, *, group, mode):
        del key, step, group, mode
        params = variables["params"]
        teacher = jax.lax.stop_gradient(params["teacher"]["value"])
        error = ((params["offset"]["value"] - teacher) ** 2).sum()
        seen = batch["main"].observations.confidence
        return {"imitate": weighted_term(jnp.full(seen.shape, error), seen)}, Aux({}, {})


@dataclasses.dataclass(frozen=True)
class Mixed(Toy):
    """5. Labelled and unlabelled clips in one batch: each term counts what it can see."""

    groups: tuple[Group, ...] = (Group("offset", ("offset",), ("error", "keypoint")),)

    def terms(self, variables, batch, key, step, *, group, mode):
        terms, aux = super().terms(variables, batch, key, step, group=group, mode=mode)
        observations = batch["main"].observations
        value = variables["params"]["offset"]["value"][:2]
        error = (observations.keypoints / 100.0 - value[None, None, None, None]) ** 2
        terms["keypoint"] = weighted_term(error.sum(-1), observations.confidence)
        return terms, aux


@dataclasses.dataclass(frozen=True)
class CameraTable(Toy):
    """6. A learned camera correction for every recording."""

    groups: tuple[Group, ...] = (Group("cameras", ("cameras",), ("error",)),)

    def init(self, key, batch):
        del key, batch
        return {"params": {"cameras": {"shift": jnp.zeros((len(self.info.recordings), 3))}}}

    def terms(self, variables, batch, key, step, *, group, mode):
        del key, step, group, mode
        clip = batch["main"]
        shift = variables["params"]["cameras"]["shift"][clip.recording][:, None, None]
        error = ((clip.labels.joints - shift) ** 2).sum(-1)
        return {"error": weighted_term(error, clip.labels.joints_valid)}, Aux({}, {})
