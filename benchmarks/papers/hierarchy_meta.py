"""Does hierarchy help a learner that learns to learn? RL² whose actions are options, and MAML over an option-critic,
beside RL² and MAML (Duan et al., 2016; Finn, Abbeel & Levine, 2017; Sutton, Precup & Singh, 1999; Bacon, Harb & Precup,
2017), on Four Rooms with a hidden goal.

A task is a goal that the observation does not show, one of twelve cells, three in each room. An episode has at most 50
steps, each from the same corner. Its return is 1 if it enters the goal in time, and 0 otherwise. Actions are drawn as
in training. All learners train for 11.5 million steps. With options RL² (`rl2-options`) chooses among the four actions
and the eight hallway options, which are given; without them, among the four actions. With options MAML
(`maml-options`) learns four options, their terminations and the choice among them; without them, one policy. Either way
RL² has the same settings, which were chosen with options on another seed, and so has MAML; its step size α is the best
of .3, 1 and 3 on another seed, which is 1 both with options and without. A trial of RL² is three episodes on one task.
MAML adapts in three gradient steps, each from twenty episodes.

Three lines that tables allow, over the same tasks. Optimal play that knows the goal, and Bayes-optimal play of a trial,
by dynamic programming over cells and sets of cells that may be the goal (`exact.hidden_goal`). And belief-greedy play,
which holds the exact belief and walks to the goal that is worth most under it (`classical.hidden_goal`), in many
trials.

Goals that no training has had are left out: cells are observed by their numbers, so that what a learner knows of one
cell tells it nothing of the next, and where the goal was must be learned for each goal by itself. In a pilot with any
of 82 cells as the goal (`four-rooms-hidden-goal`) and one seed, 5.8 million steps taught RL² over options to search,
and not to remember: the third episode was no better than the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import FourRooms, cell_index
from jaxrl_envs.random_bits import random_bits
from jaxrl_envs.tasks import Tasks
from jaxrl_envs.trial import Trial
from jaxrl_hier.classical.hidden_goal import belief_greedy
from jaxrl_hier.engine.types import TrainState
from jaxrl_hier.exact.hidden_goal import search_values
from jaxrl_hier.meta import rl2

from ..drawing import BLACK, colour, legend_below, seeds_and_mean, subplots
from ..figure import Computation, Figure, Found, Scale, Training
from ..results import Row

NW, NE = [(1, 5), (5, 1), (5, 5)], [(1, 8), (1, 11), (6, 11)]
SE, SW = [(8, 8), (11, 8), (11, 11)], [(7, 1), (11, 1), (11, 5)]
GOALS = np.array([cell_index(*goal) for goal in NW + NE + SE + SW])
EPISODES, LIMIT = 3, 50  # of a trial, and steps of an episode
STEPS, PER_STEP = 3, 20  # MAML's gradient steps on a new task, and episodes for each
RL2: dict[str, Any] = {
    "episodes_per_trial": EPISODES,
    "memory_size": 32,
    "separate_critic": False,
    "environments": 128,
    "minibatch_size": 64,
    "epochs": 4,
    "gae_lambda": 0.95,
    "clip": 0.2,
    "max_grad_norm": 0.5,
    "learning_rate": 5e-3,
    "entropy_weight": 0.02,
    "eval_tasks": 480,
}
MAML: dict[str, Any] = {
    "horizon": LIMIT,
    "meta_batch_size": 24,
    "episodes_per_task": PER_STEP,
    "inner_learning_rate": 1.0,
    "hidden": (64, 64),
    "eval_tasks": 120,
    "eval_episodes": PER_STEP,
    "eval_inner_steps": STEPS,
}


@dataclass(frozen=True)
class Learner:
    """An algorithm, and its returns on a new task against how many episodes it has seen of that."""

    algorithm: str
    settings: Mapping[str, Any]
    smoke: Mapping[str, Any]  # settings that differ at the smallest size
    iterations: int  # 11.5 million steps
    experience: Sequence[int]  # episodes before those whose return is measured


SMALL_RL2 = {"environments": 8, "minibatch_size": 8, "memory_size": 8, "epochs": 1, "eval_tasks": 12}
SMALL_MAML = {"meta_batch_size": 2, "episodes_per_task": 2, "hidden": (8,), "eval_tasks": 4, "eval_episodes": 2}
TRIAL, ADAPTATION = range(EPISODES), range(0, PER_STEP * STEPS + 1, PER_STEP)
LEARNERS = {
    "RL² over options": Learner("rl2-options", RL2, SMALL_RL2, 600, TRIAL),
    "RL²": Learner("rl2", RL2, SMALL_RL2, 600, TRIAL),
    "MAML over options": Learner("maml-options", MAML, SMALL_MAML, 240, ADAPTATION),
    "MAML": Learner("maml", MAML, SMALL_MAML, 240, ADAPTATION),
}
GREEDY, OPTIMAL, KNOWING = "belief-greedy", "Bayes-optimal", "knows the goal"


def rooms() -> tuple[FourRooms, Tasks]:
    """Four Rooms, and its tasks, in which each of GOALS is equally likely."""
    env = FourRooms()
    task = env.default_params.replace(max_steps_in_episode=LIMIT)
    goal = lambda key: jnp.asarray(GOALS)[random_bits(key) % len(GOALS)]
    return env, Tasks(sample=lambda key: task.replace(goal=goal(key)), resample="episode")


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    about: dict[str, Any] = {"points": 2 if smoke else 10, "from_start": True}

    def training(learner: Learner) -> Training:
        settings = {**learner.settings, **(learner.smoke if smoke else {})}
        curves = ("return", "length") if learner.experience == TRIAL else ("return",)
        iterations = 2 if smoke else learner.iterations
        return Training(learner.algorithm, settings, iterations, *rooms(), curves=curves, **about)

    names = ("RL² over options", "MAML") if smoke else LEARNERS  # their twins run by the same code
    found: dict[str, Any] = {name: training(LEARNERS[name]) for name in names}
    found[GREEDY] = Computation(played, {"trials": 12 if smoke else 480})
    return found | {OPTIMAL: Computation(solved, {"goals": 4 if smoke else len(GOALS)}, seeds=0)}


def played(seeds: Sequence[int], trials: int) -> dict[str, np.ndarray]:
    """Mean return and length of each episode of belief-greedy play, [seeds, episodes]."""
    env, tasks = rooms()
    trial = Trial(env, EPISODES)
    agent, config = belief_greedy(trial, GOALS.tolist()), rl2.Config(episodes_per_trial=EPISODES, eval_tasks=trials)
    state = TrainState(params=(), learner=(), world=(), memory=(), key=jax.random.key(0), iteration=jnp.int32(0))

    def play(key: jax.Array) -> dict[str, jax.Array]:
        measured = rl2.evaluate(config, trial, agent, trial.tasks_of(tasks), state, key)
        return {name: jnp.mean(measured[name].values, axis=0) for name in ("return", "length")}

    return jax.device_get(jax.lax.map(play, jnp.stack([jax.random.key(seed) for seed in seeds])))


def solved(goals: int) -> dict[str, np.ndarray]:
    """The return of each episode of Bayes-optimal play, [episodes], and of play that knows the goal, []."""
    env, _ = rooms()
    P, start, cells = env.transitions.astype(np.float32), int(env.default_params.start), GOALS[:goals]
    knowing = [float(search_values(P, cells[i : i + 1], start, LIMIT)[0]) for i in range(goals)]
    return {
        "return": np.asarray(search_values(P, cells, start, LIMIT, EPISODES)),
        "knowing": np.array(np.mean(knowing)),
    }


# Rows


def rows(found: Found) -> list[Row]:
    made = []
    optimum = [float(x) for x in found[OPTIMAL]["return"]] if OPTIMAL in found else []
    for name in (*LEARNERS, GREEDY):
        if name in found:
            returns = at_the_end(found, name)
            for k in range(returns.shape[1]):
                exact = optimum[k] if optimum and in_trials(name) else None
                label = f"{name}, {after(name, k)}: return"
                made.append(Row.measured(label, returns[:, k], exact=exact, bounds=(0.0, 1.0)))
            gained = f"{name}: return, {after(name, returns.shape[1] - 1)} minus {after(name, 0)}"
            made.append(Row.measured(gained, returns[:, -1] - returns[:, 0]))
            if in_trials(name):
                lengths = at_the_end(found, name, "length")
                made += [Row.measured(f"{name}, {after(name, k)}: steps", x) for k, x in enumerate(lengths.T)]
    for flat in ("RL²", "MAML"):
        options = f"{flat} over options"
        if flat in found and options in found:
            for k, (ours, theirs) in enumerate(zip(at_the_end(found, options).T, at_the_end(found, flat).T)):
                label = f"claim: {options} minus {flat}, return, {after(flat, k)}"
                made.append(Row.measured(label, ours, theirs).judged("above 0"))
    if OPTIMAL in found:
        made += [Row.computed(f"{OPTIMAL}, episode {k + 1}: return", x) for k, x in enumerate(optimum)]
        made.append(Row.computed(f"{KNOWING}: return", float(found[OPTIMAL]["knowing"])))
    return made


def in_trials(name: str) -> bool:
    return name == GREEDY or LEARNERS[name].experience == TRIAL


def after(name: str, k: int) -> str:
    """When the k-th return on a new task was measured."""
    if in_trials(name):
        return f"episode {k + 1}"
    return f"after {LEARNERS[name].experience[k]} episodes"


def at_the_end(found: Found, name: str, measured: str = "return") -> np.ndarray:
    """Returns or lengths on a new task after training, [seeds, episodes of a trial or gradient steps]."""
    values = found[name][measured]
    return values if name == GREEDY else values[:, -1]


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Return on a new task after training, against the episodes seen of it; and while learning, the last of these
    returns solid and the first dotted. Seeds thin, their mean thick."""
    figure, (axes,) = subplots(1, 3, width=5.0)
    for name, learner in LEARNERS.items():
        if name in found:
            returns = at_the_end(found, name)
            seeds_and_mean(axes[0], learner.experience, returns, name)
            axes[0].plot(learner.experience, returns.mean(axis=0), "o", color=colour(name))
            ax = axes[1 if in_trials(name) else 2]
            x, values = found[name]["env_steps"] / 1e6, found[name]["return"]
            seeds_and_mean(ax, x, values[..., -1], name)
            seeds_and_mean(ax, x, values[..., 0], name, "_first", ":")  # not in the legend
    if GREEDY in found:
        seeds_and_mean(axes[0], TRIAL, at_the_end(found, GREEDY), GREEDY)
    if OPTIMAL in found:
        axes[0].plot(TRIAL, found[OPTIMAL]["return"], "D:", color=BLACK, ms=4, label=OPTIMAL)
        axes[0].axhline(float(found[OPTIMAL]["knowing"]), color=BLACK, ls="--", lw=1, label=KNOWING)
    axes[0].set_xscale("symlog", linthresh=2)
    ticks = sorted({*TRIAL, *ADAPTATION})
    axes[0].set_xticks(ticks, [str(x) for x in ticks])
    axes[0].minorticks_off()
    axes[0].set(xlim=(-0.2, 75), xlabel="episodes seen of a new task")
    axes[0].set(title="after training", ylabel="share of episodes that reach the goal")
    titles = ("RL²: episodes 1 (dotted) and 3 of a trial", "MAML: after 0 (dotted) and 60 episodes")
    for ax, title in zip(axes[1:], titles):
        ax.set(title=title, xlabel="million steps of training")
    for ax in axes:
        ax.set(ylim=(0, 1.03))
    legend_below(figure, axes, columns=7)
    return {"": figure}


FIGURE = Figure(
    name="hierarchy_meta",
    paper="none: Duan et al. (2016) and Finn, Abbeel & Levine (2017) with options",
    shows="does hierarchy help a learner that learns to learn? Return against experience on a new task",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
