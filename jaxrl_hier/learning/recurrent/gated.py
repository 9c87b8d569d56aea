"""Gated cells, one step after the other: GRU and LSTM.

Axes in shapes: T steps, B environments, F inputs, H outputs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxrl_hier.learning.decompositions import one_by_one
from jaxrl_hier.learning.networks import ACTIVATIONS
from jaxrl_hier.learning.recurrent.interface import Carry, Memory, Params, reset, scan_in_segments, xavier


def gru(size: int, remat_steps: int = 0, activation: str = "tanh") -> Memory:
    """A GRU with H = `size` and carry h [H]; `activation` is that of the candidate."""
    act = ACTIVATIONS[activation]

    def cell(U: jax.Array, h: jax.Array, z: jax.Array) -> tuple[Carry, jax.Array]:
        z_r, z_u, z_c = jnp.split(z, 3, axis=-1)
        h_r, h_u, h_c = jnp.split(h @ U, 3, axis=-1)
        u = jax.nn.sigmoid(z_u + h_u)
        h = (1 - u) * h + u * act(z_c + jax.nn.sigmoid(z_r + h_r) * h_c)
        return h, h

    return _recurrent(cell, lambda: jnp.zeros(size), jnp.zeros(3 * size), size, remat_steps)


def lstm(size: int, remat_steps: int = 0) -> Memory:
    """An LSTM with H = `size` and carry (c, h), [H] each."""

    def cell(U: jax.Array, carry: Carry, z: jax.Array) -> tuple[Carry, jax.Array]:
        c, h = carry
        i, f, g, o = jnp.split(z + h @ U, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    bias = jnp.zeros((4, size)).at[1].set(1.0).ravel()
    return _recurrent(cell, lambda: (jnp.zeros(size), jnp.zeros(size)), bias, size, remat_steps)


def _orthogonal(size: int, key: jax.Array) -> jax.Array:
    """A random orthogonal matrix [size, size]."""
    return one_by_one(lambda key: jax.nn.initializers.orthogonal()(key, (size, size)))(key)


def _recurrent(
    cell: Callable[[jax.Array, Carry, jax.Array], tuple[Carry, jax.Array]],
    start: Callable[[], Carry],
    bias: jax.Array,
    size: int,
    remat_steps: int,
) -> Memory:
    """A network of gated `cell`s: recurrent weights, carry, projected input -> carry, output."""
    gates = len(bias) // size

    def init(key: jax.Array, features: int) -> Params:
        key, *keys = jax.random.split(key, gates + 1)
        U = jnp.concatenate([_orthogonal(size, k) for k in keys], axis=1)
        return {"W": xavier(key, (features, gates * size)), "b": bias, "U": U}

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return cell(params["U"], carry, x @ params["W"] + params["b"])

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        def one(carry: Carry, row: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            x, first = row
            return step(params, jax.tree.map(partial(reset, first), carry), x)

        # The input projection is inside the scan: one product for all steps, [T, B, gates H], does not fit into a CPU's
        # cache, and makes the unroll 1.2 to 3 times as slow. Not measured on a GPU
        return scan_in_segments(partial(jax.lax.scan, one), carry, (x, first), remat_steps)

    return Memory(init, start, step, unroll)
