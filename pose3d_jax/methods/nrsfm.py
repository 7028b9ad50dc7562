"""Lifting as non-rigid structure from motion: one view's 2D points alone, no 3D of any kind."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import losses
from pose3d_jax.collapse import relief
from pose3d_jax.geometry import HIGHEST, quaternion_to_matrix, safe_divide, safe_norm
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, Mode, Variables
from pose3d_jax.methods.lifting import setting, shown
from pose3d_jax.methods.monocular import Monocular, stand_in
from pose3d_jax.models import nrsfm as models
from pose3d_jax.models import rays
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Observations, Prediction

PROJECTIONS = ("perspective", "orthographic")
# Of the depth at the root: nearer than that no joint is projected.
_NEAREST = 0.2


@dataclasses.dataclass(frozen=True)
class C3DPO(Monocular):
    """Novotny et al., "C3DPO" (ICCV 2019): each view's points are a shape, seen by a camera.

    Terms, in sizes of the pose: `orthographic` and `perspective`, the error of the projection
    (section 3.3, pseudo-Huber, of what is visible) by cameras of weak perspective and of known
    focal length; `canonical` (section 4: a shape turned at random must be brought back, so that no
    two shapes are one, turned). In training, coefficients and camera come from points that are
    turned in the image by different angles, as in the authors' code.

    Ours are two priors, without which large depths and small turns explain the points of people as
    well as the truth does: `depth`, the squared distances from the image plane through the root,
    and `deformation`, those of joints from where the mean shape has them. And cameras: several to
    choose from, which begin all around the vertical; the points themselves say which.

    Weak perspective has no sign of depth, and perspective barely. What fits the points better, over
    the batches of training, decides, so that `orthographic` goes before `perspective`.
    """

    shapes: int = setting(10, least=1, below=1000)  # in the basis, beside the mean
    cameras: int = setting(8, least=1, below=100)  # to choose from
    turn: float = setting(22.5, least=0, below=180)  # degrees, in training
    samples: int = setting(1, least=1, below=100)  # random rotations of a shape
    huber: float = setting(0.01, above=0)  # sizes of the pose
    groups: tuple[Group, ...] = (
        Group(
            "c3dpo",
            ("c3dpo",),
            ("orthographic", "perspective", "canonical", "deformation", "depth"),
        ),
    )

    @property
    def model(self) -> models.C3DPO:
        """The networks, made from the settings and the skeletons."""
        return models.C3DPO(
            joints=self.info.joint_skeleton.size,
            root=self.root,
            shapes=self.shapes,
            cameras=self.cameras,
            width=self.width,
            blocks=self.blocks,
            dtype=self.dtype,
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        sight = rows(self.see(batch["main"].observations))
        variables = self.model.init(key, sight.relative, sight.where, sight.visible, update=False)
        return {collection: {"c3dpo": tree} for collection, tree in variables.items()}

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
        sight = rows(self.see(shown(batch)))
        update = mode.statistics("c3dpo")
        turn_key, rotation_key = jax.random.split(key)
        collections = variables

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal collections
            out, new = self._apply(collections, *args, **kwargs)
            collections = {**collections, **new}
            return out

        angles = jnp.zeros((2, len(sight.seen)))
        if mode.training:
            angles = jnp.deg2rad(self.turn) * jax.random.uniform(
                turn_key, angles.shape, minval=-1.0, maxval=1.0
            )
        first = _about_axis(sight.relative, angles[0])
        second = _about_axis(first, angles[1])
        both = [jnp.concatenate([x, x]) for x in (sight.where, sight.visible)]
        coefficients, cameras = call(jnp.concatenate([first, second]), *both, update=update)
        coefficients = coefficients[len(first) :]
        shape = call(coefficients, method="shape")
        # Of the cameras, the one that fits best; the points that it is to fit are given.
        turned = dataclasses.replace(sight, relative=first)
        posed = best(shape, cameras[: len(first)], turned)
        posed = posed.at[..., :2].set(_about_axis(posed[..., :2], -angles[0]))

        terms = {}
        told = (sign_errors(posed, sight), sight.seen) if update else ()
        sign = call(*told, method="sign")
        for projection in PROJECTIONS:
            if projection in group.terms:
                off = projected(flipped(posed, sign), sight, projection) - sight.relative
                error = losses.pseudo_huber(safe_norm(off), self.huber)
                terms[projection] = losses.weighted_term(error, sight.visible)
        if "deformation" in group.terms:
            error = call(coefficients, method="deformation")
            weight = jnp.broadcast_to(sight.seen[:, None], error.shape)
            terms["deformation"] = losses.weighted_term(error, weight)
        if "depth" in group.terms:
            weight = jnp.broadcast_to(sight.seen[:, None], posed.shape[:2])
            terms["depth"] = losses.weighted_term(posed[..., 2] ** 2, weight)
        diagnostics = {"relief": relief(posed, sight.seen, self.root, BATCH_AXIS)}
        if "canonical" in group.terms:
            shape, seen = (jnp.concatenate([x] * self.samples) for x in (shape, sight.seen))
            random = quaternion_to_matrix(jax.random.normal(rotation_key, (len(shape), 4)))
            back = call(_turned(shape, random), seen, update=update, method="canonicalise")
            error = losses.pseudo_huber(safe_norm(back - shape), self.huber)
            weight = jnp.broadcast_to(seen[:, None], error.shape)
            terms["canonical"] = losses.weighted_term(error, weight)
        new = {name: tree for name, tree in collections.items() if name != "params"}
        return {name: terms[name] for name in group.terms}, Aux(new, diagnostics)

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        sight = self.see(observations)
        flat = rows(sight)
        (coefficients, cameras), _ = self._apply(
            variables, flat.relative, flat.where, flat.visible, update=False
        )
        shape, _ = self._apply(variables, coefficients, method="shape")
        sign, _ = self._apply(variables, method="sign")
        posed = flipped(best(shape, cameras, flat), sign)
        return Prediction(placed(posed, sight, self.root, self.root_depth), space="up_to_scale")

    def _apply(self, variables: Variables, *args: Any, **kwargs: Any) -> tuple[Any, Variables]:
        """What the networks give, and their statistics after the call."""
        own = {collection: tree["c3dpo"] for collection, tree in variables.items()}
        out, new = self.model.apply(own, *args, mutable=["batch_stats"], **kwargs)
        return out, {collection: {"c3dpo": tree} for collection, tree in new.items()}


def rows(sight: rays.Sight) -> rays.Sight:
    """A sight of views `[rows]`."""
    axes = sight.seen.ndim
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:]), sight)


def best(
    shape: Float[Array, "rows joints 3"],
    cameras: Float[Array, "rows cameras 3 3"],
    sight: rays.Sight,
) -> Float[Array, "rows joints 3"]:
    """Shapes, each turned by the one of its cameras that fits the points best."""
    posed = jnp.einsum("rmij,rnj->mrni", cameras, shape, precision=HIGHEST)

    def error(posed: Float[Array, "rows joints 3"]) -> Float[Array, "rows"]:
        off = projected(posed, sight, "orthographic") - sight.relative
        return jnp.sum(jnp.sum(off**2, axis=-1) * sight.visible, axis=-1)

    chosen = jnp.argmin(jax.vmap(error)(posed), axis=0)
    return jnp.take_along_axis(posed, chosen[None, :, None, None], axis=0)[0]


def flipped(
    posed: Float[Array, "rows joints 3"], sign: Float[Array, ""] | float
) -> Float[Array, "rows joints 3"]:
    """Poses with the sign of their depths changed where it is -1."""
    return posed.at[..., 2].multiply(sign)


def projected(
    posed: Float[Array, "rows joints 3"], sight: rays.Sight, projection: str
) -> Float[Array, "rows joints 2"]:
    """Where a turned camera sees poses about their root, in sizes of the pose: `Sight.relative`.

    Where the root itself is not seen, what is stands for it, as it does in the sight: the best
    translation in closed form.
    """
    points = posed[..., :2]
    if projection == "perspective":
        # The root's depth is 1 / spread sizes of the pose, spread being that on the plane z = 1.
        spread = (rays.SPREAD / sight.far)[..., None]
        points = points / jnp.maximum(1 + spread * posed[..., 2:], _NEAREST)
    return points - stand_in(points, sight.visible, sight.point_seen)


def carried(
    posed: Float[Array, "rows joints 3"], there: rays.Sight, here: rays.Sight
) -> Float[Array, "rows joints 3"]:
    """Poses of one sight as another of the same views has them: in its turned camera and sizes."""
    turn = jnp.einsum("rij,rkj->rik", here.turn, there.turn, precision=HIGHEST)
    size = safe_divide(here.far, there.far)[..., None]
    return size * jnp.einsum("rij,rnj->rni", turn, posed, precision=HIGHEST)


def sign_errors(posed: Float[Array, "rows joints 3"], sight: rays.Sight) -> Float[Array, "rows 2"]:
    """Mean squared errors of the perspective projection of poses as they are, and turned round."""
    posed = jax.lax.stop_gradient(posed)

    def error(sign: float) -> Float[Array, "rows"]:
        off = projected(flipped(posed, sign), sight, "perspective") - sight.relative
        squares = jnp.sum(off**2, axis=-1) * sight.visible
        return safe_divide(jnp.sum(squares, axis=-1), jnp.sum(sight.visible, axis=-1))

    return jnp.stack([error(1.0), error(-1.0)], axis=-1)


def placed(
    posed: Float[Array, "rows joints 3"], sight: rays.Sight, root: int, root_depth: float
) -> Float[Array, "*views joints 3"]:
    """Camera-frame joints of poses in sizes of the pose: see `rays.on_rays`.

    The root is at `root_depth` metres, times the sight's factor.
    """
    posed = posed.reshape(*sight.seen.shape, *posed.shape[1:])
    aside = stand_in(posed[..., :2], sight.visible, sight.point_seen)[..., 0, :]
    offsets = (
        (root_depth * rays.SPREAD * posed).at[..., root, :2].set(-root_depth * rays.SPREAD * aside)
    )
    return rays.on_rays(offsets, root_depth * sight.far, sight, root=root)


def _turned(
    shape: Float[Array, "rows joints 3"], rotation: Float[Array, "rows 3 3"]
) -> Float[Array, "rows joints 3"]:
    return jnp.einsum("rij,rnj->rni", rotation, shape, precision=HIGHEST)


def _about_axis(
    points: Float[Array, "rows joints 2"], angle: Float[Array, "rows"]
) -> Float[Array, "rows joints 2"]:
    """Points turned about the origin, radians."""
    c, s = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    x, y = points[..., 0], points[..., 1]
    return jnp.stack([c * x - s * y, s * x + c * y], axis=-1)
