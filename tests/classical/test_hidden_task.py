"""Belief-greedy play of a hidden task: the Bayes filter against a count, and play against a slow loop over a trial."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs.four_rooms import FourRooms, hidden_goal_tasks
from jaxrl_envs.grid_family import GridFamily
from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import UsageError
from jaxrl_hier.classical.hidden_task import Belief, belief_greedy, filtered, models_of
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from tests.compiling import quick_jit


def goals_of(env):
    """Tasks with every cell but the start as the goal."""
    return jax.vmap(lambda goal: env.default_params.replace(goal=goal))(jnp.arange(1, 104))


def test_the_filter_counts_what_could_have_happened():
    """Against the share of simulated tasks and moves that agree with what was seen, where tasks differ in the goal."""
    env = FourRooms()
    P, known = np.asarray(env.transitions, np.float32), models_of(env, goals_of(env), 0.9)
    rng, cell, action = np.random.default_rng(1), 47, 2
    near = P[cell, action] > 0
    prior = rng.dirichlet(np.where(near, 1.0, 0.01)[1:])
    goal = 1 + rng.choice(103, 200_000, p=prior)
    then = rng.choice(len(P), 200_000, p=P[cell, action] / P[cell, action].sum())
    before = Belief(jnp.asarray(prior, jnp.float32), jnp.int32(cell))
    next_cell = np.argmax(P[cell, action])
    for reward, ended, seen in (
        (0.0, False, (then == next_cell) & (goal != next_cell)),
        (1.0, True, then == goal),
        (0.0, True, then != goal),
    ):
        shown = 0 if ended else next_cell  # a new episode has begun elsewhere
        found = filtered(known, before, jnp.int32(action), jnp.float32(reward), jnp.int32(shown), jnp.asarray(ended))
        counted = np.bincount(goal[seen] - 1, minlength=103) / seen.sum()
        np.testing.assert_allclose(found, counted, atol=0.01)
        assert np.sum(found) == pytest.approx(1, abs=1e-5)


def test_the_filter_of_dynamics_is_bayes():
    """Two members of a family, one with ice at the start: each way that a step can go, by hand."""
    grip = np.ones((2, 1, 3))
    grip[1, 0, 0] = 0.25
    env = GridFamily(np.ones((2, 1, 3), bool), grip, start=(0, 0), goal=(0, 2), limit=5)
    members = jax.vmap(lambda member: env.default_params.replace(member=member))(jnp.arange(2))
    known, before, right = models_of(env, members, 0.9), Belief(jnp.array([0.5, 0.5]), jnp.int32(0)), jnp.int32(3)
    bayes = lambda state, ended: filtered(known, before, right, jnp.float32(0), jnp.int32(state), jnp.asarray(ended))
    np.testing.assert_allclose(bayes(1, False), [0.8, 0.2], atol=1e-6)  # 1 against .25
    np.testing.assert_allclose(bayes(0, False), [0, 1], atol=1e-6)  # it slipped
    np.testing.assert_allclose(bayes(0, True), [0.5, 0.5], atol=1e-6)  # a time limit here tells nothing


def test_play_follows_the_belief():
    """Each action is the best one for the goal that is worth most under the belief of a slow loop over the trial."""
    env = FourRooms()
    P = np.asarray(env.transitions, np.float32)
    trial = Trial(env, 2)
    tasks = trial.tasks_of(hidden_goal_tasks(env, limit=30))
    agent = belief_greedy(trial, goals_of(env))

    def play(key):
        worlds = begin_worlds(trial, agent, tasks, (), key, 8)
        return rollout(trial, agent, tasks, (), worlds, 60)[1]

    t = jax.device_get(quick_jit(play)(jax.random.key(0)))
    Q, found = np.asarray(models_of(env, goals_of(env), 0.9).Q), 0
    for b in range(8):
        belief = np.full(103, 1 / 103)
        for i in range(60):
            if i and t.first[i, b]:
                break
            cell = np.argmax(t.obs[i, b, :104])
            if i:
                before, did = np.argmax(t.obs[i - 1, b, :104]), t.action[i - 1, b]
                if not t.obs[i, b, -1]:
                    belief[cell - 1] *= cell == 0  # cell 0 is no goal
                else:
                    arrives = P[before, did, 1:]
                    belief *= arrives if t.reward[i - 1, b] else 1 - arrives
                    found += t.reward[i - 1, b]
                belief /= belief.sum()
            worth = belief * Q[:, cell].max(1)
            assert worth[np.argmax(Q[:, cell, t.action[i, b]] * belief)] >= worth.max() - 1e-6
    assert found


def test_what_cannot_be_played_is_said():
    with pytest.raises(UsageError, match="belief_greedy plays trials of environments with a model of what they show"):
        belief_greedy(Trial(jaxrl_envs.make("CartPole-v1")[0], 2), None)
