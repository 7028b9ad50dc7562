"""Several hosts, each a process of its own that runs the same command on the same files.

Every process holds the whole pose set, and its devices take their parts of each batch; the first
one writes what is not a checkpoint, and all save checkpoints together (in a directory they share).
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

from pose3d_jax.errors import UserError


class HostsError(UserError):
    """Processes that cannot be told apart or do not find one another; says what is asked for."""


def start(where: str) -> None:
    """Joins the processes, before JAX is used.

    `where` is `auto`, where the cluster tells (SLURM, TPU pods, Open MPI, Kubernetes), or
    `COORDINATOR:PORT,PROCESSES,INDEX`. Raises `HostsError`.
    """
    try:
        if where == "auto":
            jax.distributed.initialize()
            return
        coordinator, processes, index = where.split(",")
        count, own = int(processes), int(index)
        if not 0 <= own < count:
            raise ValueError(f"there is no process {own} of {count}")
        jax.distributed.initialize(coordinator, count, own)
    except (ValueError, RuntimeError) as error:
        raise HostsError(
            f"--hosts={where}: {error}; give `auto` on a cluster that JAX knows, else "
            f"COORDINATOR:PORT,PROCESSES,INDEX, the same on every host but for the index"
        ) from error


def devices(wanted: int) -> int:
    """Devices of a run, over all hosts, where each is to use `wanted` of its own; 0 = all.

    Raises `HostsError` where there are fewer, or where several hosts would not use all.
    """
    available = jax.local_device_count()
    own = wanted or available
    if own > available:
        raise HostsError(f"config.devices is {wanted}, but there are {available}; 0 uses all")
    if jax.process_count() > 1 and own != available:
        raise HostsError(
            f"config.devices is {wanted}, but several hosts must use all {available} of each; set "
            f"it to 0"
        )
    return own * jax.process_count()


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether any process says so; every one must ask at the same place."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def wait(place: str) -> None:
    """Until every process is at this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)
