"""Freed memory on a CPU, which glibc by default gives back to the system: that can cost more than the arithmetic."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as mallopt calls them
_LARGEST_BLOCK, _MOST_KEPT = 1 << 30, (1 << 31) - 1  # bytes

# variables that ask the same of glibc in another process
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(_LARGEST_BLOCK), "MALLOC_TRIM_THRESHOLD_": str(_MOST_KEPT)}
OPT_OUT = "JAXRL_HIER_KEEP_FREED_MEMORY"  # "0": leave glibc as it is


def keep_freed_memory() -> bool:
    """Make this process keep freed blocks, up to 2 GiB, instead of giving them back to the system.

    XLA's matrix products on a CPU allocate blocks in every call; by default large ones are mapped, zeroed and unmapped
    each time (`python -m benchmarks throughput freed_memory`). `jaxrl_hier.train` and the command line call this;
    importing the package does not.

    Returns:
        Whether it was done: on Linux with glibc, unless one of glibc's own variables sets a threshold or
        JAXRL_HIER_KEEP_FREED_MEMORY=0.
    """
    chosen = any(name in os.environ for name in ENVIRONMENT) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or os.environ.get(OPT_OUT) == "0" or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # an old glibc refuses the first, and then nothing has changed
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
