"""Encoders in front of a memory.

Axes in shapes: T steps, B environments, F inputs, H outputs.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_hier.learning.networks import MLP, GridEncoder
from jaxrl_hier.learning.recurrent.interface import Carry, Memory, Params


def with_mlp(sizes: Sequence[int], memory: Memory) -> Memory:
    """`memory` behind an MLP with ReLU layers of these sizes; `memory` itself without sizes."""
    if not sizes:
        return memory
    encoder = MLP(tuple(sizes))

    def init(key: jax.Array, features: int) -> Params:
        key_encoder, key_memory = jax.random.split(key)
        return encoder.init(key_encoder, jnp.zeros(features)), memory.init(key_memory, sizes[-1])

    def encode(params: Params, x: jax.Array) -> jax.Array:
        y: Any = encoder.apply(params, x)
        return jax.nn.relu(y)

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.step(params[1], carry, encode(params[0], x))

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.unroll(params[1], carry, encode(params[0], x), first)

    return Memory(init, memory.start, step, unroll)


def with_cnn(shape: tuple[int, int, int], channels: Sequence[int], memory: Memory) -> Memory:
    """`memory` behind a convolutional network.

    Each input [F] begins with a flattened image of this shape (height, width, channels), which the convolutions encode;
    the remaining features go to `memory` unchanged.
    """
    encoder, numbers = GridEncoder(tuple(channels)), math.prod(shape)

    def init(key: jax.Array, features: int) -> Params:
        key_encoder, key_memory = jax.random.split(key)
        seen, params = encoder.init_with_output(key_encoder, jnp.zeros(shape))
        return params, memory.init(key_memory, seen.size + features - numbers)

    def encode(params: Params, x: jax.Array) -> jax.Array:
        seen: Any = encoder.apply(params, x[..., :numbers].reshape(*x.shape[:-1], *shape))
        return jnp.concatenate([seen, x[..., numbers:]], axis=-1)

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.step(params[1], carry, encode(params[0], x))

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.unroll(params[1], carry, encode(params[0], x), first)

    return Memory(init, memory.start, step, unroll)
