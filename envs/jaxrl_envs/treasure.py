"""Rooms with keys, doors and a treasure, and distant rewards: a small Montezuma's Revenge.

A map is drawn in letters, row 0 on top: w wall, S start, K key, D door, T treasure, and blanks. An action moves by one
square; walls block it, and so do doors while the agent holds no key. Stepping on a key takes it. Opening a door uses up
a key. Each key and each door pays 1 when it is taken or opened, and the treasure pays 1 and ends the episode; nothing
else pays. So the largest return of a map is the number of its letters K, D and T, and rewards may be fifty steps apart.

    MAPS["small"]  one key, one door: the treasure is behind the wall, the key two rooms in the other direction
    MAPS["large"]  nine rooms, two keys, two doors
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.grids import DIRECTIONS, grid_moves

MAPS = {
    "small": (
        "wwwwwwwwwww",
        "w    w    w",
        "w S  D    w",
        "w    w   Tw",
        "w    w    w",
        "ww wwwwwwww",
        "w    w    w",
        "w         w",
        "w    w    w",
        "w    w   Kw",
        "wwwwwwwwwww",
    ),
    "large": (
        "wwwwwwwwwwwww",
        "wK  w   w   w",
        "w   w       w",
        "w   w   w   w",
        "w www wwwwwww",
        "w   w   w   w",
        "w     S D  Kw",
        "w   w   w   w",
        "www www wDwww",
        "w   w   w   w",
        "w       w   w",
        "w   w   w  Tw",
        "wwwwwwwwwwwww",
    ),
}


@struct.dataclass
class TreasureState(environment.EnvState):
    """Where the agent is and what it has done."""

    cell: jax.Array  # [] int32
    taken: jax.Array  # [K] bool, of each key in the order of reading
    opened: jax.Array  # [D] bool, of each door
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class TreasureParams(environment.EnvParams):
    """The task: the start."""

    start: jax.Array | np.int32 = np.int32(0)  # [] int32, a free cell
    max_steps_in_episode: int = 200


class KeyDoorTreasure(environment.Environment[TreasureState, TreasureParams]):
    """Action: 0 up, 1 down, 2 left, 3 right. Reward: 1 for a key, an opened door and the treasure, which terminates.

    Args:
        map: one of `MAPS`, or rows of letters.
        observation: "picture", [H, W, 5] float32 of zeros and ones: walls, doors that are shut, keys that lie there,
            the treasure, the agent. Or "vector", [S + K + D] float32: the agent's cell among the S free ones, one-hot,
            keys taken, doors opened.
    """

    def __init__(self, map: str | Sequence[str] = "small", observation: Literal["picture", "vector"] = "picture"):
        super().__init__()
        if isinstance(map, str) and map not in MAPS:
            raise ValueError(f"map is one of {', '.join(MAPS)} or rows of letters, not {map!r}")
        if observation not in ("picture", "vector"):
            raise ValueError(f"observation is 'picture' or 'vector', not {observation!r}")
        rows = MAPS[map] if isinstance(map, str) else tuple(map)
        self.letters = np.array([list(row) for row in rows])
        border = np.concatenate([self.letters[[0, -1]].ravel(), self.letters[:, [0, -1]].ravel()])
        if not set(self.letters.ravel()) <= set("wSKDT ") or np.any(border != "w"):
            raise ValueError("a map has the letters w, S, K, D, T and blanks, and walls all around")
        if np.sum(self.letters == "S") != 1 or np.sum(self.letters == "T") != 1:
            raise ValueError("a map has one start S and one treasure T")
        self.observation = observation
        self.cells, self.moved = grid_moves(self.letters != "w")  # [S, 2] and [S, 4]
        place = lambda letter: np.flatnonzero(self.letters[tuple(self.cells.T)] == letter).astype(np.int32)
        self.keys, self.doors, self.start, self.treasure = place("K"), place("D"), place("S")[0], place("T")[0]
        self._fixed = np.zeros((*self.letters.shape, 5), np.float32)  # what never changes in a picture
        self._fixed[..., 0], self._fixed[..., 3] = self.letters == "w", self.letters == "T"

    @property
    def default_params(self) -> TreasureParams:
        """From S; 200 steps, 400 on a map with more than one key."""
        return TreasureParams(start=self.start, max_steps_in_episode=200 if len(self.keys) < 2 else 400)

    def reset_env(self, key: jax.Array, params: TreasureParams) -> tuple[jax.Array, TreasureState]:
        state = TreasureState(
            cell=jnp.asarray(params.start, jnp.int32),
            taken=jnp.zeros(len(self.keys), bool),
            opened=jnp.zeros(len(self.doors), bool),
            time=jnp.zeros((), jnp.int32),
        )
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: TreasureState, action: jax.Array, params: TreasureParams
    ) -> tuple[jax.Array, TreasureState, jax.Array, jax.Array, dict[str, Any]]:
        ahead = jnp.asarray(self.moved)[state.cell, action]
        shut = (ahead == self.doors) & ~state.opened
        in_hand = jnp.sum(state.taken) - jnp.sum(state.opened)
        opens = shut & (in_hand > 0)
        cell = jnp.where(jnp.any(shut & ~opens), state.cell, ahead)
        takes = (cell == self.keys) & ~state.taken
        state = state.replace(cell=cell, taken=state.taken | takes, opened=state.opened | opens, time=state.time + 1)
        found = self.is_terminated(state, params)
        reward = jnp.sum(takes) + jnp.sum(opens) + found
        return self.get_obs(state), state, reward.astype(jnp.float32), found, {}

    def is_terminated(self, state: Any, params: TreasureParams) -> jax.Array:
        return state.cell == self.treasure

    def get_obs(self, state: Any, params: Any = None, key=None) -> jax.Array:
        if self.observation == "vector":
            return jnp.concatenate([jax.nn.one_hot(state.cell, len(self.cells)), state.taken, state.opened])
        picture = jnp.asarray(self._fixed)
        at = lambda cells: tuple(self.cells[cells].T)
        picture = picture.at[(*at(self.doors), 1)].set(~state.opened)
        picture = picture.at[(*at(self.keys), 2)].set(~state.taken)
        height, width = self.letters.shape
        row, col = jnp.asarray(self.cells)[state.cell]
        here = (jnp.arange(height) == row)[:, None] & (jnp.arange(width) == col)
        return picture.at[..., 4].set(here)

    @property
    def num_actions(self) -> int:
        return len(DIRECTIONS)

    @property
    def best_return(self) -> int:
        """Every key, every door and the treasure."""
        return len(self.keys) + len(self.doors) + 1

    def action_space(self, params: TreasureParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(DIRECTIONS))

    def observation_space(self, params: TreasureParams | None = None) -> spaces.Box:
        size = len(self.cells) + len(self.keys) + len(self.doors)
        shape = self._fixed.shape if self.observation == "picture" else (size,)
        return spaces.Box(0.0, 1.0, shape, jnp.float32)

    def draw(self, ax, params: TreasureParams | None = None, state: Any = None, path=()) -> None:
        """Draw the map on a matplotlib axis: keys (diamonds), doors (bars), treasure (star), start (square).

        Args:
            state: of the agent (disc); keys that it has taken and doors that it has opened are pale.
            path: [T] cells, joined by a line.
        """
        ax.imshow(np.where(self.letters[..., None] == "w", 0.33, np.ones(3)), interpolation="nearest")
        taken = np.zeros(len(self.keys), bool) if state is None else np.asarray(state.taken)
        opened = np.zeros(len(self.doors), bool) if state is None else np.asarray(state.opened)
        row, col = self.cells[self.start if params is None else int(params.start)]
        ax.plot(col, row, "s", ms=9, mfc="none", mec="0.6", mew=1.2)
        for cell, gone in zip(self.keys, taken):
            ax.plot(*self.cells[cell][::-1], "D", ms=8, color="gold", mec="black", mew=0.7, alpha=0.2 if gone else 1.0)
        for cell, gone in zip(self.doors, opened):
            row, col = self.cells[cell]
            box = {"fill": not gone, "fc": "sienna", "ec": "sienna", "lw": 1.5, "alpha": 0.4 if gone else 1.0}
            ax.add_patch(_rectangle(col, row, **box))
        ax.plot(*self.cells[self.treasure][::-1], "*", ms=15, color="tab:orange", mec="black", mew=0.6, zorder=3)
        if len(path):
            rows, cols = self.cells[np.asarray(path)].T
            ax.plot(cols, rows, color="tab:blue", lw=2.2, alpha=0.45, solid_joinstyle="round")
        if state is not None:
            row, col = self.cells[int(state.cell)]
            ax.plot(col, row, "o", ms=10, color="tab:blue", mec="white", mew=0.8, zorder=4)
        height, width = self.letters.shape
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
        ax.set_frame_on(False)

    def render(self, state: TreasureState, params: TreasureParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, params, state), size)


def _rectangle(col, row, **style):
    from matplotlib.patches import Rectangle

    return Rectangle((col - 0.32, row - 0.42), 0.64, 0.84, **style)


def fewest_steps(env: KeyDoorTreasure) -> int:
    """Length of the shortest path from S to the treasure, keys and doors included, by breadth-first search."""
    keys, doors = env.keys.tolist(), env.doors.tolist()
    begin: tuple[int, frozenset[int], frozenset[int]] = (int(env.start), frozenset(), frozenset())
    seen, front, steps = {begin}, [begin], 0
    while front:
        steps += 1
        reached = []
        for cell, taken, opened in front:
            for ahead in env.moved[cell].tolist():
                now = opened
                if ahead in doors and ahead not in opened:
                    if len(taken) == len(opened):
                        continue
                    now = opened | {ahead}
                if ahead == env.treasure:
                    return steps
                after = (ahead, taken | {ahead} if ahead in keys else taken, now)
                if after not in seen:
                    seen.add(after)
                    reached.append(after)
        front = reached
    raise ValueError("the treasure of this map cannot be reached")
