"""CMU-MV v1, trained for joints that are not seen: those that the body hides, and any.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_occluded.py --workdir=runs/cmu_occluded
    python -m pose3d_jax.main --config=configs/cmu_occluded.py:plain --workdir=runs/cmu_plain
    python -m benchmarks.missing_joints --workdirs runs/cmu_plain runs/cmu_occluded

Arguments, behind a colon and apart by commas: `labels` (trained on 3D labels), `plain` (nothing is
hidden: what the others stand beside), `tiny` (a few steps of a small network, for tests). Half as
wide as configs/cmu_mv.py, for a third of its epochs. Results: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import cmu_mv, cmu_supervised
from pose3d_jax import recipes
from pose3d_jax.config import arguments

EPOCHS = 10
OCCLUSION = {"occluded": 1.0, "joints": 0.6}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, labels=False, plain=False, tiny=False)
    base, weights = (
        (cmu_supervised, cmu_supervised.WEIGHTS) if given.labels else (cmu_mv, cmu_mv.TUNED)
    )
    config = base.get_config("tiny" if given.tiny else "")
    config.name = "cmu_occluded"
    if not given.tiny:
        config.method.width = 512
    config.phases = recipes.tuned(EPOCHS, weights, given.tiny, other_people=True)
    if not given.plain:
        for phase in config.phases:
            phase["disturbance"] = dict(OCCLUSION)
    return config
