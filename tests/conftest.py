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
