"""What methods of bodies see of a frame: its keypoints or features of its image, in a crop.

Both fronts take observations `[B, T, V, ...]` and give rows of their views, clip after clip.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from pose3d_jax import cameras as cam
from pose3d_jax.methods.base import MethodError
from pose3d_jax.methods.lifting import normalised_points
from pose3d_jax.methods.monocular import to_rows
from pose3d_jax.models.crop import Crop, around, follow
from pose3d_jax.models.dynamics import KeypointEncoder
from pose3d_jax.schema import Clip, Images, Observations

# Of a square of side 1: its middle, and the corners of one a tenth as large about it.
_SHARE = 0.1
_POINTS = np.array([[0, 0], [-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32) * _SHARE / 2


@dataclasses.dataclass(frozen=True)
class KeypointFront:
    """An encoder of 2D keypoints and confidences in a crop that follows them."""

    paths: ClassVar[tuple[str, ...]] = ("front",)  # of its parameters
    keypoints: int
    width: int
    jitter: float
    dtype: Any

    @property
    def _net(self) -> KeypointEncoder:
        return KeypointEncoder(self.width, dtype=self.dtype)

    def count(self, clips: Mapping[str, Clip]) -> int:
        """How many features there are of each frame of these streams."""
        return self.width

    def init(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters, by path."""
        return {"front": self._net.init(key, jnp.zeros((1, 1, 3 * self.keypoints + 1)))["params"]}

    def crop(self, observations: Observations, smooth: float, key: Key[Array, ""] | None) -> Crop:
        """The crop that follows people; `smooth` and `key` as in `crop.follow`."""
        points, confidence = normalised_points(observations), observations.confidence
        return follow(points, confidence, smooth, self.jitter if key is not None else 0.0, key)

    def features(
        self, params: Mapping[str, Any], observations: Observations, area: Crop
    ) -> Float[Array, "rows time features"]:
        """Of each frame by itself."""
        seen = (observations.confidence > 0).astype(jnp.float32)
        points = area.place(normalised_points(observations)) * seen[..., None]
        numbers = [points.reshape(*seen.shape[:-1], -1), observations.confidence, area.size]
        rows = to_rows(jnp.concatenate(numbers, axis=-1))
        found: Any = self._net.apply({"params": params["front"]}, rows)
        return found

    def mask(self, observations: Observations) -> Float[Array, "rows time"]:
        """1 where there is anything to look at."""
        return to_rows((observations.confidence > 0).max(axis=-1).astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class ImageFront:
    """Features of images that the data has (`data_prep/features.py`), in the crops they are of.

    Its functions raise `MethodError` where there are none.
    """

    paths: ClassVar[tuple[str, ...]] = ()

    def count(self, clips: Mapping[str, Clip]) -> int:
        """See `KeypointFront`. Raises `MethodError` where streams have not as many."""
        found = {
            name: images_of(clip.observations, f"the stream {name}").features.shape[-1]
            for name, clip in clips.items()
        }
        if len(set(found.values())) > 1:
            said = ", ".join(f"{count} in the stream {name}" for name, count in found.items())
            raise MethodError(
                f"method dynamics: features of a frame are {said}; make those of all streams with "
                f"the same weights"
            )
        return next(iter(found.values()))

    def init(self, key: Key[Array, ""]) -> dict[str, Any]:
        """See `KeypointFront`."""
        return {}

    def crop(self, observations: Observations, smooth: float, key: Key[Array, ""] | None) -> Crop:
        """The crop that the features were taken in, whatever the keypoints are.

        Its middle is where the camera is turned, half its side the size.
        """
        images = images_of(observations)
        square = jnp.broadcast_to(images.square[..., None, :], (*images.square.shape[:-1], 5, 3))
        away = square[..., 2:] * jnp.broadcast_to(_POINTS, (*square.shape[:-1], 2))
        points = cam.batched(cam.normalise)(observations.cameras, square[..., :2] + away)
        middle, near = points[..., :1, :], points[..., 1:, :]
        # Near the middle: far from it, beyond the image, a lens may have no inverse.
        corners = middle + (near - middle) / _SHARE
        return around(middle[..., 0, :], corners, images.square[..., 2])

    def features(
        self, params: Mapping[str, Any], observations: Observations, area: Crop
    ) -> Float[Array, "rows time features"]:
        """See `KeypointFront`."""
        return to_rows(images_of(observations).features)

    def mask(self, observations: Observations) -> Float[Array, "rows time"]:
        """See `KeypointFront`."""
        return to_rows((images_of(observations).square[..., 2] > 0).astype(jnp.float32))


def images_of(observations: Observations, where: str = "what it is given") -> Images:
    """The features of images. Raises `MethodError`, naming `where`, if there are none."""
    if observations.images is None:
        raise MethodError(
            f"method dynamics with front=features looks at features of images, and {where} has "
            f"none; add them to the data with "
            f"data_prep.features, or set config.method.front to keypoints"
        )
    return observations.images
