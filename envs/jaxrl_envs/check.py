"""A conformance checker: what the engine relies on, tried on any environment of the gymnax 1.x contract."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.tasks import Tasks


class EnvCheckError(ValueError):
    """The environment breaks the contract; the message lists every way in which it does."""


def check_env(env: Any, tasks: Tasks | None = None, *, episodes: int = 4, max_steps: int = 2000, seed: int = 0) -> None:
    """Play random episodes and raise `EnvCheckError` with everything that is wrong; return None when all is well.

    Checked: observations and actions lie in their spaces with shape and dtype; reward is a float scalar, `terminated`
    and `truncated` are boolean scalars; nothing is NaN; the state keeps its structure, shapes and dtypes; the same key
    gives the same reset and step; jit changes nothing; a vmap over states and tasks equals the loop; the successor at
    an episode's end is the true one in gymnax's auto-resetting `step`; `is_truncated` holds at the time limit and
    nowhere else; a task can be stacked and vmapped.

    Args:
        env: the environment.
        tasks: its task distribution; None: `env.default_params` is the one task.
        episodes: tasks to draw, one random episode each.
        max_steps: stop an episode here when nothing else ends it.
        seed: of everything random in the check.
    """
    problems: list[str] = []

    def expect(holds: Any, problem: str) -> None:
        if not bool(holds) and problem not in problems:
            problems.append(problem)

    sample = tasks.sample if tasks is not None else lambda key: env.default_params
    reset, step, truncated_at = jax.jit(env.reset_env), jax.jit(env.step_env), jax.jit(env.is_truncated)
    params_list, firsts, seconds = [], [], []

    for episode in range(episodes):
        key = jax.random.fold_in(jax.random.key(seed), episode)
        key, key_task, key_reset = jax.random.split(key, 3)
        params = sample(key_task)
        observation_space, action_space = env.observation_space(params), env.action_space(params)
        obs, state = reset(key_reset, params)
        expect(_equal((obs, state), reset(key_reset, params)), "the same key gives two different resets")
        expect(_close((obs, state), env.reset_env(key_reset, params)), "reset_env differs under jit")
        expect(
            _signature(params) == _signature(sample(key)), "two tasks differ in shape or dtype, so they do not stack"
        )
        for problem in _misfits("observation at reset", obs, observation_space):
            expect(False, problem)
        expect(not truncated_at(state, params), "is_truncated holds right after a reset")

        limit = getattr(params, "max_steps_in_episode", None)
        for t in range(1, max_steps + 1):
            key, key_action, key_step = jax.random.split(key, 3)
            action = action_space.sample(key_action)
            for problem in _misfits("a sampled action", action, action_space):
                expect(False, problem)
            before = state
            obs, state, reward, terminated, _ = step(key_step, before, action, params)
            truncated = truncated_at(state, params)
            for problem in _misfits("observation after a step", obs, observation_space):
                expect(False, problem)
            expect(
                jnp.shape(reward) == () and jnp.issubdtype(jnp.result_type(reward), jnp.floating),
                f"the reward is not a float scalar but {_describe(reward)}",
            )
            for name, flag in (("terminated", terminated), ("truncated", truncated)):
                expect(
                    jnp.shape(flag) == () and jnp.result_type(flag) == jnp.bool_,
                    f"{name} is not a boolean scalar but {_describe(flag)}",
                )
            expect(
                _signature(before) == _signature(state),
                f"a step changes the state's shapes or dtypes: {_difference(before, state)}",
            )
            expect(_finite((obs, state, reward)), "NaN or infinity in observation, state or reward")
            if limit is not None:
                expect(
                    bool(truncated) == (t >= int(limit)),
                    f"is_truncated is {bool(truncated)} after {t} steps, the time limit is {int(limit)}",
                )
            if t == 1:
                again = step(key_step, before, action, params)[:4]
                eager = env.step_env(key_step, before, action, params)[:4]
                expect(_equal((obs, state, reward, terminated), again), "the same key gives two different steps")
                expect(_close((obs, state, reward, terminated), eager), "step_env differs under jit")
                params_list.append(params)
                firsts.append((key_step, before, action))
                seconds.append((obs, state, reward, terminated))
            if bool(terminated) or bool(truncated):
                # gymnax splits the key once before it steps; a `step` of the environment's own may not
                keys = (jax.random.split(key_step)[0], key_step)
                successors = [step(key, before, action, params)[0] for key in keys]
                try:
                    final = env.step(key_step, before, action, params)[5]["final_observation"]
                except Exception as error:
                    expect(False, f"env.step, which resets by itself, fails: {str(error).splitlines()[0]}")
                else:
                    kept = any(_close(final, successor) for successor in successors)
                    expect(kept, "env.step loses the true successor at an episode's end (info['final_observation'])")
                break
        else:
            expect(limit is not None and int(limit) > max_steps, f"no episode ended within {max_steps} steps")

    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
    try:
        keys, states, actions = (stack(column) for column in zip(*firsts))
        batched = jax.vmap(env.step_env)(keys, states, actions, stack(params_list))[:4]
    except Exception as error:
        expect(False, f"step_env cannot be vmapped over states and tasks: {str(error).splitlines()[0]}")
    else:
        expect(_close(batched, stack(seconds)), "a vmapped step differs from the loop")

    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise EnvCheckError(f"{env.name} breaks the environment contract:\n{listing}")


def _signature(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(x), jnp.result_type(x)) for x in leaves]


def _difference(old: Any, new: Any) -> str:
    pairs = zip(jax.tree_util.tree_leaves_with_path(old), jax.tree_util.tree_leaves_with_path(new))
    changed = [
        f"{jax.tree_util.keystr(path)} {_describe(a)} -> {_describe(b)}"
        for (path, a), (_, b) in pairs
        if _describe(a) != _describe(b)
    ]
    return ", ".join(changed) or "its tree structure"


def _describe(x: Any) -> str:
    return f"{jnp.result_type(x)}{list(jnp.shape(x))}"


def _misfits(what: str, value: Any, space: Any) -> list[str]:
    """Ways in which `value` is no element of `space`; spaces of several parts are checked by `contains` alone."""
    if hasattr(space, "shape") and hasattr(space, "dtype"):
        wrong = []
        if jnp.shape(value) != tuple(space.shape):
            wrong.append(f"{what} has shape {list(jnp.shape(value))}, its space says {list(space.shape)}")
        if jnp.result_type(value) != jnp.dtype(space.dtype):
            wrong.append(f"{what} is {jnp.result_type(value)}, its space says {jnp.dtype(space.dtype)}")
        if wrong:
            return wrong
    return [] if bool(jnp.all(space.contains(value))) else [f"{what} lies outside its space"]


def _finite(tree: Any) -> bool:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return all(bool(jnp.all(jnp.isfinite(x))) for x in floats)


def _equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def _close(a: Any, b: Any) -> bool:
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    pairs = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in zip(a, b)]
    return len(a) == len(b) and all(np.allclose(x, y, rtol=1e-5, atol=1e-5) for x, y in pairs)
