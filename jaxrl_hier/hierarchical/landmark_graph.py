"""Kaelbling's hierarchical distance to goal (HDG, ICML 1993) as a task graph of `GoalGrid` (Dietterich, JAIR 13, 2000,
section 7.2, figure 10).

A landmark's region is the set of cells that are nearer to it than to any other, in steps. GotoLmk(l) goes to
landmark l from anywhere in its region and in the neighbouring ones, GotoGoalLmk to the landmark of the goal's region
by calls of GotoLmk, GotoGoal to the goal within its region, and Root calls the last two. So outside of the goal's
region the cost of a way is the sum of three terms: to the next landmark, from there to the goal's landmark, and from
there to the goal.

GotoLmk and GotoGoalLmk know nothing of the goal but its landmark. Where a way leads over the goal the episode ends,
and they are interrupted: they learn nothing from this (`Subtask.interrupted`).

The coordinates of the paper's twelve landmarks could not be found but for three, which follow from an example in the
text: (6, 1), (5, 6) and (1, 4), row and column from 1. The others were searched at random until all counts of values
agreed (Dietterich's table 6, `counts`), and that of landmark (6, 1)'s five neighbours. Many sets do; ours is the first
that was found. The example's way of 18 steps, where the shortest has 10, is not reproduced by it. Ties, which the paper
does not settle, go to the landmark that comes first in reading order.
"""

from typing import NamedTuple

import numpy as np

from jaxrl_envs.goal_grid import CELLS, MOVES, NUM_CELLS, SIZE
from jaxrl_hier.abstractions.task_graph import Child, Sees, Subtask, TaskGraph, task_graph

LANDMARKS = ((0, 0), (0, 3), (0, 6), (2, 9), (4, 5), (4, 6), (5, 0), (6, 8), (8, 0), (8, 3), (8, 6), (8, 9))
PUBLISHED = {"to a landmark": 2028, "between landmarks": 506, "to the goal": 3536, "next to regions": 96}

FAR = 10**6  # no way


class Regions(NamedTuple):
    """Geometry of L landmarks on the grid of S cells."""

    landmark: np.ndarray  # [L] the cell of each
    nearest: np.ndarray  # [S] the landmark whose region a cell belongs to
    touches: np.ndarray  # [L, L] bool, whether two regions are the same or next to each other
    reach: np.ndarray  # [L, S] bool, where GotoLmk may run: the landmark's region and those that it touches


class Plan(NamedTuple):
    """What the graph's subtasks do at best when they know of the goal what their tables can tell."""

    to_landmark: np.ndarray  # [L, S] steps of GotoLmk, FAR outside of its reach
    between: np.ndarray  # [L, L] steps from one landmark to another by way of landmarks
    steps: np.ndarray  # [S, S] steps from a cell to a goal that the graph predicts
    choice: np.ndarray  # [M, S, S] int32, the slot of the child that each subtask calls in a cell, by goal


def regions(landmarks: tuple[tuple[int, int], ...] = LANDMARKS) -> Regions:
    """The geometry of landmarks, given by row and column in reading order."""
    landmark = np.array([row * SIZE + column for row, column in landmarks])
    distance = np.abs(CELLS[:, None] - CELLS[landmark]).sum(axis=2)  # [S, L]
    nearest = distance.argmin(axis=1)
    touches = np.eye(len(landmark), dtype=bool)
    touches[np.repeat(nearest, 4), nearest[MOVES].ravel()] = True
    return Regions(landmark, nearest, touches, touches[:, nearest])


def counts(found: Regions) -> dict[str, int]:
    """The numbers of values of Dietterich's table 6, which `PUBLISHED` has.

    - C(GotoLmk, s, a): four actions in each cell of a landmark's reach.
    - C(GotoGoalLmk, s, GotoLmk): for each landmark, each neighbour to go to and each other landmark near the goal.
    - C(GotoGoal, s, a): four actions for each two cells of a region.
    - C(Root, s, GotoGoal): each cell next to a region.
    """
    count = len(found.landmark)
    beyond = [(found.nearest[MOVES[found.nearest == i]] != i, MOVES[found.nearest == i]) for i in range(count)]
    return {
        "to a landmark": 4 * int(found.reach.sum()),
        "between landmarks": int(found.touches.sum() - count) * (count - 1),
        "to the goal": 4 * int((np.bincount(found.nearest) ** 2).sum()),
        "next to regions": sum(len(np.unique(cells[outside])) for outside, cells in beyond),
    }


def landmark_graph(found: Regions | None = None, abstraction: bool = True) -> TaskGraph:
    """The task graph of `GoalGrid`, whose observations are 100 cell + goal.

    Cooling rates are Dietterich's.

    Args:
        abstraction: C(GotoGoalLmk, s, GotoLmk) depends on the two landmarks, which is exact because no move goes
            astray, and each action has one reward; else both depend on the cell, too.
    """
    found = regions() if found is None else found
    cell, goal = (index.ravel() for index in np.indices((NUM_CELLS, NUM_CELLS)))
    count, at_goal = len(found.landmark), cell == goal
    here, there = found.nearest[cell], found.nearest[goal]
    moves = ("up", "down", "left", "right")
    rates = {"Root": 0.9760, "GotoGoal": 0.9969, "GotoGoalLmk": 0.9984, "GotoLmk": 0.9969}
    if not abstraction:
        rates = {"Root": 0.9074, "GotoGoal": 0.9074, "GotoGoalLmk": 0.9999, "GotoLmk": 0.9526}

    subtasks = {}
    for i in range(count):
        arrived, runs = cell == found.landmark[i], found.reach[i][cell]
        subtasks[f"GotoLmk({i})"] = Subtask(
            {move: Child(move, _numbered(cell, runs)) for move in moves},
            terminal=arrived | ~runs | at_goal,
            goal=arrived,
            cooling=rates["GotoLmk"],
            interrupted=at_goal & runs & ~arrived,
        )
    subtasks["GotoGoal"] = Subtask(
        {move: Child(move, _numbered(cell * NUM_CELLS + goal, here == there)) for move in moves},
        terminal=(here != there) | at_goal,
        goal=at_goal,
        cooling=rates["GotoGoal"],
    )
    sees = there if abstraction else cell * count + there
    calls = {
        name: Child(name, sees, binding=np.where(found.reach[i][cell], 0, -1))
        for i, name in enumerate([*subtasks][:count])
    }
    arrived = cell == found.landmark[there]
    subtasks["GotoGoalLmk"] = Subtask(
        calls,
        terminal=arrived | at_goal,
        goal=arrived,
        cooling=rates["GotoGoalLmk"],
        interrupted=at_goal & ~arrived,
    )
    children = {"GotoGoalLmk": Child("GotoGoalLmk", goal), "GotoGoal": Child("GotoGoal", ())}
    subtasks["Root"] = Subtask(children, at_goal, cooling=rates["Root"])
    rewards: Sees = () if abstraction else cell
    return task_graph(NUM_CELLS**2, moves, subtasks, rewards_see=dict.fromkeys(moves, rewards))


def plan(found: Regions | None = None) -> Plan:
    """The recursively optimal policy of the graph with its abstractions, by shortest paths; of equals the first."""
    found = regions() if found is None else found
    count = len(found.landmark)
    to_landmark = np.stack([_steps_within(found.reach[i], found.landmark[i]) for i in range(count)])
    between = to_landmark[:, found.landmark].T.copy()  # [from, to] in one call
    for via in range(count):
        between = np.minimum(between, between[:, [via]] + between[[via]])
    cells, goal_landmark = np.arange(NUM_CELLS), found.nearest
    first = np.where(to_landmark == 0, FAR, to_landmark).T  # [S, L] it is over in its landmark
    ways = first[:, :, None] + between[:, goal_landmark]  # [S, L, S] steps to the goal's landmark by each child
    at_landmark = cells[:, None] == found.landmark[goal_landmark]
    to_goal_landmark = np.where(at_landmark, 0, ways.min(axis=1))
    inside = np.full((NUM_CELLS, NUM_CELLS), FAR)  # [goal, cell] steps within the region of the goal
    for goal in cells:
        inside[goal] = _steps_within(found.nearest == found.nearest[goal], int(goal))
    outside = to_goal_landmark + inside[cells, found.landmark[goal_landmark]]
    same = found.nearest[:, None] == found.nearest
    steps = np.where(same, inside.T, outside)
    choice = np.zeros((count + 3, NUM_CELLS, NUM_CELLS), np.int32)
    for i in range(count):
        choice[i] = to_landmark[i][MOVES].argmin(axis=1)[:, None]
    choice[count] = np.moveaxis(inside[:, MOVES], 0, 1).argmin(axis=2)
    choice[count + 1] = ways.argmin(axis=1)
    choice[count + 2] = same  # GotoGoal is the second child of Root
    return Plan(to_landmark, between, steps, choice)


def _steps_within(inside: np.ndarray, target: int) -> np.ndarray:
    """[S] the fewest steps to a cell through the cells `inside` [S] bool, FAR where there is no way."""
    steps = np.full(NUM_CELLS, FAR)
    steps[target] = 0
    for _ in range(NUM_CELLS):
        steps = np.where(inside, np.minimum(steps, steps[MOVES].min(axis=1) + 1), FAR)
    return np.where(steps >= FAR, FAR, steps)


def _numbered(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """`values` [S] as numbers from 0 on, in order; only those that are `used` [S] count, the others are 0."""
    known = np.unique(values[used])
    return np.where(used, np.searchsorted(known, values), 0)
