"""Figures, tables and speeds: `python -m benchmarks list`, `run NAME…`, `check`, `report`, `throughput`, `guard`,
`determinism`, `devices`, `gpu`."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrl_hier.allocator import keep_freed_memory
from jaxrl_hier.checks import UsageError

from . import figure as figures
from .catalogue import all_figures, file_of, state_of
from .results import REPOSITORY, ROOT, write


@dataclass(frozen=True)
class List:
    """What there is: name, paper, what it shows, whether it has been reached, minutes on two cores."""

    json: bool = False
    """for programs"""


@dataclass(frozen=True)
class Run:
    """Train, measure and draw figures. What was measured before is kept; a run that was killed goes on."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """as `list` shows them, or "all\""""
    scale: Literal["smoke", "cpu", "gpu"] = "cpu"
    """smoke: seconds to minutes, to see that it runs; cpu: what two cores can do; gpu: the paper's sizes"""
    seeds: int | None = None
    """independent repetitions; those that are there are kept, and more are added. Default: the figure's own number"""
    parts: tuple[str, ...] = ()
    """run only parts with these names or patterns, such as "k = 5*"; of others what is there or published is used"""
    out: Path = figures.OUT
    """folder for everything that is measured"""
    redraw: bool = False
    """run nothing: rows and pictures from what is there, or else from what is published"""
    publish: bool = False
    """copy rows, arrays and pictures into benchmarks/results, as the published ones"""


@dataclass(frozen=True)
class Check:
    """Which results are older than their code, which intervals do not follow from the values in their files, and which
    numbers on the pages differ from their files. Exit status 1 when something does."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """parts of names of results; default: all"""
    stale: bool = True
    """look for results that are older than their code, which needs the git history"""
    rewrite: bool = False
    """first compute intervals and verdicts again and write them into the files, after a change of the statistics"""


@dataclass(frozen=True)
class Report:
    """Write the pages of results, README's tables and the page to search, from the result files."""


@dataclass(frozen=True)
class Guard:
    """Run a fixed subset again (five seeds, about 20 minutes on two cores) and compare it with the published rows. Exit
    status 1 where an interval lies on the wrong side of the published one."""

    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: to see that it runs; nothing is compared"""
    out: Path = Path("runs") / "guard"
    """folder for what is measured, which must be new"""


@dataclass(frozen=True)
class Throughput:
    """Measure speed: without names steps per second of every environment, and speed, time to the first step and memory
    of every algorithm; by name, ours beside other packages and PyTorch references."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """as `list` shows them below the figures"""
    rounds: int = 3
    """alternations of ours and theirs"""
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: to see that it runs"""
    only: tuple[str, ...] = ()
    """environments, algorithms or sizes, by name; default: all"""
    pythons: tuple[str, ...] = ()
    """Pythons that have a package, such as torch=/venv/bin/python; default: this one"""
    peers: tuple[str, ...] = ()
    """public programs to time beside ours, such as maxq=Taxi.py; see the module of the measurement"""
    out: Path = Path("runs") / "throughput"
    """folder for JSON and pictures"""
    publish: bool = False
    """write into benchmarks/results instead"""


@dataclass(frozen=True)
class Determinism:
    """Train every preset at a small size twice, in two processes, and compare all numbers bit for bit."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """presets; default: all"""
    out: Path = Path("runs") / "determinism"
    """folder for the JSON"""
    publish: bool = False
    """write into benchmarks/results instead"""


@dataclass(frozen=True)
class Devices:
    """How the work of an iteration divides among 1, 2 and 8 devices, from compiled programs: operations of each device,
    number and bytes of what they exchange, memory."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """presets; default: all"""
    json: bool = False
    """print JSON"""
    out: Path = Path("runs") / "devices"
    """folder for the JSON"""
    publish: bool = False
    """write into benchmarks/results instead"""


@dataclass(frozen=True)
class Gpu:
    """Measure what is worth most on a GPU within some minutes: steps with a time limit and files of their own."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """steps; default: all"""
    minutes: float = 12.0
    """for all steps together"""
    smoke: bool = False
    """tiny sizes, to see that it runs, also on a CPU"""
    peers: tuple[str, ...] = ()
    """public programs to time beside ours, such as rl2_xland=training; see the module of the measurement"""
    out: Path = Path("runs") / "gpu"
    """folder with a folder for each step"""


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Guard, tyro.conf.subcommand("guard")]
    | Annotated[Throughput, tyro.conf.subcommand("throughput")]
    | Annotated[Determinism, tyro.conf.subcommand("determinism")]
    | Annotated[Devices, tyro.conf.subcommand("devices")]
    | Annotated[Gpu, tyro.conf.subcommand("gpu")]
)


def main() -> None:
    keep_freed_memory()
    try:
        match tyro.cli(Command, prog=f"python -m {__package__}", description=__doc__):
            case List(json=as_json):
                list_figures(as_json)
            case Run() as command:
                run(command)
            case Check() as command:
                from .check import check, recompute

                require_checkout("a check")
                if command.rewrite:
                    recompute()
                if not check(command.names, command.stale):
                    raise SystemExit(1)
            case Report():
                from .pages import write

                require_checkout("a report")
                write()
            case Guard() as command:
                from .guard import guard

                if not guard(command.scale, command.out):
                    raise SystemExit(1)
            case Throughput() as command:
                from .speed import measure
                from .throughput._timing import Setup

                if command.publish:
                    require_checkout("a published result")
                smoke = command.scale == "smoke"
                named = (pairs(command.pythons), pairs(command.peers))
                setup = Setup(1 if smoke else command.rounds, smoke, command.only, *named)
                measure(command.names, setup, command.out, command.publish)
            case Determinism() as command:
                from .determinism import measure as compare

                if command.publish:
                    require_checkout("a published result")
                print(compare(command.names, command.out, command.publish))
            case Devices() as command:
                from .devices import measure as count
                from .devices import with_virtual_devices

                with_virtual_devices()
                if command.publish:
                    require_checkout("a published result")
                path = count(command.names, command.out, command.publish, command.json)
                print(path, file=sys.stderr)
            case Gpu() as command:
                from .gpu import run as run_steps

                steps = run_steps(command.minutes, command.smoke, command.names, command.peers, command.out)
                if any(step["state"] == "failed" for step in steps):
                    raise SystemExit(1)
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None


def require_checkout(what: str) -> None:
    """Raises UsageError where the package was installed from a wheel, without pages and pictures."""
    if not (REPOSITORY / "pyproject.toml").exists():
        raise UsageError(f"{what} belongs into a checkout of the repository, and this is an installed package")


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """name=value as a dictionary."""
    if wrong := [text for text in texts if "=" not in text]:
        raise UsageError(f"{wrong[0]!r} is no name and path: write name=path")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def list_figures(as_json: bool) -> None:
    from .speed import measurements

    found = [state_of(figure) for figure in all_figures().values()]
    if as_json:
        content = {"figures": [dataclasses.asdict(line) for line in found], "throughput": measurements()}
        print(json.dumps(content, indent=1, ensure_ascii=False))
        return
    width = max(len(line.name) for line in found)
    for line in found:
        minutes = "" if line.minutes is None else f"{line.minutes:.0f} min"
        print(f"{line.name:<{width}}  {line.state:<24}{minutes:>8}  {line.paper.split(',')[0]}: {line.shows}")
    print("\nthroughput")
    for name, about in measurements().items():
        print(f"{name:<{width}}  {about}")


def run(command: Run) -> None:
    known = all_figures()
    names = [*known] if "all" in command.names else [*command.names]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no figure is called {unknown[0]}; there are {', '.join(known)}")
    if command.publish and command.scale == "smoke":
        raise UsageError("results of --scale smoke are no results, and are not published")
    if command.publish:
        require_checkout("a published result")
    for name in names:
        rows, folder = figures.measure(
            known[name], command.scale, command.seeds, command.out, command.parts, command.redraw
        )
        if command.publish:
            folder = publish(known[name], folder, partly=bool(command.parts))
        print(f"{name}: {len(rows)} rows in {folder}", flush=True)


def publish(figure: figures.Figure, folder: Path, partly: bool) -> Path:
    """Copy a figure's files to the published ones. Of a part of a figure the other published rows are kept."""
    target = file_of(figure)
    content = json.loads((folder / target.name).read_text())
    if partly and target.exists():
        content["rows"] = merged(json.loads(target.read_text())["rows"], content["rows"])
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, content)
    for path in [*folder.glob("*.png"), *folder.glob("*.gif"), *folder.glob("*.npz")]:
        shutil.copy(path, target.parent)
    return ROOT / "papers"


def merged(published: list[Mapping], new: list[Mapping]) -> list[Mapping]:
    """The published rows with the new ones in the place of those of the same label, and the others at the end."""
    by_label = {row["label"]: row for row in new}
    return [by_label.pop(row["label"], row) for row in published] + [*by_label.values()]


if __name__ == "__main__":
    main()
