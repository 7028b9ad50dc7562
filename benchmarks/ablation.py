"""What does the work: one config under several changes, some seeds each, judged on validation.

    python -m benchmarks.ablation STUDY --data data/cmu_mv_v1 --out runs/ablation [--quick]

STUDY is one of those below. A run that is there already, whole or cut, is taken up where it is. The
test splits stay unread. Prints a table of validation P1 in mm, mean and standard deviation over the
seeds, and ends with one line of JSON; `--figure FILE` draws the validation curves.
"""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from configs import cmu_mv
from pose3d_jax import train
from pose3d_jax.runs import read_run

# Variant -> what it changes.
Study = dict[str, Callable[[ConfigDict], None]]


def _second_half(**changes: object) -> Callable[[ConfigDict], None]:
    """The schedule's second phase, changed."""

    def apply(config: ConfigDict) -> None:
        config.phases[1].update(changes)

    return apply


def _without_dropout(config: ConfigDict) -> None:
    config.method.dropout = 0.0
    config.phases[1].update({"dropout": True, "statistics": "batch"})


# The report's three schedules (its Figure 4), and the two halves of what its switch does.
DROPOUT: Study = {
    "0.5, then inference mode": _second_half(),
    "0.5": _second_half(dropout=True, statistics="batch"),
    "0": _without_dropout,
    "0.5, then no dropout": _second_half(dropout=False, statistics="batch"),
    "0.5, then frozen statistics": _second_half(dropout=True, statistics="running"),
}

STUDIES: dict[str, Study] = {"dropout": DROPOUT}


def run(study: Study, data: str, out: Path, seeds: int, epochs: float, width: int, quick: bool):
    """Validation P1 in mm by variant: `[seed]` for frames and groups, and the curves."""
    found = {}
    for variant, change in study.items():
        frames, groups, curves = [], [], []
        for seed in range(seeds):
            config = cmu_mv.get_config("tiny" if quick else "")
            config.seed = seed
            config.data.path = data
            config.method.width = width
            if not quick:
                for phase in config.phases:
                    phase["length_epochs"] = epochs / len(config.phases)
            change(config)
            config.evaluation.test = ("validation",)
            config.evaluation.references = ()
            directory = out / variant.replace(" ", "_").replace(",", "") / str(seed)
            metrics = train.run(config, directory)
            p1 = metrics["splits"]["validation"]["rows"]["multiview"]["p1"]
            frames.append(1000 * p1["frames"])
            groups.append(1000 * p1["groups"])
            scalars = read_run(directory).scalars
            curves.append([(s["epoch"], 1000 * s["validation/p1"]) for s in scalars])
            print(f"{variant}, seed {seed}: {frames[-1]:.1f} / {groups[-1]:.1f}", flush=True)
        found[variant] = {"frames": frames, "groups": groups, "curves": curves}
    return found
