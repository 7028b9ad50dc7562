"""HumanEva-I without 3D labels: three calibrated views supervise one another.

    python -m data_prep.humaneva --source DIR --output data/humaneva
    python -m pose3d_jax.main --config=configs/humaneva_mv.py --workdir=runs/humaneva_mv

Trains on Train/S1-S3, Walk, Jog and Box; scored on Validate/S1-S3. Arguments, behind a colon and
apart by commas:

- `variant=report`: the schedule of "3D Pose Estimation Using 2D Supervision", which got
  39.67 mm in its own metric, `mpjpe_report`
- `views=N`: the first N cameras
- `detections=NAME`: data prepared with --detections NAME, in data/humaneva_NAME
- `tiny`: a few steps of a small network, for tests
"""

from ml_collections import ConfigDict

from pose3d_jax import recipes, rigs
from pose3d_jax.config import arguments

TUNED = {"pose": 1.0, "self": 0.1, "cross": 0.1}
REPORT = {"self": 1.0, "cross": 1.0, "consistency": 0.1}


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
            "name": "humaneva_mv_report" if report else "humaneva_mv",
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
                    # What is filmed anew is triangulated from the 2D points, not labelled.
                    "joints": "smooth_bones" if given.detections else "dlt",
                    "cameras": "given",  # or solved for, with the joints
                    "doubt": rigs.Doubt()._asdict(),
                },
            },
            "method": {
                "name": "multiview",
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
                recipes.report(150, REPORT, tiny)
                if report
                else recipes.tuned(300, TUNED, tiny, other_people=False)
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
