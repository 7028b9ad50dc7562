"""CMU-MV v1, from clips rather than single frames; without 3D labels unless asked.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_mv_seq.py --workdir=runs/cmu_mv_seq

By default the lifter of configs/cmu_mv.py, whose clips are then fitted to their keypoints, one body
and smooth motion (evaluation.fit): a run of that config needs no training anew, but
`--mode=evaluate --workdir=runs/cmu_mv --config=configs/cmu_mv_seq.py`.

Arguments, behind a colon and apart by commas: `noise=typical` (trained and tested on noisy 2D
points), `labels` (trained on 3D labels), `network=convolution`, `transformer` or `attention`
(without the fit), `size=xs`, `s`, `m` or `b` (of attention), `causal` (convolutions that see the
past alone, for streams), `pretrained` (on masked motion for the first third of the epochs),
`variant=report` (the transformer and the schedule of "3D Pose Estimation Using 2D Supervision"),
`tiny` (a few steps of a small network, for tests). Results: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import cmu_mv, cmu_supervised
from pose3d_jax import recipes
from pose3d_jax.config import ConfigError, arguments

# Of each network, and how many frames it predicts together; these convolutions see 27 for each.
NETWORKS = {
    "convolution": ({"width": 512, "blocks": 2, "dropout": 0.0, "causal": False}, 1),
    "transformer": ({"width": 512, "blocks": 2, "heads": 4, "dropout": 0.0, "positions": True}, 27),
    "attention": ({"heads": 4, "dropout": 0.0, "parallel": False}, 27),
}
# B is about as large as the networks of Zhang et al., "MixSTE" (CVPR 2022).
SIZES = {
    "xs": {"width": 64, "blocks": 3},
    "s": {"width": 128, "blocks": 4},
    "m": {"width": 256, "blocks": 6},
    "b": {"width": 512, "blocks": 8},
}
REPORT = {"width": 512, "blocks": 2, "dropout": 0.5, "positions": False, "centred": False}
FITS = {"clean": recipes.fit(), "typical": recipes.fit(2.0)}
# At most, in a clip: half as much again as in the noise of that name.
DISTURBANCES = {
    "clean": {},
    "typical": {"sigma_px": 3.0, "outliers": 0.075, "missing": 0.3, "swaps": 0.015},
}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        network=("lifter", *NETWORKS),
        size=("", *SIZES),
        causal=False,
        labels=False,
        pretrained=False,
        noise=tuple(FITS),
        variant=("tuned", "report"),
        tiny=False,
    )
    tiny, report = given.tiny, given.variant == "report"
    if report and given.network != "lifter":
        raise ConfigError("the config's argument network: variant=report has its own; leave it out")
    network = "transformer" if report else given.network
    if given.size and network != "attention":
        raise ConfigError(f"the config's argument size: network={network} has none; leave it out")
    if given.causal and network == "lifter":
        raise ConfigError("the config's argument causal: say network=convolution, too")
    if report and (given.labels or given.pretrained):
        raise ConfigError("the config's argument variant: report has no labels or pre-training")
    if given.pretrained and network == "lifter":
        raise ConfigError("the config's argument pretrained: a lifter sees one frame; say network=")
    base = cmu_supervised if given.labels else cmu_mv
    config = base.get_config("tiny" if tiny else "")
    config.name = "cmu_mv_seq_report" if report else "cmu_mv_seq"
    if report:
        config.phases = recipes.report(30, cmu_mv.REPORT, tiny)
    if given.pretrained:
        weights = config.phases[0]["weights"]
        config.phases = recipes.pretrained(30, weights, tiny, other_people=True)
    config.evaluation.noise = given.noise
    with config.unlocked():
        for phase in config.phases:
            phase.setdefault("disturbance", dict(DISTURBANCES[given.noise]))
        if network == "lifter":
            config.evaluation.fit = dict(FITS[given.noise])
            return config
        settings, window = NETWORKS[network]
        own = SIZES[given.size or "xs"] if network == "attention" else {}
        config.method.update({"network": network, **settings, **own, **(REPORT if report else {})})
        if given.causal:
            config.method.causal = True  # of convolutions; another network refuses it
    if tiny:
        config.method.width, config.method.blocks = 32, 1
    # About as many frames in a batch as of a single-frame lifter; a clip's are much alike.
    config.streams.main.update(window=window, stride=window, batch_size=128 // window)
    if tiny:
        config.streams.main.batch_size = 4
    return config
