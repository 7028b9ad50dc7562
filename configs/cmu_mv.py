"""CMU-MV v1 without 3D labels: four calibrated views supervise one another.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_mv.py --workdir=runs/cmu_mv

Arguments: `:tiny` (a few steps of a small network, for tests). See README.md for time and result.
"""

from ml_collections import ConfigDict

WEIGHTS = {"self": 1.0, "cross": 1.0, "consistency": 0.1}


def get_config(argument: str = "") -> ConfigDict:
    tiny = _tiny(argument)
    common = {"weights": WEIGHTS, "learning_rate": 3e-4, "optimizer": {"name": "adam"}}
    return ConfigDict(
        {
            "name": "cmu_mv",
            "seed": 0,
            "devices": 1,
            "precision": "float32",
            "data": {
                "path": "data/cmu_mv_v1",
                "keypoint_skeleton": "",
                "joint_skeleton": "",
                "keypoint_source": "",
            },
            "streams": {
                "main": {
                    "split": "train",
                    "window": 1,
                    "stride": 1,
                    "batch_size": 16 if tiny else 128,
                },
            },
            "method": {
                "name": "multiview",
                "width": 32 if tiny else 1024,
                "blocks": 2,
                "dropout": 0.5,
                "root_depth": 4.0,
                "reach": 1.5,
            },
            # The report's "dropout 0.5 -> 0 at T/2": the whole network goes to inference mode.
            "phases": (
                {**_length(tiny), **common, "dropout": True, "statistics": "batch"},
                {**_length(tiny), **common, "dropout": False, "statistics": "running"},
            ),
            "steps_per_call": 0,
            "evaluation": {
                "validation": "validation",
                "test": ("test_seen", "test_unseen"),
                "noise": "clean",  # of the test splits' keypoints: mild, typical, hard
                "references": () if tiny else ("refined", "smooth_bones"),
                "batch_size": 512,
                "every_epochs": 1,
            },
            # --mode=adapt: on the test splits, after training.
            "adaptation": {
                "scope": "shared",
                "init": "checkpoint",
                "method": "multiview",
                "weights": {"self": 1.0, "cross": 1.0, "consistency": 0.1},
                **({"length_steps": 3} if tiny else {"length_epochs": 30}),
                "batch_size": 16 if tiny else 128,
                "optimizer": {"name": "adam"},
                "learning_rate": {"kind": "cosine", "start": 3e-4, "stop": 0.0},
                "chunk": 4,
                "seed": 0,
            },
        }
    )


def _length(tiny: bool) -> dict[str, int]:
    return {"length_steps": 3} if tiny else {"length_epochs": 15}


def _tiny(argument: str) -> bool:
    if argument not in ("", "tiny"):
        raise ValueError(f"cmu_mv.py takes no argument {argument!r}; there is `:tiny`")
    return argument == "tiny"
