"""What glibc does with freed memory, which on a CPU can cost more than the arithmetic."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as mallopt calls them
_LARGEST_BLOCK, _MOST_KEPT = 1 << 30, (1 << 31) - 1  # bytes

# the same for another process, which asks glibc in this way
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(_LARGEST_BLOCK), "MALLOC_TRIM_THRESHOLD_": str(_MOST_KEPT)}
OPT_OUT = "JAXRL_HIER_KEEP_FREED_MEMORY"  # "0": leave glibc as it is


def keep_freed_memory() -> bool:
    """Keep freed blocks in the process, up to 2 GiB, instead of giving them back to the system; whether that was done.

    XLA's products of matrices on a CPU allocate blocks in every call; large ones are by default mapped, zeroed and
    unmapped each time. What it is worth is measured by `benchmarks.throughput.freed_memory`. On Linux with glibc alone;
    nothing is done where the environment sets one of glibc's own thresholds, or JAXRL_HIER_KEEP_FREED_MEMORY=0.
    """
    chosen = any(name in os.environ for name in ENVIRONMENT) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or os.environ.get(OPT_OUT) == "0" or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # the first is refused by an old glibc, which then stays as it is
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
