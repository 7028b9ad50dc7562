"""Which of a network's weights an adaptation moves: all, some layers, or a change of low rank."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Key

from pose3d_jax.errors import UserError
from pose3d_jax.geometry import HIGHEST
from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, Method, Mode, Variables
from pose3d_jax.schema import Observations, Prediction

PARTS = ("all", "last", "norms", "low_rank")
_BASE, _CHANGE = "base", "change"
_NOTHING = "config.adaptation.part is {!r}, of which the network has nothing; take another"


class PartError(UserError):
    """A part that a network does not have."""


def resting(variables: Variables, part: str, outputs: Sequence[int]) -> tuple[str, ...]:
    """Paths of the parameters that are not of the part `last` or `norms`; of `all`, none.

    `last` are the layers with so many outputs as one of `outputs`, `norms` the scales of what is
    normalised, and the shifts beside them. Raises `PartError` where a network has none.
    """
    if part == "all":
        return ()
    shapes = {path: np.shape(leaf) for path, leaf in flatten_dict(variables["params"]).items()}

    def moved(path: tuple[str, ...]) -> bool:
        module = path[:-1]
        if part == "norms":
            return (*module, "scale") in shapes
        kernel = shapes.get((*module, "kernel"))
        return kernel is not None and kernel[-1] in outputs

    chosen = {path for path in shapes if moved(path)}
    if not chosen:
        raise PartError(_NOTHING.format(part))
    return tuple("/".join(path) for path in shapes if path not in chosen)


@dataclasses.dataclass(frozen=True)
class LowRank:
    """A method whose weights stay, but for a change `a b` of every matrix, of a rank that is small.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), section 4.1: `b`
    begins at zero, so that the change does. Variables hold both; `merged` gives the method's own.
    """

    method: Method
    rank: int

    @property
    def groups(self) -> tuple[Group, ...]:
        """The method's, of whose parameters only the changes are moved."""
        return tuple(
            dataclasses.replace(group, paths=tuple(f"{_CHANGE}/{path}" for path in group.paths))
            for group in self.method.groups
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> Variables:
        """Fresh variables, whose change is zero."""
        return self.around(key, self.method.init(key, batch))

    def around(self, key: Key[Array, ""], variables: Variables) -> Variables:
        """The method's variables with a change that is zero.

        Kernels of convolutions rest. Raises `PartError` where there are no matrices.
        """
        change: dict[tuple[str, ...], Array] = {}
        matrices = {
            path: leaf
            for path, leaf in flatten_dict(variables["params"]).items()
            if path[-1] == "kernel" and leaf.ndim == 2
        }
        if not matrices:
            raise PartError(_NOTHING.format("low_rank"))
        for number, (path, leaf) in enumerate(matrices.items()):
            inputs, outputs = leaf.shape
            rank = min(self.rank, inputs, outputs)
            draw = jax.random.normal(jax.random.fold_in(key, number), (inputs, rank), leaf.dtype)
            change[(*path, "a")] = draw / jnp.sqrt(inputs)
            change[(*path, "b")] = jnp.zeros((rank, outputs), leaf.dtype)
        params = {_BASE: variables["params"], _CHANGE: unflatten_dict(change)}
        return {**variables, "params": params}

    def merged(self, variables: Variables) -> Variables:
        """The method's own variables, with the change in them."""
        base, change = (flatten_dict(variables["params"][name]) for name in (_BASE, _CHANGE))
        for path in {path[:-1] for path in change}:
            product = jnp.matmul(change[(*path, "a")], change[(*path, "b")], precision=HIGHEST)
            base[path] = base[path] + product
        return {**variables, "params": unflatten_dict(base)}

    def terms(
        self,
        variables: Variables,
        batch: Batch,
        key: Key[Array, ""],
        step: Any,
        *,
        group: Group,
        mode: Mode,
    ) -> tuple[dict[str, Term], Aux]:
        """The method's, of the merged variables."""
        own = next(g for g in self.method.groups if g.name == group.name)
        own = dataclasses.replace(own, terms=group.terms)
        return self.method.terms(self.merged(variables), batch, key, step, group=own, mode=mode)

    def predict(
        self, variables: Variables, observations: Observations, key: Key[Array, ""] | None = None
    ) -> Prediction:
        """The method's, of the merged variables."""
        return self.method.predict(self.merged(variables), observations, key)
