"""What a multimodal VAE should do, as numbers: the four criteria of Shi et al., adapted to poses.

    python -m benchmarks.multimodal --data data/cmu_mv_v1 --out runs/multimodal
        [--fusions product mixture] [--split test_seen] [--steps 3000] [--seed 0] [--image 128]
        [--quick]

The criteria are those of "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep
Generative Models" (NeurIPS 2019), section 1; the modalities are those of `methods/modalities.py`:
2D pose, heatmap (corrupted by other draws than the 2D pose) and 3D pose. For each fusion networks
are trained as `configs/cmu_multimodal.py` says, of the same batches, widths and latents: on all
modalities, on the 2D pose and the 3D pose, on the heatmap and the 3D pose, and on all with the
heatmap corrupted as the 2D pose is (the control); of products also one that explains what it is
given alone, as MVAE was published. `--steps` are those of the first; the others have as many more
as their step has fewer passes through encoders and decoders (`passes`): equal compute. Everything
is measured on rows (views of every so many frames) of a split that was not trained on, with the
same corruption for all networks. Lengths in mm, or in px of a camera of focal length 1,000 px and a
person of usual size 4 m away. Generated values are means of `DRAWS` draws.

1. *Latent factorisation.* Ridge regression from the mean of q(z | x_m) (shared) and from that of
   q(w_m | x_m) (private), fitted on rows of the training split, to what is common (`pose`: the
   joints of the 3D pose) and to what is the modality's own (`shift`: by how much it is moved as a
   whole; `hidden`: which joints its occluder hides; `noise`: by how much each joint that is seen is
   moved besides, of which few numbers can tell little). Share of the variance explained, R^2.
   Good: the pose from the shared part and not from the private one, shift and hidden joints the
   other way round. Fails: private parts tell of the pose, shared ones of the corruption; a latent
   that tells nothing has 0 throughout. `margin` is the mean of pose (shared less private) and of
   shift and hidden (private less shared): 0 or less fails.
2. *Coherence of joint generation.* All parts from the prior, all modalities decoded: distance of
   the 2D pose, and of the heatmap's peaks, from the projection of the 3D pose, about the root.
   Fails: as far apart as those of unrelated draws (`shuffled`). `floor` is the distance for true
   poses (sizes and distances differ from the usual).
3. *Coherence of cross generation.* Each modality from each other: error against the truth (not the
   corrupted), beside that of the training rows' mean and of the same outputs for other rows
   (`shuffled`). Fails: no better than the mean.
4. *Synergy.* P1 of the 3D pose given both, against given one: by the network trained on all, and by
   those trained on one. `synergy` is the share by which both are better than the best with one
   alone. Fails: 0 or less. In the control there should be little or none.

With `--image` the images' features are a modality of the first network, too: of a set that has so
many of each (`data_prep.picture_features`; those of pictures that their network has learnt from are
better than those of others). Two more networks are trained, `two` without images, to which 4 then
applies, and `image` on images and the 3D pose. Features are what they are: not corrupted, and of
them only the pose is known. Their distances are in standard deviations: root mean squares over all
rows and features, beside that from the features' own means.

A network that was trained before is taken from `--out`. Ends with one line of JSON. `--quick`: a
few steps of small networks, of the first fusion alone.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from jaxtyping import Array, Float, Key

from configs import cmu_multimodal
from pose3d_jax import config as configs
from pose3d_jax import experts, methods, workdir
from pose3d_jax.data import windows
from pose3d_jax.data.poses import PoseData
from pose3d_jax.epoch import compile_epoch, replicate, unreplicate
from pose3d_jax.errors import UserError
from pose3d_jax.geometry import safe_norm
from pose3d_jax.methods.base import Info, Variables
from pose3d_jax.methods.modalities import Corruption, Seen, rows_of, split_names
from pose3d_jax.methods.multimodal import Multimodal
from pose3d_jax.models import rays
from pose3d_jax.phases import phases_of
from pose3d_jax.state import init_state
from pose3d_jax.streams import read

FUSIONS = ("product", "mixture")
NETWORKS = {  # arguments of the config
    "all": "modalities=all",
    "points": "modalities=points",
    "heatmap": "modalities=heatmap",
    "control": "modalities=all,corruption=same",
}
IMAGE = {"all": "modalities=all,image", "two": "modalities=all", "image": "modalities=image"}
PUBLISHED = "modalities=all,explain=given"  # of the product
DRAWS = 20
ROWS = 4000  # that are measured; as many for the probes
PX = 1000 * rays.SPREAD  # of a pose's size: see the docstring
PER_CALL = 250  # steps


class Rows(NamedTuple):
    """Views of frames: what there is to know of them, and what a network is shown."""

    places: Float[Array, "rows joints 2"]  # exact, sizes of the pose
    pose: Seen
    seen: dict[str, Seen]  # of the observed modalities
    corruption: dict[str, Corruption]


# ------------------------------------------------------------------------------------- training


def passes(fusion: str, modalities: int) -> int:
    """Passes through an encoder or a decoder in a step of `configs/cmu_multimodal.py`.

    A product decodes every modality from all, from each and from one subset at random; a mixture
    from two draws of each expert.
    """
    decoded = modalities + 2 if fusion == "product" else 2 * modalities
    return modalities * (1 + decoded)


def steps_of(arguments: Mapping[str, str], most: int) -> dict[str, int]:
    """Of each network, so that all take as long: `most` for those of the most modalities."""
    count = {
        name: len(split_names(cmu_multimodal.get_config(argument).method.modalities))
        for name, argument in arguments.items()
    }
    fusion = cmu_multimodal.get_config(next(iter(arguments.values()))).method.fusion
    whole = passes(fusion, max(count.values()))
    return {name: round(most * whole / passes(fusion, own)) for name, own in count.items()}


def trained(
    argument: str, data: PoseData, args: argparse.Namespace, steps: int
) -> tuple[Multimodal, Variables, float]:
    """A network of the config with this argument, and the seconds that its training took."""
    config = cmu_multimodal.get_config(argument + (",tiny" if args.quick else ""))
    config.data.path, config.seed = args.data, args.seed
    if "image" in split_names(config.method.modalities):
        config.method.features = args.image
    config = configs.complete(config)
    config["phases"] = [{**config["phases"][0], "length_steps": steps, "length_epochs": None}]
    info = Info(data.keypoint_skeleton, data.joint_skeleton, data.recordings)
    method = methods.create(config["method"], info)
    assert isinstance(method, Multimodal)
    batch_size = config["streams"]["main"]["batch_size"]
    (phase,) = phases_of(config, method, data.poses.size // batch_size)
    example = {"main": data.poses.take(jnp.zeros(1, jnp.int32))}
    start = functools.partial(init_state, method, phase, example, average=False)
    state = jax.jit(start)(jax.random.key(args.seed))
    name = "".join(c if c.isalnum() else "_" for c in argument) + f"_{args.seed}_{steps}"
    kept, said = args.out / f"{name}.msgpack", args.out / f"{name}.json"
    wanted = {"config": config, "data": data.fingerprint, "code": workdir.code_version()}
    wanted = json.dumps(wanted, sort_keys=True, default=str)
    if kept.exists() and said.exists():
        record = json.loads(said.read_text())
        if record["wanted"] == wanted:
            variables = serialization.from_bytes(state.variables, kept.read_bytes())
            return method, variables, record["seconds"]
    compiled = functools.cache(
        functools.partial(compile_epoch, method, phase, {"main": batch_size}, 1)
    )
    started = time.monotonic()
    state, done = replicate(state, 1), 0
    while done < steps:
        call = min(PER_CALL, steps - done)
        state, sums = compiled(call)(state, {"main": data.poses})
        done += call
        means = {k: float(v[0].sum() / v[1].sum()) for k, v in sums.items()}
        print(f"{argument}: step {done}, bound {-means['multimodal/bound']:.1f} nats", flush=True)
    seconds = time.monotonic() - started
    variables = unreplicate(state).variables
    args.out.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(serialization.to_bytes(variables))
    said.write_text(json.dumps({"wanted": wanted, "seconds": seconds}))
    return method, variables, seconds


# ------------------------------------------------------------------------------------- rows


def rows_from(method: Multimodal, data: PoseData, count: int, seed: int) -> Rows:
    """About `count` rows of a split, spread evenly over it, corrupted by the seed."""
    views = data.poses.observations.confidence.shape[1]
    stride = max(1, data.poses.size * views // count)
    cut = windows.cut(data, 1, stride).poses
    clip = cut.take(jnp.arange(cut.size))
    return jax.jit(functools.partial(_rows, method))(clip, jax.random.key(seed))


def _rows(method: Multimodal, clip: Any, key: Key[Array, ""]) -> Rows:
    sight = method.see(clip.observations)
    places = rows_of(sight.relative)
    return Rows(
        places=places,
        pose=method.labelled(clip, sight),
        seen=method.observe(clip.observations, sight, key),
        corruption=method.corruptions(places, key),
    )


# ------------------------------------------------------------------------------------- 1


def r_squared(
    features: np.ndarray, target: np.ndarray, other: np.ndarray, truth: np.ndarray
) -> float:
    """Share of `truth`'s variance that a ridge regression from `features` to `target` explains.

    Of all its columns together; features are standardised, the penalty is a thousandth of their
    number of rows. `features` and `target` are what it is fitted on, `other` and `truth` what it is
    scored on.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
    x, z = (features - mean) / deviation, (other - mean) / deviation
    centre = target.mean(axis=0)
    square = x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(square, x.T @ (target - centre))
    left = truth - centre - z @ weights
    spread = truth - truth.mean(axis=0)
    return float(1 - (left**2).sum() / max((spread**2).sum(), 1e-12))


def factorisation(
    method: Multimodal, variables: Variables, fit: Rows, test: Rows
) -> dict[str, dict[str, dict[str, float]]]:
    """R^2 by modality, target and part of the latent."""

    @jax.jit
    def means(rows: Rows) -> tuple[Array, Array]:
        known = method.encode(variables, {**rows.seen, "pose": rows.pose})
        shared = known.shared[0]
        if method.fusion == "product":
            only = jnp.eye(len(method.names))[:, :, None] * jnp.ones_like(known.there)[None]
            shared, _ = jax.vmap(experts.product, in_axes=(None, 0))(known, only)
        return shared, known.private[0]

    parts = [[np.asarray(x, np.float64) for x in means(rows)] for rows in (fit, test)]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for number, name in enumerate(method.names):
        targets = [_targets(rows, name) for rows in (fit, test)]
        found[name] = {}
        for target in targets[0]:
            found[name][target] = {
                part: r_squared(
                    parts[0][i][number],
                    targets[0][target],
                    parts[1][i][number],
                    targets[1][target],
                )
                for i, part in enumerate(("shared", "private"))
            }
    return found


def _targets(rows: Rows, name: str) -> dict[str, np.ndarray]:
    """What a latent may tell of a modality's rows, flat."""
    flat = lambda x: np.asarray(x, np.float64).reshape(len(x), -1)  # noqa: E731
    found = {"pose": flat(rows.pose.values)}
    if name in rows.corruption:
        own = rows.corruption[name]
        there = rows.seen[name].there
        found |= {
            "shift": flat(own.shift),
            "hidden": flat(1 - there),
            "noise": flat(own.noise * there[..., None]),
        }
    return found


def margin(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
    """See the module's docstring; of the modalities that are corrupted."""
    signs = {"pose": 1, "shift": -1, "hidden": -1}
    every = [
        signs[target] * (parts["shared"] - parts["private"])
        for targets in found.values()
        if "shift" in targets
        for target, parts in targets.items()
        if target in signs
    ]
    return float(np.mean(every))


# ------------------------------------------------------------------------------------- 2


def projected(pose: Float[Array, "rows joints 3"], method: Multimodal) -> Array:
    """Where the 3D pose is seen about its root, in its size: `[rows, joints, 2]`."""
    flat = pose[..., :2] / jnp.maximum(method.root_depth + pose[..., 2:], 0.1)
    size = jnp.sqrt(jnp.mean(jnp.sum(flat**2, axis=-1), axis=-1))
    return flat / jnp.maximum(size, 1e-6)[:, None, None]


def joint_generation(
    method: Multimodal, variables: Variables, test: Rows, seed: int
) -> dict[str, dict[str, float]]:
    """Distances from the projection of the 3D pose, px."""
    root = method.root

    @jax.jit
    def draws(key: Key[Array, ""]) -> dict[str, Array]:
        size = method.shared + method.private
        latent = jax.random.normal(key, (len(method.names), len(test.places), size))
        z = latent[0, :, : method.shared]
        values = {
            name: method.decode(variables, name, z, latent[i, :, method.shared :])
            for i, name in enumerate(method.names)
        }
        return {
            "points": values["points"],
            "heatmap": method.peaks(values["heatmap"]),
            "pose": projected(values["pose"], method),
        }

    def apart(places: Array, wanted: Array) -> float:
        about = places - places[:, root : root + 1]
        return float(PX * jnp.mean(safe_norm(about - wanted)))

    generated = draws(jax.random.key(seed))
    wanted = generated["pose"]
    found = {
        name: {
            "distance": apart(generated[name], wanted),
            "shuffled": apart(generated[name], jnp.roll(wanted, 1, axis=0)),
        }
        for name in ("points", "heatmap")
    }
    true = test.pose.there.min(axis=1) > 0
    floor = apart(test.places[true], projected(test.pose.values, method)[true])
    return {name: {**of, "floor": floor} for name, of in found.items()}


# ------------------------------------------------------------------------------------- 3 and 4


def generated(
    method: Multimodal, variables: Variables, rows: Rows, given: tuple[str, ...], wanted: str,
    seed: int,
) -> Array:  # fmt: skip
    """Mean of draws of a modality from others: places in sizes, joints in metres, or features."""
    key = jax.random.key(seed)
    seen = {**rows.seen, "pose": rows.pose}
    seen = {name: seen[name] for name in given}
    return _generated(method, given, wanted, variables, seen, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _generated(
    method: Multimodal, given: tuple[str, ...], wanted: str, variables: Variables,
    seen: dict[str, Seen], key: Key[Array, ""],
) -> Array:  # fmt: skip
    z, own = method.latents(method.encode(variables, seen), given, key, DRAWS)

    def add(total: Array, latent: tuple[Array, Array]) -> tuple[Array, None]:
        values = method.decode(variables, wanted, *latent)
        return total + (method.peaks(values) if wanted == "heatmap" else values), None

    joints = method.info.joint_skeleton.size
    shape = {"pose": (joints, 3), "image": (method.features,)}.get(wanted, (joints, 2))
    zero = jnp.zeros((z.shape[1], *shape))
    return jax.lax.scan(add, zero, (z, own[wanted]))[0] / DRAWS


def truth(wanted: str, rows: Rows) -> Array:
    """What is to be generated: of points and heatmaps the exact places."""
    if wanted in ("points", "heatmap"):
        return rows.places
    return rows.pose.values if wanted == "pose" else rows.seen[wanted].values


def error(wanted: str, found: Array, rows: Rows) -> float:
    """Mean distance from the truth: mm of the pose (P1), px of places, deviations of features."""
    true = truth(wanted, rows)
    if wanted == "pose":
        return _mean(1000 * safe_norm(found - true), rows.pose.there)
    if wanted == "image":
        there = jnp.broadcast_to(rows.seen["image"].there, true.shape)
        count = jnp.maximum(jnp.sum(there, axis=0, keepdims=True), 1.0)
        mean = jnp.sum(true * there, axis=0, keepdims=True) / count
        away, spread = (_mean((true - x) ** 2, there) for x in (found, mean))
        return (away / max(spread, 1e-12)) ** 0.5
    return _mean(PX * safe_norm(found - true), jnp.ones(true.shape[:-1]))


def _mean(x: Array, weight: Array) -> float:
    return float(jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1e-12))


def cross_generation(
    method: Multimodal, variables: Variables, fit: Rows, test: Rows, seed: int
) -> dict[str, dict[str, float]]:
    """Errors of each modality from each other."""
    found = {}
    for given in method.names:
        for wanted in method.names:
            if given == wanted:
                continue
            values = generated(method, variables, test, (given,), wanted, seed)
            mean = jnp.mean(truth(wanted, fit), axis=0)
            found[f"{given} -> {wanted}"] = {
                "error": error(wanted, values, test),
                "mean": error(wanted, jnp.broadcast_to(mean[None], values.shape), test),
                "shuffled": error(wanted, jnp.roll(values, len(values) // 2, axis=0), test),
            }
    return found


def lifting(method: Multimodal, variables: Variables, test: Rows, seed: int) -> dict[str, float]:
    """P1, mm, of the 3D pose given each modality that is observed, the first two, and all."""
    observed = tuple(name for name in method.names if name != "pose")
    groups = [(name,) for name in observed]
    groups += [observed[:count] for count in range(2, len(observed) + 1)]
    return {
        " + ".join(given): error(
            "pose", generated(method, variables, test, given, "pose", seed), test
        )
        for given in groups
    }


def synergy(both: Mapping[str, float], points: float, heatmap: float) -> dict[str, float]:
    """The share by which both are better than one, within a network and against others."""
    together = both["points + heatmap"]
    within = min(both["points"], both["heatmap"])
    against = min(within, points, heatmap)
    return {"within": 1 - together / within, "synergy": 1 - together / against}


# ------------------------------------------------------------------------------------- all


def criteria(
    fusion: str, data: PoseData, test_data: PoseData, args: argparse.Namespace
) -> dict[str, Any]:
    """The four criteria of one fusion."""
    most, count = (3, 200) if args.quick else (args.steps, ROWS)
    wanted = {**NETWORKS, **(IMAGE if args.image else {})}
    wanted |= {"published": PUBLISHED} if fusion == "product" else {}
    wanted = {name: f"fusion={fusion},{argument}" for name, argument in wanted.items()}
    steps = steps_of(wanted, most)
    networks = {
        name: trained(argument, data, args, steps[name]) for name, argument in wanted.items()
    }
    method, variables, _ = networks["all"]
    fit, test = (rows_from(method, split, count, args.seed) for split in (data, test_data))
    lifted = {}
    for name, (own, weights, _) in networks.items():
        # Networks of fewer modalities leave out others: one corruption for all but the control.
        rows = rows_from(own, test_data, count, args.seed) if name == "control" else test
        lifted[name] = lifting(own, weights, rows, args.seed)
    alone = lifted["points"]["points"], lifted["heatmap"]["heatmap"]
    parts = factorisation(method, variables, fit, test)
    return {
        "factorisation": {**parts, "margin": margin(parts)},
        "joint_generation": joint_generation(method, variables, test, args.seed),
        "cross_generation": cross_generation(method, variables, fit, test, args.seed),
        "synergy": {
            "p1_mm": lifted,
            "independent": synergy(lifted["two" if args.image else "all"], *alone),
            "same": synergy(lifted["control"], *alone),
        },
        "minutes": {name: seconds / 60 for name, (*_, seconds) in networks.items()},
    }


def said(fusion: str, found: Mapping[str, Any]) -> str:
    """The criteria of one fusion as text."""
    lines = [f"\n{fusion}", "1. latent factorisation, R^2: from the shared part, the private part"]
    for name, targets in found["factorisation"].items():
        if name != "margin":
            cells = (f"{t} {p['shared']:.2f} {p['private']:.2f}" for t, p in targets.items())
            lines.append(f"   {name:<8} " + "; ".join(cells))
    lines.append(f"   margin {found['factorisation']['margin']:.2f} (0 or less fails)")
    lines.append("2. joint generation: px from the projection of the 3D pose")
    for name, of in found["joint_generation"].items():
        lines.append(
            f"   {name:<8} {of['distance']:.1f} (shuffled {of['shuffled']:.1f}, true poses "
            f"{of['floor']:.1f})"
        )
    lines.append("3. cross generation: mm of the 3D pose, px of places, deviations of features")
    for name, of in found["cross_generation"].items():
        digits = 2 if name.endswith("image") else 1
        error, mean, shuffled = (f"{of[k]:.{digits}f}" for k in ("error", "mean", "shuffled"))
        lines.append(f"   {name:<18} {error} (mean {mean}, shuffled {shuffled})")
    lines.append("4. synergy: P1 of the 3D pose, mm")
    for name, of in found["synergy"]["p1_mm"].items():
        cells = ", ".join(f"given {given} {value:.1f}" for given, value in of.items())
        lines.append(f"   trained on {name:<8} {cells}")
    for name in ("independent", "same"):
        of = found["synergy"][name]
        lines.append(
            f"   {name} corruption: both are better than the best alone by "
            f"{100 * of['synergy']:.1f} % (within the network by {100 * of['within']:.1f} %)"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.multimodal")
    parser.add_argument("--data", default="data/cmu_mv_v1", help="CMU-MV v1, prepared")
    parser.add_argument("--out", type=Path, default=Path("runs/multimodal"))
    parser.add_argument("--fusions", nargs="+", choices=FUSIONS, default=list(FUSIONS))
    parser.add_argument("--split", default="test_seen")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", type=int, default=0, help="features of each image of the data")
    parser.add_argument("--quick", action="store_true", help="a few steps, one fusion")
    args = parser.parse_args()
    if args.quick:  # compilation is most of it; heeded as long as nothing has been computed
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
        args.fusions = args.fusions[:1]
    config = cmu_multimodal.get_config()
    config.data.path = args.data
    config = configs.complete(config)
    found = {}
    try:
        data, test = read(config, "train"), read(config, args.split)
        for fusion in args.fusions:
            found[fusion] = criteria(fusion, data, test, args)
            print(said(fusion, found[fusion]), flush=True)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    print(json.dumps({"multimodal": found}))


if __name__ == "__main__":
    main()
