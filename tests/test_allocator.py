"""Freed memory stays in the process, unless the user has said otherwise."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource
import jaxrl_hier
import numpy as np

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.zeros(1 << 22).fill(1.0)  # 32 MiB: up to there glibc keeps what it has seen freed
before = faults()
for _ in range(10):
    np.empty(1 << 22).fill(1.0)
print(faults() - before)
"""


def can_be_asked() -> bool:
    """Whether this system has a mallopt that takes a threshold (M_MMAP_THRESHOLD) of 1 GiB, as newer glibc does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(-3, 1 << 30) == 1


@pytest.mark.skipif(not can_be_asked(), reason="this system's allocator cannot be asked to keep memory")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_blocks_are_kept_and_not_faulted_in_again(kept):
    env = {"NUMPY_MADVISE_HUGEPAGE": "0"} | ({} if kept else {"JAXRL_HIER_KEEP_FREED_MEMORY": "0"})
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=env)
    faults, pages = int(done.stdout), 10 * 32 * 2**20 // 4096
    assert faults < pages // 100 if kept else faults > pages // 2
