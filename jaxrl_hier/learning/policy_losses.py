"""Per-step losses shared by policy-gradient methods; callers average them."""

from typing import Any

import jax
import jax.numpy as jnp


def clipped_policy_loss(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip: Any) -> jax.Array:
    """−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A), with ρ = π(a|s) / π_old(a|s): PPO (Schulman et al., 2017), equation 7.

    Args:
        log_prob, old_log_prob: [...] log π(a|s) and log π_old(a|s). advantage: [...], A.
        clip: ε, above 0.

    Returns:
        The loss [...] of each step, to minimise.
    """
    ratio = jnp.exp(log_prob - old_log_prob)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)
