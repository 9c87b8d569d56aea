"""Intra-option Q-learning (Sutton, Precup & Singh, Artificial Intelligence 112, 1999, section 6).

After every step s, a, r, s', for every option o whose policy takes a in s:

    Q(s, o) += α [r + γ U(s', o) − Q(s, o)]        U(s', o) = (1 − β_o(s')) Q(s', o) + β_o(s') max_o' Q(s', o')

o' ranges over the options that may start in s'; U is 0 where the task ended. An option need not be executed to be
learned about: with `behaviour="random"` actions are uniformly random and no option is ever chosen (the paper's figure
10); with "options" the behaviour is ε-greedy over options. For deterministic options Q converges to the values of the
optimal policy over options. The options are given; `subgoals` learns them.

With `interrupt` a running option is left wherever Q(s, o) < max Q(s, ·), which cannot make a policy over options worse
(section 5). The learned values remain those of options that run to their end.

Departure: all options are updated at once, from the values before the step. The paper updates primitive options first
and then the others in a fixed order, which differs only where a step leads back to its own state.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.abstractions.options import Options, OptionSet
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
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
from jaxrl_hier.hierarchical.call_and_return import call_and_return, can_run, solve_over_options
from jaxrl_hier.hierarchical.options import option_set
from jaxrl_hier.learning.tables import in_turn, learner_from_steps, measure, random_action
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of intra-option Q-learning."""

    options: OptionSet = "both"
    """the options to learn about: primitive actions, the eight hallway options of four rooms, both, or primitive
    actions and each of them repeated for four steps on average"""
    behaviour: Literal["options", "random"] = "options"
    """behaviour while learning: ε-greedy over options, or uniformly random actions"""
    interrupt: bool = False
    """leave a running option wherever the table prefers another"""
    step_size: float = 0.125
    """step size (α), in [0, 1]"""
    epsilon: float = 0.1
    """probability of choosing at random among the options that may start (ε), in [0, 1]; for behaviour options"""
    discount: float = 0.9
    """discount per step (γ), in [0, 1]"""
    environments: int = 1
    """environments that share the table; their transitions update it one at a time"""
    recorded_episodes: int = 1000
    """first episodes of each environment whose length and return are kept"""

    renamed: ClassVar = {"record": "recorded_episodes"}


def consistent_options(options: Options) -> jax.Array:
    """Which options take an action in a state, among those that may be running there, [S, A, O] bool.

    Raises:
        UsageError: a stochastic option; the algorithm, and its convergence, are for deterministic ones.
    """
    with jax.ensure_compile_time_eval():
        running = np.asarray(can_run(options.initiation, options.termination))
        policy = np.where(running[..., None], np.asarray(options.policy), 0.0)
    for o, s in np.argwhere(running & (policy.max(axis=2) < 1 - 1e-4)):
        raise UsageError(
            f"intra-option learning needs deterministic options, option {o} has policy "
            f"{policy[o, s].round(4).tolist()} in state {s}: give it one action per state, or learn by the SMDP method"
        )
    return jnp.asarray((policy > 0.5).transpose(1, 2, 0))


def learn(
    config: Config, options: Options, takes: jax.Array, q: jax.Array, learner: Any, t: Transition
) -> tuple[Params, Any, Metrics]:
    """The table Q [S, O] after one transition.

    Args:
        takes: [S, A, O] bool, `consistent_options`.
    """
    available, stop = options.initiation.T, options.termination.T  # [S, O]
    following = q[t.next_obs]  # [O]
    best = jnp.max(jnp.where(available[t.next_obs], following, -jnp.inf))
    beta = stop[t.next_obs]
    u = jnp.where(t.terminated, 0.0, (1 - beta) * following + beta * best)
    takes_it = takes[t.obs, t.action]  # [O]
    error = jnp.where(takes_it, t.reward + config.discount * u - q[t.obs], 0.0)
    metrics = {"td_error": Average(jnp.sum(jnp.abs(error)), jnp.sum(takes_it))}
    return q.at[t.obs].add(config.step_size * error), learner, metrics


def make(config: Config, env: Any, tasks: Tasks, options: Options | None = None) -> Algorithm:
    """Intra-option Q-learning on an environment with Discrete observations and actions; parameters: Q [S, O].

    Args:
        options: the options to learn about, in place of those that `config.options` names.

    Raises:
        UsageError: a setting or an option that cannot work, or an environment without such spaces.
    """
    require_choice(config, "behaviour", ("options", "random"))
    require_fraction(config, "step_size", "epsilon", "discount")
    require_positive(config, "environments")
    require_positive(config, "recorded_episodes", or_zero=True)
    options = option_set(config.options, options, env, tasks)
    takes = consistent_options(options)
    num_options, num_states, num_actions = options.policy.shape
    executing = call_and_return(
        options,
        init=lambda key: jnp.zeros((num_states, num_options)),
        values=lambda q, state: q[state],
        epsilon=config.epsilon,
        discount=config.discount,
        interrupt=config.interrupt,
    )

    def act(q: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        if config.behaviour == "random" and not greedy:
            return random_action(key, num_actions), carry, ()
        return executing.act(q, carry, inp, key, greedy)

    agent: Agent = executing._replace(act=act)

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """`tables.measure` of the greedy policy over options, with interruption if so configured."""
        solve = lambda P, R: solve_over_options(P, R, options, state.params, config.discount, config.interrupt)
        return measure(env, agent, tasks, state, key, solve, config.discount)

    return learner_from_steps(config, env, tasks, agent, in_turn(partial(learn, config, options, takes)), evaluate)
