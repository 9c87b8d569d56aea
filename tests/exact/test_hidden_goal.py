"""Search for a hidden goal: the exact values against closed forms and a game tree."""

import numpy as np
import pytest

from jaxrl_envs.four_rooms import FourRooms
from jaxrl_hier.checks import UsageError
from jaxrl_hier.exact.hidden_goal import search_values
from jaxrl_hier.exact.tabular import value_sweeps
from tests.close import assert_close

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


def test_what_cannot_work_is_said(rooms):
    _, P = rooms
    for goals in ([], [0, 3], [3, 3], range(1, 18)):
        with pytest.raises(UsageError, match="goals must be 1 to 16 different cells without the start 0"):
            search_values(P, [*goals], 0, LIMIT)
