"""Does hierarchy help a learner that learns to learn? RL² whose actions are options, and MAML over an option-critic,
beside RL² and MAML (Duan et al., 2016; Finn, Abbeel & Levine, 2017; Sutton, Precup & Singh, 1999; Bacon, Harb & Precup,
2017), on four families of grid worlds.

In each the observation is the number of the cell, and says nothing about the task. An episode begins in the same cell;
its return is 1 if it enters the goal within the time limit, and 0 otherwise.

- Hidden goals: Four Rooms with noisy moves, 50 steps, and as its goal one of twelve cells, three in each room.
- Hallways: Four Rooms with a hallway anywhere in each of the inner walls, 20 steps, the goal in the opposite room.
- Ice: Four Rooms with half of the cells icy, where a move succeeds with probability .2; 30 steps to the next room.
- Mazes: 4 × 4 cells, which openings join as a random tree, 25 steps from corner to corner.

The last three (`jaxrl_envs.grid_family`) have 500 members each, every fifth of which is held out for the test. Hidden
goals have the same goals in training and test: what a learner knows of one cell tells it nothing of the next, so that
where the goal was must be learned for each goal by itself. In a pilot with any of 82 cells as the goal and one seed,
5.8 million steps taught RL² over options to search, and not to remember.

Actions are drawn as in training. All learners of a family train for equally many steps. With options RL²
(`rl2-options`) chooses among the four actions and given options: the eight hallway options for hidden goals, and
elsewhere each action repeated for four steps on average, since given hallway options would tell where the hallways are.
Without them, among the four actions. With options MAML (`maml-options`) learns four options, their terminations and the
choice among them; without them, one policy. Settings were chosen on hidden goals alone and on another seed: RL²'s with
options, MAML's step size α as the best of .3, 1 and 3, which is 1 both with options and without. A trial of RL² is
three episodes on one task. MAML adapts in three gradient steps, each from twenty episodes. PEARL is not here: its actor
needs continuous actions.

Lines that tables allow, over the same tasks. Optimal play that knows the task. Belief-greedy play, which holds the
exact belief over all members and plays the one that is worth most under it (`classical.hidden_task`), in many trials.
And for hidden goals Bayes-optimal play of a trial, by dynamic programming over cells and sets of cells that may be the
goal (`exact.hidden_goal`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import FourRooms, cell_index
from jaxrl_envs.grid_family import GridFamily, grid_family_tasks, hallways, icy_rooms, mazes
from jaxrl_envs.random_bits import random_bits
from jaxrl_envs.tasks import EnvParams, Tasks
from jaxrl_envs.trial import Trial
from jaxrl_hier.classical.hidden_task import belief_greedy
from jaxrl_hier.engine.types import TrainState
from jaxrl_hier.exact.hidden_goal import search_values
from jaxrl_hier.exact.tabular import value_sweeps
from jaxrl_hier.meta import rl2

from ..drawing import BLACK, colour, legend_below, seeds_and_mean, subplots
from ..figure import Computation, Figure, Found, Scale, Training
from ..results import Row

EPISODES = 3  # of a trial
STEPS, PER_STEP = 3, 20  # MAML's gradient steps on a new task, and episodes for each

# Families of tasks


@dataclass(frozen=True)
class Family:
    """A distribution of tasks on one environment, and how it is learned."""

    made: Callable[[], tuple[Any, Tasks, EnvParams]]  # the environment, its tasks, and all that a belief is over
    limit: int  # steps of an episode
    test_tasks: int  # of RL²
    options: str = "repeats"  # given to RL²


NW, NE = [(1, 5), (5, 1), (5, 5)], [(1, 8), (1, 11), (6, 11)]
SE, SW = [(8, 8), (11, 8), (11, 11)], [(7, 1), (11, 1), (11, 5)]
GOALS = np.array([cell_index(*goal) for goal in NW + NE + SE + SW])


def hidden_goals() -> tuple[FourRooms, Tasks, EnvParams]:
    """Four Rooms, and its tasks, in which each of GOALS is equally likely."""
    env = FourRooms()
    task = env.default_params.replace(max_steps_in_episode=50)
    goal = lambda key: jnp.asarray(GOALS)[random_bits(key) % len(GOALS)]
    tasks = Tasks(sample=lambda key: task.replace(goal=goal(key)), resample="episode")
    return env, tasks, jax.vmap(lambda goal: task.replace(goal=goal))(jnp.asarray(GOALS))


def members(make: Callable[[], GridFamily]) -> tuple[GridFamily, Tasks, EnvParams]:
    """A family of grid worlds, its tasks, and all members."""
    env = make()
    every = jnp.arange(len(env.free), dtype=jnp.int32)
    return env, grid_family_tasks(env), jax.vmap(lambda member: env.default_params.replace(member=member))(every)


HIDDEN = "hidden goals"
FAMILIES = {
    HIDDEN: Family(hidden_goals, limit=50, test_tasks=480, options="both"),
    "hallways": Family(partial(members, hallways), limit=20, test_tasks=100),
    "ice": Family(partial(members, icy_rooms), limit=30, test_tasks=100),
    "mazes": Family(partial(members, mazes), limit=25, test_tasks=100),
}

# Learners

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
}
MAML: dict[str, Any] = {
    "meta_batch_size": 24,
    "episodes_per_task": PER_STEP,
    "inner_learning_rate": 1.0,
    "fisher_episodes": None,
    "hidden": (64, 64),
    "eval_episodes": PER_STEP,
    "eval_inner_steps": STEPS,
}


@dataclass(frozen=True)
class Learner:
    """An algorithm, and its returns on a new task against how many episodes it has seen of that."""

    algorithm: str
    settings: Callable[[Family], Mapping[str, Any]]
    smoke: Mapping[str, Any]  # settings that differ at the smallest size
    iterations: int  # in which all take equally many steps, 230 400 × the time limit
    experience: Sequence[int]  # episodes before those whose return is measured


def of_rl2(family: Family) -> Mapping[str, Any]:
    return RL2 | {"eval_tasks": family.test_tasks}


def of_rl2_options(family: Family) -> Mapping[str, Any]:
    return {**of_rl2(family), "options": family.options}


def of_maml(family: Family) -> Mapping[str, Any]:
    return MAML | {"horizon": family.limit, "eval_tasks": min(family.test_tasks, 120)}


SMALL_RL2 = {"environments": 8, "minibatch_size": 8, "memory_size": 8, "epochs": 1, "eval_tasks": 12}
SMALL_MAML = {"meta_batch_size": 2, "episodes_per_task": 2, "hidden": (8,), "eval_tasks": 4, "eval_episodes": 2}
TRIAL, ADAPTATION = range(EPISODES), range(0, PER_STEP * STEPS + 1, PER_STEP)
LEARNERS = {
    "RL² over options": Learner("rl2-options", of_rl2_options, SMALL_RL2, 600, TRIAL),
    "RL²": Learner("rl2", of_rl2, SMALL_RL2, 600, TRIAL),
    "MAML over options": Learner("maml-options", of_maml, SMALL_MAML, 240, ADAPTATION),
    "MAML": Learner("maml", of_maml, SMALL_MAML, 240, ADAPTATION),
}
GREEDY, OPTIMAL, KNOWING = "belief-greedy", "Bayes-optimal", "knows the task"


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    about: dict[str, Any] = {"points": 2 if smoke else 10, "from_start": True}

    def training(family: Family, learner: Learner) -> Training:
        settings = {**learner.settings(family), **(learner.smoke if smoke else {})}
        curves = ("return", "length") if learner.experience == TRIAL else ("return",)
        iterations = 2 if smoke else learner.iterations
        return Training(learner.algorithm, settings, iterations, *family.made()[:2], curves=curves, **about)

    found: dict[str, Any] = {}
    for title, family in FAMILIES.items():
        if smoke and title not in (HIDDEN, "mazes"):
            continue
        names = ("RL² over options", "MAML")[: 2 if title == HIDDEN else 1] if smoke else LEARNERS  # twins run alike
        found |= {f"{title}: {name}": training(family, LEARNERS[name]) for name in names}
        found[f"{title}: {GREEDY}"] = Computation(played, {"title": title, "trials": 12 if smoke else 480})
        found[f"{title}: {KNOWING}"] = Computation(knowing, {"title": title}, seeds=0)
    return found | {f"{HIDDEN}: {OPTIMAL}": Computation(searched, {"goals": 4 if smoke else len(GOALS)}, seeds=0)}


# What tables allow


def tested(tasks: Tasks, count: int) -> Tasks:
    """Tasks for `count` trials: those that are held out, in turn, or else draws."""
    if tasks.test is None:
        return tasks
    held_out = len(jax.tree.leaves(tasks.test)[0])
    return tasks._replace(test=jax.tree.map(lambda x: x[jnp.arange(count) % held_out], tasks.test))


def played(seeds: Sequence[int], title: str, trials: int) -> dict[str, np.ndarray]:
    """Mean return and length of each episode of belief-greedy play, [seeds, episodes]."""
    env, tasks, every = FAMILIES[title].made()
    trial = Trial(env, EPISODES)
    tasks = tested(tasks, trials)
    agent, config = belief_greedy(trial, every), rl2.Config(episodes_per_trial=EPISODES, eval_tasks=trials)
    state = TrainState(params=(), learner=(), world=(), memory=(), key=jax.random.key(0), iteration=jnp.int32(0))

    def play(key: jax.Array) -> dict[str, jax.Array]:
        measured = rl2.evaluate(config, trial, agent, trial.tasks_of(tasks), state, key)
        return {name: jnp.mean(measured[name].values, axis=0) for name in ("return", "length")}

    return jax.device_get(jax.lax.map(play, jnp.stack([jax.random.key(seed) for seed in seeds])))


def knowing(title: str) -> dict[str, np.ndarray]:
    """The return of an episode of the best play that knows the task, [], the mean over the tasks of the test."""
    env, tasks, every = FAMILIES[title].made()

    def best(task: EnvParams) -> jax.Array:
        return value_sweeps(*env.model(task), 1.0, FAMILIES[title].limit)[-1]

    values = jax.lax.map(best, every if tasks.test is None else tasks.test)  # [N, S]
    start, _ = env.reset_env(jax.random.key(0), env.default_params)
    return {"return": np.asarray(jnp.mean(values[:, start]))}


def searched(goals: int) -> dict[str, np.ndarray]:
    """The return of each episode of Bayes-optimal search for a hidden goal, [episodes]."""
    env, limit = FourRooms(), FAMILIES[HIDDEN].limit
    P, start = env.transitions.astype(np.float32), int(env.default_params.start)
    return {"return": np.asarray(search_values(P, GOALS[:goals], start, limit, EPISODES))}


# Rows


def rows(found: Found) -> list[Row]:
    return [row for title in FAMILIES for row in rows_of(found, title)]


def rows_of(found: Found, title: str) -> list[Row]:
    """What has been measured on a family."""
    made = []
    of = of_family(found, title)
    optimum = [float(x) for x in of[OPTIMAL]["return"]] if OPTIMAL in of else []
    for name in (*LEARNERS, GREEDY):
        if name in of:
            returns = at_the_end(of, name)
            for k in range(returns.shape[1]):
                exact = optimum[k] if optimum and in_trials(name) else None
                label = f"{title}: {name}, {after(name, k)}: return"
                made.append(Row.measured(label, returns[:, k], exact=exact, bounds=(0.0, 1.0)))
            gained = f"{title}: {name}: return, {after(name, returns.shape[1] - 1)} minus {after(name, 0)}"
            made.append(Row.measured(gained, returns[:, -1] - returns[:, 0]))
            if in_trials(name):
                lengths = at_the_end(of, name, "length")
                made += [Row.measured(f"{title}: {name}, {after(name, k)}: steps", x) for k, x in enumerate(lengths.T)]
    for flat in ("RL²", "MAML"):
        options = f"{flat} over options"
        if flat in of and options in of:
            for k, (ours, theirs) in enumerate(zip(at_the_end(of, options).T, at_the_end(of, flat).T)):
                label = f"claim: {title}, {options} minus {flat}, return, {after(flat, k)}"
                made.append(Row.measured(label, ours, theirs).judged("above 0"))
    made += [Row.computed(f"{title}: {OPTIMAL}, episode {k + 1}: return", x) for k, x in enumerate(optimum)]
    if KNOWING in of:
        made.append(Row.computed(f"{title}: {KNOWING}: return", float(of[KNOWING]["return"])))
    return made


def of_family(found: Found, title: str) -> dict[str, Any]:
    """What has been measured on a family, by learner or line."""
    return {name.removeprefix(f"{title}: "): x for name, x in found.items() if name.startswith(f"{title}: ")}


def in_trials(name: str) -> bool:
    return name == GREEDY or LEARNERS[name].experience == TRIAL


def after(name: str, k: int) -> str:
    """When the k-th return on a new task was measured."""
    if in_trials(name):
        return f"episode {k + 1}"
    return f"after {LEARNERS[name].experience[k]} episodes"


def at_the_end(of: Mapping[str, Any], name: str, measured: str = "return") -> np.ndarray:
    """Returns or lengths on a new task after training, [seeds, episodes of a trial or gradient steps]."""
    values = of[name][measured]
    return values if name == GREEDY else values[:, -1]


# Picture


def draw(found: Found) -> dict[str, Any]:
    """A column for each family. Above, return on a new task after training, against the episodes seen of it. Below,
    while learning, the last of these returns solid and the first dotted. Seeds thin, their mean thick."""
    shown = [title for title in FAMILIES if of_family(found, title)]
    figure, axes = subplots(2, len(shown), width=4.4)
    for (above, below), title in zip(axes.T, shown):
        of = of_family(found, title)
        for name, learner in LEARNERS.items():
            if name in of:
                returns = at_the_end(of, name)
                seeds_and_mean(above, learner.experience, returns, name)
                above.plot(learner.experience, returns.mean(axis=0), "o", color=colour(name))
                x, values = of[name]["env_steps"] / 1e6, of[name]["return"]
                seeds_and_mean(below, x, values[..., -1], name)
                seeds_and_mean(below, x, values[..., 0], name, "_first", ":")  # not in the legend
        if GREEDY in of:
            seeds_and_mean(above, TRIAL, at_the_end(of, GREEDY), GREEDY)
        if OPTIMAL in of:
            above.plot(TRIAL, of[OPTIMAL]["return"], "D:", color=BLACK, ms=4, label=OPTIMAL)
        if KNOWING in of:
            above.axhline(float(of[KNOWING]["return"]), color=BLACK, ls="--", lw=1, label=KNOWING)
        above.set_xscale("symlog", linthresh=2)
        ticks = sorted({*TRIAL, *ADAPTATION})
        above.set_xticks(ticks, [str(x) for x in ticks])
        above.minorticks_off()
        above.set(xlim=(-0.2, 75), ylim=(0, 1.03), title=title, xlabel="episodes seen of a new task")
        below.set(ylim=(0, 1.03), xlabel="million steps of training")
    axes[0, 0].set_ylabel("after training: share that reaches the goal")
    axes[1, 0].set_ylabel("while learning: last return, first dotted")
    legend_below(figure, axes[0], columns=7)
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
