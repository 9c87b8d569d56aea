"""Tables on the terminal: evaluations, comparisons and sweeps."""

from typing import Any


def print_evaluation(evaluation: dict[str, Any], published: Any, title: str) -> None:
    """Print a run's table: returns at each adaptation step beside published values, or one row per measurement."""
    from rich.console import Console
    from rich.table import Table

    from jaxrl_hier.engine.evaluation import cut_share, describe, of_seeds_left

    evaluation = {name: of_seeds_left(m) for name, m in evaluation.items()}
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


def print_sweep(found: Any) -> None:
    """The table of a sweep."""
    from rich.console import Console
    from rich.table import Table

    lines, drawn = found.table(), Table()
    names = [*found.members[0].changed]
    for column in ("member", *names, found.by, f"95 % over {found.members[0].run.seeds} seeds"):
        drawn.add_column(column.replace("_", " "), justify="right")
    for line in lines:
        interval = "" if line["low"] is None else f"[{line['low']:.4g}, {line['high']:.4g}]"
        value = (
            f"diverged: {line['diverged']}"
            if line["diverged"]
            else ""
            if line[found.by] is None
            else f"{line[found.by]:.4g}"
        )
        drawn.add_row(*(str(line[k]) for k in ("member", *names)), value, interval)
    Console().print(drawn)
