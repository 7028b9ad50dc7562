"""The demo on synthetic people and the HumanEva-I rig; `make demo` runs it for both methods.

    python -m data_prep.synthetic --output runs/demo/synthetic
    python -m pose3d_jax.main --config=configs/demo.py:multiview --workdir=runs/demo/multiview

Arguments: `:multiview` (default), `:supervised`, and either with `-tiny` for tests. About a minute
each on two CPU cores.
"""

from ml_collections import ConfigDict

from pose3d_jax import recipes

WEIGHTS = {
    "multiview": {"self": 1.0, "cross": 1.0, "consistency": 0.1},
    "supervised": {"pose": 1.0, "root": 0.1},
}


def get_config(argument: str = "multiview") -> ConfigDict:
    method, _, size = argument.partition("-")
    if method not in WEIGHTS or size not in ("", "tiny"):
        raise ValueError(f"demo.py takes multiview or supervised, with -tiny or not: {argument!r}")
    common = {
        **({"length_steps": 3} if size else {"length_epochs": 15}),
        "weights": WEIGHTS[method],
        "optimizer": {"name": "adam"},
    }
    return ConfigDict(
        {
            "name": f"demo_{method}",
            "seed": 0,
            "devices": 1,
            "precision": "float32",
            "data": {
                "path": "runs/demo/synthetic",
                "keypoint_skeleton": "",
                "joint_skeleton": "",
                "keypoint_source": "",
            },
            "streams": {
                "main": {
                    "split": "train",
                    "window": 1,
                    "stride": 1,
                    "batch_size": 16 if size else 64,
                },
            },
            "method": {
                "name": method,
                "width": 32 if size else 256,
                "blocks": 1 if size else 2,
                "dropout": 0.25,
                "root_depth": 4.0,
                "reach": 1.5,
            },
            "init": {"workdir": "", "part": "lifter", "into": "lifter"},
            "phases": (
                {**common, "learning_rate": 1e-3, "dropout": True, "statistics": "batch"},
                {**common, "learning_rate": 1e-3, "dropout": False, "statistics": "running"},
            ),
            "steps_per_call": 0,
            "evaluation": {
                "validation": "validation",
                "test": ("test",),
                "noise": "clean",  # of the test split's keypoints: mild, typical, hard
                "batch_size": 256,
                "every_epochs": 1 if size else 5,
            },
            # --mode=adapt: on the test splits, after training.
            "adaptation": recipes.adaptation(30, 128, bool(size)),
        }
    )
