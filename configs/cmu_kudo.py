"""CMU-MV v1 from 2D poses of single views alone, as Kudo et al. 2018 do it: no labels, no rig.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_kudo.py --workdir=runs/cmu_kudo

P2 on the validation split 58 mm (the mean pose has 170), after ten minutes on a CPU core that
others shared. `train/lifter/relief` in the log is about 0.9 then; near 0 or far above 1 the depths
have collapsed. Arguments, behind a colon and apart by commas: `noise=typical` (trained and tested
on noisy 2D points), `tiny` (a few steps of a small network, for tests).
"""

from ml_collections import ConfigDict

from configs import cmu_mv, cmu_mv_seq
from pose3d_jax.config import arguments

WEIGHTS = {"fake": 1.0, "real": 1.0, "penalty": 0.01, "fool": 1.0, "knees": 1.0}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, noise=tuple(cmu_mv_seq.DISTURBANCES), tiny=False)
    config = cmu_mv.get_config("tiny" if given.tiny else "")
    config.name = "cmu_kudo"
    config.method = ConfigDict(
        {
            "name": "kudo",
            "width": 32 if given.tiny else 256,
            "blocks": 2,
            "critic_width": 32 if given.tiny else 256,
            "root_depth": 3.5,  # metres, of a person of usual size who is seen as large as usual
            "reach": 1.5,
            "elevation": 0.0,
        }
    )
    config.streams.main.joints = "labels"  # which nothing sees
    config.streams.main.batch_size = 16 if given.tiny else 32  # of four views each
    common = {
        "weights": dict(WEIGHTS),
        # One that remembers less, for what it minimises changes with the critic.
        "optimizer": {"name": "adam", "b1": 0.5, "b2": 0.9},
        "average_decay": 0.999,
        "disturbance": dict(cmu_mv_seq.DISTURBANCES[given.noise]),
    }
    lengths = [{"length_steps": 3} if given.tiny else {"length_epochs": n} for n in (4, 2)]
    config.phases = (
        {**common, **lengths[0], "learning_rate": 4e-4},
        {**common, **lengths[1], "learning_rate": {"kind": "linear", "start": 4e-4, "stop": 0.0}},
    )
    config.evaluation.noise = given.noise
    return config
