"""Option-critic with a network, on four rooms and on three of gymnax's environments, with one set of settings.

    python -m benchmarks.papers.option_critic_network            # 5 seeds, about ten minutes on two cores
    python -m benchmarks.papers.option_critic_network --scale smoke

Bacon, Harb & Precup (2017) and Harb et al. (2018) print results for Atari only, which is not run here. What is held to
something: four rooms to the fewest expected steps, computed exactly; CartPole and Acrobot to the returns at which Gym's
registry calls them solved, 475 and −100 (from memory). MinAtar's Breakout has no target. Evaluations play 64 episodes
per seed: best option, most probable action, terminations drawn.

Beside the four options of the defaults: one option, which is an advantage actor-critic; Acrobot without the scale of
the value head; and four rooms with other deliberation costs ξ. How the options are used stands in the rows and in the
pictures, collapse included.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

import jaxrl_envs
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_hier.engine.train import RunConfig, RunResult, train
from jaxrl_hier.exact import tabular
from jaxrl_hier.hierarchical.option_critic import Config, make
from jaxrl_hier.reports.statistics import FRACTION, Bounds

ROOMS = "four-rooms-option-critic"
ITERATIONS = {ROOMS: 2_000, "CartPole-v1": 4_000, "Acrobot-v1": 2_000, "Breakout-MinAtar": 4_000}
BOUNDS: dict[str, Bounds] = {"CartPole-v1": (0.0, 500.0)}  # most seeds end at the highest return
SOLVED = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0}
TITLES = {ROOMS: "four rooms", "CartPole-v1": "CartPole", "Acrobot-v1": "Acrobot", "Breakout-MinAtar": "Breakout"}
COSTS = (0.0, 0.01, 0.03, 0.1, 0.3)  # ξ
POINTS = 40  # logged rows of a run


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 5
    """independent runs"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the pictures"""


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    shorter = 50 if arguments.scale == "smoke" else 1
    runs: dict[tuple[str, Config], RunResult] = {}

    def result(name: str, **settings: Any) -> RunResult:
        config = Config(**settings)
        if (name, config) not in runs:
            env, tasks = jaxrl_envs.make(name)
            every = max(1, ITERATIONS[name] // shorter // POINTS)
            run = RunConfig(POINTS * every, seeds=arguments.seeds, log_every=every, checkpoint_every=POINTS * every)
            runs[name, config] = train(make(config, env, tasks), run)
        return runs[name, config]

    rows = []
    for name in ITERATIONS:
        rows += performance_rows(name, "4 options", result(name)) + usage_rows(f"{name}, 4 options", result(name))
        rows += performance_rows(name, "1 option", result(name, num_options=1))
    rows += performance_rows("Acrobot-v1", "4 options, value_scale = 1", result("Acrobot-v1", value_scale=1.0))
    for cost in COSTS:
        label, measured = f"4 options, ξ = {cost:g}", result(ROOMS, deliberation_cost=cost)
        rows += performance_rows(ROOMS, label, measured) + usage_rows(f"{ROOMS}, {label}", measured)

    picture(
        {name: (result(name), result(name, num_options=1)) for name in ITERATIONS},
        arguments.out / "option_critic_network.png",
    )
    cost_picture(
        {cost: result(ROOMS, deliberation_cost=cost) for cost in COSTS},
        arguments.out / "option_critic_network_cost.png",
    )
    path = write_paper(
        "option_critic_network",
        "Bacon, Harb & Precup, The Option-Critic Architecture, AAAI 2017; Harb et al., AAAI 2018",
        "none: function approximation on environments that a CPU can run",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=time.perf_counter() - begun,
        train_seconds=sum(run.seconds for run in runs.values()),
        compile_seconds=sum(run.compile_seconds for run in runs.values()),
    )
    show(rows)
    print(path)


# Rows


def performance_rows(name: str, label: str, run: RunResult) -> list[Row]:
    """Of the greedy policy after training; steps to the goal in four rooms, elsewhere the return."""
    what = "length" if name == ROOMS else "return"
    values = np.asarray(run.evaluation[what].values).mean(axis=1)
    text = f"{name}, {label}: {'steps' if name == ROOMS else 'return'}"
    row = Row.measured(text, values, bounds=BOUNDS.get(name))
    row.note = f"{run.rows[-1]['env_steps'] / 1e6:.2f} million steps per seed, {run.seconds:.0f} s for all seeds"
    if name == ROOMS:
        row.exact = fewest_steps()
        return [row.judged("lower")]
    row.published = SOLVED.get(name)
    return [row.judged()]


def usage_rows(label: str, run: RunResult) -> list[Row]:
    """How the options were used in the last tenth of training."""
    rows = []
    for name, text in {
        "option_length": "steps per choice of an option",
        "option_run": "steps until another option acts",
        "termination": "mean β",
        "termination_entropy": "entropy of β, nats",
    }.items():
        rows.append(Row.measured(f"{label}: {text}", curve(run, name)[:, -POINTS // 10 :].mean(axis=1)))
    shares = np.sort(usage(run)[:, -POINTS // 10 :].mean(axis=1), axis=1)[:, ::-1]  # [seeds, O]
    each = "; ".join(" ".join(f"{x:.2f}" for x in seed) for seed in shares)
    row = Row.measured(
        f"{label}: share of the most used option", shares[:, 0], statistic="mean inside", bounds=FRACTION
    )
    row.note = each
    return [*rows, row]


def fewest_steps() -> float:
    """Expected steps to the goal of the best policy, from a uniform start."""
    env, tasks = jaxrl_envs.make(ROOMS)
    task = tasks.sample(jax.random.key(0))
    steps = np.asarray(tabular.minimal_expected_steps(env.model(task)[0]))
    return float(np.delete(steps, int(task.goal)).mean())


def curve(run: RunResult, name: str) -> np.ndarray:
    """A metric over training, [seeds, rows]; a row without any event repeats the one before."""
    seeds = sorted({row["seed"] for row in run.rows})
    values = np.array([[row.get(name, np.nan) for row in run.rows if row["seed"] == seed] for seed in seeds])
    for i in range(1, values.shape[1]):
        values[:, i] = np.where(np.isnan(values[:, i]), values[:, i - 1], values[:, i])
    return values


def usage(run: RunResult) -> np.ndarray:
    """Shares of the options over training, [seeds, rows, O]."""
    count = sum(name.startswith("option_usage_") for name in run.rows[0])
    return np.stack([curve(run, f"option_usage_{i}") for i in range(count)], axis=2)


def million_steps(run: RunResult) -> np.ndarray:
    return np.unique([row["env_steps"] for row in run.rows]) / 1e6


# Pictures

BLUE, ORANGE, GREY = "#1f6fb4", "#e8710a", "0.55"
SHADES = ("#1f6fb4", "#5b9bd0", "#9cc3e4", "#d3e4f3")


def picture(runs: dict[str, tuple[RunResult, RunResult]], path: Path) -> None:
    """A column per environment: learning curves; shares of the options; how they terminate. 95 % over seeds."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(3, len(runs), figsize=(3.3 * len(runs), 8.2), sharex="col", squeeze=False)
        for column, (name, (four, one)) in zip(axes.T, runs.items()):
            x = million_steps(four)
            what = "episode_length" if name == ROOMS else "return"
            band(column[0], x, curve(one, what), GREY, "1 option")
            band(column[0], x, curve(four, what), BLUE, "4 options")
            target = fewest_steps() if name == ROOMS else SOLVED.get(name)
            if target is not None:
                column[0].axhline(target, color="0.2", ls="--", lw=1)
            if name == ROOMS:
                column[0].set_yscale("log")
            column[0].set(title=TITLES[name], ylabel="steps of an episode" if name == ROOMS else "return")
            shares = np.sort(usage(four), axis=2)[:, :, ::-1].mean(axis=0)
            column[1].stackplot(x, shares.T, colors=SHADES, lw=0)
            column[1].set(ylim=(0, 1), xlim=(0, x[-1]), ylabel="share of steps, most used first")
            band(column[2], x, curve(four, "termination"), ORANGE, "mean β")
            band(column[2], x, curve(four, "termination_entropy") / np.log(2), BLUE, "entropy of β, bits")
            band(column[2], x, 1 / curve(four, "option_run"), GREY, "1 / steps until another option")
            column[2].set(ylim=(0, 1.02), xlabel="million steps")
        axes[0, 0].legend(loc="upper right")
        axes[2, 0].legend(loc="upper right", fontsize=8)
        for ax in axes[1:, 1:].flat:
            ax.set_ylabel("")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def cost_picture(runs: dict[float, RunResult], path: Path) -> None:
    """Four rooms over training for each deliberation cost: steps to the goal, and steps per choice of an option."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE

    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
        colors = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(runs)))
        for color, (cost, run) in zip(colors, runs.items()):
            band(left, million_steps(run), curve(run, "episode_length"), color, f"ξ = {cost:g}")
            band(right, million_steps(run), curve(run, "option_length"), color, f"ξ = {cost:g}")
        left.axhline(fewest_steps(), color="0.2", ls="--", lw=1)
        left.set(yscale="log", xlabel="million steps", ylabel="steps of an episode", title="four rooms, 4 options")
        right.set(yscale="log", xlabel="million steps", ylabel="steps per choice of an option")
        right.set_title("what a deliberation cost does to the options")
        for ax in (left, right):
            ax.yaxis.set_major_formatter("{x:g}")
        left.legend(loc="upper right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def band(ax: Any, x: np.ndarray, values: np.ndarray, color: Any, label: str) -> None:
    """Where all runs have a value."""
    from jaxrl_hier.reports.plotting import draw_band

    seen = np.isfinite(values).all(axis=0)
    draw_band(ax, x[seen], values[:, seen], color, label=label)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
