"""Four rooms: a grid world of four rooms and four hallways (Sutton, Precup & Singh, Artificial Intelligence 112, 1999).

The 104 free cells are numbered row by row from the upper left; (row, col) counts the walls too and row 0 is on top.
Actions are 0 up, 1 down, 2 left, 3 right. Entering the goal pays 1 and terminates, every other step pays 0. The learner
sets the discount. The paper pays on leaving the goal instead: its values are 0.9 times those of this reward.

Two dynamics are in use under this name:

- "sutton", the paper's: with probability 2/3 the agent moves as intended and with 1/9 each in one of the other three
  directions; a move into a wall leaves it where it is.
- "option-critic", the published code of Bacon, Harb & Precup (AAAI 2017), which differs from their text: a move into a
  wall leaves the agent where it is, without noise; any other move succeeds and is followed, with probability 1/3, by
  a second one to a random free neighbour of the cell just entered. Only the final cell counts as entered.

Either way the successors of a cell and an action are a short list of equally likely cells. That table drives the step,
with one draw of random bits, and is what `model` averages.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.goals import GoalSpace
from jaxrl_envs.grids import grid_moves
from jaxrl_envs.random_bits import another_key, random_bits
from jaxrl_envs.tasks import Tasks

MAP = (
    "wwwwwwwwwwwww",
    "w     w     w",
    "w     w     w",
    "w           w",
    "w     w     w",
    "w     w     w",
    "ww wwww     w",
    "w     www www",
    "w     w     w",
    "w     w     w",
    "w           w",
    "w     w     w",
    "wwwwwwwwwwwww",
)
FREE = np.array([[char == " " for char in line] for line in MAP])  # [13, 13] bool
# [104, 2] row and column of each free cell; [104, 4] the cell that each move leads to, itself where there is a wall
CELLS, MOVES = grid_moves(FREE)
NUM_CELLS = len(CELLS)

HALLWAYS = {"N": (3, 6), "E": (7, 9), "S": (10, 6), "W": (6, 2)}
# first and last row, first and last column, and the room's two hallways, rooms and hallways clockwise
ROOMS = {
    "NW": (1, 5, 1, 5, ("N", "W")),
    "NE": (1, 6, 7, 11, ("N", "E")),
    "SE": (8, 11, 7, 11, ("E", "S")),
    "SW": (7, 11, 1, 5, ("S", "W")),
}
G1 = HALLWAYS["E"]  # the goals of the paper's experiments
G2 = (9, 9)
# where the option-critic code moves the goal after 1000 episodes; 88 is the south hallway, which is not in the room
POSSIBLE_NEXT_GOALS = np.array([*range(68, 73), *range(78, 83), *range(88, 94), *range(99, 104)], np.int32)
NONE = -1  # as `goal`: none, the episode ends at the time limit only; as `start`: uniform over the cells but the goal


def cell_index(row: int, col: int) -> np.int32:
    """The number in 0..103 of the free cell at (row, col); ValueError for a wall."""
    if not (0 <= row < FREE.shape[0] and 0 <= col < FREE.shape[1] and FREE[row, col]):
        raise ValueError(
            f"({row}, {col}) is no free cell of the four rooms; rows and columns 1..11 hold the free cells"
        )
    return np.int32(FREE.ravel()[: row * FREE.shape[1] + col].sum())


def cell_coordinates(cell: int) -> tuple[int, int]:
    """Row and column of the free cell with number `cell`."""
    if not 0 <= cell < NUM_CELLS:
        raise ValueError(f"cell {cell} does not exist; free cells have the numbers 0..{NUM_CELLS - 1}")
    row, col = CELLS[cell]
    return int(row), int(col)


def room_cells(room: str) -> np.ndarray:
    """Which cells lie in `room` ("NW", "NE", "SE" or "SW"), hallways not among them; [104] bool."""
    top, bottom, left, right, _ = ROOMS[room]
    row, col = CELLS.T
    return (top <= row) & (row <= bottom) & (left <= col) & (col <= right)


def _sutton_outcomes() -> np.ndarray:
    """[104, 4, 9] equally likely successors: 6 of 9 as intended, 1 of 9 in each other direction."""
    directions = [[action] * 6 + [other for other in range(4) if other != action] for action in range(4)]
    return MOVES[:, np.array(directions)]


def _option_critic_outcomes() -> np.ndarray:
    """[104, 4, 36] equally likely successors: 24 of 36 as intended, 12 shared by the free neighbours of that cell."""
    outcomes = np.empty((NUM_CELLS, 4, 36), int)
    for cell in range(NUM_CELLS):
        for action in range(4):
            entered = MOVES[cell, action]
            if entered == cell:
                outcomes[cell, action] = cell
            else:
                free = MOVES[entered][MOVES[entered] != entered]  # 2, 3 or 4 of them
                outcomes[cell, action] = [entered] * 24 + [*np.repeat(free, 12 // len(free))]
    return outcomes


@struct.dataclass
class FourRoomsState(environment.EnvState):
    """Where the agent is."""

    cell: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class FourRoomsParams(environment.EnvParams):
    """The task: where to go, and where from."""

    # both [] int32 cells; the goal is the task and must not be the start
    goal: jax.Array | np.int32 = struct.field(default_factory=lambda: cell_index(*G1))  # NONE: no goal
    start: jax.Array | np.int32 = struct.field(default_factory=lambda: cell_index(1, 1))  # NONE: uniform
    max_steps_in_episode: int = 10_000


class FourRooms(environment.Environment[FourRoomsState, FourRoomsParams]):
    """Action: 0 up, 1 down, 2 left, 3 right. Reward: 1 on entering the goal, which terminates; otherwise 0.

    Args:
        dynamics: "sutton" or "option-critic", see the module.
        observation: "index" (the cell, int32 in 0..103), "one_hot" ([104] float32) or "coordinates" (row and column,
            [2] float32 in 1..11).
    """

    def __init__(
        self,
        dynamics: Literal["sutton", "option-critic"] = "sutton",
        observation: Literal["index", "one_hot", "coordinates"] = "index",
    ):
        super().__init__()
        if dynamics not in ("sutton", "option-critic"):
            raise ValueError(f"dynamics is 'sutton' or 'option-critic', not {dynamics!r}")
        if observation not in ("index", "one_hot", "coordinates"):
            raise ValueError(f"observation is 'index', 'one_hot' or 'coordinates', not {observation!r}")
        self.dynamics = dynamics
        self.observation = observation
        outcomes = _sutton_outcomes() if dynamics == "sutton" else _option_critic_outcomes()
        self.outcomes = outcomes.astype(np.int32)  # [S, A, N] equally likely successors
        self.transitions = np.eye(NUM_CELLS)[outcomes].mean(axis=2)  # [S, A, S'] probabilities without a goal

    @property
    def default_params(self) -> FourRoomsParams:
        """Goal G1. From the upper left corner and practically without a time limit, as in Sutton, Precup & Singh (a
        random walk needs 700 steps on average); from anywhere and at most 1000 steps as in the option-critic code."""
        if self.dynamics == "sutton":
            return FourRoomsParams()
        return FourRoomsParams(start=np.int32(NONE), max_steps_in_episode=1000)

    def reset_env(self, key: jax.Array, params: FourRoomsParams) -> tuple[jax.Array, FourRoomsState]:
        bits = random_bits(key)
        other = (bits % (NUM_CELLS - 1)).astype(jnp.int32)
        other = other + (other >= params.goal)
        anywhere = jnp.where(params.goal < 0, (bits % NUM_CELLS).astype(jnp.int32), other)
        state = FourRoomsState(cell=jnp.where(params.start < 0, anywhere, params.start), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: FourRoomsState, action: jax.Array, params: FourRoomsParams
    ) -> tuple[jax.Array, FourRoomsState, jax.Array, jax.Array, dict[str, Any]]:
        state = self._moved(key, state, action)
        entered = self.is_terminated(state, params)
        return self.get_obs(state), state, entered.astype(jnp.float32), entered, {}

    def _moved(self, key: jax.Array, state: FourRoomsState, action: jax.Array) -> FourRoomsState:
        # 2³² is no multiple of the number of outcomes, so their probabilities differ, by 2⁻³²
        draw = (random_bits(key) % self.outcomes.shape[-1]).astype(jnp.int32)
        return FourRoomsState(cell=jnp.asarray(self.outcomes)[state.cell, action, draw], time=state.time + 1)

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: jax.Array, state: FourRoomsState, action: jax.Array, params: FourRoomsParams | None = None
    ) -> tuple[jax.Array, FourRoomsState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """gymnax's step that resets by itself. It steps with the key and resets with a mixture of it: splitting the
        key, as gymnax does, costs as much as all the rest."""
        params = self.default_params if params is None else params
        obs, moved, reward, terminated, info = self.step_env(key, state, action, params)
        truncated = self.is_truncated(moved, params)
        _, start = self.reset_env(another_key(key), params)
        state = jax.tree.map(partial(jnp.where, terminated | truncated), start, moved)
        info = info | {"terminated": terminated, "truncated": truncated, "final_observation": obs}
        return self.get_obs(state, params), state, reward, terminated, truncated, info

    def is_terminated(self, state: FourRoomsState, params: FourRoomsParams) -> jax.Array:
        return state.cell == params.goal

    def get_obs(self, state: FourRoomsState, params=None, key=None) -> Any:
        return self.encode(state.cell)

    def encode(self, cell: jax.Array) -> jax.Array:
        """The cell [] int32 in the form of the observations."""
        if self.observation == "index":
            return cell
        if self.observation == "one_hot":
            return jax.nn.one_hot(cell, NUM_CELLS, dtype=jnp.float32)
        return jnp.asarray(CELLS, jnp.float32)[cell]

    @property
    def num_actions(self) -> int:
        return 4

    def action_space(self, params: FourRoomsParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(4)

    def observation_space(self, params: FourRoomsParams | None = None) -> Any:
        if self.observation == "index":
            return spaces.Discrete(NUM_CELLS)
        if self.observation == "one_hot":
            return spaces.Box(0.0, 1.0, (NUM_CELLS,), jnp.float32)
        low, high = CELLS.min(0).astype(np.float32), CELLS.max(0).astype(np.float32)
        return spaces.Box(low, high, (2,), jnp.float32)

    def model(self, params: FourRoomsParams) -> tuple[jax.Array, jax.Array]:
        """The exact model of one task: P [S, A, S'] probabilities and R [S, A] expected rewards.

        The goal is absorbing and pays nothing any more: a zero-reward loop stands for the episode's end, so that every
        value beyond it is zero. Float64 where jax has x64 enabled. Can be vmapped over the goals in `params`.
        """
        transitions = jnp.asarray(self.transitions)
        at_goal = jnp.arange(NUM_CELLS) == params.goal  # nowhere, without a goal
        P = jnp.where(at_goal[:, None, None], at_goal, transitions)
        R = jnp.where(at_goal[:, None] | (params.goal < 0), 0, transitions[:, :, params.goal])
        return P, R

    def draw(
        self,
        ax: Any,
        params: FourRoomsParams | None = None,
        *,
        values: Any = None,
        policy: Any = None,
        initiation: Any = None,
        termination: Any = None,
        cell: Any = None,
    ) -> Any:
        """Draw the map on a matplotlib axis, with the task and any of these layers over it.

        Args:
            params: the goal (star) and a fixed start (square).
            values: [S] colours the cells; the goal and cells that are not finite stay blank.
            policy: [S, A] arrows, their lengths in one cell as the probabilities; none in a cell whose row is zero.
            initiation: [S] bool tints the initiation set of an option and leaves the arrows out elsewhere.
            termination: [S] rings where the option may arrive and stop, their area the probability.
            cell: the agent (disc).

        Returns:
            The image of the values, for a colour bar; None without `values`.
        """
        from jaxrl_envs.drawing import draw_grid

        if termination is not None:
            starts = np.ones(NUM_CELLS, bool) if initiation is None else np.asarray(initiation, bool)
            within_reach = starts | np.any(self.transitions[starts] > 0, axis=(0, 1))
            termination = np.where(within_reach, np.asarray(termination, float), 0.0)
        return draw_grid(
            ax,
            FREE,
            goal=None if params is None or params.goal < 0 else int(params.goal),
            start=None if params is None or params.start < 0 else int(params.start),
            cell=None if cell is None else int(cell),
            values=values,
            policy=policy,
            initiation=initiation,
            termination=termination,
        )

    def render(self, state: FourRoomsState, params: FourRoomsParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: disc the agent, star the goal, square a fixed start."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, params, cell=state.cell), size)


def four_rooms_tasks(
    env: FourRooms,
    goals: Sequence[tuple[int, int]] | None = None,
    start: tuple[int, int] | Literal["uniform"] | None = None,
    resample: Literal["never", "episode"] = "never",
) -> Tasks:
    """Tasks that differ in the goal. `four_rooms_tasks(env, [G1])` is one task, `four_rooms_tasks(env)` has every goal.

    Args:
        goals: (row, col) cells, each equally likely; None: every free cell but a fixed start.
        start: (row, col), or "uniform" over all cells but the goal; None: as in `env.default_params`.
        resample: "never", or "episode" for a new goal in each episode.

    Raises:
        ValueError: a cell is a wall, a goal is the start, or there is no goal.
    """
    default = env.default_params
    start_cell = default.start if start is None else np.int32(NONE) if start == "uniform" else cell_index(*start)
    if goals is None:
        cells = np.array([cell for cell in range(NUM_CELLS) if cell != start_cell], np.int32)
    else:
        cells = np.array([cell_index(*goal) for goal in goals], np.int32)
    if len(cells) == 0:
        raise ValueError("there is no goal: give at least one (row, col), or None for every free cell")
    if start_cell in cells:
        raise ValueError(
            f"the goal {cell_coordinates(int(start_cell))} is the start: choose another goal or another start"
        )

    def sample(key: jax.Array) -> FourRoomsParams:
        goal = cells[0] if len(cells) == 1 else jnp.asarray(cells)[random_bits(key) % len(cells)]
        return default.replace(goal=goal, start=start_cell)

    return Tasks(sample=sample, resample=resample)


def hidden_goal_tasks(env: FourRooms, limit: int = 100, every: int = 5, repeat: int = 20) -> Tasks:
    """Tasks for meta-learning: any goal but the start, which the observation does not show.

    Args:
        limit: steps of an episode.
        every: each of so many goals, in the order of cells, is held out for evaluations.
        repeat: how often a goal that is held out is among the test tasks, since the moves are noisy.

    Raises:
        ValueError: a number that leaves nothing to do.
    """
    if limit < 1 or every < 2 or repeat < 1:
        raise ValueError(f"limit, every and repeat must be at least 1, 2 and 1, got {limit}, {every} and {repeat}")
    default = env.default_params.replace(max_steps_in_episode=limit)
    cells = np.array([cell for cell in range(NUM_CELLS) if cell != default.start], np.int32)
    held_out = np.arange(len(cells)) % every == every // 2
    known, unknown = cells[~held_out], cells[held_out]
    with_goal = lambda goal: default.replace(goal=goal)

    def sample(key: jax.Array) -> FourRoomsParams:
        return with_goal(jnp.asarray(known)[random_bits(key) % len(known)])

    return Tasks(sample=sample, resample="episode", test=jax.vmap(with_goal)(jnp.tile(unknown, repeat)))


@struct.dataclass
class MovingGoalParams(FourRoomsParams):
    """A task that counts its episodes, see `moving_goal_tasks`."""

    episode: jax.Array | np.int32 = struct.field(default_factory=lambda: np.int32(0))  # [] episodes before this one


def moving_goal_tasks(env: FourRooms, episodes: int = 1000, then: Sequence[int] | np.ndarray | None = None) -> Tasks:
    """One lifelong task whose goal moves: `env.default_params.goal` for `episodes` episodes, from then on another.

    The experiment of Bacon, Harb & Precup (AAAI 2017): does learning transfer when the goal has moved?

    Args:
        then: cells, each equally likely to be the new goal; None: the lower right room as in their code
            (`POSSIBLE_NEXT_GOALS`).
    """
    cells = np.asarray(POSSIBLE_NEXT_GOALS if then is None else then, np.int32)
    default = env.default_params
    if default.start >= 0 and default.start in cells:
        raise ValueError(f"the goal cannot move to the start {cell_coordinates(int(default.start))}")
    first = MovingGoalParams(
        goal=default.goal, start=default.start, max_steps_in_episode=default.max_steps_in_episode, episode=np.int32(0)
    )

    def following(key: jax.Array, task: MovingGoalParams) -> MovingGoalParams:
        episode = task.episode + 1
        moved = jnp.asarray(cells)[random_bits(key) % len(cells)]
        return task.replace(goal=jnp.where(episode == episodes, moved, task.goal), episode=episode)

    return Tasks(sample=lambda key: first, resample=following)


class FourRoomsGoals(FourRooms):
    """Four rooms with any cell as a goal that the agent sees, and the sparse reward of goal-conditioned learning.

    The contract is jaxrl_envs.goals'. Observation and achieved goal both say where the agent is, and all three parts
    have the form that the argument `observation` names. The reward is 0 on the goal and −1 elsewhere, and nothing
    terminates; `model` describes this. No action does nothing, so the agent cannot stay on the goal. Reaching it in any
    step is a success; the model of reaching it is that of `FourRooms`.
    """

    def __init__(
        self,
        dynamics: Literal["sutton", "option-critic"] = "sutton",
        observation: Literal["index", "one_hot", "coordinates"] = "coordinates",
    ):
        super().__init__(dynamics, observation)

    @property
    def default_params(self) -> FourRoomsParams:
        """Goal G1, from anywhere; 100 steps, where the longest way takes 37 on average."""
        return FourRoomsParams(start=np.int32(NONE), max_steps_in_episode=100)

    def reset_env(self, key: jax.Array, params: FourRoomsParams) -> tuple[Any, FourRoomsState]:
        _, state = super().reset_env(key, params)
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: FourRoomsState, action: jax.Array, params: FourRoomsParams
    ) -> tuple[Any, FourRoomsState, jax.Array, jax.Array, dict[str, Any]]:
        state = self._moved(key, state, action)
        obs = self.get_obs(state, params)
        reward = self.compute_reward(obs["achieved_goal"], obs["desired_goal"], params)
        return obs, state, reward, jnp.zeros((), bool), {"success": state.cell == params.goal}

    def compute_reward(self, achieved_goal: jax.Array, desired_goal: jax.Array, params: FourRoomsParams) -> jax.Array:
        """0 where the two are the same cell and −1 where not, [] float32."""
        return jnp.where(jnp.all(achieved_goal == desired_goal), 0.0, -1.0)

    def is_terminated(self, state: FourRoomsState, params: FourRoomsParams) -> jax.Array:
        return jnp.zeros((), bool)

    def get_obs(self, state: FourRoomsState, params: FourRoomsParams | None = None, key=None) -> dict[str, jax.Array]:
        params = self.default_params if params is None else params
        here = self.encode(state.cell)
        return {"observation": here, "achieved_goal": here, "desired_goal": self.encode(jnp.asarray(params.goal))}

    def observation_space(self, params: FourRoomsParams | None = None) -> GoalSpace:
        cell = super().observation_space(params)
        return GoalSpace(cell, cell)

    def model(self, params: FourRoomsParams) -> tuple[jax.Array, jax.Array]:
        """The exact model of one task, which has no end: P [S, A, S'] and R [S, A]."""
        P = jnp.asarray(self.transitions)
        return P, P[:, :, params.goal] - 1


def four_rooms_goal_tasks(env: FourRoomsGoals, held_out: int | str = 10, seed: int = 0) -> Tasks:
    """Goals uniform over the cells that are not held out, a new one in each episode; `test` has those held out.

    Args:
        held_out: how many cells, drawn with `seed`; or the name of a room, all of whose cells are held out.

    Raises:
        ValueError: no such room, or no goal left on one side.
    """
    if isinstance(held_out, str):
        if held_out not in ROOMS:
            raise ValueError(f"{held_out!r} is no room; the rooms are {', '.join(ROOMS)}")
        out = room_cells(held_out)
    else:
        if not 0 < held_out < NUM_CELLS:
            raise ValueError(f"of {NUM_CELLS} goals 1 to {NUM_CELLS - 1} can be held out, not {held_out}")
        out = np.isin(np.arange(NUM_CELLS), np.random.default_rng(seed).permutation(NUM_CELLS)[:held_out])
    cells = np.flatnonzero(~out).astype(np.int32)
    task = lambda goal: env.default_params.replace(goal=goal)

    def sample(key: jax.Array) -> FourRoomsParams:
        return task(jnp.asarray(cells)[random_bits(key) % len(cells)])

    test = jax.vmap(task)(jnp.asarray(np.flatnonzero(out), jnp.int32))
    return Tasks(sample=sample, resample="episode", test=test)
