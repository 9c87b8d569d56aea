"""Belief-greedy play where the goal is hidden: an opponent of learners that learn to learn on Four Rooms.

It knows the dynamics and which cells may be the goal, each equally likely, holds the exact belief b over
goals given what a trial has shown (`jaxrl_envs.trial.Trial`), and walks towards the goal that is worth most,

    g = argmax_g b(g) V_g(s),   a = argmax_a Q_g(s, a)

with the optimal values Q_g of each goal g: mostly the nearest of the likeliest. It does not plan how to search, so
Bayes-optimal play is at least as good. The Bayes filter, for the step from s with a:

    the episode goes on in s'          b(s') ← 0
    it has ended with a reward         b(g) ← b(g) P(g | s, a)          the last cell of an episode is not shown
    it has ended without one           b(g) ← b(g) (1 − P(g | s, a))

It is an `Agent` without learning, played in trials like the learners.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import FourRooms
from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput, Agent, Params
from jaxrl_hier.exact.tabular import action_values, value_iteration


class Belief(NamedTuple):
    """The agent's carry."""

    goals: jax.Array  # [S] the probability of each cell to be the goal
    cell: jax.Array  # [] int32, where the agent was before


def goal_values(env: FourRooms, gamma: float) -> jax.Array:
    """The optimal action values for each goal, [G, S, A], with G = S."""

    def of(goal: jax.Array) -> jax.Array:
        P, R = env.model(env.default_params.replace(goal=goal))
        return action_values(P, R, value_iteration(P, R, gamma), gamma)

    return jax.vmap(of)(jnp.arange(len(env.transitions)))


def filtered(
    P: jax.Array, belief: Belief, action: jax.Array, reward: jax.Array, cell: jax.Array, ended: jax.Array
) -> jax.Array:
    """The belief over goals [S] after a step of `action` that led to `reward` and to `cell`, which is the successor
    unless the episode has `ended`."""
    arrives = P[belief.cell, action]  # [S]
    at_end = jnp.where(reward > 0, arrives, 1 - arrives)
    likelihood = jnp.where(ended, at_end, jnp.arange(len(P)) != cell)
    weight = belief.goals * likelihood
    return weight / jnp.sum(weight)


def belief_greedy(trial: Trial, goals: Sequence[int] | None = None, gamma: float = 0.9) -> Agent:
    """The belief-greedy player of trials of `FourRooms`, observed by numbers of cells. No parameters.

    Args:
        goals: the cells that may be the goal, each equally likely; None: all but the start.
        gamma: discount factor of the values that it compares.

    Raises:
        UsageError: another environment.
    """
    env = trial.env
    if not isinstance(env, FourRooms) or env.observation != "index":
        raise UsageError(f"belief_greedy plays trials of FourRooms(observation='index'), got {trial.name}")
    P, Q = jnp.asarray(env.transitions, jnp.float32), goal_values(env, gamma)
    states = len(P)
    possible = np.arange(states) != env.default_params.start if goals is None else np.isin(np.arange(states), goals)
    prior = jnp.asarray(possible / possible.sum(), jnp.float32)

    def start(params: Params, key: jax.Array) -> Belief:
        return Belief(prior, jnp.zeros((), jnp.int32))

    def act(params: Params, before: Belief, inp: ActInput, key: jax.Array, greedy: bool) -> tuple:
        cell = jnp.argmax(inp.obs[:states]).astype(jnp.int32)
        after = filtered(P, before, inp.prev_action, inp.prev_reward, cell, trial.first_of_episode(inp.obs))
        goals = jnp.where(inp.first, prior, after)
        best = jnp.argmax(goals * jnp.max(Q[:, cell], axis=1))
        return jnp.argmax(Q[best, cell]).astype(jnp.int32), Belief(goals, cell), ()

    return Agent(init=lambda key: (), start=start, act=act)
