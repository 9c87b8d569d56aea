"""What every memory offers, and what their unrolls share.

Axes in shapes: T steps, B environments, F inputs, H outputs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError

Params = Any
Carry = Any

xavier = jax.nn.initializers.xavier_uniform()


class Memory(NamedTuple):
    """A memory as pure functions."""

    init: Callable[[jax.Array, int], Params]  # key, F -> params
    start: Callable[[], Carry]  # initial carry of one environment
    # params, carry, x [..., F] -> carry, y [..., H]
    step: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]
    # params, carry [B], x [T, B, F], first [T, B] bool -> carry after the last step [B], y [T, B, H]. Where `first`
    # holds, the carry is reset to that of `start`
    unroll: Callable[[Params, Carry, jax.Array, jax.Array], tuple[Carry, jax.Array]]


def scan_in_segments(
    run: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, rows: Any, remat_steps: int
) -> tuple[Carry, Any]:
    """`run(carry, rows)` over rows [T, ...] in segments that the backward pass recomputes.

    Args:
        remat_steps: rows per segment, a divisor of T; 0: one segment, without recomputation.
    """
    length = jax.tree.leaves(rows)[0].shape[0]
    if not remat_steps or remat_steps >= length:
        return run(carry, rows)
    if length % remat_steps:
        raise UsageError(f"the steps of an unroll ({length}) must be a multiple of remat_steps ({remat_steps})")
    segments = jax.tree.map(lambda x: x.reshape(length // remat_steps, remat_steps, *x.shape[1:]), rows)
    carry, out = jax.lax.scan(jax.checkpoint(run, prevent_cse=False), carry, segments)
    return carry, jax.tree.map(lambda x: x.reshape(length, *x.shape[2:]), out)


def reset(first: jax.Array, x: jax.Array) -> jax.Array:
    """`x` [..., H], or zero where `first` [...] holds."""
    return jnp.where(first[..., None], 0.0, x)
