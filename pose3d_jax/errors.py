"""What can go wrong in a way that the door prints as one message, without a trace."""

import importlib
from typing import Any


class UserError(ValueError):
    """What a user can cause and mend; says what is wrong, where, and what to do."""


def library(
    module: str,
    extra: str,
    what: str,
    *,
    package: str = "",
    otherwise: str = "",
    error: type[UserError] = UserError,
) -> Any:
    """A library that only an extra of this package brings.

    Args:
      module: what is imported.
      extra: of `pyproject.toml`.
      what: needs it, for the message.
      package: as pip knows it, where that is not the module's name.
      otherwise: what a user can do without it.
      error: what is raised where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        package = package or module.partition(".")[0]
        raise error(
            f"{what} needs {package}; install it (pip install {package}), or the package's extra "
            f"`{extra}`{otherwise and f', or {otherwise}'}"
        ) from missing


class NonFiniteError(RuntimeError):
    """A term or a gradient was NaN or infinite; names the step, the term and the clips."""


class Interrupted(RuntimeError):
    """A signal asked the run to end; says where it stands and how it goes on."""
