"""Environments with goals: the contract and its checker. The names are those of gymnasium-robotics.

- An observation is a dict of "observation", "achieved_goal" (the goal that the state achieves) and "desired_goal"; its
  space is a `GoalSpace`. Agents act on the first and the last.
- `env.compute_reward(achieved_goal, desired_goal, params)` is the reward, [] float32, a pure function that can be
  vmapped. `step_env` returns it for the next achieved goal, so that any goal can be substituted later.
- The goal is data, `params.goal`, which `Tasks(..., resample="episode")` redraws; tasks differ in nothing else. Neither
  transitions nor ends of episodes depend on it.
- `info["success"]`, [] bool, optional: whether the goal is achieved after this step. It is recorded as a fact of the
  transition, see `contract.Played.declared_facts`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from jaxrl_envs.boxes import sample
from jaxrl_envs.contract import EnvCheckError, Played, name_of
from jaxrl_envs.tasks import Tasks, replaced

PARTS = ("observation", "achieved_goal", "desired_goal")


class GoalSpace(spaces.Dict):
    """The dict space of an environment with goals. gymnax's own Dict cannot tell whether it contains a dict."""

    def __init__(self, observation: Any, goal: Any):
        super().__init__({"observation": observation, "achieved_goal": goal, "desired_goal": goal})

    def sample(self, key: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(key, self.num_spaces)
        return {name: space.sample(k) for (name, space), k in zip(self.spaces.items(), keys)}

    def contains(self, x: Any) -> jax.Array:
        if set(x) != set(self.spaces):
            return jnp.zeros((), bool)
        return jnp.all(jnp.stack([jnp.all(space.contains(x[name])) for name, space in self.spaces.items()]))


def is_goal_env(env: Any, params: Any = None) -> bool:
    """Whether an environment claims to have goals; `check_goal_env` checks the claim."""
    space = env.observation_space(env.default_params if params is None else params)
    return isinstance(space, spaces.Dict) and set(PARTS) <= set(space.spaces) and hasattr(env, "compute_reward")


def with_goal(params: Any, goal: Any) -> Any:
    """Params, a NamedTuple or dataclass, with another `goal`."""
    return replaced(params, goal=goal)


def check_goal_env(env: Any, tasks: Tasks, *, episodes: int = 4, max_steps: int = 200, seed: int = 0) -> None:
    """Play random episodes and raise `EnvCheckError` with every way in which the contract of goals is broken.

    What goals have in common with all environments is checked by `check_env`.
    """
    problems: list[str] = []

    def expect(holds: Any, problem: str) -> None:
        if not bool(holds) and problem not in problems:
            problems.append(problem)

    if not is_goal_env(env):
        raise EnvCheckError(f"{name_of(env)} has no goals: it needs compute_reward and dicts of {', '.join(PARTS)}")
    played = Played(env)  # by the steps of a wrapper, where it has its own

    @jax.jit
    def step(*arguments: Any) -> tuple[Any, ...]:
        obs, after, reward, terminated, _, info = played.returned_by_step(*arguments)
        return obs, after, reward, terminated, info.get("success") if isinstance(info, Mapping) else None

    reward_of = jax.jit(lambda *x: jnp.asarray(env.compute_reward(*x)))
    if not hasattr(env.default_params, "goal"):
        raise EnvCheckError(f"{name_of(env)} has no params.goal, which the tasks could redraw")
    expect(tasks.resample == "episode", "the tasks do not redraw the goal each episode")
    desired = []
    for episode in range(episodes):
        key = jax.random.fold_in(jax.random.key(seed), episode)
        key, key_task, key_other, key_reset = jax.random.split(key, 4)
        params = tasks.sample(key_task)
        other = tasks.sample(key_other)
        same = jax.tree.map(np.array_equal, with_goal(params, other.goal), other)
        expect(jax.tree.all(same), "tasks differ in more than the goal")
        space = env.observation_space(params)
        obs, state = jax.jit(played.returned_by_reset)(key_reset, params)
        desired.append(np.asarray(obs["desired_goal"]))
        for _ in range(min(max_steps, int(getattr(params, "max_steps_in_episode", max_steps)))):
            key, key_action, key_step = jax.random.split(key, 3)
            action = sample(env.action_space(params), key_action)
            before, goal = state, obs["desired_goal"]
            for name in PARTS:
                found, wanted = jnp.asarray(obs[name]), space.spaces[name]
                if (found.shape, found.dtype) != (tuple(wanted.shape), jnp.dtype(wanted.dtype)):
                    expect(False, f"{name} is {found.dtype}{list(found.shape)}, its space says otherwise: {wanted}")
            obs, state, reward, terminated, success = step(key_step, before, action, params)
            paid = reward_of(obs["achieved_goal"], goal, params)
            expect(
                jnp.shape(paid) == () and paid.dtype == jnp.float32,
                f"compute_reward gives {paid.dtype}{list(paid.shape)} and not a float32 scalar",
            )
            expect(jnp.allclose(paid, reward), "the reward is not compute_reward of the next achieved goal")
            expect(jnp.array_equal(goal, obs["desired_goal"]), "the desired goal changes within an episode")
            if success is not None:
                expect(
                    jnp.shape(success) == () and jnp.result_type(success) == jnp.bool_,
                    "info['success'] is not a boolean scalar",
                )
            elsewhere, _, _, ends, _ = step(key_step, before, action, other)
            for name in ("observation", "achieved_goal"):
                expect(jnp.allclose(obs[name], elsewhere[name]), f"another goal leads to another {name}")
            expect(ends == terminated, "the goal ends the episode")
            if bool(terminated):
                break
    expect(any((goal != desired[0]).any() for goal in desired), f"{episodes} tasks have the same goal")
    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise EnvCheckError(f"{name_of(env)} breaks the contract of goals:\n{listing}")
