"""CMU-MV v1 with 3D labels: the yardstick for the methods without.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_supervised.py --workdir=runs/cmu_supervised

Arguments, behind a colon and apart by commas: `variant=report` (the schedule of "3D Pose Estimation
Using 2D Supervision"), `tiny` (a few steps of a small network, for tests). See README.md for time
and result.
"""

from ml_collections import ConfigDict

from pose3d_jax import recipes
from pose3d_jax.config import arguments

WEIGHTS = {"pose": 1.0, "root": 0.1}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, variant=("tuned", "report"), tiny=False)
    tiny, report = given.tiny, given.variant == "report"
    return ConfigDict(
        {
            "name": "cmu_supervised_report" if report else "cmu_supervised",
            "seed": 0,
            "devices": 1,
            "precision": "float32",
            "data": {
                "path": "data/cmu_mv_v1",
                "keypoint_skeleton": "",
                "joint_skeleton": "",
                "keypoint_source": "",
                "views": (),
                "actions": (),
            },
            "streams": {
                "main": {
                    "split": "train",
                    "window": 1,
                    "stride": 1,
                    "batch_size": 16 if tiny else 128,
                    "joints": "labels",
                },
            },
            "method": {
                "name": "supervised",
                "width": 32 if tiny else 1024,
                "blocks": 1 if tiny else 2,
                "dropout": 0.5 if report else 0.0,
                "root_depth": 4.0,
                "reach": 1.5,
                "centred": not report,
            },
            "init": {"workdir": "", "part": "lifter", "into": "lifter"},
            "phases": (
                recipes.report(30, WEIGHTS, tiny)
                if report
                else recipes.tuned(30, WEIGHTS, tiny, other_people=True)
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
            "adaptation": recipes.adaptation(30, 128, tiny, falls=not report),
        }
    )
