"""Deep non-rigid structure from motion, and what it found distilled into a lifter."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import losses
from pose3d_jax.collapse import relief
from pose3d_jax.geometry import safe_norm
from pose3d_jax.losses import Term
from pose3d_jax.methods import nrsfm
from pose3d_jax.methods.base import EVALUATION, Aux, Batch, Group, Mode, Variables
from pose3d_jax.methods.lifting import setting, shown
from pose3d_jax.methods.monocular import Monocular, stand_in
from pose3d_jax.models import nrsfm as models
from pose3d_jax.models import rays
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.schema import Observations, Prediction


@dataclasses.dataclass(frozen=True)
class DeepNRSfM(Monocular):
    """Kong and Lucey, "Deep Non-Rigid Structure from Motion" (ICCV 2019): sparse codes, a camera.

    Terms, in sizes of the pose: `orthographic` and `perspective`, the error of the projection, and
    our prior `depth`, all as in `C3DPO`, with which it shares the choice among cameras and the sign
    of depths. See `models.nrsfm.Dictionaries`. What it makes of disturbed points is projected onto
    the undisturbed ones.
    """

    name: ClassVar[str] = "deep_nrsfm"
    cameras: int = setting(8, least=1, below=100)  # to choose from
    dictionary: int = setting(128, least=1, below=100_000)  # size of the first
    levels: int = setting(4, least=1, below=10)  # dictionaries, each half as large as the former
    huber: float = setting(0.01, above=0)  # sizes of the pose
    groups: tuple[Group, ...] = (
        Group("teacher", ("teacher",), ("orthographic", "perspective", "depth")),
    )

    @property
    def teacher(self) -> models.Dictionaries:
        """The network that factorises."""
        sizes = tuple(max(self.dictionary >> level, 1) for level in range(self.levels))
        joints = self.info.joint_skeleton.size
        return models.Dictionaries(joints, self.root, self.cameras, sizes, self.dtype)

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        sight = nrsfm.rows(self.see(batch["main"].observations))
        variables = self.teacher.init(key, sight.relative)
        return {collection: {"teacher": tree} for collection, tree in variables.items()}

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
        if not group.terms:  # a phase of the other group's
            return {}, Aux({}, {})
        whole, sight = self._sights(batch)
        posed, collections = self.factorised(variables, sight, mode)
        if "shown" in batch:
            posed = nrsfm.carried(posed, sight, whole)
        seen = (whole.seen * sight.seen)[:, None]
        terms = {}
        for projection in nrsfm.PROJECTIONS:
            if projection in group.terms:
                off = nrsfm.projected(posed, whole, projection) - whole.relative
                error = losses.pseudo_huber(safe_norm(off), self.huber)
                terms[projection] = losses.weighted_term(error, whole.visible * seen)
        weight = jnp.broadcast_to(seen, posed.shape[:2])
        terms["depth"] = losses.weighted_term(posed[..., 2] ** 2, weight)
        diagnostics = {"relief": relief(posed, weight[:, 0], self.root, BATCH_AXIS)}
        return {name: terms[name] for name in group.terms}, Aux(collections, diagnostics)

    def _sights(self, batch: Batch) -> tuple[rays.Sight, rays.Sight]:
        """Rows of what there is to see, and of what of it a network is shown."""
        whole = nrsfm.rows(self.see(batch["main"].observations))
        return whole, nrsfm.rows(self.see(shown(batch))) if "shown" in batch else whole

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        sight = self.see(observations)
        posed, _ = self.factorised(variables, nrsfm.rows(sight), EVALUATION)
        joints = nrsfm.placed(posed, sight, self.root, self.root_depth)
        return Prediction(joints, space="up_to_scale")

    def factorised(
        self, variables: Variables, sight: rays.Sight, mode: Mode
    ) -> tuple[Float[Array, "rows joints 3"], Variables]:
        """Poses about their root, in sizes of the pose, and the statistics after the call."""
        own = {collection: tree["teacher"] for collection, tree in variables.items()}
        found: Any = self.teacher.apply(own, sight.relative)
        shape, cameras = found
        posed = nrsfm.best(shape, cameras, sight)
        told = (nrsfm.sign_errors(posed, sight), sight.seen) if mode.statistics("teacher") else ()
        sign, new = self.teacher.apply(own, *told, method="sign", mutable=["batch_stats"])
        collections = {collection: {"teacher": tree} for collection, tree in new.items()}
        return nrsfm.flipped(posed, sign), collections


@dataclasses.dataclass(frozen=True)
class Distilled(DeepNRSfM):
    """`DeepNRSfM` as the teacher, trained first, and a student that lifts.

    The student's term is `distilled`, in sizes of the pose: how far its joints are from where the
    teacher finds them in the clean points, while the student may be shown disturbed ones. Of joints
    that it is shown it says the depths alone, of the others how far aside they are, too.
    Wang et al., "Distill Knowledge from NRSfM for Weakly Supervised 3D Pose Learning" (ICCV 2019),
    whose student sees images, and who solve for the teacher's codes anew together with the
    student's depths, so that a weak teacher's errors cost less; here its reconstruction stands as
    it is. `predict` is the student's.
    """

    name: ClassVar[str] = "distilled"
    groups: tuple[Group, ...] = (
        *DeepNRSfM.groups,
        Group("student", ("student",), ("distilled",)),
    )

    @property
    def student(self) -> models.Offsets:
        """The network that lifts."""
        return models.Offsets(self.info.joint_skeleton.size, self.width, self.blocks, self.dtype)

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`."""
        teacher_key, student_key = jax.random.split(key)
        variables = super().init(teacher_key, batch)
        sight = nrsfm.rows(self.see(batch["main"].observations))
        student = self.student.init(
            student_key, sight.relative, sight.where, sight.visible, update=False
        )
        return {name: {**variables[name], "student": tree} for name, tree in student.items()}

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
        if "distilled" not in group.terms:
            return super().terms(variables, batch, key, step, group=group, mode=mode)
        whole, sight = self._sights(batch)
        posed, _ = self.factorised(variables, whole, EVALUATION)
        if "shown" in batch:
            posed = nrsfm.carried(posed, whole, sight)
        found, collections = self._lifted(variables, sight, mode)
        off = found - jax.lax.stop_gradient(posed)
        # Both about what stands for the root; where a joint is seen, its point says the rest.
        aside = off[..., :2] - stand_in(off[..., :2], sight.visible, sight.point_seen)
        aside = aside * (1.0 - sight.visible)[..., None]
        error = jnp.abs(off[..., 2]) + safe_norm(aside)
        weight = jnp.broadcast_to((whole.seen * sight.seen)[:, None], error.shape)
        diagnostics = {"relief": relief(found, weight[:, 0], self.root, BATCH_AXIS)}
        return {"distilled": losses.weighted_term(error, weight)}, Aux(collections, diagnostics)

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        sight = self.see(observations)
        flat = nrsfm.rows(sight)
        posed, _ = self._lifted(variables, flat, EVALUATION)
        joints = nrsfm.placed(posed, sight, self.root, self.root_depth)
        return Prediction(joints, space="up_to_scale")

    def _lifted(
        self, variables: Variables, sight: rays.Sight, mode: Mode
    ) -> tuple[Float[Array, "rows joints 3"], Variables]:
        """The student's poses about their root, in sizes of the pose, seen joints where they are
        seen; and its statistics after the call."""
        own = {collection: tree["student"] for collection, tree in variables.items()}
        update = mode.statistics("student")
        said, new = self.student.apply(
            own, sight.relative, sight.where, sight.visible, update=update, mutable=["batch_stats"]
        )
        seen = jnp.concatenate([sight.relative, said[..., 2:]], axis=-1)
        posed = jnp.where(sight.visible[..., None] > 0, seen, said)
        posed = posed - posed[:, self.root : self.root + 1]
        return posed, {collection: {"student": tree} for collection, tree in new.items()}
