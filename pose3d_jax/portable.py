"""A trained lifter as a pure function of one view's arrays, and arrays to try it on."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose3d_jax import inference, methods
from pose3d_jax.cameras import TANGENTIAL, Camera, batched, to_pixels
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import context_of
from pose3d_jax.methods.fused import Fused
from pose3d_jax.methods.lifting import SingleViewLifting
from pose3d_jax.schema import Observations
from pose3d_jax.skeleton import Skeleton
from pose3d_jax.trained import Trained


class DeployError(UserError):
    """A network that cannot be exported, or a file that is none; says why and what to do."""


# Keypoints (pixels), confidences, focal lengths, centres and distortions to joints.
Lift = Callable[..., Float[Array, "batch joints 3"]]


@dataclasses.dataclass(frozen=True)
class Input:
    """An argument of what is exported."""

    name: str
    shape: tuple[int, ...]  # of a row
    meaning: str


def inputs_of(network: Trained) -> tuple[Input, ...]:
    """The arguments, in their order; a row of each is float32 and holds one view of one person.

    Networks of several frames take a window of them for each row, the one that is lifted among
    them; see `context_of`.
    """
    before, after = context_of(network.method)
    frames = (before + 1 + after,) if before + after else ()
    joints = network.keypoint_skeleton.size
    return (
        Input("keypoints", (*frames, joints, 2), "x, y in pixels, as the lens distorts them"),
        Input("confidence", (*frames, joints), "0 to 1; 0 where a keypoint is missing"),
        Input("focal", (2,), "focal lengths, pixels"),
        Input("center", (2,), "principal point, pixels"),
        Input("distortion", (5,), "k1, k2, p1, p2, k3, as OpenCV has them"),
    )


def in_float32(network: Trained) -> Trained:
    """The same network, computed in float32 whatever it was trained in."""
    info = dataclasses.replace(network.info, precision="float32")
    method = methods.create(network.metadata["config"]["method"], info)
    return dataclasses.replace(network, info=info, method=method)


def lift_of(network: Trained) -> Lift:
    """What is exported: a pure function of the arrays that `inputs_of` names.

    Joints are in the camera's axes (x right, y down, z away from it), metres: of the frame, or of a
    window's frame that has the context around it. Keypoints that are not finite are missing.
    Raises `DeployError` for a network of which the rows of one view do not suffice.
    """
    method = network.method
    name = network.metadata["config"]["method"]["name"]
    instead = "export another run, or use pose3d_jax.load(...).predict"
    if isinstance(method, Fused):
        raise DeployError(
            f"{network.directory}: the method {name} looks at all views of a moment at once, and "
            f"what is exported lifts one; {instead}"
        )
    several = sum(context_of(method)) > 0
    if isinstance(method, SingleViewLifting) and method.network != "lifter" and not several:
        raise DeployError(
            f"{network.directory}: its network {method.network} lifts the frames of a window "
            f"together, and what is said of a clip is the mean of windows that overlap, which no "
            f"row can have; train network=convolution or network=lifter, or {instead}"
        )
    blank = jax.tree.map(jnp.asarray, example(network, 1 + sum(context_of(method))))
    one = jax.tree.map(lambda x: x[None], blank)
    if jax.eval_shape(method.predict, network.variables, one).samples is not None:
        raise DeployError(
            f"{network.directory}: the method {name} draws poses by chance and gives their mean, "
            f"which would depend on the batch that a row is in; {instead}"
        )

    def lift(
        keypoints: Float[Array, "batch *frames keypoints 2"],
        confidence: Float[Array, "batch *frames keypoints"],
        focal: Float[Array, "batch 2"],
        center: Float[Array, "batch 2"],
        distortion: Float[Array, "batch 5"],
    ) -> Float[Array, "batch joints 3"]:
        if not several:
            keypoints, confidence = keypoints[:, None], confidence[:, None]
        there = jnp.isfinite(keypoints).all(axis=-1) & (confidence > 0)
        cameras = _cameras(focal, center, distortion)
        observations = Observations(
            keypoints=jnp.where(there[..., None], keypoints, 0.0),
            confidence=jnp.where(there, confidence, 0.0),
            cameras=jax.tree.map(lambda x: jnp.repeat(x[:, None], there.shape[1], axis=1), cameras),
        )
        one_view = jax.tree.map(lambda x: x[:, :, None], observations)
        found = inference.predict_windows(
            method, network.info, network.lifting.flip, network.variables, one_view
        )
        return found.joints[:, 0, 0]

    return lift


def _cameras(focal: Array, center: Array, distortion: Array) -> Camera:
    """Cameras `[batch]` at the origin: where they stand does not matter to a single view."""
    zero = jnp.zeros_like(focal[:, 0])
    return Camera(
        rotation=zero[:, None, None] + jnp.eye(3)[None],
        translation=jnp.zeros_like(distortion[:, :3]),
        focal=focal,
        center=center,
        distortion=distortion,
        tangential=zero + TANGENTIAL["opencv"],
        size=jnp.zeros_like(focal),
    )


def example(network: Trained, frames: int) -> Observations:
    """A clip `[frames, 1 view]` to measure on: people 2 to 8 m away, seen through lenses.

    They are trees of bones of 10 to 40 cm, the pixels off by 2; a tenth of the keypoints are
    missing, and of the last of several frames all. Networks of several frames get one camera.
    """
    rng = np.random.default_rng(0)
    cameras = 1 if sum(context_of(network.method)) else frames

    def drawn(low: float, high: float, size: int) -> Array:
        found = rng.uniform(low, high, (cameras, size)).astype(np.float32)
        return jnp.asarray(np.repeat(found, frames // cameras, axis=0))

    lens = jnp.array([[0.2, 0.1, 0.002, 0.002, 0.02]])
    seen_by = _cameras(
        jnp.repeat(drawn(800.0, 1600.0, 1), 2, axis=1),
        drawn(480.0, 520.0, 2),
        drawn(-1.0, 1.0, 5) * lens,
    )
    people = jnp.asarray(_people(rng, network.keypoint_skeleton, frames))
    seen = batched(to_pixels)(seen_by, people[..., :2] / people[..., 2:])
    pixels = np.asarray(seen) + rng.normal(0, 2, seen.shape)
    confidence = rng.uniform(0.1, 1, seen.shape[:2]) * (rng.uniform(size=seen.shape[:2]) > 0.1)
    confidence[frames - 1 if frames > 1 else frames :] = 0
    clip = Observations(pixels.astype(np.float32), confidence.astype(np.float32), seen_by)
    return jax.tree.map(lambda x: np.asarray(x)[:, None], clip)


def _people(
    rng: np.random.Generator, skeleton: Skeleton, count: int
) -> Float[np.ndarray, "count joints 3"]:
    joints = np.zeros((count, skeleton.size, 3))
    todo = [joint for joint, parent in enumerate(skeleton.parents) if parent < 0]
    joints[:, todo] = rng.uniform([-1, -0.5, 2], [1, 0.5, 8], (count, 1, 3))
    for parent in todo:
        for child in (c for p, c in skeleton.bones if p == parent):
            bone = rng.normal(size=(count, 3))
            bone *= rng.uniform(0.1, 0.4) / np.linalg.norm(bone, axis=-1, keepdims=True)
            joints[:, child] = joints[:, parent] + bone
            todo.append(child)
    # In front of the camera, whatever way limbs point.
    joints[..., 2] = np.maximum(joints[..., 2], 1.0)
    return joints.astype(np.float32)


def rows_of(network: Trained, clip: Observations) -> list[np.ndarray]:
    """What a clip of one view is to an exported lifter: a row for each of its frames.

    Windows that reach beyond the clip are filled with missing keypoints.
    """
    before, after = context_of(network.method)
    cameras = [np.asarray(x)[:, 0] for x in (clip.cameras.focal, clip.cameras.center)]
    cameras.append(np.asarray(clip.cameras.distortion)[:, 0])
    keypoints, confidence = clip.keypoints[:, 0], clip.confidence[:, 0]
    if before + after:
        frames = len(confidence)
        at = np.arange(frames)[:, None] + np.arange(-before, after + 1)[None]
        inside = (at >= 0) & (at < frames)
        at = np.clip(at, 0, frames - 1)
        keypoints, confidence = keypoints[at], confidence[at] * inside[..., None]
    return [np.asarray(x, np.float32) for x in (keypoints, confidence, *cameras)]
