"""Bayes-optimal search for a hidden cell against all paths, and on VariBAD's grid."""

import itertools

import numpy as np
import pytest

from jaxrl_envs.grid_navigation import ELSEWHERE, GOALS, IN_GOAL, MOVES, START
from jaxrl_envs.grids import grid_moves
from jaxrl_hier.checks import UsageError
from jaxrl_hier.exact.hidden_cells import search_returns

LIMIT, PAID, UNPAID = 4, 2.0, -0.5


def returned(cells, goal, distance):
    """The return of each episode of a path [episodes, L] of cells, which is left where the goal is met."""
    found = None
    returns = np.full(len(cells), LIMIT * UNPAID)
    for e, t in np.ndindex(cells.shape):
        if found is None and cells[e, t] == goal:
            found = e
            returns[e] = t * UNPAID + (LIMIT - t) * PAID
    if found is not None:
        returns[found + 1 :] = (distance - 1) * UNPAID + (LIMIT - distance + 1) * PAID
    return returns


@pytest.mark.parametrize("seed", range(2))
def test_it_is_the_best_of_all_paths(seed):
    """Of all paths of two episodes in a corridor of two rows, with goals drawn at random."""
    moves = grid_moves(np.ones((2, 3), bool))[1]
    goals = 1 + np.random.default_rng(seed).choice(5, 3, replace=False)
    distance = np.array([0, 1, 2, 1, 2, 3])  # from the first cell

    def walk(actions):
        cells = [0]
        for action in actions:
            cells.append(moves[cells[-1], action])
        return cells[1:]

    walks = np.unique([walk(actions) for actions in itertools.product(range(4), repeat=LIMIT)], axis=0)
    every = (np.stack(pair) for pair in itertools.product(walks, repeat=2))
    mean = lambda cells: np.mean([returned(cells, goal, distance[goal]) for goal in goals], axis=0)
    best = max((mean(cells) for cells in every), key=sum)
    found, knowing = search_returns(moves, goals, 0, LIMIT, 2, PAID, UNPAID)
    assert found.sum() == pytest.approx(best.sum(), abs=1e-9)
    to_goal = distance[goals]
    assert knowing == pytest.approx(np.mean((to_goal - 1) * UNPAID + (LIMIT - to_goal + 1) * PAID))


def test_on_the_grid_of_varibad():
    """In the first episode a path meets another goal in each of its steps 2 to 15; the other seven goals lie on a
    shortest way, so that in the second episode nothing is lost."""
    found, knowing = search_returns(MOVES, GOALS, START, 15, 3, IN_GOAL, ELSEWHERE)
    first = 15 * ELSEWHERE + (IN_GOAL - ELSEWHERE) * sum(range(1, 15)) / 21
    np.testing.assert_allclose(found, [first, knowing, knowing])
    row, column = np.divmod(GOALS, 5)
    steps = 4 - row + column
    np.testing.assert_allclose(knowing, np.mean((steps - 1) * ELSEWHERE + (16 - steps) * IN_GOAL))


def test_what_it_cannot_solve_is_refused():
    for goals, limit, pays in (([1, 1], 4, 1.0), ([0, 1], 4, 1.0), ([8], 3, 1.0), ([1], 4, -1.0)):
        with pytest.raises(UsageError):
            search_returns(grid_moves(np.ones((3, 3), bool))[1], goals, 0, limit, 1, pays, 0.0)
