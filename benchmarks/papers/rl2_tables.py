"""RL² on bandits and random processes: Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning
(2016), tables 1 and 2, the column of RL².

Total reward of a trial, mean over 200 000 fresh tasks, actions drawn from the policy; 95 % over the seeds, all of which
play the same tasks (how far these may be off is in the notes), or over the tasks where there is one seed. Table 1:
Bernoulli bandits of k arms and n pulls. Table 2: random processes, n episodes of 10 steps. The opponents' cells are
`rl2_opponents`'.

The paper trains each cell for thousands of iterations of 250 000 steps and reports the best of five seeds. On two cores
a trial's batch is smaller, the hidden state has 64 numbers instead of 256, and Adam starts at 3e-3 instead of 1e-3 and
falls to zero over the training. γ is the paper's, and so is λ = 0.3; clipped ratios are what its code has instead of
the paper's TRPO (see `rl2`), and for 10 pulls the code's 5 epochs of minibatches of 128 whole trials. The GRU's
candidate is bounded by tanh. Every seed counts. `--scale gpu` has all cells with the paper's sizes, for 1000 iterations
and one seed; `--parts "MDP*"` chooses some.

Trials of 100 steps and more depart further, 100 pulls and random processes alike: 1024 trials at once in 4 epochs of
minibatches of 64, an entropy bonus that falls from 0.05 to zero, where paper and code have none, and a value head whose
output is multiplied by 10. For 100 pulls λ is 0.8 in place of 0.3, and the GRU the paper's, with a ReLU.

Verdicts: for 10 pulls "reached" is 98 % of Bayes-optimal play, which nothing may exceed by more than three standard
errors: that would be a learner that sees what it should not. Elsewhere it is the published value, a mean over 1000
tasks, up to the 95 % that such a mean is uncertain.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from jaxrl_hier import Run
from jaxrl_hier.building import built
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.exact.bandits import independent_value
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import mean_of_moments

from ..drawing import BLUE, GREEN, ORANGE, colour, curve, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import ROOT, Row
from ._rl2 import DUAN, pooled_deviation
from .rl2_opponents import ARMS, BELOW, EPISODES, FINITE, PILING, PULLS

BANDITS = {5: (6.7, 78.7, 401.6), 10: (6.7, 83.5, 432.5), 50: (6.8, 84.9, 438.9)}  # by arms, then pulls
PROCESSES = (156.2, 445.7, 936.1, 1428.8, 1913.7)
SHARE = 0.98  # of Bayes-optimal play
PUBLISHED_TASKS = 1000  # that a published mean is over
AT_ONCE = 1000  # fresh tasks side by side
POINTS = 100  # of a learning curve


@dataclass(frozen=True)
class Cell:
    """A cell of a table, and how it is trained."""

    env: str
    published: float
    iterations: int
    seeds: int
    settings: dict[str, Any] = field(default_factory=dict)


LONG = {"environments": 1024, "minibatch_size": 64, "epochs": 4, "value_scale": 10.0, "entropy_weight": 0.05}
PULLS_100 = LONG | {"gae_lambda": 0.8, "memory": "gru-relu"}
TRAINED_HERE: dict[str, tuple[int, int, dict[str, Any]]] = {  # iterations, seeds, settings: what two cores can do
    "k = 5, n = 10": (200, 3, {}),
    "k = 10, n = 10": (400, 3, {}),
    "k = 50, n = 10": (800, 3, {}),
    "k = 5, n = 100": (800, 2, PULLS_100),
    "k = 10, n = 100": (800, 1, PULLS_100),
    "k = 50, n = 100": (1200, 1, PULLS_100),
    "MDP, n = 10": (3000, 1, LONG | {"episodes_per_trial": 10}),
    "MDP, n = 25": (400, 1, LONG | {"episodes_per_trial": 25}),
}


def cells(scale: Scale) -> dict[str, Cell]:
    """All cells with the sizes of the paper, or those of TRAINED_HERE with its own."""
    found = {}
    for k in ARMS:
        for n, published in zip(PULLS, BANDITS[k]):
            found[f"k = {k}, n = {n}"] = Cell(f"bandit-n{n}-k{k}", published, 1000, 1, of_the_paper(n))
    for n, published in zip(EPISODES, PROCESSES):
        settings = of_the_paper(10 * n) | {"episodes_per_trial": n}
        found[f"MDP, n = {n}"] = Cell("tabular-mdp", published, 1000, 1, settings)
    if scale == "gpu":
        return found
    own = {}
    for name, (iterations, seeds, settings) in TRAINED_HERE.items():
        falling = {"learning_rate": 3e-3, "entropy_decay_iterations": iterations} | linear_over(iterations)
        own[name] = Cell(found[name].env, found[name].published, iterations, seeds, falling | settings)
    return own


def of_the_paper(steps: int) -> dict[str, Any]:
    """250 000 steps per iteration, rounded to whole minibatches, and 256 numbers in the hidden state."""
    return {
        "memory": "gru-relu",
        "memory_size": 256,
        "environments": 128 * round(250_000 / steps / 128),
        "remat_steps": 50 if steps >= 500 else 0,
    }


NAMES = (*(f"k = {k}, n = {n}" for k in ARMS for n in PULLS), *(f"MDP, n = {n}" for n in EPISODES))


def parts(scale: Scale) -> dict[str, Training]:
    known = cells(scale)
    if scale == "smoke":
        name, cell = next(iter(known.items()))
        small = cell.settings | {"environments": 128, "memory_size": 8, "epochs": 1, "eval_tasks": 50}
        known = {name: Cell(cell.env, cell.published, 4, 2, small)}
    return {name: training(cell, 100 if scale == "smoke" else 200_000) for name, cell in known.items()}


def training(cell: Cell, tasks: int) -> Training:
    """Logged POINTS times; kept, and so resumed, ten times less often."""
    every = max(1, cell.iterations // POINTS)
    points = max(1, cell.iterations // (10 * every))
    about: dict[str, Any] = {"curves": (), "logged": ("return", "steps_per_second"), "log_every": every}
    measure = partial(tested, count=tasks)
    settings = {"eval_tasks": 100} | cell.settings
    return Training(
        "rl2", settings, cell.iterations, cell.env, points=points, measure=measure, seeds=cell.seeds, **about
    )


def tested(run: Run, count: int) -> dict[str, np.ndarray]:
    """Mean and deviation over `count` fresh tasks of the total reward of a trial, [seeds]; the same tasks for all."""
    at_once = min(AT_ONCE, count)
    evaluate = built(run.name, replace(run.config, eval_tasks=at_once), run.env, run.tasks).evaluate
    play = jit(lambda state, key: evaluate(state, key)["trial_return"].values)
    keys = jax.random.split(jax.random.key(2**31 - 1), -(-count // at_once))  # no seed of a training
    totals = []
    for i in range(run.settings.seeds):
        state = jax.tree.map(lambda x, i=i: x[i], run.state)
        totals.append(np.concatenate([jax.device_get(play(state, key)) for key in keys])[:count])
    return {
        "mean": np.mean(totals, axis=1, dtype=np.float64),
        "deviation": np.std(totals, axis=1, ddof=1, dtype=np.float64),
        "tasks": np.full(len(totals), count),
    }


@cache
def optimum(name: str) -> float | None:
    """Of Bayes-optimal play, where it is known."""
    return next((independent_value(k, 10) for k in ARMS if name == f"k = {k}, n = 10"), None)


@cache
def opponents() -> dict[str, dict[str, float]]:
    """Cell -> opponent -> total reward, as published by `rl2_opponents`; those of the paper and the best known play."""
    found: dict[str, dict[str, float]] = {}
    for row in json.loads((ROOT / "papers" / "rl2_opponents.json").read_text())["rows"]:
        name, _, opponent = row["label"].partition(": ")
        if opponent != PILING and (row.get("published") is not None or opponent == FINITE):
            found.setdefault(name, {})[opponent] = row["ours"]
    return found


# Rows


def rows(found: Found) -> list[Row]:
    return [cell_row(name, found[name]) for name in NAMES if name in found]


def cell_row(name: str, measured: Measured) -> Row:
    """Ours beside the published value, and Bayes-optimal play where it is known."""
    means, count, published, exact = measured["mean"], int(measured["tasks"][0]), published_value(name), optimum(name)
    mean, deviation = float(means.mean()), pooled_deviation(means, measured["deviation"], count)
    shared = mean_of_moments(mean, deviation, count, "tasks").interval
    assert shared is not None
    if len(means) > 1:
        row = Row.measured(f"{name}: RL²", means, published=published, exact=exact)
    else:
        moments = mean, deviation, count, "tasks of the one seed"
        row = Row.summarised(f"{name}: RL²", *moments, published=published, exact=exact)
    row.published_interval = mean_of_moments(published, deviation, PUBLISHED_TASKS, "tasks").interval
    seconds = seconds_at(measured)
    off = f"± {np.ptp(shared) / 2:.3f}, 95 %"
    notes = [
        f"{count:,} fresh tasks, the same for each seed, by which all may be off together: {off}",
        f"{measured['env_steps'][-1] / 1e6:.1f} million steps and {seconds[:, -1].mean():.0f} s of training each",
        f"published interval from the spread of a task and the paper's {PUBLISHED_TASKS} tasks",
    ]
    if exact:
        above = bool((means > exact + 3 * deviation / count**0.5).any())
        row.verdict = "reached" if mean >= SHARE * exact and not above else "short"
        notes.append(f"{100 * mean / exact:.1f} % of Bayes-optimal play")
        there = measured["logged return"] >= SHARE * exact
        if there.any(axis=1).all():
            taken = np.take_along_axis(seconds, there.argmax(axis=1)[:, None], 1)[:, 0]
            notes.append("98 % of it after " + ", ".join(f"{s:.0f}" for s in taken) + " s of training")
        if above:
            notes.append("above what is possible")
    else:
        row.judged()
    if others := opponents().get(name):
        best = max(others, key=lambda o: others[o])
        notes.append(f"best opponent: {best}, {others[best]:.2f}")
        better = [o for o in others if others[o] > mean]
        notes.append(f"below {', '.join(better)}" if better else "above all opponents")
    row.note = "; ".join(notes)
    return row


def published_value(name: str) -> float:
    return cells("gpu")[name].published


def seconds_at(measured: Measured) -> np.ndarray:
    """Seconds of training at each logged row, [seeds, rows]: the share of one seed, where several train together."""
    steps = np.diff(measured["logged env_steps"], prepend=0)
    return np.cumsum(steps / measured["logged steps_per_second"], axis=1)


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Learning curves: a panel for 10 pulls, in shares of Bayes-optimal play, and one for each other cell."""
    short = [name for name in NAMES if name in found and optimum(name)]
    others = [name for name in NAMES if name in found and not optimum(name)]
    count = bool(short) + len(others)
    figure, axes = subplots(-(-count // 4), min(count, 4), width=5.2, height=5.0)
    panels = iter(axes.ravel())
    if short:
        bandits(next(panels), {name: found[name] for name in short})
    for name in others:
        compared(next(panels), name, found[name])
    for empty in panels:
        empty.set_axis_off()
    return {"": figure}


def bandits(ax: Any, found: Found) -> None:
    """10 pulls, a colour for each number of arms."""
    for (name, measured), color in zip(found.items(), (BLUE, ORANGE, GREEN)):
        percent, arms = 100 / (optimum(name) or 1.0), name.split(",")[0]
        steps = measured["logged env_steps"] / 1e6
        curve(ax, steps, percent * measured["logged return"], "RL²", color=color, label=f"RL², {arms}")
        if others := opponents().get(name):
            best = max(others, key=lambda o: others[o])
            ax.axhline(others[best] * percent, color=color, lw=1, ls=":", label=f"best opponent, {arms}: {best}")
    ax.axhline(100, color="black", lw=1.2, ls="--", label="Bayes-optimal play, exact")
    ax.set(ylim=(84, 102), ylabel="total reward, % of Bayes-optimal play", title="10 pulls of k arms")
    ax.set(xlabel="million environment steps", xlim=(0, None))
    ax.legend(**BELOW)


def compared(ax: Any, name: str, measured: Measured) -> None:
    """A cell's learning curve beside the opponents' totals, lines from the best to the worst."""
    returns = measured["logged return"]
    label = f"RL², in training; tested {measured['mean'].mean():.1f}"
    curve(ax, measured["logged env_steps"] / 1e6, returns, "RL²", label=label)
    published, others = published_value(name), dict(opponents().get(name, {}))
    low = others.pop("random", returns.min())
    lines = {"RL², published": published} | others
    for label, value in sorted(lines.items(), key=lambda line: -line[1]):
        opponent, _, theirs = label.partition(", ")
        look: dict[str, Any] = {"color": colour(opponent), "ls": "--" if theirs else "-", "lw": 1.2}
        ax.axhline(value, label=f"{label}: {value:.1f}", **look)
    high = max(lines.values())
    ax.set(ylim=(low, high + 0.06 * (high - low)), ylabel="total reward of a trial", title=name)
    ax.set(xlabel="million environment steps", xlim=(0, None))
    ax.legend(**BELOW)


FIGURE = Figure(
    name="rl2_tables",
    paper=DUAN,
    shows="tables 1 and 2, RL²",
    parts=parts,
    rows=rows,
    draw=draw,
)
