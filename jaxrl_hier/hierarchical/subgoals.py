"""Learning the options themselves from subgoals (Sutton, Precup & Singh, Artificial Intelligence 112, 1999, section 7,
figures 11 and 12).

A subgoal says where an option may run, where it stops and what stopping is worth, g_o(s). Its policy is learned by
Q-learning for that little problem, for all options from the same steps s, a, r, s' (one that may run in s learns from
the step, whatever has acted):

    Q_o(s, a) += α [r + γ U(s', o) − Q_o(s, a)]     U(s', o) = (1 − β_o(s')) max_a' Q_o(s', a') + β_o(s') g_o(s')

Behaviour: uniformly random actions. `learned_options` makes options of the tables, for any learner or planner here and
for any goal. The defaults are the setting of figure 11, where actions pay nothing (a task without a goal); with
`option_models.noisy_rewards` as the task, subgoal_value 1 and 10 are figure 12.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError, require_fraction, require_positive
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
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical.call_and_return import can_run
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, four_rooms_of, hallway_options
from jaxrl_hier.learning.tables import begin_learning, in_turn, observed_model, random_action, table_sizes
from jaxrl_hier.settings import BaseConfig


class Subgoals(NamedTuple):
    """What O options over S states are for; how they get there is to be learned."""

    initiation: jax.Array  # [O, S] bool, where each option may start
    termination: jax.Array  # [O, S] probability β of stopping on entering a state
    value: jax.Array  # [O, S] g, what stopping in a state is worth


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of learning options from subgoals. The defaults are those of the paper's figure 11."""

    subgoal_value: float = 1.0
    """g at an option's target hallway; it is 0 at every other way out of the room"""
    step_size: float = 0.1
    """α"""
    discount: float = 0.9
    """γ"""
    environments: int = 1
    """environments that feed the tables; what they bring is learned from in turn"""


def hallway_subgoals(env: Any, value: Any = 1.0) -> Subgoals:
    """The subgoals of the eight hallway options of four rooms: `value` for the target hallway, 0 outside the room."""
    from jaxrl_envs.four_rooms import HALLWAYS, NUM_CELLS, cell_index

    given = hallway_options(env)
    targets = jnp.array([cell_index(*HALLWAYS[option.split(" to ")[1]]) for option in HALLWAY_OPTIONS])
    return Subgoals(given.initiation, given.termination, value * jax.nn.one_hot(targets, NUM_CELLS))


def learned_options(q: jax.Array, subgoals: Subgoals) -> Options:
    """The options whose policies are greedy for the tables `q` [O, S, A], the first of equally good actions."""
    policy = jax.nn.one_hot(jnp.argmax(q, axis=2), q.shape[2])
    return Options(
        subgoals.initiation,
        policy * can_run(subgoals.initiation, subgoals.termination)[..., None],
        subgoals.termination,
    )


def exact_values(P: jax.Array, R: jax.Array, subgoals: Subgoals, gamma: float) -> jax.Array:
    """What the tables converge to, the optimal Q_o(s, a) [O, S, A] of every subgoal."""

    def solve(termination: jax.Array, value: jax.Array) -> jax.Array:  # [S], [S] -> [S, A]
        stop = jnp.where(tabular.absorbing(P), 1.0, termination)
        going_on, reward = P * (1 - stop), R + gamma * jnp.einsum("sat,t->sa", P, stop * value)
        return tabular.action_values(going_on, reward, tabular.value_iteration(going_on, reward, gamma), gamma)

    return jax.vmap(solve)(subgoals.termination, subgoals.value)


def make(config: Config, env: Any, tasks: Tasks, subgoals: Subgoals | None = None) -> Algorithm:
    """Option learning on an environment with Discrete observations and actions; parameters: Q [O, S, A].

    Args:
        subgoals: instead of those of the hallway options of four rooms.

    Raises:
        UsageError: a setting or subgoals that cannot work, an environment without such spaces or without `model`.
    """
    require_positive(config, "environments", "subgoal_value")
    require_fraction(config, "step_size", "discount")
    num_states, num_actions = table_sizes(env)
    if not observed_model(env):
        raise UsageError(f"learned options are evaluated against the exact ones, and {env.name} has no `model`")
    if subgoals is None:
        subgoals = hallway_subgoals(four_rooms_of(env), config.subgoal_value)
    subgoals = Subgoals(*map(jnp.asarray, subgoals))
    for name, array in zip(Subgoals._fields, subgoals):
        if array.shape != (len(subgoals.value), num_states):
            raise UsageError(f"{name} must be [options, states] with {num_states} states, got shape {array.shape}")
    learns = can_run(subgoals.initiation, subgoals.termination).T  # [S, O]
    stop, value = subgoals.termination.T, subgoals.value.T

    def act(params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        return random_action(key, num_actions), carry, ()

    shape = (len(subgoals.value), num_states, num_actions)
    agent = Agent(init=lambda key: jnp.zeros(shape), start=lambda params, key: (), act=act)

    def learn(q: Params, learner: Any, t: Transition) -> tuple[Params, Any, Metrics]:
        beta = jnp.where(t.terminated, 1.0, stop[t.next_obs])  # [O]
        u = (1 - beta) * jnp.max(q[:, t.next_obs], axis=1) + beta * value[t.next_obs]
        learning = learns[t.obs]
        error = jnp.where(learning, t.reward + config.discount * u - q[:, t.obs, t.action], 0.0)
        metrics = {"td_error": Average(jnp.sum(jnp.abs(error)), jnp.sum(learning))}
        return q.at[:, t.obs, t.action].add(config.step_size * error), learner, metrics

    def init(key: jax.Array) -> TrainState:
        return begin_learning(env, agent, tasks, key, environments=config.environments)

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Errors over each option's initiation states, against the exact solution of its subgoal.

        "value_error": root mean square error of max_a Q_o(s, a); "policy_loss": what the greedy policy falls short of
        the optimal value, its mean and ("policy_loss_max") the largest; all [environment, option].
        """
        started = subgoals.initiation
        options = learned_options(state.params, subgoals)

        def errors(task: Any) -> dict[str, jax.Array]:
            P, R = env.model(task)
            best = jnp.max(exact_values(P, R, subgoals, config.discount), axis=2)  # [O, S]
            error = jnp.max(state.params, axis=2) - best
            models = smdp.option_models(P, R, options, config.discount)
            reached = models.reward + jnp.einsum("ost,ot->os", models.transition, subgoals.value)
            loss = best - reached
            return {
                "value_error": jnp.sqrt(jnp.mean(jnp.square(error), axis=1, where=started)),
                "policy_loss": jnp.mean(loss, axis=1, where=started),
                "policy_loss_max": jnp.max(loss, axis=1, where=started, initial=0.0),
            }

        measured = jax.vmap(errors)(state.world.task)
        return {name: NamedArray(values, ("environment", "option")) for name, values in measured.items()}

    step = online(env, agent, tasks, in_turn(learn), length=1)
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments)
