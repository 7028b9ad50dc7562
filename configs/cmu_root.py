"""CMU-MV v1: where a person is, from one view; the root network for methods that know no size.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_root.py --workdir=runs/cmu_root

All its joints are at the root, so that of its errors only the root's say something:
`python -m benchmarks.lifting --root root` puts other methods' poses there. Arguments, behind a
colon and apart by commas: `noise=typical` (trained and tested on noisy 2D points), `tiny` (a few
steps of a small network, for tests). Results: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import cmu_mv_seq, cmu_supervised
from pose3d_jax import recipes
from pose3d_jax.config import arguments

EPOCHS = 5


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(argument, noise=tuple(cmu_mv_seq.DISTURBANCES), tiny=False)
    config = cmu_supervised.get_config("tiny" if given.tiny else "")
    config.name = "cmu_root"
    width = 32 if given.tiny else 256
    config.method = ConfigDict({"name": "root", "width": width, "blocks": 2, "root_depth": 4.0})
    config.init = ConfigDict({})
    config.phases = recipes.tuned(EPOCHS, {"root": 1.0}, given.tiny, other_people=True)
    for phase in config.phases:
        phase["disturbance"] = dict(cmu_mv_seq.DISTURBANCES[given.noise])
    config.evaluation.noise = given.noise
    config.evaluation.references = ()
    return config
