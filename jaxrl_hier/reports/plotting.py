"""Plots of a run from its files: logged metrics, evaluations, paths on the test tasks.

`pictures` draws what an algorithm has learned, from its state.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.evaluation import of_seeds_left
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.logging import COLUMNS, read_jsonl
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.quantities import Quantity, quantity
from jaxrl_hier.reports.records import by_seed, diverged, numbers
from jaxrl_hier.reports.statistics import Bounds, adaptation_curve, band, experience

BLUE, ORANGE, GREY = "#1f6fb4", "#e8710a", "0.55"

Own = Mapping[str, Quantity] | None  # the table of quantities of the run's algorithm


def plot_run(
    directory: Path, env: Any, tasks: Tasks | None = None, published: Any = None, own: Own = None
) -> list[Path]:
    """Draw every plot that the run's files allow into <run>/plots. Returns the paths written.

    learning_curve, episode_length: logged during training. diagnostics: the other logged metrics. evaluations:
    measurements in the course of training. adaptation_curve: the last evaluation against experience on the test tasks.
    paths: episodes of that evaluation.

    Args:
        env, tasks: of the run; paths are drawn on held-out tasks.
        published: values to compare the adaptation with.
        own: see `quantities`.

    Raises:
        UsageError: the run has logged nothing yet.
    """
    rows, evaluations = read_jsonl(directory / "metrics.jsonl"), load_evaluations(directory)
    if not rows and not evaluations:
        raise UsageError(f"{directory} has neither metrics nor evaluations to plot")
    figures: dict[str, Any] = {}
    with style() as plt:
        for name, logged in {"learning_curve": "return", "episode_length": "episode_length"}.items():
            values = [row[logged] for row in rows if logged in row]
            if len(set(values)) > 1 or len(values) == 1:  # a constant curve is left out
                figures[name] = learning_curve(rows, logged, own)
        if others := diagnostics(rows):
            figures["diagnostics"] = diagnostics_figure(rows, others, own)
        if len(evaluations) > 1:
            figures["evaluations"] = evaluations_figure(evaluations, rows, own)
        if evaluations:
            iteration, every = list(evaluations.items())[-1]
            measured = {name: of_seeds_left(m) for name, m in every.items()}
            adapts = "return" in measured and measured["return"].axes == ("seed", "task", "adaptation_step")
            if adapts and measured["return"].values.shape[-1] > 1:
                figures["adaptation_curve"] = adaptation_figure(measured, iteration, published, own)
            if "path" in measured and draws_paths(env) and tasks is not None and tasks.test is not None:
                figures["paths"] = paths_figure(measured, env, tasks, iteration, own)
        return save({name: figure for name, figure in figures.items() if figure is not None}, directory / "plots", plt)


@contextmanager
def style() -> Iterator[Any]:
    """matplotlib.pyplot in this project's style; without a screen, unless something has imported pyplot before."""
    import matplotlib

    if "matplotlib.pyplot" not in sys.modules:  # a notebook that has it would show no figures after a change of backend
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        yield plt


def save(figures: Mapping[str, Any], folder: Path, plt: Any) -> list[Path]:
    """Write figures by name as <folder>/<name>.png and close them."""
    folder.mkdir(parents=True, exist_ok=True)
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


# Logged metrics


def learning_curve(rows: list[dict[str, Any]], logged: str = "return", own: Own = None) -> Any:
    """One logged quantity against iterations and environment steps; band: 95 % interval of the mean over seeds, thin
    lines: the seeds. A return after adaptation is drawn with the one before."""
    import matplotlib.pyplot as plt

    drawn = logged_quantity(logged, own)
    figure, ax = plt.subplots(figsize=(6.4, 4.0))
    curves, seen = {logged: ("", BLUE)}, []
    for other, labels in BESIDE_RETURN.items():
        if logged == "return" and any(other in row for row in rows):
            curves = dict(zip((other, "return"), zip(labels, (GREY, BLUE))))
    for name, (label, color) in curves.items():
        iterations, values = by_seed(rows, name)
        seen.append(drawn.factor * values)
        draw_curve(ax, iterations, seen[-1], label, color, drawn.bounds)
    scale(ax, drawn, seen)
    steps_on_top(ax, rows)
    ax.set(xlabel="iteration", ylabel=drawn.label)
    handles, _ = ax.get_legend_handles_labels()
    ax.legend(loc="best", title=over_seeds(rows)) if handles else ax.set_title(over_seeds(rows), fontsize=9, loc="left")
    return figure


# quantities drawn with the return, and the labels of both
BESIDE_RETURN = {
    "return_before": ("before adaptation", "after adaptation"),
    "sparse_return": ("of the sparse reward, which tests count", "of the dense reward, which the losses see"),
}


def logged_quantity(name: str, own: Own) -> Quantity:
    """How to draw a metric logged in training. Where the name means something else in an algorithm's evaluations, its
    table has the metric as "logged_<name>"."""
    return quantity(name, own, f"logged_{name}")


def over_seeds(rows: list[dict[str, Any]]) -> str:
    """The number of seeds in a learning curve, in words."""
    lost = len(diverged(rows))
    count = len({row["seed"] for row in rows}) - lost
    text = "1 seed" if count == 1 else f"{count} seeds, mean and 95 %"
    return f"{text}; {lost} more diverged and {'is' if lost == 1 else 'are'} left out" if lost else text


def steps_on_top(ax: Any, rows: list[dict[str, Any]]) -> None:
    """An upper axis of environment steps over one of iterations."""
    each = rows[-1]["env_steps"] / rows[-1]["iteration"]
    top = ax.secondary_xaxis("top", functions=(lambda i: i * each, lambda s: s / each))
    top.set_xlabel("environment steps")


SHOWN_ABOVE = ("return", "episode_length", *BESIDE_RETURN)  # in pictures of their own


def diagnostics(rows: list[dict[str, Any]]) -> list[str]:
    """Names of the other logged metrics that vary, such as losses, in the order of the rows."""
    names = dict.fromkeys(name for row in rows for name in row if name not in SHOWN_ABOVE + COLUMNS)
    return [name for name in names if len({row[name] for row in rows if name in row}) > 1]


def diagnostics_figure(rows: list[dict[str, Any]], names: list[str], own: Own = None) -> Any:
    """A small panel for each of the logged quantities."""
    figure, panels = grid(len(names))
    for name, ax in zip(names, panels):
        drawn = logged_quantity(name, own)
        iterations, values = by_seed(rows, name)
        draw_curve(ax, iterations, drawn.factor * values, "", BLUE, drawn.bounds)
        scale(ax, drawn, [drawn.factor * values])
        ax.set(title=drawn.label, xlabel="iteration")
    figure.suptitle(over_seeds(rows), fontsize=9, color="0.3")
    return figure


def grid(count: int, width: float = 3.1, height: float = 2.4, columns: int = 3) -> tuple[Any, list[Any]]:
    """A figure with `count` panels, row by row."""
    import matplotlib.pyplot as plt

    columns = 2 if count == 4 else min(count, columns)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows + 0.3), squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, list(axes.flat[:count])


def draw_curve(ax: Any, x: np.ndarray, values: np.ndarray, label: str, color: str, bounds: Bounds = None) -> None:
    """Mean of values [seeds, n] with its interval; one seed alone: its values and their running mean."""
    if len(values) > 1:
        draw_band(ax, x, values, color, bounds, lw=1.8, label=label)
        for line in values:
            ax.plot(x, line, color=color, lw=0.5, alpha=0.3)
        return
    width = min(9, 1 + len(x) // 8)
    smooth = running_mean(values[0], width)
    if width > 1:
        ax.plot(x, values[0], color=color, lw=0.8, alpha=0.45)
        label = f"{label} (mean of {width})" if label else f"mean of {width} rows"
    ax.plot(x, smooth, color=color, lw=1.8, label=label, marker="o" if len(x) == 1 else None)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Means over up to `width` neighbours, as many on either side, so that the ends are not drawn inwards; [n]."""
    n, half = len(values), width // 2
    reach = np.minimum(half, np.minimum(np.arange(n), np.arange(n)[::-1]))
    return np.array([values[i - r : i + r + 1].mean() for i, r in enumerate(reach)])


def draw_band(ax: Any, x: np.ndarray, values: np.ndarray, color: Any, bounds: Bounds = None, **style: Any) -> None:
    """The mean of `values` [runs, points] as a line, in its 95 % interval over the runs."""
    ax.fill_between(x, *band(values, bounds), color=color, alpha=0.22, lw=0)
    ax.plot(x, values.mean(axis=0), color=color, **{"lw": 1.6} | style)


def scale(ax: Any, drawn: Quantity, values: Sequence[np.ndarray]) -> None:
    """Set the vertical axis for curves [seeds, n]: their range fills at least a third of it, since intervals over two
    or three seeds may be many times wider."""
    everything = np.concatenate([x.ravel() for x in values])
    if drawn.log:
        everything = everything[everything > 0]
        ax.set_yscale("log")
    if not everything.size:
        return
    to_axis, from_axis = (np.log, np.exp) if drawn.log else (np.asarray, np.asarray)
    low, high = to_axis(everything.min()), to_axis(everything.max())
    bottom, top = ax.get_ylim()
    span = high - low
    if span > 0:
        bottom = max(bottom, from_axis(low - span)) if drawn.least is None else max(bottom, drawn.least)
        ax.set_ylim(bottom, min(top, from_axis(high + span)))


# Evaluations


def evaluations_figure(evaluations: Mapping[int, Any], rows: list[dict[str, Any]], own: Own = None) -> Any:
    """A panel for each measurement that is one number per seed, against the iterations of the evaluations; None where
    there is nothing to draw."""
    lost = diverged(rows)
    left = [seed not in lost for seed in sorted({row["seed"] for row in rows})] if lost else slice(None)
    every = [{name: x[left] for name, x in numbers(measured).items()} for measured in evaluations.values()]
    common = [name for name in every[-1] if all(name in found for found in every)]
    curves = {name: np.stack([found[name] for found in every], axis=1) for name in common}  # [seeds, evaluations]
    curves = {name: values for name, values in curves.items() if np.isfinite(values).any() and np.ptp(values) != 0}
    if not curves:
        return None
    figure, panels = grid(len(curves), width=3.4, height=2.8)
    for (name, values), ax in zip(curves.items(), panels):
        head, _, when = name.partition(" ")
        drawn = quantity(head, own)
        values = drawn.factor * values
        finite = np.isfinite(values).all(axis=0)
        x = np.array(list(evaluations))[finite]
        draw_band(ax, x, values[:, finite], BLUE, drawn.bounds, marker="o", ms=4)
        for line in values[:, finite] if len(values) > 1 else ():
            ax.plot(x, line, color=BLUE, lw=0.5, alpha=0.3)
        scale(ax, drawn, [values[:, finite]])
        ax.set(xlabel="iteration", ylabel=drawn.label, title=when)
    figure.suptitle(f"evaluations, {over_seeds(rows)}", fontsize=9, color="0.3")
    return figure


def adaptation_figure(
    evaluation: Mapping[str, NamedArray], iteration: int, published: Any = None, own: Own = None
) -> Any:
    """Return on the test tasks against experience on them, beside published values.

    The lower axis counts episodes, the upper one steps; without either, the lower one counts adaptation steps.
    """
    import matplotlib.pyplot as plt

    drawn = quantity("return", own)
    figure, ax = plt.subplots(figsize=(5.6, 4.0))
    curve = adaptation_curve(evaluation["return"])
    episodes, steps = experience(evaluation, "episodes"), experience(evaluation, "steps")
    by_episodes = episodes is not None and len(np.unique(episodes)) > 1
    x = episodes if by_episodes and episodes is not None else np.arange(len(curve))
    apart = 0.01 * (x[-1] - x[0]) or 0.06
    if published is not None:
        n = min(len(x), len(published.values))
        mean, half = np.array(published.values[:n]), np.array([h or 0.0 for h in published.half_widths[:n]])
        ax.errorbar(x[:n] + apart, mean, half, fmt="s--", color=ORANGE, ms=5, lw=1.2, capsize=4, label=published.label)
    mean = drawn.factor * np.array([e.value for e in curve])
    error = np.abs(drawn.factor * np.array([e.interval or (np.nan, np.nan) for e in curve]).T - mean)
    ax.errorbar(x - apart, mean, error, fmt="o-", color=BLUE, ms=6, lw=1.8, capsize=4, label="this run")
    if len(x) <= NUMBERED:
        for at, y in zip(x, mean):
            offset: Any = {"textcoords": "offset points", "xytext": (-7, 9), "ha": "right"}
            ax.annotate(f"{y:.3g}", (at, y), color=BLUE, fontsize=9, **offset)
        ax.set_xticks(x)
    ax.set_xlim(x[0] - 0.15 * (x[-1] - x[0]) - apart, x[-1] + 0.07 * (x[-1] - x[0]) + apart)
    if by_episodes and steps is not None and np.all(np.diff(steps) > 0) and np.all(np.diff(x) > 0):
        to_steps, to_episodes = _line_through(x, steps), _line_through(steps, x)
        top = ax.secondary_xaxis("top", functions=(to_steps, to_episodes))
        top.set_xlabel("environment steps on the new task")
        top.xaxis.set_major_formatter(lambda at, _: f"{at:.6g}" if at >= 0 else "")
    if drawn.log:
        ax.set_yscale("log")
    step = quantity("adaptation_step", own).label
    ax.set(xlabel=f"{'episodes of experience' if by_episodes else step} on the new task", ylabel=drawn.label)
    ax.margins(y=0.12)
    ax.legend(loc="best", title=f"test tasks, iteration {iteration}\n95 % over {curve[0].over}")
    return figure


NUMBERED = 6  # largest number of points that are labelled with their values


def _line_through(x: np.ndarray, y: np.ndarray) -> Any:
    """Piecewise linear through (x, y), both increasing, extrapolated with the slopes at the ends."""

    def line(at: Any) -> np.ndarray:
        at = np.asarray(at, np.float64)
        below, above = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])
        return np.interp(at, x, y) + below * np.minimum(at - x[0], 0) + above * np.maximum(at - x[-1], 0)

    return line


def draws_paths(env: Any) -> bool:
    """Whether `env.draw(ax, params, paths)` draws a task with paths of observations, each [T, F]."""
    return hasattr(env, "draw") and "paths" in inspect.signature(env.draw).parameters


def paths_figure(
    evaluation: Mapping[str, NamedArray], env: Any, tasks: Tasks, iteration: int, own: Own = None, count: int = 4
) -> Any:
    """The first seed's paths on held-out tasks: a row per task, a column per adaptation step."""
    import matplotlib.pyplot as plt

    values = np.asarray(evaluation["path"].values)[0]  # [task, adaptation_step, time, observation]
    count, columns = min(count, values.shape[0]), evenly(values.shape[1], 5)
    params = tasks.test_batch(count, jax.random.key(0))
    size = (2.1 * len(columns), 2.1 * count + 0.3)
    figure, axes = plt.subplots(count, len(columns), figsize=size, squeeze=False)
    for i in range(count):
        task = _row(params, i)
        for ax, k in zip(axes[i], columns):
            env.draw(ax, task, [values[i, k]])
            ax.grid(False)
            for spine in ax.spines.values():
                spine.set(visible=True, color="0.8")
        axes[i, 0].set_ylabel(f"test task {i + 1}")
    limits = np.array([(ax.get_xlim(), ax.get_ylim()) for ax in axes.flat])  # [panels, x or y, end]
    for ax in axes.flat:
        ax.set(xlim=(limits[:, 0, 0].min(), limits[:, 0, 1].max()), ylim=(limits[:, 1, 0].min(), limits[:, 1, 1].max()))
    step = quantity("adaptation_step", own).label
    for ax, k in zip(axes[0], columns):
        ax.set_title("before" if k == 0 else f"after {k} {step.removesuffix('s') if k == 1 else step}")
    figure.suptitle(f"one episode per panel, iteration {iteration}", fontsize=10, color="0.3")
    return figure


def _row(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spaced, the first and the last included."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count)).tolist()})
