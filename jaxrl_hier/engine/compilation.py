"""Compiling whole programs, and keeping them between processes."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import jax

from jaxrl_hier.engine.threefry import TAG, usual, written_out

LEVEL_FLAG = "xla_backend_optimization_level"
LEVEL = 2  # XLA's own choice is 3


def jit(f: Callable[..., Any], *, level: int | None = None, **options: Any) -> Any:
    """`jax.jit` for whole programs, such as an algorithm's `init`, `step` or `evaluate`.

    On a CPU LLVM optimises at level 2 instead of 3 and random numbers take fewer kernels
    (`jaxrl_hier.engine.threefry`): that compiles sooner, computes the same and is about as fast
    (`python -m benchmarks.throughput.compilation`). Elsewhere it is `jax.jit`. JAX takes options for the
    compiler of the outermost `jit` alone: inside other transformations use `jax.jit`.

    Args:
        level: LLVM's optimisation level, 0 to 3; None: the one that XLA_FLAGS names, else `LEVEL`.
        options: those of `jax.jit`.
    """
    if jax.default_backend() != "cpu":
        return jax.jit(f, **options)
    if level is None and LEVEL_FLAG not in os.environ.get("XLA_FLAGS", ""):
        level = LEVEL
    if level is not None:
        options |= {"compiler_options": {LEVEL_FLAG: level}}
    return jax.jit(in_fewer_kernels(f), **options)


def in_fewer_kernels(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, to be compiled for a CPU, with the same random bits in fewer kernels (`jaxrl_hier.engine.threefry`)."""

    @wraps(f)
    def program(*args: Any, **kwargs: Any) -> Any:
        inner_args, inner_kwargs = written_out((args, kwargs))
        try:
            return usual(f(*inner_args, **inner_kwargs))
        except (TypeError, ValueError) as error:
            if TAG not in str(error):
                raise
            return f(*args, **kwargs)  # `f` mixes keys that it was given with keys that it makes from numbers

    return program


def cache_folder() -> str | None:
    """Where compiled programs are kept: JAX_COMPILATION_CACHE_DIR, or a folder in the user's cache; None if there is no
    home directory or it cannot be written."""
    if named := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return named
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(cache) / "jaxrl_hier"
        folder.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):  # Path.home() finds none; or it is nobody's to write to
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


def keep_programs(folder: str) -> None:
    """Keep programs that take half a second or more to compile in `folder` (JAX's compilation cache)."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
