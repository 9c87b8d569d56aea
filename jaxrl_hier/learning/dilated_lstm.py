"""The dilated LSTM of feudal networks: r cores with shared weights take turns (Vezhnevets et al., ICML 2017).

Only core t mod r is updated at step t, so each core remembers r times as long as an ordinary LSTM. The output is the
sum of the r cores' latest outputs. r = 1 is an ordinary LSTM.

Axes in shapes: T steps, B environments, r cores, d inputs and outputs.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_hier.learning.recurrent import lstm

Params = Any
Cores = tuple[jax.Array, jax.Array]  # c and h, [r, d] each, after the last r steps, oldest first


def init(key: jax.Array, size: int) -> Params:
    """The parameters, for d = `size`."""
    return lstm(size).init(key, size)


def start(size: int, dilation: int) -> Cores:
    """The initial states of the r = `dilation` cores: zeros [r, size]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (dilation, size)), lstm(size).start())


def step(params: Params, cores: Cores, x: jax.Array) -> tuple[Cores, jax.Array]:
    """Update the oldest core with an input x [d]; returns all cores and the output [d]."""
    after, _ = lstm(x.shape[-1]).step(params, jax.tree.map(lambda old: old[0], cores), x)
    cores = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), cores, after)
    return cores, jnp.sum(cores[1], axis=0)


def unroll(params: Params, cores: Cores, x: jax.Array, time: jax.Array) -> jax.Array:
    """The outputs [T, B, d] of T steps, a multiple of r. The cores do not interact, so they run in parallel.

    Args:
        cores: [B, r, d] before the first step. x: [T, B, d].
        time: [T, B], steps since the episode's start; where it is 0, the cores start from zeros.
    """
    length, batch, size = x.shape
    r = cores[1].shape[1]
    fold = lambda x: x.reshape(length // r, r * batch, *x.shape[2:])
    carry = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0).reshape(r * batch, size), cores)
    _, h = lstm(size).unroll(params, carry, fold(x), fold(time < r))
    h = h.reshape(length, batch, size)
    return sum((delayed(cores[1], h, time, i) for i in range(1, r)), h)


def delayed(before: jax.Array, x: jax.Array, time: jax.Array, i: int) -> jax.Array:
    """x_{t−i} [T, B, ...], or zero where that step belongs to an earlier episode.

    Args:
        before: [B, n, ...], the n ≥ i steps before the first row of x [T, B, ...], oldest first.
        time: [T, B], steps since the episode's start.
    """
    everything = jnp.concatenate([jnp.moveaxis(before, 1, 0), x])
    begin = before.shape[1] - i
    return jnp.where((time >= i)[..., None], everything[begin : begin + len(x)], 0.0)
