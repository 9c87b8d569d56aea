"""Sinusoid regression: from a few points of a sine wave, predict the rest (Finn, Abbeel & Levine, ICML 2017, section
5.1).

The task is a wave y = A sin(x − φ) with A uniform in [0.1, 5], x uniform in [−5, 5], and φ uniform in [0, π] (MAML) or
[0, 2π] (Reptile, 2018). `points` draws a data set of a task. As an environment it is an episode of one step: observe x,
act by predicting y, and be rewarded by minus the squared error.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks

AMPLITUDES = (0.1, 5.0)
REACH = 5.0  # x lies in ± this


@struct.dataclass
class SinusoidState(environment.EnvState):
    """Where the wave is asked for."""

    x: jax.Array  # [1]
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class SinusoidParams(environment.EnvParams):
    """The task: which wave."""

    amplitude: jax.Array = struct.field(default_factory=lambda: np.float32(1))  # [], A
    phase: jax.Array = struct.field(default_factory=lambda: np.float32(0))  # [], φ in radians
    max_steps_in_episode: int = 1


class Sinusoid(environment.Environment[SinusoidState, SinusoidParams]):
    """Observation: x [1] float32. Action: the predicted y [1] float32. Reward: minus the squared error."""

    @property
    def default_params(self) -> SinusoidParams:
        return SinusoidParams()

    def target(self, x: jax.Array, params: SinusoidParams) -> jax.Array:
        """y = A sin(x − φ), of the shape of x."""
        return params.amplitude * jnp.sin(x - params.phase)

    def points(self, key: jax.Array, params: SinusoidParams, count: int) -> tuple[jax.Array, jax.Array]:
        """A data set of the task: x and y, [count, 1] each."""
        x = jax.random.uniform(key, (count, 1), minval=-REACH, maxval=REACH)
        return x, self.target(x, params)

    def reset_env(self, key: jax.Array, params: SinusoidParams) -> tuple[jax.Array, SinusoidState]:
        x = jax.random.uniform(key, (1,), minval=-REACH, maxval=REACH)
        return x, SinusoidState(x=x, time=jnp.zeros((), jnp.int32))

    def step_env(
        self, key: jax.Array, state: SinusoidState, action: jax.Array, params: SinusoidParams
    ) -> tuple[jax.Array, SinusoidState, jax.Array, jax.Array, dict[str, Any]]:
        reward = -jnp.sum((self.target(state.x, params) - action) ** 2)
        state = SinusoidState(x=state.x, time=state.time + 1)
        return state.x, state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: SinusoidState, params: SinusoidParams) -> jax.Array:
        return state.time > 0

    def get_obs(self, state: SinusoidState, params=None, key=None) -> jax.Array:
        return state.x

    @property
    def num_actions(self) -> int:
        return 1

    def action_space(self, params: SinusoidParams | None = None) -> spaces.Box:
        return spaces.Box(-2 * AMPLITUDES[1], 2 * AMPLITUDES[1], (1,), jnp.float32)

    def observation_space(self, params: SinusoidParams | None = None) -> spaces.Box:
        return spaces.Box(-REACH, REACH, (1,), jnp.float32)

    def draw(self, ax, params: SinusoidParams, paths=()) -> None:
        """Draw one task on a matplotlib axis: its wave, and predictions, each [T, 2] of x and y."""
        x = np.linspace(-REACH, REACH, 200)
        ax.plot(x, float(params.amplitude) * np.sin(x - float(params.phase)), color="tab:orange", lw=2)
        for path in paths:
            ax.plot(path[:, 0], path[:, 1], color="tab:blue", lw=1.4)
        ax.set(xlim=(-REACH, REACH), ylim=(-1.15 * AMPLITUDES[1], 1.15 * AMPLITUDES[1]), xticks=[], yticks=[])

    def render(self, state: SinusoidState, params: SinusoidParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: the wave, and a dashed line where it is asked for."""
        from jaxrl_envs.rendering import picture

        def paint(ax):
            self.draw(ax, params)
            ax.axvline(float(state.x[0]), color="tab:blue", ls="--", lw=1.5)

        return picture(paint, size)


def sinusoid_tasks(phases: float = np.pi) -> Tasks:
    """Amplitudes uniform in [0.1, 5] and phases in [0, `phases`]; tests draw fresh ones."""

    def sample(key: jax.Array) -> SinusoidParams:
        low, high = np.array([AMPLITUDES[0], 0.0], np.float32), np.array([AMPLITUDES[1], phases], np.float32)
        amplitude, phase = jax.random.uniform(key, (2,), minval=low, maxval=high)
        return SinusoidParams(amplitude=amplitude, phase=phase)

    return Tasks(sample=sample)
