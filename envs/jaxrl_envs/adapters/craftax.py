"""Craftax (Matthews et al., ICML 2024): a world to survive in, open-ended.

    jaxrl-hier train rl2 --env craftax:Craftax-Classic-Symbolic-v1     pip install 'jaxrl-hier[craftax]'

The reward is for achievements that are reached for the first time in an episode. An episode ends with the player's
death; the limit of steps, which Craftax counts as an end, is `is_truncated` here.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.adapters import Adapter, package, require_name

NAMES = ("Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1")
NEVER = 2**31 - 1  # a limit of steps that Craftax does not reach


@struct.dataclass
class CraftaxParams(environment.EnvParams):
    """The task: Craftax's own params, such as how fast a day passes."""

    inner: Any = None  # craftax's EnvParams
    max_steps_in_episode: int = 10_000


class Craftax(Adapter):
    """Action: one of Craftax's. Observation, float32 in [0, 1]: a vector or a picture, by the name.

    Args:
        name: of the environment in Craftax, such as "Craftax-Symbolic-v1".
        limit: steps of an episode; default: Craftax's, 10 000 of Craftax-Classic and 100 000 of Craftax.

    Raises:
        ValueError: Craftax is not installed, or has no such environment.
    """

    def __init__(self, name: str = "Craftax-Symbolic-v1", limit: int | None = None):
        module = package("craftax.craftax_env", "Craftax", "craftax")
        require_name(name, NAMES, "Craftax")
        self.env = module.make_craftax_env_from_name(name, auto_reset=False)
        self._params = self.env.default_params.replace(max_timesteps=NEVER)
        space = self.env.observation_space(self.env.default_params)
        observations = spaces.Box(0.0, 1.0, space.shape, jnp.float32)
        actions = spaces.Discrete(self.env.action_space(self.env.default_params).n)
        super().__init__(f"craftax:{name}", limit or self.env.default_params.max_timesteps, observations, actions)

    @property
    def default_params(self) -> CraftaxParams:
        return CraftaxParams(inner=self._params, max_steps_in_episode=self._limit)

    def begin(self, key: jax.Array, params: CraftaxParams) -> tuple[jax.Array, Any]:
        return self.env.reset_env(key, params.inner)

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: CraftaxParams
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        obs, inner, reward, terminated, info = self.env.step_env(key, inner, action, params.inner)
        return obs, inner, reward, terminated, info

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        return self.env.get_obs(state.inner)
