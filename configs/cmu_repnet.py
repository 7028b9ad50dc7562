"""CMU-MV v1 from 2D poses of single views, and 3D poses that are not paired with them: RepNet.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_repnet.py --workdir=runs/cmu_repnet

The 3D poses are those of the training split, drawn by themselves; to keep the two kinds apart, give
`config.streams.main.clips` and `config.streams.prior.clips` shares that do not overlap. P2 on the
validation split 53 mm (the mean pose has 170), after 18 minutes on a CPU core that others shared.
Arguments: those of cmu_kudo.py.
"""

from ml_collections import ConfigDict

from configs import cmu_kudo

WEIGHTS = {
    "fake": 1.0,
    "real": 1.0,
    "penalty": 10.0,
    "fool": 1.0,
    "reproject": 10.0,
    "camera": 1.0,
}


def get_config(argument: str = "") -> ConfigDict:
    config = cmu_kudo.get_config(argument)
    config.name = "cmu_repnet"
    config.method.name = "repnet"
    del config.method["elevation"]
    # A pose for every view of the main stream.
    config.streams.prior = {**config.streams.main, "batch_size": 4 * config.streams.main.batch_size}
    rates = (5e-4, {"kind": "linear", "start": 5e-4, "stop": 0.0})
    for phase, rate in zip(config.phases, rates, strict=True):
        phase["weights"], phase["learning_rate"] = dict(WEIGHTS), rate
    return config
