"""Tabular Q-learning (Watkins, 1989; Watkins & Dayan, Machine Learning 8, 1992).

    Q(s, a) += α [r + γ max_a' Q(s', a') − Q(s, a)]

The value of s' is 0 after a termination, but not after a truncation. Behaviour is ε-greedy with random tie-breaking, so
with a table of zeros the agent follows a uniform random walk until its first reward. The defaults are those of Sutton,
Precup & Singh (Artificial Intelligence 112, 1999) for learning with primitive actions only.

Departure: the step size is constant, where the proof of convergence (1992) lets it fall.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

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
from jaxrl_hier.learning.tables import epsilon_greedy, in_turn, learner_from_steps, measure, table_sizes
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of tabular Q-learning."""

    renamed: ClassVar = {"record": "recorded_episodes"}

    step_size: float = 0.125
    """step size α, in [0, 1]"""
    epsilon: float = 0.1
    """probability ε of a uniformly random action, in [0, 1]"""
    discount: float = 0.9
    """discount γ, in [0, 1]"""
    initial_value: float = 0.0
    """initial value of every table entry"""
    environments: int = 1
    """parallel environments; their transitions update the shared table one at a time"""
    recorded_episodes: int = 1000
    """number of first episodes of each environment whose length and return are recorded"""


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """Q-learning on an environment with Discrete observations and actions; parameters: Q [S, A].

    Raises:
        UsageError: invalid settings, or an environment with other spaces.
    """
    require_fraction(config, "step_size", "epsilon", "discount")
    require_positive(config, "environments")
    require_positive(config, "recorded_episodes", or_zero=True)
    num_states, num_actions = table_sizes(env)
    every_action = jnp.ones(num_actions, bool)

    def init_params(key: jax.Array) -> Params:
        return jnp.full((num_states, num_actions), config.initial_value, jnp.float32)

    def act(q: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        draws = uniforms(key, 2)
        return epsilon_greedy(draws, q[inp.obs], every_action, 0.0 if greedy else config.epsilon), carry, ()

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)

    def learn(q: Params, learner: Any, t: Transition) -> tuple[Params, Any, Metrics]:
        following = jnp.where(t.terminated, 0.0, jnp.max(q[t.next_obs]))
        error = t.reward + config.discount * following - q[t.obs, t.action]
        metrics = {"td_error": Average(jnp.abs(error), jnp.ones(()))}
        return q.at[t.obs, t.action].add(config.step_size * error), learner, metrics

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Evaluate the greedy policy, see `tables.measure`. Ties are broken uniformly at random, as in acting."""

        def solve(P: jax.Array, R: jax.Array) -> tuple[jax.Array, jax.Array]:
            policy = tabular.greedy_policy(state.params, tolerance=0.0)
            return tabular.steps_and_values(P, R, policy, config.discount)

        return measure(env, agent, tasks, state, key, solve, config.discount)

    return learner_from_steps(config, env, tasks, agent, in_turn(learn), evaluate)
