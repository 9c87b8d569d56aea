"""Unit vectors and cosines, for goals that are directions."""

import jax
import jax.numpy as jnp


def normalised(x: jax.Array) -> jax.Array:
    """x / |x| [..., d]; zero stays zero."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-12))


def cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """The cosine of the angle [...] between vectors [..., d]; zero where either is zero."""
    return jnp.sum(normalised(x) * normalised(y), axis=-1)
