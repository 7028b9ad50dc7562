"""What the methods that know one view of a person at a time have in common: its points on rays.

No rig is known and, without labels, no size: a pose is up to scale, its root as far away as a
person of a usual size would be who is seen as large.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from pose3d_jax import cameras as cam
from pose3d_jax.cameras import MIN_DEPTH
from pose3d_jax.geometry import HIGHEST, safe_divide, safe_norm
from pose3d_jax.methods.base import Info
from pose3d_jax.methods.lifting import need_one_joint_set, normalised_points, setting
from pose3d_jax.models import rays
from pose3d_jax.schema import Clip, Observations


@dataclasses.dataclass(frozen=True)
class Monocular:
    """Settings of a network that lifts each view by itself; methods add `groups` and the rest."""

    name: ClassVar[str] = ""  # in `methods.METHODS`, where that is not the class's in lower case
    info: Info
    width: int = setting(1024, least=1, below=100_000)
    blocks: int = setting(2, least=0, below=1000)
    root_depth: float = setting(4.0, above=0)  # metres
    reach: float = setting(1.5, above=0)  # metres

    def __post_init__(self) -> None:
        """The 2D and 3D joint sets must be the same: joints lie on the rays of keypoints."""
        need_one_joint_set(self.info, self.name or type(self).__name__.lower())

    @property
    def root(self) -> int:
        """Index of the root joint."""
        return self.info.joint_skeleton.root

    @property
    def dtype(self) -> Any:
        """What the networks compute in."""
        return jnp.dtype(self.info.precision)

    def look(
        self,
        points: Float[Array, "*views keypoints 2"],
        confidence: Float[Array, "*views keypoints"],
    ) -> rays.Sight:
        """What the networks are shown of normalised points: see `rays.look`."""
        return rays.look(points, confidence, self.root, centred=True)

    def see(self, observations: Observations) -> rays.Sight:
        """What the networks are shown of observations `[B, T, V, ...]`."""
        return self.look(normalised_points(observations), observations.confidence)

    def place(
        self, raw: Float[Array, "*views joints 3"], sight: rays.Sight, *, depth_known: bool
    ) -> Float[Array, "*views joints 3"]:
        """Camera-frame joints of what a network said of a sight: see `rays.place_on_rays`."""
        return rays.place_on_rays(
            raw,
            sight,
            root=self.root,
            root_depth=self.root_depth,
            reach=self.reach,
            depth_known=depth_known,
        )


def turned(
    joints: Float[Array, "*views joints 3"], rotation: Float[Array, "*views 3 3"], root: int
) -> Float[Array, "*views joints 3"]:
    """Poses turned about their root, which stays where it is."""
    centre = joints[..., root : root + 1, :]
    return centre + jnp.einsum("...ij,...nj->...ni", rotation, joints - centre, precision=HIGHEST)


def seen_from_here(joints: Float[Array, "*views joints 3"]) -> Float[Array, "*views joints 2"]:
    """Camera-frame joints on the plane z = 1; depths are held at `cameras.MIN_DEPTH` or more."""
    return joints[..., :2] / jnp.maximum(joints[..., 2:], MIN_DEPTH)


def sized(
    joints: Float[Array, "*views joints 3"],
    root: int,
    visible: Float[Array, "*views joints"] | None = None,
) -> tuple[Float[Array, "*views joints 3"], Float[Array, "*views 1 1"]]:
    """Poses about their root in sizes of their own, and those: root mean square distances from it.

    Metres in, metres out for the sizes. With `visible` these are of the joints that it counts (1
    or 0), and where it does not count the root, poses are about the mean of those.
    """
    relative = joints - joints[..., root : root + 1, :]
    if visible is None:
        counted, count = relative, jnp.asarray(relative.shape[-2] - 1.0)
    else:
        relative = relative - stand_in(relative, visible, visible[..., root, None])
        counted = relative * visible[..., None]
        count = jnp.sum(visible, axis=-1)[..., None, None] - visible[..., root, None, None]
    size = safe_norm(counted.reshape(*relative.shape[:-2], -1))[..., None, None]
    size = size / jnp.sqrt(jnp.maximum(count, 1.0))
    return safe_divide(relative, jnp.broadcast_to(size, relative.shape)), size


def stand_in(
    points: Float[Array, "*views joints axes"],
    visible: Float[Array, "*views joints"],
    root_seen: Float[Array, "*views 1"],
) -> Float[Array, "*views 1 axes"]:
    """The mean of the points that are seen where the root is not, else 0.

    What stands for the root in a sight (see `rays.look`), of points about the root.
    """
    seen = visible[..., None]
    total = jnp.sum(points * seen, axis=-2)
    mean = safe_divide(total, jnp.broadcast_to(jnp.sum(seen, axis=-2), total.shape))
    return (mean * (1.0 - root_seen))[..., None, :]


class Seen(NamedTuple):
    """A sight as networks take it that know several frames: a row for each view of each clip."""

    points: Float[Array, "rows time joints 3"]  # about the root, and 1 where visible
    where: Float[Array, "rows time others"]
    mask: Float[Array, "rows time"]


def features(sight: rays.Sight) -> Seen:
    """Of views `[B, T, V]`."""
    points = jnp.concatenate([sight.relative, sight.visible[..., None]], axis=-1)
    return Seen(to_rows(points), to_rows(sight.where), to_rows(sight.seen))


def to_rows(x: Real[Array, "batch time views *rest"]) -> Real[Array, "rows time *rest"]:
    """A row for each view of each clip."""
    batch, time, views, *rest = x.shape
    return jnp.moveaxis(x, 2, 1).reshape(batch * views, time, *rest)


def to_views(
    x: Float[Array, "rows time *rest"], views: int
) -> Float[Array, "batch time views *rest"]:
    """The inverse of `to_rows`."""
    rows, time, *rest = x.shape
    return jnp.moveaxis(x.reshape(rows // views, views, time, *rest), 1, 2)


def truth_of(
    clip: Clip, root: int
) -> tuple[Float[Array, "batch time views joints 3"], Float[Array, "batch time views joints"]]:
    """Camera-frame joints of the labels, metres, and which there are: none without the root."""
    labels, observations = clip.labels, clip.observations
    views = observations.confidence.shape[2]
    world = jnp.repeat(labels.joints[:, :, None], views, axis=2)
    truth = cam.batched(cam.to_camera)(observations.cameras, world)
    valid = jnp.repeat(labels.joints_valid[:, :, None], views, axis=2)
    return truth, valid * valid[..., root : root + 1]
