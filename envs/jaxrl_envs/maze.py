"""A partially observed maze, with a new layout for each task, after the maze of RL² (Duan et al., 2016).

n × n cells on a grid of (2n + 1)², with a wall or an opening between neighbours; row 0 is on top. The openings are a
random spanning tree (a random walk that visits new cells and backtracks where there is none): exactly one path connects
any two cells. Start and target are two different cells. The layout is data: walls, start and target are the task. They
are the same in every episode of a task, so an agent that remembers the first episode can go straight in the second.

The agent sees the 5 × 5 squares around it, north up and through walls: which are walls, and where the target is. It
sees neither its position nor its path. An action moves by one square; there is no heading. Every step costs 0.04, one
into a wall 0.001 more, and the target pays 1 and ends the episode, as in the paper. Its agent sees a maze of 5 × 5 or
9 × 9 squares, inner walls counted, through a camera and makes many small moves per square, 250 at most; here those are
`cells` = 3 and 5, and the limit is four moves per cell squared, enough to walk every corridor in both directions.

Making a tree takes a loop, and a rollout samples a task with every step. So `maze_tasks` samples from a list of 16 384
layouts that is made once: with starts and targets ten million tasks for n = 5. For n = 3 there are 88 layouts.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.grids import DIRECTIONS
from jaxrl_envs.random_bits import random_bits
from jaxrl_envs.tasks import Tasks

STEP_COST, WALL_COST, TARGET_REWARD = 0.04, 0.001, 1.0
LAYOUTS = 2**14


@cache
def layouts(cells: int, count: int, seed: int) -> np.ndarray:
    """Random mazes, walls [count, 2n + 1, 2n + 1] bool. The same seed gives the same."""
    rng = np.random.default_rng(seed)
    maze = np.arange(count)
    here = rng.integers(0, cells, (count, 2))
    walls = np.ones((count, 2 * cells + 1, 2 * cells + 1), bool)
    came_by = np.full((count, cells, cells), -1)  # the direction in which a cell was entered
    new = np.ones((count, cells + 2, cells + 2), bool)  # not visited, with a border that is never entered
    new[:, [0, -1]] = new[:, :, [0, -1]] = False
    for _ in range(2 * cells**2 - 1):
        row, col = here.T
        new[maze, row + 1, col + 1] = False
        walls[maze, 2 * row + 1, 2 * col + 1] = False
        ahead = here[:, None] + DIRECTIONS  # [count, 4, 2]
        can = new[maze[:, None], ahead[..., 0] + 1, ahead[..., 1] + 1]
        onward = can.any(axis=1)
        chosen = np.argmax(can * rng.random((count, 4)), axis=1)
        entered = here + DIRECTIONS[chosen]
        back = here - np.where(came_by[maze, row, col] < 0, 0, 1)[:, None] * DIRECTIONS[came_by[maze, row, col]]
        opening = 2 * here + 1 + DIRECTIONS[chosen]
        walls[maze[onward], opening[onward, 0], opening[onward, 1]] = False
        came_by[maze[onward], entered[onward, 0], entered[onward, 1]] = chosen[onward]
        here = np.where(onward[:, None], entered, back)
    return walls


@struct.dataclass
class MazeState(environment.EnvState):
    """Where the agent is."""

    position: jax.Array  # [2] int32, row and column
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class MazeParams(environment.EnvParams):
    """The task: layout, start and target."""

    # [2n + 1, 2n + 1] bool; the border is wall
    walls: jax.Array | np.ndarray = struct.field(default_factory=lambda: layouts(5, 1, 0)[0])
    # [2] int32, row and column of a free square
    start: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.array([1, 1], np.int32))
    goal: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.array([9, 9], np.int32))  # the target
    max_steps_in_episode: int = 100


class Maze(environment.Environment[MazeState, MazeParams]):
    """Action: 0 up, 1 down, 2 left, 3 right. Observation: [view, view, 2] float32, the squares around the agent, 1
    where there is a wall, and where the target is. All is wall outside of the maze.

    Args:
        cells: n, cells along a side.
        view: squares along a side of what is seen, an odd number.
    """

    def __init__(self, cells: int = 5, view: int = 5):
        super().__init__()
        if cells < 2:
            raise ValueError(f"a maze has at least 2 cells along a side, not {cells}")
        if view < 1 or view % 2 == 0:
            raise ValueError(f"view must be odd, since the agent is in the middle, got {view}")
        self.cells, self.view = cells, view

    @property
    def default_params(self) -> MazeParams:
        """One layout, from its upper left cell to the lower right one."""
        walls, last = layouts(self.cells, 1, 0)[0], 2 * self.cells - 1
        return self.task(walls, np.array([1, 1], np.int32), np.array([last, last], np.int32))

    def task(self, walls: Any, start: Any, goal: Any) -> MazeParams:
        """The task with this layout [2n + 1, 2n + 1], start [2] and target [2], and the maze's time limit."""
        return MazeParams(walls=walls, start=start, goal=goal, max_steps_in_episode=4 * self.cells**2)

    def reset_env(self, key: jax.Array, params: MazeParams) -> tuple[jax.Array, MazeState]:
        state = MazeState(position=jnp.asarray(params.start), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: MazeState, action: jax.Array, params: MazeParams
    ) -> tuple[jax.Array, MazeState, jax.Array, jax.Array, dict[str, Any]]:
        ahead = state.position + jnp.asarray(DIRECTIONS)[action]
        bumps = jnp.asarray(params.walls)[ahead[0], ahead[1]]
        state = MazeState(position=jnp.where(bumps, state.position, ahead), time=state.time + 1)
        found = self.is_terminated(state, params)
        reward = TARGET_REWARD * found - STEP_COST - WALL_COST * bumps
        return self.get_obs(state, params), state, reward, found, {}

    def is_terminated(self, state: Any, params: MazeParams) -> jax.Array:
        return jnp.all(state.position == params.goal)

    def get_obs(self, state: Any, params: Any = None, key=None) -> jax.Array:
        walls = jnp.asarray(params.walls)
        around = np.arange(self.view) - self.view // 2
        # outside of the maze a square's nearest one inside is on the border, a wall
        rows, cols = (jnp.clip(state.position[i] + around, 0, walls.shape[0] - 1) for i in (0, 1))
        goal = (rows == params.goal[0])[:, None] & (cols == params.goal[1])
        return jnp.stack([walls[rows[:, None], cols], goal], axis=-1).astype(jnp.float32)

    @property
    def num_actions(self) -> int:
        return len(DIRECTIONS)

    def action_space(self, params: MazeParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(DIRECTIONS))

    def observation_space(self, params: MazeParams | None = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (self.view, self.view, 2), jnp.float32)

    def draw(self, ax, params: MazeParams, position=None, path=()) -> None:
        """Draw a task on a matplotlib axis: walls, start (square), target (star).

        Args:
            position: [2] of the agent (disc); what it sees is tinted.
            path: [T, 2] positions, joined by a line.
        """
        walls = np.asarray(params.walls)
        picture = np.where(walls[..., None], 0.33, np.ones(3))
        if position is not None:
            low = np.maximum(np.asarray(position) - self.view // 2, 0)
            high = np.asarray(position) + self.view // 2 + 1
            seen = picture[low[0] : high[0], low[1] : high[1]]
            seen *= np.array([0.84, 0.91, 0.97])
        ax.imshow(picture, interpolation="nearest")
        row, col = np.asarray(params.start)
        ax.plot(col, row, "s", ms=9, mfc="none", mec="black", mew=1.3)
        row, col = np.asarray(params.goal)
        ax.plot(col, row, "*", ms=15, color="tab:orange", mec="black", mew=0.6, zorder=3)
        if len(path):
            rows, cols = np.asarray(path).T
            ax.plot(cols, rows, color="tab:blue", lw=2.2, alpha=0.5, solid_joinstyle="round")
        if position is not None:
            ax.plot(position[1], position[0], "o", ms=10, color="tab:blue", mec="white", mew=0.8, zorder=4)
        side = len(walls)
        ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
        ax.set_frame_on(False)

    def render(self, state: MazeState, params: MazeParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: disc the agent, blue what it sees, star the target."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, params, np.asarray(state.position)), size)


def shortest_path(params: MazeParams) -> jax.Array:
    """Length of the shortest path from start to target, [] int32. Can be vmapped."""
    free = ~jnp.asarray(params.walls)

    def onward(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        steps, reached = carry
        beside = [jnp.roll(reached, shift, axis) for axis in (0, 1) for shift in (-1, 1)]  # the border is wall
        return steps + 1, free & (reached | beside[0] | beside[1] | beside[2] | beside[3])

    start = jnp.zeros_like(free).at[params.start[0], params.start[1]].set(True)
    unreached = lambda carry: ~carry[1][params.goal[0], params.goal[1]]
    return jax.lax.while_loop(unreached, onward, (jnp.zeros((), jnp.int32), start))[0]


def maze_tasks(env: Maze, seed: int = 0) -> Tasks:
    """A layout from a list of 16 384, start and target anywhere in it; a new task every episode.

    Args:
        seed: of the list. Tasks with another seed test on layouts that were, for the most part, never seen (n = 5).
    """
    walls = layouts(env.cells, LAYOUTS, seed)
    cells = env.cells**2

    def sample(key: jax.Array) -> MazeParams:
        bits = random_bits(key)
        start = bits // LAYOUTS % cells
        goal = (start + 1 + bits // (LAYOUTS * cells) % (cells - 1)) % cells  # another cell
        square = lambda cell: (2 * jnp.stack(jnp.divmod(cell, env.cells)) + 1).astype(jnp.int32)
        return env.task(jnp.asarray(walls)[bits % LAYOUTS], square(start), square(goal))

    return Tasks(sample=sample, resample="episode")
