"""Evaluation: the first episode of each world, until the longest has ended, whatever the time limits of the tasks.

Only the measurements are kept, not the steps, so that memory does not grow with the length of an episode.

Axes in shapes: N episodes, each in a world of its own.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.contract import Played
from jaxrl_envs.goals import is_goal_env
from jaxrl_envs.tasks import from_batch
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import advance, no_time_limit
from jaxrl_hier.engine.types import Agent, EnvParams, NamedArray, Params, Tasks, Transition, World


class Episodes(NamedTuple):
    """Results of the first episodes of N worlds."""

    returns: jax.Array  # [N] float32, undiscounted
    lengths: jax.Array  # [N] float32, steps
    complete: jax.Array  # [N] bool: it ended. False where it was cut because it went on beyond the time limit


def play_first(
    env: Any,
    agent: Agent,
    tasks: Tasks,
    params: Params,
    worlds: World,
    add: Callable[[Any, Transition, jax.Array], Any],
    total: Any,
    *,
    greedy: bool = True,
    horizon: int | None = None,
) -> tuple[Episodes, Any]:
    """Play the first episode of each world [N] to its end, and add up what is measured on the way.

    Args:
        add: total, transitions [N, ...] with the environment's facts, whether they are of the first episodes [N] bool
            -> total with this step.
        horizon: steps after which an episode is cut, if that is earlier; None: the tasks' time limit only.

    Returns:
        The episodes, and the total. An episode is cut where it goes on beyond the longest time limit of the worlds'
        tasks, and then is not `complete`.

    Raises:
        EnvCheckError: the tasks state no time limit.
    """
    played = Played(env)
    if not hasattr(worlds.task, "max_steps_in_episode"):
        raise no_time_limit(played)
    count = worlds.ep_length.shape[0]
    limit = jnp.max(worlds.task.max_steps_in_episode)
    if horizon is not None:
        limit = jnp.minimum(limit, horizon)

    def one(world: World) -> tuple[World, Transition]:
        return advance(played, agent, tasks, params, world, greedy)

    def going_on(carry: Any) -> jax.Array:
        _, episodes, _, t = carry
        return jnp.any(~episodes.complete) & (t < limit)

    def step(carry: Any) -> Any:
        worlds, episodes, total, t = carry
        worlds, transition = jax.vmap(one)(worlds)
        on = ~episodes.complete
        episodes = Episodes(
            returns=episodes.returns + jnp.where(on, transition.reward, 0.0),
            lengths=episodes.lengths + on,
            complete=episodes.complete | transition.terminated | transition.truncated,
        )
        return worlds, episodes, add(total, transition, on), t + 1

    zeros = jnp.zeros(count, jnp.float32)
    nothing = Episodes(zeros, zeros, jnp.zeros(count, bool))
    carry = (worlds, nothing, total, jnp.zeros((), jnp.int32))
    _, episodes, total, _ = jax.lax.while_loop(going_on, step, carry)
    return episodes, total


def present(tasks: Tasks, world: World) -> Tasks:
    """The tasks that an evaluation draws from: `tasks`, and of those that change over a lifetime what they have become
    in the worlds [B] of training."""
    if tasks.test is not None or not callable(tasks.resample):
        return tasks
    return tasks._replace(sample=from_batch(world.task).sample)


def of_worlds(tasks: Tasks, world: World) -> tuple[str, EnvParams]:
    """The name of an axis, and a batch of tasks along it to measure on: those that are held out, or else those of the
    worlds [B]."""
    return ("environment", world.task) if tasks.test is None else ("task", tasks.test)


def play(
    env: Any, agent: Agent, tasks: Tasks, params: Params, key: jax.Array, episodes: int, *, greedy: bool = True
) -> dict[str, NamedArray]:
    """New episodes of held-out tasks, drawn from `tasks.test`, or from `tasks` where it has none.

    Returns:
        "return", "length" and "complete" [episode], and in an environment with goals that reports success also
        "success", in any step, and "success_at_end".
    """
    tasks = tasks if tasks.test is None else from_batch(tasks.test)
    worlds = begin_worlds(env, agent, tasks, params, key, episodes)

    reported: set[str] = set()  # by the environment, of a step; filled while `add` is traced

    def add(so_far: tuple[jax.Array, jax.Array], t: Transition, on: jax.Array) -> Any:
        ever, at_end = so_far
        reported.update(t.facts)
        success = t.facts.get("success", never)
        return ever | (success & on), jnp.where(on, success, at_end)

    never = jnp.zeros(episodes, bool)
    first, (ever, at_end) = play_first(env, agent, tasks, params, worlds, add, (never, never), greedy=greedy)
    measured = as_measurements(first)
    if is_goal_env(env) and "success" in reported:
        measured |= {"success": ever.astype(jnp.float32), "success_at_end": at_end.astype(jnp.float32)}
    return {name: NamedArray(x, ("episode",)) for name, x in measured.items()}


def as_measurements(episodes: Episodes) -> dict[str, jax.Array]:
    """The results of N episodes as measurements [N] of an evaluation, by name."""
    return {"return": episodes.returns, "length": episodes.lengths, "complete": episodes.complete}


def describe(evaluation: dict[str, NamedArray]) -> str:
    """The measured return, or else steps, in one line, averaged over every axis but the adaptation steps; the names of
    the measurements where there is neither."""
    name = next((name for name in ("return", "steps") if name in evaluation), None)
    if name is None:
        return ", ".join(evaluation)
    m = of_seeds_left(evaluation[name])
    other = tuple(i for i, axis in enumerate(m.axes) if axis != "adaptation_step")
    text = f"{name} " + " ".join(f"{x:.2f}" for x in np.atleast_1d(np.mean(m.values, axis=other)))
    cut = cut_share(evaluation)
    return f"{text} ({cut:.0%} of the episodes were cut)" if cut else text


def cut_share(evaluation: dict[str, NamedArray]) -> float:
    """The share of an evaluation's episodes that were cut before they ended, from 0 to 1."""
    return 1 - float(np.mean(of_seeds_left(evaluation["complete"]).values)) if "complete" in evaluation else 0.0


def without(dropped: Collection[int], first: int, evaluation: dict[str, NamedArray]) -> dict[str, NamedArray]:
    """An evaluation, axes ("seed", …), with NaN for the seeds that were dropped. `first`: the first of all seeds."""
    if not dropped:
        return evaluation
    lost = [seed - first for seed in dropped]

    def masked(values: Any) -> Any:
        values = np.array(values, np.result_type(values.dtype, np.float32))
        values[lost] = np.nan
        return values

    return {name: NamedArray(masked(m.values), m.axes) for name, m in evaluation.items()}


def of_seeds_left(measured: NamedArray) -> NamedArray:
    """A measurement, axes ("seed", …), without the seeds that were dropped, all of whose values are NaN."""
    values = np.asarray(measured.values)
    if values.dtype.kind != "f" or measured.axes[:1] != ("seed",):
        return measured
    return NamedArray(values[~np.isnan(values).all(axis=tuple(range(1, values.ndim)))], measured.axes)


def require_measured(name: str, names: Iterable[str]) -> None:
    """Raises UsageError unless the measurement by which the best checkpoint is chosen is one of `names`."""
    if name not in (names := list(names)):
        raise UsageError(f"keep_best must be one of {', '.join(names)}, got {name!r}")


def score(evaluation: dict[str, NamedArray], name: str, lowest: bool = False) -> float:
    """The mean of a measurement after adaptation, by which the best evaluation is chosen; −∞ where it is NaN.

    Args:
        lowest: less is better; the negative of the mean.

    Raises:
        UsageError: the evaluation has no such measurement.
    """
    require_measured(name, evaluation)
    m = of_seeds_left(evaluation[name])
    values = np.take(m.values, -1, m.axes.index("adaptation_step")) if "adaptation_step" in m.axes else m.values
    mean = float(np.mean(values, dtype=np.float64)) if values.size else np.nan
    return -np.inf if np.isnan(mean) else -mean if lowest else mean
