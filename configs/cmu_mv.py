"""CMU-MV v1 without 3D labels: four calibrated views supervise one another.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_mv.py --workdir=runs/cmu_mv

Arguments, behind a colon and apart by commas: `variant=report` (the schedule of "3D Pose Estimation
Using 2D Supervision"), `cameras=` what becomes of a calibration that is not quite right (`solved`:
of each recording at once with the joints, before training; `learned`: beside the network, from
examples of several frames, none of them filmed anew), `tiny` (a few steps of a small network, for
tests). See README.md for time and result.
"""

from ml_collections import ConfigDict

from pose3d_jax import recipes, rigs
from pose3d_jax.config import arguments

TUNED = {"pose": 1.0, "self": 0.1, "cross": 0.1}
REPORT = {"self": 1.0, "cross": 1.0, "consistency": 0.1}
LEARNED = {"rays": 1.0, "calibration": 1e-4, "size": 1e-3}
FASTER = {"cameras": 10.0}  # in units of their standard deviations
WINDOW = 8  # frames that tell a clock


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        variant=("tuned", "report"),
        cameras=("given", "solved", "learned"),
        tiny=False,
    )
    tiny, report = given.tiny, given.variant == "report"
    config = ConfigDict(
        {
            "name": "cmu_mv_report" if report else "cmu_mv",
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
                "fps": 0.0,
            },
            "streams": {
                "main": {
                    "split": "train",
                    "window": 1,
                    "stride": 1,
                    "batch_size": 16 if tiny else 128,
                    # What is filmed anew is triangulated from the 2D points, not labelled.
                    "joints": "dlt",
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
            "phases": (
                recipes.report(30, REPORT, tiny)
                if report
                else recipes.tuned(30, TUNED, tiny, other_people=True)
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
    if given.cameras == "solved":
        config.streams.main.cameras = "solved"
    if given.cameras == "learned":
        own, weights = config.streams.main, {**(REPORT if report else TUNED), **LEARNED}
        own.update({"window": WINDOW, "stride": WINDOW})
        own.batch_size //= WINDOW
        config.method.cameras = "learned"
        phases = recipes.report(30, weights, tiny) if report else recipes.plain(30, weights, tiny)
        config.phases = tuple({**phase, "rates": FASTER} for phase in phases)
    return config
