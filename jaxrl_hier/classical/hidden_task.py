"""Belief-greedy play where the task is hidden: an opponent of learners that learn to learn on tables.

It knows the finitely many tasks m, each equally likely, and their models P_m. It holds the exact belief b over
them given what a trial has shown (`jaxrl_envs.trial.Trial`), and plays the task that is worth most,

    m = argmax_m b(m) V_m(s),   a = argmax_a Q_m(s, a)

with the optimal values Q_m of each task. Where the tasks are goals, it mostly walks to the nearest of the likeliest. It
does not plan how to explore, so Bayes-optimal play is at least as good. The tasks pay 1 on entering an absorbing state,
which ends the episode, and 0 otherwise, so that R_m(s, a) is the probability of that. The Bayes filter, for the step
from s with a:

    the episode goes on in s'          b(m) ← b(m) P_m(s'|s, a), and 0 where s' would end it
    it has ended with a reward         b(m) ← b(m) R_m(s, a)          the last state of an episode is not shown
    it has ended without one           b(m) ← b(m) (1 − R_m(s, a))

It is an `Agent` without learning, played in trials like the learners.

Axes in shapes: M tasks, S states, A actions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs.contract import observed_model
from jaxrl_envs.tasks import EnvParams
from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput, Agent, Params
from jaxrl_hier.exact.tabular import absorbing, action_values, value_iteration


class Models(NamedTuple):
    """What is known of each task."""

    P: jax.Array  # [M, S, A, S'] transition probabilities
    R: jax.Array  # [M, S, A] the probability to end the episode with a reward
    end: jax.Array  # [M, S] bool, absorbing
    Q: jax.Array  # [M, S, A] optimal action values


class Belief(NamedTuple):
    """The agent's carry."""

    tasks: jax.Array  # [M] the probability of each task
    state: jax.Array  # [] int32, where the agent was before


def models_of(env: object, tasks: EnvParams, gamma: float) -> Models:
    """The models and optimal values of `tasks`, leading axis [M]."""

    def of(task: EnvParams) -> Models:
        P, R = env.model(task)  # type: ignore[attr-defined]  # of an environment that is a table
        P, R = jnp.asarray(P, jnp.float32), jnp.asarray(R, jnp.float32)
        return Models(P, R, absorbing(P), action_values(P, R, value_iteration(P, R, gamma), gamma))

    return jax.vmap(of)(tasks)


def filtered(
    known: Models, belief: Belief, action: jax.Array, reward: jax.Array, state: jax.Array, ended: jax.Array
) -> jax.Array:
    """The belief over tasks [M] after a step of `action` that led to `reward` and to `state`, which is the successor
    unless the episode has `ended`."""
    onward = jnp.where(known.end[:, state], 0.0, known.P[:, belief.state, action, state])
    rewarded = known.R[:, belief.state, action]
    at_end = jnp.where(reward > 0, rewarded, 1 - rewarded)
    weight = belief.tasks * jnp.where(ended, at_end, onward)
    return weight / jnp.sum(weight)


def belief_greedy(trial: Trial, tasks: EnvParams, gamma: float = 0.9) -> Agent:
    """The belief-greedy player of trials of an environment that is a table and shows its states as numbers. No
    parameters.

    Args:
        tasks: params of the inner environment, leading axis [M], each equally likely.
        gamma: discount factor of the values that it compares.

    Raises:
        UsageError: an environment that is no such table.
    """
    env = trial.env
    if not (observed_model(env) and isinstance(env.observation_space(env.default_params), spaces.Discrete)):
        raise UsageError(f"belief_greedy plays trials of environments with a model of what they show, not {trial.name}")
    known = models_of(env, tasks, gamma)
    count, states = known.end.shape
    prior = jnp.full(count, 1.0 / count)

    def start(params: Params, key: jax.Array) -> Belief:
        return Belief(prior, jnp.zeros((), jnp.int32))

    def act(params: Params, before: Belief, inp: ActInput, key: jax.Array, greedy: bool) -> tuple:
        state = jnp.argmax(inp.obs[:states]).astype(jnp.int32)
        after = filtered(known, before, inp.prev_action, inp.prev_reward, state, trial.first_of_episode(inp.obs))
        belief = jnp.where(inp.first, prior, after)
        best = jnp.argmax(belief * jnp.max(known.Q[:, state], axis=1))
        return jnp.argmax(known.Q[best, state]).astype(jnp.int32), Belief(belief, state), ()

    return Agent(init=lambda key: (), start=start, act=act)
