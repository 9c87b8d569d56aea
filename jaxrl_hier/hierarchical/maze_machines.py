"""Parr and Russell's machines for their maze, as Dietterich describes them (JAIR 13, 2000, section 7.3).

    Root                 in an intersection: chooses a direction d in which a hallway begins, calls Go(d)
    Go(d)                ExitIntersection(d), then ExitHallway(d)
    Exit…(d)             chooses again and again among Sniff(d, p) and Back(d, p), p a direction perpendicular to d,
                         until the intersection or the hallway has been left
    Sniff(d, p)          moves in direction d up to a wall, then in p to the end of the wall, and on in d; ends in a
                         corner between walls in d and p
    Back(d, p)           moves one step against d, and five in p

Sniff and Back end where the intersection or the hallway ends. All choices are those of Root and of Exit…(d).
ExitIntersection and ExitHallway of one direction share their nodes, since the state says which of them runs.

Departure: in a corner between walls in d and p Sniff(d, p) would end at once, and may not be called there.
"""

import numpy as np

from jaxrl_envs.parr_maze import GOAL, MOVES, NUM_CELLS, OPPOSITE, ROOM_OF, SIDES, WEIGHTS, openings, regions
from jaxrl_hier.abstractions.machines import Machines, Process
from jaxrl_hier.abstractions.task_graph import Child, Subtask, TaskGraph, task_graph

NAMES = ("up", "down", "left", "right")
STEPS_BACK = 6  # one against d, five in p


def maze_process() -> Process:
    """The maze: successors are where up, down, left and right lead."""
    probability = np.zeros((NUM_CELLS, 4, 4))
    for action, sides in enumerate(SIDES):
        probability[:, action, sides] = WEIGHTS / WEIGHTS.sum()
    return Process(MOVES, probability, GOAL)


def maze_machines() -> Machines:
    """The hierarchy's 69 nodes."""
    region, crossing = regions()
    cells = np.arange(NUM_CELLS)[:, None]
    wall = cells == MOVES  # [S, 4]
    left = region[MOVES] != region[:, None]  # [S, K] the step leaves intersection or hallway
    perpendicular = SIDES[:, 1:]  # [4, 2]

    names = ["Root", *(f"Exit({name})" for name in NAMES)]
    number = {name: x for x, name in enumerate(names)}
    for d, name in enumerate(NAMES):
        for p in perpendicular[d]:
            parts = [f"forward({name}, {NAMES[p]})", f"along({name}, {NAMES[p]})"]
            for part in (*parts, *(f"back({name}, {NAMES[p]}), {k}" for k in range(STEPS_BACK))):
                number[part] = len(names)
                names.append(part)
    action = np.full(len(names), -1, np.int32)
    following = np.zeros((len(names), NUM_CELLS, 4), np.int32)
    choices = np.full((len(names), NUM_CELLS, 4), -1, np.int32)

    hallways = openings()[tuple(ROOM_OF.T)] & crossing[:, None]  # [S, 4]
    choices[0] = np.where(hallways, [number[f"Exit({name})"] for name in NAMES], -1)
    for d, name in enumerate(NAMES):
        again = number[f"Exit({name})"]
        over = np.where(crossing[MOVES], 0, again)  # after the end of a region: Go is over, or in the hallway
        for side, p in enumerate(perpendicular[d]):
            pair = f"({name}, {NAMES[p]})"
            forward, along, back = number[f"forward{pair}"], number[f"along{pair}"], number[f"back{pair}, 0"]
            start = np.where(wall[:, d], np.where(wall[:, p], -1, along), forward)
            choices[again, :, side], choices[again, :, 2 + side] = start, back
            action[[forward, along]] = d, p
            action[back : back + STEPS_BACK] = [OPPOSITE[d], *[p] * (STEPS_BACK - 1)]
            onward = np.where(wall[:, d], along, forward)[MOVES]
            corner = (wall[:, d] & wall[:, p])[MOVES]
            following[forward] = np.where(left, over, onward)
            following[along] = np.where(left, over, np.where(corner, again, onward))
            for k in range(STEPS_BACK):
                following[back + k] = np.where(left, over, again if k == STEPS_BACK - 1 else back + k + 1)
    return Machines(action, following, choices, tuple(names), depth=2)


def maze_graph() -> TaskGraph:
    """A task graph of the maze: Root leaves intersections and hallways in one of their directions, by single moves.

    ExitIntersection(d) ends in a hallway, ExitHallway(d) in an intersection, and both have their goal where they come
    to by direction d. Against the paper's graph (figure 14) Go(d) is left out, so that Root chooses anew in a hallway;
    and so are Sniff and Back, which need the place where they began as parameters: moves take their place.
    """
    _, crossing = regions()
    opened = openings()[tuple(ROOM_OF.T)]  # [S, 4]
    cells = np.arange(NUM_CELLS)

    def among(runs: np.ndarray) -> np.ndarray:
        return np.maximum(np.cumsum(runs) - 1, 0) * runs

    subtasks, children = {}, {}
    for task, inside in (("ExitIntersection", crossing), ("ExitHallway", ~crossing)):
        for d, name in enumerate(NAMES):
            runs = inside & opened[:, d] & ~GOAL
            came = MOVES[:, OPPOSITE[d]]  # from where a step in direction d leads here
            arrived = ~inside & inside[came] & (came != cells)
            subtasks[f"{task}({name})"] = Subtask(
                {move: Child(move, among(runs)) for move in NAMES}, ~runs, ~runs & (arrived | GOAL)
            )
            children[f"{task}({name})"] = Child(f"{task}({name})", among(runs))
    subtasks["Root"] = Subtask(children, GOAL)
    return task_graph(NUM_CELLS, NAMES, subtasks, rewards_see=dict.fromkeys(NAMES, ()))
