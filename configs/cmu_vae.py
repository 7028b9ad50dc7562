"""CMU-MV v1: lifting as a distribution, a conditional VAE of 3D poses given one view's points.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_vae.py --workdir=runs/cmu_vae

Arguments, behind a colon and apart by commas: `kind=dense`, `convolution` or `graph` (of encoder
and decoder), `supervision=labels` or `reprojection` (2D points of calibrated views alone),
`annealing=warmup` or `cyclic` (of the divergence's weight), `window=9` (so many frames of a clip
together, for `convolution`), `noise=typical` (trained and tested on noisy 2D points), `tiny` (a few
steps of a small network, for tests). Results: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import cmu_mv, cmu_mv_seq
from pose3d_jax import recipes
from pose3d_jax.config import arguments

EPOCHS = 10
# Metres: what keypoints err by across their rays; of noisy ones some 2 px of 1,145, 4 m away, and
# the root's as well.
FLOORS = {"clean": 0.005, "typical": 0.01}
SUPERVISION = {
    "labels": {"pose": 1.0, "energy": 4.0, "root": 1.0},
    "reprojection": {"reprojection": 1.0, "energy": 4.0},
}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        kind=("dense", "convolution", "graph"),
        supervision=tuple(SUPERVISION),
        annealing=("warmup", "cyclic"),
        window=1,
        noise=tuple(cmu_mv_seq.DISTURBANCES),
        tiny=False,
    )
    config = cmu_mv.get_config("tiny" if given.tiny else "")
    config.name = "cmu_vae"
    config.method = ConfigDict(
        {
            "name": "variational",
            "kind": given.kind,
            "over_time": given.window > 1,
            "width": 32 if given.tiny else 512,
            "blocks": 2,
            "latent": 4 if given.tiny else 16,
            "samples": 3 if given.tiny else 50,
            "free_bits": 0.0,
            "floor": FLOORS[given.noise],
            "root_depth": 4.0,
            "reach": 1.5,
        }
    )
    config.init = ConfigDict({})
    if given.window != 1:
        size = max(1, config.streams.main.batch_size // max(1, given.window))
        config.streams.main.update(window=given.window, stride=given.window, batch_size=size)
    config.streams.main.joints = "labels" if given.supervision == "labels" else "dlt"
    weights = SUPERVISION[given.supervision]
    first, last = recipes.tuned(EPOCHS, weights, given.tiny, other_people=True)
    # The divergence's weight, beta, rises to 1 in the first epochs, once or again and again.
    period = {"period_steps": 2} if given.tiny else {"period_epochs": 2.0}
    rise = {"start": 0.0, "stop": 1.0, **period}
    kind = "linear" if given.annealing == "warmup" else "cyclic"
    first["weights"] = {**weights, "kl": {"kind": kind, **rise}}
    last["weights"] = {**weights, "kl": 1.0}
    config.phases = (first, last)
    for phase in config.phases:
        phase["disturbance"] = dict(cmu_mv_seq.DISTURBANCES[given.noise])
    config.evaluation.noise = given.noise
    config.evaluation.references = ()
    config.evaluation.every_epochs = 5
    return config
