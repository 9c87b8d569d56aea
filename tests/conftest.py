"""Shared by all tests: a compilation cache that lives with the checkout, and programs that are compiled once."""

import os
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".jax_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))  # subprocesses inherit it
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# eight CPU devices, so that the sharding tests run everywhere; the level that `jaxrl_hier.jit` has on a CPU, so that
# tests may compare its programs with their own, and since it takes less time
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=2"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("MPLBACKEND", "Agg")

# after the settings above, which jax reads when it is imported
import pytest  # noqa: E402

import jaxrl_envs  # noqa: E402
import jaxrl_hier  # noqa: E402
from tests.sizes import TINY_MAML  # noqa: E402


@pytest.fixture(scope="session")
def navigation():
    return jaxrl_envs.make("navigation2d")


@pytest.fixture(scope="session")
def tiny_maml():
    return jaxrl_hier.make("maml", **TINY_MAML)
