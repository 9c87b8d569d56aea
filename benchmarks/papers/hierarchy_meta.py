"""Does hierarchy help a learner that learns to learn? RL² whose actions are options beside RL² (Duan et al., 2016;
Sutton, Precup & Singh, 1999), on Four Rooms with a hidden goal.

A task is a goal that the observation does not show, one of twelve cells, three in each room. A trial is three episodes
of at most 50 steps on one task, each from the same corner. The return of an episode is 1 if it enters the goal in time,
and 0 otherwise. Actions are drawn as in training. Both learners have the same network, the same settings and the same
environment steps; the one chooses among the four actions, the other among these and the eight hallway options, which
are given. Settings were chosen on another seed with options, and taken over for the learner without.

Three lines that tables allow, over the same tasks. Optimal play that knows the goal, and Bayes-optimal play of a trial,
by dynamic programming over cells and sets of cells that may be the goal (`exact.hidden_goal`). And belief-greedy play,
which holds the exact belief and walks to the goal that is worth most under it (`classical.hidden_goal`), in many
trials.

Goals that no training has had are left out: cells are observed by their numbers, so that what a learner knows of one
cell tells it nothing of the next, and where the goal was must be learned for each goal by itself. In a pilot with any
of 82 cells as the goal (`four-rooms-hidden-goal`) and one seed, 5.8 million steps taught RL² over options to search,
and not to remember: the third episode was no better than the first.
"""

from collections.abc import Sequence
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

from ..drawing import BLACK, BLUE, GREEN, ORANGE, VERMILION, curve, subplots, with_intervals
from ..figure import Computation, Figure, Found, Scale, Training
from ..results import Row

NW, NE = [(1, 5), (5, 1), (5, 5)], [(1, 8), (1, 11), (6, 11)]
SE, SW = [(8, 8), (11, 8), (11, 11)], [(7, 1), (11, 1), (11, 5)]
GOALS = np.array([cell_index(*goal) for goal in NW + NE + SE + SW])
EPISODES, LIMIT = 3, 50  # of a trial, and steps of an episode
ITERATIONS = 600
SETTINGS: dict[str, Any] = {
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
LEARNERS = {"RL² over options": ("rl2-options", VERMILION), "RL²": ("rl2", BLUE)}
GREEDY, OPTIMAL, KNOWING = "belief-greedy", "Bayes-optimal", "knows the goal"


def rooms() -> tuple[FourRooms, Tasks]:
    """Four Rooms, and its tasks, in which each of GOALS is equally likely."""
    env = FourRooms()
    task = env.default_params.replace(max_steps_in_episode=LIMIT)
    goal = lambda key: jnp.asarray(GOALS)[random_bits(key) % len(GOALS)]
    return env, Tasks(sample=lambda key: task.replace(goal=goal(key)), resample="episode")


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    small = {"environments": 8, "minibatch_size": 8, "memory_size": 8, "epochs": 1, "eval_tasks": 12} if smoke else {}
    about: dict[str, Any] = {"points": 2 if smoke else 10, "from_start": True, "curves": ("return", "length")}
    trained = lambda name: Training(name, SETTINGS | small, 2 if smoke else ITERATIONS, *rooms(), **about)
    found: dict[str, Any] = {name: trained(algorithm) for name, (algorithm, _) in LEARNERS.items()}
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
            returns, lengths = at_the_end(found, name)
            for k in range(EPISODES):
                label = f"{name}, episode {k + 1}"
                exact = optimum[k] if optimum else None
                made.append(Row.measured(f"{label}: return", returns[:, k], exact=exact, bounds=(0.0, 1.0)))
                made.append(Row.measured(f"{label}: steps", lengths[:, k]))
            label = f"{name}: return of episode {EPISODES} minus that of episode 1"
            made.append(Row.measured(label, returns[:, -1] - returns[:, 0]))
    if all(name in found for name in LEARNERS):
        ours, flat = (at_the_end(found, name)[0] for name in LEARNERS)
        for k in range(EPISODES):
            label = f"claim: RL² over options minus RL², return of episode {k + 1}"
            made.append(Row.measured(label, ours[:, k], flat[:, k]).judged("above 0"))
    if OPTIMAL in found:
        made += [Row.computed(f"{OPTIMAL}, episode {k + 1}: return", x) for k, x in enumerate(optimum)]
        made.append(Row.computed(f"{KNOWING}: return", float(found[OPTIMAL]["knowing"])))
    return made


def at_the_end(found: Found, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the episodes of a trial, [seeds, episodes]."""
    returns, lengths = (found[name][x] for x in ("return", "length"))
    return (returns, lengths) if name == GREEDY else (returns[:, -1], lengths[:, -1])


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Return against experience on a new task after training; and the return of a trial's last episode while learning,
    that of its first one dotted."""
    figure, (axes,) = subplots(1, 2, width=6.0)
    episodes = np.arange(1, EPISODES + 1)
    for name, color in [*((name, color) for name, (_, color) in LEARNERS.items()), (GREEDY, ORANGE)]:
        if name in found:
            made = [Row.measured("", x, bounds=(0.0, 1.0)) for x in at_the_end(found, name)[0].T]
            with_intervals(axes[0], episodes, made, color, name, **({"fmt": "s--", "ms": 4} if name == GREEDY else {}))
    if OPTIMAL in found:
        axes[0].plot(episodes, found[OPTIMAL]["return"], "D:", color=GREEN, label=OPTIMAL)
        axes[0].axhline(float(found[OPTIMAL]["knowing"]), color=BLACK, ls="--", lw=1, label=KNOWING)
    axes[0].set(xticks=episodes, xlabel="episode on a new task", ylabel="return: share that enters the goal in time")
    for name, (_, color) in LEARNERS.items():
        if name in found:
            x, values = found[name]["env_steps"] / 1e6, found[name]["return"]
            curve(axes[1], x, values[..., -1], name, (0.0, 1.0), f"{name}, episode {EPISODES}", color=color)
            axes[1].plot(x, values[..., 0].mean(axis=0), color=color, ls=":", label=f"{name}, episode 1")
    axes[1].set(xlabel="million steps of training", ylabel="return of an episode")
    for ax, title in zip(axes, ("after training", "while learning")):
        ax.set(ylim=(0, 1.03), title=title)
        ax.legend(loc="best")
    return {"": figure}


FIGURE = Figure(
    name="hierarchy_meta",
    paper="none: Duan et al. (2016) with Sutton, Precup & Singh (1999)",
    shows="does hierarchy help a learner that learns to learn? Return against experience on a new task",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
