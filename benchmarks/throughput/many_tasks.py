"""From 20 to 100 000 tasks: seconds and memory of one meta-iteration of MAML, RL² and PEARL.

Small networks and short tasks, so that two cores can do it: MAML adapts on 4 trajectories of 10 steps of 2-D navigation
with 2 × 32 ReLU, RL² plays bandits of 10 pulls with a GRU of 32 in minibatches of 200 trials at most, PEARL holds 60
steps of the point robot for each of its training tasks and visits 10 of them. With Adam and with PPO, whose five epochs
play the trajectories again, MAML holds 20 tasks at a time (`microbatch_size`); TRPO keeps the trajectories of all.
Beside these, RL² on random processes with 16 384 trials of 60 steps and a GRU of 64: a million steps.

Memory is that of the compiled program: the state, and what the iteration needs beside it. A program that needs more
than `MOST` is not run. Seconds include the rollouts.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax

import jaxrl_envs
import jaxrl_hier
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.room import size
from jaxrl_hier.engine.types import Algorithm

from ..drawing import BLUE, GREEN, ORANGE, PURPLE, VERMILION, legend_below, subplots
from ._timing import Setup, seconds_each

TASKS = (20, 1000, 10_000, 100_000)
SECONDS = 10.0  # to spend on each number of tasks, at least one iteration after the first
MOST = 4096.0  # MiB


def maml(tasks: int, **settings: Any) -> Algorithm:
    small = {"episodes_per_task": 4, "horizon": 10, "hidden": (32, 32), "fisher_episodes": None}
    return jaxrl_hier.make("maml", meta_batch_size=tasks, **small, **settings)


def rl2(tasks: int) -> Algorithm:
    small = {"memory_size": 32, "minibatch_size": min(tasks, 200), "epochs": 1}
    return jaxrl_hier.make("rl2", "bandit-n10-k5", environments=tasks, **small)


def pearl(tasks: int) -> Algorithm:
    visits = {"tasks_per_iteration": 10, "initial_steps": 20, "prior_steps": 20, "posterior_steps": 40}
    learning = {"updates": 10, "meta_batch_size": 10, "batch_size": 64, "hidden": (32, 32), "encoder_hidden": (32, 32)}
    env, distribution = jaxrl_envs.make("sparse-point-robot")
    drawn = distribution._replace(train=None)  # as many as asked for
    return jaxrl_hier.make("pearl", env, drawn, train_tasks=tasks, capacity=60 * tasks, **visits, **learning)


def long_trials(tasks: int) -> Algorithm:
    small = {"episodes_per_trial": 6, "memory_size": 64, "minibatch_size": 128, "epochs": 1}
    return jaxrl_hier.make("rl2", "tabular-mdp", environments=tasks, **small)


CASES: dict[str, tuple[Callable[[int], Algorithm], tuple[int, ...], str]] = {
    "MAML, Adam in parts": (lambda tasks: maml(tasks, outer="adam", microbatch_size=20), TASKS, BLUE),
    "MAML, PPO in parts": (lambda tasks: maml(tasks, outer="ppo", microbatch_size=20), TASKS, GREEN),
    "MAML, TRPO": (maml, TASKS, ORANGE),
    "RL²": (rl2, TASKS, VERMILION),
    "PEARL": (pearl, TASKS, PURPLE),
    "RL², a million steps": (long_trials, (16_384,), VERMILION),
}


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for name in setup.chosen(CASES, smoke=("RL²",)):
        make, sizes, _ = CASES[name]
        for tasks in sizes[:1] if setup.smoke else sizes:
            yield from measured(name, tasks, make(tasks))


def measured(name: str, tasks: int, algorithm: Algorithm) -> Iterator[dict[str, Any]]:
    """The rows of memory and, where it is run, of time."""
    init = jit(algorithm.init)
    shapes = jax.eval_shape(init, jax.random.key(0))
    step = jit(algorithm.step, donate_argnums=0).lower(shapes).compile()
    state, temporary = size(shapes) / 2**20, step.memory_analysis().temp_size_in_bytes / 2**20
    about: dict[str, Any] = {
        "what": f"{name}, {tasks} tasks",
        "peer": None,
        "theirs": None,
        "ratio": None,
        "aggregate": False,
    }
    about |= {"case": name, "tasks": tasks}
    note = f"{state:.3g} MiB of state among them"
    yield about | {"unit": "MiB", "ours": state + temporary, "note": note}
    if state + temporary > MOST:
        return
    seconds = seconds_each(step, init(jax.random.key(0)), SECONDS)
    note = f"median of {len(seconds)} iterations of {algorithm.env_steps} steps"
    yield about | {"unit": "seconds", "ours": statistics.median(seconds), "note": note}


def draw(rows: list[dict[str, Any]]) -> Any:
    """Seconds and memory against the number of tasks."""
    figure, (panels,) = subplots(1, 2)
    for ax, unit, label in zip(panels, ("seconds", "MiB"), ("seconds of a meta-iteration", "memory of it, MiB")):
        for name in dict.fromkeys(row["case"] for row in rows):
            points = [(row["tasks"], row["ours"]) for row in rows if row["case"] == name and row["unit"] == unit]
            alone = {"ls": "none", "marker": "*", "ms": 10} if len(CASES[name][1]) == 1 else {"marker": "o"}
            if points:
                ax.loglog(*zip(*points), color=CASES[name][2], label=name, **alone)
        ax.set(xlabel="tasks", ylabel=label)
    legend_below(figure, panels)
    return figure
