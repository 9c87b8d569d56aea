"""Relations between settings, and which settings adjust when a preset conflicts with what the user set.

One list of relations serves both purposes. `require` refuses settings that break one; it is for a `Config` whose user
has set all of it. `settled` adjusts the settings that the user did not set: each is rounded up to the next multiple,
raised to the least value or lowered to the largest; a number that others must be multiples of is lowered to the largest
divisor. Any remaining error is about the user's own settings and the environment.
"""

from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax

from jaxrl_hier.checks import UsageError


class Relation(NamedTuple):
    """A relation between settings. All functions take an object with the settings as attributes."""

    # settings that must be positive or None; elsewhere the relation is skipped, since other checks refuse such values
    counts: tuple[str, ...]
    fits: Callable[[Any], bool]
    # settings that may be adjusted, the first choice first, and their new values
    gives: dict[str, Callable[[Any], Any]]
    message: Callable[[Any], str]  # why the present settings cannot work

    def holds(self, settings: Any) -> bool:
        values = [getattr(settings, name) for name in self.counts]
        return any(value is not None and value < 1 for value in values) or self.fits(settings)


def multiple(name: str, of: str) -> Relation:
    """`name` is a multiple of `of`, or 0; holds if either is None."""
    return Relation(
        counts=(name, of),
        fits=lambda s: None in (getattr(s, name), getattr(s, of)) or getattr(s, name) % getattr(s, of) == 0,
        gives={
            name: lambda s: next_multiple(getattr(s, name), getattr(s, of)),
            of: lambda s: largest_divisor(getattr(s, name), getattr(s, of)),
        },
        message=lambda s: f"{name} must be a multiple of {of} ({getattr(s, of)}), got {getattr(s, name)}",
    )


def at_most(name: str, of: str) -> Relation:
    """`name` is at most `of`; holds if either is None."""
    return Relation(
        counts=(name, of),
        fits=lambda s: None in (getattr(s, name), getattr(s, of)) or getattr(s, name) <= getattr(s, of),
        gives={name: lambda s: getattr(s, of), of: lambda s: getattr(s, name)},
        message=lambda s: f"{name} must be at most {of} ({getattr(s, of)}), got {getattr(s, name)}",
    )


def at_least(name: str, of: str) -> Relation:
    """`name` is at least `of`: `at_most` with the two exchanged, but `name` is adjusted first."""
    return Relation(
        counts=(name, of),
        fits=lambda s: getattr(s, name) >= getattr(s, of),
        gives={name: lambda s: getattr(s, of), of: lambda s: getattr(s, name)},
        message=lambda s: f"{name} must be at least {of} ({getattr(s, of)}), got {getattr(s, name)}",
    )


def bounded(name: str, most: int | None, what: str) -> Relation:
    """`name` is at most `most`, a bound from the environment that `what` explains; None: no bound."""
    return Relation(
        counts=(name,),
        fits=lambda s: most is None or getattr(s, name) is None or getattr(s, name) <= most,
        gives={name: lambda s: most},
        message=lambda s: f"{name} must be at most {most}, {what}, got {getattr(s, name)}",
    )


def held_out(name: str, tasks: Any) -> Relation:
    """`name` is at most the number of test tasks, if that is finite."""
    there_are = how_many(tasks.test)
    return bounded(name, there_are, "")._replace(
        message=lambda s: (
            f"{name}: {getattr(s, name)} test tasks were asked for and the task distribution holds {there_are}"
        )
    )


def require_fixed_tasks(tasks: Any) -> None:
    """Raises UsageError for tasks that change over a lifetime: meta-learners do not stay on one."""
    if callable(tasks.resample):
        raise UsageError(
            "tasks.resample must be never or episode here: tasks that change over a lifetime need a learner that stays "
            "on one, such as dqn, ppo or option-critic"
        )


def how_many(batch: Any) -> int | None:
    """N of a batch of EnvParams with leading axis [N]; None for None."""
    return None if batch is None else jax.tree.leaves(batch)[0].shape[0]


def next_multiple(value: int, unit: int) -> int:
    """The least multiple of `unit` that is at least `value`."""
    return -(-value // unit) * unit


def largest_divisor(value: int, most: int) -> int:
    """The largest number up to `most` that divides `value`."""
    small = [d for d in range(1, int(value**0.5) + 1) if value % d == 0]
    return max(d for s in small for d in (s, value // s) if d <= most)


def require(settings: Any, relations: Sequence[Relation]) -> None:
    """Raises UsageError for the first relation that does not hold."""
    for relation in relations:
        if not relation.holds(settings):
            raise UsageError(relation.message(settings))


ROUNDS = 1000  # more than any chain of adjustments takes


def settled(settings: dict[str, Any], relations: Sequence[Relation], said: Collection[str]) -> dict[str, Any]:
    """Adjust the settings that the user has not `said` so that all relations hold.

    Raises:
        UsageError: the user's settings conflict with each other or with the environment.
    """
    s = SimpleNamespace(**settings)
    at_odds: set[str] = set()
    for i in range(ROUNDS):
        broken = next((relation for relation in relations if not relation.holds(s)), None)
        if broken is None:
            return vars(s)
        if i > ROUNDS // 2:  # in a cycle: an adjustment for one relation breaks another
            at_odds |= {*broken.counts, *broken.gives} & {*said}
        for name, value_for in broken.gives.items():
            if name not in said and (value := value_for(s)) != getattr(s, name):
                setattr(s, name, value)
                break
        else:
            raise UsageError(broken.message(s))
    listing = ", ".join(f"{name} = {settings[name]}" for name in sorted(at_odds))
    raise UsageError(f"{listing}: these settings conflict in this environment")
