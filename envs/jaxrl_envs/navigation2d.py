"""2-D navigation: a point that moves to a goal it cannot see (Finn, Abbeel & Levine, ICML 2017, section 5.3).

The point starts at (0, 0) and moves by `0.1 * clip(action, -1, 1)` in each axis; the goal is the task. The reward is
minus the distance to the goal after the move. The paper's text says squared distance, its code and all its numbers use
the plain distance, and so does this environment. Actions are the normalised ones of the paper's code: the policy
speaks in [-1, 1]² and the environment scales to the ±0.1 box. An episode terminates once both coordinates are within
0.01 of the goal, and is truncated after 100 steps.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks

STEP_SIZE = 0.1
TOLERANCE = 0.01
GOAL_RANGE = 0.5


@struct.dataclass
class NavigationState(environment.EnvState):
    """Where the point is."""

    position: jax.Array  # [2]
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class NavigationParams(environment.EnvParams):
    """The task: where to go."""

    goal: jax.Array = struct.field(default_factory=lambda: np.zeros(2, np.float32))  # [2], the task
    max_steps_in_episode: int = 100


class Navigation2D(environment.Environment[NavigationState, NavigationParams]):
    """Observation: position [2] float32. Action: [2] float32 in [-1, 1]. Reward: minus the distance to the goal."""

    @property
    def default_params(self) -> NavigationParams:
        return NavigationParams()

    def reset_env(self, key: jax.Array, params: NavigationParams) -> tuple[jax.Array, NavigationState]:
        state = NavigationState(position=jnp.zeros(2), time=jnp.zeros((), jnp.int32))
        return state.position, state

    def step_env(
        self, key: jax.Array, state: NavigationState, action: jax.Array, params: NavigationParams
    ) -> tuple[jax.Array, NavigationState, jax.Array, jax.Array, dict[str, Any]]:
        position = state.position + STEP_SIZE * jnp.clip(action, -1.0, 1.0)
        state = NavigationState(position=position, time=state.time + 1)
        reward = -jnp.linalg.norm(position - params.goal)
        return position, state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: NavigationState, params: NavigationParams) -> jax.Array:
        return jnp.all(jnp.abs(state.position - params.goal) < TOLERANCE)

    def get_obs(self, state: NavigationState, params=None, key=None) -> jax.Array:
        return state.position

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: NavigationParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: NavigationParams | None = None) -> spaces.Box:
        reach = STEP_SIZE * self.default_params.max_steps_in_episode + 1e-3
        return spaces.Box(-reach, reach, (2,), jnp.float32)

    def draw(self, ax, params: NavigationParams, paths=()) -> None:
        """Draw one task on a matplotlib axis: the goal, the region of goals, and paths, each [T, 2] positions."""
        ax.add_patch(_rectangle((-GOAL_RANGE, -GOAL_RANGE), 2 * GOAL_RANGE))
        for path in paths:
            ax.plot(path[:, 0], path[:, 1], color="tab:blue", lw=1.2, alpha=0.7)
            ax.plot(path[-1, 0], path[-1, 1], "o", ms=3.5, color="tab:blue")
        ax.plot(0, 0, "s", ms=5, color="black")
        ax.plot(*np.asarray(params.goal), "*", ms=14, color="tab:orange", mec="black", mew=0.6)
        points = np.concatenate([np.asarray(p) for p in paths]) if len(paths) else np.zeros((1, 2))
        half = max(0.7, float(np.quantile(np.abs(points), 0.995)) * 1.08)
        ax.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")

    def render(self, state: NavigationState, params: NavigationParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: square start, star goal, disc the point. y points up."""
        from jaxrl_envs.rendering import picture

        def paint(ax):
            self.draw(ax, params)
            ax.plot(*np.asarray(state.position), "o", ms=9, color="tab:blue")
            half = max(0.7, 1.08 * float(np.abs(np.asarray(state.position)).max()))
            ax.set(xlim=(-half, half), ylim=(-half, half))

        return picture(paint, size)


def _rectangle(corner, side):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, side, side, fill=False, ec="0.75", lw=0.8, ls=":")


def paper_goals(count: int = 40) -> np.ndarray:
    """The test goals of the paper's results, [count, 2]: NumPy's legacy generator with seed 1."""
    return np.random.RandomState(1).uniform(-GOAL_RANGE, GOAL_RANGE, (count, 2)).astype(np.float32)


def navigation_tasks() -> Tasks:
    """Goals uniform in [-0.5, 0.5]², and the paper's 40 fixed goals for the test."""

    def sample(key: jax.Array) -> NavigationParams:
        return NavigationParams(goal=jax.random.uniform(key, (2,), minval=-GOAL_RANGE, maxval=GOAL_RANGE))

    test = jax.vmap(lambda goal: NavigationParams(goal=goal))(paper_goals())
    return Tasks(sample=sample, test=test)
