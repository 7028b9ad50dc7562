"""HumanEva-I without 3D labels: three calibrated views supervise one another.

    python -m data_prep.humaneva --source DIR --output data/humaneva
    python -m pose3d_jax.main --config=configs/humaneva_mv.py --workdir=runs/humaneva_mv

Trains on Train/S1-S3, Walk, Jog and Box, and is scored on Validate/S1-S3. Arguments, behind a colon
and apart by commas: `variant=report` (the schedule of "3D Pose Estimation Using 2D Supervision",
which got 39.67 mm in its own metric, `mpjpe_report`), `views=N` (the first N cameras),
`detections=NAME` (data prepared with --detections NAME, in data/humaneva_NAME), `tiny` (a few steps
of a small network, for tests).
"""

from ml_collections import ConfigDict

from pose3d_jax.config import arguments

WEIGHTS = {"self": 1.0, "cross": 1.0, "consistency": 0.1}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, variant=("tuned", "report"), views=0, detections="", tiny=False)
    report = given.variant == "report"
    return ConfigDict(
        {
            "name": "humaneva_mv_report" if report else "humaneva_mv",
            "seed": 0,
            "devices": 1,
            "precision": "float32",
            "data": {
                "path": f"data/humaneva_{given.detections}"
                if given.detections
                else "data/humaneva",
                "keypoint_skeleton": "",
                "joint_skeleton": "",
                "keypoint_source": given.detections,
                "views": tuple(range(given.views)),  # none = all
                "actions": (),
            },
            "streams": {
                "main": {
                    "split": "train",
                    "window": 1,
                    "stride": 1,
                    "batch_size": 16 if given.tiny else 128,
                    # What is filmed anew is triangulated from the 2D points, not labelled.
                    "joints": "smooth_bones" if given.detections else "dlt",
                },
            },
            "method": {
                "name": "multiview",
                "width": 32 if given.tiny else 1024,
                "blocks": 2,
                "dropout": 0.5 if report else 0.0,
                "root_depth": 4.0,
                "reach": 1.5,
                "centred": not report,
            },
            "phases": _report(150, given.tiny) if report else _tuned(400, given.tiny),
            "steps_per_call": 0,
            "evaluation": {
                "validation": "",
                "test": ("test",),
                "noise": "clean",
                "references": () if given.tiny else ("refined", "smooth_bones"),
                "batch_size": 512,
                "every_epochs": 10,
            },
            # --mode=adapt: on the test split, after training.
            "adaptation": {
                "scope": "shared",
                "init": "checkpoint",
                "method": "multiview",
                "weights": WEIGHTS,
                **({"length_steps": 3} if given.tiny else {"length_epochs": 200}),
                "batch_size": 16 if given.tiny else 64,
                "optimizer": {"name": "adam"},
                "learning_rate": 3e-4 if report else {"kind": "cosine", "start": 3e-4, "stop": 0.0},
                "chunk": 4,
                "seed": 0,
            },
        }
    )


def _report(epochs: int, tiny: bool) -> tuple[dict, ...]:
    """Dropout of 0.5 until half-time, then the whole network in inference mode."""
    half = {"length_steps": 3} if tiny else {"length_epochs": epochs / 2}
    common = {**half, "weights": WEIGHTS, "learning_rate": 3e-4, "optimizer": {"name": "adam"}}
    return (
        {**common, "dropout": True, "statistics": "batch"},
        {**common, "dropout": False, "statistics": "running"},
    )


def _tuned(epochs: int, tiny: bool) -> tuple[dict, ...]:
    """Other directions and cameras instead of dropout; inference mode for the last fifth."""
    common = {
        "weights": WEIGHTS,
        "optimizer": {"name": "adam"},
        "augmentation": {
            "turn": 180.0, "flip": True,
            "orbit": 10.0, "elevation": 8.0, "distance": 0.1, "tilt": 3.0,
        },
    }  # fmt: skip
    first, last = ({"length_steps": 3},) * 2 if tiny else (
        {"length_epochs": 0.8 * epochs},
        {"length_epochs": 0.2 * epochs},
    )  # fmt: skip
    return (
        {
            **common,
            **first,
            "dropout": True,
            "statistics": "batch",
            "learning_rate": {"kind": "cosine", "start": 1e-3, "stop": 1e-4},
        },
        {
            **common,
            **last,
            "dropout": False,
            "statistics": "running",
            "learning_rate": {"kind": "linear", "start": 1e-4, "stop": 0.0},
        },
    )
