"""The picture of a sweep: a measurement of each member, with its interval over the seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_hier.quantities import Quantity
from jaxrl_hier.reports.plotting import BLUE, NUMBERED, save, scale, style

COLOURS = (BLUE, "#e8710a", "#2e8b57", "#8e44ad", "#7f7f7f", "#c0392b")
MANY = 40  # members that a list shows: the best
APART = 0.012  # distance of curves that are beside each other, as a share of the axis


def draw(
    table: Sequence[dict[str, Any]], names: Sequence[str], by: str, drawn: Quantity, path: Path, title: str
) -> list[Path]:
    """Draw the lines of `Sweep.table` that have a value; returns the path, or none where no line has.

    Where a number is swept, alone or with another setting of few values: curves against it. Otherwise a list of the
    members, the best on top.

    Args:
        names: the settings that are swept. by: the measurement. drawn: how to draw it.
    """
    lines = [
        line | {key: None if line[key] is None else drawn.factor * line[key] for key in (by, "low", "high")}
        for line in table
        if line[by] is not None
    ]
    if not lines:
        return []
    along = next((name for name in names if _numeric(lines, name)), None)
    others = [name for name in names if name != along]
    curves = along is not None and len(others) < 2 and len({_of(line, others) for line in lines}) <= len(COLOURS)
    label = drawn.label + (f", {by.partition(' ')[2]}" if " " in by else "")
    left = len(table) - len(lines)
    with style() as plt:
        figure = _curves(plt, lines, str(along), others, by, drawn) if curves else _list(plt, lines, names, by)
        (ax,) = figure.axes
        ax.set(**{"ylabel" if curves else "xlabel": label})
        ax.set_title(f"{title}; {left} diverged" if left else title, loc="left", fontsize=9, color="0.3")
        return save({path.stem: figure}, path.parent, plt)


def _numeric(lines: Sequence[dict[str, Any]], name: str) -> bool:
    values = [line[name] for line in lines]
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in values) and len(set(values)) > 1


def _of(line: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(line[name] for name in names)


def _curves(
    plt: Any, lines: Sequence[dict[str, Any]], along: str, others: Sequence[str], by: str, drawn: Quantity
) -> Any:
    """A curve over the values of `along` for each value of the other setting, beside each other."""
    figure, ax = plt.subplots(figsize=(6.4, 4.0))
    ticks = sorted({line[along] for line in lines})
    log = ticks[0] > 0 and ticks[-1] / ticks[0] > 20
    values = sorted({_of(line, others) for line in lines}, key=lambda x: (str(type(x[0])), x) if x else x)
    for i, (value, colour) in enumerate(zip(values, COLOURS)):
        of = sorted((line for line in lines if _of(line, others) == value), key=lambda line: line[along])
        shift = APART * (i - (len(values) - 1) / 2)  # so that intervals do not hide each other
        at = np.array([line[along] for line in of])
        x = at * (ticks[-1] / ticks[0]) ** shift if log else at + shift * (ticks[-1] - ticks[0])
        ax.plot(x, [line[by] for line in of], "o-", color=colour, ms=5, lw=1.6, label=str(value[0]) if value else None)
        known = [(place, line["low"], line["high"]) for place, line in zip(x, of) if line["low"] is not None]
        if known:
            ax.vlines(*zip(*known), color=colour, lw=1.4, alpha=0.6)
    if log:
        ax.set_xscale("log")
    if len(ticks) <= NUMBERED:
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
    scale(ax, drawn, [np.array([line[by] for line in lines])])
    ax.set_xlabel(along.replace("_", " "))
    if others:
        ax.legend(title=others[0].replace("_", " "))
    return figure


def _list(plt: Any, lines: Sequence[dict[str, Any]], names: Sequence[str], by: str) -> Any:
    """A point for each member, labelled with its settings."""
    shown = lines[:MANY]
    figure, ax = plt.subplots(figsize=(7.2, 1.2 + 0.28 * len(shown)))
    for y, line in enumerate(reversed(shown)):
        if line["low"] is not None:
            ax.hlines(y, line["low"], line["high"], color=BLUE, lw=1.4, alpha=0.6)
        ax.plot(line[by], y, "o", color=BLUE, ms=5)
    labels = [", ".join(f"{name.replace('_', ' ')} {line[name]}" for name in names) for line in reversed(shown)]
    ax.set_yticks(range(len(shown)), labels, fontsize=8)
    ax.set_ylim(-0.7, len(shown) - 0.3)
    return figure
