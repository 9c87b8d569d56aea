"""Returns, advantages and the linear value baseline of policy-gradient methods.

Arrays are time-major, [T, B]: T steps of B environments.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_hier.learning.decompositions import one_by_one


def discounted_sum(x: jax.Array, discount: jax.Array) -> jax.Array:
    """y_t = x_t + discount_t · y_{t+1} along axis 0, with y = 0 after the last row.

    Args:
        x: [T, ...].
        discount: [T, ...]; 0 on an episode's last step, so that sums stop there.

    Returns:
        y [T, ...].
    """

    def backward(y: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x_t, discount_t = row
        y = x_t + discount_t * y
        return y, y

    return jax.lax.scan(backward, jnp.zeros_like(x[0]), (x, discount), reverse=True)[1]


def generalized_advantage(
    reward: jax.Array, value: jax.Array, discount: jax.Array, lam: float | jax.Array
) -> jax.Array:
    """GAE(λ) of Schulman et al. (2016), equation 16, over rows of complete episodes.

    Args:
        reward, value: [T, B].
        discount: [T, B], γ inside an episode and 0 on its last step.
        lam: λ, in [0, 1].

    Returns:
        The advantages [T, B]. The value after an episode's last step is zero, also after a time limit: this is correct
        only for the finite-horizon objective with a `value` that depends on time. See `rollout_advantage` for episodes
        that continue after the last row.
    """
    next_value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
    return discounted_sum(reward + discount * next_value - value, discount * lam)


def bootstrapped_advantage(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: Any,
    lam: Any,
) -> jax.Array:
    """GAE(λ) over a rollout, bootstrapped where an episode is truncated and where the rollout stops.

    Args:
        reward: [T, B].
        value, next_value: [T, B], of the states and of their true successors, not of those after a reset.
        terminated, truncated: [T, B] bool. Nothing follows a termination; a truncated episode would have gone on.
        discount, lam: γ and λ, in [0, 1].

    Returns:
        The advantages [T, B]; the sum stops at an episode's end and at the end of the rollout.
    """
    error = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    return discounted_sum(error, jnp.where(terminated | truncated, 0.0, discount * lam))


def rollout_advantage(
    reward: jax.Array, value: jax.Array, ended: jax.Array, discount: Any, lam: Any
) -> tuple[jax.Array, jax.Array]:
    """GAE(λ) over a rollout that may stop in the middle of an episode.

    Args:
        reward, value: [T, B].
        ended: [T, B] bool, true on an episode's last step, after which nothing is counted.
        discount, lam: γ and λ, in [0, 1].

    Returns:
        The advantages [T, B], and the weights [T, B] of the steps in a loss. Where an episode continues after the last
        row, that row's value bootstraps the earlier rows; its own advantage is unknown and set to 0, with weight 0.
        All other weights are 1.
    """
    cut = ~ended[-1]
    weight = jnp.ones_like(reward).at[-1].set(jnp.where(cut, 0.0, 1.0))
    reward = reward.at[-1].set(jnp.where(cut, value[-1], reward[-1]))
    follows = jnp.where(ended, 0.0, discount).at[-1].set(0.0)
    return generalized_advantage(reward, value, follows, lam), weight


def weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    """The mean [] of x over the steps that count; 0 where none does, as in a minibatch of steps that only bootstrap.

    Args:
        weight: as x, 1.0 on the steps that count and 0.0 elsewhere.
    """
    return jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1.0)


def standardize(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x [T, B], scaled to mean 0 and standard deviation 1 over the unmasked steps; 0 elsewhere, and 0 where these are
    equal.

    Args:
        mask: [T, B], 1.0 on the steps to use and 0.0 elsewhere.
    """
    count = jnp.maximum(jnp.sum(mask), 1.0)
    mean = jnp.sum(x * mask) / count
    centred = (x - mean) * mask
    deviation = jnp.sqrt(jnp.sum(centred**2) / count)
    rounding = 16 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x * mask))  # error of the mean of equal numbers
    return jnp.where(deviation > rounding, centred / (deviation + 1e-8), 0.0)


def linear_baseline(features: jax.Array, target: jax.Array, mask: jax.Array, ridge: float = 1e-5) -> jax.Array:
    """A linear value function, fitted by ridge regression to the steps themselves (Duan et al., 2016a, section 4).

    In float32 a feature that varies by a few thousandths of its mean, or less, is fitted in part only.

    Args:
        features: [T, B, F].
        target: [T, B], discounted returns.
        mask: [T, B], 1.0 on the steps to use and 0.0 elsewhere.
        ridge: penalty on the squared weights, above 0.

    Returns:
        The fitted values [T, B].
    """
    phi = (features * mask[..., None]).reshape(-1, features.shape[-1])
    y = (target * mask).reshape(-1)
    # 1, t, t², t³ are nearly collinear, too much so for plain normal equations in float32, and a QR decomposition takes
    # ten times as long. So we scale the columns to equal size, add a small constant to the diagonal against collinear
    # features (o and o² of a one-hot), and recover the true ridge solution by iterative refinement.
    scale = jax.lax.rsqrt(jnp.mean(phi**2, axis=0) + 1e-12)
    phi, penalty = phi * scale, ridge * scale**2
    gram = phi.T @ phi + jnp.diag(penalty)
    factor = one_by_one(jnp.linalg.cholesky)(gram + 1e-5 * len(y) * jnp.eye(len(scale)))
    solve = one_by_one(lambda factor, right: jax.scipy.linalg.cho_solve((factor, True), right))
    weights = jnp.zeros_like(scale)
    for _ in range(4):
        weights += solve(factor, phi.T @ (y - phi @ weights) - penalty * weights)
    return features @ (weights * scale)


def time_features(obs: jax.Array, time: jax.Array) -> jax.Array:
    """[o, o², τ, τ², τ³, 1] with o clipped to ±10 and τ = time / 100, [T, B, O] and [T, B] -> [T, B, 2 O + 4].

    The features of rllab's LinearFeatureBaseline, which the MAML paper used. `time` counts steps since the episode's
    start.
    """
    o = jnp.clip(obs, -10.0, 10.0)
    tau = time[..., None] / 100.0
    return jnp.concatenate([o, o**2, tau, tau**2, tau**3, jnp.ones_like(tau)], axis=-1)
