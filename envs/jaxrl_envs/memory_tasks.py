"""Tasks that need memory: a T-maze with a long corridor, and non-match to sample.

T-maze (after Bakker, NeurIPS 2001): a sign above or below the first square shows in which arm the prize is, and is
visible only there. The corridor ends in two arms, up and down; the prize pays 1, the other arm nothing, and either ends
the episode. Without memory the expected return is ½. Random actions do not reach the end of a long corridor; `guided`
pays for moving along, so that the memory alone is hard, as in the passive T-maze of Ni et al. (When do transformers
shine in RL?, NeurIPS 2023).

Non-match (after the task of DeepMind Lab in FuN's experiments, Vezhnevets et al., 2017): an object lies at the far wall
of a room. Touching it puts the agent back to the entrance of the empty room for some steps. Then two objects lie in the
far corners, the one seen before and another. Touching the new one pays 1, touching the old one nothing, and either
begins the next trial, with a new object. An episode has as many trials as its time limit allows.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.grids import DIRECTIONS, grid_moves
from jaxrl_envs.random_bits import random_bits

# The T-maze


@struct.dataclass
class TMazeState(environment.EnvState):
    """Where the agent is and where the prize is."""

    cell: jax.Array  # [] int32
    prize: jax.Array  # [] int32, 0 in the upper arm, 1 in the lower
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class TMazeParams(environment.EnvParams):
    """The time limit; where the prize is changes from episode to episode."""

    max_steps_in_episode: int = 160


class TMaze(environment.Environment[TMazeState, TMazeParams]):
    """Action: 0 up, 1 down, 2 left, 3 right.

    Args:
        corridor: squares between the first and the junction.
        observation: "picture", [3, 3, 2] float32, the squares around the agent: walls, and the sign. Or "vector", [6]
            float32: wall above, below, left, right; sign above, below.
        guided: whether each square gained towards the junction also pays its share of 1, and each one lost costs it:
            the best return is then 2, and that without memory 1½.
    """

    def __init__(self, corridor: int = 20, observation: Literal["picture", "vector"] = "picture", guided: bool = False):
        super().__init__()
        if corridor < 1:
            raise ValueError(f"a corridor has at least 1 square, not {corridor}")
        if observation not in ("picture", "vector"):
            raise ValueError(f"observation is 'picture' or 'vector', not {observation!r}")
        self.corridor, self.observation, self.guided = corridor, observation, guided
        free = np.zeros((3, corridor + 2), bool)
        free[1], free[:, -1] = True, True
        self.cells, self.moved = grid_moves(free)
        number = {tuple(cell): i for i, cell in enumerate(self.cells)}
        self.start = number[1, 0]
        self.arms = np.array([number[0, corridor + 1], number[2, corridor + 1]], np.int32)
        # what is seen in each cell, for the sign above and below
        walls = np.pad(~free, 1, constant_values=True)
        seen = np.zeros((2, len(self.cells), 3, 3, 2), np.float32)
        for i, (row, col) in enumerate(self.cells):
            seen[:, i, ..., 0] = walls[row : row + 3, col : col + 3]
        for prize, square in enumerate(((0, 1), (2, 1))):
            seen[(prize, self.start, *square, 1)] = 1.0
        if observation == "vector":
            around = [seen[..., r, c, 0] for r, c in ((0, 1), (2, 1), (1, 0), (1, 2))]
            seen = np.stack([*around, seen[..., 0, 1, 1], seen[..., 2, 1, 1]], axis=-1)
        self._seen = seen

    @property
    def default_params(self) -> TMazeParams:
        return TMazeParams(max_steps_in_episode=8 * self.corridor)

    def reset_env(self, key: jax.Array, params: TMazeParams) -> tuple[jax.Array, TMazeState]:
        prize = (random_bits(key) % 2).astype(jnp.int32)
        state = TMazeState(cell=jnp.int32(self.start), prize=prize, time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: TMazeState, action: jax.Array, params: TMazeParams
    ) -> tuple[jax.Array, TMazeState, jax.Array, jax.Array, dict[str, Any]]:
        before, column = state.cell, jnp.asarray(self.cells[:, 1], jnp.float32)
        state = state.replace(cell=jnp.asarray(self.moved)[before, action], time=state.time + 1)
        reward = (state.cell == jnp.asarray(self.arms)[state.prize]).astype(jnp.float32)
        if self.guided:
            reward += (column[state.cell] - column[before]) / (self.corridor + 1)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: Any, params: TMazeParams) -> jax.Array:
        return jnp.any(state.cell == self.arms)

    def get_obs(self, state: Any, params: Any = None, key=None) -> jax.Array:
        return jnp.asarray(self._seen)[state.prize, state.cell]

    @property
    def num_actions(self) -> int:
        return len(DIRECTIONS)

    def action_space(self, params: TMazeParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(DIRECTIONS))

    def observation_space(self, params: TMazeParams | None = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, self._seen.shape[2:], jnp.float32)

    def draw(self, ax, params: TMazeParams | None = None, state: Any = None) -> None:
        """Draw the maze on a matplotlib axis; of a state the agent (disc), the sign (triangle) and the prize (star)."""
        picture = np.full((5, self.corridor + 4, 3), 0.33)
        picture[tuple(self.cells.T + 1)] = 1.0
        ax.imshow(picture, interpolation="nearest", extent=(-1.5, self.corridor + 2.5, 3.5, -1.5))
        if state is not None:
            prize = int(state.prize)
            ax.plot(0, 2 * prize, "v" if prize else "^", ms=7, color="gold")
            ax.plot(*self.cells[self.arms[prize]][::-1], "*", ms=10, color="tab:orange", mec="black", mew=0.5)
            ax.plot(*self.cells[int(state.cell)][::-1], "o", ms=7, color="tab:blue", mec="white", mew=0.6, zorder=4)
        ax.set(xlim=(-1.5, self.corridor + 2.5), ylim=(3.5, -1.5), xticks=[], yticks=[], aspect="equal")
        ax.set_frame_on(False)

    def render(self, state: TMazeState, params: TMazeParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, params, state), size)


# Non-match to sample

SHOWN, HIDDEN, CHOICE = range(3)  # phases of a trial
ROWS, COLUMNS = 3, 5
ENTRANCE, MIDDLE = (2, 2), (0, 2)
CORNERS = ((0, 0), (0, 4))


@struct.dataclass
class NonMatchState(environment.EnvState):
    """Where the agent is, and how far the trial is."""

    cell: jax.Array  # [] int32
    phase: jax.Array  # [] int32: the object is shown, nothing is, or there is a choice
    kind: jax.Array  # [] int32, the object that was shown
    other: jax.Array  # [] int32, another kind
    side: jax.Array  # [] int32, the corner that the other is in
    left: jax.Array  # [] int32, steps until the choice
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class NonMatchParams(environment.EnvParams):
    """The delay in which nothing is seen, and the time limit."""

    delay: int = 10  # steps
    max_steps_in_episode: int = 200


class NonMatch(environment.Environment[NonMatchState, NonMatchParams]):
    """Action: 0 up, 1 down, 2 left, 3 right. Reward: 1 for the object that was not shown.

    Args:
        kinds: of objects, at least 2.
        observation: "picture", [3, 5, 1 + kinds] float32 of zeros and ones: the agent, and objects of each kind. Or
            "vector", [15 + 3 kinds] float32: the agent's cell, one-hot, and the kinds of what lies at the middle of the
            far wall, in its left and in its right corner, one-hot, zero where nothing does.
    """

    def __init__(self, kinds: int = 4, observation: Literal["picture", "vector"] = "picture"):
        super().__init__()
        if kinds < 2:
            raise ValueError(f"there must be at least 2 kinds of objects, not {kinds}")
        if observation not in ("picture", "vector"):
            raise ValueError(f"observation is 'picture' or 'vector', not {observation!r}")
        self.kinds, self.observation = kinds, observation
        self.cells, self.moved = grid_moves(np.ones((ROWS, COLUMNS), bool))
        at = lambda place: place[0] * COLUMNS + place[1]
        self.entrance, self.middle = at(ENTRANCE), at(MIDDLE)
        self.corners = np.array([at(corner) for corner in CORNERS], np.int32)

    @property
    def default_params(self) -> NonMatchParams:
        return NonMatchParams()

    def _trial(self, bits: jax.Array, time: jax.Array, params: NonMatchParams) -> NonMatchState:
        """The beginning of a trial."""
        number = lambda x: x.astype(jnp.int32)
        kind = number(bits % self.kinds)
        other = (kind + 1 + number(bits // self.kinds % (self.kinds - 1))) % self.kinds
        side = number(bits // (self.kinds * (self.kinds - 1)) % 2)
        return NonMatchState(
            cell=jnp.int32(self.entrance),
            phase=jnp.int32(SHOWN),
            kind=kind,
            other=other,
            side=side,
            left=jnp.asarray(params.delay, jnp.int32),
            time=time,
        )

    def reset_env(self, key: jax.Array, params: NonMatchParams) -> tuple[jax.Array, NonMatchState]:
        state = self._trial(random_bits(key), jnp.zeros((), jnp.int32), params)
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: NonMatchState, action: jax.Array, params: NonMatchParams
    ) -> tuple[jax.Array, NonMatchState, jax.Array, jax.Array, dict[str, Any]]:
        cell, time = jnp.asarray(self.moved)[state.cell, action], state.time + 1
        touched = (state.phase == SHOWN) & (cell == self.middle)
        hidden = state.phase == HIDDEN
        left = state.left - hidden
        phase = jnp.where(touched, HIDDEN, jnp.where(hidden & (left <= 0), CHOICE, state.phase))
        going_on = state.replace(cell=jnp.where(touched, self.entrance, cell), phase=phase, left=left, time=time)
        chosen = (state.phase == CHOICE) & (cell == self.corners)
        reward = jnp.asarray(chosen)[state.side].astype(jnp.float32)
        fresh = self._trial(random_bits(key), time, params)
        over = jnp.any(chosen)
        state = jax.tree.map(lambda new, old: jnp.where(over, new, old).astype(old.dtype), fresh, going_on)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: Any, params: NonMatchParams) -> jax.Array:
        return jnp.zeros((), bool)

    def get_obs(self, state: Any, params: Any = None, key=None) -> jax.Array:
        kind, other = (jax.nn.one_hot(k, self.kinds) for k in (state.kind, state.other))
        shown, choice = state.phase == SHOWN, state.phase == CHOICE
        left, right = jnp.where(state.side == 0, other, kind), jnp.where(state.side == 0, kind, other)
        objects = jnp.stack([kind * shown, left * choice, right * choice])  # [3, kinds]
        here = jax.nn.one_hot(state.cell, ROWS * COLUMNS)
        if self.observation == "vector":
            return jnp.concatenate([here, objects.ravel()])
        lying = jnp.zeros((ROWS * COLUMNS, self.kinds)).at[jnp.array([self.middle, *self.corners])].set(objects)
        return jnp.concatenate([here[:, None], lying], axis=1).reshape(ROWS, COLUMNS, 1 + self.kinds)

    @property
    def num_actions(self) -> int:
        return len(DIRECTIONS)

    def action_space(self, params: NonMatchParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(DIRECTIONS))

    def observation_space(self, params: NonMatchParams | None = None) -> spaces.Box:
        picture, vector = (ROWS, COLUMNS, 1 + self.kinds), (ROWS * COLUMNS + 3 * self.kinds,)
        return spaces.Box(0.0, 1.0, picture if self.observation == "picture" else vector, jnp.float32)

    def draw(self, ax, params: NonMatchParams | None = None, state: Any = None) -> None:
        """Draw the room on a matplotlib axis, with what lies there (squares, a colour for each kind) and the agent."""
        from matplotlib import colormaps

        ax.imshow(np.ones((ROWS, COLUMNS, 3)), interpolation="nearest")
        if state is not None:
            kind, other, side = int(state.kind), int(state.other), int(state.side)
            lying = {SHOWN: {MIDDLE: kind}, HIDDEN: {}, CHOICE: {CORNERS[side]: other, CORNERS[1 - side]: kind}}
            for (row, col), k in lying[int(state.phase)].items():
                ax.plot(col, row, "s", ms=16, color=colormaps["tab10"]((1 + k) % 10), mec="black", mew=0.6)
            ax.plot(*self.cells[int(state.cell)][::-1], "o", ms=10, color="tab:blue", mec="white", mew=0.8, zorder=4)
        ax.set(xlim=(-0.5, COLUMNS - 0.5), ylim=(ROWS - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
        for spine in ax.spines.values():
            spine.set(visible=True, color="0.33", lw=4)

    def render(self, state: NonMatchState, params: NonMatchParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, params, state), size)
