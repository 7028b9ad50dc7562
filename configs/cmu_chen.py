"""CMU-MV v1, 2D poses of single views alone: Chen et al. 2019."""

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
