"""How whole programs are compiled."""

from collections.abc import Callable
from typing import Any

import jax

LEVEL = 2  # XLA's own choice is 3


def jit(f: Callable[..., Any], *, level: int = LEVEL, **options: Any) -> Any:
    """`jax.jit` for whole programs, such as an algorithm's `init`, `step` or `evaluate`.

    On a CPU LLVM optimises at level 2 instead of 3, which takes less time to compile; what comes out is as fast
    (`python -m benchmarks.throughput.compilation`). Elsewhere it is `jax.jit`. JAX takes options for the
    compiler of the outermost `jit` alone: inside other transformations use `jax.jit`.
    """
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": level} if on_cpu else None, **options)


def keep_programs(folder: str) -> None:
    """Keep what takes half a second or more to compile in `folder`, for other processes (JAX's compilation cache)."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
