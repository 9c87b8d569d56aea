"""Pictures of a run, drawn from its files."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.logging import read_jsonl
from jaxrl_hier.engine.train import load_evaluations
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.statistics import Bounds, adaptation_curve, band

BLUE, ORANGE, GREY = "#1f6fb4", "#e8710a", "0.55"


def plot_run(directory: Path, env: Any, published: Any = None) -> list[Path]:
    """Every picture that the run's files allow: learning curve, adaptation curve, paths. Returns what was written.

    Raises UsageError when the run has logged nothing yet.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, evaluations = read_jsonl(directory / "metrics.jsonl"), load_evaluations(directory)
    if not rows and not evaluations:
        raise UsageError(f"{directory} has neither metrics nor evaluations to plot")
    figures = {}
    with plt.rc_context(STYLE):
        for name, quantity in {"learning_curve": "return", "episode_length": "episode_length"}.items():
            values = [row[quantity] for row in rows if quantity in row]
            if len(set(values)) > 1 or len(values) == 1:  # a level line says nothing
                figures[name] = learning_curve(rows, quantity)
        if evaluations:
            iteration, measured = list(evaluations.items())[-1]
            if "return" in measured and "adaptation_step" in measured["return"].axes:
                figures["adaptation_curve"] = adaptation_figure(measured["return"], iteration, published)
            if "path" in measured and hasattr(env, "draw"):
                figures["paths"] = paths_figure(measured["path"], env, iteration)
        folder = directory / "plots"
        folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=150)
            plt.close(figure)
    return [folder / f"{name}.png" for name in figures]


STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def by_seed(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations [n] and the metric's values [seeds, n]."""
    seeds = sorted({row["seed"] for row in rows})
    found = {(row["seed"], row["iteration"]): row.get(name, np.nan) for row in rows}
    iterations = np.array(sorted({row["iteration"] for row in rows}))
    values = np.array([[found.get((seed, i), np.nan) for i in iterations] for seed in seeds])
    measured = np.isfinite(values).all(axis=0)  # a row in which no episode ended has no return
    return iterations[measured], values[:, measured]


def learning_curve(rows: list[dict[str, Any]], quantity: str = "return") -> Any:
    """Return, or length of the episodes, against iterations; band: 95 % interval of the mean over seeds, thin lines:
    the seeds."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 4.0))
    labels = {quantity: (quantity.replace("_", " "), BLUE)}
    if quantity == "return" and any("return_before" in row for row in rows):
        labels = {"return_before": ("before adaptation", GREY), "return": ("after adaptation", BLUE)}
    for name, (label, color) in labels.items():
        iterations, values = by_seed(rows, name)
        draw_curve(ax, iterations, values, label, color)
    steps_per_iteration = rows[-1]["env_steps"] / rows[-1]["iteration"]
    top = ax.secondary_xaxis("top", functions=(lambda i: i * steps_per_iteration, lambda s: s / steps_per_iteration))
    top.set_xlabel("environment steps")
    count = len({row["seed"] for row in rows})
    returns = quantity == "return"
    ax.set(xlabel="iteration", ylabel=f"mean {'return' if returns else 'length'} of an episode")
    ax.legend(
        loc="lower right" if returns else "upper right", title=f"{count} seed{'s' if count > 1 else ''}, training tasks"
    )
    return figure


def draw_curve(ax: Any, x: np.ndarray, values: np.ndarray, label: str, color: str) -> None:
    """Mean of values [seeds, n] with its interval; one seed alone: its values and their running mean."""
    if len(values) > 1:
        draw_band(ax, x, values, color, lw=1.8, label=label)
        for line in values:
            ax.plot(x, line, color=color, lw=0.5, alpha=0.3)
        return
    ax.plot(x, values[0], color=color, lw=0.8, alpha=0.45)
    width = min(9, 1 + len(x) // 8)
    kernel = np.ones(width)
    smooth = np.convolve(values[0], kernel, "same") / np.convolve(np.ones(len(x)), kernel, "same")
    ax.plot(x, smooth, color=color, lw=1.8, label=f"{label} (mean of {width})" if width > 1 else label)


def draw_band(ax: Any, x: np.ndarray, values: np.ndarray, color: Any, bounds: Bounds = None, **style: Any) -> None:
    """The mean of `values` [runs, points] as a line, in its 95 % interval over the runs."""
    ax.fill_between(x, *band(values, bounds), color=color, alpha=0.22, lw=0)
    ax.plot(x, values.mean(axis=0), color=color, **{"lw": 1.6} | style)


def adaptation_figure(measured: NamedArray, iteration: int, published: Any) -> Any:
    """Return after each adaptation step on the test tasks, beside published values."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(5.6, 4.0))
    curve = adaptation_curve(measured)
    steps = np.arange(len(curve))
    if published is not None:
        n = min(len(steps), len(published.values))
        mean, half = np.array(published.values[:n]), np.array([h or 0.0 for h in published.half_widths[:n]])
        ax.errorbar(
            steps[:n] + 0.06, mean, half, fmt="s--", color=ORANGE, ms=5, lw=1.2, capsize=4, label=published.label
        )
    mean = np.array([e.value for e in curve])
    error = np.abs(np.array([e.interval or (np.nan, np.nan) for e in curve]).T - mean)
    ax.errorbar(steps - 0.06, mean, error, fmt="o-", color=BLUE, ms=6, lw=1.8, capsize=4, label="this run")
    for x, y in zip(steps, mean):
        ax.annotate(f"{y:.1f}", (x, y), textcoords="offset points", xytext=(-6, 9), ha="right", color=BLUE, fontsize=9)
    ax.set(xticks=steps, xlabel="adaptation steps on the new task", ylabel="mean return of an episode")
    ax.set(xlim=(-0.45, steps[-1] + 0.35), title=f"test tasks, iteration {iteration}, 95 % over {curve[0].over}")
    ax.margins(y=0.12)
    ax.legend(loc="lower right")
    return figure


def paths_figure(path: NamedArray, env: Any, iteration: int, tasks: int = 4) -> Any:
    """The first seed's paths: a row per task, a column per number of adaptation steps."""
    import matplotlib.pyplot as plt

    values = np.asarray(path.values)[0]  # [task, adaptation_step, time, observation]
    tasks, steps = min(tasks, values.shape[0]), values.shape[1]
    params = _test_tasks(env, values.shape[0])
    figure, axes = plt.subplots(tasks, steps, figsize=(2.1 * steps, 2.1 * tasks + 0.3), squeeze=False)
    for i in range(tasks):
        for k in range(steps):
            env.draw(axes[i, k], _row(params, i), [values[i, k]])
            axes[i, k].grid(False)
            for spine in axes[i, k].spines.values():
                spine.set(visible=True, color="0.8")
        axes[i, 0].set_ylabel(f"task {i + 1}")
    half = max(ax.get_xlim()[1] for ax in axes.flat)
    for ax in axes.flat:
        ax.set(xlim=(-half, half), ylim=(-half, half))
    for k in range(steps):
        axes[0, k].set_title("before" if k == 0 else f"{k} adaptation step{'s' if k > 1 else ''}")
    figure.suptitle(f"one episode per panel, iteration {iteration}", fontsize=10, color="0.3")
    return figure


def _row(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def _test_tasks(env: Any, count: int) -> Any:
    import jaxrl_envs

    for name in jaxrl_envs.names():
        candidate, tasks = jaxrl_envs.make(name)
        if type(candidate) is type(env):
            return tasks.test_batch(count, jax.random.key(0))
    return jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), env.default_params)
