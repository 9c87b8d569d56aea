"""Morris's water maze in two dimensions: a hidden platform to be found repeatedly in the same place.

The pool is the unit disc, and positions are continuous. An action swims 0.1 in one of eight directions; the wall stops
the swimmer. The platform, a disc of radius 0.15, moves between episodes and is not seen. Reaching it pays 1 and is
observed, and the next action puts the swimmer back into the water at a random position; the platform stays. So an
episode is one search and then, for an agent with a memory, many short paths, as in the water maze of DeepMind Lab in
FuN's experiments (Vezhnevets et al., 2017).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.random_bits import another_key, uniforms
from jaxrl_envs.tasks import Tasks

STEP_SIZE, PLATFORM = 0.1, 0.15
ANGLES = np.arange(8) * np.pi / 4
DIRECTIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)  # [8, 2], of the actions: 0 is east
SQUARES = 9  # of a picture's side


@struct.dataclass
class WaterState(environment.EnvState):
    """Where the swimmer is."""

    position: jax.Array  # [2], x and y
    found: jax.Array  # [] bool, whether on the platform
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class WaterParams(environment.EnvParams):
    """The task: where the platform is."""

    platform: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.array([0.5, 0.3], np.float32))  # [2]
    max_steps_in_episode: int = 200


class WaterMaze(environment.Environment[WaterState, WaterParams]):
    """Action: one of eight directions, counter-clockwise from east. Reward: 1 for reaching the platform.

    Args:
        observation: "vector", [3] float32: x, y, and 1 on the platform. Or "picture", [9, 9, 2] float32: a bump where
            the swimmer is, y up, and the same again on the platform.
    """

    def __init__(self, observation: Literal["vector", "picture"] = "vector"):
        super().__init__()
        if observation not in ("vector", "picture"):
            raise ValueError(f"observation is 'vector' or 'picture', not {observation!r}")
        self.observation = observation

    @property
    def default_params(self) -> WaterParams:
        return WaterParams()

    def reset_env(self, key: jax.Array, params: WaterParams) -> tuple[jax.Array, WaterState]:
        position = anywhere(key)
        state = WaterState(position=position, found=_on_platform(position, params), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: WaterState, action: jax.Array, params: WaterParams
    ) -> tuple[jax.Array, WaterState, jax.Array, jax.Array, dict[str, Any]]:
        swum = state.position + STEP_SIZE * jnp.asarray(DIRECTIONS)[action]
        swum = swum / jnp.maximum(jnp.linalg.norm(swum), 1.0)
        position = jnp.where(state.found, anywhere(key), swum)
        found = _on_platform(position, params) & ~state.found  # a random position on it pays nothing
        state = WaterState(position=position, found=found, time=state.time + 1)
        return self.get_obs(state), state, found.astype(jnp.float32), self.is_terminated(state, params), {}

    def is_terminated(self, state: Any, params: WaterParams) -> jax.Array:
        return jnp.zeros((), bool)

    def get_obs(self, state: Any, params: Any = None, key=None) -> jax.Array:
        if self.observation == "vector":
            return jnp.append(state.position, state.found.astype(jnp.float32))
        x, y = state.position
        centres = jnp.linspace(-1.0, 1.0, SQUARES)
        near = lambda z: jnp.exp(-0.5 * ((centres - z) * (SQUARES - 1) / 2) ** 2)
        bump = near(-y)[:, None] * near(x)  # row 0 is on top
        return jnp.stack([bump, bump * state.found], axis=-1)

    @property
    def num_actions(self) -> int:
        return len(DIRECTIONS)

    def action_space(self, params: WaterParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(DIRECTIONS))

    def observation_space(self, params: WaterParams | None = None) -> spaces.Box:
        if self.observation == "picture":
            return spaces.Box(0.0, 1.0, (SQUARES, SQUARES, 2), jnp.float32)
        low, high = np.array([-1.001, -1.001, 0], np.float32), np.array([1.001, 1.001, 1], np.float32)
        return spaces.Box(low, high, (3,), jnp.float32)

    def draw(self, ax, params: WaterParams, state: Any = None, path=()) -> None:
        """Draw the pool on a matplotlib axis: platform (orange), swimmer (disc), and a path [T, 2] of positions."""
        angle = np.linspace(0, 2 * np.pi, 200)
        circle = np.stack([np.cos(angle), np.sin(angle)])
        ax.fill(*circle, fc=(0.9, 0.95, 0.98), ec="0.33", lw=2)
        ax.fill(*(np.asarray(params.platform)[:, None] + PLATFORM * circle), fc="tab:orange", ec="black", lw=0.6)
        if len(path):
            ax.plot(*np.asarray(path).T, color="tab:blue", lw=2, alpha=0.45)
        if state is not None:
            ax.plot(*np.asarray(state.position), "o", ms=10, color="tab:blue", mec="white", mew=0.8, zorder=4)
        ax.set(xlim=(-1.06, 1.06), ylim=(-1.06, 1.06), xticks=[], yticks=[], aspect="equal")
        ax.set_frame_on(False)

    def render(self, state: WaterState, params: WaterParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]. y points up."""
        from jaxrl_envs.rendering import picture

        return picture(lambda ax: self.draw(ax, params, state), size)


def _on_platform(position: jax.Array, params: WaterParams) -> jax.Array:
    return jnp.linalg.norm(position - params.platform) <= PLATFORM


def anywhere(key: jax.Array, radius: float = 1.0) -> jax.Array:
    """A point [2], uniform in the disc of that radius."""
    u = uniforms(key, 2)
    return radius * jnp.sqrt(u[0]) * jnp.stack([jnp.cos(2 * jnp.pi * u[1]), jnp.sin(2 * jnp.pi * u[1])])


def water_maze_tasks(env: WaterMaze) -> Tasks:
    """A platform uniform within the pool, new in every episode."""
    limit = env.default_params.max_steps_in_episode
    platform = lambda key: anywhere(another_key(key), 1.0 - PLATFORM)
    return Tasks(lambda key: WaterParams(platform=platform(key), max_steps_in_episode=limit), resample="episode")
