"""Harlow's task in symbols: two new objects in every episode, one of which pays (Wang et al., Learning to reinforcement
learn, 2016, section 3.2.2; after Harlow, The formation of learning sets, 1949).

A trial begins with a cross in the middle. Once the agent looks at the cross, for a reward of 0.2, it sees an object on
the left and one on the right, in an order that is drawn anew, and looks at one of them: 1 for the object that pays and
−1 for the other. An episode is ten trials on the same two objects, so the first choice is a guess and all others can be
right: 2 + 9 on average. A look that the trial does not ask for changes nothing and costs a step.

Departure: the paper shows pictures, which the agent must first turn to; here an object is a vector of eight numbers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.random_bits import random_bits
from jaxrl_envs.tasks import Tasks

LEFT, MIDDLE, RIGHT = range(3)
FEATURES = 8  # of an object
TRIALS = 10  # of an episode
LIMIT = 40  # steps; without a wrong look an episode takes 20
CROSS_REWARD = 0.2
TRAINED, HELD_OUT = 1000, 200  # objects
TEST_EPISODES = 400


@struct.dataclass
class HarlowState(environment.EnvState):
    """Where the trial is."""

    shown: jax.Array  # [] bool: the objects are seen; else the cross
    swapped: jax.Array  # [] bool: the object that pays lies on the right
    trials: jax.Array  # [] int32, choices made since the reset
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class HarlowParams(environment.EnvParams):
    """The task: the two objects."""

    # [2, FEATURES] float32; the first one pays
    objects: jax.Array = struct.field(default_factory=lambda: np.eye(2, FEATURES, dtype=np.float32))
    max_steps_in_episode: int = LIMIT


class Harlow(environment.Environment[HarlowState, HarlowParams]):
    """Observation: [3, FEATURES + 1] float32, what is seen on the left, in the middle and on the right: an object's
    features, and 1 for the cross. Action: where to look, 0 left, 1 middle, 2 right. Reward: 0.2, 1, −1 or 0."""

    @property
    def default_params(self) -> HarlowParams:
        return HarlowParams()

    def reset_env(self, key: jax.Array, params: HarlowParams) -> tuple[jax.Array, HarlowState]:
        zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        state = HarlowState(shown=no, swapped=no, trials=zero, time=zero)
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: HarlowState, action: jax.Array, params: HarlowParams
    ) -> tuple[jax.Array, HarlowState, jax.Array, jax.Array, dict[str, Any]]:
        at_cross = ~state.shown & (action == MIDDLE)
        choice = state.shown & (action != MIDDLE)
        right = action == jnp.where(state.swapped, RIGHT, LEFT)
        reward = CROSS_REWARD * at_cross + jnp.where(right, 1.0, -1.0) * choice
        state = HarlowState(
            shown=(state.shown | at_cross) & ~choice,
            swapped=jnp.where(at_cross, random_bits(key) % 2 == 1, state.swapped),
            trials=state.trials + choice,
            time=state.time + 1,
        )
        return self.get_obs(state, params), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: HarlowState, params: HarlowParams) -> jax.Array:
        return state.trials >= TRIALS

    def get_obs(self, state: HarlowState, params: HarlowParams, key: Any = None) -> jax.Array:
        objects = jnp.asarray(params.objects)
        left, right = jnp.where(state.swapped, objects[::-1], objects) * state.shown
        seen = jnp.stack([left, jnp.zeros_like(left), right])
        cross = jnp.zeros(3).at[MIDDLE].set(~state.shown)
        return jnp.column_stack([seen, cross])

    @property
    def num_actions(self) -> int:
        return 3

    def action_space(self, params: HarlowParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(3)

    def observation_space(self, params: HarlowParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (3, FEATURES + 1), jnp.float32)


def harlow_tasks() -> Tasks:
    """Two different objects of 1000 in every episode; the test tasks are pairs of 200 others.

    The features of an object are uniform in [−1, 1].
    """
    objects = np.random.default_rng(1949).uniform(-1, 1, (TRAINED + HELD_OUT, FEATURES)).astype(np.float32)

    def pair(key: jax.Array, among: np.ndarray) -> HarlowParams:
        first, step = jax.random.randint(key, (2,), jnp.array([0, 1]), len(among))
        return HarlowParams(objects=jnp.asarray(among)[jnp.stack([first, (first + step) % len(among)])])

    keys = jax.random.split(jax.random.key(1949), TEST_EPISODES)
    test = jax.vmap(lambda key: pair(key, objects[TRAINED:]))(keys)
    return Tasks(sample=lambda key: pair(key, objects[:TRAINED]), resample="episode", test=test)
