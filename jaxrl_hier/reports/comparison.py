"""Compares runs: settings that differ, learning curves over the seeds, final evaluations.

    jaxrl-hier plot runs/a runs/b runs/c
    found = jaxrl_hier.compare(["runs/a", "runs/b", "runs/c"], out="comparison.png")

Runs that differ in their seeds alone are one group, with all of their seeds. A group is measured at the last iteration
at which all of its runs were evaluated. Intervals are 95 % over the seeds of a group (`statistics`). Each environment
has its own panel: returns of different ones cannot be compared. Runs whose tasks differ are groups of their own,
whatever their settings.

Axes in shapes: S seeds of a group.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxrl_hier.checks import UsageError, unknown, warn
from jaxrl_hier.engine.folder import load_evaluations, read_config
from jaxrl_hier.engine.identity import INSIDE, Identity, differences, flat
from jaxrl_hier.engine.identity import load as load_identity
from jaxrl_hier.engine.logging import read_jsonl
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.quantities import Quantity, quantity
from jaxrl_hier.reports import statistics
from jaxrl_hier.reports.records import by_seed, diverged, numbers
from jaxrl_hier.reports.statistics import ENOUGH, Estimate
from jaxrl_hier.run import Run, folder_of

CURVES = ("return", "success_at_end", "episode_length")  # default quantities, in order of preference
SEEDS = ("seed", "seeds")  # settings in which runs of a group may differ


class LoggedRun(NamedTuple):
    """The contents of a run's files."""

    directory: Path
    algorithm: str
    env: str
    settings: dict[str, Any]  # by name, without the seeds
    seeds: list[int]
    rows: list[dict[str, Any]]
    evaluations: dict[int, dict[str, NamedArray]]  # by iteration
    arrays: Mapping[str, np.ndarray] = MappingProxyType({})  # that identify its environment and its tasks


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone."""

    label: str  # unique on its environment
    algorithm: str
    env: str
    settings: dict[str, Any]
    runs: tuple[LoggedRun, ...]

    @property
    def seeds(self) -> list[int]:
        return [seed for run in self.runs for seed in run.seeds]

    @property
    def measured(self) -> int | None:
        """The last iteration at which all of its runs were evaluated; None where there is none."""
        return max(set.intersection(*[{*run.evaluations} for run in self.runs]), default=None)


class Curve(NamedTuple):
    """One logged quantity of a group."""

    steps: np.ndarray  # [n] environment steps of a seed
    values: np.ndarray  # [S, n]


class Compared(NamedTuple):
    """One measurement of the groups on an environment, at the last iteration that all runs of a group reached."""

    env: str
    measurement: str
    means: dict[str, Estimate]  # by the groups' labels
    interquartile_means: dict[str, Estimate]  # of groups with ten seeds or more
    difference: Estimate | None  # of the first group and the second where there are two: Welch's t


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`."""

    groups: list[Group]
    quantity: str  # what the curves show; "" where nothing is common to all groups
    curves: dict[tuple[str, str], Curve]  # by environment and label
    final: list[Compared]
    picture: Path | None  # where the curves are drawn


def compare(
    folders: Iterable[str | Path | Run], out: str | Path | None = None, quantity: str | None = None
) -> Comparison:
    """Compare runs by their files.

    Args:
        folders: run folders, or runs that have one.
        out: file for the picture of the curves, `.png` is added unless it ends in another format; None: no picture.
        quantity: what the curves show, by name; default: the first of return, success_at_end and episode_length that
            all groups have logged and that varies.

    Raises:
        UsageError: a folder without a run, a run given twice, or a quantity that was not logged.
    """
    if isinstance(folders, str | Path | Run):
        raise UsageError(f"folders must be a list of run folders or runs, got {folders!r}; for one, [{folders!r}]")
    groups = grouped([read(_folder(run)) for run in folders])
    name = drawn_quantity(groups, quantity)
    curves = {(g.env, g.label): learning_curve(g, name) for g in groups} if name else {}
    picture = None
    if out is not None and any(curve.values.size for curve in curves.values()):
        picture = picture_file(out)
        draw(curves, name, picture, own_quantities(groups))
    return Comparison(groups, name, curves, final(groups), picture)


def _folder(run: str | Path | Run) -> Path:
    if isinstance(run, Run) and run.directory is None:
        raise UsageError(f"{run!r} has no folder to compare: train it with out=…")
    return run.directory if isinstance(run, Run) and run.directory else folder_of(run)


def picture_file(out: str | Path) -> Path:
    """Where a picture is written: `out`, with .png added unless it ends in a format that matplotlib draws."""
    from matplotlib.backend_bases import FigureCanvasBase  # slow to import

    path = Path(out).expanduser()
    drawn = path.suffix.removeprefix(".") in FigureCanvasBase.filetypes
    return path if drawn else path.with_name(f"{path.name}.png")


# Runs and groups


def read(directory: Path) -> LoggedRun:
    """A run from its folder. Raises UsageError if there is none or it has logged nothing."""
    identity = read_config(directory)["identity"]
    rows, evaluations = read_jsonl(directory / "metrics.jsonl"), load_evaluations(directory)
    if not rows and not evaluations:
        raise UsageError(f"{directory} has neither metrics nor evaluations to compare")
    if missing := [name for name in ("algorithm", "env") if name not in identity]:
        raise UsageError(f"{directory} does not say its {missing[0]}: it was not made by jaxrl_hier.train")
    measured = [m for found in evaluations.values() for m in found.values() if "seed" in m.axes]
    held = max(len({row["seed"] for row in rows}), *[m.values.shape[m.axes.index("seed")] for m in measured], 0)
    if held < identity["seeds"]:  # which may be any number in a stranger's folder
        raise UsageError(f"{directory} is a run of {identity['seeds']} seeds, but its files hold only {held}")
    seeds = [identity["seed"] + i for i in range(identity["seeds"])]
    known = ("algorithm", "env", "config", *SEEDS)
    more = {name: value for name, value in identity.items() if name not in known}
    inside = more.pop(INSIDE, {})
    settings = flat(identity.get("config", {}) | more) | inside
    env = identity["env"] or str(settings.get("environment.class", "an environment of its own")).rpartition(".")[2]
    arrays = load_identity(directory, identity).arrays
    return LoggedRun(directory, identity["algorithm"], env, settings, seeds, rows, evaluations, arrays)


def with_origins(runs: Sequence[LoggedRun]) -> list[LoggedRun]:
    """The runs, with a setting `tasks` or `environment` where the arrays that identify these differ.

    Its value names the first run that has the same. Runs that have kept no arrays count as having those of any other.
    """
    for part in ("environment", "tasks"):
        belongs = lambda name, part=part: name.startswith(("environment", INSIDE)) == (part == "environment")
        arrays = [{name: x for name, x in run.arrays.items() if belongs(name)} for run in runs]
        first = [_first_alike(i, runs, arrays) for i in range(len(runs))]
        kinds = [{j for j, other in zip(first, runs) if other.env == run.env} for run in runs]
        origin = [{part: f"of {runs[j].directory}"} if len(kind) > 1 else {} for j, kind in zip(first, kinds)]
        runs = [run._replace(settings=run.settings | more) for run, more in zip(runs, origin)]
    return list(runs)


def _first_alike(i: int, runs: Sequence[LoggedRun], arrays: Sequence[Mapping[str, np.ndarray]]) -> int:
    """The first run on the environment of run i with the same arrays, up to rounding; −1 where no run has any."""
    same = lambda j: not arrays[i] or not differences(Identity({}, arrays[j]), Identity({}, arrays[i]))
    return next((j for j, run in enumerate(runs) if run.env == runs[i].env and arrays[j] and same(j)), -1)


def grouped(runs: Sequence[LoggedRun]) -> list[Group]:
    """Groups in the order of their first runs, with their labels.

    Raises:
        UsageError: no runs, or a seed of a group given twice, which would count as two.
    """
    if not runs:
        raise UsageError("a comparison needs at least one run folder")
    found: dict[str, list[LoggedRun]] = {}
    for run in with_origins(runs):
        key = json.dumps([run.algorithm, run.env, run.settings], sort_keys=True)
        for other in found.setdefault(key, []):
            if twice := sorted({*other.seeds} & {*run.seeds}):
                raise UsageError(f"{other.directory} and {run.directory} are the same run of seed {twice[0]}: give one")
        found[key].append(run)
    first = [members[0] for members in found.values()]
    groups = zip(labels(first), first, found.values())
    return [Group(label, run.algorithm, run.env, run.settings, tuple(members)) for label, run, members in groups]


def labels(runs: Sequence[LoggedRun]) -> list[str]:
    """A label for each of several different runs, unique among the runs on its environment.

    It names the algorithm, if runs of others are on the environment, and the fewest settings that distinguish the runs
    of one algorithm.
    """
    called = []
    for run in runs:
        here = [other for other in runs if other.env == run.env]
        alike = [other for other in here if other.algorithm == run.algorithm]
        names = telling([other.settings for other in alike])
        text = ", ".join(f"{name} {_shown(run.settings.get(name))}" for name in names)
        parts = [run.algorithm] if len(alike) < len(here) or not names else []
        called.append(", ".join([*parts, text] if text else parts))
    return called


def telling(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The fewest names whose values distinguish all the settings, the shortest where several sets would do; all names
    that differ where more than three are needed."""
    text = [{name: json.dumps(value) for name, value in each.items()} for each in settings]
    every = dict.fromkeys(name for each in text for name in each)
    differing = [name for name in every if len({each.get(name) for each in text}) > 1]
    for count in range(4):
        for names in sorted(combinations(differing, count), key=lambda names: len("".join(names))):
            if len({tuple(each.get(name) for name in names) for each in text}) == len(text):
                return names
    return tuple(differing)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "×".join(map(_shown, value)) or "none"
    return {True: "on", False: "off", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def own_quantities(groups: Sequence[Group]) -> Mapping[str, Quantity]:
    """The table of quantities of the groups' algorithm; empty where they have several."""
    from jaxrl_hier import registry
    from jaxrl_hier.quantities import of_algorithm

    if any(registry.is_import_path(g.algorithm) for g in groups):  # from files, which may be a stranger's
        return {}
    modules = {registry.module(g.algorithm).__name__: registry.module(g.algorithm) for g in groups}
    return of_algorithm(next(iter(modules.values()))) if len(modules) == 1 else {}


# Curves


def drawn_quantity(groups: Sequence[Group], asked: str | None = None) -> str:
    """The quantity to draw, which all groups have logged; "" for none.

    Raises:
        UsageError: a group has not logged the quantity `asked`.
    """
    logged = [{name for run in group.runs for row in run.rows for name in row} for group in groups]
    common = set.intersection(*logged) - {"iteration", "seed", "env_steps"}
    if asked is not None:
        if asked not in common:
            raise unknown("quantity that all runs have logged", asked, sorted(common))
        return asked
    for name in CURVES:
        if name in common:
            values = {row[name] for g in groups for run in g.runs for row in run.rows if name in row}
            if len(values) > 1:
                return name
    return ""


def learning_curve(group: Group, name: str) -> Curve:
    """A logged quantity of all the group's seeds, at the same environment steps."""
    seeds = []
    for run in group.runs:
        steps = {row["iteration"]: row["env_steps"] for row in run.rows}
        for seed in run.seeds:
            iterations, values = by_seed([row for row in run.rows if row["seed"] == seed], name)
            seeds.append((np.array([steps[i] for i in iterations.tolist()], np.float64), *values))
    return aligned([s for s in seeds if len(s[0])])


def aligned(seeds: Sequence[tuple[np.ndarray, np.ndarray]]) -> Curve:
    """Curves (steps [n], values [n]), interpolated linearly to common steps: those of all curves, within the range that
    every curve covers."""
    if not seeds:
        return Curve(np.zeros(0), np.zeros((0, 0)))
    begin, end = max(steps[0] for steps, _ in seeds), min(steps[-1] for steps, _ in seeds)
    every = np.unique(np.concatenate([steps for steps, _ in seeds]))
    common = every[(every >= begin) & (every <= end)]
    return Curve(common, np.stack([np.interp(common, *seed) for seed in seeds]))


# At the end


def final(groups: Sequence[Group]) -> list[Compared]:
    """Every measurement that all groups on an environment have in their last evaluations. What is left out, or compared
    although it was trained for longer, is reported in a warning."""
    compared = []
    for group in groups:
        _say_where_runs_differ(group)
    groups = [left for group in groups if (left := _evaluated(group, groups)) is not None]
    for env in dict.fromkeys(group.env for group in groups):
        on_env = [group for group in groups if group.env == env]
        _say_where_groups_differ(on_env)
        here = {group.label: last_numbers(group) for group in on_env}
        discounts = {group.settings.get("discount") for group in on_env}
        for name in dict.fromkeys(name for found in here.values() for name in found):
            alike = name != "start_value" or len(discounts) == 1  # incomparable between discounts
            if alike and all(name in found for found in here.values()):
                compared.append(_compared(env, name, {label: found[name] for label, found in here.items()}))
    return compared


def _evaluated(group: Group, groups: Sequence[Group]) -> Group | None:
    """The group without its runs that have no evaluation; None where none is left that could be compared."""
    runs = tuple(run for run in group.runs if run.evaluations)
    if any(run.evaluations for other in groups if other.env == group.env for run in other.runs):
        for run in (run for run in group.runs if not run.evaluations):
            warn(f"{run.directory} stopped at iteration {_reached(run)} and has no evaluation; left out of the table")
    left = replace(group, runs=runs)
    if runs and left.measured is None:
        several = " and ".join(str(run.directory) for run in runs)
        warn(f"{several} were never evaluated at the same iteration; left out of the table")
    return left if runs and left.measured is not None else None


def _reached(run: LoggedRun) -> int:
    """The last iteration that a run has logged or evaluated."""
    return max([*run.evaluations, *(row["iteration"] for row in run.rows)])


def _say_where_runs_differ(group: Group) -> None:
    """Warn where the runs of a group were not trained for equally long."""
    reached = {str(run.directory): _reached(run) for run in group.runs}
    if len({*reached.values()}) > 1:
        each = ", ".join(f"{directory} {iteration}" for directory, iteration in reached.items())
        warn(
            f"runs of {group.label} differ in their iterations ({each}): the curve ends with the shortest, and the "
            "table is of the last iteration at which all were evaluated"
        )


def _say_where_groups_differ(groups: Sequence[Group]) -> None:
    """Warn where the groups on an environment are compared after different iterations."""
    if len({group.measured for group in groups}) > 1:
        each = ", ".join(f"{group.label} at {group.measured}" for group in groups)
        warn(f"on {groups[0].env}, groups are compared at different iterations: {each}")


def last_numbers(group: Group) -> dict[str, np.ndarray]:
    """One number per seed [S] for every measurement at the last iteration at which all of the group's runs were
    evaluated; seeds that were dropped because they diverged are left out."""
    if (iteration := group.measured) is None:
        return {}
    last = [_numbers_at(run, iteration) for run in group.runs]
    return {name: np.concatenate([found[name] for found in last]) for name in last[0] if all(name in f for f in last)}


def _numbers_at(run: LoggedRun, iteration: int) -> dict[str, np.ndarray]:
    left = [seed not in diverged(run.rows) for seed in run.seeds]
    return {name: x[left] for name, x in numbers(run.evaluations[iteration]).items()}


def _compared(env: str, name: str, values: dict[str, np.ndarray]) -> Compared:
    """Compare the values [S] of one measurement, by label."""
    bounds = quantity(name.split(" ")[0]).bounds
    two = list(values.values()) if len(values) == 2 else []
    many = {label: x for label, x in values.items() if len(x) >= ENOUGH}
    return Compared(
        env,
        name,
        {label: statistics.mean(x, bounds=bounds) for label, x in values.items()},
        {label: statistics.interquartile_mean(x) for label, x in many.items()},
        statistics.difference(two[0], two[1], bounds=bounds) if two else None,
    )


def table(compared: Sequence[Compared]) -> list[tuple[str, str, str, str, str]]:
    """Rows of text: environment and measurement, group, mean, interval, sample; from ten seeds on also the
    interquartile mean, and for two groups the difference, first minus second."""
    lines = []
    for c in compared:
        estimates = [(label, e) for label, e in c.means.items()]
        estimates += [(f"{label}, interquartile mean", e) for label, e in c.interquartile_means.items()]
        if c.difference is not None:
            first, second = c.means
            estimates.append((f"{first} − {second}", c.difference))
        for label, e in estimates:
            lines.append(
                (f"{c.env}: {c.measurement.replace('_', ' ')}", label, f"{e.value:.4g}", e.bracket(".4g"), e.over)
            )
    return lines


# The picture


def draw(curves: Mapping[tuple[str, str], Curve], name: str, path: Path, own: Mapping[str, Quantity]) -> None:
    """The curves by environment and label as a picture, a panel for each environment."""
    from jaxrl_hier.reports.plotting import draw_band, logged_quantity, scale, style

    drawn = logged_quantity(name, own)
    envs, every = (list(dict.fromkeys(keys)) for keys in zip(*curves))
    with style() as plt:
        figure, axes = plt.subplots(1, len(envs), figsize=(6.2 * len(envs), 4.2), squeeze=False)
        colors = plt.get_cmap("tab10")
        for env, ax in zip(envs, axes[0]):
            for (where, label), curve in curves.items():
                if where == env and curve.values.size:
                    count = len(curve.values)
                    named = f"{label} ({count} seed{'' if count == 1 else 's'})"
                    color = colors(every.index(label) % 10)
                    draw_band(ax, curve.steps, drawn.factor * curve.values, color, drawn.bounds, label=named)
            seen = [drawn.factor * c.values for (where, _), c in curves.items() if where == env and c.values.size]
            ax.set(title=env, xlabel="environment steps of a seed", ylabel=drawn.label)
            if seen:
                scale(ax, drawn, seen)
                ax.legend(loc="best", title="mean and 95 % over seeds")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
