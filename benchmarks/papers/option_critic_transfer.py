"""When the goal moves: Bacon, Harb & Precup, The Option-Critic Architecture (AAAI 2017), figure 2.

Steps per episode of 350 runs of 2000 episodes in four rooms with the published code's dynamics. The goal is the east
hallway for 1000 episodes, then a random cell of the lower right room (each run its own) for good. Option-critic with 4
and 8 options, the primitive actor-critic (the same updates with one option) and SARSA(0), all with Boltzmann policies.

The paper prints no numbers; its claim is that option-critic recovers faster than both baselines, and that is what the
verdicts are about. Each contender is run three times:

- "code": the settings in the README of the published code (α = .5, α_θ = α_ϑ = .25, T = .01).
- "paper's T": the same with the temperature that the text has, T = .001.
- "tuned": the best of a grid over step sizes and temperature for each contender, by its steps per episode on other
  seeds: the mean over the 1000 episodes before the move plus the mean over the 500 after it. The published baselines'
  step sizes are not known, and a comparison of one tuned method with others that are not would mean little.

"Recovered" after n episodes: the mean of episodes n + 1 … n + 20 after the move is at most 50 steps.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jaxrl_envs.four_rooms import FourRooms, moving_goal_tasks
from jaxrl_hier.engine.types import Algorithm
from jaxrl_hier.flat import sarsa
from jaxrl_hier.hierarchical import option_critic_tabular as option_critic
from jaxrl_hier.reports.statistics import mean, median

from ..drawing import colour, legend_below, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import Runs

MOVE = 1000  # episodes before the goal moves
LIMIT = 1000  # steps of an episode at most
AFTER = 100  # episodes after the move whose mean length is compared
RECOVERED, WINDOW = 50, 20
LOOK = 2500  # steps between looks at which runs are done
WHICH = {"code": "settings of the published code", "paper's T": "the paper's temperature", "tuned": "each tuned"}

Setting = dict[str, float]
TEMPERATURES = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Contender:
    """A method, the settings of the published code, and the grid that it is tuned over."""

    module: Any
    fixed: dict[str, int]
    code: Setting
    grid: dict[str, tuple[float, ...]]

    def settings(self) -> list[Setting]:
        return [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]

    def maker(self, move: int, episodes: int) -> Callable[..., Algorithm]:
        """An algorithm from a setting, on goals that move after so many episodes."""
        env = FourRooms("option-critic")

        def make(**setting: Any) -> Algorithm:
            config = self.module.Config(recorded_episodes=episodes, **self.fixed, **setting)
            return self.module.make(config, env, moving_goal_tasks(env, move))

        return make


def _option_critic(options: int) -> Contender:
    code = {"critic_step_size": 0.5, "policy_step_size": 0.25, "temperature": 0.01}
    grid = {"critic_step_size": (0.25, 0.5, 0.75), "policy_step_size": (0.05, 0.25, 1.0), "temperature": TEMPERATURES}
    if options > 1:  # one option alone: its termination changes nothing
        code["termination_step_size"] = 0.25
        grid["termination_step_size"] = (0.05, 0.25, 1.0)
    return Contender(option_critic, {"num_options": options}, code, grid)


CONTENDERS = {
    "option-critic, 4 options": _option_critic(4),
    "option-critic, 8 options": _option_critic(8),
    "SARSA(0)": Contender(
        module=sarsa,
        fixed={},
        code={"step_size": 0.5, "temperature": 0.01},
        grid={"step_size": (0.05, 0.1, 0.25, 0.5, 0.75), "temperature": (0.003, 0.01, 0.03, 0.1, 0.3)},
    ),
    "actor-critic": _option_critic(1),
}
OURS, BASELINES = list(CONTENDERS)[:2], list(CONTENDERS)[2:]


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    found: dict[str, Any] = {}
    about: dict[str, Any] = {"move": 100 if smoke else MOVE, "after": 120 if smoke else 1000}
    for name in ["SARSA(0)"] if smoke else CONTENDERS:
        settings = CONTENDERS[name].settings()[6:8] if smoke else CONTENDERS[name].settings()
        tuning = about | {"contender": name, "settings": settings, "after": 50 if smoke else 500}
        found[f"tuning: {name}"] = Computation(tune, tuning, seeds=2 if smoke else 16, first_seed=10_000)
        code = CONTENDERS[name].code
        for which, setting in {"code": code, "paper's T": code | {"temperature": 0.001}}.items():
            found[f"{which}: {name}"] = run_of(about | {"contender": name, "setting": setting})
        found[f"tuned: {name}"] = partial(tuned_part, name=name, about=about)
    return {name: part for name, part in found.items() if not (smoke and name.startswith("paper's"))}


def run_of(arguments: dict[str, Any]) -> Computation:
    return Computation(learn, arguments, shared=("edges", "move"))


def tuned_part(found: Found, name: str, about: dict[str, Any]) -> Computation | None:
    tuning = found.get(f"tuning: {name}")
    return None if tuning is None else run_of(about | {"contender": name, "setting": chosen(tuning, name)})


def chosen(tuning: Measured, contender: str) -> Setting:
    """The setting with the fewest steps."""
    best = tuning["setting"][0, scores(tuning).argmin()]
    return dict(zip(CONTENDERS[contender].grid, best.tolist()))


def scores(tuning: Measured) -> np.ndarray:
    """Of each setting."""
    return tuning["before"].mean(axis=0) + tuning["after"].mean(axis=0)


def lengths_of(runs: Runs, episodes: int, most: float = 2_000_000) -> np.ndarray:
    """Steps of the episodes of all runs, [seeds, settings, episodes]; LIMIT where a run was given up before."""
    lengths = runs.by_seed(runs.until(episodes, LOOK, most).memory.lengths)[:, :, 0]
    return np.where(lengths == 0, LIMIT, lengths)


def tune(seeds: Sequence[int], contender: str, settings: list[Setting], move: int, after: int) -> dict[str, Any]:
    """Mean steps per episode "before" and "after" the move, [seeds, settings]; each "setting" [seeds, settings, …]."""
    runs = Runs(CONTENDERS[contender].maker(move, move + after), settings, seeds)
    lengths = lengths_of(runs, move + after, most=150_000)
    tried = np.tile([[*setting.values()] for setting in settings], (len(seeds), 1, 1))
    means = {"before": lengths[:, :, :move].mean(axis=2), "after": lengths[:, :, move:].mean(axis=2)}
    return means | {"setting": tried, "compile_seconds": runs.compile_seconds}


def learn(seeds: Sequence[int], contender: str, setting: Setting, move: int, after: int) -> dict[str, Any]:
    """With one setting.

    Returns:
        Mean steps per episode [seeds], "before" and "after" the move and "last", AFTER episodes each; "recovered"
        [seeds], episodes after the move until recovered, and whether that "failed" [seeds]; "steps" [seeds, stretches],
        sums over stretches of episodes that end at "edges"; "move" [].
    """
    runs = Runs(CONTENDERS[contender].maker(move, move + after), [setting], seeds)
    lengths = lengths_of(runs, move + after)[:, 0]
    means = np.apply_along_axis(np.convolve, 1, lengths[:, move:], np.ones(WINDOW) / WINDOW, "valid")
    good = means <= RECOVERED
    edges = stretches(move, move + after)
    return {
        "before": lengths[:, move - AFTER : move].mean(axis=1),
        "after": lengths[:, move : move + AFTER].mean(axis=1),
        "last": lengths[:, -AFTER:].mean(axis=1),
        "recovered": np.where(good.any(axis=1), good.argmax(axis=1), after),
        "failed": ~good.any(axis=1),
        "steps": np.add.reduceat(lengths, edges[:-1], axis=1).astype(np.uint16),
        "edges": edges,
        "move": np.array(move),
        "compile_seconds": runs.compile_seconds,
    }


def stretches(move: int, episodes: int) -> np.ndarray:
    """Where stretches of episodes begin and end: of 5 in the first 50 of either goal, then of 50."""
    phase = [*range(0, 50, 5), *range(50, episodes, 50)]
    return np.unique([*(e for e in phase if e < move), *(move + e for e in phase if move + e < episodes), episodes])


# Rows


def rows(found: Found) -> list[Row]:
    made = []
    for which in WHICH:
        there = {name: found[f"{which}: {name}"] for name in CONTENDERS if f"{which}: {name}" in found}
        for name, measured in there.items():
            made += contender_rows(which, name, measured, found.get(f"tuning: {name}"))
        for ours, baseline in itertools.product(OURS, BASELINES):
            if ours in there and baseline in there:
                label = f"{which}: claim: {ours} recovers before {baseline}"
                first = there[ours]["after"], there[baseline]["after"]
                row = Row.measured(label, *first, statistic="ratio", unit="runs")
                row.note = f"ratio of the mean steps per episode over the {AFTER} episodes after the move; below 1 as "
                row.note += "claimed"
                made.append(row.judged("below 1"))
    return made


def contender_rows(which: str, name: str, measured: Measured, tuning: Measured | None) -> list[Row]:
    setting = CONTENDERS[name].code | ({"temperature": 0.001} if which == "paper's T" else {})
    if which == "tuned" and tuning is not None:
        setting = chosen(tuning, name)
    note = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in setting.items())
    if which == "tuned" and tuning is not None:
        tried = scores(tuning)
        note += f"; best of {len(tried)} settings, whose scores were {tried.min():.1f} to {tried.max():.1f}"
    made = []
    for array, text, about in (
        ("before", f"{AFTER} episodes before the move", ""),
        ("after", f"{AFTER} episodes after the move", note),
        ("last", f"last {AFTER} episodes", ""),
    ):
        label = f"{which}: {name}, steps per episode, {text}"
        made.append(Row.measured(label, measured[array], unit="runs", note=about))
    failed, needed = int(measured["failed"].sum()), measured["recovered"]
    note = f"median; {failed} of {len(needed)} runs had not at the end" if failed else "median"
    label = f"{which}: {name}, episodes until recovered"
    return [*made, Row.measured(label, needed, statistic="median", unit="runs", note=note)]


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Above: means, as in the paper. Below: medians. The code's settings, and each contender's own."""
    figure, axes = subplots(2, 2, figsize=(11, 7.2), sharex=True, sharey=True)
    move = next((measured["move"] for measured in found.values() if "move" in measured), MOVE)
    for column, which in zip(axes.T, ("code", "tuned")):
        for ax, statistic in zip(column, (mean, median)):
            for name in CONTENDERS:
                if measured := found.get(f"{which}: {name}"):
                    edges = measured["edges"]
                    values = measured["steps"] / np.diff(edges)
                    estimates = [statistic(stretch, "runs") for stretch in values.T]
                    ends = np.array([e.interval or (np.nan, np.nan) for e in estimates]).T
                    middle = (edges[:-1] + 1 + edges[1:]) / 2
                    ax.fill_between(middle, *ends, color=colour(name), alpha=0.25, lw=0)
                    ax.plot(middle, [e.value for e in estimates], color=colour(name), lw=1.4, label=name)
            ax.axvline(move, color="0.3", lw=0.9, ls="--", label="the goal moves")
            ax.set_yscale("log")
            ax.set_yticks([10, 20, 50, 100, 200, 500, 1000], ["10", "20", "50", "100", "200", "500", "1000"])
            ax.minorticks_off()
        column[0].set_title(WHICH[which])
        column[1].set_xlabel("episode")
    axes[0, 0].set_ylabel("steps per episode, mean of the runs")
    axes[1, 0].set_ylabel("steps per episode, median of the runs")
    legend_below(figure, axes[0, 0], columns=5)
    return {"": figure}


def about(found: Found) -> dict[str, Any]:
    tunings = {name: found[f"tuning: {name}"] for name in CONTENDERS if f"tuning: {name}" in found}
    return {"tuned": {name: chosen(tuning, name) for name, tuning in tunings.items()}}


FIGURE = Figure(
    name="option_critic_transfer",
    paper="Bacon, Harb & Precup, The Option-Critic Architecture, AAAI 2017",
    shows="figure 2 (the goal moves)",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=350,
    threads=2,
    minutes=22,
    about=about,
)
