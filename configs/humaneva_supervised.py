"""HumanEva-I with 3D labels: the yardstick for the methods without.

    python -m data_prep.humaneva --source DIR --output data/humaneva
    python -m pose3d_jax.main --config=configs/humaneva_supervised.py --workdir=runs/humaneva

Trains on Train/S1-S3, Walk, Jog and Box; scored on Validate/S1-S3. Arguments, behind a colon and
apart by commas:

- `variant=report`: the schedule of "3D Pose Estimation Using 2D Supervision", which got
  24.48 mm in its own metric, `mpjpe_report`
- `views=N`: the first N cameras
- `detections=NAME`: data prepared with --detections NAME, in data/humaneva_NAME
- `tiny`: a few steps of a small network, for tests
"""

from ml_collections import ConfigDict

from pose3d_jax import recipes
from pose3d_jax.config import arguments

WEIGHTS = {"pose": 1.0, "root": 0.1}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        variant=("tuned", "report"),
        views=0,
        detections="",
        tiny=False,
    )
    tiny, report = given.tiny, given.variant == "report"
    return ConfigDict(
        {
            "name": "humaneva_supervised_report" if report else "humaneva_supervised",
            "seed": 0,
            "devices": 1,
            "precision": "float32",
            "data": {
                "path": "_".join(filter(None, ("data/humaneva", given.detections))),
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
            # Training and test have the same three people.
            "phases": (
                recipes.report(150, WEIGHTS, tiny)
                if report
                else recipes.tuned(300, WEIGHTS, tiny, other_people=False)
            ),
            "steps_per_call": 0,
            "evaluation": {
                "validation": "",  # the protocol has none
                "test": ("test",),
                "noise": "clean",
                "references": () if tiny else ("refined", "smooth_bones"),
                "batch_size": 512,
                "every_epochs": 10,  # checkpoints
            },
            # --mode=adapt: on the test split, after training.
            "adaptation": recipes.adaptation(200, 64, tiny, falls=not report),
        }
    )
