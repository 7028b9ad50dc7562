"""A figure for a paper of evaluated runs: input, each run's pose, the truth; errors below.

    python -m pose3d_jax.figures runs/baseline runs/ours runs/ours/adapted_shared
        --output figure.pdf [--labels baseline ours adapted] [--rows 3] [--by ours]

The poses are of the examples that an evaluation leaves (`examples.npz`, evenly spaced over its
first split). Which of them are shown is decided by the rank of their errors, not by hand: the best,
the median and the worst, and with `--rows 5` two between them. The error that ranks is the mean
of all columns, or that of `--by`. `--examples` names them instead, by the numbers that are printed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pose3d_jax import report, runs, skeleton, tables
from pose3d_jax.errors import UserError
from pose3d_jax.viewer import paper


def ranked(
    errors: Float[np.ndarray, "examples"], rows: int
) -> tuple[Int[np.ndarray, "rows"], list[str]]:
    """Examples at evenly spaced ranks of their errors, and what the ranks are called.

    One row is the median. Those without an error (NaN) have no rank.

    Raises `UserError` where fewer have an error than there are rows.
    """
    order = np.argsort(errors, kind="stable")[: np.isfinite(errors).sum()]
    if not 0 < rows <= len(order):
        raise UserError(f"--rows {rows}: {len(order)} examples have an error; give 1 to so many")
    shares = np.linspace(0, 1, rows) if rows > 1 else np.array([0.5])
    names = {0.0: "best", 0.5: "median", 1.0: "worst"}
    called = [names.get(share, f"rank {100 * share:.0f} %") for share in shares.tolist()]
    return order[np.round(shares * (len(order) - 1)).astype(int)], called


def run(
    workdirs: Sequence[Path],
    output: Path,
    *,
    labels: Sequence[str] = (),
    by: str = "",
    rows: int = 3,
    examples: Sequence[int] = (),
) -> str:
    """Writes the figure; returns a table of what it shows.

    Raises `UserError` for runs that cannot be set beside one another, and names that are not there.
    """
    found = runs.distinct([runs.read_run(path) for path in workdirs])
    labels = labels or [run.name for run in found]
    if len(labels) != len(found) or len(set(labels)) < len(labels):
        raise UserError(f"--labels takes {len(found)} different names, one for each work directory")
    if by and by not in labels:
        raise UserError(f"--by {by}: no column is named so; there are {', '.join(labels)}")
    shown = [run.examples for run in found]
    for path, one in zip(workdirs, shown, strict=True):
        if one is None:
            raise UserError(f"{path} has no examples.npz; run with --mode=evaluate first")
        if shown[0] is None or not runs.same_examples(shown[0], one):
            raise UserError(
                f"{path} shows other examples than {workdirs[0]}: evaluate both with this version, "
                f"on the same data, views and noise"
            )
    shared = shown[0]
    assert shared is not None
    two, three = (skeleton.get(str(shared[f"{kind}_skeleton"])) for kind in ("keypoint", "joint"))
    valid = shared["truth_valid"] > 0
    truth = report.relative(shared["truth"], three.root)
    poses, errors = {}, {}
    for label, run_, arrays in zip(labels, found, shown, strict=True):
        assert arrays is not None
        poses[label], scores = report.scored(
            arrays["prediction"], truth, valid, three.root, sized=not run_.up_to_scale
        )
        errors[label] = np.array(scores)
    judged = errors[by] if by else np.mean(list(errors.values()), axis=0)
    if examples and by:
        raise UserError("--examples says which examples; leave --by out")
    if examples:
        if not all(0 <= number < len(judged) for number in examples):
            raise UserError(f"--examples: there are 0 to {len(judged) - 1}")
        chosen, called = np.array(examples), [f"example {number}" for number in examples]
    else:
        chosen, called = ranked(judged, rows)
    texts = {
        label: [f"{tables.millimetres(float(error))} mm" for error in scores[chosen]]
        for label, scores in errors.items()
    }
    labelled = (valid & valid[:, [three.root]])[..., None]
    figure = paper.rows(
        (two, three),
        (shared["keypoints"][chosen].astype(float), shared["confidence"][chosen].astype(float)),
        shared["size"][chosen].astype(float),
        {label: (poses[label][chosen], texts[label]) for label in labels},
        np.where(labelled, truth, np.nan)[chosen],
        called,
    )
    paper.write(output, figure)
    lines = [
        f"{name}: example {number}, {shared['names'][number]}: "
        + ", ".join(f"{label} {texts[label][row]}" for label in labels)
        for row, (name, number) in enumerate(zip(called, chosen, strict=True))
    ]
    measures = sorted({"N-MPJPE" if run.up_to_scale else "P1" for run in found})
    lines.append(f"{' and '.join(measures)}, of {len(judged)} examples; {output}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m pose3d_jax.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    parser.add_argument("--output", required=True, type=Path, help=", ".join(paper.FORMATS))
    parser.add_argument("--labels", nargs="+", default=(), help="of the columns")
    parser.add_argument("--by", default="", help="the column whose error ranks; default: all")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--examples", nargs="+", type=int, default=(), help="by number, by hand")
    given = parser.parse_args(arguments)
    try:
        print(
            run(
                given.workdirs,
                given.output,
                labels=given.labels,
                by=given.by,
                rows=given.rows,
                examples=given.examples,
            )
        )
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
