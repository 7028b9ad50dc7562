"""What several configs share; plain data, so that a flag can still set every key of it."""

from collections.abc import Mapping
from typing import Any

from pose3d_jax.config import ADAPTATION, fill

Phases = tuple[dict[str, Any], ...]


def report(epochs: int | float, weights: Mapping[str, Any], tiny: bool = False) -> Phases:
    """The schedule of "3D Pose Estimation Using 2D Supervision" (CMU 16-824 report).

    Adam 3e-4; with dropout until half-time, then the whole network in inference mode: the "dropout
    0.5 -> 0" of the report's code switches batch statistics, too.
    """
    common = {
        **_length(epochs / 2, tiny),
        "weights": dict(weights),
        "learning_rate": 3e-4,
        "optimizer": {"name": "adam"},
    }
    return (
        {**common, "dropout": True, "statistics": "batch"},
        {**common, "dropout": False, "statistics": "running"},
    )


def tuned(
    epochs: int | float, weights: Mapping[str, Any], tiny: bool = False, *, other_people: bool
) -> Phases:
    """Clips filmed anew, a falling rate, inference mode for the last fifth: docs/results.md.

    `other_people`: those that are to be lifted are not the ones in training.
    """
    common = {
        "weights": dict(weights),
        "optimizer": {"name": "adam"},
        "augmentation": {
            "turn": 180.0,
            "flip": True,
            "orbit": 10.0,
            "elevation": 8.0,
            "distance": 0.1,
            "tilt": 3.0,
            "stature": 0.03 if other_people else 0.0,
            "bones": 0.1 if other_people else 0.0,
            "bend": 0.0,
            "missing": 0.0,
        },
    }
    return (
        {
            **common,
            **_length(0.8 * epochs, tiny),
            "dropout": True,
            "statistics": "batch",
            "learning_rate": {"kind": "cosine", "start": 1e-3, "stop": 1e-4},
        },
        {
            **common,
            **_length(0.2 * epochs, tiny),
            "dropout": False,
            "statistics": "running",
            "learning_rate": {"kind": "linear", "start": 1e-4, "stop": 0.0},
        },
    )


def plain(epochs: int | float, weights: Mapping[str, Any], tiny: bool = False) -> Phases:
    """`tuned`, with no clip filmed anew: where nothing but 2D points is known."""
    phases = tuned(epochs, weights, tiny, other_people=False)
    return tuple({k: v for k, v in phase.items() if k != "augmentation"} for phase in phases)


def pretrained(
    epochs: int | float, weights: Mapping[str, Any], tiny: bool = False, *, other_people: bool
) -> Phases:
    """A third of the epochs on noisy and masked motion, then `tuned`.

    What is shown is hidden in part and moved, what is to come out is not: masked pre-training as in
    Zhu et al., "MotionBERT: A Unified Perspective on Learning Human Motion Representations" (ICCV
    2023), of 2D motion by reprojection or of 3D motion, as the weights say.
    """
    fine = tuned(2 * epochs / 3, weights, tiny, other_people=other_people)
    masked = {
        **fine[0],
        **_length(epochs / 3, tiny),
        "learning_rate": 1e-3,
        "disturbance": {"sigma_px": 3.0, "joints": 0.4, "frames": 0.3},
    }
    return (masked, *fine)


def fit(sigma_px: float | None = None) -> dict[str, Any]:
    """`config.evaluation.fit` for keypoints that err by so much; None: that do not err at all.

    Chosen on CMU-MV's validation split: exact points, and 2 px under the noise `typical`.
    """
    if sigma_px is None:
        return {"on": True, "exact": True, "sigma_px": 0.3, "doubt": 2.0, "rounds": 1}
    return {"on": True, "exact": False, "sigma_px": sigma_px, "doubt": 2.0, "rounds": 2}


def adaptation(
    epochs: int | float, batch_size: int, tiny: bool = False, *, falls: bool = True
) -> dict[str, Any]:
    """`config.adaptation`, every key of it. `falls`: the rate of the stage `weights`, to zero."""
    changes = {
        **_length(epochs, tiny),
        "batch_size": 16 if tiny else batch_size,
        "learning_rate": {"kind": "cosine", "start": 3e-4, "stop": 0.0} if falls else 3e-4,
    }
    filled = fill(changes, ADAPTATION, "config.adaptation")
    filled["stages"] = tuple(filled["stages"])  # a flag sets what is no list
    return {name: value for name, value in filled.items() if value is not None}


def _length(epochs: int | float, tiny: bool) -> dict[str, int | float]:
    return {"length_steps": 3} if tiny else {"length_epochs": epochs}
