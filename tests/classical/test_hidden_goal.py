"""Search for a hidden goal: the exact values against closed forms and a game tree, the Bayes filter against a count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.four_rooms import FourRooms, hidden_goal_tasks
from jaxrl_envs.taxi import Taxi
from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import UsageError
from jaxrl_hier.classical.hidden_goal import Belief, belief_greedy, filtered, goal_values
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.exact.hidden_goal import search_values
from jaxrl_hier.exact.tabular import value_sweeps
from tests.close import assert_close
from tests.compiling import quick_jit

LIMIT = 12


@pytest.fixture(scope="module")
def rooms():
    env = FourRooms()
    return env, np.asarray(env.transitions, np.float32)


def test_with_one_goal_it_is_value_iteration(rooms):
    env, P = rooms
    known = env.model(env.default_params.replace(goal=51))
    best = value_sweeps(*known, 1.0, LIMIT)[-1, 0]
    assert_close(search_values(P, [51], 0, LIMIT, 2), [best, best])


def test_search_is_the_value_of_the_whole_game_tree():
    """On a random process of five cells, three of which may be the goal, by recursion over all histories."""
    P = np.random.default_rng(0).dirichlet(np.full(5, 0.3), (5, 2)).astype(np.float32)
    limit, goals = 3, frozenset({1, 2, 4})

    def total(cell, left, steps, later, known):
        """The largest sum of returns from here on, with so many episodes after this one."""
        if not steps:
            return total(0, left, limit, later - 1, known) if later else 0.0

        def of(action):
            expected = 0.0
            for then, p in enumerate(P[cell, action]):
                found = (then in left) / len(left)
                expected += p * found * (1 + (later * known[then] if found and later else 0))
                if found < 1:
                    expected += p * (1 - found) * total(then, left - {then}, steps - 1, later, known)
            return expected

        return max(of(action) for action in range(2))

    known = {goal: total(0, frozenset({goal}), limit, 0, {}) for goal in goals}
    for episodes in (1, 2):
        found = search_values(P, [*goals], 0, limit, episodes)
        assert_close(np.sum(found), total(0, goals, limit, episodes - 1, known))


def test_the_optimum_of_a_trial_is_not_that_of_its_first_episode(rooms):
    """What is found early pays again: returns of later episodes are higher, and the sum is the largest there is."""
    _, P = rooms
    cells = [4, 9, 30, 60]
    once, twice = search_values(P, cells, 0, LIMIT), search_values(P, cells, 0, LIMIT, 2)
    assert twice[0] <= once[0] + 1e-6
    assert twice[1] > twice[0]


def test_the_filter_counts_what_could_have_happened(rooms):
    """Against the share of simulated goals and moves that agree with what was seen."""
    _, P = rooms
    rng, cell, action = np.random.default_rng(1), 47, 2
    near = P[cell, action] > 0
    prior = rng.dirichlet(np.where(near, 1.0, 0.01))
    goal = rng.choice(len(P), 200_000, p=prior)
    then = rng.choice(len(P), 200_000, p=P[cell, action] / P[cell, action].sum())
    before = Belief(jnp.asarray(prior, jnp.float32), jnp.int32(cell))
    next_cell = np.argmax(P[cell, action])
    for reward, ended, seen in (
        (0.0, False, (then == next_cell) & (goal != next_cell)),
        (1.0, True, then == goal),
        (0.0, True, then != goal),
    ):
        shown = 0 if ended else next_cell  # a new episode has begun elsewhere
        found = filtered(P, before, jnp.int32(action), jnp.float32(reward), jnp.int32(shown), jnp.asarray(ended))
        counted = np.bincount(goal[seen], minlength=len(P)) / seen.sum()
        np.testing.assert_allclose(found, counted, atol=0.01)
        assert np.sum(found) == pytest.approx(1, abs=1e-5)


def test_play_follows_the_belief(rooms):
    """Each action is the best one for the goal that is worth most under the belief of a slow loop over the trial."""
    env, P = rooms
    trial = Trial(env, 2)
    tasks = trial.tasks_of(hidden_goal_tasks(env, limit=30))
    agent = belief_greedy(trial)

    def play(key):
        worlds = begin_worlds(trial, agent, tasks, (), key, 8)
        return rollout(trial, agent, tasks, (), worlds, 60)[1]

    t = jax.device_get(quick_jit(play)(jax.random.key(0)))
    Q, found = np.asarray(goal_values(env, 0.9)), 0
    for b in range(8):
        belief = np.r_[0, np.full(103, 1 / 103)]
        for i in range(60):
            if i and t.first[i, b]:
                break
            cell = np.argmax(t.obs[i, b, :104])
            if i:
                before, did = np.argmax(t.obs[i - 1, b, :104]), t.action[i - 1, b]
                if not t.obs[i, b, -1]:
                    belief[cell] = 0
                else:
                    belief *= P[before, did] if t.reward[i - 1, b] else 1 - P[before, did]
                    found += t.reward[i - 1, b]
                belief /= belief.sum()
            worth = belief * Q[:, cell].max(1)
            assert worth[np.argmax(Q[:, cell, t.action[i, b]] * belief)] >= worth.max() - 1e-6
    assert found


def test_what_cannot_work_is_said(rooms):
    _, P = rooms
    for goals in ([], [0, 3], [3, 3], range(1, 18)):
        with pytest.raises(UsageError, match="goals must be 1 to 16 different cells without the start 0"):
            search_values(P, [*goals], 0, LIMIT)
    with pytest.raises(UsageError, match=r"belief_greedy plays trials of FourRooms\(observation='index'\)"):
        belief_greedy(Trial(Taxi(), 2))
