"""Abstract machines: values by hand, task graphs against `exact.hierarchy`, and the maze's machines against play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.parr_maze import GOAL, MOVES, NUM_CELLS, regions
from jaxrl_hier.abstractions.machines import Machines, Process
from jaxrl_hier.abstractions.task_graph import Child, Subtask, task_graph
from jaxrl_hier.exact import hierarchy, tabular
from jaxrl_hier.exact.machines import best_values, flat_values, graph_machines, reachable, recursive_choices
from jaxrl_hier.hierarchical.maze_machines import maze_graph, maze_machines, maze_process

SIZE = 6


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def line(astray=0.1):
    """Left and right along a line whose right end ends it; a move goes the other way with a probability."""
    cells = np.arange(SIZE)
    successor = np.stack([np.maximum(cells - 1, 0), np.minimum(cells + 1, SIZE - 1)], axis=1).astype(np.int32)
    probability = np.array([[1 - astray, astray], [astray, 1 - astray]])
    return Process(successor, np.broadcast_to(probability, (SIZE, 2, 2)), cells == SIZE - 1)


def dense(process):
    """P [S, A, S'] and R [S, A]."""
    P = np.zeros((SIZE, 2, SIZE))
    for k in range(2):
        np.add.at(P, (np.arange(SIZE)[:, None], [0, 1], process.successor[:, [k]]), process.probability[:, :, k])
    P[process.end] = np.eye(SIZE)[process.end][:, None]
    return jnp.asarray(P), jnp.asarray(np.where(process.end[:, None], 0.0, -np.ones((SIZE, 2))))


def test_a_machine_that_always_goes_two_steps_back_or_three_forward():
    """One choice, between machines without any: from 0 forward twice is best, and takes 3 + 2 steps."""
    action = np.array([-1, 0, 0, 1, 1, 1], np.int32)
    following = np.zeros((6, SIZE, 2), np.int32)
    following[[1, 3, 4]] = np.array([2, 4, 5])[:, None, None]
    choices = np.broadcast_to(np.array([[1, 3], *[[-1, -1]] * 5], np.int32)[:, None], (6, SIZE, 2))
    machines = Machines(action, following, choices, tuple("crRabd"), depth=1)
    values = best_values(machines, line(astray=0.0))
    np.testing.assert_allclose(values[0], [-5, -4, -3, -2, -1, 0])
    np.testing.assert_allclose(values[1], [-7, -7, -7, -6, -5, 0])  # left, left, and the choice


def corridor(process):
    states, moves = np.arange(SIZE), {"left": Child("left"), "right": Child("right")}
    subtasks = {
        "Back": Subtask(moves, (states == 0) | process.end, states == 0),
        "Half": Subtask(moves, states >= 3, states == 3, pseudo_reward=-3.0),
        "Out": Subtask(moves, (states <= 1) | process.end, process.end),
        "Root": Subtask({name: Child(name) for name in ("Back", "Half", "Out")}, process.end),
    }
    return task_graph(SIZE, ("left", "right"), subtasks)


def test_task_graphs_have_the_optima_of_the_dense_solution():
    process = line()
    graph, (P, R) = corridor(process), dense(process)
    flat = flat_values(process)
    np.testing.assert_allclose(flat, -np.asarray(tabular.minimal_expected_steps(P)), atol=1e-4)
    best = best_values(graph_machines(graph, process), process)
    np.testing.assert_allclose(best[0], hierarchy.hierarchically_optimal(P, R, graph, tolerance=1e-10), atol=1e-6)
    assert (np.asarray(best[0]) <= np.asarray(flat) + 1e-9).all()
    choice = recursive_choices(graph, process)
    solved = hierarchy.recursively_optimal(P, R, graph, tolerance=1e-10)
    again = best_values(graph_machines(graph, process, choice), process)
    np.testing.assert_allclose(again[0], solved.value[-1], atol=1e-5)
    assert (np.asarray(again[0]) <= np.asarray(best[0]) + 1e-9).all()


@pytest.fixture(scope="module")
def maze():
    process, machines = maze_process(), maze_machines()
    return process, machines, np.asarray(best_values(machines, process))


@pytest.mark.thorough
def test_the_machines_restrict_the_maze(maze):
    process, machines, best = maze
    flat = np.asarray(flat_values(process))
    assert flat[0] == pytest.approx(-187.1232, abs=1e-3)
    assert best[0, 0] == pytest.approx(-211.0638, abs=1e-3)
    _, crossing = regions()
    assert (best[0] <= flat + 1e-6)[crossing].all()
    assert np.isneginf(best[0, ~crossing & ~GOAL]).all()  # Root chooses in intersections alone
    assert np.isfinite(best[1:5]).all()
    found = reachable(machines, process, 0)
    assert np.isfinite(best[found]).all()
    assert found[0].sum() < crossing.sum()  # after the start the root acts where hallways end alone
    assert not found[:, GOAL].any()


@pytest.mark.thorough
def test_a_walk_by_the_machines_in_plain_python_takes_the_expected_steps(maze):
    """From the corner, by the best choices; the machines are written out again here."""
    _, machines, best = maze
    region, crossing = regions()
    rng = np.random.default_rng(0)
    sides, opposite = [(2, 3), (2, 3), (0, 1), (0, 1)], [1, 0, 3, 2]
    wall = np.arange(NUM_CELLS)[:, None] == MOVES
    number = {name: x for x, name in enumerate(machines.names)}
    words = ("up", "down", "left", "right")

    def moved(cell, d):
        draw = rng.random()
        return MOVES[cell, d if draw < 0.8 else sides[d][int(draw >= 0.9)]]

    def walk():
        cell, steps = 0, 0
        while not GOAL[cell]:
            d = max((d for d in range(4) if machines.choices[0, cell, d] >= 0), key=lambda d: best[1 + d, cell])
            go = True
            while go and not GOAL[cell]:
                options = {}
                for p in sides[d]:
                    pair = f"({words[d]}, {words[p]})"
                    options["back", p] = best[number[f"back{pair}, 0"], cell]
                    if not (wall[cell, d] and wall[cell, p]):
                        options["sniff", p] = best[number[f"{'along' if wall[cell, d] else 'forward'}{pair}"], cell]
                machine, p = max(options, key=options.get)
                began, k = cell, 0
                while True:
                    if machine == "sniff":
                        if wall[cell, d] and wall[cell, p]:
                            break
                        after = moved(cell, p if wall[cell, d] else d)
                    else:
                        if k == 6:
                            break
                        after = moved(cell, p if k else opposite[d])
                        k += 1
                    steps, before, cell = steps + 1, cell, after
                    if GOAL[cell] or region[cell] != region[before]:
                        break
                if region[cell] != region[began] and crossing[cell]:
                    go = False
        return steps

    steps = np.array([walk() for _ in range(60)])
    assert abs(steps.mean() + best[0, 0]) < 4 * steps.std() / np.sqrt(len(steps))


def test_the_graph_of_the_maze():
    graph = maze_graph()
    assert graph.levels == (8, 1)
    region, crossing = regions()
    for i in range(8):
        inside = crossing if graph.nodes[4 + i].startswith("ExitIntersection") else ~crossing
        runs = ~graph.terminal[:, i]
        assert (inside | ~runs).all()
        assert (graph.goal[:, i] <= graph.terminal[:, i]).all()
    calls = (graph.child[:, -1] >= 0).sum(axis=1)
    assert (calls[~crossing] == 2).all()  # a hallway has two ends
    assert (calls[~GOAL] >= 1).all()
    assert len(np.unique(region)) == 22
