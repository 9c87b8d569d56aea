"""Which adapter when? MAML, RL² and PEARL on the same tasks, dense and sparse 2-D navigation.

PEARL's two point robots (Rakelly et al., 2019): 80 goals to train on, 20 for the test, episodes of 20 steps. What is
the return of an episode after so many steps on a test task, and how many steps of meta-training did that take?

MAML takes a gradient step for each 10 episodes of the test task (200 steps); RL² plays 11 episodes with one hidden
state; PEARL infers a belief before each episode, after the first (dense) or the first five (sparse, as published) with
z from the prior. MAML and RL² are tested with actions drawn, as in training; PEARL with the mean action, as published.

Goals are hidden. Dense: the reward is minus the distance. Sparse: 1 − distance within 0.2 of the goal, else 0. PEARL's
losses, and they alone, see the distance in the sparse task too, which is how it was published; "PEARL, sparse losses"
goes without. Nothing was tuned systematically. MAML has its published settings for 2-D navigation, with half of the
trajectories (with Adam instead of TRPO it got worse in the course of 1000 iterations); PEARL its preset; RL² was given
a memory of its own for the value and a scale of values after a short trial on the dense task in which it did not learn.
These trials, and those from which PEARL's preset comes, were judged on the same test goals: a seed each, none hidden.
"""

from typing import Any

import numpy as np

from jaxrl_envs.point_robot import (
    STEPS,
    TRAINED,
    SparsePointRobot,
    best_return,
    half_circle_goals,
    point_robot_tasks,
    square_goals,
)

from ..drawing import curve, legend_below, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row

BUDGET = 200  # steps on a test task at which meta-training is compared
GOALS = {"dense": square_goals(), "sparse": half_circle_goals()}
BEST = {kind: float(best_return(goals[TRAINED:], sparse=kind == "sparse").mean()) for kind, goals in GOALS.items()}
MAML = {"episodes_per_task": 10, "fisher_episodes": None, "eval_tasks": 20, "eval_episodes": 10}
RL2: dict[str, Any] = {
    "episodes_per_trial": 11,
    "memory_size": 64,
    "environments": 128,
    "minibatch_size": 32,
    "epochs": 4,
    "discount": 0.99,
    "gae_lambda": 0.9,
    "clip": 0.2,
    "learning_rate": 1e-3,
    "value_scale": 50.0,
    "eval_tasks": 20,
}
# after one episode with z from the prior where every step tells where the goal is
PEARL = {"dense": {"eval_exploration_episodes": 1}, "sparse": {"eval_exploration_episodes": 5}}
SMALL = {"environments": 32, "memory_size": 8, "epochs": 1}
# kind of task, adapter -> algorithm, settings, iterations, points of a curve
ADAPTERS: dict[tuple[str, str], tuple[str, dict[str, Any], int, int]] = {
    ("dense", "MAML"): ("maml", MAML, 100, 20),
    ("dense", "RL²"): ("rl2", RL2, 240, 20),
    ("dense", "PEARL"): ("pearl", PEARL["dense"], 180, 20),
    ("sparse", "MAML"): ("maml", MAML, 100, 20),
    ("sparse", "RL²"): ("rl2", RL2, 240, 20),
    ("sparse", "PEARL"): ("pearl", PEARL["sparse"], 200, 20),
    ("sparse", "PEARL, sparse losses"): ("pearl", PEARL["sparse"], 147, 21),
}
NAMES = ("MAML", "RL²", "PEARL", "PEARL, sparse losses")


def parts(scale: Scale) -> dict[str, Training]:
    found = {}
    for (kind, name), (algorithm, settings, iterations, points) in ADAPTERS.items():
        env: Any = "point-robot" if kind == "dense" else "sparse-point-robot"
        if name == "PEARL, sparse losses":
            env = SparsePointRobot(shaped=False), point_robot_tasks(GOALS[kind])
        if scale == "smoke":
            if (kind, name) != ("dense", "RL²"):
                continue
            settings, iterations, points = settings | SMALL, 2, 2
        about: dict[str, Any] = {"points": points, "from_start": scale != "smoke"}
        found[f"{kind}, {name}"] = Training(algorithm, settings, iterations, env, **about)
    return found


def of_kind(found: Found, kind: str) -> dict[str, Measured]:
    """What has been measured on one kind of task, by adapter."""
    return {name: found[f"{kind}, {name}"] for name in NAMES if f"{kind}, {name}" in found}


def trained(measured: Measured) -> np.ndarray:
    """Environment steps of meta-training at each point of a curve, [points]."""
    settings = measured.about["identity"]["settings"]
    # what PEARL plays before its first iteration does not count as an iteration's
    before = settings["initial_steps"] * TRAINED if "initial_steps" in settings else 0
    return before + measured["env_steps"]


def tested(measured: Measured) -> list[int]:
    """Steps on the test task before the episodes whose returns are known."""
    settings = measured.about["identity"]["settings"]
    each = STEPS * settings["eval_episodes"] if "inner_steps" in settings else STEPS
    return [each * k for k in range(measured["return"].shape[-1])]


def at_budget(measured: Measured) -> np.ndarray:
    """Return after BUDGET steps on the test task, [seeds, points]."""
    budgets = tested(measured)
    return measured["return"][..., budgets.index(min(BUDGET, budgets[-1]))]


# Rows


def rows(found: Found) -> list[Row]:
    return [row for kind in GOALS for row in rows_of_kind(kind, of_kind(found, kind))]


def rows_of_kind(kind: str, adapted: dict[str, Measured]) -> list[Row]:
    made = []
    # dense returns have no lower bound
    inside: Any = {"statistic": "mean inside", "bounds": (0.0, BEST[kind])} if kind == "sparse" else {}
    for name, x in adapted.items():
        budgets = tested(x)
        for budget in sorted({0, STEPS, 5 * STEPS, BUDGET, budgets[-1]} & set(budgets)):
            values = x["return"][:, -1, budgets.index(budget)]
            row = Row.measured(f"{kind}, {name}: return after {budget} steps on the task", values, **inside)
            row.exact = BEST[kind]
            made.append(row.judged())
        made.append(halfway_row(f"{kind}, {name}: steps of meta-training to half of the way", x, kind, adapted))
    return made


def halfway_row(label: str, x: Measured, kind: str, adapted: dict[str, Measured]) -> Row:
    half, whole = halfway(x, kind, adapted), float(trained(x)[-1])
    row = Row.measured(label, np.minimum(half, whole), statistic="mean inside", bounds=(0.0, whole))
    row.note = f"to the mean of the untrained and the best possible return, after {BUDGET} steps on the task"
    if never := int(np.isinf(half).sum()):
        row.verdict = "short"
        row.note += f"; {never} of {len(half)} seeds never, and count with the whole training"
    return row


def halfway(x: Measured, kind: str, adapted: dict[str, Measured]) -> np.ndarray:
    """For each seed the steps of meta-training after which the return at BUDGET is half of the way to the optimum; ∞ if
    it never is. The way begins at the mean of what the untrained adapters reach."""
    start = np.mean([at_budget(other)[:, 0].mean() for other in adapted.values()])
    there = at_budget(x) >= (start + BEST[kind]) / 2
    return np.where(there.any(axis=1), trained(x)[np.argmax(there, axis=1)], np.inf)


def about(found: Found) -> dict[str, Any]:
    """When should I use which: the adapters by mean return, for each budget."""
    lines = []
    for kind in GOALS:
        adapted = of_kind(found, kind)
        for budget in (0, STEPS, 5 * STEPS, BUDGET):
            able = {name: x for name, x in adapted.items() if budget in tested(x)}
            scores = {name: x["return"][:, -1, tested(x).index(budget)].mean() for name, x in able.items()}
            lines += [f"{kind}, {budget} steps on the task: {ranked(scores)}"] if scores else []
        for steps in (100_000, 300_000, 1_000_000):
            able = {name: x for name, x in adapted.items() if trained(x)[-1] >= steps}
            at = lambda x, steps=steps: at_budget(x)[:, np.flatnonzero(trained(x) <= steps)[-1]].mean()
            scores = {name: at(x) for name, x in able.items()}
            title = f"{kind}, at most {steps:,} steps of meta-training, {BUDGET} on the task"
            lines += [f"{title}: {ranked(scores)}"] if scores else []
    costs = {name: {"environment_steps_of_each_seed": int(trained(x)[-1])} for name, x in found.items()}
    return {"which": lines, "costs": costs}


def ranked(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {score:.1f}" for name, score in sorted(scores.items(), key=lambda item: -item[1]))


# Picture


def draw(found: Found) -> dict[str, Any]:
    """A row for each kind of task: return by steps on a test task, and by steps of meta-training."""
    figure, axes = subplots(2, 2, width=5.2, height=3.8, sharey="row")
    for (left, right), kind in zip(axes, GOALS):
        for name, x in of_kind(found, kind).items():
            curve(left, tested(x), x["return"][:, -1], name, marker="o", ms=4)
            curve(right, np.maximum(trained(x), 1_000), at_budget(x), name)
        for ax in (left, right):
            ax.axhline(BEST[kind], color="black", lw=1.1, ls="--", label="best possible")
        left.set(title=f"{kind} reward: at the end of meta-training", ylabel="return of an episode, test goals")
        left.set(xlabel="steps on the test task before")
        left.set_xscale("symlog", linthresh=STEPS)
        left.set_xticks([0, 20, 100, 200, 600], ["0", "20", "100", "200", "600"])
        left.set_xlim(-3, None)
        right.set(xscale="log", xlabel="environment steps of meta-training")
        right.set_title(f"{kind} reward: after {BUDGET} steps on the test task")
    legend_below(figure, axes[:, 0], 5)
    return {"": figure}


FIGURE = Figure(
    name="adapters",
    paper="Finn et al. 2017 (MAML), Duan et al. 2016 (RL²), Rakelly et al. 2019 (PEARL)",
    shows="the three adapters on the same tasks: return by steps on a test task and by steps of meta-training",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=3,
    about=about,
)
