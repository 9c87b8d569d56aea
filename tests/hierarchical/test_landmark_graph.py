"""Hierarchical distance to goal as a task graph: the paper's counts, and plans against a search and exact values."""

import heapq

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.goal_grid import CELLS, MOVES, NUM_CELLS, GoalGrid, encode
from jaxrl_hier.exact import hierarchy
from jaxrl_hier.hierarchical.landmark_graph import FAR, PUBLISHED, counts, landmark_graph, plan, regions

DISTANCE = np.abs(CELLS[:, None] - CELLS).sum(axis=2)


@pytest.fixture(scope="module")
def found():
    return regions()


@pytest.fixture(scope="module")
def graph(found):
    return landmark_graph(found)


@pytest.fixture(scope="module")
def best(found):
    return plan(found)


def test_counts_are_those_of_the_paper(found):
    assert counts(found) == PUBLISHED
    assert len(found.landmark) == 12
    assert (np.diff(found.landmark) > 0).all()  # in reading order, which settles ties
    row, column = CELLS[found.landmark].T + 1
    assert {(6, 1), (5, 6), (1, 4)} <= set(zip(row, column))
    assert found.touches[list(row * 100 + column).index(601)].sum() == 6  # five neighbours and itself


def test_values_of_the_graph(graph):
    """2028 + 3536 + 100 of table 6, one for each pair of landmarks, and one reward for each of four actions."""
    assert graph.num_values == 2028 + 12 * 12 + 3536 + 100 + 4
    assert graph.levels == (13, 1, 1)


def search(found, goal):
    """Steps from every cell to a goal by the three terms, by Dijkstra's algorithm over landmarks."""
    there = found.nearest[goal]
    cost = {there: DISTANCE[found.landmark[there], goal]}
    queue, settled = [(cost[there], there)], {}
    while queue:
        steps, landmark = heapq.heappop(queue)
        if landmark in settled:
            continue
        settled[landmark] = steps
        for other in np.flatnonzero(found.touches[landmark]):
            heapq.heappush(queue, (steps + DISTANCE[found.landmark[other], found.landmark[landmark]], other))
    through = {i: steps + DISTANCE[:, found.landmark[i]] for i, steps in settled.items()}
    may = {i: found.reach[i] & (np.arange(NUM_CELLS) != found.landmark[i]) for i in through}
    outside = np.min([np.where(may[i], through[i], FAR) for i in through], axis=0)
    return np.where(found.nearest == there, DISTANCE[:, goal], outside)


def test_predicted_steps_are_those_of_a_search(found, best):
    for goal in range(NUM_CELLS):
        np.testing.assert_array_equal(best.steps[:, goal], search(found, goal))


@pytest.mark.parametrize("goal", [0, 26, 55, 99])
def test_choices_take_the_predicted_steps_or_fewer_and_polling_no_more_than_predicted(graph, best, goal):
    """Fewer where a way leads over the goal, which ends the episode."""
    P, R = GoalGrid().goal_model(goal)
    seen, choice = encode(np.arange(NUM_CELLS), goal), jnp.asarray(best.choice[:, :, goal])
    values = hierarchy.hierarchical_values(P, R, graph, choice, observed=seen).value
    steps = -np.asarray(values[-1])
    assert (steps <= best.steps[:, goal] + 1e-3).all()
    slow = [walk(graph, best, goal, start) for start in range(NUM_CELLS)]
    np.testing.assert_allclose(steps, slow, atol=1e-3)
    polled = -np.asarray(hierarchy.polled_values(P, R, graph, choice, observed=seen))
    assert (polled <= best.steps[:, goal] + 1e-3).all()
    assert (DISTANCE[:, goal] <= polled + 1e-3).all()


def walk(graph, best, goal, cell):
    """Steps by call and return."""
    steps, root = 0, len(graph.slots) - 1
    stack = [root]
    while cell != goal:
        while stack and graph.terminal[encode(cell, goal), stack[-1]]:
            stack.pop()
        stack = stack or [root]
        node = graph.child[encode(cell, goal), stack[-1], best.choice[stack[-1], cell, goal]]
        assert node >= 0
        if node < 4:
            cell, steps = MOVES[cell, node], steps + 1
        else:
            stack.append(node - 4)
    return steps


def test_recursion_finds_the_ways_to_landmarks_where_the_goal_is_farther(graph, found, best):
    """The exact recursion sees the goal; where a landmark is nearer, that changes nothing."""
    goal = 99
    P, R = GoalGrid().goal_model(goal)
    solved = hierarchy.recursively_optimal(P, R, graph, observed=encode(np.arange(NUM_CELLS), goal))
    for i, to_landmark in enumerate(best.to_landmark):
        nearer = found.reach[i] & (to_landmark <= DISTANCE[:, goal]) & (np.arange(NUM_CELLS) != goal)
        np.testing.assert_allclose(-np.asarray(solved.value[4 + i])[nearer], to_landmark[nearer], atol=1e-3)
