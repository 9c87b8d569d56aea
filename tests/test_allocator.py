"""Freed memory stays in the process, unless the user has said otherwise."""

import subprocess
import sys

import pytest

from jaxrl_hier.allocator import keep_freed_memory

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


@pytest.mark.skipif(not keep_freed_memory(), reason="this system's allocator cannot be asked to keep memory")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_blocks_are_kept_and_not_faulted_in_again(kept):
    env = {"NUMPY_MADVISE_HUGEPAGE": "0"} | ({} if kept else {"JAXRL_HIER_KEEP_FREED_MEMORY": "0"})
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=env)
    faults, pages = int(done.stdout), 10 * 32 * 2**20 // 4096
    assert faults < pages // 100 if kept else faults > pages // 2
