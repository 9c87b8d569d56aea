"""The maze of Parr and Russell (NIPS 1997; Dietterich, JAIR 13, 2000, section 7.3, figure 13): hallways and
intersections, rooms of 12 × 12 cells with obstacles, from the upper left corner to the room in the lower right one.

Up, down, left and right succeed with probability .8 and go to either side with .1 each; a move into a wall or an
obstacle stays. Every action pays −1, and the goal room ends the episode. The observation is the number of the free
cell.

The layout is read off the figure, by way of the repository BaRL_Envs: three kinds of rooms, one of them turned and
mirrored, too. It has 3710 free cells, 143 of them in the goal room; Parr and Russell say about 3600 states.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.grids import DIRECTIONS, grid_moves
from jaxrl_envs.random_bits import random_bits

ROOM = 12  # cells on the side of a room
PLAN = (  # of rooms, by kind
    "abcda  ",
    "b   c  ",
    "d abcca",
    "b c d a",
    "bcdab c",
    "  d   a",
    "  bcdag",
)
A = """
..##........
...#........
...#........
...#........
..##....##..
.........#..
.........#..
..##.....#..
...#....##..
...#........
...#........
..##........
"""
B = """
..##........
..#.........
..#.........
..#.........
..##....##..
........#...
........#...
..##....#...
..#.....##..
..#.........
..#.........
..##........
"""
C = """
............
............
...#...#....
...#####....
............
............
............
............
#...#..#...#
#####..#####
............
............
"""


def _layout() -> np.ndarray:
    """The free cells, [84, 84] bool."""
    kinds = {name: np.array([[c == "." for c in line] for line in text.split()]) for name, text in KINDS.items()}
    kinds["d"] = np.rot90(kinds["a"].T, 2)
    kinds["g"] = np.arange(ROOM * ROOM).reshape(ROOM, ROOM) > 0  # one corner is a wall
    nothing = np.zeros((ROOM, ROOM), bool)
    return np.block([[kinds.get(kind, nothing) for kind in line] for line in PLAN])


KINDS = {"a": A, "b": B, "c": C}
FREE = _layout()
CELLS, MOVES = grid_moves(FREE)  # [S, 2], [S, 4]: where up, down, left and right lead
NUM_CELLS = len(CELLS)
ROOM_OF = CELLS // ROOM  # [S, 2] row and column of the room
GOAL = (ROOM_OF == 6).all(axis=1)  # [S] bool
SIDES = np.array([(0, 2, 3), (1, 2, 3), (2, 0, 1), (3, 0, 1)], np.int32)  # [4, 3] directions of a move: meant, astray
WEIGHTS = np.array([8, 1, 1])  # their probabilities, in tenths
OPPOSITE = np.array([1, 0, 3, 2], np.int32)


def openings() -> np.ndarray:
    """[7, 7, 4] bool, whether a room leads to another one up, down, left and right."""
    there = np.pad(np.array([[kind != " " for kind in line] for line in PLAN]), 1)
    around = [there[1 + row : 8 + row, 1 + column : 8 + column] for row, column in DIRECTIONS]
    return np.stack(around, axis=-1) & there[1:8, 1:8, None]


def regions() -> tuple[np.ndarray, np.ndarray]:
    """[S] int32, the intersection or the hallway of each cell; and [S] bool, whether it is an intersection.

    A hallway is a row of rooms that are open to two opposite sides.
    """
    opened = openings()
    straight = (opened == (True, True, False, False)).all(-1) | (opened == (False, False, True, True)).all(-1)
    number, count = np.full((7, 7), -1), 0
    for room in np.argwhere(opened.any(-1)):
        row, column = room
        if straight[row, column]:
            before = room + DIRECTIONS[0 if opened[row, column, 0] else 2]
            if straight[tuple(before)]:
                number[row, column] = number[tuple(before)]  # it comes before, in reading order
                continue
        number[row, column], count = count, count + 1
    at = tuple(ROOM_OF.T)
    return number[at].astype(np.int32), ~straight[at]


@struct.dataclass
class ParrMazeState(environment.EnvState):
    """Where the agent is."""

    cell: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class ParrMazeParams(environment.EnvParams):
    """The task: where it begins."""

    start: jax.Array = struct.field(default_factory=lambda: np.int32(0))  # [] a cell, the upper left corner
    max_steps_in_episode: int = 20_000


class ParrMaze(environment.Environment[ParrMazeState, ParrMazeParams]):
    """Observation: the cell, int32. Action: 0 up, 1 down, 2 left, 3 right. Reward: −1."""

    @property
    def default_params(self) -> ParrMazeParams:
        return ParrMazeParams()

    def reset_env(self, key: jax.Array, params: ParrMazeParams) -> tuple[jax.Array, ParrMazeState]:
        state = ParrMazeState(cell=jnp.asarray(params.start, jnp.int32), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: ParrMazeState, action: jax.Array, params: ParrMazeParams
    ) -> tuple[jax.Array, ParrMazeState, jax.Array, jax.Array, dict[str, Any]]:
        draw = jnp.asarray(np.repeat(np.arange(3), WEIGHTS))[random_bits(key) % WEIGHTS.sum()]
        state = state.replace(
            cell=jnp.asarray(MOVES)[state.cell, jnp.asarray(SIDES)[action, draw]], time=state.time + 1
        )
        return self.get_obs(state), state, -jnp.ones(()), self.is_terminated(state, params), {}

    def is_terminated(self, state: ParrMazeState, params: ParrMazeParams) -> jax.Array:
        return jnp.asarray(GOAL)[state.cell]

    def get_obs(self, state: ParrMazeState, params: Any = None, key: Any = None) -> jax.Array:
        return state.cell

    @property
    def num_actions(self) -> int:
        return 4

    def action_space(self, params: ParrMazeParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(4)

    def observation_space(self, params: ParrMazeParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(NUM_CELLS)
