"""The training methods by name."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from pose3d_jax.methods.adversarial import Kudo
from pose3d_jax.methods.base import Info, Method, MethodError
from pose3d_jax.methods.chen import Chen
from pose3d_jax.methods.distilled import DeepNRSfM, Distilled
from pose3d_jax.methods.dynamics import HMMR
from pose3d_jax.methods.fused import Fused
from pose3d_jax.methods.image import ImageTo3D
from pose3d_jax.methods.multimodal import Multimodal
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.methods.nrsfm import C3DPO
from pose3d_jax.methods.repnet import RepNet
from pose3d_jax.methods.root import Root
from pose3d_jax.methods.semisupervised import SemiSupervised
from pose3d_jax.methods.supervised import Supervised
from pose3d_jax.methods.variational import Variational

METHODS: dict[str, type] = {
    "supervised": Supervised,
    "multiview": MultiView,
    "semisupervised": SemiSupervised,
    "fused": Fused,
    "c3dpo": C3DPO,
    "chen": Chen,
    "deep_nrsfm": DeepNRSfM,
    "distilled": Distilled,
    "dynamics": HMMR,
    "image": ImageTo3D,
    "kudo": Kudo,
    "multimodal": Multimodal,
    "repnet": RepNet,
    "root": Root,
    "variational": Variational,
}


def create(config: Mapping[str, Any], info: Info) -> Method:
    """The method `config["name"]` with the config's other keys as its settings.

    Raises `MethodError` for an unknown name or setting, listing what there is, and for a value of
    another type than the setting's, or out of its bounds.
    """
    settings = dict(config)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        raise MethodError(f"no method is named {name!r}; there are {', '.join(METHODS)}")
    method = METHODS[name]
    known = {f.name: f for f in dataclasses.fields(method) if f.name not in ("info", "groups")}
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise MethodError(
            f"method {name} has no setting {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return method(
        info=info, **{key: _checked(name, known[key], value) for key, value in settings.items()}
    )


_TYPES: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "True or False",
}
_MOST = float(np.finfo(np.float32).max)
_BOUNDS = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
    "most": ("at most", operator.le),
}


def _checked(method: str, field: dataclasses.Field, value: Any) -> Any:
    """The value, if it has the field's type and is within its bounds; else a `MethodError`."""
    if field.type is float and type(value) is int and abs(value) <= _MOST:
        value = float(value)  # a whole number will do where any number does
    fits = type(value) is field.type  # True is an int to `isinstance`
    fits = fits and (field.type is not float or abs(value) <= _MOST)
    fits = fits and all(_BOUNDS[bound][1](value, at) for bound, at in field.metadata.items())
    if not fits:
        bounds = "".join(f", {_BOUNDS[bound][0]} {at}" for bound, at in field.metadata.items())
        raise MethodError(
            f"method {method}: {field.name} is {value!r}; it must be {_TYPES[field.type]}{bounds}"
        )
    return value
