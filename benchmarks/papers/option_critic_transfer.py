"""When the goal moves: Bacon, Harb & Precup, The Option-Critic Architecture (AAAI 2017), figure 2.

    python -m benchmarks.papers.option_critic_transfer                  # about twenty minutes on two cores
    python -m benchmarks.papers.option_critic_transfer --scale smoke    # about a minute, most of it compiling

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
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.four_rooms import FourRooms, moving_goal_tasks
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.flat import sarsa
from jaxrl_hier.hierarchical import option_critic_tabular as option_critic
from jaxrl_hier.reports.statistics import mean, median

MOVE = 1000  # episodes before the goal moves
LIMIT = 1000  # steps of an episode at most
AFTER = 100  # episodes after the move whose mean length is compared
RECOVERED, WINDOW = 50, 20
CHUNK = 2500  # steps between looks at whether all runs are done

Setting = dict[str, Any]  # numbers, traced where many settings are tried at once
TEMPERATURES = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Contender:
    """A method, the settings of the published code, and the grid that it is tuned over."""

    make: Callable[[Setting, int], Any]  # setting, episodes to record -> Config
    module: Any
    code: Setting
    grid: dict[str, tuple[float, ...]]

    def settings(self) -> list[Setting]:
        return [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]


def _option_critic(options: int) -> Contender:
    code = {"critic_step_size": 0.5, "policy_step_size": 0.25, "temperature": 0.01}
    grid = {"critic_step_size": (0.25, 0.5, 0.75), "policy_step_size": (0.05, 0.25, 1.0), "temperature": TEMPERATURES}
    if options > 1:  # one option alone: its termination changes nothing
        code["termination_step_size"] = 0.25
        grid["termination_step_size"] = (0.05, 0.25, 1.0)
    return Contender(
        make=lambda setting, record: option_critic.Config(num_options=options, recorded_episodes=record, **setting),
        module=option_critic,
        code=code,
        grid=grid,
    )


CONTENDERS = {
    "option-critic, 4 options": _option_critic(4),
    "option-critic, 8 options": _option_critic(8),
    "SARSA(0)": Contender(
        make=lambda setting, record: sarsa.Config(recorded_episodes=record, **setting),
        module=sarsa,
        code={"step_size": 0.5, "temperature": 0.01},
        grid={"step_size": (0.05, 0.1, 0.25, 0.5, 0.75), "temperature": (0.003, 0.01, 0.03, 0.1, 0.3)},
    ),
    "actor-critic": _option_critic(1),
}
OURS, BASELINES = list(CONTENDERS)[:2], list(CONTENDERS)[2:]


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: about a minute, to see that it runs"""
    runs: int = 350
    """independent runs of each contender"""
    tuning_runs: int = 16
    """independent runs of each setting that is tried"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Learned:
    lengths: np.ndarray  # [settings, runs, episodes] steps; LIMIT where the run was given up before
    steps: int  # of all runs together
    seconds: float
    compile_seconds: float


def main(arguments: Arguments) -> None:
    smoke = arguments.scale == "smoke"
    runs, tuning_runs = (8, 2) if smoke else (arguments.runs, arguments.tuning_runs)
    after, tuning_after = (150, 100) if smoke else (1000, 500)
    begun = time.perf_counter()
    parts, tuned, lengths, seconds = [], {}, {}, {}
    for name, contender in CONTENDERS.items():
        tried = learn(contender, contender.settings(), tuning_runs, MOVE + tuning_after, seed=1, most_steps=150_000)
        scores = tried.lengths[:, :, :MOVE].mean(axis=(1, 2)) + tried.lengths[:, :, MOVE:].mean(axis=(1, 2))
        tuned[name] = (contender.settings()[int(np.argmin(scores))], scores)
        sets = {"code": contender.code, "paper's T": contender.code | {"temperature": 0.001}, "tuned": tuned[name][0]}
        parts.append(tried)
        for which, setting in sets.items():
            parts.append(learn(contender, [setting], runs, MOVE + after, seed=0))
            lengths[which, name], seconds[f"{which}: {name}"] = parts[-1].lengths[0], parts[-1].seconds
            print(f"{name}, {which}: {parts[-1].seconds:.0f} s, {setting}", flush=True)
    wall = time.perf_counter() - begun

    rows = [row for which in ("code", "paper's T", "tuned") for row in rows_of(which, lengths, tuned)]
    picture(lengths, arguments.out / "option_critic_transfer.png")
    path = write_paper(
        "option_critic_transfer",
        "Bacon, Harb & Precup, The Option-Critic Architecture, AAAI 2017",
        "figure 2 (the goal moves)",
        rows,
        arguments.scale,
        arguments.out,
        runs=runs,
        episodes=MOVE + after,
        wall_seconds=wall,
        compile_seconds=sum(part.compile_seconds for part in parts),
        steps=sum(part.steps for part in parts),
        seconds=seconds,
        seconds_of_the_figure=sum(value for name, value in seconds.items() if name.startswith("code")),
        tuned={name: setting for name, (setting, _) in tuned.items()},
    )
    show(rows)
    print(f"{wall:.0f} s\n{path}")


def learn(
    contender: Contender, settings: list[Setting], runs: int, episodes: int, seed: int, most_steps: int = 2_000_000
) -> Learned:
    """`runs` runs of each setting in one program, until all have had their episodes or taken `most_steps`."""
    begun = time.perf_counter()
    env = FourRooms("option-critic")
    tasks = moving_goal_tasks(env, MOVE)
    keys = jax.random.split(jax.random.key(seed), len(settings) * runs)
    columns = {name: jnp.repeat(jnp.array([s[name] for s in settings]), runs) for name in settings[0]}

    def algorithm(setting: Any) -> Algorithm:
        return contender.module.make(contender.make(setting, episodes), env, tasks)

    def chunk(state: TrainState) -> TrainState:
        step = jax.vmap(lambda state, setting: algorithm(setting).step(state)[0])
        return jax.lax.fori_loop(0, CHUNK, lambda i, state: step(state, columns), state)

    state = jax.jit(jax.vmap(lambda setting, key: algorithm(setting).init(key)))(columns, keys)
    compiled = jax.jit(chunk, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - begun
    while int(jnp.min(state.memory.count)) < episodes and int(state.iteration[0]) < most_steps:
        state = compiled(state)
    lengths = np.asarray(state.memory.lengths).reshape(len(settings), runs, episodes)
    return Learned(
        lengths=np.where(lengths == 0, LIMIT, lengths),
        steps=int(state.iteration[0]) * len(keys),
        seconds=time.perf_counter() - begun - compile_seconds,
        compile_seconds=compile_seconds,
    )


# Rows


def recovery(lengths: np.ndarray) -> np.ndarray:
    """Episodes after the move until recovered [runs]; all of them where that did not happen."""
    after = lengths[:, MOVE:].astype(float)
    means = np.apply_along_axis(lambda x: np.convolve(x, np.ones(WINDOW) / WINDOW, "valid"), 1, after)
    good = means <= RECOVERED
    return np.where(good.any(axis=1), good.argmax(axis=1), after.shape[1])


def rows_of(which: str, lengths: dict[tuple[str, str], np.ndarray], tuned: dict[str, Any]) -> list[Row]:
    of = {name: lengths[which, name] for name in CONTENDERS}
    first = {name: x[:, MOVE : MOVE + AFTER].mean(axis=1) for name, x in of.items()}
    rows = []
    for name, x in of.items():
        setting = CONTENDERS[name].code | {"temperature": 0.001} if which == "paper's T" else CONTENDERS[name].code
        if which == "tuned":
            setting, scores = tuned[name]
        note = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in setting.items())
        if which == "tuned":
            note += f"; best of {len(scores)} settings, whose scores were {scores.min():.1f} to {scores.max():.1f}"
        parts = {
            f"{AFTER} episodes before the move": (x[:, MOVE - AFTER : MOVE].mean(axis=1), ""),
            f"{AFTER} episodes after the move": (first[name], note),
            f"last {AFTER} episodes": (x[:, -AFTER:].mean(axis=1), ""),
        }
        for part, (values, note) in parts.items():
            label = f"{which}: {name}, steps per episode, {part}"
            rows.append(Row.measured(label, values, unit="runs", note=note))
        needed = recovery(x)
        failed = int(np.sum(needed == x.shape[1] - MOVE))
        note = f"median; {failed} of {len(needed)} runs had not at the end" if failed else "median"
        label = f"{which}: {name}, episodes until recovered"
        rows.append(Row.measured(label, needed, statistic="median", unit="runs", note=note))
    for ours, baseline in itertools.product(OURS, BASELINES):
        label = f"{which}: claim: {ours} recovers before {baseline}"
        note = f"ratio of the mean steps per episode over the {AFTER} episodes after the move; below 1 as claimed"
        row = Row.measured(label, first[ours], first[baseline], statistic="ratio", unit="runs", note=note)
        rows.append(row.judged("below 1"))
    return rows


# Picture

COLORS = dict(zip(CONTENDERS, ("#1f6fb4", "#59a5d8", "#e8710a", "0.4")))
BIN = 5  # episodes per point


def picture(lengths: dict[tuple[str, str], np.ndarray], path: Path) -> None:
    """Above: means, as in the paper. Below: medians. The code's settings, and each contender's own."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    titles = {"code": "settings of the published code", "tuned": "each tuned over a grid"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 7.2), sharex=True, sharey=True)
        for column, (which, title) in zip(axes.T, titles.items()):
            for ax, statistic in zip(column, (mean, median)):
                for name, color in COLORS.items():
                    values = lengths[which, name].astype(float)
                    binned = values[:, : values.shape[1] // BIN * BIN].reshape(len(values), -1, BIN).mean(axis=2)
                    x = BIN * np.arange(binned.shape[1]) + (BIN + 1) / 2
                    found = [statistic(column, "runs") for column in binned.T]
                    ends = np.array([e.interval or (np.nan, np.nan) for e in found]).T
                    ax.fill_between(x, *ends, color=color, alpha=0.25, lw=0)
                    ax.plot(x, [e.value for e in found], color=color, lw=1.4, label=name)
                ax.axvline(MOVE, color="0.3", lw=0.9, ls="--")
                ax.set_yscale("log")
                ax.set_yticks([10, 20, 50, 100, 200, 500, 1000], ["10", "20", "50", "100", "200", "500", "1000"])
                ax.minorticks_off()
            column[0].set_title(title)
            column[1].set_xlabel("episode")
        axes[0, 0].set_ylabel("steps per episode, mean of the runs")
        axes[1, 0].set_ylabel("steps per episode, median of the runs")
        axes[0, 0].annotate(
            "the goal moves", (MOVE, 900), (-6, 0), textcoords="offset points", ha="right", va="top", fontsize=9
        )
        axes[0, 1].legend(loc="upper right", fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
