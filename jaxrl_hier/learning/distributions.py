"""Two action distributions, as pytrees.

distrax has both, but depends on a nightly build of TensorFlow Probability, which users cannot pin reliably.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LOG_2PI = 1.8378770664093453


class Categorical(NamedTuple):
    """Categorical distribution over the last axis of `logits` [..., A]."""

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_p, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        log_p = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    def kl(self, other: "Categorical") -> jax.Array:
        """KL(self ‖ other) [...]."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


class DiagonalGaussian(NamedTuple):
    """Independent Gaussians along the last axis of `mean` [..., D]; `log_std` broadcasts against it."""

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - 0.5 * LOG_2PI, axis=-1)

    def entropy(self) -> jax.Array:
        per_axis = self.log_std + 0.5 * (1.0 + LOG_2PI)
        return jnp.sum(jnp.broadcast_to(per_axis, self.mean.shape), axis=-1)

    def kl(self, other: "DiagonalGaussian") -> jax.Array:
        """KL(self ‖ other) [...]."""
        variance_ratio = jnp.exp(2.0 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) * jnp.exp(-other.log_std)) ** 2
        return jnp.sum(0.5 * (variance_ratio + distance - 1.0) + other.log_std - self.log_std, axis=-1)
