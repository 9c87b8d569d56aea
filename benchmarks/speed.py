"""Measurements of speed: every module of `throughput`, one table, a file and a picture for each.

`python -m benchmarks throughput` measures `environments` and `algorithms`; comparisons with other packages have names.
"""

import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_hier.checks import UsageError, unknown
from jaxrl_hier.reports.plotting import save, style

from . import throughput
from .drawing import BLUE, GREY, subplots
from .results import ROOT
from .throughput._timing import Setup, publish

TABLE = ("environments", "algorithms")  # what everybody asks for first
FOREIGN = ("torch_", "sb3_", "rejax_")  # scripts that run in another Python


def measurements() -> dict[str, str]:
    """Name and first line of every measurement."""
    names = [module.name for module in pkgutil.iter_modules(throughput.__path__)]
    names = [name for name in names if not name.startswith(("_", *FOREIGN))]
    return {name: (loaded(name).__doc__ or "").partition("\n")[0] for name in names}


def loaded(name: str) -> Any:
    return import_module(f"{throughput.__name__}.{name}")


def measure(names: Sequence[str], setup: Setup, out: Path, published: bool) -> None:
    """Measure, print each row as it is there, and write <out>/<name>-<device>.json and .png, or the published ones."""
    known = measurements()
    if wrong := [name for name in names if name not in known]:
        raise unknown("measurement", wrong[0], set(known))
    if published and (setup.smoke or setup.only):
        raise UsageError("a part of a measurement, or one of --scale smoke, is not published")
    for name in names or TABLE:
        rows = []
        with without_cache():
            for row in loaded(name).rows(setup):
                rows.append(row)
                print(line(row), flush=True)
                publish(name, rows, out)  # if it is stopped, what has been measured is there
        if rows:
            path = publish(name, rows, ROOT / "throughput" if published else out)
            drawing = getattr(loaded(name), "draw", draw)
            with style() as plt:
                save({path.stem: drawing(rows)}, path.parent, plt)
            print(path)


@contextmanager
def without_cache() -> Iterator[None]:
    """Compile everything, since compile times are reported."""
    earlier = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", earlier)


def line(row: dict[str, Any]) -> str:
    """A row in one line."""
    text = f"{row['what']:<64}{number(row['ours']):>10} {row['unit']}"
    if row.get("theirs"):
        text += f", {row['peer']}: {number(row['theirs'])}, ratio {row['ratio']:.2f}"
    if "first_step_seconds" in row:
        first = row["first_step_seconds"]
        text += f", first step {first['cold']:.0f} s cold, {first['warm']:.0f} s warm, {row['peak_mib']:.0f} MiB"
    if row.get("compile_seconds"):
        text += f", compiled in {row['compile_seconds']:.1f} s"
    return f"{text}{' (sum over learners)' if row['aggregate'] else ''}; {row['note']}"


def number(x: float | None) -> str:
    """Four digits, thousands with a k and millions with an M."""
    if x is None:
        return "—"
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if abs(x) >= factor:
            return f"{x / factor:.4g} {letter}"
    return f"{x:.4g}"


def draw(rows: list[dict[str, Any]], ours: str = "jaxrl_hier") -> Any:
    """Bars of ours, called so, and of the others where there are any, a panel for each unit."""
    units = list(dict.fromkeys(row["unit"] for row in rows))
    sizes = [sum(row["unit"] == unit for row in rows) for unit in units]
    height = 1.0 + 0.3 * sum(sizes) + 0.9 * len(units)
    figure, axes = subplots(len(units), 1, figsize=(9.5, height), height_ratios=sizes)
    for unit, ax in zip(units, axes[:, 0]):
        panel(ax, unit, [row for row in rows if row["unit"] == unit], ours)
    return figure


def panel(ax: Any, unit: str, rows: list[dict[str, Any]], called: str) -> None:
    """The rows of one unit; a logarithmic axis only where the numbers span more than a factor of 20."""
    places = np.arange(len(rows))[::-1]
    ours, theirs = (np.array([row[name] or np.nan for row in rows], float) for name in ("ours", "theirs"))
    peers = {row["peer"] for row in rows if row.get("theirs")}
    ax.barh(places + (0.2 if peers else 0), ours, 0.4 if peers else 0.7, color=BLUE, label=called)
    if peers:
        ax.barh(places - 0.2, theirs, 0.4, color=GREY, label=next(iter(peers)) if len(peers) == 1 else "compared with")
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    others = [f" | {row['peer']}" if row.get("theirs") and len(peers) > 1 else "" for row in rows]
    ax.set_yticks(places, [row["what"] + other for row, other in zip(rows, others)], fontsize=7)
    known = np.concatenate([ours, theirs])
    if np.nanmax(known) > 20 * np.nanmin(known):
        ax.set_xscale("log")
    ax.set(xlabel=unit)
    ax.grid(axis="y", visible=False)
