"""A run's records as arrays and as tables: what `metrics.jsonl` and the evaluations hold.

Rows are those of `engine.logging.read_jsonl`, evaluations those of `engine.folder.load_evaluations`.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.folder import load_evaluations, read_config, require_no_links
from jaxrl_hier.engine.logging import DIVERGED, read_jsonl
from jaxrl_hier.engine.types import NamedArray

AVERAGED = {"seed", "environment", "task", "episode", "option"}  # axes averaged over for one number per seed


# Arrays


def metrics(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Logged rows as arrays by name: "seed" [seeds], "iteration" [rows], and every other name [seeds, rows].

    NaN where a row lacks the number, such as a return when no episode ended.
    """
    seeds = sorted({row["seed"] for row in rows})
    iterations = sorted({row["iteration"] for row in rows})
    place = {(row["seed"], row["iteration"]): row for row in rows}
    names = dict.fromkeys(name for row in rows for name in row if name not in ("seed", "iteration"))
    found = {
        name: np.array([[place.get((s, i), {}).get(name, np.nan) for i in iterations] for s in seeds], np.float64)
        for name in names
    }
    return {"seed": np.array(seeds, np.uint64), "iteration": np.array(iterations, np.int64)} | found


def diverged(rows: list[dict[str, Any]]) -> set[int]:
    """The seeds that were dropped because they diverged, while the run went on."""
    return {row["seed"] for row in rows if DIVERGED in row}


def by_seed(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations [n] and values [seeds, n] of one metric, of the rows in which all seeds have a finite one. Seeds that
    were dropped because they diverged are left out."""
    dropped = diverged(rows)
    found = metrics([row for row in rows if row["seed"] not in dropped])
    values = found.get(name, np.full((len(found["seed"]), len(found["iteration"])), np.nan))
    measured = np.isfinite(values).all(axis=0)
    return found["iteration"][measured], values[:, measured]


def numbers(evaluation: Mapping[str, NamedArray]) -> dict[str, np.ndarray]:
    """One number per seed, [seeds], for every measurement that reduces to one: its mean over tasks and episodes.

    A measurement with adaptation steps gives two, "<name> before adaptation" and "<name> after adaptation", the last
    step. Best possible values and records of training episodes do not measure a policy and are left out, as are values
    by state.
    """
    found: dict[str, np.ndarray] = {}
    for name, m in evaluation.items():
        if name == "complete" or name.startswith(("best_", "training_", "experience_")):
            continue
        adapts = "adaptation_step" in m.axes
        if set(m.axes) - AVERAGED - {"adaptation_step"} or "seed" not in m.axes:
            continue
        values = mean_over(m)
        if adapts and values.shape[1] == 1:  # there was no adaptation
            found[name] = values[:, 0]
        elif adapts:
            found |= {f"{name} before adaptation": values[:, 0], f"{name} after adaptation": values[:, -1]}
        else:
            found[name] = values
    return found


def mean_over(measured: NamedArray) -> np.ndarray:
    """The mean of a measurement over all axes but seeds and adaptation steps, [seeds] or [seeds, adaptation steps]."""
    kept = [measured.axes.index(axis) for axis in ("seed", "adaptation_step") if axis in measured.axes]
    values = np.moveaxis(np.asarray(measured.values, np.float64), kept, range(len(kept)))
    return values.reshape(*values.shape[: len(kept)], -1).mean(axis=-1)


# Tables


def metrics_frame(rows: list[dict[str, Any]]) -> Any:
    """Logged rows as a pandas.DataFrame, a line per seed and row. Raises UsageError where pandas is not installed."""
    return _pandas().DataFrame(rows)


def evaluations_frame(evaluations: Mapping[int, Mapping[str, NamedArray]], seed: int = 0) -> Any:
    """Evaluations as a tidy pandas.DataFrame, see `tidy_evaluations`; columns of axes have missing values."""
    return _pandas().DataFrame(list(tidy_evaluations(evaluations, seed)))


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise UsageError("pandas is not installed: pip install pandas; without it `metrics` gives arrays") from None
    return pandas


def tidy_metrics(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line per logged number: iteration, env_steps, seed, measurement, value."""
    keys = ("iteration", "env_steps", "seed")
    for row in rows:
        place = {key: row[key] for key in keys if key in row}
        for name, value in row.items():
            if name not in keys:
                yield place | {"measurement": name, "value": value}


def tidy_evaluations(evaluations: Mapping[int, Mapping[str, NamedArray]], seed: int = 0) -> Iterator[dict[str, Any]]:
    """A line per measured number: iteration, seed, measurement, a column for each of its axes, value.

    Truth values are 1 and 0.

    Args:
        seed: the run's first seed, from which the seed axis counts.
    """
    for iteration, measured in evaluations.items():
        for name, m in measured.items():
            values = np.asarray(m.values)
            values = values.astype(int) if values.dtype == bool else values
            for index in np.ndindex(values.shape):
                place = dict(zip(m.axes, index))
                first = {"iteration": iteration, "seed": seed + place.pop("seed", 0), "measurement": name}
                yield first | place | {"value": values[index].item()}


def export_csv(run_directory: str | Path, out: str | Path | None = None) -> list[Path]:
    """The run's records as <out>/metrics.csv and <out>/evaluations.csv, default <run>/csv; returns the paths written.

    Both are tidy: a line per number, see `tidy_metrics` and `tidy_evaluations`. A cell is empty where a measurement has
    no such axis. Numbers have enough digits to be read back exactly.

    Raises:
        UsageError: no run, one that has logged and measured nothing yet, or a folder that cannot be written to.
    """
    directory = Path(run_directory).expanduser()
    folder = directory / "csv" if out is None else Path(out).expanduser()
    first = read_config(directory)["identity"]["seed"]
    require_no_links(directory)
    rows, evaluations = read_jsonl(directory / "metrics.jsonl"), load_evaluations(directory)
    if not rows and not evaluations:
        raise UsageError(f"{directory} has neither metrics nor evaluations to export")
    tables: dict[str, tuple[list[str], Iterator[dict[str, Any]]]] = {}
    if rows:
        tables["metrics"] = (["iteration", "env_steps", "seed", "measurement", "value"], tidy_metrics(rows))
    if evaluations:
        axes = dict.fromkeys(a for found in evaluations.values() for m in found.values() for a in m.axes if a != "seed")
        columns = ["iteration", "seed", "measurement", *axes, "value"]
        tables["evaluations"] = (columns, tidy_evaluations(evaluations, first))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (columns, lines) in tables.items():
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, restval="")
                writer.writeheader()
                writer.writerows(lines)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from error
    return [folder / f"{name}.csv" for name in tables]
