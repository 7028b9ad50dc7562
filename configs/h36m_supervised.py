"""Human3.6M with 3D labels: the yardstick for the methods without.

    python -m data_prep.h36m --source DIR --output data/h36m
    python -m pose3d_jax.main --config=configs/h36m_supervised.py --workdir=runs/h36m_supervised

Trains on S1, S5, S6, S7, S8 at 10 of the 50 frames per second; scored on all frames of S9,
S11. Arguments, behind a colon and apart by commas:

- `subset=report`: Walking, Greeting, Smoking and Sitting, the first three cameras
- `variant=report`: the schedule of "3D Pose Estimation Using 2D Supervision", which got
  49.12 mm on its subset in its own metric, `mpjpe_report`
- `views=N`: the first N cameras
- `detections=NAME`: data prepared with --detections NAME, in data/h36m_NAME
- `tiny`: a few steps of a small network, for tests
"""

from ml_collections import ConfigDict

from pose3d_jax import recipes
from pose3d_jax.config import arguments

WEIGHTS = {"pose": 1.0, "root": 0.1}
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
            "name": "h36m_supervised_report" if report else "h36m_supervised",
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
                    "joints": "labels",
                },
            },
            "method": {
                "name": "supervised",
                "width": 32 if tiny else 1024,
                "blocks": 1 if tiny else 2,
                "dropout": 0.5 if report else 0.0,
                "root_depth": 5.0,
                "reach": 1.5,
                "centred": not report,
            },
            "init": {"workdir": "", "part": "lifter", "into": "lifter"},
            "phases": (
                recipes.report(100, WEIGHTS, tiny)
                if report
                else recipes.tuned(40, WEIGHTS, tiny, other_people=True)
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
