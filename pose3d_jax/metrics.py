"""Errors of one predicted pose, in the units of its input (metres); `vmap` does the rest.

`prediction` and `truth` are `[joints, 3]` in one camera's frame, `valid [joints]` is 1 where the
truth is labelled and 0 where not. Each error is a mean over the valid joints, 0 without any.
The root-relative ones mean something only where the root is valid: see `scored`.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pose3d_jax.geometry import safe_divide, safe_norm, similarity_align


def mpjpe_absolute(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
) -> Float[Array, ""]:
    """Mean per-joint position error, metres, with nothing aligned."""
    return _mean(safe_norm(prediction - truth), valid)


def mpjpe(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
) -> Float[Array, ""]:
    """Protocol 1: both poses relative to their root, metres; the root counts, with error 0."""
    return mpjpe_absolute(_relative(prediction, root), _relative(truth, root), valid)


def p_mpjpe(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
) -> Float[Array, ""]:
    """Protocol 2: after the similarity that best aligns the valid joints (Procrustes), metres."""
    return mpjpe_absolute(similarity_align(prediction, truth, valid), truth, valid)


def n_mpjpe(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
) -> Float[Array, ""]:
    """Root-relative, the prediction scaled to fit the truth by least squares, metres.

    Rhodin et al., "Learning Monocular 3D Human Pose Estimation from Multi-view Images" (CVPR
    2018), section 5: scale = <prediction, truth> / <prediction, prediction>.
    """
    prediction, truth = _relative(prediction, root), _relative(truth, root)
    weight = valid[:, None]
    scale = safe_divide(
        jnp.sum(weight * prediction * truth), jnp.sum(weight * prediction * prediction)
    )
    return mpjpe_absolute(scale * prediction, truth, valid)


def mpjpe_report(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
) -> Float[Array, ""]:
    """The error of "3D Pose Estimation Using 2D Supervision" (CMU 16-824 report), metres.

    A mean over the joints in which the root has its absolute error and every other joint its
    root-relative one: not Protocol 1.
    """
    difference = prediction - truth
    relative = _relative(difference, root).at[root].set(difference[root])
    return _mean(safe_norm(relative), valid)


# What a prediction's numbers mean, from the most they can be to the least.
SPACES = ("absolute", "root_relative", "up_to_scale")

# Name -> (function of prediction, truth, valid and root; the space it needs).
METRICS: Mapping[str, tuple[Callable[..., Array], str]] = {
    "p1": (mpjpe, "root_relative"),
    "p2": (lambda prediction, truth, valid, _: p_mpjpe(prediction, truth, valid), "up_to_scale"),
    "n_mpjpe": (n_mpjpe, "up_to_scale"),
    "absolute": (
        lambda prediction, truth, valid, _: mpjpe_absolute(prediction, truth, valid),
        "absolute",
    ),
    "mpjpe_report": (mpjpe_report, "absolute"),
}


def errors(
    prediction: Float[Array, "joints 3"],
    truth: Float[Array, "joints 3"],
    valid: Float[Array, "joints"],
    root: int,
    space: str,
) -> dict[str, Float[Array, ""]]:
    """Every metric, metres, that a prediction in `space` can be asked for.

    In the order of `METRICS`, until a transformation such as `jit` sorts the names. Raises
    `ValueError` for a space that is not in `SPACES`.
    """
    return {name: METRICS[name][0](prediction, truth, valid, root) for name in available(space)}


def available(space: str) -> tuple[str, ...]:
    """Names of the metrics that a prediction in `space` can be asked for, in `METRICS`' order.

    Raises `ValueError` for a space that is not in `SPACES`.
    """
    if space not in SPACES:
        raise ValueError(f"no space is named {space!r}; there are {', '.join(SPACES)}")
    return tuple(
        name for name, (_, needs) in METRICS.items() if SPACES.index(space) <= SPACES.index(needs)
    )


def scored(valid: Float[Array, "joints"], root: int) -> Bool[Array, ""]:
    """Whether an example can be scored at all: its root and at least one other joint are valid."""
    return (valid[root] > 0) & (jnp.sum(valid > 0) >= 2)


def _relative(pose: Float[Array, "joints 3"], root: int) -> Float[Array, "joints 3"]:
    return pose - pose[root][None, :]


def _mean(values: Float[Array, "joints"], valid: Float[Array, "joints"]) -> Float[Array, ""]:
    return safe_divide(jnp.sum(valid * values), jnp.sum(valid))
