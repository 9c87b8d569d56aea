"""How every figure is drawn: one colour for a method in all of them, bands of 95 % intervals, published values dashed.

The colours are those of Okabe and Ito, which people with any kind of colour vision can tell apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl_hier.reports.plotting import draw_band
from jaxrl_hier.reports.statistics import Bounds

from .results import Row

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, YELLOW = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#C9B400",  # darker than the original, which is faint on white
)
BLACK, GREY = "black", "0.5"

COLOURS: dict[str, str] = {
    # what has no temporal abstraction, no adaptation, no hindsight
    "random": GREY,
    "random initialisation": GREY,
    "no hindsight": GREY,
    "primitive actions": GREY,
    "pre-trained": VERMILION,
    # meta-learning
    "MAML": BLUE,
    "FOMAML": SKY,
    "Reptile": GREEN,
    "ANIL": PURPLE,
    "Meta-SGD": ORANGE,
    "E-MAML": VERMILION,
    "LVC": ORANGE,
    "DiCE": BLACK,
    "loaded DiCE": GREEN,
    "ProMP": BLACK,
    "RL²": VERMILION,
    "RL² over options": ORANGE,
    "MAML over options": SKY,
    "PEARL": GREEN,
    "VariBAD": BLUE,
    "PEARL, sparse losses": YELLOW,
    "MLSH": BLUE,
    "random sub-policies": GREY,
    "PPO from scratch": VERMILION,
    # classical players
    "Gittins": BLUE,
    "finite-horizon Gittins": BLACK,
    "Bayes-optimal": BLACK,
    "belief-greedy": GREEN,
    "Thompson": ORANGE,
    "optimistic Thompson": YELLOW,
    "UCB1": GREEN,
    "ε-greedy": SKY,
    "greedy": PURPLE,
    "PSRL": ORANGE,
    "optimistic PSRL": YELLOW,
    "UCRL2": GREEN,
    "BEB": BLUE,
    "Rescorla-Wagner": SKY,
    # hierarchies
    "hallway options": VERMILION,
    "both": BLUE,
    "option-critic, 4 options": BLUE,
    "option-critic, 8 options": SKY,
    "SARSA(0)": VERMILION,
    "actor-critic": GREEN,
    "MAXQ-Q, no abstraction": ORANGE,
    "MAXQ-Q, abstraction": BLUE,
    "MAXQ-Q, polled": VERMILION,
    "flat Q": GREY,
    "intra-option Q, A ∪ H": BLUE,
    "SMDP Q, A ∪ H": GREEN,
    "intra-option Q, H": VERMILION,
    "FuN": BLUE,
    "recurrent A2C": VERMILION,
    "no dilation": GREEN,
    "c = 1": PURPLE,
    "absolute goals": ORANGE,
    "purely feudal": GREY,
    "HIRO": BLUE,
    "no correction": GREEN,
    "cosine reward": PURPLE,
    "flat TD3": VERMILION,
    "flat TD3, γ = 0.999": ORANGE,
    # goals
    "DQN + HER": BLUE,
    "DDPG + HER": BLUE,
    "DQN": GREY,
    "DDPG": VERMILION,
    "TD3": PURPLE,
    "SAC": BLUE,
    # policy gradients
    "PPO": BLUE,
    "TRPO": GREEN,
    "A2C": VERMILION,
    "REINFORCE": ORANGE,
}


def colour(method: str, default: str | None = None) -> str:
    """Of a method, the same in every figure. A name that is not in the table needs a `default`."""
    return COLOURS[method] if default is None else COLOURS.get(method, default)


def subplots(rows: int = 1, columns: int = 1, width: float = 4.8, height: float = 3.8, **how: Any) -> tuple[Any, Any]:
    """A figure, and its axes as an array [rows, columns]; width and height are those of a panel, in inches."""
    import matplotlib.pyplot as plt

    size = how.pop("figsize", (width * columns, height * rows))
    return plt.subplots(rows, columns, figsize=size, squeeze=False, **how)


def curve(
    ax: Any, x: Any, values: Any, method: str, bounds: Bounds = None, label: str | None = None, **style: Any
) -> None:
    """Mean of `values` [seeds, points] in its 95 % interval, in the colour of the method, where all seeds have one."""
    chosen = style.pop("color", None)
    chosen = colour(method) if chosen is None else chosen
    x, values = np.asarray(x), np.asarray(values)
    seen = np.isfinite(values).all(axis=0)
    draw_band(ax, x[seen], values[:, seen], chosen, bounds, label=label or method, **style)


def seeds_and_mean(
    ax: Any, x: Any, values: Any, method: str, label: str | None = None, line: str = "-", color: Any = None
) -> None:
    """Each seed of `values` [seeds, points] as a thin line, their mean as a thick one: the intervals of few seeds of a
    bounded quantity reach from bound to bound and hide what happened."""
    color = colour(method) if color is None else color
    ax.plot(x, np.transpose(values), color=color, ls=line, lw=0.7, alpha=0.4)
    ax.plot(x, np.mean(values, axis=0), color=color, ls=line, lw=2.2, label=label or method)


def shades(count: int) -> list[Any]:
    """Colours for values of an ordered quantity such as a step size, from dark to light."""
    import matplotlib

    return [*matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, count))]


def with_intervals(ax: Any, x: Any, rows: Sequence[Row], color: str, label: str | None = None, **style: Any) -> None:
    """The numbers of rows with their intervals."""
    mean = np.array([row.ours for row in rows])
    ends = np.array([row.interval or (np.nan, np.nan) for row in rows])
    error = np.abs(ends.T - mean)
    ax.errorbar(x, mean, error, color=color, label=label, **{"fmt": "o-", "lw": 1.8, "capsize": 4} | style)


def published(ax: Any, x: Any, rows: Sequence[Row], color: str, label: str | None = None, **style: Any) -> None:
    """The published values of rows with their intervals, dashed."""
    value = np.array([np.nan if row.published is None else row.published for row in rows])
    ends = np.array([row.published_interval or (v, v) for row, v in zip(rows, value)])
    look = {"fmt": "s--", "ms": 4, "lw": 1, "capsize": 3, "alpha": 0.85}
    ax.errorbar(x, value, np.abs(ends.T - value), color=color, label=label, **look | style)


def legend_below(figure: Any, axes: Any, columns: int = 3, **style: Any) -> None:
    """One legend for all panels, under them: each label of a panel, or of several, once."""
    panels = [ax.get_legend_handles_labels() for ax in np.ravel(axes)]
    labels = {label: handle for handles, labels in panels for handle, label in zip(handles, labels)}
    figure.legend(labels.values(), labels.keys(), **{"loc": "outside lower center", "ncols": columns} | style)
