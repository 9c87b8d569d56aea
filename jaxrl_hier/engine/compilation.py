"""Compile whole programs, and keep them between processes."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax

LEVEL_FLAG = "xla_backend_optimization_level"
LEVEL = 2  # XLA's default is 3
SEQUENTIAL = ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")


def jit(f: Callable[..., Any], *, level: int | None = None, sequential: bool = False, **options: Any) -> Any:
    """`jax.jit` for whole programs, such as an algorithm's `init`, `step` or `evaluate`.

    On a CPU, LLVM optimises at level 2 instead of 3: programs compile sooner and run about as fast
    (`python -m benchmarks throughput compilation`). Elsewhere it is `jax.jit`. JAX accepts compiler options only for
    the outermost `jit`, so use `jax.jit` inside other transformations.

    Args:
        level: LLVM's optimisation level, 0 to 3; None means the one in XLA_FLAGS or, if it has none, `LEVEL`.
        sequential: for programs of microseconds, whose operations cost less than handing them to another thread, and
            for those of several devices. A schedule that saves memory lets XLA run most operations one after the other.
            The numbers are the same.
        options: options of `jax.jit`.
    """
    if jax.default_backend() != "cpu":
        return jax.jit(f, **options)
    if level is None and LEVEL_FLAG not in os.environ.get("XLA_FLAGS", ""):
        level = LEVEL
    chosen: dict[str, Any] = {} if level is None else {LEVEL_FLAG: level}
    if sequential and _is_known(*SEQUENTIAL):
        chosen |= [SEQUENTIAL]
    if chosen:
        options |= {"compiler_options": chosen}
    return jax.jit(f, **options)


@cache
def _is_known(option: str, value: Any) -> bool:
    """Whether this version of XLA has a compiler option; jax 0.9.0 has no schedules to choose from."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def cache_folder() -> str | None:
    """The folder for compiled programs: JAX_COMPILATION_CACHE_DIR, or else a folder in the user's cache.

    None if there is no home directory or the folder is not writable.
    """
    if named := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return named
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(cache) / "jaxrl_hier"
        folder.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):  # no home directory, or no right to create the folder
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


def keep_programs(folder: str) -> None:
    """Keep programs that take half a second or more to compile in `folder` (JAX's compilation cache)."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
