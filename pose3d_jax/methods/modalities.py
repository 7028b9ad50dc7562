"""One person seen in several modalities: 2D pose, a heatmap of it, an image's features, 3D pose.

Each view of each frame is a row by itself. Its crop is exact, as if from a detector of people (the
sight of `rays.look`, `centred`); what the crop shows is not: see `Corruption`. Images are as they
are.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pose3d_jax import heatmaps, losses
from pose3d_jax.geometry import HIGHEST, safe_norm
from pose3d_jax.methods.base import MethodError
from pose3d_jax.methods.lifting import setting
from pose3d_jax.methods.monocular import Monocular, truth_of
from pose3d_jax.models import rays
from pose3d_jax.schema import Clip, Images, Observations

MODALITIES = ("points", "heatmap", "image", "pose")  # what their values are: see `Seen`
_EXTENT = 2.4  # from the root to the middle of a heatmap's outermost cells, in sizes of the pose
_LOG_2_PI = math.log(2 * math.pi)
_SHARPEST = 0.01  # deviation of a feature, at least
_UNIT = 0.5  # metres: poses about their root are shown to their encoder in these


class Seen(NamedTuple):
    """A modality's rows.

    `values` are points `[rows, joints, 2]` in sizes of the pose about its root, heatmaps `[rows,
    joints, cells, cells]`, or joints `[rows, joints, 3]` about their root, metres, as the camera
    turned to the root sees them; 0 where not `there`. Of an image they are `[rows, features]`, all
    there or none.
    """

    values: Float[Array, "rows *axes"]
    there: Float[Array, "rows joints"]  # of an image `[rows, 1]`


class Corruption(NamedTuple):
    """What befell a modality: places are moved, all together and each, and some joints are hidden.

    In sizes of the pose; by the draw alone, whether or not the observations have the joint.
    """

    shift: Float[Array, "rows 2"]  # of all joints together, as of a crop that is not quite right
    noise: Float[Array, "rows joints 2"]  # of each joint by itself
    hidden: Float[Array, "rows joints"]  # 1 behind an occluder, a disc somewhere on the body


@dataclasses.dataclass(frozen=True)
class Modal(Monocular):
    """Settings of what there is to see; methods add how it is learnt from.

    The 2D pose and the heatmap show the same points, each corrupted by draws of its own, or by the
    same with `corruption="same"` (the control in which there is nothing to be gained from having
    both). 2D and 3D joints are as likely as exp(-d / s) of their distance d from what is said, s
    per joint; a heatmap counts as `counts` draws from the one that is said, each of a cell; which
    joints a modality has, as a Bernoulli each (of the 3D pose: given). An image's features are
    Gaussian about what is said, each with a deviation of its own; `Observations.images` holds them.
    Poses are in the axes of a camera turned to the root's keypoint, whatever square an image shows.
    """

    modalities: str = "points,heatmap,pose"  # that there are at all
    features: int = setting(128, least=1, below=100_000)  # of an image
    cells: int = setting(8, least=2, below=1000)  # of a heatmap, across
    blur: float = setting(0.6, above=0)  # cells: sigma of a heatmap's peaks
    counts: float = setting(30.0, above=0)
    corruption: str = "independent"  # or "same"
    shift: float = setting(0.1, least=0)  # standard deviations, sizes of the pose
    noise: float = setting(0.06, least=0)
    occluded: float = setting(0.7, least=0, most=1)  # share of rows with an occluder
    radius: float = setting(0.8, least=0)  # of it, sizes of the pose

    def __post_init__(self) -> None:
        """Raises `MethodError` for what there is not, and for two joint sets."""
        super().__post_init__()
        if self.corruption not in ("independent", "same"):
            raise MethodError(
                f"no corruption is named {self.corruption!r}; there are independent, same"
            )
        for name in split_names(self.modalities):
            if name not in MODALITIES:
                raise MethodError(
                    f"no modality is named {name!r}; there are {', '.join(MODALITIES)}"
                )
        if "pose" not in self.names:
            raise MethodError("modalities must hold pose, which is what is predicted")

    @property
    def needs_images(self) -> bool:
        """See `base.needs_images_of`."""
        return "image" in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities that there are, in the order of `MODALITIES`."""
        return tuple(name for name in MODALITIES if name in split_names(self.modalities))

    def corruptions(
        self, places: Float[Array, "rows joints 2"], key: Key[Array, ""]
    ) -> dict[str, Corruption]:
        """Of the 2D pose and of the heatmap of these exact places."""
        rows, joints = places.shape[:2]

        def drawn(key: Key[Array, ""]) -> Corruption:
            normal_key, uniform_key = jax.random.split(key)
            normal = jax.random.normal(normal_key, (rows, joints + 2, 2))
            chance = jax.random.uniform(uniform_key, (rows, 2))
            number = jnp.minimum((chance[:, :1] * joints).astype(jnp.int32), joints - 1)
            centre = jnp.take_along_axis(places, number[..., None], axis=1)
            centre = centre + 0.5 * self.radius * normal[:, :1]
            close = safe_norm(places - centre) < self.radius
            there = chance[:, 1:] < self.occluded
            return Corruption(
                self.shift * normal[:, 1],
                self.noise * normal[:, 2:],
                (close & there).astype(places.dtype),
            )

        keys = jax.random.split(key)
        both = jax.vmap(drawn)(keys[jnp.zeros(2, jnp.int32)] if self.corruption == "same" else keys)
        return {
            name: jax.tree.map(lambda x, i=i: x[i], both)
            for i, name in enumerate(("points", "heatmap"))
        }

    def observe(
        self,
        observations: Observations,
        sight: rays.Sight,
        key: Key[Array, ""],
        names: tuple[str, ...] | None = None,
    ) -> dict[str, Seen]:
        """The modalities that are observed, `[B, T, V]` and its sight, corrupted by the key.

        `names`: which; by default all that there are. Raises `MethodError` where images are one of
        them and have no features, or not as many.
        """
        names = self.names if names is None else names
        places, visible = rows_of(sight.relative), rows_of(sight.visible)
        found = {}
        for name, corruption in self.corruptions(places, key).items():
            there = visible * (1 - corruption.hidden)
            moved = places + corruption.shift[:, None] + corruption.noise
            values = moved if name == "points" else self.heatmap(moved)
            mask = there.reshape(*there.shape, *[1] * (values.ndim - 2))
            found[name] = Seen(values * mask, there)
        if "image" in names:
            images = self._images(observations)
            there = (rows_of(images.square[..., 2:]) > 0).astype(jnp.float32)
            found["image"] = Seen(rows_of(images.features) * there, there)
        return {name: found[name] for name in names if name in found}

    def _images(self, observations: Observations) -> Images:
        """See `observe`."""
        images = observations.images
        if images is None:
            raise MethodError(
                "the modality image is made of features of images, and the data has none; add them "
                "with data_prep.picture_features or data_prep.features"
            )
        if images.features.shape[-1] != self.features:
            raise MethodError(
                f"the data has {images.features.shape[-1]} features of an image, and the method "
                f"expects {self.features}; set config.method.features"
            )
        return images

    def heatmap(
        self, places: Float[Array, "*rows joints 2"]
    ) -> Float[Array, "*rows joints cells cells"]:
        """A heatmap of places in sizes of the pose."""
        across = (self.cells - 1) / 2
        points = (places / _EXTENT + 1) * across
        return heatmaps.render(points, (self.cells, self.cells), self.blur)

    def peaks(self, heatmap: Float[Array, "*rows joints cells cells"]) -> Array:
        """Where heatmaps have their mean, in sizes of the pose `[*rows, joints, 2]`."""
        across = (self.cells - 1) / 2
        return (heatmaps.expected(heatmap) / across - 1) * _EXTENT

    def labelled(self, clip: Clip, sight: rays.Sight) -> Seen:
        """The 3D pose, from labels."""
        joints, valid = truth_of(clip, self.root)
        valid = valid * sight.seen[..., None]
        relative = joints - joints[..., self.root : self.root + 1, :]
        turned = jnp.einsum("...ij,...nj->...ni", sight.turn, relative, precision=HIGHEST)
        return Seen(rows_of(turned * valid[..., None]), rows_of(valid))

    def likelihood(
        self,
        name: str,
        said: Float[Array, "rows size"],
        seen: Seen,
        log_scale: Float[Array, "scales"] | None,
    ) -> Float[Array, "rows"]:
        """log p of a modality given what its decoder said."""
        own, logit = self.read(name, said)
        there = seen.there
        if name == "image":
            assert log_scale is not None
            # A feature that is always the same would be worth ever more.
            scale = jnp.maximum(log_scale[None], math.log(_SHARPEST))
            away = (own - seen.values) * jnp.exp(-scale)
            return there[:, 0] * jnp.sum(-0.5 * (away**2 + _LOG_2_PI) - scale, axis=-1)
        if name == "heatmap":
            total = jnp.sum(seen.values, axis=(-2, -1), keepdims=True)
            shares = seen.values / jnp.maximum(total, 1e-6)
            found = self.counts * jnp.sum(shares * own, axis=(-2, -1))
        else:
            assert log_scale is not None
            scale = log_scale[None]
            away = losses.distance(own, seen.values) * jnp.exp(-scale)
            # exp(-d / s) has the integral 2 pi s^2 over the plane, 8 pi s^3 over space.
            constant = math.log(8 * math.pi if name == "pose" else 2 * math.pi)
            found = -away - own.shape[-1] * scale - constant
        if name == "pose":
            there = there.at[:, self.root].set(0.0)  # where the pose is measured from
        found = jnp.where(there > 0, found, 0.0)
        if logit is not None:
            found = found + jax.nn.log_sigmoid(jnp.where(there > 0, logit, -logit))
        return jnp.sum(found, axis=-1)

    def read(self, name: str, said: Float[Array, "*rows size"]) -> tuple[Array, Array | None]:
        """What a decoder said: values (of a heatmap the logs of its shares), whether joints are
        there (logits; of the pose and of an image none)."""
        if name == "image":
            return said, None
        said = said.reshape(*said.shape[:-1], self.info.joint_skeleton.size, -1)
        if name == "pose":
            joints = self.reach * jnp.tanh(said)
            return joints - joints[..., self.root : self.root + 1, :], None
        own, logit = said[..., :-1], said[..., -1]
        if name == "heatmap":
            log_shares = jax.nn.log_softmax(own, axis=-1)
            own = log_shares.reshape(*own.shape[:-1], self.cells, self.cells)
        return own, logit


def rows_of(x: Float[Array, "batch time views *rest"]) -> Float[Array, "rows *rest"]:
    """Each view of each frame as a row."""
    return x.reshape(-1, *x.shape[3:])


def split_names(text: str) -> tuple[str, ...]:
    """The parts of a text with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def features_of(name: str, seen: Seen) -> Float[Array, "rows features"]:
    """What an encoder is shown."""
    rows, parts = seen.there.shape  # joints; an image is one
    values = seen.values / _UNIT if name == "pose" else seen.values
    flat = values.reshape(rows, parts, -1) * seen.there[..., None]
    return jnp.concatenate([flat, seen.there[..., None]], axis=-1).reshape(rows, -1)
