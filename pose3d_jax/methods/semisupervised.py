"""Lifting with 3D labels of a few clips: the views of the others supervise one another."""

import dataclasses

import jax
from jaxtyping import Array, Int, Key

from pose3d_jax.losses import Term
from pose3d_jax.methods.base import Aux, Batch, Group, MethodError, Mode, Variables
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.methods.supervised import labelled

_LABELLED = {"labelled_pose": "pose", "labelled_root": "root"}


@dataclasses.dataclass(frozen=True)
class SemiSupervised(MultiView):
    """`multiview` on the stream `main`, and labels on the stream `labelled`.

    The terms of `multiview`, and `labelled_pose` and `labelled_root`: `supervised`'s, metres. Each
    stream is lifted by itself, the labelled one last; the batch's statistics are of one stream, the
    running ones follow both.
    """

    def __post_init__(self) -> None:
        """Raises `MethodError` for cameras that are learned: labels are of those as given."""
        super().__post_init__()
        if self.cameras != "given":
            raise MethodError(
                "method semisupervised has labels, which know the cameras as given; leave "
                "method.cameras at 'given'"
            )

    @property
    def groups(self) -> tuple[Group, ...]:
        """See `Method.groups`."""
        (own,) = super().groups
        return (dataclasses.replace(own, terms=(*own.terms, *_LABELLED)),)

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
        """See `Method.terms`. Raises `MethodError` where the streams lack `labelled`."""
        if "labelled" not in batch:
            raise MethodError("method semisupervised needs a stream `labelled` beside `main`")
        others, own = jax.random.split(key)
        rest = dataclasses.replace(group, terms=tuple(t for t in group.terms if t not in _LABELLED))
        terms, aux = super().terms(variables, batch, others, step, group=rest, mode=mode)
        clip = batch["labelled"]
        now = {**variables, **aux.collections}
        joints, collections = self.lift(now, clip.observations, own, mode)
        found = labelled(joints, self.lifted(clip), self.info.joint_skeleton.root)
        terms |= {name: found[term] for name, term in _LABELLED.items()}
        return {name: terms[name] for name in group.terms}, Aux(collections, {})
