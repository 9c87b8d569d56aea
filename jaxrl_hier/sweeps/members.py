"""The members of a sweep: combinations of settings, from a grid, drawn at random, or given."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_hier import registry
from jaxrl_hier.building import built, config_of, fitted
from jaxrl_hier.checks import UsageError, unknown
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import Tasks
from jaxrl_hier.relations import settled
from jaxrl_hier.settings import held, is_traced, shown

MOST = 10_000  # members of a sweep


class Range(NamedTuple):
    """Numbers from `low` to `high`, of which a random sweep draws; `log`: their logarithms are uniform."""

    low: float
    high: float
    log: bool = False


Over = (
    Mapping[str, Sequence[Any] | np.ndarray | jax.Array | Range] | Sequence[Mapping[str, Any]]
)  # setting -> its values; or combinations


class Member(NamedTuple):
    """One combination of settings."""

    changed: dict[str, Any]  # the settings that are swept, as the config holds them
    config: Any
    run: RunConfig


def combinations(over: Over, random: int | None, seed: int) -> list[dict[str, Any]]:
    """The grid of all values or, with `random`, so many combinations drawn from them; or those that are given.

    Raises:
        UsageError: no values, a range in a grid, a range that is none, or too many combinations.
    """
    if not over:
        raise UsageError("a sweep needs over, the settings to sweep and their values")
    if not isinstance(over, Mapping):
        if isinstance(over, str) or not isinstance(over, Sequence):
            raise UsageError(f"over needs values for each setting, or combinations of settings, got {shown(over)}")
        return _given(over, random)
    if bad := [name for name in over if not isinstance(name, str)]:
        raise UsageError(f"over has values for each setting by its name, got {shown(bad[0])} as a name")
    listed: dict[str, Any] = {name: [*values] if _is_array(values) else values for name, values in over.items()}
    for name, values in listed.items():
        if isinstance(values, Range):
            _require_range(name, values, random)
        elif isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise UsageError(f"over needs a list of values of {name}, got {shown(values)}")
    if random is None:
        if (count := math.prod(map(len, listed.values()))) > MOST:
            raise UsageError(f"over has {count} combinations, and a sweep has at most {MOST}: draw some by random")
        return [dict(zip(listed, values)) for values in itertools.product(*listed.values())]
    if isinstance(random, bool) or not isinstance(random, int | np.integer) or not 1 <= random <= MOST:
        raise UsageError(f"random must be a number of combinations from 1 to {MOST}, got {shown(random)}")
    draw = np.random.default_rng(seed)
    return [{name: _drawn(values, draw) for name, values in listed.items()} for _ in range(random)]


def _is_array(values: Any) -> bool:
    return isinstance(values, np.ndarray | jax.Array) and not is_traced(values) and values.ndim > 0


def _given(over: Sequence[Mapping[str, Any]], random: int | None) -> list[dict[str, Any]]:
    if not all(isinstance(each, Mapping) and each and each.keys() == over[0].keys() for each in over):
        raise UsageError("over needs combinations of the same settings, or values for each setting")
    if random is not None:
        raise UsageError("random draws from the values of settings; over has combinations already")
    return [dict(each) for each in over]


def _require_range(name: str, values: Range, random: int | None) -> None:
    if not all(isinstance(x, int | float | np.number) and not isinstance(x, bool) for x in values[:2]):
        raise UsageError(f"over needs a range of {name} between two numbers, got {shown(tuple(values[:2]))}")
    if random is None:
        raise UsageError(f"over has a range of {name}: say by random how many combinations to draw, or give values")
    if not -math.inf < values.low < values.high < math.inf or (values.log and values.low <= 0):
        what = f"{values.low:g}:{values.high:g}" + ":log" * values.log
        raise UsageError(
            f"over needs a range of {name} from low to high, above 0 where it is of logarithms, got {what}"
        )


def with_real_ends(config_class: type, over: Any) -> Any:
    """`over` with ranges of real numbers for settings that hold these, also where the ends are whole."""
    known = {f.name for f in dataclasses.fields(config_class)}

    def real(setting: str, values: Any) -> Any:
        whole = isinstance(values, Range) and isinstance(values.low, int) and setting in known
        return values._replace(low=float(values.low)) if whole and _is_real(config_class, setting) else values

    return {k: real(k, values) for k, values in over.items()} if isinstance(over, Mapping) else over


def _is_real(config_class: type, setting: str) -> bool:
    try:
        return isinstance(held(config_class, setting, 1), float)
    except UsageError:  # no number at all
        return False


def _drawn(values: Sequence[Any] | Range, draw: np.random.Generator) -> Any:
    """One of the values. Of a range of whole numbers, a whole number."""
    if not isinstance(values, Range):
        return values[int(draw.integers(len(values)))]
    low, high, log = values
    whole = isinstance(low, int) and isinstance(high, int)
    low, high = (low - 0.5, high + 0.5) if whole and not log else (low, high)
    x = math.exp(draw.uniform(math.log(low), math.log(high))) if log else draw.uniform(low, high)
    return round(x) if whole else float(f"{x:.6g}")


def members_of(
    name: str, over: Over, random: int | None, settings: dict[str, Any], env: Any, tasks: Tasks
) -> list[Member]:
    """The members, each of which has been checked as `train` checks its settings, so that nothing compiles in vain.

    Raises:
        UsageError: a setting of the run, which cannot be swept, an unknown one, or values that cannot work.
    """
    of_run = {f.name for f in dataclasses.fields(RunConfig)}
    known = {f.name for f in dataclasses.fields(registry.module(name).Config)}
    run = RunConfig(**registry.entry(name).run | {k: v for k, v in settings.items() if k in of_run})
    run = run if "plots" in settings else replace(run, plots=False)
    run = RunConfig(**settled(vars(run), run.relations(None, None), settings))
    run.validate()
    drawn = combinations(with_real_ends(registry.module(name).Config, over), random, run.seed)
    for setting in drawn[0]:
        if setting in of_run:
            raise UsageError(f"{setting} is a setting of the run, the same for all members: it cannot be swept")
        if setting not in known:
            raise unknown(f"setting of {name}", setting, known)
        if setting in settings:
            raise UsageError(f"{setting} is swept, and cannot be set as well")
    if run.keep_best or run.on_nan == "drop-seed":
        which = "keep_best" if run.keep_best else "on_nan drop-seed"
        raise UsageError(
            f"{which} is for a single run, not for a sweep: a member with a seed that diverges is left out"
        )
    config_class = registry.module(name).Config
    for setting, values in over.items() if isinstance(over, Mapping) else ():
        if not isinstance(values, Range) and len({held(config_class, setting, x) for x in values}) < len(values):
            raise UsageError(f"over has a value of {setting} twice")
    own = {k: v for k, v in settings.items() if k not in of_run}
    found = []
    for changed in drawn:
        config = config_of(name, own | changed, of_run)
        config, of_member = fitted(config, run, env, tasks, {*settings, *changed})
        of_member.validate()
        built(name, config, env, tasks)
        found.append(Member({k: getattr(config, k) for k in changed}, config, of_member))
    return found
