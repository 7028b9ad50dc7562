"""How good a distribution of poses is: the best hypothesis, likelihood, coverage, reprojection.

Beside it stands what a Gaussian of the hypotheses' own covariance gives, so that it shows what is
gained by more than knowing how uncertain one is.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from pose3d_jax import cameras as cam
from pose3d_jax import metrics
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.geometry import HIGHEST, safe_norm
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Info, Method, MethodError, Variables, view_seen
from pose3d_jax.schema import Clip, Observations, Prediction
from pose3d_jax.scoring import batches, in_views, per_view

LEVEL = 0.8  # of the ellipsoids by which a covariance is calibrated


def calibration(
    method: Method,
    info: Info,
    variables: Variables,
    data: PoseData,
    *,
    window: int = 1,
    stride: int = 1,
    batch_size: int = 64,
) -> float:
    """The factor on all standard deviations at which `LEVEL` of the errors lie where they should.

    That is, in the ellipsoids that a Gaussian fills with that share. To be found on validation; the
    arguments are those of `measure`.
    """
    squares = []
    for clip, key, real in _batches(data, window, stride, batch_size):
        found, weight = _distances(method, info, variables, clip, key)
        keep = np.asarray(weight) * real > 0
        squares.append(np.asarray(found)[keep])
    share = float(np.quantile(np.concatenate(squares), LEVEL))
    return math.sqrt(share / metrics.quantile(LEVEL))


def measure(
    method: Method,
    info: Info,
    variables: Variables,
    data: PoseData,
    *,
    scale: float = 1.0,
    window: int = 1,
    stride: int = 1,
    batch_size: int = 64,
) -> dict[str, float]:
    """Means over frames and views of a split; metres, pixels, nats and shares.

    `p1` and `p2` of the mean; `best_p1`, `best_p2` of the best of the hypotheses, `typical_p1` of
    one of them; `gaussian_p1`, `gaussian_p2` the best of as many drawn from the Gaussian of their
    mean and their joint covariance; `nll` per joint, of the error about the root under the joint's
    own Gaussian; `coverage_50` and so on, of its ellipsoids; `reprojection_px`, the distance of
    hypotheses from the keypoints. What hypotheses, Gaussians and ellipsoids are away from the mean
    by is multiplied by `scale`.

    Args:
      method: one whose predictions have `samples` and `covariance`.
      info: the joint sets.
      variables: of the method.
      data: a split in windows of one frame.
      scale: see `calibration`.
      window: frames that the method predicts together.
      stride: from one window to the next; a multiple leaves frames out.
      batch_size: windows at once.
    """
    total: dict[str, np.ndarray] = {}
    for clip, key, real in _batches(data, window, stride, batch_size):
        terms = _measure(method, info, variables, clip, key, jnp.asarray(real), jnp.float32(scale))
        for name, term in terms.items():
            total[name] = total.get(name, 0.0) + np.array(term, np.float64)
    return {name: float(value / max(count, 1e-12)) for name, (value, count) in total.items()}


def _batches(data: PoseData, window: int, stride: int, batch_size: int) -> Any:
    cut = windows.cut(data, window, stride)
    for number, (indices, count) in enumerate(batches(cut.poses.size, batch_size)):
        real = (np.arange(len(indices)) < count).astype(np.float32).reshape(-1, 1, 1, 1)
        key = jax.random.fold_in(jax.random.key(0), number)
        yield cut.poses.take(jnp.asarray(indices)), key, real


def _truth(clip: Clip, info: Info) -> tuple[Array, Array]:
    """Camera-frame joints, and 1 where they count: labelled, with a root, in a view that sees."""
    views = clip.observations.confidence.shape[2]
    valid = per_view(clip.labels.joints_valid, views)
    root = info.joint_skeleton.root
    valid = valid * valid[..., root : root + 1]
    valid = valid * view_seen(clip.observations.confidence)[..., None]
    return in_views(clip.observations, clip.labels.joints), valid


def _predict(method: Method, variables: Variables, clip: Clip, key: Key[Array, ""]) -> Prediction:
    found = method.predict(variables, clip.observations, key)
    if found.samples is None or found.covariance is None:
        raise MethodError(f"method {type(method).__name__} gives no hypotheses and covariance")
    return found


def _relative(joints: Float[Array, "*batch joints 3"], root: int) -> Array:
    return joints - joints[..., root : root + 1, :]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _distances(
    method: Method, info: Info, variables: Variables, clip: Clip, key: Key[Array, ""]
) -> tuple[Array, Array]:
    """Squared Mahalanobis distances of the joints about the root, and which count."""
    root = info.joint_skeleton.root
    truth, valid = _truth(clip, info)
    found = _predict(method, variables, clip, key)
    error = _relative(found.joints, root) - _relative(truth, root)
    return metrics.mahalanobis(error, found.covariance)[0], valid.at[..., root].set(0.0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure(
    method: Method,
    info: Info,
    variables: Variables,
    clip: Clip,
    key: Key[Array, ""],
    real: Float[Array, "batch 1 1 1"],
    scale: Float[Array, ""],
) -> dict[str, Term]:
    root = info.joint_skeleton.root
    truth, valid = _truth(clip, info)
    valid = valid * real
    predict_key, gaussian_key = jax.random.split(key)
    found = _predict(method, variables, clip, predict_key)
    mean = jnp.mean(found.samples, axis=0, keepdims=True)
    samples = mean + scale * (found.samples - mean)
    poses = jax.vmap(metrics.scored, in_axes=(0, None))(valid.reshape(-1, valid.shape[-1]), root)
    poses = poses.reshape(valid.shape[:-1]).astype(valid.dtype)

    def error(metric: str, joints: Array) -> Float[Array, "batch time views"]:
        function = functools.partial(metrics.METRICS[metric][0])
        one = lambda a, b, c: function(a, b, c, root)  # noqa: E731
        return jax.vmap(jax.vmap(jax.vmap(one)))(joints, truth, valid)

    def of_all(metric: str, joints: Array) -> Float[Array, "samples batch time views"]:
        return jax.lax.map(functools.partial(error, metric), joints)

    drawn = gaussian_like(samples, gaussian_key)
    off = _relative(found.joints, root) - _relative(truth, root)
    joints = valid.at[..., root].set(0.0)
    squares, volume = metrics.mahalanobis(off, found.covariance)
    squares, volume = squares / scale**2, volume + 6 * jnp.log(scale)
    nll = 0.5 * (squares + volume + 3 * math.log(2 * math.pi))
    own = of_all("p1", samples)
    per_pose = {
        "p1": error("p1", found.joints),
        "p2": error("p2", found.joints),
        "typical_p1": jnp.mean(own, axis=0),
        "best_p1": jnp.min(own, axis=0),
        "best_p2": jnp.min(of_all("p2", samples), axis=0),
        "gaussian_p1": jnp.min(of_all("p1", drawn), axis=0),
        "gaussian_p2": jnp.min(of_all("p2", drawn), axis=0),
    }
    per_joint = {"nll": nll}
    for level in (0.5, LEVEL, 0.95):
        inside = squares <= metrics.quantile(level)
        per_joint[f"coverage_{100 * level:.0f}"] = inside.astype(squares.dtype)
    away, seen = _reprojection(clip.observations, samples, info)
    return {
        **{name: (jnp.sum(x * poses), jnp.sum(poses)) for name, x in per_pose.items()},
        **{name: (jnp.sum(x * joints), jnp.sum(joints)) for name, x in per_joint.items()},
        "reprojection_px": (jnp.sum(away * seen * real), jnp.sum(seen * real)),
    }


def gaussian_like(
    samples: Float[Array, "samples *rest"], key: Key[Array, ""]
) -> Float[Array, "samples *rest"]:
    """As many draws from the Gaussian of the samples' mean and covariance, of all that they hold.

    Draws are sums of the samples' own deviations with normal weights, which have that covariance
    whatever its rank.
    """
    mean = jnp.mean(samples, axis=0, keepdims=True)
    count = len(samples)
    weights = jax.random.normal(key, (count, *samples.shape[1:-2], count))
    flat = (samples - mean) / (count - 1) ** 0.5
    return mean + jnp.einsum("n...k,k...ja->n...ja", weights, flat, precision=HIGHEST)


def _reprojection(
    observations: Observations,
    samples: Float[Array, "samples batch time views joints 3"],
    info: Info,
) -> tuple[Array, Array]:
    """Pixels between hypotheses and keypoints `[B, T, V, J]`, and which keypoints there are."""

    def pixels(camera: cam.Camera, point: Array) -> Array:
        return cam.to_pixels(camera, cam.perspective(point))

    if info.keypoint_skeleton != info.joint_skeleton:
        raise MethodError("hypotheses are compared with keypoints; give data with one joint set")
    seen = (observations.confidence > 0).astype(samples.dtype)
    project = lambda joints: cam.batched(pixels)(observations.cameras, joints)  # noqa: E731
    projected = jax.lax.map(project, samples)
    return jnp.mean(safe_norm(projected - observations.keypoints[None]), axis=0), seen
