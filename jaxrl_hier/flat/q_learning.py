"""Tabular Q-learning (Watkins, 1989; Watkins & Dayan, Machine Learning 8, 1992).

    Q(s, a) += α [r + γ max_a' Q(s', a') − Q(s, a)]

max Q(s', ·) is 0 where the task ended in s'; a time limit does not end it. Behaviour is ε-greedy, with ties broken at
random, so the first episode of a table of zeros is a uniform random walk until the first reward. The defaults are the
setting of Sutton, Precup & Singh (Artificial Intelligence 112, 1999) for learning with primitive actions alone.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrl_envs.random_bits import uniforms
from jaxrl_hier.checks import require_fraction, require_positive
from jaxrl_hier.engine.loops import online
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
from jaxrl_hier.learning.tables import begin_learning, epsilon_greedy, in_turn, measure, table_sizes
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of tabular Q-learning."""

    renamed: ClassVar = {"record": "recorded_episodes"}

    step_size: float = 0.125
    """α"""
    epsilon: float = 0.1
    """ε, probability of an action drawn from all of them"""
    discount: float = 0.9
    """γ"""
    initial_value: float = 0.0
    """of every entry of the table"""
    environments: int = 1
    """environments that feed the one table; what they bring is learned from in turn"""
    recorded_episodes: int = 1000
    """episodes of each environment whose length and return are kept"""


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """Q-learning on an environment with Discrete observations and actions; parameters: Q [S, A].

    Raises:
        UsageError: a setting that cannot work, or an environment without such spaces.
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

    def init(key: jax.Array) -> TrainState:
        return begin_learning(
            env, agent, tasks, key, environments=config.environments, recorded_episodes=config.recorded_episodes
        )

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """The greedy policy, see `tables.measure`. Its ties are drawn from uniformly, as the agent does."""

        def solve(P: jax.Array, R: jax.Array) -> tuple[jax.Array, jax.Array]:
            policy = tabular.greedy_policy(state.params, tolerance=0.0)
            going_on = jnp.where(tabular.absorbing(P), 0.0, P)  # an end is worth 0: solvable also with γ = 1
            return tabular.expected_steps(P, policy), tabular.policy_evaluation(going_on, R, policy, config.discount)

        return measure(env, agent, state, key, solve, config.discount)

    step = online(env, agent, tasks, in_turn(learn), length=1)
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments)
