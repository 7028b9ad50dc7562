"""Where programs that were compiled before are kept."""

import os
import platform
from pathlib import Path

import jax

# One folder per machine, since they may fit its processor alone.
_FOLDER = Path("~/.cache/pose3d_jax").expanduser() / platform.node()


def keep() -> None:
    """Keeps compiled programs on disk; where JAX's own variable says so, else in `~/.cache`."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(_FOLDER))
        # Small programs too: there are hundreds of them, and together they take as long.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
