"""Bit flipping: turn n bits into a goal pattern (Andrychowicz et al., Hindsight Experience Replay, NeurIPS 2017,
section 3.1).

State and goal are drawn uniformly from {0, 1}^n; action i flips bit i; the reward is −1 unless the new state is the
goal, then 0. An episode has n steps, whether or not it reaches the goal, and is a success if it does. No action does
nothing: the step after reaching the goal leaves it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.goals import GoalSpace
from jaxrl_envs.tasks import Tasks


@struct.dataclass
class BitFlippingState(environment.EnvState):
    """The present pattern."""

    bits: jax.Array  # [n] int8
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class BitFlippingParams(environment.EnvParams):
    """The task: the goal pattern."""

    goal: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.ones(15, np.int8))  # [n] int8, the task
    max_steps_in_episode: int = 15


class BitFlipping(environment.Environment[BitFlippingState, BitFlippingParams]):
    """Observations and goals: [n] int8, zeros and ones. Action: the bit to flip. The contract is jaxrl_envs.goals'."""

    def __init__(self, bits: int = 15):
        super().__init__()
        if bits < 1:
            raise ValueError(f"bits must be at least 1, got {bits}")
        self.bits = bits

    @property
    def default_params(self) -> BitFlippingParams:
        return BitFlippingParams(goal=np.ones(self.bits, np.int8), max_steps_in_episode=self.bits)

    def reset_env(self, key: jax.Array, params: BitFlippingParams) -> tuple[dict[str, jax.Array], BitFlippingState]:
        state = BitFlippingState(bits=random_pattern(key, self.bits), time=jnp.zeros((), jnp.int32))
        return self._observe(state, params), state

    def step_env(
        self, key: jax.Array, state: BitFlippingState, action: jax.Array, params: BitFlippingParams
    ) -> tuple[dict[str, jax.Array], BitFlippingState, jax.Array, jax.Array, dict[str, Any]]:
        flipped = state.bits ^ (jnp.arange(self.bits) == action).astype(jnp.int8)
        state = BitFlippingState(bits=flipped, time=state.time + 1)
        reward = self.compute_reward(flipped, jnp.asarray(params.goal), params)
        return self._observe(state, params), state, reward, jnp.zeros((), bool), {"success": reward == 0}

    def compute_reward(self, achieved_goal: jax.Array, desired_goal: jax.Array, params: BitFlippingParams) -> jax.Array:
        return -jnp.any(achieved_goal != desired_goal).astype(jnp.float32)

    def _observe(self, state: BitFlippingState, params: BitFlippingParams) -> dict[str, jax.Array]:
        return {"observation": state.bits, "achieved_goal": state.bits, "desired_goal": jnp.asarray(params.goal)}

    @property
    def num_actions(self) -> int:
        return self.bits

    def action_space(self, params: BitFlippingParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.bits)

    def observation_space(self, params: BitFlippingParams | None = None) -> GoalSpace:
        pattern = spaces.Box(0, 1, (self.bits,), jnp.int8)
        return GoalSpace(pattern, pattern)

    def render(self, state: BitFlippingState, params: BitFlippingParams, size: int = 256) -> np.ndarray:
        """The bits above, the goal below, uint8 [size, size, 3]: blue is one, orange marks where the two differ."""
        from jaxrl_envs.rendering import picture

        bits, goal = np.asarray(state.bits), np.asarray(params.goal)

        def paint(ax: Any) -> None:
            for row, pattern in ((2.0, bits), (0.0, goal)):
                colors = np.where(pattern[:, None], [[0.12, 0.44, 0.71]], [[0.91, 0.91, 0.91]])
                ax.bar(np.arange(self.bits), 1.0, 0.86, row, color=colors)
            wrong = np.flatnonzero(bits != goal)
            ax.bar(wrong, 0.5, 0.3, 1.25, color="#e8710a")
            ax.set(xlim=(-1, self.bits), ylim=(-1.5, 4.5))
            ax.set_axis_off()

        return picture(paint, size)


def random_pattern(key: jax.Array, bits: int) -> jax.Array:
    """Uniform over {0, 1}^bits, [bits] int8, from one draw of as many random bits."""
    words = jax.random.bits(key, ((bits + 31) // 32,))
    place = jnp.arange(bits)
    return ((words[place // 32] >> (place % 32).astype(jnp.uint32)) & 1).astype(jnp.int8)


def bit_flipping_tasks(bits: int) -> Tasks:
    """A goal drawn uniformly for each episode."""

    def sample(key: jax.Array) -> BitFlippingParams:
        return BitFlippingParams(goal=random_pattern(key, bits), max_steps_in_episode=bits)

    return Tasks(sample=sample, resample="episode")
