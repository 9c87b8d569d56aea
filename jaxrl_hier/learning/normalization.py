"""Inputs of networks, scaled by the mean and the standard deviation of all inputs so far.

The statistics are parameters: acting needs them. No gradient reaches them. Learners from replay keep them in their
parameters themselves, and take each batch into them before they learn from it; `normalizing` does it for those that
learn from a rollout once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput, Agent, Metrics, Params, Transition, World


class Statistics(NamedTuple):
    """Of the inputs so far."""

    steps: jax.Array  # [] float32; beyond 2³² it stands still, and old inputs fade
    mean: jax.Array  # [F]
    variance: jax.Array  # [F]

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "Statistics":
        """Before the first input."""
        return cls(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def observed(statistics: Any, inputs: jax.Array) -> Any:
    """The statistics with `inputs` [N, F] among them (Chan, Golub & LeVeque, 1979); () stays."""
    if not isinstance(statistics, Statistics):
        return statistics
    steps, mean, variance = statistics
    total = steps + inputs.shape[0]
    share = inputs.shape[0] / total
    shift = jnp.mean(inputs, axis=0) - mean
    variance = (1 - share) * variance + share * jnp.var(inputs, axis=0) + share * (1 - share) * shift**2
    return Statistics(total, mean + share * shift, variance)


def standardised(statistics: Any, inputs: jax.Array) -> jax.Array:
    """Inputs [..., F] of mean 0 and standard deviation 1, at most 0.01 taken for none, clipped to ±5."""
    if not isinstance(statistics, Statistics):
        return inputs
    scale = jnp.sqrt(jnp.maximum(statistics.variance, 1e-4))
    return jnp.clip((inputs - statistics.mean) / scale, -5.0, 5.0)


# For learners from rollouts

Update = Callable[[Params, Any, World, Transition, jax.Array], tuple[Params, Any, Metrics]]  # as `loops.online` has it


class Normalized(NamedTuple):
    """Parameters of an agent that sees normalised observations."""

    params: Params
    inputs: Statistics


def normalizing(agent: Agent, update: Update, space: Any) -> tuple[Agent, Update]:
    """An agent and its update, for observations that are normalised before either sees them; params: Normalized.

    A rollout is learned from as it was acted on, by the statistics before it. Then they take it in.

    Args:
        space: of observations, a Box of any shape.

    Raises:
        UsageError: another space.
    """
    if hasattr(space, "n") or not hasattr(space, "shape"):
        raise UsageError(f"normalize_observations needs observations in a Box, got {type(space).__name__}")

    def seen(statistics: Statistics, obs: Any) -> jax.Array:
        return standardised(statistics, obs.astype(jnp.float32))

    def init(key: jax.Array) -> Normalized:
        return Normalized(agent.init(key), Statistics.none(space.shape))

    def start(params: Normalized, key: jax.Array) -> Any:
        return agent.start(params.params, key)

    def act(params: Normalized, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        return agent.act(params.params, carry, inp._replace(obs=seen(params.inputs, inp.obs)), key, greedy)

    def learn(
        params: Normalized, learner: Any, before: World, t: Transition, key: jax.Array
    ) -> tuple[Normalized, Any, Metrics]:
        as_seen = t._replace(obs=seen(params.inputs, t.obs), next_obs=seen(params.inputs, t.next_obs))
        learned, learner, metrics = update(params.params, learner, before, as_seen, key)
        inputs = observed(params.inputs, t.obs.astype(jnp.float32).reshape(-1, *space.shape))
        return Normalized(learned, inputs), learner, metrics

    return Agent(init, start, act), learn


def learned(params: Params) -> Params:
    """What an optimiser steps: all of an agent's parameters but statistics of its inputs."""
    return params.params if isinstance(params, Normalized) else params
