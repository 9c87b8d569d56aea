"""Grid navigation to a hidden goal (Zintgraf et al., VariBAD, ICLR 2020, section 5.1; `GridNavi-v0` of their code).

An open grid of 5 × 5 cells. An episode begins in a corner and takes 15 steps, each of which moves up, down, left or
right by one cell, or stays; a move out of the grid stays, too. A step that ends in the goal pays 1, any other −0.1, and
the goal does not end the episode. The task is the goal, one of the 21 cells that do not touch the corner, not even
diagonally. The observation is the number of the cell, where the authors' code gives its coordinates.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.grids import grid_moves
from jaxrl_envs.random_bits import random_bits
from jaxrl_envs.tasks import Tasks

SIZE = 5
NUM_CELLS = SIZE * SIZE
CELLS, MOVES = grid_moves(np.ones((SIZE, SIZE), bool))  # [S, 2], [S, 4]
MOVES = np.concatenate([MOVES, np.arange(NUM_CELLS, dtype=np.int32)[:, None]], axis=1)  # [S, 5], the last one stays
START = NUM_CELLS - SIZE  # lower left
GOALS = np.flatnonzero(np.abs(CELLS - CELLS[START]).max(axis=1) > 1).astype(np.int32)  # [21]
IN_GOAL, ELSEWHERE = 1.0, -0.1  # rewards


@struct.dataclass
class GridNavigationState(environment.EnvState):
    """Where the agent is."""

    cell: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class GridNavigationParams(environment.EnvParams):
    """The task: where to go."""

    goal: jax.Array = struct.field(default_factory=lambda: GOALS[0])  # [] int32, a cell
    max_steps_in_episode: int = 15


class GridNavigation(environment.Environment[GridNavigationState, GridNavigationParams]):
    """Observation: a cell, int32 in 0..24, row by row from the top. Action: 0 up, 1 down, 2 left, 3 right, 4 stay.
    Reward: 1 in the goal, −0.1 elsewhere."""

    @property
    def default_params(self) -> GridNavigationParams:
        return GridNavigationParams()

    def reset_env(self, key: jax.Array, params: GridNavigationParams) -> tuple[jax.Array, GridNavigationState]:
        state = GridNavigationState(cell=jnp.int32(START), time=jnp.zeros((), jnp.int32))
        return state.cell, state

    def step_env(
        self, key: jax.Array, state: GridNavigationState, action: jax.Array, params: GridNavigationParams
    ) -> tuple[jax.Array, GridNavigationState, jax.Array, jax.Array, dict[str, Any]]:
        state = state.replace(cell=jnp.asarray(MOVES)[state.cell, action], time=state.time + 1)
        reward = jnp.where(state.cell == params.goal, IN_GOAL, ELSEWHERE)
        return state.cell, state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: GridNavigationState, params: GridNavigationParams) -> jax.Array:
        return jnp.zeros((), bool)

    def get_obs(self, state: GridNavigationState, params: Any = None, key: Any = None) -> jax.Array:
        return state.cell

    @property
    def num_actions(self) -> int:
        return MOVES.shape[1]

    def action_space(self, params: GridNavigationParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: GridNavigationParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(NUM_CELLS)


def grid_navigation_tasks(repeat: int = 20) -> Tasks:
    """Any of the 21 goals, equally likely; the test tasks are these goals in turn, `repeat` times.

    Raises:
        ValueError: `repeat` below 1.
    """
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, got {repeat}")
    with_goal = lambda goal: GridNavigationParams(goal=goal)

    def sample(key: jax.Array) -> GridNavigationParams:
        return with_goal(jnp.asarray(GOALS)[random_bits(key) % len(GOALS)])

    return Tasks(sample=sample, resample="episode", test=jax.vmap(with_goal)(jnp.tile(GOALS, repeat)))
