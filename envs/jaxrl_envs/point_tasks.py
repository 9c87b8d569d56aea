"""A point in HIRO's four tasks: maze, push, fall and gather (after Nachum, Gu, Lee & Levine, NeurIPS 2018).

Theirs is an ant simulated by MuJoCo; here a square of side 1 glides. The worlds are the same, made of blocks with sides
of 8, drawn with y upwards (S start, # wall, B movable block, ~ chasm):

    maze   #####    push   #####    fall   ####
           #   #           ## ##           #  #
           ### #           # B #           #~~#
           #S  #           # S##           # B#
           #####           #####           #S #
                                           ####

maze   Around the wall to (0, 16). In training the target is uniform in [−4, 20]², walls included.
push   To (0, 19). Going straight ahead pushes the block into the passage for good: the solution goes left and up, and
       then pushes the block to the right.
fall   To (0, 27) beyond a chasm, at the height 4.5 of all floors. The block, which moves along y alone, makes a bridge
       when pushed into it. A point with no part on the floor falls to the height 0.5 and stays down.
gather Take apples, 1 each, and no bombs, −1 each, in a square of 14 by 14. 8 of each lie at random places with even
       coordinates. Each of 10 sectors shows the nearest of each kind within 10; objects nearer than 1 are taken.

An episode has 500 steps and no other end. In maze, push and fall the reward of a step is minus the distance to the
target after it, in all coordinates; an episode is a success if its last distance is below 5. Their observations are
those of environments with goals (jaxrl_envs.goals); in push and fall the goal is always the same.

An action a in [−1, 1]² asks for a velocity: v ← v + (0.25 a − v) / 4, then the point moves by v, along x and then along
y. At full speed it takes some 170 steps to the maze's end. Obstacles stop it exactly and take its velocity
across; a block goes where it is pushed, without friction or weight, until a wall stops it. It is 7.92 wide, and fits
everywhere. An episode starts at rest, within 0.1 of the start in x and y, as the ant does.

The ant's observation also has the time, which matters little where a time limit is no end. The sizes of gather's world
are rllab's (Duan et al., 2016), its sensors HIRO's.
"""

import math
import re
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.goals import GoalSpace
from jaxrl_envs.tasks import Tasks

SIZE = 8.0  # side of the squares that worlds are made of
HALF, BLOCK_HALF = 0.5, 3.96  # half the sides of the point and of the movable block
SPEED, RESPONSE = 0.25, 4.0  # units per step; steps in which the velocity comes near the one asked for
START = 0.1  # an episode starts within this of the origin
NEAR = 5.0  # a distance below this is a success
FLOOR, BOTTOM = 4.5, 0.5  # heights of the point on the floor and in the chasm
SLACK = 1e-3  # smaller overlaps are no contact


class World(NamedTuple):
    """A map, its test target, and the axes along which its block moves."""

    rows: tuple[str, ...]  # the highest y first
    target: tuple[float, ...]
    pushed: tuple[bool, bool] = (False, False)  # whether the block moves along x, along y


WORLDS = {
    "maze": World(("#####", "#   #", "### #", "#S  #", "#####"), (0.0, 16.0)),
    "push": World(("#####", "## ##", "# B #", "# S##", "#####"), (0.0, 19.0), (True, True)),
    "fall": World(("####", "#  #", "#~~#", "# B#", "#S #", "####"), (0.0, 27.0, FLOOR), (False, True)),
}


def boxes(rows: tuple[str, ...], letters: str) -> np.ndarray:
    """Low and high corners [N, 2, 2] of what is drawn by `letters`, a box for each run of them in a row."""
    start = next((x, y) for y, row in enumerate(rows[::-1]) for x, char in enumerate(row) if char == "S")
    found = [
        ((run.start(), y), (run.end(), y + 1))
        for y, row in enumerate(rows[::-1])
        for run in re.finditer(f"[{letters}]+", row)
    ]
    return (SIZE * (np.array(found, np.float32).reshape(-1, 2, 2) - start - 0.5)).astype(np.float32)


def swept(position: jax.Array, move: jax.Array, axis: int, half: float, obstacles: jax.Array | np.ndarray) -> jax.Array:
    """The coordinate [] of a square after it moves by `move` along an axis or until an obstacle stops it.

    Args:
        position: [2], its centre. half: half its side. obstacles: [N, 2, 2] low and high corners.
    """
    low, high = obstacles[:, 0] - half, obstacles[:, 1] + half
    here, across = position[axis], position[1 - axis]
    level = (across > low[:, 1 - axis] + SLACK) & (across < high[:, 1 - axis] - SLACK)
    above = jnp.min(jnp.where(level & (low[:, axis] >= here - SLACK), low[:, axis], jnp.inf))
    below = jnp.max(jnp.where(level & (high[:, axis] <= here + SLACK), high[:, axis], -jnp.inf))
    return jnp.clip(here + move, below, above)


def driven(velocity: jax.Array, action: jax.Array) -> jax.Array:
    """The velocity [2] after a step."""
    return velocity + (SPEED * jnp.clip(action, -1.0, 1.0) - velocity) / RESPONSE


@struct.dataclass
class PointState(environment.EnvState):
    """Where the point and the block are."""

    position: jax.Array  # [2]
    velocity: jax.Array  # [2], per step
    block: jax.Array  # [2], its centre; zero where there is none
    fallen: jax.Array  # [] bool, the point is in the chasm
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class PointParams(environment.EnvParams):
    """The task: where to go."""

    # [D], the task; D is 3 in fall and else 2
    goal: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.array(WORLDS["maze"].target, np.float32))
    max_steps_in_episode: int = 500


class PointMaze(environment.Environment):
    """Maze, push or fall. Action: [2] float32 in [−1, 1], the velocity asked for.

    Observation: position [D], velocity [2] and, but for the maze, the block's position [2]; D is 3 in fall, with the
    height, and else 2. Achieved: the position. `default_params` have the target of the test.

    Args:
        kind: which world.
    """

    def __init__(self, kind: Literal["maze", "push", "fall"] = "maze"):
        super().__init__()
        if kind not in WORLDS:
            raise ValueError(f"kind is one of {', '.join(WORLDS)}, not {kind!r}")
        self.kind, self.world = kind, WORLDS[kind]
        self.walls, self.chasm = boxes(self.world.rows, "#"), boxes(self.world.rows, "~")
        self.block = boxes(self.world.rows, "B").mean(axis=1)  # [1, 2], or [0, 2] without one

    @property
    def name(self) -> str:
        return "PointMaze" if self.kind == "maze" else f"PointMaze-{self.kind}"

    @property
    def default_params(self) -> PointParams:
        return PointParams(goal=np.array(self.world.target, np.float32))

    def reset_env(self, key: jax.Array, params: PointParams) -> tuple[dict[str, jax.Array], PointState]:
        state = PointState(
            position=jax.random.uniform(key, (2,), minval=-START, maxval=START),
            velocity=jnp.zeros(2),
            block=jnp.asarray(self.block[0]) if len(self.block) else jnp.zeros(2),
            fallen=jnp.zeros((), bool),
            time=jnp.zeros((), jnp.int32),
        )
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: PointState, action: jax.Array, params: PointParams
    ) -> tuple[dict[str, jax.Array], PointState, jax.Array, jax.Array, dict[str, Any]]:
        state = self._moved(state.replace(velocity=driven(state.velocity, action), time=state.time + 1))
        obs = self.get_obs(state, params)
        distance = jnp.linalg.norm(obs["achieved_goal"] - obs["desired_goal"])
        return obs, state, -distance, jnp.zeros((), bool), {"success": distance < NEAR}

    def _moved(self, state: PointState) -> PointState:
        position, velocity, block, fallen = state.position, state.velocity, state.block, state.fallen
        for axis in (0, 1):
            here = swept(position, velocity[axis], axis, HALF, self.walls) - position[axis]
            if len(self.block):
                # at another height the block is not in the way
                present = fallen == self._sunk(block)
                excess = here - (swept(position, here, axis, HALF, _around(block, present)) - position[axis])
                if self.world.pushed[axis]:
                    free = swept(block, jnp.where(fallen, 0.0, excess), axis, BLOCK_HALF, self.walls)
                    block = block.at[axis].set(free)
                here = swept(position, here, axis, HALF, _around(block, present)) - position[axis]
            reached = position[axis] + here
            if len(self.chasm) and axis == 1:  # its walls are the floor's edges
                (_, low), (_, high) = self.chasm[0]
                reached = jnp.where(fallen, jnp.clip(reached, low + HALF, high - HALF), reached)
            stopped = jnp.abs(reached - position[axis] - velocity[axis]) > 1e-5
            position = position.at[axis].set(reached)
            velocity = velocity.at[axis].set(jnp.where(stopped, 0.0, velocity[axis]))
        if len(self.chasm):
            (_, low), (_, high) = self.chasm[0]
            block = jnp.where(block[1] - BLOCK_HALF >= low, block.at[1].set((low + high) / 2), block)
            clear = jnp.any(jnp.abs(position - block) >= BLOCK_HALF + HALF)  # no part is on the block
            inside = (position[1] - HALF >= low) & (position[1] + HALF <= high)
            fallen = fallen | (inside & (clear | ~self._sunk(block)))
        return state.replace(position=position, velocity=velocity, block=block, fallen=fallen)

    def _sunk(self, block: jax.Array) -> jax.Array:
        """Whether the block fills a part of the chasm."""
        return block[1] >= self.chasm[0, 0, 1] + BLOCK_HALF if len(self.chasm) else jnp.zeros((), bool)

    def compute_reward(self, achieved_goal: jax.Array, desired_goal: jax.Array, params: PointParams) -> jax.Array:
        """Minus the distance, [] float32."""
        return -jnp.linalg.norm(achieved_goal - desired_goal)

    def is_terminated(self, state: PointState, params: PointParams) -> jax.Array:
        return jnp.zeros((), bool)

    def get_obs(self, state: PointState, params: PointParams | None = None, key=None) -> dict[str, jax.Array]:
        params = self.default_params if params is None else params
        height = [jnp.where(state.fallen, BOTTOM, FLOOR)[None]] if len(self.chasm) else []
        achieved = jnp.concatenate([state.position, *height])
        block = [state.block] if len(self.block) else []
        return {
            "observation": jnp.concatenate([achieved, state.velocity, *block]),
            "achieved_goal": achieved,
            "desired_goal": jnp.asarray(params.goal),
        }

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: PointParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: PointParams | None = None) -> GoalSpace:
        dimensions = len(self.world.target)
        box = lambda size: spaces.Box(-4 * SIZE, 4 * SIZE, (size,), jnp.float32)
        return GoalSpace(box(dimensions + 2 + 2 * len(self.block)), box(dimensions))

    def places(self, spacing: float = 2.0) -> np.ndarray:
        """A grid over the floor, [N, 2]."""
        floor = boxes(self.world.rows, "^#~")
        lines = np.arange(floor.min() + spacing / 2, floor.max(), spacing)
        grid = np.stack(np.meshgrid(lines, lines), axis=-1).reshape(-1, 1, 2)
        inside = np.any(np.all((grid > floor[:, 0]) & (grid < floor[:, 1]), axis=2), axis=1)
        return grid[inside, 0].astype(np.float32)

    def draw(self, ax, params: PointParams, paths=()) -> None:
        """Draw one task on a matplotlib axis: walls, chasm, the target with what is near, and paths, each [T, 2 or 3]
        positions."""
        from matplotlib.patches import Circle

        ax.set_facecolor("0.35")
        for low, high in boxes(self.world.rows, "^#"):
            ax.add_patch(_rectangle(low, high, "white"))
        for low, high in self.chasm:
            ax.add_patch(_rectangle(low, high, "#b9c9d9"))
        x, y = np.asarray(params.goal)[:2]
        ax.add_patch(Circle((x, y), NEAR, fill=False, ec="tab:orange", lw=1.0, ls=":"))
        ax.plot(x, y, "*", ms=12, color="tab:orange", mec="black", mew=0.6)
        for path in paths:
            ax.plot(path[:, 0], path[:, 1], color="tab:blue", lw=1.2, alpha=0.7)
        low, high = self.walls[:, 0].min(axis=0) + SIZE - 1, self.walls[:, 1].max(axis=0) - SIZE + 1
        middle, half = (low + high) / 2, (high - low).max() / 2
        ax.set(xlim=middle[0] + half * np.array([-1, 1]), ylim=middle[1] + half * np.array([-1, 1]))
        ax.set(xticks=[], yticks=[], aspect="equal")

    def paint(self, ax, state: PointState, params: PointParams) -> None:
        """Draw one state on a matplotlib axis: blue the point, pale where it has fallen, brown the block."""
        self.draw(ax, params)
        position, block = np.asarray(state.position), np.asarray(state.block)
        if len(self.block):
            ax.add_patch(_rectangle(block - BLOCK_HALF, block + BLOCK_HALF, "#c8a36a"))
        color = "#9dbfdd" if state.fallen else "tab:blue"
        ax.add_patch(_rectangle(position - HALF, position + HALF, color, zorder=4))

    def render(self, state: PointState, params: PointParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: `paint`, with y upwards."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.paint(ax, state, params), size)


def _around(block: jax.Array, present: jax.Array) -> jax.Array:
    """The block as an obstacle [1, 2, 2]; one that is not present is nowhere."""
    corners = jnp.stack([block - BLOCK_HALF, block + BLOCK_HALF])[None]
    return jnp.where(present, corners, jnp.inf)


def _rectangle(low, high, color, **style):
    from matplotlib.patches import Rectangle

    return Rectangle(tuple(low), *(high - low), fc=color, ec="none", **style)


def point_maze_tasks(env: PointMaze) -> Tasks:
    """Targets: in the maze uniform in [−4, 20]², a new one in each episode; in push and fall the one of the test."""
    if env.kind != "maze":
        return Tasks(sample=lambda key: env.default_params)

    def sample(key: jax.Array) -> PointParams:
        return env.default_params.replace(goal=jax.random.uniform(key, (2,), minval=-4.0, maxval=20.0))

    return Tasks(sample=sample, resample="episode")


# Gather

OBJECTS = 8  # apples, and as many bombs
ARENA = 7.0  # the square is [−7, 7]²
SECTORS, SIGHT, CATCH = 10, 10.0, 1.0
PLACES = np.array([(x, y) for x in range(-6, 7, 2) for y in range(-6, 7, 2) if x or y], np.float32)  # [48, 2]


@struct.dataclass
class GatherState(environment.EnvState):
    """Where the point is, and what is left."""

    position: jax.Array  # [2]
    velocity: jax.Array  # [2], per step
    objects: jax.Array  # [2, 8, 2] of apples and of bombs
    left: jax.Array  # [2, 8] bool, not taken yet
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class GatherParams(environment.EnvParams):
    """Only the time limit: positions are drawn in each episode."""

    max_steps_in_episode: int = 500


def laid_out(key: jax.Array) -> jax.Array:
    """Places of apples and of bombs, [2, 8, 2], all different."""
    chosen = jnp.argsort(jax.random.uniform(key, (len(PLACES),)))[: 2 * OBJECTS]
    return jnp.asarray(PLACES)[chosen].reshape(2, OBJECTS, 2)


def gathered(objects: jax.Array, left: jax.Array, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Apples less bombs that are taken from a position [2], [] float32, and what is left then, [2, 8] bool."""
    taken = left & (jnp.linalg.norm(objects - position, axis=-1) < CATCH)
    apples, bombs = jnp.sum(taken, axis=1)
    return (apples - bombs).astype(jnp.float32), left & ~taken


def sensed(objects: jax.Array, left: jax.Array, position: jax.Array, heading: Any = 0.0) -> jax.Array:
    """What is seen from a position [2]: for each of 10 equal sectors, the first to the left of the heading (in radians,
    from the direction of x), 1 − distance / 10 of the nearest apple, then of the nearest bomb, 0 where none is within
    10. [20] float32."""
    away = objects - position
    strength = jnp.maximum(1 - jnp.linalg.norm(away, axis=-1) / SIGHT, 0.0) * left  # [2, 8]
    turn = (jnp.arctan2(away[..., 1], away[..., 0]) - heading) % (2 * math.pi) / (2 * math.pi)
    sector = jnp.minimum((SECTORS * turn).astype(jnp.int32), SECTORS - 1)
    return jnp.max(jnp.where(sector[..., None] == jnp.arange(SECTORS), strength[..., None], 0.0), axis=1).reshape(-1)


def paint_objects(ax: Any, objects: Any, left: Any) -> None:
    """Draw green apples and black bombs on a matplotlib axis."""
    for kind, color in enumerate(("tab:green", "0.1")):
        ax.plot(*np.asarray(objects[kind])[np.asarray(left[kind])].T, "o", ms=8, color=color)


class PointGather(environment.Environment):
    """Take apples and avoid bombs. Action: [2] float32 in [−1, 1], the velocity asked for.

    Observation [24]: position, velocity, and what is `sensed`.
    """

    costly_reset = True  # places are drawn by sorting

    @property
    def default_params(self) -> GatherParams:
        return GatherParams()

    def reset_env(self, key: jax.Array, params: GatherParams) -> tuple[jax.Array, GatherState]:
        key_start, key_objects = jax.random.split(key)
        state = GatherState(
            position=jax.random.uniform(key_start, (2,), minval=-START, maxval=START),
            velocity=jnp.zeros(2),
            objects=laid_out(key_objects),
            left=jnp.ones((2, OBJECTS), bool),
            time=jnp.zeros((), jnp.int32),
        )
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: GatherState, action: jax.Array, params: GatherParams
    ) -> tuple[jax.Array, GatherState, jax.Array, jax.Array, dict[str, Any]]:
        velocity = driven(state.velocity, action)
        position = jnp.clip(state.position + velocity, HALF - ARENA, ARENA - HALF)
        velocity = jnp.where(position == state.position + velocity, velocity, 0.0)
        reward, left = gathered(state.objects, state.left, position)
        state = state.replace(position=position, velocity=velocity, left=left, time=state.time + 1)
        return self.get_obs(state, params), state, reward, jnp.zeros((), bool), {}

    def is_terminated(self, state: GatherState, params: GatherParams) -> jax.Array:
        return jnp.zeros((), bool)

    def get_obs(self, state: GatherState, params: GatherParams | None = None, key=None) -> jax.Array:
        return jnp.concatenate([state.position, state.velocity, sensed(state.objects, state.left, state.position)])

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: GatherParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: GatherParams | None = None) -> spaces.Box:
        return spaces.Box(-ARENA, ARENA, (4 + 2 * SECTORS,), jnp.float32)

    def places(self, spacing: float = 2.0) -> np.ndarray:
        """A grid over the square, [N, 2]."""
        lines = np.arange(spacing / 2 - ARENA, ARENA, spacing)
        return np.stack(np.meshgrid(lines, lines), axis=-1).reshape(-1, 2).astype(np.float32)

    def draw(self, ax, params: GatherParams, paths=()) -> None:
        """Draw the square on a matplotlib axis, and paths, each [T, 2] positions."""
        for path in paths:
            ax.plot(path[:, 0], path[:, 1], color="tab:blue", lw=1.2, alpha=0.7)
        ax.set(xlim=(-ARENA, ARENA), ylim=(-ARENA, ARENA), xticks=[], yticks=[], aspect="equal")

    def paint(self, ax, state: GatherState, params: GatherParams) -> None:
        """Draw one state on a matplotlib axis: blue the point, green apples, black bombs."""
        self.draw(ax, params)
        paint_objects(ax, state.objects, state.left)
        position = np.asarray(state.position)
        ax.add_patch(_rectangle(position - HALF, position + HALF, "tab:blue", zorder=4))

    def render(self, state: GatherState, params: GatherParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: `paint`, with y upwards."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.paint(ax, state, params), size)
