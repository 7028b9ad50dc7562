"""The strict set-up of the whole suite: fake devices, no rank promotion, warnings are errors."""

import atexit
import gc
import os
import shutil
import tempfile

# Before jax starts: four devices on one processor, so that every test can use several; and quick
# compilation, which is most of the suite.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ["JAX_PLATFORMS"] = "cpu"
# What one test has compiled the others need not, in whatever process; the process that made the
# folder removes it when it ends.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="pose3d_jax_compiled")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Before SciPy starts, whose LAPACK XLA uses: workers that share cores must not fight over threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest
from filelock import FileLock

# Compiled programs and their traces are many objects that live on; looking through them again and
# again takes long.
gc.set_threshold(100_000, 20, 100)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The files that take longest. They come first, so that no worker is left alone with one.
_LONG = (
    "test_meshes", "test_train", "test_resume", "test_image", "test_dynamics", "test_adapt",
    "test_warmstart", "test_adversarial", "test_hrnet", "test_references", "test_nrsfm",
    "test_variational", "test_multimodal", "test_bundle", "test_offsets", "test_fitting",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """What several files start from, made by the worker that first needs it; nobody writes in it.

    `once(name, make)` is the folder that `make(folder)` has left.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made(name, make):
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                make(root / f"{name}.part")
                (root / f"{name}.part").rename(root / name)
        return root / name

    return made


# Imported where they are used: before pytest is configured, annotations would not be checked.
@pytest.fixture(scope="session")
def synthetic_set(once):
    """A few short clips of synthetic people."""
    from data_prep import synthetic

    arguments = ["--scale", "0.02", "--output"]
    return once("synthetic", lambda folder: synthetic.main([*arguments, str(folder)]))


@pytest.fixture(scope="session")
def demo_run(once, synthetic_set):
    """`demo_run(method)`: the work directory of a few steps of the demo on that set."""
    from configs.demo import get_config
    from pose3d_jax import train

    def run(method):
        config = get_config(f"{method}-tiny")
        config.data.path = str(synthetic_set)
        return once(f"demo_{method}", lambda folder: train.run(config, folder))

    return run
