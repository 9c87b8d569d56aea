"""Shared by all tests: a compilation cache that lives with the checkout, and programs that are compiled once."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".jax_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))  # subprocesses inherit it
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Eight CPU devices, so that the sharding tests run everywhere. Nearly all time of a test is compilation, which takes a
# quarter of the time without LLVM's optimisation and without XLA's newer emitters of fused kernels (maml's step 3.6 s
# instead of 14.6, sac's 1.9 instead of 8.0). XLA ends the process at a flag that it does not know, hence the version.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("MPLBACKEND", "Agg")
# Traces make millions of objects that stay, and Python would look for cycles among them again and again.
gc.set_threshold(100_000)

# after the settings above, which jax reads when it is imported
import pytest  # noqa: E402

import jaxrl_envs  # noqa: E402
import jaxrl_hier  # noqa: E402
from tests.lanes import is_thorough  # noqa: E402
from tests.sizes import TINY_MAML  # noqa: E402


@pytest.fixture(scope="session")
def navigation():
    return jaxrl_envs.make("navigation2d")


@pytest.fixture(scope="session")
def tiny_maml():
    return jaxrl_hier.make("maml", **TINY_MAML)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    for item in items:
        if is_thorough(item.nodeid):
            item.add_marker(pytest.mark.thorough)
