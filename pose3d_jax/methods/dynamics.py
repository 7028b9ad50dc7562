"""A body and its past and future from a clip, or from one frame: HMMR (Kanazawa et al. 2019)."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from pose3d_jax import figure as figures
from pose3d_jax import losses
from pose3d_jax.geometry import HIGHEST, axes_to_matrix, axis_angle_to_matrix
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, Info, MethodError, Mode, Variables
from pose3d_jax.methods.bodies import (
    Said,
    compared,
    compared_around,
    critic_terms,
    distance,
    fooled,
    jolted,
    pick,
    placed,
    present_tiers,
    target_of,
    tiers,
    unlike,
)
from pose3d_jax.methods.fronts import ImageFront, KeypointFront
from pose3d_jax.methods.lifting import need_one_joint_set, setting
from pose3d_jax.models.critic import BodyCritic
from pose3d_jax.models.crop import Crop
from pose3d_jax.models.dynamics import CAMERA, Dynamics
from pose3d_jax.schema import Observations, Prediction

_FRONT = np.diag([1.0, -1.0, -1.0]).astype(np.float32)  # a person who faces the camera, upright
_REST = {"vector": (0.0, 0.0, 0.0), "axes": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)}
_FRONTS = ("keypoints", "features")
_TERMS = (
    *("keypoints", "joints", "parameters", "fool", "shape", "constant", "acceleration"),
    *("keypoints_around", "joints_around", "parameters_around", "fool_around"),
    *("hallucinate", "keypoints_frame", "joints_frame", "parameters_frame"),
    *("keypoints_around_frame", "joints_around_frame", "parameters_around_frame"),
)


@dataclasses.dataclass(frozen=True)
class HMMR:
    """Kanazawa et al., "Learning 3D Human Dynamics from Video" (CVPR 2019, arXiv 1812.01601).

    Each view by itself: 2D keypoints in a crop that follows the person, to features, these over
    time to a movie strip, that to camera, pose and shape by iterated feedback, and with the pose to
    the poses `step` frames before and after. The hallucinator makes a strip from one frame. With
    `front="features"` the features are of the frames' images, which the data has
    (`data_prep/features.py`); one dense layer brings them to `width` where they are not as many.

    The crop is a camera turned to the middle of the points, in sizes of their spread, both smoothed
    over the clip's frames if `temporal` (in training moved by `jitter`, the same for a clip's
    frames); so what is said does not depend on where in the image a person is. Features of images
    have the crop that they were taken in, which nothing moves. Rotations are two vectors each
    (`rotation="axes"`, continuous) or rotation vectors as published.

    Streams: `main` (3D joints and bodies where labelled; networks are shown what the phase's
    disturbance makes of it), and where there are such `annotated` and `pseudo`, whose labels count
    as well if they have any.

    Terms (of frames in which anything is seen): `keypoints` (absolute error on the crop, by
    confidence), `joints` (squares, of those about the root), `parameters` (squares, of rotation
    matrices and shape), `fool` (least squares, of the critic's opinions), `shape` (squares),
    `constant` (variance of the shape in a clip), `acceleration` (ours: distance of the joints'
    second differences in time, where three frames have 3D). `_around`: of the poses before and
    after, with the present shape and the best weak-perspective camera. `hallucinate`: squares,
    between the hallucinator's strip and the encoder's; neither this nor the features learn from it.
    `_frame`: of what is said from the hallucinator's strip alone, in a crop of that frame. Terms of
    the critic: `fake` and `real`.
    """

    name: ClassVar[str] = "dynamics"
    info: Info
    body: str = ""  # a file of SMPL's layout: see figure.load
    front: str = "keypoints"  # what is seen of a frame; or "features", those of its image
    temporal: bool = True  # False: of each frame by itself
    around: bool = True  # whether past and future are said, too
    rotation: str = "axes"
    step: int = setting(5, least=1, below=7)  # frames to the poses around
    width: int = setting(2048, least=32, below=100_000)
    hidden: int = setting(1024, least=1, below=100_000)
    iterations: int = setting(3, least=1, below=10)  # of the feedback
    critic_width: int = setting(1024, least=1, below=100_000)
    dropout: float = setting(0.5, least=0, below=1)
    spread: float = setting(0.0, least=0, below=100)  # frames: see TemporalEncoder
    smooth: float = setting(2.0, above=0)  # frames, of the crop about keypoints
    jitter: float = setting(0.1, least=0, below=1)  # of the crop's place and log size, at most

    def __post_init__(self) -> None:
        """Raises `MethodError` for joint sets that differ, and settings that do not fit."""
        need_one_joint_set(self.info, self.name)
        if self.rotation not in _REST:
            raise MethodError(
                f"method dynamics: rotation is {self.rotation!r}; there are {', '.join(_REST)}"
            )
        if not self.body:
            raise MethodError(
                "method dynamics needs a body; set config.method.body to a file of SMPL's layout "
                "(data_prep.open_body makes one)"
            )
        if self.front not in _FRONTS:
            raise MethodError(
                f"method dynamics: front is {self.front!r}; there are {', '.join(_FRONTS)}"
            )
        if self.needs_images and self.jitter:
            raise MethodError(
                f"method dynamics: jitter is {self.jitter}, but features of images were taken in "
                f"crops that nothing moves; set config.method.jitter to 0"
            )
        if self.width % 32:
            raise MethodError(f"method dynamics: width is {self.width}; give a multiple of 32")

    @property
    def groups(self) -> tuple[Group, ...]:
        """See `Method.groups`."""
        return (
            Group("critic", ("critic",), ("fake", "real")),
            Group("body", (*self._front.paths, "dynamics"), _TERMS),
        )

    @property
    def needs_images(self) -> bool:
        """See `base.needs_images_of`."""
        return self.front == "features"

    @property
    def context(self) -> tuple[int, int]:
        """See `base.context_of`: three blocks of two convolutions see six frames to either side."""
        return (6, 6) if self.temporal else (0, 0)

    @property
    def figure(self) -> figures.Figure:
        """The body's keypoints."""
        return figures.load(self.body, self.info.joint_skeleton)

    @property
    def dtype(self) -> Any:
        """What the networks compute in."""
        return jnp.dtype(self.info.precision)

    @property
    def _front(self) -> KeypointFront | ImageFront:
        if self.needs_images:
            return ImageFront()
        keypoints = self.info.keypoint_skeleton.size
        return KeypointFront(keypoints, self.width, self.jitter, self.dtype)

    @property
    def _nets(self) -> tuple[Dynamics, BodyCritic]:
        body = self.figure.body
        dynamics = Dynamics(
            joints=body.size,
            rest=_REST[self.rotation],
            components=body.components,
            steps=(-self.step, self.step),
            width=self.width,
            hidden=self.hidden,
            iterations=self.iterations,
            dropout=self.dropout,
            spread=self.spread,
            dtype=self.dtype,
        )
        return dynamics, BodyCritic(self.critic_width, dtype=self.dtype)

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """See `Method.init`. Raises `MethodError` where features of images are not there."""
        dynamics, critic = self._nets
        keys = jax.random.split(key, 3)
        body = self.figure.body
        given = jnp.zeros(
            (1, 1, self._front.count({name: batch[name] for name in present_tiers(batch)}))
        )

        def all_of_it(model: Dynamics) -> Array:
            strips = model.strips(model.project(given), jnp.ones((1, 1)))
            strips = strips + model.hallucinate(strips)
            theta = model.body(strips, deterministic=True)
            return model.around(strips, theta, deterministic=True)

        turns, shape = jnp.zeros((1, body.size, 3, 3)), jnp.zeros((1, body.components))
        return {
            "params": {
                **self._front.init(keys[0]),
                "dynamics": dynamics.init(keys[1], method=all_of_it)["params"],
                "critic": critic.init(keys[2], turns, shape)["params"],
            }
        }

    # ------------------------------------------------------------------------------- what is said

    def crop(
        self,
        observations: Observations,
        key: Key[Array, ""] | None = None,
        *,
        alone: bool = False,
    ) -> Crop:
        """The crop that shows the people in observations `[B, T, V, ...]`; jittered by a key.

        `alone`: each frame by itself, as it always is without time.
        """
        smooth = self.smooth if self.temporal and not alone else 0.0
        return self._front.crop(observations, smooth, key)

    def features(
        self, variables: Variables, observations: Observations, area: Crop
    ) -> Float[Array, "rows time width"]:
        """Of each frame by itself; rows are views of clips."""
        params = variables["params"]
        found = self._front.features(params, observations, area)
        own = params["dynamics"]
        known = own["projection"]["kernel"].shape[0] if "projection" in own else self.width
        if found.shape[-1] != known:
            raise MethodError(
                f"method dynamics learnt from {known} features of a frame, and is given "
                f"{found.shape[-1]}; make them with the same weights"
            )
        projected: Any = self._nets[0].apply({"params": own}, found, method="project")
        return projected

    def strips(
        self, variables: Variables, observations: Observations, area: Crop
    ) -> Float[Array, "rows time width"]:
        """Movie strips of the frames that are predicted; without time their features."""
        features = self.features(variables, observations, area)
        if not self.temporal:
            return features
        mask = self._front.mask(observations)
        own = {"params": variables["params"]["dynamics"]}
        strips: Any = self._nets[0].apply(own, features, mask, method="strips")
        return self._predicted(strips)

    def hallucinate(
        self, variables: Variables, observations: Observations, area: Crop
    ) -> Float[Array, "rows time width"]:
        """Movie strips of the frames that are predicted, from each by itself.

        `area` must be of each frame by itself, too. The features do not learn from it.
        """
        features = jax.lax.stop_gradient(self.features(variables, observations, area))
        own = {"params": variables["params"]["dynamics"]}
        strips: Any = self._nets[0].apply(own, features, method="hallucinate")
        return self._predicted(strips)

    def _predicted(self, x: Float[Array, "rows time width"]) -> Float[Array, "rows frames width"]:
        before, after = self.context
        return x[:, before : x.shape[1] - after]

    def say(
        self,
        variables: Variables,
        strips: Float[Array, "*frames width"],
        key: Key[Array, ""] | None = None,
        *,
        around: bool = False,
    ) -> Said:
        """Bodies of strips `[1, *frames, ...]`; with `around` 3: now, before, and after.

        Those before and after have the present camera and shape. With a key, dropout.
        """
        dynamics = self._nets[0]
        rngs = None if key is None else {"dropout": key}
        own, still = {"params": variables["params"]["dynamics"]}, key is None
        theta: Any = dynamics.apply(own, strips, deterministic=still, rngs=rngs, method="body")
        theta = theta.astype(jnp.float32)
        poses = theta[None, ..., CAMERA : CAMERA + dynamics.pose_size]
        if around:
            beside: Any = dynamics.apply(
                own, strips, theta, deterministic=still, rngs=rngs, method="around"
            )
            beside = jnp.moveaxis(beside.astype(jnp.float32), -2, 0)
            poses = jnp.concatenate([poses, beside])
        camera, shape = (
            jnp.broadcast_to(x, (*poses.shape[:-1], x.shape[-1]))
            for x in (theta[..., :CAMERA], theta[..., CAMERA + dynamics.pose_size :])
        )
        each = poses.reshape(*poses.shape[:-1], self.figure.body.size, -1)
        turns = (axes_to_matrix if self.rotation == "axes" else axis_angle_to_matrix)(each)
        root = jnp.einsum("...ij,jk->...ik", turns[..., 0, :, :], _FRONT, precision=HIGHEST)
        turns = turns.at[..., 0, :, :].set(root)
        joints = self.figure.pose(turns, shape)
        root_joint = self.info.joint_skeleton.root
        return Said(camera, turns, shape, joints - joints[..., root_joint : root_joint + 1, :])

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """See `Method.predict`; deterministic, whatever the key."""
        del key
        area = self.crop(observations)
        strips = self.strips(variables, observations, area)
        now = pick(self.say(variables, strips), 0)
        return Prediction(joints=self.placed(now, area), space="absolute")

    def placed(self, said: Said, area: Crop) -> Float[Array, "batch time views joints 3"]:
        """Camera-frame joints, metres, of what is said of the frames that are predicted."""
        before, after = self.context
        return placed(said, jax.tree.map(lambda x: x[:, before : x.shape[1] - after], area))

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
        """See `Method.terms`. Raises `MethodError` where the stream `main` has no bodies."""
        crop_key, drop_key = jax.random.split(key)
        seen, clip = tiers(batch, self.figure.body, self.body)
        root = self.info.joint_skeleton.root
        area = self.crop(seen, crop_key if mode.training else None)
        strips = self.strips(variables, seen, area)
        target = target_of(clip, area, root)
        frames, before = strips.shape[1], self.context[0]
        steps = (-self.step, self.step)
        around = self.temporal and self.around
        around &= group.name == "critic" or any("_around" in term for term in group.terms)
        alone = any(t == "hallucinate" or t.endswith("_frame") for t in group.terms)
        sources = strips[None]
        own = area
        if alone and self.temporal:
            own = self.crop(seen, crop_key if mode.training else None, alone=True)
            sources = jnp.stack([strips, self.hallucinate(variables, seen, own)])
        said = self.say(variables, sources, drop_key if mode.dropout else None, around=around)
        whole = jax.tree.map(lambda x: x[:, 0], said)
        now, beside = pick(whole, 0), jax.tree.map(lambda x: x[1:], whole)
        present = target.at(before, frames)
        there = present.there
        judge = functools.partial(self._opinions, variables)
        if group.name == "critic":
            return critic_terms(judge, whole, present), Aux({}, {})

        found = compared(now, present)
        found["fool"] = fooled(judge, now, there)
        large = jnp.mean(now.shape**2, axis=-1)
        found["shape"] = losses.weighted_term(large, there)
        found["constant"] = losses.weighted_term(unlike(now.shape, there), there)
        found["acceleration"] = jolted(now, present)
        if around:
            found |= compared_around(beside, target, before, frames, steps)
            found["fool_around"] = fooled(judge, beside, there)
        if len(sources) > 1:
            away = jnp.mean((sources[1] - jax.lax.stop_gradient(strips)) ** 2, axis=-1)
            found["hallucinate"] = losses.weighted_term(away, there)
            other = target_of(clip, own, root)
            one = jax.tree.map(lambda x: x[0, 1], said)
            of_frame = compared(one, other.at(before, frames))
            if around:
                of_frame |= compared_around(
                    jax.tree.map(lambda x: x[1:, 1], said), other, before, frames, steps
                )
            found |= {f"{name}_frame": term for name, term in of_frame.items()}
        missing = sorted(set(group.terms) - set(found))
        if missing:
            raise MethodError(
                f"method dynamics: without its setting temporal (and around) there is no "
                f"{', '.join(missing)}; set it, or leave the term out of the weights"
            )
        diagnostics = {"mpjpe": distance(now, present)}
        return {name: found[name] for name in group.terms}, Aux({}, diagnostics)

    def _opinions(
        self,
        variables: Variables,
        rotations: Float[Array, "*frames parts 3 3"],
        shape: Float[Array, "*frames components"],
    ) -> Float[Array, "*frames critics"]:
        own = {"params": variables["params"]["critic"]}
        found: Any = self._nets[1].apply(own, rotations, shape)
        return found
