"""Human3.6M without 3D labels: four calibrated views supervise one another.

    python -m data_prep.h36m --source DIR --output data/h36m
    python -m pose3d_jax.main --config=configs/h36m_mv.py --workdir=runs/h36m_mv

Trains on S1, S5, S6, S7, S8 at 10 of the 50 frames per second; scored on all frames of S9,
S11. Arguments, behind a colon and apart by commas:

- `subset=report`: Walking, Greeting, Smoking and Sitting, the first three cameras
- `variant=report`: the schedule of "3D Pose Estimation Using 2D Supervision", which got
  67.32 mm on its subset in its own metric, `mpjpe_report`
- `views=N`: the first N cameras
- `detections=NAME`: data prepared with --detections NAME, in data/h36m_NAME
- `tiny`: a few steps of a small network, for tests
"""

from ml_collections import ConfigDict

from pose3d_jax import recipes, rigs
from pose3d_jax.config import arguments

TUNED = {"pose": 1.0, "self": 0.1, "cross": 0.1}
REPORT = {"self": 1.0, "cross": 1.0, "consistency": 0.1}
SUBSET = ("Walking", "Greeting", "Smoking", "Sitting")


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        variant=("tuned", "report"),
        subset=("all", "report"),
        views=0,
        detections="",
        tiny=False,
    )
    tiny, report = given.tiny, given.variant == "report"
    subset = given.subset == "report"
    return ConfigDict(
        {
            "name": "h36m_mv_report" if report else "h36m_mv",
            "seed": 0,
            "devices": 1,
            "precision": "float32",
            "data": {
                "path": "_".join(filter(None, ("data/h36m", given.detections))),
                "keypoint_skeleton": "",
                "joint_skeleton": "",
                "keypoint_source": given.detections,
                "views": tuple(range(given.views or (3 if subset else 0))),  # none = all
                "actions": SUBSET if subset else (),
            },
            "streams": {
                "main": {
                    "split": "train",
                    "window": 1,
                    "stride": 5,
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
                "root_depth": 5.0,
                "reach": 1.5,
                "centred": not report,
            },
            "init": {"workdir": "", "part": "lifter", "into": "lifter"},
            "phases": (
                recipes.report(20, REPORT, tiny)
                if report
                else recipes.tuned(40, TUNED, tiny, other_people=True)
            ),
            "steps_per_call": 0,
            "evaluation": {
                "validation": "",  # the protocol has none
                "test": ("test",),
                "noise": "clean",
                "references": () if tiny else ("refined",),
                "batch_size": 512,
                "every_epochs": 10,  # checkpoints
            },
            # --mode=adapt: on the test split, after training.
            "adaptation": recipes.adaptation(5, 64, tiny, falls=not report),
        }
    )
