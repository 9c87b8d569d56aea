"""Starting the next episode in those worlds whose episode has ended."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # earlier versions of JAX
    from jax.core import get_opaque_trace_state

_WANTED: ContextVar[Any] = ContextVar("wanted", default=(None, True))  # and under which trace


def select(condition: jax.Array, on_true: Any, on_false: Any) -> Any:
    """`jnp.where` by a condition [], over two pytrees of one structure; with the dtypes of `on_false`, also of keys."""

    def choose(x: jax.Array, y: jax.Array) -> jax.Array:
        if jax.dtypes.issubdtype(y.dtype, jax.dtypes.prng_key):
            return jnp.where(condition, x, y)
        return jnp.where(condition, x, y).astype(y.dtype)

    return jax.tree.map(choose, on_true, jax.tree.map(jnp.asarray, on_false))


def wanted() -> Any:
    """Whether anything will come of the reset that calls this, [] bool, under the same vmaps as the reset.

    A reset on the host can leave out the others; what it returns for them is thrown away. True inside of a further
    `jit`, such as that of a wrapper of gymnax: JAX keeps its trace for other resets, where another value holds.
    """
    trace, ended = _WANTED.get()
    return ended if trace == _trace() else True


def _trace() -> Any:
    return get_opaque_trace_state(convention="flax")


def begun_where(env: Any, ended: jax.Array, begin: Callable[..., Any], arguments: tuple, ongoing: Any) -> Any:
    """`begin(*arguments)` where `ended` [], else `ongoing`, a pytree of the same structure.

    Under `vmap` this computes a reset for every world in every step, which costs little in most environments. For an
    environment with `costly_reset = True` resets are computed only in steps in which some world has ended, of all that
    any number of vmaps hold side by side. Results are the same.

    Args:
        begin: must take everything that differs between worlds as arguments; with a costly reset, JAX fails an
            assertion if it closes over such a value.
    """

    def chosen(ended: jax.Array, arguments: tuple, ongoing: Any) -> Any:
        outer = _WANTED.set((_trace(), ended))
        try:
            begun = begin(*arguments)
        finally:
            _WANTED.reset(outer)
        return select(ended, begun, ongoing)

    ongoing = jax.tree.map(jnp.asarray, ongoing)
    if not getattr(env, "costly_reset", False):
        return chosen(ended, arguments, ongoing)
    return _where_any(chosen, ended, arguments, ongoing)


def _where_any(chosen: Callable[..., Any], ended: jax.Array, arguments: tuple, ongoing: Any) -> Any:
    """`chosen(ended, arguments, ongoing)` if any world has ended, else `ongoing`; a vmap brings in more worlds."""

    @jax.custom_batching.custom_vmap
    def of_all(ended: jax.Array, arguments: tuple, ongoing: Any) -> Any:
        return jax.lax.cond(jnp.any(ended), lambda: chosen(ended, arguments, ongoing), lambda: ongoing)

    @of_all.def_vmap
    def of_more(size: int, batched: Any, ended: jax.Array, arguments: tuple, ongoing: Any) -> tuple[Any, Any]:
        spread = lambda has_axis, x: x if has_axis else jnp.broadcast_to(x, (size, *jnp.shape(x)))
        ongoing = jax.tree.map(spread, batched[2], ongoing)
        axes = jax.tree.map(lambda has_axis: 0 if has_axis else None, batched[:2])
        after = _where_any(jax.vmap(chosen, (*axes, 0)), ended, arguments, ongoing)
        return after, jax.tree.map(lambda _: True, after)

    return of_all(ended, arguments, ongoing)
