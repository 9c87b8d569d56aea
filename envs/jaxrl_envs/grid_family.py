"""Families of grid worlds whose walls or floor are the task: four rooms with other hallways, four rooms with ice on
the floor, and small mazes.

What differs between tasks is not observed: the observation is the number of the cell, the same in every task, and start
and goal never change. So a new task must be explored, and what an episode has shown is worth remembering in the next.

Actions are 0 up, 1 down, 2 left, 3 right. A move into a wall stays. Elsewhere a move succeeds with the probability
`grip` of the cell, and otherwise the agent slips and stays, too. Entering the goal pays 1 and ends the episode, every
other step pays 0.

- `hallways`: Four Rooms (Sutton, Precup & Singh, 1999) with a hallway anywhere in each of its four inner walls.
- `icy_rooms`: Four Rooms with ice on some cells, whose numbers are those of `four_rooms`.
- `mazes`: n × n cells that openings join as a random spanning tree, after the mazes of RL² (Duan et al., 2016).
"""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs import four_rooms, maze
from jaxrl_envs.grids import DIRECTIONS, grid_moves
from jaxrl_envs.random_bits import random_bits
from jaxrl_envs.tasks import Tasks

START = (5, 5)  # in four rooms: the corner of the upper left room that is nearest to the other rooms


@struct.dataclass
class GridState(environment.EnvState):
    """Where the agent is."""

    cell: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class GridParams(environment.EnvParams):
    """The task: which member of the family."""

    member: jax.Array | np.int32 = struct.field(default_factory=lambda: np.int32(0))  # [] int32
    max_steps_in_episode: int = 50


class GridFamily(environment.Environment[GridState, GridParams]):
    """N grid worlds of the same size with the same start and goal.

    Args:
        free: [N, H, W] bool, where each of them can be entered. A cell that is free in any of them has a number, row by
            row.
        grip: [N, H, W] the probability that a move from a cell succeeds; None: 1 everywhere.
        start, goal: row and column, free in all of them.
        limit: steps of an episode.

    Raises:
        ValueError: arrays of other shapes, a grip outside (0, 1], or a start or goal that is no free cell.
    """

    def __init__(
        self,
        free: np.ndarray,
        grip: np.ndarray | None = None,
        *,
        start: tuple[int, int],
        goal: tuple[int, int],
        limit: int = 50,
    ):
        super().__init__()
        free = np.asarray(free, bool)
        if free.ndim != 3 or not len(free):
            raise ValueError(f"free must be [N, H, W], one map for each member, got shape {free.shape}")
        grip = np.ones(free.shape, np.float32) if grip is None else np.asarray(grip, np.float32)
        if grip.shape != free.shape:
            raise ValueError(f"grip must have the shape of free, {free.shape}, got {grip.shape}")
        if not ((grip > 0) & (grip <= 1)).all():
            raise ValueError("grip must lie in (0, 1]: a move that never succeeds is a wall")
        for name, (row, col) in (("start", start), ("goal", goal)):
            inside = 0 <= row < free.shape[1] and 0 <= col < free.shape[2]
            if not (inside and free[:, row, col].all()):
                raise ValueError(f"the {name} ({row}, {col}) must be a free cell in all of the {len(free)} members")
        if tuple(start) == tuple(goal):
            raise ValueError(f"start and goal must differ, got {start} twice")
        self.free, self.limit = free, limit
        # [S, 2] row and column; [S, 4] where a move leads if nothing that is free in any member is a wall
        self.cells, ahead = grid_moves(np.logical_or.reduce(free))
        rows, cols = self.cells.T
        stays = np.arange(len(self.cells), dtype=np.int32)[:, None]
        self.moves = np.where(free[:, rows[ahead], cols[ahead]], ahead, stays)  # [N, S, 4]
        self.grip = grip[:, rows, cols]  # [N, S]
        self.start, self.goal = (int(np.flatnonzero((self.cells == cell).all(axis=1))[0]) for cell in (start, goal))

    @property
    def default_params(self) -> GridParams:
        return GridParams(max_steps_in_episode=self.limit)

    def reset_env(self, key: jax.Array, params: GridParams) -> tuple[jax.Array, GridState]:
        state = GridState(cell=jnp.int32(self.start), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: GridState, action: jax.Array, params: GridParams
    ) -> tuple[jax.Array, GridState, jax.Array, jax.Array, dict[str, Any]]:
        ahead = jnp.asarray(self.moves)[params.member, state.cell, action]
        slips = jax.random.uniform(key) >= jnp.asarray(self.grip)[params.member, state.cell]
        state = GridState(cell=jnp.where(slips, state.cell, ahead), time=state.time + 1)
        entered = self.is_terminated(state, params)
        return self.get_obs(state), state, entered.astype(jnp.float32), entered, {}

    def is_terminated(self, state: GridState, params: GridParams) -> jax.Array:
        return state.cell == self.goal

    def get_obs(self, state: GridState, params: Any = None, key: Any = None) -> jax.Array:
        return state.cell

    @property
    def num_actions(self) -> int:
        return len(DIRECTIONS)

    def action_space(self, params: GridParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(DIRECTIONS))

    def observation_space(self, params: GridParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(self.cells))

    def model(self, params: GridParams) -> tuple[jax.Array, jax.Array]:
        """The exact model of one task: P [S, A, S'] and R [S, A]; the goal is absorbing and pays nothing any more. Can
        be vmapped over members."""
        S = len(self.cells)
        grip = jnp.asarray(self.grip)[params.member][:, None, None]
        ahead = jax.nn.one_hot(jnp.asarray(self.moves)[params.member], S)  # [S, A, S']
        P = grip * ahead + (1 - grip) * jnp.eye(S)[:, None]
        at_goal = jnp.arange(S) == self.goal
        return jnp.where(at_goal[:, None, None], at_goal, P), jnp.where(at_goal[:, None], 0.0, P[:, :, self.goal])

    def draw(self, ax: Any, params: GridParams, cell: Any = None) -> None:
        """Draw a task on a matplotlib axis: its map, the darker the less grip; start (square), goal (star), agent."""
        from jaxrl_envs.drawing import draw_grid

        free = self.free[int(params.member)]
        there = free[self.cells[:, 0], self.cells[:, 1]]
        grip = self.grip[int(params.member)]
        number = lambda s: int(there[: int(s)].sum())  # among the cells that are free here
        draw_grid(
            ax,
            free,
            goal=number(self.goal),
            start=number(self.start),
            cell=None if cell is None else number(cell),
            values=1 - grip[there] if (grip < 1).any() else None,
        )

    def render(self, state: GridState, params: GridParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, params, state.cell), size)


def grid_family_tasks(env: GridFamily, every: int = 5, repeat: int = 1) -> Tasks:
    """A member of the family for each episode, each equally likely.

    Args:
        every: each of so many members is held out for evaluations.
        repeat: how often a member that is held out is among the test tasks.

    Raises:
        ValueError: a number that leaves nothing to do.
    """
    members = np.arange(len(env.free), dtype=np.int32)
    if every < 2 or repeat < 1 or len(members) < every:
        raise ValueError(
            f"every and repeat must be at least 2 and 1, and every at most the {len(members)} members, got {every} "
            f"and {repeat}"
        )
    held_out = members % every == every // 2
    known = members[~held_out]
    of = lambda member: env.default_params.replace(member=member)

    def sample(key: jax.Array) -> GridParams:
        return of(jnp.asarray(known)[random_bits(key) % len(known)])

    test = jax.vmap(of)(jnp.tile(members[held_out], repeat))
    return Tasks(sample=sample, resample="episode", test=test, train=jax.vmap(of)(jnp.asarray(known)))


def shuffled(x: np.ndarray) -> np.ndarray:
    """In an order without pattern, always the same, so that members that are held out are like the others."""
    return x[np.random.default_rng(0).permutation(len(x))]


def hallways(limit: int = 20) -> GridFamily:
    """Four Rooms with a hallway anywhere in each inner wall, 500 members; from the inner corner of the upper left room
    to that of the lower right one."""
    closed = four_rooms.FREE.copy()
    for row, col in four_rooms.HALLWAYS.values():
        closed[row, col] = False
    walls = (  # N, E, S and W, where there is a room on both sides
        [(row, 6) for row in range(1, 6)],
        [(7, col) for col in range(7, 12)],
        [(row, 6) for row in range(8, 12)],
        [(6, col) for col in range(1, 6)],
    )
    maps = []
    for openings in product(*walls):
        maps.append(closed.copy())
        for opening in openings:
            maps[-1][opening] = True
    return GridFamily(shuffled(np.stack(maps)), start=START, goal=(8, 8), limit=limit)


def icy_rooms(count: int = 500, share: float = 0.5, grip: float = 0.2, limit: int = 30) -> GridFamily:
    """Four Rooms with ice on some of its cells, `count` members; from the inner corner of the upper left room to the
    outer corner of the upper right one.

    Args:
        share: of the cells that are icy, but for start and goal.
        grip: the probability that a move from ice succeeds.
    """
    goal = (1, 11)
    maps = np.broadcast_to(four_rooms.FREE, (count, *four_rooms.FREE.shape))
    icy = np.random.default_rng(0).random(maps.shape) < share
    for row, col in (START, goal):
        icy[:, row, col] = False
    return GridFamily(maps, np.where(icy, grip, 1.0), start=START, goal=goal, limit=limit)


def mazes(cells: int = 4, count: int = 500, limit: int = 25) -> GridFamily:
    """`count` mazes of `cells` × `cells` cells, from the upper left one to the lower right one."""
    last = 2 * cells - 1
    return GridFamily(~maze.layouts(cells, count, seed=0), start=(1, 1), goal=(last, last), limit=limit)
