"""CMU-MV v1 from the 2D points of single views alone: deep factorisation, distilled into a lifter.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_distilled.py --workdir=runs/cmu_distilled

The first phase trains the teacher, the others the student; what is validated is the student.
Arguments, behind a colon and apart by commas: `noise=typical` (the student is trained and tested on
noisy 2D points), `tiny` (a few steps of a small network, for tests). P2 48 to 60 mm on test_seen
after 2 minutes on one core (3 seeds).
"""

from ml_collections import ConfigDict

from configs import cmu_mv, cmu_mv_seq
from pose3d_jax import recipes
from pose3d_jax.config import arguments

TEACHER = {"orthographic": 1.0, "depth": 0.1}
STUDENT = {"distilled": 1.0}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, noise=tuple(cmu_mv_seq.DISTURBANCES), tiny=False)
    tiny = given.tiny
    config = cmu_mv.get_config("tiny" if tiny else "")
    config.name = "cmu_distilled"
    config.streams.main.joints = "labels"  # which nothing sees
    config.method = ConfigDict(
        {
            "name": "distilled",
            "cameras": 8,
            "dictionary": 32 if tiny else 128,
            "levels": 4,
            "width": 32 if tiny else 256,
            "blocks": 2,
            "huber": 0.01,
            "root_depth": 4.0,
            "reach": 1.5,
        }
    )
    teacher = recipes.plain(6.25, TEACHER, tiny)[0]
    student = recipes.plain(5, STUDENT, tiny)
    for phase in student:
        phase["frozen"] = ("teacher",)
        phase["disturbance"] = dict(cmu_mv_seq.DISTURBANCES[given.noise])
    config.phases = (teacher, *student)
    config.evaluation.noise = given.noise
    config.evaluation.references = ()
    config.evaluation.every_epochs = 5
    return config
