"""Memories of RL²: GRU, LSTM, linear recurrence, S5 and attention, at equal parameters.

- Recall, without reinforcement learning: the two walks along a T-maze's corridor of 100 differ in the sign that is seen
  in the first step. How many updates (Adam, 2e-3, both walks in each) does a memory need until a linear read-out tells
  them apart 101 steps later? Success is the probability of the right answer, ½ without memory. Computing time is that
  of all threads of the process for ten seeds side by side, without compilation.
- The same T-maze (`jaxrl_envs.memory_tasks.TMaze`, guided), learned by PPO from rollouts of four times the way.
  Episodes begin anywhere in a rollout, and no gradient crosses its ends: hardly any rollout as long as the way held a
  sign and the choice that depends on it, and no memory got beyond .55. With λ = .3 some seeds never walked: a step pays
  .01, less than what untrained values differ by. Success is the share of 50 episodes that end at the prize, actions
  drawn.
- Three of RL²'s tasks (Duan et al., 2016) with a small budget: 10 pulls of 5 arms, random processes of 5 episodes, and
  two episodes in a small maze; what counts is the return of a trial.
- What an iteration of each costs: computing time of all threads of the process, after compilation. With it returns are
  also compared at equal time, which is what all iterations of the fastest memory take; between two evaluations they are
  interpolated.

All memories have as many parameters as a GRU of 64 for the T-maze's 12 inputs, within 3 %, and the same settings. One
memory serves policy and value.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.memory_tasks import TMaze
from jaxrl_envs.tasks import single
from jaxrl_envs.trial import Trial
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.exact.bandits import independent_value
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.learning.recurrent import memory as memory_of

from ..drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, curve, subplots
from ..figure import Computation, Figure, Found, Measured, Scale, Training
from ..results import Row

SIZES = {"gru": 64, "lstm": 55, "linear": 38, "s5": 48, "attention": 20, "none": 64}
NAMES = {
    "gru": "GRU",
    "lstm": "LSTM",
    "linear": "linear recurrence",
    "s5": "S5",
    "attention": "attention",
    "none": "no memory",
}
COLOURS = {"gru": BLUE, "lstm": ORANGE, "linear": GREEN, "s5": VERMILION, "attention": PURPLE, "none": GREY}
CORRIDOR = 100
T_MAZE = f"T-maze, corridor of {CORRIDOR}"
T_MAZE_ITERATIONS = 300
RECALL = f"recall after {CORRIDOR + 1} steps"
UPDATES, EVERY = 300, 10  # of a recall, and between two measurements
RATE = 2e-3  # of Adam
COST = "cost: "  # of a part
TIMED = 5  # iterations whose cost is measured
ENOUGH = 0.95  # success
RIGHT = 3


class Task(NamedTuple):
    """What is trained on, and for how long."""

    env: str | None  # None: the T-maze
    iterations: int
    settings: dict[str, Any]
    exact: float | None = None  # return of optimal play


PPO: dict[str, Any] = {
    "separate_critic": False,
    "environments": 16,
    "minibatch_size": 4,
    "epochs": 4,
    "gae_lambda": 0.3,
    "value_scale": 0.2,
    "clip": 0.2,
    "learning_rate": 2e-3,
    "max_grad_norm": 0.5,
    "entropy_weight": 0.01,
    "eval_tasks": 50,
}
SHORT = PPO | {"environments": 128, "minibatch_size": 32}
TASKS = {
    T_MAZE: Task(
        None,
        T_MAZE_ITERATIONS,
        PPO
        | {"rollout_length": 4 * (CORRIDOR + 2), "memory_window": CORRIDOR + 2}
        | {"environments": 32, "minibatch_size": 8, "learning_rate": 1e-3, "gae_lambda": 0.95}
        | {"entropy_weight": 0.05, "entropy_decay_iterations": T_MAZE_ITERATIONS}
        | linear_over(T_MAZE_ITERATIONS),
    ),
    "bandit, 5 arms, 10 pulls": Task("bandit-n10-k5", 200, SHORT | {"eval_tasks": 1000}, independent_value(5, 10)),
    "processes, 5 episodes": Task("tabular-mdp", 200, SHORT | {"episodes_per_trial": 5, "eval_tasks": 500}),
    "small maze, 2 episodes": Task("maze-small", 200, SHORT | {"episodes_per_trial": 2, "eval_tasks": 500}),
}


def t_maze(corridor: int) -> tuple[TMaze, Any]:
    """The maze, and its one task, with time for twice the way."""
    env = TMaze(corridor, "vector", guided=True)
    return env, single(env.default_params.replace(max_steps_in_episode=2 * (corridor + 2)))


def training(task: Task, memory: str, scale: Scale) -> Training:
    """One memory on one task."""
    smoke = scale == "smoke"
    settings = task.settings | {"memory": memory, "memory_size": SIZES[memory]}
    small = {"memory_size": 4, "environments": 4, "minibatch_size": 4, "eval_tasks": 4, "rollout_length": 24}
    settings |= small if smoke else {}
    env, tasks = t_maze(4 if smoke else CORRIDOR) if task.env is None else jaxrl_envs.make(task.env)
    about: dict[str, Any] = {"curves": ("trial_return",), "final": ("trial_return",), "points": 2 if smoke else 10}
    return Training("rl2", settings, 2 if smoke else task.iterations, env, tasks, from_start=not smoke, **about)


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    memories = ("gru", "attention") if smoke else tuple(SIZES)
    tasks = {T_MAZE: TASKS[T_MAZE]} if smoke else TASKS
    about = {"corridor": 4, "updates": 20} if smoke else {"corridor": CORRIDOR, "updates": UPDATES}
    recalls = {f"{RECALL}: {m}": Computation(recalled, {"memory": m} | about, shared=SHARED) for m in memories}
    trainings = {f"{name}: {m}": training(task, m, scale) for name, task in tasks.items() for m in memories}
    few = {"iterations": 1 if smoke else TIMED, "scale": scale}
    costs = {
        f"{COST}{name}: {m}": Computation(cost, {"task": name, "memory": m} | few, seeds=0)
        for name in tasks
        for m in memories
    }
    return recalls | trainings | costs


def cost(task: str, memory: str, iterations: int, scale: Scale) -> dict[str, np.ndarray]:
    """Seconds of computing for an iteration of one seed, []."""
    of = training(TASKS[task], memory, scale)
    algorithm = jaxrl_hier.make(of.algorithm, of.env, of.tasks, **of.settings)
    state = jit(algorithm.init)(jax.random.key(0))
    program = jit(lambda state: algorithm.step(state)[0]).lower(state).compile()
    state = jax.block_until_ready(program(state))
    begun = time.process_time()
    for _ in range(iterations):
        state = jax.block_until_ready(program(state))
    return {"seconds": np.array((time.process_time() - begun) / iterations)}


# Recall

SHARED = ("updates", "parameters", "seconds")


def recalled(seeds: Sequence[int], memory: str, corridor: int, updates: int) -> dict[str, np.ndarray]:
    """The probability of the right answer every EVERY updates, [seeds, points], from before the first; the updates
    [points]; the memory's parameters; seconds of computing for an update of all seeds."""
    x = walks(corridor)
    length, _, features = x.shape
    m = memory_of(memory, SIZES[memory], window=length)
    first = jnp.zeros((length, 2), bool).at[0].set(True)
    optimizer = optax.adam(RATE)

    def right(params: Any) -> jax.Array:
        carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape)), m.start())
        _, y = m.unroll(params["memory"], carry, x, first)
        return jnp.diagonal(jax.nn.log_softmax(y[-1] @ params["read"]))  # [2], logarithms

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key)
        read = jax.nn.initializers.xavier_uniform()(keys[1], (SIZES[memory], 2))
        params = {"memory": m.init(keys[0], features), "read": read}
        return params, optimizer.init(params)

    def update(state: Any, _: None) -> tuple[Any, None]:
        params, moments = state
        step, moments = optimizer.update(jax.grad(lambda p: -jnp.mean(right(p)))(params), moments)
        return (optax.apply_updates(params, step), moments), None

    state = jit(jax.vmap(init))(jnp.stack([jax.random.key(seed) for seed in seeds]))
    learn = jax.vmap(lambda state: jax.lax.scan(update, state, length=EVERY)[0])
    program = jit(learn).lower(state).compile()
    measure = jit(jax.vmap(lambda state: jnp.mean(jnp.exp(right(state[0])))))
    found, taken = [jax.device_get(measure(state))], 0.0
    for _ in range(updates // EVERY):
        begun = time.process_time()
        state = jax.block_until_ready(program(state))
        taken += time.process_time() - begun
        found.append(jax.device_get(measure(state)))
    count = sum(x[0].size for x in jax.tree.leaves(state[0]["memory"]))
    return {
        "success": np.stack(found, axis=1),
        "updates": EVERY * np.arange(len(found)),
        "parameters": np.array(count),
        "seconds": np.array(taken / (EVERY * (len(found) - 1))),
    }


def walks(corridor: int) -> jax.Array:
    """What RL² is shown on the straight way to the junction, with the sign above and below, [T, 2, F]."""
    env, tasks = t_maze(corridor)
    trial = Trial(env)
    task = trial.params_of(tasks.sample(jax.random.key(0)))
    begun = jax.vmap(trial.reset_env, (0, None))(jax.random.split(jax.random.key(0), 64), task)
    chosen = jnp.array([jnp.argmax(begun[1].inner.prize == prize) for prize in (0, 1)])
    obs, state = jax.tree.map(lambda x: x[chosen], begun)

    def step(state: Any, _: None) -> tuple[Any, jax.Array]:
        stepped: Any = jax.vmap(lambda state: trial.step_env(jax.random.key(0), state, jnp.int32(RIGHT), task))(state)
        return stepped[1], stepped[0]

    return jnp.concatenate([obs[None], jax.lax.scan(step, state, length=corridor + 1)[1]])


# Rows


def trained(found: Found, task: str) -> dict[str, Measured]:
    """What has been measured on a task, by memory."""
    return {name.rpartition(": ")[2]: x for name, x in found.items() if name.startswith(f"{task}: ")}


def success(returns: Any) -> Any:
    """The share of guided episodes that end at the prize, from their mean return, for those that reach an arm."""
    return np.clip(np.asarray(returns) - 1, 0, 1)


def rows(found: Found) -> list[Row]:
    made = [row for memory, measured in trained(found, RECALL).items() for row in recall_rows(memory, measured)]
    for memory, measured in trained(found, T_MAZE).items():
        reached = (measured["final trial_return"] > 1.5).mean(axis=1)
        row = Row.measured(f"{T_MAZE}, {NAMES[memory]}: success", reached, statistic="mean inside", bounds=(0.0, 1.0))
        made.append(row if memory == "none" else row.judged(f"at least {ENOUGH}"))
        steps = until_enough(success(measured["trial_return"]), measured["env_steps"])
        if np.isfinite(steps).all():
            made.append(Row.measured(f"{T_MAZE}, {NAMES[memory]}: thousand steps until {ENOUGH}", steps / 1e3))
    for name, task in TASKS.items():
        if name != T_MAZE:
            for memory, measured in trained(found, name).items():
                label = f"{name}, {NAMES[memory]}: return of a trial"
                made.append(Row.measured(label, measured["trial_return"][:, -1], exact=task.exact))
        made += equal_time_rows(found, name)
    return made


def seconds_of(found: Found, task: str) -> dict[str, float]:
    """Seconds of computing for an iteration of a task, by memory, where that and the training are there."""
    there = trained(found, task)
    return {m: float(x["seconds"]) for m, x in trained(found, COST + task).items() if m in there}


def equal_time_rows(found: Found, task: str) -> list[Row]:
    """What an iteration costs, and what each memory has learned when the fastest has finished."""
    made, cost, there = [], seconds_of(found, task), trained(found, task)
    fastest = min((x for memory, x in cost.items() if memory != "none"), default=0.0)
    for memory, seconds in cost.items():
        label, method = f"{task}, {NAMES[memory]}: milliseconds of an iteration", "computing time"
        made.append(Row.computed(label, 1e3 * seconds, method=method))
        if memory != "none":
            values, x = there[memory]["trial_return"], there[memory]["env_steps"]
            values = success(values) if task == T_MAZE else values
            at = [np.interp(x[-1] * fastest / seconds, x, of_seed) for of_seed in values]
            what = "success" if task == T_MAZE else "return of a trial"
            made.append(Row.measured(f"{task}, {NAMES[memory]}: {what} at equal time", np.array(at)))
    return made


def recall_rows(memory: str, measured: Measured) -> list[Row]:
    name, values = f"{RECALL}, {NAMES[memory]}", measured["success"]
    last = int(measured["updates"][-1])
    inside: dict[str, Any] = {"statistic": "mean inside", "bounds": (0.0, 1.0)}
    row = Row.measured(f"{name}: success after {last} updates", values[:, -1], **inside)
    needed = until_enough(values, measured["updates"])
    found = [row if memory == "none" else row.judged(f"at least {ENOUGH}")]
    if np.isfinite(needed).all():
        found.append(Row.measured(f"{name}: updates until {ENOUGH}", needed))
    found.append(
        Row.computed(f"{name}: milliseconds of an update", 1e3 * float(measured["seconds"]), method="computing time")
    )
    return [*found, Row.computed(f"{name}: parameters", int(measured["parameters"]))]


def until_enough(success: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The x [points] at the first point with ENOUGH success [seeds, points], [seeds]; infinite where there is none."""
    enough = success >= ENOUGH
    return np.where(enough.any(axis=1), x[enough.argmax(axis=1)], np.inf)


# Pictures


def look(memory: str) -> dict[str, Any]:
    return {"color": COLOURS[memory], "label": NAMES[memory], "lw": 1.8}


def draw(found: Found) -> dict[str, Any]:
    """Recall over updates and over computing time; then what PPO has learned on each task over its steps."""
    recalls, tasks = trained(found, RECALL), [name for name in TASKS if trained(found, name)]
    figure, axes = subplots(2, 3)
    left, right, *rest = axes.ravel()
    for memory, measured in reversed(recalls.items()):
        updates, values = measured["updates"][1:], measured["success"][:, 1:]
        for ax, x in ((left, updates), (right, updates * measured["seconds"])):
            ax.plot(x, values.T, color=COLOURS[memory], lw=0.6, alpha=0.5)
            ax.plot(x, values.mean(axis=0), **look(memory) | ({"ls": "--", "zorder": 3} if memory == "none" else {}))
    for ax, label in ((left, "updates"), (right, "seconds of computing, all seeds together")):
        ax.set(xlabel=label, ylabel="probability of the right answer", ylim=(-0.02, 1.03), title=RECALL)
    if recalls:
        right.set_xscale("log")
        left.legend(loc="lower right", fontsize=9, title="thin: a seed", title_fontsize=9)
    for ax, name in zip(rest, tasks):
        for memory, measured in trained(found, name).items():
            values = success(measured["trial_return"]) if name == T_MAZE else measured["trial_return"]
            bounds = (0.0, 1.0) if name == T_MAZE else None
            curve(ax, measured["env_steps"] / 1e3, values, memory, bounds, **look(memory))
        ylabel = "success" if name == T_MAZE else "return of a trial"
        ax.set(xlabel="thousand steps of a seed", ylabel=ylabel, title=name)
    for ax in rest[len(tasks) :]:
        ax.remove()
    return {"": figure}


FIGURE = Figure(
    name="memories",
    paper="Parisotto et al., 2019 (GTrXL); Smith et al., 2022 (S5); Lu et al., 2023; Ni et al., 2023 (T-maze)",
    shows="no published figure: what each memory of RL² learns, at equal parameters",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
