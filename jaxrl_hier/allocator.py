"""What glibc does with freed memory, which on a CPU can cost more than the arithmetic."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_BLOCK, _MOST_KEPT = 1 << 30, (1 << 31) - 1  # bytes


def keep_freed_memory() -> bool:
    """Keep freed blocks in the process, up to 2 GiB, instead of giving them back to the system; whether that was done.

    XLA's products of matrices on a CPU allocate blocks in every call; those above 128 KiB are by default mapped, zeroed
    and unmapped each time. Kept, five vmapped learners of HIRO run 3.2 times as fast, one 300 wide 1.4 times, programs
    without such products as before. On Linux with glibc alone; who has set its MALLOC_… variables or tunables is left
    with them.
    """
    set_by_user = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    mallopt = None if set_by_user or os.name != "posix" else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(M_TRIM_THRESHOLD, _MOST_KEPT))
