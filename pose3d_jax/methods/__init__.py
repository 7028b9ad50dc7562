"""The training methods by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pose3d_jax.methods.base import Info, Method, MethodError
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.methods.supervised import Supervised

METHODS: dict[str, type] = {"supervised": Supervised, "multiview": MultiView}


def create(config: Mapping[str, Any], info: Info) -> Method:
    """The method `config["name"]` with the config's other keys as its settings.

    Raises `MethodError` for an unknown name or setting, listing what there is.
    """
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in METHODS:
        raise MethodError(f"no method is named {name!r}; there are {', '.join(METHODS)}")
    method = METHODS[name]
    known = [f.name for f in dataclasses.fields(method) if f.name not in ("info", "groups")]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise MethodError(
            f"method {name} has no setting {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return method(info=info, **settings)
