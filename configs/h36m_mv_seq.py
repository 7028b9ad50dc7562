"""Human3.6M without 3D labels, from clips rather than single frames.

    python -m data_prep.h36m --source DIR --output data/h36m
    python -m pose3d_jax.main --config=configs/h36m_mv_seq.py --workdir=runs/h36m_mv_seq

The lifter of configs/h36m_mv.py, whose clips are then fitted to their keypoints, one body and
smooth motion (evaluation.fit), each view by itself: a run of that config needs no training anew,
but `--mode=evaluate --workdir=runs/h36m_mv --config=configs/h36m_mv_seq.py`. Arguments are
that config's; with `detections=NAME` the fit takes points to err by 5 px, a
guess: nothing was measured on detections.
"""

from ml_collections import ConfigDict

from configs import h36m_mv
from pose3d_jax import recipes


def get_config(argument: str = "") -> ConfigDict:
    config = h36m_mv.get_config(argument)
    config.name = config.name.replace("_mv", "_mv_seq")
    with config.unlocked():
        config.evaluation.fit = recipes.fit(5.0 if config.data.keypoint_source else None)
    return config
