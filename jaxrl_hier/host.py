"""Environments of Gymnasium, which run on the host: `HostEnv` describes one to a flat learner.

    jaxrl-hier train her-ddpg --env gymnasium:FetchReach-v4                 the robots need the extra `robotics`
    jaxrl_hier.train("sac", "gymnasium:Pendulum-v1", out="runs/pendulum")
    jaxrl_hier.train("sac", HostEnv(lambda: MyEnv()))                       with more to say about an environment

`jaxrl_hier.host_training` acts in them and trains. Goals are gymnasium-robotics' dicts as they come.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import vector
from gymnax.environments import environment, spaces

from jaxrl_envs.goals import PARTS
from jaxrl_hier.checks import UsageError
from jaxrl_hier.gymnasium_boundary import Converted, name_of, time_limit


@struct.dataclass
class HostState(environment.EnvState):
    """The state that JAX sees of an environment that keeps its own."""

    time: jax.Array  # [] int32


class HostEnv:
    """An environment of Gymnasium as learners see it: spaces, time limit, and the reward of a goal.

    It has the form of a gymnax environment whose `reset_env` and `step_env` return zeros: they give shapes and are
    never played.

    Args:
        make: an id of Gymnasium's registry, or a function () -> gymnasium.Env.
        compute_reward: for an environment with goals, (achieved, desired) -> reward, [] float32, in jax. None: −1
            beyond the environment's `distance_threshold` and 0 within it, as for the sparse robots of
            gymnasium-robotics.
        settings: keyword arguments of `make`, or for `gymnasium.make`.

    Raises:
        UsageError: no such environment, a missing package, or a space or reward that cannot be used.
    """

    on_host = True

    def __init__(
        self,
        make: str | Callable[[], Any],
        compute_reward: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
        **settings: Any,
    ):
        build = partial(_gymnasium_make, make, **settings) if isinstance(make, str) else partial(make, **settings)
        example = build()
        if not isinstance(example, gymnasium.Env):
            raise UsageError(f"HostEnv needs a function () -> gymnasium.Env; this one returns {type(example).__name__}")
        self.build: Callable[[], Any] = lambda: Converted(build())
        self._make = make if isinstance(make, str) else None
        self._settings = settings
        self._class = type(example.unwrapped)  # part of a run's identity, as `_settings` are
        self.name, limit = name_of(example), time_limit(example)
        if limit is None:
            raise UsageError(f"{self.name} has no time limit, which episodes need: wrap it in gymnasium's TimeLimit")
        self.default_params = environment.EnvParams(max_steps_in_episode=limit)
        converted = Converted(example)
        self._observations = _converted(converted.observation_space, self.name)
        self._actions = _converted(converted.action_space, self.name)
        if isinstance(self._observations, spaces.Dict):
            reward = compute_reward or _sparse_reward(example)
            _compare_rewards(reward, example)
            self.compute_reward = lambda achieved, desired, params: reward(achieved, desired)
        example.close()

    def observation_space(self, params: Any = None) -> Any:
        """The observation space in gymnax's form; float64 becomes float32."""
        return self._observations

    def action_space(self, params: Any = None) -> Any:
        """The action space in gymnax's form; float64 becomes float32."""
        return self._actions

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, HostState]:
        """Zeros in the shape of an observation."""
        return _zeros(self._observations), HostState(time=jnp.zeros((), jnp.int32))

    def step_env(self, key: jax.Array, state: HostState, action: Any, params: Any) -> tuple[Any, ...]:
        """Zeros in the shape of a step."""
        return _zeros(self._observations), state, jnp.zeros(()), jnp.zeros((), bool), {}

    def is_truncated(self, state: HostState, params: Any) -> jax.Array:
        """False: on the host the environment itself reports truncation."""
        return jnp.zeros((), bool)

    def vector(self, count: int) -> Any:
        """`count` environments side by side, a gymnasium.vector.VectorEnv that does not reset by itself."""
        # in this process: JAX has threads, beside which a fork may lock up
        return vector.SyncVectorEnv([self.build] * count, autoreset_mode=vector.AutoresetMode.DISABLED)

    def rendered(self) -> Any:
        """An environment that renders to arrays; None if it cannot: it has no such mode, a package is missing, or
        `make` is a function whose environments have another mode."""
        try:
            if self._make is not None:
                return Converted(_gymnasium_make(self._make, **self._settings | {"render_mode": "rgb_array"}))
            env = self.build()
            if env.render_mode == "rgb_array":
                return env
            env.close()
        except Exception:  # a package that only rendering needs raises what it likes
            pass
        return None


def _gymnasium_make(name: str, **settings: Any) -> Any:
    try:
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    except ImportError:
        pass
    try:
        return gymnasium.make(name, **settings)
    except (gymnasium.error.Error, ImportError) as error:
        hint = "; the robots need the extra: pip install 'jaxrl-hier[robotics]'"
        raise UsageError(f"Gymnasium cannot make {name!r}: {str(error).splitlines()[0]}{hint}") from error


def _converted(space: Any, name: str) -> Any:
    if isinstance(space, gymnasium.spaces.Box):
        dtype = np.float32 if space.dtype == np.float64 else space.dtype
        return spaces.Box(space.low, space.high, space.shape, dtype)
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return spaces.Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Dict) and set(space) == set(PARTS):
        return spaces.Dict({part: _converted(space[part], name) for part in PARTS})
    raise UsageError(
        f"{name} has a space {space}; supported are Box, Discrete from 0, and the dict of {', '.join(PARTS)}"
    )


def _sparse_reward(example: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    threshold = getattr(example.unwrapped, "distance_threshold", None)
    if threshold is None:
        raise UsageError(
            f"{type(example.unwrapped).__name__} has no distance_threshold to take its reward from: give "
            "compute_reward, (achieved, desired) -> reward in jax"
        )
    return lambda achieved, desired: jnp.where(jnp.linalg.norm(achieved - desired) > threshold, -1.0, 0.0)


def _compare_rewards(reward: Callable[[jax.Array, jax.Array], jax.Array], example: Any) -> None:
    """Raises UsageError where the rewards differ on pairs of the goals achieved in a random episode."""
    obs, _ = example.reset(seed=0)
    example.action_space.seed(0)
    goals, over = [obs["desired_goal"], obs["achieved_goal"]], False
    while not over:
        obs, _, terminated, truncated, info = example.step(example.action_space.sample())
        goals.append(obs["achieved_goal"])
        over = terminated or truncated
    theirs = [[example.unwrapped.compute_reward(a, d, info) for d in goals] for a in goals]
    stacked = jnp.asarray(np.stack(goals), jnp.float32)
    ours = jax.vmap(jax.vmap(reward, (None, 0)), (0, None))(stacked, stacked)
    wrong = np.mean(~np.isclose(ours, theirs, atol=1e-5))
    if wrong > 0.01:  # at the rim of a threshold float32 may decide otherwise
        raise UsageError(
            f"compute_reward differs from the environment's own on {wrong:.0%} of the pairs of goals of an episode; "
            "without the argument compute_reward a sparse reward of −1 and 0 is assumed"
        )


def _zeros(space: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _zeros(part) for name, part in space.spaces.items()}
    return jnp.zeros(space.shape, space.dtype)
