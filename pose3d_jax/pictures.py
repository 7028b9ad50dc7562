"""What becomes of pictures: another light and other colours in training, mirror images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Real

from pose3d_jax import cameras as cam
from pose3d_jax.schema import Clip, Labels, Observations
from pose3d_jax.skeleton import Skeleton

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclasses.dataclass(frozen=True)
class Change:
    """How far each picture may be changed. Numbers are how far a factor may be from 1; 0 is off."""

    brightness: float = 0.0
    contrast: float = 0.0  # about the picture's mean grey
    saturation: float = 0.0
    mirror: bool = False  # every second picture: see `mirrored`


def changed(
    settings: Change, skeleton: Skeleton, joint_skeleton: Skeleton, clip: Clip, key: Key[Array, ""]
) -> Clip:
    """Clips `[B, T, ...]` with their pictures changed, each by its own draw.

    `skeleton`, `joint_skeleton`: of the keypoints and of the joints, whose left and right a mirror
    exchanges.
    """
    pictures = clip.observations.pictures
    assert pictures is not None  # see `streams.examples`
    colour, mirror = jax.random.split(key)
    pixels = recoloured(settings, pictures.pixels, colour)
    clip = dataclasses.replace(
        clip,
        observations=dataclasses.replace(
            clip.observations, pictures=dataclasses.replace(pictures, pixels=pixels)
        ),
    )
    if not settings.mirror:
        return clip
    each = jax.random.bernoulli(mirror, shape=clip.recording.shape)

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(each.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, mirrored(skeleton, joint_skeleton, clip), clip)


def recoloured(
    settings: Change, pixels: Real[Array, "batch *views height width 3"], key: Key[Array, ""]
) -> Float[Array, "batch *views height width 3"]:
    """Pictures, RGB of 0 to 255, in another light.

    Brightness, contrast and saturation are multiplied in this order, each by a factor of its own
    clip's; what leaves 0 to 255 is cut.
    """
    keys = jax.random.split(key, 3)
    over = tuple(range(pixels.ndim - 3, pixels.ndim - 1))  # height and width

    def factor(key: Key[Array, ""], most: float) -> Array:
        drawn = jax.random.uniform(key, pixels.shape[:1], minval=1 - most, maxval=1 + most)
        return drawn.reshape(-1, *[1] * (pixels.ndim - 1))

    def grey(x: Array) -> Array:
        # Not as a sum over the axis: on processors that takes a tenth of a small network's step.
        red, green, blue = (weight * x[..., i : i + 1] for i, weight in enumerate(_GREY))
        return red + green + blue

    x = pixels.astype(jnp.float32)
    if settings.brightness:
        x = x * factor(keys[0], settings.brightness)
    if settings.contrast:
        mean = jnp.mean(grey(x), axis=over, keepdims=True)
        x = mean + (x - mean) * factor(keys[1], settings.contrast)
    if settings.saturation:
        own = grey(x)
        x = own + (x - own) * factor(keys[2], settings.saturation)
    return jnp.clip(x, 0.0, 255.0)


def mirrored(skeleton: Skeleton, joint_skeleton: Skeleton, clip: Clip) -> Clip:
    """The clip in a mirror: see `mirror_image`.

    A camera that sees what is in the mirror as ours sees it is ours with its centre mirrored, too,
    and a person whose x is negated in its axes, left and right exchanged. Several views would want
    several such people: of those, nothing in 3D is labelled any more.
    """
    return dataclasses.replace(
        clip,
        observations=mirror_image(skeleton, clip.observations),
        labels=_mirrored_labels(joint_skeleton, clip),
    )


def mirror_image(skeleton: Skeleton, observations: Observations) -> Observations:
    """Pictures and keypoints in a mirror upright through the middles of their squares."""
    pictures = observations.pictures
    assert pictures is not None
    order = np.array(skeleton.mirrored)
    points, seen = observations.keypoints[..., order, :], observations.confidence[..., order]
    across = 2 * pictures.square[..., None, 0] - points[..., 0]
    points = points.at[..., 0].set(jnp.where(seen > 0, across, 0.0))
    camera = observations.cameras
    center = camera.center.at[..., 0].set(2 * pictures.square[..., 0] - camera.center[..., 0])
    tangential = camera.distortion.at[..., 3].multiply(-1)  # p2: what a lens bends sideways
    return dataclasses.replace(
        observations,
        keypoints=points,
        confidence=seen,
        cameras=dataclasses.replace(camera, center=center, distortion=tangential),
        pictures=dataclasses.replace(pictures, pixels=pictures.pixels[..., ::-1, :]),
    )


def _mirrored_labels(skeleton: Skeleton, clip: Clip) -> Labels:
    """See `mirrored`."""
    labels, cameras = clip.labels, clip.observations.cameras
    if cameras.rotation.shape[2] > 1:
        return dataclasses.replace(labels, joints_valid=jnp.zeros_like(labels.joints_valid))
    camera = jax.tree.map(lambda x: x[:, :, 0], cameras)
    seen = cam.batched(cam.to_camera)(camera, labels.joints)
    other = seen.at[..., 0].multiply(-1)
    joints = cam.batched(cam.to_world)(camera, other)
    order = np.array(skeleton.mirrored)
    return dataclasses.replace(
        labels, joints=joints[..., order, :], joints_valid=labels.joints_valid[..., order]
    )
