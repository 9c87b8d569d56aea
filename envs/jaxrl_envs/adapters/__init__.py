"""Environments of other packages, unchanged, behind the contract of this one; a module for each package.

    pip install 'jaxrl-hier[brax]'                        # or craftax, jumanji, mujoco, navix, pgx, playground
    jaxrl-hier train sac --env brax:inverted_pendulum

A package is imported when one of its environments is asked for. Rules, rewards and observations are the package's own;
what differs is the contract: an adapted environment never resets by itself, its state after an episode's last step is
the true successor, and the time limit is `is_truncated`, apart from the task's own end.
"""

import difflib
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.resetting import begun_where


@struct.dataclass
class AdaptedState(environment.EnvState):
    """The state of the environment inside."""

    inner: Any  # as the package has it
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class AdaptedParams(environment.EnvParams):
    """There is one task."""

    max_steps_in_episode: int = 1000


class Adapter(environment.Environment[AdaptedState, AdaptedParams]):
    """What adapted environments have in common. A class for a package adds `begin` and `go_on`.

    Args:
        name: with the package's prefix.
        limit: steps of an episode.
        observations, actions: the spaces.
    """

    costly_reset = True  # most build a world

    def __init__(self, name: str, limit: int, observations: spaces.Space, actions: spaces.Space):
        super().__init__()
        if limit < 1:
            raise ValueError(f"limit must be at least one step, got {limit}")
        self._name, self._limit, self._observations, self._actions = name, limit, observations, actions

    def begin(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        """The first observation of an episode and the package's state. The key is two plain words, [2] uint32: some
        packages keep it in their states, where words stack and compare like any array."""
        raise NotImplementedError

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        """Observation, state, reward, whether the task has ended, and `info` after a step."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """As the registry calls it."""
        return self._name

    @property
    def default_params(self) -> AdaptedParams:
        return AdaptedParams(max_steps_in_episode=self._limit)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, AdaptedState]:
        obs, inner = self.begin(jax.random.key_data(key), params)
        return obs, AdaptedState(inner=inner, time=jnp.zeros((), jnp.int32))

    def step_env(
        self, key: jax.Array, state: AdaptedState, action: jax.Array, params: Any
    ) -> tuple[jax.Array, AdaptedState, jax.Array, jax.Array, dict[str, Any]]:
        key = jax.random.key_data(key)
        obs, inner, reward, terminated, info = self.go_on(key, state.inner, action, params)
        return obs, AdaptedState(inner=inner, time=state.time + 1), reward, terminated, info

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: jax.Array, state: AdaptedState, action: Any, params: Any = None
    ) -> tuple[jax.Array, AdaptedState, jax.Array, jax.Array, jax.Array, dict[Any, Any]]:
        """gymnax's step that resets by itself, with the same keys; a reset is computed where an episode has ended."""
        params = self.default_params if params is None else params
        key_step, key_reset = jax.random.split(key)
        obs, after, reward, terminated, info = self.step_env(key_step, state, action, params)
        truncated = self.is_truncated(after, params)
        told = {"terminated": terminated, "truncated": truncated, "final_observation": obs}
        begin, arguments = self.reset_env, (key_reset, params)
        obs, after = begun_where(self, terminated | truncated, begin, arguments, (obs, after))
        return obs, after, reward, terminated, truncated, {**info, **told}

    def is_terminated(self, state: AdaptedState, params: Any) -> jax.Array:
        raise NotImplementedError("whether an adapted task has ended may depend on the action: see step_env")

    @property
    def num_actions(self) -> int:
        if not isinstance(self._actions, spaces.Discrete):
            raise AttributeError(f"the actions of {self.name} cannot be counted")
        return int(self._actions.n)

    def action_space(self, params: Any = None) -> spaces.Space:
        return self._actions

    def observation_space(self, params: Any = None) -> spaces.Space:
        return self._observations


def package(module: str, title: str, extra: str) -> Any:
    """The module of a package. Raises ValueError if it is not installed, or something that it needs is not."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        why = f"{title} is not installed ({error.name} is missing): pip install 'jaxrl-hier[{extra}]'"
        raise ValueError(why) from None


def require_name(name: str, names: Iterable[str], title: str) -> None:
    """Raises ValueError unless a package called `title` has an environment of this name."""
    spelled = {known.lower(): known for known in names}
    if name not in spelled.values():
        near = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.4)  # the nearest first
        named = ", ".join(spelled[n] for n in near or sorted(spelled))
        raise ValueError(f"{title} has no environment {name!r}; {'nearest' if near else 'it has'}: {named}")


def raw_observations(shape: tuple[int, ...]) -> spaces.Box:
    """The space of observations [*shape] float32 without known bounds."""
    return spaces.Box(-jnp.inf, jnp.inf, shape, jnp.float32)
