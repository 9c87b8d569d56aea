"""What must hold between settings, and which of them give way when a preset does not go with what the user said.

One list of relations serves both. `require` refuses settings that break one: whoever builds a `Config` himself has said
all of it. `settled` changes what the user has not said, by one rule: it is rounded up to the next multiple, lifted to
the least value or capped at the largest; and what others must be multiples of falls to the largest divisor. So a
message that is left is about what the user said and about the environment.
"""

from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax

from jaxrl_hier.checks import UsageError


class Relation(NamedTuple):
    """Something that must hold between settings. All functions take the settings, as attributes."""

    counts: tuple[str, ...]  # settings that are positive or None; one that is not is refused elsewhere, and none asked
    fits: Callable[[Any], bool]
    gives: dict[str, Callable[[Any], Any]]  # which may give way, the first choice first, and to what value
    message: Callable[[Any], str]  # why what stands there cannot work

    def holds(self, settings: Any) -> bool:
        values = [getattr(settings, name) for name in self.counts]
        return any(value is not None and value < 1 for value in values) or self.fits(settings)


def multiple(name: str, of: str) -> Relation:
    """`name` is a multiple of `of`, or 0; None asks for nothing."""
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
    """`name` is at most `of`."""
    return Relation(
        counts=(name, of),
        fits=lambda s: getattr(s, name) <= getattr(s, of),
        gives={name: lambda s: getattr(s, of), of: lambda s: getattr(s, name)},
        message=lambda s: f"{name} must be at most {of} ({getattr(s, of)}), got {getattr(s, name)}",
    )


def at_least(name: str, of: str) -> Relation:
    """`name` is at least `of`: as `at_most` with the two exchanged, but `name` gives way first."""
    return Relation(
        counts=(name, of),
        fits=lambda s: getattr(s, name) >= getattr(s, of),
        gives={name: lambda s: getattr(s, of), of: lambda s: getattr(s, name)},
        message=lambda s: f"{name} must be at least {of} ({getattr(s, of)}), got {getattr(s, name)}",
    )


def bounded(name: str, most: int | None, what: str) -> Relation:
    """`name` is at most `most`, a fact of the environment that `what` says in words; None: there is no bound."""
    return Relation(
        counts=(name,),
        fits=lambda s: most is None or getattr(s, name) is None or getattr(s, name) <= most,
        gives={name: lambda s: most},
        message=lambda s: f"{name} must be at most {most}, {what}, got {getattr(s, name)}",
    )


def held_out(name: str, tasks: Any) -> Relation:
    """`name` is at most the number of test tasks, where those are finitely many."""
    there_are = how_many(tasks.test)
    return bounded(name, there_are, "")._replace(
        message=lambda s: (
            f"{name}: {getattr(s, name)} test tasks were asked for and the task distribution holds {there_are}"
        )
    )


def how_many(batch: Any) -> int | None:
    """How many tasks a batch of EnvParams with leading axis [N] holds; None for None."""
    return None if batch is None else jax.tree.leaves(batch)[0].shape[0]


def next_multiple(value: int, unit: int) -> int:
    """The least multiple of `unit` from `value` on."""
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


ROUNDS = 1000  # more than any chain of settings that give way to each other takes


def settled(settings: dict[str, Any], relations: Sequence[Relation], said: Collection[str]) -> dict[str, Any]:
    """The settings with those that the user has not `said` changed so that all relations hold.

    Raises:
        UsageError: what the user said cannot hold together, or not in this environment.
    """
    s = SimpleNamespace(**settings)
    at_odds: set[str] = set()
    for i in range(ROUNDS):
        broken = next((relation for relation in relations if not relation.holds(s)), None)
        if broken is None:
            return vars(s)
        if i > ROUNDS // 2:  # the same ones again and again: what gives way to one number breaks with another
            at_odds |= {*broken.counts, *broken.gives} & {*said}
        for name, value_for in broken.gives.items():
            if name not in said and (value := value_for(s)) != getattr(s, name):
                setattr(s, name, value)
                break
        else:
            raise UsageError(broken.message(s))
    listing = ", ".join(f"{name} = {settings[name]}" for name in sorted(at_odds))
    raise UsageError(f"{listing}: these do not go together in this environment")
