"""HumanEva-I without 3D labels, from clips rather than single frames.

    python -m data_prep.humaneva --source DIR --output data/humaneva
    python -m pose3d_jax.main --config=configs/humaneva_mv_seq.py --workdir=runs/humaneva_mv_seq

The lifter of configs/humaneva_mv.py, whose clips are then fitted to their keypoints, one body and
smooth motion (evaluation.fit), each view by itself: a run of that config needs no training anew,
but `--mode=evaluate --workdir=runs/humaneva_mv --config=configs/humaneva_mv_seq.py`. Arguments are
that config's; with `detections=NAME` the fit takes points to err by 5 px, a
guess: nothing was measured on detections.
"""

from ml_collections import ConfigDict

from configs import humaneva_mv
from pose3d_jax import recipes


def get_config(argument: str = "") -> ConfigDict:
    config = humaneva_mv.get_config(argument)
    config.name = config.name.replace("_mv", "_mv_seq")
    with config.unlocked():
        config.evaluation.fit = recipes.fit(5.0 if config.data.keypoint_source else None)
    return config
