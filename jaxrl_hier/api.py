"""What the command line does, as plain Python: `make`, `train`, `load`, `evaluate`, `plot`."""

import dataclasses
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxrl_envs import registry as environments
from jaxrl_envs.contract import is_key, on_host
from jaxrl_hier import registry
from jaxrl_hier.allocator import keep_freed_memory
from jaxrl_hier.building import (
    broken_contracts_in_one_line,
    built,
    compiled_with,
    config_of,
    environment,
    fitted,
    largest_setting,
    require_numbered_observations,
    require_untraced,
)
from jaxrl_hier.checks import UsageError, WriteError, warn
from jaxrl_hier.engine import processes
from jaxrl_hier.engine import train as engine
from jaxrl_hier.engine.chunk import begun_with
from jaxrl_hier.engine.contract import ContractError
from jaxrl_hier.engine.folder import read_config
from jaxrl_hier.engine.identity import identity_of
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.room import NoRoomError
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.stopping import require_function
from jaxrl_hier.engine.types import Algorithm, NamedArray, Tasks
from jaxrl_hier.relations import how_many
from jaxrl_hier.run import Run, current_facts, draw, folder_of, import_path_again, load, write_report

__all__ = ["evaluate", "load", "make", "plot", "train", "train_configured"]


@with_own_numerics
def make(name: str, env: Any = None, tasks: Tasks | None = None, **settings: Any) -> Algorithm:
    """An algorithm as a bundle of pure functions.

    Args:
        name: as `jaxrl-hier list` shows it, or the import path of an Entry.
        env: an environment's name, an object of the gymnax contract, or a `host.HostEnv` for one of Gymnasium; default:
            the one of the preset.
        tasks: its task distribution; default: the environment's own, or the single task of `env.default_params`.
        settings: fields of the algorithm's `Config`. Scalar hyperparameters can be traced, so you can vmap over them.

    Raises:
        UsageError: an unknown name or setting, or a value that cannot work.
    """
    config = config_of(name, settings)
    found, tasks = environment(env if env is not None else registry.entry(name).env, tasks)
    config, _ = fitted(config, RunConfig(), found, tasks, settings)
    return built(name, config, found, tasks)


def train(
    name: str,
    env: Any = None,
    tasks: Tasks | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    initial: Run | str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train an algorithm; fields of its `Config` and of `RunConfig` are keyword arguments.

    Args:
        env: as for `make`.
        out: run folder for metrics, checkpoints, evaluations and pictures; None: nothing is written.
        resume: go on with the run in `out`.
        stop: called after every chunk of `log_every` iterations; once it returns True, such as when a machine is about
            to be taken away, the run is saved and SystemExit raised, as on SIGTERM.
        initial: a run, or its folder, whose parameters this one begins with, under other settings or on other tasks:
            those of its seeds, or of its only seed for all. Optimiser, replay buffer and schedules begin anew. Give it
            again to resume.

    Returns:
        Run: with the final state, logged rows, and the evaluation at the last iteration.

    Raises:
        UsageError: bad settings or folder. DivergedError: training became NaN.
    """
    run_fields = {f.name for f in dataclasses.fields(RunConfig)}
    preset = registry.entry(name).run
    run = RunConfig(**preset | {k: v for k, v in settings.items() if k in run_fields})
    config = config_of(name, {k: v for k, v in settings.items() if k not in run_fields}, run_fields)
    how: dict[str, Any] = {"out": out, "resume": resume, "stop": stop, "initial": initial}
    return train_configured(name, config, run, env, tasks, **how, said=settings)


@with_own_numerics
def train_configured(
    name: str,
    config: Any,
    run: RunConfig,
    env: Any = None,
    tasks: Tasks | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    initial: Run | str | Path | None = None,
    said: Collection[str] | None = None,
) -> Run:
    """`train` with the two settings objects.

    Args:
        said: names of the settings that the user gave, to which the others are adjusted; None: all of them.
    """
    require_untraced("train")
    require_function(stop)
    keep_freed_memory()
    if resume and out is None:
        raise UsageError("resume needs out, the folder of the run to go on with")
    env = registry.entry(name).env if env is None else env
    before = initial if initial is None or isinstance(initial, Run) else earlier(initial, name, env, tasks)
    env_name, own_tasks = env if isinstance(env, str) else None, tasks is not None
    found, tasks = environment(env, tasks)
    require_numbered_observations(found, tasks)
    said = [*vars(config), *vars(run)] if said is None else said
    asked, (config, run) = (config, run), fitted(config, run, found, tasks, said)
    run.validate()
    directory = None if out is None else folder_of(out)
    kept: dict[str, Any] = {"directory": directory, "resume": resume, "stop": stop}
    if directory is not None:
        with broken_contracts_in_one_line(found, tasks):
            identity = identity_of(name, dataclasses.asdict(config), env_name, found, tasks, own_tasks)
        facts = identity.facts if before is None else identity.facts | {"initial": before.origin()}
        kept["identity"] = identity._replace(facts=facts, current=partial(current_facts, type(config)))
    try:
        algorithm = built(name, config, compiled_with(config, run, found), tasks)
        if own_tasks or env_name not in environments.ENVIRONMENTS:
            say_that_tasks_stay(algorithm, config, tasks)
            say_which_tasks_are_tested(config, tasks)
        params = None if before is None else before.initial_params(algorithm, found, run.seeds)
        with broken_contracts_in_one_line(found, tasks):
            result = learn(name, algorithm, config, run, found, tasks, params, kept)
    except NoRoomError as error:
        large = largest_setting(name, *asked, found, tasks, said, error.part)
        raise UsageError(f"{error}; {large} makes it large") from None
    except ContractError as error:
        raise UsageError(f"the algorithm {name} breaks its contract: {error}") from None
    trained = Run(
        name=name,
        config=config,
        settings=run,
        env=found,
        tasks=tasks,
        env_name=env_name,
        own_tasks=own_tasks,
        algorithm=algorithm,
        state=result.state,
        evaluation=result.evaluation,
        rows=result.rows,
        directory=directory,
        seconds=result.seconds,
        compile_seconds=result.compile_seconds,
    )
    if directory is not None and processes.is_first():
        report(trained)
    return trained


def earlier(folder: str | Path, name: str, env: Any, tasks: Tasks | None) -> Run:
    """The run in a folder that another one begins with, which may name an import path of the folder again."""
    kept = read_config(folder_of(folder))["identity"]
    return opened(folder, env, tasks, algorithm=name if name == kept.get("algorithm") else None)[0]


def learn(
    name: str, algorithm: Algorithm, config: Any, run: RunConfig, env: Any, tasks: Tasks, params: Any, kept: Any
) -> engine.RunResult:
    """Train on the host or in one program.

    Args:
        params: to begin with, [seeds, ...]; None: new ones.
        kept: the folder and how it is used, as `engine.train` takes them.
    """
    if not on_host(env):
        algorithm, starts = begun_with(algorithm, run, params)
        return engine.train(algorithm, run, starts=starts, **kept)
    from jaxrl_hier import host_training

    return host_training.train(registry.module(name).make, config, env, run, tasks, params=params, **kept)


def report(run: Run) -> None:
    """Write the report of a run that is complete, and draw its pictures."""
    try:
        write_report(run)
    except OSError as error:
        raise WriteError(
            f"cannot write the report of {run.directory}: {error.strerror or error}; training is complete, and "
            "`jaxrl-hier plot` draws it"
        ) from error
    if run.settings.plots:
        draw(run)


def say_that_tasks_stay(algorithm: Algorithm, config: Any, tasks: Tasks) -> None:
    """Warn where a learner that does not adapt will only ever see the few tasks that its environments begin with."""
    count = getattr(config, "environments", None)
    if algorithm.adapt is not None or tasks.resample != "never" or count is None or not processes.is_first():
        return
    first, second = (jax.tree.leaves(tasks.sample(jax.random.key(seed))) for seed in (0, 1))
    if any(is_key(x) or not np.array_equal(x, y) for x, y in zip(first, second)):
        warn(
            f"each of the {count} environments keeps the task that it begins with, and the run learns from no others; "
            'Tasks(…, resample="episode") draws a new task in each episode'
        )


def say_which_tasks_are_tested(config: Any, tasks: Tasks) -> None:
    """Warn where evaluations leave out some of the held-out tasks."""
    there_are = how_many(tasks.test)
    for name in ("eval_tasks", "eval_goals"):
        count = getattr(config, name, None)
        if there_are and count and count < there_are and processes.is_first():
            warn(
                f"evaluations play the first {count} of the {there_are} held-out tasks; {name} = {there_are} plays all"
            )


def evaluate(
    run_directory: str | Path,
    iteration: int | Literal["best"] | None = None,
    *,
    env: Any = None,
    tasks: Tasks | None = None,
    algorithm: str | None = None,
    key: Any = None,
    **settings: Any,
) -> tuple[int, dict[str, NamedArray]]:
    """Evaluate a checkpoint of a run, on another environment or other tasks if they are given.

    Args:
        env, algorithm: an import path in the run's folder is named again, see `load`.
        tasks: with `env`, also those of a run that was trained on an object of your own or on your own tasks.
        key, settings: see `Run.evaluate`.

    Returns:
        Its iteration, and the measurements, axes ("seed", …).
    """
    run, where = opened(run_directory, env, tasks, iteration, algorithm)
    return run.iteration, run.evaluate(*where, key=key, **settings)


def opened(
    folder: str | Path,
    env: Any,
    tasks: Tasks | None,
    iteration: int | Literal["best"] | None = None,
    algorithm: str | None = None,
) -> tuple[Run, tuple[Any, Tasks | None]]:
    """The run in a folder, see `load`, and what is left of `env` and `tasks`: they also build what the run was trained
    on, where no name does, and an equal import path names the folder's again."""
    kept = read_config(folder_of(folder))["identity"]
    if kept.get("env") is None or kept.get("own_tasks"):
        run = load(folder, env, tasks, iteration, algorithm=algorithm)
        return run, (env, tasks) if run.changed else (None, None)
    again = import_path_again(folder, env)
    return load(folder, again, iteration=iteration, algorithm=algorithm), (None if again else env, tasks)


def plot(
    run_directory: str | Path,
    *others: str | Path,
    out: str | Path = "comparison.png",
    quantity: str | None = None,
    env: Any = None,
    algorithm: str | None = None,
) -> list[Path]:
    """Draw a run's curves from its files, and what its first seed had learned at the newest checkpoint if the algorithm
    has such pictures, into <run>/plots; or compare the curves of several runs in one picture, see `compare`.

    Args:
        others: further runs to compare. out, quantity: as for `compare`.
        env, algorithm: of a single run, as in `load`.

    Returns:
        The paths.
    """
    if not others:
        return load(run_directory, env, algorithm=algorithm).plot()
    from jaxrl_hier.reports.comparison import compare

    picture = compare([run_directory, *others], out, quantity).picture
    return [] if picture is None else [picture]
