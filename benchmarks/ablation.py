"""What does the work: one config under several changes, some seeds each, judged on validation.

    python -m benchmarks.ablation dropout --data data/cmu_mv_v1 --out runs/ablation [--quick]
    python -m benchmarks.ablation lifter --data data/cmu_mv_v1 --out runs/ablation [--quick]
    python -m benchmarks.ablation settings --data data/cmu_mv_v1 --out runs/ablation [--quick]
    python -m benchmarks.ablation labels --data data/cmu_mv_v1 --out runs/ablation [--quick]
    python -m benchmarks.ablation networks --data data/cmu_mv_v1 --out runs/ablation [--quick]

`dropout` is the report's schedules and the two halves of what its switch at half-time does,
`lifter` what leads from the report's settings to the tuned ones, one change after the other,
`settings` the tuned ones with one thing changed, `labels` the tuned ones with 3D labels of a tenth
of the clips of each group, and ever more clips without any (as many steps for all), `networks` the
temporal ones on as many frames as the lifter gets. All start from
`configs/cmu_mv.py:variant=report`, with 10 epochs (`--epochs`) at width 512, label-free but for
`labels`.
A run that is there already, whole or cut, is taken up where it is; the test splits stay unread.
Prints validation P1 over frames and groups, P2 and acceleration error over frames, mean and range
of the seeds, draws the curves of P1 (OUT/STUDY.png; not of a part of a study, `--only`), and ends
with one line of JSON.
`--quick`: a few steps of the first and the last variant.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs import cmu_mv, cmu_mv_seq, cmu_supervised
from pose3d_jax import recipes, train
from pose3d_jax.runs import read_run

EPOCHS, WIDTH = 10, 512

Change = Callable[[ConfigDict], None]
# Variant -> what it changes, one thing after the other.
Study = Mapping[str, tuple[Change, ...]]


def _second_half(**changes: Any) -> Change:
    """The schedule's second phase, changed."""
    return lambda config: config.phases[1].update(changes)


def _every_phase(**changes: Any) -> Change:
    def apply(config: ConfigDict) -> None:
        for phase in config.phases:
            phase.update(changes)

    return apply


def _method(**changes: Any) -> Change:
    return lambda config: config.method.update(changes)


def _falling_rate(config: ConfigDict) -> None:
    """The tuned configs' learning rate, over the first four fifths and the last."""
    first, last = config.phases
    whole = first["length_epochs"] + last["length_epochs"]
    rates = (("cosine", 1e-3, 1e-4), ("linear", 1e-4, 0.0))
    for phase, share, (kind, start, stop) in zip((first, last), (0.8, 0.2), rates, strict=True):
        phase["length_epochs"] = share * whole
        phase["learning_rate"] = {"kind": kind, "start": start, "stop": stop}


def _rate(factor: float) -> Change:
    """The learning rate times `factor`."""

    def apply(config: ConfigDict) -> None:
        for phase in config.phases:
            rate = phase["learning_rate"]
            phase["learning_rate"] = {
                **rate,
                "start": factor * rate["start"],
                "stop": factor * rate["stop"],
            }

    return apply


def _batch(size: int) -> Change:
    return lambda config: config.streams.main.update(batch_size=size)


def _augmented(**changes: Any) -> Change:
    def apply(config: ConfigDict) -> None:
        for phase in config.phases:
            phase["augmentation"] = {**phase.get("augmentation", {}), **changes}

    return apply


DROPOUT: Study = {
    "0.5, then inference mode": (),
    "0.5": (_second_half(dropout=True, statistics="batch"),),
    "0": (_method(dropout=0.0), _second_half(dropout=True, statistics="batch")),
    "0.5, then no dropout": (_second_half(dropout=False, statistics="batch"),),
    "0.5, then frozen statistics": (_second_half(dropout=True, statistics="running"),),
}

_POSE = {"pose": 1.0, "self": 0.1, "cross": 0.1}

_STEPS: dict[str, tuple[Change, ...]] = {
    "report": (),
    "centred": (_method(centred=True),),
    "no dropout, falling rate": (_method(dropout=0.0), _falling_rate),
    "pose term": (_every_phase(weights=_POSE),),
    "turn, flip": (_augmented(turn=180.0, flip=True),),
    "cameras": (_augmented(orbit=10.0, elevation=8.0, distance=0.1, tilt=3.0),),
    "bodies": (_augmented(bones=0.1, stature=0.03),),
}


def _one_after_the_other(steps: Mapping[str, tuple[Change, ...]]) -> Study:
    names = list(steps)
    return {
        ("" if i == 0 else "+ ") + name: sum((steps[n] for n in names[: i + 1]), ())
        for i, name in enumerate(names)
    }


_TUNED = sum(_STEPS.values(), ())

SETTINGS: Study = {
    "tuned": _TUNED,
    "no turn, flip": (*_TUNED, _augmented(turn=0.0, flip=False)),
    "no cameras": (*_TUNED, _augmented(orbit=0.0, elevation=0.0, distance=0.0, tilt=0.0)),
    "no bodies": (*_TUNED, _augmented(bones=0.0, stature=0.0)),
    "bend 10": (*_TUNED, _augmented(bend=10.0)),
    "missing 0.1": (*_TUNED, _augmented(missing=0.1)),
    "symmetry 0.1": (*_TUNED, _every_phase(weights={**_POSE, "symmetry": 0.1})),
    "consistency 0.1": (*_TUNED, _every_phase(weights={**_POSE, "consistency": 0.1})),
    "average 0.999": (*_TUNED, _every_phase(average_decay=0.999)),
    "rate 2e-3": (*_TUNED, _rate(2.0)),
    "rate 5e-4": (*_TUNED, _rate(0.5)),
    "batch 64": (*_TUNED, _batch(64)),
    "batch 256": (*_TUNED, _batch(256)),
    "width 256": (*_TUNED, _method(width=256)),
    "width 1024": (*_TUNED, _method(width=1024)),
    "blocks 1": (*_TUNED, _method(blocks=1)),
    "blocks 3": (*_TUNED, _method(blocks=3)),
}

_LABELLED = 0.1  # of the clips of each group
# What labels weigh beside the views' terms, which are on the normalised plane, where errors are a
# quarter of those in metres, and of many more clips. At 1 the few hide what the others give.
_LABEL_WEIGHT = 0.1


def _labels(unlabelled: float) -> tuple[Change, ...]:
    """Labels of a tenth of the clips, and the views alone of a share of the others."""

    def apply(config: ConfigDict) -> None:
        labels = cmu_supervised.WEIGHTS
        weights = {f"labelled_{term}": _LABEL_WEIGHT * weight for term, weight in labels.items()}
        main, labelled = config.streams.main, [0.0, _LABELLED]
        others = (1 - _LABELLED) * unlabelled
        # An epoch passes the main stream; validation is as often for all.
        with config.ignore_type():  # a whole number so far
            config.evaluation.every_epochs = 1 / (others or _LABELLED)
        for phase, steps in zip(config.phases, (2224, 556), strict=True):
            phase.pop("length_epochs", None)
            phase["length_steps"] = steps  # 10 epochs of all clips, however many there are
            phase["weights"] = {**weights, **_POSE} if unlabelled else labels
        with config.unlocked():
            if not unlabelled:
                config.method.name = "supervised"
                main.update({"clips": labelled, "joints": "labels"})
                return
            config.method.name = "semisupervised"
            config.streams.labelled = {
                **main.to_dict(),
                "clips": labelled,
                "joints": "labels",
                "batch_size": main.batch_size // 4,
            }
            main.update({"clips": [_LABELLED, min(1.0, _LABELLED + others)]})

    return (*_TUNED, apply)


LABELS: Study = {
    "labels alone": _labels(0.0),
    "25 % of the others": _labels(0.25),
    "50 %": _labels(0.5),
    "100 %": _labels(1.0),
}


def _network(name: str, window: int | None = None, **settings: Any) -> Change:
    """Another network than the lifter, as configs/cmu_mv_seq.py has it."""

    def apply(config: ConfigDict) -> None:
        own, frames = cmu_mv_seq.NETWORKS[name]
        frames = window or frames
        size = cmu_mv_seq.SIZES["xs"] if name == "attention" else {}
        with config.unlocked():
            config.method.update({"network": name, **own, "width": WIDTH, **size, **settings})
        config.streams.main.update(window=frames, stride=frames, batch_size=128 // frames)

    return apply


def _pretrained(config: ConfigDict) -> None:
    """Masked motion for the first third of the epochs."""
    weights = config.phases[0]["weights"]
    epochs = sum(phase["length_epochs"] for phase in config.phases)
    config.phases = recipes.pretrained(epochs, weights, other_people=True)


NETWORKS: Study = {
    "lifter": _TUNED,
    "convolution, 27 frames": (*_TUNED, _network("convolution")),
    "convolution, 27 frames, causal": (*_TUNED, _network("convolution", causal=True)),
    "convolution, 27 frames, all of a window": (*_TUNED, _network("convolution", 27)),
    "convolution, 81 frames": (*_TUNED, _network("convolution", blocks=3)),
    "transformer": (*_TUNED, _network("transformer")),
    "transformer without positions": (*_TUNED, _network("transformer", positions=False)),
    "transformer, the report's settings": (
        _network("transformer", positions=False, dropout=0.5, centred=False),
    ),
    "attention xs": (*_TUNED, _network("attention")),
    "attention xs, parallel": (*_TUNED, _network("attention", parallel=True)),
    "attention xs, pre-trained": (*_TUNED, _network("attention"), _pretrained),
    "attention s": (*_TUNED, _network("attention", **cmu_mv_seq.SIZES["s"])),
}

STUDIES: dict[str, Study] = {
    "dropout": DROPOUT,
    "lifter": _one_after_the_other(_STEPS),
    "settings": SETTINGS,
    "labels": LABELS,
    "networks": NETWORKS,
}


def config_of(
    changes: tuple[Change, ...], data: str, seed: int, quick: bool, epochs: int = EPOCHS
) -> ConfigDict:
    """The experiment of one variant and seed, judged on validation."""
    config = cmu_mv.get_config("variant=report,tiny" if quick else "variant=report")
    config.seed = seed
    config.data.path = data
    if not quick:
        config.method.width = WIDTH
    for phase in config.phases:
        phase.pop("length_steps", None)
        phase["length_epochs"] = (0.01 if quick else epochs) / len(config.phases)
    for change in changes:
        change(config)
    if quick:
        for phase in config.phases:
            phase.pop("length_epochs", None)
            phase["length_steps"] = 3
    config.evaluation.test = ("validation",)
    config.evaluation.references = ()
    return config


def run(
    study: Study, data: str, out: Path, seeds: int, quick: bool, epochs: int = EPOCHS
) -> dict[str, dict[str, list]]:
    """Errors on validation by variant, seed by seed: columns of the table, and P1's curves."""
    columns = ("frames", "groups", "p2", "acceleration")
    print(f"{'mean (range of the seeds)':<40}{'P1, mm':>22}{'P1, groups':>22}", end="")
    print(f"{'P2, mm':>22}{'acc., m/s2':>22}")
    found: dict[str, dict[str, list]] = {}
    for variant, changes in study.items():
        of = found[variant] = {name: [] for name in columns}
        of["curves"] = []
        name = "".join(c if c.isalnum() or c == "." else "_" for c in variant).strip("_")
        for seed in range(seeds):
            directory = out / name / str(seed)
            metrics = train.run(config_of(changes, data, seed, quick, epochs), directory)
            row = metrics["splits"]["validation"]["rows"][metrics["method"]]
            of["frames"].append(1000 * row["p1"]["frames"])
            of["groups"].append(1000 * row["p1"]["groups"])
            of["p2"].append(1000 * row["p2"]["frames"])
            of["acceleration"].append(row["acceleration"]["frames"])
            scored = [s for s in read_run(directory).scalars if "validation/p1" in s]
            of["curves"].append([(s["epoch"], 1000 * s["validation/p1"]) for s in scored])
        print(f"{variant:<40}" + "".join(_spread(of[name]) for name in columns), flush=True)
    return found


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})".rjust(22)


def drawn(found: Mapping[str, Mapping[str, list]]) -> Figure:
    """Validation P1 over the epochs: means of the seeds, and their range."""
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    axes.set_prop_cycle(color=plt.get_cmap("tab10" if len(found) <= 10 else "tab20").colors)
    for variant, of in found.items():
        epochs = np.array(of["curves"][0])[:, 0]
        values = np.array([np.array(curve)[:, 1] for curve in of["curves"]])
        (line,) = axes.plot(epochs, values.mean(0), label=variant)
        axes.fill_between(epochs, values.min(0), values.max(0), alpha=0.2, color=line.get_color())
    axes.set(xlabel="epoch", ylabel="validation P1, mm, frames")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", default="data/cmu_mv_v1", help="CMU-MV v1, prepared")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="(not of labels, in steps)")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="these of its variants")
    parser.add_argument("--quick", action="store_true", help="a few steps, two variants")
    args = parser.parse_args()
    study, seeds = STUDIES[args.study], args.seeds
    unknown = sorted(set(args.only or ()) - set(study))
    if unknown:
        parser.error(f"{args.study} has no {', '.join(unknown)}; it has {', '.join(study)}")
    if args.only:
        study = {name: study[name] for name in args.only}
    if args.quick:
        seeds = 1
        study = {name: study[name] for name in (next(iter(study)), list(study)[-1])}
    found = run(study, args.data, args.out / args.study, seeds, args.quick, args.epochs)
    if not args.only:
        drawn(found).savefig(args.out / f"{args.study}.png", dpi=150)
    print(json.dumps({"ablation": {"study": args.study, "variants": found}}))


if __name__ == "__main__":
    main()
