"""Learning options from subgoals (Sutton, Precup & Singh, Artificial Intelligence 112, 1999, section 7, figures 11 and
12).

A subgoal says where an option may run, where it stops and what stopping there is worth, g_o(s). The option's policy is
learned by Q-learning in this subproblem. All options learn from the same steps s, a, r, s', whatever the behaviour, as
long as they may run in s:

    Q_o(s, a) += α [r + γ U(s', o) − Q_o(s, a)]     U(s', o) = (1 − β_o(s')) max_a' Q_o(s', a') + β_o(s') g_o(s')

The behaviour is uniformly random actions. `learned_options` turns the tables into options, for any learner or planner
here and for any goal. The defaults are the setting of figure 11, where actions pay nothing (a task without a goal);
with `option_models.noisy_rewards` as the task, subgoal_value 1 and 10 are those of figure 12.

Departures: none that we know of. Where the paper leaves a choice, a learned option takes the first of equally good
actions.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.contract import name_of, observed_model
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError, require_fraction, require_positive
from jaxrl_hier.engine.loops import begin_learning, online
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
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical.call_and_return import can_run
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, four_rooms_of, hallway_options
from jaxrl_hier.learning.tables import in_turn, random_action, table_sizes
from jaxrl_hier.settings import BaseConfig


class Subgoals(NamedTuple):
    """The subgoals of O options over S states."""

    initiation: jax.Array  # [O, S] bool, where each option may start
    termination: jax.Array  # [O, S] probability β of stopping on entering a state
    value: jax.Array  # [O, S] g, what stopping in a state is worth


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of learning options from subgoals. The defaults are those of the paper's figure 11."""

    subgoal_value: float = 1.0
    """value of stopping in an option's target hallway (g), positive; it is 0 at every other way out of the room"""
    step_size: float = 0.1
    """step size (α), in [0, 1]"""
    discount: float = 0.9
    """discount per step (γ), in [0, 1]"""
    environments: int = 1
    """environments that share the tables; their transitions update them one at a time"""


def hallway_subgoals(env: Any, value: Any = 1.0) -> Subgoals:
    """The subgoals of the eight hallway options of four rooms: `value` for the target hallway, 0 outside the room."""
    from jaxrl_envs.four_rooms import HALLWAYS, NUM_CELLS, cell_index

    given = hallway_options(env)
    targets = jnp.array([cell_index(*HALLWAYS[option.split(" to ")[1]]) for option in HALLWAY_OPTIONS])
    return Subgoals(given.initiation, given.termination, value * jax.nn.one_hot(targets, NUM_CELLS))


def learned_options(q: jax.Array, subgoals: Subgoals) -> Options:
    """The options whose policies are greedy for the tables `q` [O, S, A]; of equally good actions the first."""
    policy = jax.nn.one_hot(jnp.argmax(q, axis=2), q.shape[2])
    return Options(
        subgoals.initiation,
        policy * can_run(subgoals.initiation, subgoals.termination)[..., None],
        subgoals.termination,
    )


def exact_values(P: jax.Array, R: jax.Array, subgoals: Subgoals, gamma: float) -> jax.Array:
    """The optimal Q_o(s, a) [O, S, A] of every subgoal on P [S, A, S'] and R [S, A], to which the tables converge."""

    def solve(termination: jax.Array, value: jax.Array) -> jax.Array:  # [S], [S] -> [S, A]
        stop = jnp.where(tabular.absorbing(P), 1.0, termination)
        going_on, reward = P * (1 - stop), R + gamma * jnp.einsum("sat,t->sa", P, stop * value)
        return tabular.action_values(going_on, reward, tabular.value_iteration(going_on, reward, gamma), gamma)

    return jax.vmap(solve)(subgoals.termination, subgoals.value)


def learn(config: Config, subgoals: Subgoals, q: jax.Array, learner: Any, t: Transition) -> tuple[Any, Any, Metrics]:
    """The tables Q [O, S, A] after one transition."""
    learns = can_run(subgoals.initiation, subgoals.termination).T  # [S, O]
    stop, value = subgoals.termination.T, subgoals.value.T
    beta = jnp.where(t.terminated, 1.0, stop[t.next_obs])  # [O]
    u = (1 - beta) * jnp.max(q[:, t.next_obs], axis=1) + beta * value[t.next_obs]
    learning = learns[t.obs]
    error = jnp.where(learning, t.reward + config.discount * u - q[:, t.obs, t.action], 0.0)
    metrics = {"td_error": Average(jnp.sum(jnp.abs(error)), jnp.sum(learning))}
    return q.at[:, t.obs, t.action].add(config.step_size * error), learner, metrics


def option_errors(config: Config, subgoals: Subgoals, q: jax.Array, P: jax.Array, R: jax.Array) -> dict[str, jax.Array]:
    """Errors [O] of tables `q` [O, S, A] against the exact solutions, over each option's initiation states.

    "value_error": root mean square error of max_a Q_o(s, a); "policy_loss" and "policy_loss_max": mean and largest
    difference between the optimal value and that of the greedy policy.
    """
    options, started = learned_options(q, subgoals), subgoals.initiation
    best = jnp.max(exact_values(P, R, subgoals, config.discount), axis=2)  # [O, S]
    error = jnp.max(q, axis=2) - best
    models = smdp.option_models(P, R, options, config.discount)
    reached = models.reward + jnp.einsum("ost,ot->os", models.transition, subgoals.value)
    loss = best - reached
    return {
        "value_error": jnp.sqrt(jnp.mean(jnp.square(error), axis=1, where=started)),
        "policy_loss": jnp.mean(loss, axis=1, where=started),
        "policy_loss_max": jnp.max(loss, axis=1, where=started, initial=0.0),
    }


def make(config: Config, env: Any, tasks: Tasks, subgoals: Subgoals | None = None) -> Algorithm:
    """Option learning on an environment with Discrete observations and actions; parameters: Q [O, S, A].

    Args:
        subgoals: in place of those of the hallway options of four rooms.

    Raises:
        UsageError: a setting or subgoals that cannot work, an environment without such spaces or without `model`.
    """
    require_positive(config, "environments", "subgoal_value")
    require_fraction(config, "step_size", "discount")
    num_states, num_actions = table_sizes(env)
    if not observed_model(env):
        raise UsageError(f"learned options are evaluated against the exact ones, and {name_of(env)} has no `model`")
    if subgoals is None:
        subgoals = hallway_subgoals(four_rooms_of(env), config.subgoal_value)
    given = Subgoals(*map(jnp.asarray, subgoals))
    for name, array in zip(Subgoals._fields, given):
        if array.shape != (len(given.value), num_states):
            raise UsageError(f"{name} must be [options, states] with {num_states} states, got shape {array.shape}")

    def act(params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        return random_action(key, num_actions), carry, ()

    shape = (len(given.value), num_states, num_actions)
    agent = Agent(init=lambda key: jnp.zeros(shape), start=lambda params, key: (), act=act)

    def init(key: jax.Array, params: Any = None) -> TrainState:
        return begin_learning(env, agent, tasks, key, params, environments=config.environments)

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """`option_errors` [environment, option] on the environments' tasks."""
        errors = lambda task: option_errors(config, given, state.params, *env.model(task))
        measured = jax.vmap(errors)(state.world.task)
        return {name: NamedArray(values, ("environment", "option")) for name, values in measured.items()}

    step = online(env, agent, tasks, in_turn(partial(learn, config, given)), length=1)
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments)
