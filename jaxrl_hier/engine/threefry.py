"""JAX's own random numbers in fewer kernels, for CPUs.

JAX's threefry is a loop on a CPU, and XLA makes a dozen kernels of it, each time that a key is split or drawn from.
With its twenty rounds written out it is one or two. The bits are the same, so programs may use the one where they were
given the other. Where many numbers are drawn at once the loop's kernels cost little beside them, and it stays: written
out, PEARL ran at .8 of its speed. What all that spares is measured by `python -m benchmarks.throughput.compilation`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl, threefry_prng_impl

Words = tuple[jax.Array, jax.Array]

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
MANY = 64  # numbers: more of them are drawn by JAX's loop
USUAL = "threefry2x32"
TAG = "fry-out"  # in the type of a key, and so in errors about it


def threefry2x32(key: jax.Array, x: jax.Array, y: jax.Array) -> Words:
    """Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011). key: [2] uint32; x, y: counters, uint32."""
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA)
    x, y = x + keys[0], y + keys[1]
    for i in range(5):
        for r in ROTATIONS[i % 2]:
            x = x + y
            y = x ^ ((y << r) | (y >> (32 - r)))
        x, y = x + keys[(i + 1) % 3], y + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return x, y


def _of_counters(key: jax.Array, shape: tuple[int, ...]) -> Words:
    """The words of counters 0, 1, … in an array of `shape`."""
    low = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return threefry2x32(key, jnp.zeros_like(low), low)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if math.prod(shape) > MANY:
        return threefry_prng_impl.split(key, shape)
    return jnp.stack(_of_counters(key, shape), axis=-1)


def _fold_in(key: jax.Array, data: Any) -> jax.Array:
    return jnp.stack(threefry2x32(key, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32)))


def _random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    if math.prod(shape) > MANY:
        return threefry_prng_impl.random_bits(key, width, shape)
    x, y = _of_counters(key, shape)
    if width == 64:
        return (x.astype(jnp.uint64) << jnp.uint64(32)) | y.astype(jnp.uint64)
    return (x ^ y).astype(f"uint{width}")


WRITTEN_OUT = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32_written_out",
    tag=TAG,
)


def written_out(tree: Any) -> Any:
    """`tree` with JAX's usual keys replaced by keys of the same words whose rounds are written out."""
    if not jax.config.jax_threefry_partitionable:  # type: ignore[attr-defined]  # JAX counts in another order then
        return tree
    return _with(WRITTEN_OUT, USUAL, tree)


def usual(tree: Any) -> Any:
    """`tree` with JAX's usual keys in place of those of `written_out`."""
    return _with(USUAL, WRITTEN_OUT, tree)


def _with(new: Any, old: Any, tree: Any) -> Any:
    def convert(x: Any) -> Any:
        is_key = isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        if not is_key or jax.random.key_impl(x) != old:
            return x
        return jax.random.wrap_key_data(jax.random.key_data(x), impl=new)

    return jax.tree.map(convert, tree)
