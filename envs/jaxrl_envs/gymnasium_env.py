"""An environment of the gymnax contract as a `gymnasium.Env`, for the learners and wrappers of other libraries.

    env = jaxrl_envs.to_gymnasium(*jaxrl_envs.make("point-reach"))
    obs, info = env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())

Every step calls a compiled program, so learners in JAX are better off without this wrapper, with many environments at
once.
"""

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from jaxrl_envs.boxes import accepted
from jaxrl_envs.contract import Played, behind_a_wrapper, name_of
from jaxrl_envs.goals import is_goal_env
from jaxrl_envs.tasks import Tasks, as_arrays, like, single


def to_gymnasium(env: Any, tasks: Tasks | None = None, *, render_mode: str | None = None) -> "GymnasiumEnv":
    """`env` as a `gymnasium.Env`; its reset and its step are compiled when they are first called.

    Spaces have the bounds and dtypes of `env`'s own. `terminated` is the task's own end, `truncated` the time limit,
    and they are never both true. `info` is the environment's, such as "success".

    A reset samples the next task by `tasks.resample`: never, for every episode, or by that function. `reset(seed=…)`
    restarts everything with a fresh task; `reset(options={"task": params})` begins an episode of that task. The present
    task is `env.task`, the state `env.state`.

    An environment with goals (`jaxrl_envs.goals`) has the interface of gymnasium-robotics: dicts of "observation",
    "achieved_goal" and "desired_goal", `compute_reward(achieved_goal, desired_goal, info)` of goals with any leading
    axes, and "is_success" in `info` beside "success".

    Randomness is JAX's. From key = `jax.random.key(seed)` on, a reset splits it into key, key_task and key_reset, a
    step into key and key_step: with them the jitted environment repeats an episode, up to rounding.

    Args:
        tasks: the task distribution; None: `env.default_params` is the one task.
        render_mode: "rgb_array", for an environment that has `render(state, params)`; None: no pictures.

    Raises:
        ValueError: Gymnasium has no such space, or the environment no such render mode.
    """
    kind = GymnasiumGoalEnv if is_goal_env(env) else GymnasiumEnv
    return kind(env, single(env.default_params) if tasks is None else tasks, render_mode)


class GymnasiumEnv(gymnasium.Env):
    """See `to_gymnasium`, which makes it."""

    def __init__(self, env: Any, tasks: Tasks, render_mode: str | None):
        self.env, played = env, Played(env)
        self.played = played
        self.metadata = {"render_modes": ["rgb_array"] if hasattr(env, "render") else [], "render_fps": 10}
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            can = "'rgb_array' or None" if hasattr(env, "render") else "None, since it has no method render"
            raise ValueError(f"render_mode of {name_of(env)} must be {can}, got {render_mode!r}")
        self.render_mode = render_mode
        self.action_space = as_gymnasium(env.action_space(env.default_params))
        self.observation_space = as_gymnasium(env.observation_space(env.default_params))
        self.task: Any = None  # EnvParams of the present episode
        self.state: Any = None  # of the environment
        self.key: Any = None
        self.over = True  # the episode, or there has been none

        def task(key: jax.Array, previous: Any) -> tuple[jax.Array, jax.Array, Any]:
            key, key_task, key_reset = jax.random.split(key, 3)
            drawn = tasks.sample(key_task) if previous is None else tasks.following(key_task, previous)
            return key, key_reset, as_arrays(drawn)

        def step(key: jax.Array, state: Any, action: Any, task: Any) -> tuple[jax.Array, Any]:
            key, key_step = jax.random.split(key)
            s = played.step(key_step, state, accepted(env, task, action), task)
            return key, s._replace(info={name: x for name, x in s.info.items() if _is_numbers(x)})

        self._task, self._reset, self._step = jax.jit(task), jax.jit(played.reset), jax.jit(step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation of an episode, and an empty `info`.

        Args:
            seed: restart everything; None: continue, or for the first reset, take any seed.
            options: {"task": params} for an episode of that task.

        Raises:
            ValueError: another option, or a task that is not like those of `tasks`.
        """
        super().reset(seed=seed)
        if unknown := (options or {}).keys() - {"task"}:
            raise ValueError(f"the one option of reset is 'task', got {', '.join(sorted(map(repr, unknown)))}")
        if seed is not None or self.key is None:
            seed = int(self.np_random.integers(2**32)) if seed is None else seed
            self.key, self.task = jax.random.key(seed), None
        self.key, key_reset, drawn = self._task(self.key, self.task)
        self.task = like(drawn, options["task"], "options['task']") if options else drawn
        obs, self.state = self._reset(key_reset, self.task)
        self.over = False
        return _observed(self.observation_space, obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated and `info`.

        Raises:
            ResetNeeded: there has been no reset since the last episode ended.
            ValueError: `action` is not of the action space; numbers beyond the bounds of a Box are clipped.
        """
        if self.over:
            raise ResetNeeded("call reset before the first step of an episode")
        self.key, s = self._step(self.key, self.state, _acted(self.action_space, action), self.task)
        obs, reward, terminated, truncated, info = jax.device_get((s.obs, s.reward, s.terminated, s.truncated, s.info))
        self.state, self.over = s.state, bool(terminated | truncated)
        info = jax.tree.map(lambda x: x[()], info)  # NumPy's scalars for arrays without axes
        return _observed(self.observation_space, obs), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """The present state, uint8 [height, width, 3]; None without a render mode."""
        if self.render_mode is None:
            return None
        if self.state is None:
            raise ResetNeeded("call reset before render")
        return np.asarray(self.played.render(self.state, self.task))


class GymnasiumGoalEnv(GymnasiumEnv):
    """A `GymnasiumEnv` with goals, as in gymnasium-robotics."""

    def __init__(self, env: Any, tasks: Tasks, render_mode: str | None):
        super().__init__(env, tasks, render_mode)
        self.params = jax.jit(tasks.sample)(jax.random.key(0))  # of any task: they differ in their goals alone
        self._rewards = jax.jit(jax.vmap(self.played.compute_reward, (0, 0, None)))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As that of a `GymnasiumEnv`; `info` also calls success "is_success"."""
        obs, reward, terminated, truncated, info = super().step(action)
        if "success" in info:
            info["is_success"] = info["success"]
        return obs, reward, terminated, truncated, info

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        """Rewards [...] float32 of goals [..., *goal shape]; `info` is not used.

        Raises:
            ValueError: a wrapper has steps and no `compute_reward` of its own.
        """
        if behind_a_wrapper(self.env, "compute_reward"):
            raise ValueError(
                f"{name_of(self.env)} is stepped by a wrapper, which may pay otherwise than the compute_reward of the "
                "environment inside: let the wrapper define compute_reward, too"
            )
        achieved, desired = np.asarray(achieved_goal), np.asarray(desired_goal)
        space: Any = self.observation_space
        goal = space["desired_goal"].shape
        axes = achieved.shape[: achieved.ndim - len(goal)]
        rewards = self._rewards(achieved.reshape(-1, *goal), desired.reshape(-1, *goal), self.params)
        return np.asarray(rewards).reshape(axes)[()]


def as_gymnasium(space: Any) -> Any:
    """Gymnasium's form of a space of gymnax: the same bounds, in the dtype that JAX has for the space's.

    Raises:
        ValueError: Gymnasium has no such space.
    """
    from gymnax.environments import spaces as gymnax_spaces

    if isinstance(space, gymnax_spaces.Dict):
        return spaces.Dict({name: as_gymnasium(part) for name, part in space.spaces.items()})
    if isinstance(space, gymnax_spaces.Tuple):
        return spaces.Tuple([as_gymnasium(part) for part in space.spaces])
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    if not all(hasattr(space, name) for name in ("low", "high", "shape", "dtype")):
        raise ValueError(f"Gymnasium has no space like {space!r}; those of gymnax are Box, Discrete, Dict and Tuple")
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(space.dtype))
    low, high = (np.broadcast_to(np.asarray(bound), space.shape) for bound in (space.low, space.high))
    if dtype.kind in "iu":  # which has no infinity
        low, high = (np.clip(bound, np.iinfo(dtype).min, np.iinfo(dtype).max) for bound in (low, high))
    return spaces.Box(low.astype(dtype), high.astype(dtype), tuple(space.shape), dtype.type)


def _observed(space: Any, obs: Any) -> Any:
    """An observation as an element of Gymnasium's space, in arrays that may be written to."""
    if isinstance(space, spaces.Dict):
        return {name: _observed(part, obs[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_observed(part, x) for part, x in zip(space, obs))
    return np.int64(obs) if isinstance(space, spaces.Discrete) else np.array(obs)


def _acted(space: Any, action: Any) -> Any:
    """An action in the form of the compiled step's argument."""
    if isinstance(space, spaces.Box):
        action = np.asarray(action)
        if action.shape == space.shape and action.dtype.kind in "iuf" and not np.isnan(action).any():
            return action.astype(space.dtype)
    elif isinstance(space, spaces.Discrete):
        number = np.asarray(action)
        if number.size == 1 and number.dtype.kind in "iu" and 0 <= number.item() < space.n:
            return np.int32(number.item())
    elif space.contains(action):
        return action
    raise ValueError(f"an action must be of {space}, got {action!r}")


def _is_numbers(x: Any) -> bool:
    """Whether part of an `info` can leave a compiled step."""
    return all(
        isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float) for leaf in jax.tree.leaves(x)
    )
