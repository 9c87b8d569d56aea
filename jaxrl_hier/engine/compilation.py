"""How whole programs are compiled."""

from collections.abc import Callable
from typing import Any

import jax

LEVEL = 2  # XLA's own choice is 3


def jit(f: Callable[..., Any], *, level: int = LEVEL, **options: Any) -> Any:
    """`jax.jit`, for programs as large as an algorithm's `init`, `step` or `evaluate`.

    On a CPU LLVM optimises at level 2 instead of 3, which compiles in a quarter to a third less time; what comes out
    is as fast, and for RL² on random processes faster (`python -m benchmarks.throughput.optimization_level`).
    Elsewhere it is `jax.jit`.
    """
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": level} if on_cpu else None, **options)
