"""Algorithms compute in float32 by JAX's standard promotion rules, whatever the user's JAX switches say.

Under `JAX_ENABLE_X64` every draw and constant would silently become float64, and loops over float32 states would fail;
so programs are traced without it, and compute the same bits with it. `JAX_NUMPY_RANK_PROMOTION` and
`JAX_NUMPY_DTYPE_PROMOTION` guard a user's own code, neither ours nor that of the libraries below us.
`JAX_DEBUG_NANS` stays on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import jax


@contextmanager
def own_numerics() -> Iterator[None]:
    """Trace and run what is inside in float32, by JAX's own promotion rules."""
    with (
        jax.enable_x64(False),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield


def with_own_numerics(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` under `own_numerics`, even when it is traced by another `jax.jit`."""

    @wraps(f)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with own_numerics():
            return f(*args, **kwargs)

    return inside
