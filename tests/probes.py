"""Environments so small that what a learner should make of them is known."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks


@struct.dataclass
class CorridorParams:
    max_steps_in_episode: int = 30


class Corridor:
    """Six cells, left and right; the right end pays 1 and terminates, every other step into cell s costs s / 10."""

    name = "Corridor"
    default_params = CorridorParams()

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Discrete(6)

    def reset_env(self, key, params):
        cell = jax.random.randint(key, (), 0, 5)
        return cell, (cell, jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        cell = jnp.clip(state[0] + 2 * action - 1, 0, 5)
        return cell, (cell, state[1] + 1), jnp.where(cell == 5, 1.0, -cell / 10), cell == 5, {}

    def get_obs(self, state):
        return state[0]

    def is_truncated(self, state, params):
        return state[1] >= params.max_steps_in_episode

    def model(self, params):
        P, R = np.zeros((6, 2, 6)), np.zeros((6, 2))
        for s, a in np.ndindex(5, 2):
            cell = np.clip(s + 2 * a - 1, 0, 5)
            P[s, a, cell] = 1
            R[s, a] = 1.0 if cell == 5 else -cell / 10
        P[5, :, 5] = 1
        return jnp.asarray(P), jnp.asarray(R)


def way_out(start, length):
    """The return of one who walks the corridor from `start` to its right end in `length` steps, straight."""
    assert length == 5 - start
    return 1 - sum(range(start + 1, 5)) / 10


@struct.dataclass
class LotteryState(environment.EnvState):
    time: jax.Array


@struct.dataclass
class LotteryParams(environment.EnvParams):
    number: jax.Array = struct.field(default_factory=lambda: np.float32(0))  # [] a whole one
    max_steps_in_episode: int = 1


class Lottery(environment.Environment):
    """One step that pays 100 times the task's number and a draw of (0, 1), whatever the action; `box`: of a Box."""

    def __init__(self, box=False):
        super().__init__()
        self.box = box

    @property
    def default_params(self):
        return LotteryParams()

    def reset_env(self, key, params):
        return jnp.zeros(2), LotteryState(time=jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        reward = 100.0 * params.number + jax.random.uniform(key, minval=0.01, maxval=0.99)
        return jnp.zeros(2), LotteryState(time=state.time + 1), reward, jnp.ones((), bool), {}

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (1,)) if self.box else spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (2,))


def lotteries():
    """A number below 1000, for each episode."""

    def sample(key):
        return LotteryParams(number=jax.random.randint(key, (), 0, 1000).astype(jnp.float32))

    return Tasks(sample=sample, resample="episode")
