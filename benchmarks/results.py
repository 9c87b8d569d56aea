"""How results are written: rows with their values, intervals and verdicts, and JSON that says where it comes from.

A row keeps the value of each seed, so that its interval and verdict can be computed again: `python -m benchmarks check
--rewrite`. Intervals are those of `jaxrl_hier.reports.statistics`.
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_hier.reports.statistics import (
    COMPARISONS,
    ENOUGH,
    STATISTICS,
    Bounds,
    Interval,
    interquartile_mean,
    mean_of_moments,
    probability_of_improvement,
)

ROOT = Path(__file__).parent / "results"
REPOSITORY = Path(__file__).parent.parent
KEPT = 400  # values that a row keeps at most; of more, mean and standard deviation are enough
EXACT = "exact: nothing is sampled"
WIDE = 0.25  # of the value to compare with: an interval that is wider overlaps too much to say "reached"
RUNS = ("seeds", "runs")  # units that are independent trainings


@dataclass
class Row:
    """One number of a paper's figure or table beside ours. `Row.measured` and `Row.computed` make them.

    interval: 95 %, None where there is none, and `method` says how it was made or why not. seeds: independent values,
    0 where nothing is sampled. statistic, unit, bounds, values, other, deviation: what `ours` was made of, see
    `jaxrl_hier.reports.statistics`; `other` is the second group of a comparison.
    verdict, rule, tolerance: see `judged`. beside: the interquartile mean, or the probability of improvement, with
    their intervals.
    """

    label: str
    ours: float
    interval: Interval | None = None
    seeds: int = 0
    published: float | None = None
    published_interval: Interval | None = None
    exact: float | None = None
    verdict: str = "not comparable"
    note: str = ""
    method: str = EXACT
    rule: str = ""
    tolerance: float = 0.0
    statistic: str = ""
    unit: str = "seeds"
    bounds: Bounds = None
    values: list[float] | None = None
    other: list[float] | None = None
    deviation: float | None = None
    beside: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def measured(
        cls, label: str, values: Any, other: Any = None, statistic: str = "", bounds: Bounds = None, **about: Any
    ) -> "Row":
        """The row of one value per seed (or of what `unit` names): a mean, or a difference from `other`, or what
        `statistic` says."""
        values = np.asarray(values, np.float64)
        row = cls(
            label, 0.0, statistic=statistic or ("mean" if other is None else "difference"), bounds=bounds, **about
        )
        if other is not None:
            row.other = [six_digits(x) for x in np.asarray(other, np.float64)]
        if len(values) > KEPT and row.statistic == "mean" and bounds is None:
            about.setdefault("unit", row.unit)
            return cls.summarised(label, values.mean(), values.std(ddof=1), len(values), **about)
        # as the file keeps them, so that the same interval follows from the file; differences in the seventh digit are
        # rounding, and no spread
        row.values = [six_digits(x) for x in values]
        return row.estimated()

    @classmethod
    def summarised(cls, label: str, value: float, deviation: float, count: int, unit: str, **about: Any) -> "Row":
        """The row of a mean of `count` values with this standard deviation."""
        return cls(label, float(value), seeds=count, unit=unit, deviation=float(deviation), **about).estimated()

    @classmethod
    def computed(cls, label: str, value: float, **about: Any) -> "Row":
        """The row of a number in which nothing is random."""
        return cls(label, float(value), **about)

    def estimated(self) -> "Row":
        """The row with number, interval and method from its values; as it is where they were not kept."""
        if self.deviation is not None:
            found = mean_of_moments(self.ours, self.deviation, self.seeds, self.unit)
        elif self.values is None:
            return self
        elif self.other is None:
            found = STATISTICS[self.statistic](self.values, self.unit, self.bounds)
        else:
            found = COMPARISONS[self.statistic](self.values, self.other, self.unit, self.bounds)
        self.ours, self.interval, self.method = found.value, found.interval, found.method
        self.seeds = self.seeds if self.values is None else len(self.values)
        self.beside = self._beside()
        return self

    def _beside(self) -> dict[str, Any]:
        """Where there are enough seeds, what rliable recommends to look at."""
        groups = [group for group in (self.values, self.other) if group]
        if self.unit not in RUNS or min(map(len, groups), default=0) < ENOUGH:
            return {}
        if self.statistic in ("mean", "mean inside"):
            name, found = "interquartile mean", interquartile_mean(self.values, self.unit)
        elif self.statistic in ("difference", "difference inside"):
            name, found = "probability of improvement", probability_of_improvement(self.values, self.other, self.unit)
        else:
            return {}
        return {name: {"ours": found.value, "interval": found.interval, "method": found.method}}

    def judged(self, rule: str = "higher") -> "Row":
        """The row with its verdict, most often "reached" or "short", by a rule:

        - "higher", "lower": ours is better than the published (or else exact) value, up to a share of `tolerance`, or
          is within the published interval, or has an interval that overlaps it. "open" when that is only so because the
          interval is wider than a share of `WIDE` of the value; "not comparable" when there is nothing to compare with.
        - "above x", "below x": the whole interval is; without an interval nothing is shown.
        - "at least x", "at most x", "within x" (of zero): the number itself is.
        - "meets x y": the interval meets that from x to y; "more" when it lies above.
        """
        self.rule = rule
        low, high = self.interval or (self.ours, self.ours)
        kind, _, number = rule.rpartition(" ")
        if rule.startswith("meets "):
            least, most = map(float, rule.split()[1:])
            self.verdict = "short" if high < least else "more" if low > most else "reached"
        elif kind in ("above", "below"):
            beyond = low > float(number) if kind == "above" else high < float(number)
            self.verdict = "reached" if self.interval and beyond else "short"
        elif kind in ("at least", "at most", "within"):
            size = abs(self.ours) if kind == "within" else self.ours
            there = size >= float(number) if kind == "at least" else size <= float(number)
            self.verdict = "reached" if there else "short"
        elif rule in ("higher", "lower"):
            target = self.published if self.published is not None else self.exact
            if target is not None:
                slack = self.tolerance * abs(target)
                theirs = self.published_interval or (target - slack, target + slack)
                better = self.ours >= target if rule == "higher" else self.ours <= target
                if better or theirs[0] <= self.ours <= theirs[1]:
                    self.verdict = "reached"
                elif high < theirs[0] or theirs[1] < low:
                    self.verdict = "short"
                else:
                    self.verdict = "open" if high - low > WIDE * abs(target) else "reached"
        else:
            raise ValueError(f"no rule is called {rule!r}")
        return self

    def told(self, zero: float = 0.0) -> str:
        """Whether a difference (or a ratio, with `zero` = 1) is told apart from none."""
        if self.interval is None:
            return "no interval"
        return "above" if self.interval[0] > zero else "below" if self.interval[1] < zero else "not told apart"

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Row":
        """The row that `as_json` wrote. What is infinite was written as null."""
        infinite = lambda numbers: [np.inf if x is None else x for x in numbers] if numbers else None
        lists = {name: infinite(found.get(name)) for name in ("values", "other", "interval")}
        row = cls(**found | lists)
        row.interval, row.bounds = ((x[0], x[1]) if x else None for x in (row.interval, row.bounds))
        row.ours = np.inf if row.ours is None else row.ours
        return row

    def as_json(self) -> dict[str, Any]:
        """Without what is as by default, but for the interval, which is null where there is none."""
        default = {f.name: {} if f.default is MISSING else f.default for f in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name in ("label", "ours", "interval", "seeds", "verdict", "method") or value != default[name]
        }


def show(rows: Iterable[Row], width: int = 72) -> None:
    """Print rows as a table."""
    for row in rows:
        interval = "" if row.interval is None else "[{:.4g}, {:.4g}]".format(*row.interval)
        target = row.published if row.published is not None else row.exact
        against = "" if target is None else f"{target:.4g}"
        print(
            f"{row.label:<{width}}{row.ours:10.4g} {interval:>22} {against:>9}  {row.verdict}  {row.note}", flush=True
        )


def provenance() -> dict[str, Any]:
    """The command that is running, of which commit, when and on what; of absolute paths the last part, the rest is of
    this machine alone."""
    import jax

    versions = {"python": platform.python_version()}
    for name in ("jaxrl-hier", "jax", "jaxlib", "flax", "optax", "gymnax", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    module = sys.modules["__main__"].__spec__
    command = f"python -m {module.name.removesuffix('.__main__')}" if module else f"python {Path(sys.argv[0]).name}"
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    kind = f"{cores} CPU core{'s' if cores > 1 else ''}" if device.platform == "cpu" else device.device_kind
    arguments = [Path(argument).name if argument.startswith("/") else argument for argument in sys.argv[1:]]
    return {
        "command": shlex.join([*command.split(), *arguments]),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": kind,
        "versions": versions,
    }


def commit(repository: Path = REPOSITORY) -> str | None:
    """What is checked out, "+" behind it where the code has changed since; None outside of git."""
    git = ["git", "-C", str(repository)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changed = [*git, "diff", "--quiet", "HEAD", "--", "*.py"]
    return head.stdout.strip() + ("+" if subprocess.run(changed, check=False).returncode else "")


def write(path: Path, content: dict[str, Any]) -> Path:
    """One JSON file, rounded to six digits, lists of numbers on one line; what is infinite or NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(content), indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(
        r"\[\n[^\[\]{}\"]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text
    )
    path.write_text(text + "\n")
    return path


def six_digits(x: float) -> float:
    """The number as result files keep it."""
    return float(f"{x:.6g}")


def _rounded(x: Any) -> Any:
    if isinstance(x, float):
        return six_digits(x) if np.isfinite(x) else None
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    return [_rounded(v) for v in x] if isinstance(x, (list, tuple)) else x
