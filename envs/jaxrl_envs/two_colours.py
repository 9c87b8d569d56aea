"""Two colours, one of which pays: the task of a public question, why a recurrent PPO does not learn it
(Stable-Baselines3-contrib, issue 211).

In each step two squares show two colours, in an order that is drawn anew, and the agent takes one of them. One of the
colours pays 1 and the other 0, all through an episode; the next episode has two new colours. So the agent has to try,
and to remember by colour, not by place, what it has been paid for: it must also see its last action and reward. How
many steps an episode has and what a reward is are our choice: the question describes the rest.

An agent that remembers guesses once and earns T − ½ in T steps; one that only sees the colours earns T / 2. The last
reward is a memory of one bit, with which a rule that has no other memory earns ¾ T: take the redder colour after a
reward of 1, and first, and else the other one. That is right in every step where the redder colour pays, and else in
every other.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.random_bits import random_bits
from jaxrl_envs.tasks import Tasks


@struct.dataclass
class TwoColoursState(environment.EnvState):
    """How the colours lie."""

    swapped: jax.Array  # [] bool: the one that pays lies on the right
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class TwoColoursParams(environment.EnvParams):
    """The task: the two colours."""

    # [2, 3] float32, red, green and blue; the first one pays
    colours: jax.Array = struct.field(default_factory=lambda: np.eye(3, dtype=np.float32)[:2])
    max_steps_in_episode: int = 100


class TwoColours(environment.Environment[TwoColoursState, TwoColoursParams]):
    """Observation: [2, 3] float32, the colours left and right. Action: 0 left, 1 right. Reward: 1 or 0."""

    costly_reset = True  # new colours are drawn, and all episodes of a rollout end at once

    @property
    def default_params(self) -> TwoColoursParams:
        return TwoColoursParams()

    def reset_env(self, key: jax.Array, params: TwoColoursParams) -> tuple[jax.Array, TwoColoursState]:
        state = TwoColoursState(swapped=random_bits(key) % 2 == 1, time=jnp.zeros((), jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: TwoColoursState, action: jax.Array, params: TwoColoursParams
    ) -> tuple[jax.Array, TwoColoursState, jax.Array, jax.Array, dict[str, Any]]:
        reward = (action == state.swapped).astype(jnp.float32)
        state = TwoColoursState(swapped=random_bits(key) % 2 == 1, time=state.time + 1)
        return self.get_obs(state, params), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: TwoColoursState, params: TwoColoursParams) -> jax.Array:
        return jnp.zeros((), bool)

    def get_obs(self, state: TwoColoursState, params: TwoColoursParams, key: Any = None) -> jax.Array:
        colours = jnp.asarray(params.colours)
        return jnp.where(state.swapped, colours[::-1], colours)

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: TwoColoursParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: TwoColoursParams | None = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (2, 3), jnp.float32)


def two_colours_tasks(steps: int = 100) -> Tasks:
    """Both colours uniform in [0, 1]³, new for every episode.

    Args:
        steps: of an episode.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")

    def sample(key: jax.Array) -> TwoColoursParams:
        return TwoColoursParams(colours=jax.random.uniform(key, (2, 3)), max_steps_in_episode=steps)

    return Tasks(sample=sample, resample="episode")
