"""A small environment of the gymnax contract, whose parts tests replace: a point on a line, paid 1 a step."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class Params(environment.EnvParams):
    target: jax.Array | float = 0.0
    max_steps_in_episode: int = 5


@struct.dataclass
class State(environment.EnvState):
    x: jax.Array
    time: jax.Array


class Line(environment.Environment):
    """Moves by ±0.1 for a Discrete action, by a tenth of a Box action; never ends but by its time limit."""

    def __init__(self, discrete=True, low=-1.0, high=1.0):
        self.discrete, self.low, self.high = discrete, low, high

    @property
    def default_params(self) -> Any:
        return Params()

    def reset_env(self, key, params):
        return jnp.zeros(1), State(x=jnp.zeros(()), time=jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        x = jnp.clip(state.x + self.move(action), -2.0, 2.0)
        return x[None], State(x=x, time=state.time + 1), self.reward(x), self.terminated(x), {}

    def move(self, action):
        return 0.1 * (action.astype(jnp.float32) * 2 - 1) if self.discrete else 0.1 * action[0]

    def reward(self, x):
        return jnp.ones(())

    def terminated(self, x):
        return jnp.zeros((), bool)

    def action_space(self, params=None):
        return spaces.Discrete(2) if self.discrete else spaces.Box(self.low, self.high, (1,))

    def observation_space(self, params=None):
        return spaces.Box(-2.0, 2.0, (1,))


def variant(**methods: Any) -> Any:
    """A `Line` with other methods."""
    return type("Mine", (Line,), methods)()


def after_step(change: Any) -> Any:
    """A `step_env` that returns `change` of what a Line's returns."""
    return lambda self, *arguments: change(*Line.step_env(self, *arguments))
