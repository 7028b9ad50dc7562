"""From a picture to a 3D pose, end to end: heatmaps, where they are, and a pose autoencoder."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key, Real

from pose3d_jax import cameras as cam
from pose3d_jax import heatmaps, losses
from pose3d_jax.geometry import HIGHEST
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import (
    EVALUATION,
    Aux,
    Batch,
    Group,
    Info,
    MethodError,
    Mode,
    Variables,
)
from pose3d_jax.methods.bodies import single_views
from pose3d_jax.methods.lifting import need_one_joint_set, setting
from pose3d_jax.models import hrnet, rays
from pose3d_jax.models.autoencoder import Decoder
from pose3d_jax.models.hrnet import HRNet
from pose3d_jax.models.layers import NEAR_ZERO, Dense
from pose3d_jax.models.lifter import Lifter
from pose3d_jax.schema import Clip, Observations, Pictures, Prediction

# Streams to learn from: with 3D, and of pictures that are annotated in 2D alone.
STREAMS = ("main", "annotated")
_TARGETS = ("gaussian", "report")
_POINTS = ("expected", "flattened")
_COSTS = ("distances", "squares")
_PARTS = ("hrnet", "encoder", "decoder", "direct")
_TERMS = ("heatmap", "encoder", "decoder", "bones", "root", "points", "direct")


@struct.dataclass
class Seen:
    """What is made of pictures, row by row; a row is a view of a clip's frame."""

    heatmaps: Float[Array, "rows joints height width"]
    points: Float[Array, "rows joints 2"]  # on the square: -1 to 1 from side to side
    joints: Float[Array, "rows joints 3"]  # in the camera's axes, metres
    projected: Float[Array, "rows joints 2"]  # what the decoder makes of the joints, on the square
    # About the root, without heatmaps between, in the axes of a camera turned to the square's
    # middle by `turn`: what stands in a square does not show where in the image that is.
    direct: Float[Array, "rows joints 3"]
    turn: Float[Array, "rows 3 3"]
    there: Float[Array, "rows"]  # 1 where there is a picture


@dataclasses.dataclass(frozen=True)
class ImageTo3D:
    """Vora, "Distilling 3D Human Pose from a Single Image" (ETH Zurich).

    HRNet makes a heatmap of each joint, a soft-argmax finds where it is, a lifter (the encoder)
    says where the joints are in 3D, and the decoder where these are in the picture. All of it is
    differentiable, and learns together. The encoder knows the camera: it lifts the points' rays,
    and the root is on the ray of its point; so predictions are absolute, whatever the square.

    Terms, in the report's notation: `heatmap` (L2D, equation 1: squares, summed over the cells),
    `encoder` (Lenc, equation 6: distances of joints about the root, metres, or as the report has it
    their squares: `cost`), `decoder` (Ldec, equation 7: squares of points on the square), `bones`
    (LboneSym, equation 8). Ours: `root`, distance of the root, metres (the report knows no camera),
    `points`, distance on the square of what the soft-argmax finds (as Sun et al., "Integral Human
    Pose Regression", ECCV 2018), and `direct`, squares of what a linear layer makes of the
    network's coarsest features, about the root, which the encoder is shown, too (`told`). Which leg
    is the left one shows in heatmaps only if the network knows which way somebody faces *and* on
    which side of them a leg is, and neither gains anything by itself; 3D joints gain by the first.

    `decoder` compares with where the joints are (`cycle="truth"`), or as the report prints it with
    where the heatmaps have them (`cycle="report"`): with the skip, a decoder of zeros then is best.

    Streams: `main`, and where there is such `annotated`, pictures without 3D.
    """

    name: ClassVar[str] = "image"
    groups: ClassVar[tuple[Group, ...]] = (Group("image", _PARTS, _TERMS),)
    info: Info
    network: str = "w32"  # of hrnet.SIZES
    cells: int = setting(256, least=32, below=4096)  # pixels of a picture, to a side
    temperature: float = setting(30.0, above=0)  # inverse, of the softmax over a heatmap
    points: str = "expected"  # how a softmax becomes a point: see heatmaps
    target: str = "gaussian"  # what heatmaps should be: see heatmaps
    skip: bool = True  # from the points to the decoder's output
    told: bool = False  # the encoder is shown the joints that `direct` is about, too
    cycle: str = "truth"
    cost: str = "distances"  # of the encoder's joints
    width: int = setting(1024, least=1, below=100_000)  # of the autoencoder
    blocks: int = setting(2, least=0, below=1000)
    dropout: float = setting(0.5, least=0, below=1)
    root_depth: float = setting(4.0, above=0)  # metres
    reach: float = setting(1.5, above=0)  # metres

    def __post_init__(self) -> None:
        """Raises `MethodError` for joint sets that differ, and settings that there are not."""
        need_one_joint_set(self.info, self.name)
        known = {
            "network": tuple(hrnet.SIZES),
            "points": _POINTS,
            "target": _TARGETS,
            "cycle": ("truth", "report"),
            "cost": _COSTS,
        }
        for field, values in known.items():
            if getattr(self, field) not in values:
                raise MethodError(
                    f"method image: {field} is {getattr(self, field)!r}; there are "
                    f"{', '.join(values)}"
                )
        if self.cells % hrnet.COARSEST:
            raise MethodError(
                f"method image: cells is {self.cells}; give a multiple of {hrnet.COARSEST}"
            )

    @property
    def picture_cells(self) -> int:
        """See `base.picture_cells_of`."""
        return self.cells

    @property
    def _nets(self) -> tuple[HRNet, Lifter, Decoder, nn.Dense]:
        joints, dtype = self.info.joint_skeleton, jnp.dtype(self.info.precision)
        mlp: dict[str, Any] = {
            "width": self.width,
            "blocks": self.blocks,
            "dropout": self.dropout,
            "dtype": dtype,
        }
        lifter = Lifter(
            joints.size,
            joints.root,
            joints.root,
            root_depth=self.root_depth,
            reach=self.reach,
            centred=True,
            **mlp,
        )
        network = HRNet(joints.size, hrnet.SIZES[self.network], dtype=dtype)
        direct = Dense(3 * joints.size, kernel_init=NEAR_ZERO)
        return network, lifter, Decoder(joints.size, **mlp), direct

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        network, lifter, decoder, direct = self._nets
        keys = jax.random.split(key, 4)
        joints, one = self.info.joint_skeleton.size, jnp.ones(1)
        still: dict[str, Any] = {"dropout": False, "update_statistics": False}
        told = [jnp.zeros((1, 3 * joints))] if self.told else []
        made = {
            "hrnet": network.init(
                keys[0], jnp.zeros((1, self.cells, self.cells, 3)), one, update_statistics=False
            ),
            "encoder": lifter.init(
                keys[1], jnp.zeros((1, joints, 2)), jnp.ones((1, joints)), *told, **still
            ),
            "decoder": decoder.init(keys[2], jnp.zeros((1, joints, 3)), one, **still),
        }
        coarse = jnp.zeros((1, network.size.coarsest))
        made["direct"] = direct.init(keys[3], coarse)
        return {
            kind: {name: own[kind] for name, own in made.items() if kind in own}
            for kind in ("params", "batch_stats")
        }

    def pretrained(self, path: str) -> Variables:
        """The network that looks, of a PyTorch checkpoint, without its head: see `hrnet.load`.

        Public heads are of other joints, which may be as many.
        """
        found = hrnet.load(path, HRNet(0, hrnet.SIZES[self.network]))
        return {kind: {"hrnet": own} for kind, own in found.items()}

    # ------------------------------------------------------------------------------- what is seen

    def see(
        self, variables: Variables, observations: Observations, key: Key[Array, ""], mode: Mode
    ) -> tuple[Seen, Variables]:
        """What is made of the pictures of `[B, T, V, ...]`, and the statistics after the call."""
        pictures = pictures_of(observations)
        network, lifter, decoder, direct = self._nets
        statistics: dict[str, Any] = {}

        def run(name: str, net: Any, *given: Array, **how: Any) -> Any:
            own = {kind: tree[name] for kind, tree in variables.items()}
            found, changed = net.apply(
                own,
                *given,
                update_statistics=mode.statistics(name),
                mutable=["batch_stats"],
                **how,
            )
            statistics[name] = changed["batch_stats"]
            return found

        square = _flat(pictures.square)
        there = (square[:, 2] > 0).astype(jnp.float32)
        pixels = _flat(jnp.asarray(pictures.pixels))
        found: hrnet.Seen = run("hrnet", network, hrnet.normalised(pixels), there)
        maps = jnp.moveaxis(found.fine.astype(jnp.float32), -1, -3)
        size = maps.shape[-1]
        points = heatmaps.soft_argmax(maps, self.temperature, flattened=self.points == "flattened")
        points = 2 * (points + 0.5) / size - 1

        raw = square[:, None, :2] + points * square[:, None, 2:] / 2
        cameras = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), observations.cameras)
        with_middle = jnp.concatenate([raw, square[:, None, :2]], axis=1)
        rays_of = cam.batched(cam.normalise)(cameras, with_middle)
        normalised, middle = rays_of[:, :-1], rays_of[:, -1]
        keys = jax.random.split(key)
        confidence = jnp.broadcast_to(there[:, None], points.shape[:2])
        drop = [{"dropout": mode.dropout, "rngs": {"dropout": k}} for k in keys]
        weights = {"params": variables["params"]["direct"]}
        posed = direct.apply(weights, found.coarse.astype(jnp.float32))
        assert isinstance(posed, Array)
        told = [posed] if self.told else []
        joints = run("encoder", lifter, normalised, confidence, *told, **drop[0])
        root = self.info.joint_skeleton.root
        about = joints - joints[:, root : root + 1]
        projected = run("decoder", decoder, about, there, **drop[1])
        if self.skip:
            projected = projected + points
        posed = posed.reshape(joints.shape)
        turn = rays.towards(middle)
        made = Seen(maps, points, joints, projected, posed, turn, there)
        return made, {"batch_stats": statistics}

    def features(
        self, variables: Variables, pixels: Real[Array, "rows cells cells 3"]
    ) -> Float[Array, "rows features"]:
        """What the network that looks makes of pictures as a whole (`hrnet.Seen.coarse`)."""
        own = {kind: tree["hrnet"] for kind, tree in variables.items()}
        there = jnp.ones(len(pixels))
        shown = hrnet.normalised(pixels)
        found: Any = self._nets[0].apply(own, shown, there, update_statistics=False)
        return found.coarse.astype(jnp.float32)

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        seen, _ = self.see(variables, observations, jax.random.key(0), EVALUATION)
        shape = observations.confidence.shape[:3]
        return Prediction(
            joints=seen.joints.reshape(*shape, *seen.joints.shape[1:]), space="absolute"
        )

    # ------------------------------------------------------------------------------ what it costs

    def terms(
        self,
        variables: Variables,
        batch: Batch,
        key: Key[Array, ""],
        step: Int[Array, ""],
        *,
        group: Group,
        mode: Mode,
    ) -> tuple[dict[str, Term], Aux]:
        """See `Method.terms`."""
        clip = joined([batch[name] for name in STREAMS if name in batch])
        seen, collections = self.see(variables, clip.observations, key, mode)
        observations, labels = clip.observations, clip.labels
        square = _flat(pictures_of(observations).square)
        side = jnp.maximum(square[:, None, 2:], 1e-6)
        points = 2 * (_flat(observations.keypoints) - square[:, None, :2]) / side
        inside = (jnp.abs(points) < 1).all(axis=-1) & (seen.there[:, None] > 0)
        shown = (_flat(observations.confidence) > 0) & inside
        points, shown = jnp.where(shown[..., None], points, 0.0), shown.astype(jnp.float32)

        size = seen.heatmaps.shape[-1]
        wanted = heatmaps.targets((points + 1) / 2 * size - 0.5, size, self.target)
        off = jnp.sum((seen.heatmaps - wanted) ** 2, axis=(-2, -1))
        aim = points if self.cycle == "truth" else seen.points
        back = jnp.sum((seen.projected - aim) ** 2, axis=-1)

        root = self.info.joint_skeleton.root
        # Of the one view that each clip now has.
        world, valid = labels.joints[:, :, None], labels.joints_valid[:, :, None]
        truth = _flat(cam.batched(cam.to_camera)(observations.cameras, world))
        valid = _flat(valid) * seen.there[:, None]
        root_valid = valid[:, root]
        about, aimed = (x - x[:, root : root + 1] for x in (seen.joints, truth))
        apart = losses.distance(about, aimed)
        turned = jnp.einsum("nij,nkj->nki", seen.turn, aimed, precision=HIGHEST)
        pose_valid = (valid * root_valid[:, None]).at[:, root].set(0.0)
        found = {
            "heatmap": losses.weighted_term(off, shown),
            "encoder": losses.weighted_term(
                apart if self.cost == "distances" else apart**2, pose_valid
            ),
            "root": losses.weighted_term(
                losses.distance(seen.joints[:, root], truth[:, root]), root_valid
            ),
            "decoder": losses.weighted_term(back, shown),
            "bones": self._bones(seen.joints, seen.there),
            "points": losses.weighted_term(losses.distance(seen.points, points), shown),
            "direct": losses.weighted_term(jnp.sum((seen.direct - turned) ** 2, -1), pose_valid),
        }
        diagnostics = {
            "mpjpe": losses.weighted_term(apart, pose_valid),
            # Of the square's side.
            "box": losses.weighted_term(losses.distance(seen.points, points) / 2, shown),
        }
        return {name: found[name] for name in group.terms}, Aux(collections, diagnostics)

    def _bones(self, joints: Float[Array, "rows joints 3"], there: Float[Array, "rows"]) -> Term:
        """Squared differences of the lengths of left and right bones, metres^2."""
        skeleton = self.info.joint_skeleton
        bones, pairs = np.array(skeleton.bones), np.array(skeleton.bone_pairs)
        lengths = losses.distance(joints[:, bones[:, 0]], joints[:, bones[:, 1]])
        off = (lengths[:, pairs[:, 0]] - lengths[:, pairs[:, 1]]) ** 2
        return losses.weighted_term(off, jnp.broadcast_to(there[:, None], off.shape))


def pictures_of(observations: Observations) -> Pictures:
    """The pictures. Raises `MethodError` if there are none."""
    if observations.pictures is None or observations.pictures.pixels is None:
        raise MethodError(
            "method image looks at pictures, and the data has none; prepare such as "
            "data_prep.rendered_cmu does"
        )
    return observations.pictures


def joined(clips: list[Clip]) -> Clip:
    """The clips of several streams, one after the other, each view a clip of its own.

    Of what only some sets have, pictures alone are kept.
    """
    bare = [
        dataclasses.replace(
            clip,
            observations=dataclasses.replace(clip.observations, images=None),
            labels=dataclasses.replace(clip.labels, body=None),
        )
        for clip in clips
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *map(single_views, bare))


def _flat(x: Real[Array, "batch time views *rest"]) -> Real[Array, "rows *rest"]:
    """A row for each view of each frame."""
    return x.reshape(-1, *x.shape[3:])
