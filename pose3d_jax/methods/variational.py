"""Lifting as a distribution: a conditional variational auto-encoder of 3D poses given 2D ones."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import bounds, losses
from pose3d_jax.geometry import HIGHEST
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, MethodError, Mode, Variables
from pose3d_jax.methods.lifting import normalised_points, setting, shown
from pose3d_jax.methods.monocular import Monocular, Seen, features, to_rows, to_views, truth_of
from pose3d_jax.methods.multiview import at_seen_root, pair_weights
from pose3d_jax.models import rays
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.models.vae import KINDS, ConditionalVAE, Trunk
from pose3d_jax.schema import Observations, Prediction

_UNIT = 0.5  # metres: poses about their root are shown to the encoder in these


@dataclasses.dataclass(frozen=True)
class Variational(Monocular):
    """A conditional VAE p(pose | points) (Sohn et al., NeurIPS 2015), view by view.

    What z does not say is how far a joint is from where the decoder has it: by a distance that
    falls off as exp(-d / s), with a scale s per joint that is learnt. So the reconstruction is the
    mean per-joint position error, weighed in nats, and beta = 1 is the evidence lower bound.

    Terms, in nats per pose: `pose` (reconstruction, given z from the encoder), `kl` (divergence of
    the encoder's z from N(0, I); see `bounds.free_bits`), `energy` (of two draws of z from N(0, I),
    the mean distance of joints from the truth less half of that from each other, in scales: a
    proper score of what is drawn at test, which the bound trains only by way of the encoder;
    Gneiting and Raftery, JASA 2007, section 4.3), and `reprojection`, which takes the
    place of `pose` where there are no labels: what all calibrated views see of the joints, its own
    among them, moved to where they see the root together. Encoder, `energy` and `root` then have
    the stream's `joints`, which are triangulated (`streams.main.joints = "dlt"`). `root` is that of
    `supervised`, metres. The energy score is of each joint by itself: how joints go together, the
    bound says.

    `predict` gives `samples` hypotheses, their mean, and the covariance of each joint about the
    root: theirs, without the density's own scales, which `energy` takes them to make up for. Joints
    that are seen lie on their rays, across which `floor` stands for what keypoints err by.
    """

    kind: str = "dense"  # of vae.KINDS
    over_time: bool = False  # convolutions see the neighbouring frames of a window
    latent: int = setting(16, least=1, below=10_000)
    samples: int = setting(50, least=2, below=100_000)
    free_bits: float = setting(0.0, least=0)  # nats
    floor: float = setting(0.005, above=0)  # metres: a pixel or so, at the distance of a person
    groups: tuple[Group, ...] = (
        Group("vae", ("vae",), ("pose", "kl", "root", "energy", "reprojection")),
    )

    def __post_init__(self) -> None:
        """Raises `MethodError` for a kind that there is not, and for two joint sets."""
        super().__post_init__()
        if self.kind not in KINDS:
            raise MethodError(f"no kind is named {self.kind!r}; there are {', '.join(KINDS)}")
        if self.over_time and self.kind != "convolution":
            raise MethodError(f"kind {self.kind} sees single frames; over_time is convolutions'")

    @property
    def model(self) -> ConditionalVAE:
        """Encoder and decoder."""
        trunk: dict[str, Any] = {
            "kind": self.kind,
            "skeleton": self.info.joint_skeleton,
            "width": self.width,
            "blocks": self.blocks,
            "over_time": self.over_time,
            "dtype": jnp.dtype(self.info.precision),
        }
        return ConditionalVAE(
            Trunk(**trunk), Trunk(**trunk), self.info.joint_skeleton.size, self.latent
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        seen = features(self.see(batch["main"].observations))
        pose = jnp.zeros((*seen.points.shape[:-1], 4))
        latent = jnp.zeros((*seen.where.shape[:-1], self.latent))

        def both(model: ConditionalVAE) -> None:
            model.encode(seen.points, pose, seen.where, seen.mask, False)
            model.decode(seen.points, latent, seen.where, seen.mask, False)

        variables = self.model.init(key, method=both)
        return {collection: {"vae": tree} for collection, tree in variables.items()}

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
        clip = batch["main"]
        sight = self.see(shown(batch))
        seen = features(sight)
        truth, valid = truth_of(clip, self.root)
        update = mode.statistics("vae")
        noise_key, prior_key = jax.random.split(key)

        views, draws = sight.seen.shape[2], 2 if "energy" in group.terms else 0

        def explain(model: ConditionalVAE) -> tuple[Array, ...]:
            pose = to_rows(self._shown_pose(truth, valid, sight))
            mean, log_variance = model.encode(seen.points, pose, seen.where, seen.mask, update)
            noise = jax.random.normal(noise_key, mean.shape)
            latent = mean + jnp.exp(log_variance / 2) * noise
            drawn = jax.random.normal(prior_key, (draws, *mean.shape))
            latents = jnp.concatenate([latent, *drawn])
            again = Seen(*(jnp.concatenate([x] * (1 + draws)) for x in seen))
            raw = model.decode(again.points, latents, again.where, again.mask, update)
            return raw, mean, log_variance, model.log_scale

        (raw, mean, log_variance, log_scale), collections = self._apply(variables, explain)
        joints, *drawn = (
            self.place(to_views(part, views), sight, depth_known=False)
            for part in jnp.split(raw, 1 + draws)
        )
        count = valid.any(axis=-1) * sight.seen  # of poses
        divergence = bounds.kl_divergence(mean, log_variance)
        freed = bounds.free_bits(divergence, seen.mask, self.free_bits, BATCH_AXIS)
        terms = {
            "pose": self._likelihood(joints, truth, valid, log_scale, count),
            "kl": losses.weighted_term(freed, seen.mask),
            "root": self._root_error(joints, truth, valid * sight.seen[..., None]),
        }
        if "energy" in group.terms:
            terms["energy"] = self._energy(drawn[0], drawn[1], truth, valid, log_scale, count)
        if "reprojection" in group.terms:
            terms["reprojection"] = self._reprojection(clip.observations, joints, log_scale)
        # A dimension that z is not told of has none: posterior collapse (Bowman et al., 2016).
        nats = (jnp.sum(divergence * seen.mask[..., None]), jnp.sum(seen.mask))
        return {name: terms[name] for name in group.terms}, Aux(collections, {"nats": nats})

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`: the mean of the hypotheses, and they."""
        sight = self.see(observations)
        rows, time = features(sight).mask.shape
        key = jax.random.key(0) if key is None else key
        latent = jax.random.normal(key, (self.samples, rows, time, self.latent))
        samples = jax.lax.map(lambda z: self._place_latent(variables, sight, z), latent)
        mean = jnp.mean(samples, axis=0)
        return Prediction(
            joints=mean,
            samples=samples,
            covariance=spread(samples, self.root)
            + self.floor**2 * jnp.eye(3)[None, None, None, None],
            space="absolute",
        )

    def _apply(self, variables: Variables, function: Any) -> tuple[Any, Variables]:
        own = {collection: tree["vae"] for collection, tree in variables.items()}
        out, collections = self.model.apply(own, method=function, mutable=["batch_stats"])
        return out, {collection: {"vae": tree} for collection, tree in collections.items()}

    def _place_latent(
        self, variables: Variables, sight: rays.Sight, latent: Float[Array, "rows time latent"]
    ) -> Float[Array, "batch time views joints 3"]:
        """The poses that z stands for, in evaluation mode."""
        seen = features(sight)

        def decode(model: ConditionalVAE) -> Array:
            return model.decode(seen.points, latent, seen.where, seen.mask, False)

        raw, _ = self._apply(variables, decode)
        return self.place(to_views(raw, sight.seen.shape[2]), sight, depth_known=False)

    def _shown_pose(
        self,
        truth: Float[Array, "batch time views joints 3"],
        valid: Float[Array, "batch time views joints"],
        sight: rays.Sight,
    ) -> Float[Array, "batch time views joints 4"]:
        """What the encoder is shown of a pose: about the root, as the turned camera sees it."""
        relative = truth - truth[..., self.root : self.root + 1, :]
        turned = jnp.einsum("...ij,...nj->...ni", sight.turn, relative, precision=HIGHEST)
        return jnp.concatenate([turned / _UNIT * valid[..., None], valid[..., None]], axis=-1)

    def _likelihood(
        self,
        joints: Float[Array, "batch time views joints 3"],
        truth: Float[Array, "batch time views joints 3"],
        valid: Float[Array, "batch time views joints"],
        log_scale: Float[Array, "joints"],
        count: Float[Array, "batch time views"],
    ) -> Term:
        """-log p of root-relative joints, per pose: density exp(-d / s) / (8 pi s^3) in 3D."""
        apart = slice(self.root, self.root + 1)
        own, wanted = (x - x[..., apart, :] for x in (joints, truth))
        known = (valid * count[..., None]).at[..., self.root].set(0.0)
        log_scale = log_scale.reshape(1, 1, 1, -1)
        away = losses.distance(own, wanted) * jnp.exp(-log_scale)
        total, _ = losses.weighted_term(away + 3 * log_scale + math.log(8 * math.pi), known)
        return total, jnp.sum(count)

    def _energy(
        self,
        first: Float[Array, "batch time views joints 3"],
        second: Float[Array, "batch time views joints 3"],
        truth: Float[Array, "batch time views joints 3"],
        valid: Float[Array, "batch time views joints"],
        log_scale: Float[Array, "joints"],
        count: Float[Array, "batch time views"],
    ) -> Term:
        """The energy score of root-relative joints, per pose, in their scales as they are now."""
        apart = slice(self.root, self.root + 1)
        a, b, wanted = (x - x[..., apart, :] for x in (first, second, truth))
        score = (
            losses.distance(a, wanted) + losses.distance(b, wanted) - losses.distance(a, b)
        ) / 2
        score = score * jax.lax.stop_gradient(jnp.exp(-log_scale)).reshape(1, 1, 1, -1)
        known = (valid * count[..., None]).at[..., self.root].set(0.0)
        return losses.weighted_term(score, known)[0], jnp.sum(count)

    def _root_error(
        self,
        joints: Float[Array, "batch time views joints 3"],
        truth: Float[Array, "batch time views joints 3"],
        valid: Float[Array, "batch time views joints"],
    ) -> Term:
        error = losses.distance(joints[..., self.root, :], truth[..., self.root, :])
        return losses.weighted_term(error, valid[..., self.root])

    def _reprojection(
        self,
        observations: Observations,
        joints: Float[Array, "batch time views joints 3"],
        log_scale: Float[Array, "joints"],
    ) -> Term:
        """-log p of all views' points, per pose: density exp(-d / s) / (2 pi s^2) in 2D.

        On the normalised plane, where s is what it is in metres at `root_depth`. The joints are
        moved to where the views see the root together: see `multiview`'s `pose`.
        """
        points = normalised_points(observations)
        placed, found = at_seen_root(observations, joints, self.root)
        seen = jax.vmap(jax.vmap(losses.projected))(observations.cameras, placed)
        log_scale = (log_scale - math.log(self.root_depth)).reshape(1, 1, 1, 1, -1)
        wanted = jnp.broadcast_to(points[:, :, None], seen.shape)
        away = losses.distance(seen, wanted) * jnp.exp(-log_scale)
        same, other, _ = pair_weights(observations)
        # The root is put where it is seen, which says nothing of its scale.
        weight = ((same + other) * found).at[..., self.root].set(0.0)
        total, _ = losses.weighted_term(away + 2 * log_scale + math.log(2 * math.pi), weight)
        return total, jnp.sum(weight.any(axis=(-2, -1)).astype(weight.dtype))


def spread(
    samples: Float[Array, "samples *batch joints 3"], root: int
) -> Float[Array, "*batch joints 3 3"]:
    """Covariance of hypotheses' joints about their root, metres squared."""
    relative = samples - samples[..., root : root + 1, :]
    off = relative - jnp.mean(relative, axis=0, keepdims=True)
    return jnp.einsum("k...i,k...j->...ij", off, off, precision=HIGHEST) / (len(samples) - 1)


def own_covariance(scale: Float[Array, "joints"], root: int) -> Float[Array, "joints 3 3"]:
    """Covariance of the density exp(-d / s) in 3D, 4 s^2 along each axis; the root's is 0."""
    variance = (4 * scale**2).at[root].set(0.0)
    return variance[:, None, None] * jnp.eye(3)[None]
