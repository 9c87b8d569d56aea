"""NAVIX (Pignatelli et al., 2024): MiniGrid's environments in JAX.

jaxrl-hier train dqn --env navix:Navix-Empty-5x5-v0       pip install 'jaxrl-hier[navix]'
"""

from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs.adapters import Adapter, package, require_name


class Navix(Adapter):
    """Action: one of NAVIX's seven. Observation, uint8 [height, width, 3]: kind, colour and state of every cell, or of
    those in front of the agent.

    Args:
        name: of the environment in NAVIX.
        view: False: the whole grid, as by default in NAVIX; True: what the agent sees, as in MiniGrid.
        limit: steps of an episode; NAVIX's default is 100.

    Raises:
        ValueError: NAVIX is not installed, or has no such environment.
    """

    def __init__(self, name: str = "Navix-Empty-5x5-v0", view: bool = False, limit: int = 100):
        navix = package("navix", "NAVIX", "navix")
        require_name(name, navix.registry(), "NAVIX")
        seen = navix.observations.symbolic_first_person if view else navix.observations.symbolic
        self.env = navix.make(name, max_steps=limit, observation_fn=seen)
        space = self.env.observation_space
        # every state of NAVIX holds the pictures of its tiles, which symbols do not need: kept once, outside
        self._pictures = self.env.reset(jax.random.PRNGKey(0)).state.cache
        observations = spaces.Box(0, 255, tuple(space.shape), jnp.uint8)
        super().__init__(f"navix:{name}", limit, observations, spaces.Discrete(len(self.env.action_set)))

    def begin(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        timestep = self.env.reset(key)
        return timestep.observation, self._without_pictures(timestep)

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        # moving obstacles take their randomness from the state
        before = inner.replace(state=inner.state.replace(cache=self._pictures, key=key))
        after = self.env._step(before, action)  # `step` would reset
        return after.observation, self._without_pictures(after), after.reward, after.is_termination(), {}

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        return self.env.observation_fn(state.inner.state.replace(cache=self._pictures))

    def _without_pictures(self, timestep: Any) -> Any:
        return timestep.replace(state=timestep.state.replace(cache=()))
