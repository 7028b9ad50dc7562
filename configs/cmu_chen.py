"""CMU-MV v1 from 2D poses of single views alone, as Chen et al. 2019 do it: no labels, no rig.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_chen.py --workdir=runs/cmu_chen

P2 on the validation split 59 mm (the mean pose has 170), after 14 minutes on a CPU core that others
shared. Arguments: those of cmu_kudo.py. Views from elsewhere are level (`method.elevation` 0),
which the paper's are not. The critic of motion (`fake_motion`, `real_motion`, `penalty_motion`,
`fool_motion`) needs `config.streams.main.window` of several frames, the adapter (`fake_domain`,
`real_domain`, `penalty_domain`, `fool_domain`, `near`) a stream `domain`; both are off here.
"""

from ml_collections import ConfigDict

from configs import cmu_kudo

WEIGHTS = {**cmu_kudo.WEIGHTS, "cycle": 1.0, "back": 1.0}


def get_config(argument: str = "") -> ConfigDict:
    config = cmu_kudo.get_config(argument)
    config.name = "cmu_chen"
    config.method.name = "chen"
    for phase in config.phases:
        phase["weights"] = dict(WEIGHTS)
    return config
