"""Surrogate objectives for the inner step of gradient-based meta-RL: four estimators of the return.

For step t of a trajectory, with l_t = log π_θ(a_t|s_t), l°_t the same of the policy that acted, and DiCE's magic box
box(x) = exp(x − x°), which is 1 at the parameters that acted:

    naive         l_t A_t                                              MAML (Finn et al., 2017)
    lvc           box(l_t) A_t                                         ProMP (Rothfuss et al., 2019)
    dice          box(w_t) r_t + (1 − box(l_t)) b_t                    DiCE (Foerster et al., 2018)
    loaded dice   [box(w_t) − box(w_t − l_t)] A_t                      loaded DiCE (Farquhar et al., 2019), λ = 1

w_t = Σ_{t' ≤ t} l_t' sums over the actions that step t depends on. At θ = θ° all four have the same gradient, the
policy gradient. They differ in its derivative, the Hessian that the meta-gradient needs:

    naive         Σ_t A_t ∇²l_t                                        biased: the samples are held fixed
    lvc           … + A_t ∇l_t ∇l_tᵀ                                   of each step alone; unbiased for T = 1
    (loaded) dice … + A_t (∇l_t ∇w_tᵀ + ∇w_t ∇l_tᵀ − ∇l_t ∇l_tᵀ)       unbiased, with a variance that grows with T

Departures:
- DiCE's magic box divides by the stopped gradient of the same likelihood; ours by the likelihood at the time of acting.
  Both agree for the policy that acted. For other policies ours is the importance weight, which outer losses of several
  epochs need (ProMP's equation 11).
- The usual policy gradient does not weight step t by γ^t, but the gradient of DiCE's objective does. To keep the same
  gradient for all surrogates, γ decays DiCE's dependencies instead, w_t = γ w_{t−1} + l_t (the λ of loaded DiCE). For
  γ = 1 nothing changes.

Axes in shapes: T steps of B environments of one task, n = T · B, F numbers of an observation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.engine.rollout import complete_episodes, ended, episode_time, first_episode
from jaxrl_hier.engine.types import Params, Transition
from jaxrl_hier.learning.advantages import (
    discounted_sum,
    generalized_advantage,
    linear_baseline,
    standardize,
    time_features,
)

FITTED = 1e-5  # the float32 error of a baseline that fits perfectly, as a share of the largest return


class PolicyBatch(NamedTuple):
    """The trajectories of one task, mostly flattened."""

    obs: jax.Array  # [n, F]
    action: jax.Array  # [n, ...]
    acted: Any  # [n, ...], the distributions that the actions were drawn from
    log_prob: jax.Array  # [n], l°
    advantage: jax.Array  # [n], standardised
    weight: jax.Array  # [n], of the steps in a mean: 0 for those that do not count, with sum 1
    reward: jax.Array  # [T, B], in units of the advantage
    discount: jax.Array  # [T, B], γ, and 0 on an episode's last step
    ended: jax.Array  # [T, B], 1.0 on an episode's last step
    episode_return: jax.Array  # [], undiscounted, mean over the environments' first episodes
    completed_return: jax.Array  # [], mean over all complete episodes, among which short ones are more frequent; or 0
    complete: jax.Array  # [], share of first episodes that ended; the others were cut
    path: jax.Array  # [T + 1, F], observations of one first episode; the last one is repeated after its end


def policy_batch(
    transitions: Transition, encode: Callable[[Any], jax.Array], gamma: float | jax.Array, gae_lambda: float | jax.Array
) -> PolicyBatch:
    """The batch of transitions [T, B, ...] whose extras are the distributions of the actions.

    Each environment's first episode counts, cut or complete, and later episodes if they are complete.

    Where the baseline fits the returns, but for rounding, there is nothing to learn: advantages and rewards are then 0.
    In units of such advantages rewards would be huge, and with them DiCE's second derivatives.

    Args:
        encode: observations [T, B, ...] -> [T, B, F].
        gamma, gae_lambda: γ and λ of the advantages, in [0, 1].
    """
    first = first_episode(transitions)  # [T, B]
    complete = complete_episodes(transitions)
    mask = jnp.maximum(first, complete)
    obs = encode(transitions.obs)
    discount = gamma * (1.0 - ended(transitions))
    returns = discounted_sum(transitions.reward, discount)
    value = linear_baseline(time_features(obs, episode_time(transitions)), returns, mask)
    advantage = generalized_advantage(transitions.reward, value, discount, gae_lambda)
    deviation = jnp.std(advantage, where=mask > 0)
    learns = deviation > FITTED * jnp.max(jnp.abs(returns * mask))
    length = jnp.sum(first[:, 0]).astype(jnp.int32)
    seen = jnp.concatenate([obs[:1, 0], encode(transitions.next_obs)[:, 0]])
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    return PolicyBatch(
        obs=flat(obs),
        action=flat(transitions.action),
        acted=jax.tree.map(flat, transitions.extras),
        log_prob=flat(transitions.extras.log_prob(transitions.action)),
        advantage=flat(jnp.where(learns, standardize(advantage, mask), 0.0)),
        weight=flat(mask / jnp.sum(mask)),
        reward=jnp.where(learns, transitions.reward / (deviation + 1e-8), 0.0),
        discount=discount,
        ended=ended(transitions).astype(jnp.float32),
        episode_return=jnp.mean(jnp.sum(transitions.reward * first, axis=0)),
        completed_return=jnp.sum(transitions.reward * complete) / jnp.maximum(jnp.sum(transitions.first * complete), 1),
        complete=jnp.mean(complete[0]),
        path=seen[jnp.minimum(jnp.arange(len(seen)), length)],
    )


def first_environments(batch: PolicyBatch, count: int) -> PolicyBatch:
    """The steps of the first `count` of the B environments, with weights that sum to 1. Advantages stay as they are."""
    time = batch.reward.shape[0]
    part = lambda x: x.reshape(time, -1, *x.shape[1:])[:, :count].reshape(-1, *x.shape[1:])
    flat = {name: getattr(batch, name) for name in ("obs", "action", "acted", "log_prob", "advantage", "weight")}
    rows = {name: getattr(batch, name)[:, :count] for name in ("reward", "discount", "ended")}
    taken = batch._replace(**jax.tree.map(part, flat), **rows)
    return taken._replace(weight=taken.weight / jnp.sum(taken.weight))


# Surrogates: l [n], batch -> the term of each step [n]


def naive(log_prob: jax.Array, batch: PolicyBatch) -> jax.Array:
    """l_t A_t, [n]."""
    return log_prob * batch.advantage


def lvc(log_prob: jax.Array, batch: PolicyBatch) -> jax.Array:
    """box(l_t) A_t, [n]: low variance curvature."""
    return jnp.exp(log_prob - batch.log_prob) * batch.advantage


def dice(log_prob: jax.Array, batch: PolicyBatch) -> jax.Array:
    """box(w_t) r_t + (1 − box(l_t)) b_t, [n], with the baseline b_t of the advantage A_t = Σ_k γ^k r_{t+k} − b_t."""
    ratio = (log_prob - batch.log_prob).reshape(batch.reward.shape)
    baseline = discounted_sum(batch.reward, batch.discount) - batch.advantage.reshape(ratio.shape)
    terms = jnp.exp(_past_sum(ratio, batch.discount)) * batch.reward + (1.0 - jnp.exp(ratio)) * baseline
    return terms.reshape(log_prob.shape)


def loaded_dice(log_prob: jax.Array, batch: PolicyBatch) -> jax.Array:
    """[box(w_t) − box(w_t − l_t)] A_t, with any advantage in place of DiCE's rewards."""
    ratio = (log_prob - batch.log_prob).reshape(batch.reward.shape)
    past = _past_sum(ratio, 1.0 - batch.ended)
    return (jnp.exp(past) - jnp.exp(past - ratio)).reshape(log_prob.shape) * batch.advantage


Estimator = Callable[[jax.Array, PolicyBatch], jax.Array]
ESTIMATORS: dict[str, Estimator] = {"naive": naive, "lvc": lvc, "dice": dice, "loaded-dice": loaded_dice}


def _past_sum(x: jax.Array, decay: jax.Array) -> jax.Array:
    """y_t = x_t + decay_{t−1} y_{t−1} along axis 0."""
    before = jnp.concatenate([jnp.zeros_like(x[:1]), decay[:-1].astype(x.dtype)])
    return discounted_sum(x[::-1], before[::-1])[::-1]


def inner_loss(policy: Any, estimator: Estimator, params: Params, batch: PolicyBatch) -> jax.Array:
    """Minus the mean of the surrogate over the steps that count, []."""
    log_prob = policy.apply(params, batch.obs).log_prob(batch.action)
    return -jnp.sum(batch.weight * estimator(log_prob, batch))
