"""The task graphs of Taxi and of four rooms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxrl_hier.abstractions.task_graph import Child, OverStates, Subtask, TaskGraph, task_graph
from jaxrl_hier.checks import UsageError

if TYPE_CHECKING:
    from jaxrl_envs.four_rooms import FourRooms
    from jaxrl_envs.taxi import Taxi


def taxi_graph(env: "Taxi", abstraction: bool = True) -> TaskGraph:
    """Dietterich's graph of Taxi, with his state abstractions (632 values) or without (14 000 values).

    Root calls Get and Put, Get calls Navigate(source) and pick up, Put calls Navigate(destination) and put down, and
    Navigate(t) calls the four moves. Cooling rates are his. Under gymnasium's rules a passenger may be put down at a
    wrong site, where Put ends without reaching its goal; Dietterich's rules do not allow this.
    """
    from jaxrl_envs.taxi import IN_TAXI, SITE_CELLS, SITES, decode

    states = np.arange(env.num_observations)
    row, col, passenger, destination = decode(states)
    cell = row * 5 + col
    delivered = np.isin(states, env.observation_of_state[env.ended])
    held = passenger == IN_TAXI
    source = np.where(held, 0, passenger)
    elsewhere = held & np.isin(cell, SITE_CELLS) & (env.rules == "gymnasium")
    variables = {
        "row": row,
        "col": col,
        "passenger": passenger,
        "destination": destination,
        "source": source,
        "delivered": delivered,
        "can pick up": ~held & (cell == SITE_CELLS[source]),
        "can put down": np.where(held & (cell == SITE_CELLS[destination]), 1, 2 * elsewhere),
    }
    everything = ("row", "col", "passenger", "destination")

    def child(task: str | Sequence[str], *sees: str, binding: OverStates = None) -> Child:
        return Child(task, sees if abstraction else everything, binding)

    cooling = {"Root": 0.9074, "Put": 0.9526, "Get": 0.9526, "Navigate": 0.9879}
    if not abstraction:
        cooling = {"Root": 0.9996, "Put": 0.9996, "Get": 0.9939, "Navigate": 0.9879}
    moves = ("south", "north", "east", "west")
    navigate = {f"Navigate({name})": cell == SITE_CELLS[site] for site, name in enumerate(SITES)}
    subtasks = {
        name: Subtask({move: child(move, "row", "col") for move in moves}, there, cooling=cooling["Navigate"])
        for name, there in navigate.items()
    }
    subtasks["Get"] = Subtask(
        {
            "Navigate": child(list(navigate), "source", binding=source),
            "pick up": child("pick up", "source", "row", "col"),
        },
        terminal=held | delivered,
        cooling=cooling["Get"],
    )
    subtasks["Put"] = Subtask(
        {
            "Navigate": child(list(navigate), "destination", binding=destination),
            "put down": child("put down", "destination", "row", "col"),
        },
        terminal=~held,
        goal=delivered,
        cooling=cooling["Put"],
    )
    # when Put reaches its goal so does Root: nothing remains to be completed
    subtasks["Root"] = Subtask(
        {"Get": child("Get", "source", "destination"), "Put": child("Put")}, delivered, cooling=cooling["Root"]
    )
    sees = {**dict.fromkeys(moves, ()), "pick up": ("can pick up",), "put down": ("can put down",)}
    return task_graph(
        len(states),
        tuple(sees),
        subtasks,
        rewards_see=sees if abstraction else dict.fromkeys(sees, everything),
        variables=variables,
        possible=_observed_moves(env),
    )


def _observed_moves(env: "Taxi") -> np.ndarray:
    """Which observations may follow which, [S, A, S'] bool."""
    P = np.asarray(env.model(env.default_params)[0])
    before, action, after = np.nonzero(P)
    possible = np.zeros((env.num_observations, P.shape[1], env.num_observations), bool)
    possible[env.observation_of_state[before], action, env.observation_of_state[after]] = True
    return possible


def rooms_graph(env: "FourRooms", goal: int, abstraction: bool = True) -> TaskGraph:
    """A graph of four rooms: Root leaves rooms through their doors, or calls "to the goal".

    "NW to N" and the others run in a room and its other door until they reach their own door; stepping out through the
    other door ends them without reaching their goal. "to the goal" runs in the room of the goal and its doors. It does
    not exist where the goal is itself a door.

    Args:
        goal: the goal's cell.
        abstraction: subtasks keep values only for the cells in which they run, and rewards only for those next to the
            goal.

    Raises:
        UsageError: there is no such cell.
    """
    from jaxrl_envs.four_rooms import HALLWAYS, NUM_CELLS, ROOMS, cell_index, room_cells

    if not 0 <= goal < NUM_CELLS:
        raise UsageError(f"goal must be a cell in 0..{NUM_CELLS - 1}, got {goal}: without a goal Root could not end")
    cells = np.arange(NUM_CELLS)
    doors = {name: cells == cell_index(*place) for name, place in HALLWAYS.items()}
    moves = ("up", "down", "left", "right")

    def among(chosen: np.ndarray) -> np.ndarray | None:
        """Indices of the `chosen` [S] bool, and 0 for the others, which need none."""
        return np.maximum(np.cumsum(chosen) - 1, 0) * chosen if abstraction else None

    def reach(target: np.ndarray, runs: np.ndarray) -> Subtask:
        runs = runs & ~target & (cells != goal)
        return Subtask({move: Child(move, among(runs)) for move in moves}, ~runs, target | (cells == goal) & ~runs)

    subtasks = {}
    for room, (*_, exits) in ROOMS.items():
        inside = room_cells(room)
        for door in exits:
            subtasks[f"{room} to {door}"] = reach(doors[door], inside | doors[exits[0]] | doors[exits[1]])
        if inside[goal]:
            subtasks["to the goal"] = reach(cells == goal, inside | doors[exits[0]] | doors[exits[1]])
    children = {name: Child(name, among(~np.asarray(task.terminal))) for name, task in subtasks.items()}
    subtasks["Root"] = Subtask(children, cells == goal)
    next_to_goal = (env.transitions[:, :, goal] > 0).any(1)
    sees = np.cumsum(next_to_goal) * next_to_goal if abstraction else None
    possible = env.transitions > 0
    possible[goal] = np.eye(NUM_CELLS, dtype=bool)[goal]
    return task_graph(NUM_CELLS, moves, subtasks, rewards_see=dict.fromkeys(moves, sees), possible=possible)
