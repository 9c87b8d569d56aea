"""Freed memory stays in a process that trains, unless the user says otherwise; importing the package does nothing."""

import ctypes
import os
import subprocess
import sys

import pytest

from jaxrl_hier import api
from jaxrl_hier.checks import UsageError

FAULTS = """
import resource, sys
import jaxrl_hier.allocator
import numpy as np

if "keep" in sys.argv:
    jaxrl_hier.allocator.keep_freed_memory()

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
@pytest.mark.parametrize(
    ("asked", "env", "kept"),
    [("keep", {}, True), ("keep", {"JAXRL_HIER_KEEP_FREED_MEMORY": "0"}, False), ("import", {}, False)],
)
def test_freed_blocks_are_kept_and_not_faulted_in_again(asked, env, kept):
    env = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ} | env
    env |= {"NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run([sys.executable, "-c", FAULTS, asked], capture_output=True, text=True, check=True, env=env)
    faults, pages = int(done.stdout), 10 * 32 * 2**20 // 4096
    assert faults < pages // 100 if kept else faults > pages // 2


def test_training_keeps_freed_memory(monkeypatch):
    called = []
    monkeypatch.setattr(api, "keep_freed_memory", lambda: called.append(True))
    with pytest.raises(UsageError, match="resume needs out"):
        api.train("q-learning", resume=True)
    assert called


SETTINGS = """
import os, warnings
import gymnax, jax  # gymnax changes settings of its own

before = dict(jax.config.values), dict(os.environ), list(warnings.filters)
import jaxrl_hier.api, jaxrl_hier.cli, jaxrl_hier.engine.train, jaxrl_hier.policy, jaxrl_envs
assert before == (dict(jax.config.values), dict(os.environ), list(warnings.filters))
"""


def test_an_import_leaves_the_settings_of_the_process_alone():
    subprocess.run([sys.executable, "-c", SETTINGS], check=True)
