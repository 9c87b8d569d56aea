"""jaxrl-hier: train, evaluate, plot, list. Flags come from the config dataclasses; heavy imports wait until needed."""

import sys
from typing import Any

HELP = """\
jaxrl-hier: hierarchical and meta reinforcement learning in JAX

  jaxrl-hier train ALGORITHM [options]   train, evaluate, draw; `train ALGORITHM --help` shows all settings
  jaxrl-hier train ALGORITHM --out DIR --resume
                                         go on with a run from its last checkpoint
  jaxrl-hier evaluate DIR                evaluate a run's checkpoint, with --env on another environment
  jaxrl-hier plot DIR                    draw a run's pictures again
  jaxrl-hier plot DIR DIR ...            compare runs: curves and final evaluations with intervals
  jaxrl-hier export DIR --csv            write metrics and evaluations as CSV, a line per number
  jaxrl-hier export DIR --policy         write the policy as arrays and programs that need only jax
  jaxrl-hier list                        algorithms and environments

Every flag is also a keyword of jaxrl_hier.train(...).\
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit code 2: wrong usage, explained in one line; 1: training diverged; 130, 143: stopped by
    SIGINT or SIGTERM."""
    argv = sys.argv[1:] if argv is None else argv
    from jaxrl_hier.checks import DivergedError, UsageError, unknown

    commands = {"train": _train, "evaluate": _evaluate, "plot": _plot, "export": _export, "list": _list}
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
    except DivergedError as error:
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
    arguments = _parse_train(name, argv[1:])
    _prepare_process()
    from jaxrl_hier import api

    out = arguments.out or f"runs/{name}-{arguments.env}".replace(":", "-")
    run = api.train_configured(
        name,
        arguments.config,
        arguments.run,
        arguments.env,
        out=out,
        resume=arguments.resume,
        said=_settings_in(argv[1:]),
    )
    print_evaluation(run.evaluation, run.published, run.title)
    print(f"trained in {run.seconds:.0f} s (compilation {run.compile_seconds:.0f} s); everything is in {out}")


def _parse_train(name: str, argv: list[str]) -> Any:
    """--env, --out, --resume, and the fields of RunConfig and of the algorithm's Config, all at one level."""
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
            ("run", RunConfig, field(default=RunConfig(**entry.run))),
            ("config", config_class, field(default=config_class(**entry.config))),
        ],
    )
    arguments.__doc__ = f"""{name}: {entry.summary}.

    Args:
        env: environment, by name (`jaxrl-hier list`), or your own as module:factory.
        out: run folder; default runs/<algorithm>-<env>.
        resume: go on with the run in the folder.
    """
    return parse(arguments, argv, f"jaxrl-hier train {name}")


def _settings_in(argv: list[str]) -> set[str]:
    """Names of the settings given as flags, in any form: `--log-every 2`, `--log_every=2`, `--no-first-order`."""
    flags = [word[2:].split("=")[0].replace("-", "_") for word in argv if word.startswith("--")]
    return {*flags, *(flag.removeprefix("no_") for flag in flags)}


def _evaluate(argv: list[str]) -> None:
    import tyro

    from jaxrl_hier.command_line import parse

    def arguments(
        run: tyro.conf.Positional[str],
        iteration: int | None = None,
        env: str | None = None,
        algorithm: str | None = None,
    ) -> tuple[str, int | None, str | None, str | None]:
        """Evaluate a checkpoint of a run.

        Args:
            run: run folder.
            iteration: which checkpoint; default the newest.
            env: another environment to evaluate on, by name or as module:factory; default the run's own, which must be
                named again if it is module:factory.
            algorithm: the run's algorithm, which must be named again if it is module:entry.
        """
        return run, iteration, env, algorithm

    directory, iteration, env, algorithm = parse(arguments, argv, "jaxrl-hier evaluate")
    _prepare_process()
    from jaxrl_hier.run import import_path_again, load

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

    if not runs:
        raise UsageError("plot needs a run folder, or several to compare")
    if len(runs) == 1:
        print("\n".join(map(str, api.plot(runs[0], env, algorithm))))
    else:
        print_comparison(comparison.compare(runs, out, quantity))


def print_comparison(found: Any) -> None:
    """The final evaluations of groups of runs, with intervals, and where the curves are."""
    from rich.console import Console
    from rich.table import Table

    from jaxrl_hier.reports.comparison import table

    lines = table(found.final)
    if lines:
        drawn = Table()
        for column in ("measured at the end", "runs"):
            drawn.add_column(column)
        for column in ("mean", "95 %", "over"):
            drawn.add_column(column, justify="right")
        before = None
        for what, *cells in lines:
            drawn.add_row("" if what == before else what, *cells)
            before = what
        Console().print(drawn)
    else:
        print("the runs have no evaluation in common")
    print(found.picture if found.picture else "the runs have logged nothing that could be drawn for all of them")


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
    others = "CartPole-v1, XLand-MiniGrid-R1-9x9, atari-pong, gymnasium:Pendulum-v1"
    print(f"\nenvironments (and ids of others: {others}; and your own, by module:factory)")
    print("\n".join(f"  {name:<28}{summary}" for name, summary in summaries().items()))


def print_evaluation(evaluation: dict[str, Any], published: Any, title: str) -> None:
    """Print a run's table: returns at each adaptation step beside published values, or one row per measurement."""
    from rich.console import Console
    from rich.table import Table

    from jaxrl_hier.engine.evaluation import cut_share, describe

    measured = evaluation.get("return")
    table = Table()
    if measured is not None and measured.axes == ("seed", "task", "adaptation_step"):
        title += ": return on the test tasks at each adaptation step, and the experience of the task before it"
        _adaptation_rows(table, evaluation, published)
    else:
        _measurement_rows(table, evaluation)
    if table.row_count:
        print(title)  # as a table's title it would wrap at the table's width
        Console().print(table)
    else:
        print(f"{title}: {describe(evaluation)}")
    if cut := cut_share(evaluation):
        print(f"{cut:.0%} of the episodes had not ended when they were cut: their returns are of the steps until then")


def _adaptation_rows(table: Any, evaluation: dict[str, Any], published: Any) -> None:
    """A row per adaptation step: experience of the task, our mean with its interval, the published value."""
    from jaxrl_hier.reports.statistics import adaptation_curve, experience

    curve = adaptation_curve(evaluation["return"])
    found = {unit: experience(evaluation, unit) for unit in ("episodes", "steps")}
    known = {unit: before for unit, before in found.items() if before is not None}
    for name in ("step", *known):  # short, so that all fits into 80 columns
        table.add_column(name, justify="right")
    table.add_column("ours", justify="right")
    table.add_column(f"95 % over {curve[0].over}", justify="right")
    if published is not None:
        table.add_column(published.label, justify="right")
    for k, e in enumerate(curve):
        row = [str(k), *(f"{before[k]:.0f}" for before in known.values()), f"{e.value:.2f}", e.bracket(".2f")]
        if published is not None:
            row.append(published.text(k))
        table.add_row(*row)


SOME = 10  # episodes that count as the first, or the last, of training


def _measurement_rows(table: Any, evaluation: dict[str, Any]) -> None:
    """A row for each measurement that averages to one number; those by state are left to the pictures.

    "best_<name>" is a column of the row "<name>". "training_<name>" [..., episode] gives two rows, for the first and
    the last recorded episodes; a "training_length" of 0 marks those that have not ended.
    """
    import numpy as np

    from jaxrl_hier.reports.records import AVERAGED
    from jaxrl_hier.reports.statistics import FRACTION, mean

    rows = {}
    for name, m in evaluation.items():
        if not set(m.axes) <= AVERAGED or name.startswith("best_") or name == "complete":
            continue
        label, values = name.replace("_", " "), np.asarray(m.values, float)
        if name.startswith("training_"):
            ended = evaluation["training_length"].values > 0
            number = np.cumsum(ended, axis=-1)  # of each episode among those that ended
            rows[f"{label}, first {SOME}"] = np.where(ended & (number <= SOME), values, np.nan)
            rows[f"{label}, last {SOME}"] = np.where(ended & (number > number[..., -1:] - SOME), values, np.nan)
        else:
            rows[label] = values
    seeds = max((len(values) for values in rows.values()), default=0)
    table.add_column("measured")
    table.add_column("mean", justify="right")
    if seeds > 1:
        table.add_column(f"95 % over {seeds} seeds", justify="right")
    best_known = any(name.startswith("best_") for name in evaluation)
    if best_known:
        table.add_column("best possible", justify="right")
    for label, values in rows.items():
        by_seed = [np.nanmean(x) for x in values if not np.isnan(x).all()]
        if not by_seed:
            continue
        cells = [label, f"{np.mean(by_seed):.4g}"]
        if seeds > 1:
            rate = label.startswith("success") and 0 <= min(by_seed) <= max(by_seed) <= 1
            # empty if all seeds are equal or one is infinite, such as the steps of a policy that may never arrive
            cells.append(mean(by_seed, bounds=FRACTION if rate else None).bracket(".4g"))
        best = evaluation.get(f"best_{label.replace(' ', '_')}")
        if best_known:
            cells.append("" if best is None else f"{np.mean(best.values):.4g}")
        table.add_row(*cells)


def _prepare_process() -> None:
    """Keep freed memory in the process, and compiled programs between runs: in JAX_COMPILATION_CACHE_DIR, or else in
    the user's cache."""
    from jaxrl_hier.allocator import keep_freed_memory
    from jaxrl_hier.engine.compilation import cache_folder, keep_programs

    keep_freed_memory()
    if folder := cache_folder():
        keep_programs(folder)


if __name__ == "__main__":
    main()
