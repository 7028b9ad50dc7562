"""CMU-MV v1 without 3D labels, every view told of what the others see, in training and at test.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_fused.py --workdir=runs/cmu_fused

For several calibrated cameras at test time, up to as many as in training (fewer: with
`--mode=evaluate`, `--config.data.views=0,2`). Its rival is triangulation, not what a single view
gives. Arguments, behind a colon and apart by commas: `noise=typical` (trained and tested on noisy
2D points), `tiny` (a few steps of a small network, for tests). At width 512 and 10 epochs (7 min on
one core) P1 43.7 mm on test_seen under noise=typical, where DLT has 61.0; with the settings here it
was not run.
"""

from ml_collections import ConfigDict

from configs import cmu_mv, cmu_mv_seq
from pose3d_jax.config import arguments


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, noise=tuple(cmu_mv_seq.DISTURBANCES), tiny=False)
    config = cmu_mv.get_config("tiny" if given.tiny else "")
    config.name = "cmu_fused"
    config.method.name = config.adaptation.method = "fused"
    config.evaluation.noise = given.noise
    for phase in config.phases:
        phase["disturbance"] = dict(cmu_mv_seq.DISTURBANCES[given.noise])
    return config
