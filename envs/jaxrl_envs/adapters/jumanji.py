"""Jumanji (Bonnet et al., ICLR 2024): games, packing and routing in JAX.

    jaxrl-hier train dqn --env jumanji:Game2048-v1            pip install 'jaxrl-hier[jumanji]'

Taken are environments of one agent with one action in each step.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from jaxrl_envs.adapters import Adapter, package, raw_observations, require_name

MOST_ACTIONS = 5_000  # of a product of discrete ones


class Jumanji(Adapter):
    """Action: Jumanji's; several discrete ones at once are counted through, the last one fastest. A mask of the actions
    that are allowed is a part of the observation; what another one does is Jumanji's rule.

    Observation, float32: everything that Jumanji shows, as one vector, or one of its fields alone, such as "grid".

    Args:
        name: of the environment in Jumanji.
        field: of the observation; default: all.
        limit: steps of an episode. Many of Jumanji's environments have a limit of their own as well, at which a task
            ends for good, as Jumanji counts it.

    Raises:
        ValueError: Jumanji is not installed, or it has no such environment or field, or the environment has several
            agents, or more actions than can be counted through.
    """

    def __init__(self, name: str = "Game2048-v1", field: str | None = None, limit: int | None = None):
        jumanji = package("jumanji", "Jumanji", "jumanji")
        require_name(name, jumanji.registered_environments(), "Jumanji")
        self.env, self.field = jumanji.make(name), field
        if self.env.reward_spec.shape:
            raise ValueError(f"jumanji:{name} has several agents; environments of one agent can be played")
        seen = self.env.observation_spec.generate_value()
        if field is not None and not hasattr(seen, field):
            fields = getattr(seen, "_fields", None) or list(vars(seen))
            raise ValueError(f"the observation of jumanji:{name} has no {field!r}; it has {', '.join(fields)}")
        limit = limit or getattr(self.env, "time_limit", None) or 1000
        shape = self._observed(seen).shape
        super().__init__(f"jumanji:{name}", int(limit), raw_observations(shape), self._action_space(name))

    def _action_space(self, name: str) -> spaces.Space:
        spec = self.env.action_spec
        values = np.ravel(getattr(spec, "num_values", ()))
        self._counts = tuple(map(int, values)) if spec.shape else ()
        if math.prod(map(int, values)) > MOST_ACTIONS:
            raise ValueError(f"jumanji:{name} has {math.prod(map(int, values))} actions, more than {MOST_ACTIONS}")
        if values.size:
            return spaces.Discrete(math.prod(map(int, values)))
        if not np.issubdtype(spec.dtype, np.floating):
            raise ValueError(f"jumanji:{name} has actions of whole numbers that are no choice among a few: {spec}")
        low, high = (np.broadcast_to(x, spec.shape) for x in (spec.minimum, spec.maximum))
        return spaces.Box(jnp.asarray(low), jnp.asarray(high), spec.shape, jnp.float32)

    def _observed(self, obs: Any) -> jax.Array:
        if self.field is not None:
            return jnp.asarray(getattr(obs, self.field), jnp.float32)
        return jnp.concatenate([jnp.ravel(jnp.asarray(x, jnp.float32)) for x in jax.tree.leaves(obs)])

    def begin(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        state, timestep = self.env.reset(key)
        return self._observed(timestep.observation), state

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        if self._counts:
            action = jnp.stack(jnp.unravel_index(action, self._counts))
        if isinstance(self._actions, spaces.Discrete):
            action = jnp.asarray(action, self.env.action_spec.dtype)
        state, timestep = self.env.step(inner, action)
        terminated = timestep.last() & (timestep.discount == 0)
        return self._observed(timestep.observation), state, timestep.reward, terminated, {}
