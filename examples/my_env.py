"""Your own environment: a ball on a line, to be pushed to a hidden place, which is the task.

It follows gymnax's contract, and tasks are data in its params. With `make`, every command accepts it:

    jaxrl-hier train maml --env examples.my_env:make --out runs/ball
    jaxrl-hier evaluate runs/ball --env examples.my_env:make
    jaxrl-hier train maml --env examples.my_env:make --out runs/ball --iterations 200 --resume
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs import Tasks, check_env
from jaxrl_envs.rendering import picture

FORCE, FRICTION = 0.05, 0.2


@struct.dataclass
class Params(environment.EnvParams):
    """The task: where the ball should be."""

    target: jax.Array | float = 0.5  # [] in [-1, 1]
    max_steps_in_episode: int = 30


@struct.dataclass
class State(environment.EnvState):
    """Where the ball is, and how fast."""

    x: jax.Array  # [] in [-1, 1]
    velocity: jax.Array  # []
    time: jax.Array  # [] int32, steps since the reset: gymnax counts the time limit by it


class Ball(environment.Environment[State, Params]):
    """Observation: place and velocity, [2] float32. Action: the push, [1] float32 in [-1, 1].

    Reward: minus the distance to the target. Walls at ±1 stop the ball.
    """

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        state = State(x=jnp.zeros(()), velocity=jnp.zeros(()), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Params) -> tuple[Any, ...]:
        velocity = (1 - FRICTION) * state.velocity + FORCE * action[0]
        x = jnp.clip(state.x + velocity, -1.0, 1.0)
        velocity = jnp.where(jnp.abs(x) == 1.0, 0.0, velocity)
        state = State(x=x, velocity=velocity, time=state.time + 1)
        reward = -jnp.abs(x - params.target)
        terminated = jnp.zeros((), bool)  # never by itself; the time limit is gymnax's, from the params
        return self.get_obs(state), state, reward, terminated, {}

    def get_obs(self, state: State, params: Params | None = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.x, state.velocity])

    def action_space(self, params: Params | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    def observation_space(self, params: Params | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,))

    def render(self, state: State, params: Params) -> np.ndarray:
        """One state as a picture, uint8 [256, 256, 3]: disc the ball, star its target."""

        def paint(ax) -> None:
            ax.plot([-1, 1], [0, 0], color="0.7", lw=2)
            ax.plot(float(params.target), 0, "*", color="tab:orange", ms=18)
            ax.plot(float(state.x), 0, "o", color="tab:blue", ms=14)
            ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[])

        return picture(paint)


def make() -> tuple[Ball, Tasks]:
    """The environment, and its tasks: a target anywhere in each episode, and eleven fixed ones for the test.

    With the default, `resample="never"`, each environment of a learner such as PPO would keep one target for good.
    """
    sample = lambda key: Params(target=jax.random.uniform(key, minval=-1.0, maxval=1.0))
    test = jax.vmap(lambda target: Params(target=target))(jnp.linspace(-1.0, 1.0, 11))
    return Ball(), Tasks(sample=sample, resample="episode", test=test)


if __name__ == "__main__":
    check_env(*make())
    print("the contract is kept")
