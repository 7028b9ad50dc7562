"""CMU-MV v1 from the 2D points of single views alone: C3DPO.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_c3dpo.py --workdir=runs/cmu_c3dpo

Arguments, behind a colon and apart by commas: `noise=typical` (trained and tested on noisy 2D
points), `tiny` (a few steps of a small network, for tests). P2 62 mm on validation after 5 minutes
on one core (seed 0; one start of three ends at 98).
"""

from ml_collections import ConfigDict

from configs import cmu_mv, cmu_mv_seq
from pose3d_jax import recipes
from pose3d_jax.config import arguments

COMMON = {"canonical": 0.1, "depth": 0.1}
# Weak perspective alone finds shapes, cameras and the sign; shapes are much alike at first.
FIRST = {
    **COMMON,
    "orthographic": 1.0,
    "deformation": {"kind": "exponential", "start": 0.5, "stop": 0.005},
}
LAST = {**COMMON, "perspective": 1.0, "deformation": 0.005}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, noise=tuple(cmu_mv_seq.DISTURBANCES), tiny=False)
    tiny = given.tiny
    config = cmu_mv.get_config("tiny" if tiny else "")
    config.name = "cmu_c3dpo"
    config.streams.main.joints = "labels"  # which nothing sees
    config.method = ConfigDict(
        {
            "name": "c3dpo",
            "shapes": 10,
            "cameras": 8,
            "width": 32 if tiny else 256,
            "blocks": 2,
            "turn": 22.5,
            "samples": 1,
            "huber": 0.01,
            "root_depth": 4.0,
            "reach": 1.5,
        }
    )
    config.evaluation.noise = given.noise
    config.evaluation.references = ()
    config.evaluation.every_epochs = 5
    config.phases = (recipes.plain(7.5, FIRST, tiny)[0], *recipes.plain(5, LAST, tiny))
    for phase in config.phases:
        phase["disturbance"] = dict(cmu_mv_seq.DISTURBANCES[given.noise])
    return config
