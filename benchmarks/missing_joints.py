"""The error over the share of joints that are missing: methods trained for it, and not.

    python -m benchmarks.missing_joints --workdirs runs/cmu_mv runs/cmu_occluded
        [--split test_seen] [--out runs/missing_joints.png] [--quick]

Of every view's keypoints a share is hidden, each by itself, the same for all methods; the last
column hides what the person's own body does (`occlusion`). Prints P1 in mm (frames; of all joints,
hidden ones too), draws the curves, and ends with one line of JSON.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pose3d_jax import evaluate, scoring
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.errors import UserError
from pose3d_jax.occlusion import radii, self_occluded
from pose3d_jax.tables import millimetres

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
OWN_BODY = "own body"


def without(data: PoseData, hidden: np.ndarray) -> PoseData:
    """The split without the keypoints `[frames, V, J]` that are hidden."""
    observations = data.poses.observations
    there = ~hidden & (np.asarray(observations.confidence) > 0)
    changed = dataclasses.replace(
        observations,
        keypoints=jnp.where(there[..., None], observations.keypoints, 0.0),
        confidence=jnp.where(there, observations.confidence, 0.0),
    )
    return dataclasses.replace(data, poses=dataclasses.replace(data.poses, observations=changed))


def behind(data: PoseData) -> np.ndarray:
    """Which joints the person's own body hides from each view, `[frames, V, J]`."""
    clip = data.poses.take(jnp.arange(data.poses.size))
    truth = scoring.in_views(clip.observations, clip.labels.joints)
    skeleton = data.joint_skeleton
    thick = jnp.asarray(radii(skeleton))
    one = jax.jit(jax.vmap(lambda pose: self_occluded(pose, skeleton, thick)))
    return np.asarray(one(truth.reshape(-1, *truth.shape[-2:]))).reshape(truth[:, 0].shape[:-1])


def p1(restored: evaluate.Restored, data: PoseData) -> float:
    """Frame mean of P1, metres."""
    predicted = evaluate.predict(restored, data)
    size = restored.config["evaluation"]["batch_size"]
    errors, mask = scoring.score(restored.info, data, predicted, size, rows=None)
    return float(errors["method"]["p1"][mask].mean(dtype=np.float64))


def run(workdirs: list[Path], split: str, quick: bool) -> dict[str, dict[str, float]]:
    """P1 in metres by work directory and share."""
    found: dict[str, dict[str, float]] = {}
    shares = SHARES[::3] if quick else SHARES
    for workdir in workdirs:
        restored = evaluate.restore(workdir)
        if split not in restored.splits:
            there = ", ".join(restored.splits)
            raise UserError(f"{workdir} is evaluated on {there}; give one of them as --split")
        data = restored.splits[split]
        if quick:
            data = windows.some(data, 0.0, 0.05)
        dice = np.random.default_rng(0).uniform(size=data.poses.observations.confidence.shape)
        hidden = {f"{100 * share:.0f} %": dice < share for share in shares}
        hidden[OWN_BODY] = behind(data)
        share = hidden[OWN_BODY].mean()
        print(f"{workdir}: the own body hides {100 * share:.1f} % of the joints")
        found[str(workdir)] = {
            name: p1(restored, without(data, which)) for name, which in hidden.items()
        }
    return found


def draw(found: dict[str, dict[str, float]], out: Path) -> None:
    """The curves over the shares."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, errors in found.items():
        shares = [key for key in errors if key != OWN_BODY]
        axes.plot(
            [float(key.split()[0]) for key in shares],
            [1000 * errors[key] for key in shares],
            marker="o",
            label=Path(name).name,
        )
    axes.set(xlabel="joints missing, %", ylabel="P1, mm, frames", ylim=(0, None))
    axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.missing_joints")
    parser.add_argument("--workdirs", type=Path, nargs="+", required=True)
    parser.add_argument("--split", default="test_seen")
    parser.add_argument("--out", type=Path, default=Path("runs/missing_joints.png"))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the clips, 3 shares")
    args = parser.parse_args()
    try:
        found = run(args.workdirs, args.split, args.quick)
    except UserError as error:
        parser.error(str(error))
    names = list(next(iter(found.values())))
    print(" " * 30 + "".join(f"{name:>10}" for name in names))
    for workdir, errors in found.items():
        print(f"{workdir:<30}" + "".join(f"{millimetres(errors[name]):>10}" for name in names))
    draw(found, args.out)
    print(json.dumps({"missing_joints": found}))


if __name__ == "__main__":
    main()
