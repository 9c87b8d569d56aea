"""SMDP Q-learning over options (Sutton, Precup & Singh, Artificial Intelligence 112, 1999, section 3.2).

For an option o that started in s and stops in s' after k steps:

    Q(s, o) += α [R + γ^k max_o' Q(s', o') − Q(s, o)]         R = r_1 + γ r_2 + … + γ^(k-1) r_k

o' ranges over the options that may start in s'; the maximum is 0 where the task ended. The behaviour is ε-greedy over
the options that may start, each followed until it stops, with ties broken at random. The defaults are the paper's for
figure 6: ε = 0.1 and α = 1/8, except for (hallway options, G1) with α = 1/16 and (both, G2) with α = 1/4.

Departure: the paper has no time limit. Here a time limit ends the running option, which is then updated as if it had
stopped there, with the maximum in the true successor.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrl_hier.abstractions.options import Options, OptionSet
from jaxrl_hier.checks import require_fraction, require_positive
from jaxrl_hier.engine.types import Algorithm, Average, Metrics, NamedArray, Tasks, TrainState, Transition
from jaxrl_hier.hierarchical.call_and_return import call_and_return, option_end, solve_over_options
from jaxrl_hier.hierarchical.options import option_set
from jaxrl_hier.learning.tables import in_turn, learner_from_steps, measure
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of SMDP Q-learning."""

    options: OptionSet = "both"
    """the options to choose from: primitive actions, the eight hallway options of four rooms, both, or primitive
    actions and each of them repeated for four steps on average"""
    step_size: float = 0.125
    """step size (α), in [0, 1]"""
    epsilon: float = 0.1
    """probability of choosing at random among the options that may start (ε), in [0, 1]"""
    discount: float = 0.9
    """discount per step (γ), in [0, 1]"""
    environments: int = 1
    """environments that share the table; their transitions update it one at a time"""
    recorded_episodes: int = 1000
    """first episodes of each environment whose length and return are kept"""

    renamed: ClassVar = {"record": "recorded_episodes"}


def learn(config: Config, options: Options, q: jax.Array, learner: Any, t: Transition) -> tuple[Any, Any, Metrics]:
    """The table Q [S, O] after one transition, changed where the running option stops."""
    available = options.initiation.T  # [S, O]
    stopped, reward, discount = option_end(options, t, config.discount)
    best = jnp.max(jnp.where(available[t.next_obs], q[t.next_obs], -jnp.inf))
    target = reward + discount * jnp.where(t.terminated, 0.0, best)
    start, option = t.extras.start, t.extras.option
    error = jnp.where(stopped, target - q[start, option], 0.0)
    metrics = {"td_error": Average(jnp.abs(error), stopped)}
    return q.at[start, option].add(config.step_size * error), learner, metrics


def make(config: Config, env: Any, tasks: Tasks, options: Options | None = None) -> Algorithm:
    """SMDP Q-learning on an environment with Discrete observations and actions; parameters: Q [S, O].

    Args:
        options: the options to choose from, in place of those that `config.options` names.

    Raises:
        UsageError: a setting or an option that cannot work, or an environment without such spaces.
    """
    require_fraction(config, "step_size", "epsilon", "discount")
    require_positive(config, "environments")
    require_positive(config, "recorded_episodes", or_zero=True)
    options = option_set(config.options, options, env, tasks)
    num_options, num_states, _ = options.policy.shape
    agent = call_and_return(
        options,
        init=lambda key: jnp.zeros((num_states, num_options)),
        values=lambda q, state: q[state],
        epsilon=config.epsilon,
        discount=config.discount,
    )

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """`tables.measure` of the greedy policy over options."""
        solve = lambda P, R: solve_over_options(P, R, options, state.params, config.discount)
        return measure(env, agent, tasks, state, key, solve, config.discount)

    return learner_from_steps(config, env, tasks, agent, in_turn(partial(learn, config, options)), evaluate)
