"""What a trained lifter makes of cameras that it never saw: the test splits filmed by other rigs.

    python -m benchmarks.unseen_rigs --workdir runs/cmu_mv [--splits test_seen ...] [--quick]

The labelled joints of each split are filmed anew by the cameras of another subject, by another
benchmark's, and by the own rig raised, lowered, farther off with longer lenses, and nearer with
shorter ones. Prints P1 in mm (frames / groups) and its ratio to that on the own rig, and ends with
one line of JSON.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data_prep import rigs
from pose3d_jax import cameras as cam
from pose3d_jax import evaluate, scoring
from pose3d_jax.cameras import Camera
from pose3d_jax.data.poses import PoseData

CENTRE = (0.0, 0.0, 0.9)  # metres; about where people's pelvises are


def moved(cameras: Camera, up: float = 0.0, factor: float = 1.0) -> Camera:
    """Cameras `[V]` raised by `up` metres, `factor` times as far off with lenses as much longer.

    They turn so that they see the centre of the scene where they saw it before, in their image.
    """
    rotations, translations = [], []
    for rotation, translation in zip(cameras.rotation, cameras.translation, strict=True):
        centre = np.array(CENTRE)
        position = -rotation.T @ translation
        new = centre + factor * (position - centre) + [0, 0, up]
        # The rotation between two look-at orientations, applied to the camera's own.
        before, _ = cam.look_at(jnp.asarray(position), jnp.asarray(centre), jnp.array([0.0, 0, 1]))
        after, _ = cam.look_at(jnp.asarray(new), jnp.asarray(centre), jnp.array([0.0, 0, 1]))
        turned = rotation @ np.asarray(before).T @ np.asarray(after)
        rotations.append(turned)
        translations.append(-turned @ new)
    return dataclasses.replace(
        cameras,
        rotation=np.array(rotations, np.float32),
        translation=np.array(translations, np.float32),
        focal=cameras.focal * np.float32(factor),
    )


def own(data: PoseData) -> Camera:
    """The cameras `[V]` of a split's first frame."""
    return jax.tree.map(lambda x: np.asarray(x)[0], data.poses.observations.cameras)


RIGS: dict[str, Callable[[PoseData], Camera]] = {
    "own": own,
    "human36m S5": lambda _: rigs.load_rig("human36m", "S5")[0],
    "human36m S9": lambda _: rigs.load_rig("human36m", "S9")[0],
    "humaneva S1": lambda _: rigs.load_rig("humaneva", "S1")[0],
    "raised by 0.5 m": lambda data: moved(own(data), up=0.5),
    "raised by 1 m": lambda data: moved(own(data), up=1.0),
    "lowered by 0.7 m": lambda data: moved(own(data), up=-0.7),
    "1.4 times as far, as long": lambda data: moved(own(data), factor=1.4),
    "0.8 times as far, as long": lambda data: moved(own(data), factor=0.8),
}


def filmed(data: PoseData, cameras: Camera) -> PoseData:
    """The split as other cameras `[V]` see it."""
    joints = np.asarray(data.poses.labels.joints)
    poses = dataclasses.replace(data.poses, observations=jax.device_put(rigs.film(joints, cameras)))
    return dataclasses.replace(data, poses=poses)


def run(workdir: Path, splits: list[str], quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """P1 in mm by split, rig and mean, and its ratio to the own rig's."""
    restored = evaluate.restore(workdir)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split in splits:
        data, rows = restored.splits[split], {}
        for name in list(RIGS)[: 2 if quick else None]:
            seen = filmed(data, RIGS[name](data))
            predicted = evaluate.predict(restored, seen)
            errors, mask = scoring.score(restored.info, seen, predicted, 512, rows=None)
            p1 = scoring.summarise(errors, mask, seen)["rows"]["method"]["p1"]
            rows[name] = {mean: 1000 * p1[mean] for mean in ("frames", "groups")}
            rows[name]["ratio"] = rows[name]["groups"] / rows["own"]["groups"]
            print(
                f"{split:<14}{name:<28}{rows[name]['frames']:>8.1f}{rows[name]['groups']:>8.1f}"
                f"{rows[name]['ratio']:>8.2f}",
                flush=True,
            )
        found[split] = rows
    return found


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unseen_rigs")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", default=["test_seen", "test_unseen"])
    parser.add_argument("--quick", action="store_true", help="two rigs only")
    args = parser.parse_args()
    print(f"{'split':<14}{'rig':<28}{'frames':>8}{'groups':>8}{'ratio':>8}")
    print(json.dumps({"unseen_rigs": run(args.workdir, args.splits, args.quick)}))


if __name__ == "__main__":
    main()
