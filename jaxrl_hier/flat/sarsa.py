"""Tabular SARSA(0) (Rummery & Niranjan, 1994) with Boltzmann exploration.

    π(a|s) ∝ exp(Q(s, a) / T)          Q(s, a) += α [r + γ Q(s', a') − Q(s, a)]

a' is the action taken in s', chosen before the update; Q(s', a') is 0 after a termination. The defaults are those of
the option-critic's published code (Bacon, Harb & Precup, AAAI 2017), for which SARSA is a baseline.

An update needs the next action, so it happens one step later.

Departure: an episode may be cut by a time limit. It then has no next action, and its last step is not used.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.random_bits import uniforms
from jaxrl_hier.checks import require_fraction, require_positive
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Average,
    Metrics,
    NamedArray,
    Params,
    Tasks,
    TrainState,
    Transition,
)
from jaxrl_hier.exact import tabular
from jaxrl_hier.learning.tables import boltzmann, in_turn, learner_from_steps, measure, table_sizes
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of tabular SARSA(0)."""

    renamed: ClassVar = {"record": "recorded_episodes"}

    step_size: float = 0.5
    """step size α, in [0, 1]"""
    temperature: float = 0.01
    """temperature T of the softmax policy, above 0"""
    discount: float = 0.99
    """discount γ, in [0, 1]"""
    environments: int = 1
    """parallel environments; their transitions update the shared table one at a time"""
    recorded_episodes: int = 1000
    """number of first episodes of each environment whose length and return are recorded"""


class Before(NamedTuple):
    """The previous step: its state comes from the agent's carry, action and reward from `ActInput`."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """SARSA(0) on an environment with Discrete observations and actions; parameters: Q [S, A].

    Raises:
        UsageError: invalid settings, or an environment with other spaces.
    """
    require_fraction(config, "step_size", "discount")
    require_positive(config, "temperature", "environments")
    require_positive(config, "recorded_episodes", or_zero=True)
    num_states, num_actions = table_sizes(env)

    def act(q: Params, before: jax.Array, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        if greedy:
            action = jnp.argmax(q[inp.obs]).astype(jnp.int32)
        else:
            action = boltzmann(uniforms(key, 1)[0], q[inp.obs], config.temperature)
        return action, inp.obs, Before(before, inp.prev_action, inp.prev_reward)

    agent = Agent(
        init=lambda key: jnp.zeros((num_states, num_actions)),
        start=lambda params, key: jnp.zeros((), jnp.int32),
        act=act,
    )

    def learn(q: Params, learner: Any, t: Transition) -> tuple[Params, Any, Metrics]:
        s, a, before = t.obs, t.action, t.extras
        error = before.reward + config.discount * q[s, a] - q[before.obs, before.action]
        error = jnp.where(t.first, 0.0, error)
        q = q.at[before.obs, before.action].add(config.step_size * error)
        last_error = jnp.where(t.terminated, t.reward - q[s, a], 0.0)
        q = q.at[s, a].add(config.step_size * last_error)
        total, count = jnp.abs(error) + jnp.abs(last_error), 1.0 - t.first + t.terminated
        return q, learner, {"td_error": Average(total, count)}

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Evaluate the Boltzmann policy used in training, see `tables.measure`."""
        policy = jax.nn.softmax(state.params / config.temperature)
        solve = lambda P, R: tabular.steps_and_values(P, R, policy, config.discount)
        return measure(env, agent, tasks, state, key, solve, config.discount, greedy=False)

    return learner_from_steps(config, env, tasks, agent, in_turn(learn), evaluate)
