"""Sweeps: one algorithm with many settings, each with the same seeds.

    found = jaxrl_hier.sweep("maml", over={"inner_learning_rate": [0.1, 0.3]}, seeds=5, out="runs/rates")
    found.table(), found.plot(), found.runs

A combination of settings is a member of the sweep. Members whose structural settings agree form a group, which is one
program: the numbers in which they differ are part of its state, and members × seeds share the engine's axis of seeds.
So the loop, the checkpoints and the evaluations of a sweep are those of any run.

A member computes what `train` computes with its settings and seeds. It is the same to the last bit where no product of
matrices is computed (tabular learners), and where a member has a program of its own. Elsewhere XLA rounds batched
products differently, and operations with a number that is an input of the program differently from those with a
constant: by some 1e-7 of an array's largest entry after three iterations, and by 4e-6 where conjugate gradients
amplify it.

<out>/sweep.json             what is swept
<out>/groups/<number>        run folder of a group, whose seeds are members × seeds; removed at its end
<out>/members/<number>       run folder of a member, as `train` writes it
<out>/table.json, table.csv  members in the order of a measurement
<out>/sweep.png
"""

import csv
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_envs.contract import on_host
from jaxrl_hier import registry
from jaxrl_hier.allocator import keep_freed_memory
from jaxrl_hier.building import (
    broken_contracts_in_one_line,
    built,
    compiled_with,
    config_of,
    environment,
    require_numbered_observations,
    require_untraced,
)
from jaxrl_hier.checks import UsageError, unknown, writing_to
from jaxrl_hier.engine.chunk import initial, measurements, seed_keys
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.sharding import device_mesh
from jaxrl_hier.engine.stopping import require_function
from jaxrl_hier.engine.train import RunResult, Trainer
from jaxrl_hier.engine.train import train as train_group
from jaxrl_hier.engine.types import Algorithm, NamedArray, Tasks
from jaxrl_hier.quantities import of_algorithm, quantity
from jaxrl_hier.reports import records
from jaxrl_hier.reports.statistics import Estimate, mean
from jaxrl_hier.run import Run, folder_of, load
from jaxrl_hier.sweeps.folders import (
    OF_THE_OUTPUT,
    Context,
    begun,
    finished,
    known_diverged,
    member_folder,
    part,
    require_same_tasks,
    write,
)
from jaxrl_hier.sweeps.groups import Enduring, Group, group_of, groups_of, members_at_once, swept
from jaxrl_hier.sweeps.members import Member, Over, Range, members_of

__all__ = ["Range", "Sweep", "sweep"]


@dataclass(repr=False)
class Sweep:
    """A sweep that is done; `jaxrl_hier.sweep` returns it."""

    name: str  # of the algorithm
    members: list[Member]
    diverged: dict[int, str]  # member -> where, in words
    finished: dict[int, Run]  # those that are in memory, by member
    directory: Path | None
    env: Any
    tasks: Tasks | None  # the user's own
    by: str
    lowest: bool

    def __repr__(self) -> str:
        """In one line, without the members."""
        folder = f", in {self.directory}" if self.directory else ""
        return f"Sweep({self.name}, {_count(self.members)}, by {self.by}{folder})"

    @cached_property
    def runs(self) -> list[Run]:
        """The run of each member."""
        return [self._run(i) for i in range(len(self.members))]

    def _run(self, i: int) -> Run:
        if i in self.finished:
            return self.finished[i]
        assert self.directory is not None
        return load(member_folder(self.directory, i), self.env, self.tasks, algorithm=self.name)

    def table(self, by: str | None = None) -> list[dict[str, Any]]:
        """A line for each member, the best first: its number and settings, the mean over its seeds of a measurement,
        and the ends of the 95 % interval, None where there is none. Diverged members are last.

        Args:
            by: a measurement of the evaluations, or else of the logged rows; default: that of the sweep.
        """
        by = by or self.by
        lines = []
        for i, (member, run) in enumerate(zip(self.members, self.runs)):
            line = {"member": i} | {k: _plain(v) for k, v in member.changed.items()}
            found = None if i in self.diverged else measured(run, by)
            low, high = found.interval or (None, None) if found else (None, None)
            value = found.value if found else None
            lines.append(line | {by: value, "low": low, "high": high, "diverged": self.diverged.get(i, "")})
        worth = lambda line: line[by] if self.lowest else -line[by]
        return sorted(lines, key=lambda line: (line[by] is None, 0 if line[by] is None else worth(line)))

    def save(self) -> list[Path]:
        """Write the table and the picture into the folder of the sweep."""
        if self.directory is None:
            raise UsageError("this sweep has no folder to write to: give it out=…")
        lines = self.table()
        as_json, as_csv = (self.directory / f"table.{kind}" for kind in ("json", "csv"))
        with writing_to(self.directory):
            as_json.write_text(json.dumps(lines, indent=2) + "\n")
            with as_csv.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(lines[0]))
                writer.writeheader()
                writer.writerows(lines)
            return [as_json, as_csv, *self.plot()]

    def plot(self, by: str | None = None, out: str | Path | None = None) -> list[Path]:
        """Draw the table; returns the path, or none where every member has diverged.

        Args:
            out: a file; default: sweep.png in the folder of the sweep.
        """
        from jaxrl_hier.reports.sweeps import draw

        if out is None and self.directory is None:
            raise UsageError("this sweep has no folder to draw into: give out, a file")
        path = folder_of(out) if out else Path(self.directory or "") / "sweep.png"
        own = quantity((by or self.by).partition(" ")[0], of_algorithm(registry.module(self.name)))
        names = list(self.members[0].changed)
        return draw(self.table(by), names, by or self.by, own, path, f"{self.name}, {_seeds(self.members[0].run)}")


def _seeds(run: RunConfig) -> str:
    return "1 seed" if run.seeds == 1 else f"mean and 95 % over {run.seeds} seeds"


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else value


def measured(run: Run, by: str) -> Estimate | None:
    """The mean over seeds of a measurement at the end; None where a seed has none, as before its first episode ends.

    Raises:
        UsageError: nothing is called so.
    """
    bounds = quantity(by.partition(" ")[0], of_algorithm(registry.module(run.name))).bounds
    values = chosen(records.numbers(run.evaluation), by)
    if values is None:
        logged = {k: x[:, -1] for k, x in records.metrics(run.rows).items() if x.ndim > 1}
        if by not in logged:
            require_measurement(run.algorithm, run.settings, by)
            return None
        values = logged[by]
    return mean(values, bounds=bounds) if np.isfinite(values).all() else None


def chosen(evaluated: Mapping[str, Any], by: str) -> Any:
    """What is called `by`, where it was measured before and after adaptation the latter; None where there is none."""
    return evaluated.get(by, evaluated.get(f"{by} after adaptation"))


def require_measurement(algorithm: Algorithm, run: RunConfig, by: str) -> None:
    """Raises UsageError unless an evaluation, or else a logged row, measures `by`. Nothing is run or compiled."""
    shapes, logged = measurements(algorithm, initial(algorithm, run)[0])
    zeros: Any = lambda m: np.zeros((1, *m.values.shape))
    evaluated = records.numbers({k: NamedArray(zeros(m), ("seed", *m.axes)) for k, m in shapes.items()})
    if chosen(evaluated, by) is None and by not in logged:
        raise unknown("measurement", by, [*evaluated, *logged])


@with_own_numerics
def sweep(
    name: str,
    env: Any = None,
    tasks: Tasks | None = None,
    *,
    over: Over,
    random: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    by: str = "return",
    lowest: bool = False,
    stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Sweep:
    """Train an algorithm with many settings, in as few programs as they allow.

    Args:
        name, env, tasks: as for `train`.
        over: setting -> its values, a list or, with `random`, a `Range`; or a list of combinations, setting -> value.
        random: how many combinations to draw, by the run's seed; None: all of them, the grid.
        out: folder for all members' runs, the table and the picture; None: nothing is written.
        resume: go on with the sweep in `out`, which must be of the same settings.
        by: the measurement that the table is sorted by, of the evaluations or else of the logged rows.
        lowest: the lowest is the best.
        stop: as for `train`.
        settings: those of all members, as for `train`. `plots` is off unless it is given.

    Raises:
        UsageError: bad settings or folder, before anything compiles. A member that diverges does not end the others.
    """
    require_untraced("sweep")
    keep_freed_memory()
    for setting in ("initial", "distributed", "coordinator", "processes", "process"):
        if setting in settings:
            raise UsageError(f"a sweep has no {setting}: that is for single runs, `train`")
    if not isinstance(by, str):
        raise UsageError(f"by must be the name of a measurement, got {by!r}")
    require_function(stop)
    if resume and out is None:
        raise UsageError("resume needs out, the folder of the sweep to go on with")
    asked, own_tasks = registry.entry(name).env if env is None else env, tasks is not None
    env_name = asked if isinstance(asked, str) else None
    found, tasks = environment(asked, tasks)
    require_numbered_observations(found, tasks)
    members = members_of(name, over, random, settings, found, tasks)
    directory = None if out is None else folder_of(out)
    context = Context(name, found, tasks, env_name, own_tasks)
    of_first = lambda k: getattr(members[0].config, k, getattr(members[0].run, k, None))
    about = {
        "algorithm": name,
        "env": env_name,
        "settings": {k: of_first(k) for k in settings if k not in OF_THE_OUTPUT},
        "members": {str(i): m.changed for i, m in enumerate(members)},
    }
    about = json.loads(json.dumps(about))
    require_measurement(built(name, members[0].config, found, tasks), members[0].run, by)
    device_mesh(members[0].run.devices)
    parts = groups_of(members, lambda member: members_at_once(name, member, found, tasks))
    if directory is not None:
        usual = json.loads(json.dumps(vars(RunConfig()) | vars(config_of(name, {})) | registry.entry(name).run))
        parts = begun(directory, about, parts, resume, usual)
        require_same_tasks(directory, context, len(members))
    groups = [group_of(members, part) for part in parts]
    all_of = Sweep(name, members, {}, {}, directory, asked, tasks if own_tasks else None, by, lowest)
    for i, group in enumerate(groups):
        if directory and all(finished(directory, m) for m in group.members):
            continue
        if not members[group.members[0]].run.quiet and len(groups) > 1:
            print(f"program {i + 1} of {len(groups)}: {_count(group.members)}", file=sys.stderr, flush=True)
        train_members(context, group, members, all_of, directory and directory / "groups" / str(i), stop)
    if directory is not None:
        shutil.rmtree(directory / "groups", ignore_errors=True)  # killed between a group's last member and its end
        all_of.diverged |= known_diverged(directory, len(members))
    return all_of


def _count(members: Sequence[Any]) -> str:
    return "1 member" if len(members) == 1 else f"{len(members)} members"


def train_members(
    context: Context,
    group: Group,
    members: Sequence[Member],
    into: Sweep,
    folder: Path | None,
    stop: Callable[[], bool] | None,
) -> None:
    """Train a group, and make runs of its members."""
    chosen = [members[i] for i in group.members]
    first, seeds, count = chosen[0], chosen[0].run.seeds, len(chosen)
    kept: dict[str, Any] = {"stop": stop}
    if folder is not None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shared = dataclasses.asdict(first.config) | {k: x.tolist() for k, x in group.numbers.items()}
        kept |= {"directory": folder, "identity": context.identity(shared), "resume": (folder / "config.json").exists()}
    keys = seed_keys(first.run)[np.tile(np.arange(seeds), count)]
    numbers = {k: np.repeat(x, seeds) for k, x in group.numbers.items()}
    algorithm = swept(context.name, first.config, context.env, context.tasks)
    enduring = Enduring(algorithm, folder, skip=first.run.on_nan == "skip")
    trainer = calling(enduring, context.env, (keys, numbers)) if on_host(context.env) else enduring
    # the axis of seeds holds members × seeds: its indices are places, not seeds
    run = replace(first.run, seed=0, seeds=count * seeds, tensorboard=False, wandb=False)
    names = [f"member {i}, seed {first.run.seed + k}" for i in group.members for k in range(seeds)]
    with broken_contracts_in_one_line(context.env, context.tasks):
        result = train_group(algorithm, run, trainer=trainer, starts=(keys, numbers), names=names, **kept)
    evaluations = {run.iterations: result.evaluation} | ({} if folder is None else load_evaluations(folder))
    for at, (i, member) in enumerate(zip(group.members, chosen)):
        places = range(at * seeds, (at + 1) * seeds)
        when = [enduring.diverged[p] for p in places if p in enduring.diverged]
        made = run_of(context, member, result, places, count, min(when)[0] if when else None)
        if when:
            into.diverged[i] = f"{min(when)[1]} at iteration {min(when)[0]}"
        if into.directory is None:
            into.finished[i] = made
        else:
            made.directory = member_folder(into.directory, i)
            write(made, context, {} if when else evaluations, places, into.diverged.get(i, ""))
    if folder is not None:
        shutil.rmtree(folder)


def calling(trainer: Enduring, env: Any, starts: Any) -> Trainer:
    """A group's trainer whose program calls the host for the steps of Gymnasium's environments."""
    from jaxrl_hier.host_training import Calling, require_one_process

    require_one_process()
    return Calling(trainer, env, starts)


def run_of(context: Context, member: Member, result: RunResult, places: range, count: int, diverged: int | None) -> Run:
    """The run of a member: its places [seeds] of what its group has learned, of `count` members.

    A diverged one has the rows before it diverged, and no state.
    """
    state = jax.tree.map(lambda x: x[places.start : places.stop], result.state)
    state = replace(state, learner=state.learner.learner)
    alone = compiled_with(member.config, member.run, context.env)
    if alone is not context.env:
        from jaxrl_hier.host_training import without_tickets

        state = without_tickets(state)
    rows = []
    for row in result.rows:
        if row["seed"] in places and (diverged is None or row["iteration"] < diverged):
            seed = member.run.seed + row["seed"] - places.start
            rows.append(row | {"seed": seed, "steps_per_second": round(row["steps_per_second"] / count, 1)})
    return Run(
        name=context.name,
        config=member.config,
        settings=member.run,
        env=context.env,
        tasks=context.tasks,
        env_name=context.env_name,
        own_tasks=context.own_tasks,
        algorithm=built(context.name, member.config, alone, context.tasks),
        state=None if diverged else state,
        evaluation={} if diverged else part(result.evaluation, places),
        rows=rows,
        seconds=result.seconds / count,
        compile_seconds=result.compile_seconds / count,
    )
