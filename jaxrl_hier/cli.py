"""jaxrl-hier: train, evaluate, plot, list. Flags come from the config dataclasses; heavy imports wait until needed."""

import dataclasses
import gc
import sys
from errno import EACCES, EDQUOT, EEXIST, EFBIG, EIO, EISDIR, ENOSPC, ENOTDIR, EPERM, EROFS
from itertools import pairwise
from typing import Any, Literal

# errors of the disk or of a path that the user named, which need no traceback
DISK = (EACCES, EDQUOT, EEXIST, EFBIG, EIO, EISDIR, ENOSPC, ENOTDIR, EPERM, EROFS)

HELP = """\
jaxrl-hier: hierarchical and meta reinforcement learning in JAX

  jaxrl-hier train ALGORITHM [options]   train, evaluate, draw; `train ALGORITHM --help` shows all settings
  jaxrl-hier train ALGORITHM --out DIR --resume
                                         go on with a run from its last checkpoint
  jaxrl-hier sweep ALGORITHM --over SETTING=VALUE,VALUE
                                         train with many settings, in as few programs as they allow
  jaxrl-hier evaluate DIR                evaluate a run's checkpoint, with --env on another environment
  jaxrl-hier plot DIR                    draw a run's pictures again
  jaxrl-hier plot DIR DIR ...            compare runs: curves and final evaluations with intervals
  jaxrl-hier export DIR --csv            write metrics and evaluations as CSV, a line per number
  jaxrl-hier export DIR --policy         write the policy as arrays and programs that need only jax
  jaxrl-hier list                        algorithms and environments

Every flag is also a keyword of jaxrl_hier.train(...).\
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit code 2: wrong usage, explained in one line; 1: training diverged, or another process is lost;
    130, 143: stopped by SIGINT or SIGTERM."""
    argv = sys.argv[1:] if argv is None else argv
    from jaxrl_hier.checks import DivergedError, LostProcessError, UsageError, unknown

    commands = {
        "train": _train,
        "sweep": _sweep,
        "evaluate": _evaluate,
        "plot": _plot,
        "export": _export,
        "list": _list,
    }
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(HELP)
        elif argv[0] == "--version":
            from jaxrl_hier import __version__

            print(__version__)
        elif argv[0] not in commands:
            raise unknown("command", argv[0], commands)
        else:
            commands[argv[0]](argv[1:])
    except UsageError as error:
        _exit(2, str(error))
    except OSError as error:
        if error.errno not in DISK:
            raise
        _exit(2, f"cannot read or write {error.filename or 'a file'}: {error.strerror}")
    except (DivergedError, LostProcessError) as error:
        _exit(1, str(error))
    except KeyboardInterrupt as error:
        if error.args:  # `train` has said what it saved
            raise SystemExit(130) from None
        _exit(130, "interrupted")


def _exit(code: int, message: str) -> None:
    print(f"jaxrl-hier: {message}", file=sys.stderr)
    raise SystemExit(code)


def _train(argv: list[str]) -> None:
    from jaxrl_hier import registry
    from jaxrl_hier.checks import UsageError

    if not argv or argv[0] in ("-h", "--help"):
        print("usage: jaxrl-hier train ALGORITHM [options]\n")
        print("\n".join(f"  {name:<28}{summary}" for name, summary in registry.summaries().items()))
        if not argv:
            raise UsageError("train needs the name of an algorithm")
        return
    name = argv[0]
    joined = _joined_others(argv[1:])
    if not _asks_for_help(argv):
        _prepare_process()
    arguments = _parse_train(name, argv[1:])
    said = _settings_in(argv[1:])
    run_config = arguments.run
    if joined and "devices" not in said:
        import jax

        run_config = dataclasses.replace(run_config, devices=jax.device_count())
        said.add("devices")
    from jaxrl_hier import api
    from jaxrl_hier.engine import processes

    out = arguments.out or f"runs/{name}-{arguments.env}".replace(":", "-")
    try:
        run = api.train_configured(
            name,
            arguments.config,
            run_config,
            arguments.env,
            out=out,
            resume=arguments.resume,
            initial=arguments.initial,
            said=said,
        )
    except (SystemExit, KeyboardInterrupt) as stopped:  # all processes stop together
        processes.leave(143 if isinstance(stopped, SystemExit) else 130)
        raise
    if processes.is_first():
        from jaxrl_hier.terminal import print_evaluation

        print_evaluation(run.evaluation, run.published, run.title)
        print(f"trained in {run.seconds:.0f} s (compilation {run.compile_seconds:.0f} s); everything is in {out}")
    processes.leave()


def _sweep(argv: list[str]) -> None:
    from jaxrl_hier.checks import UsageError

    if not argv or argv[0] in ("-h", "--help"):
        print("usage: jaxrl-hier sweep ALGORITHM --over SETTING=VALUE,VALUE [options]")
        if not argv:
            raise UsageError("sweep needs the name of an algorithm")
        return
    name = argv[0]
    _make_devices(argv[1:])
    if not _asks_for_help(argv):
        _prepare_process()
    arguments = _parse_sweep(name, argv[1:])
    over = _over(name, arguments.over)
    from jaxrl_hier.sweeps import sweep
    from jaxrl_hier.terminal import print_sweep

    given = vars(arguments.run) | vars(arguments.config)
    out = arguments.out or f"runs/sweep-{name}-{arguments.env}".replace(":", "-")
    found = sweep(
        name,
        arguments.env,
        over=over,
        random=arguments.random,
        out=out,
        resume=arguments.resume,
        by=arguments.by,
        lowest=arguments.lowest,
        **{setting: given[setting] for setting in given.keys() & _settings_in(argv[1:])},
    )
    written = found.save()
    print_sweep(found)
    print("\n".join(map(str, written)))


def _parse_sweep(name: str, argv: list[str]) -> Any:
    """What `_parse_train` knows, and what to sweep."""
    from dataclasses import field

    import tyro

    from jaxrl_hier import registry
    from jaxrl_hier.settings import traceable

    numbers = ", ".join(traceable(registry.module(name).Config))
    more = [
        ("over", tyro.conf.UseAppendAction[tuple[str, ...]], field(default=())),
        ("random", int | None, field(default=None)),
        ("by", str, field(default="return")),
        ("lowest", bool, field(default=False)),
    ]
    about = f"""a sweep of {name}. Settings that share a program: {numbers}. Each value of another one has its own.

    Args:
        over: a setting and its values, learning-rate=1e-3,1e-4; once for each setting that is swept. Values of several
            numbers: "hidden=64 64,128". A range for --random: 1e-4:1e-2, or 1e-4:1e-2:log.
        random: how many combinations to draw; default: all of them.
        by: the measurement that the table is sorted by.
        lowest: the lowest is the best.
        env: environment, by name (`jaxrl-hier list`), or your own as module:factory.
        out: folder of the sweep; default runs/sweep-<algorithm>-<env>.
        resume: go on with the sweep in the folder.
    """
    return _parse_settings(name, argv, f"jaxrl-hier sweep {name}", about, more)


def _over(name: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """The settings to sweep and their values, from words such as "learning-rate=1e-3,1e-4"."""
    from jaxrl_hier import registry
    from jaxrl_hier.checks import UsageError, unknown
    from jaxrl_hier.command_line import arguments_of, flag_of, value_of
    from jaxrl_hier.sweeps.members import Range

    flags = arguments_of(registry.module(name).Config).flags
    found: dict[str, Any] = {}
    for text in texts:
        flag, equals, values = text.partition("=")
        flag = flag_of(flag.removeprefix("--").replace("_", "-"))
        if not equals or not values:
            raise UsageError(f"--over is written --over learning-rate=1e-3,1e-4, got {text!r}")
        setting = flag[2:].replace("-", "_")
        if setting in found:
            raise UsageError(f"--over has {flag[2:]} twice: give all of its values at once")
        if flag not in flags:
            from jaxrl_hier.engine.run_config import RunConfig

            if hasattr(RunConfig, setting):
                raise UsageError(f"{setting} is a setting of the run, the same for all members: it cannot be swept")
            raise unknown(f"setting of {name}", flag[2:], [known[2:] for known in flags])
        if ":" in values:
            low, high, *log = values.split(":")
            if log not in ([], ["log"]):
                raise UsageError(f"--over has ranges written 1e-4:1e-2 or 1e-4:1e-2:log, got {values!r}")
            found[setting] = Range(value_of(flag, flags[flag], low), value_of(flag, flags[flag], high), bool(log))
        else:
            found[setting] = [value_of(flag, flags[flag], value) for value in values.split(",")]
    return found


def _parse_train(name: str, argv: list[str]) -> Any:
    """--env, --out, --resume, and the fields of RunConfig and of the algorithm's Config, all at one level."""
    from dataclasses import field

    from jaxrl_hier import registry

    about = f"""{name}: {registry.entry(name).summary}.

    Args:
        env: environment, by name (`jaxrl-hier list`), or your own as module:factory.
        out: run folder; default runs/<algorithm>-<env>.
        resume: go on with the run in the folder.
        initial: folder of a run whose parameters this one begins with; its environment may be another one.
        distributed: train one run with several processes, which SLURM, Kubernetes or Open MPI have started, or which
            are told of each other by coordinator, processes and process; devices are those of all of them.
        coordinator: host:port of the first process.
        processes: number of processes.
        process: which of them this one is, from 0.
    """
    more = [
        ("initial", str | None, field(default=None)),
        ("distributed", bool, field(default=False)),
        ("coordinator", str | None, field(default=None)),
        ("processes", int | None, field(default=None)),
        ("process", int | None, field(default=None)),
    ]
    return _parse_settings(name, argv, f"jaxrl-hier train {name}", about, more)


def _parse_settings(name: str, argv: list[str], prog: str, about: str, more: list[Any]) -> Any:
    """The arguments of `train` and `sweep`, as an object; `about` is their help."""
    from dataclasses import field, make_dataclass

    from jaxrl_hier import registry
    from jaxrl_hier.command_line import parse
    from jaxrl_hier.engine.run_config import RunConfig

    entry = registry.entry(name)
    config_class = registry.module(name).Config
    arguments = make_dataclass(
        "Arguments",
        [
            ("env", str, field(default=entry.env)),
            ("out", str | None, field(default=None)),
            ("resume", bool, field(default=False)),
            *more,
            ("run", RunConfig, field(default=RunConfig(**entry.run))),
            ("config", config_class, field(default=config_class(**entry.config))),
        ],
    )
    arguments.__doc__ = about
    return parse(arguments, argv, prog)


def _joined_others(argv: list[str]) -> bool:
    """Whether the run has other processes, which are joined; of a single process, cores become the devices that it asks
    for. Before anything else, since imports may already use JAX.

    Raises:
        UsageError: flags that name the other processes are wrong or without --distributed.
    """
    import argparse

    from jaxrl_hier.checks import UsageError

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    try:
        found, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    for name in ("coordinator", "processes", "process"):
        if getattr(found, name) is not None and not found.distributed:
            raise UsageError(f"--{name} is for --distributed")
    if found.distributed:
        from jaxrl_hier.engine import processes

        processes.connect(found.coordinator, found.processes, found.process)
    else:
        _make_devices(argv)
    return found.distributed


def _make_devices(argv: list[str]) -> None:
    """Make devices of a CPU's cores, as many as a command asks for, before imports use JAX."""
    words = [part for word in argv for part in word.split("=", 1)]
    asked = [number for flag, number in pairwise(words) if flag == "--devices"]
    if asked and asked[-1].isdecimal():  # anything else is refused with the other settings
        from jaxrl_hier.engine import sharding

        sharding.devices_of_cores(int(asked[-1]))


def _settings_in(argv: list[str]) -> set[str]:
    """Names of the settings given as flags, in any form: `--log-every 2`, `--log_every=2`, `--no-first-order`."""
    flags = [word[2:].split("=")[0].replace("-", "_") for word in argv if word.startswith("--")]
    return {*flags, *(flag.removeprefix("no_") for flag in flags)}


def _evaluate(argv: list[str]) -> None:
    import tyro

    from jaxrl_hier.command_line import parse

    def arguments(
        run: tyro.conf.Positional[str],
        iteration: int | Literal["best"] | None = None,
        env: str | None = None,
        algorithm: str | None = None,
    ) -> tuple[str, int | Literal["best"] | None, str | None, str | None]:
        """Evaluate a checkpoint of a run.

        Args:
            run: run folder.
            iteration: which checkpoint, by its number or as best (see --keep-best); default the newest.
            env: another environment to evaluate on, by name or as module:factory; default the run's own, which must be
                named again if it is module:factory.
            algorithm: the run's algorithm, which must be named again if it is module:entry.
        """
        return run, iteration, env, algorithm

    directory, iteration, env, algorithm = parse(arguments, argv, "jaxrl-hier evaluate")
    _prepare_process()
    from jaxrl_hier.run import import_path_again, load
    from jaxrl_hier.terminal import print_evaluation

    again = import_path_again(directory, env)
    run = load(directory, again, iteration=iteration, algorithm=algorithm)
    env = None if again else env
    where = "" if env is None else f", evaluated on {env}"
    print_evaluation(
        run.evaluate(env), run.published if env is None else None, f"{run.title}, iteration {run.iteration}{where}"
    )


def _plot(argv: list[str]) -> None:
    import tyro

    from jaxrl_hier.command_line import parse

    def arguments(
        runs: tyro.conf.Positional[tuple[str, ...]],
        out: str = "comparison.png",
        quantity: str | None = None,
        env: str | None = None,
        algorithm: str | None = None,
    ) -> tuple[tuple[str, ...], str, str | None, str | None, str | None]:
        """Draw the pictures of a run from its files, or compare the curves of several runs in one picture.

        Args:
            runs: run folders.
            out: the picture that compares several runs.
            quantity: what the curves of several runs show, by its name in metrics.jsonl; default: the return.
            env: the environment of a single run, which must be named again if it is module:factory.
            algorithm: its algorithm, which must be named again if it is module:entry.
        """
        return runs, out, quantity, env, algorithm

    runs, out, quantity, env, algorithm = parse(arguments, argv, "jaxrl-hier plot")
    from jaxrl_hier import api
    from jaxrl_hier.checks import UsageError
    from jaxrl_hier.reports import comparison
    from jaxrl_hier.terminal import print_comparison

    if not runs:
        raise UsageError("plot needs a run folder, or several to compare")
    if len(runs) == 1:
        print("\n".join(map(str, api.plot(runs[0], env=env, algorithm=algorithm))))
    else:
        print_comparison(comparison.compare(runs, out, quantity))


def _export(argv: list[str]) -> None:
    import tyro

    from jaxrl_hier.command_line import parse

    def arguments(
        run: tyro.conf.Positional[str],
        csv: bool = False,
        policy: bool = False,
        out: str | None = None,
        env: str | None = None,
        algorithm: str | None = None,
    ) -> tuple[str, bool, bool, str | None, str | None, str | None]:
        """Export the metrics and evaluations of a run, or its policy.

        Args:
            run: run folder.
            csv: metrics.csv and evaluations.csv, a line per number.
            policy: the first seed's policy as arrays (npz), a description (JSON) and programs that need only jax.
            out: folder to write to; default: csv or policy in the run folder.
            env: the run's environment, which must be named again if it is module:factory.
            algorithm: the run's algorithm, which must be named again if it is module:entry.
        """
        return run, csv, policy, out, env, algorithm

    directory, csv, policy, out, env, algorithm = parse(arguments, argv, "jaxrl-hier export")
    from jaxrl_hier.checks import UsageError
    from jaxrl_hier.reports.records import export_csv
    from jaxrl_hier.run import folder_of, load

    if csv == policy:
        raise UsageError("export needs to know what to write: --csv or --policy")
    if csv:
        written = export_csv(directory, out)
    else:
        written = load(directory, env, algorithm=algorithm).export(
            folder_of(directory) / "policy" if out is None else out
        )
    print("\n".join(map(str, written)))


def _list(argv: list[str]) -> None:
    from jaxrl_envs.registry import summaries
    from jaxrl_hier import registry

    print("algorithms")
    print("\n".join(f"  {name:<28}{summary}" for name, summary in registry.summaries().items()))
    others = "CartPole-v1, XLand-MiniGrid-R1-9x9, brax:ant, jumanji:Maze-v0, gymnasium:Pendulum-v1"
    print(f"\nenvironments (and ids of others: {others}; and your own, by module:factory)")
    print("\n".join(f"  {name:<28}{summary}" for name, summary in summaries().items()))


def _asks_for_help(argv: list[str]) -> bool:
    return not {"-h", "--help"}.isdisjoint(argv)


def _prepare_process() -> None:
    """Before an algorithm is imported: keep freed memory in the process, and compiled programs between runs, in
    JAX_COMPILATION_CACHE_DIR or else in the user's cache. Import what gymnax draws with when something draws.

    Look for cycles of garbage rarely: imports and traces make millions of objects that stay, and Python would go over
    them again and again.
    """
    from jaxrl_hier.allocator import keep_freed_memory
    from jaxrl_hier.engine.compilation import cache_folder, keep_programs
    from jaxrl_hier.late_imports import import_late

    import_late("seaborn", "matplotlib.pyplot")
    gc.set_threshold(100_000)  # new objects; Python's own is some hundreds
    keep_freed_memory()
    if folder := cache_folder():
        keep_programs(folder)


if __name__ == "__main__":
    main()
