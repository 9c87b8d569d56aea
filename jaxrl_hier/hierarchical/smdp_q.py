"""SMDP Q-learning over options (Sutton, Precup & Singh, Artificial Intelligence 112, 1999, section 3.2).

An option o, started in s, that stops in s' after k steps:

    Q(s, o) += α [R + γ^k max_o' Q(s', o') − Q(s, o)]         R = r_1 + γ r_2 + … + γ^(k-1) r_k

o' ranges over the options that may start in s'; the maximum is 0 where the task ended. Behaviour is ε-greedy over the
options that may start, each followed until it stops, with ties broken at random. The defaults are the paper's setting
of figure 6: ε = .1, and α = 1/8 but for (hallway options, G1) with 1/16 and (both, G2) with 1/4.

Departure: a time limit, which the paper has none of, cuts the running option. It is then credited as if it had stopped
there, with the maximum of the true successor.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import require_fraction, require_positive
from jaxrl_hier.engine.loops import online
from jaxrl_hier.engine.types import Algorithm, Average, Metrics, NamedArray, Params, Tasks, TrainState, Transition
from jaxrl_hier.hierarchical.call_and_return import call_and_return, option_end, solve_over_options
from jaxrl_hier.hierarchical.options import option_set
from jaxrl_hier.learning.tables import begin_learning, in_turn, measure
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of SMDP Q-learning."""

    renamed: ClassVar = {"record": "recorded_episodes"}

    options: Literal["primitive", "hallway", "both"] = "both"
    """what is chosen among: actions as one-step options, the eight hallway options of four rooms, or both"""
    step_size: float = 0.125
    """α"""
    epsilon: float = 0.1
    """ε, probability of an option drawn from all that may start"""
    discount: float = 0.9
    """γ"""
    environments: int = 1
    """environments that feed the one table; what they bring is learned from in turn"""
    recorded_episodes: int = 1000
    """episodes of each environment whose length and return are kept"""


def make(config: Config, env: Any, tasks: Tasks, options: Options | None = None) -> Algorithm:
    """SMDP Q-learning on an environment with Discrete observations and actions; parameters: Q [S, O].

    Args:
        options: instead of those that `config.options` names.

    Raises:
        UsageError: a setting or an option that cannot work, or an environment without such spaces.
    """
    require_fraction(config, "step_size", "epsilon", "discount")
    require_positive(config, "environments")
    require_positive(config, "recorded_episodes", or_zero=True)
    options = option_set(config.options, options, env, tasks)
    num_options, num_states, _ = options.policy.shape
    available = options.initiation.T  # [S, O]

    agent = call_and_return(
        options,
        init=lambda key: jnp.zeros((num_states, num_options)),
        values=lambda q, state: q[state],
        epsilon=config.epsilon,
        discount=config.discount,
    )

    def learn(q: Params, learner: Any, t: Transition) -> tuple[Params, Any, Metrics]:
        stopped, reward, discount = option_end(options, t, config.discount)
        best = jnp.max(jnp.where(available[t.next_obs], q[t.next_obs], -jnp.inf))
        target = reward + discount * jnp.where(t.terminated, 0.0, best)
        start, option = t.extras.start, t.extras.option
        error = jnp.where(stopped, target - q[start, option], 0.0)
        metrics = {"td_error": Average(jnp.abs(error), stopped)}
        return q.at[start, option].add(config.step_size * error), learner, metrics

    def init(key: jax.Array) -> TrainState:
        return begin_learning(
            env, agent, tasks, key, environments=config.environments, recorded_episodes=config.recorded_episodes
        )

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """The greedy policy over options, see `tables.measure`."""
        solve = lambda P, R: solve_over_options(P, R, options, state.params, config.discount)
        return measure(env, agent, state, key, solve, config.discount)

    step = online(env, agent, tasks, in_turn(learn), length=1)
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments)
