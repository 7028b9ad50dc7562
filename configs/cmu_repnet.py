"""CMU-MV v1, 2D poses of single views and 3D poses that belong to none of them: RepNet."""

from ml_collections import ConfigDict

from configs import cmu_kudo

WEIGHTS = {
    "fake": 1.0,
    "real": 1.0,
    "penalty": 10.0,
    "fool": 5.0,
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
    for phase in config.phases:
        phase["weights"] = dict(WEIGHTS)
    return config
