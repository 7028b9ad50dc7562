"""Lifting as a task of a multimodal VAE: 2D pose, heatmap, image and 3D pose on one latent.

Each view of each frame is a row by itself; what there is to see of it is in `modalities`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import bounds, experts, losses
from pose3d_jax.experts import Experts
from pose3d_jax.geometry import HIGHEST
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, MethodError, Mode, Variables
from pose3d_jax.methods.lifting import setting, shown
from pose3d_jax.methods.modalities import Modal, Seen, features_of, split_names
from pose3d_jax.methods.variational import own_covariance, spread
from pose3d_jax.models.multimodal import MultimodalVAE
from pose3d_jax.schema import Observations, Prediction

FUSIONS = ("product", "mixture")
# Initial: sizes, metres; of what pooled features of images are about.
_SCALES = {"points": 0.2, "pose": 0.1, "image": 0.3}


@dataclasses.dataclass(frozen=True)
class Multimodal(Modal):
    """A VAE of several modalities on one latent: MVAE (a product of experts) or MMVAE (a mixture).

    The modalities are the 2D pose, a heatmap of it, features of the image, and the 3D pose; all
    have a part z of the latent in common and one of their own. Points are exact: the method
    corrupts them itself (see `Modal`), in training as in `predict`, by the key that it is given.
    That is part of the task's definition, and the same for all rows that are compared.

    The term `bound`, in nats per row, is minus `experts.subsampled_elbo`, summed over the subsets
    (`fusion="product"`), or minus the mean over experts of `experts.stratified_bound`. With
    `explain="given"` a subset explains what it holds, as in MVAE; with "all" it explains the
    others, too: otherwise nothing has ever to tell a 3D pose from the 2D pose alone. `absent` is
    the share of training rows in which a modality is missing, each by itself; rows without labels
    have no 3D pose.

    `predict` lifts from the modalities named in `given`: `samples` hypotheses, their mean, and the
    covariance of each joint about the root. Joints are about a root that is on its ray at the depth
    at which a person of usual size would be seen as large (`space` is `root_relative`).
    """

    given: str = "points,heatmap"  # to `predict`
    fusion: str = "product"  # of FUSIONS
    shared: int = setting(24, least=1, below=10_000)
    private: int = setting(8, least=1, below=10_000)
    samples: int = setting(20, least=2, below=100_000)
    subsets: int = setting(1, least=0, below=100)  # that lack one at random, of a product
    explain: str = "all"  # or "given": what a product's subset is to explain
    draws: int = setting(1, least=1, below=1000)  # of each expert, of a mixture
    absent: float = setting(0.0, least=0, below=1)
    groups: tuple[Group, ...] = (Group("multimodal", ("multimodal",), ("bound",)),)

    def __post_init__(self) -> None:
        """Raises `MethodError` for what there is not, and as `Modal` does."""
        super().__post_init__()
        if self.fusion not in FUSIONS:
            raise MethodError(f"no fusion is named {self.fusion!r}; there are {', '.join(FUSIONS)}")
        if self.explain not in ("all", "given"):
            raise MethodError(f"explain is {self.explain!r}; it must be all or given")
        if not split_names(self.given):
            raise MethodError("given is empty; name what `predict` is to lift from")
        for name in split_names(self.given):
            if name == "pose" or name not in self.names:
                raise MethodError(
                    f"given holds {name!r}; `predict` can be given what is observed of modalities: "
                    f"{', '.join(n for n in self.names if n != 'pose')}"
                )

    @property
    def model(self) -> MultimodalVAE:
        """Encoders and decoders."""
        joints = self.info.joint_skeleton.size
        sizes = {
            "points": 3 * joints,
            "heatmap": (self.cells**2 + 1) * joints,
            "image": self.features,
            "pose": 3 * joints,
        }
        return MultimodalVAE(
            sizes={name: sizes[name] for name in self.names},
            scales={
                name: (_SCALES[name], self.features if name == "image" else joints)
                for name in self.names
                if name in _SCALES
            },
            shared=self.shared,
            private=self.private,
            width=self.width,
            blocks=self.blocks,
            dtype=jnp.dtype(self.info.precision),
        )

    # ---------------------------------------------------------------------- training

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        observations = batch["main"].observations
        sight = self.see(observations)
        observed = self.observe(observations, sight, key)
        seen = {**observed, "pose": self.labelled(batch["main"], sight)}
        mask = jnp.ones(len(seen["pose"].there))
        latents = (jnp.zeros((len(mask), size)) for size in (self.shared, self.private))
        z, w = latents

        def both(model: MultimodalVAE) -> None:
            for name in self.names:
                model.encode(name, features_of(name, seen[name]), mask, False)
                model.decode(name, z, w, mask, False)

        variables = self.model.init(key, method=both)
        return {collection: {"multimodal": tree} for collection, tree in variables.items()}

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
        observe_key, absent_key, bound_key = jax.random.split(key, 3)
        observations = shown(batch)
        sight = self.see(observations)
        observed = self.observe(observations, sight, observe_key)
        seen = {**observed, "pose": self.labelled(batch["main"], sight)}
        seen = self._without(seen, absent_key if mode.training else None)
        update = mode.statistics("multimodal")

        def explain(model: MultimodalVAE) -> tuple[Array, ...]:
            known = self._encode(model, seen, update)

            def likelihood(number: int, z: Array, w: Array) -> Array:
                name = self.names[number]
                draws, rows = z.shape[:2]
                mask = jnp.broadcast_to(known.there[number][None], (draws, rows)).reshape(-1)
                z, w = (x.reshape(draws * rows, -1) for x in (z, w))
                said = model.decode(name, z, w, mask, update).reshape(draws, rows, -1)
                scale = model.log_scales.get(name)
                return jax.vmap(lambda x: self.likelihood(name, x, seen[name], scale))(said)

            if self.fusion == "product":
                found, _ = experts.subsampled_elbo(
                    known,
                    likelihood,
                    bound_key,
                    self.subsets,
                    explain_all=self.explain == "all",
                )
                bound = jnp.sum(found, axis=0)
            else:
                each = experts.stratified_bound(known, likelihood, bound_key, self.draws)
                bound = jnp.sum(each, axis=0) / jnp.maximum(jnp.sum(known.there, axis=0), 1.0)
            nats = jnp.sum(bounds.kl_divergence(*known.shared), axis=-1)
            return bound, nats, known.there

        (bound, nats, there), collections = self._apply(variables, explain)
        any_there = there.max(axis=0)
        terms = {"bound": losses.weighted_term(-bound, any_there)}
        # What each expert says of z; none is posterior collapse (Bowman et al., 2016).
        told = {
            f"nats_{name}": losses.weighted_term(nats[i], there[i])
            for i, name in enumerate(self.names)
        }
        return {name: terms[name] for name in group.terms}, Aux(collections, told)

    def _without(self, seen: dict[str, Seen], key: Key[Array, ""] | None) -> dict[str, Seen]:
        """The modalities that there are, in training with a share of rows hidden."""
        rows = len(seen["pose"].there)
        kept = jnp.ones((len(self.names), rows))
        if key is not None and self.absent > 0:
            hide, which = jax.random.split(key)
            kept = jax.random.bernoulli(hide, 1 - self.absent, kept.shape).astype(kept.dtype)
            # One stays at least.
            one = jax.random.randint(which, (rows,), 0, len(self.names))
            kept = jnp.where(kept.max(axis=0) > 0, kept, jax.nn.one_hot(one, len(kept), axis=0))
        return {
            name: Seen(seen[name].values, seen[name].there * kept[i][:, None])
            for i, name in enumerate(self.names)
        }

    def _encode(
        self, model: MultimodalVAE, seen: Mapping[str, Seen], update_statistics: bool
    ) -> Experts:
        """What the encoders say; a modality that is not in `seen` is not there."""
        rows = len(next(iter(seen.values())).there)
        moments, there = [], []
        for name in self.names:
            if name in seen:
                mask = seen[name].there.max(axis=-1)
                features = features_of(name, seen[name])
                moments.append(model.encode(name, features, mask, update_statistics))
            else:
                mask = jnp.zeros(rows)
                moments.append((jnp.zeros((rows, self.shared + self.private)),) * 2)
            there.append(mask)
        mean, log_variance = (jnp.stack(x) for x in zip(*moments, strict=True))
        split = self.shared
        return Experts(
            shared=(mean[..., :split], log_variance[..., :split]),
            private=(mean[..., split:], log_variance[..., split:]),
            there=jnp.stack(there),
        )

    def _apply(self, variables: Variables, function: Any) -> tuple[Any, Variables]:
        own = {collection: tree["multimodal"] for collection, tree in variables.items()}
        out, collections = self.model.apply(own, method=function, mutable=["batch_stats"])
        return out, {collection: {"multimodal": tree} for collection, tree in collections.items()}

    # ---------------------------------------------------------------------- inference

    def encode(self, variables: Variables, seen: Mapping[str, Seen]) -> Experts:
        """What the encoders say of the modalities that are given, in evaluation mode."""
        found, _ = self._apply(variables, lambda model: self._encode(model, seen, False))
        return found

    def latents(
        self, known: Experts, given: tuple[str, ...], key: Key[Array, ""], draws: int
    ) -> tuple[Float[Array, "draws rows shared"], dict[str, Float[Array, "draws rows private"]]]:
        """Draws of z, and of each modality's own part, from the modalities that are given.

        The own part of one that is not given, or not there, is from N(0, I).
        """
        chosen = jnp.array([name in given for name in self.names], jnp.float32)
        chosen = jnp.broadcast_to(chosen[:, None], known.there.shape)
        shared_key, private_key = jax.random.split(key)
        rows = known.there.shape[1]
        if self.fusion == "product":
            noise = jax.random.normal(shared_key, (draws, rows, self.shared))
            z = experts.draw(experts.product(known, chosen), noise)
        else:
            z = experts.from_mixture(known, chosen, shared_key, draws)
        noise = jax.random.normal(private_key, (len(self.names), draws, rows, self.private))
        own = {}
        for i, name in enumerate(self.names):
            here = (chosen[i] * known.there[i])[:, None]
            mean, log_variance = (x[i] * here for x in known.private)  # without it, N(0, I)
            own[name] = experts.draw((mean, log_variance), noise[i])
        return z, own

    def decode(
        self,
        variables: Variables,
        name: str,
        shared: Float[Array, "rows shared"],
        private: Float[Array, "rows private"],
    ) -> Array:
        """The values of a modality that a latent stands for, as in `Seen`; heatmaps as shares."""
        mask = jnp.ones(len(shared))
        said, _ = self._apply(
            variables, lambda model: model.decode(name, shared, private, mask, False)
        )
        own, _ = self.read(name, said)
        return jnp.exp(own) if name == "heatmap" else own

    def generate(
        self,
        variables: Variables,
        seen: Mapping[str, Seen],
        given: tuple[str, ...],
        wanted: str,
        key: Key[Array, ""],
        draws: int,
    ) -> Float[Array, "draws rows joints *axes"]:
        """Draws of a modality from those that are given: see `decode`."""
        z, own = self.latents(self.encode(variables, seen), given, key, draws)
        return jax.lax.map(lambda latent: self.decode(variables, wanted, *latent), (z, own[wanted]))

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`: corrupted by the key, then lifted."""
        sight = self.see(observations)
        key = jax.random.key(0) if key is None else key
        corrupt_key, draw_key = jax.random.split(key)
        given = split_names(self.given)
        seen = self.observe(observations, sight, corrupt_key, given)
        found = self.generate(variables, seen, given, "pose", draw_key, self.samples)
        turned = found.reshape(self.samples, *sight.seen.shape, -1, 3)
        own = jnp.einsum("...ji,k...nj->k...ni", sight.turn, turned, precision=HIGHEST)
        depth = self.root_depth * sight.far
        centre = depth * jnp.concatenate([sight.point, jnp.ones_like(depth)], axis=-1)
        centre = jnp.einsum("...ji,...j->...i", sight.turn, centre, precision=HIGHEST)
        samples = own + centre[None, ..., None, :]
        scale = jnp.exp(variables["params"]["multimodal"]["log_scale_pose"])
        return Prediction(
            joints=jnp.mean(samples, axis=0),
            samples=samples,
            covariance=spread(samples, self.root)
            + _everywhere(own_covariance(scale, self.root), samples.ndim - 3),
            space="root_relative",
        )


def _everywhere(x: Float[Array, "joints 3 3"], axes: int) -> Array:
    return x.reshape(*[1] * axes, *x.shape)
