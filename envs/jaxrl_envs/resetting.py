"""Starting the next episode in those worlds whose episode has ended."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def select(condition: jax.Array, on_true: Any, on_false: Any) -> Any:
    """`jnp.where` by a condition [], over two pytrees of one structure; with the dtypes of `on_false`, also of keys."""

    def choose(x: jax.Array, y: jax.Array) -> jax.Array:
        if jax.dtypes.issubdtype(y.dtype, jax.dtypes.prng_key):
            return jnp.where(condition, x, y)
        return jnp.where(condition, x, y).astype(y.dtype)

    return jax.tree.map(choose, on_true, jax.tree.map(jnp.asarray, on_false))


def begun_where(env: Any, ended: jax.Array, begin: Callable[..., Any], arguments: tuple, ongoing: Any) -> Any:
    """`begin(*arguments)` where `ended` [], else `ongoing`, a pytree of the same structure.

    Under `vmap` this computes a reset for every world in every step, which costs little in most environments. For an
    environment with `costly_reset = True` resets are computed only in steps in which some world has ended. Results are
    the same; a second `vmap` around the first, as over seeds, computes all resets again.

    Args:
        begin: must take everything that differs between worlds as arguments; with a costly reset, JAX fails an
            assertion if it closes over such a value.
    """
    if not getattr(env, "costly_reset", False):
        return select(ended, begin(*arguments), ongoing)

    @jax.custom_batching.custom_vmap
    def chosen(ended: jax.Array, arguments: tuple, ongoing: Any) -> Any:
        return select(ended, begin(*arguments), ongoing)

    @chosen.def_vmap
    def all_worlds(size: int, batched: Any, ended: jax.Array, arguments: tuple, ongoing: Any) -> tuple[Any, Any]:
        spread = lambda has_axis, x: x if has_axis else jnp.broadcast_to(x, (size, *jnp.shape(x)))
        ongoing = jax.tree.map(spread, batched[2], ongoing)
        axes = jax.tree.map(lambda has_axis: 0 if has_axis else None, batched[:2])
        of_each = jax.vmap(lambda *x: select(x[0], begin(*x[1]), x[2]), (*axes, 0))
        after = jax.lax.cond(jnp.any(ended), lambda: of_each(ended, arguments, ongoing), lambda: ongoing)
        return after, jax.tree.map(lambda _: True, after)

    return chosen(ended, arguments, jax.tree.map(jnp.asarray, ongoing))
