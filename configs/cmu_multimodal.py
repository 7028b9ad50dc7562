"""CMU-MV v1: a VAE of 2D pose, heatmap, image and 3D pose on one latent; any from any other.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output data/cmu_mv_v1
    python -m pose3d_jax.main --config=configs/cmu_multimodal.py --workdir=runs/cmu_multimodal

Arguments, behind a colon and apart by commas: `fusion=product` (MVAE) or `mixture` (MMVAE),
`explain=all` or `given` (what a subset of a product is to explain: with `given` what it holds, as
in MVAE), `modalities=all`, `points`, `heatmap` or `image` (beside the 3D pose), `image` (`all`
holds features of images, too: of data that has such, as many as config.method.features),
`corruption=independent` or `same` (of 2D pose and heatmap), `tiny` (a few steps of a small
network, for tests). The method corrupts what it observes itself: see methods/modalities.py. After
1,000 steps, some 90 s on one core: P1 on validation about 86 mm from both, 92 from one of them (the
mean pose has 200). The four criteria: benchmarks/multimodal.py.
"""

from ml_collections import ConfigDict

from configs import cmu_mv
from pose3d_jax.config import ConfigError, arguments

EPOCHS = 2


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        fusion=("product", "mixture"),
        explain=("all", "given"),
        modalities=("all", "points", "heatmap", "image"),
        image=False,
        corruption=("independent", "same"),
        tiny=False,
    )
    if given.image and given.modalities != "all":
        raise ConfigError("the config's argument image: belongs to modalities=all; leave one out")
    every = "points,heatmap,image" if given.image else "points,heatmap"
    observed = every if given.modalities == "all" else given.modalities
    config = cmu_mv.get_config("tiny" if given.tiny else "")
    config.name = "cmu_multimodal"
    config.method = ConfigDict(
        {
            "name": "multimodal",
            "fusion": given.fusion,
            "modalities": f"{observed},pose",
            "given": observed,
            "width": 32 if given.tiny else 256,
            "blocks": 0 if given.tiny else 1,
            "shared": 4 if given.tiny else 24,
            "private": 2 if given.tiny else 8,
            "samples": 3 if given.tiny else 20,
            "subsets": 1,
            "explain": given.explain,
            "draws": 2 if given.fusion == "mixture" else 1,
            "absent": 0.0,
            "cells": 4 if given.tiny else 8,
            "features": 128,
            "corruption": given.corruption,
            "root_depth": 4.0,
            "reach": 1.5,
        }
    )
    config.init = ConfigDict({})
    config.streams.main.joints = "labels"
    config.streams.main.batch_size = 16 if given.tiny else 32
    # No clip is filmed anew: in so few epochs none is seen often, corrupted as before.
    config.phases = (
        {
            **({"length_steps": 3} if given.tiny else {"length_epochs": EPOCHS}),
            "weights": {"bound": 1.0},
            "optimizer": {"name": "adam"},
            "dropout": True,
            "statistics": "batch",
            "learning_rate": {"kind": "cosine", "start": 1e-3, "stop": 1e-5},
        },
    )
    config.evaluation.references = ()
    config.evaluation.every_epochs = EPOCHS
    return config
