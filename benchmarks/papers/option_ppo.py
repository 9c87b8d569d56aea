"""PPO over options beside option-critic and flat PPO: four rooms with a goal that moves, treasure rooms, MinAtar.

Klissarov et al. (2017) and Zhang & Whiteson (2019) compare PPO over options with PPO on MuJoCo, where it is not better
on a single task and sometimes better where tasks change. Here are the same questions where a CPU can answer them. No
number can be compared with a published one.

- Four rooms with the noise of the option-critic's code: the goal is the east doorway for the first 200 episodes of each
  environment and then (9, 9) in the lower right room, unseen; what counts is the steps of an episode in the second half
  of training. A learner that needs longer episodes meets the move later.
- `treasure-vector`: a key, a door and a treasure, 1 each; 36 steps for who knows the way.
- Breakout in MinAtar, with convolutions.

All have the same steps and hidden layers of 64-64; the options are eight. The two PPOs have separate networks for
policy and value, and normalise rewards; the option-critic shares its layers. For each learner the same five random
settings (learning rate, entropy bonus of the policies) train two seeds each, for half as long; the one with the best
mean over that training is trained again from ten other seeds, and all of those are reported. All else is each one's
default. Four rooms' search ends about when the goal has moved.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_envs
from jaxrl_envs.four_rooms import G2, FourRooms, cell_index, moving_goal_tasks
from jaxrl_hier import jit
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.flat import policy_gradient
from jaxrl_hier.hierarchical import option_critic, option_ppo
from jaxrl_hier.reports.statistics import Bounds

from ..drawing import BLUE, GREY, VERMILION, curve, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row

LEARNERS = {"option-ppo": BLUE, "option-critic": VERMILION, "ppo": GREY}
TITLES = {"option-ppo": "PPO over options", "option-critic": "option-critic", "ppo": "PPO"}
ROOMS = "four rooms, moving goal"
# iterations of PPO, of 2048 steps each, per point
EVERY = {ROOMS: 8, "treasure rooms": 15, "Breakout in MinAtar": 5}
ENVIRONMENTS = {"treasure rooms": "treasure-vector", "Breakout in MinAtar": "Breakout-MinAtar"}
MOVES_AFTER = 200  # episodes of each environment
POINTS = 20
OPTIONS = 8
BOUNDS: dict[str, Bounds] = {"treasure rooms": (0.0, 3.0)}


def parts(scale: Scale) -> dict[str, Computation]:
    smoke = scale == "smoke"
    about = {"points": 2 if smoke else POINTS, "tried": 2 if smoke else 5}
    found = {}
    for task, every in EVERY.items():
        if smoke and task != ROOMS:
            continue
        for learner in LEARNERS:
            arguments = about | {"learner": learner, "task": task, "every": 1 if smoke else every}
            found[f"{learner}, {task}"] = Computation(
                tuned_and_learned, arguments, shared=("search", "chosen", "env_steps")
            )
    return found


class Setting(NamedTuple):
    """What is tuned; each leaf [lanes] or a number."""

    learning_rate: Any
    entropy_weight: Any


def draws(count: int) -> Setting:
    """Random settings, the same for all that are compared."""
    rng = np.random.default_rng(0)
    log_uniform = lambda low, high: np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(np.float32)
    return Setting(log_uniform(3e-4, 5e-3), log_uniform(1e-3, 3e-2))


def environment(task: str) -> tuple[Any, Any]:
    if task != ROOMS:
        return jaxrl_envs.make(ENVIRONMENTS[task])
    env = FourRooms("option-critic")
    return env, moving_goal_tasks(env, MOVES_AFTER, then=[int(cell_index(*G2))])


def build(learner: str, task: str, setting: Setting) -> Algorithm:
    env, tasks = environment(task)
    settings: dict[str, Any] = {**setting._asdict(), "hidden": (64, 64), "environments": 32}
    settings |= {"network": "cnn"} if task == "Breakout in MinAtar" else {}
    if learner == "option-critic":
        return option_critic.make(option_critic.Config(num_options=OPTIONS, **settings), env, tasks)
    settings |= {"rollout_length": 64, "normalize_rewards": True}
    if learner == "ppo":
        return policy_gradient.make(policy_gradient.Config(**settings), env, tasks)
    return option_ppo.make(option_ppo.Config(num_options=OPTIONS, **settings), env, tasks)


# Learning


def tuned_and_learned(
    seeds: Sequence[int], learner: str, task: str, points: int, every: int, tried: int
) -> Mapping[str, np.ndarray]:
    """Every setting that is tried with as many seeds, for half as long; then all seeds with the best of them."""
    each = max(1, len(seeds) // tried)
    lanes = jax.tree.map(lambda x: np.repeat(x, each), draws(tried))
    train = trainer(learner, task, every)
    curves = train(lanes, range(1000, 1000 + tried * each), max(1, points // 2))
    search = np.nanmean(score(task, curves), axis=1).reshape(tried, each).mean(axis=1)
    best = [x[int(np.argmax(search))] for x in draws(tried)]
    found = train(Setting(*(np.full(len(seeds), x) for x in best)), seeds, points)
    steps = np.arange(1, points + 1) * every * 32 * 64
    return found | {"search": search, "chosen": np.array(best), "env_steps": steps}


def score(task: str, curves: Mapping[str, np.ndarray]) -> np.ndarray:
    """What is to be high: the return, or few steps of an episode."""
    return -curves["episode_length"] if task == ROOMS else curves["return"]


def trainer(learner: str, task: str, every: int) -> Any:
    """Settings of the lanes, seeds, points -> mean of each metric between points, [seeds, points]."""
    init = jit(jax.vmap(lambda key, setting: build(learner, task, setting).init(key)))

    def chunk(state: TrainState, setting: Setting) -> tuple[TrainState, dict[str, Any]]:
        algorithm = build(learner, task, setting)
        names, shapes = ("return", "episode_length"), jax.eval_shape(algorithm.step, state)[1]
        zeros = {name: jax.tree.map(lambda m: jnp.zeros(m.shape), shapes[name]) for name in names}

        def one(_: Any, carry: Any) -> Any:
            state, metrics = algorithm.step(carry[0])
            return state, jax.tree.map(jnp.add, carry[1], {name: metrics[name] for name in names})

        return jax.lax.fori_loop(0, every * 32 * 64 // algorithm.env_steps, one, (state, zeros))

    program = jit(jax.vmap(chunk), donate_argnums=0)

    def train(setting: Setting, seeds: Sequence[int], points: int) -> dict[str, np.ndarray]:
        setting = jax.tree.map(jnp.asarray, setting)
        state, rows = init(jnp.stack([jax.random.key(seed) for seed in seeds]), setting), []
        for _ in range(points):
            state, metrics = program(state, setting)
            rows.append(jax.device_get(metrics))
        return {name: np.stack([row[name].mean() for row in rows], axis=1) for name in rows[0]}

    return train


# Rows


def rows(found: Found) -> list[Row]:
    made = []
    for task in EVERY:
        arms = {learner: found[f"{learner}, {task}"] for learner in LEARNERS if f"{learner}, {task}" in found}
        what = "steps of an episode, second half" if task == ROOMS else "mean return, last quarter"
        for learner, measured in arms.items():
            rate, entropy = measured["chosen"]
            speed = len(measured["return"]) * measured["env_steps"][-1] / measured.seconds
            note = (
                f"learning rate {rate:.2g}, entropy bonus {entropy:.2g}; {measured['env_steps'][-1]} steps per seed; "
            )
            note += f"{speed:.0f} steps per second, all seeds, with search and compilation"
            label = f"{task}, {learner}: {what}"
            made.append(Row.measured(label, late(task, measured), bounds=BOUNDS.get(task), note=note))
        for other in [learner for learner in arms if learner != "option-ppo" and "option-ppo" in arms]:
            ours, theirs = late(task, arms["option-ppo"]), late(task, arms[other])
            made.append(Row.measured(f"{task}: {what}, option-ppo less {other}", ours, theirs))
    return made


def late(task: str, measured: Measured) -> np.ndarray:
    """The measure of a task towards the end of training, [seeds]."""
    if task == ROOMS:
        values = measured["episode_length"]
        return np.nanmean(values[:, values.shape[1] // 2 :], axis=1)
    values = measured["return"]
    return np.nanmean(values[:, -max(1, values.shape[1] // 4) :], axis=1)


# Pictures


def draw(found: Found) -> dict[str, Any]:
    """Learning curves of each task with 95 % over the seeds."""
    tasks = [task for task in EVERY if f"ppo, {task}" in found]
    figure, (axes,) = subplots(1, len(tasks))
    for ax, task in zip(axes, tasks):
        name = "episode_length" if task == ROOMS else "return"
        for learner, color in LEARNERS.items():
            if measured := found.get(f"{learner}, {task}"):
                x, values = measured["env_steps"] / 1e6, measured[name]
                curve(ax, x, values, learner, BOUNDS.get(task), label=TITLES[learner], color=color)
        ax.set(title=task, xlabel="million steps of a seed")
        ax.set_ylabel("steps of an episode" if task == ROOMS else "return of an episode")
        if task == ROOMS:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
        ax.legend(fontsize=8)
    return {"": figure}


FIGURE = Figure(
    name="option_ppo",
    paper="none: PPO over options where a CPU can compare it",
    shows="PPO over options, option-critic and PPO on four rooms with a moving goal, treasure rooms and Breakout",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
