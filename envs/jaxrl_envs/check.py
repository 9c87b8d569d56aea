"""A conformance checker: tests what the engine relies on, for any environment of the gymnax 1.x contract."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs import boxes
from jaxrl_envs.contract import EnvCheckError, Played, describe, is_key, name_of, on_host
from jaxrl_envs.tasks import Tasks, as_arrays, replaced, require_batches

EAGER_STEPS = 3  # first steps of an episode that are also taken without jit, as is the last


def check_env(env: Any, tasks: Tasks | None = None, *, episodes: int = 4, max_steps: int = 2000, seed: int = 0) -> None:
    """Play random episodes and raise `EnvCheckError` with everything that is wrong; return None when all is well.

    Checked: observations and actions lie in their spaces with shape and dtype; reward is a float scalar, `terminated`
    and `truncated` are boolean scalars, without jit too; nothing is NaN; the state keeps its structure, shapes and
    dtypes; the same key gives the same reset and step; jit changes nothing; a vmap over states and tasks equals the
    loop; the successor at an episode's end is the true one, also in gymnax's auto-resetting `step`; `is_truncated`
    holds at the time limit and nowhere else, and `step_env` does not terminate there, unless `finite_horizon` is True;
    a task can be stacked and vmapped; its dtypes can hold the task that follows it, and those of `train` and `test`.

    The engine is more tolerant than this check (`jaxrl_envs.contract`): it converts what can be converted without loss.

    Args:
        env: the environment.
        tasks: its task distribution; None: `env.default_params` is the one task.
        episodes: tasks to draw, one random episode each.
        max_steps: stop an episode here when nothing else ends it.
        seed: of everything random in the check.

    Raises:
        EnvCheckError: see above.
        ValueError: an environment of Gymnasium, whose steps are no functions of a state.
    """
    if on_host(env):
        raise ValueError(
            f"{name_of(env)} is an environment of Gymnasium, whose steps are no functions of a state; examine it by "
            "gymnasium.utils.env_checker.check_env"
        )
    if found := problems(env, tasks, episodes=episodes, max_steps=max_steps, seed=seed):
        listing = "\n".join(f"  - {problem}" for problem in found)
        raise EnvCheckError(f"{name_of(env)} breaks the environment contract:\n{listing}")


def problems(
    env: Any, tasks: Tasks | None = None, *, episodes: int = 4, max_steps: int = 2000, seed: int = 0
) -> list[str]:
    """The violations that `check_env` reports, a line each."""
    found = Found([])
    sample = tasks.sample if tasks is not None else lambda key: env.default_params
    try:
        require_batches(tasks)
    except ValueError as error:
        return [str(error)]
    try:
        check = _Check(Played(env), found)
        for episode in range(episodes):
            check.episode(sample, jax.random.fold_in(jax.random.key(seed), episode), max_steps)
        check.vmapped()
        if tasks is not None:
            tasks.in_one_dtype()
            jax.eval_shape(lambda key: tasks.following(key, as_arrays(tasks.sample(key))), jax.random.key(seed))
    except EnvCheckError as error:
        found.expect(False, _without_name(error, env))
    except Exception as error:
        found.expect(False, _said_by_the_engine(env, sample) or f"a random episode cannot be played: {_name(error)}")
    return found.lines


def _said_by_the_engine(env: Any, sample: Callable[[jax.Array], Any]) -> str:
    """The engine's error in a first step; "" if there is none."""

    def first_step(key: jax.Array) -> Any:
        played, task = Played(env), sample(key)
        _, state = played.reset(key, task)
        return played.step(key, state, boxes.sample(played.action_space(task), key), task).state

    try:
        jax.eval_shape(first_step, jax.random.key(0))
    except EnvCheckError as error:
        return _without_name(error, env)
    except Exception as error:
        return f"a first step cannot be traced: {_name(error)}"
    return ""


def _without_name(error: EnvCheckError, env: Any) -> str:
    return str(error).splitlines()[0].removeprefix(f"{name_of(env)} breaks the environment contract: ")


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


class Found:
    """The problems so far, each said once."""

    def __init__(self, lines: list[str]):
        self.lines = lines

    def expect(self, holds: Any, problem: str) -> None:
        if not bool(holds) and problem not in self.lines:
            self.lines.append(problem)


class _Check:
    """Random episodes of one environment, and what is wrong in them."""

    def __init__(self, played: Played, found: Found):
        self.played, self.expect = played, found.expect
        self.step = jax.jit(lambda *arguments: played.returned_by_step(*arguments)[:5])  # info may hold anything
        self.next_state = jax.jit(lambda *arguments: played.step(*arguments).state)  # converted, as the engine has it
        self.reset = jax.jit(played.returned_by_reset)
        self.first_steps: list[tuple[Any, ...]] = []  # key, state, action, task, and what the step gave, per episode

    def episode(self, sample: Callable[[jax.Array], Any], key: jax.Array, max_steps: int) -> None:
        key, key_task, key_reset = jax.random.split(key, 3)
        task = sample(key_task)
        self.expect(
            _signature(task) == _signature(sample(key)), "two tasks differ in shape or dtype, so they do not stack"
        )
        limit = getattr(task, "max_steps_in_episode", None)
        self.expect(limit is not None, "the params state no time limit, max_steps_in_episode")
        state = self.start(key_reset, task)
        for t in range(1, max_steps + 1):
            key, key_action, key_step = jax.random.split(key, 3)
            action = boxes.sample(self.played.action_space(task), key_action)
            self.fits("a sampled action", action, self.played.action_space(task))
            before, arguments = state, (key_step, state, action, task)
            returned = self.step(*arguments)
            obs, after, reward, terminated, truncated = returned
            self.fits("observation after a step", obs, self.played.observation_space(task))
            self.scalars(reward, terminated, truncated)
            self.expect(_finite((obs, after, reward)), "NaN or infinity in observation, state or reward")
            kept = _signature(before) == _signature(after)
            self.expect(kept, f"a step changes the state's shapes or dtypes: {_difference(before, after)}")
            if limit is not None:
                self.time_limit(bool(truncated), t, int(limit))
            if limit is not None and t == 1:
                self.no_end_by_time(arguments, bool(terminated))
            over = bool(terminated) or bool(truncated)
            if t <= EAGER_STEPS or over:
                self.without_jit(arguments, returned)
            if t == 1:
                self.expect(_equal(returned, self.step(*arguments)), "the same key gives two different steps")
                self.first_steps.append((*arguments, returned))
            if over:
                self.expect(not _is_first(after), "the state at an episode's end is that of the next one: do not reset")
                self.automatic_reset(*arguments)
                return
            state = self.next_state(*arguments)
        self.expect(limit is not None and int(limit) > max_steps, f"no episode ended within {max_steps} steps")

    def start(self, key: jax.Array, task: Any) -> Any:
        """The state after a reset."""
        obs, state = self.reset(key, task)
        self.fits("observation at reset", obs, self.played.observation_space(task))
        self.expect(_equal((obs, state), self.reset(key, task)), "the same key gives two different resets")
        eager = self.played.returned_by_reset(key, task)
        self.expect(_close((obs, state), eager), "reset_env differs under jit")
        if not self.played.stepped_by_wrapper:
            self.expect(not self.played.is_truncated(state, task), "is_truncated holds right after a reset")
        return self.played.reset(key, task)[1]

    def scalars(self, reward: Any, terminated: Any, truncated: Any) -> None:
        floating = jnp.shape(reward) == () and jnp.issubdtype(jnp.result_type(reward), jnp.floating)
        self.expect(floating, f"the reward is not a float scalar but {describe(reward)}")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            boolean = jnp.shape(flag) == () and jnp.result_type(flag) == jnp.bool_
            self.expect(boolean, f"{name} is not a boolean scalar but {describe(flag)}")

    def time_limit(self, truncated: bool, t: int, limit: int) -> None:
        if self.played.stepped_by_wrapper:  # which may have a shorter one
            self.expect(truncated or t < limit, f"truncated is False after {t} steps, the time limit is {limit}")
        else:
            said = f"is_truncated is {truncated} after {t} steps, the time limit is {limit}"
            self.expect(truncated == (t >= limit), said)

    def no_end_by_time(self, arguments: tuple[Any, ...], terminated: bool) -> None:
        """A first step that reaches the time limit terminates no more than one that does not, unless time is part of
        the task."""
        if getattr(self.played, "finite_horizon", False):
            return
        *before, task = arguments
        short = replaced(task, max_steps_in_episode=jnp.ones_like(task.max_steps_in_episode))
        _, _, _, then, _ = self.step(*before, short)
        self.expect(
            bool(then) == terminated,
            "step_env terminates at the time limit, max_steps_in_episode, so that the state there is worth 0: leave "
            "that to is_truncated, or set finite_horizon = True if the task itself ends then",
        )

    def without_jit(self, arguments: tuple[Any, ...], compiled: tuple[Any, ...]) -> None:
        """The same step without jit, where Python's own values are seen."""
        eager = self.played.returned_by_step(*arguments)[:5]
        self.expect(_close(compiled, eager), "step_env differs under jit")
        for name, flag in zip(("terminated", "truncated"), eager[3:]):
            python = isinstance(flag, bool | int | float) and not isinstance(flag, np.generic)
            self.expect(
                not python, f"{name} is Python's {flag!r} without jit, of which ~ makes a number: return an array"
            )

    def automatic_reset(self, key: jax.Array, state: Any, action: Any, task: Any) -> None:
        """gymnax's `step` at an episode's end, where the environment's own class has one."""
        if self.played.stepped_by_wrapper or not any("step" in vars(kind) for kind in type(self.played.env).__mro__):
            return
        # gymnax splits the key once before it steps; a `step` of the environment's own may not
        successors = [self.step(k, state, action, task)[0] for k in (jax.random.split(key)[0], key)]
        try:
            final = self.played.env.step(key, state, action, task)[5]["final_observation"]
        except Exception as error:
            self.expect(False, f"env.step, which resets by itself, fails: {_first_line(error)}")
        else:
            kept = any(_close(final, successor) for successor in successors)
            self.expect(kept, "env.step loses the true successor at an episode's end (info['final_observation'])")

    def vmapped(self) -> None:
        """First steps of all episodes at once, over states and tasks."""
        *arguments, seen = zip(*self.first_steps)
        try:
            stacked = [jax.tree.map(lambda *x: jnp.stack(x), *column) for column in arguments]
            batched = jax.vmap(lambda *x: self.played.returned_by_step(*x)[:5])(*stacked)
        except Exception as error:
            self.expect(False, f"step_env cannot be vmapped over states and tasks: {_first_line(error)}")
        else:
            loop = jax.tree.map(lambda *x: jnp.stack(x), *seen)
            self.expect(_close(batched, loop), "a vmapped step differs from the loop")

    def fits(self, what: str, value: Any, space: Any) -> None:
        for problem in _misfits(what, value, space):
            self.expect(False, problem)


def _is_first(state: Any) -> bool:
    """Whether a state counts its `time`, and none of it is over."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    times = [x for path, x in leaves if path and getattr(path[-1], "name", None) == "time" and jnp.shape(x) == ()]
    return bool(times) and not any(bool(x > 0) for x in times)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _signature(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(x), jnp.result_type(x)) for x in leaves]


def _difference(old: Any, new: Any) -> str:
    pairs = zip(jax.tree_util.tree_leaves_with_path(old), jax.tree_util.tree_leaves_with_path(new))
    changed = [
        f"{jax.tree_util.keystr(path)} {describe(a)} -> {describe(b)}"
        for (path, a), (_, b) in pairs
        if describe(a) != describe(b)
    ]
    return ", ".join(changed) or "its tree structure"


def _misfits(what: str, value: Any, space: Any) -> list[str]:
    """Ways in which `value` is no element of `space`, part by part where they are dicts; a space of other parts is
    checked by its `contains` alone."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping) and isinstance(value, Mapping):
        if value.keys() != parts.keys():
            return [f"{what} is a dict of {', '.join(value)}, its space one of {', '.join(parts)}"]
        return [line for name in parts for line in _misfits(f"{what}[{name!r}]", value[name], parts[name])]
    if hasattr(space, "shape") and hasattr(space, "dtype"):
        wrong = []
        if jnp.shape(value) != tuple(space.shape):
            wrong.append(f"{what} has shape {list(jnp.shape(value))}, its space says {list(space.shape)}")
        wanted = jax.dtypes.canonicalize_dtype(space.dtype)  # float64 is float32 to JAX without x64
        if jnp.result_type(value) != wanted:
            wrong.append(f"{what} is {jnp.result_type(value)}, its space says {wanted}")
        if wrong:
            return wrong
    return [] if bool(jnp.all(space.contains(value))) else [f"{what} lies outside its space"]


def _finite(tree: Any) -> bool:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return all(bool(jnp.all(jnp.isfinite(x))) for x in floats)


def _equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(_numbers(a), _numbers(b)))


def _close(a: Any, b: Any) -> bool:
    a, b = _numbers(a), _numbers(b)
    pairs = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in zip(a, b)]
    return len(a) == len(b) and all(np.allclose(x, y, rtol=1e-5, atol=1e-5) for x, y in pairs)


def _numbers(tree: Any) -> list[Any]:
    """The leaves, with the numbers of JAX's typed keys."""
    return [jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(tree)]
