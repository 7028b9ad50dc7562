"""Lifting without 3D labels from all views at once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pose3d_jax.methods.base import MethodError, Variables
from pose3d_jax.methods.lifting import setting
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.models.fusion import FusedLifter
from pose3d_jax.models.sequence import State
from pose3d_jax.schema import Observations


@dataclasses.dataclass(frozen=True)
class Fused(MultiView):
    """`multiview`, with a network that is told in each view what the others see.

    It is for people who are filmed by several calibrated cameras at test time, too; its figures
    stand beside triangulation and not beside those of single views. In training every view is told
    of some of the others alone, as many as it falls out for each example, so that one network
    serves any number of views up to that of training. Any network of `lifting.NETWORKS`, `centred`.
    """

    centred: bool = setting(True)
    fusion_width: int = setting(256, least=1, below=100_000)  # see FusedLifter.width

    def __post_init__(self) -> None:
        """Raises `MethodError` where it is not centred, too."""
        super().__post_init__()
        if not self.centred:
            raise MethodError("method fused needs centred=True; leave it out")

    @property
    def model(self) -> FusedLifter:  # type: ignore[override]
        """The network, with what tells each view of the others."""
        return FusedLifter(
            self.view_model,
            width=self.fusion_width,
            dtype=jnp.dtype(self.info.precision),
            name="lifter",
        )

    def inputs(
        self, observations: Observations, key: Key[Array, ""] | None = None
    ) -> tuple[Any, ...]:
        """See `SingleViewLifting.inputs`; and cameras, and which views each is told of."""
        batch, _, views, _ = observations.confidence.shape
        visible = jnp.ones((batch, views, views)) if key is None else _random(key, batch, views)
        return *super().inputs(observations, key), observations.cameras, visible

    def start_stream(self, variables: Variables, views: int) -> State:
        """See `SingleViewLifting.start_stream`; raises `MethodError` but for the lifter."""
        if self.network != "lifter":
            raise MethodError("method fused has streams with network=lifter only")
        return super().start_stream(variables, views)


def _random(key: Key[Array, ""], batch: int, views: int) -> Float[Array, "batch views views"]:
    """Which views each is told of: any share of them, from none to all, as often as another."""
    share_key, drawn_key = jax.random.split(key)
    share = jax.random.uniform(share_key, (batch, views, 1))
    drawn = jax.random.uniform(drawn_key, (batch, views, views))
    return (drawn < share).astype(jnp.float32)
