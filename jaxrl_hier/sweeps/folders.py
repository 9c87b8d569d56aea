"""The folder of a sweep, and the run folders of its members."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_hier.building import broken_contracts_in_one_line
from jaxrl_hier.checks import UsageError, writing_to
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.files import PARTIAL, replacing
from jaxrl_hier.engine.folder import read_config, save_evaluation, writing
from jaxrl_hier.engine.identity import INSIDE, Identity, differences, identity_of, load, summary
from jaxrl_hier.engine.logging import RunLog
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import NamedArray, Tasks
from jaxrl_hier.run import Run, current_facts, draw, write_report

WHERE = "diverged.txt"  # in the folder of a member that diverged: the same in words

# settings of a run on which a sweep's results depend; the others may change when it is resumed
OF_THE_RESULTS = {"iterations", "seed", "seeds", "log_every", "evaluate_every", "on_nan"}
OF_THE_OUTPUT = {f.name for f in dataclasses.fields(RunConfig)} - OF_THE_RESULTS


class Context(NamedTuple):
    """What the members have in common."""

    name: str
    env: Any
    tasks: Tasks
    env_name: str | None
    own_tasks: bool

    def identity(self, settings: dict[str, Any]) -> Identity:
        with broken_contracts_in_one_line(self.env, self.tasks):
            return identity_of(self.name, settings, self.env_name, self.env, self.tasks, self.own_tasks)


def member_folder(directory: Path, i: int) -> Path:
    """The run folder of a member."""
    return directory / "members" / str(i)


def finished(directory: Path, i: int) -> bool:
    """Whether the run folder of a member is whole: its report is written last."""
    return (member_folder(directory, i) / "report.json").exists()


def begun(
    directory: Path, about: dict[str, Any], parts: list[list[int]], resume: bool, defaults: Mapping[str, Any]
) -> list[list[int]]:
    """Begin the folder of a sweep, or check that it is the one to resume. Returns the members of each group: those of
    the beginning, since there may be less free memory now.

    Args:
        about: what members have in common; the settings among it are those that were said.
        defaults: the values of settings that were not.

    Raises:
        UsageError: it exists already, cannot be written, or is another sweep's.
    """
    path = directory / "sweep.json"
    if resume and not path.exists():
        raise UsageError(f"nothing to resume in {directory}: it holds no sweep.json of a sweep")
    if resume:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            begun_with = [[int(i) for i in part] for part in kept["groups"]]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(f"{path} is not the sweep.json of a sweep: {type(error).__name__}") from None
        asked, was = dict(about["settings"]), dict(kept["settings"])
        for name in OF_THE_OUTPUT:  # earlier versions kept them, too
            was.pop(name, None)
        for name in asked.keys() | was.keys():  # said in one of both: the other has the default
            asked.setdefault(name, defaults.get(name))
            was.setdefault(name, defaults.get(name))
        now = about | {"groups": kept["groups"], "settings": asked}
        if different := differences(Identity(kept | {"settings": was}), Identity(now)):
            raise UsageError(f"{directory} is another sweep: {summary(different)}")
        if sorted(i for part in begun_with for i in part) != list(range(len(about["members"]))):
            raise UsageError(f"{path} is damaged: its groups are not its members")
        return begun_with
    if directory.exists() and (not directory.is_dir() or {p.name for p in directory.iterdir()} - {PARTIAL + path.name}):
        raise UsageError(f"{directory} exists already; go on with a sweep by --resume, or choose another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial_file:
            partial_file.write_text(json.dumps(about | {"groups": parts}, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from error
    return parts


def require_same_tasks(directory: Path, context: Context, count: int) -> None:
    """Raises UsageError where a member that is finished was trained on another environment or other tasks."""
    folder = next((member_folder(directory, i) for i in range(count) if finished(directory, i)), None)
    if folder is None:
        return
    kept = load(folder, read_config(folder)["identity"])
    if different := differences(kept, context.identity({}), parts=("environment", INSIDE, "tasks")):
        raise UsageError(f"{directory} is another sweep: {summary(different)}")


def write(
    run: Run, context: Context, evaluations: dict[int, dict[str, NamedArray]], places: range, diverged: str
) -> None:
    """Write the run folder of a member as `train` would have left it."""
    directory = run.directory
    assert directory is not None
    if directory.exists():  # killed while it was written
        shutil.rmtree(directory)
    directory.parent.mkdir(exist_ok=True)
    identity = context.identity(dataclasses.asdict(run.config))._replace(
        current=partial(current_facts, type(run.config))
    )
    with writing(directory, identity, run.settings, resume=False):
        seeds = [run.settings.seed + i for i in range(run.settings.seeds)]
        log = RunLog(directory, seeds, run.settings.tensorboard, wandb=run.settings.wandb)
        try:
            for _, rows in itertools.groupby(run.rows, key=lambda row: row["iteration"]):
                log.write(list(rows))
        finally:
            log.close()
        if run.state is not None:
            checkpoint.save(directory, run.state, run.iteration)
        for iteration, evaluation in evaluations.items():
            save_evaluation(directory, part(evaluation, places), iteration)
    with writing_to(directory):
        if diverged:
            (directory / WHERE).write_text(diverged + "\n")
        if run.settings.plots and run.state is not None:
            draw(run)
        write_report(run)


def known_diverged(directory: Path, count: int) -> dict[int, str]:
    """Which members diverged, and where, from their folders."""
    paths = {i: member_folder(directory, i) / WHERE for i in range(count)}
    return {i: path.read_text(errors="replace").strip() for i, path in paths.items() if path.exists()}


def part(evaluation: dict[str, NamedArray], places: range) -> dict[str, NamedArray]:
    """The rows `places` of a group's evaluation (arrays [seed of every member, …]): those of one member."""
    return {k: NamedArray(m.values[places.start : places.stop], m.axes) for k, m in evaluation.items()}
