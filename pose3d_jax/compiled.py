"""Where programs that were compiled before are kept."""

import os
import platform
from pathlib import Path

import jax
from absl import logging


def keep() -> None:
    """Keeps compiled programs on disk; where JAX's own variable says so, else in `~/.cache`."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            home = Path("~/.cache/pose3d_jax").expanduser()
        except RuntimeError:  # a user without a home
            logging.warning("there is no home directory, so that compiled programs are not kept")
            return
        # One folder per machine, since they may fit its processor alone.
        jax.config.update("jax_compilation_cache_dir", str(home / platform.node()))
        # Small programs too: there are hundreds of them, and together they take as long.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
