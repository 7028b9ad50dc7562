"""CMU-MV v1 without 3D labels, from several frames at once.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_mv_seq.py --workdir=runs/cmu_mv_seq

Arguments, behind a colon and apart by commas: `network=transformer` or `network=attention` rather
than temporal convolutions, `causal` (convolutions that see the past alone, for streams),
`variant=report` (the transformer and the schedule of "3D Pose Estimation Using 2D Supervision"),
`tiny` (a few steps of a small network, for tests). No result is published yet: see docs/results.md.
"""

from ml_collections import ConfigDict

from configs import cmu_mv
from pose3d_jax import recipes
from pose3d_jax.config import ConfigError, arguments

# Of each network, and how many frames it predicts together; these convolutions see 27 for each.
NETWORKS = {
    "convolution": ({"width": 512, "blocks": 2, "dropout": 0.0, "causal": False}, 1),
    "transformer": ({"width": 512, "blocks": 2, "heads": 4, "dropout": 0.0, "positions": True}, 27),
    "attention": ({"width": 64, "blocks": 3, "heads": 4, "dropout": 0.0, "parallel": False}, 27),
}
REPORT = {"width": 512, "blocks": 2, "dropout": 0.5, "positions": False, "centred": False}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument, network=tuple(NETWORKS), causal=False, variant=("tuned", "report"), tiny=False
    )
    tiny, report = given.tiny, given.variant == "report"
    if report and "network" in argument:
        raise ConfigError("the config's argument network: variant=report has its own; leave it out")
    network = "transformer" if report else given.network
    settings, window = NETWORKS[network]
    config = cmu_mv.get_config("tiny" if tiny else "")
    config.name = "cmu_mv_seq_report" if report else "cmu_mv_seq"
    with config.unlocked():
        config.method.update({"network": network, **settings, **(REPORT if report else {})})
        if given.causal:
            config.method.causal = True  # of convolutions; another network refuses it
    if tiny:
        config.method.width, config.method.blocks = 32, 1
    # About as many frames in a batch as of a single-frame lifter; a clip's are much alike.
    config.streams.main.update(window=window, stride=window, batch_size=128 // window)
    if tiny:
        config.streams.main.batch_size = 4
    config.phases = (
        recipes.report(30, cmu_mv.REPORT, tiny)
        if report
        else recipes.tuned(30, cmu_mv.TUNED, tiny, other_people=True)
    )
    return config
