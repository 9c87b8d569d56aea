"""Axis labels of logged and measured quantities, and how to draw them.

One table for all algorithms. The module of an algorithm may have a table `QUANTITIES`, which takes precedence.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

SHARE = (0.0, 1.0)


class Quantity(NamedTuple):
    """How values of one name are drawn. Axes of evaluations, such as "adaptation_step", have names and labels too."""

    label: str
    factor: float = 1.0  # drawn value / logged value
    log: bool = False  # on a logarithmic axis
    least: float | None = None  # the axis does not go below
    bounds: tuple[float, float] | None = None  # range of possible values, for intervals


QUANTITIES: dict[str, Quantity] = {
    "return": Quantity("mean return of an episode"),
    "episode_length": Quantity("mean steps of an episode", least=0.0),
    "length": Quantity("mean steps of an episode", least=0.0),
    "steps": Quantity("expected steps of an episode", least=0.0),
    "success": Quantity("share of successful episodes", least=0.0, bounds=SHARE),
    "success_at_end": Quantity("success at the last step", least=0.0, bounds=SHARE),
    "adaptation_step": Quantity("adaptation steps"),
    "iteration": Quantity("iteration"),
    "env_steps": Quantity("environment steps"),
}


def quantity(name: str, own: Mapping[str, Quantity] | None = None, first: str = "") -> Quantity:
    """How to draw the quantity `name`; one that is in no table is labelled with its name.

    Args:
        own: the table of the algorithm.
        first: a name to look up in it before `name`.
    """
    own = own or {}
    return own.get(first) or own.get(name) or QUANTITIES.get(name) or Quantity(name.replace("_", " "))


def of_algorithm(module: Any) -> Mapping[str, Quantity]:
    """The table of an algorithm's module, empty where it has none."""
    return getattr(module, "QUANTITIES", {})
