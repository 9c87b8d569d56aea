"""Robots whose environments have the interface of brax: those of brax itself and of MuJoCo Playground.

    jaxrl-hier train td3 --env brax:halfcheetah               pip install 'jaxrl-hier[brax]'
    jaxrl-hier train sac --env playground:CartpoleBalance     pip install 'jaxrl-hier[playground]'

Physics: MuJoCo's in compiled form (MJX) unless `backend` names another of brax's ("spring", "positional",
"generalized"), which are faster and less exact. Actions lie in [−1, 1] for each joint.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from jaxrl_envs.adapters import Adapter, package, raw_observations, require_name


class Robot(Adapter):
    """A robot of brax or MuJoCo Playground.

    Observation, float32 [F]: the package's; of a dictionary its "state", what a policy may see.

    Args:
        name: with the package's prefix.
        env: the package's environment.
        limit: steps of an episode.
    """

    def __init__(self, name: str, env: Any, limit: int):
        self.env = env
        seen = jax.eval_shape(lambda: _seen(env.reset(jax.random.PRNGKey(0)).obs))
        actions = spaces.Box(-1.0, 1.0, (env.action_size,), jnp.float32)
        super().__init__(name, limit, raw_observations(seen.shape), actions)

    def begin(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        state = self.env.reset(key)
        return _seen(state.obs), state

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        state = self.env.step(inner, action)
        return _seen(state.obs), state, state.reward, state.done > 0, {}

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        return _seen(state.inner.obs)

    def render(self, state: Any, params: Any) -> np.ndarray:
        """One state as MuJoCo draws it, uint8 [height, width, 3]; needs OpenGL, without a screen MUJOCO_GL=egl."""
        drawn = state.inner.pipeline_state if hasattr(state.inner, "pipeline_state") else state.inner
        return np.asarray(self.env.render([drawn])[0])


def brax(name: str, backend: str = "mjx", limit: int = 1000) -> Robot:
    """A robot of brax ("halfcheetah", "ant", ...).

    Raises:
        ValueError: brax is not installed, has no such robot, or no such backend.
    """
    envs = package("brax.envs", "brax", "brax")
    require_name(name, envs._envs, "brax")
    backends = ("mjx", "generalized", "positional", "spring")
    if backend not in backends:
        raise ValueError(f"backend must be one of {', '.join(backends)}, got {backend!r}")
    return Robot(f"brax:{name}", envs.get_environment(name, backend=backend), limit)


def playground(name: str) -> Robot:
    """A robot of MuJoCo Playground ("CartpoleBalance", "Go1JoystickFlatTerrain", ...), with its own time limit.

    Raises:
        ValueError: MuJoCo Playground is not installed, or has no such robot.
    """
    registry = package("mujoco_playground", "MuJoCo Playground", "playground").registry
    require_name(name, registry.ALL_ENVS, "MuJoCo Playground")
    config = registry.get_default_config(name)
    if "impl" in config:  # newer versions choose Warp's, whose step cannot be vmapped over states
        config.impl = "jax"
    return Robot(f"playground:{name}", registry.load(name, config), int(config.episode_length))


def _seen(obs: Any) -> jax.Array:
    return obs["state"] if hasattr(obs, "keys") else obs
