"""RL³ beside RL² on random processes: Bhatia, Nashed & Zilberstein, RL³: Boosting meta reinforcement learning via RL
inside RL² (2023), on table 2 of Duan et al. (RL², 2016): n = 10 and, from some 50 million steps, n = 25 and n = 50.

RL³ also sees estimates of the task's action values, from value iteration on what was counted in the trial
(`jaxrl_envs.estimating_trial`). What is that worth? Both learn from the same number of steps with the same settings,
those of `rl2_tables` for this cell; total reward of a trial over 200 000 fresh tasks, the same for both, actions drawn
from the policy, one seed each. The published value is RL²'s, which the paper trained for some 250 million steps.

RL³ has one sweep of value iteration, with which Q̂ is the mean reward of each action in the state that is seen. The
number was chosen on another seed among 1, 2, 3, 5, 10 and 20, of which each was worth less than the one before it after
20 million steps.
"""

from typing import Any

import numpy as np

from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import mean_of_moments

from ..drawing import BLUE, GREY, VERMILION, curve, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row
from .rl2_tables import LONG, PUBLISHED_TASKS, Cell, published_value, training

CELL = "MDP, n = 10"
ITERATIONS = 1500  # n = 10
EARLY = 15  # of a hundred logged rows
RL3, RL2 = "RL³", "RL²"
LEARNERS: dict[str, dict[str, Any]] = {RL3: {"value_sweeps": 1}, RL2: {}}
LONGER = {f"{name}, n = {n}": (name, n, iterations) for n, iterations in ((25, 200), (50, 100)) for name in LEARNERS}


def parts(scale: Scale) -> dict[str, Training]:
    if scale == "smoke":
        return {name: trained(4, own | SMALL, 2, tasks=100) for name, own in LEARNERS.items()}
    found = {name: trained(ITERATIONS, own, 1, tasks=200_000) for name, own in LEARNERS.items()}
    for name, (learner, n, iterations) in LONGER.items():
        found[name] = trained(iterations, LEARNERS[learner] | {"episodes_per_trial": n}, 1, tasks=20_000)
    return found


SMALL = {"environments": 128, "memory_size": 8, "epochs": 1, "eval_tasks": 50}


def trained(iterations: int, own: dict[str, Any], seeds: int, tasks: int) -> Training:
    """A learner with its own settings, and those that all share."""
    shared = {"learning_rate": 3e-3, "entropy_decay_iterations": iterations, "episodes_per_trial": 10}
    shared |= LONG | linear_over(iterations)
    return training(Cell("tabular-mdp", published_value(CELL), iterations, seeds, shared | own), tasks)


def rows(found: Found) -> list[Row]:
    made = [of(name, found[name]) for name in LEARNERS if name in found]
    made += [of(name, found[name], f"MDP, n = {n}") for name, (_, n, _) in LONGER.items() if name in found]
    if RL3 in found and RL2 in found:
        gain = float(found[RL3]["mean"].mean() - found[RL2]["mean"].mean())
        made.append(Row.computed(f"{RL3} less {RL2}, one seed each", gain))
    return made + [early(name, found[name]) for name in LEARNERS if name in found]


def of(name: str, measured: Measured, cell: str = CELL) -> Row:
    """Total reward beside RL²'s published one of a cell."""
    mean, deviation, count = (float(measured[key].mean()) for key in ("mean", "deviation", "tasks"))
    published = published_value(cell)
    row = Row.summarised(name, mean, deviation, int(count), "tasks of the one seed", published=published)
    row.published_interval = mean_of_moments(published, deviation, PUBLISHED_TASKS, "tasks").interval
    row.note = f"{measured['env_steps'][-1] / 1e6:.1f} million steps, {measured.seconds / 60:.0f} min of training"
    return row.judged()


def early(name: str, measured: Measured) -> Row:
    """Total reward of trials in training, after few steps."""
    at = min(EARLY, len(measured["logged env_steps"])) - 1
    steps = measured["logged env_steps"][at] / 1e6
    return Row.computed(
        f"{name}, in training, after {steps:.0f} million steps", measured["logged return"][:, at].mean()
    )


def draw(found: Found) -> dict[str, Any]:
    """Return of a trial in training against steps."""
    figure, ((ax,),) = subplots(width=6.0)
    for name, color in zip(LEARNERS, (BLUE, VERMILION)):
        if name in found:
            measured = found[name]
            label = f"{name}, in training; tested {np.mean(measured['mean']):.1f}"
            curve(ax, measured["logged env_steps"] / 1e6, measured["logged return"], name, label=label, color=color)
    published = published_value(CELL)
    ax.axhline(published, color=GREY, ls="--", label=f"RL², published: {published}")
    ax.set(xlabel="million environment steps", ylabel="total reward of a trial", title="random processes, ten episodes")
    ax.legend(loc="lower right")
    return {"": figure}


FIGURE = Figure(
    name="rl3_processes",
    paper="Bhatia, Nashed & Zilberstein, RL³: Boosting meta RL via RL inside RL², 2023",
    shows="total reward on random processes, with and without estimates of action values",
    parts=parts,
    rows=rows,
    draw=draw,
)
