"""One contract for every figure and table: what is run, which rows it gives, how it is drawn.

    FIGURE = Figure(
        name="flat_replay",
        paper="…",
        shows="return of SAC, TD3, DDPG and DQN on gymnax's classic tasks",
        parts=lambda scale: {"sac": Training("sac", iterations=10_000, points=20), …},
        rows=lambda found: [Row.measured("SAC on Pendulum-v1", found["sac"]["return"][:, -1]), …],
        draw=lambda found: {"": figure},
    )

A figure's parts do not depend on each other: a `Training` is run by `jaxrl_hier.train` in run folders, a `Computation`
is any function that returns arrays. What they measure is kept, so that `measure` goes on where it was killed, adds
seeds to those that are there, and draws again without running anything, also what is published.

<out>/<scale>/<name>/<part>/<first seed>/        the run folder of a training
<out>/<scale>/<name>/<part>/<first seed>.npz     arrays that are kept; beside it .json with settings, times and commit
<out>/<scale>/<name>/<name>.json, .png, .gif     rows and pictures
"""

import dataclasses
import fnmatch
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import numpy as np

import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.api import train_configured
from jaxrl_hier.building import built, config_of, environment
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.chunk import Evaluation, init_seeds
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.reports.plotting import save, style
from jaxrl_hier.reports.records import mean_over, metrics

from .results import ROOT, Row, provenance, show, write

Scale = Literal["smoke", "cpu", "gpu"]
SMOKE_SEEDS = 2
OUT = Path("runs") / "benchmarks"


class Measured(dict[str, np.ndarray]):
    """The arrays of a part by name, [seeds, …] but for those that all seeds share, such as "env_steps"."""

    about: dict[str, Any]  # settings, "seconds", "compile_seconds", "commit", "date", "device"

    def __init__(self, arrays: Mapping[str, np.ndarray], about: dict[str, Any]):
        super().__init__(arrays)
        self.about = about

    @property
    def seconds(self) -> float:
        """Of running all seeds, compilation apart."""
        return self.about["seconds"]


Found = Mapping[str, Measured]  # what has been measured, by part


class Part(Protocol):
    """What a figure needs to have run."""

    @property
    def seeds(self) -> int | None:
        """Independent repetitions; None: as many as the figure has, 0: nothing is random."""

    @property
    def shared(self) -> Sequence[str]:
        """Names of arrays without an axis of seeds."""

    def identity(self) -> dict[str, Any]:
        """What the arrays depend on, for JSON."""

    def run(self, first: int, seeds: int, folder: Path) -> tuple[dict[str, Any], float, float]:
        """Run the seeds first, first + 1, …: arrays, seconds of running, seconds of compilation.

        Args:
            folder: of a run that may have been interrupted.
        """


@dataclass(frozen=True)
class Training:
    """An algorithm, trained with all seeds in one program and evaluated at equal distances.

    Its arrays:
        <name>: for each in `curves` the mean of that measurement over tasks and episodes, [seeds, points] or [seeds,
            points, adaptation steps].
        env_steps: environment steps of one seed at the evaluations, [points].
        final <name>: for each in `final` the whole measurement of the last evaluation, [seeds, …].
        logged <name>: for each in `logged` the logged metric, [seeds, rows], over "logged env_steps" [rows]; NaN where
            there was none, such as a return when no episode ended.
    And what `measure` returns.
    """

    algorithm: str  # as `jaxrl-hier list` shows it
    settings: Mapping[str, Any] = field(default_factory=dict)  # that differ from the algorithm's preset
    iterations: int = 0  # 0: the initial state is evaluated
    env: Any = None  # None: that of the preset
    tasks: Any = None
    points: int = 1
    from_start: bool = False  # a point more: the evaluation before the first iteration
    curves: tuple[str, ...] = ("return",)
    final: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    log_every: int | None = None  # default: once for each point
    measure: Callable[[jaxrl_hier.Run], Mapping[str, np.ndarray]] | None = None  # of the trained run, [seeds, …] each
    pictures: bool = False  # draw what the first seed has learned, as `Run.pictures` does, beside the figure
    first_seed: int = 0
    seeds: int | None = None

    @property
    def shared(self) -> Sequence[str]:
        return ("env_steps", "logged env_steps")

    def identity(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "settings": dataclasses.asdict(config_of(self.algorithm, dict(self.settings))),
            "iterations": self.iterations,
            "env": self.env if isinstance(self.env, str | None) else type(self.env).__name__,
            "points": self.points,
            "from_start": self.from_start,
            "arrays": [*self.curves, *self.final, *self.logged],
        }

    def run(self, first: int, seeds: int, folder: Path) -> tuple[dict[str, np.ndarray], float, float]:
        first += self.first_seed
        run = self._trained(first, seeds, folder) if self.iterations else self._untrained(first, seeds)
        evaluations = load_evaluations(folder) if self.iterations else {0: run.evaluation}
        if self.from_start and self.iterations:
            evaluations = {0: self._untrained(first, seeds).evaluation} | evaluations
        arrays = {name: np.stack([mean_over(e[name]) for e in evaluations.values()], 1) for name in self.curves}
        arrays |= {f"final {name}": np.asarray(run.evaluation[name].values) for name in self.final}
        if self.logged:
            logged = metrics(run.rows)
            none = np.full((seeds, len(logged["iteration"])), np.nan)
            arrays |= {f"logged {name}": logged.get(name, none) for name in self.logged}
            arrays["logged env_steps"] = logged["iteration"] * run.algorithm.env_steps
        arrays["env_steps"] = np.array([*evaluations]) * run.algorithm.env_steps
        if self.pictures:
            run.pictures()
        if self.measure is not None:
            arrays |= {name: np.asarray(x) for name, x in self.measure(run).items()}
        return arrays, seconds_of(run), run.compile_seconds

    def _trained(self, first: int, seeds: int, folder: Path) -> jaxrl_hier.Run:
        every = self.iterations // self.points
        settings = RunConfig(
            self.iterations,
            seed=first,
            seeds=seeds,
            log_every=self.log_every or every,
            checkpoint_every=every,
            evaluate_every=every,
            tensorboard=False,
            plots=False,
            quiet=True,
        )
        resume = (folder / "config.json").is_file()
        about = self.algorithm, config_of(self.algorithm, dict(self.settings)), settings, self.env, self.tasks
        return train_configured(*about, out=folder, resume=resume)

    def _untrained(self, first: int, seeds: int) -> jaxrl_hier.Run:
        settings, config = RunConfig(seed=first, seeds=seeds), config_of(self.algorithm, dict(self.settings))
        named = registry.entry(self.algorithm).env if self.env is None else self.env
        env, tasks = environment(named, self.tasks)
        algorithm = built(self.algorithm, config, env, tasks)
        state = init_seeds(algorithm, settings)
        name = named if isinstance(named, str) else None
        measured = Evaluation(algorithm)(state)
        return jaxrl_hier.Run(self.algorithm, config, settings, env, tasks, name, algorithm, state, measured, [])


def evaluated(run: jaxrl_hier.Run, env: Any = None, tasks: Any = None, **settings: Any) -> dict[str, NamedArray]:
    """Evaluate what a run has learned with other settings, or on other tasks: measurements with axes ("seed", …)."""
    env, tasks = run.env if env is None else env, run.tasks if tasks is None else tasks
    algorithm = built(run.name, dataclasses.replace(run.config, **settings), env, tasks)
    return jax.device_get(Evaluation(algorithm)(run.state))


def seconds_of(run: jaxrl_hier.Run) -> float:
    """Seconds of training in all processes that took part, from the logged speeds."""
    speeds = {row["iteration"]: row["steps_per_second"] for row in run.rows}
    lengths = np.diff([0, *speeds])
    steps = lengths * run.algorithm.env_steps * run.settings.seeds
    return float(np.sum(steps / np.array([*speeds.values()]))) if speeds else 0.0


@dataclass(frozen=True)
class Computation:
    """A function that returns arrays: `function(seeds=[…], **arguments)`, [seeds, …] each, or, where nothing is random
    and `seeds` is 0, `function(**arguments)`. It may return seconds of compilation as "compile_seconds"."""

    function: Callable[..., Mapping[str, Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None
    first_seed: int = 0
    shared: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        return {"function": self.function.__name__, **{k: repr(v) for k, v in self.arguments.items()}}

    def run(self, first: int, seeds: int, folder: Path) -> tuple[dict[str, np.ndarray], float, float]:
        begun = time.perf_counter()
        numbers = {"seeds": [self.first_seed + first + i for i in range(seeds)]} if seeds else {}
        found = dict(self.function(**numbers, **self.arguments))
        compile_seconds = float(found.pop("compile_seconds", 0.0))
        arrays = {name: np.asarray(x) for name, x in found.items()}
        return arrays, time.perf_counter() - begun - compile_seconds, compile_seconds


@dataclass(frozen=True)
class Figure:
    """A figure or table of a paper, or one that no paper has."""

    name: str
    paper: str
    shows: str  # which figure or table, and what is compared, as a phrase
    # a Part for each name, smaller ones at scale "smoke"; or a function of what those have found that returns a Part,
    # such as one with settings that were tuned, or None where what it needs is not there
    parts: Callable[[Scale], Mapping[str, Any]]
    rows: Callable[[Found], list[Row]]
    draw: Callable[[Found], Mapping[str, Any]] | None = None  # matplotlib figures by suffix of the file's name
    animate: Callable[[Found, Path], None] | None = None  # writes GIFs into the folder, their names begin with its own
    seeds: int = 5  # of parts that do not fix their own
    threads: int = 1  # parts that run side by side: 2 where each part keeps but one core busy
    minutes: float = 0  # on two cores, about; 0: those of the published result
    about: Callable[[Found], Mapping[str, Any]] | None = None  # more for the JSON


def measure(
    figure: Figure, scale: Scale, seeds: int | None, out: Path, only: Iterable[str] = (), redraw: bool = False
) -> tuple[list[Row], Path]:
    """Run what is missing of a figure, and write its rows and pictures.

    Args:
        seeds: default: the figure's own number; those that are there are kept.
        only: patterns of names of parts; of others what is there is used, or what was published.
        redraw: run nothing. Of parts of which nothing is there, what was published is drawn.

    Returns:
        Rows, and the folder of the figure.

    Raises:
        UsageError: arrays that are there were made with other settings; nothing to draw.
    """
    folder = out / scale / figure.name
    seeds = seeds or (SMOKE_SEEDS if scale == "smoke" else figure.seeds)

    def arrays_of(name: str, part: Part) -> Measured | None:
        wanted = seeds if part.seeds is None else part.seeds
        if redraw or (only and not any(fnmatch.fnmatch(name, pattern) for pattern in only)):
            part_found = batches(part, folder / slug(name), wanted)
        else:
            part_found = completed(part, folder / slug(name), wanted, f"{figure.name}: {name}")
        return joined(part_found, part, wanted) if part_found else None

    parts = figure.parts(scale)
    first = {name: part for name, part in parts.items() if not callable(part)}
    found = side_by_side(arrays_of, first, figure.threads)
    second = {name: part(found) for name, part in parts.items() if callable(part)}
    found |= side_by_side(arrays_of, second, figure.threads)
    if scale == "cpu" and (redraw or only):
        found = published_arrays(figure.name) | found
    found = {name: found[name] for name in parts if name in found}
    if not found:
        raise UsageError(f"nothing of {figure.name} has been measured in {folder}: run it without --redraw first")
    rows = figure.rows(found)
    folder.mkdir(parents=True, exist_ok=True)
    draw(figure, found, folder)
    for name in found:
        copy_pictures(folder / slug(name) / "0", figure.name)
    write_results(figure, scale, found, rows, folder)
    show(rows)
    return rows, folder


def published_arrays(name: str) -> dict[str, Measured]:
    """The arrays that a figure's published rows and pictures were made from; nothing where they are not there."""
    path = ROOT / "papers" / f"{name}.json"
    if not path.with_suffix(".npz").exists():
        return {}
    content = json.loads(path.read_text())
    about = {key: content[key] for key in ("commit", "date", "device", "versions")}
    with np.load(path.with_suffix(".npz")) as arrays:
        of = lambda part: {n.removeprefix(f"{part}/"): arrays[n] for n in arrays.files if n.startswith(f"{part}/")}
        return {part: Measured(of(part), about | times) for part, times in content["parts"].items()}


def side_by_side(f: Callable[[str, Any], Any], parts: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """What `f` finds of each part, without those that are None or of which it finds nothing."""
    chosen = {name: part for name, part in parts.items() if part is not None}
    if threads == 1:  # in the main thread, which can be interrupted
        found = [f(name, part) for name, part in chosen.items()]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = [*pool.map(f, chosen, chosen.values())]
    return {name: x for name, x in zip(chosen, found) if x is not None}


def draw(figure: Figure, found: Found, folder: Path) -> None:
    """Write a figure's pictures, <folder>/<name>.png or, with a suffix, <name>_<suffix>.png, and what it animates."""
    with style() as plt:
        drawn = {} if figure.draw is None else figure.draw(found)
        save({figure.name + (f"_{suffix}" if suffix else ""): x for suffix, x in drawn.items()}, folder, plt)
    if figure.animate is not None:
        figure.animate(found, folder)


def copy_pictures(run_folder: Path, name: str) -> None:
    """Copy what was drawn of a run as <name>_<picture> beside the figure, but for the episode: its algorithm draws that
    with what it has learned."""
    for path in sorted((run_folder / "plots").glob("*")):
        if path.name != "episode.gif":
            shutil.copy(path, run_folder.parent.parent / f"{name}_{path.name}")


def slug(name: str) -> str:
    """The name of a part as that of a folder."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


Batch = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays and what is known about them


def batches(part: Part, folder: Path, wanted: int) -> list[Batch]:
    """What is there of a part's seeds, in order, as many as are wanted if there are enough.

    Raises:
        UsageError: it was made with other settings.
    """
    found: list[Batch] = []
    for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem)):
        about = json.loads(path.read_text())
        now = json.loads(json.dumps(part.identity(), default=repr))
        if about["identity"] != now:
            changed = sorted(k for k in now.keys() | about["identity"].keys() if now.get(k) != about["identity"].get(k))
            raise UsageError(
                f"{path.with_suffix('')} was measured with another {', '.join(changed)}: choose another --out, or "
                "remove that folder"
            )
        with np.load(path.with_suffix(".npz")) as data:
            found.append(({name: data[name] for name in data.files}, about))
        if sum(about["seeds"] for _, about in found) >= wanted:
            break
    return found


def completed(part: Part, folder: Path, wanted: int, title: str) -> list[Batch]:
    """`batches`, after running the seeds that are missing."""
    found = batches(part, folder, wanted)
    have = sum(about["seeds"] for _, about in found)
    if found and have >= wanted:
        return found
    print(f"{title}: {f'seeds {have} to {wanted - 1}' if wanted else 'exact'}", flush=True)
    arrays, seconds, compile_seconds = part.run(have, wanted - have, folder / str(have))
    identity = json.loads(json.dumps(part.identity(), default=repr))
    about = {"seeds": wanted - have, "identity": identity, "seconds": seconds, "compile_seconds": compile_seconds}
    about |= {k: v for k, v in provenance().items() if k != "command"}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "partial.npz"
    np.savez_compressed(partial, **arrays)
    partial.replace(folder / f"{have}.npz")
    partial = folder / "partial.txt"
    partial.write_text(json.dumps(about, indent=1, default=repr) + "\n")
    partial.replace(folder / f"{have}.json")  # it says that the part is whole
    print(f"{title}: {seconds:.0f} s, compilation {compile_seconds:.0f} s", flush=True)
    return [*found, (arrays, about)]


def joined(found: list[Batch], part: Part, wanted: int) -> Measured:
    """Batches of seeds as one."""
    first, about = found[0]
    shared = {name: first[name] for name in first if name in part.shared or not wanted}
    arrays = {n: np.concatenate([arrays[n] for arrays, _ in found])[:wanted] for n in first if n not in shared}
    total = lambda name: sum(about[name] for _, about in found)
    sums = {"seconds": total("seconds"), "compile_seconds": total("compile_seconds")}
    return Measured(arrays | shared, about | sums | {"seeds": min(total("seeds"), wanted)})


def write_results(figure: Figure, scale: Scale, found: Found, rows: list[Row], folder: Path) -> None:
    """<folder>/<name>.json of rows, and <name>.npz of what the pictures are drawn from.

    Commit, date and device are those of the oldest part; each part has its own commit and date, too."""
    oldest = min((x.about for x in found.values()), key=lambda about: about["date"])
    command = f"python -m {__package__} run {figure.name}" + ("" if scale == "cpu" else f" --scale {scale}")
    content: dict[str, Any] = {"name": figure.name, "paper": figure.paper, "artifact": figure.shows, "command": command}
    content |= {name: oldest[name] for name in ("commit", "date", "device", "versions")} | {"scale": scale}
    content["seeds"] = sorted({row.seeds for row in rows if row.seeds and row.unit in ("seeds", "runs")})
    content["wall_seconds"] = sum(x.seconds + x.about["compile_seconds"] for x in found.values())
    content["compile_seconds"] = sum(x.about["compile_seconds"] for x in found.values())
    told = ("seeds", "seconds", "compile_seconds", "commit", "date")
    content["parts"] = {name: {key: x.about[key] for key in told} for name, x in found.items()}
    content |= figure.about(found) if figure.about else {}
    write(folder / f"{figure.name}.json", content | {"rows": [row.as_json() for row in rows]})
    arrays = {f"{part}/{name}": x for part, measured in found.items() for name, x in measured.items()}
    small: dict[str, Any] = {n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in arrays.items()}
    np.savez_compressed(folder / f"{figure.name}.npz", **small)
