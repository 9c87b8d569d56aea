"""What the command line does, as plain Python: `make`, `train`, `evaluate`, `plot`."""

import dataclasses
import inspect
import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxrl_hier import registry
from jaxrl_hier.checks import DivergedError, UsageError, unknown
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine import train as engine
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.room import NoRoomError, size
from jaxrl_hier.engine.train import RunConfig, RunResult
from jaxrl_hier.engine.types import Algorithm, NamedArray, Tasks, TrainState
from jaxrl_hier.relations import multiple, settled
from jaxrl_hier.settings import current, shown

GYMNASIUM = "gymnasium:"  # before an id of Gymnasium's registry, see `host`


@with_own_numerics
def make(name: str, env: Any = None, tasks: Tasks | None = None, **settings: Any) -> Algorithm:
    """An algorithm as a bundle of pure functions.

    Args:
        name: as `jaxrl-hier list` shows it.
        env: an environment's name, or an object of the gymnax contract; default: the one of the preset.
        tasks: its task distribution; default: the environment's own, or the single task of `env.default_params`.
        settings: fields of the algorithm's `Config`. Numbers that are only multiplied may be traced.

    Raises:
        UsageError: an unknown name or setting, or a value that cannot work.
    """
    if getattr(env, "on_host", False) or (isinstance(env, str) and env.startswith(GYMNASIUM)):
        raise UsageError("an environment of Gymnasium is no part of a compiled algorithm: use jaxrl_hier.train with it")
    config = _config(name, settings)
    found, tasks = _environment(env if env is not None else registry.entry(name).env, tasks)
    config, _ = _fitted(config, RunConfig(), found, tasks, settings)
    return _built(name, config, found, tasks)


def train(
    name: str,
    env: Any = None,
    tasks: Tasks | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> RunResult:
    """Train an algorithm; fields of its `Config` and of `RunConfig` are keyword arguments.

    Args:
        env: as for `make`; or "gymnasium:" and an id of Gymnasium, or a `host.HostEnv`, for learners from replay.
        out: run folder for metrics, checkpoints, evaluations and pictures; None: nothing is written.
        resume: go on with the run in `out`.

    Returns:
        RunResult: final state, logged rows, and the evaluation at the last iteration.

    Raises:
        UsageError: bad settings or folder. DivergedError: training became NaN.
    """
    run_fields = {f.name for f in dataclasses.fields(RunConfig)}
    preset = registry.entry(name).run
    run = RunConfig(**preset | {k: v for k, v in settings.items() if k in run_fields})
    config = _config(name, {k: v for k, v in settings.items() if k not in run_fields}, run_fields)
    return train_configured(name, config, run, env, tasks, out=out, resume=resume, said=settings)


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
    said: Collection[str] | None = None,
) -> RunResult:
    """`train` with the two settings objects at hand.

    Args:
        said: names of the settings that the user gave, to which the others give way; None: all of them.
    """
    if resume and out is None:
        raise UsageError("resume needs out, the folder of the run to go on with")
    found, tasks = _environment(env if env is not None else registry.entry(name).env, tasks)
    said = [*vars(config), *vars(run)] if said is None else said
    asked, (config, run) = (config, run), _fitted(config, run, found, tasks, said)
    run.validate()
    directory, identity = None if out is None else _folder(out), _identity(name, config, env)
    kept: dict[str, Any] = {"directory": directory, "identity": identity, "resume": resume}
    try:
        if getattr(found, "on_host", False):
            from jaxrl_hier import host

            result = host.train(registry.module(name).make, config, found, run, **kept)
        else:
            with _broken_contracts_in_one_line(found, tasks):
                result = engine.train(_built(name, config, found, tasks), run, **kept)
    except NoRoomError as error:
        large = _largest_setting(name, *asked, found, tasks, said)
        raise UsageError(f"{error}; {large} makes it large") from None
    if directory is not None:
        write_report(directory, result)
        if env is None or isinstance(env, str):
            plot(directory)
    return result


@with_own_numerics
def evaluate(run_directory: str | Path, iteration: int | None = None) -> tuple[int, dict[str, NamedArray]]:
    """Evaluate a checkpoint of a run; returns its iteration and the measurements, axes ("seed", …)."""
    directory = _folder(run_directory)
    algorithm, state = _restored(directory, iteration)
    _, config, env_name = _from_identity(engine.read_config(directory)["identity"])
    env = _environment(env_name)[0]
    if getattr(env, "on_host", False):
        from jaxrl_hier import host

        return int(state.iteration[0]), host.evaluate(algorithm.agent, config, env, state)
    return int(state.iteration[0]), engine.make_evaluation(algorithm)(state)


def plot(run_directory: str | Path) -> list[Path]:
    """Draw the pictures of a run from its files, into <run>/plots, and those that its algorithm offers of what the
    first seed has learned at the newest checkpoint; returns their paths."""
    from jaxrl_hier import plotting, quantities

    directory = _folder(run_directory)
    name, config, env_name = _from_identity(engine.read_config(directory)["identity"])
    env, tasks = _environment(env_name)
    own = quantities.of_algorithm(registry.module(name))
    drawn = plotting.plot_run(directory, env, tasks, published(name, config, env_name), own)
    pictures = getattr(registry.module(name), "pictures", None)
    if pictures and checkpoint.iterations(directory):
        first = jax.tree.map(lambda x: x[0], _restored(directory)[1])
        drawn += pictures(config, env, first, directory / "plots")
    return drawn


def _folder(path: Any) -> Path:
    """A run folder as the user wrote it, `~` for his home."""
    try:
        return Path(path).expanduser()
    except TypeError:
        raise UsageError(f"a run folder is given by its path, got {shown(path)}") from None
    except RuntimeError:
        raise UsageError(f"nobody knows the home that {path} begins with; write it out") from None


def published(name: str, config: Any, env: str) -> Any:
    """Published values to compare this setting with, or None."""
    function = getattr(registry.module(name), "published", None)
    return function(config, env) if function else None


def write_report(directory: Path, result: RunResult) -> None:
    """<run>/report.json: times, speed and what ran where."""
    last = [row for row in result.rows if row["iteration"] == result.rows[-1]["iteration"]] if result.rows else []
    report = {
        "train_seconds": round(result.seconds, 3),
        "compile_seconds": round(result.compile_seconds, 3),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "last": last,
    }
    (directory / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def _config(name: str, settings: dict[str, Any], also_known: set[str] | None = None) -> Any:
    config_class = registry.module(name).Config
    known = {f.name for f in dataclasses.fields(config_class)}
    module = registry.module(name)
    objects = [*inspect.signature(module.make).parameters][3:]  # such as a user's own options
    for key, value in settings.items():
        if key in objects and not isinstance(value, str):
            raise UsageError(f"{key} of your own are the last argument of {module.__name__}.make(config, env, tasks)")
        if key not in known:
            raise unknown(f"setting of {name}", key, known | (also_known or set()))
    return config_class(**registry.entry(name).config | settings)


def _fitted(config: Any, run: RunConfig, env: Any, tasks: Tasks, said: Collection[str]) -> tuple[Any, RunConfig]:
    """Both, where what the user has not said gives way to what he has, and to the environment (see `relations`)."""
    with _broken_contracts_in_one_line(env, tasks):
        own = config.relations(env, tasks)
    relations = [*run.relations(env, tasks), *own, multiple(config.side_by_side, "devices")]
    values = settled(vars(config) | vars(run), relations, said)
    new = lambda old: dataclasses.replace(old, **{name: values[name] for name in vars(old)})
    return new(config), new(run)


def _largest_setting(name: str, config: Any, run: RunConfig, env: Any, tasks: Tasks, said: Collection[str]) -> str:
    """The setting whose half leaves the smallest initial state; one that the user said, if that helps."""

    def halved(setting: str, value: Any) -> float:
        half = tuple(x // 2 for x in value) if isinstance(value, tuple) else value // 2
        change = lambda old: dataclasses.replace(old, **{setting: half} if hasattr(old, setting) else {})
        try:
            smaller, fewer = _fitted(change(config), change(run), env, tasks, {*said, setting})
            return size(engine.initial(registry.module(name).make(smaller, env, tasks), fewer)[0])
        except ValueError:  # no such half, as of a size that others need
            return math.inf

    whole = lambda x: type(x) is int and x > 1
    values = {
        k: v for k, v in (vars(config) | vars(run)).items() if whole(v) or (isinstance(v, tuple) and all(map(whole, v)))
    }
    sizes = {k: halved(k, values[k]) for k in values if k in said}
    if not sizes or min(sizes.values()) > 0.9 * halved("", 0):
        sizes = {k: halved(k, values[k]) for k in values}
    return min(sizes, key=lambda k: sizes[k])


def _environment(env: Any, tasks: Tasks | None = None) -> tuple[Any, Tasks]:
    """An environment by its name, as an object, or as `jaxrl_envs.make` gives it beside its tasks; with `tasks` or else
    its own."""
    import jaxrl_envs
    from jaxrl_envs.tasks import single

    if isinstance(env, tuple) and len(env) == 2 and isinstance(env[1], Tasks) and tasks is None:
        env, tasks = env
    _require_tasks(tasks)
    if isinstance(env, str) and not env.startswith(GYMNASIUM):
        try:
            env, own = jaxrl_envs.make(env)
        except ValueError as error:
            raise UsageError(str(error)) from None
    else:
        if isinstance(env, str):
            from jaxrl_hier.host import HostEnv

            env = HostEnv(env.removeprefix(GYMNASIUM))
        _require_environment(env)
        own = single(env.default_params)
    return env, own if tasks is None else tasks


def _require_environment(env: Any) -> None:
    """Raises UsageError for what is no environment at all; `check_env` says what is wrong with one."""
    if isinstance(env, type):
        raise UsageError(f"env is the class {env.__name__}: give an object of it, such as {env.__name__}()")
    missing = [name for name in ("default_params", "action_space", "observation_space") if not hasattr(env, name)]
    if not any(hasattr(env, name) for name in ("step_env", "step")):
        missing.append("step_env")
    if missing and hasattr(env, "unwrapped"):
        raise UsageError(
            f"{type(env).__name__} is an environment of Gymnasium: give jaxrl_hier.host.HostEnv(lambda: …)"
        )
    if missing:
        hint = "; give its tasks as `tasks`" if isinstance(env, tuple | list) else ""
        raise UsageError(
            f"env must be a name or an environment of gymnax's contract; {shown(env)} has no {', '.join(missing)}{hint}"
        )


def _require_tasks(tasks: Any) -> None:
    """Raises UsageError for what is no task distribution."""
    if tasks is None:
        return
    if not isinstance(tasks, Tasks):
        raise UsageError(
            f"tasks must be jaxrl_envs.Tasks, got {shown(tasks)}; jaxrl_envs.tasks.single(params) makes them of params"
        )
    if not callable(tasks.sample):
        raise UsageError(f"tasks.sample must be a function, key -> params of one task, got {shown(tasks.sample)}")
    if not callable(tasks.resample) and tasks.resample not in ("never", "episode"):
        raise UsageError(f"tasks.resample must be never, episode or a function, got {shown(tasks.resample)}")


def _built(name: str, config: Any, env: Any, tasks: Tasks) -> Algorithm:
    with _broken_contracts_in_one_line(env, tasks):
        return registry.module(name).make(config, env, tasks)


@contextmanager
def _broken_contracts_in_one_line(env: Any, tasks: Tasks) -> Iterator[None]:
    """What an environment does wrong while it is traced, in the words of `check_env` and without JAX's traceback.

    Of an exception that says nothing of the environment, the checker finds out whether it is to blame.
    """
    from jaxrl_envs.check import EnvCheckError, problems

    try:
        yield
    except EnvCheckError as error:
        raise UsageError(str(error)) from None
    except (UsageError, DivergedError, OSError, MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception:
        found = problems(env, tasks, episodes=1, max_steps=100)
        if not found:
            raise
        name = getattr(env, "name", type(env).__name__)
        raise UsageError(f"{name} breaks the environment contract: {'; '.join(found)}") from None


def _restored(directory: Path, iteration: int | None = None) -> tuple[Algorithm, TrainState]:
    """The algorithm of a run and its state, leading axis [seeds], at a checkpoint, default the newest."""
    identity = engine.read_config(directory)["identity"]
    name, config, env_name = _from_identity(identity)
    algorithm = _built(name, config, *_environment(env_name))
    run = RunConfig(seed=identity["seed"], seeds=identity["seeds"])
    return algorithm, checkpoint.restore(directory, engine.init_seeds(algorithm, run), iteration)


def _identity(name: str, config: Any, env: Any) -> dict[str, Any]:
    env = registry.entry(name).env if env is None else env
    name_of_env = env if isinstance(env, str) else type(env).__name__
    return {"algorithm": name, "env": name_of_env, "config": dataclasses.asdict(config)}


def _from_identity(identity: dict[str, Any]) -> tuple[str, Any, str]:
    name = identity["algorithm"]
    config_class = registry.module(name).Config
    known = {f.name for f in dataclasses.fields(config_class)}
    config = current(config_class, identity["config"])
    if missing := config.keys() - known:
        raise UsageError(f"the run was made by another version: {name} has no setting {', '.join(sorted(missing))}")
    return name, config_class(**config), identity["env"]
