"""The boundary to Gymnasium's environments: their actions and results are converted in one place."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from jaxrl_hier.checks import UsageError

STEP = "step returns (observation, reward, terminated, truncated, info)"
RESET = "reset returns (observation, info)"
INFINITE = 3.4028235677973366e38  # from here on float32 rounds to infinity


class Converted(gymnasium.Wrapper):
    """An environment whose `step` and `reset` return exactly what the engine relies on.

    Actions become elements of the action space: Python integers, counted from its start, or arrays of its dtype within
    its bounds. Observations become arrays of their space's shape and dtype, float32 for float64; rewards finite
    numbers; flags booleans, never both of them true. `info` holds only "success", which environments
    report as "is_success" or "success", and is empty otherwise.

    Raises:
        UsageError: in `step` and `reset`, the environment returned something that cannot be converted.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.called = name_of(env)
        self.actions, self.observations = env.action_space, env.observation_space
        if isinstance(self.actions, spaces.Discrete):
            self.action_space = spaces.Discrete(int(self.actions.n))
        if isinstance(self.observations, spaces.Discrete):
            self.observation_space = spaces.Discrete(int(self.observations.n))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        returned = self.env.reset(seed=seed, options=options)
        if not isinstance(returned, tuple) or len(returned) != 2:
            self._refuse(f"{RESET}, this one {_count(returned)}")
        return self._observation(returned[0], self.observations), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        returned = self.env.step(sent(self.actions, action))
        if not isinstance(returned, tuple) or len(returned) != 5:
            self._refuse(f"{STEP}, this one {_count(returned)}")
        obs, reward, terminated, truncated, info = returned
        over = self._flag("terminated", terminated)
        cut = self._flag("truncated", truncated) and not over
        return self._observation(obs, self.observations), self._reward(reward), over, cut, success_of(info)

    def _reward(self, reward: Any) -> float:
        number = reward if type(reward) is float else float(self._number("the reward", reward))
        if not -INFINITE < number < INFINITE:
            self._refuse(f"a reward is {reward}, it must be a finite number of float32")
        return number

    def _flag(self, what: str, flag: Any) -> bool:
        if isinstance(flag, bool | np.bool_):
            return bool(flag)
        number = self._number(what, flag)
        if number not in (0, 1):
            self._refuse(f"{what} is {flag!r}, it must be True or False")
        return bool(number)

    def _number(self, what: str, x: Any) -> Any:
        number = _as_array(x)
        if number.size != 1 or number.dtype.kind not in "biuf":
            self._refuse(f"{what} is {_described(x)}, it must be one number")
        return number.reshape(())[()]

    def _observation(self, obs: Any, space: Any, part: str = "the observation") -> Any:
        if isinstance(space, spaces.Dict):
            if not isinstance(obs, dict) or set(obs) != set(space):
                held = f"a dict of {', '.join(map(str, obs))}" if isinstance(obs, dict) else _described(obs)
                self._refuse(f"{part} is {held}, its space says {', '.join(space)}")
            return {name: self._observation(obs[name], space[name], f"{part}[{name!r}]") for name in space}
        if isinstance(space, spaces.Discrete):
            number = self._number(part, obs)
            if not 0 <= number - space.start < space.n or number != int(number):
                self._refuse(f"{part} is {obs!r}, outside of {space}")
            return int(number) - int(space.start)
        return self._array(obs, space, part)

    def _array(self, found: Any, space: Any, part: str) -> np.ndarray:
        wanted = np.dtype(np.float32 if space.dtype == np.float64 else space.dtype)
        as_wanted = isinstance(found, np.ndarray) and found.dtype == wanted and found.shape == space.shape
        if as_wanted and (wanted.kind != "f" or np.isfinite(found).all()):
            return found.copy()  # an environment may write the next one into the same array
        obs = _as_array(found)
        if obs.shape != space.shape or obs.dtype.kind not in "biuf":
            self._refuse(f"{part} is {_described(found)}, its space says {wanted}{list(space.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):
            array = obs.astype(wanted)
        if wanted.kind == "f" and not np.isfinite(array).all():
            self._refuse(f"{part} holds {obs[~np.isfinite(array)].flat[0]}, it must be finite numbers of {wanted}")
        if wanted.kind != "f" and not np.array_equal(array, obs):
            self._refuse(f"{part} is {_described(obs)} and holds numbers that are not of {wanted}, as its space says")
        return array

    def _refuse(self, problem: str) -> Any:
        raise UsageError(f"{self.called}: {problem}")


def sent(space: Any, action: Any) -> Any:
    """The action for an environment with this space, within its bounds to the last bit; see `Converted`."""
    if isinstance(space, spaces.Discrete):
        return int(action) + int(space.start)
    if isinstance(space, spaces.Box):
        return np.clip(np.asarray(action).astype(space.dtype), space.low, space.high)
    return action


def success_of(info: Any) -> dict[str, Any]:
    """{"success": bool} of an environment's `info`, or {}."""
    told = [info[name] for name in ("is_success", "success") if isinstance(info, dict) and info.get(name) is not None]
    return {"success": bool(np.all(told[0]))} if told else {}


def time_limit(env: Any) -> int | None:
    """Steps after which an episode is truncated: the smallest limit of all wrappers and specifications, or None."""
    limits = []
    for layer in layers(env):
        spec = getattr(layer, "spec", None)
        limits += [getattr(layer, "_max_episode_steps", None), getattr(spec, "max_episode_steps", None)]
    return min((int(limit) for limit in limits if isinstance(limit, int | np.integer) and limit > 0), default=None)


def layers(env: Any) -> Iterator[Any]:
    """A wrapped environment from the outside in: `env`, `env.env`, `env.env.env`, …"""
    seen: list[Any] = []
    while env is not None and not any(env is layer for layer in seen):
        seen.append(env)
        yield env
        env = getattr(env, "env", None)


def name_of(env: Any) -> str:
    """Its id in Gymnasium's registry, or the class of the innermost environment."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def _as_array(x: Any) -> np.ndarray:
    """`x` as a NumPy array; one of objects if it is no array of numbers."""
    try:
        return np.asarray(x)
    except ValueError:  # rows of different lengths
        return np.asarray(None)


def _described(x: Any) -> str:
    """dtype and shape of an array, else how Python prints it."""
    array = _as_array(x)
    return (
        f"{array.dtype}{list(array.shape)}" if array.ndim and array.dtype != object else " ".join(repr(x).split())[:60]
    )


def _count(returned: Any) -> str:
    return f"{len(returned)} values" if isinstance(returned, tuple | list) else f"one {type(returned).__name__}"
