"""Network inputs normalised by the running mean and standard deviation of all inputs so far.

The statistics are stored with the parameters, since acting needs them, and receive no gradient. Replay learners store
them in their own parameters and update them with each batch before learning from it. `normalized` wraps the agents of
learners that use each rollout once, and `normalizing` their updates, too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.loops import Update
from jaxrl_hier.engine.types import ActInput, Agent, Metrics, Params, Transition, World


class Statistics(NamedTuple):
    """Running statistics of the inputs."""

    steps: jax.Array  # [] float32; stops growing at about 2³², from where old inputs are forgotten
    mean: jax.Array  # [F]
    variance: jax.Array  # [F]

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "Statistics":
        """The statistics before the first input."""
        return cls(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def observed(statistics: Any, inputs: jax.Array) -> Any:
    """The statistics updated with `inputs` [N, F] (Chan, Golub & LeVeque, 1979); () stays ()."""
    if not isinstance(statistics, Statistics):
        return statistics
    steps, mean, variance = statistics
    total = steps + inputs.shape[0]
    share = inputs.shape[0] / total
    shift = jnp.mean(inputs, axis=0) - mean
    variance = (1 - share) * variance + share * jnp.var(inputs, axis=0) + share * (1 - share) * shift**2
    return Statistics(total, mean + share * shift, variance)


def standardised(statistics: Any, inputs: jax.Array) -> jax.Array:
    """Inputs [..., F] scaled to mean 0 and standard deviation 1, clipped to ±5; divides by at least 0.01."""
    if not isinstance(statistics, Statistics):
        return inputs
    scale = jnp.sqrt(jnp.maximum(statistics.variance, 1e-4))
    return jnp.clip((inputs - statistics.mean) / scale, -5.0, 5.0)


def scaled_rewards(statistics: Statistics, reward: jax.Array, returns: jax.Array) -> tuple[Statistics, jax.Array]:
    """Rewards divided by the standard deviation of the discounted return so far, as in OpenAI baselines' VecNormalize.

    Args:
        statistics: of `returns`, with mean and variance [].
        reward: [T, B]. returns: [T, B], Σ_k γ^k r_{t−k} from each step t back to its episode's start.

    Returns:
        The statistics with these returns, and the rewards [T, B], clipped to ±10.
    """
    statistics = observed(statistics, returns.reshape(-1))
    return statistics, jnp.clip(reward / jnp.sqrt(statistics.variance + 1e-8), -10.0, 10.0)


# For learners from rollouts


class Normalized(NamedTuple):
    """Parameters of an agent with normalised observations."""

    params: Params
    inputs: Statistics


def normalized(agent: Agent, space: Any) -> Agent:
    """The agent, wrapped to normalise its observations; its parameters become `Normalized`.

    Args:
        space: the observation space, a Box of any shape.

    Raises:
        UsageError: any other space.
    """
    if hasattr(space, "n") or not hasattr(space, "shape"):
        raise UsageError(f"normalize_observations needs observations in a Box, got {type(space).__name__}")

    def init(key: jax.Array) -> Normalized:
        return Normalized(agent.init(key), Statistics.none(space.shape))

    def start(params: Normalized, key: jax.Array) -> Any:
        return agent.start(params.params, key)

    def act(params: Normalized, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        return agent.act(params.params, carry, inp._replace(obs=as_seen(params, inp.obs)), key, greedy)

    return Agent(init, start, act)


def normalizing(agent: Agent, update: Update, space: Any) -> tuple[Agent, Update]:
    """The agent and its update, wrapped to normalise their observations; see `normalized`.

    Acting and learning use the statistics from before the rollout, which is added to them afterwards.
    """

    def learn(
        params: Normalized, learner: Any, before: World, t: Transition, key: jax.Array
    ) -> tuple[Normalized, Any, Metrics]:
        scaled = t._replace(obs=as_seen(params, t.obs), next_obs=as_seen(params, t.next_obs))
        new, learner, metrics = update(params.params, learner, before, scaled, key)
        return updated(params, new, t.obs), learner, metrics

    return normalized(agent, space), learn


def as_seen(params: Params, obs: Any) -> Any:
    """Observations [..., *shape] as the networks see them; unchanged without normalisation."""
    return standardised(params.inputs, obs.astype(jnp.float32)) if isinstance(params, Normalized) else obs


def updated(params: Params, new: Params, obs: Any) -> Params:
    """`new` parameters in the place of those in `params`, and the statistics with observations [..., *shape]."""
    if not isinstance(params, Normalized):
        return new
    rows = obs.astype(jnp.float32).reshape(-1, *params.inputs.mean.shape)
    return Normalized(new, observed(params.inputs, rows))


def learned(params: Params) -> Params:
    """The parameters that the optimiser updates: all but the input statistics."""
    return params.params if isinstance(params, Normalized) else params
