"""Intra-option value learning: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figure 10.

    python -m benchmarks.papers.options_values        # 30 runs, some minutes on two cores
    python -m benchmarks.papers.options_values --scale smoke

Four rooms with the goal G1, γ = .9, from the upper left corner. Behaviour: uniformly random actions; no hallway option
is ever executed, and the values of all eight are learned, beside those of the four actions. Each action pays
N(mean, .1) with a mean drawn from U[−1, 0] for each run, state and action; entering the goal pays 1 on top.

Left, the value of the greedy policy over options, exactly evaluated in each run's task and averaged over the cells.
Right, the learned values of the two hallway options at G2, (9,9), over 6000 episodes. The exact values, from option
models of each run's task, stand beside both.

The theorem is about step sizes that decrease. A constant one leaves noise, and a maximum over noisy values is too high,
so the error must vanish with α: "reached" is a mean error below α, for α = 1/8, 1/32 and 1/128. The paper prints no
numbers for this figure, and the step size of it is not known to us.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.papers._old import GAMMA, PAPER, Arguments, snapshots
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import Row, show, write_paper
from jaxrl_envs.four_rooms import G1, G2, NUM_CELLS, FourRooms, cell_index, four_rooms_tasks
from jaxrl_hier.abstractions.options import concatenate, primitive_options
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical.intra_option_q import Config, make
from jaxrl_hier.hierarchical.option_models import NoisyParams, noisy_rewards
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, hallway_options

STEP_SIZES = {1 / 8: "1/8", 1 / 32: "1/32", 1 / 128: "1/128"}
UPPER, LEFT = (4 + HALLWAY_OPTIONS.index(name) for name in ("SE to E", "SE to S"))  # after the four actions
EPISODE = 697.7  # steps of a random walk from the corner to G1, exactly

Curves = dict[str, np.ndarray]  # of one step size, [seeds, snapshots] or, exact values, [seeds]


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    episodes = 20 if arguments.scale == "smoke" else 6000
    run = RunConfig(seeds=arguments.seeds)
    # single-threaded programs: two at a time
    with ThreadPoolExecutor(2) as pool:
        curves = dict(zip(STEP_SIZES, pool.map(lambda alpha: learn(alpha, run, episodes), STEP_SIZES)))
    rows = [row for alpha in STEP_SIZES for row in value_rows(alpha, curves[alpha], episodes)]

    picture(curves, episodes, arguments.out / "options_values.png")
    path = write_paper(
        "options_values",
        PAPER,
        "figure 10 (intra-option value learning)",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=time.perf_counter() - begun,
    )
    show(rows)
    print(path)


def learn(alpha: float, run: RunConfig, episodes: int) -> Curves:
    """Learned and exact values of all runs, until each run has ended so many `episodes`."""
    rooms = FourRooms()
    both = concatenate(primitive_options(NUM_CELLS, rooms.num_actions), hallway_options(rooms))
    available = both.initiation.T
    others = jnp.arange(NUM_CELLS) != cell_index(*G1)
    over_cells = lambda values: jnp.mean(values, where=others)
    env, tasks = noisy_rewards(rooms, four_rooms_tasks(rooms, [G1]))

    @jax.jit
    @jax.vmap
    def solve(task: NoisyParams) -> tuple[smdp.OptionModels, jax.Array]:
        models = smdp.option_models(*env.model(task), both, GAMMA)
        return models, smdp.smdp_optimal_values(models, both.initiation)

    @jax.jit
    @jax.vmap
    def measure(q: jax.Array, models: smdp.OptionModels, best: jax.Array) -> dict[str, jax.Array]:
        worth = smdp.option_policy_evaluation(models, tabular.greedy_policy(q, available, tolerance=0.0))
        error = jnp.where(available & others[:, None], q - best, 0.0)
        count = jnp.sum(available & others[:, None])
        at_g2 = q[cell_index(*G2)]
        return {
            "greedy": over_cells(worth),
            "upper": at_g2[UPPER],
            "left": at_g2[LEFT],
            "bias": jnp.sum(error) / count,
            "error": jnp.sum(jnp.abs(error)) / count,
        }

    algorithm = make(Config(behaviour="random", step_size=alpha, discount=GAMMA, recorded_episodes=0), env, tasks)
    # the slowest of the runs is a few percent behind the mean
    steps = EPISODE * episodes * (1.06 if episodes > 1000 else 2.5)
    at = np.unique(np.concatenate([np.geomspace(50, steps / 5, 60), np.linspace(0, steps, 121)]).astype(int))
    measured: list[dict[str, np.ndarray]] = []
    for ended, state in snapshots(algorithm, run, at):
        if not measured:
            exact = solve(jax.tree.map(lambda x: x[:, 0], state.world.task))  # each run's one environment
        measured.append(jax.device_get(measure(state.params, *exact)) | {"episodes": ended})
    best = exact[1]
    optimum = jax.vmap(over_cells)(jnp.max(best, axis=2))
    exact_at_g2 = np.asarray(best)[:, cell_index(*G2)]
    exact_values = {"greedy": np.asarray(optimum), "upper": exact_at_g2[:, UPPER], "left": exact_at_g2[:, LEFT]}
    series = {name: np.stack([m[name] for m in measured], axis=1) for name in measured[0]}
    return series | {f"exact {name}": values for name, values in exact_values.items()}


def after(curves: Curves, name: str, episodes: np.ndarray) -> np.ndarray:
    """A series when so many `episodes` have ended, [seeds, points]: the first snapshot not before that."""
    found = [np.minimum(np.searchsorted(count, episodes), len(count) - 1) for count in curves["episodes"]]
    return np.take_along_axis(curves[name], np.array(found), axis=1)


# Rows


def value_rows(alpha: float, curves: Curves, episodes: int) -> list[Row]:
    """Differences from the exact values of each run's task."""
    rows, text = [], STEP_SIZES[alpha]
    names = {"upper": "upper option (SE to E)", "left": "left option (SE to S)"}
    for name, option in names.items():
        exact = curves[f"exact {name}"]
        values = after(curves, name, np.array([episodes]))[:, 0]
        label = f"α = {text}: value of the {option} at G2 after {episodes} episodes"
        rows.append(paired_row(label, values, exact, alpha))
    for n in (1, 10, 100, 1000):
        if n > episodes:
            continue
        values = after(curves, "greedy", np.array([n]))[:, 0]
        label = f"α = {text}: value of the greedy policy after {n} episode{'' if n == 1 else 's'}, mean over cells"
        row = paired_row(label, values, curves["exact greedy"], alpha)
        if n < 1000:
            row.verdict, row.rule = "not comparable", ""
            row.note += "; exact: of the best policy over these options, which learning is on the way to"
        rows.append(row)
    for name, what in (("error", "mean |Q − exact|"), ("bias", "mean of Q − exact")):
        values = after(curves, name, np.array([episodes]))[:, 0]
        row = Row.measured(f"α = {text}: {what} after {episodes} episodes", values, unit="runs", exact=0.0)
        row.note = "over all cells and the options that may start there; tolerance α"
        rows.append(row.judged(f"within {alpha}"))
    return rows


def paired_row(label: str, values: np.ndarray, exact: np.ndarray, tolerance: float) -> Row:
    label = f"{label}: learned minus exact"
    row = Row.measured(label, values, exact, statistic="paired difference", unit="runs", exact=0.0)
    row.note = f"means {values.mean():.4f} and {exact.mean():.4f}; tolerance α = {tolerance:.4g}"
    return row.judged(f"within {tolerance}")


# Picture

SHADES = {1 / 8: "#e8710a", 1 / 32: "#2c9a6b", 1 / 128: "#1f6fb4"}


def picture(curves: dict[float, Curves], episodes: int, path: Path) -> None:
    """Left: the greedy policy. Right: the two hallway options at G2. Dashed: exact. Bands: 95 % over runs."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE, draw_band

    few = np.unique(np.geomspace(1, min(1000, episodes), 40).round())
    many = np.linspace(0, episodes, 121)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
        for alpha, color in SHADES.items():
            label = f"α = {STEP_SIZES[alpha]}"
            draw_band(left, few, after(curves[alpha], "greedy", few), color, label=label)
            for name in ("upper", "left"):
                draw_band(right, many, after(curves[alpha], name, many), color, label=label if name == "upper" else "")
        exact = {name: float(curves[1 / 8][f"exact {name}"].mean()) for name in ("greedy", "upper", "left")}
        left.axhline(exact["greedy"], color="0.2", ls="--", lw=1.1)
        note = {"color": "0.2", "fontsize": 10, "textcoords": "offset points"}
        left.annotate("best policy over these options", (1, exact["greedy"]), xytext=(2, 5), **note)
        for name, text, away in (("upper", "upper hallway", 0.28), ("left", "left hallway", -0.42)):
            right.axhline(exact[name], color="0.2", ls="--", lw=1.1)
            # above or below the bands
            right.annotate(f"{text}; dashed: exact", (episodes, exact[name] + away), xytext=(-2, 0), ha="right", **note)
        left.set(xscale="log", xlabel="episodes", ylabel="value of the greedy policy, mean over cells")
        left.set(title="the greedy policy over options", ylim=(None, exact["greedy"] + 0.25))
        right.set(xlabel="episodes", ylabel="value of the option at G2", title="two options that are never executed")
        right.set(ylim=(exact["left"] - 0.6, 0.1), xlim=(0, episodes))
        left.xaxis.set_major_formatter("{x:.0f}")
        left.legend(loc="lower right")
        right.legend(loc="center right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
