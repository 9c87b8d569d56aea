"""Thousands of tasks: seconds and memory of one outer step of MAML, from 20 to 5000 tasks.

2-D navigation at the published size, 20 trajectories × 100 steps for each task before and after adaptation, second
order, Adam. Trajectories are sampled and differentiated ten tasks at a time and the gradient is accumulated, so that
memory stays where it is; beside it, the memory of the program that holds all trajectories at once, which is compiled
and not run. Seconds include the rollouts.
"""

import statistics
from collections.abc import Iterator
from typing import Any

import jax

import jaxrl_envs
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.meta import maml

from ..drawing import BLUE, GREY, subplots
from ._timing import Setup, seconds_each

TASKS = (20, 50, 100, 200, 500, 1000, 2000, 5000)  # per outer step
MICROBATCH = 10  # tasks at a time; divides each of them
SECONDS = 15.0  # to spend on each number of tasks, at least one step after the first


def compiled(tasks: int, microbatch: int | None) -> tuple[Any, Any, int, float]:
    """An iteration, how to begin, its environment steps, and its temporary memory in MiB."""
    env, distribution = jaxrl_envs.make("navigation2d")
    config = maml.Config(meta_batch_size=tasks, microbatch_size=microbatch, outer="adam")
    algorithm = maml.make(config, env, distribution)
    init = jit(algorithm.init)
    state = jax.eval_shape(init, jax.random.key(0))
    step = jit(algorithm.step, donate_argnums=0).lower(state).compile()
    return step, init, algorithm.env_steps, step.memory_analysis().temp_size_in_bytes / 2**20


def row(tasks: int) -> dict[str, Any]:
    """Time and memory of an outer step over so many tasks."""
    step, init, env_steps, bounded = compiled(tasks, MICROBATCH)
    seconds = seconds_each(step, init(jax.random.key(0)), SECONDS)
    median = statistics.median(seconds)
    return {
        "what": f"MAML, an outer step over {tasks} tasks, {MICROBATCH} at a time",
        "unit": "seconds",
        "ours": median,
        "peer": None,
        "theirs": None,
        "ratio": None,
        "aggregate": False,
        "note": f"median of {len(seconds)} steps",
        "tasks": tasks,
        "env_steps_per_second": env_steps / median,
        "temporary_mib": bounded,
        "temporary_mib_all_at_once": compiled(tasks, None)[3],
    }


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for tasks in TASKS[:1] if setup.smoke else TASKS:
        yield row(tasks)


def draw(rows: list[dict[str, Any]]) -> Any:
    """Seconds, and memory with and without microbatches, against the number of tasks."""
    column = lambda name: [row[name] for row in rows]
    figure, ((left, right),) = subplots(1, 2)
    left.loglog(column("tasks"), column("ours"), "o-", color=BLUE)
    left.set(title="time", ylabel="seconds per outer step, rollouts included")
    right.loglog(column("tasks"), column("temporary_mib"), "o-", color=BLUE, label="in microbatches")
    right.loglog(column("tasks"), column("temporary_mib_all_at_once"), "s--", color=GREY, label="all tasks at once")
    right.set(title="memory", ylabel="temporary memory, MiB")
    right.legend()
    for ax in (left, right):
        ax.set_xlabel("tasks per outer step")
    return figure
