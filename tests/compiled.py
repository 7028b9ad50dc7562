"""Modules under test with each function one program: called as it is, every operation is one."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_ARRAY = object()


def compiled(function: Callable) -> Callable:
    """`function` under `jit`; all that is no array is static."""

    @functools.cache
    def program(tree: Any, leaves: tuple) -> Callable:
        def run(arrays: list[Any]) -> Any:
            rest = iter(arrays)
            filled = [next(rest) if leaf is _ARRAY else leaf for leaf in leaves]
            args, kwargs = jax.tree.unflatten(tree, filled)
            return function(*args, **kwargs)

        return jax.jit(run)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        static = tuple(_ARRAY if a else x for x, a in zip(leaves, is_array, strict=True))
        return program(tree, static)([x for x, a in zip(leaves, is_array, strict=True) if a])

    return call


def module(plain: types.ModuleType) -> Any:
    """The module with its own functions compiled."""
    own = {
        name: compiled(value)
        for name, value in vars(plain).items()
        if inspect.isfunction(value) and value.__module__ == plain.__name__
    }
    return types.SimpleNamespace(**{**vars(plain), **own})
