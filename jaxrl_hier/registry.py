"""Algorithms by name: an explicit table, filled by hand, its modules imported on use."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from jaxrl_hier.checks import unknown


@dataclass(frozen=True)
class Entry:
    """Where an algorithm is, and its preset."""

    module: str  # has `Config` and `make(config, env, tasks)`, and may have `published(config, env_name)`
    env: str  # the environment of its preset
    summary: str
    run: dict[str, Any] = field(default_factory=dict)  # what differs from RunConfig's defaults


ALGORITHMS: dict[str, Entry] = {
    "maml": Entry(
        "jaxrl_hier.meta.maml",
        env="navigation2d",
        summary="an initialisation that adapts in a few gradient steps (Finn et al., 2017); FOMAML by --first-order",
        run={"iterations": 100, "checkpoint_every": 10, "evaluate_every": 25},
    ),
}


def entry(name: str) -> Entry:
    """Raises UsageError, with the nearest names, when nothing is called `name`."""
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def module(name: str) -> Any:
    """The module of an algorithm."""
    return import_module(entry(name).module)
