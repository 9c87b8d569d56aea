"""Kaelbling's navigation task: an open grid of 10 × 10 cells with a new start and a new goal in every trial (ICML 1993;
Dietterich, JAIR 13, 2000, section 7.2).

Up, down, left and right move by one cell, without noise as in Dietterich's experiment; a move out of the grid stays.
Every action pays −1, and the goal ends the episode. Start and goal are any two different cells. The observation is a
number that tells both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.grids import grid_moves
from jaxrl_envs.random_bits import random_bits

SIZE = 10
NUM_CELLS = SIZE * SIZE
FREE = np.ones((SIZE, SIZE), bool)
CELLS, MOVES = grid_moves(FREE)  # [S, 2], [S, 4]
NONE = -1


@struct.dataclass
class GoalGridState(environment.EnvState):
    """Where the agent is and where it has to go."""

    cell: jax.Array  # [] int32
    goal: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class GoalGridParams(environment.EnvParams):
    """The task: a goal, or a new one in each episode."""

    goal: jax.Array = struct.field(default_factory=lambda: np.int32(NONE))  # [] a cell, NONE: drawn
    max_steps_in_episode: int = 3000


def encode(cell: Any, goal: Any) -> Any:
    """The observation, in 0..9999; integers or arrays."""
    return cell * NUM_CELLS + goal


class GoalGrid(environment.Environment[GoalGridState, GoalGridParams]):
    """Observation: `encode` of cell and goal, int32. Action: 0 up, 1 down, 2 left, 3 right. Reward: −1."""

    num_observations = NUM_CELLS * NUM_CELLS

    @property
    def default_params(self) -> GoalGridParams:
        return GoalGridParams()

    def reset_env(self, key: jax.Array, params: GoalGridParams) -> tuple[jax.Array, GoalGridState]:
        key_goal, key_start = jax.random.split(key)
        drawn = (random_bits(key_goal) % NUM_CELLS).astype(jnp.int32)
        goal = jnp.where(params.goal == NONE, drawn, params.goal)
        other = (random_bits(key_start) % (NUM_CELLS - 1)).astype(jnp.int32)
        cell = other + (other >= goal)  # any cell but the goal
        state = GoalGridState(cell=cell, goal=goal, time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: GoalGridState, action: jax.Array, params: GoalGridParams
    ) -> tuple[jax.Array, GoalGridState, jax.Array, jax.Array, dict[str, Any]]:
        state = state.replace(cell=jnp.asarray(MOVES)[state.cell, action], time=state.time + 1)
        return self.get_obs(state), state, -jnp.ones(()), self.is_terminated(state, params), {}

    def is_terminated(self, state: GoalGridState, params: GoalGridParams) -> jax.Array:
        return state.cell == state.goal

    def get_obs(self, state: GoalGridState, params: Any = None, key: Any = None) -> jax.Array:
        return encode(state.cell, state.goal)

    @property
    def num_actions(self) -> int:
        return 4

    def action_space(self, params: GoalGridParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(4)

    def observation_space(self, params: GoalGridParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_observations)

    def goal_model(self, goal: Any) -> tuple[jax.Array, jax.Array]:
        """The exact model of the trials with one goal: P [S, A, S'] and R [S, A] over the cells."""
        P = jax.nn.one_hot(jnp.asarray(MOVES), NUM_CELLS, dtype=float)
        there = jnp.arange(NUM_CELLS) == goal
        P = jnp.where(there[:, None, None], jnp.eye(NUM_CELLS)[:, None], P)
        return P, jnp.where(there[:, None], 0.0, -jnp.ones((NUM_CELLS, 4)))
