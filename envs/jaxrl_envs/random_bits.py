"""Cheap randomness, for environments and tables whose step costs less than a draw of `jax.random`."""

from itertools import cycle, islice

import jax
import jax.numpy as jnp

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)  # of threefry's rounds, four at a time


def random_bits(key: jax.Array) -> jax.Array:
    """32 random bits from a key that is used for nothing else, [] uint32.

    A key from `split` or `fold_in` is itself the output of threefry. Mixing its words (an invertible
    multiply-and-shift hash, so that keys of consecutive seeds serve too) spares a second threefry, which on a CPU costs
    several times the rest of the step: random walks, keys and resets included, run 1.3 to 3 times as fast.
    """
    first, second = jax.random.key_data(key)[:2]
    bits = (first * jnp.uint32(0x9E3779B1)) ^ second
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def another_key(key: jax.Array) -> jax.Array:
    """A key [] whose `random_bits` are independent of those of `key`."""
    words = jax.random.key_data(key) ^ jnp.uint32(0x9E3779B9)
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key)) if typed else words


def uniforms(key: jax.Array, count: int) -> jax.Array:
    """Uniform in [0, 1), [count] float32, from a key that is used for nothing else.

    A key from `split` or `fold_in` is itself the output of threefry. Mixing its two words with a counter, by
    multiply-and-shift, spares `jax.random.uniform`'s second threefry, which on a CPU costs a third of a learner's step.
    """
    first, second = jax.random.key_data(key)[:2]
    mix = lambda bits, shift, factor: (bits ^ (bits >> shift)) * jnp.uint32(factor)
    bits = first + jnp.uint32(0x9E3779B9) * jnp.arange(count, dtype=jnp.uint32)
    bits = mix(bits, 16, 0x85EBCA6B) ^ second
    bits = mix(mix(bits, 16, 0x85EBCA6B), 13, 0xC2B2AE35)
    return ((bits ^ (bits >> 16)) >> 9).astype(jnp.float32) * 2.0**-23


def split(key: jax.Array, number: int = 2) -> jax.Array:
    """The keys [number] of `jax.random.split`, for a few of them.

    On a CPU, JAX computes threefry in a loop, whose turns cost a tabular learner a part of its step. Written out, the
    rounds are part of other kernels (`python -m benchmarks throughput compilation --only q-learning`).
    """
    if not _is_threefry(key):
        return jax.random.split(key, number)
    counts = jnp.arange(number, dtype=jnp.uint32)
    return _hashed(key, jnp.zeros_like(counts), counts)


def fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    """The key [] of `jax.random.fold_in` for an integer below 2^32; see `split`."""
    if not _is_threefry(key):
        return jax.random.fold_in(key, data)
    return _hashed(key, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32))


def _is_threefry(key: jax.Array) -> bool:
    """Whether `split` knows how JAX makes keys from this one."""
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    partitionable = jax.config.values.get("jax_threefry_partitionable", True)  # else `jax.random.split` gives others
    return typed and str(jax.random.key_impl(key)) == "threefry2x32" and partitionable


def _hashed(key: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Keys [...] whose words are threefry2x32 of two words [...] uint32."""
    return jax.random.wrap_key_data(_threefry(jax.random.key_data(key), first, second), impl=jax.random.key_impl(key))


@jax.jit  # traced once, and not its hundred operations at each of a rollout's splits
def _threefry(key: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Threefry2x32 (Salmon et al., 2011; 20 rounds) of two words [...] uint32 under a key of two, [..., 2] uint32."""
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA)
    first, second = first + keys[0], second + keys[1]
    for i, rotations in enumerate(islice(cycle(ROTATIONS), 5)):
        for by in rotations:
            first = first + second
            second = (second << by | second >> (32 - by)) ^ first
        first, second = first + keys[(i + 1) % 3], second + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return jnp.stack([first, second], axis=-1)
