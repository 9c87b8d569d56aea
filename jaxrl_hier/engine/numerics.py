"""JAX's switches, and the numbers that algorithms compute with whatever they say.

Everything here is float32, written for JAX's own promotion rules. Under `JAX_ENABLE_X64` each draw and each constant
would silently become float64, and loops over float32 states would no longer fit; so programs are traced without it, and
give the same bits with it. `JAX_NUMPY_RANK_PROMOTION` and `JAX_NUMPY_DTYPE_PROMOTION` guard a user's own code against
slips, not ours and not that of the libraries below us. `JAX_DEBUG_NANS` stays on: NaN is reported where it is a fault.
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
    """`f` under `own_numerics`, also where it is traced by somebody else's `jax.jit`."""

    @wraps(f)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with own_numerics():
            return f(*args, **kwargs)

    return inside
